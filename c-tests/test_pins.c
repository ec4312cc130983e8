/* Pins: cbr_enter, cbr_hold and cbr_leave. */
#include "support_subject.h"

static bool is_zeroed(const cbr_pin *pin) {
  cbr_pin zero;
  memset(&zero, 0, sizeof zero);
  return memcmp(pin, &zero, sizeof zero) == 0;
}

static void check_pins(const cbr_pin *pin, const struct subject *it) {
  CHECK(pin->fn == (cbr_any_fn)subject_fn);
  CHECK(pin->user_data == it);
}

TEST(an_entered_pin_gives_function_and_data_and_leave_zeroes_it) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  CHECK_OK(cbr_enter(it.handle, CBR_SIG_DEFAULT, &pin));
  check_pins(&pin, &it);
  CHECK_EQ(cbr_depth(), 1);
  CHECK_EQ(cbr_current(), it.handle);
  CHECK_EQ(((cbr_fn)pin.fn)(pin.user_data, NULL), SUBJECT_RESULT);
  CHECK_OK(cbr_leave(&pin));
  CHECK(is_zeroed(&pin));
  CHECK_EQ(cbr_depth(), 0);
  CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_hold_gives_function_and_data_and_is_no_part_of_depth) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  CHECK_OK(cbr_hold(it.handle, CBR_SIG_DEFAULT, &pin));
  check_pins(&pin, &it);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
  CHECK_OK(cbr_leave(&pin));
  CHECK(is_zeroed(&pin));
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(destroy_waits_for_an_entered_pin) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 0);
  CHECK_EQ(((cbr_fn)pin.fn)(pin.user_data, NULL), SUBJECT_RESULT);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(it.destroyed, 1);
}

TEST(destroy_waits_for_a_hold) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  CHECK_OK(cbr_hold(it.handle, 0, &pin));
  CHECK_OK(cbr_release(it.handle));
  CHECK_EQ(it.destroyed, 0);
  CHECK_STATUS(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(((cbr_fn)pin.fn)(pin.user_data, NULL), SUBJECT_RESULT);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(it.destroyed, 1);
}

static void *leaves_here(void *arg) {
  CHECK_OK(cbr_leave((cbr_pin *)arg));
  return NULL;
}

TEST(a_hold_may_be_left_by_any_thread_and_destroy_runs_there) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  CHECK_OK(cbr_hold(it.handle, 0, &pin));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 0);
  pthread_t thread = start(leaves_here, &pin);
  join(thread);
  CHECK_EQ(it.destroyed, 1);
  CHECK(pthread_equal(it.destroyed_on, thread));
  CHECK(is_zeroed(&pin));
}

static void *holds_and_ends(void *arg) {
  cbr_pin *pin = (cbr_pin *)arg;
  CHECK_OK(cbr_hold(*(cbr_handle *)pin->user_data, 0, pin));
  return NULL;
}

TEST(a_hold_outlives_the_thread_that_took_it) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  pin.user_data = &it.handle;
  run_on_thread(holds_and_ends, &pin);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(it.destroyed, 1);
}

static void *may_not_leave(void *arg) {
  cbr_pin *pin = (cbr_pin *)arg, before = *pin;
  CHECK_REFUSED(cbr_leave(pin), CBR_ERR_THREAD);
  CHECK(memcmp(pin, &before, sizeof before) == 0);
  return NULL;
}

TEST(an_entered_pin_belongs_to_its_thread) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  run_on_thread(may_not_leave, &pin);
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_unregister(it.handle));
  run_on_thread(may_not_leave, &pin);
  CHECK_EQ(subject_destroyed(&it), 0);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(it.destroyed, 1);
}

TEST(leaving_twice_is_stale_and_changes_nothing) {
  struct subject it;
  cbr_pin pin, copy;
  subject_register(&it);
  for (int held = 0; held < 2; held++) {
    CHECK_OK(held ? cbr_hold(it.handle, 0, &pin) : cbr_enter(it.handle, 0, &pin));
    copy = pin;
    CHECK_OK(cbr_leave(&pin));
    CHECK_REFUSED(cbr_leave(&pin), CBR_ERR_STALE);
    CHECK_REFUSED(cbr_leave(&copy), CBR_ERR_STALE);
  }
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(leaving_a_copy_leaves_the_pin) {
  struct subject it;
  cbr_pin pin, copy;
  subject_register(&it);
  for (int held = 0; held < 2; held++) {
    CHECK_OK(held ? cbr_hold(it.handle, 0, &pin) : cbr_enter(it.handle, 0, &pin));
    copy = pin;
    CHECK_OK(cbr_leave(&copy));
    CHECK_REFUSED(cbr_leave(&pin), CBR_ERR_STALE);
  }
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

/* The new pin may use the place of the old one; the old one must not open it. */
TEST(a_left_pins_copy_does_not_leave_a_later_pin) {
  struct subject it;
  cbr_pin first, copy, second;
  for (int held = 0; held < 2; held++) {
    subject_register(&it);
    CHECK_OK(held ? cbr_hold(it.handle, 0, &first) : cbr_enter(it.handle, 0, &first));
    copy = first;
    CHECK_OK(cbr_leave(&first));
    CHECK_OK(held ? cbr_hold(it.handle, 0, &second) : cbr_enter(it.handle, 0, &second));
    CHECK_REFUSED(cbr_leave(&copy), CBR_ERR_STALE);
    CHECK_OK(cbr_unregister(it.handle));
    CHECK_EQ(it.destroyed, 0);
    CHECK_OK(cbr_leave(&second));
    CHECK_EQ(it.destroyed, 1);
  }
}

TEST(leaving_without_entering_is_refused) {
  cbr_pin pin;
  memset(&pin, 0, sizeof pin);
  CHECK_REFUSED(cbr_leave(&pin), CBR_ERR_STALE);
  CHECK_REFUSED(cbr_leave(NULL), CBR_ERR_INVALID);
}

TEST(pins_need_a_place) {
  struct subject it;
  subject_register(&it);
  CHECK_REFUSED(cbr_enter(it.handle, 0, NULL), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_hold(it.handle, 0, NULL), CBR_ERR_INVALID);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(a_wrong_signature_does_not_enter) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  memset(&pin, 0, sizeof pin);
  CHECK_REFUSED(cbr_enter(it.handle, CBR_SIG(CBR_I32, CBR_PTR), &pin), CBR_ERR_SIGNATURE);
  CHECK_WORDS("i32(ptr)");
  CHECK_WORDS("i64(ptr)");
  CHECK_REFUSED(cbr_hold(it.handle, CBR_SIG(CBR_VOID), &pin), CBR_ERR_SIGNATURE);
  CHECK_WORDS("void()");
  CHECK(is_zeroed(&pin));
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

enum { PINS = 6 };

/* Every order of leaving, with the callbacks revoked before: each destroy at its own leave. */
TEST(pins_leave_in_any_order) {
  static const int steps[] = {1, 5}; /* both are prime to PINS */
  for (int first = 0; first < PINS; first++) {
    for (int way = 0; way < 2; way++) {
      struct subject all[PINS];
      cbr_pin pins[PINS];
      for (int i = 0; i < PINS; i++) {
        subject_register(&all[i]);
        CHECK_OK(cbr_enter(all[i].handle, 0, &pins[i]));
        CHECK_EQ(cbr_current(), all[i].handle);
        CHECK_OK(cbr_unregister(all[i].handle));
      }
      for (int i = 0, at = first; i < PINS; i++, at = (at + steps[way]) % PINS) {
        CHECK_EQ(cbr_depth(), PINS - i);
        CHECK_EQ(all[at].destroyed, 0);
        CHECK_OK(cbr_leave(&pins[at]));
        CHECK_EQ(all[at].destroyed, 1);
      }
      CHECK_EQ(cbr_depth(), 0);
      for (int i = 0; i < PINS; i++) CHECK_EQ(all[i].destroyed, 1);
    }
  }
}

TEST(current_is_the_innermost_pin_that_is_still_entered) {
  struct subject outer, inner;
  cbr_pin outer_pin, inner_pin;
  subject_register(&outer);
  subject_register(&inner);
  CHECK_OK(cbr_enter(outer.handle, 0, &outer_pin));
  CHECK_OK(cbr_enter(inner.handle, 0, &inner_pin));
  CHECK_OK(cbr_leave(&outer_pin));
  CHECK_EQ(cbr_current(), inner.handle);
  CHECK_OK(cbr_enter(outer.handle, 0, &outer_pin));
  CHECK_EQ(cbr_current(), outer.handle);
  CHECK_OK(cbr_leave(&outer_pin));
  CHECK_EQ(cbr_current(), inner.handle);
  CHECK_OK(cbr_leave(&inner_pin));
  CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
  CHECK_OK(cbr_unregister(outer.handle));
  CHECK_OK(cbr_unregister(inner.handle));
}

TEST(one_callback_can_be_pinned_many_times_and_destroy_waits_for_all) {
  struct subject it;
  cbr_pin entered[3], held[3];
  subject_register(&it);
  for (int i = 0; i < 3; i++) {
    CHECK_OK(cbr_enter(it.handle, 0, &entered[i]));
    CHECK_OK(cbr_hold(it.handle, 0, &held[i]));
  }
  CHECK_OK(cbr_unregister(it.handle));
  for (int i = 2; i >= 0; i--) {
    CHECK_OK(cbr_leave(&held[i]));
    CHECK_EQ(it.destroyed, 0);
    CHECK_OK(cbr_leave(&entered[(i + 1) % 3]));
    CHECK_EQ(it.destroyed, i == 0);
  }
}

enum { NESTING = 4096 };

TEST(entered_pins_count_toward_the_nesting_limit) {
  static cbr_pin pins[NESTING];
  struct subject it;
  cbr_pin more;
  subject_register(&it);
  for (int i = 0; i < NESTING; i++) CHECK_OK(cbr_enter(it.handle, 0, &pins[i]));
  CHECK_EQ(cbr_depth(), NESTING);
  memset(&more, 0, sizeof more);
  CHECK_REFUSED(cbr_enter(it.handle, 0, &more), CBR_ERR_LIMIT);
  CHECK(is_zeroed(&more));
  CHECK_REFUSED(cbr_call(it.handle, NULL, NULL), CBR_ERR_LIMIT);
  CHECK_OK(cbr_leave(&pins[NESTING - 1]));
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  for (int i = 0; i < NESTING - 1; i++) CHECK_OK(cbr_leave(&pins[i]));
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(a_pin_left_in_the_middle_makes_room_for_another) {
  static cbr_pin pins[NESTING];
  struct subject it;
  subject_register(&it);
  for (int i = 0; i < NESTING; i++) CHECK_OK(cbr_enter(it.handle, 0, &pins[i]));
  CHECK_OK(cbr_leave(&pins[7]));
  CHECK_EQ(cbr_depth(), NESTING - 1);
  CHECK_OK(cbr_enter(it.handle, 0, &pins[7]));
  CHECK_EQ(cbr_depth(), NESTING);
  for (int i = 0; i < NESTING; i++) CHECK_OK(cbr_leave(&pins[i]));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

/* Two pins at any time, a hundred thousand in all: nesting is never deeper than two. */
TEST(pins_taken_hand_over_hand_never_run_out) {
  struct subject it;
  cbr_pin pins[2];
  subject_register(&it);
  CHECK_OK(cbr_enter(it.handle, 0, &pins[0]));
  for (int i = 1; i < 100000; i++) {
    CHECK_OK(cbr_enter(it.handle, 0, &pins[i % 2]));
    CHECK_OK(cbr_leave(&pins[(i + 1) % 2]));
    CHECK_EQ(cbr_depth(), 1);
  }
  CHECK_OK(cbr_leave(&pins[1]));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}
