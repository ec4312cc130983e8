/* cbr_set_check and CALLBRIDGE_CHECK: functions that are no code, signatures, and slow callbacks in
 * the log. */
#include "support_child.h"
#include "support_owners.h"

#include <sys/mman.h>

/* --- functions that are no code ----------------------------------------------------------- */

static unsigned char data[64];

static cbr_any_fn data_as_function(void) { return (cbr_any_fn)(void *)data; }

static cbr_callback_options good_options(struct subject *it) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = it;
  return options;
}

static void check_refused(const cbr_callback_options *options, const char *words) {
  cbr_handle handle = 99;
  CHECK_STATUS(cbr_register_with(options, &handle), CBR_ERR_INVALID);
  CHECK_WORDS(words);
  CHECK_WORDS("executable");
  CHECK_EQ(handle, 99);
}

static void check_accepted(const cbr_callback_options *options) {
  cbr_handle handle;
  CHECK_OK(cbr_register_with(options, &handle));
  CHECK_OK(cbr_unregister(handle));
}

/* Registers data as each of the three functions; check is told what the words should name. */
static void with_data_as_each_function(void (*check)(const cbr_callback_options *, const char *)) {
  struct subject it;
  cbr_callback_options options = good_options(&it);
  options.fn = data_as_function();
  check(&options, "fn ");
  options = good_options(&it);
  options.destroy = (cbr_destroy_fn)data_as_function();
  check(&options, "destroy ");
  options = good_options(&it);
  options.on_error = (cbr_error_fn)data_as_function();
  check(&options, "on_error ");
}

/* Level 1, 0: nobody looks, and without an end or a failure nobody calls it. */
static void check_not_looked_at(const cbr_callback_options *options, const char *words) {
  cbr_handle handle = 0;
  (void)words;
  CHECK_OK(cbr_register_with(options, &handle));
  CHECK(cbr_is_live(handle));
  if (options->destroy == NULL) CHECK_OK(cbr_unregister(handle));
}

TEST(level_2_refuses_data_as_a_function_and_names_which) {
  cbr_handle handle = 99;
  CHECK_OK(cbr_set_check(2));
  with_data_as_each_function(check_refused);
  CHECK_REFUSED(cbr_register((cbr_fn)data_as_function(), NULL, NULL, &handle), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_register(subject_fn, NULL, (cbr_destroy_fn)data_as_function(), &handle),
                CBR_ERR_INVALID);
  CHECK_EQ(handle, 99);
}

TEST(levels_0_and_1_accept_what_is_given) {
  with_data_as_each_function(check_not_looked_at); /* the default */
  CHECK_OK(cbr_set_check(0));
  with_data_as_each_function(check_not_looked_at);
  CHECK_OK(cbr_set_check(2));
  with_data_as_each_function(check_refused);
  CHECK_OK(cbr_set_check(1));
  with_data_as_each_function(check_not_looked_at);
}

TEST(a_refused_function_takes_nothing_over) {
  struct subject it;
  cbr_handle handle = 99;
  cbr_callback_options options = good_options(&it);
  CHECK_OK(cbr_set_check(2));
  options.fn = data_as_function();
  options.destroy = subject_destroy;
  check_refused(&options, "fn ");
  CHECK_EQ(it.destroyed, 0);
  CHECK_REFUSED(cbr_register(NULL, NULL, NULL, &handle), CBR_ERR_NULL); /* as at any level */
}

TEST(level_2_accepts_functions_of_the_program_and_of_libraries) {
  struct subject it;
  cbr_callback_options options = good_options(&it);
  CHECK_OK(cbr_set_check(2));
  options.destroy = subject_destroy;
  check_accepted(&options);
  CHECK_EQ(it.destroyed, 1);
  options = good_options(&it);
  options.fn = (cbr_any_fn)getpid;
  check_accepted(&options);
  options.fn = (cbr_any_fn)cbr_version;
  check_accepted(&options);
  options.fn = (cbr_any_fn)cbr_call_ptr;
  options.user_data = NULL;
  options.destroy = cbr_release_ptr;
  check_accepted(&options);
}

/* Stack, heap, read-only data, nothing at all. */
TEST(level_2_refuses_every_kind_of_memory_that_is_no_code) {
  static const unsigned char constant[64] = {0xc3};
  unsigned char on_stack[64] = {0xc3};
  unsigned char *on_heap = (unsigned char *)calloc(1, 64);
  struct subject it;
  cbr_callback_options options = good_options(&it);
  const void *const none[] = {constant,     on_stack,           on_heap, &it, (void *)1,
                              (void *)4096, (void *)UINTPTR_MAX};
  CHECK(on_heap != NULL);
  if (under_valgrind()) SKIP("valgrind makes the heap executable");
  CHECK_OK(cbr_set_check(2));
  for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
    options.fn = (cbr_any_fn)(uintptr_t)none[i];
    check_refused(&options, "fn ");
  }
  free(on_heap);
}

/* --- code made at run time ---------------------------------------------------------------- */

#if defined(__x86_64__)
static const unsigned char return_42[] = {0xb8, 0x2a, 0, 0, 0, 0xc3};
#elif defined(__aarch64__)
static const unsigned char return_42[] = {0x40, 0x05, 0x80, 0xd2, 0xc0, 0x03, 0x5f, 0xd6};
#else
static const unsigned char return_42[] = {0};
#endif

/* A page as a compiler at run time makes them: written, then executable. */
static unsigned char *make_code(size_t at) {
  size_t size = (size_t)sysconf(_SC_PAGESIZE);
  if (sizeof return_42 == 1) SKIP("no code for this processor");
  unsigned char *page =
      (unsigned char *)mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  memcpy(page + at, return_42, sizeof return_42);
  if (mprotect(page, size, PROT_READ | PROT_EXEC) != 0) SKIP("this machine forbids new code");
  __builtin___clear_cache((char *)page, (char *)page + size);
  return page;
}

static cbr_status register_code(unsigned char *code, cbr_handle *out_handle) {
  return cbr_register((cbr_fn)(void *)code, NULL, NULL, out_handle);
}

TEST(code_made_at_run_time_is_accepted_and_runs) {
  size_t size = (size_t)sysconf(_SC_PAGESIZE);
  size_t places[] = {0, 64, size - 8};
  CHECK_OK(cbr_set_check(2));
  for (int i = 0; i < 3; i++) {
    unsigned char *page = make_code(places[i]);
    cbr_handle handle;
    intptr_t result = 0;
    CHECK_OK(register_code(page + places[i], &handle));
    CHECK_OK(cbr_call(handle, NULL, &result));
    CHECK_EQ(result, 42);
    CHECK_OK(cbr_unregister_wait(handle, -1));
    CHECK_EQ(munmap(page, size), 0);
  }
}

TEST(code_that_is_no_longer_executable_or_mapped_is_refused) {
  size_t size = (size_t)sysconf(_SC_PAGESIZE);
  unsigned char *page = make_code(0);
  cbr_handle handle = 99;
  CHECK_OK(cbr_set_check(2));
  CHECK_EQ(mprotect(page, size, PROT_READ), 0);
  CHECK_REFUSED(register_code(page, &handle), CBR_ERR_INVALID);
  CHECK_EQ(mprotect(page, size, PROT_READ | PROT_EXEC), 0);
  CHECK_OK(register_code(page, &handle));
  CHECK_OK(cbr_unregister(handle));
  CHECK_EQ(munmap(page, size), 0);
  CHECK_REFUSED(register_code(page, &handle), CBR_ERR_INVALID);
}

/* Many mappings: the one that is asked for is found wherever it stands in the list. */
TEST(code_is_found_among_thousands_of_mappings) {
  long count = scaled(4000);
  size_t size = (size_t)sysconf(_SC_PAGESIZE);
  unsigned char *pages = (unsigned char *)mmap(NULL, (size_t)count * size, PROT_READ,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  cbr_handle handle;
  CHECK(pages != MAP_FAILED);
  CHECK_OK(cbr_set_check(2));
  for (long i = 0; i < count; i += 2) {
    if (mprotect(pages + (size_t)i * size, size, PROT_READ | PROT_EXEC) != 0)
      SKIP("this machine forbids new code");
  }
  for (long i = 0; i < count; i += count / 8 + 1) {
    cbr_status expected = i % 2 == 0 ? CBR_OK : CBR_ERR_INVALID;
    CHECK_STATUS(register_code(pages + (size_t)i * size, &handle), expected);
    if (expected == CBR_OK) CHECK_OK(cbr_unregister(handle));
  }
  CHECK_EQ(munmap(pages, (size_t)count * size), 0);
}

/* --- levels ------------------------------------------------------------------------------- */

static bool refuses_data(void) {
  cbr_handle handle;
  cbr_status status = cbr_register((cbr_fn)data_as_function(), NULL, NULL, &handle);
  if (status == CBR_ERR_INVALID) return true;
  CHECK_OK(status);
  CHECK_OK(cbr_unregister(handle));
  return false;
}

TEST(other_levels_are_invalid_and_change_nothing) {
  static const uint32_t levels[] = {3, 4, 255, 256, 0x80000000, UINT32_MAX};
  for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
    CHECK_OK(cbr_set_check(2));
    CHECK_REFUSED(cbr_set_check(levels[i]), CBR_ERR_INVALID);
    CHECK(refuses_data());
    CHECK_OK(cbr_set_check(1));
    CHECK_REFUSED(cbr_set_check(levels[i]), CBR_ERR_INVALID);
    CHECK(!refuses_data());
  }
}

static cbr_handle register_void(struct subject *it) {
  cbr_callback_options options = good_options(it);
  options.signature = CBR_SIG(CBR_VOID);
  CHECK_OK(cbr_register_with(&options, &it->handle));
  return it->handle;
}

/* What a pin is asked for, against what the callback is. */
static void check_pins_signatures(cbr_handle handle, cbr_status status) {
  cbr_pin pin;
  CHECK_STATUS(cbr_enter(handle, CBR_SIG(CBR_VOID, CBR_I32), &pin), status);
  if (status == CBR_OK) CHECK_OK(cbr_leave(&pin));
  CHECK_STATUS(cbr_hold(handle, CBR_SIG(CBR_VOID, CBR_I32), &pin), status);
  if (status == CBR_OK) CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_enter(handle, CBR_SIG(CBR_VOID), &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_hold(handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
}

TEST(level_0_does_not_compare_the_signatures_of_pins) {
  static const uint32_t levels[] = {1, 0, 2, 0, 1};
  struct subject before, after;
  register_void(&before);
  for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
    cbr_status status = levels[i] == 0 ? CBR_OK : CBR_ERR_SIGNATURE;
    CHECK_OK(cbr_set_check(levels[i]));
    register_void(&after);
    check_pins_signatures(before.handle, status);
    check_pins_signatures(after.handle, status);
    /* What is called, not given away, is compared at any level. */
    CHECK_REFUSED(cbr_call(before.handle, NULL, NULL), CBR_ERR_SIGNATURE);
    CHECK_REFUSED(cbr_call(after.handle, NULL, NULL), CBR_ERR_SIGNATURE);
    CHECK_OK(cbr_unregister(after.handle));
  }
  CHECK_OK(cbr_unregister(before.handle));
}

TEST(handles_are_checked_at_every_level) {
  for (uint32_t level = 0; level <= 2; level++) {
    struct subject it;
    cbr_pin pin;
    CHECK_OK(cbr_set_check(level));
    subject_register(&it);
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    CHECK_OK(cbr_unregister(it.handle));
    CHECK_REFUSED(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
    CHECK_REFUSED(cbr_enter(it.handle, 0, &pin), CBR_ERR_STALE);
    CHECK_EQ(it.destroyed, 1);
  }
}

/* --- the environment ---------------------------------------------------------------------- */

CHILD(expects_level_0) {
  struct subject it;
  check_pins_signatures(register_void(&it), CBR_OK);
  CHECK(!refuses_data());
}

CHILD(expects_level_1) {
  struct subject it;
  check_pins_signatures(register_void(&it), CBR_ERR_SIGNATURE);
  CHECK(!refuses_data());
}

CHILD(expects_level_2_from_the_very_first_registration) { CHECK(refuses_data()); }

CHILD(sets_level_1_before_all_else) {
  CHECK_OK(cbr_set_check(1));
  CHECK(!refuses_data());
}

CHILD(sets_level_1_later) {
  CHECK(refuses_data());
  CHECK_OK(cbr_set_check(1));
  CHECK(!refuses_data());
}

TEST(the_environment_sets_the_level) {
  char output[4096];
  check_child("expects_level_1", NULL, NULL, output, sizeof output);
  check_child("expects_level_0", "CALLBRIDGE_CHECK", "0", output, sizeof output);
  check_child("expects_level_1", "CALLBRIDGE_CHECK", "1", output, sizeof output);
  check_child("expects_level_2_from_the_very_first_registration", "CALLBRIDGE_CHECK", "2", output,
              sizeof output);
  check_child("expects_level_1", "CALLBRIDGE_CHECK", "", output, sizeof output);
  check_child("expects_level_1", "CALLBRIDGE_CHECK", "7", output, sizeof output);
  check_child("expects_level_1", "CALLBRIDGE_CHECK", "much", output, sizeof output);
}

TEST(the_program_overrules_the_environment) {
  char output[4096];
  check_child("sets_level_1_before_all_else", "CALLBRIDGE_CHECK", "2", output, sizeof output);
  check_child("sets_level_1_later", "CALLBRIDGE_CHECK", "2", output, sizeof output);
}

/* --- slow callbacks ----------------------------------------------------------------------- */

#define MS INT64_C(1000000)

/* What the log must say is known only as far as the clocks of the callback and of its caller tell:
 * a fast callback may have been slow if the machine was busy. */
static struct {
  int64_t threshold_ns, lasted_ns;
  int must, may; /* lines in the log */
} slow = {.threshold_ns = 20 * MS};

static intptr_t takes_its_time(struct subject *it, void *arg) {
  int64_t began = now_ns(), end = began + *(const int64_t *)arg;
  (void)it;
  while (now_ns() < end) relax();
  slow.lasted_ns = now_ns() - began;
  return 0;
}

static cbr_hook slow_hook = CBR_HOOK_INIT;
enum { SLOW_KEY = 7, SLOW_EVENT = 1 };

static cbr_status by_call(struct subject *it, void *arg) { return cbr_call(it->handle, arg, NULL); }

static cbr_status by_hook(struct subject *it, void *arg) {
  (void)it;
  return cbr_hook_call(&slow_hook, arg, NULL);
}

static cbr_status by_key(struct subject *it, void *arg) {
  (void)it;
  return cbr_key_call(0, SLOW_KEY, SLOW_EVENT, arg, NULL);
}

static cbr_status by_pointer(struct subject *it, void *arg) {
  cbr_call_ptr(CBR_TO_PTR(it->handle), arg);
  return CBR_OK;
}

typedef cbr_status (*way_to_call)(struct subject *it, void *arg);

/* One call, and what the log must and may say of it. */
static void call_for(struct subject *it, way_to_call call, int64_t duration_ns) {
  struct action action = {takes_its_time, &duration_ns};
  int64_t began = now_ns();
  CHECK_OK(call(it, &action));
  int64_t outside = now_ns() - began;
  slow.must += slow.lasted_ns >= slow.threshold_ns;
  slow.may += outside >= slow.threshold_ns;
}

/* Where every way to call finds it. */
static void register_named(struct subject *it, const char *name) {
  cbr_callback_options options = good_options(it);
  options.name = name;
  CHECK_OK(cbr_register_with(&options, &it->handle));
  CHECK_OK(cbr_hook_swap(&slow_hook, it->handle, NULL));
  CHECK_OK(cbr_key_attach(0, SLOW_KEY, SLOW_EVENT, it->handle, CBR_BIND_REPLACE));
}

static void say_what_to_expect(void) {
  printf("must %d may %d\n", slow.must, slow.may);
  fflush(stdout);
}

static void call_slowly_and_fast(way_to_call call) {
  struct subject it;
  register_named(&it, "the slow one");
  printf("handle 0x%llx thread %ld\n", (unsigned long long)it.handle, syscall(SYS_gettid));
  fflush(stdout);
  for (int i = 0; i < 10; i++) call_for(&it, call, 0);
  call_for(&it, call, 3 * slow.threshold_ns);
  for (int i = 0; i < 10; i++) call_for(&it, call, 0);
  say_what_to_expect();
  CHECK_OK(cbr_unregister(it.handle));
}

CHILD(calls_slowly) { call_slowly_and_fast(by_call); }
CHILD(calls_slowly_by_a_hook) { call_slowly_and_fast(by_hook); }
CHILD(calls_slowly_by_a_key) { call_slowly_and_fast(by_key); }
CHILD(calls_slowly_by_a_pointer) { call_slowly_and_fast(by_pointer); }

static void slow_log_on(void) {
  CHECK_EQ(setenv("CALLBRIDGE_LOG", "warn", 1), 0);
  CHECK_EQ(setenv("CALLBRIDGE_SLOW_MS", "20", 1), 0);
}

static int lines_of_slowness(const char *output) {
  int count = 0;
  for (const char *at = output; (at = strstr(at, " took ")) != NULL; at++) count++;
  return count;
}

/* As many lines as the child's clocks allow. Returns how many must have been there. */
static int check_lines(const char *output) {
  int must = -1, may = -1, lines = lines_of_slowness(output);
  const char *words = strstr(output, "must ");
  if (words == NULL || sscanf(words, "must %d may %d", &must, &may) != 2)
    FAIL("the child did not say what to expect: %s", output);
  if (lines < must || lines > may)
    FAIL("%d lines of slow callbacks, where %d to %d should be:\n%s", lines, must, may, output);
  return must;
}

static void check_nothing_logged(const char *output) {
  if (lines_of_slowness(output) != 0) FAIL("a slow callback is in the log:\n%s", output);
}

/* "... the callback 'the slow one' (0x0f7eb0ab10000400) took 60 ms on thread 4711" */
static void check_slow_line(const char *output) {
  unsigned long long handle = 0;
  long thread = 0, ms = 0, logged_thread = 0;
  char expected[128];
  const char *words = strstr(output, "handle 0x");
  CHECK(words != NULL && sscanf(words, "handle 0x%llx thread %ld", &handle, &thread) == 2);
  CHECK(check_lines(output) >= 1);
  snprintf(expected, sizeof expected, "the callback 'the slow one' (0x%016llx) took ", handle);
  CHECK_CONTAINS(output, expected);
  CHECK_CONTAINS(output, "WARN");
  /* Of several the one that was meant to be slow is not known to be the first. */
  bool found = false;
  for (words = output; !found && (words = strstr(words, expected)) != NULL; words++) {
    CHECK_EQ(sscanf(words + strlen(expected), "%ld ms on thread %ld", &ms, &logged_thread), 2);
    CHECK_EQ(logged_thread, thread);
    CHECK(ms >= 20);
    found = ms >= 60;
  }
  CHECK(found);
}

static void check_slow_line_of(const char *child) {
  char output[8192];
  slow_log_on();
  check_child(child, "CALLBRIDGE_CHECK", "2", output, sizeof output);
  check_slow_line(output);
}

TEST(a_slow_call_is_logged_by_name) { check_slow_line_of("calls_slowly"); }
TEST(a_slow_call_of_a_hook_is_logged_by_name) { check_slow_line_of("calls_slowly_by_a_hook"); }
TEST(a_slow_call_of_a_key_is_logged_by_name) { check_slow_line_of("calls_slowly_by_a_key"); }
TEST(a_slow_cbr_call_ptr_is_logged_by_name) { check_slow_line_of("calls_slowly_by_a_pointer"); }

TEST(slow_calls_are_not_logged_at_other_levels) {
  char output[8192];
  slow_log_on();
  check_child("calls_slowly", NULL, NULL, output, sizeof output);
  check_nothing_logged(output);
  check_child("calls_slowly", "CALLBRIDGE_CHECK", "1", output, sizeof output);
  check_nothing_logged(output);
  check_child("calls_slowly", "CALLBRIDGE_CHECK", "0", output, sizeof output);
  check_nothing_logged(output);
}

TEST(without_a_log_nothing_is_printed) {
  char output[8192];
  CHECK_EQ(unsetenv("CALLBRIDGE_LOG"), 0);
  CHECK_EQ(setenv("CALLBRIDGE_SLOW_MS", "20", 1), 0);
  check_child("calls_slowly", "CALLBRIDGE_CHECK", "2", output, sizeof output);
  check_nothing_logged(output);
}

/* In this process the threshold is the default. */
CHILD(calls_for_70_and_for_150_ms) {
  struct subject it;
  slow.threshold_ns = 100 * MS;
  register_named(&it, "the slow one");
  call_for(&it, by_call, 70 * MS);
  call_for(&it, by_call, 150 * MS);
  say_what_to_expect();
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(slow_is_a_hundred_milliseconds_if_nobody_says_otherwise) {
  char output[8192];
  CHECK_EQ(setenv("CALLBRIDGE_LOG", "warn", 1), 0);
  CHECK_EQ(unsetenv("CALLBRIDGE_SLOW_MS"), 0);
  check_child("calls_for_70_and_for_150_ms", "CALLBRIDGE_CHECK", "2", output, sizeof output);
  CHECK(check_lines(output) >= 1);
}

CHILD(is_inside_a_pin_for_long) {
  struct subject it;
  cbr_pin entered, held;
  register_named(&it, "the pinned one");
  CHECK_OK(cbr_enter(it.handle, CBR_SIG_DEFAULT, &entered));
  CHECK_OK(cbr_hold(it.handle, CBR_SIG_DEFAULT, &held));
  int64_t duration = 3 * slow.threshold_ns;
  struct action action = {takes_its_time, &duration};
  ((cbr_fn)entered.fn)(entered.user_data, &action);
  CHECK_OK(cbr_leave(&entered));
  CHECK_OK(cbr_leave(&held));
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(pins_may_take_as_long_as_they_like) {
  char output[8192];
  slow_log_on();
  check_child("is_inside_a_pin_for_long", "CALLBRIDGE_CHECK", "2", output, sizeof output);
  check_nothing_logged(output);
}

/* --- the level changes while there are callbacks ------------------------------------------ */

/* Every way to call, slowly once, after the level has been set to 2 and back to 1. */
CHILD(was_registered_before_the_level) {
  static const way_to_call ways[] = {by_call, by_hook, by_key, by_pointer};
  struct subject it;
  register_named(&it, "the slow one");
  printf("handle 0x%llx thread %ld\n", (unsigned long long)it.handle, syscall(SYS_gettid));
  for (int i = 0; i < 4; i++) CHECK_OK(ways[i](&it, NULL));
  CHECK_OK(cbr_set_check(2));
  for (int i = 0; i < 4; i++) call_for(&it, ways[i], 3 * slow.threshold_ns);
  say_what_to_expect();
  CHECK_OK(cbr_set_check(1));
  int64_t duration = 3 * slow.threshold_ns;
  struct action action = {takes_its_time, &duration};
  for (int i = 0; i < 4; i++) CHECK_OK(ways[i](&it, &action));
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_callback_registered_before_the_level_is_logged_while_it_lasts) {
  char output[8192];
  slow_log_on();
  check_child("was_registered_before_the_level", NULL, NULL, output, sizeof output);
  check_slow_line(output);
  CHECK_EQ(check_lines(output), 4);
}

static void call_in_a_row(struct subject *it, way_to_call call) {
  for (int i = 0; i < 10000; i++) CHECK_OK(call(it, NULL));
}

/* A thread that calls the same callback in a row is quicker about it. That must not hide the slow
 * ones, before the level is set or after. */
static void call_slowly_after_a_row(way_to_call call) {
  struct subject it;
  register_named(&it, "the slow one");
  printf("handle 0x%llx thread %ld\n", (unsigned long long)it.handle, syscall(SYS_gettid));
  call_in_a_row(&it, call);
  CHECK_OK(cbr_set_check(2));
  call_for(&it, call, 3 * slow.threshold_ns);
  for (int i = 0; i < 10000; i++) call_for(&it, call, 0);
  call_for(&it, call, 3 * slow.threshold_ns);
  CHECK_OK(cbr_set_check(1));
  call_in_a_row(&it, call);
  CHECK_OK(cbr_set_check(2));
  call_for(&it, call, 3 * slow.threshold_ns);
  say_what_to_expect();
  CHECK_OK(cbr_unregister(it.handle));
}

CHILD(calls_slowly_after_ten_thousand_calls) { call_slowly_after_a_row(by_call); }
CHILD(calls_a_hook_slowly_after_ten_thousand_calls) { call_slowly_after_a_row(by_hook); }
CHILD(calls_a_key_slowly_after_ten_thousand_calls) { call_slowly_after_a_row(by_key); }
CHILD(calls_a_pointer_slowly_after_ten_thousand_calls) { call_slowly_after_a_row(by_pointer); }

static void check_after_ten_thousand(const char *child) {
  char output[32768];
  slow_log_on();
  check_child(child, NULL, NULL, output, sizeof output);
  check_slow_line(output);
  CHECK(check_lines(output) >= 3);
}

TEST(a_slow_call_after_ten_thousand_in_a_row_is_logged) {
  check_after_ten_thousand("calls_slowly_after_ten_thousand_calls");
}

TEST(a_slow_call_of_a_hook_after_ten_thousand_in_a_row_is_logged) {
  check_after_ten_thousand("calls_a_hook_slowly_after_ten_thousand_calls");
}

TEST(a_slow_call_of_a_key_after_ten_thousand_in_a_row_is_logged) {
  check_after_ten_thousand("calls_a_key_slowly_after_ten_thousand_calls");
}

TEST(a_slow_cbr_call_ptr_after_ten_thousand_in_a_row_is_logged) {
  check_after_ten_thousand("calls_a_pointer_slowly_after_ten_thousand_calls");
}

/* The same when it is another thread that sets the level. */
struct other_thread {
  struct subject it;
  gate ran, changed;
};

static void *calls_in_a_row_and_then_slowly(void *arg) {
  struct other_thread *self = (struct other_thread *)arg;
  printf("handle 0x%llx thread %ld\n", (unsigned long long)self->it.handle, syscall(SYS_gettid));
  call_in_a_row(&self->it, by_call);
  gate_open(&self->ran);
  gate_pass(&self->changed);
  call_for(&self->it, by_call, 3 * slow.threshold_ns);
  return NULL;
}

CHILD(has_the_level_set_by_another_thread) {
  struct other_thread other;
  gate_init(&other.ran);
  gate_init(&other.changed);
  register_named(&other.it, "the slow one");
  pthread_t thread = start(calls_in_a_row_and_then_slowly, &other);
  gate_pass(&other.ran);
  CHECK_OK(cbr_set_check(2));
  gate_open(&other.changed);
  join(thread);
  say_what_to_expect();
  CHECK_OK(cbr_unregister(other.it.handle));
}

TEST(a_slow_call_is_logged_though_another_thread_set_the_level_during_a_row) {
  char output[8192];
  slow_log_on();
  check_child("has_the_level_set_by_another_thread", NULL, NULL, output, sizeof output);
  check_slow_line(output);
}

/* --- what else may be slow ---------------------------------------------------------------- */

/* One without a name, inside one that fails: both are slow. */
static intptr_t calls_the_nameless_and_fails(struct subject *it, void *arg) {
  int64_t duration = 3 * slow.threshold_ns;
  struct action action = {takes_its_time, &duration};
  (void)it;
  CHECK_OK(cbr_call(((struct subject *)arg)->handle, &action, NULL));
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "too late"));
  return 0;
}

CHILD(is_slow_inside_a_slow_one_that_fails) {
  struct subject outer, inner;
  struct action action = {calls_the_nameless_and_fails, &inner};
  register_named(&outer, "the slow one");
  register_named(&inner, NULL);
  printf("outer 0x%llx inner 0x%llx\n", (unsigned long long)outer.handle,
         (unsigned long long)inner.handle);
  CHECK_STATUS(cbr_call(outer.handle, &action, NULL), CBR_ERR_CALLBACK);
  CHECK_WORDS("too late");
  CHECK_OK(cbr_unregister(outer.handle));
  CHECK_OK(cbr_unregister(inner.handle));
}

TEST(a_slow_call_is_logged_though_it_fails_or_has_no_name) {
  char output[8192], number[64];
  unsigned long long outer = 0, inner = 0;
  slow_log_on();
  check_child("is_slow_inside_a_slow_one_that_fails", "CALLBRIDGE_CHECK", "2", output,
              sizeof output);
  const char *words = strstr(output, "outer 0x");
  CHECK(words != NULL && sscanf(words, "outer 0x%llx inner 0x%llx", &outer, &inner) == 2);
  CHECK_EQ(lines_of_slowness(output), 2);
  snprintf(number, sizeof number, "the callback 'the slow one' (0x%016llx) took ", outer);
  CHECK_CONTAINS(output, number);
  snprintf(number, sizeof number, "the callback 0x%016llx took ", inner);
  CHECK_CONTAINS(output, number);
}

/* Its last reference goes while it runs: the log still knows its name. */
static intptr_t ends_itself_slowly(struct subject *it, void *arg) {
  CHECK_OK(cbr_unregister(it->handle));
  return takes_its_time(it, arg);
}

CHILD(is_slow_and_ends_meanwhile) {
  struct subject it;
  int64_t duration = 3 * slow.threshold_ns;
  struct action action = {ends_itself_slowly, &duration};
  register_named(&it, "the slow one");
  printf("handle 0x%llx thread %ld\n", (unsigned long long)it.handle, syscall(SYS_gettid));
  CHECK_OK(cbr_call(it.handle, &action, NULL));
  slow.must = slow.may = 1;
  say_what_to_expect();
}

TEST(a_slow_call_of_a_callback_that_ends_meanwhile_is_logged) {
  check_slow_line_of("is_slow_and_ends_meanwhile");
}

/* --- the level changes while everybody calls ---------------------------------------------- */

enum { CALLERS = 3 };

static int levels_done;

static void *calls_at_any_level(void *arg) {
  struct subject *its = (struct subject *)arg;
  intptr_t result = 0;
  long calls = 0;
  for (; !load_int(&levels_done); calls++) {
    struct subject own;
    for (int i = 0; i < 100; i++) {
      CHECK_OK(cbr_call(its[calls % 2].handle, &who_are_you, &result));
      CHECK((struct subject *)result == &its[calls % 2]);
    }
    subject_register(&own);
    CHECK_OK(cbr_call(own.handle, NULL, NULL));
    CHECK_OK(cbr_unregister_wait(own.handle, -1));
    CHECK_EQ(own.destroyed, 1);
  }
  return (void *)calls;
}

TEST(the_level_may_change_while_others_register_call_and_end) {
  static struct subject its[2];
  pthread_t threads[CALLERS];
  long calls = 0;
  for (int i = 0; i < 2; i++) subject_register(&its[i]);
  for (int i = 0; i < CALLERS; i++) threads[i] = start(calls_at_any_level, its);
  for (long i = 0; i < scaled(5000); i++) CHECK_OK(cbr_set_check((uint32_t)(i % 3)));
  store_int(&levels_done, 1);
  for (int i = 0; i < CALLERS; i++) calls += (long)join(threads[i]);
  for (int i = 0; i < 2; i++) {
    CHECK_OK(cbr_unregister(its[i].handle));
    CHECK_EQ(its[i].destroyed, 1);
  }
  CHECK_EQ(its[0].calls + its[1].calls, calls * 100);
}
