/* Threads that end: inside a pin, a call or a destroy function, and in their last destructors. */
#include "support_child.h"
#include "support_subject.h"

/* Ended, and nothing of it is in the way any more. */
static void check_can_end(struct subject *it) {
  CHECK_EQ(subject_destroyed(it), 0);
  CHECK_OK(cbr_unregister_wait(it->handle, -1));
  CHECK_EQ(it->destroyed, 1);
}

/* --- inside a pin ------------------------------------------------------------------------- */

static void *enters_and_ends(void *arg) {
  cbr_pin pin;
  CHECK_OK(cbr_enter(((struct subject *)arg)->handle, 0, &pin));
  return NULL;
}

TEST(a_thread_that_ends_inside_a_pin_releases_it) {
  struct subject it;
  subject_register(&it);
  run_on_thread(enters_and_ends, &it);
  check_can_end(&it);
}

static void *enters_unregisters_and_ends(void *arg) {
  struct subject *it = (struct subject *)arg;
  cbr_pin pins[5];
  for (int i = 0; i < 5; i++) CHECK_OK(cbr_enter(it->handle, 0, &pins[i]));
  CHECK_OK(cbr_leave(&pins[2]));
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_EQ(it->destroyed, 0);
  return NULL;
}

TEST(destroy_runs_when_the_thread_that_held_the_last_pin_has_ended) {
  struct subject it;
  subject_register(&it);
  pthread_t thread = start(enters_unregisters_and_ends, &it);
  join(thread);
  CHECK_EQ(it.destroyed, 1);
  CHECK(pthread_equal(it.destroyed_on, thread));
}

struct parting {
  struct subject *subject;
  gate inside;
};

static void *enters_says_so_and_ends(void *arg) {
  struct parting *self = (struct parting *)arg;
  cbr_pin pin;
  CHECK_OK(cbr_enter(self->subject->handle, 0, &pin));
  gate_open(&self->inside);
  return NULL;
}

TEST(waiting_for_a_thread_that_ends_inside_a_pin_comes_to_an_end) {
  struct subject it;
  struct parting self = {.subject = &it};
  gate_init(&self.inside);
  for (long i = 0; i < scaled(1000); i++) {
    subject_register(&it);
    pthread_t thread = start(enters_says_so_and_ends, &self);
    gate_pass(&self.inside);
    CHECK_OK(cbr_unregister_wait(it.handle, -1)); /* its thread is just ending, or has ended */
    CHECK_EQ(subject_destroyed(&it), 1);
    join(thread);
  }
}

struct kept_pin {
  struct subject *subject;
  cbr_pin pin;
};

static void *enters_keeps_and_ends(void *arg) {
  struct kept_pin *kept = (struct kept_pin *)arg;
  CHECK_OK(cbr_enter(kept->subject->handle, 0, &kept->pin));
  return NULL;
}

static void *a_new_threads_pin_is_its_own(void *arg) {
  struct kept_pin *kept = (struct kept_pin *)arg;
  cbr_pin mine, old = kept->pin;
  CHECK_OK(cbr_enter(kept->subject->handle, 0, &mine));
  CHECK(cbr_leave(&old) != CBR_OK); /* of a thread that is gone, whose place may be ours now */
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_unregister(kept->subject->handle));
  CHECK_EQ(kept->subject->destroyed, 0);
  CHECK_OK(cbr_leave(&mine));
  CHECK_EQ(kept->subject->destroyed, 1);
  return NULL;
}

TEST(the_pin_of_an_ended_thread_cannot_be_left_by_its_successor) {
  struct subject it;
  struct kept_pin kept;
  subject_register(&it);
  kept.subject = &it;
  run_on_thread(enters_keeps_and_ends, &kept);
  run_on_thread(a_new_threads_pin_is_its_own, &kept);
}

CHILD(ends_a_thread_inside_a_named_pin) {
  struct subject it;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.name = "forgotten-by-its-thread";
  CHECK_OK(cbr_register_with(&options, &it.handle));
  run_on_thread(enters_and_ends, &it);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_pin_that_its_thread_forgot_is_logged_with_the_callbacks_name) {
  char output[4096];
  check_child("ends_a_thread_inside_a_named_pin", "CALLBRIDGE_LOG", "warn", output, sizeof output);
  CHECK_CONTAINS(output, "forgotten-by-its-thread");
  check_child("ends_a_thread_inside_a_named_pin", "CALLBRIDGE_LOG", "off", output, sizeof output);
  CHECK_STR(output, "");
}

/* --- pthread_exit and pthread_cancel inside a call ---------------------------------------- */

static intptr_t exits(struct subject *it, void *arg) {
  if (arg != NULL) CHECK_OK(cbr_unregister(it->handle));
  add_int(&it->running, -1); /* subject_fn will not get to it */
  pthread_exit((void *)4711);
}

static void *calls_and_exits(void *arg) {
  subject_run((struct subject *)arg, exits, NULL, NULL);
  FAIL("pthread_exit has returned");
}

static void *calls_unregisters_and_exits(void *arg) {
  subject_run((struct subject *)arg, exits, arg, NULL);
  FAIL("pthread_exit has returned");
}

TEST(pthread_exit_inside_a_callback_ends_the_thread_and_the_call) {
  struct subject it;
  subject_register(&it);
  CHECK_EQ((intptr_t)run_on_thread(calls_and_exits, &it), 4711);
  check_can_end(&it);
}

TEST(destroy_runs_when_pthread_exit_ends_the_last_call) {
  struct subject it;
  subject_register(&it);
  CHECK_EQ((intptr_t)run_on_thread(calls_unregisters_and_exits, &it), 4711);
  CHECK_EQ(it.destroyed, 1);
}

struct nest {
  struct subject *subjects;
  int left;
};

static intptr_t nests_and_exits(struct subject *it, void *arg) {
  struct nest *nest = (struct nest *)arg;
  CHECK_OK(cbr_unregister(it->handle));
  add_int(&it->running, -1);
  if (--nest->left == 0) pthread_exit(NULL);
  subject_run(it + 1, nests_and_exits, nest, NULL);
  FAIL("pthread_exit has returned");
}

static void *runs_nest(void *arg) {
  struct nest *nest = (struct nest *)arg;
  subject_run(nest->subjects, nests_and_exits, nest, NULL);
  FAIL("pthread_exit has returned");
}

TEST(pthread_exit_leaves_every_enclosing_call) {
  enum { DEPTH = 50 };
  struct subject subjects[DEPTH];
  struct nest nest = {subjects, DEPTH};
  for (int i = 0; i < DEPTH; i++) subject_register(&subjects[i]);
  run_on_thread(runs_nest, &nest);
  for (int i = 0; i < DEPTH; i++) CHECK_EQ(subjects[i].destroyed, 1);
}

static intptr_t stays_to_be_cancelled(struct subject *it, void *arg) {
  gate *inside = (gate *)arg;
  add_int(&it->running, -1);
  gate_open(inside);
  while (pause() != 0) { /* a cancellation point, and it never returns 0 */
  }
  return 0;
}

struct cancelled {
  struct subject *subject;
  gate inside;
};

static void *calls_to_be_cancelled(void *arg) {
  struct cancelled *self = (struct cancelled *)arg;
  subject_run(self->subject, stays_to_be_cancelled, &self->inside, NULL);
  FAIL("the call has returned");
}

TEST(pthread_cancel_inside_a_callback_ends_the_thread_and_the_call) {
  struct subject it;
  struct cancelled self = {.subject = &it};
  gate_init(&self.inside);
  for (int revoked_before = 0; revoked_before < 2; revoked_before++) {
    subject_register(&it);
    pthread_t thread = start(calls_to_be_cancelled, &self);
    gate_pass(&self.inside);
    if (revoked_before) CHECK_OK(cbr_unregister(it.handle));
    CHECK_EQ(subject_destroyed(&it), 0);
    CHECK_EQ(pthread_cancel(thread), 0);
    CHECK(join(thread) == PTHREAD_CANCELED);
    if (revoked_before) CHECK_EQ(it.destroyed, 1);
    else check_can_end(&it);
  }
}

/* --- pthread_exit and pthread_cancel inside destroy --------------------------------------- */

static int destroys_begun;

static void exits_in_destroy(struct subject *it) {
  (void)it;
  add_int(&destroys_begun, 1);
  pthread_exit((void *)4712);
}

static void *unregisters(void *arg) {
  cbr_unregister(((struct subject *)arg)->handle);
  FAIL("pthread_exit has returned");
}

static void *releases(void *arg) {
  cbr_release(((struct subject *)arg)->handle);
  FAIL("pthread_exit has returned");
}

static void *waits(void *arg) {
  cbr_unregister_wait(((struct subject *)arg)->handle, -1);
  FAIL("pthread_exit has returned");
}

static intptr_t unregisters_itself(struct subject *it, void *arg) {
  (void)arg;
  CHECK_OK(cbr_unregister(it->handle));
  return 0;
}

static void *ends_by_its_call(void *arg) {
  subject_run((struct subject *)arg, unregisters_itself, NULL, NULL);
  FAIL("pthread_exit has returned");
}

static void *ends_by_leaving(void *arg) {
  cbr_pin pin;
  CHECK_OK(cbr_enter(((struct subject *)arg)->handle, 0, &pin));
  CHECK_OK(cbr_unregister(((struct subject *)arg)->handle));
  cbr_leave(&pin);
  FAIL("pthread_exit has returned");
}

static void *ends_by_leaving_a_hold(void *arg) {
  cbr_pin pin;
  CHECK_OK(cbr_hold(((struct subject *)arg)->handle, 0, &pin));
  CHECK_OK(cbr_unregister(((struct subject *)arg)->handle));
  cbr_leave(&pin);
  FAIL("pthread_exit has returned");
}

TEST(pthread_exit_inside_destroy_finishes_the_callbacks_end) {
  static const thread_fn ways[] = {unregisters,      releases,        waits,
                                   ends_by_its_call, ends_by_leaving, ends_by_leaving_a_hold};
  for (int i = 0; i < (int)(sizeof ways / sizeof ways[0]); i++) {
    struct subject it;
    subject_register(&it);
    it.on_destroy = exits_in_destroy;
    CHECK_EQ((intptr_t)run_on_thread(ways[i], &it), 4712);
    CHECK_EQ(destroys_begun, i + 1);
    CHECK_STATUS(cbr_unregister_wait(it.handle, -1), CBR_ERR_STALE);
    CHECK_STATUS(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
  }
}

static gate inside_destroy;

static void stays_in_destroy(struct subject *it) {
  (void)it;
  gate_open(&inside_destroy);
  while (pause() != 0) {
  }
}

TEST(pthread_cancel_inside_destroy_lets_waiters_go_on) {
  static const thread_fn ways[] = {unregisters, ends_by_its_call, ends_by_leaving};
  gate_init(&inside_destroy);
  for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
    struct subject it;
    subject_register(&it);
    it.on_destroy = stays_in_destroy;
    pthread_t thread = start(ways[i], &it);
    gate_pass(&inside_destroy);
    CHECK_STATUS(cbr_unregister_wait(it.handle, 0), CBR_ERR_TIMEOUT);
    CHECK_EQ(pthread_cancel(thread), 0);
    cbr_status status = cbr_unregister_wait(it.handle, -1);
    CHECK(status == CBR_OK || status == CBR_ERR_STALE);
    CHECK(join(thread) == PTHREAD_CANCELED);
  }
}
