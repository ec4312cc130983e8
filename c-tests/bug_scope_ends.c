/* Ends that interfere with one another: two closers, destroy functions that close their own scope,
 * detach functions that attach again, a longjmp out of an attach function. */
#include "support_owners.h"

#include <setjmp.h>

static void *token_one(void *user_data) {
  (void)user_data;
  return (void *)1;
}

static cbr_handle register_in(cbr_scope scope, cbr_fn fn, void *user_data, cbr_destroy_fn destroy) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = 0;
  options.fn = (cbr_any_fn)fn;
  options.user_data = user_data;
  options.destroy = destroy;
  options.scope = scope;
  CHECK_OK(cbr_register_with(&options, &handle));
  return handle;
}

static intptr_t seven(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 7;
}

/* --- two that close ------------------------------------------------------------------------ */

static gate ending, may_end;

static void end_slowly(void *user_data) {
  (void)user_data;
  gate_open(&ending);
  gate_pass(&may_end);
}

static void *close_for_ever(void *scope) {
  cbr_status status = cbr_scope_close(*(cbr_scope *)scope, -1, NULL);
  CHECK(status == CBR_OK || status == CBR_ERR_STALE); /* STALE: it came too late */
  return NULL;
}

TEST(a_second_closer_returns_when_the_first_has_ended_the_scope) {
  for (int i = 0; i < scaled(100); i++) {
    cbr_scope scope = scope_open("two closers");
    size_t running = 99;
    gate_init(&ending);
    gate_init(&may_end);
    CHECK_OK(cbr_scope_set_thread_hooks(scope, token_one, NULL, NULL, end_slowly));
    pthread_t first = start(close_for_ever, &scope);
    gate_pass(&ending);
    /* Nothing is left of the scope but its end, which has not come. */
    CHECK_REFUSED(cbr_scope_close(scope, 0, &running), CBR_ERR_TIMEOUT);
    pthread_t second = start(close_for_ever, &scope);
    for (int turn = 0; turn < i; turn++) sched_yield(); /* often it sleeps by then */
    gate_open(&may_end);
    join(first);
    join(second);
    CHECK_REFUSED(cbr_scope_close(scope, -1, NULL), CBR_ERR_STALE);
  }
}

struct many {
  cbr_scope scope;
  pthread_barrier_t begin, end;
  long rounds;
};

static void *close_again_and_again(void *arg) {
  struct many *it = (struct many *)arg;
  for (long round = 0; round < it->rounds; round++) {
    meet(&it->begin);
    cbr_status status = cbr_scope_close(it->scope, -1, NULL);
    CHECK(status == CBR_OK || status == CBR_ERR_STALE);
    /* Whoever it was that ended it. */
    CHECK_STATUS(cbr_scope_close(it->scope, 0, NULL), CBR_ERR_STALE);
    meet(&it->end);
  }
  return NULL;
}

/* A closer that slept because of another one was not told when a third one ended the scope. */
TEST(many_that_close_one_scope_at_once_all_return) {
  enum { CLOSERS = 12 };
  struct many it = {0, {{0}}, {{0}}, scaled(5000)};
  pthread_t threads[CLOSERS];
  pthread_barrier_init(&it.begin, NULL, CLOSERS + 1);
  pthread_barrier_init(&it.end, NULL, CLOSERS + 1);
  for (int i = 0; i < CLOSERS; i++) threads[i] = start(close_again_and_again, &it);
  for (long round = 0; round < it.rounds; round++) {
    it.scope = scope_open("many closers");
    register_in(it.scope, seven, NULL, NULL);
    register_in(it.scope, seven, NULL, NULL);
    meet(&it.begin);
    meet(&it.end);
    CHECK_STATUS(cbr_scope_close(it.scope, 0, NULL), CBR_ERR_STALE);
  }
  for (int i = 0; i < CLOSERS; i++) join(threads[i]);
}

/* --- destroy functions that close their own scope ------------------------------------------- */

static struct {
  cbr_scope scope;
  int destroyed, nested, deepest;
} closing_itself;

static void close_own_scope(void *user_data) {
  (void)user_data;
  closing_itself.destroyed++;
  if (++closing_itself.nested > closing_itself.deepest) {
    closing_itself.deepest = closing_itself.nested;
  }
  CHECK_STATUS(cbr_scope_close(closing_itself.scope, -1, NULL), CBR_ERR_DEADLOCK);
  closing_itself.nested--;
}

TEST(destroy_functions_that_close_their_own_scope_do_not_nest) {
  int count = (int)scaled(20000);
  closing_itself.scope = scope_open("closes itself");
  for (int i = 0; i < count; i++) register_in(closing_itself.scope, seven, NULL, close_own_scope);
  CHECK_OK(cbr_scope_close(closing_itself.scope, -1, NULL));
  CHECK_EQ(closing_itself.destroyed, count);
  CHECK_EQ(closing_itself.deepest, 1);
}

/* --- at the limit of nesting ----------------------------------------------------------------- */

enum { NESTED = 60 };

static struct {
  cbr_scope scopes[NESTED];
  cbr_handle handles[NESTED];
  int deepest, destroyed;
  bool over;
} nest;

static void close_the_next(void *user_data) {
  (void)user_data;
  int next = ++nest.deepest;
  nest.destroyed++;
  if (nest.over) return;
  if (next >= NESTED) FAIL("there is no limit");
  cbr_status status = cbr_scope_close(nest.scopes[next], -1, NULL);
  if (status == CBR_OK) return;
  CHECK_STATUS(status, CBR_ERR_LIMIT);
  /* Convention 1: about the wait. */
  CHECK_STATUS(cbr_retain(nest.handles[next]), CBR_ERR_STALE);
  CHECK_STATUS(cbr_name_bind(nest.scopes[next], "late", nest.handles[0], 0), CBR_ERR_STALE);
}

TEST(a_close_at_the_limit_of_nesting_has_revoked_everything_and_can_be_repeated) {
  cbr_pin pin;
  cbr_handle pinned = register_in(0, seven, NULL, NULL);
  for (int i = 0; i < NESTED; i++) {
    nest.scopes[i] = scope_open("nested");
    nest.handles[i] = register_in(nest.scopes[i], seven, NULL, close_the_next);
  }
  while (cbr_enter(pinned, 0, &pin) == CBR_OK) continue;
  scope_close(nest.scopes[0]);
  CHECK_OK(cbr_unwind_to(0));
  int limit = nest.deepest;
  CHECK(limit > 1 && limit < NESTED);
  CHECK_EQ(nest.destroyed, limit);
  nest.over = true;
  for (int i = limit; i < NESTED; i++) scope_close(nest.scopes[i]);
  CHECK_EQ(nest.destroyed, NESTED);
}

/* --- draining what nobody is at --------------------------------------------------------------- */

static int cut_short;

static void exit_the_first_time(void *user_data) {
  (void)user_data;
  if (add_int(&cut_short, 1) == 1) pthread_exit(NULL);
}

TEST(drain_ends_what_a_close_that_was_cut_short_has_left) {
  enum { COUNT = 400 };
  cbr_scope scope = scope_open("cut short");
  for (int i = 0; i < COUNT; i++) register_in(scope, seven, NULL, exit_the_first_time);
  run_on_thread(close_for_ever, &scope);
  CHECK(load_int(&cut_short) < COUNT);
  CHECK_OK(cbr_scope_drain(scope, -1));
  CHECK_EQ(load_int(&cut_short), COUNT);
  scope_close(scope);
}

static void drain_own_scope(void *user_data) {
  (void)user_data;
  closing_itself.destroyed++;
  if (++closing_itself.nested > closing_itself.deepest) {
    closing_itself.deepest = closing_itself.nested;
  }
  CHECK_STATUS(cbr_scope_drain(closing_itself.scope, -1), CBR_ERR_DEADLOCK);
  closing_itself.nested--;
}

TEST(destroy_functions_that_drain_their_own_scope_neither_nest_nor_wait_for_one_another) {
  int count = (int)scaled(20000);
  closing_itself.scope = scope_open("drains itself");
  for (int i = 0; i < count; i++) register_in(closing_itself.scope, seven, NULL, drain_own_scope);
  CHECK_OK(cbr_scope_close(closing_itself.scope, -1, NULL));
  CHECK_EQ(closing_itself.destroyed, count);
  CHECK_EQ(closing_itself.deepest, 1);
}

/* --- detach functions that attach again ------------------------------------------------------ */

static cbr_handle ping, pong;
static int detached;

static void detach_and_ping(void *user_data, void *token) {
  (void)user_data, (void)token;
  add_int(&detached, 1);
  CHECK_OK(cbr_call(ping, NULL, NULL));
}

static void detach_and_pong(void *user_data, void *token) {
  (void)user_data, (void)token;
  add_int(&detached, 1);
  CHECK_OK(cbr_call(pong, NULL, NULL));
}

static void *call_ping_and_pong(void *arg) {
  CHECK_OK(cbr_call(ping, NULL, NULL));
  CHECK_OK(cbr_call(pong, NULL, NULL));
  return arg;
}

TEST(detach_functions_that_call_into_each_others_scopes_come_to_an_end) {
  cbr_scope one = scope_open("ping"), other = scope_open("pong");
  CHECK_OK(cbr_scope_set_thread_hooks(one, token_one, detach_and_pong, NULL, NULL));
  CHECK_OK(cbr_scope_set_thread_hooks(other, token_one, detach_and_ping, NULL, NULL));
  ping = register_in(one, seven, NULL, NULL);
  pong = register_in(other, seven, NULL, NULL);
  run_on_thread(call_ping_and_pong, NULL);
  CHECK(load_int(&detached) >= 2);
  scope_close(one);
  scope_close(other);
}

static int attached_now;
static cbr_handle left_pinned, called_by_destroy;

static void *count_attach(void *user_data) {
  add_int(&attached_now, 1);
  return user_data;
}

static void count_detach(void *user_data, void *token) {
  CHECK(user_data == token);
  add_int(&attached_now, -1);
}

static void call_when_destroyed(void *user_data) {
  (void)user_data;
  CHECK_OK(cbr_call(called_by_destroy, NULL, NULL));
}

static void leave_a_pin(void *user_data, void *token) {
  cbr_pin pin;
  (void)user_data, (void)token;
  CHECK_OK(cbr_enter(left_pinned, 0, &pin));
  CHECK_OK(cbr_unregister(left_pinned));
}

static void *call_once(void *handle) {
  CHECK_OK(cbr_call(*(cbr_handle *)handle, NULL, NULL));
  return NULL;
}

TEST(what_a_threads_end_attaches_is_detached_and_not_the_next_threads) {
  cbr_scope counted = scope_open("counted"), leaving = scope_open("leaving");
  static int data;
  CHECK_OK(cbr_scope_set_thread_hooks(counted, count_attach, count_detach, &data, NULL));
  CHECK_OK(cbr_scope_set_thread_hooks(leaving, token_one, leave_a_pin, NULL, NULL));
  called_by_destroy = register_in(counted, seven, NULL, NULL);
  left_pinned = register_in(0, seven, NULL, call_when_destroyed);
  cbr_handle trigger = register_in(leaving, seven, NULL, NULL);
  /* Its detach function leaves a pin, whose release destroys, which calls, which attaches. */
  run_on_thread(call_once, &trigger);
  CHECK_EQ(load_int(&attached_now), 0);
  CHECK(!cbr_is_live(left_pinned));
  run_on_thread(call_once, &called_by_destroy);
  CHECK_EQ(load_int(&attached_now), 0);
  scope_close(leaving);
  scope_close(counted);
}

/* --- a longjmp out of an attach function ----------------------------------------------------- */

static struct {
  jmp_buf out;
  int attached, detached, ran;
} jumper;

static void *jump_the_first_time(void *user_data) {
  if (jumper.attached++ == 0) longjmp(jumper.out, 1);
  return user_data;
}

static void count_detach_of_jumper(void *user_data, void *token) {
  CHECK(user_data == token);
  jumper.detached++;
}

static intptr_t run_jumper(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  jumper.ran++;
  return 0;
}

static void *jump_then_call(void *handle) {
  uint32_t depth = cbr_depth();
  if (setjmp(jumper.out) == 0) {
    cbr_call(*(cbr_handle *)handle, NULL, NULL);
    FAIL("the attach function returned");
  }
  CHECK_OK(cbr_unwind_to(depth));
  CHECK_EQ(jumper.ran, 0);
  CHECK_OK(cbr_call(*(cbr_handle *)handle, NULL, NULL));
  CHECK_EQ(jumper.attached, 2);
  CHECK_EQ(jumper.ran, 1);
  return NULL;
}

TEST(a_longjmp_out_of_an_attach_function_leaves_the_thread_unattached) {
  static int data;
  cbr_scope scope = scope_open("jumped");
  CHECK_OK(cbr_scope_set_thread_hooks(scope, jump_the_first_time, count_detach_of_jumper, &data, NULL));
  cbr_handle handle = register_in(scope, run_jumper, NULL, NULL);
  run_on_thread(jump_then_call, &handle);
  CHECK_EQ(jumper.detached, 1);
  scope_close(scope);
}

/* --- handles of what is ending ---------------------------------------------------------------- */

TEST(a_closing_scopes_handle_is_still_of_another_kind) {
  struct closing it;
  closing_begin(&it, scope_open("closing"));
  CHECK_REFUSED(cbr_call(it.scope, NULL, NULL), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_retain(it.scope), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_scope_close(it.inside.handle, 0, NULL), CBR_ERR_KIND);
  closing_end(&it);
}
