/* Call hooks: a tracer is told of every call, by whatever way, exactly once when it begins and once
 * when it is over; it changes nothing for the host; it may be replaced at any time. What leaves
 * callbacks by exceptions: test_trace_unwind. */
#include "support_child.h"
#include "support_memory.h"
#include "support_queue.h"
#include "support_thunk.h"
#include "support_tracer.h"

#include <setjmp.h>

static cbr_handle register_named(struct subject *it, const char *name, cbr_scope scope) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = it;
  options.destroy = subject_destroy;
  options.name = name;
  options.scope = scope;
  CHECK_OK(cbr_register_with(&options, &it->handle));
  return it->handle;
}

/* --- every way of calling ------------------------------------------------------------------------ */

static intptr_t succeeds(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  CHECK_EQ(cbr_depth(), 1);
  return 5;
}

static intptr_t fails(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_fail(arg != NULL ? CBR_ERR_PANIC : CBR_ERR_CALLBACK, "so it is"));
  return 6;
}

struct call_on {
  cbr_queue queue;
  cbr_handle handle;
  struct action action;
  cbr_status status;
};

static void *calls_on(void *arg) {
  struct call_on *self = (struct call_on *)arg;
  intptr_t result = 0;
  self->status = cbr_call_on(self->queue, self->handle, &self->action, -1, &result);
  if (self->status == CBR_OK) CHECK_EQ(result, 5);
  return NULL;
}

enum way { CALL, CALL_PTR, HOOK, KEY, POST, CALL_ON_HERE, CALL_ON, PIN, WAYS };

/* Calls in this way, and gives what the caller gets, as far as the way tells. */
static cbr_status call_by(enum way way, struct subject *it, struct action *action) {
  static cbr_hook hook = CBR_HOOK_INIT;
  cbr_status status = CBR_OK;
  intptr_t result = 5;
  switch (way) {
  case CALL:
    status = cbr_call(it->handle, action, &result);
    break;
  case CALL_PTR:
    result = cbr_call_ptr(CBR_TO_PTR(it->handle), action);
    if (action->run != succeeds) {
      status = action->arg != NULL ? CBR_ERR_PANIC : CBR_ERR_CALLBACK;
      CHECK_WORDS("so it is");
      result = 5;
    }
    break;
  case HOOK:
    CHECK_OK(cbr_hook_swap(&hook, it->handle, NULL));
    status = cbr_hook_call(&hook, action, &result);
    CHECK_OK(cbr_hook_swap(&hook, 0, NULL));
    break;
  case KEY:
    CHECK_OK(cbr_key_attach(0, 7, 3, it->handle, CBR_BIND_ONCE));
    status = cbr_key_call(0, 7, 3, action, &result);
    CHECK_OK(cbr_key_detach(0, 7, 3));
    break;
  case POST: {
    cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, 0);
    CHECK_OK(cbr_post(queue, it->handle, action, sizeof *action));
    dispatch_some(queue, 0);
    queue_discard(queue);
    status = action->run == succeeds ? CBR_OK
             : action->arg != NULL   ? CBR_ERR_PANIC
                                     : CBR_ERR_CALLBACK;
    break;
  }
  case CALL_ON_HERE: {
    cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED);
    status = cbr_call_on(queue, it->handle, action, -1, &result);
    queue_discard(queue);
    break;
  }
  case CALL_ON: {
    struct call_on call = {queue_open(2, CBR_QUEUE_REJECT, 0), it->handle, *action, 1};
    pthread_t caller = start(calls_on, &call);
    CHECK_OK(cbr_queue_dispatch(call.queue, 1, -1, NULL));
    join(caller);
    queue_discard(call.queue);
    status = call.status;
    break;
  }
  case PIN: {
    cbr_pin pin;
    CHECK_OK(cbr_enter(it->handle, CBR_SIG_DEFAULT, &pin));
    result = ((cbr_fn)pin.fn)(pin.user_data, action);
    status = cbr_leave(&pin);
    break;
  }
  case WAYS:
    FAIL("no way");
  }
  if (status == CBR_OK) CHECK_EQ(result, 5);
  return status;
}

static void check_all_ways(struct tracer *tracer, struct subject *it, const char *name) {
  static char panics[] = "";
  const struct action actions[] = {{succeeds, NULL}, {fails, NULL}, {fails, panics}};
  static const cbr_status expected[] = {CBR_OK, CBR_ERR_CALLBACK, CBR_ERR_PANIC};
  for (int way = 0; way < WAYS; way++) {
    for (int i = 0; i < 3; i++) {
      struct action action = actions[i];
      CHECK_STATUS(call_by((enum way)way, it, &action), expected[i]);
      if (tracer->begun != 1) FAIL("way %d was told %d times", way, tracer->begun);
      CHECK_TOLD_ONCE(tracer, it->handle, name, expected[i]);
      CHECK_EQ(cbr_depth(), 0);
    }
  }
}

TEST(a_tracer_is_told_of_every_call_whatever_the_way_and_of_what_came_of_it) {
  struct tracer tracer;
  struct subject before, after, unnamed;
  register_named(&before, "before", 0);
  tracer_start(&tracer);
  register_named(&after, "after", 0);
  subject_register(&unnamed);
  check_all_ways(&tracer, &before, "before");
  check_all_ways(&tracer, &after, "after");
  check_all_ways(&tracer, &unnamed, "");
  tracer_stop(&tracer);
  for (int way = 0; way < WAYS; way++) {
    struct action action = {succeeds, NULL};
    CHECK_OK(call_by((enum way)way, &after, &action));
  }
  CHECK_TOLD_NOTHING(&tracer);
  CHECK_OK(cbr_unregister(before.handle));
  CHECK_OK(cbr_unregister(after.handle));
  CHECK_OK(cbr_unregister(unnamed.handle));
}

static void panics(struct adder *it) {
  (void)it;
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, "no sum"));
}

TEST(a_tracer_is_told_of_calls_through_thunks) {
  struct tracer tracer;
  struct adder it;
  adder_register(&it, 3);
  it.fn = (int_fn)thunk_of(it.subject.handle, INT_SIGNATURE, &it.thunk);
  CHECK_EQ(it.fn(4, NULL), 7);
  tracer_start(&tracer);
  CHECK_EQ(it.fn(5, NULL), 8);
  CHECK_TOLD_ONCE(&tracer, it.subject.handle, "adder", CBR_OK);
  it.action = panics;
  CHECK_EQ(it.fn(5, NULL), FALLBACK);
  CHECK_TOLD_ONCE(&tracer, it.subject.handle, "adder", CBR_ERR_PANIC);
  tracer_stop(&tracer);
  it.action = NULL;
  CHECK_EQ(it.fn(6, NULL), 9);
  CHECK_TOLD_NOTHING(&tracer);
  CHECK_OK(cbr_unregister(it.subject.handle));
  CHECK_EQ(it.fn(6, NULL), FALLBACK);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

/* Threads that call one callback over and over have a shorter way to it. */
TEST(a_tracer_is_told_also_by_threads_that_have_called_the_same_one_all_the_time) {
  enum { MANY = 5000 };
  struct tracer tracer;
  struct subject it;
  struct adder typed;
  cbr_pin pin;
  register_named(&it, "called", 0);
  adder_register(&typed, 1);
  typed.fn = (int_fn)thunk_of(typed.subject.handle, INT_SIGNATURE, &typed.thunk);
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < MANY; i++) {
      if (round == 0) CHECK_OK(cbr_call(it.handle, NULL, NULL));
      if (round == 1) CHECK_OK(cbr_enter(it.handle, 0, &pin));
      if (round == 1) CHECK_OK(cbr_leave(&pin));
      if (round == 2) CHECK_EQ(typed.fn(1, NULL), 2);
    }
    tracer_start(&tracer);
    if (round == 0) CHECK_OK(cbr_call(it.handle, NULL, NULL));
    if (round == 1) CHECK_OK(cbr_enter(it.handle, 0, &pin));
    if (round == 1) CHECK_OK(cbr_leave(&pin));
    if (round == 2) CHECK_EQ(typed.fn(1, NULL), 2);
    CHECK_EQ(tracer.begun, 1);
    tracer_stop(&tracer);
  }
  CHECK_OK(cbr_thunk_close(typed.thunk));
  CHECK_OK(cbr_unregister(typed.subject.handle));
  CHECK_OK(cbr_unregister(it.handle));
}

static void *attach(void *user_data) {
  (void)user_data;
  return NULL;
}
static void told_of_error(void *user_data, cbr_handle handle, cbr_status status, const char *text) {
  (void)user_data, (void)handle, (void)status, (void)text;
}

TEST(nothing_else_is_a_call) {
  struct tracer tracer;
  struct subject it, stale, homeless;
  struct adder typed;
  cbr_pin pin;
  cbr_scope scope = scope_open("with thread hooks");
  cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED);
  CHECK_OK(cbr_scope_set_thread_hooks(scope, attach, NULL, NULL, NULL));
  tracer_start(&tracer);
  /* refused ones */
  subject_register(&stale);
  CHECK_OK(cbr_unregister(stale.handle));
  adder_register(&typed, 1);
  CHECK_REFUSED(cbr_call(stale.handle, NULL, NULL), CBR_ERR_STALE);
  CHECK_REFUSED(cbr_call(typed.subject.handle, NULL, NULL), CBR_ERR_SIGNATURE);
  CHECK_REFUSED(cbr_enter(typed.subject.handle, CBR_SIG_DEFAULT, &pin), CBR_ERR_SIGNATURE);
  CHECK_REFUSED(cbr_call(scope, NULL, NULL), CBR_ERR_KIND);
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(&homeless);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &homeless;
  options.home = queue;
  CHECK_OK(cbr_register_with(&options, &homeless.handle));
  /* held pins, attach functions, on_error, destroy */
  register_named(&it, "held", scope);
  CHECK_OK(cbr_hold(it.handle, 0, &pin));
  CHECK_TOLD_NOTHING(&tracer);
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
  CHECK_TOLD_NOTHING(&tracer);
  options = (cbr_callback_options)CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.on_error = told_of_error;
  options.name = "fails";
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_STATUS(subject_run(&it, fails, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_TOLD_ONCE(&tracer, it.handle, "fails", CBR_ERR_CALLBACK);
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_OK(cbr_unregister(typed.subject.handle));
  CHECK_OK(cbr_unregister(homeless.handle));
  queue_discard(queue);
  scope_close(scope);
}

static void *calls_home(void *arg) {
  CHECK_REFUSED(cbr_call(*(cbr_handle *)arg, NULL, NULL), CBR_ERR_THREAD);
  return NULL;
}

TEST(a_call_on_the_wrong_thread_is_none_and_one_at_home_is) {
  struct tracer tracer;
  struct subject it;
  cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED);
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.home = queue;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  tracer_start(&tracer);
  run_on_thread(calls_home, &it.handle);
  CHECK_TOLD_NOTHING(&tracer);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_TOLD_ONCE(&tracer, it.handle, "", CBR_OK);
  tracer_stop(&tracer);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  run_on_thread(calls_home, &it.handle); /* it is still special for other reasons */
  CHECK_OK(cbr_unregister(it.handle));
  queue_discard(queue);
}

TEST(either_function_may_be_missing) {
  struct tracer tracer;
  struct subject it;
  subject_register(&it);
  tracer_init(&tracer);
  CHECK_OK(cbr_set_call_hooks(tracer_begin, NULL, &tracer, tracer_destroy, 0));
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_EQ(tracer.begun, 1);
  CHECK_EQ(tracer.ended, 0);
  remove_tracer();
  CHECK_EQ(tracer.destroyed, 1);
  remove_tracer(); /* none is there */
  tracer_init(&tracer);
  CHECK_OK(cbr_set_call_hooks(tracer_begin, NULL, &tracer, NULL, 0));
  remove_tracer();
  CHECK_EQ(tracer.destroyed, 0);
  CHECK_OK(cbr_unregister(it.handle));
}

static int ends_without_begin;
static void counts_end(void *user_data, void *span, cbr_status status) {
  CHECK(user_data == &ends_without_begin);
  CHECK(span == NULL);
  CHECK_STATUS(status, CBR_ERR_PANIC);
  ends_without_begin++;
}

TEST(an_end_without_a_begin_gets_no_span) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_set_call_hooks(NULL, counts_end, &ends_without_begin, NULL, 0));
  CHECK_STATUS(subject_run(&it, fails, &it, NULL), CBR_ERR_PANIC);
  CHECK_EQ(ends_without_begin, 1);
  remove_tracer();
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- a tracer changes nothing --------------------------------------------------------------------- */

static void uses_the_library(struct tracer *it) {
  struct subject *other = (struct subject *)it->extra;
  cbr_pin pin;
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_call(other->handle, NULL, NULL));
  CHECK_OK(cbr_enter(other->handle, 0, &pin));
  CHECK_EQ(cbr_current(), other->handle);
  CHECK_EQ(cbr_depth(), 2);
  CHECK_OK(cbr_leave(&pin));
  CHECK_REFUSED(cbr_call(0, NULL, NULL), CBR_ERR_STALE);
  CHECK_STATUS(subject_run(other, fails, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, "of the tracer's own")); /* logged, and that is all */
}

TEST(what_a_tracer_does_with_the_library_is_not_told_and_leaves_no_trace) {
  struct tracer tracer;
  struct subject it, other;
  cbr_stats before = {.size = sizeof before}, after = {.size = sizeof after};
  register_named(&it, "it", 0);
  register_named(&other, "other", 0);
  tracer_start(&tracer);
  tracer.in_begin = tracer.in_end = uses_the_library;
  tracer.extra = &other;
  CHECK_REFUSED(cbr_queue_close(0x77, 99), CBR_ERR_INVALID); /* what it says is to stay */
  char words[256];
  cbr_last_error(words, sizeof words);
  CHECK_OK(cbr_stats_get(0, &before));
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_TOLD_ONCE(&tracer, it.handle, "it", CBR_OK);
  char now[256];
  cbr_last_error(now, sizeof now);
  CHECK_STR(now, words);
  CHECK_OK(cbr_stats_get(0, &after));
  CHECK_EQ(after.in_flight, before.in_flight);
  CHECK_EQ(after.calls, before.calls + 7); /* its own, and three each of the tracer's */
  CHECK_STATUS(subject_run(&it, fails, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_WORDS("so it is");
  CHECK_TOLD_ONCE(&tracer, it.handle, "it", CBR_ERR_CALLBACK);
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_OK(cbr_unregister(other.handle));
}

static void sees_the_event(struct tracer *it) {
  const cbr_event *event = cbr_current_event();
  CHECK(event != NULL);
  CHECK_EQ(event->queue, *(cbr_queue *)it->extra);
  CHECK_EQ(event->len, sizeof(struct action));
}

TEST(a_tracer_sees_the_event_that_is_dispatched) {
  struct tracer tracer;
  struct subject it;
  cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, 0);
  subject_register(&it);
  tracer_start(&tracer);
  tracer.in_begin = tracer.in_end = sees_the_event;
  tracer.extra = &queue;
  CHECK_OK(post_action(queue, &it, succeeds, NULL));
  dispatch_some(queue, 0);
  CHECK_TOLD_ONCE(&tracer, it.handle, "", CBR_OK);
  tracer_stop(&tracer);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t nests(struct subject *it, void *arg) {
  int *left = (int *)arg;
  if (--*left == 0) return cbr_depth() == 4096 ? 5 : 0;
  struct action action = {nests, arg};
  intptr_t result = 0;
  cbr_status status = cbr_call(it->handle, &action, &result);
  return status == CBR_OK ? result : status;
}

static int nested;
static void *counts_begin(void *user_data, cbr_handle handle, const char *name, const char *context) {
  (void)user_data, (void)handle, (void)name, (void)context;
  return (void *)(intptr_t)++nested;
}
static void counts_down(void *user_data, void *span, cbr_status status) {
  (void)user_data, (void)status;
  CHECK_EQ(nested--, (intptr_t)span);
}

TEST(calls_nest_as_deep_as_without_a_tracer) {
  struct subject it;
  int left = 4096;
  subject_register(&it);
  struct action action = {nests, &left};
  CHECK_OK(cbr_set_call_hooks(counts_begin, counts_down, NULL, NULL, 0));
  intptr_t result = 0;
  CHECK_OK(cbr_call(it.handle, &action, &result));
  CHECK_EQ(result, 5);
  CHECK_EQ(nested, 0);
  left = 4097;
  action.arg = &left;
  CHECK_OK(cbr_call(it.handle, &action, &result));
  CHECK_STATUS((cbr_status)result, CBR_ERR_LIMIT);
  CHECK_EQ(nested, 0);
  CHECK_EQ(cbr_depth(), 0);
  remove_tracer();
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- the life of a tracer -------------------------------------------------------------------------- */

static intptr_t removes_the_tracer(struct subject *it, void *arg) {
  struct tracer *tracer = (struct tracer *)arg;
  remove_tracer();
  CHECK_EQ(tracer->destroyed, 0);
  CHECK_EQ(tracer->ended, 0);
  CHECK_OK(cbr_call(it->handle, NULL, NULL));
  CHECK_EQ(tracer->begun, 1);
  return 5;
}

static void was_destroyed_after_the_end(struct tracer *it) { CHECK_EQ(it->ended, 1); }

TEST(a_tracer_that_is_removed_inside_a_call_gets_its_end_and_then_goes) {
  struct tracer tracer;
  struct subject it;
  subject_register(&it);
  tracer_start(&tracer);
  tracer.on_destroy = was_destroyed_after_the_end;
  CHECK_OK(subject_run(&it, removes_the_tracer, &tracer, NULL));
  CHECK_EQ(tracer.destroyed, 1);
  CHECK_EQ(tracer.ended, 1);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t succeeds_at_any_depth(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  return 5;
}

static intptr_t sets_another_and_calls(struct subject *it, void *arg) {
  struct tracer *both = (struct tracer *)arg;
  tracer_start(&both[1]);
  CHECK_EQ(both[0].destroyed, 0);
  CHECK_OK(subject_run(it, succeeds_at_any_depth, NULL, NULL));
  CHECK_TOLD_ONCE(&both[1], it->handle, "", CBR_OK);
  CHECK_EQ(both[0].begun, 1);
  CHECK_EQ(both[0].ended, 0);
  return 5;
}

TEST(begin_and_end_of_a_call_go_to_the_same_tracer_whoever_replaces_it) {
  struct tracer both[2];
  struct subject it;
  subject_register(&it);
  tracer_start(&both[0]);
  CHECK_OK(subject_run(&it, sets_another_and_calls, both, NULL));
  CHECK_EQ(both[0].ended, 1);
  CHECK_EQ(both[0].destroyed, 1);
  CHECK_TOLD_NOTHING(&both[1]);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_TOLD_ONCE(&both[1], it.handle, "", CBR_OK);
  tracer_stop(&both[1]);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_tracer_is_not_told_of_calls_that_run_already) {
  struct tracer tracer;
  struct subject it;
  struct occupant guest;
  subject_register(&it);
  occupy(&guest, &it);
  tracer_start(&tracer);
  CHECK_OK(vacate(&guest));
  CHECK_TOLD_NOTHING(&tracer);
  cbr_pin pin;
  remove_tracer();
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  struct tracer other;
  tracer_start(&other);
  CHECK_OK(cbr_leave(&pin));
  CHECK_TOLD_NOTHING(&other);
  tracer_stop(&other);
  CHECK_OK(cbr_unregister(it.handle));
}

/* On another thread: destroy waits for the end that is to come there. */
TEST(a_removed_tracer_lives_until_the_last_thread_has_left_it) {
  struct tracer tracer;
  struct subject it;
  struct occupant guests[2];
  subject_register(&it);
  tracer_start(&tracer);
  for (int i = 0; i < 2; i++) occupy(&guests[i], &it);
  CHECK_EQ(tracer.begun, 2);
  remove_tracer();
  CHECK_OK(vacate(&guests[0]));
  CHECK_EQ(tracer.ended, 1);
  CHECK_EQ(tracer.destroyed, 0);
  CHECK_OK(vacate(&guests[1]));
  CHECK_EQ(tracer.ended, 2);
  CHECK_EQ(load_int(&tracer.destroyed), 1);
  CHECK_OK(cbr_unregister(it.handle));
}

static void replaces_itself(struct tracer *it) {
  if (it->extra == NULL) return;
  struct tracer *other = (struct tracer *)it->extra;
  it->extra = NULL;
  tracer_start(other);
  CHECK_EQ(it->destroyed, 0);
}

TEST(a_tracer_may_replace_itself_in_begin_and_in_end) {
  for (int in_end = 0; in_end < 2; in_end++) {
    struct tracer tracer, other;
    struct subject it;
    subject_register(&it);
    tracer_start(&tracer);
    tracer.extra = &other;
    *(in_end ? &tracer.in_end : &tracer.in_begin) = replaces_itself;
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    CHECK_EQ(tracer.begun, 1);
    CHECK_EQ(tracer.ended, 1);
    CHECK_EQ(tracer.destroyed, 1);
    CHECK_TOLD_NOTHING(&other);
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    CHECK_TOLD_ONCE(&other, it.handle, "", CBR_OK);
    tracer_stop(&other);
    CHECK_OK(cbr_unregister(it.handle));
  }
}

static intptr_t unregisters_itself(struct subject *it, void *arg) {
  (void)arg;
  CHECK_OK(cbr_unregister(it->handle));
  return 5;
}

static void callback_is_alive(struct tracer *it) {
  CHECK_EQ(((struct subject *)it->extra)->destroyed, 0);
}

TEST(the_end_comes_before_the_callbacks_data_goes) {
  struct tracer tracer;
  struct subject it;
  cbr_pin pin;
  tracer_start(&tracer);
  tracer.extra = &it;
  tracer.in_end = callback_is_alive;
  register_named(&it, "goes", 0);
  CHECK_OK(subject_run(&it, unregisters_itself, NULL, NULL));
  CHECK_EQ(it.destroyed, 1);
  CHECK_TOLD_ONCE(&tracer, it.handle, "goes", CBR_OK);
  register_named(&it, "goes", 0);
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(it.destroyed, 1);
  CHECK_TOLD_ONCE(&tracer, it.handle, "goes", CBR_OK);
  tracer_stop(&tracer);
}

TEST(a_refused_tracer_leaves_the_one_before) {
  struct tracer tracer, refused;
  struct subject it;
  cbr_scope gone = scope_open("gone");
  struct closing closing;
  scope_close(gone);
  subject_register(&it);
  closing_begin(&closing, scope_open("closing"));
  tracer_start(&tracer);
  tracer_init(&refused);
  CHECK_REFUSED(cbr_set_call_hooks(tracer_begin, tracer_end, &refused, tracer_destroy, gone),
                CBR_ERR_STALE);
  CHECK_REFUSED(cbr_set_call_hooks(tracer_begin, tracer_end, &refused, tracer_destroy, it.handle),
                CBR_ERR_KIND);
  CHECK_REFUSED(
      cbr_set_call_hooks(tracer_begin, tracer_end, &refused, tracer_destroy, closing.scope),
      CBR_ERR_CLOSED);
  CHECK_OK(cbr_set_check(2));
  CHECK_REFUSED(cbr_set_call_hooks(tracer_begin, (cbr_call_end_fn)(void *)&refused, &refused,
                                   tracer_destroy, 0),
                CBR_ERR_INVALID);
  CHECK_WORDS("end");
  CHECK_REFUSED(cbr_set_call_hooks((cbr_call_begin_fn)(void *)&refused, tracer_end, &refused,
                                   tracer_destroy, 0),
                CBR_ERR_INVALID);
  CHECK_OK(cbr_set_check(1));
  CHECK_EQ(refused.destroyed, 0);
  CHECK_EQ(tracer.destroyed, 0);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_TOLD_ONCE(&tracer, it.handle, "", CBR_OK);
  remove_tracer();
  closing_end(&closing);
  CHECK_EQ(tracer.destroyed, 1);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_tracer_ends_with_its_owner_which_waits_for_calls_inside_it) {
  struct tracer tracer;
  struct subject it;
  struct occupant guest;
  size_t running = 0;
  cbr_scope owner = scope_open("tracer");
  subject_register(&it);
  tracer_init(&tracer);
  tracer_set_in(&tracer, owner);
  occupy(&guest, &it);
  CHECK_EQ(tracer.begun, 1);
  CHECK_STATUS(cbr_scope_close(owner, 0, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 1);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_EQ(tracer.begun, 1); /* none is told any more */
  CHECK_OK(vacate(&guest));
  CHECK_EQ(tracer.ended, 1);
  scope_close(owner);
  CHECK_EQ(tracer.destroyed, 1);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_EQ(tracer.begun, 1);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t closes_the_tracers_scope(struct subject *it, void *arg) {
  (void)it;
  CHECK_STATUS(cbr_scope_close(*(cbr_scope *)arg, -1, NULL), CBR_ERR_DEADLOCK);
  return 5;
}

TEST(inside_a_call_that_it_was_told_of_the_tracers_scope_cannot_be_waited_for) {
  struct tracer tracer;
  struct subject it;
  cbr_scope owner = scope_open("tracer");
  subject_register(&it);
  tracer_init(&tracer);
  tracer_set_in(&tracer, owner);
  CHECK_OK(subject_run(&it, closes_the_tracers_scope, &owner, NULL));
  CHECK_EQ(tracer.ended, 1);
  CHECK_EQ(tracer.destroyed, 1);
  scope_close(owner);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_EQ(tracer.begun, 1);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(levels_of_checks_and_tracers_come_and_go_by_themselves) {
  struct tracer tracer;
  struct subject it;
  register_named(&it, "it", 0);
  CHECK_OK(cbr_set_check(2));
  tracer_start(&tracer);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_TOLD_ONCE(&tracer, it.handle, "it", CBR_OK);
  CHECK_OK(cbr_set_check(1));
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_TOLD_ONCE(&tracer, it.handle, "it", CBR_OK);
  CHECK_OK(cbr_set_check(0));
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_TOLD_ONCE(&tracer, it.handle, "it", CBR_OK);
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- contexts ---------------------------------------------------------------------------------------- */

#define CHECK_CONTEXT(expected) check_context(__FILE__, __LINE__, (expected))
static void check_context(const char *file, int line, const char *expected) {
  char text[64] = "rubbish";
  cbr_trace_get(text, sizeof text);
  harness_check_str(file, line, "cbr_trace_get", text, expected);
}

static intptr_t notes_its_context(struct subject *it, void *arg) {
  (void)it;
  cbr_trace_get((char *)arg, 64);
  return 5;
}

static const char *span_of(int number) {
  static char texts[4][64];
  static int next;
  char *text = texts[next++ % 4];
  span_context(text, number);
  return text;
}

TEST(a_context_that_begin_sets_is_the_calls_and_the_one_before_comes_back) {
  struct tracer tracer;
  struct subject it;
  char seen[64] = "";
  subject_register(&it);
  tracer_start(&tracer);
  tracer.sets_contexts = true;
  for (int round = 0; round < 2; round++) {
    const char *own = round == 0 ? "" : THIRD;
    CHECK_OK(cbr_trace_set(round == 0 ? NULL : THIRD));
    CHECK_OK(subject_run(&it, notes_its_context, seen, NULL));
    CHECK_STR(seen, span_of(0));
    CHECK_CONTEXT(own);
    CHECK_STR(tracer.told[0].context, own);
    CHECK_EQ(tracer.told[0].has_context, round == 1);
    CHECK_TOLD_ONCE(&tracer, it.handle, "", CBR_OK);
  }
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t sets_context(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_trace_set((const char *)arg));
  return 5;
}

TEST(a_tracer_that_sets_no_context_leaves_what_the_callback_sets) {
  struct tracer tracer;
  struct subject it;
  subject_register(&it);
  tracer_start(&tracer);
  CHECK_OK(cbr_trace_set(FIRST));
  CHECK_OK(subject_run(&it, sets_context, (void *)SECOND, NULL));
  CHECK_CONTEXT(SECOND);
  tracer.sets_contexts = true;
  CHECK_OK(subject_run(&it, sets_context, (void *)THIRD, NULL));
  CHECK_CONTEXT(SECOND);
  CHECK_OK(subject_run(&it, sets_context, NULL, NULL));
  CHECK_CONTEXT(SECOND);
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister(it.handle));
}

static void clears_the_context(struct tracer *it) {
  (void)it;
  CHECK_OK(cbr_trace_set(NULL));
}

TEST(begin_may_take_the_context_away_for_the_time_of_the_call) {
  struct tracer tracer;
  struct subject it;
  cbr_pin pin;
  char seen[64] = "rubbish";
  subject_register(&it);
  tracer_start(&tracer);
  tracer.in_begin = clears_the_context;
  CHECK_OK(cbr_trace_set(FIRST));
  CHECK_OK(subject_run(&it, notes_its_context, seen, NULL));
  CHECK_STR(seen, "");
  CHECK_CONTEXT(FIRST);
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  CHECK_CONTEXT("");
  CHECK_OK(cbr_leave(&pin));
  CHECK_CONTEXT(FIRST);
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t posts_the_next(struct subject *it, void *arg) {
  void **next = (void **)arg;
  (void)it;
  if (next[0] == NULL) return 5;
  struct action action = {posts_the_next, ((void **)next[0])};
  CHECK_OK(cbr_post(*(cbr_queue *)next[1], ((struct subject *)next[2])->handle, &action, sizeof action));
  return 5;
}

/* A request: a call posts, what is dispatched posts on, and on. Each span's parent is the span that
 * posted it, across two queues and two threads. */
TEST(parent_and_child_agree_across_queues) {
  struct tracer tracer;
  struct subject it;
  struct loop loop;
  cbr_queue here = queue_open(8, CBR_QUEUE_REJECT, 0), there = queue_open(8, CBR_QUEUE_REJECT, 0);
  void *last[] = {NULL, NULL, NULL};
  void *third[] = {last, &there, &it};
  void *second[] = {third, &here, &it};
  void *first[] = {second, &there, &it};
  struct action action = {posts_the_next, first};
  subject_register(&it);
  tracer_start(&tracer);
  tracer.sets_contexts = true;
  CHECK_OK(cbr_trace_set(FIRST));
  CHECK_OK(cbr_call(it.handle, &action, NULL));
  CHECK_CONTEXT(FIRST);
  loop_start(&loop, there, false);
  CHECK_OK(cbr_queue_dispatch(here, 1, -1, NULL));
  POLL_UNTIL(load_int(&tracer.ended) == 4);
  loop_end(&loop);
  CHECK_STR(tracer.told[0].context, FIRST);
  for (int i = 1; i < 4; i++) CHECK_STR(tracer.told[i].context, span_of(i - 1));
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_equal(tracer.told[i].thread, pthread_self()) != 0, i % 2 == 0);
  CHECK_CONTEXT(FIRST);
  tracer_stop(&tracer);
  queue_discard(here);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(an_event_without_a_context_begins_without_one_and_the_dispatchers_comes_back) {
  struct tracer tracer;
  struct subject it;
  char seen[64] = "";
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  subject_register(&it);
  tracer_start(&tracer);
  tracer.sets_contexts = true;
  CHECK_OK(post_action(queue, &it, notes_its_context, seen));
  CHECK_OK(cbr_trace_set(SECOND));
  CHECK_OK(post_action(queue, &it, notes_its_context, seen));
  for (int own = 0; own < 2; own++) {
    CHECK_OK(cbr_trace_set(own ? THIRD : NULL));
    dispatch_some(queue, 1);
    CHECK_CONTEXT(own ? THIRD : "");
    CHECK_STR(seen, span_of(own));
    CHECK_STR(tracer.told[own].context, own ? SECOND : "");
    CHECK_EQ(tracer.told[own].has_context, own);
  }
  tracer_stop(&tracer);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

/* In every order of leaving, what is current is the youngest pin's that is still there. */
TEST(contexts_of_pins_that_are_left_in_any_order) {
  static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  struct subject it;
  subject_register(&it);
  for (int order = 0; order < 6; order++) {
    struct tracer tracer;
    cbr_pin pins[3];
    bool left[3] = {false, false, false};
    tracer_start(&tracer);
    tracer.sets_contexts = true;
    CHECK_OK(cbr_trace_set(THIRD));
    for (int i = 0; i < 3; i++) {
      CHECK_OK(cbr_enter(it.handle, 0, &pins[i]));
      CHECK_CONTEXT(span_of(i));
      CHECK_STR(tracer.told[i].context, i == 0 ? THIRD : span_of(i - 1));
    }
    for (int i = 0; i < 3; i++) {
      left[orders[order][i]] = true;
      CHECK_OK(cbr_leave(&pins[orders[order][i]]));
      int youngest = 2;
      while (youngest >= 0 && left[youngest]) youngest--;
      CHECK_CONTEXT(youngest >= 0 ? span_of(youngest) : THIRD);
      CHECK_EQ(tracer.told[orders[order][i]].order, i);
    }
    tracer_stop(&tracer);
  }
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t leaves_a_pin(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_leave((cbr_pin *)arg));
  return 5;
}

static intptr_t enters_a_pin(struct subject *it, void *arg) {
  CHECK_OK(cbr_enter(it->handle, 0, (cbr_pin *)arg));
  return 5;
}

TEST(a_pins_context_does_not_come_back_when_the_pin_was_left_inside_a_call) {
  struct tracer tracer;
  struct subject it;
  cbr_pin pin;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  subject_register(&it);
  tracer_start(&tracer);
  tracer.sets_contexts = true;
  CHECK_OK(cbr_trace_set(THIRD));
  for (int dispatched = 0; dispatched < 2; dispatched++) {
    CHECK_OK(cbr_enter(it.handle, 0, &pin));
    if (dispatched) {
      CHECK_OK(post_action(queue, &it, leaves_a_pin, &pin));
      dispatch_some(queue, 1);
    } else {
      CHECK_OK(subject_run(&it, leaves_a_pin, &pin, NULL));
    }
    CHECK_CONTEXT(THIRD);
    /* and one that outlives the call that it was entered in */
    if (dispatched) {
      CHECK_OK(post_action(queue, &it, enters_a_pin, &pin));
      dispatch_some(queue, 1);
    } else {
      CHECK_OK(subject_run(&it, enters_a_pin, &pin, NULL));
    }
    CHECK_CONTEXT(THIRD);
    CHECK_OK(cbr_trace_set(SECOND));
    CHECK_OK(cbr_leave(&pin));
    CHECK_CONTEXT(SECOND);
    CHECK_OK(cbr_trace_set(THIRD));
  }
  tracer_stop(&tracer);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- left otherwise ------------------------------------------------------------------------------- */

static jmp_buf landing;

static intptr_t jumps(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  longjmp(landing, 1);
}

static intptr_t calls_one_that_jumps(struct subject *it, void *arg) {
  cbr_pin pin;
  CHECK_OK(cbr_enter(it->handle, 0, &pin));
  CHECK_OK(subject_run(it, jumps, arg, NULL));
  return 5;
}

TEST(a_longjmp_over_calls_ends_their_spans_innermost_first) {
  struct tracer tracer;
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  tracer_start(&tracer);
  tracer.sets_contexts = true;
  CHECK_OK(cbr_trace_set(THIRD));
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  CHECK_EQ(cbr_depth(), 1);
  if (setjmp(landing) == 0) {
    subject_run(&it, calls_one_that_jumps, NULL, NULL);
    FAIL("it has returned");
  }
  CHECK_EQ(cbr_depth(), 4);
  CHECK_EQ(tracer.ended, 0);
  CHECK_OK(cbr_unwind_to(1));
  it.running = 0;
  CHECK_EQ(cbr_depth(), 1);
  CHECK_EQ(tracer.ended, 3);
  for (int i = 1; i <= 3; i++) {
    CHECK_STATUS(tracer.told[i].status, CBR_ERR_CALLBACK);
    CHECK_EQ(tracer.told[i].order, 3 - i);
  }
  CHECK_CONTEXT(span_of(0));
  CHECK_OK(cbr_unwind_to(1)); /* nothing more */
  CHECK_EQ(tracer.ended, 3);
  CHECK_OK(cbr_leave(&pin));
  CHECK_STATUS(tracer.told[0].status, CBR_OK);
  CHECK_CONTEXT(THIRD);
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t survives_a_jump_inside(struct subject *it, void *arg) {
  (void)arg;
  if (setjmp(landing) == 0) {
    subject_run(it, calls_one_that_jumps, NULL, NULL);
    FAIL("it has returned");
  }
  CHECK_OK(cbr_unwind_to(1));
  it->running = 1;
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(subject_run(it, succeeds_at_any_depth, NULL, NULL));
  return 5;
}

TEST(a_call_in_which_others_were_jumped_over_goes_on_and_ends_as_any) {
  struct tracer tracer;
  struct subject it;
  subject_register(&it);
  tracer_start(&tracer);
  CHECK_OK(subject_run(&it, survives_a_jump_inside, NULL, NULL));
  CHECK_EQ(tracer.begun, 5);
  CHECK_STATUS(tracer.told[0].status, CBR_OK);
  CHECK_EQ(tracer.told[0].order, 4);
  CHECK_STATUS(tracer.told[4].status, CBR_OK);
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister(it.handle));
}

static void jumps_out_of_the_tracer(struct tracer *it) {
  if (it->extra != NULL) longjmp(landing, 1);
}

/* Calls and pins; in the next round as if nothing had been. */
TEST(a_begin_that_is_jumped_out_of_has_no_end_and_its_call_is_none) {
  struct tracer tracer;
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  tracer_start(&tracer);
  tracer.sets_contexts = true;
  tracer.in_begin = jumps_out_of_the_tracer;
  CHECK_OK(cbr_trace_set(THIRD));
  for (volatile int pinned = 0; pinned < 2; pinned++) {
    tracer.extra = &it;
    if (setjmp(landing) == 0) {
      if (pinned) cbr_enter(it.handle, 0, &pin);
      if (!pinned) cbr_call(it.handle, NULL, NULL);
      FAIL("it has returned");
    }
    CHECK_OK(cbr_unwind_to(0));
    CHECK_EQ(cbr_depth(), 0);
    CHECK_CONTEXT(THIRD);
    CHECK_EQ(tracer.begun, 1);
    CHECK_EQ(tracer.ended, 0);
    CHECK_EQ(it.calls, pinned);
    tracer.begun = 0;
    tracer.extra = NULL;
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    CHECK_TOLD_ONCE(&tracer, it.handle, "", CBR_OK);
    CHECK_CONTEXT(THIRD);
  }
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister_wait(it.handle, 0));
}

TEST(an_end_that_is_jumped_out_of_was_the_only_one) {
  struct tracer tracer;
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  tracer_start(&tracer);
  tracer.sets_contexts = true;
  tracer.in_end = jumps_out_of_the_tracer;
  CHECK_OK(cbr_trace_set(THIRD));
  for (volatile int pinned = 0; pinned < 2; pinned++) {
    tracer.extra = &it;
    if (setjmp(landing) == 0) {
      if (pinned) CHECK_OK(cbr_enter(it.handle, 0, &pin));
      if (pinned) cbr_leave(&pin);
      if (!pinned) cbr_call(it.handle, NULL, NULL);
      FAIL("it has returned");
    }
    CHECK_OK(cbr_unwind_to(0));
    CHECK_EQ(cbr_depth(), 0);
    CHECK_CONTEXT(THIRD);
    CHECK_EQ(tracer.begun, 1);
    CHECK_EQ(tracer.ended, 1);
    tracer.begun = tracer.ended = 0;
    tracer.extra = NULL;
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    CHECK_TOLD_ONCE(&tracer, it.handle, "", CBR_OK);
    CHECK_CONTEXT(THIRD);
  }
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister_wait(it.handle, 0));
}

struct forgetful {
  struct subject *it;
  pthread_t thread;
};

static void *forgets_a_pin(void *arg) {
  struct forgetful *self = (struct forgetful *)arg;
  static cbr_pin pin;
  self->thread = pthread_self();
  CHECK_OK(cbr_enter(self->it->handle, 0, &pin));
  return NULL;
}

TEST(a_thread_that_ends_inside_a_pin_ends_its_span) {
  struct tracer tracer;
  struct subject it;
  struct forgetful self = {&it, 0};
  subject_register(&it);
  tracer_start(&tracer);
  run_on_thread(forgets_a_pin, &self);
  CHECK_EQ(tracer.begun, 1);
  CHECK_EQ(tracer.ended, 1);
  CHECK_STATUS(tracer.told[0].status, CBR_ERR_CALLBACK);
  CHECK(pthread_equal(tracer.told[0].thread, self.thread));
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister_wait(it.handle, 0));
}

/* begin leaves a pin that was entered before: its end comes there. */
static void leaves_an_older_pin(struct tracer *it) {
  cbr_pin *pin = (cbr_pin *)it->extra;
  it->extra = NULL;
  if (pin != NULL) CHECK_OK(cbr_leave(pin));
}

TEST(a_pin_that_a_hook_leaves_has_its_end_as_well) {
  for (int in_end = 0; in_end < 2; in_end++) {
    struct tracer tracer;
    struct subject it;
    cbr_pin pin;
    subject_register(&it);
    tracer_start(&tracer);
    CHECK_OK(cbr_enter(it.handle, 0, &pin));
    tracer.extra = &pin;
    *(in_end ? &tracer.in_end : &tracer.in_begin) = leaves_an_older_pin;
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    CHECK_EQ(tracer.begun, 2);
    CHECK_EQ(tracer.ended, 2);
    CHECK_EQ(cbr_depth(), 0);
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    CHECK_EQ(tracer.begun, 3);
    tracer_stop(&tracer);
    CHECK_OK(cbr_unregister_wait(it.handle, 0));
  }
}

/* --- forks, and without memory ---------------------------------------------------------------------- */

static intptr_t forks(struct subject *it, void *arg) {
  struct tracer *tracer = (struct tracer *)arg;
  pid_t child = fork_watched();
  if (child == 0) {
    /* The other thread's call is not in flight here, and has no end. */
    CHECK_OK(subject_run(it, succeeds_at_any_depth, NULL, NULL));
    CHECK_EQ(tracer->ended, 1);
    remove_tracer();
    CHECK_EQ(tracer->destroyed, 0);
    return 1;
  }
  check_child_passed(child);
  return 0;
}

TEST(in_the_child_of_a_fork_the_forking_threads_calls_have_their_ends) {
  struct tracer tracer;
  struct subject it;
  struct occupant guest;
  intptr_t is_child = 9;
  subject_register(&it);
  tracer_start(&tracer);
  occupy(&guest, &it);
  CHECK_OK(subject_run(&it, forks, &tracer, &is_child));
  if (is_child) {
    CHECK_EQ(tracer.ended, 2);
    CHECK_EQ(tracer.destroyed, 1);
    _exit(0);
  }
  CHECK_OK(vacate(&guest));
  CHECK_EQ(tracer.begun, 2);
  tracer_stop(&tracer);
  CHECK_OK(cbr_unregister(it.handle));
}

static int untold;
static void *tells(void *user_data, cbr_handle handle, const char *name, const char *context) {
  (void)user_data, (void)handle, (void)name, (void)context;
  untold++;
  return NULL;
}

/* A call needs no memory, with a tracer or without. */
TEST(without_memory_calls_go_on_perhaps_untold) {
  struct subject it;
  skip_where_limits_do_not_work();
  subject_register(&it);
  CHECK_OK(cbr_set_call_hooks(tells, NULL, NULL, NULL, 0));
  limit_address_space(0);
  for (size_t size = 1 << 20; size >= 16; size /= 2)
    while (malloc(size) != NULL) {
    }
  intptr_t result = 0;
  CHECK_OK(cbr_call(it.handle, NULL, &result));
  CHECK_EQ(result, SUBJECT_RESULT);
  CHECK_EQ(untold, 0);
  CHECK_STATUS(cbr_set_call_hooks(tells, NULL, NULL, NULL, 0), CBR_ERR_NOMEM);
  remove_tracer();
}

static void check_none_inside(struct tracer *it) {
  cbr_stats stats = {.size = sizeof stats};
  cbr_scope *owner = (cbr_scope *)it->extra;
  CHECK_OK(cbr_stats_get(0, &stats));
  CHECK_EQ(stats.in_flight, 1); /* the call that it is told of */
  CHECK_OK(cbr_stats_get(*owner, &stats));
  CHECK_EQ(stats.in_flight, 0);
  CHECK_EQ(stats.threads, 0);
}

static intptr_t checks_none_inside(struct subject *it, void *tracer) {
  (void)it;
  check_none_inside((struct tracer *)tracer);
  return SUBJECT_RESULT;
}

TEST(a_tracer_does_not_count_as_a_call_in_flight) {
  struct subject it;
  struct tracer tracer;
  cbr_scope owner;
  CHECK_OK(cbr_scope_open("tracer", &owner));
  subject_register(&it);
  tracer_init(&tracer);
  tracer.extra = &owner;
  tracer.in_begin = tracer.in_end = check_none_inside;
  tracer_set_in(&tracer, owner);
  CHECK_OK(subject_run(&it, checks_none_inside, &tracer, NULL));
  CHECK_EQ(tracer.ended, 1);
  remove_tracer();
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- fork while the hooks change ------------------------------------------------------------------ */

enum { WATCHED = 20000 };
static struct { int over; gate going; } changes;
static int told_of;

static intptr_t returns(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 0;
}

static void *counts(void *user_data, cbr_handle handle, const char *name, const char *context) {
  (void)user_data, (void)handle, (void)name, (void)context;
  told_of++;
  return NULL;
}

static void *changes_hooks(void *arg) {
  for (long i = 0; !load_int(&changes.over); i++) {
    if (i == 2) gate_open(&changes.going);
    CHECK_OK(cbr_set_call_hooks(i % 2 == 0 ? counts : NULL, NULL, NULL, NULL, 0));
  }
  return arg;
}

/* Many callbacks are to be told that somebody watches; the thread that was at it does not exist. */
TEST(the_child_of_a_fork_in_the_middle_of_a_change_is_told_of_every_callback) {
  static cbr_handle handles[WATCHED];
  if (HARNESS_SANITIZED) SKIP("a lock of the sanitizer may be another thread's at the fork");
  for (int i = 0; i < WATCHED; i++) {
    CHECK_OK(cbr_register(returns, NULL, NULL, &handles[i]));
    CHECK_OK(cbr_call(handles[i], NULL, NULL)); /* the next one needs no look at what is new */
  }
  gate_init(&changes.going);
  pthread_t thread = start(changes_hooks, NULL);
  gate_pass(&changes.going);
  for (long round = scaled(100); round > 0; round--) {
    pid_t child = fork_watched();
    if (child == 0) {
      CHECK_OK(cbr_set_call_hooks(counts, NULL, NULL, NULL, 0));
      told_of = 0;
      for (int i = 0; i < WATCHED; i++) CHECK_OK(cbr_call(handles[i], NULL, NULL));
      CHECK_EQ(told_of, WATCHED);
      CHECK_OK(cbr_set_call_hooks(NULL, NULL, NULL, NULL, 0));
      for (int i = 0; i < WATCHED; i += 100) CHECK_OK(cbr_call(handles[i], NULL, NULL));
      CHECK_EQ(told_of, WATCHED);
      _exit(0);
    }
    check_child_passed(child);
  }
  store_int(&changes.over, 1);
  join(thread);
}
