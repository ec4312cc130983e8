/* Posts against who goes to sleep, and against the end of the queue, one at a time: what is missed is
 * not made good by the next one. */
#include "support_queue.h"
#include "support_race.h"

/* --- a dispatcher that goes to sleep --------------------------------------------------------- */

static struct {
  cbr_queue queue;
  int answered;
} sleeping;

static intptr_t answers(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  add_int(&sleeping.answered, 1);
  return 0;
}

static void *dispatches(void *arg) {
  cbr_status status;
  take_core(1);
  while ((status = cbr_queue_dispatch(sleeping.queue, 0, -1, NULL)) == CBR_OK) {}
  check_gone(status);
  return arg;
}

/* Every event comes when the last one has just been dispatched. A wake-up that is lost leaves both
 * asleep until the watchdog comes. */
TEST(a_dispatcher_that_is_about_to_sleep_misses_no_lone_event) {
  struct racer self;
  cbr_handle handle = 0;
  int sent = 0;
  racers_init(&self, 1, NULL);
  CHECK_OK(cbr_register(answers, NULL, NULL, &handle));
  sleeping.queue = queue_open(4, CBR_QUEUE_BLOCK, 0);
  pthread_t dispatcher = start(dispatches, NULL);
  take_core(0);
  for (int64_t end = race_end(); now_ns() < end;) {
    CHECK_OK(cbr_post(sleeping.queue, handle, NULL, 0));
    sent++;
    for (unsigned spins = 1; load_int(&sleeping.answered) < sent; spins++) {
      if (spins % 4096 == 0) sched_yield();
    }
    dawdle(&self, 1000);
  }
  CHECK_OK(cbr_queue_close(sleeping.queue, CBR_CLOSE_DRAIN));
  join(dispatcher);
  CHECK_OK(cbr_unregister_wait(handle, -1));
  racers_free(&self, 1);
  printf("%s: %d events\n", harness_current, sent);
}

/* --- the end of a queue ---------------------------------------------------------------------- */

static struct {
  cbr_queue queue, left; /* published for the poster; seen gone by it */
  cbr_handle handle;
  long run;             /* posts to this queue so far */
  long accepted, freed; /* to all queues */
  int stop;
} ending;

static void counts_freed(void *data) {
  (void)data;
  __atomic_add_fetch(&ending.freed, 1, __ATOMIC_RELAXED);
}

static intptr_t is_not_called(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  FAIL("nobody dispatches");
  return 0;
}

static void *posts_in_long_runs(void *arg) {
  struct racer *self = (struct racer *)arg;
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  take_core(1);
  options.handle = ending.handle;
  options.data = &ending;
  options.len = sizeof ending;
  options.free_data = counts_freed;
  while (!load_int(&ending.stop)) {
    cbr_status status;
    options.queue = __atomic_load_n(&ending.queue, __ATOMIC_ACQUIRE);
    if (options.queue == ending.left) continue;
    for (long run = 0; (status = cbr_post_with(&options)) == CBR_OK;) {
      ending.accepted++;
      __atomic_store_n(&ending.run, ++run, __ATOMIC_RELEASE);
      if (run > 2000) fill_store_buffer(self);
    }
    check_gone(status);
    __atomic_store_n(&ending.left, options.queue, __ATOMIC_RELEASE);
  }
  return NULL;
}

/* A thread that has posted to one queue thousands of times says nothing to anybody any more when it
 * enters it. */
TEST(closing_a_queue_under_a_long_run_of_posts_loses_no_payload) {
  struct racer racers[2];
  long queues = 0;
  racers_init(racers, 2, NULL);
  CHECK_OK(cbr_register(is_not_called, NULL, NULL, &ending.handle));
  racers[1].thread = start(posts_in_long_runs, &racers[1]);
  take_core(0);
  for (int64_t end = race_end(); now_ns() < end || queues == 0; queues++) {
    cbr_queue queue = queue_open(1, CBR_QUEUE_DROP_OLDEST, 0);
    long most = 2000 + (long)rng_below(&racers[0].rng, 150);
    __atomic_store_n(&ending.run, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&ending.queue, queue, __ATOMIC_RELEASE);
    for (unsigned spins = 1; __atomic_load_n(&ending.run, __ATOMIC_ACQUIRE) < most; spins++) {
      if (spins % 4096 == 0) sched_yield();
    }
    dawdle(&racers[0], 300);
    CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
    for (unsigned spins = 1; __atomic_load_n(&ending.left, __ATOMIC_ACQUIRE) != queue; spins++) {
      if (spins % 4096 == 0) sched_yield();
    }
    CHECK_EQ(__atomic_load_n(&ending.freed, __ATOMIC_ACQUIRE), ending.accepted);
  }
  store_int(&ending.stop, 1);
  join(racers[1].thread);
  CHECK_OK(cbr_unregister_wait(ending.handle, -1));
  racers_free(racers, 2);
  printf("%s: %ld queues\n", harness_current, queues);
}
