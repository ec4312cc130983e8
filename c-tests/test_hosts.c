/* Hosts that do what a library would rather not see: several copies of it, an allocator of another make,
 * thousands of threads, small stacks, use before main and after it. See also test_hostile (longjmp),
 * test_fork, test_threads and test_thread_exit (pthread_exit, cancellation, exit), test_unwind (exceptions),
 * test_plugin (dlopen and dlclose), test_seccomp, test_faults (memory). */
#include "support_child.h"
#include "support_scenario.h"
#include "support_threads.h"

#include <dlfcn.h>
#include <limits.h>
#include <sys/stat.h>

#ifndef LIBRARY_PATH
#define LIBRARY_PATH "libcallbridge.so"
#endif

/* Nothing is ever refused here. */
static bool may_refuse(cbr_status status) {
  (void)status;
  return false;
}

static void run_whole_scenario(void) {
  for (int i = 0; i < 2; i++) scenario_run();
  scenario_check_end();
}

/* --- before main and after it ---------------------------------------------------------------- */

static cbr_handle early = CBR_HANDLE_NONE;
static bool uses_late;

static intptr_t count_fn(void *user_data, void *arg) {
  (void)arg;
  return ++*(int *)user_data;
}
static int early_calls;

__attribute__((constructor)) static void before_main(void) {
  if (cbr_register(count_fn, &early_calls, NULL, &early) != CBR_OK || cbr_call(early, NULL, NULL) != CBR_OK) abort();
}

static void use_late(void) {
  cbr_handle handle = CBR_HANDLE_NONE;
  intptr_t result = 0;
  int calls = early_calls, own = 0;
  CHECK_OK(cbr_call(early, NULL, &result));
  CHECK_EQ(result, calls + 1);
  CHECK_OK(cbr_register(count_fn, &own, NULL, &handle));
  CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_OK(cbr_unregister(handle));
  CHECK_EQ(own, 1);
}
__attribute__((destructor)) static void after_main(void) {
  if (!uses_late) return;
  use_late();
  CHECK_OK(cbr_unregister(early));
  run_whole_scenario();
  puts("destructor");
  fflush(stdout);
}
static void at_exit(void) {
  use_late();
  puts("atexit");
}

CHILD(a_program_that_ends) {
  CHECK_EQ(early_calls, 1);
  uses_late = true;
  atexit(at_exit);
  exit(0);
}

TEST(the_library_works_before_main_in_atexit_handlers_and_in_destructors) {
  char output[1024];
  CHECK_EQ(early_calls, 1);
  if (run_child("a_program_that_ends", NULL, NULL, output, sizeof output) != 0) FAIL("%s", output);
  CHECK(strstr(output, "atexit\ndestructor\n") != NULL);
}

/* --- signals ---------------------------------------------------------------------------------- */

static cbr_handle for_handler;
static int handled, in_handler;

static void on_signal(int number) {
  (void)number;
  uint32_t depth = cbr_depth();
  CHECK(depth > 0);
  CHECK_OK(cbr_call(for_handler, NULL, NULL));
  CHECK_EQ(cbr_depth(), depth);
  handled++;
}
static intptr_t raise_fn(void *user_data, void *arg) {
  (void)arg;
  raise(SIGUSR1); /* the handler runs here, inside the call */
  cbr_handle me = *(cbr_handle *)user_data;
  CHECK_EQ(cbr_current(), me);
  return 0;
}

TEST(a_signal_handler_that_interrupts_a_callback_may_call) {
  cbr_handle raising = CBR_HANDLE_NONE;
  struct sigaction action = {.sa_handler = on_signal};
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  CHECK_OK(cbr_register(count_fn, &in_handler, NULL, &for_handler));
  CHECK_OK(cbr_register(raise_fn, &raising, NULL, &raising));
  for (int i = 1; i <= 1000; i++) {
    CHECK_OK(cbr_call(raising, NULL, NULL));
    CHECK_EQ(handled, i);
    CHECK_EQ(in_handler, i);
  }
  CHECK_OK(cbr_unregister(raising));
  CHECK_OK(cbr_unregister(for_handler));
}

/* --- threads ---------------------------------------------------------------------------------- */

enum { MANY = 4096, SMALL_STACK = 32 << 10 };

static pthread_barrier_t all_there, all_done;
static cbr_handle shared;

static void *one_of_many(void *arg) {
  int own = 0;
  cbr_handle handle = CBR_HANDLE_NONE;
  (void)arg;
  pthread_barrier_wait(&all_there);
  CHECK_OK(cbr_register(count_fn, &own, NULL, &handle));
  for (int i = 0; i < 10; i++) {
    CHECK_OK(cbr_call(handle, NULL, NULL));
    CHECK_OK(cbr_retain(shared));
    CHECK_OK(cbr_call(shared, NULL, NULL));
    CHECK_OK(cbr_release(shared));
  }
  pthread_barrier_wait(&all_done);
  CHECK_OK(cbr_unregister_wait(handle, -1));
  CHECK_EQ(own, 10);
  return NULL;
}
static intptr_t nothing_fn(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  return 0;
}

/* Starts so many; how many there were until the system had no more. */
static int start_many(pthread_t *threads, int count, size_t stack, void *(*body)(void *)) {
  pthread_attr_t attr;
  int started = 0;
  CHECK_EQ(pthread_attr_init(&attr), 0);
  CHECK_EQ(pthread_attr_setstacksize(&attr, stack), 0);
  while (started < count && pthread_create(&threads[started], &attr, body, NULL) == 0) started++;
  pthread_attr_destroy(&attr);
  return started;
}

TEST(four_thousand_threads_use_it_at_once) {
  static pthread_t threads[MANY];
  if (under_valgrind()) SKIP("valgrind has room for 500 threads");
  if (HARNESS_SANITIZED) SKIP("the sanitizer takes megabytes for every thread");
  CHECK_EQ(pthread_barrier_init(&all_there, NULL, MANY + 1), 0);
  CHECK_EQ(pthread_barrier_init(&all_done, NULL, MANY + 1), 0);
  CHECK_OK(cbr_register(nothing_fn, NULL, NULL, &shared));
  if (start_many(threads, MANY, 64 << 10, one_of_many) < MANY) SKIP("the system lets a process have fewer threads");
  cbr_stats stats = {.size = sizeof stats};
  pthread_barrier_wait(&all_there);
  pthread_barrier_wait(&all_done);
  CHECK_OK(cbr_stats_get(0, &stats));
  CHECK(stats.calls >= MANY * 20);
  for (int i = 0; i < MANY; i++) join(threads[i]);
  CHECK_OK(cbr_unregister(shared));
  CHECK_OK(cbr_unregister(early));
  CHECK_OK(cbr_stats_get(0, &stats));
  CHECK_EQ(stats.live + stats.destroy_pending, 0);
  CHECK_EQ(stats.calls, MANY * 20 + 1);
}

static void *whole_scenario_main(void *arg) {
  run_whole_scenario();
  return arg;
}

TEST(every_function_runs_on_a_stack_of_32_kib_at_every_check_level) {
  if (HARNESS_SANITIZED) SKIP("the sanitizer's functions take more of the stack");
  CHECK_OK(cbr_unregister(early));
  for (scenario_level = 0; scenario_level <= 2; scenario_level++) {
    pthread_t thread;
    CHECK_EQ(start_many(&thread, 1, SMALL_STACK, whole_scenario_main), 1);
    join(thread);
  }
}

/* --- allocators ------------------------------------------------------------------------------- */

CHILD(a_program_with_another_allocator) {
  Dl_info info = {0};
  CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) != 0); /* &malloc may be of this program */
  puts(info.dli_fname);
  CHECK_OK(cbr_unregister(early));
  run_whole_scenario();
}

static void check_allocator(const char *library) {
  char output[1024];
  if (under_valgrind()) SKIP("valgrind's own allocator stands before it");
  if (HARNESS_SANITIZED) SKIP("the sanitizer's own allocator stands before it");
  int code = run_child("a_program_with_another_allocator", "LD_PRELOAD", library, output, sizeof output);
  if (strstr(output, "cannot be preloaded") != NULL) SKIP("the allocator is not installed");
  if (code != 0) FAIL("%s", output);
  if (strstr(output, library) == NULL) FAIL("malloc is not of %s but of %s", library, output);
}

TEST(a_host_with_jemalloc_works) { check_allocator("libjemalloc.so.2"); }

TEST(a_host_with_mimalloc_works) { check_allocator("libmimalloc.so.2"); }

/* --- the library loaded twice, and again and again -------------------------------------------- */

/* Another copy of the library, by another file: its functions by name. */
static void *copy_of_library(void) {
  char path[PATH_MAX] = "", buffer[1 << 16];
  CHECK(readlink("/proc/self/exe", path, sizeof path - 16) > 0);
  strcat(path, "-copy-XXXXXX"); /* beside this program, where code may be loaded from */
  int from = open(LIBRARY_PATH, O_RDONLY), to = mkstemp(path);
  ssize_t got;
  CHECK(from >= 0 && to >= 0);
  while ((got = read(from, buffer, sizeof buffer)) > 0) CHECK_EQ(write(to, buffer, (size_t)got), got);
  CHECK_EQ(fchmod(to, 0700), 0);
  close(from);
  close(to);
  void *copy = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  unlink(path);
  if (copy == NULL) FAIL("%s", dlerror());
  return copy;
}

#define OF_COPY(copy, function) ((__typeof__(&function))symbol_of(copy, #function))
static void *symbol_of(void *library, const char *name) {
  void *symbol = dlsym(library, name);
  if (symbol == NULL) FAIL("%s is missing", name);
  return symbol;
}

static cbr_stats stats_by(cbr_status (*stats_get)(cbr_scope, cbr_stats *)) {
  cbr_stats stats = {.size = sizeof stats};
  CHECK_OK(stats_get(0, &stats));
  return stats;
}

static void *use_a_copy(void *copy) {
  cbr_handle handle = CBR_HANDLE_NONE;
  cbr_queue queue = 0;
  cbr_any_fn fn = NULL;
  cbr_thunk thunk = 0;
  int calls = 0;
  size_t count = 0;
  uint64_t here = stats_by(cbr_stats_get).registered;
  CHECK_OK(OF_COPY(copy, cbr_register)(count_fn, &calls, NULL, &handle));
  CHECK_OK(OF_COPY(copy, cbr_call)(handle, NULL, NULL));
  CHECK(OF_COPY(copy, cbr_call_ptr)(CBR_TO_PTR(handle), NULL) == 2);
  CHECK_OK(OF_COPY(copy, cbr_queue_open)(NULL, &queue));
  CHECK_OK(OF_COPY(copy, cbr_post)(queue, handle, NULL, 0));
  CHECK_OK(OF_COPY(copy, cbr_queue_dispatch)(queue, 0, 0, &count));
  CHECK_OK(OF_COPY(copy, cbr_thunk_open)(handle, CBR_SIG_DEFAULT, 0, &fn, &thunk));
  CHECK_EQ(((intptr_t(*)(void *))fn)(NULL), 4);
  CHECK_EQ(stats_by(OF_COPY(copy, cbr_stats_get)).registered, 1);
  CHECK_EQ(stats_by(OF_COPY(copy, cbr_stats_get)).calls, 4);
  /* Nothing of it has come here, and its handles are none of ours. */
  CHECK_EQ(stats_by(cbr_stats_get).registered, here);
  CHECK_STATUS(cbr_call(handle, NULL, NULL), CBR_ERR_STALE);
  CHECK_STATUS(OF_COPY(copy, cbr_call)(early, NULL, NULL), CBR_ERR_STALE);
  CHECK_OK(OF_COPY(copy, cbr_thunk_close)(thunk));
  CHECK_OK(OF_COPY(copy, cbr_unregister)(handle));
  CHECK_OK(OF_COPY(copy, cbr_queue_close)(queue, CBR_CLOSE_DISCARD));
  return NULL;
}

TEST(two_copies_of_the_library_know_nothing_of_each_other) {
  if (HARNESS_SANITIZED) SKIP("the sanitizer looks up a copy's functions by their file, which is gone");
  join(start(use_a_copy, copy_of_library()));
  CHECK_OK(cbr_call(early, NULL, NULL));
}

TEST(a_host_that_loads_and_unloads_it_again_and_again_finds_it_as_it_was) {
  intptr_t result = 0;
  void *copy = NULL;
  cbr_handle handle = CBR_HANDLE_NONE;
  int calls = 0;
  for (int i = 1; i <= 200; i++) {
    /* It stays loaded: threads that have used it come back to it as they end. */
    copy = dlopen(LIBRARY_PATH, RTLD_NOW | RTLD_LOCAL);
    CHECK(copy != NULL);
    if (i == 1) CHECK_OK(OF_COPY(copy, cbr_register)(count_fn, &calls, NULL, &handle));
    CHECK_OK(OF_COPY(copy, cbr_call)(handle, NULL, &result));
    CHECK_EQ(result, i);
    CHECK_EQ(dlclose(copy), 0);
  }
  CHECK_OK(OF_COPY(copy, cbr_unregister)(handle));
}
