/* Calling: results, nesting, what a callback may do to itself, cbr_current and cbr_depth. */
#include "support_subject.h"

static intptr_t returns_its_arg(struct subject *it, void *arg) {
  (void)it;
  return (intptr_t)arg;
}

TEST(a_call_brings_user_data_arg_and_result) {
  struct subject it;
  intptr_t result = 0;
  subject_register(&it);
  CHECK_OK(cbr_call(it.handle, NULL, &result));
  CHECK_EQ(result, SUBJECT_RESULT);
  CHECK_OK(subject_run(&it, returns_its_arg, (void *)INTPTR_MIN, &result));
  CHECK_EQ(result, INTPTR_MIN);
  CHECK_OK(subject_run(&it, returns_its_arg, (void *)-1, &result));
  CHECK_EQ(result, -1);
  CHECK_EQ(it.calls, 3);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(the_result_may_be_unwanted) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_EQ(it.calls, 1);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_stale_call_does_not_enter_and_writes_nothing) {
  struct subject it;
  intptr_t result = 77;
  subject_register(&it);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_REFUSED(cbr_call(it.handle, NULL, &result), CBR_ERR_STALE);
  CHECK_EQ(result, 77);
  CHECK_EQ(it.calls, 0);
}

static intptr_t ends_itself(struct subject *it, void *arg) {
  (void)arg;
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_EQ(it->destroyed, 0);
  CHECK(!cbr_is_live(it->handle));
  CHECK_STATUS(cbr_unregister(it->handle), CBR_ERR_STALE);
  CHECK_STATUS(cbr_call(it->handle, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(cbr_current(), it->handle);
  CHECK_EQ(cbr_depth(), 1);
  CHECK_EQ(it->destroyed, 0);
  return 8;
}

TEST(unregister_inside_the_callback_returns_at_once_and_destroy_waits_for_the_return) {
  struct subject it;
  intptr_t result = 0;
  subject_register(&it);
  CHECK_OK(subject_run(&it, ends_itself, NULL, &result));
  CHECK_EQ(result, 8);
  CHECK_EQ(it.destroyed, 1);
  CHECK_EQ(cbr_depth(), 0);
}

static intptr_t releases_itself(struct subject *it, void *arg) {
  (void)arg;
  CHECK_OK(cbr_release(it->handle));
  CHECK_EQ(it->destroyed, 0);
  CHECK_STATUS(cbr_retain(it->handle), CBR_ERR_STALE);
  return 9;
}

TEST(releasing_the_last_reference_inside_the_callback_waits_for_the_return) {
  struct subject it;
  intptr_t result = 0;
  subject_register(&it);
  CHECK_OK(subject_run(&it, releases_itself, NULL, &result));
  CHECK_EQ(result, 9);
  CHECK_EQ(it.destroyed, 1);
}

static intptr_t recurses(struct subject *it, void *arg) {
  int *left = (int *)arg;
  uint32_t depth = cbr_depth();
  intptr_t inner = 0;
  if (--*left == 0) {
    CHECK_OK(cbr_unregister(it->handle));
    return 1;
  }
  CHECK_OK(subject_run(it, recurses, left, &inner));
  CHECK_EQ(cbr_depth(), depth);
  CHECK_EQ(cbr_current(), it->handle);
  CHECK_EQ(it->destroyed, 0);
  return inner + 1;
}

TEST(unregister_in_a_nested_call_waits_for_the_outermost_return) {
  struct subject it;
  int left = 20;
  intptr_t result = 0;
  subject_register(&it);
  CHECK_OK(subject_run(&it, recurses, &left, &result));
  CHECK_EQ(result, 20);
  CHECK_EQ(it.calls, 20);
  CHECK_EQ(it.destroyed, 1);
}

static intptr_t manages_others(struct subject *it, void *arg) {
  struct subject other;
  (void)arg;
  subject_register(&other);
  CHECK_OK(cbr_retain(other.handle));
  CHECK_OK(cbr_call(other.handle, NULL, NULL));
  CHECK_OK(cbr_release(other.handle));
  CHECK_OK(cbr_retain(it->handle));
  CHECK_OK(cbr_release(it->handle));
  CHECK_OK(cbr_unregister_wait(other.handle, -1));
  CHECK_EQ(other.destroyed, 1);
  return 0;
}

TEST(a_callback_may_register_retain_call_and_unregister_others) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(subject_run(&it, manages_others, NULL, NULL));
  CHECK(cbr_is_live(it.handle));
  CHECK_OK(cbr_unregister(it.handle));
}

static void looks_at_where_it_is(struct subject *it) {
  CHECK_EQ(cbr_current(), ((struct subject *)it->extra)->handle);
  CHECK_EQ(cbr_depth(), 1);
}

static intptr_t ends_another(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_unregister(((struct subject *)arg)->handle));
  CHECK_EQ(((struct subject *)arg)->destroyed, 1);
  return 0;
}

TEST(inside_destroy_the_current_callback_is_the_enclosing_one) {
  struct subject outer, inner;
  subject_register(&outer);
  subject_register(&inner);
  inner.on_destroy = looks_at_where_it_is;
  inner.extra = &outer;
  CHECK_OK(subject_run(&outer, ends_another, &inner, NULL));
  CHECK_OK(cbr_unregister(outer.handle));
}

static intptr_t sees_depth_two(void *user_data, void *arg) {
  CHECK_EQ(cbr_current(), *(cbr_handle *)user_data);
  CHECK_EQ(cbr_depth(), 2);
  return (intptr_t)arg;
}

static intptr_t calls_directly(struct subject *it, void *arg) {
  CHECK_EQ(cbr_current(), it->handle);
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_call(*(cbr_handle *)arg, NULL, NULL));
  CHECK_EQ(cbr_current(), it->handle);
  CHECK_EQ(cbr_depth(), 1);
  return 0;
}

TEST(current_and_depth_name_the_innermost_call) {
  struct subject outer;
  cbr_handle inner;
  CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
  CHECK_EQ(cbr_depth(), 0);
  subject_register(&outer);
  CHECK_OK(cbr_register(sees_depth_two, &inner, NULL, &inner));
  CHECK_OK(subject_run(&outer, calls_directly, &inner, NULL));
  CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_unregister(inner));
  CHECK_OK(cbr_unregister(outer.handle));
}

static void *is_outside(void *arg) {
  (void)arg;
  CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
  CHECK_EQ(cbr_depth(), 0);
  return NULL;
}

static intptr_t asks_another_thread(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  run_on_thread(is_outside, NULL);
  CHECK_EQ(cbr_depth(), 1);
  return 0;
}

TEST(current_and_depth_are_the_threads_own) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(subject_run(&it, asks_another_thread, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
}

enum { NESTING = 4096 };

static intptr_t nests(struct subject *it, void *arg) {
  int *reached = (int *)arg;
  intptr_t result = 77;
  CHECK_EQ(cbr_depth(), ++*reached);
  cbr_status status = subject_run(it, nests, arg, &result);
  if (*reached == NESTING && cbr_depth() == NESTING) {
    cbr_pin pin;
    CHECK_REFUSED(status, CBR_ERR_LIMIT);
    CHECK_EQ(result, 77);
    CHECK_REFUSED(cbr_enter(it->handle, 0, &pin), CBR_ERR_LIMIT);
    CHECK_OK(cbr_hold(it->handle, 0, &pin)); /* a hold is no nesting */
    CHECK_OK(cbr_leave(&pin));
    return 1;
  }
  CHECK_OK(status);
  return result + 1;
}

TEST(nesting_deeper_than_4096_calls_is_refused) {
  struct subject it;
  int reached = 0;
  intptr_t result = 0;
  subject_register(&it);
  CHECK_OK(subject_run(&it, nests, &reached, &result));
  CHECK_EQ(result, NESTING);
  CHECK_EQ(it.calls, NESTING);
  CHECK_EQ(cbr_depth(), 0);
  reached = 0;
  CHECK_OK(subject_run(&it, nests, &reached, &result)); /* and again: nothing is used up */
  CHECK_EQ(result, NESTING);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(unregister_while_another_thread_is_inside_returns_at_once) {
  struct subject it;
  struct occupant guest;
  subject_register(&it);
  occupy(&guest, &it);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(subject_destroyed(&it), 0);
  CHECK_STATUS(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
  pthread_t last = guest.thread;
  CHECK_OK(vacate(&guest));
  CHECK_EQ(it.destroyed, 1);
  CHECK(pthread_equal(it.destroyed_on, last));
  CHECK_EQ(it.calls, 1);
}

TEST(destroy_runs_on_the_thread_whose_leave_was_the_last) {
  enum { GUESTS = 8 };
  struct subject it;
  struct occupant guests[GUESTS];
  subject_register(&it);
  for (int i = 0; i < GUESTS; i++) occupy(&guests[i], &it);
  CHECK_OK(cbr_release(it.handle));
  pthread_t last = guests[GUESTS - 1].thread;
  for (int i = 0; i < GUESTS; i++) {
    CHECK_EQ(subject_destroyed(&it), 0);
    CHECK_OK(vacate(&guests[i]));
  }
  CHECK_EQ(it.destroyed, 1);
  CHECK(pthread_equal(it.destroyed_on, last));
}

/* An occupant inside ever more calls of others: its own call is seen at whatever depth. */
struct deep {
  struct subject *cover;
  struct occupant *guest;
  int left;
};

static intptr_t goes_deep(struct subject *it, void *arg) {
  struct deep *deep = (struct deep *)arg;
  (void)it;
  if (deep->left-- > 0) return subject_run(deep->cover, goes_deep, deep, NULL);
  return subject_run(deep->guest->subject, occupant_stay, deep->guest, NULL);
}

static void *occupies_deep_down(void *arg) {
  struct deep *deep = (struct deep *)arg;
  CHECK_OK(subject_run(deep->cover, goes_deep, deep, NULL));
  return NULL;
}

TEST(a_call_deep_inside_others_keeps_its_data) {
  static const int depths[] = {1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 63, 100, 1000, 4000};
  for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
    struct subject it, cover;
    struct occupant guest;
    struct deep deep = {&cover, &guest, depths[i]};
    subject_register(&it);
    subject_register(&cover);
    guest.subject = &it;
    gate_init(&guest.inside);
    gate_init(&guest.leave);
    guest.thread = start(occupies_deep_down, &deep);
    gate_pass(&guest.inside);
    CHECK_OK(cbr_unregister(it.handle));
    CHECK_OK(cbr_unregister(cover.handle));
    CHECK_EQ(subject_destroyed(&it), 0);
    CHECK_EQ(subject_destroyed(&cover), 0);
    gate_open(&guest.leave);
    join(guest.thread);
    CHECK_EQ(it.destroyed, 1);
    CHECK_EQ(cover.destroyed, 1);
  }
}

TEST(other_callbacks_are_not_delayed_by_a_call_in_flight) {
  struct subject busy, idle;
  struct occupant guest;
  subject_register(&busy);
  subject_register(&idle);
  occupy(&guest, &busy);
  CHECK_OK(cbr_call(idle.handle, NULL, NULL));
  CHECK_OK(cbr_call(busy.handle, NULL, NULL));
  CHECK_OK(cbr_unregister_wait(idle.handle, -1));
  CHECK_EQ(idle.destroyed, 1);
  CHECK_OK(vacate(&guest));
  CHECK_OK(cbr_unregister(busy.handle));
  CHECK_EQ(busy.destroyed, 1);
}
