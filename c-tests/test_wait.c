/* cbr_unregister_wait: returns when destroy has run; deadlines; waiting again. */
#include "support_subject.h"

#define MS INT64_C(1000000)

TEST(wait_on_an_idle_callback_ends_it_at_once) {
  static const int64_t timeouts[] = {0, 1, 20 * MS, -1, INT64_MAX};
  for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
    struct subject it;
    subject_register(&it);
    CHECK_OK(cbr_retain(it.handle));
    CHECK_OK(cbr_unregister_wait(it.handle, timeouts[i]));
    CHECK_EQ(it.destroyed, 1);
    CHECK_REFUSED(cbr_unregister_wait(it.handle, timeouts[i]), CBR_ERR_STALE);
  }
}

TEST(a_timeout_below_minus_one_is_invalid_and_revokes_nothing) {
  static const int64_t timeouts[] = {-2, -1000000, INT64_MIN};
  struct subject it;
  subject_register(&it);
  for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
    CHECK_REFUSED(cbr_unregister_wait(it.handle, timeouts[i]), CBR_ERR_INVALID);
    CHECK(cbr_is_live(it.handle));
  }
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

struct waiter {
  struct subject *subject;
  int64_t timeout_ns;
  pthread_t thread;
  cbr_status status;
  int destroyed; /* when the wait returned */
};

static void *waiter_main(void *arg) {
  struct waiter *self = (struct waiter *)arg;
  self->status = cbr_unregister_wait(self->subject->handle, self->timeout_ns);
  self->destroyed = subject_destroyed(self->subject);
  return NULL;
}

static void waiter_start(struct waiter *self, struct subject *subject, int64_t timeout_ns) {
  self->subject = subject;
  self->timeout_ns = timeout_ns;
  self->thread = start(waiter_main, self);
}

TEST(wait_returns_after_the_last_call_has_left_and_destroy_has_run) {
  struct subject it;
  struct occupant first, second;
  struct waiter waiter;
  subject_register(&it);
  occupy(&first, &it);
  occupy(&second, &it);
  waiter_start(&waiter, &it, -1);
  POLL_UNTIL(!cbr_is_live(it.handle)); /* it has revoked, and waits */
  CHECK_OK(vacate(&first));
  CHECK_EQ(subject_destroyed(&it), 0);
  CHECK_OK(vacate(&second));
  join(waiter.thread);
  CHECK_OK(waiter.status);
  CHECK_EQ(waiter.destroyed, 1);
}

TEST(wait_without_time_returns_timeout_and_revokes_all_the_same) {
  struct subject it;
  struct occupant guest;
  subject_register(&it);
  occupy(&guest, &it);
  CHECK_REFUSED(cbr_unregister_wait(it.handle, 0), CBR_ERR_TIMEOUT);
  CHECK(!cbr_is_live(it.handle));
  CHECK_STATUS(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(subject_destroyed(&it), 0);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(it.destroyed, 1);
}

TEST(wait_with_a_deadline_returns_timeout_when_it_has_passed) {
  struct subject it;
  struct occupant guest;
  subject_register(&it);
  occupy(&guest, &it);
  int64_t before = now_ns();
  CHECK_REFUSED(cbr_unregister_wait(it.handle, 20 * MS), CBR_ERR_TIMEOUT);
  CHECK(now_ns() - before >= 20 * MS);
  CHECK(!cbr_is_live(it.handle));
  CHECK_EQ(subject_destroyed(&it), 0);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(it.destroyed, 1);
}

TEST(after_a_timeout_the_wait_can_be_taken_up_again) {
  struct subject it;
  struct occupant guest;
  struct waiter waiter;
  subject_register(&it);
  occupy(&guest, &it);
  for (int i = 0; i < 3; i++) CHECK_STATUS(cbr_unregister_wait(it.handle, 2 * MS), CBR_ERR_TIMEOUT);
  waiter_start(&waiter, &it, -1);
  CHECK_STATUS(cbr_unregister_wait(it.handle, 5 * MS), CBR_ERR_TIMEOUT);
  CHECK_OK(vacate(&guest));
  join(waiter.thread);
  /* stale if destroy had run before the waiter looked: both say that it has */
  CHECK(waiter.status == CBR_OK || waiter.status == CBR_ERR_STALE);
  CHECK_EQ(waiter.destroyed, 1);
  CHECK_REFUSED(cbr_unregister_wait(it.handle, -1), CBR_ERR_STALE);
}

TEST(wait_on_a_callback_that_is_revoked_already_keeps_waiting) {
  struct subject it;
  struct occupant guest;
  struct waiter waiter;
  subject_register(&it);
  occupy(&guest, &it);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_STATUS(cbr_unregister_wait(it.handle, 5 * MS), CBR_ERR_TIMEOUT);
  waiter_start(&waiter, &it, -1);
  CHECK_OK(vacate(&guest));
  join(waiter.thread);
  CHECK(waiter.status == CBR_OK || waiter.status == CBR_ERR_STALE);
  CHECK_EQ(waiter.destroyed, 1);
}

TEST(wait_after_the_last_release_keeps_waiting_too) {
  struct subject it;
  struct occupant guest;
  subject_register(&it);
  occupy(&guest, &it);
  CHECK_OK(cbr_release(it.handle));
  CHECK_STATUS(cbr_unregister_wait(it.handle, 5 * MS), CBR_ERR_TIMEOUT);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(it.destroyed, 1);
  CHECK_STATUS(cbr_unregister_wait(it.handle, 0), CBR_ERR_STALE);
}

TEST(several_threads_may_wait_for_the_same_callback) {
  enum { WAITERS = 16 };
  struct subject it;
  struct occupant guest;
  struct waiter waiters[WAITERS];
  subject_register(&it);
  occupy(&guest, &it);
  for (int i = 0; i < WAITERS; i++) waiter_start(&waiters[i], &it, i % 2 == 0 ? -1 : 50000 * MS);
  POLL_UNTIL(!cbr_is_live(it.handle));
  CHECK_STATUS(cbr_unregister_wait(it.handle, 20 * MS), CBR_ERR_TIMEOUT);
  CHECK_OK(vacate(&guest));
  for (int i = 0; i < WAITERS; i++) {
    join(waiters[i].thread);
    CHECK(waiters[i].status == CBR_OK || waiters[i].status == CBR_ERR_STALE);
    CHECK_EQ(waiters[i].destroyed, 1);
  }
}

/* destroy on another thread is still running: the wait must not return before it has. */
static void lingers(struct subject *it) {
  struct occupant *gates = (struct occupant *)it->extra;
  gate_open(&gates->inside);
  gate_pass(&gates->leave);
}

static void *unregisters(void *arg) {
  CHECK_OK(cbr_unregister(((struct subject *)arg)->handle));
  return NULL;
}

TEST(wait_waits_for_a_destroy_that_is_running) {
  struct subject it;
  struct occupant gates;
  struct waiter waiter;
  gate_init(&gates.inside);
  gate_init(&gates.leave);
  subject_register(&it);
  it.on_destroy = lingers;
  it.extra = &gates;
  pthread_t ender = start(unregisters, &it);
  gate_pass(&gates.inside);
  CHECK_STATUS(cbr_unregister_wait(it.handle, 0), CBR_ERR_TIMEOUT);
  CHECK_STATUS(cbr_unregister_wait(it.handle, 10 * MS), CBR_ERR_TIMEOUT);
  CHECK_STATUS(cbr_unregister(it.handle), CBR_ERR_STALE);
  waiter_start(&waiter, &it, -1);
  gate_open(&gates.leave);
  join(waiter.thread);
  CHECK(waiter.status == CBR_OK || waiter.status == CBR_ERR_STALE);
  CHECK_EQ(waiter.destroyed, 1);
  join(ender);
}

TEST(wait_waits_for_a_hold) {
  struct subject it;
  struct waiter waiter;
  cbr_pin pin;
  subject_register(&it);
  CHECK_OK(cbr_hold(it.handle, 0, &pin));
  waiter_start(&waiter, &it, -1);
  POLL_UNTIL(!cbr_is_live(it.handle));
  CHECK_STATUS(cbr_unregister_wait(it.handle, 5 * MS), CBR_ERR_TIMEOUT);
  CHECK_OK(cbr_leave(&pin));
  join(waiter.thread);
  CHECK(waiter.status == CBR_OK || waiter.status == CBR_ERR_STALE);
  CHECK_EQ(waiter.destroyed, 1);
}

/* Any thread may leave a hold, so waiting for one's own is no deadlock: a deadline ends it. */
TEST(waiting_for_ones_own_hold_is_a_timeout_and_no_deadlock) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  CHECK_OK(cbr_hold(it.handle, 0, &pin));
  CHECK_STATUS(cbr_unregister_wait(it.handle, 20 * MS), CBR_ERR_TIMEOUT);
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(it.destroyed, 1);
}

TEST(the_place_of_a_callback_waited_for_can_be_used_again) {
  struct subject it;
  struct waiter waiter;
  struct occupant guest;
  for (long round = 0; round < scaled(2000); round++) {
    subject_register(&it);
    occupy(&guest, &it);
    waiter_start(&waiter, &it, -1);
    CHECK_OK(vacate(&guest));
    join(waiter.thread);
    CHECK_OK(waiter.status);
    CHECK_EQ(waiter.destroyed, 1);
  }
}
