/* Programs of their own for tests: forked children, and this binary started afresh. */
#ifndef CALLBRIDGE_SUPPORT_CHILD_H
#define CALLBRIDGE_SUPPORT_CHILD_H

#include "harness.h"

/* fork with the watchdog set in the child. End the child with _exit(0). */
static inline pid_t fork_watched(void) {
  fflush(NULL);
  pid_t child = fork();
  if (child < 0) FAIL("fork: %s", strerror(errno));
  if (child == 0) {
    harness_watch();
    harness_process++;
  }
  return child;
}

static inline int wait_for(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0) CHECK_EQ(errno, EINTR);
  return status;
}

/* A skip inside the child is a skip of the test. */
static inline void check_child_passed(pid_t child) {
  int status = wait_for(child);
  if (WIFSIGNALED(status)) FAIL("the child was ended by signal %d", WTERMSIG(status));
  if (WEXITSTATUS(status) == HARNESS_SKIPPED) _exit(HARNESS_SKIPPED);
  CHECK_EQ(WEXITSTATUS(status), 0);
}

/* Runs CHILD(name) of this binary in a fresh process, with one more variable in its environment
 * (NULL: none); keeps what it wrote to stdout and stderr. Returns its exit code. */
static inline int run_child(const char *name, const char *variable, const char *value, char *output,
                            size_t size) {
  int ends[2];
  size_t used = 0;
  char rest[256];
  char program[4096] = "";
  CHECK(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
  fflush(NULL);
  CHECK_EQ(pipe(ends), 0);
  pid_t child = fork();
  if (child < 0) FAIL("fork: %s", strerror(errno));
  if (child == 0) {
    if (variable != NULL) setenv(variable, value, 1);
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    execl(program, program, "--child", name, (char *)NULL);
    _exit(126);
  }
  close(ends[1]);
  for (;;) {
    bool full = used + 1 >= size; /* reads on, so that the child never blocks */
    ssize_t got =
        full ? read(ends[0], rest, sizeof rest) : read(ends[0], output + used, size - 1 - used);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    if (!full) used += (size_t)got;
  }
  output[used] = '\0';
  close(ends[0]);
  int status = wait_for(child);
  if (WIFSIGNALED(status))
    FAIL("%s was ended by signal %d; it wrote: %s", name, WTERMSIG(status), output);
  return WEXITSTATUS(status);
}

/* The same where the child must pass; what it wrote is shown if it did not. */
static inline void check_child(const char *name, const char *variable, const char *value,
                               char *output, size_t size) {
  int code = run_child(name, variable, value, output, size);
  if (code != 0) FAIL("%s ended with %d; it wrote:\n%s", name, code, output);
}

#endif
