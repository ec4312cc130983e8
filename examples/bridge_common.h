/* What the bridge examples share with each other, beside the small helpers of the echo server. */
#ifndef BRIDGE_COMMON_H
#define BRIDGE_COMMON_H

#include "echo_common.h"

#include <callbridge.h>
#include <pthread.h>

/* Ends the program with the library's words. For calls that can fail only by a mistake of ours. */
static inline void must(cbr_status status, const char *what) {
  char words[512];
  if (status == CBR_OK) return;
  cbr_last_error(words, sizeof words);
  fprintf(stderr, "%s: %s: %s\n", what, cbr_status_name(status), words);
  abort();
}

static inline pthread_t start(void *(*run)(void *), void *arg) {
  pthread_t thread;
  errno = pthread_create(&thread, NULL, run, arg);
  if (errno) die("pthread_create");
  return thread;
}

static inline void sleep_until(int64_t ns) {
  const struct timespec at = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) continue;
}

#endif
