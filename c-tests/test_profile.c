/* The profile: live callbacks by the stacks that they were registered by. */
#include "support_memory.h"
#include "support_profile.h"

#include <pthread.h>
#include <setjmp.h>

static intptr_t nothing(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 0;
}

/* Functions that register: static, because those of programs mostly are. Each keeps its frame, and is not taken
 * for another one that does the same. */
#define FRAME __attribute__((noinline, noclone, no_icf)) static
#define KEEP_FRAME() __asm__ volatile("" ::: "memory")

FRAME cbr_handle register_plainly(void) {
  cbr_handle handle;
  CHECK_OK(cbr_register(nothing, NULL, NULL, &handle));
  KEEP_FRAME();
  return handle;
}

FRAME cbr_handle register_named(const char *name, cbr_scope scope) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)nothing;
  options.name = name;
  options.scope = scope;
  CHECK_OK(cbr_register_with(&options, &handle));
  KEEP_FRAME();
  return handle;
}

FRAME void open_files(volatile int count) {
  while (count-- > 0) register_plainly();
  KEEP_FRAME();
}

FRAME void open_sockets(volatile int count) {
  while (count-- > 0) register_plainly();
  KEEP_FRAME();
}

/* Before the first use of the library, which reads it. */
static void record_stacks(void) { CHECK_EQ(setenv("CALLBRIDGE_STACKS", "1", 1), 0); }

TEST(callbacks_are_counted_by_their_stacks) {
  record_stacks();
  open_files(3);
  open_sockets(5);
  register_named("alone", 0);
  take_profile(0);
  CHECK_EQ(registered_by("open_files"), 3);
  CHECK_EQ(registered_by("open_sockets"), 5);
  CHECK_EQ(registered_by("register_plainly"), 8);
  CHECK_EQ(registered_by("register_named"), 1);
  CHECK_EQ(registered_by("main"), 9);
  CHECK_EQ(registered_by(NULL), 9);
  /* The stack begins with the caller of the library. */
  for (int sample = 0; sample < profile.sample_count; sample++) {
    const char *first = function_at(&profile.samples[sample], 0);
    if (strcmp(first, "register_plainly") != 0) CHECK_STR(first, "register_named");
  }
  /* Equal ones are one sample. */
  CHECK_EQ(profile.sample_count, 3);
}

TEST(types_times_and_labels_are_as_pprof_wants_them) {
  struct timespec now;
  cbr_scope scope;
  record_stacks();
  CHECK_OK(cbr_scope_open("a \"scope\"\n", &scope));
  register_named("first", scope);
  register_named("second", 0);
  register_plainly();
  take_profile(0);
  CHECK_EQ(profile.type_count, 4);
  CHECK_STR(profile_string(profile.types[0]), "callbacks");
  CHECK_STR(profile_string(profile.types[1]), "count");
  CHECK_STR(profile_string(profile.types[2]), "cold");
  CHECK_STR(profile_string(profile.types[3]), "bytes");
  clock_gettime(CLOCK_REALTIME, &now);
  CHECK(llabs((long long)(profile.time_nanos / 1000000000) - (long long)now.tv_sec) < 60);
  CHECK(profile.mapping_count >= 1);
  int seen = 0;
  for (int sample = 0; sample < profile.sample_count; sample++) {
    const struct sample *it = &profile.samples[sample];
    CHECK(it->bytes >= it->count * 64);
    if (it->callback == NULL) {
      CHECK(it->scope == NULL);
      seen |= 1;
    } else if (strcmp(it->callback, "first") == 0) {
      CHECK(it->scope != NULL);
      CHECK_STR(it->scope, "a \"scope\"\n");
      seen |= 2;
    } else {
      CHECK_STR(it->callback, "second");
      CHECK(it->scope == NULL);
      seen |= 4;
    }
  }
  CHECK_EQ(seen, 7);
}

TEST(of_a_scope_it_has_the_callbacks_of_that_scope) {
  cbr_scope scope, other;
  record_stacks();
  CHECK_OK(cbr_scope_open("scope", &scope));
  CHECK_OK(cbr_scope_open("other", &other));
  register_named("mine", scope);
  register_named("mine", scope);
  register_named("other's", other);
  open_files(1);
  take_profile(scope);
  CHECK_EQ(registered_by(NULL), 2);
  CHECK_STR(profile.samples[0].scope, "scope");
  take_profile(0);
  CHECK_EQ(registered_by(NULL), 4);
}

TEST(callbacks_that_have_ended_are_not_in_it) {
  cbr_scope scope;
  record_stacks();
  cbr_handle first = register_plainly(), second = register_plainly();
  CHECK_OK(cbr_scope_open(NULL, &scope));
  register_named("gone", scope);
  CHECK_OK(cbr_unregister(first));
  CHECK_OK(cbr_release(second));
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  take_profile(0);
  CHECK_EQ(registered_by(NULL), 0);
  CHECK_EQ(profile.sample_count, 0);
}

TEST(stacks_that_were_not_recorded_are_one) {
  cbr_handle handle;
  unsetenv("CALLBRIDGE_STACKS");
  open_files(2);
  register_named("name", 0);
  take_profile(0);
  CHECK_EQ(registered_by(NULL), 3);
  CHECK_EQ(registered_by("[stack not recorded]"), 3);
  /* At level 2 the place is. */
  CHECK_OK(cbr_set_check(2));
  handle = register_plainly();
  take_profile(0);
  CHECK_EQ(registered_by("[stack not recorded]"), 3);
  CHECK_EQ(registered_by("register_plainly"), 1);
  CHECK_EQ(registered_by("main"), 0);
  CHECK_OK(cbr_set_check(1));
  CHECK_OK(cbr_unregister(handle));
  register_plainly();
  take_profile(0);
  CHECK_EQ(registered_by("[stack not recorded]"), 4);
}

FRAME void go_deep(int depth) {
  if (depth == 0)
    register_plainly();
  else
    go_deep(depth - 1);
  KEEP_FRAME();
}

TEST(a_deep_stack_is_cut_at_32_frames) {
  record_stacks();
  go_deep(100);
  take_profile(0);
  CHECK_EQ(profile.sample_count, 1);
  CHECK_EQ(profile.samples[0].depth, 32);
  CHECK_STR(function_at(&profile.samples[0], 0), "register_plainly");
  CHECK_STR(function_at(&profile.samples[0], 1), "go_deep");
  CHECK_STR(function_at(&profile.samples[0], 31), "go_deep");
}

static jmp_buf home;

FRAME __attribute__((noreturn)) void register_and_jump(void) {
  register_plainly();
  longjmp(home, 1);
}

/* Its last instruction is the call: what that would return to is another function's. */
FRAME __attribute__((noreturn)) void ends_with_a_call(void) { register_and_jump(); }

TEST(a_function_that_ends_with_a_call_is_named) {
  record_stacks();
  if (setjmp(home) == 0) ends_with_a_call();
  take_profile(0);
  CHECK_EQ(registered_by("ends_with_a_call"), 1);
  CHECK_STR(function_at(&profile.samples[0], 1), "register_and_jump");
  CHECK_STR(function_at(&profile.samples[0], 2), "ends_with_a_call");
}

static void *open_many(void *count) {
  open_files(*(int *)count);
  return NULL;
}

TEST(threads_register_by_one_stack) {
  enum { THREADS = 4 };
  pthread_t threads[THREADS];
  int each = (int)scaled(1000);
  record_stacks();
  for (int thread = 0; thread < THREADS; thread++)
    CHECK_EQ(pthread_create(&threads[thread], NULL, open_many, &each), 0);
  for (int thread = 0; thread < THREADS; thread++) CHECK_EQ(pthread_join(threads[thread], NULL), 0);
  take_profile(0);
  CHECK_EQ(profile.sample_count, 1);
  CHECK_EQ(registered_by("open_many"), THREADS * each);
}

static void register_one(void *user_data, const char *data, size_t len) {
  register_plainly();
  keep_profile(user_data, data, len);
}

TEST(the_function_that_gets_it_may_use_the_library) {
  record_stacks();
  open_files(1);
  memset(&profile, 0, sizeof profile);
  CHECK_OK(cbr_profile(0, register_one, &profile));
  CHECK(profile.packed_len > 0);
  take_profile(0);
  CHECK_EQ(registered_by(NULL), 2);
}

TEST(what_cannot_be_profiled_is_refused) {
  cbr_scope scope;
  cbr_handle handle = register_plainly();
  CHECK_OK(cbr_scope_open(NULL, &scope));
  CHECK_REFUSED(cbr_profile(0, NULL, NULL), CBR_ERR_NULL);
  CHECK_REFUSED(cbr_profile(handle, keep_profile, &profile), CBR_ERR_KIND);
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  CHECK_REFUSED(cbr_profile(scope, keep_profile, &profile), CBR_ERR_STALE);
  CHECK_EQ(profile.packed_len, 0);
}

TEST(without_memory_nothing_is_written) {
  skip_where_limits_do_not_work();
  record_stacks();
  /* Names of their own, so that the profile needs more than there is. */
  for (int i = 0; i < 20000; i++) {
    char name[200];
    snprintf(name, sizeof name, "%0180d", i);
    register_named(name, 0);
  }
  limit_address_space(1 << 20);
  void *rest[4096];
  int count = 0;
  while (count < 4096 && (rest[count] = malloc(1 << 12)) != NULL) count++;
  CHECK_REFUSED(cbr_profile(0, keep_profile, &profile), CBR_ERR_NOMEM);
  CHECK_EQ(profile.packed_len, 0);
  while (count > 0) free(rest[--count]);
}

TEST(without_memory_a_registration_is_refused_or_has_no_stack) {
  skip_where_limits_do_not_work();
  record_stacks();
  register_named("first", 0);
  cbr_handle handle = 0;
  cbr_status status = CBR_OK;
  limit_address_space(64 << 10);
  void *rest[4096];
  int count = 0;
  while (count < 4096 && (rest[count] = malloc(1 << 10)) != NULL) count++;
  /* By a stack that is not kept yet. */
  for (int i = 0; i < 100 && status == CBR_OK; i++) status = cbr_register(nothing, NULL, NULL, &handle);
  while (count > 0) free(rest[--count]);
  CHECK(status == CBR_OK || status == CBR_ERR_NOMEM);
  CHECK_OK(cbr_register(nothing, NULL, NULL, &handle));
}

static void write_nothing(void *user_data, const char *data, size_t len) {
  (void)data;
  *(size_t *)user_data += len;
}

static void *looks_while_cancelled(void *arg) {
  cbr_stats stats = {.size = sizeof stats};
  size_t *written = (size_t *)arg;
  CHECK_EQ(pthread_cancel(pthread_self()), 0);
  CHECK_OK(cbr_profile(0, write_nothing, &written[0]));
  CHECK_OK(cbr_report(0, write_nothing, &written[1]));
  CHECK_OK(cbr_metrics(0, write_nothing, &written[2]));
  CHECK_OK(cbr_stats_get(0, &stats));
  pthread_testcancel();
  return NULL;
}

/* The files of symbols are read for it. */
TEST(taking_a_profile_is_no_cancellation_point) {
  size_t written[3] = {0};
  record_stacks();
  CHECK_EQ(setenv("CALLBRIDGE_CHECK", "2", 1), 0);
  open_files(3);
  pthread_t thread;
  void *result = NULL;
  CHECK_EQ(pthread_create(&thread, NULL, looks_while_cancelled, written), 0);
  CHECK_EQ(pthread_join(thread, &result), 0);
  CHECK(result == PTHREAD_CANCELED);
  for (int i = 0; i < 3; i++) CHECK(written[i] > 0);
}
