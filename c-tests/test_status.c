/* Statuses, versions, and the last failure in words. */
#include "support_threads.h"

static const struct {
  cbr_status number;
  cbr_status documented;
  const char *name;
} statuses[] = {
    {CBR_OK, 0, "CBR_OK"},
    {CBR_ERR_NULL, -1, "CBR_ERR_NULL"},
    {CBR_ERR_PANIC, -2, "CBR_ERR_PANIC"},
    {CBR_ERR_STALE, -3, "CBR_ERR_STALE"},
    {CBR_ERR_INVALID, -4, "CBR_ERR_INVALID"},
    {CBR_ERR_KIND, -5, "CBR_ERR_KIND"},
    {CBR_ERR_SIGNATURE, -6, "CBR_ERR_SIGNATURE"},
    {CBR_ERR_THREAD, -7, "CBR_ERR_THREAD"},
    {CBR_ERR_DEADLOCK, -8, "CBR_ERR_DEADLOCK"},
    {CBR_ERR_TIMEOUT, -9, "CBR_ERR_TIMEOUT"},
    {CBR_ERR_FULL, -10, "CBR_ERR_FULL"},
    {CBR_ERR_EMPTY, -11, "CBR_ERR_EMPTY"},
    {CBR_ERR_CLOSED, -12, "CBR_ERR_CLOSED"},
    {CBR_ERR_EXISTS, -13, "CBR_ERR_EXISTS"},
    {CBR_ERR_NOT_FOUND, -14, "CBR_ERR_NOT_FOUND"},
    {CBR_ERR_LIMIT, -15, "CBR_ERR_LIMIT"},
    {CBR_ERR_NOMEM, -16, "CBR_ERR_NOMEM"},
    {CBR_ERR_SYSTEM, -17, "CBR_ERR_SYSTEM"},
    {CBR_ERR_UNSUPPORTED, -18, "CBR_ERR_UNSUPPORTED"},
    {CBR_ERR_CALLBACK, -19, "CBR_ERR_CALLBACK"},
};
enum { STATUSES = sizeof statuses / sizeof statuses[0] };

_Static_assert(sizeof(cbr_status) == 4, "cbr_status is int32_t");
_Static_assert((cbr_status)-1 < 0, "cbr_status is signed");

TEST(statuses_have_their_documented_numbers) {
  for (int i = 0; i < STATUSES; i++) CHECK_EQ(statuses[i].number, statuses[i].documented);
}

TEST(every_status_has_its_own_name) {
  for (int i = 0; i < STATUSES; i++) {
    CHECK_STR(cbr_status_name(statuses[i].number), statuses[i].name);
  }
}

TEST(every_status_has_a_message_of_its_own) {
  for (int i = 0; i < STATUSES; i++) {
    const char *message = cbr_status_message(statuses[i].number);
    CHECK(message != NULL && strlen(message) > 2);
    for (int j = 0; j < i; j++) {
      CHECK(strcmp(message, cbr_status_message(statuses[j].number)) != 0);
    }
  }
}

TEST(an_unknown_status_has_a_name_and_a_message_too) {
  static const cbr_status unknown[] = {1, -20, -1000, INT32_MAX, INT32_MIN};
  for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
    CHECK_STR(cbr_status_name(unknown[i]), "CBR_ERR_UNKNOWN");
    CHECK(cbr_status_message(unknown[i]) != NULL);
    CHECK(cbr_status_message(unknown[i])[0] != '\0');
  }
}

TEST(the_librarys_version_is_the_headers) {
  CHECK_EQ(cbr_version(), (CALLBRIDGE_VERSION_MAJOR << 16) | (CALLBRIDGE_VERSION_MINOR << 8) |
                              CALLBRIDGE_VERSION_PATCH);
  CHECK_STR(cbr_version_string(), CALLBRIDGE_VERSION_STRING);
  char text[64];
  snprintf(text, sizeof text, "%u.%u.%u", cbr_version() >> 16, (cbr_version() >> 8) & 0xff,
           cbr_version() & 0xff);
  CHECK_STR(cbr_version_string(), text);
}

TEST(last_error_is_empty_before_any_failure) {
  char words[16] = "before";
  CHECK_EQ(cbr_last_error(words, sizeof words), 0);
  CHECK_STR(words, "");
  CHECK_EQ(cbr_last_error(NULL, 0), 0);
}

TEST(last_error_returns_the_length_needed_like_snprintf) {
  char whole[1024], part[8];
  CHECK_STATUS(cbr_unregister(CBR_HANDLE_NONE), CBR_ERR_STALE);
  size_t length = cbr_last_error(whole, sizeof whole);
  CHECK(length >= sizeof part && length < sizeof whole);
  CHECK_EQ(strlen(whole), length);
  CHECK_EQ(cbr_last_error(NULL, 0), length);

  memset(part, 'x', sizeof part);
  CHECK_EQ(cbr_last_error(part, sizeof part), length);
  CHECK_EQ(part[sizeof part - 1], '\0');
  CHECK(strncmp(part, whole, sizeof part - 1) == 0);

  memset(part, 'x', sizeof part);
  CHECK_EQ(cbr_last_error(part, 1), length);
  CHECK_EQ(part[0], '\0');
  CHECK_EQ(part[1], 'x');

  CHECK_EQ(cbr_last_error(part, 0), length);
  CHECK_EQ(part[0], '\0');
  CHECK_EQ(part[1], 'x');

  CHECK_EQ(cbr_last_error(whole, length + 1), length);
  CHECK_EQ(strlen(whole), length);
}

static intptr_t nothing(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  return 0;
}

TEST(last_error_keeps_the_last_failure_through_successes) {
  char before[512], after[512];
  cbr_handle handle;
  CHECK_STATUS(cbr_retain(12345), CBR_ERR_STALE);
  CHECK(cbr_last_error(before, sizeof before) > 0);
  CHECK_OK(cbr_register(nothing, NULL, NULL, &handle));
  CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_OK(cbr_unregister(handle));
  cbr_last_error(after, sizeof after);
  CHECK_STR(after, before);
  CHECK_STATUS(cbr_register(NULL, NULL, NULL, &handle), CBR_ERR_NULL);
  cbr_last_error(after, sizeof after);
  CHECK(strcmp(after, before) != 0);
}

TEST(last_error_tells_failures_apart) {
  char null_words[512], stale_words[512], limit_words[512];
  cbr_handle handle;
  CHECK_STATUS(cbr_register(NULL, NULL, NULL, &handle), CBR_ERR_NULL);
  cbr_last_error(null_words, sizeof null_words);
  CHECK_STATUS(cbr_unregister(CBR_HANDLE_NONE), CBR_ERR_STALE);
  cbr_last_error(stale_words, sizeof stale_words);
  CHECK_STATUS(cbr_register(nothing, NULL, NULL, NULL), CBR_ERR_INVALID);
  cbr_last_error(limit_words, sizeof limit_words);
  CHECK(strcmp(null_words, stale_words) != 0);
  CHECK(strcmp(limit_words, stale_words) != 0);
  CHECK(strcmp(limit_words, null_words) != 0);
}

static void *other_threads_error(void *arg) {
  (void)arg;
  CHECK_EQ(cbr_last_error(NULL, 0), 0);
  CHECK_STATUS(cbr_signature_parse("nonsense", NULL), CBR_ERR_INVALID);
  CHECK(cbr_last_error(NULL, 0) > 0);
  return NULL;
}

TEST(last_error_is_the_threads_own) {
  char before[512], after[512];
  CHECK_STATUS(cbr_release(CBR_HANDLE_NONE), CBR_ERR_STALE);
  cbr_last_error(before, sizeof before);
  run_on_thread(other_threads_error, NULL);
  cbr_last_error(after, sizeof after);
  CHECK_STR(after, before);
}
