/* cbr_queue_select: one thread waits for several queues, sleeping while there is nothing. */
#include "support_child.h"
#include "support_queue.h"

enum { QUEUES = 5, NONE = 77 };

static void open_queues(cbr_queue *queues, int count) {
  for (int i = 0; i < count; i++)
    queues[i] = queue_open(8, CBR_QUEUE_REJECT, i % 2 ? CBR_QUEUE_OWNED : 0);
}

static void discard_queues(const cbr_queue *queues, int count) {
  for (int i = 0; i < count; i++) queue_discard(queues[i]);
}

static size_t select_one(const cbr_queue *queues, size_t count, int64_t timeout_ns) {
  size_t index = NONE;
  CHECK_OK(cbr_queue_select(queues, count, timeout_ns, &index));
  CHECK(index < count);
  return index;
}

TEST(the_queue_that_has_an_event_is_named) {
  static const int64_t timeouts[] = {0, 1, -1, INT64_MAX};
  struct ear ear;
  cbr_queue queues[QUEUES];
  ear_register(&ear);
  open_queues(queues, QUEUES);
  for (int t = 0; t < 4; t++) {
    for (int i = 0; i < QUEUES; i++) {
      CHECK_OK(post_number(queues[i], &ear, i));
      CHECK_EQ(select_one(queues, QUEUES, timeouts[t]), i);
      CHECK_EQ(select_one(queues, QUEUES, timeouts[t]), i); /* it takes nothing out */
      CHECK_EQ(select_one(&queues[i], 1, timeouts[t]), 0);
      CHECK_EQ(dispatch_some(queues[i], 0), 1);
      CHECK_HEARD(&ear, i);
    }
  }
  discard_queues(queues, QUEUES);
  ear_end(&ear);
}

TEST(a_queue_that_is_closed_is_ready) {
  for (uint32_t mode = CBR_CLOSE_DRAIN; mode <= CBR_CLOSE_DISCARD; mode++) {
    cbr_queue queues[QUEUES];
    open_queues(queues, QUEUES);
    CHECK_OK(cbr_queue_close(queues[3], mode));
    CHECK_EQ(select_one(queues, QUEUES, -1), 3);
    check_gone(cbr_queue_dispatch(queues[3], 0, 0, NULL));
    CHECK_EQ(select_one(queues, QUEUES, 0), 3); /* also when nothing is left in it */
    CHECK_EQ(select_one(queues, QUEUES, -1), 3);
    discard_queues(queues, 3);
    queue_discard(queues[4]);
  }
}

TEST(when_nothing_is_there_select_says_so_at_once_or_at_the_deadline) {
  cbr_queue queues[QUEUES];
  size_t index = NONE;
  open_queues(queues, QUEUES);
  CHECK_REFUSED(cbr_queue_select(queues, QUEUES, 0, &index), CBR_ERR_EMPTY);
  int64_t start = now_ns();
  CHECK_REFUSED(cbr_queue_select(queues, QUEUES, 20 * MS, &index), CBR_ERR_TIMEOUT);
  CHECK(now_ns() - start >= 20 * MS);
  CHECK_STATUS(cbr_queue_select(queues, QUEUES, 1, &index), CBR_ERR_TIMEOUT);
  CHECK_EQ(index, NONE);
  discard_queues(queues, QUEUES);
}

TEST(what_select_cannot_wait_for_is_refused) {
  struct ear ear;
  size_t index = NONE;
  cbr_queue queues[3];
  ear_register(&ear);
  open_queues(queues, 2);
  queues[2] = ear.handle;
  CHECK_REFUSED(cbr_queue_select(queues, 0, -1, &index), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_queue_select(NULL, 0, -1, &index), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_queue_select(NULL, 2, -1, &index), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_queue_select(queues, 2, -1, NULL), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_queue_select(queues, 2, -2, &index), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_queue_select(queues, 3, -1, &index), CBR_ERR_KIND);
  CHECK_EQ(index, NONE);
  discard_queues(queues, 2);
  ear_end(&ear);
}

static void *selects_what_is_not_its_own(void *arg) {
  size_t index = NONE;
  CHECK_REFUSED(cbr_queue_select((const cbr_queue *)arg, QUEUES, 0, &index), CBR_ERR_THREAD);
  CHECK_STATUS(cbr_queue_select((const cbr_queue *)arg, QUEUES, -1, &index), CBR_ERR_THREAD);
  CHECK_EQ(index, NONE);
  return NULL;
}

TEST(another_thread_cannot_wait_for_an_owned_queue) {
  cbr_queue queues[QUEUES];
  open_queues(queues, QUEUES);
  run_on_thread(selects_what_is_not_its_own, queues);
  discard_queues(queues, QUEUES);
}

TEST(a_queue_may_be_named_twice) {
  struct ear ear;
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0), twice[] = {queue, queue};
  CHECK_STATUS(cbr_queue_select(twice, 2, 1, &(size_t){0}), CBR_ERR_TIMEOUT);
  CHECK_OK(post_number(queue, &ear, 1));
  select_one(twice, 2, -1);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(many_queues_can_be_waited_for) {
  enum { MANY = 300 };
  static cbr_queue queues[MANY];
  struct ear ear;
  ear_register(&ear);
  open_queues(queues, MANY);
  for (int i = 0; i < MANY; i += 13) {
    CHECK_OK(post_number(queues[i], &ear, i));
    CHECK_EQ(select_one(queues, MANY, -1), i);
    CHECK_EQ(dispatch_some(queues[i], 0), 1);
    CHECK_HEARD(&ear, i);
  }
  discard_queues(queues, MANY);
  ear_end(&ear);
}

/* --- fairness -------------------------------------------------------------------------------- */

TEST(of_several_queues_that_are_always_ready_each_gets_its_turn) {
  enum { ROUNDS = 1000 };
  struct subject it;
  cbr_queue queues[QUEUES];
  int turns[QUEUES] = {0}, since[QUEUES] = {0};
  subject_register(&it);
  open_queues(queues, QUEUES);
  for (int i = 0; i < QUEUES; i++) {
    for (int j = 0; j < 8; j++) CHECK_OK(cbr_post(queues[i], it.handle, NULL, 0));
  }
  for (int round = 0; round < ROUNDS; round++) {
    size_t one = select_one(queues, QUEUES, round % 2 ? -1 : 0);
    CHECK_EQ(dispatch_some(queues[one], 1), 1);
    CHECK_OK(cbr_post(queues[one], it.handle, NULL, 0));
    for (int i = 0; i < QUEUES; i++) since[i]++;
    turns[one]++;
    since[one] = 0;
    for (int i = 0; i < QUEUES; i++) CHECK(since[i] < 40 * QUEUES); /* not even by bad luck */
  }
  for (int i = 0; i < QUEUES; i++) CHECK(turns[i] > ROUNDS / QUEUES / 4);
  discard_queues(queues, QUEUES);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- waiting --------------------------------------------------------------------------------- */

struct selector {
  cbr_queue queues[QUEUES];
  int number; /* the kernel's, of its thread */
  long woken[QUEUES];
  bool adopts;
  gate ready;
  pthread_t thread;
};

/* Selects and dispatches, until one of them is closed. */
static void *selects(void *arg) {
  struct selector *self = (struct selector *)arg;
  for (int i = 1; self->adopts && i < QUEUES; i += 2) CHECK_OK(cbr_queue_adopt(self->queues[i]));
  store_int(&self->number, (int)syscall(SYS_gettid));
  gate_open(&self->ready);
  for (;;) {
    size_t one = select_one(self->queues, QUEUES, -1);
    cbr_status status = cbr_queue_dispatch(self->queues[one], 0, 0, NULL);
    if (status != CBR_OK && status != CBR_ERR_EMPTY) {
      check_gone(status);
      return NULL;
    }
    self->woken[one]++;
  }
}

static void selector_start(struct selector *it) {
  memset(it, 0, sizeof *it);
  open_queues(it->queues, QUEUES);
  it->adopts = true;
  gate_init(&it->ready);
  it->thread = start(selects, it);
  gate_pass(&it->ready);
}

static void discard_the_rest(struct selector *it) {
  for (int i = 0; i < QUEUES; i++) {
    cbr_status status = cbr_queue_close(it->queues[i], CBR_CLOSE_DISCARD);
    if (status != CBR_OK) check_gone(status);
  }
}

TEST(a_post_to_any_of_the_queues_wakes_who_waits) {
  struct subject it;
  struct selector selector;
  subject_register(&it);
  selector_start(&selector);
  for (long round = scaled(2000); round > 0; round--) {
    int before = load_int(&it.calls);
    if (round % 8 == 0) POLL_UNTIL(sleeps(&selector.number));
    CHECK_OK(cbr_post(selector.queues[round % QUEUES], it.handle, NULL, 0));
    POLL_UNTIL(load_int(&it.calls) > before);
  }
  CHECK_OK(cbr_queue_close(selector.queues[2], CBR_CLOSE_DISCARD));
  join(selector.thread);
  discard_the_rest(&selector);
  CHECK_EQ(it.calls, scaled(2000));
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_close_of_any_of_the_queues_wakes_who_waits) {
  for (int i = 0; i < QUEUES; i++) {
    for (uint32_t mode = CBR_CLOSE_DRAIN; mode <= CBR_CLOSE_DISCARD; mode++) {
      struct selector selector;
      selector_start(&selector);
      POLL_UNTIL(sleeps(&selector.number));
      CHECK_OK(cbr_queue_close(selector.queues[i], mode));
      join(selector.thread);
      discard_the_rest(&selector);
    }
  }
}

TEST(a_destroy_that_comes_to_one_of_the_queues_wakes_who_waits) {
  struct selector selector;
  selector_start(&selector);
  for (long round = scaled(300); round > 0; round--) {
    struct subject it;
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    subject_reset(&it);
    options.fn = (cbr_any_fn)subject_fn;
    options.user_data = &it;
    options.destroy = subject_destroy;
    options.destroy_queue = selector.queues[round % 2 ? 1 : 3];
    CHECK_OK(cbr_register_with(&options, &it.handle));
    if (round % 8 == 0) POLL_UNTIL(sleeps(&selector.number));
    CHECK_OK(cbr_unregister_wait(it.handle, -1));
    CHECK_EQ(subject_destroyed(&it), 1);
    CHECK(pthread_equal(it.destroyed_on, selector.thread));
  }
  CHECK_OK(cbr_queue_close(selector.queues[0], CBR_CLOSE_DISCARD));
  join(selector.thread);
  discard_the_rest(&selector);
}

static int64_t cpu_ns(void) {
  struct timespec t;
  CHECK_EQ(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

TEST(waiting_for_several_queues_takes_no_processor) {
  cbr_queue queues[QUEUES];
  struct ear ear;
  size_t index = NONE;
  ear_register(&ear);
  open_queues(queues, QUEUES);
  for (int i = 0; i < QUEUES; i++) { /* having had events changes nothing */
    if (i % 2) CHECK_OK(post_number(queues[i], &ear, i));
    dispatch_all(queues[i]);
  }
  int64_t before = cpu_ns();
  CHECK_STATUS(cbr_queue_select(queues, QUEUES, 400 * MS, &index), CBR_ERR_TIMEOUT);
  CHECK(cpu_ns() - before < (under_valgrind() ? 200 : 40) * MS);
  discard_queues(queues, QUEUES);
  ear_end(&ear);
}

TEST(waiting_in_a_dispatch_takes_no_processor) {
  static const uint32_t flags[] = {0, CBR_QUEUE_OWNED};
  for (int i = 0; i < 2; i++) {
    cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, flags[i]);
    int64_t before = cpu_ns();
    CHECK_STATUS(cbr_queue_dispatch(queue, 0, 300 * MS, NULL), CBR_ERR_TIMEOUT);
    CHECK(cpu_ns() - before < (under_valgrind() ? 150 : 30) * MS);
    queue_discard(queue);
  }
}

TEST(waiting_for_room_takes_no_processor) {
  struct ear ear;
  struct payload payload;
  ear_register(&ear);
  cbr_queue queue = queue_open(1, CBR_QUEUE_BLOCK, 0);
  CHECK_OK(post_number(queue, &ear, 1));
  payload_init(&payload, 2);
  cbr_post_options options = payload_options(&payload, queue, ear.handle);
  options.timeout_ns = 300 * MS;
  int64_t before = cpu_ns();
  CHECK_STATUS(cbr_post_with(&options), CBR_ERR_TIMEOUT);
  CHECK(cpu_ns() - before < (under_valgrind() ? 150 : 30) * MS);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(waiting_for_a_call_on_another_thread_takes_no_processor) {
  struct subject it;
  subject_register(&it);
  cbr_queue queue = queue_open(1, CBR_QUEUE_BLOCK, 0);
  int64_t before = cpu_ns();
  CHECK_STATUS(cbr_call_on(queue, it.handle, NULL, 300 * MS, NULL), CBR_ERR_TIMEOUT);
  CHECK(cpu_ns() - before < (under_valgrind() ? 150 : 30) * MS);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

/* Several threads wait for the same queues: each event is dispatched once, and everybody is told of
 * the close. */
TEST(several_threads_may_wait_for_the_same_queues) {
  enum { THREADS = 3 };
  struct subject it;
  struct selector selectors[THREADS];
  cbr_queue queues[QUEUES];
  subject_register(&it);
  for (int i = 0; i < QUEUES; i++) queues[i] = queue_open(0, CBR_QUEUE_BLOCK, 0);
  for (int i = 0; i < THREADS; i++) {
    memset(&selectors[i], 0, sizeof selectors[i]);
    memcpy(selectors[i].queues, queues, sizeof queues);
    gate_init(&selectors[i].ready);
    selectors[i].thread = start(selects, &selectors[i]);
    gate_pass(&selectors[i].ready);
  }
  for (long i = 0; i < scaled(3000); i++)
    CHECK_OK(cbr_post(queues[i % QUEUES], it.handle, NULL, 0));
  POLL_UNTIL(load_int(&it.calls) == scaled(3000));
  CHECK_OK(cbr_queue_close(queues[1], CBR_CLOSE_DISCARD));
  for (int i = 0; i < THREADS; i++) join(selectors[i].thread);
  CHECK_EQ(it.calls, scaled(3000));
  discard_the_rest(&selectors[0]);
  CHECK_OK(cbr_unregister(it.handle));
}
