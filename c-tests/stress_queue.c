/* Millions of events: every one that was posted is delivered, dropped or stale, and none is lost
 * with everybody asleep. */
#include "support_queue.h"
#include "support_random.h"

enum { PRODUCERS = 4, DISPATCHERS = 2, TARGETS = 8, EVENTS = 10 * 1000 * 1000 };

/* Posts of one producer by what became of them, each counted where it happens. */
struct tally {
  long posted, refused, freed, delivered; /* freed: of the payloads that were taken over */
  long taken_over;
  char pad[128];
};

struct target {
  cbr_handle handle;
  int generation;
  long delivered; /* by all dispatchers */
  long destroyed;
} __attribute__((aligned(128)));

struct traffic {
  cbr_queue queue;
  struct target targets[TARGETS];
  long delivered, freed; /* of all targets that have been */
  bool churns;           /* targets are unregistered under the events */
  int done;
  struct tally tallies[PRODUCERS];
};

static struct traffic traffic;

static long load_long(const long *it) { return __atomic_load_n(it, __ATOMIC_ACQUIRE); }

static void add_long(long *it, long by) { __atomic_add_fetch(it, by, __ATOMIC_RELAXED); }

enum { MAGIC = 0x600d600d };

struct event {
  uint64_t magic;
  long number;
  int producer;
  char filling[44]; /* more than what fits in the queue */
};

static void event_free(void *data) {
  struct event *event = (struct event *)data;
  if (event->magic != MAGIC) FAIL("a payload is freed twice");
  add_long(&traffic.tallies[event->producer].freed, 1);
  event->magic = 0xdeaddeaddead;
  free(event);
}

static intptr_t target_fn(void *user_data, void *arg) {
  struct target *it = (struct target *)user_data;
  const struct event *event = (const struct event *)arg;
  if (event->magic != MAGIC) FAIL("a callback gets a payload that was freed");
  add_long(&it->delivered, 1);
  return 0;
}

static void target_destroy(void *user_data) {
  add_long(&((struct target *)user_data)->destroyed, 1);
}

static void target_register(struct target *it) {
  cbr_handle handle = 0;
  CHECK_OK(cbr_register(target_fn, it, target_destroy, &handle));
  __atomic_store_n(&it->handle, handle, __ATOMIC_RELEASE);
  it->generation++;
}

struct producer_of_many {
  struct tally *tally;
  struct rng rng;
  int number;
  long count;
  pthread_t thread;
};

/* One in eight is large and taken over; most of the others fit in the queue. */
static cbr_status post_one(struct producer_of_many *self, cbr_handle handle, long i) {
  struct event small = {.magic = MAGIC, .number = i, .producer = self->number};
  if (i % 8 != 0) {
    size_t len = i % 8 == 1 ? sizeof small : offsetof(struct event, filling);
    return cbr_post(traffic.queue, handle, &small, len);
  }
  struct event *large = (struct event *)malloc(sizeof *large);
  CHECK(large != NULL);
  *large = small;
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  options.queue = traffic.queue;
  options.handle = handle;
  options.data = large;
  options.len = sizeof *large;
  options.free_data = event_free;
  cbr_status status = cbr_post_with(&options);
  if (status == CBR_OK) self->tally->taken_over++;
  else free(large);
  return status;
}

static void *produces(void *arg) {
  struct producer_of_many *self = (struct producer_of_many *)arg;
  for (long i = 0; i < self->count; i++) {
    struct target *target = &traffic.targets[rng_below(&self->rng, TARGETS)];
    for (;;) {
      cbr_status status = post_one(self, __atomic_load_n(&target->handle, __ATOMIC_ACQUIRE), i);
      if (status == CBR_OK) {
        self->tally->posted++;
        break;
      }
      self->tally->refused++;
      if (status == CBR_ERR_FULL) sched_yield();
      else if (status != CBR_ERR_STALE || !traffic.churns) CHECK_OK(status);
    }
  }
  return NULL;
}

/* Ends a target under its events, again and again. */
static void *churns(void *arg) {
  struct rng rng = {*(const uint64_t *)arg};
  while (!load_int(&traffic.done)) {
    struct target *target = &traffic.targets[rng_below(&rng, TARGETS)];
    CHECK_OK(cbr_unregister_wait(target->handle, -1));
    target_register(target);
    for (uint64_t i = rng_below(&rng, 50); i > 0; i--) sched_yield();
  }
  return NULL;
}

/* What was posted comes out: delivered, displaced (as the posters see it: the rest), or stale. */
static void run_traffic(const char *name, uint32_t policy, bool churn) {
  struct producer_of_many producers[PRODUCERS];
  struct loop loops[DISPATCHERS];
  pthread_t churner = 0;
  uint64_t seed = rng_seed();
  long count = scaled(EVENTS), posted = 0, refused = 0, delivered = 0, freed = 0, taken_over = 0;
  long registered = 0, destroyed = 0, dispatched = 0;
  memset(&traffic, 0, sizeof traffic);
  traffic.queue = queue_open(1024, policy, 0);
  traffic.churns = churn;
  for (int i = 0; i < TARGETS; i++) target_register(&traffic.targets[i]);
  int64_t start_ns = now_ns();
  for (int i = 0; i < DISPATCHERS; i++) loop_start(&loops[i], traffic.queue, false);
  for (int i = 0; i < PRODUCERS; i++) {
    producers[i] = (struct producer_of_many){
        &traffic.tallies[i], {seed + (uint64_t)i}, i, count / PRODUCERS, 0};
    producers[i].thread = start(produces, &producers[i]);
  }
  if (churn) churner = start(churns, &seed);
  for (int i = 0; i < PRODUCERS; i++) join(producers[i].thread);
  store_int(&traffic.done, 1);
  if (churn) join(churner);
  loop_end(&loops[0]);
  for (int i = 1; i < DISPATCHERS; i++) join(loops[i].thread);
  int64_t took_ns = now_ns() - start_ns;
  for (int i = 0; i < DISPATCHERS; i++) dispatched += loops[i].dispatched;
  for (int i = 0; i < PRODUCERS; i++) {
    posted += traffic.tallies[i].posted;
    refused += traffic.tallies[i].refused;
    freed += load_long(&traffic.tallies[i].freed);
    taken_over += traffic.tallies[i].taken_over;
  }
  for (int i = 0; i < TARGETS; i++) {
    CHECK_EQ(references(traffic.targets[i].handle), 1); /* no event has kept its own */
    CHECK_OK(cbr_unregister_wait(traffic.targets[i].handle, -1));
    delivered += load_long(&traffic.targets[i].delivered);
    registered += traffic.targets[i].generation;
    destroyed += load_long(&traffic.targets[i].destroyed);
  }
  printf("RESULT %s posted=%ld delivered=%ld stale=%ld dropped=%ld refused=%ld ns_per_event=%.0f\n",
         name, posted, delivered, dispatched - delivered, posted - dispatched, refused,
         (double)took_ns / (double)posted);
  CHECK_EQ(posted, count / PRODUCERS * PRODUCERS);
  CHECK_EQ(freed, taken_over); /* every one once: event_free fails at a second time */
  CHECK_EQ(destroyed, registered);
  CHECK(delivered <= dispatched && dispatched <= posted);
  if (policy != CBR_QUEUE_DROP_OLDEST) CHECK_EQ(dispatched, posted);
  if (!churn) CHECK_EQ(dispatched, delivered);
}

TEST(every_event_is_accounted_for_where_a_full_queue_refuses) {
  run_traffic("queue_reject", CBR_QUEUE_REJECT, false);
}

TEST(every_event_is_accounted_for_where_a_full_queue_drops) {
  run_traffic("queue_drop_oldest", CBR_QUEUE_DROP_OLDEST, false);
}

TEST(every_event_is_accounted_for_where_a_full_queue_blocks) {
  run_traffic("queue_block", CBR_QUEUE_BLOCK, false);
}

TEST(every_event_is_accounted_for_while_callbacks_end) {
  run_traffic("queue_block_churn", CBR_QUEUE_BLOCK, true);
}

TEST(every_event_is_accounted_for_while_callbacks_end_and_events_are_dropped) {
  run_traffic("queue_drop_churn", CBR_QUEUE_DROP_OLDEST, true);
}

/* --- little room, many dispatchers ------------------------------------------------------------ */

struct crowd {
  cbr_queue queue;
  cbr_handle handle;
  size_t budget;
  long count;
};

static void *posts_to_the_crowd(void *arg) {
  const struct crowd *self = (const struct crowd *)arg;
  for (long i = 0; i < self->count; i++)
    CHECK_OK(cbr_post(self->queue, self->handle, &i, sizeof i));
  return NULL;
}

static void *dispatches_in_the_crowd(void *arg) {
  const struct crowd *self = (const struct crowd *)arg;
  size_t count = 0;
  cbr_status status;
  while ((status = cbr_queue_dispatch(self->queue, self->budget, -1, &count)) == CBR_OK) {
  }
  check_gone(status);
  return NULL;
}

static intptr_t counts_long(void *user_data, void *arg) {
  (void)arg;
  add_long((long *)user_data, 1);
  return 0;
}

/* A dispatcher is overtaken by others who go all the way round while it takes its event out. */
TEST(several_dispatchers_of_a_queue_with_little_room_lose_no_event) {
  enum { CROWD = 3 };
  for (long round = 0; round < 10; round++) {
    pthread_t dispatchers[CROWD], producers[2];
    long delivered = 0;
    struct crowd crowd = {0, 0, round % 4 != 3, scaled(20000)};
    crowd.queue = queue_open(round % 3 ? 1 : 3, CBR_QUEUE_BLOCK, 0);
    CHECK_OK(cbr_register(counts_long, &delivered, NULL, &crowd.handle));
    for (int i = 0; i < CROWD; i++) dispatchers[i] = start(dispatches_in_the_crowd, &crowd);
    for (int i = 0; i < 2; i++) producers[i] = start(posts_to_the_crowd, &crowd);
    for (int i = 0; i < 2; i++) join(producers[i]);
    CHECK_OK(cbr_queue_close(crowd.queue, CBR_CLOSE_DRAIN));
    for (int i = 0; i < CROWD; i++) join(dispatchers[i]);
    CHECK_EQ(delivered, 2 * crowd.count);
    CHECK_OK(cbr_unregister_wait(crowd.handle, -1));
  }
}

/* --- displaced ones, counted one by one ------------------------------------------------------ */

/* With all payloads taken over, what was displaced is known exactly: freed, and not delivered. */
static void *produces_taken_over(void *arg) {
  struct producer_of_many *self = (struct producer_of_many *)arg;
  for (long i = 0; i < self->count; i++) {
    CHECK_OK(post_one(self, traffic.targets[i % TARGETS].handle, 0));
    self->tally->posted++;
  }
  return NULL;
}

static void check_displaced(uint32_t policy, uint32_t flags) {
  struct producer_of_many producers[PRODUCERS];
  struct loop loop;
  long posted = 0, freed = 0, delivered = 0;
  memset(&traffic, 0, sizeof traffic);
  traffic.queue = queue_open(16, policy, flags);
  for (int i = 0; i < TARGETS; i++) target_register(&traffic.targets[i]);
  loop_start(&loop, traffic.queue, false);
  for (int i = 0; i < PRODUCERS; i++) {
    producers[i] = (struct producer_of_many){
        &traffic.tallies[i], {1}, i, scaled(EVENTS / 10) / PRODUCERS + 1, 0};
    producers[i].thread = start(produces_taken_over, &producers[i]);
  }
  for (int i = 0; i < PRODUCERS; i++) join(producers[i].thread);
  loop_end(&loop);
  for (int i = 0; i < PRODUCERS; i++) {
    posted += traffic.tallies[i].posted;
    freed += load_long(&traffic.tallies[i].freed);
  }
  for (int i = 0; i < TARGETS; i++) {
    delivered += traffic.targets[i].delivered;
    CHECK_EQ(references(traffic.targets[i].handle), 1);
    CHECK_OK(cbr_unregister(traffic.targets[i].handle));
  }
  printf("RESULT queue_displaced posted=%ld delivered=%ld\n", posted, delivered);
  CHECK_EQ(freed, posted);
  CHECK_EQ(loop.dispatched, delivered);
  CHECK(delivered > 0 && delivered <= posted);
}

TEST(every_payload_that_is_displaced_is_freed_once) { check_displaced(CBR_QUEUE_DROP_OLDEST, 0); }

TEST(every_payload_that_coalesces_is_freed_once) {
  check_displaced(CBR_QUEUE_BLOCK, CBR_QUEUE_COALESCE);
}

/* --- wake-ups -------------------------------------------------------------------------------- */

struct poller {
  cbr_queue queue;
  int fd;
  long dispatched, empty;
};

/* As an event loop would: polls for ever, dispatches without waiting. A wake-up that is lost leaves
 * it asleep until the watchdog comes. */
static void *polls(void *arg) {
  struct poller *self = (struct poller *)arg;
  for (;;) {
    struct pollfd it = {self->fd, POLLIN, 0};
    size_t count = 0;
    while (poll(&it, 1, -1) < 0) CHECK_EQ(errno, EINTR);
    cbr_status status = cbr_queue_dispatch(self->queue, 0, 0, &count);
    self->dispatched += (long)count;
    self->empty += status == CBR_ERR_EMPTY;
    if (status == CBR_OK || status == CBR_ERR_EMPTY) continue;
    check_gone(status);
    return NULL;
  }
}

struct pinger {
  cbr_queue queue;
  cbr_handle handle;
  struct rng rng;
  long rounds;
  int answered; /* by the callback */
};

static intptr_t answers(void *user_data, void *arg) {
  (void)user_data;
  add_int(&(*(struct pinger *const *)arg)->answered, 1);
  return 0;
}

/* Posts one, or a few, and waits until they have been dispatched: so the queue is empty, and the
 * dispatcher about to sleep, as often as can be. */
static void *pings(void *arg) {
  struct pinger *self = (struct pinger *)arg;
  int sent = 0;
  for (long round = 0; round < self->rounds; round++) {
    for (uint64_t burst = rng_below(&self->rng, 3) + 1; burst > 0; burst--, sent++)
      CHECK_OK(cbr_post(self->queue, self->handle, &self, sizeof self));
    while (load_int(&self->answered) < sent) sched_yield();
    for (uint64_t pause = rng_below(&self->rng, 200); pause > 0; pause--) relax();
  }
  return NULL;
}

/* Dispatchers of both kinds may share a queue: some poll its descriptor, some wait in dispatch. */
static void check_no_wake_up_is_lost(int pollers, int waiters, int posters) {
  struct poller polled[2];
  pthread_t poller_threads[2], pinger_threads[PRODUCERS];
  struct loop loops[2];
  struct pinger pingers[PRODUCERS];
  cbr_handle handle = 0;
  uint64_t seed = rng_seed();
  long sent = 0, dispatched = 0, empty = 0;
  CHECK_OK(cbr_register(answers, NULL, NULL, &handle));
  cbr_queue queue = queue_open(4, CBR_QUEUE_BLOCK, 0);
  for (int i = 0; i < pollers; i++) {
    polled[i] = (struct poller){queue, queue_fd(queue), 0, 0};
    poller_threads[i] = start(polls, &polled[i]);
  }
  for (int i = 0; i < waiters; i++) loop_start(&loops[i], queue, false);
  for (int i = 0; i < posters; i++) {
    pingers[i] =
        (struct pinger){queue, handle, {seed + (uint64_t)i}, scaled(60000) / posters + 1, 0};
    pinger_threads[i] = start(pings, &pingers[i]);
  }
  for (int i = 0; i < posters; i++) {
    join(pinger_threads[i]);
    sent += pingers[i].answered;
  }
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DRAIN));
  for (int i = 0; i < pollers; i++) {
    join(poller_threads[i]);
    close(polled[i].fd);
    dispatched += polled[i].dispatched;
    empty += polled[i].empty;
  }
  for (int i = 0; i < waiters; i++) {
    join(loops[i].thread);
    dispatched += loops[i].dispatched;
  }
  printf("%s: %ld events, %ld dispatches found nothing\n", harness_current, sent, empty);
  CHECK_EQ(dispatched, sent);
  CHECK_OK(cbr_unregister_wait(handle, -1));
}

TEST(a_dispatcher_that_polls_the_descriptor_misses_no_event) { check_no_wake_up_is_lost(1, 0, 1); }

TEST(a_dispatcher_that_polls_the_descriptor_misses_no_event_of_several_producers) {
  check_no_wake_up_is_lost(1, 0, 3);
}

TEST(a_dispatcher_that_waits_misses_no_event) { check_no_wake_up_is_lost(0, 1, 2); }

TEST(two_dispatchers_that_poll_miss_no_event) { check_no_wake_up_is_lost(2, 0, 2); }

TEST(a_dispatcher_that_polls_and_one_that_waits_miss_no_event) {
  check_no_wake_up_is_lost(1, 1, 2);
}

/* --- closing --------------------------------------------------------------------------------- */

struct blocked {
  cbr_queue queue;
  cbr_handle handle;
  long accepted, freed;
  int number;
};

static struct blocked blocked[PRODUCERS];

static void blocked_free(void *data) { add_long(&((struct blocked *)data)->freed, 1); }

static intptr_t takes_blocked(void *user_data, void *arg) {
  (void)arg;
  add_long((long *)user_data, 1);
  return 0;
}

static void *posts_until_closed(void *arg) {
  struct blocked *self = (struct blocked *)arg;
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  options.queue = self->queue;
  options.handle = self->handle;
  options.data = self;
  options.len = sizeof *self;
  options.free_data = blocked_free;
  cbr_status status;
  while ((status = cbr_post_with(&options)) == CBR_OK) self->accepted++;
  check_gone(status);
  return NULL;
}

TEST(closing_while_producers_are_blocked_wakes_all_and_loses_no_payload) {
  for (long round = 0; round < scaled(3000); round++) {
    pthread_t threads[PRODUCERS];
    struct loop loop;
    cbr_handle handle = 0;
    long delivered = 0, accepted = 0, freed = 0;
    bool drains = round % 2, dispatched = round % 3;
    cbr_queue queue = queue_open(1 + (size_t)round % 3, CBR_QUEUE_BLOCK, 0);
    CHECK_OK(cbr_register(takes_blocked, &delivered, NULL, &handle));
    memset(blocked, 0, sizeof blocked);
    for (int i = 0; i < PRODUCERS; i++) {
      blocked[i].queue = queue;
      blocked[i].handle = handle;
      threads[i] = start(posts_until_closed, &blocked[i]);
    }
    if (dispatched) {
      loop_start(&loop, queue, false);
      POLL_UNTIL(load_long(&delivered) >= round % 7);
    } else {
      POLL_UNTIL(queue_len(queue) == 1 + (size_t)round % 3);
    }
    CHECK_OK(cbr_queue_close(queue, drains ? CBR_CLOSE_DRAIN : CBR_CLOSE_DISCARD));
    for (int i = 0; i < PRODUCERS; i++) join(threads[i]);
    if (dispatched) join(loop.thread);
    else dispatch_all(queue);
    for (int i = 0; i < PRODUCERS; i++) {
      accepted += blocked[i].accepted;
      freed += load_long(&blocked[i].freed);
    }
    CHECK_EQ(freed, accepted);
    if (drains) CHECK_EQ(delivered, accepted);
    else CHECK(delivered <= accepted);
    CHECK_EQ(references(handle), 1);
    CHECK_OK(cbr_unregister(handle));
  }
}

static void *posts_until_refused(void *arg) {
  struct blocked *self = (struct blocked *)arg;
  cbr_status status;
  while ((status = cbr_post(self->queue, self->handle, NULL, 0)) != CBR_ERR_CLOSED) {
    if (status == CBR_ERR_STALE) return NULL;
    if (status != CBR_ERR_FULL) CHECK_OK(status);
    self->accepted += status == CBR_OK;
  }
  return NULL;
}

/* The queue is all but empty all the time, so that the close finds nothing and posters come after
 * its look. */
TEST(closing_to_drain_under_posts_delivers_every_one_that_was_accepted) {
  for (long round = 0; round < scaled(2000); round++) {
    pthread_t threads[2];
    struct loop loop;
    cbr_handle handle = 0;
    long delivered = 0, accepted = 0;
    cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, 0);
    CHECK_OK(cbr_register(takes_blocked, &delivered, NULL, &handle));
    memset(blocked, 0, sizeof blocked);
    loop_start(&loop, queue, false);
    for (int i = 0; i < 2; i++) {
      blocked[i].queue = queue;
      blocked[i].handle = handle;
      threads[i] = start(posts_until_refused, &blocked[i]);
    }
    POLL_UNTIL(load_long(&delivered) >= round % 5);
    CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DRAIN));
    join(loop.thread);
    for (int i = 0; i < 2; i++) {
      join(threads[i]);
      accepted += blocked[i].accepted;
    }
    CHECK_EQ(delivered, accepted);
    CHECK_OK(cbr_unregister(handle));
  }
}

/* --- owners that close ----------------------------------------------------------------------- */

enum { UNLOADED = 0x0badbad0 };

/* Stands for a plugin's shared object: nothing of it may run once its scope is closed. */
struct plugin {
  uint32_t state;
  long freed, accepted;
  cbr_scope scope;
};

struct plugin_poster {
  cbr_queue queue;
  cbr_handle handle;
  struct plugin **current;
  struct rng rng;
};

static int plugins_done;

static void plugin_free(void *data) {
  struct plugin *it = (struct plugin *)data;
  for (int i = 0; i < 20; i++) { /* it takes a moment, so that a close that does not wait is seen */
    if (__atomic_load_n(&it->state, __ATOMIC_ACQUIRE) != MAGIC)
      FAIL("the code of a closed scope runs");
    relax();
  }
  add_long(&it->freed, 1);
}

static void *posts_for_plugins(void *arg) {
  struct plugin_poster *self = (struct plugin_poster *)arg;
  while (!load_int(&plugins_done)) {
    struct plugin *plugin = __atomic_load_n(self->current, __ATOMIC_ACQUIRE);
    cbr_post_options options = CBR_POST_OPTIONS_INIT;
    options.queue = self->queue;
    options.handle = self->handle;
    options.data = plugin;
    options.len = 1;
    options.free_data = plugin_free;
    options.owner = __atomic_load_n(&plugin->scope, __ATOMIC_ACQUIRE);
    cbr_status status = cbr_post_with(&options);
    if (status == CBR_OK) add_long(&plugin->accepted, 1);
    else if (status == CBR_ERR_FULL) sched_yield();
    else if (status != CBR_ERR_STALE) CHECK_STATUS(status, CBR_ERR_CLOSED);
  }
  return NULL;
}

static intptr_t checks_its_plugin(void *user_data, void *arg) {
  (void)user_data;
  if (__atomic_load_n(&((struct plugin *)arg)->state, __ATOMIC_ACQUIRE) != MAGIC)
    FAIL("an event of a closed scope is dispatched");
  return 0;
}

/* One plugin after another is closed under its posts; the memory of all stays, to be looked at. */
static void check_owners_close(uint32_t policy, uint32_t flags) {
  long count = scaled(100), accepted = 0;
  struct plugin *plugins = (struct plugin *)calloc((size_t)count + 1, sizeof *plugins);
  struct plugin *current = &plugins[0];
  struct plugin_poster posters[PRODUCERS - 1];
  pthread_t threads[PRODUCERS - 1];
  struct loop loop;
  struct rng rng = {rng_seed()};
  cbr_handle handle = 0;
  CHECK(plugins != NULL);
  CHECK_OK(cbr_register(checks_its_plugin, NULL, NULL, &handle));
  cbr_queue queue = queue_open(64, policy, flags);
  for (long i = 0; i <= count; i++) plugins[i].state = MAGIC;
  plugins[0].scope = scope_open("plugin");
  loop_start(&loop, queue, false);
  for (int i = 0; i < PRODUCERS - 1; i++) {
    posters[i] = (struct plugin_poster){queue, handle, &current, {rng_next(&rng)}};
    threads[i] = start(posts_for_plugins, &posters[i]);
  }
  for (long i = 0; i < count; i++) {
    for (uint64_t moment = rng_below(&rng, 20); moment > 0; moment--) sched_yield();
    plugins[i + 1].scope = scope_open("plugin");
    __atomic_store_n(&current, &plugins[i + 1], __ATOMIC_RELEASE);
    CHECK_OK(cbr_scope_close(plugins[i].scope, -1, NULL));
    __atomic_store_n(&plugins[i].state, UNLOADED, __ATOMIC_RELEASE);
  }
  store_int(&plugins_done, 1);
  for (int i = 0; i < PRODUCERS - 1; i++) join(threads[i]);
  scope_close(plugins[count].scope);
  loop_end(&loop);
  for (long i = 0; i <= count; i++) {
    CHECK_EQ(plugins[i].freed, plugins[i].accepted);
    accepted += plugins[i].accepted;
  }
  printf("%s: %ld events of %ld scopes\n", harness_current, accepted, count + 1);
  CHECK_EQ(references(handle), 1);
  CHECK_OK(cbr_unregister(handle));
  free(plugins);
}

TEST(closing_owners_under_their_posts_leaves_none_of_their_code_running) {
  check_owners_close(CBR_QUEUE_REJECT, 0);
}

TEST(closing_owners_under_posts_that_displace_leaves_none_of_their_code_running) {
  check_owners_close(CBR_QUEUE_DROP_OLDEST, 0);
}

TEST(closing_owners_under_posts_that_coalesce_leaves_none_of_their_code_running) {
  check_owners_close(CBR_QUEUE_REJECT, CBR_QUEUE_COALESCE);
}

TEST(closing_owners_under_posts_that_block_leaves_none_of_their_code_running) {
  check_owners_close(CBR_QUEUE_BLOCK, 0);
}
