/* Random operations on one thread, beside a simple model that says what each must answer. Good
 * handles, dead ones, forged ones; calls that nest and do more of the same inside; pins of both
 * kinds left in any order, twice, or by copies. At the end nothing is left. */
#include "support_random.h"

enum { MAX_OBJECTS = 64, MAX_PINS = 24, MAX_NESTING = 5, GRAVES = 256, FALLBACK = 1000 };

/* What the model knows of a callback; forgotten when destroy has run. */
struct object {
  bool used, revoked;
  cbr_handle handle;
  cbr_signature signature;
  uint32_t references;
  int entered, held, destroyed; /* entered counts calls, too */
};

struct pin {
  cbr_pin pin;
  struct object *object; /* NULL: free */
  bool held;
  cbr_status failed;
};

/* What the thread is inside, innermost last; failed also says which call or pin it is. */
struct level {
  cbr_handle handle;
  cbr_status *failed;
};

static struct object objects[MAX_OBJECTS];
static struct pin pins[MAX_PINS];
static struct level levels[MAX_PINS + MAX_NESTING];
static cbr_handle graves[GRAVES]; /* handles of callbacks that are gone */
static cbr_pin left_pin;          /* a copy of one that has been left */
static uint32_t depth;
static int nesting;
static bool quiet; /* calls do nothing inside */
static long registered, destroyed;
static struct rng rng;

static const cbr_signature signatures[] = {0, CBR_SIG_DEFAULT, CBR_SIG(CBR_VOID),
                                           CBR_SIG(CBR_I32, CBR_PTR)};

static bool chance(int one_in) { return rng_below(&rng, (uint64_t)one_in) == 0; }

static struct object *find(cbr_handle handle) {
  for (int i = 0; i < MAX_OBJECTS; i++) {
    if (objects[i].used && objects[i].handle == handle) return &objects[i];
  }
  return NULL;
}

/* The object that a handle is good for now; NULL: every use of it is refused. */
static struct object *find_live(cbr_handle handle) {
  struct object *it = find(handle);
  return it != NULL && !it->revoked ? it : NULL;
}

/* A number of another kind is of another kind or was never issued; both are said of it. */
static bool is_refusal(cbr_status status, cbr_handle handle) {
  bool callback = ((handle >> 28) & 15) == 1;
  return status == CBR_ERR_STALE || (status == CBR_ERR_KIND && !callback);
}

static void check_refused(cbr_status got, cbr_handle handle, const char *what) {
  if (is_refusal(got, handle)) return;
  FAIL("%s of 0x%llx gives %s", what, (unsigned long long)handle, cbr_status_name(got));
}

static void check_where_we_are(void) {
  CHECK_EQ(cbr_depth(), depth);
  CHECK_EQ(cbr_current(), depth > 0 ? levels[depth - 1].handle : CBR_HANDLE_NONE);
}

static void go_in(struct object *it, cbr_status *failed) {
  struct level level = {it->handle, failed};
  *failed = CBR_OK;
  levels[depth++] = level;
  it->entered++;
}

static void go_out(struct object *it, const cbr_status *failed) {
  uint32_t at = 0;
  while (levels[at].failed != failed) at++;
  depth--;
  memmove(&levels[at], &levels[at + 1], (depth - at) * sizeof levels[0]);
  it->entered--;
}

static void destroy(void *user_data) {
  struct object *it = (struct object *)user_data;
  CHECK(it->used && it->revoked);
  CHECK_EQ(it->entered, 0);
  CHECK_EQ(it->held, 0);
  check_where_we_are();
  CHECK_STATUS(cbr_retain(it->handle), CBR_ERR_STALE);
  it->destroyed++;
  destroyed++;
}

/* After all that may have ended a life: destroy has run once if nobody is inside, else not yet. */
static void settle(struct object *it) {
  bool over = it->revoked && it->entered == 0 && it->held == 0;
  CHECK_EQ(it->destroyed, over);
  if (!over) return;
  graves[destroyed % GRAVES] = it->handle;
  memset(it, 0, sizeof *it);
}

static cbr_handle with_callbacks_kind(uint64_t number) {
  return (number & ~(UINT64_C(15) << 28)) | UINT64_C(1) << 28;
}

static cbr_handle any_handle(void) {
  struct object *it = &objects[rng_below(&rng, MAX_OBJECTS)];
  switch (rng_below(&rng, 16)) {
    case 0: return CBR_HANDLE_NONE;
    case 1: return rng_next(&rng);
    case 2: return rng_next(&rng) >> rng_below(&rng, 64);
    case 3: return it->handle ^ (UINT64_C(1) << rng_below(&rng, 64));
    case 4: return it->handle + ((rng_below(&rng, 5) - 2) << 32);
    case 5: return graves[rng_below(&rng, GRAVES)] + (rng_below(&rng, 4) << 32);
    case 6: return with_callbacks_kind(pins[rng_below(&rng, MAX_PINS)].pin.reserved[0]);
    default: return it->handle;
  }
}

static void random_operation(void);

struct call {
  intptr_t arg;
  cbr_status failed;
};

/* The model goes out before the library does, whose leaving may run destroy. */
static intptr_t run(void *user_data, void *arg) {
  struct object *it = (struct object *)user_data;
  struct call *call = (struct call *)arg;
  CHECK(it->used && it->destroyed == 0 && it->entered > 0);
  check_where_we_are();
  nesting++;
  for (uint64_t left = quiet ? 0 : rng_below(&rng, 8); left > 0; left--) random_operation();
  nesting--;
  CHECK(it->used && it->destroyed == 0 && it->entered > 0);
  check_where_we_are();
  go_out(it, &call->failed);
  return call->arg;
}

static void do_register(void) {
  struct object *it = objects;
  while (it < objects + MAX_OBJECTS && it->used) it++;
  if (it == objects + MAX_OBJECTS) return;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = (cbr_any_fn)run;
  options.user_data = it;
  options.destroy = destroy;
  options.name = chance(2) ? "property" : NULL;
  options.signature = signatures[rng_below(&rng, chance(3) ? 4 : 2)];
  options.fallback.i = FALLBACK + (it - objects);
  CHECK_OK(cbr_register_with(&options, &it->handle));
  CHECK(find(it->handle) == NULL);
  it->used = true;
  it->references = 1;
  it->signature = options.signature != 0 ? options.signature : CBR_SIG_DEFAULT;
  registered++;
}

static void do_retain(cbr_handle handle) {
  struct object *it = find_live(handle);
  cbr_status status = cbr_retain(handle);
  if (it == NULL) {
    check_refused(status, handle, "retain");
    return;
  }
  CHECK_OK(status);
  it->references++;
}

static void do_release(cbr_handle handle, bool by_pointer) {
  struct object *it = find_live(handle);
  if (it != NULL && it->references == 1) it->revoked = true; /* beforehand: destroy looks at it */
  cbr_status status = CBR_OK;
  if (by_pointer) cbr_release_ptr(CBR_TO_PTR(handle));
  else status = cbr_release(handle);
  if (it == NULL) {
    if (!by_pointer) check_refused(status, handle, "release");
    return;
  }
  CHECK_OK(status);
  it->references--;
  settle(it);
}

static void do_unregister(cbr_handle handle) {
  struct object *it = find_live(handle);
  if (it != NULL) it->revoked = true;
  cbr_status status = cbr_unregister(handle);
  if (it == NULL) {
    check_refused(status, handle, "unregister");
    return;
  }
  CHECK_OK(status);
  settle(it);
}

static void do_unregister_wait(cbr_handle handle) {
  struct object *it = find(handle);
  if (it != NULL) it->revoked = true;
  bool inside = it != NULL && it->entered > 0, held = it != NULL && it->held > 0;
  cbr_status status = cbr_unregister_wait(handle, inside || it == NULL ? -1 : 0);
  if (it == NULL) {
    check_refused(status, handle, "unregister_wait");
    return;
  }
  CHECK_STATUS(status, inside ? CBR_ERR_DEADLOCK : held ? CBR_ERR_TIMEOUT : CBR_OK);
  settle(it);
}

static void do_ask(cbr_handle handle) {
  struct object *it = find_live(handle);
  uint32_t count = 77;
  CHECK_EQ(cbr_is_live(handle), it != NULL);
  cbr_status status = cbr_refcount(handle, &count);
  if (it == NULL) check_refused(status, handle, "refcount");
  else CHECK_OK(status);
  CHECK_EQ(count, it != NULL ? it->references : 77);
}

static void do_call(cbr_handle handle, bool by_pointer) {
  struct object *it = find(handle);
  struct call call = {(intptr_t)(rng_next(&rng) >> 1), CBR_OK};
  bool runs = find_live(handle) != NULL && it->signature == CBR_SIG_DEFAULT;
  intptr_t result = 77, fallback = it != NULL ? FALLBACK + (it - objects) : 0;
  cbr_status status = CBR_OK;
  if (nesting == MAX_NESTING) return;
  if (runs) go_in(it, &call.failed);
  if (by_pointer) result = cbr_call_ptr(CBR_TO_PTR(handle), &call);
  else status = cbr_call(handle, &call, &result);
  if (runs) {
    CHECK_STATUS(status, by_pointer ? CBR_OK : call.failed);
    CHECK_EQ(result, call.failed == CBR_OK ? call.arg : by_pointer ? fallback : 77);
    settle(it);
  } else if (by_pointer) {
    bool fallback_of_one_gone = result >= FALLBACK && result < FALLBACK + MAX_OBJECTS;
    if (it != NULL) CHECK_EQ(result, fallback);
    else CHECK(result == 0 || fallback_of_one_gone);
  } else {
    CHECK_EQ(result, 77);
    if (find_live(handle) != NULL) CHECK_STATUS(status, CBR_ERR_SIGNATURE);
    else check_refused(status, handle, "call");
  }
}

/* Thousands of calls in a row, after which a library may have become a little quicker. */
static void do_long_run(cbr_handle handle) {
  if (quiet || !chance(200)) return;
  quiet = true;
  for (int i = 0; i < 3000; i++) do_call(handle, false);
  quiet = false;
}

static void do_pin(cbr_handle handle, bool hold) {
  struct object *it = find_live(handle);
  struct pin *pin = &pins[rng_below(&rng, MAX_PINS)];
  cbr_signature signature = chance(2) ? 0 : signatures[rng_below(&rng, 4)];
  cbr_pin before = pin->pin;
  if (pin->object != NULL) return;
  cbr_status status =
      hold ? cbr_hold(handle, signature, &pin->pin) : cbr_enter(handle, signature, &pin->pin);
  if (it == NULL || (signature != 0 && signature != it->signature)) {
    if (it == NULL) check_refused(status, handle, "enter or hold");
    else CHECK_STATUS(status, CBR_ERR_SIGNATURE);
    CHECK(memcmp(&pin->pin, &before, sizeof before) == 0);
    return;
  }
  CHECK_OK(status);
  CHECK(pin->pin.fn == (cbr_any_fn)run && pin->pin.user_data == it);
  pin->object = it;
  pin->held = hold;
  pin->failed = CBR_OK;
  if (hold) it->held++;
  else go_in(it, &pin->failed);
}

static void do_leave(struct pin *pin) {
  struct object *it = pin->object;
  if (it == NULL) { /* all zero, or the copy of one that has been left */
    cbr_pin stale = left_pin;
    if (chance(2)) memset(&stale, 0, sizeof stale);
    CHECK_STATUS(cbr_leave(&stale), CBR_ERR_STALE);
    return;
  }
  cbr_status failed = pin->failed;
  left_pin = pin->pin;
  pin->object = NULL;
  if (pin->held) it->held--;
  else go_out(it, &pin->failed);
  CHECK_STATUS(cbr_leave(&pin->pin), failed);
  settle(it);
}

static void do_fail(void) {
  cbr_status status = chance(8)   ? (cbr_status)rng_next(&rng)
                      : chance(2) ? CBR_ERR_CALLBACK
                                  : CBR_ERR_PANIC;
  bool known = status == CBR_ERR_CALLBACK || status == CBR_ERR_PANIC;
  CHECK_STATUS(cbr_fail(status, "random"), known && depth > 0 ? CBR_OK : CBR_ERR_INVALID);
  if (known && depth > 0) *levels[depth - 1].failed = status;
}

static void random_operation(void) {
  cbr_handle handle = any_handle();
  check_where_we_are();
  switch (rng_below(&rng, 24)) {
    case 0:
    case 1:
    case 2: do_register(); break;
    case 3:
    case 4:
    case 5: do_retain(handle); break;
    case 6:
    case 7:
    case 8:
    case 9: do_release(handle, false); break;
    case 10: do_release(handle, true); break;
    case 11: do_unregister(handle); break;
    case 12: do_unregister_wait(handle); break;
    case 13: do_ask(handle); break;
    case 14: do_call(handle, true); break;
    case 15: do_pin(handle, true); break;
    case 16:
    case 17: do_pin(handle, false); break;
    case 18:
    case 19:
    case 20: do_leave(&pins[rng_below(&rng, MAX_PINS)]); break;
    case 21: do_fail(); break;
    case 22: do_long_run(handle); break;
    default: do_call(handle, false); break;
  }
}

TEST(random_operations_answer_as_the_model_says) {
  rng.state = rng_seed();
  for (long left = scaled(1500000); left > 0; left--) random_operation();
  for (int i = 0; i < MAX_PINS; i++) {
    if (pins[i].object != NULL) do_leave(&pins[i]);
  }
  for (int i = 0; i < MAX_OBJECTS; i++) {
    if (objects[i].used) do_unregister(objects[i].handle);
    CHECK(!objects[i].used);
  }
  CHECK_EQ(cbr_depth(), 0);
  CHECK_EQ(destroyed, registered);
  CHECK(registered > 0);
}

/* --- ten million handles of random bits --------------------------------------------------- */

enum { LIVE = 1000 };
static int calls, ends;

static intptr_t count_call(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  return ++calls;
}

static void count_end(void *user_data) {
  (void)user_data;
  ends++;
}

static cbr_status use(cbr_handle handle, uint64_t how) {
  cbr_pin pin;
  uint32_t count;
  intptr_t result;
  switch (how) {
    case 0: return cbr_call(handle, NULL, &result);
    case 1: return cbr_enter(handle, 0, &pin);
    case 2: return cbr_hold(handle, 0, &pin);
    case 3: return cbr_retain(handle);
    case 4: return cbr_release(handle);
    case 5: return cbr_unregister(handle);
    case 6: return cbr_unregister_wait(handle, -1);
    case 7: return cbr_refcount(handle, &count);
    case 8: return cbr_is_live(handle) ? CBR_OK : CBR_ERR_STALE;
    case 9: return cbr_call_ptr(CBR_TO_PTR(handle), NULL) == 0 ? CBR_ERR_STALE : CBR_OK;
    default: cbr_release_ptr(CBR_TO_PTR(handle)); return CBR_ERR_STALE;
  }
}

TEST(ten_million_handles_of_random_bits_are_refused_and_change_nothing) {
  static cbr_handle live[LIVE];
  rng.state = rng_seed();
  for (int i = 0; i < LIVE; i++) CHECK_OK(cbr_register(count_call, NULL, count_end, &live[i]));
  for (long left = scaled(10000000); left > 0; left--) {
    cbr_handle handle = rng_next(&rng);
    cbr_handle near = live[rng_below(&rng, LIVE)];
    if (chance(4)) handle = (handle & ~UINT64_C(0xffffffff)) | (near & 0xffffffff);
    if (handle == near) continue; /* guessed right, once in 2^32: no forgery */
    check_refused(use(handle, rng_below(&rng, 11)), handle, "some use");
  }
  CHECK_EQ(calls, 0);
  CHECK_EQ(ends, 0);
  CHECK_EQ(cbr_depth(), 0);
  for (int i = 0; i < LIVE; i++) {
    uint32_t count = 0;
    CHECK_OK(cbr_refcount(live[i], &count));
    CHECK_EQ(count, 1);
    CHECK_OK(cbr_unregister_wait(live[i], -1));
  }
  CHECK_EQ(ends, LIVE);
}
