/* cbr_fail and on_error: how a callback reports that it failed. */
#include "support_subject.h"

struct report {
  cbr_status status;
  const char *message;
};

static intptr_t fails(struct subject *it, void *arg) {
  struct report *report = (struct report *)arg;
  (void)it;
  CHECK_OK(cbr_fail(report->status, report->message));
  return 1;
}

TEST(a_failed_call_returns_the_status_and_the_words_and_no_result) {
  struct subject it;
  intptr_t result = 77;
  struct report callback = {CBR_ERR_CALLBACK, "the disk is full"};
  struct report panic = {CBR_ERR_PANIC, "index 7 out of range"};
  subject_register(&it);
  CHECK_REFUSED(subject_run(&it, fails, &callback, &result), CBR_ERR_CALLBACK);
  CHECK_WORDS("the disk is full");
  CHECK_REFUSED(subject_run(&it, fails, &panic, &result), CBR_ERR_PANIC);
  CHECK_WORDS("index 7 out of range");
  CHECK_EQ(result, 77);
  CHECK_OK(cbr_call(it.handle, NULL, &result)); /* the failure was that call's alone */
  CHECK_EQ(result, SUBJECT_RESULT);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

static intptr_t fails_twice(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, "first"));
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "second"));
  return 0;
}

TEST(the_last_failure_of_a_call_wins) {
  struct subject it;
  subject_register(&it);
  CHECK_REFUSED(subject_run(&it, fails_twice, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_WORDS("second");
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t fails_with_numbers(struct subject *it, void *arg) {
  static const cbr_status refused[] = {CBR_OK, CBR_ERR_STALE,     CBR_ERR_INVALID, 1,
                                       -20,    CBR_ERR_NOT_FOUND, INT32_MAX,       INT32_MIN};
  (void)it;
  (void)arg;
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    CHECK_REFUSED(cbr_fail(refused[i], "no such failure"), CBR_ERR_INVALID);
  }
  return 3;
}

TEST(fail_takes_only_callback_and_panic) {
  struct subject it;
  intptr_t result = 0;
  subject_register(&it);
  CHECK_OK(subject_run(&it, fails_with_numbers, NULL, &result));
  CHECK_EQ(result, 3);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(fail_outside_any_callback_is_invalid) {
  CHECK_REFUSED(cbr_fail(CBR_ERR_CALLBACK, "nobody is here"), CBR_ERR_INVALID);
}

static intptr_t calls_a_failing_one(struct subject *it, void *arg) {
  struct subject *inner = (struct subject *)arg;
  struct report report = {CBR_ERR_CALLBACK, "inside"};
  (void)it;
  CHECK_REFUSED(subject_run(inner, fails, &report, NULL), CBR_ERR_CALLBACK);
  return 5;
}

TEST(a_failure_marks_the_innermost_call_only) {
  struct subject outer, inner;
  intptr_t result = 0;
  subject_register(&outer);
  subject_register(&inner);
  CHECK_OK(subject_run(&outer, calls_a_failing_one, &inner, &result));
  CHECK_EQ(result, 5);
  CHECK_OK(cbr_unregister(outer.handle));
  CHECK_OK(cbr_unregister(inner.handle));
}

static intptr_t fails_after_an_inner_call(struct subject *it, void *arg) {
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "the outer one's reason"));
  calls_a_failing_one(it, arg);
  CHECK_OK(cbr_call(((struct subject *)arg)->handle, NULL, NULL));
  return 0;
}

TEST(an_inner_calls_failure_does_not_replace_the_outer_ones) {
  struct subject outer, inner;
  subject_register(&outer);
  subject_register(&inner);
  CHECK_REFUSED(subject_run(&outer, fails_after_an_inner_call, &inner, NULL), CBR_ERR_CALLBACK);
  CHECK_WORDS("the outer one's reason");
  CHECK_OK(cbr_unregister(outer.handle));
  CHECK_OK(cbr_unregister(inner.handle));
}

TEST(leave_returns_the_failure_and_leaves_all_the_same) {
  struct subject it;
  cbr_pin pin;
  subject_register(&it);
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, "in the pin"));
  CHECK_REFUSED(cbr_leave(&pin), CBR_ERR_PANIC);
  CHECK_WORDS("in the pin");
  CHECK_EQ(cbr_depth(), 0);
  CHECK_REFUSED(cbr_leave(&pin), CBR_ERR_STALE);
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(a_failure_belongs_to_the_pin_that_was_innermost) {
  struct subject outer, inner;
  cbr_pin outer_pin, inner_pin;
  subject_register(&outer);
  subject_register(&inner);
  CHECK_OK(cbr_enter(outer.handle, 0, &outer_pin));
  CHECK_OK(cbr_enter(inner.handle, 0, &inner_pin));
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "the inner pin"));
  CHECK_OK(cbr_leave(&outer_pin));
  CHECK_REFUSED(cbr_leave(&inner_pin), CBR_ERR_CALLBACK);
  CHECK_WORDS("the inner pin");
  CHECK_OK(cbr_unregister(outer.handle));
  CHECK_OK(cbr_unregister(inner.handle));
}

static intptr_t fails_at_length(struct subject *it, void *arg) {
  char *message = strdup((const char *)arg);
  (void)it;
  CHECK(message != NULL);
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, message));
  memset(message, '#', strlen(message));
  free(message);
  return 0;
}

TEST(the_message_is_copied) {
  struct subject it;
  subject_register(&it);
  CHECK_REFUSED(subject_run(&it, fails_at_length, (void *)"a message on the heap", NULL),
                CBR_ERR_CALLBACK);
  CHECK_WORDS("a message on the heap");
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(any_message_will_do) {
  static char endless[100000];
  struct subject it;
  struct report none = {CBR_ERR_CALLBACK, NULL}, not_utf8 = {CBR_ERR_PANIC, "\xff\xfe\x80"};
  memset(endless, 'm', sizeof endless - 1);
  subject_register(&it);
  CHECK_REFUSED(subject_run(&it, fails_at_length, (void *)"", NULL), CBR_ERR_CALLBACK);
  CHECK_REFUSED(subject_run(&it, fails_at_length, endless, NULL), CBR_ERR_CALLBACK);
  CHECK_WORDS("mmmmmmmm");
  CHECK_REFUSED(subject_run(&it, fails, &none, NULL), CBR_ERR_CALLBACK);
  CHECK_REFUSED(subject_run(&it, fails, &not_utf8, NULL), CBR_ERR_PANIC);
  CHECK_OK(cbr_unregister(it.handle));
}

struct heard {
  int times;
  cbr_handle handle;
  cbr_status status;
  char message[64];
  uint32_t depth;
  int destroyed_meanwhile;
};

static void listen(void *user_data, cbr_handle handle, cbr_status status, const char *message) {
  struct subject *it = (struct subject *)user_data;
  struct heard *heard = (struct heard *)it->extra;
  subject_check_alive(it);
  CHECK_EQ(cbr_current(), handle);
  heard->times++;
  heard->handle = handle;
  heard->status = status;
  heard->depth = cbr_depth();
  snprintf(heard->message, sizeof heard->message, "%s", message);
  if (cbr_is_live(handle)) CHECK_OK(cbr_unregister(handle));
  heard->destroyed_meanwhile += it->destroyed;
  subject_check_alive(it);
}

TEST(on_error_is_told_of_every_failure_inside_the_calls_protection) {
  struct subject it;
  struct heard heard;
  struct report report = {CBR_ERR_PANIC, "told"};
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  memset(&heard, 0, sizeof heard);
  subject_reset(&it);
  it.extra = &heard;
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.on_error = listen;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_EQ(heard.times, 0);
  CHECK_REFUSED(subject_run(&it, fails, &report, NULL), CBR_ERR_PANIC);
  CHECK_EQ(heard.times, 1);
  CHECK_EQ(heard.handle, it.handle);
  CHECK_EQ(heard.status, CBR_ERR_PANIC);
  CHECK_STR(heard.message, "told");
  CHECK_EQ(heard.depth, 1);
  CHECK_EQ(heard.destroyed_meanwhile, 0);
  CHECK_EQ(it.destroyed, 1); /* on_error unregistered it; the call's end let it go */
}

TEST(on_error_is_told_of_each_failure_of_a_call) {
  struct subject it;
  struct heard heard;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  memset(&heard, 0, sizeof heard);
  subject_reset(&it);
  it.extra = &heard;
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.on_error = listen;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_REFUSED(subject_run(&it, fails_twice, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_EQ(heard.times, 2);
  CHECK_STR(heard.message, "second");
  CHECK_EQ(it.destroyed, 1);
}

static void fails_in_destroy(struct subject *it) {
  (void)it;
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, "nobody can be told"));
}

static intptr_t ends_one_whose_destroy_fails(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_unregister(((struct subject *)arg)->handle));
  return 6;
}

TEST(a_failing_destroy_is_logged_and_fails_no_call) {
  struct subject outer, inner;
  intptr_t result = 0;
  subject_register(&outer);
  subject_register(&inner);
  inner.on_destroy = fails_in_destroy;
  CHECK_OK(subject_run(&outer, ends_one_whose_destroy_fails, &inner, &result));
  CHECK_EQ(result, 6);
  CHECK_EQ(inner.destroyed, 1);
  CHECK_OK(cbr_unregister(outer.handle));
  subject_register(&inner);
  inner.on_destroy = fails_in_destroy;
  CHECK_OK(cbr_unregister(inner.handle));
  CHECK_EQ(inner.destroyed, 1);
}
