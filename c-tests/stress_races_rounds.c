/* Small races run in step by two to four threads, thousands of times a second: all begin at once,
 * and after each round the outcome is looked at. */
#include "support_race.h"

static struct target target;
static cbr_pin pins[MAX_RACERS];
static cbr_status statuses[MAX_RACERS];
static int passed_on;

static void prepare_one(void) { target_register(&target, target_fn); }

static void check_ended(void) { CHECK_EQ(load_int(&target.destroyed), 1); }

static void race(int racers, void (*prepare)(void), void (*run)(struct racer *),
                 void (*check)(void)) {
  struct rounds rounds;
  memset(&rounds, 0, sizeof rounds);
  rounds.racers = racers;
  rounds.prepare = prepare;
  rounds.run = run;
  rounds.check = check;
  run_rounds(&rounds);
}

/* --- first calls against the end: the caller mark goes from nobody to one to many ---------- */

static void first_call_or_end(struct racer *self) {
  dawdle(self, 40);
  if (self->index == 0) {
    CHECK_OK(cbr_unregister(target.handle));
  } else {
    fill_store_buffer(self);
    check_ok_or_stale(cbr_call(target.handle, self, NULL));
  }
}

TEST(a_first_call_against_the_end) { race(2, prepare_one, first_call_or_end, check_ended); }

TEST(two_first_calls_against_the_end) { race(3, prepare_one, first_call_or_end, check_ended); }

TEST(three_first_calls_against_the_end) { race(4, prepare_one, first_call_or_end, check_ended); }

/* The mark is already the ender's own, then one caller's. */
static void prepare_called_once(void) {
  prepare_one();
  CHECK_OK(cbr_call(target.handle, NULL, NULL));
}

TEST(calls_by_others_against_the_end_of_what_the_ender_has_called) {
  race(3, prepare_called_once, first_call_or_end, check_ended);
}

/* --- two leavers --------------------------------------------------------------------------- */

static void enter_and_leave_together(struct racer *self) {
  /* An entered pin cannot be prepared by another thread: each enters, one ends, both leave. */
  cbr_status status = cbr_enter(target.handle, 0, &pins[self->index]);
  check_ok_or_stale(status);
  if (self->index == 0) CHECK_OK(cbr_unregister(target.handle));
  dawdle(self, 30);
  fill_store_buffer(self);
  if (status != CBR_OK) return;
  target_fn(pins[self->index].user_data, NULL);
  CHECK_OK(cbr_leave(&pins[self->index]));
}

TEST(two_leavers_of_a_revoked_callback) {
  race(2, prepare_one, enter_and_leave_together, check_ended);
}

TEST(three_leavers_of_a_revoked_callback) {
  race(3, prepare_one, enter_and_leave_together, check_ended);
}

/* --- ends that race each other -------------------------------------------------------------- */

static void all_unregister(struct racer *self) {
  statuses[self->index] = cbr_unregister(target.handle);
}

static void check_one_winner_of_two(void) {
  check_ended();
  CHECK_EQ((statuses[0] == CBR_OK) + (statuses[1] == CBR_OK), 1);
  CHECK_EQ((statuses[0] == CBR_ERR_STALE) + (statuses[1] == CBR_ERR_STALE), 1);
}

TEST(two_unregisters_have_one_winner) {
  race(2, prepare_one, all_unregister, check_one_winner_of_two);
}

static void prepare_two_references(void) {
  prepare_one();
  CHECK_OK(cbr_retain(target.handle));
}

static void all_release(struct racer *self) {
  CHECK_OK(cbr_release(target.handle));
  (void)self;
}

TEST(two_releases_of_the_last_two_references_end_it_once) {
  race(2, prepare_two_references, all_release, check_ended);
}

static void release_or_retain(struct racer *self) {
  if (self->index == 0) {
    dawdle(self, 10);
    CHECK_OK(cbr_release(target.handle));
    return;
  }
  dawdle(self, 10);
  cbr_status status = cbr_retain(target.handle);
  check_ok_or_stale(status);
  if (status != CBR_OK) return;
  CHECK_EQ(load_int(&target.destroyed), 0); /* our reference keeps it */
  CHECK_OK(cbr_call(target.handle, NULL, NULL));
  CHECK_OK(cbr_release(target.handle));
}

TEST(retain_against_the_last_release_in_step) {
  race(2, prepare_one, release_or_retain, check_ended);
}

static void release_or_unregister(struct racer *self) {
  dawdle(self, 10);
  statuses[self->index] =
      self->index == 0 ? cbr_release(target.handle) : cbr_unregister(target.handle);
}

static void check_release_or_unregister(void) {
  check_ended();
  for (int i = 0; i < 2; i++) check_ok_or_stale(statuses[i]);
  CHECK(statuses[0] == CBR_OK || statuses[1] == CBR_OK);
}

TEST(the_last_release_against_unregister) {
  race(2, prepare_one, release_or_unregister, check_release_or_unregister);
}

/* --- nested calls that end themselves ------------------------------------------------------- */

static intptr_t recurses_and_ends_itself(void *user_data, void *arg) {
  struct target *it = (struct target *)user_data;
  intptr_t left = (intptr_t)arg;
  target_check_alive(it);
  if (left > 0) check_ok_or_stale(cbr_call(it->handle, (void *)(left - 1), NULL));
  else check_ok_or_stale(cbr_unregister(it->handle));
  CHECK_EQ(load_int(&it->destroyed), 0);
  target_check_alive(it);
  return 0;
}

static void prepare_recursive(void) { target_register(&target, recurses_and_ends_itself); }

static void call_recursive(struct racer *self) {
  dawdle(self, 30);
  check_ok_or_stale(cbr_call(target.handle, (void *)(intptr_t)rng_below(&self->rng, 4), NULL));
}

static void check_ended_or_end(void) {
  cbr_status status = cbr_unregister(target.handle); /* if nobody came to the innermost call */
  check_ok_or_stale(status);
  check_ended();
}

TEST(nested_calls_that_unregister_themselves) {
  race(2, prepare_recursive, call_recursive, check_ended_or_end);
}

TEST(nested_calls_that_unregister_themselves_on_three_threads) {
  race(3, prepare_recursive, call_recursive, check_ended_or_end);
}

/* --- holds ---------------------------------------------------------------------------------- */

static void prepare_held(void) {
  prepare_one();
  CHECK_OK(cbr_hold(target.handle, 0, &pins[0]));
}

static void end_or_leave_the_hold(struct racer *self) {
  dawdle(self, 20);
  if (self->index == 0) {
    CHECK_OK(cbr_unregister(target.handle));
  } else {
    target_fn(pins[0].user_data, NULL);
    CHECK_OK(cbr_leave(&pins[0]));
  }
}

TEST(a_hold_left_on_another_thread_against_the_end) {
  race(2, prepare_held, end_or_leave_the_hold, check_ended);
}

static void end_or_hold(struct racer *self) {
  cbr_pin pin;
  dawdle(self, 20);
  if (self->index == 0) {
    CHECK_OK(cbr_unregister(target.handle));
    return;
  }
  cbr_status status = cbr_hold(target.handle, 0, &pin);
  check_ok_or_stale(status);
  if (status != CBR_OK) return;
  target_fn(pin.user_data, self);
  CHECK_EQ(load_int(&target.destroyed), 0);
  CHECK_OK(cbr_leave(&pin));
}

TEST(a_new_hold_against_the_end) { race(2, prepare_one, end_or_hold, check_ended); }

/* Racer 0 holds and passes on, racer 1 leaves, racer 2 ends. */
static void pass_a_hold_on(struct racer *self) {
  dawdle(self, 20);
  if (self->index == 0) {
    cbr_status status = cbr_hold(target.handle, 0, &pins[0]);
    check_ok_or_stale(status);
    store_int(&passed_on, status == CBR_OK ? 1 : 2);
  } else if (self->index == 1) {
    while (load_int(&passed_on) == 0) sched_yield();
    if (load_int(&passed_on) == 2) return;
    target_fn(pins[0].user_data, NULL);
    CHECK_EQ(load_int(&target.destroyed), 0);
    CHECK_OK(cbr_leave(&pins[0]));
  } else {
    CHECK_OK(cbr_unregister(target.handle));
  }
}

static void prepare_passing_on(void) {
  passed_on = 0;
  prepare_one();
}

TEST(a_hold_passed_on_against_the_end) { race(3, prepare_passing_on, pass_a_hold_on, check_ended); }

/* Two copies of one hold: one of them leaves it. */
static void leave_a_copy(struct racer *self) {
  cbr_pin copy = pins[0];
  statuses[self->index] = cbr_leave(&copy);
}

static void check_one_left(void) {
  CHECK_EQ((statuses[0] == CBR_OK) + (statuses[1] == CBR_OK), 1);
  CHECK_EQ((statuses[0] == CBR_ERR_STALE) + (statuses[1] == CBR_ERR_STALE), 1);
  CHECK_OK(cbr_call(target.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(target.handle));
  check_ended();
}

TEST(two_copies_of_a_hold_leave_it_once) { race(2, prepare_held, leave_a_copy, check_one_left); }

/* --- waits ---------------------------------------------------------------------------------- */

static void wait_or_call(struct racer *self) {
  dawdle(self, 40);
  if (self->index == 0) {
    CHECK_OK(cbr_unregister_wait(target.handle, -1));
    CHECK_EQ(load_int(&target.destroyed), 1);
  } else {
    check_ok_or_stale(cbr_call(target.handle, self, NULL));
  }
}

TEST(a_wait_against_a_call) { race(2, prepare_one, wait_or_call, check_ended); }

static void two_wait_one_calls(struct racer *self) {
  dawdle(self, 40);
  if (self->index < 2) {
    check_ok_or_stale(cbr_unregister_wait(target.handle, -1));
    CHECK_EQ(load_int(&target.destroyed), 1);
  } else {
    check_ok_or_stale(cbr_call(target.handle, self, NULL));
  }
}

TEST(two_waits_against_a_call) { race(3, prepare_one, two_wait_one_calls, check_ended); }

static void wait_briefly_or_call(struct racer *self) {
  dawdle(self, 40);
  if (self->index != 0) {
    check_ok_or_stale(cbr_call(target.handle, self, NULL));
    return;
  }
  cbr_status status = cbr_unregister_wait(target.handle, (int64_t)rng_below(&self->rng, 3000));
  if (status == CBR_ERR_TIMEOUT) check_ok_or_stale(cbr_unregister_wait(target.handle, -1));
  else CHECK_OK(status);
  CHECK_EQ(load_int(&target.destroyed), 1);
}

TEST(a_wait_with_a_short_deadline_against_a_call) {
  race(2, prepare_one, wait_briefly_or_call, check_ended);
}
