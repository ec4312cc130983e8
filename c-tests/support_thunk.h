/* Thunks for tests: a callback of any signature behind a function pointer. */
#ifndef CALLBRIDGE_SUPPORT_THUNK_H
#define CALLBRIDGE_SUPPORT_THUNK_H

#include "support_subject.h"

/* int (int, void *): what most of the tests call. */
#define INT_SIGNATURE CBR_SIG(CBR_I32, CBR_I32, CBR_PTR)
typedef int (*int_fn)(int, void *);

enum { FALLBACK = -77 };

/* A subject whose function adds its bias to the number, and does `action` in the call, if there is one. */
struct adder {
  struct subject subject;
  int bias;
  void (*action)(struct adder *);
  cbr_thunk thunk;
  int_fn fn;
  void *extra;
};

static inline int adder_fn(void *user_data, int number, void *ignored) {
  struct adder *it = (struct adder *)user_data;
  (void)ignored;
  subject_check_alive(&it->subject);
  add_int(&it->subject.calls, 1);
  add_int(&it->subject.running, 1);
  if (it->action != NULL) it->action(it);
  add_int(&it->subject.running, -1);
  subject_check_alive(&it->subject);
  return number + it->bias;
}

static inline void adder_destroy(void *user_data) {
  subject_destroy(&((struct adder *)user_data)->subject);
}

static inline cbr_callback_options adder_options(struct adder *it, int bias) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  memset(it, 0, sizeof *it);
  subject_reset(&it->subject);
  it->bias = bias;
  options.fn = (cbr_any_fn)adder_fn;
  options.user_data = it;
  options.destroy = adder_destroy;
  options.signature = INT_SIGNATURE;
  options.fallback.i = FALLBACK;
  options.name = "adder";
  return options;
}

static inline void adder_register(struct adder *it, int bias) {
  cbr_callback_options options = adder_options(it, bias);
  CHECK_OK(cbr_register_with(&options, &it->subject.handle));
}

/* A thunk of the handle; its number into *out_thunk. */
static inline cbr_any_fn thunk_of(cbr_handle handle, cbr_signature signature, cbr_thunk *out_thunk) {
  cbr_any_fn fn = NULL;
  CHECK_OK(cbr_thunk_open(handle, signature, 0, &fn, out_thunk));
  CHECK(fn != NULL);
  CHECK(*out_thunk != 0);
  return fn;
}

static inline void adder_open(struct adder *it) {
  it->fn = (int_fn)thunk_of(it->subject.handle, INT_SIGNATURE, &it->thunk);
}

/* Registered, with a thunk, and nothing but the thunk owns it. */
static inline void adder_begin(struct adder *it, int bias) {
  adder_register(it, bias);
  adder_open(it);
  CHECK_OK(cbr_release(it->subject.handle));
}

#endif
