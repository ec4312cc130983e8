/* C++ exceptions that pass through the library: on to their catcher, and nothing left in flight. */
#include "support_exception.h"
#include "support_subject.h"

#include <string>

namespace {

/* subject_fn counts its way out, which an exception skips: so this callback's own function. */
intptr_t throws(void *user_data, void *arg) {
  subject_check_alive(static_cast<struct subject *>(user_data));
  throw boom(static_cast<int>(reinterpret_cast<intptr_t>(arg)));
}

intptr_t ends_itself_and_throws(void *user_data, void *arg) {
  auto *it = static_cast<struct subject *>(user_data);
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_EQ(it->destroyed, 0);
  return throws(user_data, arg);
}

void enlist(struct subject *it, cbr_fn fn) {
  subject_reset(it);
  CHECK_OK(cbr_register(fn, it, subject_destroy, &it->handle));
}

void *number(int value) { return reinterpret_cast<void *>(static_cast<intptr_t>(value)); }

}  // namespace

TEST(an_exception_passes_through_call_to_its_catcher) {
  struct subject it;
  intptr_t result = 77;
  enlist(&it, throws);
  for (int i = 1; i <= 100; i++) {
    CHECK_EQ(caught([&] { cbr_call(it.handle, number(i), &result); }), i);
    CHECK_EQ(cbr_depth(), 0);
    CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
  }
  CHECK_EQ(result, 77);
  CHECK(cbr_is_live(it.handle));
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
}

namespace {

intptr_t throws_if_told(void *user_data, void *arg) {
  return arg != nullptr ? throws(user_data, arg) : 0;
}

}  // namespace

TEST(an_exception_passes_through_a_call_after_thousands_in_a_row) {
  struct subject it;
  enlist(&it, throws_if_told);
  for (int i = 1; i <= 3; i++) {
    for (int j = 0; j < 10000; j++) CHECK_OK(cbr_call(it.handle, nullptr, nullptr));
    CHECK_EQ(caught([&] { cbr_call(it.handle, number(i), nullptr); }), i);
    CHECK_EQ(cbr_depth(), 0);
  }
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
}

TEST(an_exception_passes_through_call_ptr) {
  struct subject it;
  enlist(&it, throws);
  CHECK_EQ(caught([&] { cbr_call_ptr(CBR_TO_PTR(it.handle), number(5)); }), 5);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
}

TEST(destroy_runs_when_an_exception_ends_the_last_call) {
  struct subject it;
  enlist(&it, ends_itself_and_throws);
  CHECK_EQ(caught([&] { cbr_call(it.handle, number(6), nullptr); }), 6);
  CHECK_EQ(it.destroyed, 1);
  CHECK_STATUS(cbr_call(it.handle, nullptr, nullptr), CBR_ERR_STALE);
}

namespace {

struct level {
  struct subject *subjects;
  int depth, thrown_at, caught_at;
};

intptr_t nests(void *user_data, void *arg) {
  auto *it = static_cast<struct subject *>(user_data);
  auto *level = static_cast<struct level *>(arg);
  auto depth = static_cast<int>(cbr_depth());
  subject_check_alive(it);
  CHECK_OK(cbr_unregister(it->handle));
  if (depth == level->thrown_at) throw boom(depth);
  auto deeper = [&] { cbr_call(level->subjects[depth].handle, level, nullptr); };
  if (depth == level->caught_at) {
    CHECK_EQ(caught(deeper), level->thrown_at);
    CHECK_EQ(cbr_depth(), depth);
    CHECK_EQ(cbr_current(), it->handle);
    for (int i = 0; i < level->depth; i++)
      CHECK_EQ(level->subjects[i].destroyed, i >= depth && i < level->thrown_at);
  } else {
    deeper();
  }
  subject_check_alive(it);
  return depth;
}

}  // namespace

TEST(an_exception_caught_halfway_ends_only_the_calls_above) {
  enum { DEPTH = 8 };
  for (int thrown_at = 1; thrown_at <= DEPTH; thrown_at++) {
    for (int caught_at = 0; caught_at < thrown_at; caught_at++) {
      struct subject subjects[DEPTH];
      struct level level = {subjects, DEPTH, thrown_at, caught_at};
      for (auto &it : subjects) enlist(&it, nests);
      intptr_t result = 77;
      int number = caught([&] { cbr_call(subjects[0].handle, &level, &result); });
      CHECK_EQ(number, caught_at == 0 ? thrown_at : 0);
      CHECK_EQ(result, caught_at == 0 ? 77 : 1);
      CHECK_EQ(cbr_depth(), 0);
      for (int i = 0; i < DEPTH; i++) CHECK_EQ(subjects[i].destroyed, i < thrown_at);
      for (int i = thrown_at; i < DEPTH; i++) CHECK_OK(cbr_unregister(subjects[i].handle));
    }
  }
}

TEST(an_exception_passes_entered_pins_that_their_owner_leaves) {
  struct subject it;
  cbr_pin pin;
  enlist(&it, throws);
  CHECK_OK(cbr_enter(it.handle, CBR_SIG_DEFAULT, &pin));
  CHECK_EQ(caught([&] { reinterpret_cast<cbr_fn>(pin.fn)(pin.user_data, number(7)); }), 7);
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(it.destroyed, 1);
}

/* A destructor of the host's on the way out may use the library. */
namespace {

struct cleaner {
  struct subject *it;
  ~cleaner() {
    CHECK_EQ(cbr_depth(), 1);
    CHECK_OK(cbr_unregister(it->handle));
    CHECK_EQ(it->destroyed, 1);
  }
};

intptr_t throws_past_a_cleaner(void *user_data, void *arg) {
  cleaner on_the_way{static_cast<struct subject *>(arg)};
  return throws(user_data, number(8));
}

}  // namespace

TEST(destructors_on_the_way_may_use_the_library) {
  struct subject it, cleaned;
  enlist(&it, throws_past_a_cleaner);
  subject_register(&cleaned);
  CHECK_EQ(caught([&] { cbr_call(it.handle, &cleaned, nullptr); }), 8);
  CHECK_EQ(cleaned.destroyed, 1);
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
}

/* --- through destroy functions ------------------------------------------------------------ */

namespace {

int destroys;

void destroy_throws(void *user_data) {
  subject_destroy(user_data);
  destroys++;
  throw boom(9);
}

void enlist_throwing_destroy(struct subject *it) {
  subject_reset(it);
  CHECK_OK(cbr_register(subject_fn, it, destroy_throws, &it->handle));
}

void check_gone(struct subject *it) {
  CHECK_EQ(it->destroyed, 1);
  CHECK_STATUS(cbr_unregister(it->handle), CBR_ERR_STALE);
  CHECK_STATUS(cbr_unregister_wait(it->handle, -1), CBR_ERR_STALE);
  CHECK_STATUS(cbr_call(it->handle, nullptr, nullptr), CBR_ERR_STALE);
  CHECK_EQ(cbr_depth(), 0);
}

intptr_t ends_its_arg(void *user_data, void *arg) {
  (void)user_data;
  CHECK_OK(cbr_unregister(static_cast<struct subject *>(arg)->handle));
  FAIL("the exception stopped");
}

}  // namespace

TEST(an_exception_of_destroy_passes_to_whoever_ended_the_life) {
  struct subject it;
  cbr_pin pin;
  enlist_throwing_destroy(&it);
  CHECK_EQ(caught([&] { cbr_unregister(it.handle); }), 9);
  check_gone(&it);

  enlist_throwing_destroy(&it);
  CHECK_EQ(caught([&] { cbr_release(it.handle); }), 9);
  check_gone(&it);

  enlist_throwing_destroy(&it);
  CHECK_EQ(caught([&] { cbr_release_ptr(CBR_TO_PTR(it.handle)); }), 9);
  check_gone(&it);

  enlist_throwing_destroy(&it);
  CHECK_EQ(caught([&] { cbr_unregister_wait(it.handle, -1); }), 9);
  check_gone(&it);

  for (bool held : {false, true}) {
    enlist_throwing_destroy(&it);
    CHECK_OK(held ? cbr_hold(it.handle, 0, &pin) : cbr_enter(it.handle, 0, &pin));
    CHECK_OK(cbr_unregister(it.handle));
    CHECK_EQ(caught([&] { cbr_leave(&pin); }), 9);
    check_gone(&it);
    CHECK_STATUS(cbr_leave(&pin), CBR_ERR_STALE);
  }
  CHECK_EQ(destroys, 6);
}

namespace {

intptr_t ends_itself(struct subject *it, void *arg) {
  (void)arg;
  CHECK_OK(cbr_unregister(it->handle));
  return 0;
}

}  // namespace

TEST(an_exception_of_destroy_passes_through_the_call_that_was_last) {
  struct subject it;
  enlist_throwing_destroy(&it);
  CHECK_EQ(caught([&] { subject_run(&it, ends_itself, nullptr, nullptr); }), 9);
  check_gone(&it);
}

TEST(an_exception_of_destroy_passes_through_an_enclosing_call) {
  struct subject outer, inner;
  enlist(&outer, ends_its_arg);
  enlist_throwing_destroy(&inner);
  CHECK_EQ(caught([&] { cbr_call(outer.handle, &inner, nullptr); }), 9);
  check_gone(&inner);
  CHECK_OK(cbr_unregister_wait(outer.handle, -1));
  CHECK_EQ(outer.destroyed, 1);
}

namespace {

struct waiter {
  struct subject it;
  cbr_status status = CBR_ERR_SYSTEM;
  int caught = 0;
};

void *waits(void *arg) {
  auto *self = static_cast<struct waiter *>(arg);
  self->caught = caught([&] { self->status = cbr_unregister_wait(self->it.handle, -1); });
  return nullptr;
}

}  // namespace

TEST(a_destroy_that_throws_lets_waiters_on_other_threads_go_on) {
  cbr_pin pin;
  for (long i = 0; i < scaled(200); i++) {
    struct waiter self;
    enlist_throwing_destroy(&self.it);
    CHECK_OK(cbr_enter(self.it.handle, 0, &pin));
    pthread_t thread = start(waits, &self);
    POLL_UNTIL(!cbr_is_live(self.it.handle));
    /* Who finds the callback left by the other runs destroy: most often this thread, but the
     * waiter may have revoked it and not yet looked whether somebody is inside. */
    const int caught_here = caught([&] { cbr_leave(&pin); });
    join(thread);
    CHECK_EQ(caught_here + self.caught, 9);
    if (caught_here != 0) CHECK_OK(self.status);
    check_gone(&self.it);
  }
}

/* --- through on_error --------------------------------------------------------------------- */

namespace {

void on_error_throws(void *, cbr_handle, cbr_status, const char *) { throw boom(10); }

intptr_t fails(void *, void *) {
  cbr_fail(CBR_ERR_CALLBACK, "and on_error throws");
  FAIL("the exception stopped");
}

}  // namespace

TEST(an_exception_of_on_error_passes_through_fail_and_call) {
  struct subject it;
  subject_reset(&it);
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = reinterpret_cast<cbr_any_fn>(fails);
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.on_error = on_error_throws;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(caught([&] { cbr_call(it.handle, nullptr, nullptr); }), 10);
    CHECK_EQ(cbr_depth(), 0);
  }
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
}

/* --- thread-local objects ----------------------------------------------------------------- */

namespace {

struct subject late;

struct calls_late {
  bool armed = false;
  ~calls_late() {
    if (!armed) return;
    CHECK_OK(cbr_call(late.handle, nullptr, nullptr));
    CHECK_OK(cbr_unregister(late.handle));
    CHECK_EQ(late.destroyed, 1);
  }
};

thread_local calls_late at_thread_end;

void *arms(void *) {
  at_thread_end.armed = true;
  CHECK_OK(cbr_call(late.handle, nullptr, nullptr));
  return nullptr;
}

}  // namespace

TEST(thread_local_destructors_may_call) {
  for (int i = 0; i < 3; i++) {
    subject_register(&late);
    run_on_thread(arms, nullptr);
    CHECK_EQ(late.calls, 2);
    CHECK_EQ(late.destroyed, 1);
  }
}
