/* Loops of C that call into Python: what is measured. Nanoseconds of CPU time a call, or -1 if the results do not add up. */
#include <pthread.h>
#include <stdint.h>
#include <time.h>

typedef intptr_t (*bare_fn)(void *user_data, void *arg);
typedef int32_t (*call_fn)(uint64_t handle, void *arg, intptr_t *out_result);

/* What this thread has had of its CPU: on a busy machine, others' time is not ours. */
static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* What Python is called by: a bare function with its data, or cbr_call with a handle. */
struct subject {
  bare_fn bare;
  void *user_data;
  call_fn call;
  uint64_t handle;
  long count;
  double nanoseconds;
};

static void *run(void *data) {
  struct subject *it = data;
  intptr_t sum = 0, result = 0;
  void *arg = &sum; /* an address, as arguments are */
  double before = now();
  if (it->bare != NULL)
    for (long i = 0; i < it->count; i++) sum += it->bare(it->user_data, arg);
  else
    for (long i = 0; i < it->count; i++, sum += result)
      if (it->call(it->handle, arg, &result) != 0) break;
  it->nanoseconds = sum == it->count ? (now() - before) / (double)it->count : -1;
  return NULL;
}

double upcall_bare(bare_fn bare, void *user_data, long count) {
  struct subject it = {bare, user_data, NULL, 0, count, 0};
  run(&it);
  return it.nanoseconds;
}
double upcall_handle(call_fn call, uint64_t handle, long count) {
  struct subject it = {NULL, NULL, call, handle, count, 0};
  run(&it);
  return it.nanoseconds;
}

/* The same on a thread of C's own, from its first call to its end. */
static double on_thread(struct subject *it) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, it) != 0) return -1;
  pthread_join(thread, NULL);
  return it->nanoseconds;
}
double upcall_bare_on_thread(bare_fn bare, void *user_data, long count) {
  struct subject it = {bare, user_data, NULL, 0, count, 0};
  return on_thread(&it);
}
double upcall_handle_on_thread(call_fn call, uint64_t handle, long count) {
  struct subject it = {NULL, NULL, call, handle, count, 0};
  return on_thread(&it);
}
