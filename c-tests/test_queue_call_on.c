/* cbr_call_on: the call runs on the thread that dispatches, once or never, and its caller is told
 * which. */
#include "support_child.h"
#include "support_queue.h"

static intptr_t returns_where_it_ran(struct subject *it, void *arg) {
  (void)it;
  *(pthread_t *)arg = pthread_self();
  return 12;
}

TEST(the_call_runs_on_the_dispatching_thread_and_its_result_comes_back) {
  static const uint32_t flags[] = {0, CBR_QUEUE_OWNED};
  for (int i = 0; i < 2; i++) {
    struct subject it;
    struct loop loop;
    subject_register(&it);
    cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, flags[i]);
    loop_start(&loop, queue, flags[i] == CBR_QUEUE_OWNED);
    for (long round = scaled(1000); round > 0; round--) {
      pthread_t ran_on; /* the arg, and what it points to, are on this stack */
      struct action action = {returns_where_it_ran, &ran_on};
      intptr_t result = 0;
      CHECK_OK(cbr_call_on(queue, it.handle, &action, -1, &result));
      CHECK_EQ(result, 12);
      CHECK(pthread_equal(ran_on, loop.thread));
    }
    POLL_UNTIL(references(it.handle) == 1); /* the event may let go a moment later */
    CHECK_OK(cbr_call_on(queue, it.handle, NULL, INT64_MAX, NULL)); /* the result is optional */
    loop_end(&loop);
    CHECK_OK(cbr_unregister(it.handle));
  }
}

static intptr_t notes_when_it_was_posted(struct subject *it, void *arg) {
  (void)it;
  CHECK(cbr_current_event() != NULL);
  *(int64_t *)arg = cbr_current_event()->posted_ns;
  return 0;
}

TEST(a_calls_event_says_when_the_callback_began) {
  struct subject it;
  struct caller caller;
  int64_t posted = 0;
  subject_register(&it);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  caller_start(&caller, queue, it.handle, notes_when_it_was_posted, &posted);
  POLL_UNTIL(queue_len(queue) == 1);
  /* Longer than the two clocks may be apart. */
  int64_t later = now_ns() + 2 * MS;
  POLL_UNTIL(now_ns() > later);
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK_OK(caller_join(&caller));
  CHECK(posted >= later - MS && posted <= now_ns());
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(calls_of_several_threads_each_get_their_own_result) {
  struct subject it;
  struct loop loops[2];
  enum { CALLERS = 6 };
  static struct subject own[CALLERS];
  struct caller callers[CALLERS];
  subject_register(&it);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  for (int i = 0; i < CALLERS; i++) subject_register(&own[i]);
  for (int i = 0; i < CALLERS; i++)
    caller_start(&callers[i], queue, own[i].handle, returns_itself, NULL);
  POLL_UNTIL(queue_len(queue) == CALLERS);
  for (int i = 0; i < 2; i++) loop_start(&loops[i], queue, false);
  for (int i = 0; i < CALLERS; i++) {
    CHECK_OK(caller_join(&callers[i]));
    CHECK((struct subject *)callers[i].result == &own[i]);
    CHECK_EQ(own[i].calls, 1);
  }
  loop_end(&loops[0]);
  join(loops[1].thread);
  for (int i = 0; i < CALLERS; i++) CHECK_OK(cbr_unregister(own[i].handle));
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(calls_and_events_stay_in_order) {
  struct ear ear;
  struct caller caller;
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  CHECK_OK(post_number(queue, &ear, 1));
  caller_start(&caller, queue, ear.handle, NULL, NULL); /* an ear writes -1 down for NULL */
  POLL_UNTIL(queue_len(queue) == 2);
  CHECK_OK(post_number(queue, &ear, 2));
  CHECK_EQ(dispatch_some(queue, 0), 3);
  CHECK_OK(caller_join(&caller));
  CHECK_EQ(caller.result, 1);
  CHECK_HEARD(&ear, 1, -1, 2);
  queue_discard(queue);
  ear_end(&ear);
}

/* --- at once -------------------------------------------------------------------------------- */

static void check_runs_at_once(cbr_queue queue, struct subject *it) {
  pthread_t ran_on;
  struct action action = {returns_where_it_ran, &ran_on};
  static const int64_t timeouts[] = {-1, 0, 1};
  for (int i = 0; i < 3; i++) {
    intptr_t result = 0;
    CHECK_OK(cbr_call_on(queue, it->handle, &action, timeouts[i], &result));
    CHECK_EQ(result, 12);
    CHECK(pthread_equal(ran_on, pthread_self()));
  }
}

TEST(on_the_owners_thread_the_call_runs_at_once_before_what_waits) {
  struct subject it;
  struct ear ear;
  subject_register(&it);
  ear_register(&ear);
  cbr_queue queue = queue_open(1, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED);
  check_runs_at_once(queue, &it);
  CHECK_OK(post_number(queue, &ear, 1)); /* full */
  check_runs_at_once(queue, &it);
  CHECK_HEARD_NOTHING(&ear);
  CHECK_EQ(queue_len(queue), 1);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 1);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
  ear_end(&ear);
}

struct inner_call {
  cbr_queue queue;
  struct subject *target;
};

static intptr_t calls_on_its_own_queue(struct subject *it, void *arg) {
  struct inner_call *self = (struct inner_call *)arg;
  (void)it;
  check_runs_at_once(self->queue, self->target);
  return 0;
}

TEST(inside_a_dispatch_of_the_queue_the_call_runs_at_once) {
  static const uint32_t flags[] = {0, CBR_QUEUE_OWNED};
  for (int i = 0; i < 2; i++) {
    struct subject it, target;
    subject_register(&it);
    subject_register(&target);
    struct inner_call inner = {queue_open(4, CBR_QUEUE_REJECT, flags[i]), &target};
    CHECK_OK(post_action(inner.queue, &it, calls_on_its_own_queue, &inner));
    CHECK_EQ(dispatch_some(inner.queue, 0), 1);
    CHECK_EQ(it.calls, 1);
    CHECK_EQ(target.calls, 3);
    queue_discard(inner.queue);
    CHECK_OK(cbr_unregister(it.handle));
    CHECK_OK(cbr_unregister(target.handle));
  }
}

TEST(on_the_only_thread_that_has_ever_dispatched_the_call_runs_at_once) {
  struct subject it;
  subject_register(&it);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  CHECK_OK(cbr_post(queue, it.handle, NULL, 0));
  CHECK_EQ(dispatch_all(queue), 1);
  check_runs_at_once(queue, &it);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

static void *times_out(void *arg) {
  struct inner_call *self = (struct inner_call *)arg;
  CHECK_STATUS(cbr_call_on(self->queue, self->target->handle, NULL, 1, NULL), CBR_ERR_TIMEOUT);
  return NULL;
}

TEST(a_new_owner_is_the_thread_that_calls_run_on) {
  struct subject it;
  struct loop loop;
  pthread_t ran_on;
  struct action action = {returns_where_it_ran, &ran_on};
  subject_register(&it);
  struct inner_call inner = {queue_open(4, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED), &it};
  run_on_thread(times_out, &inner);
  check_runs_at_once(inner.queue, &it);
  loop_start(&loop, inner.queue, true);
  CHECK_OK(cbr_call_on(inner.queue, it.handle, &action, -1, NULL));
  CHECK(pthread_equal(ran_on, loop.thread));
  loop_end(&loop);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- a call that fails ----------------------------------------------------------------------- */

static intptr_t fails_with(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_fail(*(const cbr_status *)arg, "not on a Sunday"));
  return 5;
}

TEST(what_the_callback_says_with_fail_comes_back_to_the_caller) {
  static const cbr_status failures[] = {CBR_ERR_CALLBACK, CBR_ERR_PANIC};
  struct subject it;
  struct loop loop;
  subject_register(&it);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  loop_start(&loop, queue, false);
  for (int i = 0; i < 2; i++) {
    cbr_status failure = failures[i];
    struct action action = {fails_with, &failure};
    intptr_t result = 77;
    CHECK_REFUSED(cbr_call_on(queue, it.handle, &action, -1, &result), failure);
    CHECK_WORDS("not on a Sunday");
    CHECK_EQ(result, 77);
    CHECK_OK(cbr_call_on(queue, it.handle, NULL, -1, &result)); /* the next one is not meant */
    CHECK_EQ(result, SUBJECT_RESULT);
  }
  loop_end(&loop);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t exits_its_thread(struct subject *it, void *arg) {
  (void)arg;
  add_int(&it->running, -1); /* subject_fn will not get to it */
  pthread_exit(NULL);
}

static void *dispatches(void *arg) {
  size_t count;
  while (cbr_queue_dispatch(*(const cbr_queue *)arg, 0, -1, &count) == CBR_OK) {
  }
  return NULL;
}

TEST(a_caller_is_told_when_the_callback_ends_its_thread) {
  struct subject it;
  struct caller caller;
  subject_register(&it);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  caller_start(&caller, queue, it.handle, exits_its_thread, NULL);
  run_on_thread(dispatches, &queue);
  cbr_status status = caller_join(&caller);
  if (status != CBR_ERR_PANIC) CHECK_STATUS(status, CBR_ERR_CALLBACK);
  CHECK_EQ(caller.result, 77);
  CHECK_EQ(it.calls, 1);
  queue_discard(queue);
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
}

TEST(a_callback_that_ends_while_the_call_waits_is_stale) {
  struct subject it;
  struct caller caller;
  subject_register(&it);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  caller_start(&caller, queue, it.handle, NULL, NULL);
  POLL_UNTIL(queue_len(queue) == 1);
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
  dispatch_all(queue);
  CHECK_STATUS(caller_join(&caller), CBR_ERR_STALE);
  CHECK_EQ(caller.result, 77);
  CHECK_EQ(it.calls, 0);
  queue_discard(queue);
}

TEST(a_call_that_waits_owns_a_reference) {
  struct subject it;
  struct caller caller;
  subject_register(&it);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  caller_start(&caller, queue, it.handle, NULL, NULL);
  POLL_UNTIL(queue_len(queue) == 1);
  CHECK_OK(cbr_release(it.handle));
  CHECK_EQ(it.destroyed, 0);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_OK(caller_join(&caller));
  CHECK_EQ(caller.result, SUBJECT_RESULT);
  CHECK_EQ(subject_destroyed(&it), 1);
  queue_discard(queue);
}

/* --- a call that never runs ------------------------------------------------------------------ */

TEST(after_a_timeout_the_call_has_not_run_and_never_will) {
  static const int64_t timeouts[] = {0, 1, 20 * MS};
  struct subject it;
  subject_register(&it);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  for (int i = 0; i < 3; i++) {
    intptr_t result = 77;
    struct action gone = {NULL, NULL}; /* would crash */
    int64_t start = now_ns();
    CHECK_REFUSED(cbr_call_on(queue, it.handle, &gone, timeouts[i], &result), CBR_ERR_TIMEOUT);
    CHECK(now_ns() - start >= timeouts[i]);
    CHECK_EQ(result, 77);
    CHECK_EQ(it.calls, 0);
  }
  CHECK_OK(cbr_post(queue, it.handle, NULL, 0));
  dispatch_all(queue);
  CHECK_EQ(it.calls, 1); /* the event's alone */
  CHECK_EQ(references(it.handle), 1);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(calls_that_timed_out_do_not_fill_the_queue_for_ever) {
  struct subject it;
  struct loop loop;
  subject_register(&it);
  cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, 0);
  for (int i = 0; i < 10; i++) {
    cbr_status status = cbr_call_on(queue, it.handle, NULL, 0, NULL);
    if (status != CBR_ERR_FULL) CHECK_STATUS(status, CBR_ERR_TIMEOUT);
  }
  loop_start(&loop, queue, false);
  CHECK_EQ(it.calls, 0);
  cbr_status status;
  while ((status = cbr_call_on(queue, it.handle, NULL, -1, NULL)) == CBR_ERR_FULL) sched_yield();
  CHECK_OK(status);
  CHECK_EQ(it.calls, 1);
  loop_end(&loop);
  CHECK_OK(cbr_unregister(it.handle));
}

struct slow {
  int64_t until;
};

static intptr_t stays_until(struct subject *it, void *arg) {
  (void)it;
  while (now_ns() < ((const struct slow *)arg)->until) sched_yield();
  return 12;
}

/* The timeout is for the beginning. */
TEST(a_call_that_has_begun_is_waited_for_to_its_end) {
  struct subject it;
  struct loop loop;
  intptr_t result = 77;
  cbr_status status;
  subject_register(&it);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  loop_start(&loop, queue, false);
  do { /* on a busy machine it may not begin in time */
    struct slow slow = {now_ns() + 80 * MS};
    struct action action = {stays_until, &slow};
    int before = load_int(&it.calls);
    status = cbr_call_on(queue, it.handle, &action, 40 * MS, &result);
    CHECK(status != CBR_OK || now_ns() >= slow.until);
    CHECK_EQ(load_int(&it.calls) - before, status == CBR_OK);
  } while (status == CBR_ERR_TIMEOUT);
  CHECK_OK(status);
  CHECK_EQ(result, 12);
  loop_end(&loop);
  CHECK_OK(cbr_unregister(it.handle));
}

/* Begun or given up: never both, never neither. */
TEST(a_timeout_that_meets_the_beginning_runs_the_call_once_or_never) {
  struct subject it;
  struct loop loop;
  long ran = 0, gave_up = 0;
  subject_register(&it);
  cbr_queue queue = queue_open(64, CBR_QUEUE_DROP_OLDEST, 0);
  loop_start(&loop, queue, false);
  for (long i = 0; i < scaled(5000); i++) {
    cbr_status status = cbr_call_on(queue, it.handle, NULL, (i % 100) * 1000, NULL);
    if (status != CBR_OK) CHECK_STATUS(status, CBR_ERR_TIMEOUT);
    ran += status == CBR_OK;
    gave_up += status == CBR_ERR_TIMEOUT;
  }
  loop_end(&loop);
  CHECK_EQ(it.calls, ran);
  CHECK_EQ(ran + gave_up, scaled(5000));
  printf("%s: %ld ran, %ld gave up\n", harness_current, ran, gave_up);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_call_to_a_full_queue_is_refused) {
  struct ear ear;
  struct subject it;
  intptr_t result = 77;
  ear_register(&ear);
  subject_register(&it);
  cbr_queue queue = queue_open(1, CBR_QUEUE_REJECT, 0);
  CHECK_OK(post_number(queue, &ear, 1));
  CHECK_REFUSED(cbr_call_on(queue, it.handle, NULL, -1, &result), CBR_ERR_FULL);
  CHECK_EQ(result, 77);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_EQ(it.calls, 0);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
  ear_end(&ear);
}

TEST(a_call_waits_for_room_no_longer_than_for_its_beginning) {
  struct ear ear;
  struct subject it;
  struct caller caller;
  ear_register(&ear);
  subject_register(&it);
  cbr_queue queue = queue_open(1, CBR_QUEUE_BLOCK, 0);
  CHECK_OK(post_number(queue, &ear, 1));
  int64_t start = now_ns();
  CHECK_REFUSED(cbr_call_on(queue, it.handle, NULL, 20 * MS, NULL), CBR_ERR_TIMEOUT);
  CHECK(now_ns() - start >= 20 * MS);
  CHECK_STATUS(cbr_call_on(queue, it.handle, NULL, 0, NULL), CBR_ERR_TIMEOUT);
  caller_start(&caller, queue, it.handle, NULL, NULL);
  while (!load_int(&caller.done)) cbr_queue_dispatch(queue, 0, 1 * MS, NULL);
  CHECK_OK(caller_join(&caller));
  CHECK_EQ(it.calls, 1);
  CHECK_HEARD(&ear, 1);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
  ear_end(&ear);
}

TEST(a_call_that_drop_oldest_displaces_is_told_that_the_queue_was_full) {
  struct ear ear;
  struct subject it;
  struct caller caller;
  ear_register(&ear);
  subject_register(&it);
  cbr_queue queue = queue_open(1, CBR_QUEUE_DROP_OLDEST, 0);
  caller_start(&caller, queue, it.handle, NULL, NULL);
  POLL_UNTIL(queue_len(queue) == 1);
  CHECK_OK(post_number(queue, &ear, 1));
  CHECK_STATUS(caller_join(&caller), CBR_ERR_FULL);
  CHECK_EQ(caller.result, 77);
  CHECK(caller.words[0] != '\0');
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_EQ(it.calls, 0);
  CHECK_EQ(references(it.handle), 1);
  CHECK_HEARD(&ear, 1);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
  ear_end(&ear);
}

TEST(calls_are_never_coalesced) {
  struct subject it;
  struct caller callers[2];
  subject_register(&it);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, CBR_QUEUE_COALESCE);
  caller_start(&callers[0], queue, it.handle, returns_itself, NULL);
  POLL_UNTIL(queue_len(queue) == 1);
  CHECK_OK(cbr_post(queue, it.handle, NULL, 0));
  CHECK_OK(cbr_post(queue, it.handle, NULL, 0)); /* these two are */
  caller_start(&callers[1], queue, it.handle, returns_itself, NULL);
  POLL_UNTIL(queue_len(queue) == 3);
  CHECK_OK(cbr_post(queue, it.handle, NULL, 0)); /* and this, or not */
  CHECK_EQ(load_int(&callers[0].done) + load_int(&callers[1].done), 0);
  size_t waiting = queue_len(queue);
  CHECK(waiting == 3 || waiting == 4);
  CHECK_EQ(dispatch_all(queue), waiting);
  for (int i = 0; i < 2; i++) {
    CHECK_OK(caller_join(&callers[i]));
    CHECK((struct subject *)callers[i].result == &it);
  }
  CHECK_EQ(it.calls, (intmax_t)waiting);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- closing --------------------------------------------------------------------------------- */

TEST(a_call_that_waits_when_its_queue_is_closed_is_told_so) {
  enum { CALLERS = 3 };
  for (int by_scope = 0; by_scope < 2; by_scope++) {
    struct subject it;
    struct caller callers[CALLERS];
    cbr_scope scope = scope_open("plugin");
    subject_register(&it);
    cbr_queue queue = queue_open_in(scope, 8, CBR_QUEUE_REJECT, 0);
    for (int i = 0; i < CALLERS; i++) caller_start(&callers[i], queue, it.handle, NULL, NULL);
    POLL_UNTIL(queue_len(queue) == CALLERS);
    if (by_scope) scope_close(scope);
    else CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
    for (int i = 0; i < CALLERS; i++) {
      CHECK_STATUS(caller_join(&callers[i]), CBR_ERR_CLOSED);
      CHECK_EQ(callers[i].result, 77);
    }
    CHECK_EQ(it.calls, 0);
    CHECK_EQ(references(it.handle), 1);
    if (!by_scope) scope_close(scope);
    CHECK_OK(cbr_unregister(it.handle));
  }
}

TEST(a_call_that_waits_in_a_queue_that_drains_runs_or_is_told) {
  struct subject it;
  struct caller caller;
  subject_register(&it);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  caller_start(&caller, queue, it.handle, NULL, NULL);
  POLL_UNTIL(queue_len(queue) == 1);
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DRAIN));
  dispatch_all(queue);
  cbr_status status = caller_join(&caller);
  if (status != CBR_ERR_CLOSED) CHECK_OK(status);
  CHECK_EQ(it.calls, status == CBR_OK);
  CHECK_EQ(caller.result, status == CBR_OK ? SUBJECT_RESULT : 77);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t closes_the_queue(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_queue_close(*(const cbr_queue *)arg, CBR_CLOSE_DISCARD));
  return 12;
}

TEST(a_call_that_has_begun_brings_its_result_though_the_queue_closes) {
  struct subject it;
  struct loop loop;
  intptr_t result = 77;
  subject_register(&it);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  struct action action = {closes_the_queue, &queue};
  loop_start(&loop, queue, false);
  CHECK_OK(cbr_call_on(queue, it.handle, &action, -1, &result));
  CHECK_EQ(result, 12);
  join(loop.thread);
  check_gone(cbr_call_on(queue, it.handle, NULL, -1, &result));
  CHECK_EQ(it.calls, 1);
  CHECK_OK(cbr_unregister(it.handle));
}

/* Whoever closes while calls come in: each caller is told, and what ran has run. */
TEST(calls_that_meet_a_close_run_or_are_told) {
  enum { CALLERS = 4 };
  for (long round = scaled(300); round > 0; round--) {
    struct subject it;
    struct caller callers[CALLERS];
    struct loop loop;
    int ran = 0;
    subject_register(&it);
    cbr_queue queue = queue_open(2, CBR_QUEUE_BLOCK, 0);
    loop_start(&loop, queue, false);
    for (int i = 0; i < CALLERS; i++) {
      memset(&callers[i], 0, sizeof callers[i]);
      callers[i].queue = queue;
      callers[i].handle = it.handle;
      callers[i].timeout_ns = -1;
      callers[i].thread = start(caller_main, &callers[i]);
      if (i == (int)(round % CALLERS)) CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
    }
    for (int i = 0; i < CALLERS; i++) {
      cbr_status status = caller_join(&callers[i]);
      if (status != CBR_OK) check_gone(status);
      ran += status == CBR_OK;
    }
    join(loop.thread);
    CHECK_EQ(it.calls, ran);
    CHECK_OK(cbr_unregister(it.handle));
  }
}

/* --- deadlock -------------------------------------------------------------------------------- */

enum { MOST = 4 };

struct ring {
  int size;
  cbr_queue queues[MOST];
  struct subject outer[MOST], inner[MOST];
  struct loop loops[MOST];
  cbr_status statuses[MOST];
  pthread_barrier_t everybody_inside;
};

static struct ring ring;

static intptr_t calls_on_the_next(struct subject *it, void *arg) {
  int self = (int)(it - ring.outer), next = (self + 1) % ring.size;
  intptr_t result = 77;
  (void)arg;
  meet(&ring.everybody_inside);
  ring.statuses[self] = cbr_call_on(ring.queues[next], ring.inner[next].handle, NULL, -1, &result);
  CHECK_EQ(result, ring.statuses[self] == CBR_OK ? SUBJECT_RESULT : 77);
  return 0;
}

static void run_ring(int size, uint32_t flags) {
  memset(&ring, 0, sizeof ring);
  ring.size = size;
  CHECK_EQ(pthread_barrier_init(&ring.everybody_inside, NULL, (unsigned)size), 0);
  for (int i = 0; i < size; i++) {
    subject_register(&ring.outer[i]);
    subject_register(&ring.inner[i]);
    ring.queues[i] = queue_open(4, CBR_QUEUE_REJECT, flags);
    loop_start(&ring.loops[i], ring.queues[i], flags == CBR_QUEUE_OWNED);
  }
  for (int i = 0; i < size; i++)
    CHECK_OK(post_action(ring.queues[i], &ring.outer[i], calls_on_the_next, NULL));
  for (int i = 0; i < size; i++) {
    struct subject *it = &ring.outer[i];
    POLL_UNTIL(load_int(&it->calls) == 1 && load_int(&it->running) == 0);
  }
  for (int i = 0; i < size; i++) loop_end(&ring.loops[i]);
  int told = 0;
  for (int i = 0; i < size; i++) {
    if (ring.statuses[i] != CBR_ERR_DEADLOCK) CHECK_OK(ring.statuses[i]);
    told += ring.statuses[i] == CBR_ERR_DEADLOCK;
    CHECK_EQ(ring.inner[(i + 1) % size].calls, ring.statuses[i] == CBR_OK);
    CHECK_OK(cbr_unregister_wait(ring.outer[i].handle, -1));
    CHECK_OK(cbr_unregister_wait(ring.inner[i].handle, -1));
  }
  CHECK(told >= 1);
}

TEST(of_loops_that_call_on_one_another_in_a_ring_one_is_told) {
  for (long round = scaled(60); round > 0; round--) {
    for (int size = 2; size <= MOST; size++) run_ring(size, CBR_QUEUE_OWNED);
  }
}

/* Each has one thread that dispatches it, and nobody else ever has. */
TEST(of_loops_without_an_owner_that_call_on_one_another_one_is_told) {
  for (long round = scaled(60); round > 0; round--) run_ring(2, 0);
}

/* A chain is no ring: the last loop is free, so everybody gets its result. */
struct chain {
  cbr_queue queues[MOST];
  struct subject its[MOST];
};

static struct chain chain;

static intptr_t calls_down_the_chain(struct subject *it, void *arg) {
  int self = (int)(it - chain.its);
  intptr_t result = 0;
  (void)arg;
  if (self == MOST - 1) return 1;
  struct action action = {calls_down_the_chain, NULL};
  CHECK_OK(cbr_call_on(chain.queues[self + 1], chain.its[self + 1].handle, &action, -1, &result));
  return result + 1;
}

TEST(a_chain_of_calls_through_several_loops_is_no_deadlock) {
  struct loop loops[MOST];
  for (int i = 0; i < MOST; i++) {
    subject_register(&chain.its[i]);
    chain.queues[i] = queue_open(4, CBR_QUEUE_REJECT, i % 2 ? CBR_QUEUE_OWNED : 0);
    loop_start(&loops[i], chain.queues[i], i % 2);
  }
  for (long round = scaled(500); round > 0; round--) {
    intptr_t result = 0;
    struct action action = {calls_down_the_chain, NULL};
    CHECK_OK(cbr_call_on(chain.queues[0], chain.its[0].handle, &action, -1, &result));
    CHECK_EQ(result, MOST);
  }
  for (int i = 0; i < MOST; i++) loop_end(&loops[i]);
  for (int i = 0; i < MOST; i++) CHECK_OK(cbr_unregister(chain.its[i].handle));
}

/* A loop waits for a callback to end that this thread is inside, and this thread calls on it. */
struct mixed {
  cbr_queue queue;
  struct subject held, waiting, called;
  cbr_status wait_status, call_status;
  gate inside, loop_waits;
};

static struct mixed mixed;

static intptr_t waits_for_the_held_one(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  gate_pass(&mixed.inside);
  gate_open(&mixed.loop_waits);
  mixed.wait_status = cbr_unregister_wait(mixed.held.handle, -1);
  return 0;
}

static intptr_t calls_on_the_loop_that_waits(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  gate_open(&mixed.inside);
  gate_pass(&mixed.loop_waits);
  mixed.call_status = cbr_call_on(mixed.queue, mixed.called.handle, NULL, -1, NULL);
  return 0;
}

TEST(a_ring_of_a_call_and_a_wait_is_a_deadlock) {
  for (long round = scaled(100); round > 0; round--) {
    struct loop loop;
    memset(&mixed, 0, sizeof mixed);
    gate_init(&mixed.inside);
    gate_init(&mixed.loop_waits);
    mixed.queue = queue_open(4, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED);
    subject_register(&mixed.held);
    subject_register(&mixed.waiting);
    subject_register(&mixed.called);
    loop_start(&loop, mixed.queue, true);
    CHECK_OK(post_action(mixed.queue, &mixed.waiting, waits_for_the_held_one, NULL));
    CHECK_OK(subject_run(&mixed.held, calls_on_the_loop_that_waits, NULL, NULL));
    loop_end(&loop);
    if (mixed.wait_status != CBR_ERR_DEADLOCK) CHECK_OK(mixed.wait_status);
    if (mixed.call_status != CBR_ERR_DEADLOCK) CHECK_OK(mixed.call_status);
    CHECK(mixed.wait_status == CBR_ERR_DEADLOCK || mixed.call_status == CBR_ERR_DEADLOCK);
    CHECK_EQ(mixed.called.calls, mixed.call_status == CBR_OK);
    CHECK_EQ(subject_destroyed(&mixed.held), 1);
    CHECK_OK(cbr_unregister(mixed.waiting.handle));
    CHECK_OK(cbr_unregister(mixed.called.handle));
  }
}

/* A callback that is called on a loop unregisters, and waits for, what its caller is inside. */
static intptr_t waits_for_its_caller(struct subject *it, void *arg) {
  (void)it;
  return cbr_unregister_wait(((struct subject *)arg)->handle, -1);
}

struct outer_call {
  cbr_queue queue;
  struct subject *called;
  intptr_t result;
};

static intptr_t calls_one_that_waits_for_it(struct subject *it, void *arg) {
  struct outer_call *self = (struct outer_call *)arg;
  struct action action = {waits_for_its_caller, it};
  CHECK_OK(cbr_call_on(self->queue, self->called->handle, &action, -1, &self->result));
  return 0;
}

TEST(a_call_that_has_begun_counts_when_it_waits_for_what_its_caller_is_inside) {
  for (long round = scaled(300); round > 0; round--) {
    struct subject outer, called;
    struct loop loop;
    subject_register(&outer);
    subject_register(&called);
    struct outer_call self = {queue_open(4, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED), &called, 0};
    loop_start(&loop, self.queue, true);
    if (round % 2) POLL_UNTIL(sleeps(&loop.number));
    CHECK_OK(subject_run(&outer, calls_one_that_waits_for_it, &self, NULL));
    CHECK_EQ(self.result, CBR_ERR_DEADLOCK);
    CHECK_EQ(outer.destroyed, 1);
    loop_end(&loop);
    CHECK_OK(cbr_unregister(called.handle));
  }
}
