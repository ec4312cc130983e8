/* What leaves a dispatched callback otherwise than by return: exceptions, pthread_exit, longjmp. The
 * event is over, its payload freed once, its reference given back, and the queue goes on. */
#include "support_exception.h"
#include "support_threads.h"

#include <callbridge.h>

#include <csetjmp>

namespace {

int freed, destroyed, called;
int throws;                 /* what `throws_what_it_is_told` throws; 0: nothing */
int destroy_throws, free_throws;
std::jmp_buf landing;

void count_destroy(void *) {
  destroyed++;
  if (destroy_throws != 0) throw boom(destroy_throws);
}

void count_free(void *data) {
  free(data);
  freed++;
  if (free_throws != 0) {
    int number = free_throws;
    free_throws = 0;
    throw boom(number);
  }
}

intptr_t throws_what_it_is_told(void *, void *) {
  called++;
  if (throws != 0) throw boom(throws);
  return 7;
}

intptr_t exits_its_thread(void *, void *) {
  called++;
  pthread_exit(nullptr);
}

intptr_t jumps(void *, void *) {
  called++;
  std::longjmp(landing, 1);
}

cbr_queue open_queue(uint32_t policy = CBR_QUEUE_REJECT, size_t capacity = 8) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue = 0;
  options.policy = policy;
  options.capacity = capacity;
  CHECK_OK(cbr_queue_open(&options, &queue));
  return queue;
}

cbr_handle register_fn(cbr_fn fn) {
  cbr_handle handle = 0;
  CHECK_OK(cbr_register(fn, nullptr, count_destroy, &handle));
  return handle;
}

/* An event whose payload counts its end. */
cbr_status try_post(cbr_queue queue, cbr_handle handle) {
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  options.queue = queue;
  options.handle = handle;
  options.data = malloc(100);
  options.len = 100;
  options.free_data = count_free;
  return cbr_post_with(&options);
}

void post(cbr_queue queue, cbr_handle handle) { CHECK_OK(try_post(queue, handle)); }

size_t dispatch(cbr_queue queue, size_t max = 0) {
  size_t count = 99;
  cbr_status status = cbr_queue_dispatch(queue, max, 0, &count);
  if (status != CBR_ERR_EMPTY) CHECK_OK(status);
  return count;
}

void check_nothing_is_left(cbr_queue queue, cbr_handle handle) {
  uint32_t references = 99;
  CHECK_EQ(cbr_depth(), 0);
  CHECK(cbr_current_event() == nullptr);
  CHECK_OK(cbr_refcount(handle, &references));
  CHECK_EQ(references, 1);
  CHECK_OK(cbr_unregister_wait(handle, 0));
  CHECK_EQ(destroyed, 1);
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
}

}  // namespace

TEST(an_exception_passes_through_dispatch_and_the_event_is_over) {
  cbr_queue queue = open_queue();
  cbr_handle handle = register_fn(throws_what_it_is_told);
  post(queue, handle);
  post(queue, handle);
  throws = 5;
  CHECK_EQ(caught([&] { dispatch(queue); }), 5);
  CHECK_EQ(freed, 1);
  CHECK_EQ(called, 1);
  throws = 0;
  CHECK_EQ(dispatch(queue), 1);
  CHECK_EQ(freed, 2);
  check_nothing_is_left(queue, handle);
}

TEST(an_exception_of_a_nested_dispatch_passes_through_both) {
  cbr_queue inner = open_queue();
  struct both {
    cbr_queue inner;
  } it = {inner};
  cbr_queue outer = open_queue();
  cbr_handle handle = register_fn(throws_what_it_is_told), nesting = 0;
  CHECK_OK(cbr_register(
      [](void *user_data, void *) -> intptr_t {
        CHECK(cbr_current_event() != nullptr);
        dispatch(static_cast<both *>(user_data)->inner);
        return 0;
      },
      &it, nullptr, &nesting));
  post(inner, handle);
  post(outer, nesting);
  throws = 6;
  CHECK_EQ(caught([&] { dispatch(outer); }), 6);
  CHECK_EQ(freed, 2);
  CHECK_OK(cbr_unregister(nesting));
  CHECK_OK(cbr_queue_close(outer, CBR_CLOSE_DISCARD));
  check_nothing_is_left(inner, handle);
}

TEST(a_payload_that_throws_when_it_is_freed_is_freed_once) {
  cbr_queue queue = open_queue();
  cbr_handle handle = register_fn(throws_what_it_is_told);
  post(queue, handle);
  free_throws = 3;
  CHECK_EQ(caught([&] { dispatch(queue); }), 3);
  CHECK_EQ(freed, 1);
  CHECK_EQ(dispatch(queue), 0);
  check_nothing_is_left(queue, handle);
}

TEST(a_destroy_that_throws_at_the_end_of_a_dispatch_has_run) {
  cbr_queue queue = open_queue();
  cbr_handle handle = register_fn(throws_what_it_is_told);
  post(queue, handle);
  CHECK_OK(cbr_release(handle));
  CHECK_EQ(destroyed, 0);
  destroy_throws = 4;
  CHECK_EQ(caught([&] { dispatch(queue); }), 4);
  CHECK_EQ(destroyed, 1);
  CHECK_EQ(freed, 1);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_STATUS(cbr_unregister_wait(handle, 0), CBR_ERR_STALE);
  destroy_throws = 0;
  handle = register_fn(throws_what_it_is_told);
  post(queue, handle);
  CHECK_EQ(dispatch(queue), 1);
  destroyed = 0;
  check_nothing_is_left(queue, handle);
}

TEST(a_displaced_payload_that_throws_leaves_the_post_accepted) {
  cbr_queue queue = open_queue(CBR_QUEUE_DROP_OLDEST, 1);
  cbr_handle handle = register_fn(throws_what_it_is_told);
  post(queue, handle);
  free_throws = 8;
  CHECK_EQ(caught([&] { (void)try_post(queue, handle); }), 8);
  CHECK_EQ(freed, 1);
  CHECK_EQ(dispatch(queue), 1);
  CHECK_EQ(called, 1);
  CHECK_EQ(freed, 2);
  check_nothing_is_left(queue, handle);
}

TEST(a_caller_on_another_thread_is_told_of_an_exception) {
  static cbr_queue queue;
  static cbr_handle handle;
  static cbr_status status;
  queue = open_queue();
  handle = register_fn(throws_what_it_is_told);
  throws = 9;
  pthread_t caller = start(
      [](void *) -> void * {
        status = cbr_call_on(queue, handle, nullptr, -1, nullptr);
        return nullptr;
      },
      nullptr);
  CHECK_EQ(caught([&] { (void)cbr_queue_dispatch(queue, 1, -1, nullptr); }), 9);
  join(caller);
  CHECK_STATUS(status, CBR_ERR_CALLBACK);
  check_nothing_is_left(queue, handle);
}

TEST(pthread_exit_passes_through_dispatch) {
  static cbr_queue queue;
  queue = open_queue();
  cbr_handle handle = register_fn(exits_its_thread);
  post(queue, handle);
  post(queue, handle);
  for (int round = 1; round <= 2; round++) {
    run_on_thread(
        [](void *) -> void * {
          dispatch(queue);
          FAIL("the callback has returned");
        },
        nullptr);
    CHECK_EQ(called, round);
    CHECK_EQ(freed, round);
  }
  check_nothing_is_left(queue, handle);
}

TEST(after_a_longjmp_out_of_dispatch_the_event_is_over) {
  cbr_queue queue = open_queue();
  cbr_handle handle = register_fn(jumps);
  for (int round = 1; round <= 3; round++) {
    uint32_t depth = cbr_depth();
    post(queue, handle);
    if (setjmp(landing) == 0) {
      dispatch(queue);
      FAIL("the callback has returned");
    }
    CHECK_OK(cbr_unwind_to(depth));
    CHECK_EQ(freed, round);
  }
  check_nothing_is_left(queue, handle);
}

TEST(a_caller_on_another_thread_is_told_of_a_longjmp) {
  static cbr_queue queue;
  static cbr_handle handle;
  static cbr_status status;
  queue = open_queue();
  handle = register_fn(jumps);
  pthread_t caller = start(
      [](void *) -> void * {
        status = cbr_call_on(queue, handle, nullptr, -1, nullptr);
        return nullptr;
      },
      nullptr);
  if (setjmp(landing) == 0) (void)cbr_queue_dispatch(queue, 1, -1, nullptr);
  CHECK_OK(cbr_unwind_to(0));
  join(caller);
  CHECK_STATUS(status, CBR_ERR_CALLBACK);
  check_nothing_is_left(queue, handle);
}

TEST(after_a_longjmp_an_events_owner_can_close) {
  cbr_queue queue = open_queue();
  cbr_handle handle = register_fn(jumps);
  cbr_scope scope = 0;
  CHECK_OK(cbr_scope_open("owner", &scope));
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  options.queue = queue;
  options.handle = handle;
  options.data = malloc(1);
  options.len = 1;
  options.free_data = count_free;
  options.owner = scope;
  CHECK_OK(cbr_post_with(&options));
  if (setjmp(landing) == 0) dispatch(queue);
  CHECK_OK(cbr_unwind_to(0));
  CHECK_EQ(freed, 1);
  CHECK_OK(cbr_scope_close(scope, 0, nullptr));
  check_nothing_is_left(queue, handle);
}

TEST(a_thread_that_ends_after_a_longjmp_out_of_dispatch_leaves_nothing_behind) {
  static cbr_queue queue;
  queue = open_queue();
  cbr_handle handle = register_fn(jumps);
  post(queue, handle);
  run_on_thread(
      [](void *) -> void * {
        if (setjmp(landing) == 0) dispatch(queue);
        return nullptr;
      },
      nullptr);
  CHECK_EQ(freed, 1);
  check_nothing_is_left(queue, handle);
}

TEST(a_destroy_that_throws_between_two_events_loses_neither) {
  cbr_queue queue = open_queue();
  cbr_handle first = register_fn(throws_what_it_is_told), second = 0;
  CHECK_OK(cbr_register(throws_what_it_is_told, nullptr, nullptr, &second));
  post(queue, first);
  post(queue, second);
  CHECK_OK(cbr_release(first));
  destroy_throws = 2;
  CHECK_EQ(caught([&] { dispatch(queue); }), 2);
  CHECK_EQ(destroyed, 1);
  CHECK_EQ(dispatch(queue), 1);
  CHECK_EQ(called, 2);
  CHECK_EQ(freed, 2);
  check_nothing_is_left(queue, second);
}

namespace {
cbr_handle jumper, pinned;
cbr_pin pin;

/* Frees a payload inside a post, jumps over a call of its own, and enters a pin that it leaves there. */
void jumps_while_it_frees(void *) {
  uint32_t depth = cbr_depth();
  freed++;
  if (setjmp(landing) == 0) (void)cbr_call(jumper, nullptr, nullptr);
  CHECK_OK(cbr_unwind_to(depth));
  CHECK_OK(cbr_enter(pinned, 0, &pin));
}
}  // namespace

TEST(a_longjmp_inside_a_post_ends_what_was_jumped_over_and_not_the_post) {
  for (uint32_t policy : {CBR_QUEUE_REJECT, CBR_QUEUE_DROP_OLDEST}) {
    cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
    cbr_post_options event = CBR_POST_OPTIONS_INIT;
    options.capacity = 1;
    options.policy = policy;
    options.flags = policy == CBR_QUEUE_REJECT ? CBR_QUEUE_COALESCE : 0;
    CHECK_OK(cbr_queue_open(&options, &event.queue));
    event.handle = register_fn(throws_what_it_is_told);
    event.data = &event;
    event.len = 1;
    event.free_data = jumps_while_it_frees;
    CHECK_OK(cbr_register(jumps, nullptr, nullptr, &jumper));
    CHECK_OK(cbr_register(throws_what_it_is_told, nullptr, nullptr, &pinned));
    CHECK_OK(cbr_post_with(&event));
    freed = destroyed = 0;
    CHECK_OK(cbr_post(event.queue, event.handle, nullptr, 0));
    CHECK_EQ(freed, 1);
    CHECK_EQ(cbr_depth(), 1);
    CHECK_EQ(cbr_current(), pinned);
    CHECK_OK(cbr_leave(&pin));
    CHECK_OK(cbr_unregister(jumper));
    CHECK_OK(cbr_unregister(pinned));
    CHECK_EQ(dispatch(event.queue), 1);
    check_nothing_is_left(event.queue, event.handle);
  }
}

TEST(a_poster_that_is_cancelled_has_woken_the_dispatcher) {
  static cbr_queue queue;
  static cbr_handle handle;
  static gate cancelled;
  queue = open_queue();
  handle = register_fn(throws_what_it_is_told);
  gate_init(&cancelled);
  pthread_t dispatcher = start(
      [](void *) -> void * {
        CHECK_OK(cbr_queue_dispatch(queue, 1, -1, nullptr));
        return nullptr;
      },
      nullptr);
  pthread_t poster = start(
      [](void *) -> void * {
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
        gate_pass(&cancelled);
        pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, nullptr);
        CHECK_OK(cbr_post(queue, handle, nullptr, 0));
        for (;;) pause();
      },
      nullptr);
  CHECK_EQ(pthread_cancel(poster), 0);
  gate_open(&cancelled);
  CHECK(join(poster) == PTHREAD_CANCELED);
  join(dispatcher);
  CHECK_EQ(called, 1);
  check_nothing_is_left(queue, handle);
}
