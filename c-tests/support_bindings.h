/* What names and keys have in common, so that both are held to the same promises. Who includes this
 * defines what a place is (a name; a key with an event) and has a TEST for each check below. */
#ifndef CALLBRIDGE_SUPPORT_BINDINGS_H
#define CALLBRIDGE_SUPPORT_BINDINGS_H

#include "support_child.h"
#include "support_memory.h"
#include "support_owners.h"
#include "support_random.h"

#include <malloc.h>

/* Places with different numbers are different ones. */
static cbr_status place_bind(cbr_scope scope, long place, cbr_handle handle, uint32_t mode);
static cbr_status place_find(cbr_scope scope, long place, cbr_handle *out_handle);
static cbr_status place_unbind(cbr_scope scope, long place);
/* Calls what is there, by the shortest way. */
static cbr_status place_call(cbr_scope scope, long place, void *arg, intptr_t *out_result);

static inline void check_found(cbr_scope scope, long place, struct subject *it) {
  cbr_handle handle = 99;
  intptr_t result = 0;
  CHECK_OK(place_find(scope, place, &handle));
  CHECK_EQ(handle, it->handle);
  CHECK_OK(place_call(scope, place, &who_are_you, &result));
  CHECK((struct subject *)result == it);
}

static inline void check_not_found(cbr_scope scope, long place) {
  cbr_handle handle = 99;
  intptr_t result = 77;
  CHECK_REFUSED(place_find(scope, place, &handle), CBR_ERR_NOT_FOUND);
  CHECK_REFUSED(place_call(scope, place, NULL, &result), CBR_ERR_NOT_FOUND);
  CHECK_REFUSED(place_unbind(scope, place), CBR_ERR_NOT_FOUND);
  CHECK_EQ(handle, 99);
  CHECK_EQ(result, 77);
}

static inline void check_ok_or_not_found(cbr_status status) {
  if (status != CBR_ERR_NOT_FOUND) CHECK_OK(status);
}

/* Runs the check in the default scope, and in one of its own. */
static inline void in_both_scopes(void (*check)(cbr_scope scope)) {
  check(0);
  cbr_scope scope = scope_open("bindings");
  check(scope);
  scope_close(scope);
}

/* --- one place ---------------------------------------------------------------------------- */

static inline void check_bind_find_unbind(cbr_scope scope) {
  struct subject it;
  subject_register(&it);
  check_not_found(scope, 1);
  CHECK_OK(place_bind(scope, 1, it.handle, CBR_BIND_ONCE));
  check_found(scope, 1, &it);
  check_not_found(scope, 2);
  CHECK_EQ(references(it.handle), 2); /* find gives none */
  CHECK_OK(place_unbind(scope, 1));
  CHECK_EQ(references(it.handle), 1);
  check_not_found(scope, 1);
  CHECK_OK(cbr_call(it.handle, NULL, NULL)); /* unbind revokes nothing */
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

static inline void check_a_binding_keeps_its_callback_alive(cbr_scope scope) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(place_bind(scope, 1, it.handle, CBR_BIND_ONCE));
  CHECK_OK(place_bind(scope, 2, it.handle, CBR_BIND_REPLACE));
  CHECK_OK(cbr_release(it.handle));
  check_found(scope, 1, &it);
  check_found(scope, 2, &it);
  CHECK_OK(place_unbind(scope, 1));
  CHECK_EQ(it.destroyed, 0);
  check_found(scope, 2, &it);
  CHECK_OK(place_unbind(scope, 2));
  CHECK_EQ(it.destroyed, 1);
}

static inline void check_unbind_lets_a_call_finish(cbr_scope scope) {
  struct subject it;
  struct occupant guest;
  subject_register(&it);
  CHECK_OK(place_bind(scope, 1, it.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_release(it.handle));
  occupy(&guest, &it);
  CHECK_OK(place_unbind(scope, 1));
  check_not_found(scope, 1);
  CHECK_EQ(subject_destroyed(&it), 0);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(it.destroyed, 1);
}

static inline void check_once_is_refused_where_a_live_one_is(cbr_scope scope) {
  struct subject first, second;
  subject_register(&first);
  subject_register(&second);
  CHECK_OK(place_bind(scope, 1, first.handle, CBR_BIND_ONCE));
  CHECK_REFUSED(place_bind(scope, 1, second.handle, CBR_BIND_ONCE), CBR_ERR_EXISTS);
  CHECK_REFUSED(place_bind(scope, 1, first.handle, CBR_BIND_ONCE), CBR_ERR_EXISTS);
  check_found(scope, 1, &first);
  CHECK_EQ(references(first.handle), 2);
  CHECK_EQ(references(second.handle), 1);
  CHECK_OK(place_unbind(scope, 1));
  CHECK_OK(place_bind(scope, 1, second.handle, CBR_BIND_ONCE));
  check_found(scope, 1, &second);
  CHECK_OK(place_unbind(scope, 1));
  CHECK_OK(cbr_unregister(first.handle));
  CHECK_OK(cbr_unregister(second.handle));
}

static inline void check_replace_lets_the_old_one_go(cbr_scope scope) {
  struct subject first, second, third;
  subject_register(&first);
  subject_register(&second);
  subject_register(&third);
  CHECK_OK(place_bind(scope, 1, first.handle, CBR_BIND_REPLACE)); /* where nothing is */
  CHECK_OK(place_bind(scope, 1, second.handle, CBR_BIND_REPLACE));
  check_found(scope, 1, &second);
  CHECK_EQ(references(first.handle), 1);
  CHECK_OK(cbr_release(second.handle));
  CHECK_EQ(second.destroyed, 0);
  CHECK_OK(place_bind(scope, 1, third.handle, CBR_BIND_REPLACE));
  CHECK_EQ(second.destroyed, 1); /* the binding had the last reference */
  check_found(scope, 1, &third);
  CHECK_OK(cbr_unregister(third.handle));
  CHECK_OK(place_bind(scope, 1, first.handle, CBR_BIND_REPLACE)); /* where one is gone */
  check_found(scope, 1, &first);
  CHECK_OK(place_unbind(scope, 1));
  CHECK_OK(cbr_unregister(first.handle));
  CHECK_EQ(first.destroyed + second.destroyed + third.destroyed, 3);
}

static inline void check_replacing_a_callback_by_itself_keeps_it(cbr_scope scope) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(place_bind(scope, 1, it.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_release(it.handle));
  CHECK_OK(place_bind(scope, 1, it.handle, CBR_BIND_REPLACE));
  CHECK_EQ(it.destroyed, 0);
  CHECK_EQ(references(it.handle), 1);
  check_found(scope, 1, &it);
  CHECK_OK(place_unbind(scope, 1));
  CHECK_EQ(it.destroyed, 1);
}

/* --- the callback ends -------------------------------------------------------------------- */

static inline void check_an_entry_goes_when_its_callback_ends(cbr_scope scope) {
  struct subject first, second, third;
  subject_register(&first);
  subject_register(&second);
  subject_register(&third);
  CHECK_OK(place_bind(scope, 1, first.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_unregister(first.handle));
  CHECK_EQ(first.destroyed, 1);
  check_not_found(scope, 1);
  CHECK_OK(place_bind(scope, 1, second.handle, CBR_BIND_ONCE));
  check_found(scope, 1, &second);
  CHECK_OK(cbr_unregister_wait(second.handle, -1));
  CHECK_OK(place_bind(scope, 1, third.handle, CBR_BIND_ONCE)); /* nobody looked in between */
  check_found(scope, 1, &third);
  CHECK_OK(place_unbind(scope, 1));
  CHECK_OK(cbr_unregister(third.handle));
}

static inline void check_a_revoked_callback_is_gone_while_calls_finish(cbr_scope scope) {
  struct subject first, second;
  struct occupant guest;
  subject_register(&first);
  subject_register(&second);
  CHECK_OK(place_bind(scope, 1, first.handle, CBR_BIND_ONCE));
  occupy(&guest, &first);
  CHECK_OK(cbr_unregister(first.handle));
  check_not_found(scope, 1);
  CHECK_OK(place_bind(scope, 1, second.handle, CBR_BIND_ONCE));
  check_found(scope, 1, &second);
  CHECK_EQ(subject_destroyed(&first), 0);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(first.destroyed, 1);
  check_found(scope, 1, &second);
  CHECK_OK(place_unbind(scope, 1));
  CHECK_OK(cbr_unregister(second.handle));
}

/* It may get the ended one's slot in the library, but not its places. */
static inline void check_the_next_callback_inherits_no_place(cbr_scope scope) {
  long reused = 0;
  for (long i = scaled(2000); i > 0; i--) {
    struct subject first, second;
    subject_register(&first);
    CHECK_OK(place_bind(scope, 1, first.handle, CBR_BIND_ONCE));
    check_found(scope, 1, &first);
    CHECK_OK(cbr_unregister(first.handle));
    subject_register(&second);
    reused += (uint32_t)first.handle == (uint32_t)second.handle;
    check_not_found(scope, 1);
    CHECK_EQ(second.calls, 0);
    CHECK_OK(cbr_unregister(second.handle));
  }
  CHECK(reused > 0 || under_valgrind()); /* else this has shown nothing */
}

/* --- many places, several scopes ---------------------------------------------------------- */

static inline void check_places_are_apart(void) {
  long count = scaled(10000);
  cbr_scope scopes[] = {0, scope_open("one"), scope_open("other")};
  struct subject *all = (struct subject *)calloc((size_t)count * 3, sizeof *all);
  CHECK(all != NULL);
  for (long i = 0; i < count * 3; i++) {
    subject_register(&all[i]);
    CHECK_OK(place_bind(scopes[i % 3], i / 3, all[i].handle, CBR_BIND_ONCE));
    CHECK_OK(cbr_release(all[i].handle));
  }
  for (long i = 0; i < count * 3; i++) check_found(scopes[i % 3], i / 3, &all[i]);
  for (long i = 0; i < count * 3; i += 2) CHECK_OK(place_unbind(scopes[i % 3], i / 3));
  for (long i = 0; i < count * 3; i++) {
    if (i % 2 == 0) check_not_found(scopes[i % 3], i / 3);
    else check_found(scopes[i % 3], i / 3, &all[i]);
    CHECK_EQ(all[i].destroyed, i % 2 == 0);
  }
  scope_close(scopes[1]);
  for (long i = 0; i < count * 3; i++) CHECK_EQ(all[i].destroyed, i % 2 == 0 || i % 3 == 1);
  for (long i = 3; i < count * 3; i += 6) check_found(0, i / 3, &all[i]);
  scope_close(scopes[2]);
  for (long i = 3; i < count * 3; i += 6) CHECK_OK(place_unbind(0, i / 3));
  for (long i = 0; i < count * 3; i++) CHECK_EQ(all[i].destroyed, 1);
  free(all);
}

static inline void check_a_callback_of_one_scope_may_be_bound_in_another(void) {
  struct subject it, ours;
  cbr_scope here = scope_open("here"), there = scope_open("there");
  subject_register_in(&it, there);
  subject_register_in(&ours, here);
  CHECK_OK(place_bind(here, 1, it.handle, CBR_BIND_ONCE));
  CHECK_OK(place_bind(0, 1, it.handle, CBR_BIND_ONCE));
  CHECK_OK(place_bind(there, 2, ours.handle, CBR_BIND_ONCE));
  check_found(here, 1, &it);
  check_found(0, 1, &it);
  check_not_found(there, 1);
  check_found(there, 2, &ours);
  scope_close(there); /* ends its callbacks wherever they are bound, and no other's */
  CHECK_EQ(it.destroyed, 1);
  check_not_found(here, 1);
  check_not_found(0, 1);
  CHECK_EQ(ours.destroyed, 0);
  CHECK_EQ(references(ours.handle), 1);
  scope_close(here);
  CHECK_EQ(ours.destroyed, 1);
}

static inline void check_closing_a_scope_unbinds(void) {
  struct subject kept, last;
  cbr_scope scope = scope_open("closes");
  cbr_handle handle = 99;
  subject_register(&kept);
  subject_register(&last);
  CHECK_OK(place_bind(scope, 1, kept.handle, CBR_BIND_ONCE));
  CHECK_OK(place_bind(scope, 2, kept.handle, CBR_BIND_ONCE));
  CHECK_OK(place_bind(scope, 3, last.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_release(last.handle));
  scope_close(scope);
  CHECK_EQ(last.destroyed, 1);
  CHECK_EQ(references(kept.handle), 1);
  CHECK_OK(cbr_call(kept.handle, NULL, NULL));
  CHECK_REFUSED(place_bind(scope, 1, kept.handle, CBR_BIND_ONCE), CBR_ERR_STALE);
  CHECK_REFUSED(place_find(scope, 1, &handle), CBR_ERR_STALE);
  CHECK_REFUSED(place_call(scope, 1, NULL, NULL), CBR_ERR_STALE);
  CHECK_REFUSED(place_unbind(scope, 1), CBR_ERR_STALE);
  CHECK_EQ(handle, 99);
  CHECK_EQ(references(kept.handle), 1);
  CHECK_OK(cbr_unregister(kept.handle));
}

static inline void check_a_closing_scope_takes_nothing_and_has_nothing(void) {
  struct subject kept, last;
  struct closing closing;
  cbr_scope scope = scope_open("is closing");
  subject_register(&kept);
  subject_register(&last);
  CHECK_OK(place_bind(scope, 1, kept.handle, CBR_BIND_ONCE));
  CHECK_OK(place_bind(scope, 2, last.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_release(last.handle));
  closing_begin(&closing, scope);
  CHECK_EQ(last.destroyed, 1);
  CHECK_EQ(references(kept.handle), 1);
  check_not_found(scope, 1);
  check_not_found(scope, 2);
  CHECK_REFUSED(place_bind(scope, 1, kept.handle, CBR_BIND_ONCE), CBR_ERR_CLOSED);
  CHECK_REFUSED(place_bind(scope, 3, kept.handle, CBR_BIND_REPLACE), CBR_ERR_CLOSED);
  CHECK_EQ(references(kept.handle), 1);
  check_not_found(scope, 1);
  closing_end(&closing);
  CHECK_OK(cbr_unregister(kept.handle));
}

/* --- what is refused ---------------------------------------------------------------------- */

static inline void check_bind_refused(cbr_scope scope, cbr_handle handle, cbr_status status) {
  CHECK_REFUSED(place_bind(scope, 1, handle, CBR_BIND_ONCE), status);
  CHECK_REFUSED(place_bind(scope, 1, handle, CBR_BIND_REPLACE), status);
}

static inline void check_handles_that_are_refused(cbr_scope scope) {
  struct subject it, gone, ending;
  struct occupant guest;
  cbr_scope other = scope_open("no callback");
  subject_register(&it);
  subject_register(&gone);
  subject_register(&ending);
  CHECK_OK(cbr_unregister(gone.handle));
  occupy(&guest, &ending);
  CHECK_OK(cbr_unregister(ending.handle));
  for (int bound = 0; bound < 2; bound++) {
    check_bind_refused(scope, CBR_HANDLE_NONE, CBR_ERR_STALE);
    check_bind_refused(scope, gone.handle, CBR_ERR_STALE);
    check_bind_refused(scope, ending.handle, CBR_ERR_STALE);
    check_bind_refused(scope, it.handle ^ UINT64_C(1) << 63, CBR_ERR_STALE);
    check_bind_refused(scope, other, CBR_ERR_KIND);
    if (bound) break;
    check_not_found(scope, 1);
    /* With one in the place a ONCE would fail anyway: what is wrong with the handle comes first. */
    CHECK_OK(place_bind(scope, 1, it.handle, CBR_BIND_ONCE));
  }
  check_found(scope, 1, &it);
  CHECK_EQ(references(it.handle), 2);
  CHECK_OK(place_unbind(scope, 1));
  CHECK_OK(vacate(&guest));
  CHECK_OK(cbr_unregister(it.handle));
  scope_close(other);
}

static inline void check_modes_that_are_refused(cbr_scope scope) {
  static const uint32_t modes[] = {2, 3, 0x80000000, UINT32_MAX};
  struct subject it, other;
  subject_register(&it);
  subject_register(&other);
  for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
    CHECK_REFUSED(place_bind(scope, 1, it.handle, modes[i]), CBR_ERR_INVALID);
    check_not_found(scope, 1);
    CHECK_OK(place_bind(scope, 1, other.handle, CBR_BIND_ONCE));
    CHECK_REFUSED(place_bind(scope, 1, it.handle, modes[i]), CBR_ERR_INVALID);
    check_found(scope, 1, &other);
    CHECK_OK(place_unbind(scope, 1));
  }
  CHECK_EQ(references(it.handle), 1);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_OK(cbr_unregister(other.handle));
}

static inline void check_scope_refused(cbr_scope scope, cbr_handle handle, cbr_status status) {
  cbr_handle found = 99;
  intptr_t result = 77;
  check_bind_refused(scope, handle, status);
  CHECK_REFUSED(place_find(scope, 1, &found), status);
  CHECK_REFUSED(place_call(scope, 1, NULL, &result), status);
  CHECK_REFUSED(place_unbind(scope, 1), status);
  CHECK_EQ(found, 99);
  CHECK_EQ(result, 77);
}

static inline void check_scopes_that_are_refused(void) {
  struct subject it;
  cbr_scope closed = scope_open("closed"), next;
  subject_register(&it);
  CHECK_OK(place_bind(closed, 1, it.handle, CBR_BIND_ONCE));
  scope_close(closed);
  check_scope_refused(closed, it.handle, CBR_ERR_STALE);
  next = scope_open("in its place");
  CHECK_OK(place_bind(next, 1, it.handle, CBR_BIND_ONCE));
  check_scope_refused(closed, it.handle, CBR_ERR_STALE);
  check_scope_refused(next ^ UINT64_C(1) << 63, it.handle, CBR_ERR_STALE);
  check_scope_refused(it.handle, it.handle, CBR_ERR_KIND);
  check_found(next, 1, &it);
  CHECK_EQ(references(it.handle), 2);
  scope_close(next);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- from inside -------------------------------------------------------------------------- */

struct inside {
  cbr_scope scope;
  struct subject other;
};

static inline intptr_t puts_another_there(struct subject *it, void *arg) {
  struct inside *self = (struct inside *)arg;
  CHECK_EQ(cbr_current(), it->handle);
  CHECK_OK(place_bind(self->scope, 1, self->other.handle, CBR_BIND_REPLACE));
  CHECK_EQ(it->destroyed, 0);
  CHECK(!cbr_is_live(it->handle)); /* the binding had the last reference */
  check_found(self->scope, 1, &self->other);
  CHECK_OK(place_unbind(self->scope, 1));
  check_not_found(self->scope, 1);
  CHECK_OK(place_bind(self->scope, 2, self->other.handle, CBR_BIND_ONCE));
  return 8;
}

static inline void check_a_callback_may_replace_and_unbind_itself(cbr_scope scope) {
  struct subject it;
  struct inside self = {.scope = scope};
  struct action action = {puts_another_there, &self};
  intptr_t result = 0;
  subject_register(&self.other);
  subject_register(&it);
  CHECK_OK(place_bind(scope, 1, it.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_release(it.handle));
  CHECK_OK(place_call(scope, 1, &action, &result));
  CHECK_EQ(result, 8);
  CHECK_EQ(it.destroyed, 1);
  check_not_found(scope, 1);
  check_found(scope, 2, &self.other);
  CHECK_OK(place_unbind(scope, 2));
  CHECK_OK(cbr_unregister(self.other.handle));
}

/* Binds, finds and unbinds in the middle of whatever ends the callback. */
static inline void destroy_uses_places(struct subject *it) {
  struct inside *self = (struct inside *)it->extra;
  cbr_handle handle = 99;
  cbr_status status = place_find(self->scope, 1, &handle);
  check_ok_or_not_found(status); /* what is there after a replace, nothing after all else */
  CHECK(handle != it->handle);
  check_not_found(self->scope, 3);
  CHECK_OK(place_bind(self->scope, 3, self->other.handle, CBR_BIND_ONCE));
  check_found(self->scope, 3, &self->other);
  CHECK_REFUSED(place_bind(self->scope, 3, it->handle, CBR_BIND_REPLACE), CBR_ERR_STALE);
  CHECK_OK(place_unbind(self->scope, 3));
  check_not_found(self->scope, 3);
  CHECK_OK(place_bind(self->scope, 1, self->other.handle, CBR_BIND_REPLACE));
  check_found(self->scope, 1, &self->other);
}

static inline void check_destroy_may_use_places(cbr_scope scope) {
  struct inside self = {.scope = scope};
  struct subject it;
  subject_register(&self.other);
  for (int way = 0; way < 4; way++) {
    subject_register(&it);
    it.on_destroy = destroy_uses_places;
    it.extra = &self;
    CHECK_OK(place_bind(scope, 1, it.handle, CBR_BIND_ONCE));
    if (way != 3) CHECK_OK(cbr_release(it.handle));
    switch (way) {
      case 0: CHECK_OK(place_unbind(scope, 1)); break;
      case 1: CHECK_OK(place_bind(scope, 1, self.other.handle, CBR_BIND_REPLACE)); break;
      case 2: CHECK_OK(cbr_unregister(it.handle)); break;
      case 3: CHECK_OK(cbr_unregister_wait(it.handle, -1)); break;
    }
    CHECK_EQ(it.destroyed, 1);
    check_found(scope, 1, &self.other);
    CHECK_EQ(references(self.other.handle), 2);
    CHECK_OK(place_unbind(scope, 1));
  }
  CHECK_OK(cbr_unregister(self.other.handle));
}

/* The scope's own close runs it: nothing can be put there any more. */
static inline void destroy_meets_a_closing_scope(struct subject *it) {
  struct inside *self = (struct inside *)it->extra;
  check_not_found(self->scope, 1);
  CHECK_REFUSED(place_bind(self->scope, 1, self->other.handle, CBR_BIND_REPLACE), CBR_ERR_CLOSED);
  CHECK_OK(place_bind(0, 1, self->other.handle, CBR_BIND_ONCE));
  check_found(0, 1, &self->other);
  CHECK_OK(place_unbind(0, 1));
}

static inline void check_destroy_in_a_close_may_use_places(void) {
  struct inside self = {.scope = scope_open("closes")};
  struct subject owned, bound;
  subject_register(&self.other);
  subject_register_in(&owned, self.scope);
  subject_register(&bound);
  owned.on_destroy = bound.on_destroy = destroy_meets_a_closing_scope;
  owned.extra = bound.extra = &self;
  CHECK_OK(place_bind(self.scope, 1, owned.handle, CBR_BIND_ONCE));
  CHECK_OK(place_bind(self.scope, 2, bound.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_release(bound.handle));
  scope_close(self.scope);
  CHECK_EQ(owned.destroyed, 1);
  CHECK_EQ(bound.destroyed, 1);
  CHECK_EQ(references(self.other.handle), 1);
  CHECK_OK(cbr_unregister(self.other.handle));
}

/* --- the thread ends in a destroy function ------------------------------------------------ */

/* The first one to be destroyed ends its thread, in the middle of what ends them all. */
static int threads_ended;

static inline void destroy_ends_its_thread(struct subject *it) {
  if (threads_ended++ > 0) return;
  add_int(&it->destroyed, 1); /* subject_destroy will not return */
  pthread_exit(NULL);
}

static inline void *closes_and_never_returns(void *arg) {
  scope_close(*(cbr_scope *)arg);
  FAIL("the scope's close has returned, though destroy has ended the thread");
}

/* Then close again, says the header: and nothing has been lost. */
static inline void check_close_after_a_destroy_that_ended_its_thread(void) {
  enum { ALL = 100 };
  struct subject its[ALL];
  cbr_scope scope = scope_open("closed twice");
  threads_ended = 0;
  for (int i = 0; i < ALL; i++) {
    subject_register(&its[i]);
    its[i].on_destroy = destroy_ends_its_thread;
    CHECK_OK(place_bind(scope, i, its[i].handle, CBR_BIND_ONCE));
    check_found(scope, i, &its[i]);
    CHECK_OK(cbr_release(its[i].handle));
  }
  run_on_thread(closes_and_never_returns, &scope);
  scope_close(scope);
  for (int i = 0; i < ALL; i++) {
    intptr_t result = 77;
    CHECK_REFUSED(place_call(scope, i, NULL, &result), CBR_ERR_STALE);
    CHECK_EQ(its[i].destroyed, 1);
  }
}

/* --- threads ------------------------------------------------------------------------------ */

enum { BINDERS = 4, BINDER_PLACES = 48 };

struct binder {
  long number;
  cbr_scope scope;
  struct rng rng;
  struct subject own[BINDER_PLACES];
  bool live[BINDER_PLACES], bound[BINDER_PLACES];
  long binds, calls;
  pthread_t thread;
};

static pthread_barrier_t binders_meet;

/* Only this binder uses its places, so it knows what every call must return, although the others'
 * places come and go beside them. */
static inline void binder_step(struct binder *self) {
  long i = (long)rng_below(&self->rng, BINDER_PLACES);
  long place = i * BINDERS + self->number;
  struct subject *it = &self->own[i];
  if (!self->live[i]) {
    check_not_found(self->scope, place);
    subject_register(it);
    self->live[i] = true;
  }
  switch (rng_below(&self->rng, 8)) {
    case 0:
      CHECK_STATUS(place_bind(self->scope, place, it->handle, CBR_BIND_ONCE),
                   self->bound[i] ? CBR_ERR_EXISTS : CBR_OK);
      self->bound[i] = true;
      break;
    case 1:
      CHECK_OK(place_bind(self->scope, place, it->handle, CBR_BIND_REPLACE));
      self->bound[i] = true;
      break;
    case 2:
      CHECK_STATUS(place_unbind(self->scope, place), self->bound[i] ? CBR_OK : CBR_ERR_NOT_FOUND);
      self->bound[i] = false;
      break;
    case 3:
      CHECK_EQ(references(it->handle), self->bound[i] ? 2 : 1);
      CHECK_OK(cbr_release(it->handle));
      CHECK_EQ(it->destroyed, !self->bound[i]);
      if (self->bound[i]) {
        check_found(self->scope, place, it);
        CHECK_OK(place_unbind(self->scope, place));
      }
      CHECK_EQ(it->destroyed, 1);
      self->live[i] = self->bound[i] = false;
      break;
    case 4:
      CHECK_OK(rng_below(&self->rng, 2) ? cbr_unregister(it->handle)
                                        : cbr_unregister_wait(it->handle, -1));
      CHECK_EQ(it->destroyed, 1);
      self->live[i] = self->bound[i] = false;
      break;
    default:
      if (self->bound[i]) check_found(self->scope, place, it);
      else check_not_found(self->scope, place);
      self->calls++;
  }
}

static inline void *binder_main(void *arg) {
  struct binder *self = (struct binder *)arg;
  meet(&binders_meet);
  for (long steps = scaled(100000); steps > 0; steps--) binder_step(self);
  for (long i = 0; i < BINDER_PLACES; i++) {
    if (!self->live[i]) continue;
    CHECK_OK(cbr_unregister(self->own[i].handle));
    CHECK_EQ(self->own[i].destroyed, 1);
  }
  return NULL;
}

static inline void check_threads_with_places_of_their_own(cbr_scope scope) {
  static struct binder binders[BINDERS];
  uint64_t seed = rng_seed();
  memset(binders, 0, sizeof binders);
  CHECK_EQ(pthread_barrier_init(&binders_meet, NULL, BINDERS), 0);
  for (long i = 0; i < BINDERS; i++) {
    binders[i].number = i;
    binders[i].scope = scope;
    binders[i].rng.state = seed + (uint64_t)i;
    binders[i].thread = start(binder_main, &binders[i]);
  }
  for (long i = 0; i < BINDERS; i++) join(binders[i].thread);
}

/* Everybody uses the same few places. Nobody unregisters what was bound, and nobody replaces, so
 * what was bound and what was unbound add up. */
enum { SHARED_PLACES = 5 };

struct sharer {
  cbr_scope scope;
  struct rng rng;
  struct subject *own;
  long count, bound, unbound, found, called;
  pthread_t thread;
};

static inline void sharer_binds(struct sharer *self, long place) {
  struct subject *it = &self->own[self->count++];
  subject_register(it);
  cbr_status status = place_bind(self->scope, place, it->handle, CBR_BIND_ONCE);
  if (status == CBR_OK) {
    self->bound++;
    CHECK_OK(cbr_release(it->handle)); /* the binding's is the last one */
  } else {
    CHECK_STATUS(status, CBR_ERR_EXISTS);
    CHECK_EQ(references(it->handle), 1);
    CHECK_OK(cbr_release(it->handle));
    CHECK_EQ(it->destroyed, 1);
  }
}

static inline void *sharer_main(void *arg) {
  struct sharer *self = (struct sharer *)arg;
  meet(&binders_meet);
  for (long steps = scaled(60000); steps > 0; steps--) {
    long place = (long)rng_below(&self->rng, SHARED_PLACES);
    cbr_handle handle = 99;
    intptr_t result = 0;
    cbr_status status;
    switch (rng_below(&self->rng, 4)) {
      case 0: sharer_binds(self, place); break;
      case 1:
        status = place_unbind(self->scope, place);
        check_ok_or_not_found(status);
        self->unbound += status == CBR_OK;
        break;
      case 2:
        status = place_find(self->scope, place, &handle);
        check_ok_or_not_found(status);
        CHECK_EQ(handle == 99, status != CBR_OK);
        self->found += status == CBR_OK;
        break;
      default:
        status = place_call(self->scope, place, &who_are_you, &result);
        check_ok_or_not_found(status);
        CHECK_EQ(result == 0, status != CBR_OK);
        self->called += status == CBR_OK;
    }
  }
  return NULL;
}

static inline void check_threads_that_share_places(cbr_scope scope) {
  struct sharer sharers[BINDERS], sum;
  uint64_t seed = rng_seed();
  long steps = scaled(60000), ran = 0, left = 0;
  memset(sharers, 0, sizeof sharers);
  memset(&sum, 0, sizeof sum);
  CHECK_EQ(pthread_barrier_init(&binders_meet, NULL, BINDERS), 0);
  for (int i = 0; i < BINDERS; i++) {
    sharers[i].scope = scope;
    sharers[i].rng.state = seed + (uint64_t)i;
    sharers[i].own = (struct subject *)calloc((size_t)steps, sizeof(struct subject));
    CHECK(sharers[i].own != NULL);
    sharers[i].thread = start(sharer_main, &sharers[i]);
  }
  for (int i = 0; i < BINDERS; i++) {
    join(sharers[i].thread);
    sum.bound += sharers[i].bound;
    sum.unbound += sharers[i].unbound;
    sum.called += sharers[i].called;
  }
  for (long place = 0; place < SHARED_PLACES; place++) {
    cbr_status status = place_unbind(scope, place);
    check_ok_or_not_found(status);
    left += status == CBR_OK;
  }
  CHECK_EQ(sum.bound, sum.unbound + left);
  for (int i = 0; i < BINDERS; i++) {
    for (long j = 0; j < sharers[i].count; j++) {
      CHECK_EQ(sharers[i].own[j].destroyed, 1);
      ran += sharers[i].own[j].calls;
    }
    free(sharers[i].own);
  }
  CHECK_EQ(ran, sum.called);
  printf("%s: %ld bound, %ld called\n", harness_current, sum.bound, sum.called);
}

/* Of several that bind ONCE at the same time one wins. */
static struct {
  cbr_scope scope;
  struct subject own[BINDERS];
  cbr_status status[BINDERS];
} once;

static inline void *binds_once(void *arg) {
  long self = (long)arg;
  for (long i = scaled(3000); i > 0; i--) {
    meet(&binders_meet);
    once.status[self] = place_bind(once.scope, 1, once.own[self].handle, CBR_BIND_ONCE);
    meet(&binders_meet);
  }
  return NULL;
}

static inline void check_once_is_won_by_one(cbr_scope scope) {
  pthread_t threads[BINDERS];
  once.scope = scope;
  CHECK_EQ(pthread_barrier_init(&binders_meet, NULL, BINDERS + 1), 0);
  for (long i = 0; i < BINDERS; i++) threads[i] = start(binds_once, (void *)i);
  for (long round = scaled(3000); round > 0; round--) {
    int wins = 0;
    for (int i = 0; i < BINDERS; i++) subject_register(&once.own[i]);
    meet(&binders_meet);
    meet(&binders_meet);
    for (int i = 0; i < BINDERS; i++) {
      bool won = once.status[i] == CBR_OK;
      if (won) check_found(scope, 1, &once.own[i]);
      else CHECK_STATUS(once.status[i], CBR_ERR_EXISTS);
      CHECK_EQ(references(once.own[i].handle), won ? 2 : 1);
      wins += won;
    }
    CHECK_EQ(wins, 1);
    if (round % 2 == 0) CHECK_OK(place_unbind(scope, 1)); /* else it goes with its callback */
    for (int i = 0; i < BINDERS; i++) CHECK_OK(cbr_unregister(once.own[i].handle));
    for (int i = 0; i < BINDERS; i++) CHECK_EQ(once.own[i].destroyed, 1);
    check_not_found(scope, 1);
  }
  for (int i = 0; i < BINDERS; i++) join(threads[i]);
}

/* --- replace against find and call -------------------------------------------------------- */

static struct {
  cbr_scope scope;
  struct subject *all;
  long begun, done; /* numbers of the latest replace that has begun, and of the latest over */
  long looks;
  int stop;
  gate looking;
} replacing;

static inline long load_long(const long *it) { return __atomic_load_n(it, __ATOMIC_ACQUIRE); }

static inline void store_long(long *it, long value) {
  __atomic_store_n(it, value, __ATOMIC_RELEASE);
}

static inline void *finds_what_is_there(void *arg) {
  (void)arg;
  do {
    cbr_handle handle = 99;
    long number = load_long(&replacing.done);
    CHECK_OK(place_find(replacing.scope, 1, &handle));
    long newest = load_long(&replacing.begun);
    while (number <= newest && replacing.all[number].handle != handle) number++;
    if (number > newest)
      FAIL("find gave neither what was there nor what came: 0x%llx", (unsigned long long)handle);
    if (__atomic_fetch_add(&replacing.looks, 1, __ATOMIC_RELAXED) == 0)
      gate_open(&replacing.looking);
  } while (!load_int(&replacing.stop));
  return NULL;
}

static inline void *calls_what_is_there(void *arg) {
  (void)arg;
  do {
    intptr_t result = 0;
    long oldest = load_long(&replacing.done);
    CHECK_OK(place_call(replacing.scope, 1, &who_are_you, &result));
    long number = (struct subject *)result - replacing.all;
    if (number < oldest || number > load_long(&replacing.begun))
      FAIL("a call ran callback %ld; when it began, %ld was there", number, oldest);
    if (__atomic_fetch_add(&replacing.looks, 1, __ATOMIC_RELAXED) == 0)
      gate_open(&replacing.looking);
  } while (!load_int(&replacing.stop));
  return NULL;
}

/* Of every second one the binding has the last reference, so that the next replace ends it; the
 * others live on for a while, so that a call of one that was replaced is noticed. */
enum { LIVES_ON_FOR = 8 };

static inline void replace_by(long number) {
  struct subject *it = &replacing.all[number];
  uint32_t mode = number == 0 ? CBR_BIND_ONCE : CBR_BIND_REPLACE;
  store_long(&replacing.begun, number);
  CHECK_OK(place_bind(replacing.scope, 1, it->handle, mode));
  store_long(&replacing.done, number);
  if (number % 2 == 0) CHECK_OK(cbr_release(it->handle));
  else if (number > LIVES_ON_FOR) CHECK_OK(cbr_release(it[-LIVES_ON_FOR].handle));
}

static inline void check_replace_meets(cbr_scope scope, thread_fn looker) {
  pthread_t threads[2];
  long count = scaled(200000), ran = 0;
  memset(&replacing, 0, sizeof replacing);
  replacing.scope = scope;
  replacing.all = (struct subject *)calloc((size_t)count + 1, sizeof *replacing.all);
  CHECK(replacing.all != NULL);
  gate_init(&replacing.looking);
  /* All beforehand, so that one replace comes right after the other. */
  for (long i = 0; i <= count; i++) subject_register(&replacing.all[i]);
  replace_by(0);
  for (int i = 0; i < 2; i++) threads[i] = start(looker, NULL);
  gate_pass(&replacing.looking);
  for (long i = 1; i <= count; i++) replace_by(i);
  store_int(&replacing.stop, 1);
  for (int i = 0; i < 2; i++) join(threads[i]);
  CHECK_OK(place_unbind(scope, 1));
  for (long i = count; i >= 0 && i > count - LIVES_ON_FOR; i--) {
    if (i % 2 != 0) CHECK_OK(cbr_release(replacing.all[i].handle));
  }
  for (long i = 0; i <= count; i++) {
    CHECK_EQ(replacing.all[i].destroyed, 1);
    ran += replacing.all[i].calls;
  }
  CHECK_EQ(ran, looker == calls_what_is_there ? replacing.looks : 0);
  printf("%s: %ld replaced, %ld looks\n", harness_current, count, replacing.looks);
  free(replacing.all);
}

static inline void check_replace_meets_finds(cbr_scope scope) {
  check_replace_meets(scope, finds_what_is_there);
}

static inline void check_replace_meets_calls(cbr_scope scope) {
  check_replace_meets(scope, calls_what_is_there);
}

/* --- bind against the end of its callback, and against the close of its scope -------------- */

static struct {
  cbr_scope scope;
  struct subject it;
  cbr_status status;
} ending;

static inline void *unregisters_what_is_bound(void *arg) {
  (void)arg;
  for (long i = scaled(20000); i > 0; i--) {
    meet(&binders_meet);
    CHECK_OK(cbr_unregister(ending.it.handle));
    meet(&binders_meet);
  }
  return NULL;
}

static inline void check_bind_meets_unregister(cbr_scope scope) {
  struct subject other;
  long stale = 0;
  CHECK_EQ(pthread_barrier_init(&binders_meet, NULL, 2), 0);
  subject_register(&ending.it);
  pthread_t thread = start(unregisters_what_is_bound, NULL);
  for (long round = scaled(20000); round > 0; round--) {
    uint32_t mode = round % 2 == 0 ? CBR_BIND_ONCE : CBR_BIND_REPLACE;
    meet(&binders_meet);
    cbr_status status = place_bind(scope, 1, ending.it.handle, mode);
    meet(&binders_meet);
    if (status != CBR_ERR_STALE) CHECK_OK(status);
    stale += status != CBR_OK;
    CHECK_EQ(ending.it.destroyed, 1);
    if (round % 3 == 0) check_not_found(scope, 1);
    subject_register(&other);
    CHECK_OK(place_bind(scope, 1, other.handle, CBR_BIND_ONCE));
    check_found(scope, 1, &other);
    CHECK_OK(place_unbind(scope, 1));
    CHECK_EQ(references(other.handle), 1);
    CHECK_OK(cbr_unregister(other.handle));
    if (round > 1) subject_register(&ending.it);
  }
  join(thread);
  printf("%s: %ld came too late\n", harness_current, stale);
}

static inline void *closes_the_scope(void *arg) {
  (void)arg;
  for (long i = scaled(5000); i > 0; i--) {
    meet(&binders_meet);
    scope_close(ending.scope);
    meet(&binders_meet);
  }
  return NULL;
}

/* A bind that succeeded beside the close has left no reference behind. */
static inline void check_bind_meets_close(void) {
  enum { PLACES = 4 };
  struct subject its[PLACES];
  long late = 0;
  CHECK_EQ(pthread_barrier_init(&binders_meet, NULL, 2), 0);
  pthread_t thread = start(closes_the_scope, NULL);
  for (long round = scaled(5000); round > 0; round--) {
    ending.scope = scope_open("closes");
    for (int i = 0; i < PLACES; i++) subject_register(&its[i]);
    meet(&binders_meet);
    for (int i = 0; i < PLACES; i++) {
      cbr_status status = place_bind(ending.scope, i, its[i].handle, CBR_BIND_ONCE);
      if (status != CBR_ERR_CLOSED && status != CBR_ERR_STALE) CHECK_OK(status);
      late += status != CBR_OK;
      cbr_handle handle;
      cbr_status found = place_find(ending.scope, i, &handle);
      if (found != CBR_ERR_STALE) check_ok_or_not_found(found);
      if (status != CBR_OK) CHECK(found != CBR_OK);
    }
    meet(&binders_meet);
    for (int i = 0; i < PLACES; i++) {
      CHECK_EQ(references(its[i].handle), 1);
      CHECK_OK(cbr_release(its[i].handle));
      CHECK_EQ(its[i].destroyed, 1);
    }
  }
  join(thread);
  printf("%s: %ld came too late\n", harness_current, late);
}

/* --- memory ------------------------------------------------------------------------------- */

static inline int64_t resident_bytes(void) {
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%*d %ld", &pages) == 1);
  fclose(file);
  return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

static inline int64_t heap_in_use(void) {
  struct mallinfo2 info = mallinfo2();
  return (int64_t)info.uordblks + (int64_t)info.hblkhd;
}

static int counted_ends;

static inline void count_end(void *user_data) {
  (void)user_data;
  counted_ends++;
}

static inline intptr_t answers(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  return 42;
}

/* Binds so many, and unregisters them without unbinding. */
static inline void fill_and_end(cbr_scope scope, long first_place, cbr_handle *handles,
                                long count) {
  cbr_handle found;
  counted_ends = 0;
  for (long i = 0; i < count; i++) {
    CHECK_OK(cbr_register(answers, NULL, count_end, &handles[i]));
    CHECK_OK(place_bind(scope, first_place + i, handles[i], CBR_BIND_ONCE));
  }
  for (long i = 0; i < count; i++) {
    CHECK_OK(place_find(scope, first_place + i, &found));
    CHECK_EQ(found, handles[i]);
    CHECK_OK(cbr_unregister(handles[i]));
  }
  CHECK_EQ(counted_ends, count);
}

/* step 0: the same places again and again; else always new ones. */
static inline void check_memory_stays_bounded(cbr_scope scope, long most, long step) {
  enum { WARM = 16, ROUNDS = 16 }; /* tables have found their size by then */
  long count = scaled(most);
  int64_t heap = 0, resident = 0;
  cbr_handle *handles = (cbr_handle *)calloc((size_t)count, sizeof *handles);
  CHECK(handles != NULL);
  for (long round = 0; round < WARM + ROUNDS; round++) {
    if (round == WARM) {
      heap = heap_in_use();
      resident = resident_bytes();
    }
    fill_and_end(scope, round * step, handles, count);
  }
  heap = heap_in_use() - heap;
  resident = resident_bytes() - resident;
  printf("%s: %ld places, heap %+lld, resident %+lld bytes\n", harness_current, count,
         (long long)heap, (long long)resident);
  /* Entries that stayed would be 32 bytes each at the least, in every round. */
  int64_t leak = (int64_t)count * 32 * ROUNDS;
  CHECK(heap < leak / 4 + 65536);
  /* A tool's own memory, such as freed blocks that it keeps, says nothing about the library's. */
  if (!under_valgrind() && !HARNESS_SANITIZED) CHECK(resident < leak / 4 + (1 << 20));
  free(handles);
}

/* --- no memory ---------------------------------------------------------------------------- */

/* Every byte that the heap can give, as a list. */
static inline void *take_all_memory(void) {
  void **all = NULL, **block;
  skip_where_limits_do_not_work();
  limit_address_space(1 << 20);
  for (size_t size = 1 << 20; size >= 16; size /= 2) {
    while ((block = (void **)malloc(size)) != NULL) {
      *block = all;
      all = block;
    }
  }
  return all;
}

static inline void give_back(void *all) {
  while (all != NULL) {
    void *next = *(void **)all;
    free(all);
    all = next;
  }
}

/* The library is in use, but nobody has bound anything. */
static inline void check_the_first_bind_without_memory(void) {
  struct subject it;
  cbr_handle handle = 99;
  subject_register(&it);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  void *all = take_all_memory();
  cbr_status found = place_find(0, 1, &handle);
  cbr_status bound = place_bind(0, 1, it.handle, CBR_BIND_ONCE);
  give_back(all);
  if (found != CBR_ERR_NOMEM) CHECK_STATUS(found, CBR_ERR_NOT_FOUND);
  CHECK_EQ(handle, 99);
  if (bound == CBR_OK) CHECK_OK(place_unbind(0, 1));
  else CHECK_STATUS(bound, CBR_ERR_NOMEM);
  CHECK_EQ(references(it.handle), 1);
  CHECK_OK(place_bind(0, 1, it.handle, CBR_BIND_ONCE));
  check_found(0, 1, &it);
  CHECK_OK(cbr_unregister(it.handle));
}

static inline void check_binding_until_memory_is_out(void) {
  enum { MOST = 10000000, ROOM = 16 << 20 };
  struct subject it, other;
  cbr_status status = CBR_OK;
  long count = 0;
  subject_register(&it);
  subject_register(&other);
  skip_where_limits_do_not_work();
  limit_address_space(ROOM);
  while (count < MOST && (status = place_bind(0, count, it.handle, CBR_BIND_ONCE)) == CBR_OK)
    count++;
  if (count == MOST) SKIP("the limit on the address space did not bite");
  CHECK_STATUS(status, CBR_ERR_NOMEM);
  CHECK(count > 1000);
  CHECK_EQ(references(it.handle), count + 1);
  check_not_found(0, count);
  for (long i = 0; i < count; i++) check_found(0, i, &it);
  status = place_bind(0, 7, other.handle, CBR_BIND_REPLACE); /* may need room for a moment */
  if (status != CBR_ERR_NOMEM) CHECK_OK(status);
  check_found(0, 7, status == CBR_OK ? &other : &it);
  for (long i = 0; i < count; i++) CHECK_OK(place_unbind(0, i));
  CHECK_EQ(references(it.handle), 1);
  CHECK_EQ(references(other.handle), 1);
  for (long i = 0; i < count / 2; i++) CHECK_OK(place_bind(0, i, it.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_OK(cbr_unregister(other.handle));
  CHECK_EQ(it.destroyed + other.destroyed, 2);
}

/* --- fork --------------------------------------------------------------------------------- */

enum { STABLE = 8, HAMMERERS = 3, HAMMERED = 16, HAMMERED_FROM = 1000 };

static struct {
  cbr_scope scope;
  struct subject stable[STABLE];
  struct subject hammered[HAMMERERS][HAMMERED];
  int done;
  gate begun;
} hammering;

static inline void *hammers(void *arg) {
  long self = (long)arg;
  struct rng rng = {(uint64_t)now_ns()};
  for (int i = 0; i < HAMMERED; i++) subject_register(&hammering.hammered[self][i]);
  for (long steps = 0; !load_int(&hammering.done); steps++) {
    struct subject *it = &hammering.hammered[self][rng_below(&rng, HAMMERED)];
    long place = HAMMERED_FROM + (long)rng_below(&rng, HAMMERED);
    if (steps == 100) gate_open(&hammering.begun);
    switch (rng_below(&rng, 6)) {
      case 0:
      case 1: CHECK_OK(place_bind(hammering.scope, place, it->handle, CBR_BIND_REPLACE)); break;
      case 2: check_ok_or_not_found(place_unbind(hammering.scope, place)); break;
      case 3:
        CHECK_OK(cbr_unregister_wait(it->handle, -1));
        CHECK_EQ(it->destroyed, 1);
        subject_register(it);
        break;
      case 4: check_ok_or_not_found(place_call(hammering.scope, place, NULL, NULL)); break;
      default: check_found(hammering.scope, place % STABLE, &hammering.stable[place % STABLE]);
    }
  }
  for (int i = 0; i < HAMMERED; i++) CHECK_OK(cbr_unregister(hammering.hammered[self][i].handle));
  return NULL;
}

static inline void check_places_work_in_the_child(void) {
  cbr_scope scope = hammering.scope;
  struct subject own[HAMMERED];
  cbr_scope another = scope_open("the child's own");
  for (int i = 0; i < STABLE; i++) hammering.stable[i].running = 0; /* nobody is, in this process */
  for (int i = 0; i < STABLE; i++) check_found(scope, i, &hammering.stable[i]);
  for (int i = 0; i < HAMMERED; i++) {
    cbr_handle handle;
    check_ok_or_not_found(place_find(scope, HAMMERED_FROM + i, &handle));
    subject_register(&own[i]);
    CHECK_OK(place_bind(scope, HAMMERED_FROM + i, own[i].handle, CBR_BIND_REPLACE));
    check_found(scope, HAMMERED_FROM + i, &own[i]);
    CHECK_OK(place_bind(another, i, own[i].handle, CBR_BIND_ONCE));
    CHECK_OK(cbr_release(own[i].handle));
  }
  for (int i = 0; i < HAMMERED; i += 2) CHECK_OK(place_unbind(scope, HAMMERED_FROM + i));
  if (scope != 0) scope_close(scope);
  for (int i = 0; i < HAMMERED; i++) {
    if (scope == 0 && i % 2 != 0) CHECK_OK(place_unbind(scope, HAMMERED_FROM + i));
    check_found(another, i, &own[i]);
    CHECK_EQ(references(own[i].handle), 1);
  }
  scope_close(another);
  for (int i = 0; i < HAMMERED; i++) CHECK_EQ(own[i].destroyed, 1);
}

static inline void check_fork_while_others_hammer(cbr_scope scope) {
  pthread_t threads[HAMMERERS];
  if (HARNESS_SANITIZED) SKIP("a lock of the sanitizer may be another thread's at the fork");
  memset(&hammering, 0, sizeof hammering);
  hammering.scope = scope;
  gate_init(&hammering.begun);
  for (int i = 0; i < STABLE; i++) {
    subject_register(&hammering.stable[i]);
    CHECK_OK(place_bind(scope, i, hammering.stable[i].handle, CBR_BIND_ONCE));
    CHECK_OK(cbr_release(hammering.stable[i].handle));
  }
  for (long i = 0; i < HAMMERERS; i++) threads[i] = start(hammers, (void *)i);
  for (long i = 0; i < HAMMERERS; i++) gate_pass(&hammering.begun);
  for (long round = scaled(300); round > 0; round--) {
    pid_t child = fork_watched();
    if (child == 0) {
      check_places_work_in_the_child();
      _exit(0);
    }
    check_child_passed(child);
  }
  store_int(&hammering.done, 1);
  for (int i = 0; i < HAMMERERS; i++) join(threads[i]);
  for (int i = 0; i < STABLE; i++) {
    check_found(scope, i, &hammering.stable[i]);
    CHECK_OK(place_unbind(scope, i));
    CHECK_EQ(hammering.stable[i].destroyed, 1);
  }
  for (int i = 0; i < HAMMERED; i++) check_not_found(scope, HAMMERED_FROM + i);
}

#endif
