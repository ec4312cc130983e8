/* Every public function once, by a host that takes refusals as they come: a step that needs what an earlier
 * one was refused is left out. CMakeLists.txt compares with the header, so that none is forgotten.
 *
 * `may_refuse(status)` is the test's: is it one that this call may give now? Endings are never refused. */
#ifndef CALLBRIDGE_SUPPORT_SCENARIO_H
#define CALLBRIDGE_SUPPORT_SCENARIO_H

#include "harness.h"

#include <setjmp.h>

static bool may_refuse(cbr_status status);

/* The check level of its first half; the second is at level 1. */
static uint32_t scenario_level = 2;

/* What the scenario's functions have seen. */
static struct {
  int owned, destroyed; /* data that callbacks, events and hooks have been given, and that has come back */
  int errors, lines;
  size_t written;
} scenario;

static inline void scenario_check(const char *file, int line, const char *what, cbr_status status) {
  char words[512] = "";
  if (status == CBR_OK) return;
  cbr_last_error(words, sizeof words);
  if (!may_refuse(status))
    harness_fail(file, line, "%s gave %s: %s", what, cbr_status_name(status), words);
}

/* Has it worked? If not, the test has to agree. */
#define TRY(call)                                                 \
  __extension__({                                                 \
    cbr_status tried_ = (call);                                   \
    scenario_check(__FILE__, __LINE__, #call, tried_);            \
    tried_ == CBR_OK;                                             \
  })

/* --- functions of the host ---------------------------------------------------------------- */

/* Data on its way to a callback. Counted, so that each comes back once. */
static void *scenario_data(void) {
  scenario.owned++;
  return &scenario;
}
static void scenario_destroy(void *user_data) {
  CHECK(user_data == &scenario);
  scenario.destroyed++;
}
static void scenario_take_back(void) { scenario.owned--; }

static intptr_t scenario_fn(void *user_data, void *arg) {
  CHECK(user_data == &scenario);
  CHECK(cbr_current() != CBR_HANDLE_NONE && cbr_depth() > 0);
  const cbr_event *event = cbr_current_event();
  if (event != NULL) CHECK(event->len == 0 || event->data == arg);
  return 42;
}
static intptr_t scenario_failing(void *user_data, void *arg) {
  (void)arg;
  CHECK(user_data == &scenario);
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "as the scenario wants it"));
  return 0;
}
static intptr_t scenario_jumping(void *user_data, void *arg) {
  CHECK(user_data == &scenario);
  longjmp(*(jmp_buf *)arg, 1);
}
static void scenario_on_error(void *user_data, cbr_handle handle, cbr_status status, const char *message) {
  (void)handle;
  (void)message;
  CHECK(user_data == &scenario);
  CHECK_STATUS(status, CBR_ERR_CALLBACK);
  scenario.errors++;
}
static void *scenario_attach(void *user_data) { return user_data; }
static void scenario_detach(void *user_data, void *token) { CHECK(user_data == token); }
static void *scenario_begin(void *user_data, cbr_handle handle, const char *name, const char *traceparent) {
  (void)handle;
  (void)traceparent;
  CHECK(name != NULL);
  return user_data;
}
static void scenario_end(void *user_data, void *span, cbr_status status) {
  (void)status;
  CHECK(user_data == span);
}
static void scenario_log(void *user_data, uint32_t level, const char *target, const char *message) {
  (void)level;
  CHECK(user_data == &scenario && strcmp(target, "callbridge") == 0 && message[0] != 0);
  scenario.lines++;
}
static void scenario_write(void *user_data, const char *data, size_t len) {
  CHECK(user_data == &scenario && data != NULL);
  scenario.written += len;
}

/* --- its parts ------------------------------------------------------------------------------ */

/* What needs nothing is never refused. */
static void scenario_words(void) {
  cbr_signature signature = 0;
  char text[64];
  CHECK(strcmp(cbr_status_name(CBR_ERR_NOMEM), "CBR_ERR_NOMEM") == 0);
  CHECK(cbr_status_message(CBR_ERR_NOMEM)[0] != 0);
  CHECK(cbr_version() == (CALLBRIDGE_VERSION_MAJOR << 16 | CALLBRIDGE_VERSION_MINOR << 8 | CALLBRIDGE_VERSION_PATCH));
  CHECK(cbr_version_string()[0] != 0);
  CHECK_OK(cbr_signature_parse("intptr(ptr)", &signature));
  CHECK(cbr_signature_format(signature, text, sizeof text) > 0);
  (void)cbr_last_error(text, sizeof text);
}

static cbr_handle scenario_register(cbr_scope scope, cbr_fn fn) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = CBR_HANDLE_NONE;
  options.fn = (cbr_any_fn)fn;
  options.user_data = scenario_data();
  options.destroy = scenario_destroy;
  options.name = "of the scenario";
  options.scope = scope;
  options.flags = CBR_METERED;
  options.on_error = scenario_on_error;
  options.fallback.i = -1;
  if (!TRY(cbr_register_with(&options, &handle))) scenario_take_back();
  return handle;
}

static void scenario_calls(cbr_handle handle) {
  cbr_handle failing = scenario_register(0, scenario_failing), jumping = scenario_register(0, scenario_jumping);
  cbr_callback_info info = {.size = sizeof info};
  intptr_t result = 0;
  uint32_t count = 0;
  cbr_pin pin;
  if (TRY(cbr_call(handle, NULL, &result))) CHECK_EQ(result, 42);
  if (TRY(cbr_enter(handle, CBR_SIG_DEFAULT, &pin))) CHECK_OK(cbr_leave(&pin));
  if (TRY(cbr_hold(handle, CBR_SIG_DEFAULT, &pin))) CHECK_OK(cbr_leave(&pin));
  result = cbr_call_ptr(CBR_TO_PTR(handle), NULL);
  CHECK(result == 42 || may_refuse(CBR_ERR_NOMEM));
  if (TRY(cbr_retain(handle))) cbr_release_ptr(CBR_TO_PTR(handle));
  if (TRY(cbr_refcount(handle, &count))) CHECK(count >= 1);
  CHECK(cbr_is_live(handle));
  if (TRY(cbr_callback_info_get(handle, &info))) CHECK_EQ(info.handle, handle);
  if (failing != CBR_HANDLE_NONE) {
    int before = scenario.errors;
    cbr_status status = cbr_call(failing, NULL, NULL);
    if (status != CBR_ERR_CALLBACK) CHECK(status != CBR_OK && may_refuse(status));
    CHECK(status != CBR_ERR_CALLBACK || scenario.errors == before + 1);
    CHECK_OK(cbr_unregister(failing));
  }
  if (jumping != CBR_HANDLE_NONE) {
    jmp_buf back;
    uint32_t depth = cbr_depth();
    if (setjmp(back) == 0) {
      (void)TRY(cbr_call(jumping, &back, NULL)); /* back here only if it was refused */
    } else {
      CHECK_OK(cbr_unwind_to(depth));
    }
    CHECK_EQ(cbr_depth(), depth);
    CHECK_OK(cbr_unregister_wait(jumping, -1));
  }
}

static void scenario_places(cbr_scope scope, cbr_handle handle) {
  cbr_hook hook = CBR_HOOK_INIT;
  cbr_handle found = 0;
  intptr_t result = 0;
  size_t count = 0;
  if (TRY(cbr_hook_set_once(&hook, handle))) {
    if (TRY(cbr_hook_call(&hook, NULL, &result))) CHECK_EQ(result, 42);
    CHECK_OK(cbr_hook_swap(&hook, CBR_HANDLE_NONE, NULL));
  }
  if (TRY(cbr_name_bind(scope, "a name", handle, CBR_BIND_ONCE))) {
    if (TRY(cbr_name_find(scope, "a name", &found))) CHECK_EQ(found, handle);
    CHECK_OK(cbr_name_unbind(scope, "a name"));
  }
  for (uint32_t event = 0; event < 4; event++) {
    if (!TRY(cbr_key_attach(scope, 7, event, handle, CBR_BIND_REPLACE))) continue;
    if (TRY(cbr_key_find(scope, 7, event, &found))) CHECK_EQ(found, handle);
    if (TRY(cbr_key_call(scope, 7, event, NULL, &result))) CHECK_EQ(result, 42);
    if (event == 0) CHECK_OK(cbr_key_detach(scope, 7, event));
  }
  CHECK_OK(cbr_key_detach_all(scope, 7, &count));
}

static void scenario_queues(cbr_scope scope, cbr_handle handle) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_post_options post = CBR_POST_OPTIONS_INIT;
  char long_payload[100] = "longer than what an event has room for";
  cbr_queue queue = 0;
  size_t count = 0, index = 9;
  int fd = -1;
  options.name = "of the scenario";
  options.scope = scope;
  options.capacity = 8;
  options.flags = CBR_QUEUE_OWNED;
  if (!TRY(cbr_queue_open(&options, &queue))) return;
  (void)TRY(cbr_queue_adopt(queue));
  if (TRY(cbr_queue_fd(queue, &fd))) close(fd);
  size_t accepted = TRY(cbr_post(queue, handle, "x", 1));
  accepted += TRY(cbr_post(queue, handle, long_payload, sizeof long_payload));
  post.queue = queue;
  post.handle = handle;
  post.data = scenario_data();
  post.free_data = scenario_destroy;
  if (TRY(cbr_post_with(&post))) {
    accepted++;
  } else {
    scenario_take_back();
  }
  if (TRY(cbr_queue_len(queue, &count))) CHECK_EQ(count, accepted);
  if (accepted > 0) {
    if (TRY(cbr_queue_select(&queue, 1, 0, &index))) CHECK_EQ(index, 0);
    if (TRY(cbr_queue_dispatch(queue, 2, 0, &count))) CHECK(count >= 1); /* the rest goes with the queue */
  }
  intptr_t result = 0;
  if (TRY(cbr_call_on(queue, handle, NULL, 0, &result))) CHECK_EQ(result, 42);
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
}

static void scenario_thunks(cbr_handle handle) {
  cbr_any_fn fn = NULL;
  cbr_thunk thunk = 0;
  if (!TRY(cbr_thunk_open(handle, CBR_SIG_DEFAULT, 0, &fn, &thunk))) return;
  intptr_t result = ((intptr_t(*)(void *))fn)(NULL);
  CHECK(result == 42 || may_refuse(CBR_ERR_NOMEM));
  (void)TRY(cbr_thunk_retarget(thunk, handle));
  CHECK_OK(cbr_thunk_close(thunk));
}

static void scenario_looks(cbr_scope scope) {
  cbr_stats stats = {.size = sizeof stats};
  char traceparent[56];
  (void)TRY(cbr_stats_get(scope, &stats));
  (void)TRY(cbr_report(scope, scenario_write, &scenario));
  (void)TRY(cbr_metrics(scope, scenario_write, &scenario));
  (void)TRY(cbr_profile(scope, scenario_write, &scenario));
  if (TRY(cbr_trace_set("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))) {
    CHECK_EQ(cbr_trace_get(traceparent, sizeof traceparent), 55);
    (void)TRY(cbr_trace_set(NULL));
  }
}

/* --- the whole ------------------------------------------------------------------------------ */

static void scenario_run(void) {
  cbr_scope scope = 0;
  cbr_handle plain = CBR_HANDLE_NONE;
  scenario_words();
  if (!TRY(cbr_log_to(scenario_log, scenario_data(), scenario_destroy, 0, CBR_LOG_TRACE))) scenario_take_back();
  (void)TRY(cbr_log_to_stderr("off"));
  (void)TRY(cbr_set_check(scenario_level));
  if (!TRY(cbr_set_call_hooks(scenario_begin, scenario_end, scenario_data(), scenario_destroy, 0)))
    scenario_take_back();
  if (!TRY(cbr_register(scenario_fn, scenario_data(), scenario_destroy, &plain))) scenario_take_back();
  if (TRY(cbr_scope_open("of the scenario", &scope))) {
    if (!TRY(cbr_scope_set_thread_hooks(scope, scenario_attach, scenario_detach, scenario_data(), scenario_destroy)))
      scenario_take_back();
    cbr_handle handle = scenario_register(scope, scenario_fn);
    for (int i = 0; i < 2 && handle != CBR_HANDLE_NONE; i++) {
      scenario_calls(handle);
      scenario_places(scope, handle);
      scenario_queues(scope, handle);
      scenario_thunks(handle);
      scenario_looks(i == 0 ? scope : 0);
      (void)TRY(cbr_set_call_hooks(NULL, NULL, NULL, NULL, 0));
      (void)TRY(cbr_set_check(1));
    }
    (void)TRY(cbr_scope_drain(scope, -1));
    CHECK_OK(cbr_scope_close(scope, -1, NULL));
    CHECK(!cbr_is_live(handle));
  }
  if (plain != CBR_HANDLE_NONE) {
    CHECK_OK(cbr_release(plain));
    CHECK(!cbr_is_live(plain));
  }
  (void)TRY(cbr_set_call_hooks(NULL, NULL, NULL, NULL, 0));
  (void)TRY(cbr_set_check(1));
  (void)TRY(cbr_log_to(NULL, NULL, NULL, 0, CBR_LOG_OFF));
}

/* After a run with nothing refused any more: all that was given has come back, once. */
static void scenario_check_end(void) {
  CHECK_OK(cbr_set_call_hooks(NULL, NULL, NULL, NULL, 0));
  CHECK_OK(cbr_set_check(1));
  CHECK_OK(cbr_log_to(NULL, NULL, NULL, 0, CBR_LOG_OFF));
  cbr_stats stats = {.size = sizeof stats};
  CHECK_OK(cbr_stats_get(0, &stats));
  CHECK_EQ(stats.live + stats.destroy_pending, 0);
  CHECK_EQ(stats.registered, stats.destroyed);
  CHECK_EQ(stats.in_flight, 0);
  CHECK_EQ(stats.queues, 0);
  CHECK_EQ(stats.posted, stats.dispatched + stats.dropped);
  CHECK_EQ(scenario.owned, scenario.destroyed);
}

#endif
