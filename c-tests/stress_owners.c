/* All owners at once, on real threads that come and go: scopes that open and close with callbacks
 * and thread hooks in them, hooks, names and keys that take callbacks and let them go. Every
 * callback is destroyed exactly once, nothing of a scope runs after its close has returned, and
 * what callers counted is what the callbacks counted. */
#include "support_owners.h"
#include "support_random.h"

enum {
  SCOPES = 6,  /* that are open at a time, beside the default scope */
  PLACES = 64, /* where threads leave handles for one another */
  HOOKS = 3,
  NAMES = 5,
  KEYS = 4,
  EVENTS = 3,
  WORKERS = 6,      /* at a time */
  GENERATIONS = 30, /* of workers */
  THREADS = 1 + WORKERS * GENERATIONS,
};

/* --- what is registered ------------------------------------------------------------------- */

/* What a thread is to a scope with thread hooks. */
enum { NEVER_ATTACHED, ATTACHED, DETACHED, NOT_OURS };

/* One scope, from its opening to its close. Kept to the end, so that whatever comes too late finds
 * that out here. */
struct life {
  cbr_scope scope;
  struct life *next;
  bool has_hooks;
  int closed; /* its close has returned: nothing of it may run any more */
  int hooks_destroyed;
  unsigned char threads[THREADS];
};

enum { UNUSED, ALIVE, DESTROYED };

/* One callback. Never used again, so that a call after destroy finds out. */
struct item {
  struct life *life; /* NULL: the default scope */
  int state;
  int running;
  bool registered;
};

struct worker {
  int number; /* of all threads that there ever were; the main thread is 0 */
  struct rng rng;
  struct item *items; /* its own to register */
  long used;
  long called; /* calls that say they have run their callback */
  pthread_t thread;
};

static struct {
  struct life *lives;          /* all that there ever were */
  struct life *places[SCOPES]; /* that are open; NULL: somebody is closing or opening one */
  cbr_handle handles[PLACES];  /* each with a reference that whoever takes it out owns */
  cbr_hook hooks[HOOKS];
  long ran; /* runs of callbacks */
  long ended, closed, attached, detached;
  int letting_go; /* nothing is bound or put anywhere any more */
} all;

static __thread struct worker *me;

static long steps_of_a_worker(void) { return scaled(150000); }

/* A worker registers in fewer than a tenth of its steps. */
static long items_of_a_worker(void) { return steps_of_a_worker() / 4 + 1; }

static void count(long *what) { __atomic_add_fetch(what, 1, __ATOMIC_RELAXED); }

static void check_open(const struct life *life, const char *what) {
  if (life != NULL && load_int(&life->closed)) FAIL("%s runs after its scope was closed", what);
}

static void item_check(struct item *it) {
  int state = load_int(&it->state);
  if (state != ALIVE) FAIL("a callback runs in state %d", state);
  check_open(it->life, "a callback");
  if (it->life == NULL || !it->life->has_hooks) return;
  int attached = it->life->threads[me->number];
  if (attached != ATTACHED && attached != NOT_OURS)
    FAIL("a callback runs on a thread in state %d of its scope", attached);
}

static void use_something(struct worker *self, int depth);

/* A few do more than return: use the library from inside, or fail. */
static intptr_t item_fn(void *user_data, void *arg) {
  struct item *it = (struct item *)user_data;
  int depth = (int)(intptr_t)arg;
  item_check(it);
  add_int(&it->running, 1);
  count(&all.ran);
  if (depth < 3 && rng_below(&me->rng, 4) == 0) use_something(me, depth + 1);
  if (rng_below(&me->rng, 16) == 0) CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "now and then"));
  add_int(&it->running, -1);
  item_check(it);
  return (intptr_t)it;
}

static void item_destroy(void *user_data) {
  struct item *it = (struct item *)user_data;
  int was = __atomic_exchange_n(&it->state, DESTROYED, __ATOMIC_ACQ_REL);
  if (was != ALIVE) FAIL("destroy runs in state %d", was);
  if (load_int(&it->running) != 0) FAIL("destroy runs during %d calls", load_int(&it->running));
  check_open(it->life, "destroy");
  count(&all.ended);
  if (!all.letting_go && rng_below(&me->rng, 8) == 0) use_something(me, 3);
}

static void *attach(void *user_data) {
  struct life *life = (struct life *)user_data;
  unsigned char *thread = &life->threads[me->number];
  check_open(life, "attach");
  if (*thread != NEVER_ATTACHED) FAIL("attach runs on a thread in state %d", *thread);
  *thread = rng_below(&me->rng, 4) == 0 ? NOT_OURS : ATTACHED;
  count(&all.attached);
  return *thread == NOT_OURS ? CBR_THREAD_NOT_OURS : thread;
}

static void detach(void *user_data, void *token) {
  struct life *life = (struct life *)user_data;
  unsigned char *thread = &life->threads[me->number];
  check_open(life, "detach");
  CHECK(token == thread);
  if (*thread != ATTACHED) FAIL("detach runs on a thread in state %d", *thread);
  *thread = DETACHED;
  count(&all.detached);
}

static void hooks_destroy(void *user_data) {
  struct life *life = (struct life *)user_data;
  check_open(life, "the thread hooks' destroy");
  if (add_int(&life->hooks_destroyed, 1) != 1) FAIL("the thread hooks are destroyed twice");
}

/* --- scopes ------------------------------------------------------------------------------- */

static struct life *life_open(struct worker *self) {
  struct life *life = (struct life *)calloc(1, sizeof *life);
  CHECK(life != NULL);
  life->has_hooks = rng_below(&self->rng, 2) == 0;
  CHECK_OK(cbr_scope_open("stressed", &life->scope));
  if (life->has_hooks)
    CHECK_OK(cbr_scope_set_thread_hooks(life->scope, attach, detach, life, hooks_destroy));
  life->next = __atomic_load_n(&all.lives, __ATOMIC_ACQUIRE);
  while (!__atomic_compare_exchange_n(&all.lives, &life->next, life, false, __ATOMIC_ACQ_REL,
                                      __ATOMIC_ACQUIRE)) {
  }
  return life;
}

/* Waits for ever, or for a while again and again. */
static void life_close(struct worker *self, struct life *life) {
  int64_t timeout = rng_below(&self->rng, 2) ? -1 : (int64_t)rng_below(&self->rng, 50000);
  cbr_status status;
  while ((status = cbr_scope_close(life->scope, timeout, NULL)) == CBR_ERR_TIMEOUT) {
  }
  CHECK_OK(status);
  CHECK_EQ(load_int(&life->hooks_destroyed), life->has_hooks);
  store_int(&life->closed, 1);
  CHECK_STATUS(cbr_scope_close(life->scope, 0, NULL), CBR_ERR_STALE);
  count(&all.closed);
}

/* The first ones stay open for longer, so that threads end meanwhile. */
static void replace_a_scope(struct worker *self) {
  uint64_t number = rng_below(&self->rng, SCOPES);
  if (number < SCOPES / 2 && rng_below(&self->rng, 100) != 0) return;
  struct life **place = &all.places[number];
  struct life *life = __atomic_exchange_n(place, NULL, __ATOMIC_ACQ_REL);
  if (life == NULL) return; /* somebody else is at it */
  life_close(self, life);
  __atomic_store_n(place, life_open(self), __ATOMIC_RELEASE);
}

/* Often one that somebody is closing at this moment; NULL: the default scope. */
static struct life *some_life(struct worker *self) {
  return __atomic_load_n(&all.places[rng_below(&self->rng, SCOPES)], __ATOMIC_ACQUIRE);
}

static cbr_scope some_scope(struct worker *self) {
  struct life *life = some_life(self);
  return life == NULL ? 0 : life->scope;
}

/* --- handles ------------------------------------------------------------------------------ */

/* The status is one of these, whatever the others do. */
static bool succeeded(cbr_status status, cbr_status one, cbr_status other, cbr_status third) {
  if (status != one && status != other && status != third) CHECK_OK(status);
  return status == CBR_OK;
}

static void check_ok_or_stale(cbr_status status) { succeeded(status, CBR_ERR_STALE, 0, 0); }

static cbr_handle some_handle(struct worker *self) {
  return __atomic_load_n(&all.handles[rng_below(&self->rng, PLACES)], __ATOMIC_ACQUIRE);
}

/* Ends our reference, or the callback for everybody. */
static void let_go(struct worker *self, cbr_handle handle, bool may_wait) {
  switch (rng_below(&self->rng, may_wait ? 4 : 3)) {
    case 0: check_ok_or_stale(cbr_unregister(handle)); break;
    case 3: check_ok_or_stale(cbr_unregister_wait(handle, -1)); break;
    default: check_ok_or_stale(cbr_release(handle));
  }
}

static void register_one(struct worker *self, bool may_wait) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  if (self->used == items_of_a_worker()) return;
  struct item *it = &self->items[self->used++];
  cbr_handle handle = CBR_HANDLE_NONE;
  it->life = rng_below(&self->rng, 4) == 0 ? NULL : some_life(self);
  it->state = ALIVE;
  options.fn = (cbr_any_fn)item_fn;
  options.user_data = it;
  options.destroy = item_destroy;
  options.name = rng_below(&self->rng, 3) == 0 ? "stressed" : NULL;
  options.scope = it->life == NULL ? 0 : it->life->scope;
  cbr_status status = cbr_register_with(&options, &handle);
  it->registered = succeeded(status, CBR_ERR_CLOSED, CBR_ERR_STALE, 0);
  if (!it->registered) {
    CHECK(it->life != NULL);
    return;
  }
  cbr_handle *place = &all.handles[rng_below(&self->rng, PLACES)];
  cbr_handle old = __atomic_exchange_n(place, handle, __ATOMIC_ACQ_REL);
  if (old != CBR_HANDLE_NONE) let_go(self, old, may_wait);
}

/* --- what threads do ---------------------------------------------------------------------- */

/* Has a call run its callback? */
static void count_call(struct worker *self, cbr_status status, cbr_status otherwise) {
  if (succeeded(status, CBR_ERR_CALLBACK, otherwise, CBR_ERR_STALE) || status == CBR_ERR_CALLBACK)
    self->called++;
}

static void call_one(struct worker *self, int depth) {
  cbr_handle handle = some_handle(self);
  void *arg = (void *)(intptr_t)depth;
  cbr_pin pin;
  switch (rng_below(&self->rng, 4)) {
    case 0:
      if (!succeeded(cbr_enter(handle, CBR_SIG_DEFAULT, &pin), CBR_ERR_STALE, 0, 0)) return;
      break;
    case 1:
      if (!succeeded(cbr_hold(handle, CBR_SIG_DEFAULT, &pin), CBR_ERR_STALE, 0, 0)) return;
      break;
    default: count_call(self, cbr_call(handle, arg, NULL), CBR_ERR_STALE); return;
  }
  item_check((struct item *)pin.user_data);
  CHECK_OK(cbr_leave(&pin));
}

static void use_a_hook(struct worker *self, int depth) {
  cbr_hook *hook = &all.hooks[rng_below(&self->rng, HOOKS)];
  cbr_handle handle = some_handle(self), old = CBR_HANDLE_NONE;
  bool take = rng_below(&self->rng, 2);
  switch (rng_below(&self->rng, 8)) {
    case 0: succeeded(cbr_hook_set_once(hook, handle), CBR_ERR_EXISTS, CBR_ERR_STALE, 0); break;
    case 1: CHECK_OK(cbr_hook_swap(hook, CBR_HANDLE_NONE, NULL)); break;
    case 2:
      check_ok_or_stale(cbr_hook_swap(hook, handle, take ? &old : NULL));
      if (old != CBR_HANDLE_NONE) let_go(self, old, false);
      break;
    default:
      count_call(self, cbr_hook_call(hook, (void *)(intptr_t)depth, NULL), CBR_ERR_NOT_FOUND);
  }
}

/* What is found may end before it is called. */
static void use_a_name(struct worker *self, int depth) {
  static const char *const names[NAMES] = {"a", "b", "/a", "/b", "another"};
  const char *name = names[rng_below(&self->rng, NAMES)];
  cbr_scope scope = some_scope(self);
  cbr_handle handle = some_handle(self);
  cbr_status status;
  switch (rng_below(&self->rng, 6)) {
    case 0:
      status = cbr_name_bind(scope, name, handle, CBR_BIND_ONCE);
      if (status != CBR_ERR_EXISTS) succeeded(status, CBR_ERR_STALE, CBR_ERR_CLOSED, 0);
      break;
    case 1:
      status = cbr_name_bind(scope, name, handle, CBR_BIND_REPLACE);
      succeeded(status, CBR_ERR_STALE, CBR_ERR_CLOSED, 0);
      break;
    case 2: succeeded(cbr_name_unbind(scope, name), CBR_ERR_STALE, CBR_ERR_NOT_FOUND, 0); break;
    default:
      status = cbr_name_find(scope, name, &handle);
      if (!succeeded(status, CBR_ERR_STALE, CBR_ERR_NOT_FOUND, 0)) return;
      count_call(self, cbr_call(handle, (void *)(intptr_t)depth, NULL), CBR_ERR_STALE);
  }
}

static void use_a_key(struct worker *self, int depth) {
  uintptr_t key = rng_below(&self->rng, KEYS);
  uint32_t event = (uint32_t)rng_below(&self->rng, EVENTS);
  cbr_scope scope = some_scope(self);
  cbr_handle handle = some_handle(self);
  size_t gone = 0;
  cbr_status status;
  switch (rng_below(&self->rng, 10)) {
    case 0:
      status = cbr_key_attach(scope, key, event, handle, CBR_BIND_ONCE);
      if (status != CBR_ERR_EXISTS) succeeded(status, CBR_ERR_STALE, CBR_ERR_CLOSED, 0);
      break;
    case 1:
      status = cbr_key_attach(scope, key, event, handle, CBR_BIND_REPLACE);
      succeeded(status, CBR_ERR_STALE, CBR_ERR_CLOSED, 0);
      break;
    case 2:
      succeeded(cbr_key_detach(scope, key, event), CBR_ERR_STALE, CBR_ERR_NOT_FOUND, 0);
      break;
    case 3:
      check_ok_or_stale(cbr_key_detach_all(scope, key, &gone));
      CHECK(gone <= EVENTS);
      break;
    case 4:
      succeeded(cbr_key_find(scope, key, event, &handle), CBR_ERR_STALE, CBR_ERR_NOT_FOUND, 0);
      break;
    default:
      status = cbr_key_call(scope, key, event, (void *)(intptr_t)depth, NULL);
      count_call(self, status, CBR_ERR_NOT_FOUND);
  }
}

/* Whatever may be done from inside a callback or a destroy function: all but to wait. */
static void use_something(struct worker *self, int depth) {
  switch (rng_below(&self->rng, 8)) {
    case 0: use_a_hook(self, depth); break;
    case 1:
    case 2: use_a_name(self, depth); break;
    case 3:
    case 4: use_a_key(self, depth); break;
    default: call_one(self, depth);
  }
}

static void retain_and_use(struct worker *self) {
  cbr_handle handle = some_handle(self);
  if (!succeeded(cbr_retain(handle), CBR_ERR_STALE, 0, 0)) return;
  cbr_status status = cbr_call(handle, NULL, NULL);
  count_call(self, status, CBR_ERR_STALE);
  check_ok_or_stale(cbr_release(handle));
}

static void drain(struct worker *self) {
  struct life *life = some_life(self);
  int64_t timeout = rng_below(&self->rng, 2) ? -1 : (int64_t)rng_below(&self->rng, 20000);
  cbr_status status = cbr_scope_drain(life == NULL ? 0 : life->scope, timeout);
  succeeded(status, CBR_ERR_STALE, timeout < 0 ? CBR_ERR_STALE : CBR_ERR_TIMEOUT, 0);
}

static void *worker_main(void *arg) {
  struct worker *self = (struct worker *)arg;
  me = self;
  for (long i = steps_of_a_worker(); i > 0; i--) {
    switch (rng_below(&self->rng, 80)) {
      case 0: replace_a_scope(self); break;
      case 1: drain(self); break;
      case 2: CHECK_OK(cbr_set_check((uint32_t)rng_below(&self->rng, 3))); break;
      case 3:
      case 4:
      case 5:
      case 6:
      case 7:
      case 8: register_one(self, true); break;
      case 9:
      case 10: retain_and_use(self); break;
      default: use_something(self, 0);
    }
    CHECK_EQ(cbr_depth(), 0);
  }
  return NULL;
}

/* --- all of it ---------------------------------------------------------------------------- */

static struct worker workers[THREADS];

static void workers_init(void) {
  uint64_t seed = rng_seed();
  for (int i = 0; i < THREADS; i++) {
    workers[i].number = i;
    workers[i].rng.state = seed + (uint64_t)i;
    workers[i].items = (struct item *)calloc((size_t)items_of_a_worker(), sizeof(struct item));
    CHECK(workers[i].items != NULL);
  }
}

/* Those of a generation end at different times, and their successors begin beside the rest. */
static void run_generations(void) {
  for (int i = 1; i < THREADS; i++) {
    if (i > WORKERS) join(workers[i - WORKERS].thread);
    workers[i].thread = start(worker_main, &workers[i]);
  }
  for (int i = THREADS - WORKERS; i < THREADS; i++) join(workers[i].thread);
}

/* No thread that has ended is attached to a scope that is still open. */
static void check_all_detached(void) {
  for (int i = 0; i < SCOPES; i++) {
    for (int thread = 1; thread < THREADS; thread++) {
      CHECK(all.places[i]->threads[thread] != ATTACHED);
    }
  }
}

/* Gives back what this program still owns; no callback is unregistered. */
static void let_everything_go(void) {
  all.letting_go = 1;
  for (int i = 0; i < HOOKS; i++) CHECK_OK(cbr_hook_swap(&all.hooks[i], CBR_HANDLE_NONE, NULL));
  for (int i = 0; i < PLACES; i++) {
    if (all.handles[i] != CBR_HANDLE_NONE) check_ok_or_stale(cbr_release(all.handles[i]));
  }
}

static void check_items(long *registered, long *destroyed) {
  for (int i = 0; i < THREADS; i++) {
    for (long j = 0; j < workers[i].used; j++) {
      struct item *it = &workers[i].items[j];
      CHECK_EQ(it->state, it->registered ? DESTROYED : ALIVE);
      *registered += it->registered;
      *destroyed += it->state == DESTROYED;
    }
    free(workers[i].items);
  }
}

TEST(owners_of_all_kinds_come_and_go_and_nothing_is_left) {
  long registered = 0, destroyed = 0, called = 0, opened = 0, attached = 0;
  workers_init();
  me = &workers[0];
  for (int i = 0; i < SCOPES; i++) all.places[i] = life_open(me);
  run_generations();
  check_all_detached();
  for (int i = 0; i < SCOPES; i++) life_close(me, all.places[i]);
  let_everything_go();
  /* The default scope never closes: what is bound there is found by looking. */
  for (uintptr_t key = 0; key < KEYS; key++) CHECK_OK(cbr_key_detach_all(0, key, NULL));
  static const char *const names[NAMES] = {"a", "b", "/a", "/b", "another"};
  for (int i = 0; i < NAMES; i++) succeeded(cbr_name_unbind(0, names[i]), CBR_ERR_NOT_FOUND, 0, 0);
  CHECK_OK(cbr_scope_drain(0, -1));
  check_items(&registered, &destroyed);
  for (int i = 0; i < THREADS; i++) called += workers[i].called;
  for (struct life *life = all.lives, *next; life != NULL; life = next) {
    next = life->next;
    CHECK(life->closed);
    CHECK_EQ(life->hooks_destroyed, life->has_hooks);
    opened++;
    for (int i = 0; i < THREADS; i++) attached += life->threads[i] != NEVER_ATTACHED;
    free(life);
  }
  printf(
      "RESULT owners callbacks=%ld destroyed=%ld calls=%ld ran=%ld scopes=%ld attached=%ld "
      "detached=%ld\n",
      registered, destroyed, called, all.ran, opened, all.attached, all.detached);
  CHECK_EQ(destroyed, registered);
  CHECK_EQ(all.ended, registered);
  CHECK_EQ(all.ran, called);
  CHECK_EQ(opened, all.closed);
  CHECK_EQ(attached, all.attached);
  CHECK(registered > 0 && called > 0);
}
