#include "host.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(bool ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "host: %s failed\n", what);
  abort();
}

static pthread_t start(void *(*fn)(void *), void *arg) {
  pthread_t it;
  must(pthread_create(&it, NULL, fn, arg) == 0, "pthread_create");
  return it;
}

static void run(void *(*fn)(void *), void *arg) {
  must(pthread_join(start(fn, arg), NULL) == 0, "pthread_join");
}

static host_outcome outcome(cbr_status status, intptr_t result) {
  host_outcome it = {.status = status, .result = result};
  if (status != CBR_OK) cbr_last_error(it.words, sizeof it.words);
  return it;
}

/* --- calls ------------------------------------------------------------------------------------ */

host_outcome host_call(cbr_handle handle, uintptr_t arg) {
  intptr_t result = 0;
  cbr_status status = cbr_call(handle, (void *)arg, &result);
  return outcome(status, result);
}

struct job {
  cbr_handle handle;
  uintptr_t arg;
  host_outcome outcome;
  cbr_status (*end)(cbr_handle);
};

static void *job_call(void *arg) {
  struct job *it = arg;
  it->outcome = host_call(it->handle, it->arg);
  return NULL;
}

static void *job_end(void *arg) {
  struct job *it = arg;
  it->outcome.status = it->end(it->handle);
  return NULL;
}

host_outcome host_call_on_thread(cbr_handle handle, uintptr_t arg) {
  struct job it = {.handle = handle, .arg = arg};
  run(job_call, &it);
  return it.outcome;
}

static cbr_status end_on_thread(cbr_handle handle, cbr_status (*end)(cbr_handle)) {
  struct job it = {.handle = handle, .end = end};
  run(job_end, &it);
  return it.outcome.status;
}

cbr_status host_release_on_thread(cbr_handle handle) { return end_on_thread(handle, cbr_release); }
cbr_status host_unregister_on_thread(cbr_handle handle) {
  return end_on_thread(handle, cbr_unregister);
}

/* --- callers ---------------------------------------------------------------------------------- */

struct host_callers {
  cbr_handle handle;
  intptr_t (*fn)(void *);
  long pause_ns; /* after every 16 calls; 0: none */
  atomic_bool stop;
  atomic_long ok, stale, other;
  int count;
  pthread_t threads[];
};

static void *caller(void *arg) {
  host_callers *it = arg;
  struct timespec pause = {0, it->pause_ns};
  for (unsigned calls = 1; !atomic_load(&it->stop); calls++) {
    if (it->pause_ns > 0 && calls % 16 == 0) nanosleep(&pause, NULL);
    if (it->fn) {
      (void)it->fn(NULL);
      atomic_fetch_add(&it->ok, 1);
      continue;
    }
    cbr_status status = cbr_call(it->handle, NULL, NULL);
    atomic_fetch_add(status == CBR_OK ? &it->ok : status == CBR_ERR_STALE ? &it->stale : &it->other,
                     1);
  }
  return NULL;
}

host_callers *host_callers_start(int threads, cbr_handle handle, uintptr_t fn, long pause_ns) {
  host_callers *it = calloc(1, sizeof *it + (size_t)threads * sizeof it->threads[0]);
  must(it != NULL, "calloc");
  it->handle = handle;
  it->fn = (intptr_t (*)(void *))fn;
  it->pause_ns = pause_ns;
  it->count = threads;
  for (int i = 0; i < threads; i++) it->threads[i] = start(caller, it);
  return it;
}

host_counts host_callers_now(host_callers *it) {
  return (host_counts){atomic_load(&it->ok), atomic_load(&it->stale), atomic_load(&it->other)};
}

host_counts host_callers_stop(host_callers *it) {
  atomic_store(&it->stop, true);
  for (int i = 0; i < it->count; i++) must(pthread_join(it->threads[i], NULL) == 0, "pthread_join");
  host_counts counts = host_callers_now(it);
  free(it);
  return counts;
}

/* --- posters ---------------------------------------------------------------------------------- */

struct host_poster {
  cbr_queue queue;
  cbr_handle handle;
  int64_t source;
  long count;
  atomic_long done;
  host_posted posted;
  pthread_t thread;
};

static void *poster(void *arg) {
  host_poster *it = arg;
  for (long i = 0; i < it->count; i++) {
    host_reading reading = {it->source, i};
    switch (cbr_post(it->queue, it->handle, &reading, sizeof reading)) {
      case CBR_OK: it->posted.ok++; break;
      case CBR_ERR_FULL: it->posted.full++; break;
      case CBR_ERR_CLOSED:
      case CBR_ERR_STALE: it->posted.closed++; break;
      default: it->posted.other++;
    }
    atomic_fetch_add(&it->done, 1);
  }
  return NULL;
}

host_poster *host_poster_start(cbr_queue queue, cbr_handle handle, int64_t source, long count) {
  host_poster *it = calloc(1, sizeof *it);
  must(it != NULL, "calloc");
  it->queue = queue;
  it->handle = handle;
  it->source = source;
  it->count = count;
  it->thread = start(poster, it);
  return it;
}

long host_poster_now(host_poster *it) { return atomic_load(&it->done); }

host_posted host_poster_join(host_poster *it) {
  must(pthread_join(it->thread, NULL) == 0, "pthread_join");
  host_posted posted = it->posted;
  free(it);
  return posted;
}

/* --- function pointers ------------------------------------------------------------------------ */

intptr_t host_call_fn(uintptr_t fn, uintptr_t arg) { return ((intptr_t(*)(void *))fn)((void *)arg); }

void host_sort(uintptr_t compare, int32_t *items, size_t count) {
  qsort(items, count, sizeof *items, (int (*)(const void *, const void *))compare);
}

double host_call_mixed(uintptr_t fn) {
  return ((double (*)(int8_t, double, uint16_t, float, bool, int64_t))fn)(-1, 0.5, 65535, 0.25f, true,
                                                                       INT64_MIN);
}

float host_call_float(uintptr_t fn, float x) { return ((float (*)(float))fn)(x); }
int8_t host_call_small(uintptr_t fn, int8_t x) { return ((int8_t(*)(int8_t))fn)(x); }
void host_call_void(uintptr_t fn) { ((void (*)(void))fn)(); }
uint64_t host_call_raw(uintptr_t fn, uint64_t x) { return ((uint64_t(*)(uint64_t))fn)(x); }

/* --- pins ------------------------------------------------------------------------------------- */

struct stay {
  cbr_handle handle;
  bool unregister, call;
};

static void *enter_and_end(void *arg) {
  struct stay *it = arg;
  cbr_pin pin;
  if (it->call) must(cbr_call(it->handle, NULL, NULL) == CBR_OK, "cbr_call");
  must(cbr_enter(it->handle, 0, &pin) == CBR_OK, "cbr_enter");
  if (it->unregister) must(cbr_unregister(it->handle) == CBR_OK, "cbr_unregister");
  return NULL;
}

void host_end_inside(cbr_handle handle, bool unregister, bool call) {
  struct stay it = {handle, unregister, call};
  run(enter_and_end, &it);
}

host_outcome host_call_with(cbr_handle handle, uintptr_t user_data) {
  cbr_pin pin;
  cbr_status status = cbr_enter(handle, CBR_SIG_DEFAULT, &pin);
  if (status != CBR_OK) return outcome(status, 0);
  intptr_t result = ((cbr_fn)pin.fn)((void *)user_data, NULL);
  return outcome(cbr_leave(&pin), result);
}

/* --- finding callbacks ------------------------------------------------------------------------ */

cbr_hook *host_hook(void) {
  static cbr_hook hook = CBR_HOOK_INIT;
  return &hook;
}

host_outcome host_call_named(char *name, uintptr_t arg) {
  cbr_handle handle = 0;
  cbr_status status = cbr_name_find(0, name, &handle);
  return status == CBR_OK ? host_call(handle, arg) : outcome(status, 0);
}

host_outcome host_call_key(cbr_scope scope, uintptr_t key, uint32_t event, uintptr_t arg) {
  intptr_t result = 0;
  cbr_status status = cbr_key_call(scope, key, event, (void *)arg, &result);
  return outcome(status, result);
}
