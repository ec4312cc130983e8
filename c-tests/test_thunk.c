/* Thunks: what a call does, what there is when the callback cannot run, and who owns what. */
#include "support_child.h"
#include "support_thunk.h"

TEST(a_thunk_calls_its_callback_with_user_data_before_the_arguments) {
  struct adder it;
  adder_begin(&it, 100);
  for (int i = 0; i < 10000; i++) CHECK_EQ(it.fn(i, &it), 100 + i);
  CHECK_EQ(it.subject.calls, 10000);
  CHECK_OK(cbr_thunk_close(it.thunk));
  CHECK_EQ(it.subject.destroyed, 1);
}

static void looks_around(struct adder *it) {
  CHECK_EQ(cbr_current(), it->subject.handle);
  CHECK_EQ(cbr_depth(), 1);
}

TEST(inside_a_thunk_the_thread_is_inside_the_callback) {
  struct adder it;
  adder_begin(&it, 1);
  it.action = looks_around;
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

static void *calls_on_a_new_thread(void *arg) {
  struct adder *it = (struct adder *)arg;
  return (void *)(intptr_t)it->fn(5, NULL);
}

TEST(a_call_may_be_a_threads_first_use_of_the_library) {
  struct adder it;
  adder_begin(&it, 1);
  CHECK_EQ((intptr_t)run_on_thread(calls_on_a_new_thread, &it), 6);
  CHECK_OK(cbr_thunk_close(it.thunk));
  CHECK_EQ((intptr_t)run_on_thread(calls_on_a_new_thread, &it), FALLBACK);
}

/* --- when the callback cannot run ---------------------------------------------------------- */

TEST(a_thunk_of_a_gone_callback_returns_its_fallback_for_ever) {
  struct adder it;
  adder_register(&it, 1);
  adder_open(&it);
  CHECK_OK(cbr_unregister(it.subject.handle));
  CHECK_EQ(it.subject.destroyed, 1);
  for (int i = 0; i < 100000; i++) CHECK_EQ(it.fn(i, NULL), FALLBACK);
  CHECK_WORDS("stale");
  CHECK_EQ((intptr_t)run_on_thread(calls_on_a_new_thread, &it), FALLBACK);
  CHECK_EQ(it.subject.calls, 0);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

TEST(a_closed_thunk_returns_its_fallback_for_ever) {
  struct adder it;
  adder_begin(&it, 1);
  CHECK_OK(cbr_thunk_close(it.thunk));
  CHECK_EQ(it.subject.destroyed, 1);
  for (int i = 0; i < 100000; i++) CHECK_EQ(it.fn(i, NULL), FALLBACK);
  CHECK_EQ((intptr_t)run_on_thread(calls_on_a_new_thread, &it), FALLBACK);
  CHECK_EQ(it.subject.calls, 0);
}

TEST(a_thunk_of_a_closed_scope_returns_its_fallback) {
  struct adder it;
  cbr_callback_options options = adder_options(&it, 1);
  CHECK_OK(cbr_scope_open("plugin", &options.scope));
  CHECK_OK(cbr_register_with(&options, &it.subject.handle));
  adder_open(&it);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_scope_close(options.scope, -1, NULL));
  CHECK_EQ(it.subject.destroyed, 1);
  CHECK_EQ(it.fn(1, NULL), FALLBACK);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

static void fails(struct adder *it) {
  (void)it;
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, "no more"));
}

TEST(a_thunk_whose_callback_fails_returns_the_fallback_with_words) {
  struct adder it;
  adder_begin(&it, 1);
  it.action = fails;
  CHECK_EQ(it.fn(1, NULL), FALLBACK);
  CHECK_WORDS("no more");
  it.action = NULL;
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

TEST(a_thunk_of_another_threads_callback_returns_the_fallback) {
  struct adder it;
  cbr_queue_options queue = CBR_QUEUE_OPTIONS_INIT;
  cbr_callback_options options = adder_options(&it, 1);
  queue.flags = CBR_QUEUE_OWNED;
  CHECK_OK(cbr_queue_open(&queue, &options.home));
  CHECK_OK(cbr_register_with(&options, &it.subject.handle));
  adder_open(&it);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_EQ((intptr_t)run_on_thread(calls_on_a_new_thread, &it), FALLBACK);
  CHECK_EQ(it.subject.calls, 1);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

static void *opens_for_another_thread(void *arg) {
  adder_open((struct adder *)arg);
  return NULL;
}

TEST(any_thread_may_open_a_thunk_for_another_ones_callback) {
  struct adder it;
  cbr_queue_options queue = CBR_QUEUE_OPTIONS_INIT;
  cbr_callback_options options = adder_options(&it, 1);
  queue.flags = CBR_QUEUE_OWNED;
  CHECK_OK(cbr_queue_open(&queue, &options.home));
  CHECK_OK(cbr_register_with(&options, &it.subject.handle));
  run_on_thread(opens_for_another_thread, &it);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

static int attached;
static void *attaches(void *user_data) {
  (void)user_data;
  attached++;
  return CBR_THREAD_NOT_OURS;
}

TEST(a_scopes_attach_function_runs_before_the_first_call_and_not_at_open) {
  struct adder it;
  cbr_callback_options options = adder_options(&it, 1);
  CHECK_OK(cbr_scope_open("plugin", &options.scope));
  CHECK_OK(cbr_scope_set_thread_hooks(options.scope, attaches, NULL, NULL, NULL));
  CHECK_OK(cbr_register_with(&options, &it.subject.handle));
  adder_open(&it);
  CHECK_EQ(attached, 0);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_EQ(attached, 1);
  CHECK_OK(cbr_scope_close(options.scope, -1, NULL));
}

static int deepest;
static void calls_itself(struct adder *it) {
  deepest = (int)cbr_depth();
  if (it->fn(1, NULL) == FALLBACK) CHECK_EQ(deepest, 4096);
}

TEST(nested_4096_deep_a_thunk_returns_the_fallback) {
  struct adder it;
  adder_begin(&it, 1);
  it.action = calls_itself;
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_EQ(deepest, 4096);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

/* Calls a gone callback's thunk of every return type; `read` sees the register as a wider type. */
#define CHECK_FALLBACK(type, wide, code, member, value, expected)                         \
  do {                                                                                    \
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;                             \
    cbr_handle handle;                                                                    \
    cbr_thunk thunk;                                                                      \
    options.fn = (cbr_any_fn)never_runs;                                                  \
    options.signature = CBR_SIG(code);                                                    \
    options.fallback.member = (value);                                                    \
    CHECK_OK(cbr_register_with(&options, &handle));                                       \
    cbr_any_fn fn = thunk_of(handle, options.signature, &thunk);                          \
    CHECK_OK(cbr_unregister(handle));                                                     \
    if (((type(*)(void))fn)() != (type)(expected)) FAIL(#code " returns another value");  \
    if (((wide(*)(void))fn)() != (wide)(expected)) FAIL(#code " is not extended rightly"); \
    CHECK_OK(cbr_thunk_close(thunk));                                                     \
    if (((type(*)(void))fn)() != (type)(expected)) FAIL(#code " differs once closed");    \
  } while (0)

static void never_runs(void *user_data) {
  (void)user_data;
  FAIL("a callback that is gone runs");
}

TEST(the_fallback_is_returned_as_each_type_asks_for) {
  CHECK_FALLBACK(bool, uint32_t, CBR_BOOL, u, 0x100, 1);
  CHECK_FALLBACK(int8_t, int32_t, CBR_I8, i, -5, -5);
  CHECK_FALLBACK(uint8_t, uint32_t, CBR_U8, u, 0xfffffa, 0xfa);
  CHECK_FALLBACK(int16_t, int32_t, CBR_I16, i, -300, -300);
  CHECK_FALLBACK(uint16_t, uint32_t, CBR_U16, u, 0xffff1234, 0x1234);
  CHECK_FALLBACK(int32_t, int32_t, CBR_I32, i, INT32_MIN, INT32_MIN);
  CHECK_FALLBACK(uint32_t, uint32_t, CBR_U32, u, UINT64_MAX, UINT32_MAX);
  CHECK_FALLBACK(int64_t, int64_t, CBR_I64, i, INT64_MIN, INT64_MIN);
  CHECK_FALLBACK(uint64_t, uint64_t, CBR_U64, u, UINT64_MAX, UINT64_MAX);
  CHECK_FALLBACK(float, float, CBR_F32, f32, -0.1f, -0.1f);
  CHECK_FALLBACK(double, double, CBR_F64, f64, -0.1, -0.1);
  CHECK_FALLBACK(void *, void *, CBR_PTR, ptr, &deepest, &deepest);
}

TEST(without_a_fallback_a_thunk_returns_zero) {
  struct adder it;
  cbr_callback_options options = adder_options(&it, 1);
  options.fallback.i = 0;
  options.name = NULL;
  CHECK_OK(cbr_register_with(&options, &it.subject.handle));
  adder_open(&it);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_unregister(it.subject.handle));
  CHECK_EQ(it.fn(1, NULL), 0);
}

/* --- logging -------------------------------------------------------------------------------- */

CHILD(calls_what_is_gone_and_what_is_closed) {
  struct adder gone, closed;
  adder_register(&gone, 1);
  adder_open(&gone);
  CHECK_OK(cbr_unregister(gone.subject.handle));
  for (int i = 0; i < 1000; i++) CHECK_EQ(gone.fn(i, NULL), FALLBACK);
  fprintf(stderr, "between\n");
  cbr_callback_options options = adder_options(&closed, 1);
  options.name = "closer";
  CHECK_OK(cbr_register_with(&options, &closed.subject.handle));
  adder_open(&closed);
  CHECK_OK(cbr_thunk_close(closed.thunk));
  CHECK_OK(cbr_unregister(closed.subject.handle));
  for (int i = 0; i < 1000; i++) CHECK_EQ(closed.fn(i, NULL), FALLBACK);
}

static int lines_of(const char *text) {
  int lines = 0;
  for (; *text != '\0'; text++) lines += *text == '\n';
  return lines;
}

TEST(calls_that_no_callback_got_are_logged_by_name_and_not_a_thousand_times) {
  char output[16384];
  const char *child = "calls_what_is_gone_and_what_is_closed";
  check_child(child, "CALLBRIDGE_LOG", "warn", output, sizeof output);
  char *between = strstr(output, "between\n");
  CHECK(between != NULL);
  *between = '\0';
  CHECK_CONTAINS(output, "i32(i32,ptr)");
  CHECK_CONTAINS(output, "'adder'");
  CHECK_CONTAINS(output, "its callback is gone");
  CHECK_EQ(lines_of(output), 10); /* the 1st, 2nd, 4th ... 512th */
  CHECK_CONTAINS(between + 1, "'closer'");
  CHECK_CONTAINS(between + 1, "it is closed");
  CHECK_EQ(lines_of(between + 1), 1 + 10);
}

/* --- refusals ------------------------------------------------------------------------------- */

TEST(an_open_that_is_refused_changes_nothing) {
  struct adder it;
  cbr_scope scope;
  uint32_t count = 0;
  cbr_any_fn fn = (cbr_any_fn)never_runs;
  cbr_thunk thunk = 4711;
  adder_register(&it, 1);
  cbr_handle handle = it.subject.handle;
  CHECK_OK(cbr_scope_open("scope", &scope));
  CHECK_REFUSED(cbr_thunk_open(handle, INT_SIGNATURE, 0, NULL, &thunk), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_thunk_open(handle, INT_SIGNATURE, 0, &fn, NULL), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_thunk_open(handle, 0, 0, &fn, &thunk), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_thunk_open(handle, INT_SIGNATURE | 1, 0, &fn, &thunk), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_thunk_open(handle, INT_SIGNATURE, 2, &fn, &thunk), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_thunk_open(handle, CBR_SIG_DEFAULT, 0, &fn, &thunk), CBR_ERR_SIGNATURE);
  /* At any check level: whoever calls the address knows nothing of it. */
  CHECK_OK(cbr_set_check(0));
  CHECK_REFUSED(cbr_thunk_open(handle, CBR_SIG_DEFAULT, 0, &fn, &thunk), CBR_ERR_SIGNATURE);
  CHECK_OK(cbr_set_check(1));
  CHECK_WORDS("i32(i32,ptr)");
  CHECK_REFUSED(cbr_thunk_open(0, INT_SIGNATURE, 0, &fn, &thunk), CBR_ERR_STALE);
  CHECK_REFUSED(cbr_thunk_open(scope, INT_SIGNATURE, 0, &fn, &thunk), CBR_ERR_KIND);
  CHECK_OK(cbr_refcount(handle, &count));
  CHECK_EQ(count, 1);
  CHECK(fn == (cbr_any_fn)never_runs);
  CHECK_EQ(thunk, 4711);
  CHECK_OK(cbr_unregister(handle));
  CHECK_REFUSED(cbr_thunk_open(handle, INT_SIGNATURE, 0, &fn, &thunk), CBR_ERR_STALE);
  CHECK_EQ(thunk, 4711);
}

/* A signature that has had a thunk is remembered for good, and there is room for so many. */
TEST(opens_that_are_refused_use_nothing_up) {
  struct adder it;
  cbr_any_fn fn = NULL;
  cbr_thunk thunk = 0;
  adder_register(&it, 1);
  for (uint32_t i = 0; i < 40000; i++) {
    /* Eight arguments, each of one of eight types, and a result. */
    const uint64_t kinds = CBR_SIG(CBR_VOID, 2 + (i & 7), 2 + (i >> 3 & 7), 2 + (i >> 6 & 7),
                                   2 + (i >> 9 & 7), 2 + (i >> 12 & 7), CBR_PTR);
    CHECK_STATUS(cbr_thunk_open(it.subject.handle, kinds, 0, &fn, &thunk), CBR_ERR_SIGNATURE);
  }
  adder_open(&it);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_thunk_close(it.thunk));
  CHECK_OK(cbr_unregister(it.subject.handle));
}

TEST(a_thunk_is_no_other_object_and_no_other_object_a_thunk) {
  struct adder it;
  cbr_scope scope;
  intptr_t result = 0;
  adder_register(&it, 1);
  adder_open(&it);
  CHECK_OK(cbr_scope_open("scope", &scope));
  CHECK_REFUSED(cbr_call(it.thunk, NULL, &result), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_unregister(it.thunk), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_scope_close(it.thunk, 0, NULL), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_thunk_close(it.subject.handle), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_thunk_close(scope), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_thunk_retarget(it.thunk, it.thunk), CBR_ERR_KIND);
  CHECK(!cbr_is_live(it.thunk));
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_thunk_close(it.thunk));
  CHECK_REFUSED(cbr_call(it.thunk, NULL, &result), CBR_ERR_STALE);
}

TEST(numbers_that_are_no_open_thunk_are_stale) {
  struct adder it;
  adder_register(&it, 1);
  adder_open(&it);
  for (int bit = 0; bit < 64; bit++) {
    cbr_thunk forged = it.thunk ^ (cbr_thunk)1 << bit;
    cbr_status status = cbr_thunk_close(forged);
    CHECK(status == CBR_ERR_STALE || status == CBR_ERR_KIND);
    CHECK(cbr_thunk_retarget(forged, it.subject.handle) == status);
  }
  for (uint64_t index = 0; index < 1u << 14; index++) {
    cbr_thunk forged = (it.thunk & ~(uint64_t)0xfffffff) + index;
    if (forged != it.thunk) CHECK_STATUS(cbr_thunk_close(forged), CBR_ERR_STALE);
    CHECK_STATUS(cbr_thunk_close(forged & 0xffffffff), CBR_ERR_STALE);
  }
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_thunk_close(it.thunk));
  CHECK_REFUSED(cbr_thunk_close(it.thunk), CBR_ERR_STALE);
  CHECK_REFUSED(cbr_thunk_retarget(it.thunk, it.subject.handle), CBR_ERR_STALE);
  CHECK_REFUSED(cbr_thunk_close(0), CBR_ERR_STALE);
}

/* --- references and retargeting -------------------------------------------------------------- */

TEST(a_thunk_owns_a_reference_until_it_is_closed) {
  struct adder it;
  uint32_t count = 0;
  adder_register(&it, 1);
  adder_open(&it);
  CHECK_OK(cbr_refcount(it.subject.handle, &count));
  CHECK_EQ(count, 2);
  CHECK_OK(cbr_release(it.subject.handle));
  CHECK_EQ(it.subject.destroyed, 0);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_thunk_close(it.thunk));
  CHECK_EQ(it.subject.destroyed, 1);
}

TEST(retarget_changes_callback_reference_and_fallback) {
  struct adder first, second;
  adder_begin(&first, 1);
  cbr_callback_options options = adder_options(&second, 1000);
  options.fallback.i = -88;
  CHECK_OK(cbr_register_with(&options, &second.subject.handle));
  CHECK_OK(cbr_thunk_retarget(first.thunk, second.subject.handle));
  CHECK_EQ(first.subject.destroyed, 1);
  CHECK_EQ(first.fn(1, NULL), 1001);
  CHECK_OK(cbr_release(second.subject.handle));
  CHECK_EQ(first.fn(1, NULL), 1001);
  CHECK_OK(cbr_thunk_close(first.thunk));
  CHECK_EQ(second.subject.destroyed, 1);
  CHECK_EQ(first.fn(1, NULL), -88);
}

/* The words are about this object. */
static void check_words_name(uint64_t number) {
  char text[32];
  snprintf(text, sizeof text, "(handle 0x%llx)", (unsigned long long)number);
  CHECK_WORDS(text);
}

TEST(a_retarget_that_is_refused_changes_nothing) {
  struct adder it, gone;
  struct subject other;
  uint32_t count = 0;
  adder_begin(&it, 1);
  adder_register(&gone, 1);
  CHECK_OK(cbr_unregister(gone.subject.handle));
  subject_register(&other);
  CHECK_REFUSED(cbr_thunk_retarget(it.thunk, other.handle), CBR_ERR_SIGNATURE);
  check_words_name(other.handle);
  CHECK_REFUSED(cbr_thunk_retarget(it.thunk, gone.subject.handle), CBR_ERR_STALE);
  check_words_name(gone.subject.handle);
  CHECK_REFUSED(cbr_thunk_retarget(it.thunk, 0), CBR_ERR_STALE);
  CHECK_OK(cbr_refcount(other.handle, &count));
  CHECK_EQ(count, 1);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_thunk_close(it.thunk));
  CHECK_REFUSED(cbr_thunk_retarget(it.thunk, other.handle), CBR_ERR_STALE);
  check_words_name(it.thunk);
}

TEST(retarget_revives_a_thunk_whose_callback_is_gone) {
  struct adder it, next;
  adder_register(&it, 1);
  adder_open(&it);
  CHECK_OK(cbr_unregister(it.subject.handle));
  CHECK_EQ(it.fn(1, NULL), FALLBACK);
  adder_register(&next, 5);
  CHECK_OK(cbr_thunk_retarget(it.thunk, next.subject.handle));
  CHECK_EQ(it.fn(1, NULL), 6);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

/* --- from inside its own call ----------------------------------------------------------------- */

static void closes_itself(struct adder *it) {
  it->action = NULL;
  CHECK_OK(cbr_thunk_close(it->thunk));
  CHECK_EQ(it->subject.destroyed, 0);
  CHECK_EQ(it->fn(1, NULL), FALLBACK);
}

TEST(a_thunk_closed_inside_its_own_call_finishes_that_call) {
  struct adder it;
  adder_begin(&it, 1);
  it.action = closes_itself;
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_EQ(it.subject.destroyed, 1);
  CHECK_EQ(it.fn(1, NULL), FALLBACK);
}

static void retargets_itself(struct adder *it) {
  struct adder *next = (struct adder *)it->extra;
  it->action = NULL;
  CHECK_OK(cbr_thunk_retarget(it->thunk, next->subject.handle));
  CHECK_EQ(it->subject.destroyed, 0);
  CHECK_EQ(it->fn(1, NULL), 6);
}

TEST(a_thunk_retargeted_inside_its_own_call_finishes_that_call) {
  struct adder it, next;
  adder_begin(&it, 1);
  adder_register(&next, 5);
  it.action = retargets_itself;
  it.extra = &next;
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_EQ(it.subject.destroyed, 1);
  CHECK_EQ(it.fn(1, NULL), 6);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

static int_fn closed_by_destroy;
static void calls_the_closed_thunk(struct subject *it) {
  (void)it;
  CHECK_EQ(closed_by_destroy(1, NULL), FALLBACK);
}

TEST(a_destroy_function_may_call_the_thunk_that_is_being_closed) {
  struct adder it;
  adder_begin(&it, 1);
  closed_by_destroy = it.fn;
  it.subject.on_destroy = calls_the_closed_thunk;
  CHECK_OK(cbr_thunk_close(it.thunk));
  CHECK_EQ(it.subject.destroyed, 1);
}

TEST(a_thunk_works_in_the_child_of_a_fork) {
  struct adder it;
  adder_begin(&it, 1);
  pid_t child = fork_watched();
  if (child == 0) {
    struct adder other;
    CHECK_EQ(it.fn(1, NULL), 2);
    adder_begin(&other, 3);
    CHECK_EQ(other.fn(1, NULL), 4);
    CHECK_OK(cbr_thunk_close(it.thunk));
    CHECK_EQ(it.fn(1, NULL), FALLBACK);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_EQ(it.fn(1, NULL), 2);
  CHECK_OK(cbr_thunk_close(it.thunk));
}
