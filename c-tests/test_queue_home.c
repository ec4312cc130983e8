/* Callbacks that belong to a thread: `home`, where they may be called, and `destroy_queue`, where
 * their destroy function runs. */
#include "support_child.h"
#include "support_queue.h"

static cbr_queue own_queue(size_t capacity, uint32_t policy) {
  return queue_open(capacity, policy, CBR_QUEUE_OWNED);
}

static cbr_status subject_try_register(struct subject *it, cbr_scope scope, cbr_queue home,
                                       cbr_queue destroy_queue) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = it;
  options.destroy = subject_destroy;
  options.scope = scope;
  options.home = home;
  options.destroy_queue = destroy_queue;
  options.fallback.i = 33;
  return cbr_register_with(&options, &it->handle);
}

static void subject_register_at(struct subject *it, cbr_queue home, cbr_queue destroy_queue) {
  CHECK_OK(subject_try_register(it, 0, home, destroy_queue));
}

/* --- registering ----------------------------------------------------------------------------- */

static void check_no_home(cbr_queue queue, cbr_status expected) {
  struct subject it;
  it.handle = 99;
  for (int i = 0; i < 3; i++) {
    cbr_queue home = i != 1 ? queue : 0, destroy_queue = i != 0 ? queue : 0;
    cbr_status status = subject_try_register(&it, 0, home, destroy_queue);
    if (expected == CBR_ERR_CLOSED) check_gone(status);
    else CHECK_STATUS(status, expected);
    CHECK_EQ(it.handle, 0); /* as subject_reset has left it */
    CHECK_EQ(it.destroyed, 0);
  }
}

TEST(only_an_owned_queue_that_is_open_is_a_home_or_a_destroy_queue) {
  struct subject it;
  cbr_scope scope = scope_open("scope");
  cbr_queue shared = queue_open(4, CBR_QUEUE_REJECT, 0), owned = own_queue(4, CBR_QUEUE_REJECT);
  subject_register(&it);
  check_no_home(shared, CBR_ERR_INVALID);
  check_no_home(it.handle, CBR_ERR_KIND);
  check_no_home(scope, CBR_ERR_KIND);
  check_no_home(1, CBR_ERR_STALE);
  check_no_home(UINT64_MAX, CBR_ERR_STALE);
  check_no_home(owned + (UINT64_C(1) << 32), CBR_ERR_STALE);
  queue_discard(owned);
  check_no_home(owned, CBR_ERR_CLOSED);
  owned = own_queue(4, CBR_QUEUE_REJECT);
  CHECK_OK(cbr_queue_close(owned, CBR_CLOSE_DRAIN));
  check_no_home(owned, CBR_ERR_CLOSED);
  queue_discard(shared);
  CHECK_OK(cbr_unregister(it.handle));
  scope_close(scope);
}

/* --- home ------------------------------------------------------------------------------------ */

static cbr_hook hook_of_homed = CBR_HOOK_INIT;

struct stranger {
  struct subject *it;
  int owner; /* the kernel's number of its thread */
};

static void check_both_named(int owner) {
  char number[32];
  snprintf(number, sizeof number, "%d", owner);
  CHECK_WORDS(number);
  snprintf(number, sizeof number, "%d", (int)syscall(SYS_gettid));
  CHECK_WORDS(number);
}

/* No way of calling is open to another thread. */
static void *is_a_stranger(void *arg) {
  struct stranger *self = (struct stranger *)arg;
  struct subject *it = self->it;
  cbr_pin pin;
  intptr_t result = 77;
  int before = load_int(&it->calls);
  CHECK_REFUSED(cbr_call(it->handle, NULL, &result), CBR_ERR_THREAD);
  check_both_named(self->owner);
  CHECK_REFUSED(cbr_enter(it->handle, 0, &pin), CBR_ERR_THREAD);
  check_both_named(self->owner);
  CHECK_REFUSED(cbr_hook_call(&hook_of_homed, NULL, &result), CBR_ERR_THREAD);
  check_both_named(self->owner);
  CHECK_REFUSED(cbr_key_call(0, 7, 7, NULL, &result), CBR_ERR_THREAD);
  CHECK_REFUSED(cbr_key_call(0, 7, 7, NULL, &result), CBR_ERR_THREAD);
  check_both_named(self->owner);
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it->handle), NULL), 33);
  CHECK_EQ(result, 77);
  CHECK_EQ(load_int(&it->calls), before);
  CHECK_EQ(cbr_depth(), 0);
  CHECK(cbr_is_live(it->handle));
  CHECK_OK(cbr_retain(it->handle)); /* owning is nothing that a thread does */
  CHECK_OK(cbr_release(it->handle));
  return NULL;
}

static void check_at_home(struct subject *it) {
  intptr_t result = 77;
  cbr_pin pin;
  int before = it->calls;
  CHECK_OK(cbr_call(it->handle, NULL, &result));
  CHECK_EQ(result, SUBJECT_RESULT);
  CHECK_OK(cbr_enter(it->handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_hook_call(&hook_of_homed, NULL, NULL));
  CHECK_OK(cbr_key_call(0, 7, 7, NULL, NULL));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it->handle), NULL), SUBJECT_RESULT);
  CHECK_EQ(it->calls, before + 4);
}

TEST(a_callback_with_a_home_is_called_on_its_thread_only_and_both_are_named) {
  struct subject it;
  cbr_queue home = own_queue(4, CBR_QUEUE_REJECT);
  struct stranger stranger = {&it, (int)syscall(SYS_gettid)};
  subject_register_at(&it, home, 0);
  CHECK_OK(cbr_hook_set_once(&hook_of_homed, it.handle));
  CHECK_OK(cbr_key_attach(0, 7, 7, it.handle, CBR_BIND_ONCE));
  check_at_home(&it);
  run_on_thread(is_a_stranger, &stranger);
  check_at_home(&it);
  run_on_thread(is_a_stranger, &stranger);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
  queue_discard(home);
}

static void *holds(void *arg) {
  struct subject *it = (struct subject *)arg;
  cbr_pin pin;
  CHECK_REFUSED(cbr_hold(it->handle, 0, &pin), CBR_ERR_THREAD);
  return NULL;
}

TEST(a_callback_with_a_home_is_not_held_by_another_thread_either) {
  struct subject it;
  cbr_pin pin;
  cbr_queue home = own_queue(4, CBR_QUEUE_REJECT);
  subject_register_at(&it, home, 0);
  run_on_thread(holds, &it);
  CHECK_OK(cbr_hold(it.handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
  queue_discard(home);
}

static void *calls_in_vain(void *arg) {
  CHECK_REFUSED(cbr_call(((struct subject *)arg)->handle, NULL, NULL), CBR_ERR_THREAD);
  return NULL;
}

static void *calls_at_home(void *arg) {
  check_at_home((struct subject *)arg);
  return NULL;
}

struct adopter {
  cbr_queue queue;
  struct subject *it;
  int number;
  gate adopted, leave;
};

static void *adopts(void *arg) {
  struct adopter *self = (struct adopter *)arg;
  CHECK_OK(cbr_queue_adopt(self->queue));
  self->number = (int)syscall(SYS_gettid);
  calls_at_home(self->it);
  gate_open(&self->adopted);
  gate_pass(&self->leave);
  return NULL;
}

TEST(whoever_adopts_the_home_may_call_and_nobody_else) {
  struct subject it;
  struct adopter adopter;
  adopter.queue = own_queue(4, CBR_QUEUE_REJECT);
  adopter.it = &it;
  gate_init(&adopter.adopted);
  gate_init(&adopter.leave);
  subject_register_at(&it, adopter.queue, 0);
  CHECK_OK(cbr_hook_set_once(&hook_of_homed, it.handle));
  CHECK_OK(cbr_key_attach(0, 7, 7, it.handle, CBR_BIND_ONCE));
  check_at_home(&it);
  pthread_t thread = start(adopts, &adopter);
  gate_pass(&adopter.adopted);
  struct stranger stranger = {&it, adopter.number};
  is_a_stranger(&stranger);
  run_on_thread(is_a_stranger, &stranger);
  gate_open(&adopter.leave);
  join(thread);
  /* The owner has ended. Threads that come after it, perhaps in its place, are others. */
  for (int i = 0; i < 20; i++) {
    calls_in_vain(&it);
    run_on_thread(calls_in_vain, &it);
  }
  CHECK_OK(cbr_queue_adopt(adopter.queue));
  check_at_home(&it);
  CHECK_OK(cbr_unregister(it.handle));
  queue_discard(adopter.queue);
}

static intptr_t is_on_the_owners_thread(struct subject *it, void *arg) {
  (void)it;
  CHECK(pthread_equal(pthread_self(), *(const pthread_t *)arg));
  return 12;
}

struct homed_post {
  struct subject *it;
  cbr_queue home, other;
  pthread_t *owner;
};

static void *posts_home(void *arg) {
  struct homed_post *self = (struct homed_post *)arg;
  struct payload payload;
  CHECK_OK(post_action(0, self->it, is_on_the_owners_thread, self->owner));
  CHECK_OK(post_action(self->home, self->it, is_on_the_owners_thread, self->owner));
  CHECK_REFUSED(post_action(self->other, self->it, is_on_the_owners_thread, self->owner),
                CBR_ERR_THREAD);
  CHECK_REFUSED(payload_post(&payload, 1, self->other, self->it->handle, 0), CBR_ERR_THREAD);
  CHECK_EQ(payload.freed, 0);
  CHECK_REFUSED(cbr_call_on(self->other, self->it->handle, NULL, -1, NULL), CBR_ERR_THREAD);
  return NULL;
}

TEST(a_callback_with_a_home_is_posted_home_and_nowhere_else) {
  static const uint32_t flags[] = {0, CBR_QUEUE_OWNED};
  for (int i = 0; i < 2; i++) {
    struct subject it;
    pthread_t owner = pthread_self();
    cbr_queue home = own_queue(8, CBR_QUEUE_REJECT);
    struct homed_post post = {&it, home, queue_open(8, CBR_QUEUE_REJECT, flags[i]), &owner};
    subject_register_at(&it, home, 0);
    run_on_thread(posts_home, &post);
    CHECK_EQ(queue_len(post.other), 0);
    CHECK_EQ(dispatch_all(home), 2);
    posts_home(&post); /* from its own thread as well */
    CHECK_EQ(dispatch_all(home), 2);
    CHECK_EQ(it.calls, 4);
    CHECK_EQ(references(it.handle), 1);
    CHECK_OK(cbr_unregister(it.handle));
    queue_discard(home);
    queue_discard(post.other);
  }
}

TEST(a_callback_without_a_home_cannot_be_posted_home) {
  struct subject it;
  struct payload payload;
  subject_register(&it);
  CHECK_REFUSED(cbr_post(0, it.handle, NULL, 0), CBR_ERR_INVALID);
  CHECK_REFUSED(payload_post(&payload, 1, 0, it.handle, 0), CBR_ERR_INVALID);
  CHECK_EQ(payload.freed, 0);
  CHECK_REFUSED(cbr_post(0, it.handle + (UINT64_C(1) << 32), NULL, 0), CBR_ERR_STALE);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_REFUSED(cbr_post(0, it.handle, NULL, 0), CBR_ERR_STALE);
}

TEST(a_callback_with_a_home_is_called_on_its_loop) {
  struct subject it;
  struct loop loop;
  intptr_t result = 0;
  cbr_queue home = own_queue(8, CBR_QUEUE_REJECT);
  subject_register_at(&it, home, 0);
  loop_start(&loop, home, true);
  struct action action = {is_on_the_owners_thread, &loop.thread};
  CHECK_OK(cbr_call_on(home, it.handle, &action, -1, &result));
  CHECK_EQ(result, 12);
  CHECK_REFUSED(cbr_call(it.handle, NULL, NULL), CBR_ERR_THREAD);
  loop_end(&loop);
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
}

TEST(a_callback_whose_home_was_closed_cannot_be_called) {
  for (int by_scope = 0; by_scope < 2; by_scope++) {
    struct subject it;
    struct payload payload;
    intptr_t result = 77;
    cbr_scope scope = scope_open("loop");
    cbr_queue home = queue_open_in(scope, 8, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED);
    subject_register_at(&it, home, 0);
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    if (by_scope) scope_close(scope);
    else queue_discard(home);
    CHECK_REFUSED(cbr_call(it.handle, NULL, &result), CBR_ERR_CLOSED);
    CHECK_REFUSED(cbr_post(0, it.handle, NULL, 0), CBR_ERR_CLOSED);
    CHECK_REFUSED(payload_post(&payload, 1, 0, it.handle, 0), CBR_ERR_CLOSED);
    CHECK_EQ(payload.freed, 0);
    CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it.handle), NULL), 33);
    for (int i = 0; i < 500; i++) queue_discard(own_queue(2, CBR_QUEUE_REJECT));
    CHECK_REFUSED(cbr_call(it.handle, NULL, &result), CBR_ERR_CLOSED); /* not only for a while */
    CHECK_REFUSED(cbr_post(0, it.handle, NULL, 0), CBR_ERR_CLOSED);
    CHECK_EQ(result, 77);
    CHECK_EQ(it.calls, 1);
    CHECK_OK(cbr_unregister(it.handle)); /* it ends as any other */
    CHECK_EQ(it.destroyed, 1);
    if (!by_scope) scope_close(scope);
  }
}

TEST(what_waits_at_home_is_still_called_when_the_home_drains) {
  struct subject it;
  pthread_t self = pthread_self();
  cbr_queue home = own_queue(8, CBR_QUEUE_REJECT);
  subject_register_at(&it, home, 0);
  CHECK_OK(post_action(0, &it, is_on_the_owners_thread, &self));
  CHECK_OK(cbr_queue_close(home, CBR_CLOSE_DRAIN));
  CHECK_EQ(dispatch_all(home), 1);
  CHECK_EQ(it.calls, 1);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

/* --- destroy_queue: where and when ----------------------------------------------------------- */

static void *unregisters(void *arg) {
  CHECK_OK(cbr_unregister(((struct subject *)arg)->handle));
  return NULL;
}

static void *releases(void *arg) {
  CHECK_OK(cbr_release(((struct subject *)arg)->handle));
  return NULL;
}

TEST(destroy_runs_when_its_queue_is_dispatched_on_the_owners_thread) {
  static const thread_fn ends[] = {unregisters, releases};
  for (int i = 0; i < 2; i++) {
    for (int on_owner = 0; on_owner < 2; on_owner++) {
      struct subject it;
      cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
      int fd = queue_fd(queue);
      subject_register_at(&it, i == 0 ? 0 : queue, queue);
      CHECK_OK(cbr_call(it.handle, NULL, NULL));
      if (on_owner) ends[i](&it);
      else run_on_thread(ends[i], &it);
      CHECK_EQ(it.destroyed, 0);
      CHECK(!cbr_is_live(it.handle));
      CHECK_STATUS(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
      CHECK(readable(fd)); /* or the loop would not know */
      CHECK_EQ(dispatch_some(queue, 0), 1);
      CHECK_EQ(it.destroyed, 1);
      CHECK(pthread_equal(it.destroyed_on, pthread_self()));
      CHECK_STATUS(cbr_queue_dispatch(queue, 0, 0, NULL), CBR_ERR_EMPTY);
      CHECK(!readable(fd));
      close(fd);
      queue_discard(queue);
      CHECK_EQ(it.destroyed, 1);
    }
  }
}

TEST(destroy_comes_to_its_queue_when_the_last_call_has_left) {
  struct subject it;
  struct occupant guest;
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  subject_register_at(&it, 0, queue);
  occupy(&guest, &it);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_STATUS(cbr_queue_dispatch(queue, 0, 0, NULL), CBR_ERR_EMPTY);
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(subject_destroyed(&it), 0);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_EQ(it.destroyed, 1);
  CHECK(pthread_equal(it.destroyed_on, pthread_self()));
  queue_discard(queue);
}

TEST(a_loop_that_waits_is_woken_to_destroy) {
  struct subject it;
  struct loop loop;
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  loop_start(&loop, queue, true);
  for (long round = scaled(1000); round > 0; round--) {
    subject_register_at(&it, 0, queue);
    if (round % 16 == 0) POLL_UNTIL(sleeps(&loop.number));
    CHECK_OK(round % 2 ? cbr_unregister(it.handle) : cbr_unregister_wait(it.handle, -1));
    POLL_UNTIL(subject_destroyed(&it));
    CHECK(pthread_equal(it.destroyed_on, loop.thread));
    cbr_status status = cbr_unregister_wait(it.handle, -1);
    CHECK(status == CBR_OK || status == CBR_ERR_STALE);
  }
  loop_end(&loop);
}

static void checks_its_payloads(struct subject *it) {
  const struct payload *payloads = (const struct payload *)it->extra;
  for (int i = 0; i < 3; i++) CHECK_EQ(payload_freed(&payloads[i]), 1);
}

static intptr_t does_nothing(void *user_data, void *arg) {
  (void)arg;
  subject_check_alive((struct subject *)user_data);
  add_int(&((struct subject *)user_data)->calls, 1);
  return 0;
}

TEST(destroy_comes_after_the_payloads_of_its_callback) {
  for (int by_release = 0; by_release < 2; by_release++) {
    for (size_t budget = 0; budget < 2; budget++) {
      struct subject it;
      struct ear ear;
      struct payload payloads[3];
      cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
      cbr_queue queue = own_queue(16, CBR_QUEUE_REJECT);
      subject_reset(&it);
      ear_register(&ear);
      it.on_destroy = checks_its_payloads;
      it.extra = payloads;
      options.fn = (cbr_any_fn)does_nothing;
      options.user_data = &it;
      options.destroy = subject_destroy;
      options.destroy_queue = queue;
      CHECK_OK(cbr_register_with(&options, &it.handle));
      for (int i = 0; i < 3; i++) {
        CHECK_OK(payload_post(&payloads[i], i, queue, it.handle, 0));
        CHECK_OK(post_number(queue, &ear, i));
      }
      if (by_release) releases(&it);
      else unregisters(&it);
      CHECK_EQ(it.destroyed, 0);
      CHECK_OK(post_number(queue, &ear, 3));
      for (int i = 0; i < 100; i++) cbr_queue_dispatch(queue, budget, 0, NULL);
      CHECK_EQ(it.destroyed, 1);
      CHECK_EQ(it.calls, by_release ? 3 : 0);
      CHECK_HEARD(&ear, 0, 1, 2, 3);
      CHECK_STATUS(cbr_queue_dispatch(queue, 0, 0, NULL), CBR_ERR_EMPTY);
      queue_discard(queue);
      ear_end(&ear);
    }
  }
}

TEST(destroys_take_no_room_and_are_never_dropped) {
  static const uint32_t policies[] = {CBR_QUEUE_REJECT, CBR_QUEUE_DROP_OLDEST, CBR_QUEUE_BLOCK};
  enum { ALL = 300 };
  static struct subject all[ALL];
  for (int i = 0; i < 3; i++) {
    struct ear ear;
    ear_register(&ear);
    cbr_queue queue = own_queue(1, policies[i]);
    CHECK_OK(post_number(queue, &ear, 1)); /* full */
    for (int j = 0; j < ALL; j++) {
      subject_register_at(&all[j], 0, queue);
      CHECK_OK(cbr_unregister(all[j].handle));
      CHECK_EQ(all[j].destroyed, 0);
    }
    if (i == 1) CHECK_OK(post_number(queue, &ear, 2));
    dispatch_all(queue);
    CHECK_OK(post_number(queue, &ear, 3));
    dispatch_all(queue);
    for (int j = 0; j < ALL; j++) CHECK_EQ(all[j].destroyed, 1);
    CHECK_HEARD(&ear, i == 1 ? 2 : 1, 3);
    queue_discard(queue);
    ear_end(&ear);
  }
}

/* --- destroy_queue: closed ------------------------------------------------------------------- */

TEST(when_its_queue_was_closed_destroy_runs_on_the_thread_that_ends_the_callback) {
  for (int by_scope = 0; by_scope < 2; by_scope++) {
    struct subject it, other;
    cbr_scope scope = scope_open("loop");
    cbr_queue queue = queue_open_in(scope, 4, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED);
    subject_register_at(&it, 0, queue);
    subject_register_at(&other, 0, queue);
    if (by_scope) scope_close(scope);
    else queue_discard(queue);
    for (int i = 0; i < 500; i++) queue_discard(own_queue(2, CBR_QUEUE_REJECT));
    CHECK_OK(cbr_call(it.handle, NULL, NULL)); /* it has no home */
    pthread_t thread = start(unregisters, &it);
    join(thread);
    CHECK_EQ(it.destroyed, 1);
    CHECK(pthread_equal(it.destroyed_on, thread));
    CHECK_OK(cbr_unregister_wait(other.handle, -1));
    CHECK_EQ(other.destroyed, 1);
    if (!by_scope) scope_close(scope);
  }
}

TEST(destroys_that_wait_when_their_queue_is_closed_run_all_the_same) {
  static const uint32_t modes[] = {CBR_CLOSE_DRAIN, CBR_CLOSE_DISCARD};
  enum { ALL = 20 };
  for (int i = 0; i < 2; i++) {
    struct subject all[ALL], later;
    cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
    subject_register_at(&later, 0, queue);
    for (int j = 0; j < ALL; j++) {
      subject_register_at(&all[j], 0, queue);
      CHECK_OK(cbr_unregister(all[j].handle));
    }
    CHECK_OK(cbr_queue_close(queue, modes[i]));
    CHECK_OK(cbr_unregister(later.handle));
    CHECK_EQ(later.destroyed, 1);
    if (modes[i] == CBR_CLOSE_DRAIN) dispatch_all(queue);
    for (int j = 0; j < ALL; j++) CHECK_EQ(all[j].destroyed, 1);
  }
}

static void *closes_to_discard(void *arg) {
  CHECK_OK(cbr_queue_close(*(const cbr_queue *)arg, CBR_CLOSE_DISCARD));
  return NULL;
}

TEST(a_waiter_is_woken_when_the_queue_that_was_to_destroy_is_closed) {
  for (long round = scaled(200); round > 0; round--) {
    struct subject its[2];
    cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
    subject_register_at(&its[0], 0, queue);
    subject_register_at(&its[1], 0, queue);
    CHECK_OK(cbr_unregister(its[0].handle));
    pthread_t thread = start(closes_to_discard, &queue);
    for (int i = 0; i < 2; i++) {
      cbr_status status = cbr_unregister_wait(its[i].handle, -1);
      CHECK(status == CBR_OK || status == CBR_ERR_STALE);
      CHECK_EQ(subject_destroyed(&its[i]), 1);
    }
    join(thread);
  }
}

static void *owns_and_ends(void *arg) {
  CHECK_OK(cbr_queue_adopt(*(const cbr_queue *)arg));
  return NULL;
}

TEST(what_the_thread_that_ended_was_to_destroy_is_destroyed_by_who_adopts_its_queue) {
  struct subject it;
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  subject_register_at(&it, 0, queue);
  run_on_thread(owns_and_ends, &queue);
  CHECK_STATUS(cbr_unregister_wait(it.handle, 1 * MS), CBR_ERR_TIMEOUT);
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_queue_adopt(queue));
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_EQ(it.destroyed, 1);
  queue_discard(queue);
}

/* --- waiting for a destroy that a queue is to run -------------------------------------------- */

struct waiter {
  struct subject *it;
  int64_t timeout_ns;
  cbr_status status;
};

static void *waits_for(void *arg) {
  struct waiter *self = (struct waiter *)arg;
  self->status = cbr_unregister_wait(self->it->handle, self->timeout_ns);
  if (self->status == CBR_OK) CHECK_EQ(subject_destroyed(self->it), 1);
  return NULL;
}

TEST(another_thread_waits_until_the_owner_has_dispatched) {
  struct subject it;
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  subject_register_at(&it, 0, queue);
  struct waiter impatient = {&it, 0, 1}, patient = {&it, -1, 1};
  run_on_thread(waits_for, &impatient);
  CHECK_STATUS(impatient.status, CBR_ERR_TIMEOUT);
  impatient.timeout_ns = 5 * MS;
  run_on_thread(waits_for, &impatient);
  CHECK_STATUS(impatient.status, CBR_ERR_TIMEOUT);
  CHECK_EQ(it.destroyed, 0);
  pthread_t thread = start(waits_for, &patient);
  size_t count = 0;
  CHECK_OK(cbr_queue_dispatch(queue, 0, -1, &count));
  CHECK_EQ(count, 1);
  join(thread);
  CHECK(patient.status == CBR_OK || patient.status == CBR_ERR_STALE);
  CHECK_EQ(it.destroyed, 1);
  queue_discard(queue);
}

TEST(a_waiter_that_owns_the_queue_runs_the_destroy_that_it_waits_for_and_no_other) {
  struct subject first, second, third;
  struct ear ear;
  ear_register(&ear);
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  subject_register_at(&first, 0, queue);
  subject_register_at(&second, queue, queue);
  subject_register_at(&third, 0, queue);
  CHECK_OK(post_number(queue, &ear, 1));
  CHECK_OK(cbr_unregister(first.handle));
  CHECK_OK(cbr_unregister(third.handle));
  CHECK_OK(cbr_unregister_wait(second.handle, -1));
  CHECK_EQ(second.destroyed, 1);
  CHECK_EQ(first.destroyed + third.destroyed, 0);
  CHECK_HEARD_NOTHING(&ear);
  CHECK_OK(cbr_unregister_wait(third.handle, -1)); /* one that was in the queue already */
  CHECK_EQ(third.destroyed, 1);
  CHECK_EQ(first.destroyed, 0);
  CHECK_OK(cbr_unregister_wait(first.handle, 0)); /* nor is there anything to wait for */
  CHECK_EQ(first.destroyed, 1);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 1);
  queue_discard(queue);
  ear_end(&ear);
}

/* The last call leaves on another thread, and so the destroy comes to a queue whose owner waits. */
TEST(an_owner_that_waits_runs_a_destroy_that_comes_later) {
  for (long round = scaled(100); round > 0; round--) {
    struct subject it;
    struct occupant guest;
    cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
    subject_register_at(&it, 0, queue);
    occupy(&guest, &it);
    CHECK_STATUS(cbr_unregister_wait(it.handle, 0), CBR_ERR_TIMEOUT);
    gate_open(&guest.leave);
    cbr_status status = cbr_unregister_wait(it.handle, -1);
    CHECK_OK(status);
    CHECK_EQ(it.destroyed, 1);
    CHECK(pthread_equal(it.destroyed_on, pthread_self()));
    join(guest.thread);
    queue_discard(queue);
  }
}

TEST(closing_a_scope_on_the_thread_that_owns_the_queue_runs_its_destroys) {
  enum { ALL = 5 };
  struct subject all[ALL], other;
  cbr_scope scope = scope_open("plugin");
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  for (int i = 0; i < ALL; i++) CHECK_OK(subject_try_register(&all[i], scope, 0, queue));
  subject_register_at(&other, 0, queue);
  CHECK_OK(cbr_unregister(other.handle));
  CHECK_OK(cbr_unregister(all[0].handle));
  scope_close(scope);
  for (int i = 0; i < ALL; i++) CHECK_EQ(all[i].destroyed, 1);
  CHECK_EQ(other.destroyed, 0);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_EQ(other.destroyed, 1);
  queue_discard(queue);
}

TEST(draining_a_scope_on_the_thread_that_owns_the_queue_runs_its_destroys) {
  struct subject its[2];
  cbr_scope scope = scope_open("plugin");
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  for (int i = 0; i < 2; i++) CHECK_OK(subject_try_register(&its[i], scope, 0, queue));
  CHECK_OK(cbr_unregister(its[0].handle));
  CHECK_OK(cbr_scope_drain(scope, -1));
  CHECK_EQ(its[0].destroyed, 1);
  CHECK_EQ(its[1].destroyed, 0);
  scope_close(scope);
  CHECK_EQ(its[1].destroyed, 1);
  queue_discard(queue);
}

struct scope_closer {
  cbr_scope scope;
  struct subject *it;
  cbr_status first, second;
};

static void *closes_a_scope(void *arg) {
  struct scope_closer *self = (struct scope_closer *)arg;
  self->first = cbr_scope_close(self->scope, 0, NULL);
  self->second = cbr_scope_close(self->scope, -1, NULL);
  CHECK_EQ(subject_destroyed(self->it), 1);
  return NULL;
}

TEST(closing_a_scope_elsewhere_waits_for_the_loop_that_destroys) {
  struct subject it;
  cbr_scope scope = scope_open("plugin");
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  CHECK_OK(subject_try_register(&it, scope, 0, queue));
  struct scope_closer closer = {scope, &it, 1, 1};
  pthread_t thread = start(closes_a_scope, &closer);
  POLL_UNTIL(!cbr_is_live(it.handle));
  size_t count = 0;
  CHECK_OK(cbr_queue_dispatch(queue, 0, -1, &count));
  CHECK_EQ(it.destroyed, 1);
  join(thread);
  if (closer.first != CBR_ERR_TIMEOUT) CHECK_OK(closer.first);
  if (closer.second != CBR_ERR_STALE || closer.first != CBR_OK) CHECK_OK(closer.second);
  queue_discard(queue);
}

TEST(closing_a_scope_that_owns_the_queue_of_its_destroys_runs_them) {
  struct subject its[2];
  cbr_scope scope = scope_open("plugin");
  cbr_queue queue = queue_open_in(scope, 4, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED);
  for (int i = 0; i < 2; i++) CHECK_OK(subject_try_register(&its[i], scope, queue, queue));
  CHECK_OK(cbr_unregister(its[0].handle));
  struct scope_closer closer = {scope, &its[1], 1, 1};
  run_on_thread(closes_a_scope, &closer); /* a stranger to the queue */
  CHECK_OK(closer.first);
  CHECK_EQ(its[0].destroyed + its[1].destroyed, 2);
}

/* Two loops, each with a callback that waits for a destroy which only the other loop can run. */
struct crossed {
  cbr_queue queues[2];
  struct subject outer[2], ended[2];
  struct loop loops[2];
  cbr_status statuses[2];
  pthread_barrier_t both_inside;
};

static struct crossed crossed;

static intptr_t waits_for_the_others_destroy(struct subject *it, void *arg) {
  int self = (int)(it - crossed.outer);
  (void)arg;
  meet(&crossed.both_inside);
  crossed.statuses[self] = cbr_unregister_wait(crossed.ended[1 - self].handle, -1);
  return 0;
}

TEST(of_two_loops_that_wait_for_each_others_destroys_one_is_told) {
  for (long round = scaled(100); round > 0; round--) {
    memset(&crossed, 0, sizeof crossed);
    CHECK_EQ(pthread_barrier_init(&crossed.both_inside, NULL, 2), 0);
    for (int i = 0; i < 2; i++) {
      crossed.queues[i] = own_queue(4, CBR_QUEUE_REJECT);
      subject_register(&crossed.outer[i]);
      subject_register_at(&crossed.ended[i], 0, crossed.queues[i]);
      loop_start(&crossed.loops[i], crossed.queues[i], true);
    }
    for (int i = 0; i < 2; i++)
      CHECK_OK(
          post_action(crossed.queues[i], &crossed.outer[i], waits_for_the_others_destroy, NULL));
    for (int i = 0; i < 2; i++) POLL_UNTIL(subject_destroyed(&crossed.ended[i]));
    for (int i = 0; i < 2; i++) loop_end(&crossed.loops[i]);
    int told = 0;
    for (int i = 0; i < 2; i++) {
      if (crossed.statuses[i] != CBR_ERR_DEADLOCK) CHECK_OK(crossed.statuses[i]);
      told += crossed.statuses[i] == CBR_ERR_DEADLOCK;
      CHECK(pthread_equal(crossed.ended[i].destroyed_on, crossed.loops[i].thread));
      CHECK_OK(cbr_unregister(crossed.outer[i].handle));
    }
    CHECK(told >= 1);
  }
}

/* --- what destroy may do there --------------------------------------------------------------- */

struct destroyer {
  cbr_queue queue;
  struct subject *next;
};

static void destroy_ends_the_next(struct subject *it) {
  struct destroyer *self = (struct destroyer *)it->extra;
  CHECK(cbr_current_event() == NULL);
  CHECK_OK(cbr_unregister(self->next->handle));
  CHECK_EQ(self->next->destroyed, 0);
}

TEST(a_destroy_in_its_queue_may_send_another_there) {
  struct subject first, second;
  struct destroyer destroyer = {own_queue(4, CBR_QUEUE_REJECT), &second};
  subject_register_at(&first, 0, destroyer.queue);
  subject_register_at(&second, 0, destroyer.queue);
  first.on_destroy = destroy_ends_the_next;
  first.extra = &destroyer;
  CHECK_OK(cbr_unregister(first.handle));
  dispatch_all(destroyer.queue);
  CHECK_EQ(first.destroyed + second.destroyed, 2);
  queue_discard(destroyer.queue);
}

static void destroy_closes_the_queue(struct subject *it) {
  CHECK_OK(cbr_queue_close(((struct destroyer *)it->extra)->queue, CBR_CLOSE_DISCARD));
}

TEST(a_destroy_in_its_queue_may_close_it) {
  struct subject first, second;
  struct destroyer destroyer = {own_queue(4, CBR_QUEUE_REJECT), &second};
  subject_register_at(&first, 0, destroyer.queue);
  subject_register_at(&second, 0, destroyer.queue);
  first.on_destroy = destroy_closes_the_queue;
  first.extra = &destroyer;
  CHECK_OK(cbr_unregister(first.handle));
  CHECK_OK(cbr_unregister(second.handle));
  dispatch_all(destroyer.queue);
  CHECK_EQ(first.destroyed + second.destroyed, 2);
}

/* --- fork and threads ------------------------------------------------------------------------ */

TEST(in_the_child_of_a_fork_destroy_runs_on_the_thread_that_ends_the_callback) {
  struct subject waiting, live;
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  subject_register_at(&waiting, 0, queue);
  subject_register_at(&live, queue, queue);
  pid_t child = fork_watched();
  if (child == 0) {
    CHECK_REFUSED(cbr_post(0, live.handle, NULL, 0), CBR_ERR_CLOSED);
    CHECK_OK(cbr_unregister(live.handle));
    CHECK_OK(cbr_unregister_wait(waiting.handle, -1));
    CHECK_EQ(live.destroyed + waiting.destroyed, 2);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_OK(cbr_call(live.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(live.handle));
  CHECK_OK(cbr_unregister(waiting.handle));
  CHECK_EQ(dispatch_all(queue), 2);
  CHECK_EQ(live.destroyed + waiting.destroyed, 2);
  queue_discard(queue);
}

/* A destroy that waits in an inherited queue when the process forks. */
TEST(in_the_child_of_a_fork_a_destroy_that_waits_in_a_queue_can_be_waited_for) {
  struct subject it;
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  subject_register_at(&it, 0, queue);
  CHECK_OK(cbr_unregister(it.handle));
  pid_t child = fork_watched();
  if (child == 0) {
    cbr_status status = cbr_unregister_wait(it.handle, -1);
    CHECK(status == CBR_OK || status == CBR_ERR_STALE);
    CHECK_EQ(it.destroyed, 1);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_EQ(it.destroyed, 1);
  queue_discard(queue);
}

enum { ENDERS = 4, EACH = 500 };
static struct subject crowd[ENDERS][EACH];

static void *ends_many(void *arg) {
  struct subject *own = (struct subject *)arg;
  for (int i = 0; i < EACH; i++) {
    switch (i % 3) {
      case 0: CHECK_OK(cbr_unregister(own[i].handle)); break;
      case 1: CHECK_OK(cbr_release(own[i].handle)); break;
      default: CHECK_OK(cbr_unregister_wait(own[i].handle, -1)); CHECK_EQ(own[i].destroyed, 1);
    }
  }
  return NULL;
}

TEST(destroys_of_several_threads_all_run_in_one_loop) {
  pthread_t threads[ENDERS];
  struct loop loop;
  cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
  loop_start(&loop, queue, true);
  for (int i = 0; i < ENDERS; i++) {
    for (int j = 0; j < EACH; j++) subject_register_at(&crowd[i][j], 0, queue);
  }
  for (int i = 0; i < ENDERS; i++) threads[i] = start(ends_many, crowd[i]);
  for (int i = 0; i < ENDERS; i++) join(threads[i]);
  loop_end(&loop);
  for (int i = 0; i < ENDERS; i++) {
    for (int j = 0; j < EACH; j++) {
      CHECK_EQ(crowd[i][j].destroyed, 1);
      CHECK(pthread_equal(crowd[i][j].destroyed_on, loop.thread));
    }
  }
  CHECK_EQ(loop.dispatched, ENDERS * EACH);
}

/* The same while the queue is closed: wherever they run, all do, and nobody waits for ever. */
TEST(destroys_that_meet_the_close_of_their_queue_all_run) {
  for (long round = scaled(50); round > 0; round--) {
    pthread_t threads[ENDERS];
    struct loop loop;
    cbr_queue queue = own_queue(4, CBR_QUEUE_REJECT);
    loop_start(&loop, queue, true);
    for (int i = 0; i < ENDERS; i++) {
      for (int j = 0; j < EACH; j++) subject_register_at(&crowd[i][j], 0, queue);
    }
    for (int i = 0; i < ENDERS; i++) threads[i] = start(ends_many, crowd[i]);
    POLL_UNTIL(subject_destroyed(&crowd[round % ENDERS][round % 50]));
    CHECK_OK(cbr_queue_close(queue, round % 2 ? CBR_CLOSE_DISCARD : CBR_CLOSE_DRAIN));
    join(loop.thread);
    for (int i = 0; i < ENDERS; i++) join(threads[i]);
    for (int i = 0; i < ENDERS; i++) {
      for (int j = 0; j < EACH; j++) CHECK_EQ(subject_destroyed(&crowd[i][j]), 1);
    }
  }
}

/* --- waits for a destroy that another thread's queue has ----------------------------------- */

/* One thread waits for the end of a callback, or of its scope, whose destroy waits in the queue of a
 * thread that waits for the first one to dispatch. */
static struct {
  cbr_queue mine, theirs;
  cbr_handle called;
  cbr_status call;
  gate opened, go;
} ring_of_two;

static void *owns_a_queue_and_calls_on_another(void *arg) {
  (void)arg;
  ring_of_two.theirs = own_queue(4, CBR_QUEUE_REJECT);
  gate_open(&ring_of_two.opened);
  gate_pass(&ring_of_two.go);
  ring_of_two.call = cbr_call_on(ring_of_two.mine, ring_of_two.called, NULL, -1, NULL);
  /* What was deferred to this thread, whatever has come of the rest. */
  cbr_status status = cbr_queue_dispatch(ring_of_two.theirs, 0, 0, NULL);
  if (status != CBR_ERR_EMPTY) CHECK_OK(status);
  return NULL;
}

static void check_a_ring_of_two(bool by_scope) {
  for (long round = scaled(100); round > 0; round--) {
    struct subject it, called;
    cbr_status wait;
    gate_init(&ring_of_two.opened);
    gate_init(&ring_of_two.go);
    ring_of_two.mine = own_queue(4, CBR_QUEUE_REJECT);
    subject_register(&called);
    ring_of_two.called = called.handle;
    pthread_t thread = start(owns_a_queue_and_calls_on_another, NULL);
    gate_pass(&ring_of_two.opened);
    cbr_scope scope = scope_open("ends elsewhere");
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    subject_reset(&it);
    options.fn = (cbr_any_fn)subject_fn;
    options.user_data = &it;
    options.destroy = subject_destroy;
    options.scope = scope;
    options.destroy_queue = ring_of_two.theirs;
    CHECK_OK(cbr_register_with(&options, &it.handle));
    if (round % 2) CHECK_OK(cbr_unregister(it.handle));
    gate_open(&ring_of_two.go);
    wait = by_scope ? cbr_scope_close(scope, -1, NULL) : cbr_unregister_wait(it.handle, -1);
    /* If it was this one that was told, the other goes on. */
    if (wait == CBR_ERR_DEADLOCK) CHECK_OK(cbr_queue_dispatch(ring_of_two.mine, 1, -1, NULL));
    else CHECK_OK(wait);
    join(thread);
    CHECK(wait == CBR_ERR_DEADLOCK || ring_of_two.call == CBR_ERR_DEADLOCK);
    CHECK_EQ(ring_of_two.call == CBR_OK, called.calls == 1);
    CHECK_EQ(subject_destroyed(&it), 1);
    if (!by_scope || wait != CBR_OK) scope_close(scope);
    CHECK_OK(cbr_unregister(called.handle));
    queue_discard(ring_of_two.mine);
    CHECK_OK(cbr_queue_close(ring_of_two.theirs, CBR_CLOSE_DISCARD));
  }
}

TEST(a_wait_for_a_destroy_in_the_queue_of_a_thread_that_waits_for_us_is_a_deadlock) {
  check_a_ring_of_two(false);
}

TEST(a_close_that_waits_for_a_destroy_in_the_queue_of_a_thread_that_waits_for_us_is_a_deadlock) {
  check_a_ring_of_two(true);
}

static struct {
  cbr_handle handle; /* what to post to; 0: stop */
  cbr_handle stale;  /* the last that was found gone */
} going;

static void *post_until_gone(void *arg) {
  (void)arg;
  cbr_handle handle, gone = 0;
  while ((handle = __atomic_load_n(&going.handle, __ATOMIC_ACQUIRE)) != 0) {
    if (handle == gone) {
      sched_yield();
      continue;
    }
    cbr_status status = cbr_post(0, handle, NULL, 0);
    if (status == CBR_OK || status == CBR_ERR_FULL) continue;
    CHECK_STATUS(status, CBR_ERR_STALE);
    gone = handle;
    __atomic_store_n(&going.stale, gone, __ATOMIC_RELEASE);
  }
  return NULL;
}

/* With one, the library would know the home for longer. */
static void register_without_fallback(struct subject *it, cbr_queue home) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = it;
  options.home = home;
  CHECK_OK(cbr_register_with(&options, &it->handle));
}

TEST(a_post_to_the_home_of_a_callback_that_ends_just_then_finds_it_stale) {
  struct subject it;
  cbr_queue home = own_queue(4, CBR_QUEUE_REJECT);
  pthread_t thread;
  register_without_fallback(&it, home);
  going.handle = it.handle;
  thread = start(post_until_gone, NULL);
  int64_t end = now_ns() + scaled(1000) * 2000000; /* two seconds */
  for (long round = 50000; round > 0 && now_ns() < end; round--) {
    cbr_handle handle = it.handle;
    CHECK_OK(cbr_unregister(handle));
    while (__atomic_load_n(&going.stale, __ATOMIC_ACQUIRE) != handle) sched_yield();
    dispatch_all(home);
    register_without_fallback(&it, home);
    __atomic_store_n(&going.handle, it.handle, __ATOMIC_RELEASE);
  }
  __atomic_store_n(&going.handle, 0, __ATOMIC_RELEASE);
  join(thread);
  CHECK_OK(cbr_unregister(it.handle));
  queue_discard(home);
}
