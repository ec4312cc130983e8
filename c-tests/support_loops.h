/* What the tests of the loops' adapters share: a callback that counts on the loop's thread, a queue with
 * events, and a look at this process's descriptors. */
#ifndef CALLBRIDGE_SUPPORT_LOOPS_H
#define CALLBRIDGE_SUPPORT_LOOPS_H

#include "support_threads.h"

#include <dirent.h>
#include <sys/resource.h>

struct loop_subject {
  cbr_handle handle;
  cbr_queue queue;
  pthread_t thread; /* where calls are expected */
  int calls;
  int at; /* on the call with this number, from 1, `then` runs */
  void (*then)(struct loop_subject *);
  void *extra; /* for the test */
};

static inline intptr_t loop_subject_fn(void *user_data, void *arg) {
  struct loop_subject *it = (struct loop_subject *)user_data;
  (void)arg;
  CHECK(pthread_equal(it->thread, pthread_self()));
  it->calls++;
  if (it->calls == it->at) it->then(it);
  return 0;
}

/* A callback and a queue with these options; NULL: the defaults. Calls are expected on this thread. */
static inline void loop_subject_open(struct loop_subject *it, const cbr_queue_options *options) {
  memset(it, 0, sizeof *it);
  it->thread = pthread_self();
  CHECK_OK(cbr_queue_open(options, &it->queue));
  CHECK_OK(cbr_register(loop_subject_fn, it, NULL, &it->handle));
}

static inline void post(const struct loop_subject *it, int events) {
  for (int i = 0; i < events; i++) CHECK_OK(cbr_post(it->queue, it->handle, &i, sizeof i));
}

static inline size_t waiting(const struct loop_subject *it) {
  size_t len = 0;
  CHECK_OK(cbr_queue_len(it->queue, &len));
  return len;
}

enum { POSTERS = 2, POSTS = 2000 };

static inline void *run_poster(void *arg) {
  post((const struct loop_subject *)arg, POSTS);
  return NULL;
}

/* Another thread takes the queue; this one is no owner any more. */
static inline void *run_adopter(void *arg) {
  CHECK_OK(cbr_queue_adopt(((struct loop_subject *)arg)->queue));
  return NULL;
}

static inline int open_descriptors(void) {
  int count = 0;
  DIR *folder = opendir("/proc/self/fd");
  CHECK(folder != NULL);
  while (readdir(folder) != NULL) count++;
  closedir(folder);
  return count;
}

/* No more descriptors can be opened; the number to give back to allow_descriptors. */
static inline rlim_t forbid_descriptors(void) {
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlim_t before = limit.rlim_cur;
  limit.rlim_cur = 0;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  return before;
}

static inline void allow_descriptors(rlim_t number) {
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = number;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

#endif
