/* C++ exceptions that leave an attach function: on to their catcher, and the thread is not
 * attached, the call over, nothing in flight. And those of other functions of such a scope. */
#include "support_exception.h"
#include "support_owners.h"

namespace {

/* A scope whose attach function throws as long as it is told to. Callbacks throw their argument. */
struct hooked {
  cbr_scope scope;
  struct subject it;
  int throws; /* what attach throws; 0: nothing */
  int attached, detached, destroyed;
};

thread_local bool attached_here;

void *attach(void *user_data) {
  auto *self = static_cast<hooked *>(user_data);
  CHECK(!attached_here);
  CHECK_EQ(cbr_current(), self->it.handle);
  if (self->throws != 0) throw boom(self->throws);
  attached_here = true;
  add_int(&self->attached, 1);
  return self;
}

void detach(void *user_data, void *token) {
  CHECK(token == user_data);
  CHECK(attached_here);
  attached_here = false;
  add_int(&static_cast<hooked *>(user_data)->detached, 1);
}

void hooks_destroy(void *user_data) { add_int(&static_cast<hooked *>(user_data)->destroyed, 1); }

intptr_t throws_its_argument(void *user_data, void *arg) {
  subject_check_alive(static_cast<struct subject *>(user_data));
  add_int(&static_cast<struct subject *>(user_data)->calls, 1);
  CHECK(attached_here);
  if (arg != nullptr) throw boom(static_cast<int>(reinterpret_cast<intptr_t>(arg)));
  return SUBJECT_RESULT;
}

void *number(int value) { return reinterpret_cast<void *>(static_cast<intptr_t>(value)); }

void hooked_register(hooked *self) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(&self->it);
  options.fn = reinterpret_cast<cbr_any_fn>(throws_its_argument);
  options.user_data = &self->it;
  options.destroy = subject_destroy;
  options.scope = self->scope;
  CHECK_OK(cbr_register_with(&options, &self->it.handle));
}

void hooked_open(hooked *self, cbr_destroy_fn destroy = hooks_destroy) {
  *self = hooked();
  self->scope = scope_open("throws");
  CHECK_OK(cbr_scope_set_thread_hooks(self->scope, attach, detach, self, destroy));
  hooked_register(self);
}

void hooked_close(hooked *self) {
  scope_close(self->scope);
  CHECK_EQ(self->it.destroyed, 1);
  CHECK_EQ(self->destroyed, 1);
}

template <class Function>
void on_a_thread(Function function) {
  run_on_thread(
      [](void *arg) -> void * {
        (*static_cast<Function *>(arg))();
        return nullptr;
      },
      &function);
}

cbr_hook hook = CBR_HOOK_INIT;

/* Every way of calling, with what it leaves behind if it succeeds. */
void call_by(int way, hooked *self) {
  cbr_handle handle = self->it.handle;
  cbr_pin pin;
  switch (way) {
    case 0: CHECK_OK(cbr_call(handle, nullptr, nullptr)); break;
    case 1: CHECK_OK(cbr_hook_call(&hook, nullptr, nullptr)); break;
    case 2: CHECK_OK(cbr_key_call(self->scope, 1, 2, nullptr, nullptr)); break;
    case 3: CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(handle), nullptr), SUBJECT_RESULT); break;
    case 4:
      CHECK_OK(cbr_enter(handle, CBR_SIG_DEFAULT, &pin));
      CHECK_OK(cbr_leave(&pin));
      break;
    default:
      CHECK_OK(cbr_hold(handle, CBR_SIG_DEFAULT, &pin));
      CHECK_OK(cbr_leave(&pin));
  }
}

enum { WAYS = 6 };

}  // namespace

TEST(an_exception_of_attach_passes_to_the_caller_whatever_the_way_of_calling) {
  hooked self;
  hooked_open(&self);
  CHECK_OK(cbr_hook_swap(&hook, self.it.handle, nullptr));
  CHECK_OK(cbr_key_attach(self.scope, 1, 2, self.it.handle, CBR_BIND_ONCE));
  for (int way = 0; way < WAYS; way++) {
    on_a_thread([&] {
      for (int i = 1; i <= 20; i++) {
        self.throws = i;
        CHECK_EQ(caught([&] { call_by(way, &self); }), i);
        CHECK_EQ(cbr_depth(), 0);
        CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
        CHECK(!attached_here);
      }
    });
    CHECK_EQ(self.it.calls, 0);
    CHECK_EQ(self.attached, 0);
    CHECK_EQ(self.detached, 0); /* what was never attached is not detached */
  }
  CHECK_OK(cbr_unregister_wait(self.it.handle, -1));
  CHECK_EQ(self.it.destroyed, 1);
  hooked_close(&self);
}

TEST(after_an_exception_the_next_call_attaches_again) {
  for (int way = 0; way < WAYS; way++) {
    hooked self;
    hooked_open(&self);
    CHECK_OK(cbr_hook_swap(&hook, self.it.handle, nullptr));
    CHECK_OK(cbr_key_attach(self.scope, 1, 2, self.it.handle, CBR_BIND_ONCE));
    on_a_thread([&] {
      self.throws = 5;
      CHECK_EQ(caught([&] { call_by(way, &self); }), 5);
      self.throws = 0;
      for (int other = 0; other < WAYS; other++) call_by((way + other) % WAYS, &self);
      CHECK_EQ(self.attached, 1);
    });
    CHECK_EQ(self.detached, 1);
    CHECK_EQ(self.it.calls, 4); /* the pins called nothing */
    hooked_close(&self);
  }
}

TEST(an_exception_of_attach_leaves_an_enclosing_pin_alone) {
  hooked self;
  struct subject outer;
  hooked_open(&self);
  self.throws = 6;
  on_a_thread([&] {
    cbr_pin pin;
    subject_register(&outer);
    CHECK_OK(cbr_enter(outer.handle, 0, &pin));
    CHECK_EQ(caught([&] { cbr_call(self.it.handle, nullptr, nullptr); }), 6);
    CHECK_EQ(cbr_depth(), 1); /* what lies below stays */
    CHECK_EQ(cbr_current(), outer.handle);
    CHECK_OK(cbr_leave(&pin));
  });
  CHECK_OK(cbr_unregister(outer.handle));
  CHECK_OK(cbr_unregister(self.it.handle));
  CHECK_EQ(self.it.destroyed, 1);
  hooked_close(&self);
}

namespace {

void *ends_the_callback_and_throws(void *user_data) {
  auto *self = static_cast<hooked *>(user_data);
  CHECK_OK(cbr_unregister(self->it.handle));
  CHECK_EQ(self->it.destroyed, 0);
  throw boom(7);
}

void *closes_the_scope_and_throws(void *user_data) {
  auto *self = static_cast<hooked *>(user_data);
  CHECK_STATUS(cbr_scope_close(self->scope, -1, nullptr), CBR_ERR_DEADLOCK);
  CHECK_EQ(self->it.destroyed, 0);
  throw boom(8);
}

void check_attach_that_ends(cbr_thread_attach_fn ends, int expected) {
  hooked self = hooked();
  self.scope = scope_open("throws");
  CHECK_OK(cbr_scope_set_thread_hooks(self.scope, ends, detach, &self, hooks_destroy));
  hooked_register(&self);
  on_a_thread([&] {
    CHECK_EQ(caught([&] { cbr_call(self.it.handle, nullptr, nullptr); }), expected);
    CHECK_EQ(self.it.destroyed, 1);
    CHECK_STATUS(cbr_call(self.it.handle, nullptr, nullptr), CBR_ERR_STALE);
  });
  CHECK_EQ(self.it.calls, 0);
  CHECK_EQ(self.detached, 0);
  hooked_close(&self);
}

}  // namespace

TEST(attach_may_end_its_callback_or_close_its_scope_and_throw) {
  check_attach_that_ends(ends_the_callback_and_throws, 7);
  check_attach_that_ends(closes_the_scope_and_throws, 8);
}

TEST(an_exception_of_a_callback_leaves_its_thread_attached) {
  hooked self;
  hooked_open(&self);
  on_a_thread([&] {
    for (int i = 1; i <= 20; i++) {
      CHECK_EQ(caught([&] { cbr_call(self.it.handle, number(i), nullptr); }), i);
      CHECK_EQ(cbr_depth(), 0);
      CHECK(attached_here);
    }
  });
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
}

namespace {

hooked *outer_of, *inner_of;

void *calls_the_inner(void *user_data) {
  CHECK(user_data == outer_of);
  cbr_call(inner_of->it.handle, nullptr, nullptr);
  FAIL("the exception stopped");
}

void *throws_nine(void *) { throw boom(9); }

}  // namespace

TEST(an_exception_passes_through_the_attach_functions_of_two_scopes) {
  hooked outer = hooked(), inner = hooked();
  outer_of = &outer;
  inner_of = &inner;
  outer.scope = scope_open("outer");
  inner.scope = scope_open("inner");
  CHECK_OK(cbr_scope_set_thread_hooks(outer.scope, calls_the_inner, detach, &outer, hooks_destroy));
  CHECK_OK(cbr_scope_set_thread_hooks(inner.scope, throws_nine, detach, &inner, hooks_destroy));
  hooked_register(&outer);
  hooked_register(&inner);
  on_a_thread([&] {
    for (int i = 0; i < 3; i++) {
      CHECK_EQ(caught([&] { cbr_call(outer.it.handle, nullptr, nullptr); }), 9);
      CHECK_EQ(cbr_depth(), 0);
    }
  });
  CHECK_EQ(outer.it.calls + inner.it.calls, 0);
  CHECK_EQ(outer.detached + inner.detached, 0);
  hooked_close(&outer);
  hooked_close(&inner);
}

/* --- out of a close ----------------------------------------------------------------------- */

namespace {

void hooks_destroy_throws(void *user_data) {
  hooks_destroy(user_data);
  throw boom(10);
}

void destroy_throws(void *user_data) {
  subject_destroy(user_data);
  throw boom(11);
}

}  // namespace

TEST(an_exception_of_the_hooks_destroy_passes_through_the_close_and_the_scope_is_gone) {
  hooked self;
  hooked_open(&self, hooks_destroy_throws);
  CHECK_EQ(caught([&] { cbr_scope_close(self.scope, -1, nullptr); }), 10);
  CHECK_EQ(self.it.destroyed, 1);
  CHECK_EQ(self.destroyed, 1);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_STATUS(cbr_scope_close(self.scope, -1, nullptr), CBR_ERR_STALE);
  CHECK_EQ(self.destroyed, 1);
}

/* More than are looked at together. One in three throws, and leaves the rest to the next close. */
TEST(exceptions_of_destroy_functions_pass_through_the_close_which_can_be_taken_up_again) {
  enum { COUNT = 300 };
  static struct subject all[COUNT];
  hooked self;
  hooked_open(&self);
  for (int i = 0; i < COUNT; i++) {
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    subject_reset(&all[i]);
    options.fn = reinterpret_cast<cbr_any_fn>(subject_fn);
    options.user_data = &all[i];
    options.destroy = i % 3 == 0 ? destroy_throws : subject_destroy;
    options.scope = self.scope;
    CHECK_OK(cbr_register_with(&options, &all[i].handle));
  }
  int thrown = 0;
  while (caught([&] { scope_close(self.scope); }) == 11) {
    thrown++;
    for (auto &it : all) CHECK(!cbr_is_live(it.handle)); /* a call might end it, and throw */
    CHECK_EQ(self.destroyed, 0);
    CHECK_EQ(cbr_depth(), 0);
  }
  CHECK_EQ(thrown, COUNT / 3);
  for (auto &it : all) CHECK_EQ(it.destroyed, 1);
  CHECK_EQ(self.destroyed, 1);
  CHECK_EQ(self.it.destroyed, 1);
  CHECK_STATUS(cbr_scope_close(self.scope, -1, nullptr), CBR_ERR_STALE);
}

namespace {

struct waiting_closer {
  cbr_scope scope;
  cbr_status status;
  int caught;
};

/* It may happen to look just when the last one has left, and run the destroy function itself. */
void *closes(void *arg) {
  auto *self = static_cast<waiting_closer *>(arg);
  auto close = [&] { self->status = cbr_scope_close(self->scope, -1, nullptr); };
  self->caught = caught(close);
  if (self->caught != 0) CHECK_EQ(caught(close), 0);
  return nullptr;
}

}  // namespace

TEST(a_closer_goes_on_when_an_exception_of_a_destroy_function_ends_the_last_call) {
  for (long i = scaled(200); i > 0; i--) {
    struct subject it;
    cbr_pin pin;
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    waiting_closer closer = {scope_open("throws"), 1, 0};
    subject_reset(&it);
    options.fn = reinterpret_cast<cbr_any_fn>(subject_fn);
    options.user_data = &it;
    options.destroy = destroy_throws;
    options.scope = closer.scope;
    CHECK_OK(cbr_register_with(&options, &it.handle));
    CHECK_OK(cbr_enter(it.handle, 0, &pin));
    pthread_t thread = start(closes, &closer);
    POLL_UNTIL(!cbr_is_live(it.handle));
    int here = caught([&] { cbr_leave(&pin); });
    join(thread);
    CHECK_EQ(here + closer.caught, 11);
    CHECK_OK(closer.status);
    CHECK_EQ(it.destroyed, 1);
  }
}
