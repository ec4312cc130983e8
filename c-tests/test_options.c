/* cbr_register_with: what each field does, and what is refused. */
#include "support_subject.h"

static cbr_callback_options options_for(struct subject *it) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = it;
  options.destroy = subject_destroy;
  return options;
}

/* Refused, with words, and nothing taken over. */
static void check_refused(const cbr_callback_options *options, struct subject *it,
                          cbr_status status) {
  cbr_handle handle = 99;
  int before = it->destroyed;
  CHECK_REFUSED(cbr_register_with(options, &handle), status);
  CHECK_EQ(handle, 99);
  CHECK_EQ(it->destroyed, before);
  CHECK_EQ(it->calls, 0);
}

static void check_accepted(const cbr_callback_options *options, struct subject *it) {
  int before = it->destroyed;
  CHECK_OK(cbr_register_with(options, &it->handle));
  CHECK(cbr_is_live(it->handle));
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_EQ(it->destroyed, before + 1);
  it->state = SUBJECT_ALIVE;
}

TEST(the_initializer_sets_the_size_and_nothing_else) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT, zero;
  memset(&zero, 0, sizeof zero);
  CHECK_EQ(options.size, sizeof options);
  zero.size = options.size;
  CHECK(memcmp(&options, &zero, sizeof zero) == 0);
}

TEST(default_options_do_what_register_does) {
  struct subject it;
  intptr_t result = 0;
  uint32_t count = 0;
  cbr_callback_options options = options_for(&it);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_OK(cbr_refcount(it.handle, &count));
  CHECK_EQ(count, 1);
  CHECK_OK(cbr_call(it.handle, NULL, &result));
  CHECK_EQ(result, SUBJECT_RESULT);
  CHECK_OK(cbr_release(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(null_options_and_a_null_handle_are_invalid) {
  struct subject it;
  cbr_handle handle = 99;
  cbr_callback_options options = options_for(&it);
  CHECK_REFUSED(cbr_register_with(NULL, &handle), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_register_with(&options, NULL), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_register_with(NULL, NULL), CBR_ERR_INVALID);
  CHECK_EQ(handle, 99);
  CHECK_EQ(it.destroyed, 0);
}

TEST(a_null_function_in_options_is_refused) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  options.fn = NULL;
  check_refused(&options, &it, CBR_ERR_NULL);
}

TEST(a_size_too_small_for_the_first_version_is_invalid) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  static const size_t sizes[] = {0, 1, sizeof(size_t), sizeof(cbr_callback_options) - 1};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    options.size = sizes[i];
    check_refused(&options, &it, CBR_ERR_INVALID);
  }
}

TEST(a_larger_structure_is_accepted_while_its_tail_is_zero) {
  struct subject it;
  static union {
    cbr_callback_options options;
    unsigned char bytes[4096];
  } large;
  for (size_t extra = 1; extra <= sizeof large - sizeof large.options; extra = extra * 2 + 7) {
    memset(&large, 0, sizeof large);
    large.options = options_for(&it);
    large.options.size = sizeof large.options + extra;
    check_accepted(&large.options, &it);
    large.bytes[sizeof large.options] = 1;
    check_refused(&large.options, &it, CBR_ERR_UNSUPPORTED);
    large.bytes[sizeof large.options] = 0;
    large.bytes[large.options.size - 1] = 0x80;
    check_refused(&large.options, &it, CBR_ERR_UNSUPPORTED);
  }
  memset(&large, 0, sizeof large);
  large.options = options_for(&it);
  large.options.size = sizeof large;
  check_accepted(&large.options, &it);
}

/* Not read at all: a size this large is garbage, and reading that far would crash. */
TEST(an_absurd_size_is_invalid) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  static const size_t sizes[] = {4097, (size_t)1 << 31, SIZE_MAX / 2, SIZE_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    options.size = sizes[i];
    check_refused(&options, &it, CBR_ERR_INVALID);
  }
}

TEST(unknown_flags_are_invalid) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  for (int bit = 2; bit < 32; bit++) {
    options.flags = (uint32_t)1 << bit;
    check_refused(&options, &it, CBR_ERR_INVALID);
  }
  options.flags = UINT32_MAX;
  check_refused(&options, &it, CBR_ERR_INVALID);
}

TEST(flags_can_be_combined) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  options.flags = CBR_METERED;
  check_accepted(&options, &it);
  options.flags = CBR_METERED | CBR_PIN_MODULE;
  check_accepted(&options, &it);
}

TEST(a_queue_that_never_was_is_stale) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  options.home = 1;
  check_refused(&options, &it, CBR_ERR_STALE);
  options.home = 0;
  options.destroy_queue = 1;
  check_refused(&options, &it, CBR_ERR_STALE);
}

TEST(a_scope_that_never_was_is_stale) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  options.scope = 1;
  check_refused(&options, &it, CBR_ERR_STALE);
}

TEST(malformed_signatures_are_invalid) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  static const cbr_signature malformed[] = {
      0xf7ddddddddddddddu,    /* 15 arguments */
      0xf700000000000000u, 1, /* no return type */
      0x00d0000000000000u,    /* no return type */
      0x07d0000000000000u,    /* an argument beyond the count */
      0x2dd0000000000000u,    /* fewer arguments than the count */
      0x1d10000000000000u,    /* a void argument */
      0x1dd0000000000001u,    /* something in the unused bits */
      0x1de0000000000000u, 0x0f00000000000000u,
      0x0e00000000000000u, /* no such type */
      UINT64_MAX,
  };
  for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
    options.signature = malformed[i];
    check_refused(&options, &it, CBR_ERR_INVALID);
  }
}

static int32_t sum(void *user_data, int32_t left, int32_t right) {
  subject_check_alive((struct subject *)user_data);
  return left + right;
}

TEST(a_callback_of_another_signature_is_entered_with_that_signature) {
  struct subject it;
  cbr_pin pin;
  cbr_callback_options options = options_for(&it);
  options.fn = (cbr_any_fn)sum;
  options.signature = CBR_SIG(CBR_I32, CBR_I32, CBR_I32);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_OK(cbr_enter(it.handle, CBR_SIG(CBR_I32, CBR_I32, CBR_I32), &pin));
  CHECK_EQ(((int32_t (*)(void *, int32_t, int32_t))pin.fn)(pin.user_data, 40, 2), 42);
  CHECK_OK(cbr_leave(&pin));

  intptr_t result = 77;
  CHECK_REFUSED(cbr_call(it.handle, NULL, &result), CBR_ERR_SIGNATURE);
  CHECK_EQ(result, 77);
  CHECK_WORDS("i32(i32,i32)");
  CHECK_WORDS("i64(ptr)");
  CHECK_REFUSED(cbr_enter(it.handle, CBR_SIG(CBR_VOID), &pin), CBR_ERR_SIGNATURE);
  CHECK_WORDS("i32(i32,i32)");
  CHECK_WORDS("void()");
  CHECK_REFUSED(cbr_hold(it.handle, CBR_SIG_DEFAULT, &pin), CBR_ERR_SIGNATURE);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_enter(it.handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(signature_zero_means_the_default_signature) {
  struct subject it;
  cbr_pin pin;
  cbr_callback_options options = options_for(&it);
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_OK(cbr_enter(it.handle, CBR_SIG_DEFAULT, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_unregister(it.handle));
  it.state = SUBJECT_ALIVE;
  options.signature = CBR_SIG_DEFAULT;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_name_has_at_most_255_bytes) {
  struct subject it;
  char name[258];
  cbr_callback_options options = options_for(&it);
  memset(name, 'n', sizeof name);
  name[sizeof name - 1] = '\0';
  options.name = name;
  check_refused(&options, &it, CBR_ERR_INVALID);
  name[256] = '\0';
  check_refused(&options, &it, CBR_ERR_INVALID);
  name[255] = '\0';
  check_accepted(&options, &it);
  name[0] = '\0';
  check_accepted(&options, &it);
}

TEST(a_name_must_be_utf8) {
  struct subject it;
  cbr_callback_options options = options_for(&it);
  static const char *const bad[] = {"\x80",     "\xff",         "n\xc3",
                                    "\xc0\xaf", "\xed\xa0\x80", "\xf8\x88\x80\x80\x80"};
  static const char *const good[] = {"plain", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    options.name = bad[i];
    check_refused(&options, &it, CBR_ERR_INVALID);
  }
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    options.name = good[i];
    check_accepted(&options, &it);
  }
}

TEST(options_and_name_are_copied) {
  struct subject it;
  char *name = strdup("given back before use");
  cbr_callback_options *options = (cbr_callback_options *)malloc(sizeof *options);
  CHECK(name != NULL && options != NULL);
  *options = options_for(&it);
  options->name = name;
  options->fallback.i = 12;
  CHECK_OK(cbr_register_with(options, &it.handle));
  memset(name, 0xff, strlen(name));
  memset(options, 0xff, sizeof *options);
  free(name);
  free(options);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(it.handle), NULL), 12);
  CHECK_EQ(it.destroyed, 1);
}
