/* Scopes: closing ends all that a scope owns and nothing else, waits for what still runs, and says
 * so when it could never end; draining waits for what has ended. */
#include "support_child.h"
#include "support_owners.h"
#include "support_race.h"

#include <malloc.h>

#define MS INT64_C(1000000)

/* Registers in the scope, which must not take it. */
static void check_register_refused(cbr_scope scope, cbr_status expected) {
  struct subject it;
  cbr_handle handle = 99;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.scope = scope;
  CHECK_REFUSED(cbr_register_with(&options, &handle), expected);
  CHECK_EQ(handle, 99);
  CHECK_EQ(it.destroyed, 0);
}

static void check_ended(struct subject *it) {
  CHECK_EQ(subject_destroyed(it), 1);
  CHECK_STATUS(cbr_call(it->handle, NULL, NULL), CBR_ERR_STALE);
}

/* Several who close the same scope may all be told OK, and who comes too late that it is gone. */
static void check_closed(cbr_status status) {
  if (status != CBR_ERR_STALE) CHECK_OK(status);
}

/* A thread that closes a scope. */
struct closer {
  cbr_scope scope;
  int64_t timeout_ns;
  struct subject *watched; /* may be NULL */
  pthread_t thread;
  cbr_status status;
  size_t running;
  int destroyed; /* the watched one, when the close returned */
};

static void *closer_main(void *arg) {
  struct closer *self = (struct closer *)arg;
  self->status = cbr_scope_close(self->scope, self->timeout_ns, &self->running);
  self->destroyed = self->watched == NULL ? 0 : subject_destroyed(self->watched);
  return NULL;
}

static void closer_start(struct closer *self, cbr_scope scope, int64_t timeout_ns,
                         struct subject *watched) {
  self->scope = scope;
  self->timeout_ns = timeout_ns;
  self->watched = watched;
  self->running = 77;
  self->thread = start(closer_main, self);
}

/* --- open --------------------------------------------------------------------------------- */

TEST(a_scope_has_any_name_or_none) {
  char longest[256];
  memset(longest, 'n', 255);
  longest[255] = '\0';
  const char *const names[] = {NULL, "", "plugin", "plugin", longest, "\xc3\xa4\xe2\x82\xac"};
  enum { COUNT = sizeof names / sizeof names[0] };
  cbr_scope scopes[COUNT];
  for (int i = 0; i < COUNT; i++) {
    scopes[i] = scope_open(names[i]);
    for (int j = 0; j < i; j++) CHECK(scopes[i] != scopes[j]);
  }
  for (int i = 0; i < COUNT; i++) scope_close(scopes[i]);
}

TEST(what_is_no_name_opens_no_scope) {
  static char too_long[257], absurd[1000001];
  static const char *const bad[] = {"\x80", "n\xc3", "\xc0\xaf", "\xed\xa0\x80", too_long, absurd};
  cbr_scope scope = 99;
  memset(too_long, 'n', 256);
  memset(absurd, 'n', 1000000);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    CHECK_REFUSED(cbr_scope_open(bad[i], &scope), CBR_ERR_INVALID);
    CHECK_EQ(scope, 99);
  }
}

TEST(open_without_a_place_for_the_handle_is_invalid) {
  CHECK_REFUSED(cbr_scope_open("plugin", NULL), CBR_ERR_INVALID);
}

TEST(ten_thousand_scopes_may_be_open_at_once) {
  long count = scaled(10000);
  cbr_scope *scopes = (cbr_scope *)calloc((size_t)count, sizeof *scopes);
  struct subject *all = (struct subject *)calloc((size_t)count, sizeof *all);
  CHECK(scopes != NULL && all != NULL);
  for (long i = 0; i < count; i++) {
    scopes[i] = scope_open(i % 2 ? "one of many" : NULL);
    subject_register_in(&all[i], scopes[i]);
  }
  for (long i = 0; i < count; i += 2) scope_close(scopes[i]);
  for (long i = 0; i < count; i++) CHECK_EQ(all[i].destroyed, i % 2 == 0);
  for (long i = 1; i < count; i += 2) CHECK_OK(cbr_call(all[i].handle, NULL, NULL));
  for (long i = 1; i < count; i += 2) scope_close(scopes[i]);
  for (long i = 0; i < count; i++) CHECK_EQ(all[i].destroyed, 1);
  free(all);
  free(scopes);
}

/* --- what closing ends -------------------------------------------------------------------- */

TEST(an_empty_scope_closes_at_once) {
  static const int64_t timeouts[] = {0, 1, 20 * MS, -1, INT64_MAX};
  for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
    cbr_scope scope = scope_open("empty");
    size_t running = 77;
    CHECK_OK(cbr_scope_close(scope, timeouts[i], &running));
    CHECK_EQ(running, 0);
    running = 77;
    CHECK_REFUSED(cbr_scope_close(scope, timeouts[i], &running), CBR_ERR_STALE);
    CHECK_EQ(running, 0); /* a count is always written */
  }
}

TEST(closing_ends_every_callback_of_the_scope_and_no_other) {
  enum { OWNERS = 4, EACH = 5 }; /* the last is the default scope */
  struct subject all[OWNERS][EACH];
  cbr_scope scopes[OWNERS] = {scope_open("a"), scope_open("b"), scope_open("c"), 0};
  for (int j = 0; j < EACH; j++) {
    for (int i = 0; i < OWNERS; i++) subject_register_in(&all[i][j], scopes[i]);
  }
  for (int closed = 0; closed < OWNERS - 1; closed++) {
    scope_close(scopes[closed]);
    for (int i = 0; i < OWNERS; i++) {
      for (int j = 0; j < EACH; j++) {
        if (i <= closed) check_ended(&all[i][j]);
        else CHECK_OK(cbr_call(all[i][j].handle, NULL, NULL));
        CHECK_EQ(all[i][j].destroyed, i <= closed);
      }
    }
  }
  for (int j = 0; j < EACH; j++) CHECK_OK(cbr_unregister(all[OWNERS - 1][j].handle));
}

TEST(closing_ends_callbacks_that_others_own_too) {
  struct subject it;
  cbr_hook hook = CBR_HOOK_INIT;
  cbr_scope scope = scope_open("closes"), other = scope_open("stays");
  subject_register_in(&it, scope);
  CHECK_OK(cbr_retain(it.handle));
  CHECK_OK(cbr_hook_set_once(&hook, it.handle));
  CHECK_OK(cbr_name_bind(other, "its", it.handle, CBR_BIND_ONCE));
  scope_close(scope);
  check_ended(&it);
  CHECK_STATUS(cbr_release(it.handle), CBR_ERR_STALE);
  CHECK_STATUS(cbr_hook_call(&hook, NULL, NULL), CBR_ERR_NOT_FOUND);
  CHECK_STATUS(cbr_name_unbind(other, "its"), CBR_ERR_NOT_FOUND);
  scope_close(other);
  CHECK_EQ(it.destroyed, 1);
}

TEST(callbacks_that_ended_before_are_not_ended_again) {
  struct subject unregistered, waited, released, left;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&unregistered, scope);
  subject_register_in(&waited, scope);
  subject_register_in(&left, scope);
  subject_register_in(&released, scope);
  CHECK_OK(cbr_unregister(unregistered.handle));
  CHECK_OK(cbr_unregister_wait(waited.handle, -1));
  CHECK_OK(cbr_release(released.handle));
  CHECK_EQ(unregistered.destroyed + waited.destroyed + released.destroyed, 3);
  CHECK_EQ(left.destroyed, 0);
  scope_close(scope);
  CHECK_EQ(unregistered.destroyed + waited.destroyed + released.destroyed + left.destroyed, 4);
}

TEST(destroy_functions_run_on_the_closing_thread_when_nobody_is_inside) {
  struct subject it;
  struct closer closer;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&it, scope);
  closer_start(&closer, scope, -1, &it);
  join(closer.thread);
  CHECK_OK(closer.status);
  CHECK_EQ(closer.destroyed, 1);
  CHECK(pthread_equal(it.destroyed_on, closer.thread));
}

TEST(a_callback_without_a_destroy_function_ends_too) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  struct subject it;
  cbr_handle handle;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.scope = scope_open("plugin");
  CHECK_OK(cbr_register_with(&options, &handle));
  CHECK_OK(cbr_call(handle, NULL, NULL));
  scope_close(options.scope);
  CHECK_STATUS(cbr_call(handle, NULL, NULL), CBR_ERR_STALE);
}

/* --- what is refused ---------------------------------------------------------------------- */

TEST(the_default_scope_cannot_be_closed) {
  struct subject it;
  size_t running = 77;
  subject_register(&it);
  CHECK_REFUSED(cbr_scope_close(0, -1, &running), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_scope_close(0, -1, NULL), CBR_ERR_INVALID);
  CHECK_EQ(running, 0);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_timeout_below_minus_one_is_invalid_and_changes_nothing) {
  static const int64_t timeouts[] = {-2, -1000000, INT64_MIN};
  struct subject it, second;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&it, scope);
  for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
    CHECK_REFUSED(cbr_scope_close(scope, timeouts[i], NULL), CBR_ERR_INVALID);
    CHECK_REFUSED(cbr_scope_drain(scope, timeouts[i]), CBR_ERR_INVALID);
    CHECK_REFUSED(cbr_scope_drain(0, timeouts[i]), CBR_ERR_INVALID);
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
  }
  subject_register_in(&second, scope); /* it is not closing either */
  scope_close(scope);
  CHECK_EQ(it.destroyed + second.destroyed, 2);
}

static void *never_attaches(void *user_data) {
  (void)user_data;
  FAIL("an attach function that was refused runs");
}

static void never_destroys(void *user_data) {
  (void)user_data;
  FAIL("a refused call has taken its user data over");
}

/* Every function that takes a scope refuses it with this status. */
static void check_scope_refused(cbr_scope scope, cbr_status expected) {
  struct subject it;
  cbr_handle found = 99;
  size_t running = 77, count = 77;
  subject_register(&it);
  CHECK_REFUSED(cbr_scope_close(scope, 0, &running), expected);
  CHECK_REFUSED(cbr_scope_close(scope, -1, &running), expected);
  CHECK_REFUSED(cbr_scope_drain(scope, -1), expected);
  CHECK_REFUSED(cbr_scope_set_thread_hooks(scope, never_attaches, NULL, NULL, never_destroys),
                expected);
  check_register_refused(scope, expected);
  CHECK_REFUSED(cbr_name_bind(scope, "name", it.handle, CBR_BIND_ONCE), expected);
  CHECK_REFUSED(cbr_name_find(scope, "name", &found), expected);
  CHECK_REFUSED(cbr_name_unbind(scope, "name"), expected);
  CHECK_REFUSED(cbr_key_attach(scope, 1, 1, it.handle, CBR_BIND_ONCE), expected);
  CHECK_REFUSED(cbr_key_find(scope, 1, 1, &found), expected);
  CHECK_REFUSED(cbr_key_call(scope, 1, 1, NULL, NULL), expected);
  CHECK_REFUSED(cbr_key_detach(scope, 1, 1), expected);
  CHECK_REFUSED(cbr_key_detach_all(scope, 1, &count), expected);
  CHECK_EQ(found, 99);
  CHECK_EQ(running, 0);
  CHECK_EQ(count, 77);
  CHECK_EQ(references(it.handle), 1);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_closed_scope_is_stale_in_every_function) {
  cbr_scope scope = scope_open("plugin");
  scope_close(scope);
  check_scope_refused(scope, CBR_ERR_STALE);
}

TEST(a_scope_that_never_was_is_stale) {
  cbr_scope scope = scope_open("plugin");
  struct subject it;
  subject_register_in(&it, scope);
  cbr_scope forged[] = {1, UINT64_MAX, scope ^ UINT64_C(1) << 32, scope ^ UINT64_C(1) << 63,
                        scope + (UINT64_C(1) << 32), scope ^ UINT64_C(1) << 27};
  for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++)
    check_scope_refused(forged[i], CBR_ERR_STALE);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  scope_close(scope);
}

TEST(a_callback_is_no_scope) {
  struct subject it, member;
  cbr_scope scope = scope_open("plugin");
  subject_register(&it);
  subject_register_in(&member, scope);
  check_scope_refused(it.handle, CBR_ERR_KIND);
  check_scope_refused(member.handle, CBR_ERR_KIND);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_call(member.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
  scope_close(scope);
}

TEST(a_scope_is_no_callback) {
  struct subject it;
  cbr_hook hook = CBR_HOOK_INIT;
  cbr_pin pin;
  intptr_t result = 77;
  uint32_t count = 77;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&it, scope);
  CHECK_REFUSED(cbr_call(scope, NULL, &result), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_enter(scope, 0, &pin), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_hold(scope, 0, &pin), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_retain(scope), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_release(scope), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_refcount(scope, &count), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_unregister(scope), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_unregister_wait(scope, -1), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_hook_set_once(&hook, scope), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_name_bind(scope, "name", scope, CBR_BIND_ONCE), CBR_ERR_KIND);
  CHECK(!cbr_is_live(scope));
  CHECK_EQ(result, 77);
  CHECK_EQ(count, 77);
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(scope), NULL), 0);
  cbr_release_ptr(CBR_TO_PTR(scope));
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  scope_close(scope);
}

TEST(the_next_scope_is_not_its_predecessor) {
  long reused = 0;
  cbr_scope old = scope_open("old");
  scope_close(old);
  for (long i = scaled(2000); i > 0; i--) {
    struct subject it;
    cbr_scope scope = scope_open("new");
    CHECK(scope != old);
    reused += (uint32_t)scope == (uint32_t)old;
    subject_register_in(&it, scope);
    CHECK_STATUS(cbr_scope_close(old, -1, NULL), CBR_ERR_STALE);
    CHECK_STATUS(cbr_scope_drain(old, -1), CBR_ERR_STALE);
    check_register_refused(old, CBR_ERR_STALE);
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    CHECK_EQ(it.destroyed, 0);
    scope_close(scope);
    CHECK_EQ(it.destroyed, 1);
    old = scope;
  }
  CHECK(reused > 0 || under_valgrind()); /* else this has shown nothing */
}

TEST(scopes_that_were_closed_take_no_memory) {
  struct mallinfo2 before = mallinfo2();
  for (long i = scaled(100000); i > 0; i--) {
    struct subject all[3];
    cbr_scope scope = scope_open("a name that is copied to the heap, or is it");
    for (int j = 0; j < 3; j++) subject_register_in(&all[j], scope);
    CHECK_OK(cbr_name_bind(scope, "first", all[0].handle, CBR_BIND_ONCE));
    CHECK_OK(cbr_key_attach(scope, (uintptr_t)i, 1, all[1].handle, CBR_BIND_ONCE));
    scope_close(scope);
    for (int j = 0; j < 3; j++) CHECK_EQ(all[j].destroyed, 1);
  }
  struct mallinfo2 after = mallinfo2();
  int64_t grown = (int64_t)after.uordblks - (int64_t)before.uordblks;
  printf("%s: heap %+lld bytes\n", harness_current, (long long)grown);
  CHECK(grown < 256 * 1024);
}

/* --- a scope that is closing -------------------------------------------------------------- */

TEST(everything_is_revoked_while_a_call_still_runs) {
  struct subject busy, idle, ended;
  struct occupant guest;
  size_t running = 77;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&busy, scope);
  subject_register_in(&idle, scope);
  subject_register_in(&ended, scope);
  occupy(&guest, &busy);
  CHECK_OK(cbr_unregister(ended.handle));
  CHECK_REFUSED(cbr_scope_close(scope, 0, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 1);
  CHECK(!cbr_is_live(busy.handle));
  CHECK_STATUS(cbr_call(busy.handle, NULL, NULL), CBR_ERR_STALE);
  check_ended(&idle); /* it need not wait for the other */
  CHECK_EQ(subject_destroyed(&busy), 0);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(busy.destroyed, 1);
  CHECK(pthread_equal(busy.destroyed_on, guest.thread));
  CHECK_OK(cbr_scope_close(scope, 0, &running));
  CHECK_EQ(running, 0);
  CHECK_EQ(busy.calls + idle.calls + ended.calls, 1);
}

TEST(a_closing_scope_takes_nothing_and_has_nothing) {
  struct closing closing;
  struct subject mine, other;
  cbr_handle found = 99;
  cbr_scope scope = scope_open("plugin");
  subject_register(&other);
  subject_register_in(&mine, scope);
  CHECK_OK(cbr_name_bind(scope, "name", other.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_key_attach(scope, 1, 2, other.handle, CBR_BIND_ONCE));
  CHECK_EQ(references(other.handle), 3);
  closing_begin(&closing, scope);
  CHECK_EQ(references(other.handle), 1); /* not only at the end */
  check_register_refused(scope, CBR_ERR_CLOSED);
  CHECK_REFUSED(cbr_name_bind(scope, "name", other.handle, CBR_BIND_ONCE), CBR_ERR_CLOSED);
  CHECK_REFUSED(cbr_key_attach(scope, 1, 2, other.handle, CBR_BIND_REPLACE), CBR_ERR_CLOSED);
  CHECK_REFUSED(cbr_scope_set_thread_hooks(scope, never_attaches, NULL, NULL, never_destroys),
                CBR_ERR_CLOSED);
  CHECK_REFUSED(cbr_name_find(scope, "name", &found), CBR_ERR_NOT_FOUND);
  CHECK_REFUSED(cbr_key_find(scope, 1, 2, &found), CBR_ERR_NOT_FOUND);
  CHECK_REFUSED(cbr_key_call(scope, 1, 2, NULL, NULL), CBR_ERR_NOT_FOUND);
  CHECK_EQ(found, 99);
  CHECK_EQ(references(other.handle), 1);
  closing_end(&closing);
  check_scope_refused(scope, CBR_ERR_STALE);
  CHECK_OK(cbr_call(other.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(other.handle));
}

TEST(the_last_reference_of_anothers_callback_goes_with_the_name_or_key) {
  struct closing closing;
  struct subject named, keyed;
  cbr_scope scope = scope_open("closes");
  subject_register(&named);
  subject_register(&keyed);
  CHECK_OK(cbr_name_bind(scope, "name", named.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_key_attach(scope, 1, 2, keyed.handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_release(named.handle));
  CHECK_OK(cbr_release(keyed.handle));
  CHECK_EQ(named.destroyed + keyed.destroyed, 0);
  closing_begin(&closing, scope);
  CHECK_EQ(named.destroyed, 1);
  CHECK_EQ(keyed.destroyed, 1);
  closing_end(&closing);
}

/* Of another's callback, but run by the close. */
static void closes_what_unbinds_it(struct subject *it) {
  struct subject *mine = (struct subject *)it->extra;
  cbr_scope *scope = (cbr_scope *)mine->extra;
  CHECK(!cbr_is_live(mine->handle));
  CHECK_REFUSED(cbr_scope_close(*scope, -1, NULL), CBR_ERR_DEADLOCK);
  CHECK_REFUSED(cbr_scope_close(*scope, 0, NULL), CBR_ERR_DEADLOCK);
}

TEST(closing_inside_a_destroy_function_that_the_unbinding_runs_is_a_deadlock) {
  for (int by_key = 0; by_key < 2; by_key++) {
    struct subject foreign, mine;
    cbr_scope scope = scope_open("closes");
    subject_register(&foreign);
    subject_register_in(&mine, scope);
    mine.extra = &scope;
    foreign.on_destroy = closes_what_unbinds_it;
    foreign.extra = &mine;
    if (by_key) CHECK_OK(cbr_key_attach(scope, 1, 2, foreign.handle, CBR_BIND_ONCE));
    else CHECK_OK(cbr_name_bind(scope, "name", foreign.handle, CBR_BIND_ONCE));
    CHECK_OK(cbr_release(foreign.handle));
    scope_close(scope);
    CHECK_EQ(foreign.destroyed, 1);
    CHECK_EQ(mine.destroyed, 1);
    CHECK_STATUS(cbr_scope_close(scope, -1, NULL), CBR_ERR_STALE);
  }
}

TEST(close_returns_after_the_last_call_has_left_and_destroy_has_run) {
  struct subject it;
  struct occupant first, second;
  struct closer closer;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&it, scope);
  occupy(&first, &it);
  occupy(&second, &it);
  closer_start(&closer, scope, -1, &it);
  POLL_UNTIL(!cbr_is_live(it.handle)); /* it has revoked, and waits */
  CHECK_OK(vacate(&first));
  CHECK_EQ(subject_destroyed(&it), 0);
  check_register_refused(scope, CBR_ERR_CLOSED);
  CHECK_OK(vacate(&second));
  join(closer.thread);
  CHECK_OK(closer.status);
  CHECK_EQ(closer.running, 0);
  CHECK_EQ(closer.destroyed, 1);
}

TEST(close_with_a_deadline_returns_timeout_when_it_has_passed) {
  struct closing closing;
  size_t running = 77;
  closing_begin(&closing, scope_open("plugin"));
  int64_t before = now_ns();
  CHECK_REFUSED(cbr_scope_close(closing.scope, 20 * MS, &running), CBR_ERR_TIMEOUT);
  CHECK(now_ns() - before >= 20 * MS);
  CHECK_EQ(running, 1);
  closing_end(&closing);
}

TEST(after_a_timeout_any_thread_may_close_again) {
  struct closing closing;
  struct closer closer;
  closing_begin(&closing, scope_open("plugin"));
  for (int i = 0; i < 3; i++) {
    CHECK_STATUS(cbr_scope_close(closing.scope, 2 * MS, NULL), CBR_ERR_TIMEOUT);
    closer_start(&closer, closing.scope, 2 * MS, NULL);
    join(closer.thread);
    CHECK_STATUS(closer.status, CBR_ERR_TIMEOUT);
    CHECK_EQ(closer.running, 1);
  }
  closer_start(&closer, closing.scope, -1, &closing.inside);
  CHECK_OK(vacate(&closing.guest));
  join(closer.thread);
  CHECK_OK(closer.status);
  CHECK_EQ(closer.destroyed, 1);
  CHECK_STATUS(cbr_scope_close(closing.scope, -1, NULL), CBR_ERR_STALE);
}

/* destroy on another thread is still running. */
struct lingering {
  struct subject it;
  gate inside, leave;
  pthread_t thread;
};

static void lingers(struct subject *it) {
  struct lingering *self = (struct lingering *)it->extra;
  gate_open(&self->inside);
  gate_pass(&self->leave);
}

static void *unregisters(void *arg) {
  CHECK_OK(cbr_unregister(((struct subject *)arg)->handle));
  return NULL;
}

static void linger(struct lingering *self, cbr_scope scope) {
  gate_init(&self->inside);
  gate_init(&self->leave);
  subject_register_in(&self->it, scope);
  self->it.on_destroy = lingers;
  self->it.extra = self;
  self->thread = start(unregisters, &self->it);
  gate_pass(&self->inside);
}

static void linger_no_longer(struct lingering *self) {
  gate_open(&self->leave);
  join(self->thread);
}

TEST(running_counts_every_callback_whose_destroy_has_not_returned) {
  struct subject busy[2], held, ended, idle;
  struct occupant guests[4];
  struct lingering destroying;
  cbr_pin pin;
  size_t running = 77;
  cbr_scope scope = scope_open("plugin"), other = scope_open("other");
  struct closing elsewhere;
  for (int i = 0; i < 2; i++) subject_register_in(&busy[i], scope);
  subject_register_in(&held, scope);
  subject_register_in(&ended, scope);
  subject_register_in(&idle, scope);
  for (int i = 0; i < 3; i++) occupy(&guests[i], &busy[i % 2]);
  CHECK_OK(cbr_hold(held.handle, 0, &pin));
  occupy(&guests[3], &ended);
  CHECK_OK(cbr_unregister(ended.handle));
  linger(&destroying, scope);
  closing_begin(&elsewhere, other); /* is counted there */
  CHECK_STATUS(cbr_scope_close(scope, 0, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 5); /* both busy ones, the held, the ended and the one in destroy */
  CHECK_STATUS(cbr_scope_close(scope, 0, NULL), CBR_ERR_TIMEOUT);
  CHECK_OK(cbr_leave(&pin));
  CHECK_STATUS(cbr_scope_close(scope, 0, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 4);
  CHECK_OK(vacate(&guests[0]));
  CHECK_STATUS(cbr_scope_close(scope, 0, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 4); /* another one is inside */
  CHECK_OK(vacate(&guests[2]));
  CHECK_STATUS(cbr_scope_close(scope, 0, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 3);
  CHECK_OK(vacate(&guests[1]));
  linger_no_longer(&destroying);
  CHECK_STATUS(cbr_scope_close(scope, 1 * MS, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 1);
  CHECK_OK(vacate(&guests[3]));
  CHECK_OK(cbr_scope_close(scope, 0, &running));
  CHECK_EQ(running, 0);
  CHECK_EQ(busy[0].destroyed + busy[1].destroyed + held.destroyed + ended.destroyed, 4);
  closing_end(&elsewhere);
}

TEST(close_waits_for_a_destroy_that_is_running) {
  struct lingering destroying;
  struct closer closer;
  cbr_scope scope = scope_open("plugin");
  linger(&destroying, scope);
  CHECK_STATUS(cbr_scope_close(scope, 0, NULL), CBR_ERR_TIMEOUT);
  CHECK_STATUS(cbr_scope_close(scope, 5 * MS, NULL), CBR_ERR_TIMEOUT);
  closer_start(&closer, scope, -1, &destroying.it);
  linger_no_longer(&destroying);
  join(closer.thread);
  CHECK_OK(closer.status);
  CHECK_EQ(closer.destroyed, 1);
}

TEST(close_waits_for_a_hold_even_for_ones_own) {
  struct subject it;
  struct closer closer;
  size_t running = 77;
  cbr_pin pin;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&it, scope);
  CHECK_OK(cbr_hold(it.handle, 0, &pin));
  CHECK_STATUS(cbr_scope_close(scope, 5 * MS, &running), CBR_ERR_TIMEOUT); /* no deadlock */
  CHECK_EQ(running, 1);
  closer_start(&closer, scope, -1, &it);
  CHECK_OK(cbr_leave(&pin));
  join(closer.thread);
  CHECK_OK(closer.status);
  CHECK_EQ(closer.destroyed, 1);
}

static intptr_t registers_in_its_scope(struct subject *it, void *arg) {
  (void)it;
  check_register_refused(*(cbr_scope *)arg, CBR_ERR_CLOSED);
  return 0;
}

static intptr_t sees_the_close(struct subject *it, void *arg) {
  POLL_UNTIL(!cbr_is_live(it->handle));
  return registers_in_its_scope(it, arg);
}

static void registers_in_destroy(struct subject *it) {
  registers_in_its_scope(it, it->extra);
}

struct late_registrant {
  struct subject it;
  cbr_scope scope;
};

static void *registers_late(void *arg) {
  struct late_registrant *self = (struct late_registrant *)arg;
  CHECK_OK(subject_run(&self->it, sees_the_close, &self->scope, NULL));
  return NULL;
}

TEST(callbacks_and_destroy_functions_cannot_register_in_their_closing_scope) {
  struct late_registrant late;
  struct subject idle;
  late.scope = scope_open("plugin");
  subject_register_in(&late.it, late.scope);
  subject_register_in(&idle, late.scope);
  late.it.on_destroy = idle.on_destroy = registers_in_destroy;
  late.it.extra = idle.extra = &late.scope;
  pthread_t thread = start(registers_late, &late);
  POLL_UNTIL(load_int(&late.it.running) == 1);
  scope_close(late.scope);
  CHECK_EQ(late.it.destroyed + idle.destroyed, 2);
  join(thread);
}

/* --- several who close --------------------------------------------------------------------- */

TEST(several_threads_may_close_the_same_scope) {
  enum { CLOSERS = 8 };
  for (long round = scaled(200); round > 0; round--) {
    struct subject it;
    struct occupant guest;
    struct closer closers[CLOSERS];
    cbr_scope scope = scope_open("plugin");
    subject_register_in(&it, scope);
    occupy(&guest, &it);
    for (int i = 0; i < CLOSERS; i++)
      closer_start(&closers[i], scope, i % 2 ? -1 : 50000 * MS, &it);
    POLL_UNTIL(!cbr_is_live(it.handle));
    CHECK_OK(vacate(&guest));
    for (int i = 0; i < CLOSERS; i++) {
      join(closers[i].thread);
      check_closed(closers[i].status);
      CHECK_EQ(closers[i].destroyed, 1);
    }
    CHECK_STATUS(cbr_scope_close(scope, -1, NULL), CBR_ERR_STALE);
  }
}

/* Neither of two closers returns before the destroy functions that the other one runs are done. */
TEST(a_closer_waits_for_the_destroy_functions_that_another_closer_runs) {
  struct lingering destroying;
  struct subject idle;
  struct closer first, second;
  size_t running = 77;
  cbr_scope scope = scope_open("plugin");
  gate_init(&destroying.inside);
  gate_init(&destroying.leave);
  subject_register_in(&destroying.it, scope);
  subject_register_in(&idle, scope);
  destroying.it.on_destroy = lingers;
  destroying.it.extra = &destroying;
  closer_start(&first, scope, -1, &destroying.it);
  gate_pass(&destroying.inside);
  CHECK_STATUS(cbr_scope_close(scope, 0, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 1);
  CHECK_EQ(idle.destroyed, 1); /* one that lingers holds nobody up */
  closer_start(&second, scope, -1, &destroying.it);
  gate_open(&destroying.leave);
  join(first.thread);
  join(second.thread);
  check_closed(first.status);
  check_closed(second.status);
  CHECK_EQ(first.destroyed, 1);
  CHECK_EQ(second.destroyed, 1);
}

/* --- closing from inside ------------------------------------------------------------------ */

static const int64_t inside_timeouts[] = {-1, 10000 * MS, 0};
enum { INSIDE_TIMEOUTS = sizeof inside_timeouts / sizeof inside_timeouts[0] };

/* A scope with a callback to be inside of, and an idle one. */
struct inside {
  cbr_scope scope;
  int64_t timeout_ns;
  struct subject it, idle;
};

static void inside_begin(struct inside *self, int64_t timeout_ns) {
  self->scope = scope_open("closed from inside");
  self->timeout_ns = timeout_ns;
  subject_register_in(&self->it, self->scope);
  subject_register_in(&self->idle, self->scope);
}

/* Everything is revoked all the same, and what nobody is inside of ends. */
static void check_close_is_a_deadlock(struct inside *self) {
  for (int i = 0; i < 2; i++) {
    size_t running = 77;
    CHECK_REFUSED(cbr_scope_close(self->scope, self->timeout_ns, &running), CBR_ERR_DEADLOCK);
    CHECK_EQ(running, 1);
    CHECK(!cbr_is_live(self->it.handle));
    CHECK_EQ(self->it.destroyed, 0);
    check_ended(&self->idle);
    check_register_refused(self->scope, CBR_ERR_CLOSED);
  }
}

static void inside_end(struct inside *self) {
  CHECK_EQ(self->it.destroyed, 1);
  scope_close(self->scope);
}

static intptr_t closes_its_scope(struct subject *it, void *arg) {
  (void)it;
  check_close_is_a_deadlock((struct inside *)arg);
  return 0;
}

TEST(closing_inside_a_callback_of_the_scope_is_a_deadlock_and_revokes_all_the_same) {
  for (int i = 0; i < INSIDE_TIMEOUTS; i++) {
    struct inside self;
    inside_begin(&self, inside_timeouts[i]);
    CHECK_OK(subject_run(&self.it, closes_its_scope, &self, NULL));
    inside_end(&self);
  }
}

static intptr_t runs_what_closes(struct subject *it, void *arg) {
  (void)it;
  return subject_run((struct subject *)arg, closes_its_scope, ((struct subject *)arg)->extra, NULL);
}

TEST(closing_inside_anothers_callback_inside_one_of_the_scope_is_a_deadlock) {
  struct inside self;
  struct subject foreign;
  intptr_t result = 1;
  inside_begin(&self, -1);
  subject_register(&foreign);
  foreign.extra = &self;
  CHECK_OK(subject_run(&self.it, runs_what_closes, &foreign, &result));
  CHECK_EQ(result, CBR_OK);
  inside_end(&self);
  CHECK_OK(cbr_unregister(foreign.handle));
}

TEST(closing_inside_an_entered_pin_is_a_deadlock) {
  struct inside self;
  cbr_pin pin;
  inside_begin(&self, -1);
  CHECK_OK(cbr_enter(self.it.handle, CBR_SIG_DEFAULT, &pin));
  check_close_is_a_deadlock(&self);
  CHECK_OK(cbr_leave(&pin));
  inside_end(&self);
}

static void closes_its_scope_in_destroy(struct subject *it) {
  check_close_is_a_deadlock((struct inside *)it->extra);
}

TEST(closing_inside_a_destroy_function_of_the_scope_is_a_deadlock) {
  for (int i = 0; i < INSIDE_TIMEOUTS; i++) {
    struct inside self;
    inside_begin(&self, inside_timeouts[i]);
    self.it.on_destroy = closes_its_scope_in_destroy;
    self.it.extra = &self;
    CHECK_OK(cbr_unregister(self.it.handle));
    inside_end(&self);
  }
}

/* Which of the two is destroyed first is the library's business. */
static void closes_again_in_destroy(struct subject *it) {
  size_t running = 77;
  CHECK_REFUSED(cbr_scope_close(*(cbr_scope *)it->extra, -1, &running), CBR_ERR_DEADLOCK);
  CHECK(running >= 1 && running <= 3);
}

TEST(closing_inside_a_destroy_function_that_the_close_itself_runs_is_a_deadlock) {
  struct subject all[3];
  cbr_scope scope = scope_open("plugin");
  for (int i = 0; i < 3; i++) {
    subject_register_in(&all[i], scope);
    all[i].on_destroy = closes_again_in_destroy;
    all[i].extra = &scope;
  }
  scope_close(scope);
  for (int i = 0; i < 3; i++) CHECK_EQ(all[i].destroyed, 1);
}

static void on_error_closes(void *user_data, cbr_handle handle, cbr_status status,
                            const char *message) {
  (void)handle;
  (void)message;
  CHECK_EQ(status, CBR_ERR_CALLBACK);
  check_close_is_a_deadlock((struct inside *)((struct subject *)user_data)->extra);
}

static intptr_t fails(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "and on_error closes the scope"));
  return 0;
}

TEST(closing_inside_an_error_function_of_the_scope_is_a_deadlock) {
  struct inside self;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  inside_begin(&self, -1);
  CHECK_OK(cbr_unregister(self.it.handle));
  subject_reset(&self.it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &self.it;
  options.destroy = subject_destroy;
  options.scope = self.scope;
  options.on_error = on_error_closes;
  CHECK_OK(cbr_register_with(&options, &self.it.handle));
  self.it.extra = &self;
  CHECK_STATUS(subject_run(&self.it, fails, NULL, NULL), CBR_ERR_CALLBACK);
  inside_end(&self);
}

static intptr_t opens_uses_and_closes(struct subject *it, void *arg) {
  struct subject inner;
  cbr_scope scope = scope_open("of a callback");
  (void)it;
  (void)arg;
  subject_register_in(&inner, scope);
  CHECK_OK(cbr_call(inner.handle, NULL, NULL));
  scope_close(scope);
  CHECK_EQ(inner.destroyed, 1);
  return 0;
}

static void opens_uses_and_closes_in_destroy(struct subject *it) {
  opens_uses_and_closes(it, NULL);
}

TEST(other_scopes_may_be_closed_inside_callbacks_and_destroy_functions) {
  struct subject it;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&it, scope);
  it.on_destroy = opens_uses_and_closes_in_destroy;
  CHECK_OK(subject_run(&it, opens_uses_and_closes, NULL, NULL));
  scope_close(scope);
  CHECK_EQ(it.destroyed, 1);
}

static intptr_t closes_a_busy_scope(struct subject *it, void *arg) {
  struct closing *busy = (struct closing *)arg;
  (void)it;
  CHECK_STATUS(cbr_scope_close(busy->scope, 10 * MS, NULL), CBR_ERR_TIMEOUT);
  closing_end(busy);
  return 0;
}

TEST(closing_a_busy_scope_inside_anothers_callback_is_no_deadlock) {
  struct closing busy;
  struct subject mine;
  struct occupant mine_too;
  cbr_scope scope = scope_open("mine");
  subject_register_in(&mine, scope);
  closing_begin(&busy, scope_open("busy"));
  occupy(&mine_too, &mine); /* others inside mine do not wait for anybody */
  CHECK_OK(subject_run(&mine, closes_a_busy_scope, &busy, NULL));
  CHECK_OK(vacate(&mine_too));
  scope_close(scope);
}

/* --- rings: thread i is inside a callback of scope i and waits for scope i + 1 ---------------- */

struct ring {
  int size, closed;
  bool mixed; /* some wait for the callback, or drain its scope */
  struct subject *subjects;
  cbr_scope *scopes;
  pthread_barrier_t everybody_inside;
};

struct ring_thread {
  struct ring *ring;
  int index;
  cbr_status status;
};

static cbr_status ring_wait(struct ring *ring, int index, int next) {
  switch (ring->mixed ? index % 3 : 0) {
    case 0: return cbr_scope_close(ring->scopes[next], -1, NULL);
    case 1: return cbr_unregister_wait(ring->subjects[next].handle, -1);
    default: break;
  }
  cbr_status status = cbr_unregister(ring->subjects[next].handle);
  check_closed(status); /* others may wait for it, too */
  return cbr_scope_drain(ring->scopes[next], -1);
}

static intptr_t ring_inside(struct subject *it, void *arg) {
  struct ring_thread *self = (struct ring_thread *)arg;
  struct ring *ring = self->ring;
  int next = (self->index + 1) % ring->size;
  (void)it;
  meet(&ring->everybody_inside);
  if (next != 0 || ring->closed) {
    self->status = ring_wait(ring, self->index, next);
    return 0;
  }
  /* The end of an open chain leaves when all others have begun to wait. */
  self->status = CBR_OK;
  for (int i = 1; i < ring->size; i++) POLL_UNTIL(!cbr_is_live(ring->subjects[i].handle));
  return 0;
}

static void *ring_main(void *arg) {
  struct ring_thread *self = (struct ring_thread *)arg;
  CHECK_OK(subject_run(&self->ring->subjects[self->index], ring_inside, self, NULL));
  return NULL;
}

/* Returns how many were told of a deadlock. */
static int run_ring(int size, int closed, bool mixed) {
  struct ring ring;
  struct ring_thread *threads = (struct ring_thread *)calloc((size_t)size, sizeof *threads);
  pthread_t *ids = (pthread_t *)calloc((size_t)size, sizeof *ids);
  int deadlocks = 0;
  ring.size = size;
  ring.closed = closed;
  ring.mixed = mixed;
  ring.subjects = (struct subject *)calloc((size_t)size, sizeof *ring.subjects);
  ring.scopes = (cbr_scope *)calloc((size_t)size, sizeof *ring.scopes);
  CHECK(threads != NULL && ids != NULL && ring.subjects != NULL && ring.scopes != NULL);
  CHECK_EQ(pthread_barrier_init(&ring.everybody_inside, NULL, (unsigned)size), 0);
  for (int i = 0; i < size; i++) {
    ring.scopes[i] = scope_open("in a ring");
    subject_register_in(&ring.subjects[i], ring.scopes[i]);
  }
  for (int i = 0; i < size; i++) {
    threads[i].ring = &ring;
    threads[i].index = i;
    ids[i] = start(ring_main, &threads[i]);
  }
  for (int i = 0; i < size; i++) join(ids[i]);
  for (int i = 0; i < size; i++) {
    if (threads[i].status == CBR_ERR_DEADLOCK) deadlocks++;
    else if (threads[i].status != CBR_ERR_STALE) CHECK_OK(threads[i].status);
    else CHECK(closed && mixed); /* the callback was gone when its turn came */
    check_closed(cbr_scope_close(ring.scopes[i], -1, NULL));
    CHECK_EQ(ring.subjects[i].destroyed, 1);
  }
  pthread_barrier_destroy(&ring.everybody_inside);
  free(ring.scopes);
  free(ring.subjects);
  free(ids);
  free(threads);
  return deadlocks;
}

TEST(two_scopes_whose_callbacks_close_each_other_are_a_deadlock) {
  for (long i = scaled(300); i > 0; i--) CHECK(run_ring(2, 1, false) >= 1);
}

TEST(a_ring_of_closes_is_found_over_three_and_eight_threads) {
  for (long i = scaled(100); i > 0; i--) {
    CHECK(run_ring(3, 1, false) >= 1);
    CHECK(run_ring(8, 1, false) >= 1);
  }
}

TEST(a_ring_of_closes_is_found_over_64_threads) {
  for (long i = scaled(20); i > 0; i--) CHECK(run_ring(64, 1, false) >= 1);
}

TEST(a_ring_of_closes_waits_and_drains_is_found) {
  for (long i = scaled(100); i > 0; i--) {
    CHECK(run_ring(2, 1, true) >= 1);
    CHECK(run_ring(3, 1, true) >= 1);
    CHECK(run_ring(8, 1, true) >= 1);
  }
}

TEST(an_open_chain_of_closes_is_no_deadlock) {
  for (long i = scaled(100); i > 0; i--) {
    for (int mixed = 0; mixed < 2; mixed++) {
      CHECK_EQ(run_ring(2, 0, mixed), 0);
      CHECK_EQ(run_ring(3, 0, mixed), 0);
      CHECK_EQ(run_ring(8, 0, mixed), 0);
    }
  }
  CHECK_EQ(run_ring(64, 0, false), 0);
}

/* Two threads close a scope each, and the destroy functions that they run close the other's. */
struct destroy_pair {
  cbr_scope scopes[2];
  struct subject subjects[2];
  pthread_barrier_t both_inside;
  cbr_status statuses[2];
};

static void destroy_closes_the_other(struct subject *it) {
  struct destroy_pair *pair = (struct destroy_pair *)it->extra;
  int other = it == &pair->subjects[0];
  meet(&pair->both_inside);
  pair->statuses[1 - other] = cbr_scope_close(pair->scopes[other], -1, NULL);
}

TEST(two_closes_whose_destroy_functions_wait_for_each_other_are_a_deadlock) {
  struct destroy_pair pair;
  CHECK_EQ(pthread_barrier_init(&pair.both_inside, NULL, 2), 0);
  for (long i = scaled(300); i > 0; i--) {
    struct closer closer;
    for (int j = 0; j < 2; j++) {
      pair.scopes[j] = scope_open("one of a pair");
      subject_register_in(&pair.subjects[j], pair.scopes[j]);
      pair.subjects[j].on_destroy = destroy_closes_the_other;
      pair.subjects[j].extra = &pair;
    }
    closer_start(&closer, pair.scopes[0], -1, &pair.subjects[0]);
    check_closed(cbr_scope_close(pair.scopes[1], -1, NULL));
    join(closer.thread);
    check_closed(closer.status);
    CHECK_EQ(closer.destroyed, 1);
    CHECK(pair.statuses[0] == CBR_ERR_DEADLOCK || pair.statuses[1] == CBR_ERR_DEADLOCK);
    for (int j = 0; j < 2; j++) {
      if (pair.statuses[j] != CBR_ERR_DEADLOCK) check_closed(pair.statuses[j]);
      CHECK_EQ(pair.subjects[j].destroyed, 1);
      CHECK_STATUS(cbr_scope_close(pair.scopes[j], -1, NULL), CBR_ERR_STALE);
    }
  }
}

/* Threads wait only for scopes of a higher number than those they are inside, so no ring can close;
 * what a reader sees halfway, an old wait beside a new call, must not pass for one. */
enum { ORDERED = 6, ORDERED_THREADS = 4 };

struct ordered {
  cbr_scope scope;
  cbr_handle handle;
  struct ordered *next; /* of all that there ever were */
};

struct ordered_call {
  int number;
  struct rng *rng;
};

static struct ordered *ordered_places[ORDERED], *ordered_all;
static int ordered_registered, ordered_destroyed, ordered_done;

static intptr_t ordered_fn(void *user_data, void *arg);

static void ordered_destroy(void *user_data) {
  (void)user_data;
  add_int(&ordered_destroyed, 1);
}

static struct ordered *ordered_new(void) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  struct ordered *it = (struct ordered *)calloc(1, sizeof *it);
  CHECK(it != NULL);
  it->scope = scope_open("ordered");
  options.fn = (cbr_any_fn)ordered_fn;
  options.destroy = ordered_destroy;
  options.scope = it->scope;
  CHECK_OK(cbr_register_with(&options, &it->handle));
  add_int(&ordered_registered, 1);
  it->next = __atomic_load_n(&ordered_all, __ATOMIC_ACQUIRE);
  while (!__atomic_compare_exchange_n(&ordered_all, &it->next, it, false, __ATOMIC_ACQ_REL,
                                      __ATOMIC_ACQUIRE)) {
  }
  return it;
}

static struct ordered *ordered_at(int number) {
  return __atomic_load_n(&ordered_places[number], __ATOMIC_ACQUIRE);
}

/* Half of them give up soon, so that threads go from waiting to being inside something else. */
static void ordered_wait(int number, struct rng *rng) {
  struct ordered *old = ordered_at(number);
  int64_t timeout = rng_below(rng, 2) ? -1 : (int64_t)rng_below(rng, 30000);
  bool drain = rng_below(rng, 3) == 0;
  cbr_status status = drain ? cbr_scope_drain(old->scope, timeout)
                            : cbr_scope_close(old->scope, timeout, NULL);
  if (status == CBR_ERR_STALE) return;
  if (status != CBR_ERR_TIMEOUT || timeout == -1) CHECK_OK(status);
  if (drain || status != CBR_OK) return;
  struct ordered *fresh = ordered_new(); /* of several that closed it, one may replace it */
  if (!__atomic_compare_exchange_n(&ordered_places[number], &old, fresh, false, __ATOMIC_ACQ_REL,
                                   __ATOMIC_ACQUIRE)) {
    scope_close(fresh->scope);
  }
}

static void ordered_run(struct ordered_call *call) {
  check_ok_or_stale(cbr_call(ordered_at(call->number)->handle, call, NULL));
}

static intptr_t ordered_fn(void *user_data, void *arg) {
  struct ordered_call *call = (struct ordered_call *)arg;
  int above = ORDERED - 1 - call->number;
  (void)user_data;
  if (above == 0) return 0;
  struct ordered_call next = {call->number + 1 + (int)rng_below(call->rng, (uint64_t)above),
                              call->rng};
  if (rng_below(call->rng, 3) == 0) ordered_run(&next);
  else ordered_wait(next.number, call->rng);
  return 0;
}

static void *ordered_main(void *arg) {
  struct rng rng = {*(uint64_t *)arg};
  while (!load_int(&ordered_done)) {
    struct ordered_call call = {(int)rng_below(&rng, ORDERED), &rng};
    ordered_run(&call);
    if (rng_below(&rng, 4) == 0) ordered_wait((int)rng_below(&rng, ORDERED), &rng);
  }
  return NULL;
}

TEST(closes_in_a_fixed_order_are_never_taken_for_a_deadlock) {
  pthread_t threads[ORDERED_THREADS];
  uint64_t seeds[ORDERED_THREADS], seed = rng_seed();
  for (int i = 0; i < ORDERED; i++) ordered_places[i] = ordered_new();
  for (int i = 0; i < ORDERED_THREADS; i++) {
    seeds[i] = seed + (uint64_t)i;
    threads[i] = start(ordered_main, &seeds[i]);
  }
  int64_t end = now_ns() + scaled(2000) * MS;
  POLL_UNTIL(now_ns() > end);
  store_int(&ordered_done, 1);
  for (int i = 0; i < ORDERED_THREADS; i++) join(threads[i]);
  CHECK(ordered_destroyed > 0);
  /* Some that are out of their place were left closing by who gave up. */
  for (struct ordered *it = ordered_all; it != NULL; it = it->next)
    check_closed(cbr_scope_close(it->scope, -1, NULL));
  CHECK_EQ(ordered_destroyed, ordered_registered);
  printf("%s: %d scopes\n", harness_current, ordered_registered);
  while (ordered_all != NULL) {
    struct ordered *next = ordered_all->next;
    free(ordered_all);
    ordered_all = next;
  }
}

/* --- many callbacks ----------------------------------------------------------------------- */

enum { CROWD_THREADS = 4 };

static struct {
  long count;
  struct subject *subjects;
  cbr_handle *handles;
  cbr_scope scope;
  gate registered;
  int stop;
  long called;
} crowd;

struct crowd_caller {
  pthread_t thread;
  long first; /* of those that it registers */
  struct rng rng;
};

static void *crowd_registers_and_calls(void *arg) {
  struct crowd_caller *self = (struct crowd_caller *)arg;
  long called = 0;
  for (long i = self->first; i < crowd.count; i += CROWD_THREADS) {
    cbr_handle handle = subject_register_in(&crowd.subjects[i], crowd.scope);
    __atomic_store_n(&crowd.handles[i], handle, __ATOMIC_RELEASE);
  }
  gate_open(&crowd.registered);
  while (!load_int(&crowd.stop)) {
    uint64_t number = rng_below(&self->rng, (uint64_t)crowd.count);
    cbr_handle handle = __atomic_load_n(&crowd.handles[number], __ATOMIC_ACQUIRE);
    cbr_status status = cbr_call(handle, NULL, NULL);
    check_ok_or_stale(status);
    called += status == CBR_OK;
  }
  __atomic_add_fetch(&crowd.called, called, __ATOMIC_RELAXED);
  return NULL;
}

TEST(a_scope_of_ten_thousand_callbacks_closes_while_others_call_them) {
  struct crowd_caller callers[CROWD_THREADS];
  struct occupant guests[10];
  uint64_t seed = rng_seed();
  size_t running = 77;
  long calls = 0;
  crowd.count = scaled(10000) + 200;
  crowd.scope = scope_open("crowd");
  crowd.subjects = (struct subject *)calloc((size_t)crowd.count, sizeof(struct subject));
  crowd.handles = (cbr_handle *)calloc((size_t)crowd.count, sizeof(cbr_handle));
  CHECK(crowd.subjects != NULL && crowd.handles != NULL);
  gate_init(&crowd.registered);
  for (int i = 0; i < CROWD_THREADS; i++) {
    callers[i].first = i;
    callers[i].rng.state = seed + (uint64_t)i;
    callers[i].thread = start(crowd_registers_and_calls, &callers[i]);
  }
  for (int i = 0; i < CROWD_THREADS; i++) gate_pass(&crowd.registered);
  for (int i = 0; i < 10; i++) occupy(&guests[i], &crowd.subjects[i * 17]);
  CHECK_STATUS(cbr_scope_close(crowd.scope, 0, &running), CBR_ERR_TIMEOUT);
  CHECK(running >= 10 && running <= 10 + CROWD_THREADS); /* callers may just be inside */
  for (long i = 0; i < crowd.count; i++) CHECK(!cbr_is_live(crowd.handles[i]));
  for (int i = 0; i < 10; i++) CHECK_EQ(subject_destroyed(&crowd.subjects[i * 17]), 0);
  for (int i = 0; i < 10; i++) CHECK_OK(vacate(&guests[i]));
  scope_close(crowd.scope);
  for (long i = 0; i < crowd.count; i++) {
    CHECK_EQ(load_int(&crowd.subjects[i].destroyed), 1);
    CHECK_EQ(load_int(&crowd.subjects[i].running), 0);
  }
  store_int(&crowd.stop, 1);
  for (int i = 0; i < CROWD_THREADS; i++) join(callers[i].thread);
  for (long i = 0; i < crowd.count; i++) calls += crowd.subjects[i].calls;
  CHECK_EQ(calls, crowd.called + 10);
  free(crowd.handles);
  free(crowd.subjects);
}

/* --- races -------------------------------------------------------------------------------- */

/* Threads register as long as they are let; what was taken is ended by the close, what was refused
 * is not touched. */
enum { LATE_THREADS = 3, LATE_MOST = 2000 };

static struct {
  pthread_barrier_t meeting;
  cbr_scope scope;
  int stop, ended;
  struct {
    struct subject subjects[LATE_MOST];
    int registered;
    cbr_status last;
  } threads[LATE_THREADS];
} late;

static void late_destroy(void *user_data) {
  subject_destroy(user_data);
  add_int(&late.ended, 1);
}

static void *late_main(void *arg) {
  long self = (long)arg;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = (cbr_any_fn)subject_fn;
  options.destroy = late_destroy;
  for (;;) {
    meet(&late.meeting);
    if (late.stop) return NULL;
    options.scope = late.scope;
    late.threads[self].registered = 0;
    late.threads[self].last = CBR_OK;
    for (int i = 0; i < LATE_MOST && late.threads[self].last == CBR_OK; i++) {
      struct subject *it = &late.threads[self].subjects[i];
      subject_reset(it);
      options.user_data = it;
      late.threads[self].last = cbr_register_with(&options, &it->handle);
      if (late.threads[self].last == CBR_OK) {
        late.threads[self].registered++;
        check_ok_or_stale(cbr_call(it->handle, NULL, NULL));
      } else {
        if (late.threads[self].last != CBR_ERR_STALE)
          CHECK_STATUS(late.threads[self].last, CBR_ERR_CLOSED);
        CHECK_EQ(it->destroyed, 0);
      }
    }
    meet(&late.meeting);
  }
}

TEST(a_registration_that_meets_the_close_is_ended_by_it_or_refused) {
  pthread_t threads[LATE_THREADS];
  struct rng rng = {rng_seed()};
  long refused = 0, total = 0;
  CHECK_EQ(pthread_barrier_init(&late.meeting, NULL, LATE_THREADS + 1), 0);
  for (long i = 0; i < LATE_THREADS; i++) threads[i] = start(late_main, (void *)i);
  for (long round = scaled(1000); round > 0; round--) {
    int registered = 0;
    volatile uint64_t wait = rng_below(&rng, 20000);
    late.scope = scope_open("races");
    store_int(&late.ended, 0);
    meet(&late.meeting);
    while (wait > 0) wait--;
    scope_close(late.scope);
    int ended = load_int(&late.ended);
    meet(&late.meeting);
    for (int i = 0; i < LATE_THREADS; i++) {
      registered += late.threads[i].registered;
      refused += late.threads[i].last != CBR_OK;
      for (int j = 0; j < late.threads[i].registered; j++)
        CHECK_EQ(late.threads[i].subjects[j].destroyed, 1);
    }
    CHECK_EQ(ended, registered); /* all of them when the close returned */
    CHECK_EQ(load_int(&late.ended), registered);
    total += registered;
  }
  late.stop = 1;
  meet(&late.meeting);
  for (int i = 0; i < LATE_THREADS; i++) join(threads[i]);
  printf("%s: %ld registered, %ld times refused\n", harness_current, total, refused);
  CHECK(refused > 0);
}

/* In step: one thread closes, the others call, end, or close too. */
enum { RACED = 8 };

static struct {
  cbr_scope scope;
  struct target targets[RACED];
  struct rounds rounds;
  int role; /* what the last racer does, another thing each round */
} raced;

static void raced_prepare(void) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  raced.scope = scope_open("races");
  raced.role++;
  for (int i = 0; i < RACED; i++) {
    struct target *it = &raced.targets[i];
    memset(it, 0, sizeof *it);
    it->state = TARGET_ALIVE;
    options.fn = (cbr_any_fn)target_fn;
    options.user_data = it;
    options.destroy = target_destroy;
    options.scope = raced.scope;
    CHECK_OK(cbr_register_with(&options, &it->handle));
  }
}

static void raced_check_ended(void) {
  for (int i = 0; i < RACED; i++) {
    CHECK_EQ(load_int(&raced.targets[i].destroyed), 1);
    CHECK_EQ(__atomic_load_n(&raced.targets[i].state, __ATOMIC_RELAXED), TARGET_DESTROYED);
  }
}

static void raced_close(void) {
  cbr_status status;
  while ((status = cbr_scope_close(raced.scope, raced.role % 2 ? -1 : 1000, NULL)) ==
         CBR_ERR_TIMEOUT) {
  }
  check_closed(status);
  raced_check_ended();
}

static void raced_end(int i, int role) {
  cbr_handle handle = raced.targets[i].handle;
  switch (role % 4) {
    case 0: check_ok_or_stale(cbr_unregister(handle)); break;
    case 1: check_ok_or_stale(cbr_release(handle)); break;
    case 2: check_ok_or_stale(cbr_unregister_wait(handle, -1)); break;
    default: check_ok_or_stale(cbr_scope_drain(raced.scope, -1));
  }
}

static void raced_pin(struct racer *self, cbr_handle handle, bool hold) {
  cbr_pin pin;
  cbr_status status = hold ? cbr_hold(handle, 0, &pin) : cbr_enter(handle, 0, &pin);
  check_ok_or_stale(status);
  if (status != CBR_OK) return;
  target_fn(pin.user_data, self);
  CHECK_OK(cbr_leave(&pin));
}

static void raced_run(struct racer *self) {
  dawdle(self, 300);
  if (self->index == 0 || (self->index == 2 && raced.role % 5 == 0)) {
    raced_close();
    return;
  }
  for (int i = 0; i < RACED; i++) {
    cbr_handle handle = raced.targets[i].handle;
    if (self->index == 2) raced_end(i, raced.role);
    else if (raced.role % 3 == 0) check_ok_or_stale(cbr_call(handle, self, NULL));
    else raced_pin(self, handle, raced.role % 3 == 1);
  }
}

TEST(a_close_that_meets_calls_and_ends_runs_every_destroy_once_and_before_it_returns) {
  raced.rounds.racers = 3;
  raced.rounds.prepare = raced_prepare;
  raced.rounds.run = raced_run;
  raced.rounds.check = raced_check_ended;
  run_rounds(&raced.rounds);
}

/* --- drain -------------------------------------------------------------------------------- */

/* A thread that drains a scope. */
struct drainer {
  cbr_scope scope;
  struct subject *watched;
  pthread_t thread;
  cbr_status status;
  int destroyed;
};

static void *drainer_main(void *arg) {
  struct drainer *self = (struct drainer *)arg;
  self->status = cbr_scope_drain(self->scope, -1);
  self->destroyed = subject_destroyed(self->watched);
  return NULL;
}

static void drainer_start(struct drainer *self, cbr_scope scope, struct subject *watched) {
  self->scope = scope;
  self->watched = watched;
  self->thread = start(drainer_main, self);
}

TEST(drain_waits_for_what_has_ended_and_touches_nothing_else) {
  for (int in_default = 0; in_default < 2; in_default++) {
    struct subject ended, released, busy, idle;
    struct occupant guests[3];
    struct drainer drainer;
    cbr_scope scope = in_default ? 0 : scope_open("plugin");
    CHECK_OK(cbr_scope_drain(scope, 0));
    subject_register_in(&ended, scope);
    subject_register_in(&released, scope);
    subject_register_in(&busy, scope);
    subject_register_in(&idle, scope);
    occupy(&guests[0], &ended);
    occupy(&guests[1], &released);
    occupy(&guests[2], &busy); /* but alive */
    CHECK_OK(cbr_scope_drain(scope, -1));
    CHECK_OK(cbr_unregister(ended.handle));
    CHECK_REFUSED(cbr_scope_drain(scope, 0), CBR_ERR_TIMEOUT);
    CHECK_OK(cbr_release(released.handle));
    int64_t before = now_ns();
    CHECK_REFUSED(cbr_scope_drain(scope, 10 * MS), CBR_ERR_TIMEOUT);
    CHECK(now_ns() - before >= 10 * MS);
    drainer_start(&drainer, scope, &released);
    CHECK_OK(vacate(&guests[0]));
    CHECK_EQ(ended.destroyed, 1);
    CHECK_STATUS(cbr_scope_drain(scope, 0), CBR_ERR_TIMEOUT);
    CHECK_OK(vacate(&guests[1]));
    join(drainer.thread);
    CHECK_OK(drainer.status);
    CHECK_EQ(drainer.destroyed, 1);
    CHECK_OK(cbr_scope_drain(scope, 0));
    CHECK_OK(cbr_call(busy.handle, NULL, NULL));
    CHECK_OK(cbr_call(idle.handle, NULL, NULL));
    CHECK_OK(vacate(&guests[2]));
    CHECK_OK(cbr_unregister(busy.handle));
    CHECK_OK(cbr_unregister(idle.handle));
    if (!in_default) scope_close(scope);
  }
}

TEST(drain_waits_for_a_destroy_that_is_running_and_for_holds) {
  for (int in_default = 0; in_default < 2; in_default++) {
    struct lingering destroying;
    struct drainer drainer;
    struct subject held;
    cbr_pin pin;
    cbr_scope scope = in_default ? 0 : scope_open("plugin");
    linger(&destroying, scope);
    CHECK_STATUS(cbr_scope_drain(scope, 0), CBR_ERR_TIMEOUT);
    drainer_start(&drainer, scope, &destroying.it);
    linger_no_longer(&destroying);
    join(drainer.thread);
    CHECK_OK(drainer.status);
    CHECK_EQ(drainer.destroyed, 1);
    subject_register_in(&held, scope);
    CHECK_OK(cbr_hold(held.handle, 0, &pin));
    CHECK_OK(cbr_unregister(held.handle));
    CHECK_STATUS(cbr_scope_drain(scope, 1 * MS), CBR_ERR_TIMEOUT);
    CHECK_OK(cbr_leave(&pin));
    CHECK_OK(cbr_scope_drain(scope, 0));
    if (!in_default) scope_close(scope);
  }
}

TEST(drain_waits_for_no_other_scopes_callbacks) {
  struct subject its, defaults;
  struct occupant guests[2];
  cbr_scope scope = scope_open("one"), other = scope_open("other");
  struct closing closing;
  subject_register_in(&its, scope);
  subject_register(&defaults);
  occupy(&guests[0], &its);
  closing_begin(&closing, other); /* a scope itself is nobody's callback */
  CHECK_OK(cbr_unregister(its.handle));
  CHECK_OK(cbr_scope_drain(0, -1));
  CHECK_STATUS(cbr_scope_drain(scope, 0), CBR_ERR_TIMEOUT);
  CHECK_OK(vacate(&guests[0]));
  occupy(&guests[1], &defaults);
  CHECK_OK(cbr_unregister(defaults.handle));
  CHECK_OK(cbr_scope_drain(scope, -1));
  CHECK_STATUS(cbr_scope_drain(0, 0), CBR_ERR_TIMEOUT);
  CHECK_OK(vacate(&guests[1]));
  CHECK_OK(cbr_scope_drain(0, -1));
  closing_end(&closing);
  scope_close(scope);
}

TEST(a_closing_scope_may_be_drained) {
  struct closing closing;
  struct drainer drainer;
  closing_begin(&closing, scope_open("plugin"));
  CHECK_STATUS(cbr_scope_drain(closing.scope, 0), CBR_ERR_TIMEOUT);
  drainer_start(&drainer, closing.scope, &closing.inside);
  CHECK_OK(vacate(&closing.guest));
  join(drainer.thread);
  CHECK_OK(drainer.status);
  CHECK_EQ(drainer.destroyed, 1);
  CHECK_OK(cbr_scope_drain(closing.scope, -1)); /* it is still there */
  scope_close(closing.scope);
}

static intptr_t drains_before_and_after_its_end(struct subject *it, void *arg) {
  cbr_scope scope = *(cbr_scope *)arg;
  CHECK_OK(cbr_scope_drain(scope, -1)); /* it lives, so it is not waited for */
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_REFUSED(cbr_scope_drain(scope, -1), CBR_ERR_DEADLOCK);
  CHECK_REFUSED(cbr_scope_drain(scope, 0), CBR_ERR_DEADLOCK);
  return 0;
}

static void drains_in_destroy(struct subject *it) {
  CHECK_REFUSED(cbr_scope_drain(*(cbr_scope *)it->extra, -1), CBR_ERR_DEADLOCK);
}

TEST(draining_inside_a_callback_that_has_ended_is_a_deadlock) {
  for (int in_default = 0; in_default < 2; in_default++) {
    struct subject called, destroyed;
    cbr_scope scope = in_default ? 0 : scope_open("plugin");
    subject_register_in(&called, scope);
    CHECK_OK(subject_run(&called, drains_before_and_after_its_end, &scope, NULL));
    CHECK_EQ(called.destroyed, 1);
    subject_register_in(&destroyed, scope);
    destroyed.on_destroy = drains_in_destroy;
    destroyed.extra = &scope;
    CHECK_OK(cbr_unregister(destroyed.handle));
    CHECK_EQ(destroyed.destroyed, 1);
    if (!in_default) scope_close(scope);
  }
}

static intptr_t drains_with_another_busy(struct subject *it, void *arg) {
  struct occupant *guest = (struct occupant *)arg;
  cbr_scope scope = *(cbr_scope *)it->extra;
  CHECK_OK(cbr_unregister(guest->subject->handle));
  CHECK_STATUS(cbr_scope_drain(scope, 5 * MS), CBR_ERR_TIMEOUT);
  CHECK_OK(vacate(guest));
  CHECK_OK(cbr_scope_drain(scope, -1));
  CHECK_EQ(guest->subject->destroyed, 1);
  return 0;
}

TEST(draining_inside_a_live_callback_for_a_busy_other_is_no_deadlock) {
  struct subject mine, busy;
  struct occupant guest;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&mine, scope);
  subject_register_in(&busy, scope);
  mine.extra = &scope;
  occupy(&guest, &busy);
  CHECK_OK(subject_run(&mine, drains_with_another_busy, &guest, NULL));
  scope_close(scope);
}

TEST(drain_comes_to_an_end_while_others_register_and_end) {
  struct subject it;
  struct occupant guest;
  struct drainer drainers[3];
  for (long round = scaled(500); round > 0; round--) {
    cbr_scope scope = scope_open("busy");
    subject_register_in(&it, scope);
    occupy(&guest, &it);
    CHECK_OK(cbr_unregister(it.handle));
    for (int i = 0; i < 3; i++) drainer_start(&drainers[i], scope, &it);
    for (int i = 0; i < 20; i++) {
      struct subject other;
      subject_register_in(&other, scope);
      CHECK_OK(cbr_unregister(other.handle));
      CHECK_EQ(other.destroyed, 1);
    }
    CHECK_OK(vacate(&guest));
    for (int i = 0; i < 3; i++) {
      join(drainers[i].thread);
      CHECK_OK(drainers[i].status);
      CHECK_EQ(drainers[i].destroyed, 1);
    }
    scope_close(scope);
  }
}

/* --- threads that end, processes that fork -------------------------------------------------- */

static void exits_in_destroy(struct subject *it) {
  (void)it;
  pthread_exit((void *)4712);
}

static void *closes_and_exits(void *arg) {
  cbr_scope_close(*(cbr_scope *)arg, -1, NULL);
  FAIL("pthread_exit has returned");
}

/* More than are looked at together, so that some are left when the thread is gone. */
enum { LEFT = 200 };

static void check_every_one_ended(struct subject *all, int exiting) {
  /* What exits in its destroy function does not get to count. */
  for (int i = 0; i < LEFT; i++) {
    CHECK_EQ(all[i].state, SUBJECT_DESTROYED);
    CHECK_EQ(all[i].destroyed, i != exiting);
  }
}

TEST(after_pthread_exit_inside_a_destroy_function_the_scope_can_be_closed_again) {
  static const int exiting[] = {0, 1, LEFT / 2, LEFT - 1};
  for (size_t i = 0; i < sizeof exiting / sizeof exiting[0]; i++) {
    struct subject all[LEFT];
    cbr_scope scope = scope_open("plugin");
    for (int j = 0; j < LEFT; j++) subject_register_in(&all[j], scope);
    all[exiting[i]].on_destroy = exits_in_destroy;
    CHECK_EQ((intptr_t)run_on_thread(closes_and_exits, &scope), 4712);
    for (int j = 0; j < LEFT; j++) CHECK(!cbr_is_live(all[j].handle)); /* a call might end it */
    scope_close(scope);
    check_every_one_ended(all, exiting[i]);
  }
}

static void meets_and_exits_in_destroy(struct subject *it) {
  struct lingering *gates = (struct lingering *)it->extra;
  gate_open(&gates->inside);
  gate_pass(&gates->leave);
  pthread_exit((void *)4712);
}

/* The one that exits had the rest before it; the other one, which waits, must take it over. */
TEST(a_waiting_closer_takes_over_from_one_whose_thread_ends_in_a_destroy_function) {
  for (long round = scaled(50); round > 0; round--) {
    struct subject all[LEFT];
    struct lingering gates;
    struct closer closer;
    cbr_scope scope = scope_open("plugin");
    gate_init(&gates.inside);
    gate_init(&gates.leave);
    for (int i = 0; i < LEFT; i++) subject_register_in(&all[i], scope);
    all[0].on_destroy = meets_and_exits_in_destroy;
    all[0].extra = &gates;
    pthread_t exiting = start(closes_and_exits, &scope);
    gate_pass(&gates.inside);
    closer_start(&closer, scope, -1, NULL);
    gate_open(&gates.leave);
    join(closer.thread);
    check_closed(closer.status);
    check_every_one_ended(all, 0);
    CHECK_EQ((intptr_t)join(exiting), 4712);
    CHECK_STATUS(cbr_scope_close(scope, -1, NULL), CBR_ERR_STALE);
  }
}

static intptr_t exits(struct subject *it, void *arg) {
  add_int(&it->running, -1); /* subject_fn will not get to it */
  gate_open((gate *)arg);
  POLL_UNTIL(!cbr_is_live(it->handle));
  pthread_exit((void *)4711);
}

struct exiting {
  struct subject it;
  gate inside;
};

static void *calls_and_exits(void *arg) {
  struct exiting *self = (struct exiting *)arg;
  subject_run(&self->it, exits, &self->inside, NULL);
  FAIL("pthread_exit has returned");
}

TEST(close_comes_to_an_end_when_the_thread_inside_ends) {
  for (long round = scaled(200); round > 0; round--) {
    struct exiting self;
    cbr_scope scope = scope_open("plugin");
    gate_init(&self.inside);
    subject_register_in(&self.it, scope);
    pthread_t thread = start(calls_and_exits, &self);
    gate_pass(&self.inside);
    scope_close(scope);
    CHECK_EQ(subject_destroyed(&self.it), 1);
    CHECK_EQ((intptr_t)join(thread), 4711);
  }
}

/* Threads that do not exist in the child are inside nothing there. */
TEST(in_the_child_of_a_fork_scopes_close_without_the_threads_that_are_not_there) {
  struct closing closing;
  struct subject busy, idle, fresh;
  struct occupant guest;
  if (HARNESS_SANITIZED) SKIP("a lock of the sanitizer may be held by another thread at the fork");
  cbr_scope open = scope_open("open at the fork");
  subject_register_in(&busy, open);
  subject_register_in(&idle, open);
  occupy(&guest, &busy);
  closing_begin(&closing, scope_open("closing at the fork"));
  pid_t child = fork_watched();
  if (child == 0) {
    CHECK_OK(cbr_call(idle.handle, NULL, NULL));
    subject_register_in(&fresh, open);
    scope_close(closing.scope);
    scope_close(open);
    CHECK_EQ(closing.inside.destroyed + busy.destroyed + idle.destroyed + fresh.destroyed, 4);
    cbr_scope scope = scope_open("of the child");
    subject_register_in(&fresh, scope);
    scope_close(scope);
    CHECK_EQ(fresh.destroyed, 1);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_EQ(subject_destroyed(&busy) + subject_destroyed(&idle), 0);
  CHECK_OK(vacate(&guest));
  closing_end(&closing);
  scope_close(open);
  CHECK_EQ(busy.destroyed + idle.destroyed, 2);
}
