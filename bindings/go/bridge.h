/* What crosses from Go into C, and back: one crossing for what Go needs at once. Results are returned by
 * value, because a Go stack may move while C calls Go. */
#ifndef CALLBRIDGE_GO_BRIDGE_H
#define CALLBRIDGE_GO_BRIDGE_H

#include <callbridge.h>

enum { CBRGO_DROPS = 2 };

typedef struct cbrgo_result {
  cbr_status status;
  uint32_t dropped;              /* how many of ids there are */
  uint64_t value;                /* a handle, what a callback returned, a number */
  char *words;                   /* why it failed, or a text that was asked for; Go frees it */
  uintptr_t ids[CBRGO_DROPS];    /* functions that ended in this crossing: Go forgets them */
} cbrgo_result;

/* The result of a call that came to `status`, on the thread that made it. */
cbrgo_result cbrgo_answer(cbr_status status, uint64_t value);

/* Which C function stands before the Go function. */
enum { CBRGO_PLAIN, CBRGO_TYPED, CBRGO_TYPED_FLOAT };
/* What else a registration does; without it succeeding, the callback is none. */
enum { CBRGO_BIND_NOTHING, CBRGO_BIND_NAME, CBRGO_BIND_KEY };

typedef struct cbrgo_registration {
  uintptr_t id;                  /* the Go function's */
  cbr_signature signature;
  cbr_scope scope;
  uint64_t fallback;
  char *name;                    /* NULL: none */
  char *bound_name;
  uintptr_t key;
  uint32_t event;
  uint32_t shape, bind, mode, flags;
  bool tells_destroy, tells_errors;
} cbrgo_registration;

/* A call of a plain Go function. */
typedef struct cbrgo_frame {
  uintptr_t id, arg;
  intptr_t result;
  bool returned;
} cbrgo_frame;

/* `enter`: Go's function that takes a frame, by its address. */
void cbrgo_start(uintptr_t enter);

/* Leaves the call that the calling goroutine is inside and will not return from. */
void cbrgo_abandon_call(void);
/* The same of a destroy function. */
void cbrgo_abandon_destroy(void);

cbrgo_result cbrgo_register_plain(uintptr_t id);
cbrgo_result cbrgo_register(cbrgo_registration it);
cbrgo_result cbrgo_unregister(cbr_handle handle);
cbrgo_result cbrgo_unregister_wait(cbr_handle handle, int64_t timeout_ns);
cbrgo_result cbrgo_retain(cbr_handle handle);
cbrgo_result cbrgo_release(cbr_handle handle);
cbrgo_result cbrgo_refcount(cbr_handle handle);
cbrgo_result cbrgo_call(cbr_handle handle, void *arg);
cbrgo_result cbrgo_call_number(cbr_handle handle, uintptr_t arg);

cbrgo_result cbrgo_signature_parse(char *text);
cbrgo_result cbrgo_signature_format(cbr_signature signature);

cbrgo_result cbrgo_scope_open(char *name);
cbrgo_result cbrgo_scope_close(cbr_scope scope, int64_t timeout_ns);
cbrgo_result cbrgo_scope_drain(cbr_scope scope, int64_t timeout_ns);
cbrgo_result cbrgo_name_bind(cbr_scope scope, char *name, cbr_handle handle, uint32_t mode);
cbrgo_result cbrgo_name_find(cbr_scope scope, char *name);
cbrgo_result cbrgo_name_unbind(cbr_scope scope, char *name);
cbrgo_result cbrgo_key_find(cbr_scope scope, uintptr_t key, uint32_t event);
cbrgo_result cbrgo_key_call(cbr_scope scope, uintptr_t key, uint32_t event, void *arg);
cbrgo_result cbrgo_key_detach(cbr_scope scope, uintptr_t key, uint32_t event);
cbrgo_result cbrgo_key_detach_all(cbr_scope scope, uintptr_t key);

cbrgo_result cbrgo_hook_set_once(void *hook, cbr_handle handle);
cbrgo_result cbrgo_hook_swap(void *hook, cbr_handle handle);
cbrgo_result cbrgo_hook_call(void *hook, void *arg);

/* A thunk's number is the value, and its function the first of ids. */
cbrgo_result cbrgo_thunk_open(cbr_handle handle, cbr_signature signature, uint32_t flags);
cbrgo_result cbrgo_thunk_retarget(cbr_thunk thunk, cbr_handle handle);
cbrgo_result cbrgo_thunk_close(cbr_thunk thunk);

/* The registers that a typed function's arguments may be in, after that of user_data. */
#if defined(__x86_64__) && !defined(_WIN32)
enum { CBRGO_INTS = 5, CBRGO_FLOATS = 8 };
#elif defined(__aarch64__) && !defined(__APPLE__)
enum { CBRGO_INTS = 7, CBRGO_FLOATS = 8 };
#else
enum { CBRGO_INTS = 0, CBRGO_FLOATS = 0 };
#endif

/* Text of cbr_report (false) or cbr_metrics (true), as words; its length is the value. */
cbrgo_result cbrgo_text(cbr_scope scope, bool metrics);

typedef struct cbrgo_numbers {
  cbrgo_result result;
  cbr_stats numbers;
} cbrgo_numbers;

cbrgo_numbers cbrgo_stats(cbr_scope scope);

#endif
