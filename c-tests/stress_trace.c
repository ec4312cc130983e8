/* Tracers that come and go under load: each has as many ends as begins, and is destroyed once, after
 * the last of them. */
#include "support_queue.h"
#include "support_random.h"
#include "support_thunk.h"

enum { CALLERS = 3, MAGIC = 0x600d600d, GONE = 0x0badbad0 };

struct generation {
  uint32_t state;
  long begun, ended;
};

static int stop;
static long told, generations;
static cbr_queue queue;
static struct subject plain;
static struct adder typed;
static int_fn fn;

/* What begin returns: it must come to the end of the same call. */
struct span {
  struct generation *of;
  pthread_t thread;
};

static __thread struct span spans[64];
static __thread int depth;

static void *begins(void *user_data, cbr_handle handle, const char *name, const char *context) {
  struct generation *it = (struct generation *)user_data;
  (void)name, (void)context;
  if (__atomic_load_n(&it->state, __ATOMIC_RELAXED) != MAGIC) FAIL("begin after destroy");
  CHECK(handle == plain.handle || handle == typed.subject.handle);
  __atomic_add_fetch(&it->begun, 1, __ATOMIC_RELAXED);
  struct span *span = &spans[depth++];
  span->of = it;
  span->thread = pthread_self();
  return span;
}

static void ends(void *user_data, void *arg, cbr_status status) {
  struct generation *it = (struct generation *)user_data;
  struct span *span = (struct span *)arg;
  if (__atomic_load_n(&it->state, __ATOMIC_RELAXED) != MAGIC) FAIL("end after destroy");
  if (span->of != it) FAIL("the end of a call is another tracer's than its begin");
  CHECK(pthread_equal(span->thread, pthread_self()));
  CHECK(span == &spans[--depth]);
  CHECK_OK(status);
  __atomic_add_fetch(&it->ended, 1, __ATOMIC_RELAXED);
}

static void goes(void *user_data) {
  struct generation *it = (struct generation *)user_data;
  if (__atomic_exchange_n(&it->state, GONE, __ATOMIC_ACQ_REL) != MAGIC) FAIL("destroyed twice");
  CHECK_EQ(__atomic_load_n(&it->begun, __ATOMIC_ACQUIRE), __atomic_load_n(&it->ended, __ATOMIC_ACQUIRE));
  __atomic_add_fetch(&told, it->begun, __ATOMIC_RELAXED);
  __atomic_sub_fetch(&generations, 1, __ATOMIC_RELAXED);
  free(it);
}

static intptr_t counts(struct subject *it, void *arg) {
  (void)it;
  /* Sometimes one call inside the other. */
  if (arg != NULL) CHECK_EQ(fn(1, NULL), 2);
  return 0;
}

static void *calls(void *arg) {
  struct rng rng = {*(uint64_t *)arg};
  struct action action = {counts, NULL};
  cbr_pin pin;
  while (!load_int(&stop)) {
    action.arg = rng_below(&rng, 4) == 0 ? &action : NULL;
    switch (rng_below(&rng, 5)) {
    case 0:
      for (int i = 0; i < 50; i++) CHECK_OK(cbr_call(plain.handle, &action, NULL));
      break;
    case 1:
      CHECK_EQ(fn(2, NULL), 3);
      break;
    case 2:
      CHECK_OK(cbr_enter(plain.handle, 0, &pin));
      CHECK_EQ(((cbr_fn)pin.fn)(pin.user_data, &action), 0);
      CHECK_OK(cbr_leave(&pin));
      break;
    case 3: {
      cbr_status status = cbr_post(queue, plain.handle, &action, sizeof action);
      if (status != CBR_ERR_FULL) CHECK_OK(status);
      break;
    }
    case 4:
      cbr_queue_dispatch(queue, 4, 0, NULL);
      break;
    }
  }
  CHECK_EQ(depth, 0);
  return NULL;
}

/* Who sets tracers: another one, one of a scope that closes, or none. */
static void *sets(void *arg) {
  struct rng rng = {*(uint64_t *)arg};
  for (long left = scaled(1500); left > 0; left--) {
    cbr_scope owner = 0;
    if (rng_below(&rng, 4) == 0) {
      CHECK_OK(cbr_set_call_hooks(NULL, NULL, NULL, NULL, 0));
      continue;
    }
    if (rng_below(&rng, 3) == 0) owner = scope_open("tracer");
    struct generation *it = (struct generation *)calloc(1, sizeof *it);
    CHECK(it != NULL);
    it->state = MAGIC;
    __atomic_add_fetch(&generations, 1, __ATOMIC_RELAXED);
    CHECK_OK(cbr_set_call_hooks(begins, ends, it, goes, owner));
    for (uint64_t turns = rng_below(&rng, 3); turns > 0; turns--) sched_yield();
    if (owner != 0) CHECK_OK(cbr_scope_close(owner, -1, NULL));
  }
  return NULL;
}

TEST(tracers_come_and_go_under_load_and_each_has_all_its_ends) {
  pthread_t callers[CALLERS], setters[2];
  uint64_t seed = rng_seed(), seeds[CALLERS + 2];
  for (uint64_t i = 0; i < CALLERS + 2; i++) seeds[i] = seed + i;
  adder_register(&typed, 1);
  fn = (int_fn)thunk_of(typed.subject.handle, INT_SIGNATURE, &typed.thunk);
  subject_register(&plain);
  queue = queue_open(64, CBR_QUEUE_REJECT, 0);
  for (int i = 0; i < CALLERS; i++) callers[i] = start(calls, &seeds[i]);
  for (int i = 0; i < 2; i++) setters[i] = start(sets, &seeds[CALLERS + i]);
  for (int i = 0; i < 2; i++) join(setters[i]);
  /* The last word: none. */
  CHECK_OK(cbr_set_call_hooks(NULL, NULL, NULL, NULL, 0));
  store_int(&stop, 1);
  for (int i = 0; i < CALLERS; i++) join(callers[i]);
  CHECK_EQ(generations, 0);
  CHECK(told > 0);
  printf("RESULT calls that tracers under load were told of: %ld\n", told);
  CHECK_OK(cbr_thunk_close(typed.thunk));
  queue_discard(queue);
  CHECK_OK(cbr_unregister_wait(plain.handle, 0));
  CHECK_OK(cbr_unregister_wait(typed.subject.handle, 0));
}
