/* Queues and scopes: a scope's queues close with it, events that it owns are dropped in every
 * queue, and when its close has returned CBR_OK none of its code runs any more. */
#include "support_child.h"
#include "support_queue.h"
#include "support_random.h"

/* --- the queues of a scope ------------------------------------------------------------------- */

TEST(a_scopes_queues_close_with_it_and_no_others) {
  enum { ALL = 5 };
  struct ear ear;
  struct payload payloads[ALL], others;
  cbr_queue queues[ALL];
  int fds[ALL];
  cbr_scope scope = scope_open("plugin"), other_scope = scope_open("other");
  ear_register(&ear);
  for (int i = 0; i < ALL; i++) {
    queues[i] = queue_open_in(scope, 4, CBR_QUEUE_REJECT, i % 2 ? CBR_QUEUE_OWNED : 0);
    fds[i] = queue_fd(queues[i]);
    CHECK_OK(payload_post(&payloads[i], i, queues[i], ear.handle, 0));
  }
  cbr_queue other = queue_open_in(other_scope, 4, CBR_QUEUE_REJECT, 0);
  cbr_queue default_one = queue_open(4, CBR_QUEUE_REJECT, 0);
  CHECK_OK(payload_post(&others, 77, other, ear.handle, 0));
  queue_discard(queues[0]); /* one was closed before */
  scope_close(scope);
  for (int i = 0; i < ALL; i++) {
    CHECK_EQ(payloads[i].freed, 1);
    CHECK(readable(fds[i]));
    close(fds[i]);
    check_gone(post_number(queues[i], &ear, 1));
    check_gone(cbr_queue_dispatch(queues[i], 0, -1, NULL));
    check_gone(cbr_queue_close(queues[i], CBR_CLOSE_DISCARD));
  }
  CHECK_HEARD_NOTHING(&ear);
  CHECK_EQ(references(ear.handle), 2);
  CHECK_EQ(others.freed, 0);
  CHECK_OK(post_number(default_one, &ear, 78));
  CHECK_EQ(dispatch_all(other) + dispatch_all(default_one), 2);
  CHECK_HEARD(&ear, 77, 78);
  scope_close(other_scope);
  queue_discard(default_one);
  ear_end(&ear);
}

TEST(closing_a_scope_wakes_who_waits_in_its_queues) {
  for (long round = scaled(50); round > 0; round--) {
    struct ear ear;
    struct subject it;
    struct loop loops[2];
    struct producer producer;
    struct caller caller;
    cbr_scope scope = scope_open("plugin");
    ear_register(&ear);
    subject_register(&it);
    cbr_queue empty = queue_open_in(scope, 1, CBR_QUEUE_BLOCK, 0);
    cbr_queue full = queue_open_in(scope, 1, CBR_QUEUE_BLOCK, 0);
    for (int i = 0; i < 2; i++) loop_start(&loops[i], empty, false);
    caller_start(&caller, full, it.handle, NULL, NULL);
    POLL_UNTIL(queue_len(full) == 1);
    producer_init(&producer, full, ear.handle, 1);
    producer_start(&producer);
    scope_close(scope);
    for (int i = 0; i < 2; i++) join(loops[i].thread);
    check_gone(producer_join(&producer));
    CHECK_EQ(producer.payload.freed, 0);
    CHECK_STATUS(caller_join(&caller), CBR_ERR_CLOSED);
    CHECK_EQ(it.calls, 0);
    CHECK_HEARD_NOTHING(&ear);
    CHECK_OK(cbr_unregister(it.handle));
    ear_end(&ear);
  }
}

TEST(a_closing_scope_takes_no_queue_and_no_event) {
  struct closing closing;
  struct ear ear;
  struct payload payload;
  cbr_queue none = 99;
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  closing_begin(&closing, scope_open("plugin"));
  CHECK_REFUSED(queue_try_open(closing.scope, 4, 0, 0, &none), CBR_ERR_CLOSED);
  CHECK_EQ(none, 99);
  CHECK_REFUSED(payload_post(&payload, 1, queue, ear.handle, closing.scope), CBR_ERR_CLOSED);
  CHECK_EQ(payload.freed, 0);
  CHECK_EQ(references(ear.handle), 1);
  CHECK_EQ(queue_len(queue), 0);
  closing_end(&closing);
  CHECK_REFUSED(queue_try_open(closing.scope, 4, 0, 0, &none), CBR_ERR_STALE);
  CHECK_REFUSED(payload_post(&payload, 1, queue, ear.handle, closing.scope), CBR_ERR_STALE);
  CHECK_REFUSED(payload_post(&payload, 1, queue, ear.handle, ear.handle), CBR_ERR_KIND);
  CHECK_REFUSED(payload_post(&payload, 1, queue, ear.handle, queue), CBR_ERR_KIND);
  CHECK_REFUSED(payload_post(&payload, 1, queue, ear.handle, 1), CBR_ERR_STALE);
  CHECK_EQ(payload.freed, 0);
  CHECK_EQ(queue_len(queue), 0);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(a_scope_may_have_closed_its_queues_itself) {
  for (uint32_t mode = CBR_CLOSE_DRAIN; mode <= CBR_CLOSE_DISCARD; mode++) {
    struct ear ear;
    struct payload payload;
    cbr_scope scope = scope_open("plugin");
    cbr_queue queue = queue_open_in(scope, 4, CBR_QUEUE_REJECT, 0);
    ear_register(&ear);
    CHECK_OK(payload_post(&payload, 1, queue, ear.handle, scope));
    CHECK_OK(cbr_queue_close(queue, mode));
    CHECK_EQ(payload.freed, mode == CBR_CLOSE_DISCARD);
    scope_close(scope); /* what still drains is dropped */
    CHECK_EQ(payload.freed, 1);
    check_gone(cbr_queue_dispatch(queue, 0, 0, NULL));
    CHECK_HEARD_NOTHING(&ear);
    ear_end(&ear);
  }
}

/* --- events that a scope owns ---------------------------------------------------------------- */

TEST(events_of_a_scope_are_dropped_in_every_queue_and_all_others_stay) {
  enum { QUEUES = 4, EACH = 12 };
  struct ear ear;
  static struct payload payloads[QUEUES][EACH];
  cbr_queue queues[QUEUES];
  cbr_scope scopes[2] = {scope_open("closes"), scope_open("stays")};
  ear_register(&ear);
  for (int i = 0; i < QUEUES; i++) {
    queues[i] = queue_open(EACH, CBR_QUEUE_REJECT, i == 1 ? CBR_QUEUE_OWNED : 0);
    for (int j = 0; j < EACH; j++) {
      cbr_scope owner = j % 3 == 2 ? 0 : scopes[j % 3];
      CHECK_OK(payload_post(&payloads[i][j], j, queues[i], ear.handle, owner));
    }
  }
  scope_close(scopes[0]);
  for (int i = 0; i < QUEUES; i++) {
    for (int j = 0; j < EACH; j++) CHECK_EQ(payloads[i][j].freed, j % 3 == 0);
  }
  for (int i = 0; i < QUEUES; i++) {
    CHECK_EQ(queue_len(queues[i]), EACH - EACH / 3);
    dispatch_all(queues[i]);
    CHECK_HEARD(&ear, 1, 2, 4, 5, 7, 8, 10, 11);
    for (int j = 0; j < EACH; j++) CHECK_EQ(payloads[i][j].freed, 1);
    queue_discard(queues[i]);
  }
  CHECK_EQ(references(ear.handle), 1);
  scope_close(scopes[1]);
  ear_end(&ear);
}

/* As long as fewer wait than there is room for, nothing is full and nothing is dropped. */
static void check_room_again(uint32_t policy) {
  struct ear ear;
  struct payload payloads[6], late;
  cbr_scope scope = scope_open("plugin");
  ear_register(&ear);
  cbr_queue queue = queue_open(6, policy, 0);
  for (int i = 0; i < 6; i++)
    CHECK_OK(payload_post(&payloads[i], i, queue, ear.handle, i % 2 ? scope : 0));
  scope_close(scope); /* between others */
  CHECK_EQ(queue_len(queue), 3);
  for (int i = 6; i < 8; i++) CHECK_OK(post_number(queue, &ear, i));
  CHECK_OK(payload_post(&late, 8, queue, ear.handle, 0));
  CHECK_EQ(queue_len(queue), 6);
  CHECK_EQ(payloads[0].freed, 0);
  CHECK_EQ(dispatch_all(queue), 6);
  CHECK_HEARD(&ear, 0, 2, 4, 6, 7, 8);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(the_room_of_events_that_were_dropped_is_free_again) { check_room_again(CBR_QUEUE_REJECT); }

TEST(no_event_is_displaced_where_there_is_the_room_of_dropped_ones) {
  check_room_again(CBR_QUEUE_DROP_OLDEST);
}

TEST(a_copied_event_may_be_owned_too) {
  struct ear ear;
  int number = 1;
  static int large[100];
  cbr_scope scope = scope_open("plugin");
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  options.queue = queue;
  options.handle = ear.handle;
  options.data = &number;
  options.len = sizeof number;
  options.owner = scope;
  CHECK_OK(cbr_post_with(&options));
  options.data = large;
  options.len = sizeof large;
  CHECK_OK(cbr_post_with(&options));
  CHECK_OK(post_number(queue, &ear, 2));
  scope_close(scope);
  CHECK_EQ(references(ear.handle), 2);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 2);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(the_descriptor_tells_when_all_events_were_dropped) {
  struct ear ear;
  struct payload payload;
  cbr_scope scope = scope_open("plugin");
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  int fd = queue_fd(queue);
  CHECK_OK(payload_post(&payload, 1, queue, ear.handle, scope));
  CHECK(readable(fd));
  scope_close(scope);
  dispatch_all(queue);
  CHECK(!readable(fd)); /* at the latest after the dispatch that finds nothing */
  CHECK_OK(post_number(queue, &ear, 2));
  CHECK(readable(fd));
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 2);
  close(fd);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(an_owned_event_of_a_full_queue_makes_room_when_its_scope_closes) {
  static const int64_t timeouts[] = {0, -1, INT64_MAX};
  for (int i = 0; i < 3; i++) {
    struct ear ear;
    struct payload payload;
    struct producer producer;
    cbr_scope scope = scope_open("plugin");
    ear_register(&ear);
    cbr_queue queue = queue_open(1, CBR_QUEUE_BLOCK, 0);
    CHECK_OK(payload_post(&payload, 1, queue, ear.handle, scope));
    producer_init(&producer, queue, ear.handle, 2);
    producer.options.timeout_ns = timeouts[i];
    producer_start(&producer);
    CHECK(!load_int(&producer.done));
    scope_close(scope);
    CHECK_OK(producer_join(&producer)); /* nobody has dispatched */
    CHECK_EQ(dispatch_all(queue), 1);
    CHECK_HEARD(&ear, 2);
    queue_discard(queue);
    ear_end(&ear);
  }
}

TEST(a_blocked_post_that_the_scope_owns_is_not_accepted_after_its_close) {
  struct ear ear;
  struct producer producer;
  cbr_scope scope = scope_open("plugin");
  ear_register(&ear);
  cbr_queue queue = queue_open(1, CBR_QUEUE_BLOCK, 0);
  CHECK_OK(post_number(queue, &ear, 1));
  producer_init(&producer, queue, ear.handle, 2);
  producer.options.owner = scope;
  producer_start(&producer);
  CHECK(!load_int(&producer.done));
  scope_close(scope);
  CHECK_EQ(payload_freed(&producer.payload), 0);
  dispatch_all(queue); /* now there is room */
  cbr_status status = producer_join(&producer);
  if (status != CBR_ERR_STALE) CHECK_STATUS(status, CBR_ERR_CLOSED);
  CHECK_EQ(producer.payload.freed, 0); /* it has stayed the poster's */
  CHECK_EQ(queue_len(queue), 0);
  CHECK_HEARD(&ear, 1);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(events_to_a_scopes_callbacks_that_it_does_not_own_are_stale_at_dispatch) {
  struct subject it;
  struct payload payload;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&it, scope);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  CHECK_OK(payload_post(&payload, 1, queue, it.handle, 0));
  scope_close(scope);
  CHECK_EQ(it.destroyed, 1);
  dispatch_all(queue);
  CHECK_EQ(payload.freed, 1);
  CHECK_EQ(it.calls, 0);
  queue_discard(queue);
}

TEST(a_dropped_event_may_be_the_last_owner_of_its_callback) {
  struct ear ear;
  struct payload payload;
  cbr_scope scope = scope_open("plugin");
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  CHECK_OK(payload_post(&payload, 1, queue, ear.handle, scope));
  CHECK_OK(cbr_release(ear.handle));
  CHECK_EQ(ear.destroyed, 0);
  scope_close(scope);
  CHECK_EQ(payload.freed, 1);
  CHECK_EQ(ear.destroyed, 1);
  queue_discard(queue);
}

TEST(displaced_payloads_of_a_scope_are_forgotten) {
  static const uint32_t flags[] = {0, CBR_QUEUE_COALESCE};
  for (int i = 0; i < 2; i++) {
    struct ear ear;
    struct payload payloads[4];
    cbr_scope first = scope_open("first"), second = scope_open("second");
    ear_register(&ear);
    cbr_queue queue = queue_open(1, CBR_QUEUE_DROP_OLDEST, flags[i]);
    CHECK_OK(payload_post(&payloads[0], 1, queue, ear.handle, first));
    CHECK_OK(payload_post(&payloads[1], 2, queue, ear.handle, second)); /* in its place */
    CHECK_EQ(payloads[0].freed, 1);
    scope_close(first); /* its event is gone: this one is another's */
    CHECK_EQ(payloads[1].freed, 0);
    CHECK_EQ(queue_len(queue), 1);
    CHECK_OK(payload_post(&payloads[2], 3, queue, ear.handle, 0));
    CHECK_EQ(payloads[1].freed, 1);
    scope_close(second);
    CHECK_EQ(payloads[2].freed, 0);
    second = scope_open("third");
    CHECK_OK(payload_post(&payloads[3], 4, queue, ear.handle, second));
    CHECK_EQ(payloads[2].freed, 1);
    scope_close(second);
    CHECK_EQ(payloads[3].freed, 1);
    dispatch_all(queue);
    CHECK_HEARD_NOTHING(&ear);
    CHECK_EQ(references(ear.handle), 1);
    queue_discard(queue);
    ear_end(&ear);
  }
}

/* What coalesced with an event that is dropped now begins anew. */
TEST(after_an_owned_event_was_dropped_its_callback_coalesces_no_more_with_it) {
  struct ear ear;
  struct payload payload;
  cbr_scope scope = scope_open("plugin");
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, CBR_QUEUE_COALESCE);
  CHECK_OK(payload_post(&payload, 1, queue, ear.handle, scope));
  scope_close(scope);
  CHECK_OK(post_number(queue, &ear, 2));
  CHECK_OK(post_number(queue, &ear, 3));
  CHECK_EQ(queue_len(queue), 1);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 3);
  queue_discard(queue);
  ear_end(&ear);
}

/* --- the event that runs while its owner closes ----------------------------------------------- */

struct staying {
  struct action action; /* first, for subject_fn */
  struct payload payload;
  gate inside, leave;
};

static void frees_staying(void *data) { payload_free(&((struct staying *)data)->payload); }

static intptr_t stays(struct subject *it, void *arg) {
  struct staying *self = (struct staying *)arg;
  (void)it;
  gate_open(&self->inside);
  gate_pass(&self->leave);
  CHECK_EQ(payload_freed(&self->payload), 0);
  return 0;
}

static cbr_status staying_post(struct staying *it, cbr_queue queue, cbr_handle handle,
                               cbr_scope owner, intptr_t (*run)(struct subject *, void *)) {
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  payload_init(&it->payload, 0);
  gate_init(&it->inside);
  gate_init(&it->leave);
  it->action.run = run;
  it->action.arg = it;
  options.queue = queue;
  options.handle = handle;
  options.data = it;
  options.len = sizeof *it;
  options.free_data = frees_staying;
  options.owner = owner;
  return cbr_post_with(&options);
}

struct scope_closer {
  cbr_scope scope;
  const struct payload *payload;
  cbr_status status;
  int freed;
  pthread_t thread;
};

static void *closes_a_scope(void *arg) {
  struct scope_closer *self = (struct scope_closer *)arg;
  self->status = cbr_scope_close(self->scope, -1, NULL);
  self->freed = payload_freed(self->payload);
  return NULL;
}

TEST(a_close_waits_for_the_event_that_runs_because_its_payload_is_freed_by_the_scopes_code) {
  for (long round = scaled(50); round > 0; round--) {
    struct subject it;
    struct loop loop;
    struct staying data;
    struct scope_closer closer;
    cbr_scope scope = scope_open("plugin");
    subject_register(&it); /* of the host's */
    cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
    loop_start(&loop, queue, false);
    CHECK_OK(staying_post(&data, queue, it.handle, scope, stays));
    gate_pass(&data.inside);
    CHECK_STATUS(cbr_scope_close(scope, 0, NULL), CBR_ERR_TIMEOUT);
    CHECK_STATUS(cbr_scope_close(scope, 1, NULL), CBR_ERR_TIMEOUT);
    CHECK_EQ(payload_freed(&data.payload), 0);
    closer.scope = scope;
    closer.payload = &data.payload;
    closer.thread = start(closes_a_scope, &closer);
    gate_open(&data.leave);
    join(closer.thread);
    CHECK_OK(closer.status);
    CHECK_EQ(closer.freed, 1);
    loop_end(&loop);
    CHECK_EQ(it.calls, 1);
    CHECK_OK(cbr_unregister(it.handle));
  }
}

static intptr_t closes_the_owner_of_its_event(struct subject *it, void *arg) {
  struct staying *self = (struct staying *)arg;
  cbr_scope scope = *(const cbr_scope *)it->extra;
  CHECK_STATUS(cbr_scope_close(scope, -1, NULL), CBR_ERR_DEADLOCK);
  CHECK_STATUS(cbr_scope_close(scope, 0, NULL), CBR_ERR_DEADLOCK);
  CHECK_EQ(payload_freed(&self->payload), 0);
  return 0;
}

TEST(closing_the_owner_of_the_event_that_runs_from_inside_is_a_deadlock) {
  struct subject it;
  struct staying data;
  struct payload waiting;
  cbr_scope scope = scope_open("plugin");
  subject_register(&it);
  it.extra = &scope;
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  CHECK_OK(staying_post(&data, queue, it.handle, scope, closes_the_owner_of_its_event));
  CHECK_OK(payload_post(&waiting, 1, queue, it.handle, scope));
  CHECK(dispatch_some(queue, 0) >= 1);
  CHECK_EQ(data.payload.freed, 1);
  scope_close(scope);
  CHECK_EQ(waiting.freed, 1);
  CHECK_EQ(it.calls, 1);
  dispatch_all(queue);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

static void lingers(struct payload *it) {
  struct staying *self = (struct staying *)it->extra;
  gate_open(&self->inside);
  gate_pass(&self->leave);
}

static void *dispatches_one(void *arg) {
  CHECK(dispatch_all(((const cbr_post_options *)arg)->queue) >= 1);
  return NULL;
}

static void *displaces_one(void *arg) {
  const cbr_post_options *options = (const cbr_post_options *)arg;
  CHECK_OK(cbr_post(options->queue, options->handle, NULL, 0));
  return NULL;
}

static void *closes_the_queue(void *arg) {
  cbr_queue queue = ((const cbr_post_options *)arg)->queue;
  cbr_status status = cbr_queue_close(queue, CBR_CLOSE_DISCARD);
  if (status != CBR_OK) check_gone(status);
  return NULL;
}

/* free_data is the scope's code wherever it runs. */
static void check_close_waits_for_free(thread_fn frees, uint32_t flags, bool stale) {
  struct subject it;
  struct staying gates;
  struct payload payload;
  struct scope_closer closer;
  cbr_scope scope = scope_open("plugin");
  subject_register(&it);
  gate_init(&gates.inside);
  gate_init(&gates.leave);
  cbr_queue queue = queue_open(1, CBR_QUEUE_DROP_OLDEST, flags);
  payload_init(&payload, 0);
  payload.on_free = lingers;
  payload.extra = &gates;
  cbr_post_options options = payload_options(&payload, queue, it.handle);
  options.owner = scope;
  CHECK_OK(cbr_post_with(&options));
  if (stale) CHECK_OK(cbr_unregister(it.handle));
  pthread_t thread = start(frees, &options);
  gate_pass(&gates.inside);
  CHECK_STATUS(cbr_scope_close(scope, 0, NULL), CBR_ERR_TIMEOUT);
  closer.scope = scope;
  closer.payload = &payload;
  closer.thread = start(closes_a_scope, &closer);
  gate_open(&gates.leave);
  join(closer.thread);
  CHECK_OK(closer.status);
  CHECK_EQ(closer.freed, 1);
  join(thread);
  cbr_status status = cbr_queue_close(queue, CBR_CLOSE_DISCARD);
  if (status != CBR_OK) check_gone(status);
  if (!stale) CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_close_waits_for_the_free_of_a_stale_event_that_is_dispatched) {
  check_close_waits_for_free(dispatches_one, 0, true);
}

TEST(a_close_waits_for_the_free_of_a_payload_that_was_displaced) {
  check_close_waits_for_free(displaces_one, 0, false);
}

TEST(a_close_waits_for_the_free_of_a_payload_that_was_coalesced) {
  check_close_waits_for_free(displaces_one, CBR_QUEUE_COALESCE, false);
}

TEST(a_close_waits_for_the_free_of_a_payload_whose_queue_is_closed) {
  check_close_waits_for_free(closes_the_queue, 0, false);
}

/* --- races ----------------------------------------------------------------------------------- */

enum { POSTERS = 3, EACH = 400 };

struct owned_poster {
  cbr_queue queue;
  cbr_handle handle;
  cbr_scope owner;
  struct payload *payloads;
  long accepted, refused;
  pthread_t thread;
};

static void *posts_with_an_owner(void *arg) {
  struct owned_poster *self = (struct owned_poster *)arg;
  for (int i = 0; i < EACH; i++) {
    cbr_status status =
        payload_post(&self->payloads[i], i, self->queue, self->handle, self->owner);
    self->accepted += status == CBR_OK;
    if (status == CBR_OK) continue;
    if (status != CBR_ERR_FULL && status != CBR_ERR_STALE) CHECK_STATUS(status, CBR_ERR_CLOSED);
    self->refused++;
    self->payloads[i].freed = -1; /* must stay so */
    if (status != CBR_ERR_FULL) {
      for (int j = i + 1; j < EACH; j++) self->payloads[j].freed = -1;
      break;
    }
  }
  return NULL;
}

static intptr_t counts(void *user_data, void *arg) {
  CHECK_EQ(payload_freed((const struct payload *)arg), 0);
  add_int((int *)user_data, 1);
  return 0;
}

/* Of all payloads that were accepted, every one is freed once, and before the close returns. */
static void check_close_meets_posts(uint32_t policy, bool with_a_loop) {
  static struct payload payloads[POSTERS][EACH];
  struct rng rng = {rng_seed()};
  for (long round = scaled(60); round > 0; round--) {
    struct owned_poster posters[POSTERS];
    struct loop loop;
    cbr_handle handle = 0;
    int calls = 0;
    cbr_scope scope = scope_open("plugin");
    CHECK_OK(cbr_register(counts, &calls, NULL, &handle));
    cbr_queue queue = queue_open(64, policy, 0);
    if (with_a_loop) loop_start(&loop, queue, false);
    store_int(&payload_frees, 0);
    for (int i = 0; i < POSTERS; i++) {
      memset(payloads[i], 0, sizeof payloads[i]);
      posters[i] = (struct owned_poster){queue, handle, scope, payloads[i], 0, 0, 0};
      posters[i].thread = start(posts_with_an_owner, &posters[i]);
    }
    for (uint64_t i = rng_below(&rng, 100); i > 0; i--) sched_yield();
    CHECK_OK(cbr_scope_close(scope, -1, NULL));
    long freed = load_int(&payload_frees), accepted = 0;
    for (int i = 0; i < POSTERS; i++) {
      join(posters[i].thread);
      accepted += posters[i].accepted;
      for (int j = 0; j < EACH; j++) {
        int now = payload_freed(&payloads[i][j]);
        CHECK(now == 1 || now == -1);
      }
    }
    CHECK_EQ(freed, accepted);
    CHECK_EQ(queue_len(queue), 0);
    if (with_a_loop) loop_end(&loop);
    else queue_discard(queue);
    CHECK(calls <= accepted);
    CHECK_EQ(references(handle), 1);
    CHECK_OK(cbr_unregister_wait(handle, -1));
  }
}

TEST(a_close_that_meets_posts_of_its_scope_frees_every_accepted_payload_first) {
  check_close_meets_posts(CBR_QUEUE_REJECT, false);
}

TEST(a_close_that_meets_posts_and_dispatches_frees_every_accepted_payload_first) {
  check_close_meets_posts(CBR_QUEUE_REJECT, true);
}

TEST(a_close_that_meets_posts_that_displace_frees_every_accepted_payload_first) {
  check_close_meets_posts(CBR_QUEUE_DROP_OLDEST, true);
}

TEST(a_close_that_meets_posts_that_block_frees_every_accepted_payload_first) {
  check_close_meets_posts(CBR_QUEUE_BLOCK, true);
}

/* Nobody dispatches: the posts that are blocked are woken by the close of their owner. */
TEST(a_close_that_meets_posts_that_are_blocked_for_ever_wakes_them) {
  check_close_meets_posts(CBR_QUEUE_BLOCK, false);
}

TEST(the_close_of_a_queue_that_meets_the_close_of_its_scope_and_of_its_events_owner) {
  for (long round = scaled(300); round > 0; round--) {
    struct ear ear;
    struct payload payloads[8];
    struct scope_closer closers[2];
    cbr_scope scopes[2] = {scope_open("queue's"), scope_open("events'")};
    ear_register(&ear);
    cbr_queue queue = queue_open_in(scopes[0], 8, CBR_QUEUE_REJECT, 0);
    for (int i = 0; i < 8; i++)
      CHECK_OK(payload_post(&payloads[i], i, queue, ear.handle, scopes[1]));
    cbr_post_options queues = {.queue = queue};
    pthread_t thread = start(closes_the_queue, &queues);
    for (int i = 0; i < 2; i++) {
      closers[i].scope = scopes[i];
      closers[i].payload = &payloads[7];
      closers[i].thread = start(closes_a_scope, &closers[i]);
    }
    for (int i = 0; i < 2; i++) {
      join(closers[i].thread);
      CHECK_OK(closers[i].status);
    }
    CHECK_EQ(closers[1].freed, 1);
    join(thread);
    for (int i = 0; i < 8; i++) CHECK_EQ(payload_freed(&payloads[i]), 1);
    CHECK_EQ(references(ear.handle), 1);
    ear_end(&ear);
  }
}
