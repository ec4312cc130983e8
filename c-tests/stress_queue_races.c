/* Posts against who goes to sleep, one at a time: what is missed is not made good by the next one. */
#include "support_queue.h"
#include "support_race.h"

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
