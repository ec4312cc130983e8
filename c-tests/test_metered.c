/* CBR_METERED: calls, failures and how long calls take, of one callback and of all of a name. */
#include "support_metrics.h"
#include "support_queue.h"
#include "support_thunk.h"

static intptr_t add_one(void *user_data, void *arg) {
  (void)user_data;
  return (intptr_t)arg + 1;
}

static intptr_t fails(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "on purpose"));
  return 0;
}

static cbr_handle metered(cbr_fn fn, const char *name, cbr_scope scope) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)fn;
  options.name = name;
  options.scope = scope;
  options.flags = CBR_METERED;
  CHECK_OK(cbr_register_with(&options, &handle));
  return handle;
}

static cbr_callback_info info_of(cbr_handle handle) {
  cbr_callback_info info = {.size = sizeof info};
  CHECK_OK(cbr_callback_info_get(handle, &info));
  return info;
}

#define CHECK_COUNTS(handle, expected_calls, expected_failures) \
  do {                                                          \
    cbr_callback_info info_ = info_of(handle);                  \
    CHECK_EQ(info_.calls, (expected_calls));                    \
    CHECK_EQ(info_.failures, (expected_failures));              \
  } while (0)

/* What is known by name, and that a histogram's sum fits it. */
static void check_named(const char *name, double calls, double failures, double timed) {
  CHECK_METRIC("callbridge_callback_calls_total", "callback", name, calls);
  CHECK_METRIC("callbridge_callback_failures_total", "callback", name, failures);
  CHECK_METRIC("callbridge_call_duration_seconds_count", "callback", name, timed);
  CHECK_METRIC("callbridge_call_duration_seconds_bucket", "callback", name, timed);
}

/* How many calls took at most so many seconds, as `le` writes it. */
static double at_most(const char *metric_name, const char *label, const char *name, const char *le) {
  for (int i = 0; i < sample_count; i++) {
    if (strcmp(samples[i].name, metric_name) == 0 && strcmp(label_of(&samples[i], label), name) == 0 &&
        strcmp(label_of(&samples[i], "le"), le) == 0)
      return samples[i].value;
  }
  FAIL("no bucket %s of %s", le, name);
}

/* --- one callback -------------------------------------------------------------------------- */

TEST(the_statistics_of_a_scope_have_the_calls_of_its_metered_callbacks) {
  cbr_scope scope, other;
  cbr_stats stats = {.size = sizeof stats};
  CHECK_OK(cbr_scope_open("plugin", &scope));
  CHECK_OK(cbr_scope_open("other", &other));
  cbr_handle ok = metered(add_one, "a", scope), bad = metered(fails, "b", scope);
  cbr_handle elsewhere = metered(add_one, "a", other);
  for (int call = 0; call < 3; call++) CHECK_OK(cbr_call(ok, NULL, NULL));
  CHECK_STATUS(cbr_call(bad, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_OK(cbr_call(elsewhere, NULL, NULL));
  CHECK_OK(cbr_stats_get(scope, &stats));
  CHECK_EQ(stats.calls, 4);
  CHECK_EQ(stats.failures, 1);
  CHECK_OK(cbr_stats_get(other, &stats));
  CHECK_EQ(stats.calls, 1);
  CHECK_EQ(stats.failures, 0);
}

TEST(every_way_into_a_metered_callback_is_counted_once) {
  cbr_handle handle = metered(add_one, "all ways", 0);
  cbr_queue queue = queue_open(0, 0, 0);
  cbr_hook hook = CBR_HOOK_INIT;
  cbr_thunk thunk;
  cbr_any_fn fn;
  cbr_pin pin;
  CHECK_EQ(info_of(handle).flags, CBR_METERED);
  CHECK_COUNTS(handle, 0, 0);
  CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_COUNTS(handle, 1, 0);
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(handle), NULL), 1);
  CHECK_COUNTS(handle, 2, 0);
  CHECK_OK(cbr_hook_set_once(&hook, handle));
  CHECK_OK(cbr_hook_call(&hook, NULL, NULL));
  CHECK_COUNTS(handle, 3, 0);
  CHECK_OK(cbr_key_attach(0, 7, 1, handle, CBR_BIND_ONCE));
  CHECK_OK(cbr_key_call(0, 7, 1, NULL, NULL));
  CHECK_COUNTS(handle, 4, 0);
  CHECK_OK(cbr_post(queue, handle, NULL, 0));
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_COUNTS(handle, 5, 0);
  CHECK_OK(cbr_thunk_open(handle, CBR_SIG_DEFAULT, 0, &fn, &thunk));
  CHECK_EQ(((intptr_t (*)(void *))fn)(NULL), 1);
  CHECK_COUNTS(handle, 6, 0);
  CHECK_OK(cbr_enter(handle, 0, &pin));
  CHECK_COUNTS(handle, 7, 0);
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_hold(handle, 0, &pin));
  CHECK_COUNTS(handle, 8, 0);
  CHECK_OK(cbr_leave(&pin));
  metrics_read(0);
  check_named("all ways", 8, 0, 6);
}

TEST(many_calls_in_a_row_are_counted_all) {
  enum { IN_A_ROW = 5000 };
  cbr_handle handle = metered(add_one, NULL, 0), plain;
  CHECK_OK(cbr_register(add_one, NULL, NULL, &plain));
  for (int call = 0; call < IN_A_ROW; call++) CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_COUNTS(handle, IN_A_ROW, 0);
  /* A level that makes all calls special, and takes that back, leaves them metered. */
  CHECK_OK(cbr_set_check(2));
  CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_OK(cbr_set_check(1));
  CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_OK(cbr_call(plain, NULL, NULL));
  CHECK_COUNTS(handle, IN_A_ROW + 2, 0);
  CHECK_COUNTS(plain, 0, 0);
  metrics_read(0);
  check_named("", IN_A_ROW + 2, 0, IN_A_ROW + 2);
}

TEST(failures_of_a_metered_callback_are_counted) {
  cbr_handle handle = metered(fails, "fails", 0), other = metered(add_one, "other one", 0);
  cbr_queue queue = queue_open(0, 0, 0);
  cbr_pin pin;
  CHECK_STATUS(cbr_call(handle, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_COUNTS(handle, 1, 1);
  CHECK_OK(cbr_post(queue, handle, NULL, 0));
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_COUNTS(handle, 2, 2);
  CHECK_OK(cbr_enter(handle, 0, &pin));
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, NULL));
  CHECK_STATUS(cbr_leave(&pin), CBR_ERR_PANIC);
  CHECK_COUNTS(handle, 3, 3);
  /* One that was left well. */
  CHECK_OK(cbr_enter(handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_COUNTS(handle, 4, 3);
  CHECK_COUNTS(other, 0, 0);
  metrics_read(0);
  check_named("fails", 4, 3, 2);
}

static cbr_handle inner;

static intptr_t calls_inner(void *user_data, void *arg) {
  (void)user_data;
  for (intptr_t left = (intptr_t)arg; left > 0; left--) CHECK_OK(cbr_call(inner, NULL, NULL));
  return 0;
}

static intptr_t calls_inner_once(void *user_data, void *arg) {
  (void)arg;
  return calls_inner(user_data, (void *)1);
}

TEST(nested_calls_are_counted_each_for_its_own) {
  cbr_handle outer = metered(calls_inner, "outer", 0);
  inner = metered(add_one, "inner", 0);
  CHECK_OK(cbr_call(outer, (void *)3, NULL));
  CHECK_COUNTS(outer, 1, 0);
  CHECK_COUNTS(inner, 3, 0);
}

TEST(the_report_shows_what_was_counted) {
  cbr_handle handle = metered(fails, "shown", 0);
  cbr_pin pin;
  for (int call = 0; call < 12345; call++) CHECK_STATUS(cbr_call(handle, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_OK(cbr_enter(handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  metrics_len = 0;
  CHECK_OK(cbr_report(0, metrics_keep, metrics_text));
  CHECK_CONTAINS(metrics_text, "     12346    12345  ");
}

/* More than a thread remembers the places of. */
TEST(callbacks_beyond_count_are_counted_apart) {
  enum { MANY = 300 };
  cbr_handle handles[MANY];
  for (int i = 0; i < MANY; i++) handles[i] = metered(add_one, "many", 0);
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < MANY; i++) {
      for (int call = 0; call <= i % 4; call++) CHECK_OK(cbr_call(handles[i], NULL, NULL));
    }
  }
  for (int i = 0; i < MANY; i++) CHECK_COUNTS(handles[i], 3 * (i % 4 + 1), 0);
  metrics_read(0);
  check_named("many", 3 * MANY * 10 / 4, 0, 3 * MANY * 10 / 4);
}

/* --- time ---------------------------------------------------------------------------------- */

static intptr_t takes(void *user_data, void *arg) {
  int64_t end = now_ns() + (intptr_t)arg;
  (void)user_data;
  while (now_ns() < end) {
  }
  return 0;
}

TEST(calls_are_counted_by_how_long_they_took) {
  static const char duration[] = "callbridge_call_duration_seconds_bucket";
  cbr_handle handle = metered(takes, "takes", 0);
  for (int call = 0; call < 3; call++) CHECK_OK(cbr_call(handle, (void *)(intptr_t)(20 * MS), NULL));
  for (int call = 0; call < 2; call++) CHECK_OK(cbr_call(handle, (void *)(intptr_t)(200 * MS), NULL));
  metrics_read(0);
  check_named("takes", 5, 0, 5);
  CHECK_EQ(at_most(duration, "callback", "takes", "0.01"), 0);
  CHECK_EQ(at_most(duration, "callback", "takes", "0.1"), 3); /* unless a call was interrupted for 80 ms */
  CHECK_EQ(at_most(duration, "callback", "takes", "10.0"), 5);
  double sum = metric("callbridge_call_duration_seconds_sum", "callback", "takes");
  CHECK(sum >= 0.46 && sum < 5);
}

TEST(events_are_counted_by_how_long_they_have_waited) {
  static const char latency[] = "callbridge_dispatch_latency_seconds_bucket";
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  cbr_handle handle = metered(add_one, "waits", 0), plain;
  options.name = "slow";
  CHECK_OK(cbr_queue_open(&options, &queue));
  CHECK_OK(cbr_register(add_one, NULL, NULL, &plain));
  for (int post = 0; post < 3; post++) CHECK_OK(cbr_post(queue, handle, NULL, 0));
  CHECK_OK(cbr_post(queue, plain, NULL, 0));
  takes(NULL, (void *)(intptr_t)(60 * MS));
  CHECK_OK(cbr_post(queue, handle, NULL, 0));
  CHECK_EQ(dispatch_all(queue), 5);
  metrics_read(0);
  CHECK_METRIC("callbridge_dispatch_latency_seconds_count", "queue", "slow", 4);
  CHECK_EQ(at_most(latency, "queue", "slow", "0.05"), 1);
  CHECK_EQ(at_most(latency, "queue", "slow", "5.0"), 4);
  double sum = metric("callbridge_dispatch_latency_seconds_sum", "queue", "slow");
  CHECK(sum >= 0.18 && sum < 5);
  /* What a callback calls itself is no event's call. */
  inner = handle;
  CHECK_OK(cbr_post(queue, metered(calls_inner_once, "calls", 0), NULL, 0));
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  metrics_read(0);
  CHECK_METRIC("callbridge_dispatch_latency_seconds_count", "queue", "slow", 5);
}

static void *call_on(void *arg) {
  cbr_queue *queue = arg;
  CHECK_OK(cbr_call_on(queue[0], queue[1], NULL, -1, NULL));
  return NULL;
}

TEST(a_call_on_another_thread_has_waited_as_an_event) {
  cbr_queue it[2] = {queue_open(0, 0, 0), metered(add_one, "there", 0)};
  pthread_t caller = start(call_on, it);
  while (queue_len(it[0]) == 0) sched_yield();
  takes(NULL, (void *)(intptr_t)(60 * MS));
  CHECK_EQ(dispatch_all(it[0]), 1);
  join(caller);
  CHECK_COUNTS(it[1], 1, 0);
  metrics_read(0);
  CHECK_METRIC("callbridge_dispatch_latency_seconds_count", "queue", "", 1);
  CHECK_EQ(at_most("callbridge_dispatch_latency_seconds_bucket", "queue", "", "0.05"), 0);
}

/* --- ends ---------------------------------------------------------------------------------- */

TEST(a_name_keeps_what_its_callbacks_have_counted) {
  cbr_handle first = metered(add_one, "same", 0), second = metered(fails, "same", 0);
  for (int call = 0; call < 5; call++) CHECK_OK(cbr_call(first, NULL, NULL));
  CHECK_STATUS(cbr_call(second, NULL, NULL), CBR_ERR_CALLBACK);
  metrics_read(0);
  check_named("same", 6, 1, 6);
  CHECK_OK(cbr_unregister(first));
  metrics_read(0);
  check_named("same", 6, 1, 6);
  CHECK_OK(cbr_unregister(second));
  metrics_read(0);
  check_named("same", 6, 1, 6);
  /* The next one at its place begins anew. */
  cbr_handle third = metered(add_one, "same", 0);
  CHECK_COUNTS(third, 0, 0);
  CHECK_OK(cbr_call(third, NULL, NULL));
  CHECK_COUNTS(third, 1, 0);
  metrics_read(0);
  check_named("same", 7, 1, 7);
}

TEST(a_registration_that_fails_leaves_nothing_behind) {
  cbr_scope scope;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle, pinned = metered(add_one, "in vain", 0);
  cbr_pin pin;
  CHECK_OK(cbr_scope_open("plugin", &scope));
  options.fn = (cbr_any_fn)add_one;
  options.name = "in vain";
  options.flags = CBR_METERED;
  options.scope = scope;
  CHECK_OK(cbr_register_with(&options, &handle));
  /* Closing, as somebody is inside. */
  CHECK_OK(cbr_hold(handle, 0, &pin));
  CHECK_STATUS(cbr_scope_close(scope, 0, NULL), CBR_ERR_TIMEOUT);
  for (int i = 0; i < 100; i++) CHECK_REFUSED(cbr_register_with(&options, &handle), CBR_ERR_CLOSED);
  metrics_read(0);
  check_named("in vain", 1, 0, 0);
  /* Nor to whoever is registered next, as special as it may be. */
  CHECK_OK(cbr_set_check(2));
  options.scope = 0;
  options.flags = 0;
  CHECK_OK(cbr_register_with(&options, &handle));
  CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_COUNTS(handle, 0, 0);
  CHECK_OK(cbr_unregister(handle));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  CHECK_OK(cbr_unregister(pinned));
  metrics_read(0);
  check_named("in vain", 1, 0, 0);
}

TEST(a_scopes_metered_callbacks_are_its_own) {
  cbr_scope scope;
  CHECK_OK(cbr_scope_open("plugin", &scope));
  cbr_handle outside = metered(add_one, "on_event", 0), inside = metered(add_one, "on_event", scope);
  cbr_handle second = metered(add_one, "on_event", scope);
  CHECK_OK(cbr_call(outside, NULL, NULL));
  for (int call = 0; call < 2; call++) CHECK_OK(cbr_call(inside, NULL, NULL));
  metrics_read(scope);
  check_named("on_event", 2, 0, 2);
  CHECK_OK(cbr_unregister(inside));
  metrics_read(scope);
  check_named("on_event", 2, 0, 2);
  CHECK_OK(cbr_unregister(second));
  metrics_read(scope);
  check_named("on_event", -1, -1, -1);
  metrics_read(0);
  check_named("on_event", 3, 0, 3);
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  metrics_read(0);
  check_named("on_event", 3, 0, 3);
}

TEST(names_of_metered_callbacks_are_bounded) {
  char name[32];
  for (int i = 0; i < 300; i++) {
    snprintf(name, sizeof name, "callback %d", i);
    cbr_handle handle = metered(add_one, name, 0);
    CHECK_OK(cbr_call(handle, NULL, NULL));
    if (i % 2 == 0) CHECK_OK(cbr_unregister(handle));
  }
  metrics_read(0);
  check_named("callback 255", 1, 0, 1);
  check_named("callback 256", -1, -1, -1);
  check_named("other", 44, 0, 44);
}

/* --- threads ------------------------------------------------------------------------------- */

enum { CALLS = 20000 };

static void *call_many(void *handle) {
  for (int call = 0; call < CALLS; call++) CHECK_OK(cbr_call(*(cbr_handle *)handle, NULL, NULL));
  return NULL;
}

TEST(what_threads_have_counted_is_known_after_their_end) {
  cbr_handle handle = metered(add_one, "threads", 0);
  uint64_t before = 0;
  for (int round = 0; round < 8; round++) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) threads[i] = start(call_many, &handle);
    for (int look = 0; look < 20; look++) {
      uint64_t now = info_of(handle).calls;
      CHECK(now >= before);
      before = now;
    }
    for (int i = 0; i < 4; i++) join(threads[i]);
  }
  CHECK_COUNTS(handle, 8 * 4 * CALLS, 0);
  metrics_read(0);
  check_named("threads", 8 * 4 * CALLS, 0, 8 * 4 * CALLS);
}

static void ends_in(struct turns *turns, unsigned turn) {
  cbr_handle handle = metered(add_one, "short-lived", 0);
  for (int call = 0; call < 3; call++) CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_COUNTS(handle, 3, 0);
  turns_wait(turns, turn);
  CHECK_OK(cbr_unregister(handle));
}

static double counted(void) {
  metrics_read(0);
  double calls = metric("callbridge_callback_calls_total", "callback", "short-lived");
  double timed = metric("callbridge_call_duration_seconds_count", "callback", "short-lived");
  /* The other thread may be in the middle of its three calls. */
  CHECK(timed >= calls - 3 && timed <= calls + 3);
  return calls;
}

TEST(what_was_counted_is_seen_once_while_callbacks_end) {
  (void)metered(add_one, "short-lived", 0);
  turns_take(ends_in, counted, 3, scaled(5000));
}

static void *ends_inside(void *handle) {
  CHECK_OK(cbr_call(*(cbr_handle *)handle, NULL, NULL));
  FAIL("the thread has ended");
}

static intptr_t ends_the_thread(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  pthread_exit(NULL);
}

TEST(a_call_that_a_threads_end_leaves_is_measured) {
  cbr_handle handle = metered(ends_the_thread, "ends", 0);
  run_on_thread(ends_inside, &handle);
  CHECK_COUNTS(handle, 1, 0);
  metrics_read(0);
  check_named("ends", 1, 0, 1);
}

TEST(in_the_child_of_a_fork_counting_goes_on) {
  int status = 0;
  cbr_handle handle = metered(add_one, "forked", 0);
  run_on_thread(call_many, &handle);
  pid_t child = fork();
  if (child == 0) {
    CHECK_OK(cbr_call(handle, NULL, NULL));
    run_on_thread(call_many, &handle);
    CHECK_COUNTS(handle, 2 * CALLS + 1, 0);
    metrics_read(0);
    check_named("forked", 2 * CALLS + 1, 0, 2 * CALLS + 1);
    CHECK_OK(cbr_unregister(handle));
    metrics_read(0);
    check_named("forked", 2 * CALLS + 1, 0, 2 * CALLS + 1);
    _exit(0);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  CHECK_COUNTS(handle, CALLS, 0);
}
