#include "bridge.h"
#include "_cgo_export.h"
#include <stdlib.h>
#include <string.h>

/* --- failures --------------------------------------------------------------------------------- */

/* The words belong to the thread, and the goroutine may be on another one when it asks: so they are
 * taken in the same crossing. */
static cbrgo_result failed(cbrgo_result it, cbr_status status) {
  it.status = status;
  if (status != CBR_OK) {
    size_t len = cbr_last_error(NULL, 0) + 1;
    it.words = malloc(len);
    if (it.words) cbr_last_error(it.words, len);
  }
  return it;
}

cbrgo_result cbrgo_answer(cbr_status status, uint64_t value) {
  cbrgo_result it = {.value = value};
  return failed(it, status);
}

/* --- the ends of Go functions ----------------------------------------------------------------- */

/* The release or unregister that this thread is in on Go's behalf. What ends in it without a destroy
 * function of the user's needs no crossing of its own: Go forgets it when this one returns, and until
 * then nobody can tell the difference. */
static _Thread_local cbrgo_result *releasing;
/* A function whose registration fails just now: its destroy function must not run. */
static _Thread_local uintptr_t abandoning;

static bool noted(uintptr_t id) {
  if (!releasing || releasing->dropped == CBRGO_DROPS) return false;
  releasing->ids[releasing->dropped++] = id;
  return true;
}

static void drop(void *user_data) {
  uintptr_t id = (uintptr_t)user_data;
  if (!noted(id)) callbridge_go_destroy(id);
}

static void destroy(void *user_data) {
  uintptr_t id = (uintptr_t)user_data;
  if (abandoning == id && noted(id)) return;
  callbridge_go_destroy(id);
}

static cbrgo_result ended(cbr_status (*end)(cbr_handle), cbr_handle handle) {
  cbrgo_result it = {0}, *outer = releasing;
  releasing = &it;
  cbr_status status = end(handle);
  releasing = outer;
  return failed(it, status);
}

/* --- the functions before Go's ---------------------------------------------------------------- */

/* The way into Go that every exported function takes after asking whether the runtime has started and what
 * stack traces want; runtime/cgo exports it. It has, or nothing would be registered, so calls take it
 * at once and are 10 % faster. */
extern void crosscall2(void (*fn)(void *), void *frame, int size, size_t context);
static void (*enter_go)(void *frame);

void cbrgo_start(uintptr_t enter) {
  enter_go = (void (*)(void *))enter;
  /* An exported function once: it has the runtime keep what it makes for a thread of C's as long as the
   * thread lives. */
  callbridge_go_started();
}

static intptr_t plain(void *user_data, void *arg) {
  cbrgo_frame frame = {.id = (uintptr_t)user_data, .arg = (uintptr_t)arg};
  crosscall2(enter_go, &frame, sizeof frame, 0);
  return frame.result;
}

static void on_error(void *user_data, cbr_handle handle, cbr_status status, const char *message) {
  (void)handle;
  callbridge_go_error((uintptr_t)user_data, status, (char *)message);
}

/* One function for all signatures whose arguments travel in registers: integers and floating point
 * numbers have theirs, whatever their order, so it takes all registers and Go picks what the signature
 * says. What the caller has not set is not looked at. */
#if defined(__x86_64__) && !defined(_WIN32)
#define INTS uint64_t i0, uint64_t i1, uint64_t i2, uint64_t i3, uint64_t i4
#define INTS_VALUES i0, i1, i2, i3, i4
#elif defined(__aarch64__) && !defined(__APPLE__)
#define INTS                                                                                       \
  uint64_t i0, uint64_t i1, uint64_t i2, uint64_t i3, uint64_t i4, uint64_t i5, uint64_t i6
#define INTS_VALUES i0, i1, i2, i3, i4, i5, i6
#endif

#ifdef INTS
#define FLOATS                                                                                     \
  double f0, double f1, double f2, double f3, double f4, double f5, double f6, double f7

static uint64_t typed(void *user_data, INTS, FLOATS) {
  uint64_t ints[] = {INTS_VALUES};
  double floats[] = {f0, f1, f2, f3, f4, f5, f6, f7};
  return callbridge_go_typed((uintptr_t)user_data, ints, (uint64_t *)(void *)floats);
}

static double typed_float(void *user_data, INTS, FLOATS) {
  uint64_t ints[] = {INTS_VALUES};
  double floats[] = {f0, f1, f2, f3, f4, f5, f6, f7}, result;
  uint64_t bits = callbridge_go_typed((uintptr_t)user_data, ints, (uint64_t *)(void *)floats);
  memcpy(&result, &bits, sizeof result);
  return result;
}
#else
static void typed(void) {}
static void typed_float(void) {}
#endif

/* --- registration ----------------------------------------------------------------------------- */

static cbrgo_result registered(cbr_status status, cbr_handle handle, uintptr_t id) {
  cbrgo_result it = cbrgo_answer(status, handle);
  if (status != CBR_OK) it.ids[it.dropped++] = id;
  return it;
}

cbrgo_result cbrgo_register_plain(uintptr_t id) {
  cbr_handle handle = 0;
  cbr_status status = cbr_register(plain, (void *)id, drop, &handle);
  return registered(status, handle, id);
}

static cbr_status bind_it(const cbrgo_registration *it, cbr_handle handle) {
  switch (it->bind) {
    case CBRGO_BIND_NAME: return cbr_name_bind(it->scope, it->bound_name, handle, it->mode);
    case CBRGO_BIND_KEY: return cbr_key_attach(it->scope, it->key, it->event, handle, it->mode);
    default: return CBR_OK;
  }
}

cbrgo_result cbrgo_register(cbrgo_registration it) {
  static const cbr_any_fn fns[] = {
    [CBRGO_PLAIN] = (cbr_any_fn)plain,
    [CBRGO_TYPED] = (cbr_any_fn)typed,
    [CBRGO_TYPED_FLOAT] = (cbr_any_fn)typed_float,
  };
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = 0;
  options.fn = fns[it.shape];
  options.user_data = (void *)it.id;
  options.destroy = it.tells_destroy ? destroy : drop;
  options.signature = it.signature;
  options.name = it.name;
  options.scope = it.scope;
  options.flags = it.flags;
  options.on_error = it.tells_errors ? on_error : NULL;
  options.fallback.u = it.fallback;
  cbr_status status = cbr_register_with(&options, &handle);
  if (status != CBR_OK) return registered(status, 0, it.id);
  status = bind_it(&it, handle);
  if (status == CBR_OK) {
    /* The key is the owner. Not the name: a singleton is ended by its number. */
    if (it.bind == CBRGO_BIND_KEY) (void)cbr_release(handle);
    return cbrgo_answer(CBR_OK, handle);
  }
  cbrgo_result result = cbrgo_answer(status, 0), *outer = releasing;
  releasing = &result;
  abandoning = it.id;
  (void)cbr_unregister(handle);
  abandoning = 0;
  releasing = outer;
  return result;
}

cbrgo_result cbrgo_unregister(cbr_handle handle) { return ended(cbr_unregister, handle); }
cbrgo_result cbrgo_release(cbr_handle handle) { return ended(cbr_release, handle); }
cbrgo_result cbrgo_retain(cbr_handle handle) { return cbrgo_answer(cbr_retain(handle), 0); }

cbrgo_result cbrgo_unregister_wait(cbr_handle handle, int64_t timeout_ns) {
  return cbrgo_answer(cbr_unregister_wait(handle, timeout_ns), 0);
}

cbrgo_result cbrgo_refcount(cbr_handle handle) {
  uint32_t count = 0;
  cbr_status status = cbr_refcount(handle, &count);
  return cbrgo_answer(status, count);
}

cbrgo_result cbrgo_call(cbr_handle handle, void *arg) {
  intptr_t result = 0;
  cbr_status status = cbr_call(handle, arg, &result);
  return cbrgo_answer(status, (uint64_t)result);
}

cbrgo_result cbrgo_call_number(cbr_handle handle, uintptr_t arg) {
  return cbrgo_call(handle, (void *)arg);
}

void cbrgo_abandon_call(void) {
  uint32_t depth = cbr_depth();
  if (depth > 0) (void)cbr_unwind_to(depth - 1);
}

void cbrgo_abandon_destroy(void) {
  /* Its memory was on the stack that is left. */
  releasing = NULL;
  abandoning = 0;
}

/* --- signatures ------------------------------------------------------------------------------- */

cbrgo_result cbrgo_signature_parse(char *text) {
  cbr_signature signature = 0;
  cbr_status status = cbr_signature_parse(text, &signature);
  return cbrgo_answer(status, signature);
}

cbrgo_result cbrgo_signature_format(cbr_signature signature) {
  size_t len = cbr_signature_format(signature, NULL, 0) + 1;
  cbrgo_result it = {.words = malloc(len), .value = len - 1};
  if (it.words) cbr_signature_format(signature, it.words, len);
  return it;
}

/* --- scopes, names, keys ---------------------------------------------------------------------- */

cbrgo_result cbrgo_scope_open(char *name) {
  cbr_scope scope = 0;
  cbr_status status = cbr_scope_open(name, &scope);
  return cbrgo_answer(status, scope);
}

cbrgo_result cbrgo_scope_close(cbr_scope scope, int64_t timeout_ns) {
  size_t running = 0;
  cbr_status status = cbr_scope_close(scope, timeout_ns, &running);
  return cbrgo_answer(status, running);
}

cbrgo_result cbrgo_scope_drain(cbr_scope scope, int64_t timeout_ns) {
  return cbrgo_answer(cbr_scope_drain(scope, timeout_ns), 0);
}

cbrgo_result cbrgo_name_bind(cbr_scope scope, char *name, cbr_handle handle, uint32_t mode) {
  return cbrgo_answer(cbr_name_bind(scope, name, handle, mode), 0);
}

cbrgo_result cbrgo_name_find(cbr_scope scope, char *name) {
  cbr_handle handle = 0;
  cbr_status status = cbr_name_find(scope, name, &handle);
  return cbrgo_answer(status, handle);
}

cbrgo_result cbrgo_name_unbind(cbr_scope scope, char *name) {
  return cbrgo_answer(cbr_name_unbind(scope, name), 0);
}

cbrgo_result cbrgo_key_find(cbr_scope scope, uintptr_t key, uint32_t event) {
  cbr_handle handle = 0;
  cbr_status status = cbr_key_find(scope, key, event, &handle);
  return cbrgo_answer(status, handle);
}

cbrgo_result cbrgo_key_call(cbr_scope scope, uintptr_t key, uint32_t event, void *arg) {
  intptr_t result = 0;
  cbr_status status = cbr_key_call(scope, key, event, arg, &result);
  return cbrgo_answer(status, (uint64_t)result);
}

cbrgo_result cbrgo_key_detach(cbr_scope scope, uintptr_t key, uint32_t event) {
  cbrgo_result it = {0}, *outer = releasing;
  releasing = &it;
  cbr_status status = cbr_key_detach(scope, key, event);
  releasing = outer;
  return failed(it, status);
}

cbrgo_result cbrgo_key_detach_all(cbr_scope scope, uintptr_t key) {
  size_t count = 0;
  cbr_status status = cbr_key_detach_all(scope, key, &count);
  return cbrgo_answer(status, count);
}

/* --- hooks ------------------------------------------------------------------------------------ */

cbrgo_result cbrgo_hook_set_once(void *hook, cbr_handle handle) {
  return cbrgo_answer(cbr_hook_set_once(hook, handle), 0);
}

cbrgo_result cbrgo_hook_swap(void *hook, cbr_handle handle) {
  cbr_handle old = 0;
  cbr_status status = cbr_hook_swap(hook, handle, &old);
  return cbrgo_answer(status, old);
}

cbrgo_result cbrgo_hook_call(void *hook, void *arg) {
  intptr_t result = 0;
  cbr_status status = cbr_hook_call(hook, arg, &result);
  return cbrgo_answer(status, (uint64_t)result);
}

/* --- thunks ----------------------------------------------------------------------------------- */

cbrgo_result cbrgo_thunk_open(cbr_handle handle, cbr_signature signature, uint32_t flags) {
  cbr_any_fn fn = NULL;
  cbr_thunk thunk = 0;
  cbr_status status = cbr_thunk_open(handle, signature, flags, &fn, &thunk);
  cbrgo_result it = cbrgo_answer(status, thunk);
  it.ids[0] = (uintptr_t)fn;
  return it;
}

cbrgo_result cbrgo_thunk_retarget(cbr_thunk thunk, cbr_handle handle) {
  return cbrgo_answer(cbr_thunk_retarget(thunk, handle), 0);
}

cbrgo_result cbrgo_thunk_close(cbr_thunk thunk) { return ended(cbr_thunk_close, thunk); }

/* --- what is going on ------------------------------------------------------------------------- */

static void append(void *user_data, const char *data, size_t len) {
  cbrgo_result *it = user_data;
  if (it->status != CBR_OK) return;
  char *longer = realloc(it->words, it->value + len);
  if (!longer) {
    it->status = CBR_ERR_NOMEM;
    return;
  }
  memcpy(longer + it->value, data, len);
  it->words = longer;
  it->value += len;
}

cbrgo_result cbrgo_text(cbr_scope scope, bool metrics) {
  cbrgo_result it = {0};
  cbr_status status = metrics ? cbr_metrics(scope, append, &it) : cbr_report(scope, append, &it);
  if (status == CBR_OK && it.status == CBR_OK) return it;
  free(it.words);
  return cbrgo_answer(status != CBR_OK ? status : it.status, 0);
}

cbrgo_numbers cbrgo_stats(cbr_scope scope) {
  cbrgo_numbers it = {.numbers = {.size = sizeof it.numbers}};
  it.result = cbrgo_answer(cbr_stats_get(scope, &it.numbers), 0);
  return it;
}
