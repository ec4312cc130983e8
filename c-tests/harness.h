/* A small test runner for C11 and C++17: one binary per file, one process per test.
 *
 *   TEST(name) { ... }      defines a test; put it at the start of a line
 *   CHILD(name) { ... }     a program of its own that a test starts, see support_child.h
 *
 *   ./test_x                runs every test in a forked child and sums up
 *   ./test_x NAME           runs one test in this process (what CTest and debuggers want)
 *   ./test_x --list         prints the names
 *
 * Exit codes: 0 passed, 1 failed, 77 skipped (never silently: the reason is printed).
 * Include it, or a support header, before any system header: it asks for GNU's extensions.
 *
 * CALLBRIDGE_TEST_SCALE   how much the long tests do, in percent (100)
 * CALLBRIDGE_TEST_TIMEOUT seconds until the watchdog prints all stacks and fails (60, more where
 *                         the scale or valgrind asks for it)
 */
#ifndef CALLBRIDGE_HARNESS_H
#define CALLBRIDGE_HARNESS_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <callbridge.h>

#define HARNESS_SKIPPED 77

struct harness_test {
  const char *name;
  void (*run)(void);
  bool child;
  struct harness_test *next;
};
static struct harness_test *harness_tests;
static struct harness_test **harness_tail = &harness_tests;
static const char *harness_current = "(no test)";

static inline void harness_add(struct harness_test *test) {
  *harness_tail = test;
  harness_tail = &test->next;
}

#define HARNESS_DEFINE_(prefix, name, is_child)                                            \
  static void prefix##name(void);                                                          \
  static struct harness_test prefix##name##_entry = {#name, prefix##name, is_child, NULL}; \
  __attribute__((constructor)) static void prefix##name##_add(void) {                      \
    harness_add(&prefix##name##_entry);                                                    \
  }                                                                                        \
  static void prefix##name(void)
#define TEST(name) HARNESS_DEFINE_(test_, name, false)
#define CHILD(name) HARNESS_DEFINE_(child_, name, true)

/* --- scale ------------------------------------------------------------------------------- */

/* valgrind preloads its core into the client, which needs no header to see. */
static inline bool under_valgrind(void) {
  const char *preload = getenv("LD_PRELOAD");
  return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

/* A sanitizer's runtime maps memory and makes system calls of its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HARNESS_SANITIZED true
#else
#define HARNESS_SANITIZED false
#endif

static inline long harness_env(const char *name, long otherwise) {
  const char *text = getenv(name);
  long value = text != NULL ? strtol(text, NULL, 10) : 0;
  return value > 0 ? value : otherwise;
}

/* How much of n to do here; at least one. valgrind is about fifty times slower. */
static inline long scaled(long n) {
  long percent = harness_env("CALLBRIDGE_TEST_SCALE", 100);
  long long part = (long long)n * percent / 100 / (under_valgrind() ? 50 : 1);
  return part > 0 ? (long)part : 1;
}

static inline int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- failing and skipping ---------------------------------------------------------------- */

__attribute__((noreturn, format(printf, 3, 4))) static inline void harness_fail(const char *file,
                                                                                int line,
                                                                                const char *format,
                                                                                ...) {
  char words[512] = "";
  cbr_last_error(words, sizeof words);
  va_list args;
  va_start(args, format);
  flockfile(stderr);
  fprintf(stderr, "FAILED %s\n  %s:%d: ", harness_current, file, line);
  vfprintf(stderr, format, args);
  fprintf(stderr, "\n  cbr_last_error of this thread: \"%s\"\n", words);
  fflush(stderr);
  va_end(args);
  _exit(1);
}

#define FAIL(...) harness_fail(__FILE__, __LINE__, __VA_ARGS__)

/* Ends the test as not run; for what this machine cannot do, with the reason in words. */
#define SKIP(reason)                                                \
  do {                                                              \
    fprintf(stderr, "SKIPPED %s: %s\n", harness_current, (reason)); \
    fflush(stderr);                                                 \
    _exit(HARNESS_SKIPPED);                                         \
  } while (0)

#define CHECK(condition)                             \
  do {                                               \
    if (!(condition)) FAIL("CHECK(%s)", #condition); \
  } while (0)

#define CHECK_EQ(left, right) \
  harness_check_eq(__FILE__, __LINE__, #left, #right, (intmax_t)(left), (intmax_t)(right))
#define CHECK_STATUS(expr, expected) \
  harness_check_status(__FILE__, __LINE__, #expr, (expr), (expected))
#define CHECK_OK(expr) CHECK_STATUS(expr, CBR_OK)
#define CHECK_STR(left, right) harness_check_str(__FILE__, __LINE__, #left, (left), (right))
#define CHECK_CONTAINS(text, part) harness_check_contains(__FILE__, __LINE__, #text, (text), (part))

/* The expression fails with this status, and cbr_last_error has words for it. */
#define CHECK_REFUSED(expr, expected)                                                \
  do {                                                                               \
    CHECK_STATUS(expr, expected);                                                    \
    if (cbr_last_error(NULL, 0) == 0) FAIL("no words for the failure of %s", #expr); \
  } while (0)

/* The words of this thread's last failure have this part. */
#define CHECK_WORDS(part)                                \
  do {                                                   \
    char harness_words[1024] = "";                       \
    cbr_last_error(harness_words, sizeof harness_words); \
    CHECK_CONTAINS(harness_words, part);                 \
  } while (0)

static inline void harness_check_eq(const char *file, int line, const char *left_text,
                                    const char *right_text, intmax_t left, intmax_t right) {
  if (left == right) return;
  harness_fail(file, line, "%s == %s\n    left:  %jd (0x%jx)\n    right: %jd (0x%jx)", left_text,
               right_text, left, (uintmax_t)left, right, (uintmax_t)right);
}

static inline void harness_check_status(const char *file, int line, const char *text,
                                        cbr_status got, cbr_status expected) {
  if (got == expected) return;
  harness_fail(file, line, "%s\n    expected: %s (%d)\n    got:      %s (%d)", text,
               cbr_status_name(expected), (int)expected, cbr_status_name(got), (int)got);
}

static inline void harness_check_str(const char *file, int line, const char *text, const char *left,
                                     const char *right) {
  if (strcmp(left, right) == 0) return;
  harness_fail(file, line, "%s\n    left:  \"%s\"\n    right: \"%s\"", text, left, right);
}

static inline void harness_check_contains(const char *file, int line, const char *text,
                                          const char *whole, const char *part) {
  if (strstr(whole, part) != NULL) return;
  harness_fail(file, line, "%s\n    text: \"%s\"\n    does not contain \"%s\"", text, whole, part);
}

/* --- the watchdog ------------------------------------------------------------------------ */

static sem_t harness_stack_printed;

static inline void harness_say(const char *text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) _exit(1);
}

static inline void harness_print_stack(int signal_number) {
  void *frames[64];
  (void)signal_number;
  harness_say("  --- a thread ---\n");
  backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
  sem_post(&harness_stack_printed);
}

/* Lists the threads with the bare system call, because the heap's lock may be what hangs. */
static inline void harness_on_alarm(int signal_number) {
  char entries[8192];
  (void)signal_number;
  harness_say("FAILED ");
  harness_say(harness_current);
  harness_say("\n  WATCHDOG: still running at its deadline; stacks of all threads:\n");
  alarm(10);
  int folder = open("/proc/self/task", O_RDONLY | O_DIRECTORY);
  long got;
  while (folder >= 0 && (got = syscall(SYS_getdents64, folder, entries, sizeof entries)) > 0) {
    for (long at = 0; at < got;) {
      unsigned short length;
      memcpy(&length, entries + at + 16, sizeof length);
      int thread = atoi(entries + at + 19);
      at += length;
      if (thread <= 0) continue;
      struct timespec limit;
      clock_gettime(CLOCK_REALTIME, &limit);
      limit.tv_sec += 1;
      if (thread == (int)syscall(SYS_gettid)) {
        harness_print_stack(0);
      } else {
        syscall(SYS_tgkill, getpid(), thread, SIGURG);
      }
      sem_timedwait(&harness_stack_printed, &limit);
    }
  }
  _exit(1);
}

/* 0 in the test's own process, one more in each generation of forked children. */
static int harness_process __attribute__((unused));

/* Also for a forked child, which inherits no alarm. */
static inline void harness_watch(void) {
  void *frames[4];
  struct sigaction action;
  (void)backtrace(frames, 4); /* loads the unwinder now, not inside the handler */
  sem_init(&harness_stack_printed, 0, 0);
  memset(&action, 0, sizeof action);
  action.sa_handler = harness_print_stack;
  sigaction(SIGURG, &action, NULL);
  action.sa_handler = harness_on_alarm;
  action.sa_flags = SA_RESETHAND | SA_NODEFER; /* a second alarm ends a handler that hangs */
  sigaction(SIGALRM, &action, NULL);
  long percent = harness_env("CALLBRIDGE_TEST_SCALE", 100);
  long seconds = 60 * (under_valgrind() ? 10 : 1) * (percent > 100 ? percent : 100) / 100;
  alarm((unsigned)harness_env("CALLBRIDGE_TEST_TIMEOUT", seconds));
}

/* --- running ----------------------------------------------------------------------------- */

static inline void harness_run(struct harness_test *test) {
  harness_current = test->name;
  harness_watch();
  test->run();
  fflush(stdout);
  alarm(0);
}

static inline struct harness_test *harness_find(const char *name, bool child) {
  struct harness_test *test = harness_tests;
  while (test != NULL && (test->child != child || strcmp(test->name, name) != 0)) test = test->next;
  return test;
}

/* 0 passed, 1 failed, HARNESS_SKIPPED skipped. */
static inline int harness_run_forked(struct harness_test *test) {
  int64_t start = now_ns();
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    harness_run(test);
    exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  if (WIFSIGNALED(status)) {
    fprintf(stderr, "FAILED %s\n  ended by signal %d (%s)\n", test->name, WTERMSIG(status),
            strsignal(WTERMSIG(status)));
  }
  const char *verdict = code == 0 ? "ok     " : code == HARNESS_SKIPPED ? "SKIPPED" : "FAILED ";
  printf("%s %-70s %6lld ms\n", verdict, test->name, (long long)(now_ns() - start) / 1000000);
  return code == 0 || code == HARNESS_SKIPPED ? code : 1;
}

int main(int argc, char **argv) {
  struct harness_test *test;
  int passed = 0, failed = 0, skipped = 0;
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (test = harness_tests; test != NULL; test = test->next) {
      if (!test->child) puts(test->name);
    }
    return 0;
  }
  if (argc >= 2) {
    bool child = argc == 3 && strcmp(argv[1], "--child") == 0;
    test = harness_find(argv[child ? 2 : 1], child);
    if (test == NULL) {
      fprintf(stderr, "no test is called %s; --list prints them\n", argv[child ? 2 : 1]);
      return 1;
    }
    harness_run(test);
    if (!child) printf("ok      %s\n", test->name);
    return 0;
  }
  for (test = harness_tests; test != NULL; test = test->next) {
    if (test->child) continue;
    int code = harness_run_forked(test);
    *(code == 0 ? &passed : code == HARNESS_SKIPPED ? &skipped : &failed) += 1;
  }
  printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed == 0 && passed + skipped > 0 ? 0 : 1;
}

#endif
