/* Running out of memory, for tests. */
#ifndef CALLBRIDGE_SUPPORT_MEMORY_H
#define CALLBRIDGE_SUPPORT_MEMORY_H

#include "harness.h"

#include <sys/resource.h>

/* So much more address space than is in use, and no more. */
static inline void limit_address_space(size_t more) {
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%ld", &pages) == 1);
  fclose(file);
  rlim_t most = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + more;
  struct rlimit limit = {most, most};
  CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
}

static inline void skip_where_limits_do_not_work(void) {
  if (under_valgrind()) SKIP("valgrind itself needs the address space that this test takes away");
  if (HARNESS_SANITIZED)
    SKIP("the sanitizer itself needs the address space that this test takes away");
}

#endif
