/* Waits that could never end are refused at once, and waits that can end never are. */
#include "support_random.h"
#include "support_subject.h"

#define MS INT64_C(1000000)

static intptr_t waits_for_itself(struct subject *it, void *arg) {
  int64_t timeout = *(const int64_t *)arg;
  CHECK_REFUSED(cbr_unregister_wait(it->handle, timeout), CBR_ERR_DEADLOCK);
  CHECK(!cbr_is_live(it->handle));
  CHECK_EQ(it->destroyed, 0);
  CHECK_REFUSED(cbr_unregister_wait(it->handle, timeout), CBR_ERR_DEADLOCK); /* as often as asked */
  return 0;
}

TEST(waiting_inside_the_callback_itself_is_a_deadlock_and_revokes_all_the_same) {
  static const int64_t timeouts[] = {-1, 10000 * MS, 0};
  for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
    struct subject it;
    int64_t timeout = timeouts[i];
    subject_register(&it);
    CHECK_OK(subject_run(&it, waits_for_itself, &timeout, NULL));
    CHECK_EQ(it.destroyed, 1);
  }
}

static intptr_t waits_for_the_enclosing_one(struct subject *it, void *arg) {
  (void)it;
  CHECK_REFUSED(cbr_unregister_wait(((struct subject *)arg)->handle, -1), CBR_ERR_DEADLOCK);
  return 0;
}

static intptr_t enters_a_second(struct subject *it, void *arg) {
  return subject_run((struct subject *)arg, waits_for_the_enclosing_one, it, NULL);
}

TEST(waiting_for_an_enclosing_callback_is_a_deadlock) {
  struct subject outer, inner;
  intptr_t result = 1;
  subject_register(&outer);
  subject_register(&inner);
  CHECK_OK(subject_run(&outer, enters_a_second, &inner, &result));
  CHECK_EQ(result, CBR_OK);
  CHECK_EQ(outer.destroyed, 1);
  CHECK_OK(cbr_unregister(inner.handle));
}

TEST(waiting_for_ones_own_entered_pin_is_a_deadlock) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  CHECK_REFUSED(cbr_unregister_wait(it.handle, -1), CBR_ERR_DEADLOCK);
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(it.destroyed, 1);
}

static void destroy_waits_for_itself(struct subject *it) {
  CHECK_REFUSED(cbr_unregister_wait(it->handle, -1), CBR_ERR_DEADLOCK);
}

TEST(waiting_inside_destroy_for_its_own_callback_is_a_deadlock) {
  struct subject it;
  subject_register(&it);
  it.on_destroy = destroy_waits_for_itself;
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

/* --- rings: thread i is inside callback i and waits for callback i + 1 --------------------- */

struct ring {
  int size, closed;
  struct subject *subjects;
  pthread_barrier_t everybody_inside;
};

struct ring_thread {
  struct ring *ring;
  int index;
  cbr_status status;
};

static intptr_t ring_inside(struct subject *it, void *arg) {
  struct ring_thread *self = (struct ring_thread *)arg;
  struct ring *ring = self->ring;
  int next = (self->index + 1) % ring->size;
  (void)it;
  meet(&ring->everybody_inside);
  if (next != 0 || ring->closed) {
    self->status = cbr_unregister_wait(ring->subjects[next].handle, -1);
    return 0;
  }
  /* The end of an open chain leaves when all others have begun to wait. */
  self->status = CBR_OK;
  for (int i = 1; i < ring->size; i++) POLL_UNTIL(!cbr_is_live(ring->subjects[i].handle));
  return 0;
}

static void *ring_main(void *arg) {
  struct ring_thread *self = (struct ring_thread *)arg;
  CHECK_OK(subject_run(&self->ring->subjects[self->index], ring_inside, self, NULL));
  return NULL;
}

/* Returns how many were told of a deadlock. */
static int run_ring(int size, int closed) {
  struct ring ring;
  struct subject *subjects = (struct subject *)calloc((size_t)size, sizeof *subjects);
  struct ring_thread *threads = (struct ring_thread *)calloc((size_t)size, sizeof *threads);
  pthread_t *ids = (pthread_t *)calloc((size_t)size, sizeof *ids);
  int deadlocks = 0;
  CHECK(subjects != NULL && threads != NULL && ids != NULL);
  ring.size = size;
  ring.closed = closed;
  ring.subjects = subjects;
  CHECK_EQ(pthread_barrier_init(&ring.everybody_inside, NULL, (unsigned)size), 0);
  for (int i = 0; i < size; i++) subject_register(&subjects[i]);
  for (int i = 0; i < size; i++) {
    threads[i].ring = &ring;
    threads[i].index = i;
    ids[i] = start(ring_main, &threads[i]);
  }
  for (int i = 0; i < size; i++) join(ids[i]);
  for (int i = 0; i < size; i++) {
    if (threads[i].status == CBR_ERR_DEADLOCK) deadlocks++;
    else CHECK_STATUS(threads[i].status, CBR_OK);
    if (i == 0 && !closed) CHECK_OK(cbr_unregister(subjects[0].handle));
    CHECK_EQ(subjects[i].destroyed, 1);
  }
  pthread_barrier_destroy(&ring.everybody_inside);
  free(ids);
  free(threads);
  free(subjects);
  return deadlocks;
}

TEST(a_ring_of_waits_is_found_over_two_threads) {
  for (long i = 0; i < scaled(300); i++) CHECK(run_ring(2, 1) >= 1);
}

TEST(a_ring_of_waits_is_found_over_three_threads) {
  for (long i = 0; i < scaled(300); i++) CHECK(run_ring(3, 1) >= 1);
}

TEST(a_ring_of_waits_is_found_over_eight_threads) {
  for (long i = 0; i < scaled(100); i++) CHECK(run_ring(8, 1) >= 1);
}

TEST(a_ring_of_waits_is_found_over_64_threads) {
  for (long i = 0; i < scaled(20); i++) CHECK(run_ring(64, 1) >= 1);
}

TEST(an_open_chain_of_waits_is_no_deadlock) {
  for (long i = 0; i < scaled(200); i++) {
    CHECK_EQ(run_ring(2, 0), 0);
    CHECK_EQ(run_ring(3, 0), 0);
    CHECK_EQ(run_ring(8, 0), 0);
  }
  CHECK_EQ(run_ring(64, 0), 0);
}

/* --- rings through destroy functions ------------------------------------------------------ */

/* Thread A is inside a and waits for b. Thread B runs b's destroy, which waits for a. */
struct destroy_ring {
  struct subject a, b;
  pthread_barrier_t both_inside;
  cbr_status a_status, b_status;
};

static void b_destroy_waits_for_a(struct subject *it) {
  struct destroy_ring *ring = (struct destroy_ring *)it->extra;
  meet(&ring->both_inside);
  ring->b_status = cbr_unregister_wait(ring->a.handle, -1);
}

static intptr_t a_waits_for_b(struct subject *it, void *arg) {
  struct destroy_ring *ring = (struct destroy_ring *)arg;
  (void)it;
  meet(&ring->both_inside);
  ring->a_status = cbr_unregister_wait(ring->b.handle, -1);
  return 0;
}

static void *runs_a(void *arg) {
  struct destroy_ring *ring = (struct destroy_ring *)arg;
  CHECK_OK(subject_run(&ring->a, a_waits_for_b, ring, NULL));
  return NULL;
}

TEST(a_ring_of_waits_is_found_through_a_destroy_function) {
  struct destroy_ring ring;
  CHECK_EQ(pthread_barrier_init(&ring.both_inside, NULL, 2), 0);
  for (long i = 0; i < scaled(300); i++) {
    subject_register(&ring.a);
    subject_register(&ring.b);
    ring.b.on_destroy = b_destroy_waits_for_a;
    ring.b.extra = &ring;
    ring.a_status = ring.b_status = 1;
    pthread_t thread = start(runs_a, &ring);
    CHECK_OK(cbr_unregister(ring.b.handle));
    join(thread);
    CHECK(ring.a_status == CBR_ERR_DEADLOCK || ring.b_status == CBR_ERR_DEADLOCK);
    if (ring.a_status != CBR_ERR_DEADLOCK) {
      CHECK(ring.a_status == CBR_OK || ring.a_status == CBR_ERR_STALE);
    }
    if (ring.b_status != CBR_ERR_DEADLOCK) CHECK_OK(ring.b_status);
    CHECK_EQ(ring.a.destroyed, 1);
    CHECK_EQ(ring.b.destroyed, 1);
  }
}

/* Two destroy functions that wait for each other. */
struct destroy_pair {
  struct subject subjects[2];
  pthread_barrier_t both_inside;
  cbr_status statuses[2];
};

static void destroy_waits_for_the_other(struct subject *it) {
  struct destroy_pair *pair = (struct destroy_pair *)it->extra;
  int other = it == &pair->subjects[0];
  meet(&pair->both_inside);
  pair->statuses[1 - other] = cbr_unregister_wait(pair->subjects[other].handle, -1);
}

static void *unregisters(void *arg) {
  CHECK_OK(cbr_unregister(((struct subject *)arg)->handle));
  return NULL;
}

TEST(a_ring_of_waits_is_found_over_two_destroy_functions) {
  struct destroy_pair pair;
  CHECK_EQ(pthread_barrier_init(&pair.both_inside, NULL, 2), 0);
  for (long i = 0; i < scaled(300); i++) {
    for (int j = 0; j < 2; j++) {
      subject_register(&pair.subjects[j]);
      pair.subjects[j].on_destroy = destroy_waits_for_the_other;
      pair.subjects[j].extra = &pair;
    }
    pthread_t thread = start(unregisters, &pair.subjects[0]);
    unregisters(&pair.subjects[1]);
    join(thread);
    CHECK(pair.statuses[0] == CBR_ERR_DEADLOCK || pair.statuses[1] == CBR_ERR_DEADLOCK);
    for (int j = 0; j < 2; j++) {
      CHECK_EQ(pair.subjects[j].destroyed, 1);
      cbr_status status = pair.statuses[j];
      CHECK(status == CBR_OK || status == CBR_ERR_DEADLOCK || status == CBR_ERR_STALE);
    }
  }
}

/* --- not every ring-like thing is a deadlock ---------------------------------------------- */

static intptr_t waits_for_a_busy_one(struct subject *it, void *arg) {
  struct occupant *guest = (struct occupant *)arg;
  (void)it;
  CHECK_STATUS(cbr_unregister_wait(guest->subject->handle, 10 * MS), CBR_ERR_TIMEOUT);
  CHECK_OK(vacate(guest));
  CHECK_STATUS(cbr_unregister_wait(guest->subject->handle, -1), CBR_ERR_STALE);
  return 0;
}

TEST(waiting_inside_one_callback_for_a_busy_other_is_no_deadlock) {
  struct subject mine, busy;
  struct occupant guest, mine_too;
  subject_register(&mine);
  subject_register(&busy);
  occupy(&guest, &busy);
  occupy(&mine_too, &mine); /* others inside mine do not wait for anybody */
  CHECK_OK(subject_run(&mine, waits_for_a_busy_one, &guest, NULL));
  CHECK_EQ(busy.destroyed, 1);
  CHECK_OK(vacate(&mine_too));
  CHECK_OK(cbr_unregister(mine.handle));
}

/* b is busy with two threads; only one of them waits for a. That one ring is enough. */
TEST(a_ring_is_found_beside_a_thread_that_is_in_no_ring) {
  for (long i = 0; i < scaled(50); i++) {
    struct destroy_ring ring; /* only its barrier and statuses are used for a and b */
    struct occupant bystander;
    CHECK_EQ(pthread_barrier_init(&ring.both_inside, NULL, 2), 0);
    subject_register(&ring.a);
    subject_register(&ring.b);
    occupy(&bystander, &ring.b);
    cbr_pin pin;
    pthread_t thread = start(runs_a, &ring);
    CHECK_OK(cbr_enter(ring.b.handle, 0, &pin));
    meet(&ring.both_inside);
    ring.b_status = cbr_unregister_wait(ring.a.handle, -1);
    CHECK_OK(cbr_leave(&pin));
    CHECK_OK(vacate(&bystander));
    join(thread);
    CHECK(ring.a_status == CBR_ERR_DEADLOCK || ring.b_status == CBR_ERR_DEADLOCK);
    CHECK_EQ(ring.a.destroyed, 1);
    CHECK_EQ(ring.b.destroyed, 1);
  }
}

/* Threads wait only for callbacks of a higher number than those they are inside, so no ring can
 * close; what a reader sees halfway, an old wait beside a new call, must not pass for one. */
enum { ORDERED = 8, ORDERED_THREADS = 4 };

static cbr_handle ordered_handles[ORDERED];
static int ordered_registered, ordered_destroyed, ordered_done;

struct ordered_call {
  int number;
  struct rng *rng;
};

static intptr_t ordered_fn(void *user_data, void *arg);

static void ordered_destroy(void *user_data) {
  (void)user_data;
  add_int(&ordered_destroyed, 1);
}

static cbr_handle ordered_new(void) {
  cbr_handle handle;
  CHECK_OK(cbr_register(ordered_fn, NULL, ordered_destroy, &handle));
  add_int(&ordered_registered, 1);
  return handle;
}

static cbr_handle ordered_at(int number) {
  return __atomic_load_n(&ordered_handles[number], __ATOMIC_ACQUIRE);
}

/* Half of them give up soon, so that threads go from waiting to being inside something else. */
static void ordered_wait(int number, struct rng *rng) {
  cbr_handle old = ordered_at(number);
  int64_t timeout = rng_below(rng, 2) ? -1 : (int64_t)rng_below(rng, 30000);
  cbr_status status = cbr_unregister_wait(old, timeout);
  if (status == CBR_ERR_STALE) return;
  if (status != CBR_ERR_TIMEOUT || timeout == -1) CHECK_OK(status);
  cbr_handle handle = ordered_new(); /* of several that waited, one may put its own in place */
  if (!__atomic_compare_exchange_n(&ordered_handles[number], &old, handle, false, __ATOMIC_ACQ_REL,
                                   __ATOMIC_ACQUIRE)) {
    CHECK_OK(cbr_unregister(handle));
  }
}

static void ordered_run(struct ordered_call *call) {
  cbr_status status = cbr_call(ordered_at(call->number), call, NULL);
  if (status != CBR_ERR_STALE) CHECK_OK(status);
}

static intptr_t ordered_fn(void *user_data, void *arg) {
  struct ordered_call *call = (struct ordered_call *)arg;
  int above = ORDERED - 1 - call->number;
  (void)user_data;
  if (above == 0) return 0;
  struct ordered_call next = {call->number + 1 + (int)rng_below(call->rng, (uint64_t)above),
                              call->rng};
  if (rng_below(call->rng, 3) == 0) {
    ordered_run(&next);
  } else {
    ordered_wait(next.number, call->rng);
  }
  return 0;
}

static void *ordered_main(void *arg) {
  struct rng rng = {*(uint64_t *)arg};
  while (!load_int(&ordered_done)) {
    struct ordered_call call = {(int)rng_below(&rng, ORDERED), &rng};
    ordered_run(&call);
  }
  return NULL;
}

TEST(waits_in_a_fixed_order_are_never_taken_for_a_deadlock) {
  pthread_t threads[ORDERED_THREADS];
  uint64_t seeds[ORDERED_THREADS], seed = rng_seed();
  for (int i = 0; i < ORDERED; i++) ordered_handles[i] = ordered_new();
  for (int i = 0; i < ORDERED_THREADS; i++) {
    seeds[i] = seed + (uint64_t)i;
    threads[i] = start(ordered_main, &seeds[i]);
  }
  int64_t end = now_ns() + scaled(2000) * MS;
  POLL_UNTIL(now_ns() > end);
  store_int(&ordered_done, 1);
  for (int i = 0; i < ORDERED_THREADS; i++) join(threads[i]);
  CHECK(ordered_destroyed > 0);
  for (int i = 0; i < ORDERED; i++) CHECK_OK(cbr_unregister(ordered_handles[i]));
  CHECK_EQ(ordered_destroyed, ordered_registered);
}
