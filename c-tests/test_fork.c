/* fork: the child has the memory and one thread, and nothing of the others' calls blocks it. */
#include "support_child.h"
#include "support_random.h"
#include "support_subject.h"

TEST(handles_from_before_fork_work_in_the_child_and_in_the_parent) {
  struct subject it, ended;
  uint32_t count = 0;
  subject_register(&it);
  subject_register(&ended);
  CHECK_OK(cbr_retain(it.handle));
  CHECK_OK(cbr_unregister(ended.handle));
  pid_t child = fork_watched();
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_EQ(it.calls, 1);
  CHECK_STATUS(cbr_call(ended.handle, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(cbr_refcount(it.handle, &count));
  CHECK_EQ(count, 2);
  CHECK_OK(cbr_release(it.handle));
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
  if (child == 0) _exit(0);
  check_child_passed(child);
}

TEST(calls_in_flight_on_other_threads_do_not_block_the_child) {
  struct subject it;
  struct occupant guests[3];
  subject_register(&it);
  for (int i = 0; i < 3; i++) occupy(&guests[i], &it);
  pid_t child = fork_watched();
  if (child == 0) {
    it.running = 0; /* they are not in this process */
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    CHECK_OK(cbr_unregister_wait(it.handle, -1));
    CHECK_EQ(it.destroyed, 1);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_STATUS(cbr_unregister_wait(it.handle, 0), CBR_ERR_TIMEOUT);
  for (int i = 0; i < 3; i++) CHECK_OK(vacate(&guests[i]));
  CHECK_EQ(it.destroyed, 1);
}

TEST(a_callback_revoked_before_fork_under_anothers_call_ends_in_the_child) {
  struct subject it;
  struct occupant guest;
  subject_register(&it);
  occupy(&guest, &it);
  CHECK_OK(cbr_unregister(it.handle));
  pid_t child = fork_watched();
  if (child == 0) {
    it.running = 0;
    cbr_status status = cbr_unregister_wait(it.handle, -1);
    CHECK(status == CBR_OK || status == CBR_ERR_STALE);
    CHECK_EQ(it.destroyed, 1);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_EQ(subject_destroyed(&it), 0);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(it.destroyed, 1);
}

TEST(a_callback_revoked_before_fork_ends_in_the_child_though_nobody_waits) {
  struct subject it, other;
  struct occupant guest;
  subject_register(&it);
  occupy(&guest, &it);
  CHECK_OK(cbr_unregister(it.handle));
  pid_t child = fork_watched();
  if (child == 0) {
    it.running = 0;
    subject_register(&other); /* at the latest with the next life's end */
    CHECK_OK(cbr_unregister(other.handle));
    CHECK_EQ(it.destroyed, 1);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(it.destroyed, 1);
}

static void lingers(struct subject *it) {
  struct occupant *gates = (struct occupant *)it->extra;
  gate_open(&gates->inside);
  gate_pass(&gates->leave);
}

static void *unregisters(void *arg) {
  CHECK_OK(cbr_unregister(((struct subject *)arg)->handle));
  return NULL;
}

/* The rest of that destroy will never run here; waiting for it would be waiting for ever. */
TEST(a_destroy_running_on_another_thread_does_not_block_the_child) {
  struct subject it, other;
  struct occupant gates;
  gate_init(&gates.inside);
  gate_init(&gates.leave);
  subject_register(&it);
  it.on_destroy = lingers;
  it.extra = &gates;
  pthread_t ender = start(unregisters, &it);
  gate_pass(&gates.inside);
  pid_t child = fork_watched();
  if (child == 0) {
    cbr_status status = cbr_unregister_wait(it.handle, -1);
    CHECK(status == CBR_OK || status == CBR_ERR_STALE);
    CHECK_STATUS(cbr_unregister_wait(it.handle, -1), CBR_ERR_STALE);
    subject_register(&other);
    CHECK_OK(cbr_unregister_wait(other.handle, -1));
    _exit(0);
  }
  check_child_passed(child);
  gate_open(&gates.leave);
  join(ender);
  CHECK_EQ(it.destroyed, 1);
}

static gate destroying, go_on;

static void destroy_lingers(void *user_data) {
  (void)user_data;
  gate_open(&destroying);
  gate_pass(&go_on);
}

static intptr_t returns_nothing(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 0;
}

static void *ends(void *handle) {
  CHECK_OK(cbr_unregister(*(cbr_handle *)handle));
  return NULL;
}

static uint64_t calls_of(cbr_scope scope) {
  cbr_stats stats = {.size = sizeof stats};
  CHECK_OK(cbr_stats_get(scope, &stats));
  return stats.calls;
}

TEST(what_a_scopes_metered_callback_did_is_known_in_the_child_though_its_destroy_was_running) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_scope scope;
  cbr_handle handle;
  gate_init(&destroying);
  gate_init(&go_on);
  CHECK_OK(cbr_scope_open("plugin", &scope));
  options.fn = (cbr_any_fn)returns_nothing;
  options.destroy = destroy_lingers;
  options.scope = scope;
  options.flags = CBR_METERED;
  CHECK_OK(cbr_register_with(&options, &handle));
  for (int i = 0; i < 5; i++) CHECK_OK(cbr_call(handle, NULL, NULL));
  pthread_t ender = start(ends, &handle);
  gate_pass(&destroying);
  pid_t child = fork_watched();
  if (child == 0) {
    CHECK_EQ(calls_of(scope), 5);
    CHECK_OK(cbr_scope_close(scope, -1, NULL));
    _exit(0);
  }
  gate_open(&go_on);
  join(ender);
  CHECK_EQ(calls_of(scope), 5);
  check_child_passed(child);
}

static intptr_t forks(struct subject *it, void *arg) {
  pid_t child = fork_watched();
  *(pid_t *)arg = child;
  CHECK_EQ(cbr_depth(), 1);
  CHECK_EQ(cbr_current(), it->handle);
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_EQ(it->destroyed, 0);
  CHECK_STATUS(cbr_unregister_wait(it->handle, -1), CBR_ERR_DEADLOCK);
  return 12;
}

TEST(the_forking_threads_own_call_goes_on_in_the_child) {
  struct subject it;
  pid_t child = -1;
  intptr_t result = 0;
  subject_register(&it);
  CHECK_OK(subject_run(&it, forks, &child, &result));
  CHECK_EQ(result, 12);
  CHECK_EQ(it.destroyed, 1);
  CHECK_EQ(cbr_depth(), 0);
  if (child == 0) _exit(0);
  check_child_passed(child);
}

TEST(pins_and_holds_from_before_fork_can_be_left_in_the_child) {
  struct subject it;
  cbr_pin entered, held;
  subject_register(&it);
  CHECK_OK(cbr_enter(it.handle, 0, &entered));
  CHECK_OK(cbr_hold(it.handle, 0, &held));
  pid_t child = fork_watched();
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_OK(cbr_leave(&entered));
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_leave(&held));
  CHECK_EQ(it.destroyed, 1);
  if (child == 0) _exit(0);
  check_child_passed(child);
}

static void forks_in_destroy(struct subject *it) { *(pid_t *)it->extra = fork_watched(); }

TEST(fork_inside_destroy_finishes_it_in_both) {
  struct subject it;
  pid_t child = -1;
  subject_register(&it);
  it.on_destroy = forks_in_destroy;
  it.extra = &child;
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
  CHECK_STATUS(cbr_unregister_wait(it.handle, -1), CBR_ERR_STALE);
  if (child == 0) _exit(0);
  check_child_passed(child);
}

/* In the parent: a thread inside a waits for b, where the main thread is. In the child that thread
 * is gone, so the main thread's wait for a is no deadlock. */
static intptr_t waits_for(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_unregister_wait(((struct subject *)arg)->handle, -1));
  return 0;
}

static void *inside_a_waits_for_b(void *arg) {
  struct subject *both = (struct subject *)arg;
  CHECK_OK(subject_run(&both[0], waits_for, &both[1], NULL));
  return NULL;
}

TEST(a_wait_of_another_thread_makes_no_deadlock_in_the_child) {
  struct subject both[2];
  cbr_pin pin;
  subject_register(&both[0]);
  subject_register(&both[1]);
  CHECK_OK(cbr_enter(both[1].handle, 0, &pin));
  pthread_t waiter = start(inside_a_waits_for_b, both);
  POLL_UNTIL(!cbr_is_live(both[1].handle));
  pid_t child = fork_watched();
  if (child == 0) {
    both[0].running = 0;
    CHECK_OK(cbr_unregister_wait(both[0].handle, -1));
    CHECK_EQ(both[0].destroyed, 1);
    CHECK_OK(cbr_leave(&pin));
    CHECK_EQ(both[1].destroyed, 1);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_OK(cbr_leave(&pin));
  join(waiter);
  CHECK_OK(cbr_unregister(both[0].handle));
  CHECK_EQ(both[0].destroyed, 1);
  CHECK_EQ(both[1].destroyed, 1);
}

static void *works_in_the_child(void *arg) {
  struct subject *shared = (struct subject *)arg;
  for (int i = 0; i < 50; i++) {
    struct subject own;
    struct occupant guest;
    subject_register(&own);
    CHECK_OK(cbr_call(shared->handle, NULL, NULL));
    occupy(&guest, &own);
    CHECK_OK(cbr_unregister(own.handle));
    CHECK_EQ(subject_destroyed(&own), 0);
    CHECK_OK(vacate(&guest));
    CHECK_EQ(own.destroyed, 1);
  }
  return NULL;
}

TEST(the_child_may_start_threads_and_fork_again) {
  struct subject it;
  struct occupant guest;
  subject_register(&it);
  occupy(&guest, &it);
  pid_t child = fork_watched();
  if (child == 0) {
    it.running = 0;
    pthread_t first = start(works_in_the_child, &it), second = start(works_in_the_child, &it);
    pid_t grandchild = fork_watched();
    if (grandchild == 0) {
      works_in_the_child(&it);
      _exit(0);
    }
    join(first);
    join(second);
    check_child_passed(grandchild);
    CHECK_OK(cbr_unregister_wait(it.handle, -1));
    CHECK_EQ(it.destroyed, 1);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_OK(vacate(&guest));
  CHECK_OK(cbr_unregister(it.handle));
}

/* Whatever the others are doing at the moment of the fork, their places and lists are whole, and
 * nothing that they were at is waited for. */
enum { CHURNERS = 3, CHURNED = 32 };
static struct subject churned[CHURNERS][CHURNED];
static int churn_done;
static gate churn_begun;

struct churner {
  struct subject *live;
  struct rng rng;
};

static void *churns(void *arg) {
  struct churner *self = (struct churner *)arg;
  for (int i = 0; i < CHURNED; i++) subject_register(&self->live[i]);
  gate_open(&churn_begun);
  while (!load_int(&churn_done)) {
    struct subject *it = &self->live[rng_below(&self->rng, CHURNED)];
    CHECK_OK(cbr_call(it->handle, NULL, NULL));
    CHECK_OK(rng_below(&self->rng, 2) ? cbr_unregister(it->handle)
                                      : cbr_unregister_wait(it->handle, -1));
    CHECK_EQ(it->destroyed, 1);
    subject_register(it);
  }
  for (int i = 0; i < CHURNED; i++) CHECK_OK(cbr_unregister(self->live[i].handle));
  return NULL;
}

static void works_after_a_fork_in_churn(void) {
  static struct subject many[500];
  for (int i = 0; i < 500; i++) subject_register(&many[i]);
  for (int i = 0; i < 500; i++) CHECK_OK(cbr_call(many[i].handle, NULL, NULL));
  for (int i = 0; i < 500; i++) CHECK_OK(cbr_unregister_wait(many[i].handle, -1));
  for (int i = 0; i < 500; i++) CHECK_EQ(many[i].destroyed, 1);
  for (int i = 0; i < 500; i++) CHECK_EQ(many[i].calls, 1);
  for (int i = 0; i < CHURNERS * CHURNED; i++) {
    struct subject *it = &churned[i / CHURNED][i % CHURNED];
    it->running = 0; /* whoever was inside is not in this process */
    cbr_status status = cbr_unregister_wait(it->handle, -1);
    CHECK(status == CBR_OK || status == CBR_ERR_STALE);
  }
}

TEST(fork_while_other_threads_register_call_and_unregister) {
  pthread_t threads[CHURNERS];
  struct churner churners[CHURNERS];
  uint64_t seed = rng_seed();
  gate_init(&churn_begun);
  for (int i = 0; i < CHURNERS; i++) {
    churners[i].live = churned[i];
    churners[i].rng.state = seed + (uint64_t)i;
    threads[i] = start(churns, &churners[i]);
  }
  for (int i = 0; i < CHURNERS; i++) gate_pass(&churn_begun);
  for (long round = 0; round < scaled(500); round++) {
    pid_t child = fork_watched();
    if (child == 0) {
      works_after_a_fork_in_churn();
      _exit(0);
    }
    check_child_passed(child);
  }
  store_int(&churn_done, 1);
  for (int i = 0; i < CHURNERS; i++) join(threads[i]);
}

/* --- while the library is starting -------------------------------------------------------- */

static pthread_barrier_t first_use;

static void *uses_first(void *arg) {
  struct subject it;
  (void)arg;
  meet(&first_use);
  subject_register(&it);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
  return NULL;
}

/* A process forks when another of its threads is in the first use of the library. */
static void fork_at_first_use(void) {
  struct subject it;
  CHECK_EQ(pthread_barrier_init(&first_use, NULL, 2), 0);
  pthread_t thread = start(uses_first, NULL);
  meet(&first_use);
  pid_t child = fork_watched();
  subject_register(&it);
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
  if (child == 0) _exit(0);
  check_child_passed(child);
  join(thread);
}

TEST(fork_during_the_first_use_of_the_library) {
  for (long round = 0; round < scaled(500); round++) {
    pid_t child = fork_watched(); /* has not used the library, as we have not */
    if (child == 0) {
      fork_at_first_use();
      _exit(0);
    }
    check_child_passed(child);
  }
}
