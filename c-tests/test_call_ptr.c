/* cbr_call_ptr and cbr_release_ptr: a handle in the place of a C API's void pointer. */
#include "support_subject.h"

/* What such an API looks like. */
struct foreign_api {
  intptr_t (*notify)(void *data, void *event);
  void (*free_data)(void *data);
  void *data;
};

static intptr_t returns_arg(void *user_data, void *arg) {
  subject_check_alive((struct subject *)user_data);
  return (intptr_t)arg;
}

static cbr_callback_options options_for(struct subject *it) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(it);
  options.fn = (cbr_any_fn)returns_arg;
  options.user_data = it;
  options.destroy = subject_destroy;
  options.fallback.i = -7;
  return options;
}

TEST(a_handle_travels_as_a_pointer_and_comes_back_as_a_call) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  struct foreign_api api = {cbr_call_ptr, cbr_release_ptr, CBR_TO_PTR(it.handle)};
  CHECK_EQ((uintptr_t)api.data, it.handle);
  CHECK_EQ(api.notify(api.data, (void *)123), 123);
  api.free_data(api.data);
  CHECK_EQ(it.destroyed, 1);
}

TEST(release_ptr_gives_back_one_reference) {
  struct subject it;
  uint32_t count = 0;
  subject_register(&it);
  CHECK_OK(cbr_retain(it.handle));
  cbr_release_ptr(CBR_TO_PTR(it.handle));
  CHECK_OK(cbr_refcount(it.handle, &count));
  CHECK_EQ(count, 1);
  CHECK_EQ(it.destroyed, 0);
  cbr_release_ptr(CBR_TO_PTR(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(release_ptr_of_a_stale_handle_does_nothing_but_leaves_words) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(cbr_last_error(NULL, 0), 0);
  cbr_release_ptr(CBR_TO_PTR(it.handle));
  CHECK(cbr_last_error(NULL, 0) > 0);
  cbr_release_ptr(NULL);
  CHECK_EQ(it.destroyed, 1);
}

TEST(call_ptr_of_a_gone_callback_returns_its_fallback) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it.handle), (void *)123), -7);
}

TEST(call_ptr_of_a_revoked_callback_returns_its_fallback) {
  struct subject it;
  cbr_pin pin;
  cbr_callback_options options = options_for(&it);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_OK(cbr_hold(it.handle, 0, &pin));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it.handle), (void *)123), -7);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(it.destroyed, 1);
}

TEST(call_ptr_of_what_never_was_returns_zero) {
  struct subject it;
  CHECK_EQ(cbr_call_ptr(NULL, (void *)123), 0);
  CHECK_EQ(cbr_call_ptr((void *)1, (void *)123), 0);
  CHECK_EQ(cbr_call_ptr((void *)UINTPTR_MAX, (void *)123), 0);
  cbr_callback_options options = options_for(&it);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it.handle + ((uint64_t)12345 << 32)), (void *)123), 0);
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it.handle - ((uint64_t)12345 << 32)), (void *)123), 0);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(call_ptr_never_returns_another_callbacks_fallback) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  cbr_handle old;
  CHECK_OK(cbr_register_with(&options, &old));
  CHECK_OK(cbr_unregister(old));
  options.fallback.i = -8;
  for (int i = 0; i < 1000; i++) { /* whoever gets the old place, the old handle is not theirs */
    it.state = SUBJECT_ALIVE;
    CHECK_OK(cbr_register_with(&options, &it.handle));
    intptr_t got = cbr_call_ptr(CBR_TO_PTR(old), (void *)123);
    CHECK(got == -7 || got == 0);
    CHECK_OK(cbr_unregister(it.handle));
  }
}

static intptr_t fails(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "not today"));
  return 99;
}

TEST(call_ptr_of_a_failing_callback_returns_its_fallback) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  options.fn = (cbr_any_fn)fails;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it.handle), NULL), -7);
  CHECK_WORDS("not today");
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(call_ptr_of_another_signature_returns_its_fallback) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  options.signature = CBR_SIG(CBR_VOID);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it.handle), NULL), -7);
  CHECK_EQ(it.calls, 0);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t ends_itself(void *user_data, void *arg) {
  struct subject *it = (struct subject *)user_data;
  cbr_release_ptr(arg);
  CHECK_EQ(it->destroyed, 0);
  CHECK_EQ(cbr_depth(), 1);
  return 11;
}

TEST(call_ptr_protects_like_call) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  options.fn = (cbr_any_fn)ends_itself;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it.handle), CBR_TO_PTR(it.handle)), 11);
  CHECK_EQ(it.destroyed, 1);
  CHECK_EQ(cbr_depth(), 0);
}
