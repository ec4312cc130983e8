/* Threads for tests: checked start and join, gates, and a thread that stays inside a callback. */
#ifndef CALLBRIDGE_SUPPORT_THREADS_H
#define CALLBRIDGE_SUPPORT_THREADS_H

#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

/* A gate is shut until opened; each opening lets one passer through. */
typedef sem_t gate;

static inline void gate_init(gate *it) { CHECK_EQ(sem_init(it, 0, 0), 0); }

static inline void gate_open(gate *it) { CHECK_EQ(sem_post(it), 0); }

static inline void gate_pass(gate *it) {
  while (sem_wait(it) != 0) CHECK_EQ(errno, EINTR);
}

typedef void *(*thread_fn)(void *);

static inline pthread_t start(thread_fn run, void *arg) {
  pthread_t thread;
  int error = pthread_create(&thread, NULL, run, arg);
  if (error != 0) FAIL("pthread_create: %s", strerror(error));
  return thread;
}

static inline void *join(pthread_t thread) {
  void *result = NULL;
  CHECK_EQ(pthread_join(thread, &result), 0);
  return result;
}

static inline void *run_on_thread(thread_fn run, void *arg) { return join(start(run, arg)); }

static inline void meet(pthread_barrier_t *barrier) {
  int result = pthread_barrier_wait(barrier);
  CHECK(result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD);
}

/* For loops that may not enter the kernel. */
static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/* Threads with different numbers run on different cores, as far as there are cores: beside one
 * another, not in turns. For threads that spin. */
static inline void take_core(int number) {
  cpu_set_t allowed, mine;
  int core = 0;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (int skip = number % CPU_COUNT(&allowed); skip > 0 || !CPU_ISSET(core, &allowed); core++) {
    skip -= CPU_ISSET(core, &allowed) ? 1 : 0;
  }
  CPU_ZERO(&mine);
  CPU_SET(core, &mine);
  sched_setaffinity(0, sizeof mine, &mine);
}

static inline int load_int(const int *it) { return __atomic_load_n(it, __ATOMIC_ACQUIRE); }

static inline int add_int(int *it, int by) { return __atomic_add_fetch(it, by, __ATOMIC_ACQ_REL); }

static inline void store_int(int *it, int value) { __atomic_store_n(it, value, __ATOMIC_RELEASE); }

/* Sleeps in the kernel. It makes what a test means more likely; none depends on it. */
static inline bool sleeps(const int *thread) {
  char path[64], text[256] = "";
  int number = load_int(thread);
  if (number == 0) return false;
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", number);
  FILE *file = fopen(path, "r");
  if (file == NULL) return true; /* it has ended already */
  size_t got = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  const char *after_name = got > 0 ? strrchr(text, ')') : NULL;
  return after_name == NULL || strncmp(after_name, ") S", 3) == 0;
}

/* For what no gate can tell, such as that another thread waits. The watchdog bounds it. */
#define POLL_UNTIL(condition) \
  do {                        \
    sched_yield();            \
  } while (!(condition))

#endif
