/* Call hooks and what leaves callbacks, or the hooks themselves, by exceptions, pthread_exit and
 * cancellation: every begin that has returned has one end, and nothing is left entered. */
#include "support_exception.h"
#include "support_tracer.h"

#include <callbridge.h>

#include <string>

namespace {

int throws_in_callback, throws_in_begin, throws_in_end;
int called, destroyed;

void in_begin(tracer *) {
  if (throws_in_begin != 0) throw boom(throws_in_begin);
}

void in_end(tracer *) {
  if (throws_in_end != 0) throw boom(throws_in_end);
}

intptr_t throws(void *, void *) {
  called++;
  if (throws_in_callback != 0) throw boom(throws_in_callback);
  return 5;
}

int typed_throws(void *, int number, void *) {
  called++;
  if (throws_in_callback != 0) throw boom(throws_in_callback);
  return number;
}

void count_destroy(void *) { destroyed++; }

cbr_handle register_fn(cbr_fn fn) {
  cbr_handle handle = 0;
  CHECK_OK(cbr_register(fn, nullptr, count_destroy, &handle));
  return handle;
}

void begin_tracer(tracer *it) {
  tracer_init(it);
  it->sets_contexts = true;
  it->in_begin = in_begin;
  it->in_end = in_end;
  tracer_set(it);
}

std::string context() {
  char text[64] = "";
  cbr_trace_get(text, sizeof text);
  return text;
}

/* The ways that lead to a callback, as far as exceptions pass through them. */
enum way { CALL, CALL_PTR, HOOK, KEY, DISPATCH, THUNK, PIN, WAYS };

struct all_ways {
  cbr_handle plain = register_fn(throws), typed = 0;
  cbr_hook hook = CBR_HOOK_INIT;
  cbr_queue queue = 0;
  cbr_any_fn fn = nullptr;
  cbr_thunk thunk = 0;

  all_ways() {
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    options.fn = reinterpret_cast<cbr_any_fn>(typed_throws);
    options.destroy = count_destroy;
    options.signature = CBR_SIG(CBR_I32, CBR_I32, CBR_PTR);
    CHECK_OK(cbr_register_with(&options, &typed));
    CHECK_OK(cbr_thunk_open(typed, options.signature, 0, &fn, &thunk));
    CHECK_OK(cbr_hook_swap(&hook, plain, nullptr));
    CHECK_OK(cbr_key_attach(0, 1, 2, plain, CBR_BIND_ONCE));
    CHECK_OK(cbr_queue_open(nullptr, &queue));
  }

  ~all_ways() {
    CHECK_OK(cbr_hook_swap(&hook, 0, nullptr));
    CHECK_OK(cbr_thunk_close(thunk));
    CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
    CHECK_OK(cbr_unregister_wait(plain, 0));
    CHECK_OK(cbr_unregister_wait(typed, 0));
    CHECK_EQ(destroyed, 2);
  }

  void call(way how) {
    intptr_t result = 0;
    cbr_pin pin;
    switch (how) {
    case CALL:
      CHECK_OK(cbr_call(plain, nullptr, &result));
      break;
    case CALL_PTR:
      result = cbr_call_ptr(CBR_TO_PTR(plain), nullptr);
      break;
    case HOOK:
      CHECK_OK(cbr_hook_call(&hook, nullptr, &result));
      break;
    case KEY:
      CHECK_OK(cbr_key_call(0, 1, 2, nullptr, &result));
      break;
    case DISPATCH:
      CHECK_OK(cbr_post(queue, plain, nullptr, 0));
      CHECK_OK(cbr_queue_dispatch(queue, 1, 0, nullptr));
      result = 5;
      break;
    case THUNK:
      result = reinterpret_cast<int (*)(int, void *)>(fn)(5, nullptr);
      break;
    case PIN:
      CHECK_OK(cbr_enter(plain, 0, &pin));
      try {
        result = reinterpret_cast<cbr_fn>(pin.fn)(pin.user_data, nullptr);
      } catch (...) {
        CHECK_OK(cbr_leave(&pin));
        throw;
      }
      CHECK_OK(cbr_leave(&pin));
      break;
    case WAYS:
      FAIL("no way");
    }
    CHECK_EQ(result, 5);
  }
};

void check_nothing_is_left() {
  CHECK_EQ(cbr_depth(), 0);
  CHECK_EQ(cbr_current(), 0);
  CHECK(cbr_current_event() == nullptr);
  CHECK_STR(context().c_str(), THIRD);
}

}  // namespace

TEST(an_exception_of_a_callback_passes_through_and_its_span_ends_as_failed) {
  all_ways ways;
  tracer it;
  begin_tracer(&it);
  CHECK_OK(cbr_trace_set(THIRD));
  for (int how = 0; how < WAYS; how++) {
    throws_in_callback = how + 1;
    CHECK_EQ(caught([&] { ways.call(static_cast<way>(how)); }), how + 1);
    check_nothing_is_left();
    CHECK_EQ(it.begun, 1);
    CHECK_EQ(it.ended, 1);
    /* A pin was left as any. */
    CHECK_STATUS(it.told[0].status, how == PIN ? CBR_OK : CBR_ERR_CALLBACK);
    throws_in_callback = 0;
    ways.call(static_cast<way>(how));
    CHECK_EQ(it.ended, 2);
    CHECK_OK(it.told[1].status);
    it.begun = it.ended = 0;
  }
  tracer_stop(&it);
}

TEST(an_exception_of_begin_passes_through_and_neither_callback_nor_end_is_called) {
  all_ways ways;
  tracer it;
  begin_tracer(&it);
  CHECK_OK(cbr_trace_set(THIRD));
  for (int how = 0; how < WAYS; how++) {
    called = 0;
    throws_in_begin = how + 1;
    CHECK_EQ(caught([&] { ways.call(static_cast<way>(how)); }), how + 1);
    check_nothing_is_left();
    CHECK_EQ(called, 0);
    CHECK_EQ(it.begun, 1);
    CHECK_EQ(it.ended, 0);
    it.begun = 0;
    throws_in_begin = 0;
    ways.call(static_cast<way>(how));
    CHECK_EQ(called, 1);
    CHECK_EQ(it.ended, 1);
    it.begun = it.ended = 0;
  }
  tracer_stop(&it);
}

TEST(an_exception_of_end_passes_through_after_the_call_and_it_was_the_only_end) {
  all_ways ways;
  tracer it;
  begin_tracer(&it);
  CHECK_OK(cbr_trace_set(THIRD));
  for (int how = 0; how < WAYS; how++) {
    called = 0;
    throws_in_end = how + 1;
    CHECK_EQ(caught([&] { ways.call(static_cast<way>(how)); }), how + 1);
    check_nothing_is_left();
    CHECK_EQ(called, 1);
    CHECK_EQ(it.begun, 1);
    CHECK_EQ(it.ended, 1);
    throws_in_end = 0;
    ways.call(static_cast<way>(how));
    CHECK_EQ(it.ended, 2);
    it.begun = it.ended = 0;
  }
  tracer_stop(&it);
}

TEST(an_exception_that_leaves_several_calls_ends_all_their_spans) {
  tracer it;
  cbr_handle handle = register_fn([](void *, void *arg) -> intptr_t {
    auto *left = static_cast<int *>(arg);
    if (--*left == 0) throw boom(9);
    CHECK_OK(cbr_call(cbr_current(), arg, nullptr));
    return 5;
  });
  begin_tracer(&it);
  CHECK_OK(cbr_trace_set(THIRD));
  int left = 5;
  CHECK_EQ(caught([&] { cbr_call(handle, &left, nullptr); }), 9);
  CHECK_EQ(it.begun, 5);
  CHECK_EQ(it.ended, 5);
  for (int i = 0; i < 5; i++) CHECK_EQ(it.told[i].order, 4 - i);
  check_nothing_is_left();
  tracer_stop(&it);
  CHECK_OK(cbr_unregister_wait(handle, 0));
}

namespace {

void exits(tracer *) { pthread_exit(nullptr); }

intptr_t exits_its_thread(void *, void *) { pthread_exit(nullptr); }

void *calls(void *arg) {
  CHECK_OK(cbr_call(*static_cast<cbr_handle *>(arg), nullptr, nullptr));
  FAIL("the thread goes on");
}

}  // namespace

TEST(a_callback_that_ends_its_thread_has_its_end) {
  tracer it;
  cbr_handle handle = register_fn(exits_its_thread);
  begin_tracer(&it);
  run_on_thread(calls, &handle);
  CHECK_EQ(it.begun, 1);
  CHECK_EQ(it.ended, 1);
  CHECK_STATUS(it.told[0].status, CBR_ERR_CALLBACK);
  tracer_stop(&it);
  CHECK_OK(cbr_unregister_wait(handle, 0));
}

TEST(hooks_that_end_their_thread_leave_nothing_entered) {
  for (int in_end = 0; in_end < 2; in_end++) {
    tracer it;
    cbr_handle handle = register_fn(throws);
    begin_tracer(&it);
    (in_end ? it.in_end : it.in_begin) = exits;
    called = 0;
    run_on_thread(calls, &handle);
    CHECK_EQ(it.begun, 1);
    CHECK_EQ(it.ended, in_end);
    CHECK_EQ(called, in_end);
    it.begun = it.ended;
    tracer_stop(&it);
    CHECK_OK(cbr_unregister_wait(handle, 0));
  }
}

namespace {

gate inside;

intptr_t waits_to_be_cancelled(void *, void *) {
  gate_open(&inside);
  for (;;) pause();
}

}  // namespace

TEST(a_call_that_is_cancelled_has_its_end) {
  tracer it;
  cbr_handle handle = register_fn(waits_to_be_cancelled);
  gate_init(&inside);
  begin_tracer(&it);
  pthread_t thread = start(calls, &handle);
  gate_pass(&inside);
  CHECK_EQ(pthread_cancel(thread), 0);
  CHECK(join(thread) == PTHREAD_CANCELED);
  CHECK_EQ(it.ended, 1);
  CHECK_STATUS(it.told[0].status, CBR_ERR_CALLBACK);
  tracer_stop(&it);
  CHECK_OK(cbr_unregister_wait(handle, 0));
}

TEST(an_exception_of_a_removed_tracers_destroy_passes_through_after_the_call) {
  static tracer it;
  cbr_handle handle = register_fn([](void *, void *) -> intptr_t {
    remove_tracer();
    return 5;
  });
  tracer_init(&it);
  CHECK_OK(cbr_set_call_hooks(tracer_begin, tracer_end, &it, [](void *) { throw boom(4); }, 0));
  CHECK_EQ(caught([&] { cbr_call(handle, nullptr, nullptr); }), 4);
  CHECK_EQ(it.ended, 1);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_call(handle, nullptr, nullptr));
  CHECK_EQ(it.begun, 1);
  CHECK_OK(cbr_unregister_wait(handle, 0));
}
