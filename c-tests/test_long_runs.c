/* The same callback called thousands of times in a row by one thread: whatever the library has
 * learned from that, every promise still holds for the next call. */
#include "support_child.h"
#include "support_subject.h"

#include <setjmp.h>

enum { LONG = 10000 };

static void call_long(struct subject *it) {
  for (int i = 0; i < LONG; i++) CHECK_OK(cbr_call(it->handle, NULL, NULL));
}

static void pin_long(struct subject *it) {
  cbr_pin pin;
  for (int i = 0; i < LONG; i++) {
    CHECK_OK(cbr_enter(it->handle, CBR_SIG_DEFAULT, &pin));
    CHECK_OK(cbr_leave(&pin));
  }
}

/* An occupant whose thread has called in a long run before it stays inside. */
static void *long_occupant_main(void *arg) {
  struct occupant *self = (struct occupant *)arg;
  call_long(self->subject);
  return occupant_main(self);
}

static void occupy_after_a_long_run(struct occupant *self, struct subject *subject) {
  self->subject = subject;
  self->status = 1;
  gate_init(&self->inside);
  gate_init(&self->leave);
  self->thread = start(long_occupant_main, self);
  gate_pass(&self->inside);
}

static intptr_t ends_itself(struct subject *it, void *arg) {
  (void)arg;
  CHECK_EQ(cbr_current(), it->handle);
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_EQ(it->destroyed, 0);
  CHECK_STATUS(cbr_call(it->handle, NULL, NULL), CBR_ERR_STALE);
  CHECK_STATUS(cbr_unregister_wait(it->handle, -1), CBR_ERR_DEADLOCK);
  return 8;
}

TEST(unregister_inside_the_last_call_of_a_long_run) {
  struct subject it;
  intptr_t result = 0;
  for (int pins = 0; pins < 2; pins++) {
    subject_register(&it);
    if (pins) pin_long(&it);
    else call_long(&it);
    CHECK_OK(subject_run(&it, ends_itself, NULL, &result));
    CHECK_EQ(result, 8);
    CHECK_EQ(it.destroyed, 1);
    CHECK_EQ(cbr_depth(), 0);
  }
}

TEST(unregister_after_a_long_run_leaves_a_stale_handle) {
  struct subject it, next;
  for (int i = 0; i < 100; i++) { /* the place is used again, by what was never called in a run */
    subject_register(&it);
    call_long(&it);
    CHECK_OK(cbr_unregister(it.handle));
    CHECK_EQ(it.destroyed, 1);
    CHECK_STATUS(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
    subject_register(&next);
    CHECK_STATUS(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
    CHECK_OK(cbr_call(next.handle, NULL, NULL));
    CHECK_EQ(next.calls, 1);
    CHECK_OK(cbr_unregister(next.handle));
    CHECK_EQ(next.destroyed, 1);
  }
}

TEST(a_call_in_flight_after_a_long_run_keeps_its_data) {
  struct subject it;
  struct occupant guests[2];
  for (int i = 0; i < 20; i++) {
    subject_register(&it);
    occupy_after_a_long_run(&guests[0], &it);
    occupy_after_a_long_run(&guests[1], &it);
    CHECK_OK(cbr_unregister(it.handle));
    CHECK_EQ(subject_destroyed(&it), 0);
    CHECK_STATUS(cbr_unregister_wait(it.handle, 0), CBR_ERR_TIMEOUT);
    CHECK_OK(vacate(&guests[1]));
    CHECK_EQ(subject_destroyed(&it), 0);
    CHECK_OK(vacate(&guests[0]));
    CHECK_EQ(it.destroyed, 1);
  }
}

static void *waits(void *arg) {
  CHECK_OK(cbr_unregister_wait(((struct subject *)arg)->handle, -1));
  CHECK_EQ(subject_destroyed((struct subject *)arg), 1);
  return NULL;
}

TEST(a_wait_for_a_call_after_a_long_run_comes_to_an_end) {
  struct subject it;
  struct occupant guest;
  for (int i = 0; i < 20; i++) {
    subject_register(&it);
    occupy_after_a_long_run(&guest, &it);
    pthread_t waiter = start(waits, &it);
    POLL_UNTIL(!cbr_is_live(it.handle));
    CHECK_OK(vacate(&guest));
    join(waiter);
  }
}

/* --- deadlocks ---------------------------------------------------------------------------- */

struct pair {
  struct subject subjects[2];
  pthread_barrier_t both_inside;
  cbr_status statuses[2];
};

static intptr_t waits_for_the_other(struct subject *it, void *arg) {
  struct pair *pair = (struct pair *)arg;
  int me = it == &pair->subjects[1];
  meet(&pair->both_inside);
  pair->statuses[me] = cbr_unregister_wait(pair->subjects[1 - me].handle, -1);
  return 0;
}

static void *runs_second(void *arg) {
  struct pair *pair = (struct pair *)arg;
  call_long(&pair->subjects[1]);
  CHECK_OK(subject_run(&pair->subjects[1], waits_for_the_other, pair, NULL));
  return NULL;
}

TEST(a_ring_of_waits_is_found_among_calls_after_long_runs) {
  struct pair pair;
  CHECK_EQ(pthread_barrier_init(&pair.both_inside, NULL, 2), 0);
  for (long i = 0; i < scaled(100); i++) {
    for (int j = 0; j < 2; j++) subject_register(&pair.subjects[j]);
    pthread_t thread = start(runs_second, &pair);
    call_long(&pair.subjects[0]);
    CHECK_OK(subject_run(&pair.subjects[0], waits_for_the_other, &pair, NULL));
    join(thread);
    CHECK(pair.statuses[0] == CBR_ERR_DEADLOCK || pair.statuses[1] == CBR_ERR_DEADLOCK);
    for (int j = 0; j < 2; j++) {
      CHECK(pair.statuses[j] == CBR_OK || pair.statuses[j] == CBR_ERR_DEADLOCK);
      CHECK_EQ(pair.subjects[j].destroyed, 1);
    }
  }
}

/* --- nesting, pins, signatures, failures -------------------------------------------------- */

static intptr_t recurses(struct subject *it, void *arg) {
  uint32_t depth = cbr_depth();
  CHECK_STATUS(subject_run(it, recurses, arg, NULL), depth < 4096 ? CBR_OK : CBR_ERR_LIMIT);
  CHECK_EQ(cbr_depth(), depth);
  CHECK_EQ(cbr_current(), it->handle);
  return 0;
}

TEST(recursion_after_a_long_run_nests_as_deep_as_ever) {
  struct subject it;
  subject_register(&it);
  call_long(&it);
  CHECK_OK(subject_run(&it, recurses, NULL, NULL));
  CHECK_EQ(it.calls, LONG + 4096);
  CHECK_EQ(cbr_depth(), 0);
  call_long(&it);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(pins_after_a_long_run_leave_in_any_order) {
  struct subject it, other;
  cbr_pin pins[4];
  subject_register(&it);
  subject_register(&other);
  pin_long(&it);
  for (int i = 0; i < 4; i++) CHECK_OK(cbr_enter(i == 2 ? other.handle : it.handle, 0, &pins[i]));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_OK(cbr_unregister(other.handle));
  CHECK_OK(cbr_leave(&pins[1]));
  CHECK_OK(cbr_leave(&pins[3]));
  CHECK_EQ(it.destroyed + other.destroyed, 0);
  CHECK_OK(cbr_leave(&pins[0]));
  CHECK_EQ(it.destroyed, 1);
  CHECK_OK(cbr_leave(&pins[2]));
  CHECK_EQ(other.destroyed, 1);
}

static intptr_t calls_in_a_run(struct subject *it, void *arg) {
  call_long((struct subject *)arg);
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_EQ(it->destroyed, 0);
  return 0;
}

TEST(a_long_run_inside_another_call_protects_both) {
  struct subject outer, inner;
  subject_register(&outer);
  subject_register(&inner);
  call_long(&outer);
  CHECK_OK(subject_run(&outer, calls_in_a_run, &inner, NULL));
  CHECK_EQ(outer.destroyed, 1);
  CHECK_EQ(inner.destroyed, 0);
  CHECK_OK(cbr_unregister(inner.handle));
  CHECK_EQ(inner.destroyed, 1);
}

TEST(a_long_run_makes_no_signature_right) {
  struct subject it;
  cbr_pin pin;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.signature = CBR_SIG(CBR_I32, CBR_PTR);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  for (int i = 0; i < LONG; i++) {
    CHECK_OK(cbr_enter(it.handle, i % 2 ? 0 : options.signature, &pin));
    CHECK_OK(cbr_leave(&pin));
  }
  CHECK_REFUSED(cbr_call(it.handle, NULL, NULL), CBR_ERR_SIGNATURE);
  CHECK_REFUSED(cbr_enter(it.handle, CBR_SIG_DEFAULT, &pin), CBR_ERR_SIGNATURE);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

static intptr_t fails(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "after a long run"));
  return 0;
}

TEST(a_failure_after_a_long_run_is_that_calls_alone) {
  struct subject it;
  subject_register(&it);
  for (int i = 0; i < 3; i++) {
    call_long(&it);
    CHECK_REFUSED(subject_run(&it, fails, NULL, NULL), CBR_ERR_CALLBACK);
    CHECK_WORDS("after a long run");
  }
  call_long(&it);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- threads that end, jumps, forks ------------------------------------------------------- */

static intptr_t exits(struct subject *it, void *arg) {
  (void)arg;
  add_int(&it->running, -1);
  pthread_exit(NULL);
}

static void *exits_after_a_long_run(void *arg) {
  call_long((struct subject *)arg);
  subject_run((struct subject *)arg, exits, NULL, NULL);
  FAIL("pthread_exit has returned");
}

static void *ends_in_a_pin_after_a_long_run(void *arg) {
  cbr_pin pin;
  pin_long((struct subject *)arg);
  CHECK_OK(cbr_enter(((struct subject *)arg)->handle, 0, &pin));
  return NULL;
}

static void *only_calls(void *arg) {
  call_long((struct subject *)arg);
  return NULL;
}

TEST(a_thread_that_ends_after_a_long_run_is_in_nobodys_way) {
  static const thread_fn ways[] = {exits_after_a_long_run, ends_in_a_pin_after_a_long_run,
                                   only_calls};
  for (int i = 0; i < 30; i++) {
    struct subject it;
    subject_register(&it);
    run_on_thread(ways[i % 3], &it);
    run_on_thread(ways[(i + 1) % 3], &it);
    CHECK_EQ(it.destroyed, 0);
    CHECK_OK(cbr_unregister_wait(it.handle, -1));
    CHECK_EQ(it.destroyed, 1);
  }
}

static jmp_buf out;

static intptr_t jumps(struct subject *it, void *arg) {
  (void)arg;
  add_int(&it->running, -1);
  longjmp(out, 1);
}

TEST(unwind_to_works_after_a_long_run) {
  static struct subject it;
  subject_register(&it);
  call_long(&it);
  if (setjmp(out) == 0) subject_run(&it, jumps, NULL, NULL);
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_unwind_to(0));
  CHECK_EQ(it.destroyed, 1);
}

TEST(fork_after_long_runs_blocks_nothing_in_the_child) {
  struct subject it, mine;
  struct occupant guest;
  subject_register(&it);
  subject_register(&mine);
  occupy_after_a_long_run(&guest, &it);
  call_long(&mine);
  pid_t child = fork_watched();
  if (child == 0) {
    it.running = 0; /* the occupant is not in this process */
    call_long(&mine);
    CHECK_OK(cbr_unregister_wait(mine.handle, -1));
    CHECK_EQ(mine.destroyed, 1);
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    CHECK_OK(cbr_unregister_wait(it.handle, -1));
    CHECK_EQ(it.destroyed, 1);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(subject_destroyed(&it), 0);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(it.destroyed, 1);
  CHECK_OK(cbr_unregister(mine.handle));
}
