/* Callers that never stop against a thread that ends what they call: every call meets live data or
 * is stale, every destroy runs exactly once, and none is lost. */
#include "support_race.h"
#include "support_seccomp.h"

static struct reaping reaping;

static void call_published(struct racer *self, cbr_handle handle) {
  fill_store_buffer(self);
  check_ok_or_stale(cbr_call(handle, self, NULL));
}

static void unregister_soon(struct racer *self, struct target *it) {
  dawdle(self, 200);
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_STATUS(cbr_call(it->handle, NULL, NULL), CBR_ERR_STALE);
}

static void reap(int callers, cbr_fn fn, void (*call)(struct racer *, cbr_handle),
                 void (*end)(struct racer *, struct target *)) {
  reaping.callers = callers;
  reaping.fn = fn;
  reaping.call = call;
  reaping.end = end;
  run_reaping(&reaping);
}

TEST(enter_against_revoke_with_one_caller) { reap(1, target_fn, call_published, unregister_soon); }

TEST(enter_against_revoke_with_three_callers) {
  reap(3, target_fn, call_published, unregister_soon);
}

/* Once a caller is named in the mark, entering is an exchange of its cell and nothing else that would
 * drain the store buffer. */
static void unregister_what_was_called(struct racer *self, struct target *it) {
  uint64_t before = reaping_epoch(&reaping, 1);
  for (unsigned spins = 1; reaping_epoch(&reaping, 1) < before + 2; spins++) {
    if (spins % 4096 == 0) sched_yield();
  }
  unregister_soon(self, it);
}

TEST(enter_against_revoke_with_one_caller_who_has_called_before) {
  reap(1, target_fn, call_published, unregister_what_was_called);
}

/* The reaper strikes when the callback is about to return. */
static int returning;

static intptr_t says_that_it_returns(void *user_data, void *arg) {
  struct target *it = (struct target *)user_data;
  struct racer *self = (struct racer *)arg;
  target_check_alive(it);
  store_int(&returning, 1);
  dawdle(self, 60);
  fill_store_buffer(self);
  target_check_alive(it);
  return 0;
}

static void unregister_at_the_return(struct racer *self, struct target *it) {
  store_int(&returning, 0);
  for (unsigned spins = 1; !load_int(&returning); spins++) {
    if (spins % 4096 == 0) sched_yield();
  }
  dawdle(self, 60);
  CHECK_OK(cbr_unregister(it->handle));
}

TEST(leave_against_revoke) {
  reap(1, says_that_it_returns, call_published, unregister_at_the_return);
}

TEST(leave_against_revoke_with_two_callers) {
  reap(2, says_that_it_returns, call_published, unregister_at_the_return);
}

/* In the middle of it a filter takes the heavy barrier away. What a leave then misses is found by
 * the unregisters that follow, so it has its end when the ring comes round. */
static void unregister_at_the_return_with_a_late_filter(struct racer *self, struct target *it) {
  static long count;
  if (++count == 2 * RING) seccomp_refuse(SYS_membarrier, EPERM);
  unregister_at_the_return(self, it);
}

static void end_one_more(void) {
  static struct target one_more;
  target_register(&one_more, target_fn);
  CHECK_OK(cbr_unregister(one_more.handle));
  CHECK_EQ(load_int(&one_more.destroyed), 1);
}

TEST(leave_against_revoke_when_membarrier_is_refused_halfway) {
  reaping.before_the_last_check = end_one_more;
  reap(1, says_that_it_returns, call_published, unregister_at_the_return_with_a_late_filter);
}

static void release_at_the_return(struct racer *self, struct target *it) {
  store_int(&returning, 0);
  for (unsigned spins = 1; !load_int(&returning); spins++) {
    if (spins % 4096 == 0) sched_yield();
  }
  dawdle(self, 60);
  CHECK_OK(cbr_release(it->handle));
}

TEST(leave_against_the_last_release) {
  reap(1, says_that_it_returns, call_published, release_at_the_return);
}

/* After the wait the data is the reaper's again, at once. */
static void unregister_and_wait(struct racer *self, struct target *it) {
  dawdle(self, 300);
  CHECK_OK(cbr_unregister_wait(it->handle, -1));
  CHECK_EQ(load_int(&it->destroyed), 1);
  it->state = 0xfeeefeee;
}

TEST(unregister_wait_against_one_caller) {
  reap(1, target_fn, call_published, unregister_and_wait);
}

TEST(unregister_wait_against_three_callers) {
  reap(3, target_fn, call_published, unregister_and_wait);
}

/* Pins of both kinds in the callers' hands. */
static void pin_published(struct racer *self, cbr_handle handle) {
  cbr_pin pin;
  bool hold = rng_below(&self->rng, 2);
  cbr_status status = hold ? cbr_hold(handle, 0, &pin) : cbr_enter(handle, CBR_SIG_DEFAULT, &pin);
  check_ok_or_stale(status);
  if (status != CBR_OK) return;
  ((cbr_fn)pin.fn)(pin.user_data, self);
  CHECK_OK(cbr_leave(&pin));
}

TEST(pins_against_revoke) { reap(2, target_fn, pin_published, unregister_soon); }

TEST(unregister_wait_against_pins) { reap(2, target_fn, pin_published, unregister_and_wait); }

/* References of the callers' own: who gives back the last one ends the life. */
static void retain_call_release(struct racer *self, cbr_handle handle) {
  cbr_status status = cbr_retain(handle);
  check_ok_or_stale(status);
  if (status != CBR_OK) return;
  CHECK_OK(cbr_call(handle, self, NULL)); /* nobody unregisters, and we own a reference */
  CHECK_OK(cbr_release(handle));
}

static void release_soon(struct racer *self, struct target *it) {
  dawdle(self, 300);
  CHECK_OK(cbr_release(it->handle));
}

TEST(retain_against_the_last_release) { reap(2, target_fn, retain_call_release, release_soon); }

/* The same callback in long runs: its end comes when the caller has done thousands of calls. */
static cbr_handle run_of;
static long run_length;

static intptr_t full_only_near_the_end(void *user_data, void *arg) {
  if (arg != NULL) return target_fn(user_data, arg);
  target_check_alive((struct target *)user_data);
  return 0;
}

/* The run's length beforehand; the callback takes its time only where the end may come. */
static long next_in_run(struct racer *self, cbr_handle handle) {
  long length = run_length + 1;
  if (run_of != handle) {
    length = 0;
    __atomic_store_n(&run_length, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&run_of, handle, __ATOMIC_RELEASE);
  }
  if (length > 1900) fill_store_buffer(self);
  return length;
}

static void call_in_a_run(struct racer *self, cbr_handle handle) {
  long length = next_in_run(self, handle);
  check_ok_or_stale(cbr_call(handle, length > 1900 ? self : NULL, NULL));
  __atomic_store_n(&run_length, length, __ATOMIC_RELEASE);
}

static void pin_in_a_run(struct racer *self, cbr_handle handle) {
  cbr_pin pin;
  long length = next_in_run(self, handle);
  cbr_status status = cbr_enter(handle, CBR_SIG_DEFAULT, &pin);
  check_ok_or_stale(status);
  if (status == CBR_OK) {
    full_only_near_the_end(pin.user_data, length > 1900 ? self : NULL);
    CHECK_OK(cbr_leave(&pin));
  }
  __atomic_store_n(&run_length, length, __ATOMIC_RELEASE);
}

static void await_a_long_run(struct racer *self, struct target *it) {
  long most = 1900 + (long)rng_below(&self->rng, 250);
  for (unsigned spins = 1; __atomic_load_n(&run_of, __ATOMIC_ACQUIRE) != it->handle ||
                           __atomic_load_n(&run_length, __ATOMIC_ACQUIRE) < most;
       spins++) {
    if (spins % 4096 == 0) sched_yield();
  }
  dawdle(self, 200);
}

static void unregister_in_a_run(struct racer *self, struct target *it) {
  await_a_long_run(self, it);
  CHECK_OK(cbr_unregister(it->handle));
}

static void wait_in_a_run(struct racer *self, struct target *it) {
  await_a_long_run(self, it);
  CHECK_OK(cbr_unregister_wait(it->handle, -1));
  CHECK_EQ(load_int(&it->destroyed), 1);
  it->state = 0xfeeefeee;
}

TEST(long_runs_of_calls_against_revoke) {
  reap(1, full_only_near_the_end, call_in_a_run, unregister_in_a_run);
}

TEST(long_runs_of_pins_against_revoke) {
  reap(1, full_only_near_the_end, pin_in_a_run, unregister_in_a_run);
}

TEST(long_runs_of_calls_against_unregister_wait) {
  reap(1, full_only_near_the_end, call_in_a_run, wait_in_a_run);
}

/* Old handles and guessed ones, while their places are used again and again: what runs is what the
 * handle names, under protection, even if the guess was good. */
static intptr_t is_whom_it_was_called_as(void *user_data, void *arg) {
  struct target *it = (struct target *)user_data;
  struct racer *self = (struct racer *)arg;
  cbr_handle me = cbr_current();
  target_check_alive(it);
  dawdle(self, 20);
  cbr_handle known =
      __atomic_load_n(&it->handle, __ATOMIC_RELAXED); /* 0: register has not returned */
  if (known != me && known != CBR_HANDLE_NONE)
    FAIL("the call of 0x%llx ran 0x%llx", (unsigned long long)me, (unsigned long long)known);
  fill_store_buffer(self);
  target_check_alive(it);
  return (intptr_t)me;
}

static void call_old_and_guessed(struct racer *self, cbr_handle handle) {
  intptr_t who = 0;
  handle += (rng_below(&self->rng, 4) - 1) << 32;
  cbr_status status = cbr_call(handle, self, &who);
  check_ok_or_stale(status);
  if (status == CBR_OK) CHECK_EQ((cbr_handle)who, handle);
}

TEST(lookup_against_register_and_reuse) {
  reap(2, is_whom_it_was_called_as, call_old_and_guessed, unregister_soon);
}

static void unregister_at_once(struct racer *self, struct target *it) {
  (void)self;
  CHECK_OK(cbr_unregister(it->handle));
}

TEST(guessed_handles_against_an_end_right_after_the_beginning) {
  reap(1, is_whom_it_was_called_as, call_old_and_guessed, unregister_at_once);
}
