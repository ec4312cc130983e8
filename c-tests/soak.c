/* Everything at once, for as long as one likes: callbacks, pins, holds, hooks, names, keys, scopes with
 * thread hooks, queues of every policy, calls on other threads, thunks, a tracer, forks; threads that come
 * and go and end wherever they are, longjmps out of callbacks; signals that stop a thread for a moment
 * wherever it is, memory and descriptors that run out. All the time the statistics are held against a ledger
 * of our own. The run consists of epochs: at the end of each all threads stop, and every number has to be
 * right; then all is let go, nothing may be left, and the memory has to be what it was.
 *
 * CALLBRIDGE_SOAK_SECONDS  how long (20); scripts/soak sets it
 * CALLBRIDGE_TEST_TIMEOUT  seconds that an epoch may take */
#include "support_child.h"
#include "support_owners.h"
#include "support_random.h"

#include <dlfcn.h>
#include <malloc.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/resource.h>

enum {
  WORKERS = 4,      /* at a time */
  DISPATCHERS = 2,  /* and one that owns a queue */
  THREADS = WORKERS + DISPATCHERS + 1,
  SCOPES = 4,       /* that are open at a time, beside the default scope */
  LIVES = 4096,     /* scopes of one epoch */
  ITEMS = 1 << 15,
  PLACES = 64,      /* where threads leave handles for one another */
  HOLDS = 8,        /* and holds */
  THUNKS = 8,       /* and thunks */
  HOOKS = 3,
  NAMES = 4,
  KEYS = 4,
  EVENTS = 3,
};
enum { REFUSING, DROPPING, BLOCKING, COALESCING, OWNED, QUEUES };

/* After the warm-up, a quarter of the run, memory may be so much more than it has been before. */
enum { MORE_KIB = 1024 };

static const char *const NAME[NAMES] = {"a", "b", "/a", "/b"};

/* --- the ledger --------------------------------------------------------------------------- */

/* What has happened, counted by those whom it happened to. */
static struct {
  long registering, registered, destroying, destroyed;
  long called, ran; /* calls that say they have run their callback, and runs */
  long pins, holds, delivered, thunk_ran;
  long accepted, freed; /* payloads that are the library's, and that it has freed */
  long spans, spans_ended;
  long attached, threads, forks, epochs, jumps, pauses, faults, refused, scopes, thunks, posted;
} ledger;

static void count(long *what) { __atomic_add_fetch(what, 1, __ATOMIC_SEQ_CST); }
static long counted(const long *what) { return __atomic_load_n(what, __ATOMIC_SEQ_CST); }

/* --- memory that runs out ------------------------------------------------------------------ */

/* So many allocations of this thread from now on, one fails; 0: none. */
static __thread int failing_allocation;
/* Has one failed since this was cleared? */
static __thread bool was_short;

#if !HARNESS_SANITIZED
/* Whoever else allocates: a checker of leaks has functions of its own. */
#define NEXT(name) \
  static __typeof__(&name) next; \
  if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, #name)

static bool fails(void) {
  if (failing_allocation == 0 || --failing_allocation > 0) return false;
  was_short = true;
  errno = ENOMEM;
  return true;
}
void *malloc(size_t size) {
  NEXT(malloc);
  return fails() ? NULL : next(size);
}
void *calloc(size_t number, size_t size) {
  NEXT(calloc);
  return fails() ? NULL : next(number, size);
}
void *realloc(void *old, size_t size) {
  NEXT(realloc);
  return fails() ? NULL : next(old, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
  NEXT(posix_memalign);
  return fails() ? ENOMEM : next(out, alignment, size);
}
#endif

/* --- what is registered ------------------------------------------------------------------- */

/* One scope, from its opening to the end of the epoch, so that what comes too late finds out. */
struct life {
  cbr_scope scope;
  int number;
  bool has_hooks;
  int closed; /* its close has returned: nothing of it may run any more */
  int hooks_destroyed;
};

enum { UNUSED, ALIVE, DESTROYED };

/* One callback. Its place serves again after all others. */
struct item {
  struct life *life; /* NULL: the default scope */
  cbr_handle handle; /* 0 until its registration has returned */
  int state, running;
  bool at_home; /* runs on the thread of the OWNED queue alone */
  struct item *next;
};

/* What a thread is to a scope with thread hooks. */
enum { NEVER_ATTACHED, ATTACHED, DETACHED, NOT_OURS };

struct thread {
  int number; /* the kernel's, while it may be stopped for a moment; else 0 */
  struct rng rng;
  pthread_t starter;
  unsigned char attached[LIVES];
};

/* arg of calls, and payload of events. */
enum { DIRECT = 0x0d12ec70, POSTED = 0x0905ed00, FREED = 0x0badbad0 };
struct note {
  uint32_t kind, check; /* the check is ~kind ^ depth */
  int depth;
  bool ends_thread;
  jmp_buf *escape; /* where to jump, out of the callback; may be NULL */
};

static struct {
  struct life lives[LIVES];
  int opened;
  struct life *places[SCOPES]; /* that are open; NULL: somebody is closing or opening one */
  cbr_handle handles[PLACES];  /* each with a reference that whoever takes it out owns */
  cbr_hook hooks[HOOKS];
  cbr_queue queues[QUEUES];
  cbr_pin holds[HOLDS];
  int holding[HOLDS]; /* EMPTY, BUSY, FULL */
  cbr_thunk thunks[THUNKS];
  cbr_any_fn functions[THUNKS];
  int stopping, stopping_dispatchers, letting_go;
} all;

static struct thread threads[THREADS + 1]; /* the last is the main thread's */
static __thread struct thread *me;

static struct item items[ITEMS];
static struct item *first_item, *last_item;
static pthread_mutex_t items_lock = PTHREAD_MUTEX_INITIALIZER;

static struct item *item_take(void) {
  pthread_mutex_lock(&items_lock);
  struct item *it = first_item;
  CHECK(it->next != NULL);
  first_item = it->next;
  pthread_mutex_unlock(&items_lock);
  CHECK(it->state != ALIVE);
  memset(it, 0, sizeof *it);
  return it;
}

static void item_give(struct item *it) {
  it->next = NULL;
  pthread_mutex_lock(&items_lock);
  last_item->next = it;
  last_item = it;
  pthread_mutex_unlock(&items_lock);
}

static void items_init(void) {
  for (int i = 0; i < ITEMS; i++) items[i].next = i + 1 < ITEMS ? &items[i + 1] : NULL;
  first_item = items;
  last_item = &items[ITEMS - 1];
}

static bool one_in(uint64_t n) { return rng_below(&me->rng, n) == 0; }

static void check_open(const struct life *life, const char *what) {
  if (life != NULL && load_int(&life->closed)) FAIL("%s runs after its scope was closed", what);
}

static void item_check_held(struct item *it) {
  int state = load_int(&it->state);
  if (state != ALIVE) FAIL("a callback is protected in state %d", state);
  check_open(it->life, "a callback");
}

static void item_check(struct item *it) {
  item_check_held(it);
  cbr_handle known = __atomic_load_n(&it->handle, __ATOMIC_ACQUIRE), current = cbr_current();
  if (known != 0 && known != current)
    FAIL("the call of 0x%llx runs 0x%llx", (unsigned long long)current, (unsigned long long)known);
  if (it->life == NULL || !it->life->has_hooks || harness_process > 0) return;
  int attached = me->attached[it->life->number];
  if (attached != ATTACHED && attached != NOT_OURS)
    FAIL("a callback runs on a thread in state %d of its scope", attached);
}

static void note_check(const struct note *note, uint32_t kind) {
  if (note->kind != kind || note->check != (~kind ^ (uint32_t)note->depth))
    FAIL("arg is torn: 0x%x, 0x%x, %d", note->kind, note->check, note->depth);
}

static struct note note_of(uint32_t kind, int depth) {
  struct note note = {kind, ~kind ^ (uint32_t)depth, depth, false, NULL};
  return note;
}

static void use_something(int depth);

static intptr_t item_fn(void *user_data, void *arg) {
  struct item *it = (struct item *)user_data;
  struct note *note = (struct note *)arg;
  bool posted = note->kind == POSTED;
  int depth = note->depth;
  failing_allocation = 0;
  note_check(note, posted ? POSTED : DIRECT);
  if (posted) CHECK(cbr_current_event() != NULL && cbr_current_event()->data == arg);
  item_check(it);
  add_int(&it->running, 1);
  count(posted ? &ledger.delivered : &ledger.ran);
  if (!all.letting_go && depth < 3 && one_in(4)) use_something(depth + 1);
  if (one_in(16)) CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "now and then"));
  add_int(&it->running, -1);
  item_check(it);
  if (note->escape != NULL) longjmp(*note->escape, 1);
  if (note->ends_thread) pthread_exit(NULL);
  return (intptr_t)it;
}

enum { FALLBACK = -77 };

static int thunk_fn(void *user_data, int number, void *arg) {
  struct item *it = (struct item *)user_data;
  failing_allocation = 0;
  note_check((struct note *)arg, DIRECT);
  item_check(it);
  add_int(&it->running, 1);
  count(&ledger.thunk_ran);
  add_int(&it->running, -1);
  item_check(it);
  return number + 1;
}

static void item_destroy(void *user_data) {
  struct item *it = (struct item *)user_data;
  failing_allocation = 0;
  count(&ledger.destroying);
  int was = __atomic_exchange_n(&it->state, DESTROYED, __ATOMIC_ACQ_REL);
  if (was != ALIVE) FAIL("destroy runs in state %d", was);
  /* Whoever was inside at a fork is not in the child. */
  if (load_int(&it->running) != 0 && harness_process == 0)
    FAIL("destroy runs during %d calls", load_int(&it->running));
  check_open(it->life, "destroy");
  if (!all.letting_go && one_in(8)) use_something(3);
  if (harness_process == 0) item_give(it);
  count(&ledger.destroyed);
}

static void *attach(void *user_data) {
  struct life *life = (struct life *)user_data;
  unsigned char *thread = &me->attached[life->number];
  failing_allocation = 0;
  check_open(life, "attach");
  if (*thread != NEVER_ATTACHED) FAIL("attach runs on a thread in state %d", *thread);
  *thread = one_in(4) ? NOT_OURS : ATTACHED;
  count(&ledger.attached);
  return *thread == NOT_OURS ? CBR_THREAD_NOT_OURS : thread;
}

static void detach(void *user_data, void *token) {
  struct life *life = (struct life *)user_data;
  check_open(life, "detach");
  CHECK(token == &me->attached[life->number]);
  if (*(unsigned char *)token != ATTACHED) FAIL("detach runs on a thread that is not attached");
  *(unsigned char *)token = DETACHED;
}

static void hooks_destroy(void *user_data) {
  struct life *life = (struct life *)user_data;
  check_open(life, "the thread hooks' destroy");
  CHECK_EQ(add_int(&life->hooks_destroyed, 1), 1);
}

/* --- statuses ----------------------------------------------------------------------------- */

/* Is it CBR_OK? Else it must be one of these; or memory was short, and that was wanted. */
static bool checked(int line, cbr_status status, const cbr_status *allowed, int n) {
  if (status == CBR_OK) return true;
  if (status == CBR_ERR_NOMEM && was_short) {
    count(&ledger.refused);
    return false;
  }
  for (int i = 0; i < n; i++) {
    if (status == allowed[i]) return false;
  }
  harness_fail(__FILE__, line, "got %s", cbr_status_name(status));
}
#define OK_OR(status, ...)                                           \
  checked(__LINE__, (status), (const cbr_status[]){__VA_ARGS__},      \
          (int)(sizeof((const cbr_status[]){__VA_ARGS__}) / sizeof(cbr_status)))
#define OK_OR_STALE(status) OK_OR(status, CBR_ERR_STALE)

/* Now and then what follows finds no memory, at its first to fourth allocation. */
static void memory_may_be_short(void) {
  was_short = false;
  if (!one_in(16)) return;
  count(&ledger.faults);
  failing_allocation = 1 + (int)rng_below(&me->rng, 4);
}

static void memory_is_there(void) { failing_allocation = 0; }

/* --- scopes ------------------------------------------------------------------------------- */

/* NULL: there are enough for this epoch, or there was no memory. */
static struct life *life_open(void) {
  int number = add_int(&all.opened, 1) - 1;
  if (number >= LIVES) return NULL;
  struct life *life = &all.lives[number];
  life->number = number;
  life->has_hooks = one_in(2);
  memory_may_be_short();
  bool opened = OK_OR(cbr_scope_open("soaked", &life->scope), CBR_ERR_NOMEM);
  memory_is_there();
  if (!opened) return NULL;
  count(&ledger.scopes);
  if (life->has_hooks)
    CHECK_OK(cbr_scope_set_thread_hooks(life->scope, attach, detach, life, hooks_destroy));
  return life;
}

static bool leave_a_hold(void);

/* Holds keep callbacks of the scope, and others that hold may wait for this close. */
static void life_close(struct life *life) {
  cbr_status status;
  while ((status = cbr_scope_close(life->scope, (int64_t)rng_below(&me->rng, 100000), NULL)) ==
         CBR_ERR_TIMEOUT)
    leave_a_hold();
  OK_OR_STALE(status);
  CHECK_EQ(load_int(&life->hooks_destroyed), life->has_hooks);
  store_int(&life->closed, 1);
}

/* The first stays open for longer, so that threads end meanwhile. */
static void replace_a_scope(void) {
  uint64_t number = rng_below(&me->rng, SCOPES);
  if (number == 0 && !one_in(100)) return;
  struct life *life = __atomic_exchange_n(&all.places[number], NULL, __ATOMIC_ACQ_REL);
  if (life != NULL) life_close(life);
  life = life_open();
  struct life *none = NULL;
  if (life != NULL && !__atomic_compare_exchange_n(&all.places[number], &none, life, false,
                                                   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    life_close(life); /* somebody else was at it, too */
}

/* Often one that somebody is closing at this moment; NULL: the default scope. */
static struct life *some_life(void) {
  return __atomic_load_n(&all.places[rng_below(&me->rng, SCOPES)], __ATOMIC_ACQUIRE);
}

static cbr_scope some_scope(void) {
  struct life *life = some_life();
  return life == NULL ? 0 : life->scope;
}

static void drain(void) {
  OK_OR(cbr_scope_drain(some_scope(), (int64_t)rng_below(&me->rng, 20000)), CBR_ERR_STALE, CBR_ERR_TIMEOUT);
}

/* --- handles ------------------------------------------------------------------------------ */

static cbr_handle some_handle(void) {
  return __atomic_load_n(&all.handles[rng_below(&me->rng, PLACES)], __ATOMIC_ACQUIRE);
}

/* Ends our reference, or the callback for everybody. */
static void let_go(cbr_handle handle, bool may_wait) {
  if (handle == CBR_HANDLE_NONE) return;
  switch (rng_below(&me->rng, may_wait ? 4 : 3)) {
    case 0: OK_OR_STALE(cbr_unregister(handle)); break;
    case 3:
      OK_OR(cbr_unregister_wait(handle, (int64_t)rng_below(&me->rng, 200000)), CBR_ERR_STALE, CBR_ERR_TIMEOUT);
      break;
    default: OK_OR_STALE(cbr_release(handle));
  }
}

/* 0: refused. */
static cbr_handle register_item(cbr_callback_options *options, struct item *it) {
  cbr_handle handle = CBR_HANDLE_NONE;
  it->state = ALIVE;
  options->user_data = it;
  options->destroy = item_destroy;
  if (one_in(3)) options->name = "soaked";
  if (one_in(16)) options->flags |= CBR_METERED;
  count(&ledger.registering);
  memory_may_be_short();
  /* The OWNED queue is closed by nobody but the main thread. */
  bool registered = OK_OR(cbr_register_with(options, &handle), CBR_ERR_CLOSED, CBR_ERR_STALE);
  memory_is_there();
  if (!registered) {
    __atomic_sub_fetch(&ledger.registering, 1, __ATOMIC_SEQ_CST);
    it->state = DESTROYED;
    item_give(it);
    return CBR_HANDLE_NONE;
  }
  count(&ledger.registered);
  return handle;
}

static void register_one(void) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  struct item *it = item_take();
  it->life = one_in(4) ? NULL : some_life();
  options.fn = (cbr_any_fn)item_fn;
  options.scope = it->life == NULL ? 0 : it->life->scope;
  if (one_in(8)) options.destroy_queue = all.queues[OWNED];
  cbr_handle handle = register_item(&options, it);
  if (handle == CBR_HANDLE_NONE) return;
  __atomic_store_n(&it->handle, handle, __ATOMIC_RELEASE); /* ours: the reference keeps it */
  let_go(__atomic_exchange_n(&all.handles[rng_below(&me->rng, PLACES)], handle, __ATOMIC_ACQ_REL), true);
}

/* --- calls -------------------------------------------------------------------------------- */

/* Has a call run its callback? */
static void count_call(cbr_status status, cbr_status otherwise) {
  if (status == CBR_ERR_CALLBACK || OK_OR(status, CBR_ERR_STALE, otherwise)) count(&ledger.called);
}

static void pin_one(cbr_handle handle) {
  cbr_pin pin;
  if (!OK_OR_STALE(cbr_enter(handle, CBR_SIG_DEFAULT, &pin))) return;
  count(&ledger.pins);
  item_check((struct item *)pin.user_data);
  CHECK_OK(cbr_leave(&pin));
}

enum { EMPTY, BUSY, FULL };

/* A hold that any thread may leave, some time. */
static void hold_one(cbr_handle handle) {
  int place = (int)rng_below(&me->rng, HOLDS), empty = EMPTY;
  if (!__atomic_compare_exchange_n(&all.holding[place], &empty, BUSY, false, __ATOMIC_ACQ_REL,
                                   __ATOMIC_RELAXED))
    return;
  memory_may_be_short();
  bool held = OK_OR_STALE(cbr_hold(handle, CBR_SIG_DEFAULT, &all.holds[place]));
  memory_is_there();
  if (held) {
    count(&ledger.holds);
    item_check_held((struct item *)all.holds[place].user_data);
  }
  store_int(&all.holding[place], held ? FULL : EMPTY);
}

static bool leave_hold(int place) {
  int full = FULL;
  if (!__atomic_compare_exchange_n(&all.holding[place], &full, BUSY, false, __ATOMIC_ACQ_REL,
                                   __ATOMIC_RELAXED))
    return false;
  item_check_held((struct item *)all.holds[place].user_data);
  CHECK_OK(cbr_leave(&all.holds[place]));
  store_int(&all.holding[place], EMPTY);
  return true;
}

static bool leave_a_hold(void) { return leave_hold((int)rng_below(&me->rng, HOLDS)); }

static void call_one(int depth) {
  cbr_handle handle = some_handle();
  struct note note = note_of(DIRECT, depth);
  switch (rng_below(&me->rng, 8)) {
    case 0: pin_one(handle); break;
    case 1: hold_one(handle); break;
    case 2: leave_a_hold(); break;
    default: count_call(cbr_call(handle, &note, NULL), CBR_ERR_STALE);
  }
}

/* A longjmp out of the callback; whatever that is inside of is left. */
static void jump_out_of_one(void) {
  jmp_buf here;
  struct note note = note_of(DIRECT, 3);
  uint32_t depth = cbr_depth();
  note.escape = &here;
  if (setjmp(here) == 0) {
    OK_OR_STALE(cbr_call(some_handle(), &note, NULL));
  } else {
    CHECK_OK(cbr_unwind_to(depth));
    count(&ledger.called);
    count(&ledger.jumps);
  }
}

static void use_a_hook(int depth) {
  cbr_hook *hook = &all.hooks[rng_below(&me->rng, HOOKS)];
  cbr_handle handle = some_handle(), old = CBR_HANDLE_NONE;
  struct note note = note_of(DIRECT, depth);
  bool take = one_in(2);
  switch (rng_below(&me->rng, 8)) {
    case 0: OK_OR(cbr_hook_set_once(hook, handle), CBR_ERR_EXISTS, CBR_ERR_STALE); break;
    case 1: CHECK_OK(cbr_hook_swap(hook, CBR_HANDLE_NONE, NULL)); break;
    case 2:
      OK_OR_STALE(cbr_hook_swap(hook, handle, take ? &old : NULL));
      let_go(old, false);
      break;
    default: count_call(cbr_hook_call(hook, &note, NULL), CBR_ERR_NOT_FOUND);
  }
}

static void use_a_name(int depth) {
  const char *name = NAME[rng_below(&me->rng, NAMES)];
  uint32_t mode = one_in(2) ? CBR_BIND_ONCE : CBR_BIND_REPLACE;
  cbr_handle handle = some_handle();
  struct note note = note_of(DIRECT, depth);
  switch (rng_below(&me->rng, 4)) {
    case 0:
      memory_may_be_short();
      OK_OR(cbr_name_bind(some_scope(), name, handle, mode), CBR_ERR_EXISTS, CBR_ERR_STALE, CBR_ERR_CLOSED);
      memory_is_there();
      break;
    case 1: OK_OR(cbr_name_unbind(some_scope(), name), CBR_ERR_STALE, CBR_ERR_NOT_FOUND); break;
    default:
      if (OK_OR(cbr_name_find(some_scope(), name, &handle), CBR_ERR_STALE, CBR_ERR_NOT_FOUND))
        count_call(cbr_call(handle, &note, NULL), CBR_ERR_STALE);
  }
}

static void use_a_key(int depth) {
  uintptr_t key = rng_below(&me->rng, KEYS);
  uint32_t event = (uint32_t)rng_below(&me->rng, EVENTS), mode = one_in(2) ? CBR_BIND_ONCE : CBR_BIND_REPLACE;
  struct note note = note_of(DIRECT, depth);
  size_t gone = 0;
  switch (rng_below(&me->rng, 8)) {
    case 0:
      memory_may_be_short();
      OK_OR(cbr_key_attach(some_scope(), key, event, some_handle(), mode), CBR_ERR_EXISTS, CBR_ERR_STALE,
            CBR_ERR_CLOSED);
      memory_is_there();
      break;
    case 1: OK_OR(cbr_key_detach(some_scope(), key, event), CBR_ERR_STALE, CBR_ERR_NOT_FOUND); break;
    case 2:
      OK_OR_STALE(cbr_key_detach_all(some_scope(), key, &gone));
      CHECK(gone <= EVENTS);
      break;
    default: count_call(cbr_key_call(some_scope(), key, event, &note, NULL), CBR_ERR_NOT_FOUND);
  }
}

/* --- queues ------------------------------------------------------------------------------- */

static void payload_free(void *data) {
  struct note *note = (struct note *)data;
  note_check(note, POSTED);
  note->kind = FREED;
  free(note);
  count(&ledger.freed);
}

/* Copied or taken over, for a scope or nobody. */
static void post_one(int queue, cbr_handle handle, int depth) {
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  struct note note = note_of(POSTED, depth), *given = NULL;
  options.queue = queue < 0 ? 0 : all.queues[queue];
  options.handle = handle;
  options.data = &note;
  options.len = sizeof note;
  if (one_in(2)) {
    options.data = given = (struct note *)malloc(sizeof note);
    CHECK(given != NULL);
    *given = note;
    options.free_data = payload_free;
  }
  if (one_in(4)) options.owner = some_scope();
  /* In a callback nobody waits: it may be on the thread that all wait for. */
  if (depth == 0 && one_in(16)) options.timeout_ns = (int64_t)rng_below(&me->rng, 100000);
  memory_may_be_short();
  bool posted = OK_OR(cbr_post_with(&options), CBR_ERR_FULL, CBR_ERR_STALE, CBR_ERR_CLOSED, CBR_ERR_TIMEOUT,
                      CBR_ERR_DEADLOCK);
  memory_is_there();
  if (!posted) {
    free(given);
    return;
  }
  count(&ledger.posted);
  if (given != NULL) count(&ledger.accepted);
}

static void use_a_queue(int depth) {
  int queue = (int)rng_below(&me->rng, QUEUES);
  if (depth > 0 && queue == BLOCKING) queue = REFUSING;
  post_one(queue, some_handle(), depth);
}

/* Its home is the OWNED queue: nobody but that one's thread may call it. The event keeps it. */
static void post_to_a_home(void) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  struct note note = note_of(DIRECT, 3);
  struct item *it = item_take();
  it->life = one_in(2) ? NULL : some_life();
  options.fn = (cbr_any_fn)item_fn;
  options.scope = it->life == NULL ? 0 : it->life->scope;
  options.home = all.queues[OWNED];
  if (one_in(2)) options.destroy_queue = all.queues[OWNED];
  cbr_handle handle = register_item(&options, it);
  if (handle == CBR_HANDLE_NONE) return;
  cbr_status status = cbr_call(handle, &note, NULL);
  if (status != CBR_ERR_STALE) CHECK_STATUS(status, CBR_ERR_THREAD);
  post_one(-1, handle, 3);
  OK_OR_STALE(cbr_release(handle));
}

static void call_on_another_thread(void) {
  struct note note = note_of(DIRECT, 3);
  int queue = (int)rng_below(&me->rng, QUEUES);
  int64_t timeout = (int64_t)rng_below(&me->rng, 300000);
  cbr_status status = cbr_call_on(all.queues[queue], some_handle(), &note, timeout, NULL);
  if (status == CBR_ERR_CALLBACK ||
      OK_OR(status, CBR_ERR_STALE, CBR_ERR_TIMEOUT, CBR_ERR_FULL, CBR_ERR_CLOSED, CBR_ERR_DEADLOCK))
    count(&ledger.called);
}

/* A queue for a moment, now and then without a descriptor for it: that refuses others' as well. */
static void open_and_close_a_queue(void) {
  static pthread_mutex_t limits = PTHREAD_MUTEX_INITIALIZER;
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  struct rlimit before, none;
  cbr_queue queue = 0;
  options.capacity = 1 + rng_below(&me->rng, 8);
  options.scope = some_scope();
  options.flags = one_in(2) ? CBR_QUEUE_COALESCE : 0;
  bool starve = one_in(8) && pthread_mutex_trylock(&limits) == 0;
  if (starve) {
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 3 + QUEUES; /* those of the epoch's queues were opened first */
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  }
  memory_may_be_short();
  bool opened = OK_OR(cbr_queue_open(&options, &queue), CBR_ERR_SYSTEM, CBR_ERR_STALE, CBR_ERR_CLOSED);
  memory_is_there();
  if (starve) {
    CHECK(!opened);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    pthread_mutex_unlock(&limits);
  }
  if (!opened) return;
  struct note note = note_of(POSTED, 3);
  for (int i = 0; i < 4; i++) {
    /* Not by `all.queues`: so nobody else posts to it. A scope may close it at any time. */
    if (OK_OR(cbr_post(queue, some_handle(), &note, sizeof note), CBR_ERR_FULL, CBR_ERR_STALE, CBR_ERR_CLOSED))
      count(&ledger.posted);
  }
  OK_OR(cbr_queue_dispatch(queue, 1 + rng_below(&me->rng, 2), 0, NULL), CBR_ERR_EMPTY, CBR_ERR_CLOSED, CBR_ERR_STALE);
  OK_OR(cbr_queue_close(queue, CBR_CLOSE_DISCARD), CBR_ERR_STALE, CBR_ERR_CLOSED);
}

/* By polling, by waiting or by select, until it is told to stop. */
static void *dispatcher_main(void *arg) {
  me = (struct thread *)arg;
  memset(me->attached, 0, sizeof me->attached);
  bool owner = me == &threads[THREADS - 1];
  struct pollfd polled[OWNED];
  for (int i = 0; i < OWNED; i++) {
    polled[i].fd = -1;
    polled[i].events = POLLIN;
    /* Again, when a worker has left the process without descriptors just now. */
    while (!owner && !OK_OR(cbr_queue_fd(all.queues[i], &polled[i].fd), CBR_ERR_SYSTEM)) sched_yield();
  }
  if (owner) CHECK_OK(cbr_queue_adopt(all.queues[OWNED]));
  store_int(&me->number, (int)syscall(SYS_gettid));
  while (!load_int(&all.stopping_dispatchers)) {
    size_t queue = rng_below(&me->rng, OWNED), max = rng_below(&me->rng, 8);
    int64_t timeout = one_in(2) ? 0 : (int64_t)rng_below(&me->rng, 3000000);
    if (owner) {
      queue = OWNED;
    } else if (one_in(2)) {
      if (!OK_OR(cbr_queue_select(all.queues, OWNED, timeout, &queue), CBR_ERR_EMPTY, CBR_ERR_TIMEOUT)) continue;
    } else if (one_in(2)) {
      if (poll(polled, OWNED, 1) < 0) CHECK_EQ(errno, EINTR);
    }
    OK_OR(cbr_queue_dispatch(all.queues[queue], max, timeout, NULL), CBR_ERR_EMPTY, CBR_ERR_TIMEOUT);
    CHECK_EQ(cbr_depth(), 0);
  }
  store_int(&me->number, 0);
  for (int i = 0; i < OWNED && !owner; i++) CHECK_EQ(close(polled[i].fd), 0);
  return NULL;
}

/* --- thunks ------------------------------------------------------------------------------- */

#define THUNK_SIGNATURE CBR_SIG(CBR_I32, CBR_I32, CBR_PTR)
typedef int (*thunk_pointer)(int, void *);

static cbr_handle register_for_thunk(void) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  struct item *it = item_take();
  it->life = one_in(4) ? NULL : some_life();
  options.fn = (cbr_any_fn)thunk_fn;
  options.scope = it->life == NULL ? 0 : it->life->scope;
  options.signature = THUNK_SIGNATURE;
  options.fallback.i = FALLBACK;
  return register_item(&options, it);
}

/* The function may be closed, and its callback gone, at any time. */
static void use_a_thunk(int depth) {
  int place = (int)rng_below(&me->rng, THUNKS);
  struct note note = note_of(DIRECT, depth);
  cbr_any_fn fn = NULL;
  cbr_thunk thunk = 0;
  cbr_handle handle;
  switch (rng_below(&me->rng, 8)) {
    case 0: /* closed, and another one opened in its place */
      thunk = __atomic_exchange_n(&all.thunks[place], 0, __ATOMIC_ACQ_REL);
      if (thunk != 0) CHECK_OK(cbr_thunk_close(thunk));
      handle = register_for_thunk();
      if (handle == CBR_HANDLE_NONE) return;
      memory_may_be_short();
      bool opened = OK_OR_STALE(cbr_thunk_open(handle, THUNK_SIGNATURE, 0, &fn, &thunk));
      memory_is_there();
      OK_OR_STALE(cbr_release(handle));
      if (!opened) return;
      count(&ledger.thunks);
      __atomic_store_n(&all.functions[place], fn, __ATOMIC_RELEASE);
      thunk = __atomic_exchange_n(&all.thunks[place], thunk, __ATOMIC_ACQ_REL);
      if (thunk != 0) CHECK_OK(cbr_thunk_close(thunk));
      break;
    case 1:
      thunk = __atomic_load_n(&all.thunks[place], __ATOMIC_ACQUIRE);
      handle = thunk == 0 ? CBR_HANDLE_NONE : register_for_thunk();
      if (handle == CBR_HANDLE_NONE) return;
      OK_OR_STALE(cbr_thunk_retarget(thunk, handle));
      OK_OR_STALE(cbr_release(handle));
      break;
    default:
      fn = __atomic_load_n(&all.functions[place], __ATOMIC_ACQUIRE);
      if (fn == NULL) return;
      int result = ((thunk_pointer)fn)(place, &note);
      if (result != place + 1) CHECK_EQ(result, FALLBACK);
  }
}

/* --- what threads do ---------------------------------------------------------------------- */

/* Whatever may be done from inside a callback or a destroy function: all but to wait. */
static void use_something(int depth) {
  switch (rng_below(&me->rng, 10)) {
    case 0: use_a_hook(depth); break;
    case 1: use_a_name(depth); break;
    case 2: use_a_key(depth); break;
    case 3:
    case 4: use_a_queue(depth); break;
    case 5: use_a_thunk(depth); break;
    default: call_one(depth);
  }
}

static void retain_and_use(void) {
  cbr_handle handle = some_handle();
  struct note note = note_of(DIRECT, 3);
  if (!OK_OR_STALE(cbr_retain(handle))) return;
  count_call(cbr_call(handle, &note, NULL), CBR_ERR_STALE);
  OK_OR_STALE(cbr_release(handle));
}

/* A long run of one callback: the thread is biased towards it. */
static void call_one_many_times(void) {
  cbr_handle handle = some_handle();
  struct note note = note_of(DIRECT, 3);
  for (int i = 0; i < 2200; i++) {
    cbr_status status = cbr_call(handle, &note, NULL);
    count_call(status, CBR_ERR_STALE);
    if (status == CBR_ERR_STALE) return;
  }
}

static void work(void) {
  switch (rng_below(&me->rng, 160)) {
    case 0: replace_a_scope(); break;
    case 1: drain(); break;
    case 2: CHECK_OK(cbr_set_check((uint32_t)rng_below(&me->rng, 3))); break;
    case 3: jump_out_of_one(); break;
    case 4: call_one_many_times(); break;
    case 5:
    case 6: open_and_close_a_queue(); break;
    case 7:
    case 8: call_on_another_thread(); break;
    case 9:
    case 10: post_to_a_home(); break;
    case 11:
    case 12:
    case 13:
    case 14: retain_and_use(); break;
    default:
      if (one_in(10)) {
        register_one();
      } else {
        use_something(0);
      }
  }
  CHECK_EQ(cbr_depth(), 0);
  CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
}

/* The thread ends as threads do: it returns, or in the middle of a callback, or inside a pin. */
static void end_somewhere(void) {
  struct note note = note_of(DIRECT, 3);
  cbr_pin pin;
  switch (rng_below(&me->rng, 4)) {
    case 0:
      note.ends_thread = true;
      count(&ledger.called);
      cbr_call(some_handle(), &note, NULL);
      __atomic_sub_fetch(&ledger.called, 1, __ATOMIC_SEQ_CST); /* it was gone */
      break;
    case 1:
      if (OK_OR_STALE(cbr_enter(some_handle(), CBR_SIG_DEFAULT, &pin))) count(&ledger.pins);
      break;
    default: break;
  }
}

static void *worker_main(void *arg) {
  me = (struct thread *)arg;
  memset(me->attached, 0, sizeof me->attached);
  count(&ledger.threads);
  store_int(&me->number, (int)syscall(SYS_gettid));
  for (uint64_t i = rng_below(&me->rng, 20000); i > 0 && !load_int(&all.stopping); i--) work();
  store_int(&me->number, 0);
  end_somewhere();
  return NULL;
}

/* One worker after the other. It is no user of the library. */
static void *starter_main(void *arg) {
  while (!load_int(&all.stopping)) run_on_thread(worker_main, arg);
  return NULL;
}

/* --- pauses ------------------------------------------------------------------------------- */

static void pause_here(int signal_number) {
  static const struct timespec moments[] = {{0, 0}, {0, 1000}, {0, 60000}, {0, 1000000}};
  static unsigned turn;
  int before = errno;
  (void)signal_number;
  nanosleep(&moments[__atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED) % 4], NULL);
  errno = before;
}

/* A thread that has ended meanwhile is not found. */
static void pause_somebody(void) {
  int number = load_int(&threads[rng_below(&me->rng, THREADS)].number);
  if (number != 0 && syscall(SYS_tgkill, getpid(), number, SIGUSR1) == 0) count(&ledger.pauses);
}

/* --- the tracer --------------------------------------------------------------------------- */

static void *span_begin(void *user_data, cbr_handle handle, const char *name, const char *traceparent) {
  failing_allocation = 0;
  CHECK(handle != CBR_HANDLE_NONE && name != NULL && traceparent == NULL);
  count(&ledger.spans);
  return user_data;
}

static void span_end(void *user_data, void *span, cbr_status status) {
  CHECK(span == user_data);
  CHECK(status <= 0);
  count(&ledger.spans_ended);
}

/* Ended when the last span has. */
static void tracer_destroy(void *user_data) {
  CHECK(user_data == &ledger);
  count(&ledger.destroying);
  count(&ledger.destroyed);
}

/* A tracer is a callback like any other in the statistics. */
static void begin_to_trace(void) {
  count(&ledger.registering);
  CHECK_OK(cbr_set_call_hooks(span_begin, span_end, &ledger, tracer_destroy, 0));
  count(&ledger.registered);
}

/* --- looking ------------------------------------------------------------------------------ */

static cbr_stats stats(void) {
  cbr_stats it = {0};
  it.size = sizeof it;
  CHECK_OK(cbr_stats_get(0, &it));
  return it;
}

#define AT_MOST(left, right) \
  do {                       \
    long left_ = (long)(left), right_ = (long)(right); \
    if (left_ > right_) FAIL("%s is %ld, more than %s, which is %ld", #left, left_, #right, right_); \
  } while (0)

/* While all goes on: nothing is so exact, but everything lies between what was before the look and
 * what is behind it. */
static void look(void) {
  long registered = counted(&ledger.registered), before = (long)stats().destroyed;
  cbr_stats now = stats();
  long destroying = counted(&ledger.destroying), registering = counted(&ledger.registering);
  AT_MOST(registered, now.registered);
  AT_MOST(now.registered, registering);
  AT_MOST(now.destroyed, destroying);
  /* Each thread may be between counting an end and freeing the slot. */
  AT_MOST(now.live + now.destroy_pending, registering - before + THREADS);
  AT_MOST(registered - destroying, now.live + now.destroy_pending);
  AT_MOST(counted(&ledger.freed), counted(&ledger.accepted) + THREADS); /* counted after the post */
}

/* Nobody does anything: every number is exact. */
static void check_exactly(void) {
  cbr_stats now = stats();
  int held = 0;
  for (int i = 0; i < HOLDS; i++) held += all.holding[i] == FULL;
  CHECK_EQ(now.registered, ledger.registered);
  CHECK_EQ(ledger.registering, ledger.registered);
  CHECK_EQ(now.destroyed, ledger.destroyed);
  CHECK_EQ(now.live + now.destroy_pending, ledger.registered - ledger.destroyed);
  CHECK_EQ(now.in_flight, held);
  CHECK_EQ(now.threads, 1);
  CHECK_EQ(now.posted, now.dispatched + now.dropped + now.queued);
  CHECK_EQ(ledger.called, ledger.ran);
  CHECK_EQ(now.calls, ledger.ran + ledger.delivered + ledger.thunk_ran + ledger.pins + ledger.holds);
  CHECK_EQ(ledger.spans, ledger.spans_ended);
}

static long resident_kib(void) {
  long size = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%ld %ld", &size, &resident) == 2);
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void swallow(void *user_data, const char *data, size_t len) {
  (void)data;
  *(size_t *)user_data += len;
}

/* What tells of everything, while everything changes. */
static void read_reports(void) {
  size_t metrics = 0, report = 0, profile = 0;
  CHECK_OK(cbr_metrics(0, swallow, &metrics));
  CHECK_OK(cbr_report(0, swallow, &report));
  CHECK_OK(cbr_profile(0, swallow, &profile));
  CHECK(metrics > 0 && report > 0);
}

/* In the child nobody else is, and all callbacks are. */
static void fork_once(void) {
  pid_t child = fork_watched();
  if (child == 0) {
    all.letting_go = 1;
    struct note note = note_of(DIRECT, 3);
    static struct subject mine;
    for (int i = 0; i < PLACES; i++) {
      cbr_status status = cbr_call(all.handles[i], &note, NULL);
      if (status != CBR_ERR_CALLBACK) OK_OR_STALE(status);
    }
    for (int i = 0; i < QUEUES; i++) CHECK_STATUS(cbr_post(all.queues[i], all.handles[0], "", 1), CBR_ERR_CLOSED);
    subject_register(&mine);
    CHECK_OK(cbr_unregister_wait(mine.handle, -1));
    CHECK_EQ(mine.destroyed, 1);
    stats();
    _exit(0);
  }
  check_child_passed(child);
  count(&ledger.forks);
}

/* --- an epoch ----------------------------------------------------------------------------- */

static void open_everything(void) {
  static const uint32_t policies[QUEUES] = {CBR_QUEUE_REJECT, CBR_QUEUE_DROP_OLDEST, CBR_QUEUE_BLOCK,
                                            CBR_QUEUE_DROP_OLDEST, CBR_QUEUE_REJECT};
  memset(all.lives, 0, sizeof all.lives);
  all.opened = all.stopping = all.stopping_dispatchers = all.letting_go = 0;
  for (int i = 0; i < QUEUES; i++) {
    cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
    options.name = "soaked";
    options.capacity = (size_t[]){64, 16, 8, 32, 256}[i];
    options.policy = policies[i];
    options.flags = i == COALESCING ? CBR_QUEUE_COALESCE : i == OWNED ? CBR_QUEUE_OWNED : 0;
    CHECK_OK(cbr_queue_open(&options, &all.queues[i]));
  }
}

/* With everything that this program still owns; no callback is unregistered. */
static void let_everything_go(void) {
  all.letting_go = 1;
  for (int i = 0; i < HOLDS; i++) leave_hold(i);
  for (int i = 0; i < HOOKS; i++) CHECK_OK(cbr_hook_swap(&all.hooks[i], CBR_HANDLE_NONE, NULL));
  for (int i = 0; i < THUNKS; i++) {
    if (all.thunks[i] != 0) CHECK_OK(cbr_thunk_close(all.thunks[i]));
    all.thunks[i] = 0;
  }
  for (int i = 0; i < PLACES; i++) {
    if (all.handles[i] != CBR_HANDLE_NONE) OK_OR_STALE(cbr_release(all.handles[i]));
    all.handles[i] = CBR_HANDLE_NONE;
  }
  for (uintptr_t key = 0; key < KEYS; key++) CHECK_OK(cbr_key_detach_all(0, key, NULL));
  for (int i = 0; i < NAMES; i++) OK_OR(cbr_name_unbind(0, NAME[i]), CBR_ERR_NOT_FOUND);
  CHECK_OK(cbr_queue_adopt(all.queues[OWNED]));
  for (int i = 0; i < SCOPES; i++) {
    if (all.places[i] != NULL) life_close(all.places[i]);
    all.places[i] = NULL;
  }
  for (int i = 0; i < QUEUES; i++) {
    bool drains = one_in(2);
    cbr_status status;
    CHECK_OK(cbr_queue_close(all.queues[i], drains ? CBR_CLOSE_DRAIN : CBR_CLOSE_DISCARD));
    while ((status = cbr_queue_dispatch(all.queues[i], 0, 0, NULL)) == CBR_OK) CHECK(drains);
    OK_OR(status, CBR_ERR_CLOSED, CBR_ERR_STALE);
  }
  CHECK_OK(cbr_scope_drain(0, -1));
}

static void to_stderr(void *user_data, const char *data, size_t len) {
  (void)user_data;
  fwrite(data, 1, len, stderr);
}

static void check_that_nothing_is_left(void) {
  cbr_stats now = stats();
  if (now.live != 0) (void)cbr_report(0, to_stderr, NULL); /* what the failure below is about */
  check_exactly();
  CHECK_EQ(now.live, 0);
  CHECK_EQ(now.destroy_pending, 0);
  CHECK_EQ(ledger.destroyed, ledger.registered);
  CHECK_EQ(ledger.destroying, ledger.destroyed);
  CHECK_EQ(ledger.freed, ledger.accepted);
  CHECK_EQ(now.in_flight, 0);
  CHECK_EQ(now.queues, 0);
  CHECK_EQ(now.queued, 0);
  CHECK_EQ(now.thunks, 0);
  for (int i = 0; i < all.opened && i < LIVES; i++) {
    struct life *life = &all.lives[i];
    if (life->scope == 0) continue;
    CHECK(life->closed);
    CHECK_EQ(life->hooks_destroyed, life->has_hooks);
  }
}

static void run_epoch(int64_t length) {
  pthread_t dispatchers[DISPATCHERS + 1];
  open_everything();
  for (int i = 0; i < DISPATCHERS + 1; i++) dispatchers[i] = start(dispatcher_main, &threads[WORKERS + i]);
  for (int i = 0; i < WORKERS; i++) threads[i].starter = start(starter_main, &threads[i]);
  bool traces = one_in(2);
  int64_t begun = now_ns(), half = begun + length / 2, end = begun + length;
  if (traces) begin_to_trace();
  for (bool is_late = false; now_ns() < end;) {
    for (int i = (int)rng_below(&me->rng, 20); i > 0; i--) pause_somebody();
    usleep((useconds_t)rng_below(&me->rng, 10000));
    look();
    if (is_late || now_ns() < half) continue;
    is_late = true;
    if (traces) CHECK_OK(cbr_set_call_hooks(NULL, NULL, NULL, NULL, 0));
    read_reports();
    /* A sanitizer's own locks may be held by others at a fork. */
    if (!HARNESS_SANITIZED) fork_once();
  }
  store_int(&all.stopping, 1);
  for (int i = 0; i < WORKERS; i++) join(threads[i].starter);
  store_int(&all.stopping_dispatchers, 1);
  for (int i = 0; i < DISPATCHERS + 1; i++) join(dispatchers[i]);
  CHECK_OK(cbr_set_check(1));
  if (traces) CHECK_OK(cbr_set_call_hooks(NULL, NULL, NULL, NULL, 0));
  check_exactly();
  let_everything_go();
  check_that_nothing_is_left();
  count(&ledger.epochs);
}

static void say_how_it_goes(int64_t begun, long kib) {
  printf("%6lld s: %ld epochs, %ld callbacks, %ld calls, %ld events, %ld scopes, %ld thunks, %ld threads, %ld KiB\n",
         (long long)(now_ns() - begun) / 1000000000, ledger.epochs, ledger.registered, ledger.ran + ledger.thunk_ran,
         ledger.posted, ledger.scopes, ledger.thunks, ledger.threads, kib);
  fflush(stdout);
}

TEST(everything_at_once_keeps_every_promise_and_takes_no_memory) {
  int64_t length = harness_env("CALLBRIDGE_SOAK_SECONDS", scaled(20)) * 1000000000;
  uint64_t seed = rng_seed();
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = pause_here;
  action.sa_flags = SA_RESTART;
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  mallopt(M_ARENA_MAX, 2);
  memset(items, 0xff, sizeof items); /* so that its pages are there from the start */
  memset(items, 0, sizeof items);
  items_init();
  for (int i = 0; i <= THREADS; i++) threads[i].rng.state = seed + (uint64_t)i;
  me = &threads[THREADS];

  int64_t begun = now_ns(), said = begun;
  long warm = 0, most = 0;
  while (now_ns() - begun < length) {
    alarm((unsigned)harness_env("CALLBRIDGE_TEST_TIMEOUT", 60)); /* for one epoch */
    run_epoch((int64_t)rng_below(&me->rng, 1500) * 1000000 + 500000000);
    long kib = resident_kib();
    long *which = now_ns() - begun < length / 4 ? &warm : &most;
    if (kib > *which) *which = kib;
    if (now_ns() - said >= INT64_C(60000000000)) {
      said = now_ns();
      say_how_it_goes(begun, kib);
    }
  }
  say_how_it_goes(begun, most);
  printf("RESULT soak seconds=%lld epochs=%ld callbacks=%ld calls=%ld events=%ld scopes=%ld threads=%ld forks=%ld "
         "jumps=%ld pauses=%ld faults=%ld refused=%ld spans=%ld warm_kib=%ld most_kib=%ld\n",
         (long long)(now_ns() - begun) / 1000000000, ledger.epochs, ledger.registered, ledger.ran + ledger.thunk_ran,
         ledger.posted, ledger.scopes, ledger.threads, ledger.forks, ledger.jumps, ledger.pauses, ledger.faults,
         ledger.refused, ledger.spans, warm, most);
  CHECK(ledger.registered > 0 && ledger.delivered > 0 && ledger.thunk_ran > 0);
  /* A run too short to warm up has nothing to compare with; and a sanitizer keeps what was freed. */
  if (warm != 0 && !HARNESS_SANITIZED && !under_valgrind()) AT_MOST(most, warm + MORE_KIB);
}
