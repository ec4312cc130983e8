/* Thunks that are called, closed and retargeted by several threads at once. */
#include "support_child.h"
#include "support_thunk.h"

/* --- closing and retargeting under callers ------------------------------------------------------ */

struct race {
  int_fn fn;
  cbr_thunk thunk;
  int stop, calls, fallbacks;
};

/* Calls until told to stop; a result is an adder's, whose bias is a multiple of 1000, or the fallback. */
static void *caller_main(void *arg) {
  struct race *it = (struct race *)arg;
  int calls = 0, fallbacks = 0;
  while (load_int(&it->stop) == 0) {
    int result = it->fn(7, NULL);
    calls++;
    if (result == FALLBACK) {
      fallbacks++;
    } else if (result % 1000 != 7) {
      FAIL("a call returned %d", result);
    }
  }
  add_int(&it->calls, calls);
  add_int(&it->fallbacks, fallbacks);
  return NULL;
}

TEST(a_thunk_may_be_closed_while_other_threads_call_it) {
  long rounds = scaled(300);
  for (long round = 0; round < rounds; round++) {
    struct adder it;
    struct race race = {0};
    adder_begin(&it, 1000);
    race.fn = it.fn;
    pthread_t first = start(caller_main, &race), second = start(caller_main, &race);
    for (int i = 0; i < 200; i++) CHECK_EQ(it.fn(7, NULL), 1007);
    CHECK_OK(cbr_thunk_close(it.thunk));
    for (int i = 0; i < 200; i++) CHECK_EQ(it.fn(7, NULL), FALLBACK);
    store_int(&race.stop, 1);
    join(first);
    join(second);
    CHECK_EQ(subject_destroyed(&it.subject), 1);
  }
}

TEST(a_thunk_may_be_retargeted_while_other_threads_call_it) {
  enum { KEPT = 64 };
  static struct adder adders[KEPT];
  long rounds = scaled(50000);
  struct race race = {0};
  adder_begin(&adders[0], 1000);
  race.fn = adders[0].fn;
  race.thunk = adders[0].thunk;
  pthread_t first = start(caller_main, &race), second = start(caller_main, &race);
  for (long round = 1; round < rounds; round++) {
    struct adder *next = &adders[round % KEPT];
    /* Its destroy has run before its memory is used again. */
    while (round >= KEPT && subject_destroyed(&next->subject) == 0) sched_yield();
    adder_register(next, (int)(1000 * (1 + round % KEPT)));
    CHECK_OK(cbr_thunk_retarget(race.thunk, next->subject.handle));
    CHECK_OK(cbr_release(next->subject.handle));
    CHECK_EQ(race.fn(7, NULL), 7 + next->bias);
  }
  store_int(&race.stop, 1);
  join(first);
  join(second);
  CHECK_EQ(race.fallbacks, 0);
  CHECK_OK(cbr_thunk_close(race.thunk));
  for (int i = 0; i < KEPT; i++) CHECK_EQ(subject_destroyed(&adders[i].subject), 1);
}

TEST(a_callback_may_end_while_other_threads_call_its_thunk) {
  long rounds = scaled(300);
  for (long round = 0; round < rounds; round++) {
    struct adder it;
    struct race race = {0};
    adder_register(&it, 1000);
    adder_open(&it);
    race.fn = it.fn;
    pthread_t other = start(caller_main, &race);
    for (int i = 0; i < 200; i++) CHECK_EQ(it.fn(7, NULL), 1007);
    CHECK_OK(cbr_unregister_wait(it.subject.handle, -1));
    CHECK_EQ(subject_destroyed(&it.subject), 1);
    CHECK_EQ(it.fn(7, NULL), FALLBACK);
    store_int(&race.stop, 1);
    join(other);
    CHECK_OK(cbr_thunk_close(it.thunk));
  }
}

/* --- closers that meet ----------------------------------------------------------------------------- */

struct closers {
  cbr_thunk thunk;
  pthread_barrier_t start;
  int closed;
};

static void *closer_main(void *arg) {
  struct closers *it = (struct closers *)arg;
  meet(&it->start);
  cbr_status status = cbr_thunk_close(it->thunk);
  CHECK(status == CBR_OK || status == CBR_ERR_STALE);
  if (status == CBR_OK) add_int(&it->closed, 1);
  return NULL;
}

TEST(of_two_that_close_a_thunk_one_does) {
  for (long round = scaled(2000); round > 0; round--) {
    struct adder it;
    struct closers closers = {0};
    adder_begin(&it, 1);
    closers.thunk = it.thunk;
    CHECK_EQ(pthread_barrier_init(&closers.start, NULL, 2), 0);
    pthread_t first = start(closer_main, &closers), second = start(closer_main, &closers);
    join(first);
    join(second);
    CHECK_EQ(closers.closed, 1);
    CHECK_EQ(subject_destroyed(&it.subject), 1);
    CHECK_EQ(pthread_barrier_destroy(&closers.start), 0);
  }
}

/* --- churn --------------------------------------------------------------------------------------------- */

static void *churn_main(void *arg) {
  long rounds = *(const long *)arg;
  struct adder it;
  for (long round = 0; round < rounds; round++) {
    adder_begin(&it, 1000);
    CHECK_EQ(it.fn(7, NULL), 1007);
    CHECK_OK(cbr_thunk_close(it.thunk));
    CHECK_EQ(it.subject.destroyed, 1);
  }
  return NULL;
}

TEST(threads_open_call_and_close_their_own_at_once) {
  long rounds = scaled(50000);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) threads[i] = start(churn_main, &rounds);
  for (int i = 0; i < 4; i++) join(threads[i]);
}

/* A thread that forks must not find a pool locked by one that is not in the child. */
static void *forker_main(void *arg) {
  for (long round = *(const long *)arg; round > 0; round--) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      struct adder it;
      alarm(5);
      adder_begin(&it, 1000);
      CHECK_EQ(it.fn(7, NULL), 1007);
      CHECK_OK(cbr_thunk_close(it.thunk));
      _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0) CHECK_EQ(errno, EINTR);
    CHECK_EQ(status, 0);
  }
  return NULL;
}

static void *churn_until_stopped(void *arg) {
  long few = 10;
  while (load_int(&((struct race *)arg)->stop) == 0) churn_main(&few);
  return NULL;
}

TEST(a_fork_among_threads_that_open_and_close_leaves_the_child_whole) {
  long forks = scaled(500);
  if (HARNESS_SANITIZED) SKIP("a lock of the sanitizer may be held by another thread at the fork");
  if (under_valgrind()) SKIP("what the other thread was about to do is a leak in the child");
  struct race race = {0};
  pthread_t churn = start(churn_until_stopped, &race), forker = start(forker_main, &forks);
  join(forker);
  store_int(&race.stop, 1);
  join(churn);
}
