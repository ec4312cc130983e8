/* Posts that wait for room: who is woken, when, and who is told that it would be for ever. */
#include "support_child.h"
#include "support_queue.h"

/* A queue without room. */
static cbr_queue full_queue(struct ear *ear, size_t capacity, uint32_t policy) {
  cbr_queue queue = queue_open(capacity, policy, 0);
  for (size_t i = 0; i < capacity; i++) CHECK_OK(post_number(queue, ear, (int)i));
  return queue;
}

TEST(a_post_waits_for_room) {
  struct ear ear;
  struct producer producer;
  ear_register(&ear);
  cbr_queue queue = full_queue(&ear, 2, CBR_QUEUE_BLOCK);
  producer_init(&producer, queue, ear.handle, 7);
  producer_start(&producer);
  CHECK_EQ(load_int(&producer.done), 0);
  CHECK_EQ(queue_len(queue), 2);
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_OK(producer_join(&producer));
  CHECK_EQ(payload_freed(&producer.payload), 0);
  CHECK_EQ(dispatch_all(queue), 2);
  CHECK_HEARD(&ear, 0, 1, 7);
  CHECK_EQ(producer.payload.freed, 1);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(a_post_that_copies_waits_for_room_too) {
  struct ear ear;
  struct loop loop;
  ear_register(&ear);
  cbr_queue queue = full_queue(&ear, 1, CBR_QUEUE_BLOCK);
  loop_start(&loop, queue, false);
  for (int i = 1; i < HEARD; i++) CHECK_OK(post_number(queue, &ear, i));
  loop_end(&loop);
  CHECK_EQ(ear.count, HEARD);
  for (int i = 0; i < HEARD; i++) CHECK_EQ(ear.numbers[i], i);
  ear_end(&ear);
}

static void check_timed(uint32_t policy) {
  struct ear ear;
  struct payload payload;
  ear_register(&ear);
  cbr_queue queue = full_queue(&ear, 1, policy);
  payload_init(&payload, 7);
  cbr_post_options options = payload_options(&payload, queue, ear.handle);
  options.timeout_ns = 20 * MS;
  int64_t start = now_ns();
  CHECK_REFUSED(cbr_post_with(&options), CBR_ERR_TIMEOUT);
  CHECK(now_ns() - start >= 20 * MS);
  CHECK_EQ(payload.freed, 0);
  CHECK_EQ(references(ear.handle), 2);
  CHECK_EQ(queue_len(queue), 1);
  options.timeout_ns = 1;
  CHECK_STATUS(cbr_post_with(&options), CBR_ERR_TIMEOUT);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 0);
  CHECK_OK(cbr_post_with(&options)); /* with room it does not wait */
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 7);
  CHECK_EQ(payload.freed, 1);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(a_post_with_a_deadline_waits_no_longer) { check_timed(CBR_QUEUE_BLOCK); }

TEST(a_post_with_a_deadline_waits_where_the_policy_would_refuse) { check_timed(CBR_QUEUE_REJECT); }

TEST(a_post_with_a_deadline_waits_where_the_policy_would_drop) {
  check_timed(CBR_QUEUE_DROP_OLDEST);
}

TEST(a_post_that_waits_for_ever_gets_its_room_whatever_the_policy) {
  static const uint32_t policies[] = {CBR_QUEUE_REJECT, CBR_QUEUE_DROP_OLDEST, CBR_QUEUE_BLOCK};
  for (int i = 0; i < 3; i++) {
    struct ear ear;
    struct producer producer;
    ear_register(&ear);
    cbr_queue queue = full_queue(&ear, 1, policies[i]);
    producer_init(&producer, queue, ear.handle, 7);
    producer.options.timeout_ns = i == 0 ? -1 : INT64_MAX;
    producer_start(&producer);
    CHECK_EQ(load_int(&producer.done), 0);
    CHECK_EQ(dispatch_some(queue, 1), 1);
    CHECK_OK(producer_join(&producer));
    CHECK_EQ(dispatch_all(queue), 1);
    CHECK_HEARD(&ear, 0, 7);
    queue_discard(queue);
    ear_end(&ear);
  }
}

/* --- closing ------------------------------------------------------------------------------- */

enum { BLOCKED = 5 };

static void check_close_wakes(uint32_t mode, bool by_scope) {
  struct ear ear;
  struct producer producers[BLOCKED];
  cbr_scope scope = scope_open("plugin");
  ear_register(&ear);
  cbr_queue queue = queue_open_in(by_scope ? scope : 0, 1, CBR_QUEUE_BLOCK, 0);
  CHECK_OK(post_number(queue, &ear, 0));
  for (int i = 0; i < BLOCKED; i++) {
    producer_init(&producers[i], queue, ear.handle, i + 1);
    if (i % 2) producers[i].options.timeout_ns = INT64_MAX;
    producer_start(&producers[i]);
  }
  if (by_scope) scope_close(scope);
  else CHECK_OK(cbr_queue_close(queue, mode));
  for (int i = 0; i < BLOCKED; i++) {
    check_gone(producer_join(&producers[i]));
    CHECK_EQ(producers[i].payload.freed, 0);
  }
  dispatch_all(queue);
  CHECK_EQ(ear.count, !by_scope && mode == CBR_CLOSE_DRAIN);
  CHECK_EQ(references(ear.handle), 1);
  if (!by_scope) scope_close(scope);
  ear_end(&ear);
}

TEST(closing_to_drain_wakes_every_blocked_producer) { check_close_wakes(CBR_CLOSE_DRAIN, false); }

TEST(closing_to_discard_wakes_every_blocked_producer) {
  check_close_wakes(CBR_CLOSE_DISCARD, false);
}

TEST(closing_the_queues_scope_wakes_every_blocked_producer) {
  check_close_wakes(CBR_CLOSE_DISCARD, true);
}

static intptr_t closes_under_the_blocked(struct subject *it, void *arg) {
  struct producer *producers = (struct producer *)arg;
  (void)it;
  CHECK_OK(cbr_queue_close(cbr_current_event()->queue, CBR_CLOSE_DRAIN));
  for (int i = 0; i < BLOCKED; i++) join(producers[i].thread);
  return 0;
}

TEST(a_callback_that_closes_its_queue_wakes_every_blocked_producer) {
  struct subject it;
  struct ear ear;
  struct producer producers[BLOCKED];
  int accepted = 0;
  subject_register(&it);
  ear_register(&ear);
  cbr_queue queue = queue_open(1, CBR_QUEUE_BLOCK, 0);
  CHECK_OK(post_action(queue, &it, closes_under_the_blocked, producers));
  for (int i = 0; i < BLOCKED; i++) {
    producer_init(&producers[i], queue, ear.handle, i);
    producer_start(&producers[i]);
  }
  CHECK(dispatch_some(queue, 0) >= 1);
  dispatch_all(queue);
  for (int i = 0; i < BLOCKED; i++) { /* the room of the one that runs may have been had */
    if (producers[i].status != CBR_OK) CHECK_STATUS(producers[i].status, CBR_ERR_CLOSED);
    CHECK_EQ(producers[i].payload.freed, producers[i].status == CBR_OK);
    accepted += producers[i].status == CBR_OK;
  }
  CHECK(accepted <= 1);
  CHECK_EQ(ear.count, accepted);
  CHECK_OK(cbr_unregister(it.handle));
  ear_end(&ear);
}

/* --- room ----------------------------------------------------------------------------------- */

struct large_action {
  struct action action; /* first, for subject_fn */
  unsigned char filling[100];
};

static intptr_t waits_until_posted(struct subject *it, void *arg) {
  struct producer *producer = (struct producer *)arg;
  (void)it;
  CHECK_OK(producer_join(producer)); /* the room of the event that runs is free */
  return 0;
}

TEST(a_blocked_producer_goes_on_while_the_callback_of_the_event_that_made_room_runs) {
  for (int large = 0; large < 2; large++) {
    struct subject it;
    struct ear ear;
    struct producer producer;
    struct large_action data;
    subject_register(&it);
    ear_register(&ear);
    memset(&data, 0, sizeof data);
    data.action.run = waits_until_posted;
    data.action.arg = &producer;
    cbr_queue queue = queue_open(1, CBR_QUEUE_BLOCK, 0);
    CHECK_OK(cbr_post(queue, it.handle, &data, large ? sizeof data : sizeof data.action));
    producer_init(&producer, queue, ear.handle, 7);
    producer_start(&producer);
    CHECK_EQ(dispatch_some(queue, 1), 1);
    CHECK_EQ(dispatch_all(queue), 1);
    CHECK_HEARD(&ear, 7);
    queue_discard(queue);
    CHECK_OK(cbr_unregister(it.handle));
    ear_end(&ear);
  }
}

TEST(of_several_blocked_producers_each_event_dispatched_lets_one_go_on) {
  struct ear ear;
  struct producer producers[BLOCKED];
  long sum = 0;
  ear_register(&ear);
  cbr_queue queue = full_queue(&ear, 1, CBR_QUEUE_BLOCK);
  for (int i = 0; i < BLOCKED; i++) {
    producer_init(&producers[i], queue, ear.handle, i + 1);
    producer_start(&producers[i]);
  }
  for (int i = 0; i <= BLOCKED; i++) {
    size_t count = 0;
    CHECK_EQ(queue_len(queue), 1);
    CHECK_OK(cbr_queue_dispatch(queue, 1, -1, &count));
    CHECK_EQ(count, 1);
    int done;
    do { /* one more is in, and no other */
      sched_yield();
      done = 0;
      for (int j = 0; j < BLOCKED; j++) done += load_int(&producers[j].done);
    } while (done < (i < BLOCKED ? i + 1 : BLOCKED));
    CHECK(done <= i + 1);
  }
  for (int i = 0; i < BLOCKED; i++) CHECK_OK(producer_join(&producers[i]));
  CHECK_EQ(ear.count, BLOCKED + 1);
  for (int i = 0; i < ear.count; i++) sum += ear.numbers[i];
  CHECK_EQ(sum, 1 + 2 + 3 + 4 + 5);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(the_room_of_a_stale_event_lets_a_blocked_producer_go_on) {
  struct ear gone, ear;
  struct producer producer;
  ear_register(&gone);
  ear_register(&ear);
  cbr_queue queue = full_queue(&gone, 1, CBR_QUEUE_BLOCK);
  ear_end(&gone);
  producer_init(&producer, queue, ear.handle, 7);
  producer_start(&producer);
  CHECK(!load_int(&producer.done));
  cbr_queue_dispatch(queue, 1, 0, NULL);
  CHECK_OK(producer_join(&producer));
  dispatch_all(queue);
  CHECK_HEARD(&ear, 7);
  queue_discard(queue);
  ear_end(&ear);
}

/* Whose callback ends while it waits. */
TEST(a_blocked_post_to_a_callback_that_ends_meanwhile_leaves_nothing) {
  struct ear gone, ear;
  struct producer producer;
  ear_register(&gone);
  ear_register(&ear);
  cbr_queue queue = full_queue(&ear, 1, CBR_QUEUE_BLOCK);
  producer_init(&producer, queue, gone.handle, 7);
  producer_start(&producer);
  CHECK(!load_int(&producer.done));
  ear_end(&gone);
  CHECK_EQ(dispatch_some(queue, 1), 1);
  cbr_status status = producer_join(&producer);
  if (status != CBR_ERR_STALE) CHECK_OK(status);
  dispatch_all(queue);
  CHECK_HEARD_NOTHING(&gone);
  CHECK_EQ(producer.payload.freed, status == CBR_OK); /* stale at dispatch, or never taken over */
  queue_discard(queue);
  ear_end(&ear);
}

TEST(one_payload_may_coalesce_while_another_producer_is_blocked) {
  struct ear ear, other;
  struct producer producer;
  ear_register(&ear);
  ear_register(&other);
  cbr_queue queue = queue_open(1, CBR_QUEUE_BLOCK, CBR_QUEUE_COALESCE);
  CHECK_OK(post_number(queue, &ear, 1));
  producer_init(&producer, queue, other.handle, 2);
  producer_start(&producer);
  CHECK_OK(post_number(queue, &ear, 3));
  CHECK_EQ(load_int(&producer.done), 0);
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_OK(producer_join(&producer));
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_HEARD(&ear, 3);
  CHECK_HEARD(&other, 2);
  queue_discard(queue);
  ear_end(&ear);
  ear_end(&other);
}

/* --- deadlock ------------------------------------------------------------------------------- */

struct poster {
  cbr_queue queue;
  struct ear *ear;
  cbr_status expected;
};

static intptr_t posts_into_the_full_queue(struct subject *it, void *arg) {
  struct poster *self = (struct poster *)arg;
  struct payload payload;
  (void)it;
  while (queue_len(self->queue) < 1) CHECK_OK(post_number(self->queue, self->ear, 1));
  cbr_status status = payload_post(&payload, 2, self->queue, self->ear->handle, 0);
  CHECK_STATUS(status, self->expected);
  CHECK_EQ(payload.freed, 0);
  CHECK_EQ(queue_len(self->queue), 1);
  return 0;
}

TEST(a_post_from_the_only_thread_that_dispatches_is_a_deadlock) {
  static const uint32_t flags[] = {0, CBR_QUEUE_OWNED};
  for (int i = 0; i < 2; i++) {
    struct subject it;
    struct ear ear;
    subject_register(&it);
    ear_register(&ear);
    cbr_queue queue = queue_open(1, CBR_QUEUE_BLOCK, flags[i]);
    struct poster poster = {queue, &ear, CBR_ERR_DEADLOCK};
    CHECK_OK(post_action(queue, &it, posts_into_the_full_queue, &poster));
    CHECK_EQ(dispatch_some(queue, 1), 1); /* inside a callback */
    CHECK_REFUSED(post_number(queue, &ear, 3), CBR_ERR_DEADLOCK); /* and outside of any */
    CHECK_EQ(references(ear.handle), 2);
    CHECK_EQ(dispatch_all(queue), 1);
    CHECK_HEARD(&ear, 1);
    queue_discard(queue);
    CHECK_OK(cbr_unregister(it.handle));
    ear_end(&ear);
  }
}

TEST(a_post_of_the_owner_that_has_not_dispatched_yet_is_a_deadlock) {
  struct ear ear;
  ear_register(&ear);
  cbr_queue queue = queue_open(1, CBR_QUEUE_BLOCK, CBR_QUEUE_OWNED);
  CHECK_OK(post_number(queue, &ear, 1));
  CHECK_REFUSED(post_number(queue, &ear, 2), CBR_ERR_DEADLOCK);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 1);
  queue_discard(queue);
  ear_end(&ear);
}

struct second_dispatcher {
  struct loop loop;
  struct producer producer;
  cbr_queue queue;
  struct ear *ear;
};

static intptr_t posts_though_the_queue_is_full(struct subject *it, void *arg) {
  struct second_dispatcher *self = (struct second_dispatcher *)arg;
  (void)it;
  for (int i = 0; i < 20; i++) CHECK_OK(post_number(self->queue, self->ear, i));
  return 0;
}

static void *dispatches_once(void *arg) {
  CHECK_EQ(dispatch_all(*(const cbr_queue *)arg), 1);
  return NULL;
}

TEST(with_another_thread_that_dispatches_a_post_from_a_callback_waits) {
  struct subject it;
  struct ear ear;
  struct second_dispatcher self;
  subject_register(&it);
  ear_register(&ear);
  self.queue = queue_open(1, CBR_QUEUE_BLOCK, 0);
  self.ear = &ear;
  CHECK_OK(post_number(self.queue, &ear, 77));
  run_on_thread(dispatches_once, &self.queue); /* so that it is known to have two */
  CHECK_HEARD(&ear, 77);
  CHECK_OK(post_action(self.queue, &it, posts_though_the_queue_is_full, &self));
  /* Two loops: whichever runs the callback, the other makes the room. */
  struct loop second;
  loop_start(&self.loop, self.queue, false);
  loop_start(&second, self.queue, false);
  POLL_UNTIL(load_int(&ear.count) == 20 && load_int(&it.calls) == 1);
  loop_end(&self.loop);
  join(second.thread);
  CHECK_OK(cbr_unregister(it.handle));
  ear_end(&ear);
}

/* Two loops post into each other's full queue: one of them is told, and so both go on. */
struct facing {
  struct loop loops[2];
  cbr_queue queues[2];
  struct subject its[2];
  struct ear ear;
  cbr_status statuses[2];
  pthread_barrier_t both_inside;
};

static struct facing facing;

static intptr_t posts_across(struct subject *it, void *arg) {
  int self = (int)(it - facing.its);
  (void)arg;
  meet(&facing.both_inside);
  CHECK_OK(post_number(facing.queues[self], &facing.ear, 0)); /* fills its own */
  meet(&facing.both_inside);
  facing.statuses[self] = post_number(facing.queues[1 - self], &facing.ear, 1);
  return 0;
}

TEST(of_two_loops_that_post_into_each_others_full_queue_one_is_told) {
  for (long round = scaled(100); round > 0; round--) {
    memset(&facing, 0, sizeof facing);
    CHECK_EQ(pthread_barrier_init(&facing.both_inside, NULL, 2), 0);
    ear_register(&facing.ear);
    for (int i = 0; i < 2; i++) {
      subject_register(&facing.its[i]);
      facing.queues[i] = queue_open(1, CBR_QUEUE_BLOCK, CBR_QUEUE_OWNED);
      loop_start(&facing.loops[i], facing.queues[i], true);
    }
    for (int i = 0; i < 2; i++)
      CHECK_OK(post_action(facing.queues[i], &facing.its[i], posts_across, NULL));
    POLL_UNTIL(load_int(&facing.its[0].calls) == 1 && load_int(&facing.its[0].running) == 0 &&
               load_int(&facing.its[1].calls) == 1 && load_int(&facing.its[1].running) == 0);
    for (int i = 0; i < 2; i++) loop_end(&facing.loops[i]);
    int told = 0;
    for (int i = 0; i < 2; i++) {
      if (facing.statuses[i] != CBR_ERR_DEADLOCK) CHECK_OK(facing.statuses[i]);
      told += facing.statuses[i] == CBR_ERR_DEADLOCK;
    }
    CHECK(told >= 1);
    CHECK_EQ(facing.ear.count, 4 - told);
    for (int i = 0; i < 2; i++) CHECK_OK(cbr_unregister_wait(facing.its[i].handle, -1));
    ear_end(&facing.ear);
  }
}

/* --- many ----------------------------------------------------------------------------------- */

struct many {
  cbr_queue queue;
  cbr_handle handle;
  long count, accepted, closed;
  pthread_t thread;
};

static void *posts_many(void *arg) {
  struct many *self = (struct many *)arg;
  for (long i = 0; i < self->count; i++) {
    cbr_status status = cbr_post(self->queue, self->handle, NULL, 0);
    self->accepted += status == CBR_OK;
    if (status == CBR_OK) continue;
    check_gone(status);
    self->closed++;
  }
  return NULL;
}

TEST(no_blocked_producer_is_forgotten) {
  static const size_t capacities[] = {1, 3};
  for (int round = 0; round < 2; round++) {
    struct subject it;
    struct loop loops[2];
    struct many producers[6];
    long accepted = 0;
    subject_register(&it);
    cbr_queue queue = queue_open(capacities[round], CBR_QUEUE_BLOCK, 0);
    for (int i = 0; i < 6; i++) {
      producers[i] = (struct many){.queue = queue, .handle = it.handle, .count = scaled(3000)};
      producers[i].thread = start(posts_many, &producers[i]);
    }
    for (int i = 0; i < 2; i++) loop_start(&loops[i], queue, false);
    for (int i = 0; i < 6; i++) {
      join(producers[i].thread);
      CHECK_EQ(producers[i].closed, 0);
      accepted += producers[i].accepted;
    }
    loop_end(&loops[0]);
    join(loops[1].thread);
    CHECK_EQ(it.calls, accepted);
    CHECK_EQ(accepted, 6 * scaled(3000));
    CHECK_EQ(loops[0].dispatched + loops[1].dispatched, accepted);
    CHECK_OK(cbr_unregister(it.handle));
  }
}
