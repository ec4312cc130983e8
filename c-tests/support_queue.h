/* Queues for tests: ears, which write down what they hear, payloads that notice a second free,
 * loops, which are threads that dispatch, and producers, which are threads that post once. */
#ifndef CALLBRIDGE_SUPPORT_QUEUE_H
#define CALLBRIDGE_SUPPORT_QUEUE_H

#include "support_owners.h"

#include <poll.h>

#define MS INT64_C(1000000)

static inline cbr_status queue_try_open(cbr_scope scope, size_t capacity, uint32_t policy,
                                        uint32_t flags, cbr_queue *out_queue) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  options.scope = scope;
  options.capacity = capacity;
  options.policy = policy;
  options.flags = flags;
  return cbr_queue_open(&options, out_queue);
}

static inline cbr_queue queue_open_in(cbr_scope scope, size_t capacity, uint32_t policy,
                                      uint32_t flags) {
  cbr_queue queue = 0;
  CHECK_OK(queue_try_open(scope, capacity, policy, flags, &queue));
  CHECK(queue != 0);
  return queue;
}

static inline cbr_queue queue_open(size_t capacity, uint32_t policy, uint32_t flags) {
  return queue_open_in(0, capacity, policy, flags);
}

static inline size_t queue_len(cbr_queue queue) {
  size_t len = 99;
  CHECK_OK(cbr_queue_len(queue, &len));
  return len;
}

/* Closed and drained: CLOSED for a while, later STALE. */
static inline void check_gone(cbr_status status) {
  if (status != CBR_ERR_STALE) CHECK_STATUS(status, CBR_ERR_CLOSED);
}

static inline void queue_discard(cbr_queue queue) {
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  check_gone(cbr_queue_dispatch(queue, 0, 0, NULL));
}

/* What is there now, at most max of it; 0: all. */
static inline size_t dispatch_some(cbr_queue queue, size_t max) {
  size_t count = 99;
  CHECK_OK(cbr_queue_dispatch(queue, max, 0, &count));
  return count;
}

/* Until nothing is left; returns how much it was. */
static inline size_t dispatch_all(cbr_queue queue) {
  size_t count = 99, sum = 0;
  cbr_status status;
  while ((status = cbr_queue_dispatch(queue, 0, 0, &count)) == CBR_OK) sum += count;
  CHECK_EQ(count, 0);
  if (status != CBR_ERR_EMPTY) check_gone(status);
  return sum;
}

static inline bool readable(int fd) {
  struct pollfd it = {fd, POLLIN, 0};
  CHECK(poll(&it, 1, 0) >= 0);
  CHECK_EQ(it.revents & ~POLLIN, 0);
  return it.revents != 0;
}

static inline int queue_fd(cbr_queue queue) {
  int fd = -1;
  CHECK_OK(cbr_queue_fd(queue, &fd));
  CHECK(fd >= 0);
  return fd;
}

/* Posts what subject_fn is to run. */
static inline cbr_status post_action(cbr_queue queue, struct subject *it,
                                     intptr_t (*run)(struct subject *, void *), void *arg) {
  struct action action = {run, arg};
  return cbr_post(queue, it->handle, &action, sizeof action);
}

/* --- ears: callbacks that write down the numbers they get ---------------------------------- */

enum { HEARD = 64 };

struct ear {
  cbr_handle handle;
  int count, destroyed;
  int numbers[HEARD];
};

static inline intptr_t ear_fn(void *user_data, void *arg) {
  struct ear *it = (struct ear *)user_data;
  int at = add_int(&it->count, 1) - 1;
  CHECK_EQ(load_int(&it->destroyed), 0);
  CHECK(at < HEARD);
  it->numbers[at] = arg != NULL ? *(const int *)arg : -1;
  return at;
}

static inline void ear_destroy(void *user_data) {
  CHECK_EQ(add_int(&((struct ear *)user_data)->destroyed, 1), 1);
}

static inline void ear_register(struct ear *it) {
  memset(it, 0, sizeof *it);
  CHECK_OK(cbr_register(ear_fn, it, ear_destroy, &it->handle));
}

static inline void ear_end(struct ear *it) {
  CHECK_OK(cbr_unregister_wait(it->handle, -1));
  CHECK_EQ(it->destroyed, 1);
}

static inline cbr_status post_number(cbr_queue queue, struct ear *it, int number) {
  return cbr_post(queue, it->handle, &number, sizeof number);
}

static inline void check_heard(const char *file, int line, struct ear *it, const int *expected,
                               int count) {
  for (int i = 0; i < count && i < it->count; i++) {
    if (it->numbers[i] != expected[i])
      harness_fail(file, line, "heard %d as number %d, not %d", it->numbers[i], i, expected[i]);
  }
  if (it->count != count) harness_fail(file, line, "heard %d numbers, not %d", it->count, count);
  it->count = 0;
}

/* The ear has heard just these since it was last asked. */
#define CHECK_HEARD(ear, ...)                                                \
  check_heard(__FILE__, __LINE__, (ear), (const int[]){__VA_ARGS__},         \
              (int)(sizeof((const int[]){__VA_ARGS__}) / sizeof(const int)))
#define CHECK_HEARD_NOTHING(ear) CHECK_EQ((ear)->count, 0)

/* --- payloads that are taken over ---------------------------------------------------------- */

struct payload {
  int number; /* first, for ears */
  int freed;
  pthread_t freed_on;
  void (*on_free)(struct payload *); /* may be NULL */
  void *extra;                       /* for the test */
};

/* How many were freed in all: to be asked while others are being posted. */
static int payload_frees;

static inline void payload_free(void *data) {
  struct payload *it = (struct payload *)data;
  it->freed_on = pthread_self();
  if (it->on_free != NULL) it->on_free(it);
  CHECK_EQ(add_int(&it->freed, 1), 1);
  add_int(&payload_frees, 1);
}

static inline int payload_freed(const struct payload *it) { return load_int(&it->freed); }

static inline void payload_init(struct payload *it, int number) {
  memset(it, 0, sizeof *it);
  it->number = number;
}

static inline cbr_post_options payload_options(struct payload *it, cbr_queue queue,
                                               cbr_handle handle) {
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  options.queue = queue;
  options.handle = handle;
  options.data = it;
  options.len = sizeof *it;
  options.free_data = payload_free;
  return options;
}

static inline cbr_status payload_post(struct payload *it, int number, cbr_queue queue,
                                      cbr_handle handle, cbr_scope owner) {
  payload_init(it, number);
  cbr_post_options options = payload_options(it, queue, handle);
  options.owner = owner;
  return cbr_post_with(&options);
}

/* --- threads -------------------------------------------------------------------------------- */

/* A loop dispatches until its queue is closed. An OWNED queue it adopts. */
struct loop {
  cbr_queue queue;
  bool adopts;
  int number; /* the kernel's, of its thread */
  long dispatched;
  gate ready;
  pthread_t thread;
};

static inline void *loop_main(void *arg) {
  struct loop *self = (struct loop *)arg;
  size_t count = 0;
  cbr_status status;
  if (self->adopts) CHECK_OK(cbr_queue_adopt(self->queue));
  store_int(&self->number, (int)syscall(SYS_gettid));
  gate_open(&self->ready);
  while ((status = cbr_queue_dispatch(self->queue, 0, -1, &count)) == CBR_OK)
    self->dispatched += (long)count;
  check_gone(status);
  return NULL;
}

static inline void loop_start(struct loop *it, cbr_queue queue, bool adopts) {
  memset(it, 0, sizeof *it);
  it->queue = queue;
  it->adopts = adopts;
  gate_init(&it->ready);
  it->thread = start(loop_main, it);
  gate_pass(&it->ready);
}

/* Lets it dispatch what is there, and end. */
static inline void loop_end(struct loop *it) {
  cbr_status status = cbr_queue_close(it->queue, CBR_CLOSE_DRAIN);
  if (status != CBR_OK) check_gone(status); /* a scope may have closed it */
  join(it->thread);
}

/* A producer is a thread that posts once, its payload's number. */
struct producer {
  struct payload payload;
  cbr_post_options options;
  cbr_status status;
  int number; /* the kernel's, of its thread */
  int done;
  pthread_t thread;
};

static inline void *producer_main(void *arg) {
  struct producer *self = (struct producer *)arg;
  store_int(&self->number, (int)syscall(SYS_gettid));
  self->status = cbr_post_with(&self->options);
  store_int(&self->done, 1);
  return NULL;
}

static inline void producer_init(struct producer *it, cbr_queue queue, cbr_handle handle,
                                 int number) {
  memset(it, 0, sizeof *it);
  payload_init(&it->payload, number);
  it->options = payload_options(&it->payload, queue, handle);
  it->status = 1;
}

/* Returns when it is blocked, as far as one can tell, or done. */
static inline void producer_start(struct producer *it) {
  it->thread = start(producer_main, it);
  POLL_UNTIL(load_int(&it->done) || sleeps(&it->number));
}

static inline cbr_status producer_join(struct producer *it) {
  join(it->thread);
  return it->status;
}

/* A caller is a thread that does one cbr_call_on of a subject. */
struct caller {
  cbr_queue queue;
  cbr_handle handle;
  struct action action;
  int64_t timeout_ns;
  intptr_t result;
  cbr_status status;
  char words[256];
  int number; /* the kernel's, of its thread */
  int done;
  pthread_t thread;
};

static inline void *caller_main(void *arg) {
  struct caller *self = (struct caller *)arg;
  store_int(&self->number, (int)syscall(SYS_gettid));
  self->status = cbr_call_on(self->queue, self->handle,
                             self->action.run != NULL ? &self->action : NULL, self->timeout_ns,
                             &self->result);
  cbr_last_error(self->words, sizeof self->words);
  store_int(&self->done, 1);
  return NULL;
}

/* Returns when its call waits, as far as one can tell, or is done. */
static inline void caller_start(struct caller *it, cbr_queue queue, cbr_handle handle,
                                intptr_t (*run)(struct subject *, void *), void *arg) {
  memset(it, 0, sizeof *it);
  it->queue = queue;
  it->handle = handle;
  it->action.run = run;
  it->action.arg = arg;
  it->timeout_ns = -1;
  it->result = 77;
  it->status = 1;
  it->thread = start(caller_main, it);
  POLL_UNTIL(load_int(&it->done) || sleeps(&it->number));
}

static inline cbr_status caller_join(struct caller *it) {
  join(it->thread);
  return it->status;
}

#endif
