/* Statistics: numbers of the process and of scopes, callbacks described, the table for people. */
#include "harness.h"

#include <pthread.h>

static intptr_t add_one(void *user_data, void *arg) {
  (void)user_data;
  return (intptr_t)arg + 1;
}

static intptr_t fails(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "on purpose"));
  return 0;
}

static cbr_stats stats_of(cbr_scope scope) {
  cbr_stats stats = {.size = sizeof stats};
  CHECK_OK(cbr_stats_get(scope, &stats));
  CHECK_EQ(stats.size, sizeof stats);
  return stats;
}

static cbr_handle registered(const char *name, cbr_scope scope, cbr_fn fn) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)fn;
  options.name = name;
  options.scope = scope;
  CHECK_OK(cbr_register_with(&options, &handle));
  return handle;
}

static char text[1 << 16];
static size_t text_len;

static void keep(void *user_data, const char *data, size_t len) {
  CHECK(user_data == text);
  CHECK(text_len + len < sizeof text);
  memcpy(text + text_len, data, len);
  text[text_len += len] = 0;
}

static const char *report_of(cbr_scope scope) {
  text_len = 0;
  CHECK_OK(cbr_report(scope, keep, text));
  return text;
}

/* --- numbers ------------------------------------------------------------------------------- */

TEST(what_lives_and_what_has_ended_is_counted) {
  cbr_handle first, second;
  cbr_stats before = stats_of(0);
  CHECK_OK(cbr_register(add_one, NULL, NULL, &first));
  CHECK_OK(cbr_register(add_one, NULL, NULL, &second));
  CHECK_OK(cbr_unregister(first));
  cbr_stats after = stats_of(0);
  CHECK_EQ(after.registered - before.registered, 2);
  CHECK_EQ(after.destroyed - before.destroyed, 1);
  CHECK_EQ(after.live - before.live, 1);
  CHECK_EQ(after.destroy_pending, 0);
  CHECK(after.threads >= 1);
  CHECK_OK(cbr_unregister(second));
}

TEST(every_way_into_a_callback_is_counted_once) {
  enum { CALLS = 5000 }; /* also past the point where a thread takes the short way */
  cbr_handle handle, other;
  cbr_hook hook = CBR_HOOK_INIT;
  cbr_pin pin;
  CHECK_OK(cbr_register(add_one, NULL, NULL, &handle));
  CHECK_OK(cbr_register(add_one, NULL, NULL, &other));
  CHECK_OK(cbr_hook_set_once(&hook, handle));
  cbr_stats before = stats_of(0);
  for (int call = 0; call < CALLS; call++) CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_OK(cbr_call(other, NULL, NULL));
  CHECK_OK(cbr_hook_call(&hook, NULL, NULL));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(handle), NULL), 1);
  CHECK_OK(cbr_enter(handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_hold(handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(stats_of(0).calls - before.calls, CALLS + 5);
  /* At level 2 calls take another way. */
  CHECK_OK(cbr_set_check(2));
  before = stats_of(0);
  for (int call = 0; call < CALLS; call++) CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_OK(cbr_enter(handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(stats_of(0).calls - before.calls, CALLS + 1);
}

TEST(failures_and_stale_calls_are_counted) {
  cbr_handle handle, gone;
  CHECK_OK(cbr_register(fails, NULL, NULL, &handle));
  CHECK_OK(cbr_register(add_one, NULL, NULL, &gone));
  CHECK_OK(cbr_unregister(gone));
  cbr_stats before = stats_of(0);
  CHECK_STATUS(cbr_call(handle, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_STATUS(cbr_call(handle, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_STATUS(cbr_call(gone, NULL, NULL), CBR_ERR_STALE);
  cbr_pin pin = {0};
  CHECK_STATUS(cbr_leave(&pin), CBR_ERR_STALE); /* is no call */
  cbr_stats after = stats_of(0);
  CHECK_EQ(after.calls - before.calls, 2);
  CHECK_EQ(after.failures - before.failures, 2);
  CHECK_EQ(after.stale - before.stale, 1);
}

static void *call_many(void *handle) {
  for (int call = 0; call < 1000; call++) CHECK_OK(cbr_call(*(cbr_handle *)handle, NULL, NULL));
  return NULL;
}

TEST(what_threads_did_is_known_after_their_end) {
  cbr_handle handle;
  CHECK_OK(cbr_register(add_one, NULL, NULL, &handle));
  cbr_stats before = stats_of(0), after = before;
  for (int round = 0; round < 8; round++) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK_EQ(pthread_create(&threads[i], NULL, call_many, &handle), 0);
    /* Numbers that count what has happened never go back, also while threads end. */
    for (int look = 0; look < 20; look++) {
      cbr_stats now = stats_of(0);
      CHECK(now.calls >= after.calls);
      after = now;
    }
    for (int i = 0; i < 4; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  }
  after = stats_of(0);
  CHECK_EQ(after.calls - before.calls, 8 * 4 * 1000);
  CHECK_EQ(after.threads, before.threads);
}

static intptr_t look_inside(void *user_data, void *arg) {
  cbr_callback_info info = {.size = sizeof info};
  cbr_handle self = *(cbr_handle *)arg;
  (void)user_data;
  CHECK_EQ(stats_of(0).in_flight, 1);
  CHECK_OK(cbr_callback_info_get(self, &info));
  CHECK_EQ(info.in_flight, 1);
  CHECK_OK(cbr_unregister(self));
  CHECK_EQ(stats_of(0).destroy_pending, 1);
  return 0;
}

TEST(what_is_inside_and_what_waits_for_its_end_shows) {
  cbr_handle handle;
  cbr_pin pin;
  CHECK_OK(cbr_register(look_inside, NULL, NULL, &handle));
  CHECK_OK(cbr_call(handle, &handle, NULL));
  CHECK_EQ(stats_of(0).destroy_pending, 0);
  CHECK_OK(cbr_register(add_one, NULL, NULL, &handle));
  CHECK_OK(cbr_hold(handle, 0, &pin));
  CHECK_EQ(stats_of(0).in_flight, 1);
  cbr_callback_info info = {.size = sizeof info};
  CHECK_OK(cbr_callback_info_get(handle, &info));
  CHECK_EQ(info.in_flight, 1);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(stats_of(0).in_flight, 0);
}

static intptr_t look_at_scopes(void *user_data, void *arg) {
  cbr_scope *scopes = user_data;
  (void)arg;
  CHECK_EQ(stats_of(scopes[0]).in_flight, 1);
  CHECK_EQ(stats_of(scopes[0]).threads, 1);
  CHECK_EQ(stats_of(scopes[1]).in_flight, 0);
  CHECK_EQ(stats_of(scopes[1]).threads, 0);
  return 0;
}

TEST(a_call_is_inside_its_own_scope_alone) {
  cbr_scope scopes[2];
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  for (int i = 0; i < 2; i++) CHECK_OK(cbr_scope_open("", &scopes[i]));
  options.fn = (cbr_any_fn)look_at_scopes;
  options.user_data = scopes;
  options.scope = scopes[0];
  CHECK_OK(cbr_register_with(&options, &handle));
  CHECK_OK(cbr_call(handle, NULL, NULL));
}

TEST(scopes_queues_and_thunks_are_no_callbacks) {
  cbr_handle handle;
  cbr_scope scope;
  cbr_queue queue;
  cbr_thunk thunk;
  cbr_any_fn fn;
  CHECK_OK(cbr_register(add_one, NULL, NULL, &handle));
  cbr_stats before = stats_of(0);
  CHECK_OK(cbr_scope_open("", &scope));
  CHECK_OK(cbr_queue_open(NULL, &queue));
  CHECK_OK(cbr_thunk_open(handle, CBR_SIG_DEFAULT, 0, &fn, &thunk));
  CHECK_EQ(stats_of(0).live, before.live);
  CHECK_OK(cbr_thunk_close(thunk));
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  CHECK_EQ(stats_of(0).registered, before.registered);
  CHECK_EQ(stats_of(0).destroyed, before.destroyed);
}

TEST(a_scopes_numbers_are_its_own) {
  cbr_scope scope;
  cbr_handle inside, ended;
  CHECK_OK(cbr_scope_open("plugin", &scope));
  (void)registered("outside", 0, add_one);
  inside = registered("inside", scope, add_one);
  ended = registered("ended", scope, add_one);
  CHECK_OK(cbr_unregister(ended));
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  options.scope = scope;
  CHECK_OK(cbr_queue_open(&options, &queue));
  CHECK_OK(cbr_post(queue, inside, NULL, 0));
  cbr_stats stats = stats_of(scope);
  CHECK_EQ(stats.live, 1);
  CHECK_EQ(stats.registered, 2);
  CHECK_EQ(stats.destroyed, 1);
  CHECK_EQ(stats.queues, 1);
  CHECK_EQ(stats.queued, 1);
  CHECK_EQ(stats.posted, 1);
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  stats.live = 42;
  CHECK_REFUSED(cbr_stats_get(scope, &stats), CBR_ERR_STALE);
  CHECK_EQ(stats.live, 42);
  CHECK_REFUSED(cbr_report(scope, keep, text), CBR_ERR_STALE);
  /* The next scope at its place begins anew. */
  CHECK_OK(cbr_scope_open("next", &scope));
  CHECK_EQ(stats_of(scope).registered, 0);
}

TEST(what_a_scopes_metered_callbacks_did_is_known_after_their_end) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_scope scope, other;
  cbr_handle handles[3];
  CHECK_OK(cbr_scope_open("plugin", &scope));
  CHECK_OK(cbr_scope_open("other", &other));
  options.fn = (cbr_any_fn)fails;
  options.flags = CBR_METERED;
  for (int i = 0; i < 3; i++) {
    /* Two of one name, one of another. */
    options.name = i < 2 ? "one" : "two";
    options.scope = scope;
    CHECK_OK(cbr_register_with(&options, &handles[i]));
    for (int call = 0; call <= i; call++)
      CHECK_STATUS(cbr_call(handles[i], NULL, NULL), CBR_ERR_CALLBACK);
  }
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(stats_of(scope).calls, 6);
    CHECK_EQ(stats_of(scope).failures, 6);
    CHECK_OK(cbr_unregister(handles[i]));
  }
  CHECK_EQ(stats_of(scope).calls, 6);
  CHECK_EQ(stats_of(scope).failures, 6);
  CHECK_EQ(stats_of(other).calls, 0);
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  CHECK_OK(cbr_scope_open("next", &scope));
  CHECK_EQ(stats_of(scope).calls, 0);
}

/* --- queues and thunks --------------------------------------------------------------------- */

TEST(events_are_posted_then_queued_dispatched_or_dropped) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  cbr_handle handle;
  size_t dispatched;
  cbr_stats before = stats_of(0);
  options.capacity = 4;
  options.policy = CBR_QUEUE_DROP_OLDEST;
  CHECK_OK(cbr_queue_open(&options, &queue));
  CHECK_OK(cbr_register(add_one, NULL, NULL, &handle));
  for (int post = 0; post < 7; post++) CHECK_OK(cbr_post(queue, handle, NULL, 0));
  cbr_stats now = stats_of(0);
  CHECK_EQ(now.posted - before.posted, 7);
  CHECK_EQ(now.queued, 4);
  CHECK_EQ(now.dropped - before.dropped, 3);
  CHECK_OK(cbr_queue_dispatch(queue, 3, 0, &dispatched));
  now = stats_of(0);
  CHECK_EQ(now.dispatched - before.dispatched, 3);
  CHECK_EQ(now.calls - before.calls, 3);
  /* The last one is dropped with the queue, and what it did is not forgotten. */
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  now = stats_of(0);
  CHECK_EQ(now.queues, before.queues);
  CHECK_EQ(now.queued, 0);
  CHECK_EQ(now.posted - before.posted, 7);
  CHECK_EQ(now.dispatched - before.dispatched, 3);
  CHECK_EQ(now.dropped - before.dropped, 4);
}

TEST(a_replaced_payload_is_posted_and_dropped) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  cbr_handle handle;
  options.flags = CBR_QUEUE_COALESCE;
  CHECK_OK(cbr_queue_open(&options, &queue));
  CHECK_OK(cbr_register(add_one, NULL, NULL, &handle));
  for (int post = 0; post < 3; post++) CHECK_OK(cbr_post(queue, handle, NULL, 0));
  cbr_stats stats = stats_of(0);
  CHECK_EQ(stats.posted, 3);
  CHECK_EQ(stats.dropped, 2);
  CHECK_EQ(stats.queued, 1);
}

TEST(thunks_are_counted_and_so_are_their_calls_in_vain) {
  cbr_handle handle;
  cbr_thunk thunk;
  cbr_any_fn fn;
  CHECK_OK(cbr_register(add_one, NULL, NULL, &handle));
  CHECK_OK(cbr_thunk_open(handle, CBR_SIG_DEFAULT, 0, &fn, &thunk));
  CHECK_EQ(stats_of(0).thunks, 1);
  CHECK_OK(cbr_unregister(handle));
  CHECK_EQ(((intptr_t (*)(void *))fn)(NULL), 0);
  CHECK_EQ(stats_of(0).thunk_stale, 1);
  CHECK_OK(cbr_thunk_close(thunk));
  CHECK_EQ(stats_of(0).thunks, 0);
}

/* --- one callback -------------------------------------------------------------------------- */

TEST(a_callback_is_described) {
  cbr_scope scope;
  cbr_callback_info info = {.size = sizeof info};
  CHECK_OK(cbr_scope_open("plugin", &scope));
  int64_t before = now_ns();
  cbr_handle handle = registered("on_message", scope, add_one);
  CHECK_OK(cbr_retain(handle));
  CHECK_OK(cbr_callback_info_get(handle, &info));
  CHECK_EQ(info.size, sizeof info);
  CHECK_EQ(info.handle, handle);
  CHECK_EQ(info.scope, scope);
  CHECK_EQ(info.signature, CBR_SIG_DEFAULT);
  CHECK_EQ(info.references, 2);
  CHECK_EQ(info.in_flight, 0);
  CHECK_EQ(info.flags, 0);
  CHECK(info.registered_ns >= before && info.registered_ns <= now_ns());
  CHECK_STR(info.name, "on_message");
  CHECK_OK(cbr_unregister(handle));
  info.references = 42;
  CHECK_REFUSED(cbr_callback_info_get(handle, &info), CBR_ERR_STALE);
  CHECK_EQ(info.references, 42);
  CHECK_REFUSED(cbr_callback_info_get(scope, &info), CBR_ERR_KIND);
}

TEST(a_long_name_is_cut_between_characters) {
  char name[71] = "";
  cbr_callback_info info = {.size = sizeof info};
  for (int i = 0; i < 35; i++) strcat(name, "\xc3\xa4"); /* 62 bytes fit, then half a letter */
  CHECK_OK(cbr_callback_info_get(registered(name, 0, add_one), &info));
  CHECK_EQ(strlen(info.name), 62);
  CHECK_EQ(memcmp(info.name, name, 62), 0);
}

TEST(a_structure_of_another_size_is_filled_as_far_as_it_reaches) {
  struct {
    cbr_stats stats;
    char more[16];
  } larger;
  memset(&larger, 0x55, sizeof larger);
  larger.stats.size = sizeof larger;
  CHECK_OK(cbr_stats_get(0, &larger.stats));
  CHECK_EQ(larger.stats.size, sizeof larger.stats);
  CHECK_EQ(larger.more[0], 0x55);
  larger.stats.size = sizeof larger.stats - 1;
  CHECK_REFUSED(cbr_stats_get(0, &larger.stats), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_stats_get(0, NULL), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_callback_info_get(0, NULL), CBR_ERR_INVALID);
}

/* --- the table ----------------------------------------------------------------------------- */

TEST(the_report_shows_every_live_callback) {
  cbr_scope scope;
  CHECK_OK(cbr_scope_open("plugin", &scope));
  cbr_handle handle = registered("on\nmessage", scope, add_one), plain;
  CHECK_OK(cbr_register(add_one, NULL, NULL, &plain));
  char number[32];
  CHECK_CONTAINS(report_of(0), "2 live callbacks\n");
  snprintf(number, sizeof number, "0x%016llx", (unsigned long long)handle);
  CHECK_CONTAINS(text, number);
  CHECK_CONTAINS(text, "on?message");
  CHECK_CONTAINS(text, " ms "); /* its age; of the other one none is noted */
  CHECK_CONTAINS(text, "plugin");
  CHECK_CONTAINS(report_of(scope), "1 live callback\n");
  CHECK(strstr(text, number) != NULL);
  CHECK_OK(cbr_unregister(handle));
  CHECK_CONTAINS(report_of(scope), "0 live callbacks\n");
  CHECK_REFUSED(cbr_report(0, NULL, NULL), CBR_ERR_NULL);
}

/* Exported, so that the loader knows its name. */
__attribute__((noinline)) cbr_handle register_from_here(void);
__attribute__((noinline)) cbr_handle register_from_here(void) {
  cbr_handle handle;
  CHECK_OK(cbr_register(add_one, NULL, NULL, &handle));
  return handle;
}

TEST(at_check_level_two_the_report_says_where_a_callback_was_registered) {
  (void)register_from_here();
  CHECK(strstr(report_of(0), "register_from_here") == NULL);
  CHECK_OK(cbr_set_check(2));
  (void)register_from_here();
  CHECK_CONTAINS(report_of(0), "register_from_here+0x");
}

static void use_the_library(void *user_data, const char *data, size_t len) {
  (void)user_data, (void)data, (void)len;
  CHECK_OK(cbr_unregister(registered("another", 0, add_one)));
}

TEST(the_writer_of_a_report_may_use_the_library) {
  (void)registered("one", 0, add_one);
  CHECK_OK(cbr_report(0, use_the_library, NULL));
}
