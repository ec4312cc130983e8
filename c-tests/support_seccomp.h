/* seccomp filters for tests: what a hardened host refuses, or what a fast path must not do. */
#ifndef CALLBRIDGE_SUPPORT_SECCOMP_H
#define CALLBRIDGE_SUPPORT_SECCOMP_H

#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

/* For all threads of the process: they must not be able to do what the caller cannot. */
static inline void seccomp_install(struct sock_filter *filter, unsigned short length) {
  struct sock_fprog program = {length, filter};
  if (under_valgrind()) SKIP("valgrind knows no seccomp");
  CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0)
    return;
  if (errno == ENOSYS || errno == EINVAL) SKIP("this kernel has no seccomp filters");
  FAIL("seccomp: %s", strerror(errno));
}

#define SECCOMP_LOAD_NUMBER BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define SECCOMP_RETURN(what) BPF_STMT(BPF_RET | BPF_K, (what))
/* Lets this system call through; the next rule looks at the others. */
#define SECCOMP_ALLOW(number) \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), SECCOMP_RETURN(SECCOMP_RET_ALLOW)

/* From now on this system call fails with the error, on every thread. */
static inline void seccomp_refuse(long number, int error) {
  struct sock_filter filter[] = {
      SECCOMP_LOAD_NUMBER,
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
      SECCOMP_RETURN(SECCOMP_RET_ERRNO | (unsigned)error),
      SECCOMP_RETURN(SECCOMP_RET_ALLOW),
  };
  seccomp_install(filter, sizeof filter / sizeof filter[0]);
}

static inline void seccomp_on_trap(int signal_number, siginfo_t *info, void *context) {
  char text[64];
  (void)signal_number;
  (void)context;
  int length = snprintf(text, sizeof text, "  system call %d was made\n", info->si_syscall);
  if (write(STDERR_FILENO, text, (size_t)length) != length) _exit(2);
  _exit(1);
}

/* From now on every system call but those that end the process fails it, on every thread. */
static inline void seccomp_forbid_all(void) {
  struct sock_filter filter[] = {
      SECCOMP_LOAD_NUMBER,
      SECCOMP_ALLOW(SYS_exit_group),
      SECCOMP_ALLOW(SYS_write),
      SECCOMP_RETURN(SECCOMP_RET_TRAP),
  };
  struct sigaction action;
  if (HARNESS_SANITIZED) SKIP("the sanitizer itself makes system calls");
  memset(&action, 0, sizeof action);
  action.sa_sigaction = seccomp_on_trap;
  action.sa_flags = SA_SIGINFO;
  CHECK_EQ(sigaction(SIGSYS, &action, NULL), 0);
  seccomp_install(filter, sizeof filter / sizeof filter[0]);
}

#endif
