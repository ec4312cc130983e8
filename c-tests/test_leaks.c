/* CALLBRIDGE_LEAK_CHECK: what is live at exit is reported, by where it was registered. Each CHILD is a program
 * that leaves something, or nothing. */
#include "support_child.h"
#include "support_memory.h"

#include <pthread.h>

static char output[1 << 20];

#define NOTHING_LIVE(text)                                                           \
  do {                                                                               \
    if (strstr((text), "live at exit") != NULL) FAIL("reported all the same:\n%s", (text)); \
  } while (0)

#define FRAME __attribute__((noinline, noclone, no_icf)) static
#define KEEP_FRAME() __asm__ volatile("" ::: "memory")

static intptr_t nothing(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 0;
}

FRAME cbr_handle register_reader(cbr_scope scope) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)nothing;
  options.name = "reader";
  options.scope = scope;
  CHECK_OK(cbr_register_with(&options, &handle));
  KEEP_FRAME();
  return handle;
}

FRAME cbr_handle register_plainly(void) {
  cbr_handle handle;
  CHECK_OK(cbr_register(nothing, NULL, NULL, &handle));
  KEEP_FRAME();
  return handle;
}

FRAME void forget(volatile int count) {
  while (count-- > 0) register_plainly();
  KEEP_FRAME();
}

/* The part of the report that begins with these words, to the next empty line. */
static const char *part(const char *report, const char *words) {
  static char found[8192];
  const char *begin = strstr(report, words);
  if (begin == NULL) FAIL("no \"%s\" in the report:\n%s", words, report);
  const char *end = strstr(begin, "\n\n");
  snprintf(found, sizeof found, "%.*s", (int)(end != NULL ? end - begin : (long)strlen(begin)), begin);
  return found;
}

/* --- what is reported ---------------------------------------------------------------------- */

CHILD(leaves_callbacks) {
  cbr_scope scope;
  CHECK_OK(cbr_scope_open("plugin", &scope));
  register_reader(scope);
  forget(20);
  CHECK_OK(cbr_retain(register_plainly()));
  CHECK_OK(cbr_unregister(register_plainly()));
}

TEST(callbacks_are_reported_by_the_stacks_that_registered_them) {
  check_child("leaves_callbacks", "CALLBRIDGE_LEAK_CHECK", "1", output, sizeof output);
  CHECK_CONTAINS(output, "callbridge: live at exit: 22 callbacks, 1 scope\n");
  /* The largest group first, the functions named that the program does not export, and their places. */
  const char *first = strstr(output, "registered at");
  CHECK(first != NULL && strncmp(first - 13, "20 callbacks ", 13) == 0);
  const char *group = part(output, "\n20 callbacks registered at\n");
  CHECK_CONTAINS(group, "    #0  register_plainly+0x");
  CHECK_CONTAINS(group, "    #1  forget+0x");
  CHECK_CONTAINS(group, "    #2  child_leaves_callbacks+0x");
  CHECK_CONTAINS(group, "/test_leaks-");
  CHECK_CONTAINS(group, ": nothing (");
  /* Of many, some. */
  CHECK_CONTAINS(group, "\n  and 12 more");
  group = part(output, "    #0  register_reader");
  CHECK_CONTAINS(group, " 'reader' of scope 'plugin': nothing (");
  CHECK_CONTAINS(output, ", 2 references: nothing (");
}

TEST(a_place_in_the_report_is_what_addr2line_takes) {
  char path[4096], place[64] = "", command[4300], said[256] = "";
  const char *at;
  if (system("command -v addr2line >/dev/null") != 0) SKIP("addr2line is not installed");
  check_child("leaves_callbacks", "CALLBRIDGE_LEAK_CHECK", "1", output, sizeof output);
  CHECK((at = strstr(output, "#1  forget+0x")) != NULL);
  CHECK_EQ(sscanf(at, "#1  forget+%*x (%4095[^+]+%63[0-9a-fx])", path, place), 2);
  snprintf(command, sizeof command, "addr2line -f -e '%s' %s", path, place);
  FILE *addr2line = popen(command, "r");
  CHECK(addr2line != NULL && fgets(said, sizeof said, addr2line) != NULL);
  CHECK_STR(said, "forget\n");
  pclose(addr2line);
}

static void *never_returns(void *handle) {
  cbr_pin pin;
  CHECK_OK(cbr_hold(*(cbr_handle *)handle, 0, &pin));
  return NULL;
}

CHILD(leaves_one_of_everything) {
  cbr_handle handle, ended;
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue, closed;
  cbr_thunk thunk, permanent, shut;
  cbr_any_fn fn;
  cbr_scope scope, gone;
  cbr_pin pin, left;
  pthread_t thread;
  handle = register_reader(0);
  CHECK_OK(cbr_scope_open("plugin\n", &scope));
  CHECK_OK(cbr_scope_open("gone", &gone));
  CHECK_OK(cbr_scope_close(gone, -1, NULL));
  options.name = "events";
  CHECK_OK(cbr_queue_open(&options, &queue));
  CHECK_OK(cbr_queue_open(&options, &closed));
  CHECK_OK(cbr_queue_close(closed, CBR_CLOSE_DISCARD));
  CHECK_OK(cbr_post(queue, handle, NULL, 0));
  CHECK_OK(cbr_post(queue, handle, NULL, 0));
  CHECK_OK(cbr_thunk_open(handle, CBR_SIG_DEFAULT, 0, &fn, &thunk));
  CHECK_OK(cbr_thunk_open(handle, CBR_SIG_DEFAULT, 0, &fn, &shut));
  CHECK_OK(cbr_thunk_close(shut));
  /* Meant to be there for ever. */
  CHECK_OK(cbr_thunk_open(handle, CBR_SIG_DEFAULT, CBR_THUNK_PERMANENT, &fn, &permanent));
  CHECK_EQ(pthread_create(&thread, NULL, never_returns, &handle), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_OK(cbr_hold(handle, 0, &left));
  CHECK_OK(cbr_leave(&left));
  /* One that has ended, and cannot be destroyed. */
  ended = register_plainly();
  CHECK_OK(cbr_hold(ended, 0, &pin));
  CHECK_OK(cbr_unregister(ended));
}

TEST(all_kinds_of_objects_that_are_left_are_reported) {
  check_child("leaves_one_of_everything", "CALLBRIDGE_LEAK_CHECK", "1", output, sizeof output);
  CHECK_CONTAINS(output,
                 "callbridge: live at exit: 1 callback, 1 scope, 1 queue, 1 thunk, 2 holds, "
                 "1 callback ended and not destroyed\n");
  CHECK_CONTAINS(output, " 'plugin\\n'\n");
  CHECK_CONTAINS(output, " 'events' with 2 events\n");
  CHECK_CONTAINS(output, " i64(ptr) of the callback 'reader'\n");
  CHECK_CONTAINS(output, "  hold of the callback 0x");
  CHECK_CONTAINS(output, " 'reader'\n");
}

CHILD(leaves_a_scope_alone) {
  cbr_scope scope;
  CHECK_OK(cbr_scope_open("alone", &scope));
}

TEST(a_scope_alone_is_reported_too) {
  CHECK_EQ(run_child("leaves_a_scope_alone", "CALLBRIDGE_LEAK_CHECK", "exit:3", output, sizeof output), 3);
  CHECK_CONTAINS(output, "callbridge: live at exit: 1 scope\n");
}

TEST(without_stacks_callbacks_are_reported_all_the_same) {
  CHECK_EQ(setenv("CALLBRIDGE_STACKS", "0", 1), 0);
  check_child("leaves_callbacks", "CALLBRIDGE_LEAK_CHECK", "1", output, sizeof output);
  CHECK_CONTAINS(output, "\n22 callbacks, where is not recorded\n");
  CHECK_CONTAINS(output, "  and 14 more\n");
}

/* --- when ---------------------------------------------------------------------------------- */

CHILD(leaves_nothing) {
  cbr_scope scope;
  CHECK_OK(cbr_scope_open("closed", &scope));
  register_reader(scope);
  CHECK_OK(cbr_release(register_plainly()));
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  puts("done");
  exit(5);
}

TEST(where_nothing_is_left_nothing_is_said_and_the_code_is_the_programs) {
  CHECK_EQ(run_child("leaves_nothing", "CALLBRIDGE_LEAK_CHECK", "exit:23", output, sizeof output), 5);
  CHECK_STR(output, "done\n");
}

TEST(unset_nothing_is_said) {
  unsetenv("CALLBRIDGE_LEAK_CHECK");
  check_child("leaves_callbacks", NULL, NULL, output, sizeof output);
  CHECK_STR(output, "");
  check_child("leaves_callbacks", "CALLBRIDGE_LEAK_CHECK", "0", output, sizeof output);
  CHECK_STR(output, "");
  check_child("leaves_callbacks", "CALLBRIDGE_STACKS", "1", output, sizeof output);
  CHECK_STR(output, "");
}

CHILD(uses_nothing) { exit(6); }

TEST(a_program_that_uses_nothing_of_the_library_ends_as_it_does) {
  CHECK_EQ(run_child("uses_nothing", "CALLBRIDGE_LEAK_CHECK", "exit:23", output, sizeof output), 6);
  CHECK_STR(output, "");
}

static cbr_handle by_handler, by_destructor;

static void unregister_in_handler(void) {
  if (by_handler != 0) CHECK_OK(cbr_unregister(by_handler));
}

__attribute__((destructor)) static void unregister_in_destructor(void) {
  if (by_destructor != 0) CHECK_OK(cbr_unregister(by_destructor));
}

CHILD(cleans_up_at_exit) {
  /* Before the first use of the library, so that it comes after what that may have to do. */
  CHECK_EQ(atexit(unregister_in_handler), 0);
  by_handler = register_plainly();
  by_destructor = register_plainly();
}

TEST(what_handlers_and_destructors_of_the_program_end_is_not_reported) {
  check_child("cleans_up_at_exit", "CALLBRIDGE_LEAK_CHECK", "exit:23", output, sizeof output);
  NOTHING_LIVE(output);
}

CHILD(forks) {
  register_plainly();
  pid_t child = fork();
  if (child == 0) {
    register_plainly();
    exit(7);
  }
  int status = wait_for(child);
  CHECK(WIFEXITED(status));
  printf("the child ended with %d\n", WEXITSTATUS(status));
}

TEST(the_child_of_a_fork_does_not_report) {
  CHECK_EQ(run_child("forks", "CALLBRIDGE_LEAK_CHECK", "exit:23", output, sizeof output), 23);
  CHECK_CONTAINS(output, "the child ended with 7\n");
  const char *report = strstr(output, "live at exit: 1 callback\n");
  CHECK(report != NULL && strstr(report + 1, "live at exit") == NULL);
}

CHILD(exits_at_once) {
  register_plainly();
  _exit(8);
}

TEST(underscore_exit_reports_nothing) {
  CHECK_EQ(run_child("exits_at_once", "CALLBRIDGE_LEAK_CHECK", "exit:23", output, sizeof output), 8);
  CHECK_STR(output, "");
}

/* --- the code ------------------------------------------------------------------------------ */

CHILD(leaves_one_and_text) {
  register_plainly();
  printf("in a buffer, ");
  fflush(stdout);
  printf("and this as well\n");
  FILE *file = fopen(getenv("CALLBRIDGE_TEST_FILE"), "w");
  CHECK(file != NULL);
  fputs("not flushed", file);
  exit(3);
}

TEST(the_process_exits_with_the_code_and_loses_nothing) {
  char path[] = "/tmp/callbridge_leaks_XXXXXX", kept[64] = "";
  int file = mkstemp(path);
  CHECK(file >= 0);
  CHECK_EQ(setenv("CALLBRIDGE_TEST_FILE", path, 1), 0);
  CHECK_EQ(run_child("leaves_one_and_text", "CALLBRIDGE_LEAK_CHECK", "exit:23", output, sizeof output), 23);
  CHECK_CONTAINS(output, "in a buffer, ");
  CHECK_CONTAINS(output, "and this as well\n");
  CHECK_CONTAINS(output, "live at exit: 1 callback\n");
  CHECK(read(file, kept, sizeof kept - 1) > 0);
  CHECK_STR(kept, "not flushed");
  unlink(path);
  /* Without one it is the program's. */
  CHECK_EQ(run_child("leaves_one_and_text", "CALLBRIDGE_LEAK_CHECK", "1", output, sizeof output), 3);
  CHECK_CONTAINS(output, "live at exit: 1 callback\n");
  unlink(path);
}

TEST(a_value_that_is_not_understood_is_warned_of_and_ignored) {
  static const char *const values[] = {"yes", "2", "exit", "exit:0", "exit:256", ""};
  CHECK_EQ(setenv("CALLBRIDGE_LOG", "warn", 1), 0);
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    check_child("leaves_callbacks", "CALLBRIDGE_LEAK_CHECK", values[i], output, sizeof output);
    CHECK_CONTAINS(output, "\"CALLBRIDGE_LEAK_CHECK\"=");
    CHECK_CONTAINS(output, "is not 0, 1 or exit:CODE with a code of 1 to 255: ignored");
    NOTHING_LIVE(output);
  }
  unsetenv("CALLBRIDGE_LEAK_CHECK");
  check_child("leaves_callbacks", "CALLBRIDGE_STACKS", "all", output, sizeof output);
  CHECK_CONTAINS(output, "\"CALLBRIDGE_STACKS\"=\"all\" is not 0 or 1: ignored");
}

/* --- at a bad time ------------------------------------------------------------------------- */

static void *call_for_ever(void *handle) {
  for (;;) {
    cbr_handle other = register_plainly();
    CHECK_OK(cbr_call(*(cbr_handle *)handle, NULL, NULL));
    CHECK_OK(cbr_unregister(other));
  }
  return NULL;
}

static sem_t begun;

static intptr_t begins(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  sem_post(&begun);
  return 0;
}

CHILD(exits_while_threads_call) {
  static cbr_handle handle;
  CHECK_EQ(sem_init(&begun, 0, 0), 0);
  CHECK_OK(cbr_register(begins, NULL, NULL, &handle));
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, call_for_ever, &handle), 0);
  }
  forget((int)scaled(2000));
  for (int i = 0; i < 100; i++) sem_wait(&begun);
}

TEST(threads_that_still_call_at_exit_do_no_harm) {
  for (long round = scaled(10); round > 0; round--) {
    CHECK_EQ(run_child("exits_while_threads_call", "CALLBRIDGE_LEAK_CHECK", "exit:23", output, sizeof output), 23);
    CHECK_CONTAINS(output, "callbacks registered at\n");
  }
}

static intptr_t exits(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  exit(4);
}

CHILD(exits_inside_a_call) {
  cbr_handle handle;
  CHECK_OK(cbr_register(exits, NULL, NULL, &handle));
  cbr_call(handle, NULL, NULL);
}

TEST(an_exit_inside_a_call_is_an_exit_like_another) {
  CHECK_EQ(run_child("exits_inside_a_call", "CALLBRIDGE_LEAK_CHECK", "exit:23", output, sizeof output), 23);
  CHECK_CONTAINS(output, "live at exit: 1 callback\n");
  CHECK_CONTAINS(output, ", 1 inside: exits (");
}

CHILD(ends_without_memory) {
  forget(1000);
  limit_address_space(0);
  /* All that malloc has left; the smallest last, so that none is missed. */
  for (size_t size = 1 << 20; size >= 16; size /= 2) {
    void *volatile rest;
    do rest = malloc(size);
    while (rest != NULL);
  }
}

TEST(without_memory_the_end_is_no_abort) {
  skip_where_limits_do_not_work();
  CHECK_EQ(run_child("ends_without_memory", "CALLBRIDGE_LEAK_CHECK", "exit:23", output, sizeof output), 23);
  CHECK_CONTAINS(output, "callbridge: no memory to say what is live at exit\n");
}

CHILD(leaves_many) {
  signal(SIGPIPE, SIG_DFL);
  for (int i = 0; i < 5000; i++) register_reader(0);
}

TEST(a_report_that_nobody_reads_does_not_change_how_the_process_ends) {
  char program[4096] = "";
  CHECK(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
  CHECK_EQ(setenv("CALLBRIDGE_LEAK_CHECK", "exit:23", 1), 0);
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  close(ends[0]); /* nobody reads */
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    execl(program, program, "--child", "leaves_many", (char *)NULL);
    _exit(126);
  }
  close(ends[1]);
  int status = wait_for(child);
  if (WIFSIGNALED(status)) FAIL("ended by signal %d", WTERMSIG(status));
  CHECK_EQ(WEXITSTATUS(status), 23);
}
