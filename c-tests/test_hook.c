/* Hooks: one place, one callback. Set once, swapped, called; empty when its callback is gone. */
#include "support_child.h"
#include "support_owners.h"
#include "support_random.h"

#include <sys/mman.h>

/* As a host has one: static, and never set up by code. */
static cbr_hook hook = CBR_HOOK_INIT;

static struct subject *called_by(cbr_hook *it) {
  intptr_t result = 0;
  CHECK_OK(cbr_hook_call(it, &who_are_you, &result));
  return (struct subject *)result;
}

static void check_empty(cbr_hook *it) {
  intptr_t result = 77;
  CHECK_REFUSED(cbr_hook_call(it, NULL, &result), CBR_ERR_NOT_FOUND);
  CHECK_EQ(result, 77);
}

static void clear(cbr_hook *it) { CHECK_OK(cbr_hook_swap(it, CBR_HANDLE_NONE, NULL)); }

TEST(a_hook_in_static_storage_is_empty_and_ready) {
  static cbr_hook first = CBR_HOOK_INIT, second = CBR_HOOK_INIT;
  struct subject it;
  check_empty(&first);
  subject_register(&it);
  CHECK_OK(cbr_hook_set_once(&first, it.handle));
  CHECK(called_by(&first) == &it);
  check_empty(&second);
  clear(&first);
  check_empty(&first);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(clearing_an_empty_hook_is_no_failure) {
  cbr_handle old = 99;
  clear(&hook);
  CHECK_OK(cbr_hook_swap(&hook, CBR_HANDLE_NONE, &old));
  CHECK_EQ(old, CBR_HANDLE_NONE);
  check_empty(&hook);
}

TEST(set_once_the_first_wins_and_stays) {
  struct subject first, second;
  subject_register(&first);
  subject_register(&second);
  CHECK_OK(cbr_hook_set_once(&hook, first.handle));
  CHECK_REFUSED(cbr_hook_set_once(&hook, second.handle), CBR_ERR_EXISTS);
  CHECK_REFUSED(cbr_hook_set_once(&hook, first.handle), CBR_ERR_EXISTS);
  CHECK_EQ(references(first.handle), 2);
  CHECK_EQ(references(second.handle), 1);
  CHECK(called_by(&hook) == &first);
  clear(&hook);
  CHECK_EQ(references(first.handle), 1);
  CHECK_OK(cbr_hook_set_once(&hook, second.handle));
  CHECK(called_by(&hook) == &second);
  clear(&hook);
  CHECK_OK(cbr_unregister(first.handle));
  CHECK_OK(cbr_unregister(second.handle));
}

TEST(a_hook_keeps_its_callback_after_the_owners_release_and_clearing_ends_it) {
  struct subject set, swapped;
  cbr_hook other = CBR_HOOK_INIT;
  subject_register(&set);
  subject_register(&swapped);
  CHECK_OK(cbr_hook_set_once(&hook, set.handle));
  CHECK_OK(cbr_hook_swap(&other, swapped.handle, NULL));
  CHECK_OK(cbr_release(set.handle));
  CHECK_OK(cbr_release(swapped.handle));
  CHECK(called_by(&hook) == &set);
  CHECK(called_by(&other) == &swapped);
  CHECK_EQ(set.destroyed, 0);
  CHECK_EQ(swapped.destroyed, 0);
  clear(&hook);
  CHECK_EQ(set.destroyed, 1);
  clear(&other);
  CHECK_EQ(swapped.destroyed, 1);
}

TEST(a_callback_that_is_gone_counts_as_empty) {
  struct subject first, second, third;
  cbr_handle old = 99;
  subject_register(&first);
  subject_register(&second);
  subject_register(&third);
  CHECK_OK(cbr_hook_set_once(&hook, first.handle));
  CHECK_OK(cbr_unregister(first.handle));
  CHECK_EQ(first.destroyed, 1);
  check_empty(&hook);
  CHECK_OK(cbr_hook_set_once(&hook, second.handle));
  CHECK(called_by(&hook) == &second);
  CHECK_OK(cbr_unregister_wait(second.handle, -1));
  CHECK_OK(cbr_hook_swap(&hook, third.handle, &old));
  CHECK_EQ(old, CBR_HANDLE_NONE);
  CHECK(called_by(&hook) == &third);
  CHECK_OK(cbr_unregister(third.handle));
  clear(&hook);
  CHECK_EQ(first.destroyed + second.destroyed + third.destroyed, 3);
}

/* Revoked, though a thread is still inside: what counts is that no call can start. */
TEST(a_callback_that_is_revoked_counts_as_empty_while_calls_finish) {
  struct subject first, second;
  struct occupant guest;
  subject_register(&first);
  subject_register(&second);
  CHECK_OK(cbr_hook_set_once(&hook, first.handle));
  occupy(&guest, &first);
  CHECK_OK(cbr_unregister(first.handle));
  check_empty(&hook);
  CHECK_OK(cbr_hook_set_once(&hook, second.handle));
  CHECK(called_by(&hook) == &second);
  CHECK_EQ(subject_destroyed(&first), 0);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(first.destroyed, 1);
  CHECK_OK(cbr_unregister(second.handle));
}

TEST(a_hook_is_empty_when_the_scope_of_its_callback_has_closed) {
  struct subject it;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&it, scope);
  CHECK_OK(cbr_hook_set_once(&hook, it.handle));
  scope_close(scope);
  CHECK_EQ(it.destroyed, 1);
  check_empty(&hook);
}

TEST(swap_gives_the_old_one_with_its_reference) {
  struct subject first, second;
  cbr_handle old = 99;
  subject_register(&first);
  subject_register(&second);
  CHECK_OK(cbr_hook_swap(&hook, first.handle, &old));
  CHECK_EQ(old, CBR_HANDLE_NONE);
  CHECK_EQ(references(first.handle), 2);
  CHECK_OK(cbr_release(first.handle)); /* the hook's is the last one */
  CHECK_OK(cbr_hook_swap(&hook, second.handle, &old));
  CHECK_EQ(old, first.handle);
  CHECK_EQ(references(old), 1); /* and ours now */
  CHECK(called_by(&hook) == &second);
  CHECK_OK(cbr_call(old, NULL, NULL));
  CHECK_EQ(first.destroyed, 0);
  CHECK_OK(cbr_release(old));
  CHECK_EQ(first.destroyed, 1);
  CHECK_OK(cbr_hook_swap(&hook, CBR_HANDLE_NONE, &old));
  CHECK_EQ(old, second.handle);
  CHECK_EQ(references(old), 2);
  check_empty(&hook);
  CHECK_OK(cbr_release(old));
  CHECK_OK(cbr_release(old));
  CHECK_EQ(second.destroyed, 1);
}

TEST(swap_without_out_old_releases_the_old_one) {
  struct subject first, second;
  subject_register(&first);
  subject_register(&second);
  CHECK_OK(cbr_hook_swap(&hook, first.handle, NULL));
  CHECK_OK(cbr_release(first.handle));
  CHECK_OK(cbr_hook_swap(&hook, second.handle, NULL));
  CHECK_EQ(first.destroyed, 1);
  CHECK_EQ(references(second.handle), 2);
  clear(&hook);
  CHECK_EQ(references(second.handle), 1);
  CHECK_OK(cbr_unregister(second.handle));
}

TEST(swapping_a_callback_for_itself_keeps_it) {
  struct subject it;
  cbr_handle old = 99;
  subject_register(&it);
  CHECK_OK(cbr_hook_set_once(&hook, it.handle));
  CHECK_OK(cbr_release(it.handle));
  CHECK_OK(cbr_hook_swap(&hook, it.handle, NULL));
  CHECK_EQ(it.destroyed, 0);
  CHECK_EQ(references(it.handle), 1);
  CHECK_OK(cbr_hook_swap(&hook, it.handle, &old));
  CHECK_EQ(old, it.handle);
  CHECK_EQ(references(it.handle), 2);
  CHECK_OK(cbr_release(old));
  CHECK(called_by(&hook) == &it);
  clear(&hook);
  CHECK_EQ(it.destroyed, 1);
}

TEST(many_hooks_may_share_one_callback) {
  enum { HOOKS = 1000 };
  static cbr_hook hooks[HOOKS]; /* static storage is zero, which is CBR_HOOK_INIT */
  struct subject it;
  subject_register(&it);
  for (int i = 0; i < HOOKS; i++) CHECK_OK(cbr_hook_set_once(&hooks[i], it.handle));
  CHECK_EQ(references(it.handle), 1 + HOOKS);
  CHECK_OK(cbr_release(it.handle));
  for (int i = 0; i < HOOKS; i++) {
    CHECK(called_by(&hooks[i]) == &it);
    CHECK_EQ(it.destroyed, 0);
    clear(&hooks[i]);
  }
  CHECK_EQ(it.destroyed, 1);
}

/* --- what is refused ---------------------------------------------------------------------- */

static void check_refused(cbr_handle handle, cbr_status status) {
  cbr_handle old = 99;
  CHECK_REFUSED(cbr_hook_set_once(&hook, handle), status);
  if (handle == CBR_HANDLE_NONE) return; /* that one clears */
  CHECK_REFUSED(cbr_hook_swap(&hook, handle, &old), status);
  CHECK_REFUSED(cbr_hook_swap(&hook, handle, NULL), status);
  CHECK_EQ(old, 99);
}

static void check_all_refused(cbr_scope scope) {
  struct subject gone, ending;
  struct occupant guest;
  subject_register(&gone);
  CHECK_OK(cbr_unregister(gone.handle));
  subject_register(&ending);
  occupy(&guest, &ending);
  CHECK_OK(cbr_unregister(ending.handle));
  check_refused(CBR_HANDLE_NONE, CBR_ERR_STALE);
  check_refused(gone.handle, CBR_ERR_STALE);
  check_refused(ending.handle, CBR_ERR_STALE);
  check_refused(UINT64_MAX & ~(UINT64_C(14) << 28), CBR_ERR_STALE); /* a callback's, never issued */
  check_refused(scope, CBR_ERR_KIND);
  CHECK_OK(vacate(&guest));
}

TEST(what_is_refused_changes_nothing) {
  struct subject it;
  cbr_scope scope = scope_open("no callback");
  check_all_refused(scope);
  check_empty(&hook);
  subject_register(&it);
  CHECK_OK(cbr_hook_set_once(&hook, it.handle));
  CHECK_REFUSED(cbr_hook_swap(&hook, scope, NULL), CBR_ERR_KIND);
  check_refused(UINT64_MAX & ~(UINT64_C(14) << 28), CBR_ERR_STALE);
  CHECK(called_by(&hook) == &it);
  CHECK_EQ(references(it.handle), 2);
  clear(&hook);
  CHECK_OK(cbr_unregister(it.handle));
  scope_close(scope);
}

TEST(no_hook_is_invalid) {
  struct subject it;
  cbr_handle old = 99;
  intptr_t result = 77;
  subject_register(&it);
  CHECK_REFUSED(cbr_hook_set_once(NULL, it.handle), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_hook_swap(NULL, it.handle, &old), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_hook_swap(NULL, CBR_HANDLE_NONE, &old), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_hook_call(NULL, NULL, &result), CBR_ERR_INVALID);
  CHECK_EQ(old, 99);
  CHECK_EQ(result, 77);
  CHECK_EQ(it.calls, 0);
  CHECK_EQ(references(it.handle), 1);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- calls -------------------------------------------------------------------------------- */

static intptr_t is_a_call_like_any(struct subject *it, void *arg) {
  CHECK_EQ(cbr_current(), it->handle);
  CHECK_EQ(cbr_depth(), 1);
  return (intptr_t)arg;
}

TEST(a_hooks_call_brings_arg_and_result) {
  struct subject it;
  struct action action = {is_a_call_like_any, (void *)-12345};
  intptr_t result = 0;
  subject_register(&it);
  CHECK_OK(cbr_hook_set_once(&hook, it.handle));
  CHECK_OK(cbr_hook_call(&hook, &action, &result));
  CHECK_EQ(result, -12345);
  CHECK_OK(cbr_hook_call(&hook, &action, NULL));
  CHECK_EQ(it.calls, 2);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t fails(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_fail(*(const cbr_status *)arg, "out of paper"));
  return 12;
}

TEST(a_hooks_call_brings_the_failure_of_its_callback) {
  static const cbr_status statuses[] = {CBR_ERR_CALLBACK, CBR_ERR_PANIC};
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_hook_set_once(&hook, it.handle));
  for (int i = 0; i < 2; i++) {
    cbr_status status = statuses[i];
    struct action action = {fails, &status};
    intptr_t result = 77;
    CHECK_STATUS(cbr_hook_call(&hook, &action, &result), status);
    CHECK_WORDS("out of paper");
    CHECK_EQ(result, 77);
  }
  CHECK(called_by(&hook) == &it);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_hook_calls_only_the_default_signature) {
  struct subject it;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  intptr_t result = 77;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.signature = CBR_SIG(CBR_VOID, CBR_I32);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_OK(cbr_hook_set_once(&hook, it.handle));
  CHECK_REFUSED(cbr_hook_call(&hook, NULL, &result), CBR_ERR_SIGNATURE);
  CHECK_EQ(result, 77);
  CHECK_EQ(it.calls, 0);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

/* --- from inside -------------------------------------------------------------------------- */

static intptr_t puts_another_in_its_place(struct subject *it, void *arg) {
  struct subject *other = (struct subject *)arg;
  CHECK_OK(cbr_hook_swap(&hook, other->handle, NULL)); /* our last reference goes */
  CHECK(!cbr_is_live(it->handle));
  CHECK_EQ(it->destroyed, 0);
  CHECK(called_by(&hook) == other);
  CHECK_EQ(cbr_current(), it->handle);
  return 5;
}

TEST(a_callback_may_swap_the_hook_that_calls_it) {
  struct subject first, second;
  struct action action = {puts_another_in_its_place, &second};
  intptr_t result = 0;
  subject_register(&first);
  subject_register(&second);
  CHECK_OK(cbr_hook_set_once(&hook, first.handle));
  CHECK_OK(cbr_release(first.handle));
  CHECK_OK(cbr_hook_call(&hook, &action, &result));
  CHECK_EQ(result, 5);
  CHECK_EQ(first.destroyed, 1);
  CHECK(called_by(&hook) == &second);
  CHECK_OK(cbr_unregister(second.handle));
}

static intptr_t takes_itself_out(struct subject *it, void *arg) {
  cbr_handle old = 99;
  (void)arg;
  CHECK_OK(cbr_hook_swap(&hook, CBR_HANDLE_NONE, &old));
  CHECK_EQ(old, it->handle);
  check_empty(&hook);
  CHECK_OK(cbr_hook_set_once(&hook, it->handle));
  CHECK_REFUSED(cbr_hook_set_once(&hook, it->handle), CBR_ERR_EXISTS);
  clear(&hook);
  CHECK_OK(cbr_release(old));
  CHECK_EQ(it->destroyed, 0);
  return 6;
}

TEST(a_callback_may_take_itself_out_and_end) {
  struct subject it;
  struct action action = {takes_itself_out, NULL};
  intptr_t result = 0;
  subject_register(&it);
  CHECK_OK(cbr_hook_set_once(&hook, it.handle));
  CHECK_OK(cbr_release(it.handle));
  CHECK_OK(cbr_hook_call(&hook, &action, &result));
  CHECK_EQ(result, 6);
  CHECK_EQ(it.destroyed, 1);
  check_empty(&hook);
}

static intptr_t calls_the_hook_again(struct subject *it, void *arg) {
  int *left = (int *)arg;
  struct action action = {calls_the_hook_again, left};
  intptr_t result = 0;
  (void)it;
  if (--*left == 0) return 1;
  CHECK_OK(cbr_hook_call(&hook, &action, &result));
  return result + 1;
}

TEST(a_hook_may_be_called_from_inside_its_callback) {
  struct subject it;
  int depth = 20;
  struct action action = {calls_the_hook_again, &depth};
  intptr_t result = 0;
  subject_register(&it);
  CHECK_OK(cbr_hook_set_once(&hook, it.handle));
  CHECK_OK(cbr_hook_call(&hook, &action, &result));
  CHECK_EQ(result, 20);
  CHECK_OK(cbr_unregister(it.handle));
}

/* In the middle of the swap that ends it: the hook has its new content already. */
static void destroy_uses_the_hook(struct subject *it) {
  struct subject *next = (struct subject *)it->extra;
  if (next == NULL) {
    struct subject *own = (struct subject *)calloc(1, sizeof *own);
    CHECK(own != NULL);
    check_empty(&hook);
    subject_register(own);
    CHECK_OK(cbr_hook_set_once(&hook, own->handle));
    CHECK(called_by(&hook) == own);
    CHECK_OK(cbr_unregister(own->handle));
    CHECK_EQ(own->destroyed, 1);
    free(own);
  } else {
    CHECK(called_by(&hook) == next);
    clear(&hook);
  }
  check_empty(&hook);
}

TEST(destroy_may_use_the_hook_that_lets_go_of_its_callback) {
  struct subject first, second;
  subject_register(&first);
  subject_register(&second);
  first.on_destroy = second.on_destroy = destroy_uses_the_hook;
  first.extra = &second;
  CHECK_OK(cbr_hook_swap(&hook, first.handle, NULL));
  CHECK_OK(cbr_release(first.handle));
  CHECK_OK(cbr_hook_swap(&hook, second.handle, NULL));
  CHECK_EQ(first.destroyed, 1);
  check_empty(&hook);
  CHECK_EQ(references(second.handle), 1);
  CHECK_OK(cbr_hook_swap(&hook, second.handle, NULL));
  CHECK_OK(cbr_release(second.handle));
  clear(&hook);
  CHECK_EQ(second.destroyed, 1);
}

/* A hook's memory is the host's: it may go while callbacks are in it, or used to be. */
TEST(the_library_does_not_remember_where_a_hook_was) {
  struct subject it, other;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  void *memory =
      mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* zero */
  CHECK(memory != MAP_FAILED);
  cbr_hook *place = (cbr_hook *)memory;
  subject_register(&it);
  subject_register(&other);
  CHECK_OK(cbr_hook_set_once(place, it.handle));
  CHECK(called_by(place) == &it);
  CHECK_OK(cbr_hook_swap(place, other.handle, NULL));
  CHECK(called_by(place) == &other);
  CHECK_EQ(mprotect(memory, page, PROT_NONE), 0); /* whoever touches it now crashes */
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_call(other.handle, NULL, NULL));
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_OK(cbr_unregister_wait(other.handle, -1));
  CHECK_EQ(it.destroyed + other.destroyed, 2);
  CHECK_EQ(munmap(memory, page), 0);
}

/* --- swaps against calls ------------------------------------------------------------------ */

enum { CALLERS = 3 };

static struct {
  struct subject *all;
  long begun, done; /* numbers of the latest swap that has begun, and of the latest that is over */
  int stop;
  gate calling;
} swaps;

static long load_long(const long *it) { return __atomic_load_n(it, __ATOMIC_ACQUIRE); }
static void store_long(long *it, long value) { __atomic_store_n(it, value, __ATOMIC_RELEASE); }

static void *calls_what_is_there(void *arg) {
  long calls = 0;
  while (!load_int(&swaps.stop)) {
    intptr_t result = 0;
    long oldest = load_long(&swaps.done);
    CHECK_OK(cbr_hook_call(&hook, &who_are_you, &result));
    long number = (struct subject *)result - swaps.all;
    if (number < oldest || number > load_long(&swaps.begun))
      FAIL("a call ran callback %ld; when it began, %ld was there", number, oldest);
    if (calls++ == 0) gate_open(&swaps.calling);
  }
  *(long *)arg = calls;
  return NULL;
}

/* The old one is released by the swap, or given to us and released by us. */
static void swap_to(long number) {
  struct subject *it = &swaps.all[number];
  cbr_handle old = 99;
  bool take = number % 3 != 0;
  subject_register(it);
  if (number % 2 == 0) CHECK_OK(cbr_retain(it->handle));
  store_long(&swaps.begun, number);
  CHECK_OK(cbr_hook_swap(&hook, it->handle, take ? &old : NULL));
  store_long(&swaps.done, number);
  if (take) {
    CHECK_EQ(old, it[-1].handle);
    CHECK_EQ(references(old), 1);
    CHECK_EQ(subject_destroyed(&it[-1]), 0);
    CHECK_OK(cbr_release(old));
  }
  CHECK(!cbr_is_live(it[-1].handle));
  if (number % 2 == 0) CHECK_OK(cbr_release(it->handle));
  CHECK_OK(cbr_release(it->handle)); /* the hook's own is the last one */
}

TEST(a_call_that_meets_a_swap_runs_the_old_one_or_the_new_one) {
  long count = scaled(30000), calls[CALLERS], called = 0, ran = 0;
  pthread_t threads[CALLERS];
  swaps.all = (struct subject *)calloc((size_t)count + 1, sizeof *swaps.all);
  CHECK(swaps.all != NULL);
  gate_init(&swaps.calling);
  subject_register(&swaps.all[0]);
  CHECK_OK(cbr_hook_set_once(&hook, swaps.all[0].handle));
  CHECK_OK(cbr_release(swaps.all[0].handle));
  for (int i = 0; i < CALLERS; i++) threads[i] = start(calls_what_is_there, &calls[i]);
  for (int i = 0; i < CALLERS; i++) gate_pass(&swaps.calling);
  for (long i = 1; i <= count; i++) swap_to(i);
  store_int(&swaps.stop, 1);
  for (int i = 0; i < CALLERS; i++) {
    join(threads[i]);
    called += calls[i];
  }
  clear(&hook);
  for (long i = 0; i <= count; i++) {
    CHECK_EQ(swaps.all[i].destroyed, 1);
    ran += swaps.all[i].calls;
  }
  CHECK_EQ(ran, called);
  printf("%s: %ld swaps, %ld calls\n", harness_current, count, called);
  free(swaps.all);
}

/* Several swap at once: every callback comes out exactly once, with one reference. */
enum { SWAPPERS = 4 };
static pthread_barrier_t begin;

static void *swaps_its_own_in(void *arg) {
  struct subject *all = (struct subject *)arg;
  long count = scaled(20000);
  meet(&begin);
  for (long i = 0; i < count; i++) {
    cbr_handle old = 99;
    intptr_t result = 0;
    subject_register(&all[i]);
    CHECK_OK(cbr_hook_swap(&hook, all[i].handle, &old));
    CHECK_OK(cbr_release(all[i].handle)); /* whoever takes it out may have done so, and ended it */
    if (old == CBR_HANDLE_NONE) continue;
    CHECK_OK(cbr_call(old, &who_are_you, &result));
    CHECK_OK(cbr_release(old));
  }
  return NULL;
}

TEST(concurrent_swaps_hand_every_reference_to_exactly_one) {
  long count = scaled(20000);
  pthread_t threads[SWAPPERS];
  struct subject *all = (struct subject *)calloc((size_t)count * SWAPPERS, sizeof *all);
  cbr_handle last = 99;
  CHECK(all != NULL);
  CHECK_EQ(pthread_barrier_init(&begin, NULL, SWAPPERS), 0);
  for (int i = 0; i < SWAPPERS; i++) threads[i] = start(swaps_its_own_in, &all[i * count]);
  for (int i = 0; i < SWAPPERS; i++) join(threads[i]);
  CHECK_OK(cbr_hook_swap(&hook, CBR_HANDLE_NONE, &last));
  CHECK_EQ(references(last), 1);
  CHECK_OK(cbr_call(last, NULL, NULL));
  CHECK_OK(cbr_release(last));
  for (long i = 0; i < count * SWAPPERS; i++) {
    CHECK_EQ(all[i].destroyed, 1);
    CHECK_EQ(all[i].calls, 1);
  }
  free(all);
}

/* --- set_once against set_once ------------------------------------------------------------ */

/* Whoever sets it has it until its callback ends, because nobody swaps. */
static void *sets_and_ends(void *arg) {
  long wins = 0;
  meet(&begin);
  for (long i = scaled(30000); i > 0; i--) {
    struct subject own;
    intptr_t result = 77;
    subject_register(&own);
    cbr_status status = cbr_hook_set_once(&hook, own.handle);
    if (status == CBR_OK) {
      wins++;
      CHECK(called_by(&hook) == &own);
      CHECK_REFUSED(cbr_hook_set_once(&hook, own.handle), CBR_ERR_EXISTS);
      if (i % 2 == 0) CHECK_OK(cbr_release(own.handle)); /* the hook's reference stays */
      CHECK(called_by(&hook) == &own);
    } else {
      CHECK_STATUS(status, CBR_ERR_EXISTS);
      CHECK_EQ(references(own.handle), 1);
    }
    CHECK_OK(cbr_unregister_wait(own.handle, -1)); /* own is on the stack */
    CHECK_EQ(own.destroyed, 1);
    status = cbr_hook_call(&hook, &who_are_you, &result);
    if (status != CBR_OK) CHECK_STATUS(status, CBR_ERR_NOT_FOUND);
    else CHECK((struct subject *)result != &own);
  }
  *(long *)arg = wins;
  return NULL;
}

TEST(set_once_is_won_by_one_at_a_time) {
  pthread_t threads[SWAPPERS];
  long wins[SWAPPERS], total = 0;
  CHECK_EQ(pthread_barrier_init(&begin, NULL, SWAPPERS), 0);
  for (int i = 0; i < SWAPPERS; i++) threads[i] = start(sets_and_ends, &wins[i]);
  for (int i = 0; i < SWAPPERS; i++) {
    join(threads[i]);
    total += wins[i];
  }
  CHECK(total > 0);
  check_empty(&hook);
}

static struct {
  struct subject own[SWAPPERS];
  cbr_status status[SWAPPERS];
} contest;

static void *sets_its_own(void *arg) {
  long self = (long)arg;
  for (long i = scaled(3000); i > 0; i--) {
    meet(&begin); /* registered */
    contest.status[self] = cbr_hook_set_once(&hook, contest.own[self].handle);
    meet(&begin); /* tried */
  }
  return NULL;
}

TEST(of_many_that_set_once_at_the_same_time_one_wins) {
  pthread_t threads[SWAPPERS];
  CHECK_EQ(pthread_barrier_init(&begin, NULL, SWAPPERS + 1), 0);
  for (long i = 0; i < SWAPPERS; i++) threads[i] = start(sets_its_own, (void *)i);
  for (long round = scaled(3000); round > 0; round--) {
    int wins = 0;
    for (int i = 0; i < SWAPPERS; i++) subject_register(&contest.own[i]);
    meet(&begin);
    meet(&begin);
    struct subject *winner = called_by(&hook);
    for (int i = 0; i < SWAPPERS; i++) {
      bool won = contest.status[i] == CBR_OK;
      if (!won) CHECK_STATUS(contest.status[i], CBR_ERR_EXISTS);
      CHECK_EQ(won, winner == &contest.own[i]);
      CHECK_EQ(references(contest.own[i].handle), won ? 2 : 1);
      wins += won;
    }
    CHECK_EQ(wins, 1);
    if (round % 2 == 0) clear(&hook); /* else it goes with its callback */
    for (int i = 0; i < SWAPPERS; i++) CHECK_OK(cbr_unregister(contest.own[i].handle));
    for (int i = 0; i < SWAPPERS; i++) CHECK_EQ(contest.own[i].destroyed, 1);
  }
  for (int i = 0; i < SWAPPERS; i++) join(threads[i]);
}

/* --- fork --------------------------------------------------------------------------------- */

static int swapping_done;

static void *swaps_back_and_forth(void *arg) {
  struct subject *both = (struct subject *)arg;
  for (long i = 0; !load_int(&swapping_done); i++) {
    if (i == 1) gate_open(&swaps.calling);
    CHECK_OK(cbr_hook_swap(&hook, both[i % 2].handle, NULL));
    CHECK_OK(cbr_hook_call(&hook, NULL, NULL));
  }
  return NULL;
}

TEST(a_hook_works_in_the_child_of_a_fork_while_others_swap_it) {
  static struct subject both[2];
  if (HARNESS_SANITIZED) SKIP("a lock of the sanitizer may be another thread's at the fork");
  gate_init(&swaps.calling);
  subject_register(&both[0]);
  subject_register(&both[1]);
  pthread_t thread = start(swaps_back_and_forth, both);
  gate_pass(&swaps.calling);
  for (long round = scaled(300); round > 0; round--) {
    pid_t child = fork_watched();
    if (child == 0) {
      struct subject own;
      cbr_handle old = 99;
      struct subject *there = called_by(&hook);
      CHECK(there == &both[0] || there == &both[1]);
      subject_register(&own);
      CHECK_OK(cbr_hook_swap(&hook, own.handle, &old));
      CHECK_EQ(old, there->handle);
      CHECK(called_by(&hook) == &own);
      clear(&hook);
      check_empty(&hook);
      CHECK_OK(cbr_unregister_wait(own.handle, -1));
      CHECK_EQ(own.destroyed, 1);
      _exit(0);
    }
    check_child_passed(child);
  }
  store_int(&swapping_done, 1);
  join(thread);
  clear(&hook);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(references(both[i].handle), 1);
    CHECK_OK(cbr_unregister(both[i].handle));
    CHECK_EQ(both[i].destroyed, 1);
  }
}
