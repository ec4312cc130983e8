/* Registering, references, and the end of a callback's life. */
#include "support_subject.h"

TEST(register_gives_one_reference) {
  struct subject it;
  uint32_t count = 77;
  subject_register(&it);
  CHECK(cbr_is_live(it.handle));
  CHECK_OK(cbr_refcount(it.handle, &count));
  CHECK_EQ(count, 1);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(register_of_a_null_function_takes_nothing_over) {
  struct subject it;
  cbr_handle handle = 99;
  subject_reset(&it);
  CHECK_REFUSED(cbr_register(NULL, &it, subject_destroy, &handle), CBR_ERR_NULL);
  CHECK_EQ(handle, 99);
  CHECK_EQ(it.destroyed, 0);
}

TEST(register_without_a_place_for_the_handle_takes_nothing_over) {
  struct subject it;
  subject_reset(&it);
  CHECK_REFUSED(cbr_register(subject_fn, &it, subject_destroy, NULL), CBR_ERR_INVALID);
  CHECK_EQ(it.destroyed, 0);
}

TEST(the_same_function_and_data_can_be_registered_twice) {
  struct subject it, twin;
  subject_register(&it);
  subject_reset(&twin);
  CHECK_OK(cbr_register(subject_fn, &it, NULL, &twin.handle));
  CHECK(it.handle != twin.handle);
  CHECK_OK(cbr_unregister(twin.handle));
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(destroy_runs_exactly_once_when_the_last_reference_goes) {
  struct subject it;
  uint32_t count = 0;
  subject_register(&it);
  CHECK_OK(cbr_retain(it.handle));
  CHECK_OK(cbr_retain(it.handle));
  CHECK_OK(cbr_refcount(it.handle, &count));
  CHECK_EQ(count, 3);
  CHECK_OK(cbr_release(it.handle));
  CHECK_OK(cbr_release(it.handle));
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_release(it.handle));
  CHECK_EQ(it.destroyed, 1);
  CHECK(!cbr_is_live(it.handle));
}

TEST(release_below_zero_is_stale_and_changes_nothing) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_release(it.handle));
  for (int i = 0; i < 3; i++) CHECK_REFUSED(cbr_release(it.handle), CBR_ERR_STALE);
  CHECK_EQ(it.destroyed, 1);
}

TEST(unregister_ends_the_life_for_everybody_whatever_the_count) {
  struct subject it;
  subject_register(&it);
  for (int i = 0; i < 10; i++) CHECK_OK(cbr_retain(it.handle));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
  for (int i = 0; i < 10; i++) CHECK_REFUSED(cbr_release(it.handle), CBR_ERR_STALE);
  CHECK_EQ(it.destroyed, 1);
}

TEST(a_second_unregister_is_stale) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_REFUSED(cbr_unregister(it.handle), CBR_ERR_STALE);
  CHECK_EQ(it.destroyed, 1);
}

/* Every function that takes a handle, on one that no longer serves; nothing is written. */
static void check_refuses_everything(cbr_handle handle, cbr_status status) {
  uint32_t count = 77;
  intptr_t result = 77;
  cbr_pin pin, untouched;
  memset(&pin, 0x5a, sizeof pin);
  untouched = pin;
  CHECK_REFUSED(cbr_call(handle, NULL, &result), status);
  CHECK_REFUSED(cbr_call(handle, NULL, NULL), status);
  CHECK_REFUSED(cbr_enter(handle, 0, &pin), status);
  CHECK_REFUSED(cbr_hold(handle, 0, &pin), status);
  CHECK_REFUSED(cbr_retain(handle), status);
  CHECK_REFUSED(cbr_release(handle), status);
  CHECK_REFUSED(cbr_refcount(handle, &count), status);
  CHECK_REFUSED(cbr_unregister(handle), status);
  CHECK(!cbr_is_live(handle));
  CHECK_EQ(count, 77);
  CHECK_EQ(result, 77);
  CHECK(memcmp(&pin, &untouched, sizeof pin) == 0);
  CHECK_EQ(cbr_depth(), 0);
}

TEST(a_callback_that_is_gone_is_stale_everywhere) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_unregister(it.handle));
  check_refuses_everything(it.handle, CBR_ERR_STALE);
  CHECK_REFUSED(cbr_unregister_wait(it.handle, 0), CBR_ERR_STALE);
  CHECK_REFUSED(cbr_unregister_wait(it.handle, -1), CBR_ERR_STALE);
  CHECK_EQ(it.calls, 0);
}

TEST(the_none_handle_is_stale_everywhere) {
  check_refuses_everything(CBR_HANDLE_NONE, CBR_ERR_STALE);
  CHECK_REFUSED(cbr_unregister_wait(CBR_HANDLE_NONE, -1), CBR_ERR_STALE);
}

TEST(a_revoked_callback_is_stale_while_a_call_is_still_inside) {
  struct subject it;
  struct occupant guest;
  subject_register(&it);
  occupy(&guest, &it);
  CHECK_OK(cbr_unregister(it.handle));
  check_refuses_everything(it.handle, CBR_ERR_STALE);
  CHECK_EQ(it.destroyed, 0);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(it.destroyed, 1);
}

TEST(refcount_needs_a_place_for_the_count) {
  struct subject it;
  subject_register(&it);
  CHECK_REFUSED(cbr_refcount(it.handle, NULL), CBR_ERR_INVALID);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t expects_null(void *user_data, void *arg) {
  CHECK(user_data == NULL);
  CHECK(arg == NULL);
  return 5;
}

TEST(user_data_and_destroy_may_be_null) {
  cbr_handle handle;
  intptr_t result = 0;
  CHECK_OK(cbr_register(expects_null, NULL, NULL, &handle));
  CHECK_OK(cbr_call(handle, NULL, &result));
  CHECK_EQ(result, 5);
  CHECK_OK(cbr_unregister_wait(handle, -1));
  CHECK(!cbr_is_live(handle));
}

static int null_destroys;
static void count_null(void *user_data) {
  CHECK(user_data == NULL);
  null_destroys++;
}

TEST(destroy_runs_for_null_user_data_too) {
  cbr_handle handle;
  CHECK_OK(cbr_register(expects_null, NULL, count_null, &handle));
  CHECK_OK(cbr_release(handle));
  CHECK_EQ(null_destroys, 1);
}

TEST(destroy_runs_on_the_unregistering_thread_when_nobody_is_inside) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
  CHECK(pthread_equal(it.destroyed_on, pthread_self()));
}

static void finds_itself_gone(struct subject *it) {
  uint32_t count;
  CHECK(!cbr_is_live(it->handle));
  CHECK_STATUS(cbr_retain(it->handle), CBR_ERR_STALE);
  CHECK_STATUS(cbr_release(it->handle), CBR_ERR_STALE);
  CHECK_STATUS(cbr_unregister(it->handle), CBR_ERR_STALE);
  CHECK_STATUS(cbr_refcount(it->handle, &count), CBR_ERR_STALE);
  CHECK_STATUS(cbr_call(it->handle, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(cbr_current(), 0);
  CHECK_EQ(cbr_depth(), 0);
}

TEST(destroy_cannot_bring_its_callback_back) {
  struct subject it;
  subject_register(&it);
  it.on_destroy = finds_itself_gone;
  CHECK_OK(cbr_release(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

static void replaces_itself(struct subject *it) {
  struct subject *next = (struct subject *)it->extra;
  subject_register(next);
  CHECK(next->handle != it->handle);
  CHECK_OK(cbr_call(next->handle, NULL, NULL));
}

TEST(destroy_may_register_and_call_another) {
  struct subject it, next;
  subject_register(&it);
  it.on_destroy = replaces_itself;
  it.extra = &next;
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
  CHECK_EQ(next.calls, 1);
  CHECK(cbr_is_live(next.handle));
  CHECK_STATUS(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(cbr_unregister(next.handle));
  CHECK_EQ(next.destroyed, 1);
}

enum { CHAIN = 500 };

static void ends_the_next(struct subject *it) {
  struct subject *next = (struct subject *)it->extra;
  if (next != NULL) CHECK_OK(cbr_unregister(next->handle));
}

TEST(destroy_may_unregister_others_in_a_long_chain) {
  static struct subject all[CHAIN];
  for (int i = 0; i < CHAIN; i++) {
    subject_register(&all[i]);
    all[i].on_destroy = ends_the_next;
    all[i].extra = i + 1 < CHAIN ? &all[i + 1] : NULL;
  }
  CHECK_OK(cbr_unregister(all[0].handle));
  for (int i = 0; i < CHAIN; i++) CHECK_EQ(all[i].destroyed, 1);
}

enum { MANY = 100000 };

TEST(many_callbacks_live_side_by_side) {
  long many = scaled(MANY);
  struct subject *all = (struct subject *)malloc((size_t)many * sizeof *all);
  CHECK(all != NULL);
  for (long i = 0; i < many; i++) subject_register(&all[i]);
  for (long i = 0; i < many; i++) CHECK_OK(cbr_call(all[i].handle, NULL, NULL));
  for (long i = 0; i < many; i++) CHECK_EQ(all[i].calls, 1);
  for (long i = 0; i < many; i += 2) CHECK_OK(cbr_unregister(all[i].handle));
  for (long i = 0; i < many; i++) CHECK_EQ(all[i].destroyed, i % 2 == 0);
  for (long i = 0; i < many; i++) {
    CHECK_STATUS(cbr_call(all[i].handle, NULL, NULL), i % 2 == 0 ? CBR_ERR_STALE : CBR_OK);
  }
  for (long i = 1; i < many; i += 2) CHECK_OK(cbr_release(all[i].handle));
  for (long i = 0; i < many; i++) CHECK_EQ(all[i].destroyed, 1);
  free(all);
}
