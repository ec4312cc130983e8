/* Ten thousand callbacks, and ten thousand threads: created, retained, called from other threads
 * and released concurrently. Every destroy is counted per callback, and nothing is left over. */
#include "support_random.h"
#include "support_subject.h"

#include <malloc.h>

enum { CALLBACKS = 10000, WORKERS = 8, NAME_EVERY = 3 };

/* The number of callbacks goes up with the scale, but down only for valgrind. */
static long how_many(void) {
  long many = scaled(CALLBACKS);
  return many < CALLBACKS && !under_valgrind() ? CALLBACKS : many;
}

/* What clock_gettime itself takes, to be taken off. */
static double clock_overhead_ns(void) {
  enum { READINGS = 100000 };
  int64_t start = now_ns(), last = start;
  for (int i = 0; i < READINGS; i++) last = now_ns();
  return (double)(last - start) / READINGS;
}

/* The registrant's data, from the heap and back to it at destroy. */
struct data {
  struct subject subject;
  struct entry *entry;
};

struct entry {
  cbr_handle handle; /* 0: not registered yet */
  int claimed, registered, destroyed, visitors_left;
};

struct churn {
  struct entry *entries;
  long count;
  int64_t blocks; /* of the registrants' data that are allocated */
  int64_t calls, stale, call_ns;
  pthread_barrier_t begin;
};

static struct churn churn;

static void destroy_data(void *user_data) {
  struct data *data = (struct data *)user_data;
  subject_destroy(&data->subject);
  if (add_int(&data->entry->destroyed, 1) != 1) FAIL("destroy runs a second time");
  memset(data, 0xdb, sizeof *data);
  free(data);
  __atomic_sub_fetch(&churn.blocks, 1, __ATOMIC_RELAXED);
}

static intptr_t call_data(void *user_data, void *arg) {
  return subject_fn(&((struct data *)user_data)->subject, arg);
}

static void create(struct entry *entry, bool named) {
  struct data *data = (struct data *)malloc(sizeof *data);
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  CHECK(data != NULL);
  subject_reset(&data->subject);
  data->entry = entry;
  options.fn = (cbr_any_fn)call_data;
  options.user_data = data;
  options.destroy = destroy_data;
  options.name = named ? "churn" : NULL;
  __atomic_add_fetch(&churn.blocks, 1, __ATOMIC_RELAXED);
  CHECK_OK(cbr_register_with(&options, &handle));
  store_int(&entry->registered, 1);
  __atomic_store_n(&entry->handle, handle, __ATOMIC_RELEASE);
}

struct worker {
  struct rng rng;
  int64_t calls, stale, call_ns;
};

/* Calls it, timed; stale only if somebody has unregistered it early. */
static bool call_timed(struct worker *self, cbr_handle handle) {
  int64_t start = now_ns();
  cbr_status status = cbr_call(handle, NULL, NULL);
  int64_t end = now_ns();
  if (status == CBR_ERR_STALE) {
    self->stale++;
    return false;
  }
  CHECK_OK(status);
  self->calls++;
  self->call_ns += end - start;
  return true;
}

/* Every worker visits every callback in an order of its own; the first to come creates it, the
 * last to go gives back the registrant's reference, and a few are unregistered under everybody. */
static void visit(struct worker *self, struct entry *entry) {
  int unclaimed = 0;
  if (__atomic_compare_exchange_n(&entry->claimed, &unclaimed, 1, false, __ATOMIC_ACQ_REL,
                                  __ATOMIC_RELAXED)) {
    create(entry, rng_below(&self->rng, NAME_EVERY) == 0);
  }
  cbr_handle handle;
  while ((handle = __atomic_load_n(&entry->handle, __ATOMIC_ACQUIRE)) == CBR_HANDLE_NONE)
    sched_yield();
  cbr_status status = cbr_retain(handle);
  if (status == CBR_OK) {
    bool live = call_timed(self, handle);
    if (rng_below(&self->rng, 64) == 0) {
      status = cbr_unregister(handle);
      CHECK(status == CBR_OK || status == CBR_ERR_STALE);
    } else if (live && rng_below(&self->rng, 16) == 0) {
      cbr_pin pin;
      status = rng_below(&self->rng, 2) ? cbr_hold(handle, 0, &pin) : cbr_enter(handle, 0, &pin);
      if (status == CBR_OK) CHECK_OK(cbr_leave(&pin));
      else CHECK_STATUS(status, CBR_ERR_STALE);
    }
    status = cbr_release(handle);
  }
  CHECK(status == CBR_OK || status == CBR_ERR_STALE);
  if (add_int(&entry->visitors_left, -1) == 0) {
    status = cbr_release(handle);
    CHECK(status == CBR_OK || status == CBR_ERR_STALE);
  }
}

static void *worker_main(void *arg) {
  struct worker *self = (struct worker *)arg;
  uint64_t count = (uint64_t)churn.count;
  uint64_t step = 7919, at = rng_below(&self->rng, count); /* a prime, so that every one is met */
  while (count % step == 0) step++;
  meet(&churn.begin);
  for (uint64_t i = 0; i < count; i++, at = (at + step) % count) visit(self, &churn.entries[at]);
  return NULL;
}

static void run_workers(uint64_t seed) {
  struct worker workers[WORKERS];
  pthread_t threads[WORKERS];
  memset(churn.entries, 0, (size_t)churn.count * sizeof *churn.entries);
  for (long i = 0; i < churn.count; i++) churn.entries[i].visitors_left = WORKERS;
  memset(workers, 0, sizeof workers);
  for (int i = 0; i < WORKERS; i++) {
    workers[i].rng.state = seed + (uint64_t)i;
    threads[i] = start(worker_main, &workers[i]);
  }
  for (int i = 0; i < WORKERS; i++) {
    join(threads[i]);
    churn.calls += workers[i].calls;
    churn.stale += workers[i].stale;
    churn.call_ns += workers[i].call_ns;
  }
}

/* Callbacks that still live, and ends that did not come exactly once. */
static long residue(void) {
  long left = 0;
  for (long i = 0; i < churn.count; i++) {
    struct entry *entry = &churn.entries[i];
    left += entry->registered != 1 || entry->destroyed != 1 || cbr_is_live(entry->handle);
  }
  return left;
}

static int64_t heap_in_use(void) {
  struct mallinfo2 info = mallinfo2();
  return (int64_t)info.uordblks + (int64_t)info.hblkhd;
}

TEST(ten_thousand_callbacks_are_churned_by_eight_threads_and_nothing_is_left) {
  enum { ROUNDS = 4 };
  double overhead = clock_overhead_ns();
  uint64_t seed = rng_seed();
  int64_t heap_before = 0;
  long left = 0;
  churn.count = how_many();
  churn.entries = (struct entry *)calloc((size_t)churn.count, sizeof *churn.entries);
  CHECK(churn.entries != NULL);
  CHECK_EQ(pthread_barrier_init(&churn.begin, NULL, WORKERS), 0);
  for (int round = 0; round < ROUNDS; round++) {
    run_workers(seed + (uint64_t)round * WORKERS);
    left += residue();
    if (round == 1) heap_before = heap_in_use(); /* arenas and lists have their size by now */
  }
  int64_t growth = heap_in_use() - heap_before;
  printf(
      "RESULT churn10k mean_latency_ns=%.1f residue=%ld leaks=%lld callbacks=%ld threads=%d "
      "calls=%lld stale=%lld heap_growth_bytes=%lld\n",
      (double)churn.call_ns / (double)churn.calls - overhead, left, (long long)churn.blocks,
      churn.count * ROUNDS, WORKERS, (long long)churn.calls, (long long)churn.stale,
      (long long)growth);
  CHECK_EQ(left, 0);
  CHECK_EQ(churn.blocks, 0);
  CHECK(churn.calls > churn.count);
  /* Two more rounds may not cost what even a tenth of their callbacks would keep. */
  CHECK(growth < churn.count * 2 * 64 / 10 + 65536);
  free(churn.entries);
}

/* --- ten thousand short threads ----------------------------------------------------------- */

enum { AT_ONCE = 16 };

/* Each thread's callback is called and released by the thread after it. */
struct relay {
  struct entry entry;
  struct relay *before;
  struct worker worker;
};

static void *relay_main(void *arg) {
  struct relay *self = (struct relay *)arg;
  cbr_pin pin;
  create(&self->entry, rng_below(&self->worker.rng, NAME_EVERY) == 0);
  cbr_handle own = self->entry.handle;
  cbr_status retained = cbr_retain(own); /* stale if the next thread was quick to end it */
  CHECK(retained == CBR_OK || retained == CBR_ERR_STALE);
  call_timed(&self->worker, own);
  if (self->before != NULL) {
    cbr_handle other;
    while ((other = __atomic_load_n(&self->before->entry.handle, __ATOMIC_ACQUIRE)) ==
           CBR_HANDLE_NONE) {
      sched_yield();
    }
    CHECK(call_timed(&self->worker, other));
    switch (rng_below(&self->worker.rng, 4)) {
      case 0: /* ends inside a pin, which the end of the thread must leave */
        CHECK_OK(cbr_enter(other, 0, &pin));
        CHECK_OK(cbr_unregister(other));
        break;
      case 1: CHECK_OK(cbr_unregister_wait(other, -1)); break;
      default: CHECK_OK(cbr_release(other)); break;
    }
  }
  if (retained == CBR_OK) {
    cbr_status status = cbr_release(own);
    CHECK(status == CBR_OK || status == CBR_ERR_STALE);
  }
  return NULL;
}

TEST(ten_thousand_short_threads_hand_callbacks_on_and_nothing_is_left) {
  long count = how_many(), left = 0;
  double overhead = clock_overhead_ns();
  uint64_t seed = rng_seed();
  int64_t calls = 0, call_ns = 0, heap_before = 0;
  struct relay *relays = (struct relay *)calloc((size_t)count, sizeof *relays);
  pthread_t threads[AT_ONCE];
  CHECK(relays != NULL);
  for (long i = 0; i < count + AT_ONCE; i++) {
    if (i >= AT_ONCE) join(threads[i % AT_ONCE]);
    if (i == count / 2) heap_before = heap_in_use();
    if (i >= count) continue;
    relays[i].before = i > 0 ? &relays[i - 1] : NULL;
    relays[i].worker.rng.state = seed + (uint64_t)i;
    threads[i % AT_ONCE] = start(relay_main, &relays[i]);
  }
  CHECK_OK(cbr_unregister(relays[count - 1].entry.handle));
  for (long i = 0; i < count; i++) {
    left += relays[i].entry.destroyed != 1 || cbr_is_live(relays[i].entry.handle);
    calls += relays[i].worker.calls;
    call_ns += relays[i].worker.call_ns;
  }
  int64_t growth = heap_in_use() - heap_before;
  printf(
      "RESULT threads10k mean_latency_ns=%.1f residue=%ld leaks=%lld callbacks=%ld threads=%ld "
      "calls=%lld heap_growth_bytes=%lld\n",
      (double)call_ns / (double)calls - overhead, left, (long long)churn.blocks, count, count,
      (long long)calls, (long long)growth);
  CHECK_EQ(left, 0);
  CHECK_EQ(churn.blocks, 0);
  /* A record of every thread that has ended would be far more than this. */
  CHECK(growth < count / 2 * 64 + 65536);
  free(relays);
}
