/* A C host, for tests and examples: what a C library does with handles, on threads of its own. */
#ifndef CALLBRIDGE_GO_HOST_H
#define CALLBRIDGE_GO_HOST_H

#include <callbridge.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct host_outcome {
  cbr_status status;
  intptr_t result;
  char words[512]; /* cbr_last_error, if it failed */
} host_outcome;

/* A call on this thread, and on one that C makes for it. */
host_outcome host_call(cbr_handle handle, uintptr_t arg);
host_outcome host_call_on_thread(cbr_handle handle, uintptr_t arg);
/* cbr_release of C's reference, on a thread that C makes for it. */
cbr_status host_release_on_thread(cbr_handle handle);
cbr_status host_unregister_on_thread(cbr_handle handle);

/* Threads that call a handle, or with fn a function pointer, until they are stopped. */
typedef struct host_callers host_callers;
host_callers *host_callers_start(int threads, cbr_handle handle, uintptr_t fn, long pause_ns);
typedef struct host_counts {
  long ok, stale, other;
} host_counts;
host_counts host_callers_now(host_callers *it);
host_counts host_callers_stop(host_callers *it);

/* A thread that posts `count` events, each a host_reading, as fast as it can. */
typedef struct host_reading {
  int64_t source, number;
} host_reading;
typedef struct host_poster host_poster;
host_poster *host_poster_start(cbr_queue queue, cbr_handle handle, int64_t source, long count);
long host_poster_now(host_poster *it);        /* posts that have returned */
typedef struct host_posted {
  long ok, full, closed, other;
} host_posted;
host_posted host_poster_join(host_poster *it);

/* Function pointers of several types. */
intptr_t host_call_fn(uintptr_t fn, uintptr_t arg);
void host_sort(uintptr_t compare, int32_t *items, size_t count);
double host_call_mixed(uintptr_t fn);  /* f64(i8,f64,u16,f32,bool,i64) */
float host_call_float(uintptr_t fn, float x); /* f32(f32) */
int8_t host_call_small(uintptr_t fn, int8_t x); /* i8(i8) */
void host_call_void(uintptr_t fn);
/* As if it were u64(u64): what the registers have beside a narrower type is the caller's, and the result's. */
uint64_t host_call_raw(uintptr_t fn, uint64_t x);

/* A thread that enters the callback and ends without leaving it; with `unregister` it has ended the callback
 * before, so that destroy runs when the thread ends; with `call` it has called Go before. */
void host_end_inside(cbr_handle handle, bool unregister, bool call);
/* Enters the callback and calls its function with another user_data. */
host_outcome host_call_with(cbr_handle handle, uintptr_t user_data);

cbr_hook *host_hook(void);
/* Finds the callback of a name in the process, and calls it. */
host_outcome host_call_named(char *name, uintptr_t arg);
host_outcome host_call_key(cbr_scope scope, uintptr_t key, uint32_t event, uintptr_t arg);

#endif
