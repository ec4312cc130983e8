/* Names: a callback found again by what it is called. What names share with keys is in
 * support_bindings.h. */
#include "support_bindings.h"

/* Long enough that names differ only at their ends, as paths do. */
static const char *name_of(long place, char *buffer, size_t size) {
  snprintf(buffer, size, "/org/example/callbacks/of/a/plugin/%ld", place);
  return buffer;
}

#define NAME(place) name_of((place), (char[64]){0}, 64)

static cbr_status place_bind(cbr_scope scope, long place, cbr_handle handle, uint32_t mode) {
  return cbr_name_bind(scope, NAME(place), handle, mode);
}

static cbr_status place_find(cbr_scope scope, long place, cbr_handle *out_handle) {
  return cbr_name_find(scope, NAME(place), out_handle);
}

static cbr_status place_unbind(cbr_scope scope, long place) {
  return cbr_name_unbind(scope, NAME(place));
}

/* What is found is a weak handle: if its callback has ended since, another may be there. */
static cbr_status place_call(cbr_scope scope, long place, void *arg, intptr_t *out_result) {
  for (;;) {
    cbr_handle handle;
    cbr_status status = cbr_name_find(scope, NAME(place), &handle);
    if (status == CBR_OK) status = cbr_call(handle, arg, out_result);
    else return status;
    if (status != CBR_ERR_STALE) return status;
  }
}

TEST(a_name_is_bound_found_and_unbound) { in_both_scopes(check_bind_find_unbind); }

TEST(a_name_keeps_its_callback_after_the_owners_release) {
  in_both_scopes(check_a_binding_keeps_its_callback_alive);
}

TEST(unbind_lets_a_call_finish) { in_both_scopes(check_unbind_lets_a_call_finish); }

TEST(once_is_refused_where_a_live_one_is) {
  in_both_scopes(check_once_is_refused_where_a_live_one_is);
}

TEST(replace_lets_the_old_one_go) { in_both_scopes(check_replace_lets_the_old_one_go); }

TEST(replacing_a_callback_by_itself_keeps_it) {
  in_both_scopes(check_replacing_a_callback_by_itself_keeps_it);
}

TEST(a_name_goes_when_its_callback_ends) {
  in_both_scopes(check_an_entry_goes_when_its_callback_ends);
}

TEST(a_revoked_callback_is_gone_while_calls_finish) {
  in_both_scopes(check_a_revoked_callback_is_gone_while_calls_finish);
}

TEST(the_next_callback_inherits_no_name) {
  in_both_scopes(check_the_next_callback_inherits_no_place);
}

TEST(ten_thousand_names_in_each_of_three_scopes_are_apart) { check_places_are_apart(); }

TEST(a_callback_of_one_scope_may_be_bound_in_another) {
  check_a_callback_of_one_scope_may_be_bound_in_another();
}

TEST(closing_a_scope_unbinds_its_names) { check_closing_a_scope_unbinds(); }

TEST(a_closing_scope_takes_no_name_and_has_none) {
  check_a_closing_scope_takes_nothing_and_has_nothing();
}

TEST(handles_of_no_live_callback_are_refused) { in_both_scopes(check_handles_that_are_refused); }

TEST(unknown_modes_are_refused) { in_both_scopes(check_modes_that_are_refused); }

TEST(scopes_that_are_gone_or_none_are_refused) { check_scopes_that_are_refused(); }

TEST(a_callback_may_replace_and_unbind_itself) {
  in_both_scopes(check_a_callback_may_replace_and_unbind_itself);
}

TEST(destroy_may_use_names) { in_both_scopes(check_destroy_may_use_places); }

TEST(destroy_in_a_close_may_use_names) { check_destroy_in_a_close_may_use_places(); }

TEST(a_close_after_a_destroy_that_ended_its_thread_loses_no_name) {
  check_close_after_a_destroy_that_ended_its_thread();
}

/* --- names themselves --------------------------------------------------------------------- */

static void check_name_found(const char *name, cbr_handle expected) {
  cbr_handle handle = 99;
  CHECK_OK(cbr_name_find(0, name, &handle));
  CHECK_EQ(handle, expected);
}

static void check_no_name(const char *name) {
  struct subject it;
  cbr_handle handle = 99;
  subject_register(&it);
  CHECK_REFUSED(cbr_name_bind(0, name, it.handle, CBR_BIND_ONCE), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_name_bind(0, name, it.handle, CBR_BIND_REPLACE), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_name_find(0, name, &handle), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_name_unbind(0, name), CBR_ERR_INVALID);
  CHECK_EQ(handle, 99);
  CHECK_EQ(references(it.handle), 1);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(what_is_no_name_is_invalid) {
  char long_name[257];
  memset(long_name, 'n', 256);
  long_name[256] = '\0';
  check_no_name(NULL);
  check_no_name("");
  check_no_name(long_name);
  check_no_name("\xff");
  check_no_name("caf\xe9");             /* Latin-1 */
  check_no_name("\xc3");                /* half a letter */
  check_no_name("\xc0\xaf");            /* overlong */
  check_no_name("\xed\xa0\x80");        /* a surrogate */
  check_no_name("\xf4\x90\x80\x80 up"); /* beyond Unicode */
}

/* Read no further than it must be, to tell that it is too long. */
TEST(a_name_of_a_million_bytes_is_invalid) {
  size_t size = 1 << 20;
  char *name = (char *)malloc(size);
  CHECK(name != NULL);
  memset(name, 'n', size - 1);
  name[size - 1] = '\0';
  check_no_name(name);
  free(name);
}

TEST(a_name_may_be_of_any_255_bytes_of_utf_8) {
  static const char *const names[] = {" ",
                                      "\n",
                                      "a",
                                      "\x7f",
                                      "\xc3\xa9t\xc3\xa9",
                                      "\xe5\x90\x8d\xe5\x89\x8d",
                                      "\xf0\x9f\x90\xb4",
                                      "%s%n",
                                      "a/b"};
  enum { NAMES = sizeof names / sizeof names[0] };
  char most[256], other[256];
  struct subject its[NAMES + 2];
  memset(most, 'n', 255);
  most[255] = '\0';
  memcpy(other, most, sizeof other);
  other[254] = 'm';
  for (int i = 0; i < NAMES + 2; i++) {
    const char *name = i < NAMES ? names[i] : i == NAMES ? most : other;
    subject_register(&its[i]);
    CHECK_OK(cbr_name_bind(0, name, its[i].handle, CBR_BIND_ONCE));
  }
  for (int i = 0; i < NAMES; i++) check_name_found(names[i], its[i].handle);
  check_name_found(most, its[NAMES].handle);
  check_name_found(other, its[NAMES + 1].handle);
  for (int i = 0; i < NAMES; i++) CHECK_OK(cbr_name_unbind(0, names[i]));
  CHECK_OK(cbr_name_unbind(0, most));
  check_name_found(other, its[NAMES + 1].handle);
  CHECK_OK(cbr_name_unbind(0, other));
  for (int i = 0; i < NAMES + 2; i++) CHECK_OK(cbr_release(its[i].handle));
  for (int i = 0; i < NAMES + 2; i++) CHECK_EQ(its[i].destroyed, 1);
}

/* Case, prefixes and blanks all count. */
TEST(names_are_the_same_only_byte_by_byte) {
  static const char *const names[] = {"log",  "Log",  "lo",         "logs",
                                      "log ", " log", "l\xc3\xb6g", "lo\xcc\x88g"};
  enum { NAMES = sizeof names / sizeof names[0] };
  struct subject its[NAMES];
  for (int i = 0; i < NAMES; i++) {
    cbr_handle handle;
    CHECK_STATUS(cbr_name_find(0, names[i], &handle), CBR_ERR_NOT_FOUND);
    subject_register(&its[i]);
    CHECK_OK(cbr_name_bind(0, names[i], its[i].handle, CBR_BIND_ONCE));
  }
  for (int i = 0; i < NAMES; i++) check_name_found(names[i], its[i].handle);
  for (int i = 0; i < NAMES; i++) CHECK_OK(cbr_unregister(its[i].handle));
}

TEST(a_name_is_copied) {
  struct subject it, other;
  char name[] = "mine";
  cbr_handle handle;
  subject_register(&it);
  subject_register(&other);
  CHECK_OK(cbr_name_bind(0, name, it.handle, CBR_BIND_ONCE));
  memcpy(name, "yore", sizeof name);
  check_name_found("mine", it.handle);
  CHECK_STATUS(cbr_name_find(0, name, &handle), CBR_ERR_NOT_FOUND);
  CHECK_OK(cbr_name_bind(0, name, other.handle, CBR_BIND_ONCE));
  memset(name, 'x', 4);
  check_name_found("yore", other.handle);
  check_name_found("mine", it.handle);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_OK(cbr_unregister(other.handle));
}

/* The name in the options is for people: nothing is found by it. */
TEST(a_callbacks_own_name_binds_nothing) {
  struct subject it;
  cbr_handle handle = 99;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.name = "for people";
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_STATUS(cbr_name_find(0, "for people", &handle), CBR_ERR_NOT_FOUND);
  CHECK_OK(cbr_name_bind(0, "for programs", it.handle, CBR_BIND_ONCE));
  check_name_found("for programs", it.handle);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(find_without_a_place_for_the_handle_is_invalid) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_name_bind(0, "name", it.handle, CBR_BIND_ONCE));
  CHECK_REFUSED(cbr_name_find(0, "name", NULL), CBR_ERR_INVALID);
  check_name_found("name", it.handle);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- threads, memory, fork ---------------------------------------------------------------- */

TEST(threads_with_names_of_their_own_do_not_disturb_one_another) {
  check_threads_with_places_of_their_own(0);
}

TEST(threads_with_names_of_their_own_in_a_scope_do_not_disturb_one_another) {
  cbr_scope scope = scope_open("shared");
  check_threads_with_places_of_their_own(scope);
  scope_close(scope);
}

TEST(threads_that_share_names_lose_no_reference) {
  in_both_scopes(check_threads_that_share_places);
}

TEST(of_many_that_bind_once_at_the_same_time_one_wins) { in_both_scopes(check_once_is_won_by_one); }

TEST(a_find_that_meets_a_replace_gives_the_old_one_or_the_new_one) {
  in_both_scopes(check_replace_meets_finds);
}

TEST(a_call_that_meets_a_replace_runs_the_old_one_or_the_new_one) {
  in_both_scopes(check_replace_meets_calls);
}

TEST(a_bind_that_meets_unregister_leaves_no_name) { in_both_scopes(check_bind_meets_unregister); }

TEST(a_bind_that_meets_the_scopes_close_leaves_no_reference) { check_bind_meets_close(); }

static int found_enough;

static void *find_without_pause(void *arg) {
  cbr_handle found;
  while (!load_int(&found_enough)) CHECK_OK(cbr_name_find(0, "found", &found));
  return arg;
}

/* Scopes meet what is looked for in every shard of the table, sooner or later. */
TEST(scopes_close_while_many_threads_find_without_pause) {
  enum { FINDERS = 16 };
  struct subject it;
  pthread_t finders[FINDERS];
  char name[16];
  subject_register(&it);
  CHECK_OK(cbr_name_bind(0, "found", it.handle, CBR_BIND_ONCE));
  for (int i = 0; i < FINDERS; i++) finders[i] = start(find_without_pause, NULL);
  for (long round = 0; round < scaled(10000); round++) {
    cbr_scope scope = scope_open("closes");
    for (int i = 0; i < 64; i++) {
      snprintf(name, sizeof name, "%d", i);
      CHECK_OK(cbr_name_bind(scope, name, it.handle, CBR_BIND_ONCE));
    }
    scope_close(scope);
  }
  store_int(&found_enough, 1);
  for (int i = 0; i < FINDERS; i++) join(finders[i]);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(names_whose_callbacks_ended_take_no_memory) { check_memory_stays_bounded(0, 20000, 0); }

TEST(ever_new_names_whose_callbacks_ended_take_no_memory) {
  check_memory_stays_bounded(0, 20000, 1000000);
}

TEST(the_first_name_without_memory_gives_a_status) { check_the_first_bind_without_memory(); }

TEST(binding_names_until_memory_is_out_gives_a_status) { check_binding_until_memory_is_out(); }

/* A thread may be at the fork between the copy of a name and its place in the table. */
static void skip_where_such_a_copy_is_a_leak(void) {
  if (under_valgrind()) SKIP("what a vanished thread had allocated is a leak in the child");
}

TEST(names_work_in_the_child_of_a_fork_while_others_hammer_them) {
  skip_where_such_a_copy_is_a_leak();
  check_fork_while_others_hammer(0);
}

TEST(a_scopes_names_work_in_the_child_of_a_fork_while_others_hammer_them) {
  skip_where_such_a_copy_is_a_leak();
  cbr_scope scope = scope_open("hammered");
  check_fork_while_others_hammer(scope);
  scope_close(scope);
}
