/* Log: the sink, its life, what it is told, and stderr. */
#include "support_child.h"
#include "support_threads.h"

#include <setjmp.h>

struct sink {
  int lines, destroyed, inside;
  uint32_t level;
  char last[1024], all[16384];
  void (*then)(struct sink *);
};

static void sink_line(void *user_data, uint32_t level, const char *target, const char *message) {
  struct sink *it = user_data;
  CHECK_EQ(__atomic_load_n(&it->destroyed, __ATOMIC_SEQ_CST), 0);
  __atomic_add_fetch(&it->inside, 1, __ATOMIC_SEQ_CST);
  CHECK_STR(target, "callbridge");
  it->lines++;
  it->level = level;
  snprintf(it->last, sizeof it->last, "%s", message);
  size_t used = strlen(it->all);
  snprintf(it->all + used, sizeof it->all - used, "%s\n", message);
  if (it->then != NULL) it->then(it);
  CHECK_EQ(__atomic_load_n(&it->destroyed, __ATOMIC_SEQ_CST), 0);
  __atomic_sub_fetch(&it->inside, 1, __ATOMIC_SEQ_CST);
}

static void sink_destroy(void *user_data) {
  struct sink *it = user_data;
  CHECK_EQ(__atomic_load_n(&it->inside, __ATOMIC_SEQ_CST), 0);
  __atomic_add_fetch(&it->destroyed, 1, __ATOMIC_SEQ_CST);
}

static void listen_to(struct sink *it, cbr_scope owner, uint32_t level) {
  CHECK_OK(cbr_log_to(sink_line, it, sink_destroy, owner, level));
}

static intptr_t add_one(void *user_data, void *arg) {
  (void)user_data;
  return (intptr_t)arg + 1;
}

static intptr_t fails(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, "the disk is on fire"));
  return 0;
}

static cbr_handle registered(const char *name, cbr_fn fn) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)fn;
  options.name = name;
  CHECK_OK(cbr_register_with(&options, &handle));
  return handle;
}

static cbr_handle gone(const char *name) {
  cbr_handle handle = registered(name, add_one);
  CHECK_OK(cbr_unregister(handle));
  return handle;
}

/* --- lines --------------------------------------------------------------------------------- */

TEST(a_misuse_is_one_warning_with_the_callbacks_name) {
  struct sink it = {0};
  cbr_pin pin;
  listen_to(&it, 0, CBR_LOG_WARN);
  cbr_handle live = registered("on_click", add_one);
  CHECK_STATUS(cbr_enter(live, CBR_SIG(CBR_VOID), &pin), CBR_ERR_SIGNATURE);
  CHECK_EQ(it.lines, 1);
  CHECK_EQ(it.level, CBR_LOG_WARN);
  CHECK_CONTAINS(it.last, "cbr_enter: ");
  CHECK_CONTAINS(it.last, "'on_click' (0x");
  CHECK_CONTAINS(it.last, "void()");
  /* Of one that is gone, too. */
  cbr_handle late = gone("on_close");
  CHECK_STATUS(cbr_call(late, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(it.lines, 2);
  CHECK_CONTAINS(it.last, "cbr_call: stale");
  CHECK_CONTAINS(it.last, "'on_close' (0x");
  /* Forged: of that number nothing is known. */
  CHECK_STATUS(cbr_call(late ^ (UINT64_C(1) << 40), NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(it.lines, 3);
  CHECK(strstr(it.last, "on_close") == NULL);
  CHECK_STATUS(cbr_unregister(late), CBR_ERR_STALE);
  CHECK_EQ(it.lines, 4);
  CHECK_STATUS(cbr_register(NULL, NULL, NULL, &late), CBR_ERR_NULL);
  CHECK_EQ(it.lines, 5);
  CHECK_CONTAINS(it.last, "cbr_register: the function is NULL");
}

TEST(an_answer_is_no_misuse) {
  struct sink it = {0};
  cbr_handle handle = registered("it", fails), found;
  cbr_queue queue;
  CHECK_OK(cbr_queue_open(NULL, &queue));
  listen_to(&it, 0, CBR_LOG_WARN);
  CHECK_STATUS(cbr_call(handle, NULL, NULL), CBR_ERR_PANIC);
  CHECK_STATUS(cbr_name_find(0, "nobody", &found), CBR_ERR_NOT_FOUND);
  CHECK_STATUS(cbr_queue_dispatch(queue, 0, 0, NULL), CBR_ERR_EMPTY);
  CHECK_STATUS(cbr_queue_dispatch(queue, 0, 1, NULL), CBR_ERR_TIMEOUT);
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  CHECK_STATUS(cbr_post(queue, handle, NULL, 0), CBR_ERR_CLOSED);
  CHECK_OK(cbr_unregister(handle));
  CHECK_STATUS(cbr_release(handle), CBR_ERR_STALE); /* another owner's */
  CHECK_STATUS(cbr_unregister_wait(handle, 0), CBR_ERR_STALE);
  CHECK_EQ(it.lines, 0);
}

TEST(the_same_again_and_again_is_logged_less_and_less) {
  struct sink it = {0};
  listen_to(&it, 0, CBR_LOG_WARN);
  cbr_handle first = gone("first"), second = gone("second");
  for (int call = 0; call < 1000; call++) CHECK_STATUS(cbr_call(first, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(it.lines, 10); /* 1, 2, 4 ... 512 */
  CHECK_CONTAINS(it.last, "(512 times so far)");
  CHECK_STATUS(cbr_call(second, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(it.lines, 11);
}

TEST(a_host_that_does_everything_wrong_is_not_flooded) {
  struct sink it = {0};
  int64_t begin = now_ns();
  listen_to(&it, 0, CBR_LOG_WARN);
  for (uint64_t number = 1; number <= 20000; number++) {
    CHECK_STATUS(cbr_call(number << 32 | UINT64_C(1) << 28 | 1, NULL, NULL), CBR_ERR_STALE);
  }
  int64_t seconds = (now_ns() - begin) / INT64_C(1000000000) + 2;
  CHECK(it.lines >= 100);
  CHECK(it.lines <= seconds * 101);
  /* In the next second it hears what it has missed. */
  for (uint64_t number = 20001; strstr(it.all, " were left out") == NULL; number++) {
    it.all[0] = '\0';
    CHECK_STATUS(cbr_call(number << 32 | UINT64_C(1) << 28 | 1, NULL, NULL), CBR_ERR_STALE);
  }
}

TEST(an_event_that_fails_is_logged_with_its_words_unless_somebody_is_told) {
  struct sink it = {0};
  cbr_queue queue;
  cbr_handle handle = registered("on_message", fails);
  CHECK_OK(cbr_queue_open(NULL, &queue));
  listen_to(&it, 0, CBR_LOG_WARN);
  CHECK_OK(cbr_post(queue, handle, NULL, 0));
  CHECK_OK(cbr_queue_dispatch(queue, 0, 0, NULL));
  CHECK_EQ(it.lines, 1);
  CHECK_CONTAINS(it.last, "on_message");
  CHECK_CONTAINS(it.last, "the disk is on fire");
}

static int told;

static void be_told(void *user_data, cbr_handle handle, cbr_status status, const char *message) {
  (void)user_data, (void)handle, (void)message;
  CHECK_EQ(status, CBR_ERR_PANIC);
  told++;
}

static intptr_t fails_at_length(void *user_data, void *arg) {
  (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, user_data));
  return 0;
}

TEST(a_line_takes_the_longest_name_and_the_longest_words) {
  struct sink it = {0};
  char name[256], words[512];
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  cbr_queue queue;
  memset(name, 'n', sizeof name - 1);
  memset(words, 'w', sizeof words - 1);
  name[sizeof name - 1] = words[sizeof words - 1] = '\0';
  options.fn = (cbr_any_fn)fails_at_length;
  options.user_data = words;
  options.name = name;
  CHECK_OK(cbr_register_with(&options, &handle));
  CHECK_OK(cbr_queue_open(NULL, &queue));
  listen_to(&it, 0, CBR_LOG_WARN);
  CHECK_OK(cbr_post(queue, handle, NULL, 0));
  CHECK_OK(cbr_queue_dispatch(queue, 0, 0, NULL));
  CHECK_EQ(it.lines, 1);
  CHECK_CONTAINS(it.last, name);
  CHECK_CONTAINS(it.last, words);
}

TEST(an_event_whose_error_function_is_told_is_not_logged) {
  struct sink it = {0};
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  cbr_queue queue;
  options.fn = (cbr_any_fn)fails;
  options.on_error = be_told;
  CHECK_OK(cbr_register_with(&options, &handle));
  CHECK_OK(cbr_queue_open(NULL, &queue));
  listen_to(&it, 0, CBR_LOG_WARN);
  CHECK_OK(cbr_post(queue, handle, NULL, 0));
  CHECK_OK(cbr_queue_dispatch(queue, 0, 0, NULL));
  CHECK_EQ(told, 1);
  CHECK_EQ(it.lines, 0);
}

TEST(a_level_lets_through_what_is_as_bad_or_worse) {
  struct sink warnings = {0}, debug = {0};
  cbr_scope scope;
  listen_to(&warnings, 0, CBR_LOG_WARN);
  CHECK_OK(cbr_scope_open("quiet", &scope));
  CHECK_EQ(warnings.lines, 0);
  listen_to(&debug, 0, CBR_LOG_DEBUG);
  CHECK_OK(cbr_scope_open("plugin", &scope));
  CHECK_EQ(debug.lines, 1);
  CHECK_EQ(debug.level, CBR_LOG_DEBUG);
  CHECK_CONTAINS(debug.last, "'plugin'");
  CHECK_STATUS(cbr_call(scope, NULL, NULL), CBR_ERR_KIND);
  CHECK_EQ(debug.level, CBR_LOG_WARN);
  CHECK_EQ(debug.lines, 2);
  listen_to(&warnings, 0, CBR_LOG_OFF);
  CHECK_STATUS(cbr_call(scope, NULL, NULL), CBR_ERR_KIND);
  CHECK_EQ(warnings.lines, 0);
}

/* --- the sink's life ------------------------------------------------------------------------ */

TEST(a_sink_is_destroyed_once_when_another_takes_its_place_or_none) {
  struct sink first = {0}, second = {0};
  listen_to(&first, 0, CBR_LOG_WARN);
  CHECK_EQ(first.destroyed, 0);
  listen_to(&second, 0, CBR_LOG_WARN);
  CHECK_EQ(first.destroyed, 1);
  CHECK_STATUS(cbr_call(0, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(first.lines, 0);
  CHECK_EQ(second.lines, 1);
  CHECK_OK(cbr_log_to(NULL, NULL, NULL, 0, 0));
  CHECK_EQ(second.destroyed, 1);
  CHECK_STATUS(cbr_call(1, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(second.lines, 1);
  CHECK_OK(cbr_log_to(NULL, NULL, NULL, 0, 0));
  CHECK_EQ(second.destroyed, 1);
}

TEST(a_sink_that_is_refused_stays_its_hosts) {
  struct sink it = {0}, other = {0};
  cbr_scope scope;
  listen_to(&it, 0, CBR_LOG_WARN);
  CHECK_OK(cbr_scope_open("plugin", &scope));
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  CHECK_REFUSED(cbr_log_to(sink_line, &other, sink_destroy, scope, CBR_LOG_WARN), CBR_ERR_STALE);
  CHECK_REFUSED(cbr_log_to(sink_line, &other, sink_destroy, 0, 6), CBR_ERR_INVALID);
  CHECK_EQ(other.destroyed, 0);
  int lines = it.lines;
  CHECK(lines > 0);
  CHECK_STATUS(cbr_call(0, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(it.lines, lines + 1); /* the one before is still there */
}

TEST(closing_the_owner_ends_the_sink) {
  struct sink it = {0};
  cbr_scope scope;
  CHECK_OK(cbr_scope_open("plugin", &scope));
  listen_to(&it, scope, CBR_LOG_WARN);
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  CHECK_EQ(it.destroyed, 1);
  CHECK_STATUS(cbr_call(0, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(it.lines, 0);
}

static gate entered, go_on;

static void stay(struct sink *it) {
  (void)it;
  gate_open(&entered);
  gate_pass(&go_on);
}

static void *call_nothing(void *arg) {
  (void)arg;
  CHECK_STATUS(cbr_call(0, NULL, NULL), CBR_ERR_STALE);
  return NULL;
}

TEST(closing_the_owner_waits_for_a_line_that_is_being_taken) {
  struct sink it = {.then = stay};
  cbr_scope scope;
  size_t running = 0;
  gate_init(&entered);
  gate_init(&go_on);
  CHECK_OK(cbr_scope_open("plugin", &scope));
  listen_to(&it, scope, CBR_LOG_WARN);
  pthread_t thread = start(call_nothing, NULL);
  gate_pass(&entered);
  CHECK_STATUS(cbr_scope_close(scope, 0, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 1);
  CHECK_EQ(it.destroyed, 0);
  gate_open(&go_on);
  join(thread);
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  CHECK_EQ(it.destroyed, 1);
}

static void replace(struct sink *it) {
  it->then = NULL;
  CHECK_OK(cbr_log_to(NULL, NULL, NULL, 0, 0));
  CHECK_EQ(it->destroyed, 0); /* not while it runs */
}

TEST(a_sink_may_remove_itself) {
  struct sink it = {.then = replace};
  listen_to(&it, 0, CBR_LOG_WARN);
  CHECK_STATUS(cbr_call(0, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(it.destroyed, 1);
  CHECK_EQ(it.lines, 1);
}

static cbr_scope owner;

static void close_owner(struct sink *it) {
  it->then = NULL;
  CHECK_STATUS(cbr_scope_close(owner, -1, NULL), CBR_ERR_DEADLOCK);
  CHECK_EQ(it->destroyed, 0);
}

TEST(a_sink_that_closes_its_own_scope_does_not_wait_for_itself) {
  struct sink it = {.then = close_owner};
  CHECK_OK(cbr_scope_open("plugin", &owner));
  listen_to(&it, owner, CBR_LOG_WARN);
  CHECK_STATUS(cbr_call(0, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(cbr_scope_close(owner, -1, NULL));
  CHECK_EQ(it.destroyed, 1);
}

/* --- what an operation notices of a sink inside it: nothing -------------------------------- */

static void misuse(struct sink *it) {
  (void)it;
  CHECK_STATUS(cbr_call(0, NULL, NULL), CBR_ERR_STALE);
  CHECK_STATUS(cbr_retain(1), CBR_ERR_STALE);
  CHECK_WORDS("cbr_retain");
}

TEST(what_a_sink_does_wrong_does_not_come_back_to_it) {
  struct sink it = {.then = misuse};
  cbr_pin pin;
  listen_to(&it, 0, CBR_LOG_WARN);
  cbr_handle handle = registered("it", add_one);
  CHECK_STATUS(cbr_enter(handle, CBR_SIG(CBR_VOID), &pin), CBR_ERR_SIGNATURE);
  CHECK_EQ(it.lines, 1);
  CHECK_WORDS("cbr_enter"); /* the caller's own failure, not the sink's */
}

static uint32_t depth_inside;
static cbr_handle current_inside;

static void look_around(struct sink *it) {
  (void)it;
  depth_inside = cbr_depth();
  current_inside = cbr_current();
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "the sink's own trouble"));
}

static intptr_t call_nobody(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  CHECK_STATUS(cbr_call(0, NULL, NULL), CBR_ERR_STALE);
  return 7;
}

TEST(a_sink_is_no_call_and_its_failure_nobodys) {
  struct sink it = {.then = look_around};
  intptr_t result = 0;
  listen_to(&it, 0, CBR_LOG_WARN);
  cbr_handle handle = registered("outer", call_nobody);
  CHECK_OK(cbr_call(handle, NULL, &result));
  CHECK_EQ(result, 7);
  CHECK_EQ(it.lines, 1);
  CHECK_EQ(depth_inside, 1);
  CHECK_EQ(current_inside, handle);
}

TEST(the_message_of_a_failed_call_outlives_the_line_about_another) {
  struct sink it = {.then = misuse};
  listen_to(&it, 0, CBR_LOG_WARN);
  cbr_handle handle = registered("it", fails);
  CHECK_STATUS(cbr_call(handle, NULL, NULL), CBR_ERR_PANIC);
  CHECK_WORDS("the disk is on fire");
}

static jmp_buf place;

static void jump(struct sink *it) {
  it->then = NULL;
  __atomic_sub_fetch(&it->inside, 1, __ATOMIC_SEQ_CST);
  longjmp(place, 1);
}

TEST(a_sink_may_be_jumped_out_of) {
  struct sink it = {.then = jump};
  listen_to(&it, 0, CBR_LOG_WARN);
  uint32_t depth = cbr_depth();
  if (setjmp(place) == 0) {
    cbr_call(0, NULL, NULL);
    FAIL("not jumped");
  }
  CHECK_OK(cbr_unwind_to(depth));
  CHECK_STATUS(cbr_call(1, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(it.lines, 2); /* it hears again */
  CHECK_OK(cbr_log_to(NULL, NULL, NULL, 0, 0));
  CHECK_EQ(it.destroyed, 1);
}

static void end_thread(struct sink *it) {
  it->then = NULL;
  __atomic_sub_fetch(&it->inside, 1, __ATOMIC_SEQ_CST);
  pthread_exit(NULL);
}

TEST(a_thread_may_end_inside_a_sink) {
  struct sink it = {.then = end_thread};
  listen_to(&it, 0, CBR_LOG_WARN);
  run_on_thread(call_nothing, NULL);
  CHECK_OK(cbr_log_to(NULL, NULL, NULL, 0, 0));
  CHECK_EQ(it.destroyed, 1);
}

TEST(a_sink_is_heard_in_the_child_of_a_fork) {
  struct sink it = {0};
  listen_to(&it, 0, CBR_LOG_WARN);
  pid_t child = fork_watched();
  if (child == 0) {
    CHECK_STATUS(cbr_call(0, NULL, NULL), CBR_ERR_STALE);
    CHECK_EQ(it.lines, 1);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_EQ(it.lines, 0);
}

static int writer;

static void *writes_a_line(void *arg) {
  store_int(&writer, (int)syscall(SYS_gettid));
  return call_nothing(arg);
}

/* It may be in the middle of a line while another thread forks, and does not exist in the child. */
TEST(the_child_of_a_fork_prints_though_another_thread_was_printing) {
  static char most[1 << 16];
  int full[2], heard[2], before = dup(STDERR_FILENO);
  if (HARNESS_SANITIZED) SKIP("a lock of the sanitizer may be another thread's at the fork");
  if (under_valgrind()) SKIP("in the child, the line that the other thread had in hand is lost");
  CHECK_EQ(pipe(full), 0);
  CHECK_EQ(pipe(heard), 0);
  CHECK_OK(cbr_log_to_stderr("warn"));
  CHECK_EQ(fcntl(full[1], F_SETFL, O_NONBLOCK), 0);
  while (write(full[1], most, sizeof most) > 0) continue;
  while (write(full[1], most, 1) > 0) continue;
  CHECK_EQ(fcntl(full[1], F_SETFL, 0), 0);
  CHECK_EQ(dup2(full[1], STDERR_FILENO), STDERR_FILENO);
  pthread_t thread = start(writes_a_line, NULL);
  POLL_UNTIL(sleeps(&writer));
  pid_t child = fork_watched();
  if (child == 0) {
    CHECK_EQ(dup2(heard[1], STDERR_FILENO), STDERR_FILENO);
    CHECK_STATUS(cbr_call(7, NULL, NULL), CBR_ERR_STALE);
    _exit(0);
  }
  CHECK_EQ(dup2(before, STDERR_FILENO), STDERR_FILENO);
  check_child_passed(child);
  close(heard[1]);
  CHECK(read(heard[0], most, sizeof most - 1) > 0);
  CHECK_CONTAINS(most, "cbr_call: stale: the object is gone, or never was: 0x0000000000000007\n");
  /* What the thread waits for. */
  CHECK(read(full[0], most, sizeof most) > 0);
  join(thread);
}

/* --- under load ----------------------------------------------------------------------------- */

static int load_over, lines_of_many;

/* What several threads may be inside at once: sink_line keeps its words for one. */
static void sink_of_many(void *user_data, uint32_t level, const char *target, const char *message) {
  struct sink *it = user_data;
  CHECK_EQ(__atomic_load_n(&it->destroyed, __ATOMIC_SEQ_CST), 0);
  __atomic_add_fetch(&it->inside, 1, __ATOMIC_SEQ_CST);
  CHECK_EQ(level, CBR_LOG_WARN);
  CHECK_STR(target, "callbridge");
  /* Or how many such lines were left out, at the turn of a second. */
  if (strstr(message, " were left out") == NULL) CHECK_CONTAINS(message, "cbr_call: stale");
  __atomic_add_fetch(&lines_of_many, 1, __ATOMIC_RELAXED);
  CHECK_EQ(__atomic_load_n(&it->destroyed, __ATOMIC_SEQ_CST), 0);
  __atomic_sub_fetch(&it->inside, 1, __ATOMIC_SEQ_CST);
}

static void *misuse_much(void *arg) {
  uint64_t number = (uint64_t)(uintptr_t)arg << 56;
  while (!__atomic_load_n(&load_over, __ATOMIC_RELAXED)) cbr_call(++number, NULL, NULL);
  return NULL;
}

TEST(sinks_may_be_replaced_while_lines_come) {
  enum { SINKS = 300 };
  static struct sink sinks[SINKS];
  pthread_t threads[3];
  for (uintptr_t i = 0; i < 3; i++) threads[i] = start(misuse_much, (void *)(i + 1));
  for (int i = 0; i < SINKS; i++) {
    CHECK_OK(cbr_log_to(sink_of_many, &sinks[i], sink_destroy, 0, CBR_LOG_WARN));
    sched_yield();
  }
  while (__atomic_load_n(&lines_of_many, __ATOMIC_RELAXED) == 0) sched_yield();
  __atomic_store_n(&load_over, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < 3; i++) join(threads[i]);
  CHECK_OK(cbr_log_to(NULL, NULL, NULL, 0, 0));
  for (int i = 0; i < SINKS; i++) CHECK_EQ(sinks[i].destroyed, 1);
}

/* --- stderr --------------------------------------------------------------------------------- */

CHILD(changes_its_filter) {
  CHECK_STATUS(cbr_call(1, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(cbr_log_to_stderr("warn"));
  CHECK_STATUS(cbr_call(2, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(cbr_log_to_stderr("off"));
  CHECK_STATUS(cbr_call(3, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(cbr_log_to_stderr("other=trace,callbridge=error"));
  CHECK_STATUS(cbr_call(4, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(cbr_log_to_stderr("callbridge=warn"));
  CHECK_STATUS(cbr_call(5, NULL, NULL), CBR_ERR_STALE);
  CHECK_REFUSED(cbr_log_to_stderr("callbridge=loud"), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_log_to_stderr("\xff"), CBR_ERR_INVALID);
  char long_filter[1600] = "";
  while (strlen(long_filter) + 7 <= 1500) strcat(long_filter, "a=info,");
  CHECK_OK(cbr_log_to_stderr(strcat(long_filter, "callbridge=warn") + 15)); /* 1,500 bytes or a few less */
  memset(long_filter, 'a', 1501);
  long_filter[1501] = 0;
  CHECK_REFUSED(cbr_log_to_stderr(long_filter), CBR_ERR_INVALID);
  CHECK_STATUS(cbr_call(6, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(cbr_log_to_stderr(NULL));
  CHECK_STATUS(cbr_call(7, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(cbr_log_to_stderr("warn/what no line says"));
  CHECK_STATUS(cbr_call(8, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(cbr_log_to_stderr("warn/never was"));
  CHECK_STATUS(cbr_call(9, NULL, NULL), CBR_ERR_STALE);
}

static void check_lines(const char *output, const char *numbers) {
  char found[16] = "";
  for (int number = 1; number <= 9; number++) {
    char line[96];
    snprintf(line, sizeof line, "cbr_call: stale: the object is gone, or never was: %#018x", number);
    if (strstr(output, line) != NULL) found[strlen(found)] = (char)('0' + number);
  }
  CHECK_STR(found, numbers);
}

TEST(what_goes_to_stderr_is_filtered_at_run_time) {
  char output[8192];
  check_child("changes_its_filter", NULL, NULL, output, sizeof output);
  check_lines(output, "25679");
  check_child("changes_its_filter", "CALLBRIDGE_LOG", "", output, sizeof output);
  check_lines(output, "25679");
}

TEST(without_a_filter_the_variable_says_what_goes_to_stderr) {
  char output[8192];
  check_child("changes_its_filter", "CALLBRIDGE_LOG", "error", output, sizeof output);
  check_lines(output, "2569");
}

CHILD(has_both) {
  struct sink it = {0};
  listen_to(&it, 0, CBR_LOG_WARN);
  CHECK_OK(cbr_log_to_stderr("warn"));
  CHECK_STATUS(cbr_call(1, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(it.lines, 1);
}

TEST(sink_and_stderr_both_get_a_line) {
  char output[8192];
  check_child("has_both", NULL, NULL, output, sizeof output);
  check_lines(output, "1");
}

CHILD(has_both_at_levels_of_their_own) {
  struct sink it = {0};
  cbr_queue queue;
  listen_to(&it, 0, CBR_LOG_WARN);
  CHECK_OK(cbr_log_to_stderr("debug"));
  CHECK_OK(cbr_queue_open(NULL, &queue)); /* says so to who wants to follow */
  CHECK_EQ(it.lines, 0);
  CHECK_OK(cbr_log_to_stderr("error"));
  CHECK_STATUS(cbr_call(1, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(it.lines, 1);
}

TEST(sink_and_stderr_have_levels_of_their_own) {
  char output[8192];
  check_child("has_both_at_levels_of_their_own", NULL, NULL, output, sizeof output);
  CHECK_CONTAINS(output, "is open");
  check_lines(output, "");
}

static void *misuses_while_cancelled(void *arg) {
  CHECK_EQ(pthread_cancel(pthread_self()), 0);
  CHECK_STATUS(cbr_call(1, NULL, NULL), CBR_ERR_STALE);
  *(int *)arg = 1;
  pthread_testcancel();
  return NULL;
}

CHILD(prints_while_cancelled) {
  int returned = 0;
  CHECK_OK(cbr_log_to_stderr("warn"));
  CHECK(run_on_thread(misuses_while_cancelled, &returned) == PTHREAD_CANCELED);
  CHECK_EQ(returned, 1);
}

TEST(printing_a_line_is_no_cancellation_point) {
  char output[8192];
  check_child("prints_while_cancelled", NULL, NULL, output, sizeof output);
  check_lines(output, "1");
}
