#define _GNU_SOURCE
/* What C does to callbacks in the tests. Each function is called by ctypes, which lets go of the GIL. */
#include <callbridge.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Calls the callback `count` times; the first status that is not CBR_OK, or CBR_OK; the sum of the results. */
cbr_status caller_loop(cbr_handle handle, void *arg, long count, intptr_t *out_sum) {
  intptr_t sum = 0;
  cbr_status status = CBR_OK;
  for (long i = 0; i < count && status == CBR_OK; i++) {
    intptr_t result = 0;
    status = cbr_call(handle, arg, &result);
    sum += result;
  }
  *out_sum = sum;
  return status;
}

/* A thread of C's own that calls until it is told to stop, or the callback is gone. */
struct caller {
  pthread_t thread;
  cbr_handle handle;
  void *arg;
  long count; /* 0: until stopped */
  bool until_stale;
  atomic_bool stop;
  atomic_long calls;
  _Atomic(cbr_status) status;
  atomic_bool ended;
};

static void *caller_run(void *data) {
  struct caller *it = data;
  for (long i = 0; (it->count == 0 || i < it->count) && !atomic_load(&it->stop); i++) {
    intptr_t result;
    cbr_status status = cbr_call(it->handle, it->arg, &result);
    atomic_store(&it->status, status);
    if (status == CBR_OK) atomic_fetch_add(&it->calls, 1);
    if (it->until_stale && status == CBR_ERR_STALE) break;
  }
  atomic_store(&it->ended, true);
  return NULL;
}

struct caller *caller_start(cbr_handle handle, void *arg, long count, bool until_stale) {
  struct caller *it = calloc(1, sizeof *it);
  if (it == NULL) abort();
  it->handle = handle, it->arg = arg, it->count = count, it->until_stale = until_stale;
  if (pthread_create(&it->thread, NULL, caller_run, it) != 0) abort();
  return it;
}

long caller_calls(struct caller *it) { return atomic_load(&it->calls); }
cbr_status caller_status(struct caller *it) { return atomic_load(&it->status); }

/* Stops it, and gives its last status. */
cbr_status caller_join(struct caller *it, bool stop) {
  if (stop) atomic_store(&it->stop, true);
  pthread_join(it->thread, NULL);
  cbr_status status = atomic_load(&it->status);
  free(it);
  return status;
}

/* Runs a function on a new thread to its end: the last call of a callback, say. */
struct job {
  cbr_status (*function)(cbr_handle);
  cbr_handle handle;
  cbr_status status;
};
static void *job_run(void *data) {
  struct job *it = data;
  it->status = it->function(it->handle);
  return NULL;
}
static cbr_status on_thread(cbr_status (*function)(cbr_handle), cbr_handle handle) {
  struct job job = {function, handle, CBR_OK};
  pthread_t thread;
  if (pthread_create(&thread, NULL, job_run, &job) != 0) abort();
  pthread_join(thread, NULL);
  return job.status;
}
cbr_status caller_release_on_thread(cbr_handle handle) { return on_thread(cbr_release, handle); }
cbr_status caller_unregister_on_thread(cbr_handle handle) { return on_thread(cbr_unregister, handle); }

/* Posts `count` events of 8 bytes, 0 to count - 1, from a thread of C's. */
struct poster {
  cbr_queue queue;
  cbr_handle handle;
  uint64_t count;
  cbr_status status;
};
static void *poster_run(void *data) {
  struct poster *it = data;
  for (uint64_t i = 0; i < it->count; i++) {
    do {
      it->status = cbr_post(it->queue, it->handle, &i, sizeof i);
      if (it->status == CBR_ERR_FULL) usleep(100);
    } while (it->status == CBR_ERR_FULL);
    if (it->status != CBR_OK) break;
  }
  return NULL;
}
struct posting {
  pthread_t thread;
  struct poster poster;
};
struct posting *caller_post(cbr_queue queue, cbr_handle handle, uint64_t count) {
  struct posting *it = calloc(1, sizeof *it);
  if (it == NULL) abort();
  it->poster = (struct poster){queue, handle, count, CBR_OK};
  if (pthread_create(&it->thread, NULL, poster_run, &it->poster) != 0) abort();
  return it;
}
cbr_status caller_posted(struct posting *it) {
  pthread_join(it->thread, NULL);
  cbr_status status = it->poster.status;
  free(it);
  return status;
}

/* When the process ends, after Python has: calls the callback, and a thunk, on a thread of its own, and prints. */
static cbr_handle late_handle;
static int (*late_thunk)(int);
static void *late_run(void *data) {
  (void)data;
  cbr_status status = cbr_call(late_handle, NULL, NULL);
  cbr_status release = cbr_release(late_handle);
  dprintf(1, "late %s %s %d\n", cbr_status_name(status), cbr_status_name(release),
          late_thunk == NULL ? 0 : late_thunk(1));
  return NULL;
}
__attribute__((destructor)) static void late(void) {
  pthread_t thread;
  if (late_handle == 0) return;
  if (pthread_create(&thread, NULL, late_run, NULL) != 0) abort();
  pthread_join(thread, NULL);
}
void caller_call_late(cbr_handle handle, int (*thunk)(int)) { late_handle = handle, late_thunk = thunk; }

/* A C callback that lasts until it is let go, and one that counts its destroy functions. */
static atomic_long destroyed;
static intptr_t counting(void *user_data, void *arg) { return (intptr_t)user_data + (intptr_t)arg; }
static void count_destroy(void *user_data) {
  (void)user_data;
  atomic_fetch_add(&destroyed, 1);
}
cbr_status caller_register(intptr_t number, cbr_handle *out_handle) {
  return cbr_register(counting, (void *)number, count_destroy, out_handle);
}
long caller_destroyed(void) { return atomic_load(&destroyed); }
