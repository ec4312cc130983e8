/* Keys: callbacks attached to what the host has, such as a connection, one for each event. What
 * keys share with names is in support_bindings.h. */
#include "support_bindings.h"

/* Neighbours in a place are the events of one key, and neighbouring keys, as descriptors are. */
enum { EVENTS = 4 };

static uintptr_t key_of(long place) { return (uintptr_t)(place / EVENTS); }
static uint32_t event_of(long place) { return (uint32_t)(place % EVENTS); }

static cbr_status place_bind(cbr_scope scope, long place, cbr_handle handle, uint32_t mode) {
  return cbr_key_attach(scope, key_of(place), event_of(place), handle, mode);
}

static cbr_status place_find(cbr_scope scope, long place, cbr_handle *out_handle) {
  return cbr_key_find(scope, key_of(place), event_of(place), out_handle);
}

static cbr_status place_unbind(cbr_scope scope, long place) {
  return cbr_key_detach(scope, key_of(place), event_of(place));
}

static cbr_status place_call(cbr_scope scope, long place, void *arg, intptr_t *out_result) {
  return cbr_key_call(scope, key_of(place), event_of(place), arg, out_result);
}

TEST(a_key_is_attached_found_called_and_detached) { in_both_scopes(check_bind_find_unbind); }

TEST(a_keys_reference_keeps_its_callback_after_the_owners_release) {
  in_both_scopes(check_a_binding_keeps_its_callback_alive);
}

TEST(detach_lets_a_call_finish) { in_both_scopes(check_unbind_lets_a_call_finish); }

TEST(once_is_refused_where_a_live_one_is) {
  in_both_scopes(check_once_is_refused_where_a_live_one_is);
}

TEST(replace_lets_the_old_one_go) { in_both_scopes(check_replace_lets_the_old_one_go); }

TEST(replacing_a_callback_by_itself_keeps_it) {
  in_both_scopes(check_replacing_a_callback_by_itself_keeps_it);
}

TEST(an_entry_goes_when_its_callback_ends) {
  in_both_scopes(check_an_entry_goes_when_its_callback_ends);
}

TEST(a_revoked_callback_is_gone_while_calls_finish) {
  in_both_scopes(check_a_revoked_callback_is_gone_while_calls_finish);
}

TEST(the_next_callback_inherits_no_key) {
  in_both_scopes(check_the_next_callback_inherits_no_place);
}

TEST(ten_thousand_entries_in_each_of_three_scopes_are_apart) { check_places_are_apart(); }

TEST(a_callback_of_one_scope_may_be_attached_in_another) {
  check_a_callback_of_one_scope_may_be_bound_in_another();
}

TEST(closing_a_scope_detaches_its_keys) { check_closing_a_scope_unbinds(); }

TEST(a_closing_scope_takes_no_key_and_has_none) {
  check_a_closing_scope_takes_nothing_and_has_nothing();
}

TEST(handles_of_no_live_callback_are_refused) { in_both_scopes(check_handles_that_are_refused); }

TEST(unknown_modes_are_refused) { in_both_scopes(check_modes_that_are_refused); }

TEST(scopes_that_are_gone_or_none_are_refused) { check_scopes_that_are_refused(); }

TEST(a_callback_may_replace_and_detach_itself) {
  in_both_scopes(check_a_callback_may_replace_and_unbind_itself);
}

TEST(destroy_may_use_keys) { in_both_scopes(check_destroy_may_use_places); }

TEST(destroy_in_a_close_may_use_keys) { check_destroy_in_a_close_may_use_places(); }

TEST(a_close_after_a_destroy_that_ended_its_thread_loses_no_key) {
  check_close_after_a_destroy_that_ended_its_thread();
}

/* --- keys and events themselves ----------------------------------------------------------- */

static struct subject *called_by(cbr_scope scope, uintptr_t key, uint32_t event) {
  intptr_t result = 0;
  CHECK_OK(cbr_key_call(scope, key, event, &who_are_you, &result));
  return (struct subject *)result;
}

static void attach(cbr_scope scope, uintptr_t key, uint32_t event, struct subject *it) {
  CHECK_OK(cbr_key_attach(scope, key, event, it->handle, CBR_BIND_ONCE));
}

/* Numbers whose halves or sums are alike, pointers, and numbers of any size. */
static void check_every_key_and_event(cbr_scope scope) {
  static const uintptr_t keys[] = {0,
                                   1,
                                   2,
                                   0xffffffff,
                                   UINTPTR_MAX,
                                   UINTPTR_MAX - 1,
                                   (uintptr_t)1 << 31,
                                   UINTPTR_MAX / 2,
                                   UINTPTR_MAX / 2 + 1,
                                   (uintptr_t)&scope_open,
                                   (uintptr_t)&scope_open + 64};
  static const uint32_t events[] = {0, 1, 2, 0x7fffffff, 0x80000000, UINT32_MAX};
  enum { KEYS = sizeof keys / sizeof keys[0], ALL = sizeof events / sizeof events[0] };
  struct subject its[KEYS][ALL];
  cbr_handle handle;
  for (int i = 0; i < KEYS; i++) {
    for (int j = 0; j < ALL; j++) {
      CHECK_STATUS(cbr_key_find(scope, keys[i], events[j], &handle), CBR_ERR_NOT_FOUND);
      subject_register(&its[i][j]);
      attach(scope, keys[i], events[j], &its[i][j]);
      CHECK_OK(cbr_release(its[i][j].handle));
    }
  }
  for (int i = 0; i < KEYS; i++) {
    for (int j = 0; j < ALL; j++) CHECK(called_by(scope, keys[i], events[j]) == &its[i][j]);
  }
  for (int i = 0; i < KEYS; i++) {
    for (int j = 0; j < ALL; j++) {
      CHECK_OK(cbr_key_detach(scope, keys[i], events[j]));
      CHECK_EQ(its[i][j].destroyed, 1);
      if (j + 1 < ALL) CHECK(called_by(scope, keys[i], events[j + 1]) == &its[i][j + 1]);
    }
  }
}

TEST(every_number_is_a_key_and_an_event) { in_both_scopes(check_every_key_and_event); }

TEST(find_without_a_place_for_the_handle_is_invalid) {
  struct subject it;
  subject_register(&it);
  attach(0, 1, 2, &it);
  CHECK_REFUSED(cbr_key_find(0, 1, 2, NULL), CBR_ERR_INVALID);
  CHECK(called_by(0, 1, 2) == &it);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- calls -------------------------------------------------------------------------------- */

static intptr_t is_a_call_like_any(struct subject *it, void *arg) {
  CHECK_EQ(cbr_current(), it->handle);
  CHECK_EQ(cbr_depth(), 1);
  return (intptr_t)arg;
}

static void check_arg_and_result(cbr_scope scope) {
  struct subject it;
  struct action action = {is_a_call_like_any, (void *)-12345};
  intptr_t result = 0;
  subject_register(&it);
  attach(scope, 7, 1, &it);
  CHECK_OK(cbr_key_call(scope, 7, 1, &action, &result));
  CHECK_EQ(result, -12345);
  CHECK_OK(cbr_key_call(scope, 7, 1, &action, NULL));
  CHECK_EQ(it.calls, 2);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_keys_call_brings_arg_and_result) { in_both_scopes(check_arg_and_result); }

static intptr_t fails(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_fail(*(const cbr_status *)arg, "out of paper"));
  return 12;
}

TEST(a_keys_call_brings_the_failure_of_its_callback) {
  static const cbr_status statuses[] = {CBR_ERR_CALLBACK, CBR_ERR_PANIC};
  struct subject it;
  subject_register(&it);
  attach(0, 7, 1, &it);
  for (int i = 0; i < 2; i++) {
    cbr_status status = statuses[i];
    struct action action = {fails, &status};
    intptr_t result = 77;
    CHECK_STATUS(cbr_key_call(0, 7, 1, &action, &result), status);
    CHECK_WORDS("out of paper");
    CHECK_EQ(result, 77);
  }
  CHECK(called_by(0, 7, 1) == &it);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_key_calls_only_the_default_signature) {
  struct subject it;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  intptr_t result = 77;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.signature = CBR_SIG(CBR_VOID, CBR_I32);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  attach(0, 7, 1, &it);
  CHECK_REFUSED(cbr_key_call(0, 7, 1, NULL, &result), CBR_ERR_SIGNATURE);
  CHECK_EQ(result, 77);
  CHECK_EQ(it.calls, 0);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

static intptr_t calls_the_next_event(struct subject *it, void *arg) {
  uint32_t event = *(uint32_t *)arg - 1;
  struct action action = {calls_the_next_event, &event};
  intptr_t result = 0;
  (void)it;
  if (event == 0) return 1;
  CHECK_OK(cbr_key_call(0, 7, event, &action, &result));
  return result + 1;
}

TEST(keys_may_be_called_from_inside_their_callbacks) {
  enum { DEPTH = 20 };
  struct subject its[DEPTH + 1];
  uint32_t event = DEPTH;
  struct action action = {calls_the_next_event, &event};
  intptr_t result = 0;
  for (uint32_t i = 1; i <= DEPTH; i++) {
    subject_register(&its[i]);
    attach(0, 7, i, &its[i]);
  }
  CHECK_OK(cbr_key_call(0, 7, DEPTH, &action, &result));
  CHECK_EQ(result, DEPTH);
  for (uint32_t i = 1; i <= DEPTH; i++) CHECK_OK(cbr_unregister(its[i].handle));
}

/* In a run of calls of one key, every change shows in the next call. */
static void check_changes_show_at_once(cbr_scope scope) {
  struct subject first, second;
  subject_register(&first);
  subject_register(&second);
  attach(scope, 7, 1, &first);
  for (long i = scaled(10000); i > 0; i--) CHECK(called_by(scope, 7, 1) == &first);
  CHECK_OK(cbr_key_attach(scope, 7, 1, second.handle, CBR_BIND_REPLACE));
  for (long i = scaled(10000); i > 0; i--) CHECK(called_by(scope, 7, 1) == &second);
  CHECK_OK(cbr_key_detach(scope, 7, 1));
  check_not_found(scope, 7 * EVENTS + 1);
  attach(scope, 7, 1, &first);
  for (long i = scaled(10000); i > 0; i--) CHECK(called_by(scope, 7, 1) == &first);
  CHECK_OK(cbr_unregister(first.handle));
  check_not_found(scope, 7 * EVENTS + 1);
  attach(scope, 7, 1, &second);
  CHECK(called_by(scope, 7, 1) == &second);
  CHECK_OK(cbr_key_detach_all(scope, 7, NULL));
  check_not_found(scope, 7 * EVENTS + 1);
  CHECK_OK(cbr_unregister(second.handle));
}

TEST(a_change_shows_in_the_next_call_however_many_came_before) {
  in_both_scopes(check_changes_show_at_once);
}

TEST(a_scopes_close_shows_in_the_next_call_however_many_came_before) {
  struct subject it;
  cbr_scope scope = scope_open("closes"), next;
  subject_register(&it);
  attach(scope, 7, 1, &it);
  for (long i = scaled(10000); i > 0; i--) CHECK(called_by(scope, 7, 1) == &it);
  scope_close(scope);
  CHECK_REFUSED(cbr_key_call(scope, 7, 1, NULL, NULL), CBR_ERR_STALE);
  next = scope_open("next");
  check_not_found(next, 7 * EVENTS + 1);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  scope_close(next);
  CHECK_OK(cbr_unregister(it.handle));
}

/* The same from another thread's point of view: it has been told when the change was over. */
struct change {
  cbr_scope scope;
  struct subject *expected; /* NULL: nothing */
  gate look, looked;
};

static void *looks_when_told(void *arg) {
  struct change *self = (struct change *)arg;
  for (long i = scaled(10000); i > 0; i--) {
    gate_pass(&self->look);
    if (self->expected != NULL) check_found(self->scope, 7, self->expected);
    else check_not_found(self->scope, 7);
    gate_open(&self->looked);
  }
  return NULL;
}

static void check_changes_show_on_other_threads(cbr_scope scope) {
  struct subject its[2];
  struct change self = {.scope = scope};
  struct rng rng = {rng_seed()};
  gate_init(&self.look);
  gate_init(&self.looked);
  for (int i = 0; i < 2; i++) subject_register(&its[i]);
  pthread_t thread = start(looks_when_told, &self);
  for (long i = scaled(10000); i > 0; i--) {
    size_t count = 99;
    struct subject *one = &its[rng_below(&rng, 2)];
    switch (rng_below(&rng, 4)) {
      case 0:
        CHECK_STATUS(place_unbind(scope, 7), self.expected != NULL ? CBR_OK : CBR_ERR_NOT_FOUND);
        self.expected = NULL;
        break;
      case 1:
        CHECK_OK(cbr_key_detach_all(scope, key_of(7), &count));
        CHECK_EQ(count, self.expected != NULL);
        self.expected = NULL;
        break;
      case 2:
        CHECK_OK(cbr_unregister(one->handle));
        if (self.expected == one) self.expected = NULL;
        subject_register(one);
        break;
      default: CHECK_OK(place_bind(scope, 7, one->handle, CBR_BIND_REPLACE)); self.expected = one;
    }
    gate_open(&self.look);
    gate_pass(&self.looked);
  }
  join(thread);
  for (int i = 0; i < 2; i++) CHECK_OK(cbr_unregister(its[i].handle));
}

TEST(a_change_shows_on_other_threads_when_it_has_returned) {
  in_both_scopes(check_changes_show_on_other_threads);
}

/* --- detach_all --------------------------------------------------------------------------- */

static void check_count(cbr_scope scope, uintptr_t key, size_t expected) {
  size_t count = 99;
  CHECK_OK(cbr_key_detach_all(scope, key, &count));
  CHECK_EQ(count, expected);
}

static void check_detach_all(cbr_scope scope) {
  enum { ALL = 1000 };
  static struct subject its[ALL], neighbour, elsewhere;
  cbr_scope other = scope_open("other");
  cbr_handle handle;
  check_count(scope, 7, 0);
  subject_register(&neighbour);
  subject_register(&elsewhere);
  attach(scope, 8, 3, &neighbour);
  attach(scope, 6, 3, &neighbour);
  attach(other, 7, 3, &elsewhere);
  for (uint32_t i = 0; i < ALL; i++) {
    subject_register(&its[i]);
    attach(scope, 7, i * 77777, &its[i]);
    if (i % 2 == 0) CHECK_OK(cbr_release(its[i].handle));
  }
  check_count(scope, 7, ALL);
  for (uint32_t i = 0; i < ALL; i++) {
    CHECK_STATUS(cbr_key_find(scope, 7, i * 77777, &handle), CBR_ERR_NOT_FOUND);
    CHECK_EQ(its[i].destroyed, i % 2 == 0);
    if (i % 2 == 0) continue;
    CHECK_OK(cbr_call(its[i].handle, NULL, NULL)); /* it revokes nothing */
    CHECK_EQ(references(its[i].handle), 1);
  }
  check_count(scope, 7, 0);
  CHECK(called_by(scope, 8, 3) == &neighbour);
  CHECK(called_by(scope, 6, 3) == &neighbour);
  CHECK(called_by(other, 7, 3) == &elsewhere);
  attach(scope, 7, 77777, &its[1]);
  CHECK(called_by(scope, 7, 77777) == &its[1]);
  CHECK_OK(cbr_key_detach_all(scope, 7, NULL));
  CHECK_STATUS(cbr_key_detach(scope, 7, 77777), CBR_ERR_NOT_FOUND);
  for (int i = 1; i < ALL; i += 2) {
    CHECK_OK(cbr_release(its[i].handle));
    CHECK_EQ(its[i].destroyed, 1);
  }
  scope_close(other);
  CHECK_OK(cbr_unregister(neighbour.handle));
  CHECK_OK(cbr_unregister(elsewhere.handle));
}

TEST(detach_all_drops_the_references_of_one_key_and_revokes_nothing) {
  in_both_scopes(check_detach_all);
}

static void check_detach_all_counts_live_ones(cbr_scope scope) {
  struct subject its[9], again;
  struct occupant guest;
  for (uint32_t i = 0; i < 9; i++) {
    subject_register(&its[i]);
    attach(scope, 7, i, &its[i]);
  }
  occupy(&guest, &its[0]);
  for (int i = 0; i < 9; i += 3) CHECK_OK(cbr_unregister(its[i].handle)); /* 0 with a guest */
  CHECK_OK(cbr_key_detach(scope, 7, 1));
  subject_register(&again);
  attach(scope, 7, 3, &again); /* where one is gone */
  check_count(scope, 7, 6);
  check_count(scope, 7, 0);
  CHECK_OK(vacate(&guest));
  for (int i = 0; i < 9; i++) {
    if (i % 3 != 0) CHECK_OK(cbr_release(its[i].handle));
    CHECK_EQ(its[i].destroyed, 1);
  }
  for (uint32_t i = 0; i < 3; i++) {
    struct subject gone;
    subject_register(&gone);
    attach(scope, 7, i, &gone);
    CHECK_OK(cbr_unregister(gone.handle));
  }
  check_count(scope, 7, 0);
  CHECK_OK(cbr_unregister(again.handle));
}

TEST(detach_all_counts_live_ones_only) { in_both_scopes(check_detach_all_counts_live_ones); }

TEST(detach_all_is_refused_for_scopes_that_are_gone_or_none) {
  struct subject it;
  struct closing closing;
  cbr_scope scope = scope_open("gone");
  subject_register(&it);
  attach(scope, 7, 1, &it);
  closing_begin(&closing, scope);
  check_count(scope, 7, 0); /* the close has detached them */
  CHECK_EQ(references(it.handle), 1);
  closing_end(&closing);
  CHECK_REFUSED(cbr_key_detach_all(scope, 7, NULL), CBR_ERR_STALE);
  CHECK_REFUSED(cbr_key_detach_all(it.handle, 7, NULL), CBR_ERR_KIND);
  CHECK_OK(cbr_unregister(it.handle));
}

/* In the middle of a detach_all, destroy attaches to the same key: that is no endless loop, and
 * nothing is lost. */
static void destroy_attaches_again(struct subject *it) {
  struct subject *others = (struct subject *)it->extra;
  long event = it->calls; /* every one has been called as often as its event says */
  struct subject *next = &others[event];
  subject_register(next);
  attach(0, 7, (uint32_t)event + 100, next);
  CHECK(called_by(0, 7, (uint32_t)event + 100) == next);
  CHECK_OK(cbr_release(next->handle));
}

TEST(destroy_may_attach_to_the_key_that_detach_all_is_at) {
  enum { ALL = 50 };
  struct subject its[ALL], others[ALL];
  size_t first = 0, second = 0;
  for (uint32_t i = 0; i < ALL; i++) {
    subject_register(&its[i]);
    its[i].on_destroy = destroy_attaches_again;
    its[i].extra = others;
    for (uint32_t call = 0; call < i; call++) CHECK_OK(cbr_call(its[i].handle, NULL, NULL));
    attach(0, 7, i, &its[i]);
    CHECK_OK(cbr_release(its[i].handle));
  }
  CHECK_OK(cbr_key_detach_all(0, 7, &first));
  for (int i = 0; i < ALL; i++) CHECK_EQ(its[i].destroyed, 1);
  CHECK_OK(cbr_key_detach_all(0, 7, &second));
  CHECK_EQ(first + second, 2 * ALL); /* those that came during the first may be in either */
  CHECK(first >= ALL);
  for (int i = 0; i < ALL; i++) CHECK_EQ(others[i].destroyed, 1);
}

/* The thread ends in the middle of a detach_all: what it has not come to is attached, or let go. */
static void *detaches_all_and_never_returns(void *arg) {
  (void)arg;
  CHECK_OK(cbr_key_detach_all(0, 7, NULL));
  FAIL("detach_all has returned, though destroy has ended the thread");
}

TEST(detach_all_loses_no_reference_when_destroy_ends_its_thread) {
  enum { ALL = 20 };
  struct subject its[ALL];
  for (uint32_t i = 0; i < ALL; i++) {
    subject_register(&its[i]);
    its[i].on_destroy = destroy_ends_its_thread;
    attach(0, 7, i, &its[i]);
    CHECK_OK(cbr_release(its[i].handle));
  }
  run_on_thread(detaches_all_and_never_returns, NULL);
  CHECK_OK(cbr_key_detach_all(0, 7, NULL));
  for (int i = 0; i < ALL; i++) CHECK_EQ(its[i].destroyed, 1);
}

/* --- threads, memory, fork ---------------------------------------------------------------- */

TEST(threads_with_keys_of_their_own_do_not_disturb_one_another) {
  check_threads_with_places_of_their_own(0);
}

TEST(threads_with_keys_of_their_own_in_a_scope_do_not_disturb_one_another) {
  cbr_scope scope = scope_open("shared");
  check_threads_with_places_of_their_own(scope);
  scope_close(scope);
}

TEST(threads_that_share_keys_lose_no_reference) { in_both_scopes(check_threads_that_share_places); }

TEST(of_many_that_attach_once_at_the_same_time_one_wins) {
  in_both_scopes(check_once_is_won_by_one);
}

TEST(a_find_that_meets_a_replace_gives_the_old_one_or_the_new_one) {
  in_both_scopes(check_replace_meets_finds);
}

TEST(a_call_that_meets_a_replace_runs_the_old_one_or_the_new_one) {
  in_both_scopes(check_replace_meets_calls);
}

TEST(an_attach_that_meets_unregister_leaves_no_entry) {
  in_both_scopes(check_bind_meets_unregister);
}

TEST(an_attach_that_meets_the_scopes_close_leaves_no_reference) { check_bind_meets_close(); }

/* Some attach, some detach one, some detach all: every attached one comes off exactly once. */
struct detacher {
  cbr_scope scope;
  struct rng rng;
  struct subject *own;
  long count, attached, detached;
  pthread_t thread;
};

static void *attaches_and_detaches(void *arg) {
  struct detacher *self = (struct detacher *)arg;
  meet(&binders_meet);
  for (long steps = scaled(60000); steps > 0; steps--) {
    uintptr_t key = rng_below(&self->rng, 3);
    uint32_t event = (uint32_t)rng_below(&self->rng, 6);
    size_t count = 0;
    cbr_status status;
    switch (rng_below(&self->rng, 8)) {
      case 0:
        CHECK_OK(cbr_key_detach_all(self->scope, key, &count));
        CHECK(count <= 6);
        self->detached += (long)count;
        break;
      case 1:
        status = cbr_key_detach(self->scope, key, event);
        check_ok_or_not_found(status);
        self->detached += status == CBR_OK;
        break;
      case 2: check_ok_or_not_found(cbr_key_call(self->scope, key, event, NULL, NULL)); break;
      default: {
        struct subject *it = &self->own[self->count++];
        subject_register(it);
        status = cbr_key_attach(self->scope, key, event, it->handle, CBR_BIND_ONCE);
        if (status != CBR_ERR_EXISTS) CHECK_OK(status);
        self->attached += status == CBR_OK;
        CHECK_OK(cbr_release(it->handle));
      }
    }
  }
  return NULL;
}

static void check_detach_all_counts_every_one_once(cbr_scope scope) {
  struct detacher its[BINDERS];
  uint64_t seed = rng_seed();
  long attached = 0, detached = 0;
  memset(its, 0, sizeof its);
  CHECK_EQ(pthread_barrier_init(&binders_meet, NULL, BINDERS), 0);
  for (int i = 0; i < BINDERS; i++) {
    its[i].scope = scope;
    its[i].rng.state = seed + (uint64_t)i;
    its[i].own = (struct subject *)calloc((size_t)scaled(60000), sizeof(struct subject));
    CHECK(its[i].own != NULL);
    its[i].thread = start(attaches_and_detaches, &its[i]);
  }
  for (int i = 0; i < BINDERS; i++) {
    join(its[i].thread);
    attached += its[i].attached;
    detached += its[i].detached;
  }
  for (uintptr_t key = 0; key < 3; key++) {
    size_t count = 0;
    CHECK_OK(cbr_key_detach_all(scope, key, &count));
    detached += (long)count;
  }
  CHECK_EQ(detached, attached);
  for (int i = 0; i < BINDERS; i++) {
    for (long j = 0; j < its[i].count; j++) CHECK_EQ(its[i].own[j].destroyed, 1);
    free(its[i].own);
  }
  printf("%s: %ld attached\n", harness_current, attached);
}

TEST(detach_all_against_attach_and_detach_counts_every_one_once) {
  in_both_scopes(check_detach_all_counts_every_one_once);
}

enum { MANY = 100000 };

TEST(a_hundred_thousand_keys_whose_callbacks_ended_take_no_memory) {
  check_memory_stays_bounded(0, MANY, 0);
}

TEST(a_hundred_thousand_ever_new_keys_whose_callbacks_ended_take_no_memory) {
  check_memory_stays_bounded(0, MANY, 10 * MANY);
}

TEST(a_hundred_thousand_keys_of_a_scope_whose_callbacks_ended_take_no_memory) {
  cbr_scope scope = scope_open("large");
  check_memory_stays_bounded(scope, MANY, 10 * MANY);
  scope_close(scope);
}

/* Such as requests of a connection, each with a number of its own. */
TEST(ever_new_events_of_one_key_whose_callbacks_ended_take_no_memory) {
  enum { WARM = 4, ROUNDS = 16 };
  long count = scaled(2000);
  int64_t heap = 0;
  for (long round = 0; round < WARM + ROUNDS; round++) {
    if (round == WARM) heap = heap_in_use();
    for (long i = 0; i < count; i++) {
      struct subject it;
      subject_register(&it);
      attach(0, 7, (uint32_t)(round * count + i), &it);
      CHECK_OK(cbr_unregister(it.handle));
    }
  }
  heap = heap_in_use() - heap;
  printf("%s: heap %+lld bytes\n", harness_current, (long long)heap);
  CHECK(heap < count * ROUNDS * 16 / 4); /* an entry is 16 bytes at the least */
}

TEST(the_first_key_without_memory_gives_a_status) { check_the_first_bind_without_memory(); }

TEST(attaching_until_memory_is_out_gives_a_status) { check_binding_until_memory_is_out(); }

enum { MANY_EVENTS = 1000 };

static void attach_many_events(cbr_scope scope, struct subject *it) {
  subject_register(it);
  for (uint32_t event = 0; event < MANY_EVENTS; event++) attach(scope, 7, event, it);
}

TEST(a_keys_many_events_are_detached_without_memory) {
  struct subject it;
  size_t count = 0;
  attach_many_events(0, &it);
  void *all = take_all_memory();
  CHECK_OK(cbr_key_detach_all(0, 7, &count));
  give_back(all);
  CHECK_EQ(count, MANY_EVENTS);
  CHECK_EQ(references(it.handle), 1);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_scope_that_has_a_key_of_many_events_is_closed_without_memory) {
  struct subject it;
  cbr_scope scope = scope_open("many events");
  attach_many_events(scope, &it);
  void *all = take_all_memory();
  scope_close(scope);
  give_back(all);
  CHECK_EQ(references(it.handle), 1);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(keys_work_in_the_child_of_a_fork_while_others_hammer_them) {
  check_fork_while_others_hammer(0);
}

TEST(a_scopes_keys_work_in_the_child_of_a_fork_while_others_hammer_them) {
  cbr_scope scope = scope_open("hammered");
  check_fork_while_others_hammer(scope);
  scope_close(scope);
}
