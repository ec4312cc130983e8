/* Races by real threads: targets that notice a call after destroy, racers whose store buffers are
 * kept full, and two ways to run them, in step (rounds) or freely (epochs). */
#ifndef CALLBRIDGE_SUPPORT_RACE_H
#define CALLBRIDGE_SUPPORT_RACE_H

#include "support_random.h"
#include "support_threads.h"

enum { TARGET_ALIVE = 0x600d600d, TARGET_DESTROYED = 0x0badbad0, MAX_RACERS = 4 };
enum { COLD_LINES = 1 << 19, LINE = 64 };

struct racer {
  uint64_t epoch; /* goes up when the racer is inside nothing */
  pthread_t thread;
  int index;
  struct rng rng;
  unsigned char *cold;
  void *shared;
} __attribute__((aligned(128)));

/* Stores that miss the cache, so that the ones after them stay in the store buffer for long: a
 * missing barrier is seen only then. No loads: they would fetch the lines beforehand. */
static inline void fill_store_buffer(struct racer *self) {
  for (int i = 0; i < 8; i++) {
    volatile unsigned char *line = &self->cold[rng_below(&self->rng, COLD_LINES) * LINE];
    *line = 1;
  }
}

/* A moment of random length; most are short. */
static inline void dawdle(struct racer *self, uint64_t most) {
  volatile uint64_t left = rng_below(&self->rng, most + 1);
  if (rng_below(&self->rng, 2) == 0) left /= 8;
  while (left > 0) left--;
}

struct target {
  uint32_t state;
  int destroyed;
  cbr_handle handle;
  uint64_t ended_at[MAX_RACERS]; /* every racer's epoch after its unregister */
  bool ended;
};

static inline void target_check_alive(struct target *it) {
  uint32_t state = __atomic_load_n(&it->state, __ATOMIC_RELAXED);
  if (state != TARGET_ALIVE) FAIL("a callback runs with destroyed data (state 0x%x)", state);
}

static inline void target_destroy(void *user_data) {
  struct target *it = (struct target *)user_data;
  uint32_t was = __atomic_exchange_n(&it->state, TARGET_DESTROYED, __ATOMIC_RELAXED);
  if (was != TARGET_ALIVE) FAIL("destroy runs a second time (state 0x%x)", was);
  add_int(&it->destroyed, 1);
}

/* The plain callback; arg is the racer that calls, or NULL. */
static inline intptr_t target_fn(void *user_data, void *arg) {
  struct target *it = (struct target *)user_data;
  struct racer *self = (struct racer *)arg;
  target_check_alive(it);
  if (self != NULL) {
    dawdle(self, 20);
    fill_store_buffer(self);
  }
  target_check_alive(it);
  return (intptr_t)it;
}

static inline void target_register(struct target *it, cbr_fn fn) {
  cbr_handle handle;
  memset(it, 0, sizeof *it);
  it->state = TARGET_ALIVE;
  CHECK_OK(cbr_register(fn, it, target_destroy, &handle));
  __atomic_store_n(&it->handle, handle, __ATOMIC_RELAXED); /* a good guess may be inside already */
}

static inline void check_ok_or_stale(cbr_status status) {
  if (status != CBR_ERR_STALE) CHECK_OK(status);
}

static inline void racers_init(struct racer *racers, int count, void *shared) {
  uint64_t seed = rng_seed();
  memset(racers, 0, sizeof *racers * (size_t)count);
  for (int i = 0; i < count; i++) {
    racers[i].index = i;
    racers[i].rng.state = seed + (uint64_t)i;
    racers[i].shared = shared;
    racers[i].cold = (unsigned char *)calloc(COLD_LINES, LINE);
    CHECK(racers[i].cold != NULL);
    memset(racers[i].cold, 0xff, (size_t)COLD_LINES * LINE); /* real pages, not the zero page */
  }
}

static inline void racers_free(struct racer *racers, int count) {
  for (int i = 0; i < count; i++) free(racers[i].cold);
}

/* How long one race is run. */
static inline int64_t race_end(void) { return now_ns() + scaled(1000) * 1000000; }

/* --- in step: all meet, race once, meet, and racer 0 looks at what has come of it ---------- */

struct rounds {
  int racers;
  void (*prepare)(void);           /* racer 0, before each round */
  void (*run)(struct racer *self); /* everybody, at once */
  void (*check)(void);             /* racer 0, after each round */
  int arrived, turn, stop;
};

static inline void rounds_meet(struct rounds *it) {
  int turn = load_int(&it->turn);
  if (add_int(&it->arrived, 1) == it->racers) {
    store_int(&it->arrived, 0);
    store_int(&it->turn, turn + 1);
    return;
  }
  for (unsigned spins = 1; load_int(&it->turn) == turn; spins++) {
    if (spins % 256 == 0) sched_yield();
  }
}

static inline void *rounds_main(void *arg) {
  struct racer *self = (struct racer *)arg;
  struct rounds *it = (struct rounds *)self->shared;
  take_core(self->index);
  for (;;) {
    rounds_meet(it);
    if (it->stop) return NULL;
    it->run(self);
    rounds_meet(it);
  }
}

static inline void run_rounds(struct rounds *it) {
  struct racer racers[MAX_RACERS];
  racers_init(racers, it->racers, it);
  for (int i = 1; i < it->racers; i++) racers[i].thread = start(rounds_main, &racers[i]);
  take_core(0);
  int64_t end = race_end();
  long rounds = 0;
  for (; now_ns() < end || rounds == 0; rounds++) {
    it->prepare();
    rounds_meet(it);
    it->run(&racers[0]);
    rounds_meet(it);
    it->check();
  }
  it->stop = 1;
  rounds_meet(it);
  for (int i = 1; i < it->racers; i++) join(racers[i].thread);
  racers_free(racers, it->racers);
  printf("%s: %ld rounds\n", harness_current, rounds);
}

/* --- freely: callers call what is published, a reaper publishes and ends ------------------- */

enum { RING = 512 };

struct reaping {
  int callers;
  cbr_fn fn;
  void (*call)(struct racer *self, cbr_handle handle); /* one go of a caller */
  void (*end)(struct racer *self, struct target *it);  /* how the reaper ends one */
  void (*before_the_last_check)(void);                 /* may be NULL */
  struct target ring[RING];
  struct racer racers[MAX_RACERS]; /* 0 reaps */
  cbr_handle published __attribute__((aligned(128)));
  int stop;
};

static inline void *reaping_caller(void *arg) {
  struct racer *self = (struct racer *)arg;
  struct reaping *it = (struct reaping *)self->shared;
  take_core(self->index);
  while (!load_int(&it->stop)) {
    it->call(self, __atomic_load_n(&it->published, __ATOMIC_ACQUIRE));
    __atomic_store_n(&self->epoch, self->epoch + 1, __ATOMIC_RELEASE);
  }
  return NULL;
}

static inline uint64_t reaping_epoch(struct reaping *it, int caller) {
  return __atomic_load_n(&it->racers[caller].epoch, __ATOMIC_ACQUIRE);
}

/* Once every caller has been outside since the end, destroy must have run. */
static inline void reaping_check(struct reaping *it, struct target *target) {
  if (!target->ended) return;
  for (int i = 1; i <= it->callers; i++) {
    while (reaping_epoch(it, i) < target->ended_at[i] + 2 && !load_int(&it->stop)) sched_yield();
  }
  CHECK_EQ(load_int(&target->destroyed), 1);
}

static inline void run_reaping(struct reaping *it) {
  racers_init(it->racers, it->callers + 1, it);
  for (int i = 1; i <= it->callers; i++)
    it->racers[i].thread = start(reaping_caller, &it->racers[i]);
  take_core(0);
  int64_t end = race_end();
  long count = 0;
  for (; now_ns() < end || count == 0; count++) {
    struct target *target = &it->ring[count % RING];
    reaping_check(it, target);
    target_register(target, it->fn);
    __atomic_store_n(&it->published, target->handle, __ATOMIC_RELEASE);
    it->end(&it->racers[0], target);
    for (int i = 1; i <= it->callers; i++) target->ended_at[i] = reaping_epoch(it, i);
    target->ended = true;
  }
  store_int(&it->stop, 1);
  for (int i = 1; i <= it->callers; i++) join(it->racers[i].thread);
  if (it->before_the_last_check != NULL) it->before_the_last_check();
  for (int i = 0; i < RING; i++) reaping_check(it, &it->ring[i]);
  racers_free(it->racers, it->callers + 1);
  printf("%s: %ld callbacks\n", harness_current, count);
}

#endif
