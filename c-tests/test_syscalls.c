/* No system call on the way of register, call and unregister, unless a call is in flight. A filter
 * ends the process at the first one, so threads spin here instead of passing gates. */
#include "support_child.h"
#include "support_seccomp.h"
#include "support_subject.h"

enum { ROUNDS = 20000, BATCH = 1000 };

static void one_life(void) {
  struct subject it;
  cbr_pin pin;
  uint32_t count;
  subject_register(&it);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_retain(it.handle));
  CHECK_OK(cbr_refcount(it.handle, &count));
  CHECK_OK(cbr_release(it.handle));
  CHECK_OK(cbr_enter(it.handle, CBR_SIG_DEFAULT, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_hold(it.handle, CBR_SIG_DEFAULT, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
  CHECK_STATUS(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
  subject_register(&it);
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  CHECK_EQ(it.destroyed, 1);
  subject_register(&it);
  CHECK_OK(cbr_release(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

static struct subject batch[BATCH];

static void one_batch(void) {
  for (int i = 0; i < BATCH; i++) subject_register(&batch[i]);
  for (int i = 0; i < BATCH; i++) CHECK_OK(cbr_call(batch[i].handle, NULL, NULL));
  for (int i = 0; i < BATCH; i++) CHECK_OK(cbr_unregister(batch[i].handle));
  for (int i = 0; i < BATCH; i++) CHECK_EQ(batch[i].destroyed, 1);
}

TEST(the_filter_of_these_tests_ends_a_process_at_its_first_system_call) {
  pid_t child = fork_watched();
  if (child == 0) {
    seccomp_forbid_all();
    syscall(SYS_getpid);
    _exit(0);
  }
  int status = wait_for(child);
  CHECK(WIFEXITED(status));
  if (WEXITSTATUS(status) == HARNESS_SKIPPED) _exit(HARNESS_SKIPPED);
  CHECK_EQ(WEXITSTATUS(status), 1);
}

TEST(one_thread_makes_no_system_call) {
  pid_t child = fork_watched();
  if (child == 0) {
    one_life(); /* makes the thread's record and the first places */
    seccomp_forbid_all();
    for (int i = 0; i < ROUNDS; i++) one_life();
    _exit(0);
  }
  check_child_passed(child);
}

TEST(many_live_callbacks_make_no_system_call_once_there_is_room) {
  pid_t child = fork_watched();
  if (child == 0) {
    one_batch();
    seccomp_forbid_all();
    for (int i = 0; i < 100; i++) one_batch();
    _exit(0);
  }
  check_child_passed(child);
}

/* --- the reaper: ends what another thread has called, while that thread goes on calling ---- */

static cbr_handle to_call_once, others[4];
static int times = 1; /* that it is called; many, for what a library learns from long runs */

__attribute__((noreturn)) static void *goes_on_calling(void *arg) {
  unsigned long round = 0;
  (void)arg;
  take_core(1);
  for (;;) {
    cbr_handle once = __atomic_load_n(&to_call_once, __ATOMIC_ACQUIRE);
    if (once != CBR_HANDLE_NONE) {
      for (int i = 0; i < times; i++) CHECK_OK(cbr_call(once, NULL, NULL));
      CHECK_OK(cbr_call(others[round++ % 4], NULL, NULL));
      __atomic_store_n(&to_call_once, CBR_HANDLE_NONE, __ATOMIC_RELEASE);
    }
    CHECK_OK(cbr_call(others[round++ % 4], NULL, NULL));
  }
}

static void reap_one(void) {
  struct subject it;
  subject_register(&it);
  __atomic_store_n(&to_call_once, it.handle, __ATOMIC_RELEASE);
  while (__atomic_load_n(&to_call_once, __ATOMIC_ACQUIRE) != CBR_HANDLE_NONE) relax();
  CHECK_EQ(load_int(&it.calls), times);
  CHECK_OK(cbr_unregister(it.handle)); /* in flight nowhere: ends here and now */
  CHECK_EQ(it.destroyed, 1);
}

static void reap_many(int calls_each, int count) {
  pid_t child = fork_watched();
  if (child == 0) {
    static struct subject subjects[4];
    times = calls_each;
    for (int i = 0; i < 4; i++) others[i] = subject_register(&subjects[i]);
    take_core(0);
    start(goes_on_calling, NULL);
    reap_one();
    seccomp_forbid_all();
    for (int i = 0; i < count; i++) reap_one();
    _exit(0); /* takes the other thread along */
  }
  check_child_passed(child);
}

TEST(ending_what_another_thread_has_called_makes_no_system_call) { reap_many(1, 300); }

TEST(ending_what_another_thread_has_called_in_a_long_run_makes_no_system_call) {
  reap_many(10000, 100);
}

/* Three threads that have all called it: the case of the mark that says "many". */
static int called_by;
static cbr_handle for_all;

__attribute__((noreturn)) static void *calls_each_once(void *arg) {
  cbr_handle seen = CBR_HANDLE_NONE;
  take_core((int)(intptr_t)arg);
  for (;;) {
    cbr_handle now = __atomic_load_n(&for_all, __ATOMIC_ACQUIRE);
    if (now != seen) {
      CHECK_OK(cbr_call(now, NULL, NULL));
      seen = now;
      add_int(&called_by, 1);
    }
    CHECK_OK(cbr_call(others[0], NULL, NULL));
  }
}

static void reap_one_of_all(void) {
  struct subject it;
  store_int(&called_by, 0);
  subject_register(&it);
  __atomic_store_n(&for_all, it.handle, __ATOMIC_RELEASE);
  while (load_int(&called_by) != 3) relax();
  CHECK_EQ(load_int(&it.calls), 3);
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(ending_what_several_threads_have_called_makes_no_system_call) {
  pid_t child = fork_watched();
  if (child == 0) {
    static struct subject other;
    others[0] = subject_register(&other);
    take_core(0);
    for (int i = 0; i < 3; i++) start(calls_each_once, (void *)(intptr_t)(i + 1));
    reap_one_of_all();
    seccomp_forbid_all();
    for (int i = 0; i < 50; i++) reap_one_of_all();
    _exit(0);
  }
  check_child_passed(child);
}
