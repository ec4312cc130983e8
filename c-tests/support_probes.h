/* Watching the library's probe points with a debugger, for tests. */
#ifndef CALLBRIDGE_SUPPORT_PROBES_H
#define CALLBRIDGE_SUPPORT_PROBES_H

#include "support_child.h"

#include <dlfcn.h>
#include <inttypes.h>

/* The ten of them, and what a watcher prints of each: words for gdb's and bpftrace's printf, which both
 * know as much of C's as is needed. */
static const struct probe {
  const char *name, *format;
  int count; /* of arguments */
  int text;  /* the one that is a text, or -1 */
} probes[] = {
    {"register", "%lx %lx %s %lx", 4, 2},
    {"unregister", "%lx", 1, -1},
    {"call_begin", "%lx %lx", 2, -1},
    {"call_end", "%lx %d", 2, -1},
    {"post", "%lx %lx", 2, -1},
    {"dispatch_begin", "%lx %lx", 2, -1},
    {"dispatch_end", "%lx %lx", 2, -1},
    {"drop", "%lx %lx %s", 3, 2},
    {"destroy", "%lx %lx %lx", 3, -1},
    {"stale", "%lx", 1, -1},
};
enum { PROBES = sizeof probes / sizeof *probes };

/* The file that has the library's code: the shared library, or this program. */
static inline const char *library_file(void) {
  static char path[4096];
  Dl_info info;
  CHECK(dladdr((void *)(uintptr_t)cbr_call, &info) != 0);
  /* The program's own name may be relative, or that of a link. */
  CHECK(realpath(info.dli_fname, path) != NULL);
  return path;
}

static inline void skip_without(const char *program) {
  char command[256];
  char reason[256];
  snprintf(command, sizeof command, "command -v %s >/dev/null", program);
  snprintf(reason, sizeof reason, "%s is not installed", program);
  if (system(command) != 0) SKIP(reason);
}

static inline void skip_where_no_debugger_works(void) {
#if !defined(__x86_64__)
  SKIP("there are probes on x86_64 alone");
#endif
  if (under_valgrind()) SKIP("valgrind runs the program itself, and no probe of it is ever hit");
  if (HARNESS_SANITIZED) SKIP("the sanitizer does not work under a debugger");
}

#endif
