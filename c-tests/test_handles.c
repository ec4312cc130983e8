/* Handles: never dangling, never another's; reuse, forgeries, other kinds, other processes. */
#include "support_child.h"
#include "support_random.h"
#include "support_subject.h"

/* Every function that takes a handle, on one that is none of ours. */
static void check_refused_everywhere(cbr_handle handle, cbr_status status) {
  uint32_t count = 77;
  intptr_t result = 77;
  cbr_pin pin, untouched;
  memset(&pin, 0x5a, sizeof pin);
  untouched = pin;
  CHECK_REFUSED(cbr_call(handle, NULL, &result), status);
  CHECK_REFUSED(cbr_enter(handle, 0, &pin), status);
  CHECK_REFUSED(cbr_hold(handle, 0, &pin), status);
  CHECK_REFUSED(cbr_retain(handle), status);
  CHECK_REFUSED(cbr_release(handle), status);
  CHECK_REFUSED(cbr_refcount(handle, &count), status);
  CHECK_REFUSED(cbr_unregister(handle), status);
  CHECK_REFUSED(cbr_unregister_wait(handle, -1), status);
  CHECK(!cbr_is_live(handle));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(handle), NULL), 0);
  cbr_release_ptr(CBR_TO_PTR(handle));
  CHECK_EQ(count, 77);
  CHECK_EQ(result, 77);
  CHECK(memcmp(&pin, &untouched, sizeof pin) == 0);
}

static uint32_t index_of(cbr_handle handle) { return (uint32_t)handle & 0x0fffffff; }
static uint32_t kind_of(cbr_handle handle) { return (uint32_t)(handle >> 28) & 15; }

TEST(a_callbacks_handle_says_its_kind) {
  struct subject it;
  subject_register(&it);
  CHECK_EQ(kind_of(it.handle), 1);
  CHECK_OK(cbr_unregister(it.handle));
}

enum { ROUNDS = 200000 };

TEST(a_reused_place_leaves_the_old_handles_stale) {
  long rounds = scaled(ROUNDS), reused = 0;
  cbr_handle *old = (cbr_handle *)malloc((size_t)rounds * sizeof *old);
  struct subject it;
  CHECK(old != NULL);
  for (long i = 0; i < rounds; i++) {
    old[i] = subject_register(&it);
    reused += i > 0 && index_of(old[i]) == index_of(old[0]);
    CHECK_OK(cbr_unregister(old[i]));
    CHECK_EQ(it.destroyed, 1);
  }
  subject_register(&it);
  for (long i = 0; i < rounds; i++) {
    CHECK(old[i] != it.handle);
    CHECK_STATUS(cbr_call(old[i], NULL, NULL), CBR_ERR_STALE);
    CHECK_STATUS(cbr_release(old[i]), CBR_ERR_STALE);
    CHECK(!cbr_is_live(old[i]));
  }
  CHECK_EQ(it.calls, 0);
  CHECK_EQ(it.destroyed, 0);
  CHECK(reused > 0 || under_valgrind()); /* else this test has shown nothing */
  CHECK_OK(cbr_unregister(it.handle));
  free(old);
}

static int compare(const void *left, const void *right) {
  cbr_handle a = *(const cbr_handle *)left, b = *(const cbr_handle *)right;
  return a < b ? -1 : a > b;
}

TEST(no_handle_is_issued_twice) {
  long rounds = scaled(ROUNDS);
  cbr_handle *all = (cbr_handle *)malloc((size_t)rounds * sizeof *all);
  struct rng rng = {rng_seed()};
  struct subject live[64];
  CHECK(all != NULL);
  for (int i = 0; i < 64; i++) subject_register(&live[i]);
  for (long i = 0; i < rounds; i++) {
    struct subject *it = &live[rng_below(&rng, 64)];
    CHECK_OK(cbr_unregister(it->handle));
    all[i] = subject_register(it);
  }
  qsort(all, (size_t)rounds, sizeof *all, compare);
  for (long i = 1; i < rounds; i++) CHECK(all[i] != all[i - 1]);
  for (int i = 0; i < 64; i++) CHECK_OK(cbr_unregister(live[i].handle));
  free(all);
}

/* Such an object does not exist, so it may be called stale as well as of another kind. */
TEST(a_handle_of_any_other_kind_is_refused) {
  struct subject it;
  subject_register(&it);
  for (cbr_handle kind = 0; kind <= 15; kind++) {
    if (kind == 1) continue;
    cbr_handle forged = (it.handle & ~(UINT64_C(15) << 28)) | kind << 28;
    cbr_status status = cbr_call(forged, NULL, NULL);
    CHECK(status == CBR_ERR_STALE || status == CBR_ERR_KIND);
    check_refused_everywhere(forged, status);
  }
  CHECK_EQ(it.calls, 0);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

/* Whatever a pin keeps, it is no way to a callback, not even with a callback's kind put into it:
 * such a number was never issued. */
TEST(what_is_in_a_pin_is_no_callbacks_handle) {
  struct subject it, gone;
  cbr_pin pins[2];
  subject_register(&it);
  subject_register(&gone);
  CHECK_OK(cbr_unregister(gone.handle)); /* the hold may get this one's place */
  CHECK_OK(cbr_hold(it.handle, 0, &pins[0]));
  CHECK_OK(cbr_enter(it.handle, 0, &pins[1]));
  for (int i = 0; i < 8; i++) {
    cbr_handle inside = pins[i / 4].reserved[i / 2 % 2];
    if (i % 2 == 1) inside = (inside & ~(UINT64_C(15) << 28)) | UINT64_C(1) << 28;
    if (inside == it.handle || inside == gone.handle) continue;
    cbr_status status = cbr_call(inside, NULL, NULL);
    CHECK(status == CBR_ERR_STALE || status == CBR_ERR_KIND);
    check_refused_everywhere(inside, status);
  }
  CHECK_EQ(gone.destroyed, 1);
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_leave(&pins[0]));
  CHECK_OK(cbr_leave(&pins[1]));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(a_guessed_generation_is_stale) {
  struct subject it;
  subject_register(&it);
  for (int bit = 32; bit < 64; bit++) {
    check_refused_everywhere(it.handle ^ UINT64_C(1) << bit, CBR_ERR_STALE);
  }
  check_refused_everywhere(it.handle + (UINT64_C(1) << 32), CBR_ERR_STALE); /* the next one */
  check_refused_everywhere(it.handle - (UINT64_C(1) << 32), CBR_ERR_STALE);
  check_refused_everywhere(it.handle & 0xffffffff, CBR_ERR_STALE);
  CHECK_EQ(it.calls, 0);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

/* The free place's present generation is the next handle's: it must not be good beforehand. */
TEST(the_next_handle_of_a_free_place_is_stale_until_it_is_issued) {
  struct subject it, next;
  subject_register(&it);
  CHECK_OK(cbr_unregister(it.handle));
  for (uint64_t ahead = 1; ahead <= 4; ahead++) {
    check_refused_everywhere(it.handle + (ahead << 32), CBR_ERR_STALE);
  }
  subject_register(&next);
  CHECK_OK(cbr_call(next.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(next.handle));
  CHECK_EQ(next.destroyed, 1);
}

TEST(a_guessed_index_is_stale) {
  struct subject it;
  struct rng rng = {rng_seed()};
  subject_register(&it);
  cbr_handle rest = it.handle & ~UINT64_C(0x0fffffff);
  for (int bit = 0; bit < 28; bit++) {
    check_refused_everywhere(it.handle ^ UINT64_C(1) << bit, CBR_ERR_STALE);
  }
  for (long i = 0; i < scaled(100000); i++) {
    cbr_handle forged = rest | rng_below(&rng, UINT64_C(1) << 28);
    if (forged != it.handle) CHECK_STATUS(cbr_call(forged, NULL, NULL), CBR_ERR_STALE);
  }
  check_refused_everywhere(rest | 0x0fffffff, CBR_ERR_STALE);
  CHECK_EQ(it.calls, 0);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

/* Such as an implementation may have kept for itself. */
static void check_special_numbers_are_refused(void) {
  static const uint64_t numbers[] = {
      1,
      2,
      UINT64_MAX,
      UINT64_MAX - 1,
      INT64_MAX,
      (uint64_t)INT64_MIN,
      UINT32_MAX,
      (uint64_t)UINT32_MAX << 32,
      UINT64_C(1) << 32,
      UINT64_C(0x10000000),
      UINT64_C(0x1fffffff),
      UINT64_C(0xffffffff10000000),
      UINT64_C(0xffffffff1fffffff),
      UINT64_C(0x100000000fffffff),
  };
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    cbr_status status = cbr_call(numbers[i], NULL, NULL);
    CHECK(status == CBR_ERR_STALE || status == CBR_ERR_KIND);
    check_refused_everywhere(numbers[i], status);
  }
}

TEST(special_numbers_are_refused_at_any_time) {
  struct subject it;
  check_special_numbers_are_refused(); /* before the library has made anything at all */
  subject_register(&it);
  check_special_numbers_are_refused();
  for (int i = 0; i < 10000; i++) CHECK_OK(cbr_call(it.handle, NULL, NULL));
  check_special_numbers_are_refused();
  CHECK_OK(cbr_unregister(it.handle));
  check_special_numbers_are_refused();
  CHECK_EQ(it.destroyed, 1);
}

/* --- other processes ---------------------------------------------------------------------- */

CHILD(prints_its_first_handles) {
  struct subject it[3];
  for (int i = 0; i < 3; i++) printf("%llx\n", (unsigned long long)subject_register(&it[i]));
}

static cbr_handle handle_of_another_process(void) {
  char output[256];
  check_child("prints_its_first_handles", NULL, NULL, output, sizeof output);
  cbr_handle handle = strtoull(output, NULL, 16);
  CHECK(handle != CBR_HANDLE_NONE);
  return handle;
}

TEST(a_handle_of_another_process_is_stale_here) {
  struct subject it;
  subject_register(&it);
  cbr_handle foreign = handle_of_another_process();
  CHECK_EQ(kind_of(foreign), kind_of(it.handle));
  check_refused_everywhere(foreign, CBR_ERR_STALE);
  CHECK_EQ(it.calls, 0);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(generations_start_at_a_random_number_in_each_process) {
  enum { PROCESSES = 8 };
  uint32_t generations[PROCESSES];
  int close = 0;
  for (int i = 0; i < PROCESSES; i++) {
    generations[i] = (uint32_t)(handle_of_another_process() >> 32);
    for (int j = 0; j < i; j++) {
      CHECK(generations[i] != generations[j]);
      /* near each other: a counter, a clock or a process id, not a random number */
      close += generations[i] - generations[j] + 65536 < 131072;
    }
  }
  CHECK(close <= 1);
}

CHILD(calls_the_handle_in_the_environment) {
  struct subject it;
  cbr_handle handle = strtoull(getenv("FOREIGN_HANDLE"), NULL, 16);
  subject_register(&it);
  check_refused_everywhere(handle, CBR_ERR_STALE);
  CHECK_EQ(it.calls, 0);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_handle_of_ours_is_stale_in_another_process) {
  struct subject it;
  char text[32], output[1024];
  subject_register(&it);
  snprintf(text, sizeof text, "%llx", (unsigned long long)it.handle);
  check_child("calls_the_handle_in_the_environment", "FOREIGN_HANDLE", text, output, sizeof output);
  CHECK_OK(cbr_unregister(it.handle));
}
