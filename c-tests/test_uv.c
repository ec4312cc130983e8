/* callbridge_uv.h: queues in a libuv loop. */
#include "support_loops.h"

#include <callbridge_uv.h>

static uv_loop_t loop;
static cbr_uv adapter;
static int ends, closes, rounds;
static cbr_status last_end;

static void on_ended(cbr_uv *it, cbr_status status) {
  CHECK(!uv_is_active((uv_handle_t *)&it->poll));
  ends++;
  last_end = status;
}

/* Its memory is the host's again. */
static void on_closed(cbr_uv *it) {
  CHECK(it == &adapter);
  memset(it, 0xdb, sizeof *it);
  closes++;
}

static void on_ended_close(cbr_uv *it, cbr_status status) {
  on_ended(it, status);
  CHECK_OK(cbr_uv_close(it, on_closed));
}

static void on_time(uv_timer_t *timer) { uv_stop(timer->loop); }

static void on_round(uv_prepare_t *prepare) {
  (void)prepare;
  rounds++;
}

/* Runs the loop for so long, and counts its rounds. */
static void run_for(uint64_t ms) {
  uv_timer_t timer;
  uv_prepare_t prepare;
  CHECK_EQ(uv_timer_init(&loop, &timer), 0);
  CHECK_EQ(uv_prepare_init(&loop, &prepare), 0);
  CHECK_EQ(uv_timer_start(&timer, on_time, ms, 0), 0);
  CHECK_EQ(uv_prepare_start(&prepare, on_round), 0);
  rounds = 0;
  uv_run(&loop, UV_RUN_DEFAULT);
  uv_close((uv_handle_t *)&timer, NULL);
  uv_close((uv_handle_t *)&prepare, NULL);
  uv_run(&loop, UV_RUN_NOWAIT);
}

static void begin(struct loop_subject *it, const cbr_queue_options *options, size_t budget) {
  loop_subject_open(it, options);
  CHECK_EQ(uv_loop_init(&loop), 0);
  CHECK_OK(cbr_uv_init(&adapter, &loop, it->queue, budget));
}

/* Nothing is left in the loop once the adapter is closed. */
static void finish(void) {
  if (!closes) CHECK_OK(cbr_uv_close(&adapter, on_closed));
  uv_run(&loop, UV_RUN_DEFAULT);
  CHECK_EQ(closes, 1);
  CHECK_EQ(uv_loop_close(&loop), 0);
}

TEST(what_threads_post_runs_in_the_loop) {
  struct loop_subject it;
  pthread_t threads[POSTERS];
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  options.policy = CBR_QUEUE_BLOCK;
  options.capacity = 16;
  begin(&it, &options, 8);
  CHECK_OK(cbr_uv_start(&adapter, on_ended_close));
  for (int i = 0; i < POSTERS; i++) threads[i] = start(run_poster, &it);
  while (it.calls < POSTERS * POSTS) uv_run(&loop, UV_RUN_ONCE);
  for (int i = 0; i < POSTERS; i++) join(threads[i]);
  CHECK_OK(cbr_queue_close(it.queue, CBR_CLOSE_DRAIN));
  uv_run(&loop, UV_RUN_DEFAULT);
  finish();
  CHECK_EQ(it.calls, POSTERS * POSTS);
  CHECK_EQ(ends, 1);
}

TEST(events_from_before_the_adapter_are_dispatched) {
  struct loop_subject it;
  loop_subject_open(&it, NULL);
  post(&it, 3);
  CHECK_EQ(uv_loop_init(&loop), 0);
  CHECK_OK(cbr_uv_init(&adapter, &loop, it.queue, 0));
  uv_run(&loop, UV_RUN_NOWAIT);
  CHECK_EQ(it.calls, 0); /* not started */
  CHECK_OK(cbr_uv_start(&adapter, NULL));
  uv_run(&loop, UV_RUN_NOWAIT);
  CHECK_EQ(it.calls, 3);
  finish();
}

TEST(a_budget_lets_the_loop_get_to_its_other_handles) {
  struct loop_subject it;
  begin(&it, NULL, 10);
  post(&it, 95);
  CHECK_OK(cbr_uv_start(&adapter, NULL));
  for (int round = 1; round <= 9; round++) {
    uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_EQ(it.calls, 10 * round);
  }
  uv_run(&loop, UV_RUN_NOWAIT);
  CHECK_EQ(it.calls, 95);
  finish();
}

TEST(an_idle_queue_leaves_the_loop_asleep) {
  struct loop_subject it;
  begin(&it, NULL, 0);
  CHECK_OK(cbr_uv_start(&adapter, NULL));
  post(&it, 5);
  uv_run(&loop, UV_RUN_NOWAIT);
  CHECK_EQ(it.calls, 5);
  run_for(100);
  CHECK(rounds < 10);
  finish();
}

TEST(a_stopped_queue_fills_up_and_goes_on_when_started) {
  struct loop_subject it;
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  options.capacity = 4;
  begin(&it, &options, 0);
  CHECK_OK(cbr_uv_start(&adapter, NULL));
  CHECK_OK(cbr_uv_stop(&adapter));
  CHECK_OK(cbr_uv_stop(&adapter));
  post(&it, 4);
  uv_run(&loop, UV_RUN_NOWAIT);
  CHECK_EQ(it.calls, 0);
  CHECK_REFUSED(cbr_post(it.queue, it.handle, NULL, 0), CBR_ERR_FULL);
  CHECK_OK(cbr_uv_start(&adapter, NULL));
  CHECK_OK(cbr_uv_start(&adapter, NULL));
  uv_run(&loop, UV_RUN_NOWAIT);
  CHECK_EQ(it.calls, 4);
  post(&it, 4);
  finish();
}

static void stop_adapter(struct loop_subject *it) {
  (void)it;
  CHECK_OK(cbr_uv_stop(&adapter));
}

TEST(a_stop_inside_a_callback_comes_after_the_budget) {
  struct loop_subject it;
  begin(&it, NULL, 4);
  it.at = 2;
  it.then = stop_adapter;
  post(&it, 10);
  CHECK_OK(cbr_uv_start(&adapter, NULL));
  run_for(20);
  CHECK_EQ(it.calls, 4);
  CHECK_EQ(waiting(&it), 6);
  finish();
}

TEST(a_drained_queue_tells_its_end_once_and_leaves_the_loop_asleep) {
  struct loop_subject it;
  begin(&it, NULL, 2);
  CHECK_OK(cbr_uv_start(&adapter, on_ended));
  post(&it, 5);
  CHECK_OK(cbr_queue_close(it.queue, CBR_CLOSE_DRAIN));
  run_for(100);
  CHECK_EQ(it.calls, 5);
  CHECK_EQ(ends, 1);
  CHECK_STATUS(last_end, CBR_ERR_CLOSED);
  CHECK(rounds < 20);
  /* Started again it tells again. */
  CHECK_OK(cbr_uv_start(&adapter, on_ended_close));
  uv_run(&loop, UV_RUN_DEFAULT);
  finish();
  CHECK_EQ(ends, 2);
}

TEST(a_queue_without_ended_function_stops_all_the_same) {
  struct loop_subject it;
  begin(&it, NULL, 0);
  CHECK_OK(cbr_uv_start(&adapter, NULL));
  CHECK_OK(cbr_queue_close(it.queue, CBR_CLOSE_DISCARD));
  uv_run(&loop, UV_RUN_DEFAULT); /* nothing else would keep it running */
  CHECK(!uv_is_active((uv_handle_t *)&adapter.poll));
  finish();
}

static void *run_closer(void *arg) {
  struct loop_subject *it = (struct loop_subject *)arg;
  usleep(20000);
  CHECK_OK(cbr_queue_close(it->queue, CBR_CLOSE_DISCARD));
  return NULL;
}

TEST(a_close_from_another_thread_wakes_the_loop) {
  struct loop_subject it;
  begin(&it, NULL, 0);
  CHECK_OK(cbr_uv_start(&adapter, on_ended_close));
  pthread_t closer = start(run_closer, &it);
  uv_run(&loop, UV_RUN_DEFAULT);
  join(closer);
  CHECK_EQ(ends, 1);
  CHECK_EQ(closes, 1);
  finish();
}

static void close_queue(struct loop_subject *it) { CHECK_OK(cbr_queue_close(it->queue, CBR_CLOSE_DISCARD)); }

TEST(a_callback_may_discard_its_queue) {
  struct loop_subject it;
  begin(&it, NULL, 0);
  it.at = 2;
  it.then = close_queue;
  post(&it, 5);
  CHECK_OK(cbr_uv_start(&adapter, on_ended_close));
  uv_run(&loop, UV_RUN_DEFAULT);
  CHECK_EQ(it.calls, 2);
  CHECK_EQ(ends, 1);
  finish();
}

static void close_adapter(struct loop_subject *it) {
  (void)it;
  CHECK_OK(cbr_uv_close(&adapter, on_closed));
  CHECK_STATUS(cbr_uv_close(&adapter, on_closed), CBR_ERR_STALE);
  CHECK_STATUS(cbr_uv_start(&adapter, on_ended), CBR_ERR_STALE);
  CHECK_STATUS(cbr_uv_stop(&adapter), CBR_ERR_STALE);
}

static void close_both(struct loop_subject *it) {
  close_adapter(it);
  close_queue(it);
}

TEST(a_callback_may_close_its_adapter) {
  struct loop_subject it;
  begin(&it, NULL, 3);
  it.at = 2;
  it.then = close_adapter;
  post(&it, 5);
  CHECK_OK(cbr_uv_start(&adapter, on_ended));
  uv_run(&loop, UV_RUN_DEFAULT);
  CHECK_EQ(it.calls, 3);
  CHECK_EQ(waiting(&it), 2);
  CHECK_EQ(ends, 0);
  finish();
}

TEST(a_callback_may_close_its_adapter_and_its_queue) {
  struct loop_subject it;
  begin(&it, NULL, 3);
  it.at = 2;
  it.then = close_both;
  post(&it, 5);
  CHECK_OK(cbr_uv_start(&adapter, on_ended));
  uv_run(&loop, UV_RUN_DEFAULT);
  CHECK_EQ(it.calls, 2);
  CHECK_EQ(ends, 0);
  finish();
}

TEST(a_queue_outlives_its_adapter_and_gets_another_one) {
  struct loop_subject it;
  begin(&it, NULL, 0);
  CHECK_OK(cbr_uv_start(&adapter, on_ended));
  CHECK_OK(cbr_uv_close(&adapter, NULL));
  uv_run(&loop, UV_RUN_DEFAULT);
  post(&it, 2);
  CHECK_OK(cbr_uv_init(&adapter, &loop, it.queue, 0));
  CHECK_OK(cbr_uv_start(&adapter, on_ended));
  uv_run(&loop, UV_RUN_NOWAIT);
  CHECK_EQ(it.calls, 2);
  finish();
  CHECK_EQ(ends, 0);
}

TEST(the_descriptor_is_closed_with_the_adapter) {
  struct loop_subject it;
  loop_subject_open(&it, NULL);
  CHECK_EQ(uv_loop_init(&loop), 0);
  int before = open_descriptors();
  for (int i = 0; i < 10; i++) {
    CHECK_OK(cbr_uv_init(&adapter, &loop, it.queue, 0));
    CHECK_OK(cbr_uv_start(&adapter, NULL));
    uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_EQ(open_descriptors(), before + 1);
    CHECK_OK(cbr_uv_close(&adapter, NULL));
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_EQ(open_descriptors(), before);
  }
  /* Nor is it left behind in the epoll set, where events would be seen for ever. */
  post(&it, 1);
  run_for(50);
  CHECK(rounds < 10);
  CHECK_EQ(uv_loop_close(&loop), 0);
}

TEST(an_owned_queue_of_another_thread_is_refused_at_its_first_event) {
  struct loop_subject it;
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  options.flags = CBR_QUEUE_OWNED;
  begin(&it, &options, 0);
  run_on_thread(run_adopter, &it);
  CHECK_OK(cbr_uv_start(&adapter, on_ended));
  post(&it, 1);
  uv_run(&loop, UV_RUN_DEFAULT);
  CHECK_EQ(ends, 1);
  CHECK_STATUS(last_end, CBR_ERR_THREAD);
  CHECK_OK(cbr_queue_adopt(it.queue));
  CHECK_OK(cbr_uv_start(&adapter, on_ended));
  uv_run(&loop, UV_RUN_NOWAIT);
  CHECK_EQ(it.calls, 1);
  finish();
}

TEST(init_refuses_what_is_no_open_queue_and_leaves_nothing_in_the_loop) {
  struct loop_subject it;
  loop_subject_open(&it, NULL);
  CHECK_EQ(uv_loop_init(&loop), 0);
  int before = open_descriptors();
  CHECK_STATUS(cbr_uv_init(NULL, &loop, it.queue, 0), CBR_ERR_INVALID);
  CHECK_STATUS(cbr_uv_init(&adapter, NULL, it.queue, 0), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_uv_init(&adapter, &loop, it.handle, 0), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_uv_init(&adapter, &loop, 0, 0), CBR_ERR_STALE);
  CHECK_EQ(open_descriptors(), before);
  CHECK_OK(cbr_queue_close(it.queue, CBR_CLOSE_DISCARD));
  cbr_status status = cbr_uv_init(&adapter, &loop, it.queue, 0);
  CHECK(status == CBR_ERR_CLOSED || status == CBR_ERR_STALE);
  CHECK_EQ(uv_loop_close(&loop), 0);
}

TEST(init_without_a_free_descriptor_is_refused) {
  struct loop_subject it;
  loop_subject_open(&it, NULL);
  CHECK_EQ(uv_loop_init(&loop), 0);
  rlim_t before = forbid_descriptors();
  cbr_status status = cbr_uv_init(&adapter, &loop, it.queue, 0);
  allow_descriptors(before);
  CHECK_STATUS(status, CBR_ERR_SYSTEM);
  CHECK_EQ(uv_loop_close(&loop), 0);
}

struct other_loop {
  uv_loop_t loop;
  cbr_uv adapter;
  cbr_queue queue;
};

static void *run_other_loop(void *arg) {
  struct other_loop *other = (struct other_loop *)arg;
  CHECK_EQ(uv_loop_init(&other->loop), 0);
  CHECK_OK(cbr_uv_init(&other->adapter, &other->loop, other->queue, 1));
  CHECK_OK(cbr_uv_start(&other->adapter, NULL));
  uv_run(&other->loop, UV_RUN_DEFAULT); /* until the queue has ended */
  CHECK_OK(cbr_uv_close(&other->adapter, NULL));
  uv_run(&other->loop, UV_RUN_DEFAULT);
  CHECK_EQ(uv_loop_close(&other->loop), 0);
  return NULL;
}

static intptr_t count_call(void *user_data, void *arg) {
  (void)arg;
  __atomic_fetch_add((int *)user_data, 1, __ATOMIC_RELAXED);
  return 0;
}

TEST(two_loops_share_a_queue_and_each_event_runs_once) {
  struct other_loop others[2];
  pthread_t threads[2];
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_handle handle;
  int calls = 0;
  options.policy = CBR_QUEUE_BLOCK;
  options.capacity = 8;
  CHECK_OK(cbr_queue_open(&options, &others[0].queue));
  CHECK_OK(cbr_register(count_call, &calls, NULL, &handle));
  others[1].queue = others[0].queue;
  for (int i = 0; i < 2; i++) threads[i] = start(run_other_loop, &others[i]);
  for (int i = 0; i < POSTS; i++) CHECK_OK(cbr_post(others[0].queue, handle, NULL, 0));
  CHECK_OK(cbr_queue_close(others[0].queue, CBR_CLOSE_DRAIN));
  for (int i = 0; i < 2; i++) join(threads[i]);
  CHECK_EQ(calls, POSTS);
}
