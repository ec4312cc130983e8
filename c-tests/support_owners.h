/* Owners for tests: scopes and what is registered in them, and the count of references. */
#ifndef CALLBRIDGE_SUPPORT_OWNERS_H
#define CALLBRIDGE_SUPPORT_OWNERS_H

#include "support_subject.h"

static inline cbr_scope scope_open(const char *name) {
  cbr_scope scope = 0;
  CHECK_OK(cbr_scope_open(name, &scope));
  CHECK(scope != 0);
  return scope;
}

static inline void scope_close(cbr_scope scope) { CHECK_OK(cbr_scope_close(scope, -1, NULL)); }

/* Registered in the scope; 0: the default scope. */
static inline cbr_handle subject_register_in(struct subject *it, cbr_scope scope) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = it;
  options.destroy = subject_destroy;
  options.scope = scope;
  CHECK_OK(cbr_register_with(&options, &it->handle));
  return it->handle;
}

static inline uint32_t references(cbr_handle handle) {
  uint32_t count = 0;
  CHECK_OK(cbr_refcount(handle, &count));
  return count;
}

/* arg of a call that returns its subject. */
static inline intptr_t returns_itself(struct subject *it, void *arg) {
  (void)arg;
  return (intptr_t)it;
}
static struct action who_are_you __attribute__((unused)) = {returns_itself, NULL};

/* A scope that stays closing until it is told to end: a thread is inside one of its callbacks. */
struct closing {
  cbr_scope scope;
  struct subject inside;
  struct occupant guest;
};

static inline void closing_begin(struct closing *it, cbr_scope scope) {
  it->scope = scope;
  subject_register_in(&it->inside, scope);
  occupy(&it->guest, &it->inside);
  CHECK_STATUS(cbr_scope_close(scope, 0, NULL), CBR_ERR_TIMEOUT);
}

static inline void closing_end(struct closing *it) {
  CHECK_OK(vacate(&it->guest));
  scope_close(it->scope);
  CHECK_EQ(it->inside.destroyed, 1);
}

#endif
