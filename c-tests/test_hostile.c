/* What a host may do to the library: longjmp over calls, forged and stale pins. */
#include "support_random.h"
#include "support_subject.h"

#include <setjmp.h>

enum { DEPTH = 10 };

struct jump {
  struct subject *subjects;
  jmp_buf targets[DEPTH + 1]; /* targets[d]: in the call at depth d; 0 is outside */
  int revoke, caught_at;
  bool jumped;
};

/* The host's own function: subject_fn counts its way out, which a jump skips. */
static intptr_t nests_and_jumps(void *user_data, void *arg) {
  struct subject *it = (struct subject *)user_data;
  struct jump *jump = (struct jump *)arg;
  uint32_t depth = cbr_depth();
  subject_check_alive(it);
  if (jump->revoke) CHECK_OK(cbr_unregister(it->handle));
  if (depth == DEPTH) longjmp(jump->targets[jump->caught_at], 1);
  if (setjmp(jump->targets[depth]) == 0) {
    cbr_call(jump->subjects[depth].handle, jump, NULL);
    CHECK(jump->jumped); /* an inner call returns only after the jump went past it */
  } else {
    jump->jumped = true;
    CHECK_EQ(cbr_depth(), DEPTH); /* nobody has told the library yet */
    CHECK_OK(cbr_unwind_to(depth));
  }
  CHECK_EQ(cbr_depth(), depth);
  CHECK_EQ(cbr_current(), it->handle);
  subject_check_alive(it);
  for (int i = 0; i < DEPTH; i++) {
    bool above = i >= (int)depth;
    CHECK_EQ(jump->subjects[i].destroyed, jump->revoke && above);
  }
  return (intptr_t)depth;
}

/* A function of its own, so that nothing kept in registers lives across its setjmp. */
static void run_jump(struct jump *jump) {
  struct subject *subjects = jump->subjects;
  for (int i = 0; i < DEPTH; i++) {
    subject_reset(&subjects[i]);
    CHECK_OK(cbr_register(nests_and_jumps, &subjects[i], subject_destroy, &subjects[i].handle));
  }
  if (setjmp(jump->targets[0]) == 0) {
    CHECK_OK(cbr_call(subjects[0].handle, jump, NULL));
    CHECK(jump->jumped);
  } else {
    CHECK_EQ(jump->caught_at, 0);
    CHECK_EQ(cbr_depth(), DEPTH);
    CHECK_OK(cbr_unwind_to(0));
  }
}

TEST(unwind_to_releases_what_a_longjmp_went_past) {
  static struct subject subjects[DEPTH];
  for (int revoke = 0; revoke < 2; revoke++) {
    for (int caught_at = 0; caught_at < DEPTH; caught_at++) {
      static struct jump jump;
      memset(&jump, 0, sizeof jump);
      jump.subjects = subjects;
      jump.revoke = revoke;
      jump.caught_at = caught_at;
      run_jump(&jump);
      CHECK_EQ(cbr_depth(), 0);
      CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
      for (int i = 0; i < DEPTH; i++) {
        if (!revoke) CHECK_OK(cbr_unregister_wait(subjects[i].handle, -1));
        CHECK_EQ(subjects[i].destroyed, 1);
      }
    }
  }
}

static jmp_buf out;

static intptr_t jumps(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  longjmp(out, 1);
}

TEST(until_unwind_to_a_call_that_was_jumped_out_of_still_protects) {
  struct subject it;
  subject_reset(&it);
  CHECK_OK(cbr_register(jumps, &it, subject_destroy, &it.handle));
  if (setjmp(out) == 0) cbr_call(it.handle, NULL, NULL);
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_unwind_to(0));
  CHECK_EQ(it.destroyed, 1);
}

TEST(jumping_out_again_and_again_uses_nothing_up) {
  static struct subject it;
  static volatile long rounds;
  subject_reset(&it);
  CHECK_OK(cbr_register(jumps, &it, subject_destroy, &it.handle));
  for (rounds = 0; rounds < 20000; rounds++) {
    if (setjmp(out) == 0) cbr_call(it.handle, NULL, NULL);
    CHECK_EQ(cbr_depth(), 1);
    CHECK_OK(cbr_unwind_to(0));
  }
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
}

static void jumps_on_error(void *user_data, cbr_handle handle, cbr_status status,
                           const char *message) {
  (void)user_data;
  (void)handle;
  (void)status;
  (void)message;
  longjmp(out, 1);
}

static intptr_t fails(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  cbr_fail(CBR_ERR_CALLBACK, "on_error jumps");
  FAIL("the jump came back");
}

TEST(a_longjmp_out_of_on_error_is_like_one_out_of_the_callback) {
  static struct subject it;
  subject_reset(&it);
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = (cbr_any_fn)fails;
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.on_error = jumps_on_error;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  if (setjmp(out) == 0) cbr_call(it.handle, NULL, NULL);
  CHECK_OK(cbr_unwind_to(0));
  CHECK_EQ(cbr_depth(), 0);
  cbr_pin pin; /* the failure was that call's, not the next one's in its place */
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
}

static void destroy_jumps(void *user_data) {
  subject_destroy(user_data);
  longjmp(out, 1);
}

static void *is_over_for_others(void *arg) {
  CHECK_STATUS(cbr_unregister_wait(((struct subject *)arg)->handle, -1), CBR_ERR_STALE);
  CHECK_STATUS(cbr_call(((struct subject *)arg)->handle, NULL, NULL), CBR_ERR_STALE);
  return NULL;
}

TEST(a_destroy_function_that_was_jumped_out_of_counts_as_run) {
  static struct subject it;
  subject_reset(&it);
  CHECK_OK(cbr_register(subject_fn, &it, destroy_jumps, &it.handle));
  if (setjmp(out) == 0) cbr_unregister(it.handle);
  CHECK_OK(cbr_unwind_to(0));
  CHECK_EQ(it.destroyed, 1);
  run_on_thread(is_over_for_others, &it);
}

static intptr_t ends_its_arg(void *user_data, void *arg) {
  (void)user_data;
  cbr_unregister(((struct subject *)arg)->handle);
  FAIL("the jump came back");
}

static intptr_t catches_a_jump(void *user_data, void *arg) {
  (void)user_data;
  if (setjmp(out) == 0)
    cbr_call(((struct subject *)arg)->handle, ((struct subject *)arg)->extra, NULL);
  CHECK_OK(cbr_unwind_to(1));
  CHECK_EQ(cbr_depth(), 1);
  return 0;
}

TEST(a_longjmp_out_of_a_destroy_inside_calls_ends_what_lies_above) {
  static struct subject outer, middle, ended;
  for (int round = 0; round < 100; round++) {
    subject_reset(&outer);
    subject_reset(&middle);
    subject_reset(&ended);
    CHECK_OK(cbr_register(catches_a_jump, &outer, subject_destroy, &outer.handle));
    CHECK_OK(cbr_register(ends_its_arg, &middle, subject_destroy, &middle.handle));
    CHECK_OK(cbr_register(subject_fn, &ended, destroy_jumps, &ended.handle));
    middle.extra = &ended;
    CHECK_OK(cbr_call(outer.handle, &middle, NULL));
    CHECK_EQ(cbr_depth(), 0);
    CHECK_EQ(ended.destroyed, 1);
    run_on_thread(is_over_for_others, &ended);
    CHECK_OK(cbr_unregister_wait(middle.handle, -1));
    CHECK_OK(cbr_unregister_wait(outer.handle, -1));
  }
}

TEST(unwind_to_releases_pins_but_no_holds) {
  struct subject all[4];
  cbr_pin pins[4], hold;
  for (int i = 0; i < 4; i++) {
    subject_register(&all[i]);
    CHECK_OK(cbr_enter(all[i].handle, 0, &pins[i]));
    if (i == 3) CHECK_OK(cbr_hold(all[i].handle, 0, &hold));
    CHECK_OK(cbr_unregister(all[i].handle));
  }
  CHECK_OK(cbr_unwind_to(1));
  CHECK_EQ(cbr_depth(), 1);
  CHECK_EQ(cbr_current(), all[0].handle);
  CHECK_EQ(all[0].destroyed, 0);
  CHECK_EQ(all[1].destroyed, 1);
  CHECK_EQ(all[2].destroyed, 1);
  CHECK_EQ(all[3].destroyed, 0);
  for (int i = 1; i < 4; i++) CHECK_REFUSED(cbr_leave(&pins[i]), CBR_ERR_STALE);
  CHECK_OK(cbr_leave(&hold));
  CHECK_EQ(all[3].destroyed, 1);
  CHECK_OK(cbr_leave(&pins[0]));
  CHECK_EQ(all[0].destroyed, 1);
}

TEST(unwind_to_the_present_depth_or_beyond_changes_nothing) {
  struct subject it;
  cbr_pin pin;
  CHECK_OK(cbr_unwind_to(0));
  subject_register(&it);
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  CHECK_OK(cbr_unwind_to(1));
  CHECK_REFUSED(cbr_unwind_to(2), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_unwind_to(UINT32_MAX), CBR_ERR_INVALID);
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

static intptr_t unwinds_itself(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  cbr_unwind_to(0); /* a host's mistake: the call it is in is not over */
  return 0;
}

TEST(unwinding_the_call_one_is_in_does_no_harm_to_later_ones) {
  struct subject it, other;
  cbr_pin pin;
  subject_register(&it);
  subject_register(&other);
  subject_run(&it, unwinds_itself, NULL, NULL);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_enter(other.handle, 0, &pin));
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_unregister(other.handle));
  CHECK_EQ(other.destroyed, 0);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(other.destroyed, 1);
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
}

/* --- forged pins -------------------------------------------------------------------------- */

static void check_no_pin(const cbr_pin *forged) {
  cbr_pin copy = *forged;
  cbr_status status = cbr_leave(&copy);
  CHECK(status == CBR_ERR_STALE || status == CBR_ERR_KIND || status == CBR_ERR_INVALID ||
        status == CBR_ERR_THREAD);
  CHECK(memcmp(&copy, forged, sizeof copy) == 0);
}

TEST(pins_of_random_bits_are_refused_and_change_nothing) {
  struct rng rng = {rng_seed()};
  struct subject it;
  cbr_pin entered, held, forged;
  subject_register(&it);
  CHECK_OK(cbr_enter(it.handle, 0, &entered));
  CHECK_OK(cbr_hold(it.handle, 0, &held));
  CHECK_OK(cbr_unregister(it.handle));
  for (long i = 0; i < scaled(1000000); i++) {
    forged = entered;
    forged.reserved[0] = rng_next(&rng);
    forged.reserved[1] = rng_next(&rng);
    for (int word = 0; word < 2; word++) { /* small numbers and handles, too */
      uint64_t what = rng_below(&rng, 4);
      if (what == 0) forged.reserved[word] >>= rng_below(&rng, 64);
      if (what == 1) forged.reserved[word] = it.handle;
    }
    if (memcmp(forged.reserved, entered.reserved, sizeof forged.reserved) == 0) continue;
    if (memcmp(forged.reserved, held.reserved, sizeof forged.reserved) == 0) continue;
    check_no_pin(&forged);
  }
  CHECK_EQ(cbr_depth(), 1);
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_leave(&entered));
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_leave(&held));
  CHECK_EQ(it.destroyed, 1);
}

/* A bit that the library does not look at may leave this very pin, but never another one. */
TEST(a_pin_with_any_bit_changed_leaves_no_other_pin) {
  struct subject it, other;
  cbr_pin beside[2], pin;
  subject_register(&it);
  subject_register(&other);
  CHECK_OK(cbr_enter(other.handle, 0, &beside[0])); /* neighbours that a changed bit might name */
  CHECK_OK(cbr_hold(other.handle, 0, &beside[1]));
  for (int bit = 0; bit < 256; bit++) {
    bool held = bit >= 128;
    CHECK_OK(held ? cbr_hold(it.handle, 0, &pin) : cbr_enter(it.handle, 0, &pin));
    cbr_pin forged = pin;
    forged.reserved[bit / 64 % 2] ^= UINT64_C(1) << bit % 64;
    bool named = false; /* exactly a neighbour: a copy of that pin, and no forgery */
    for (int i = 0; i < 2; i++) {
      named |= memcmp(forged.reserved, beside[i].reserved, sizeof forged.reserved) == 0;
    }
    bool left = !named && cbr_leave(&forged) == CBR_OK;
    CHECK_EQ(cbr_depth(), held || left ? 1 : 2);
    CHECK_STATUS(cbr_leave(&pin), left ? CBR_ERR_STALE : CBR_OK);
  }
  cbr_pin mixed = beside[0];
  mixed.reserved[1] = beside[1].reserved[1];
  if (memcmp(&mixed, &beside[0], sizeof mixed) != 0) check_no_pin(&mixed);
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
  CHECK_OK(cbr_unregister(other.handle));
  CHECK_OK(cbr_leave(&beside[0]));
  CHECK_EQ(other.destroyed, 0);
  CHECK_OK(cbr_leave(&beside[1]));
  CHECK_EQ(other.destroyed, 1);
}
