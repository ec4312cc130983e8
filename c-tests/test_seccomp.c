/* A hardened host that refuses what the library would like to ask of the kernel. */
#include "support_seccomp.h"
#include "support_subject.h"

#include <linux/membarrier.h>
#include <sys/resource.h>

static void refuse_membarrier(int error) {
  seccomp_refuse(SYS_membarrier, error);
  CHECK_EQ(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0), -1);
  CHECK_EQ(errno, error);
}

/* One life of everything: called, busy on other threads when it ends, waited for. */
static void check_works(void) {
  struct subject it;
  struct occupant guests[2];
  cbr_pin pin, hold;
  for (int i = 0; i < 20; i++) {
    subject_register(&it);
    CHECK_OK(cbr_call(it.handle, NULL, NULL));
    occupy(&guests[0], &it);
    occupy(&guests[1], &it);
    CHECK_OK(cbr_enter(it.handle, 0, &pin));
    CHECK_OK(cbr_hold(it.handle, 0, &hold));
    CHECK_OK(cbr_unregister(it.handle));
    CHECK_STATUS(cbr_call(it.handle, NULL, NULL), CBR_ERR_STALE);
    CHECK_OK(vacate(&guests[0]));
    CHECK_OK(cbr_leave(&pin));
    CHECK_OK(cbr_leave(&hold));
    CHECK_EQ(subject_destroyed(&it), 0);
    CHECK_OK(vacate(&guests[1]));
    CHECK_EQ(it.destroyed, 1);

    subject_register(&it);
    occupy(&guests[0], &it);
    CHECK_STATUS(cbr_unregister_wait(it.handle, 1000000), CBR_ERR_TIMEOUT);
    CHECK_OK(vacate(&guests[0]));
    CHECK_STATUS(cbr_unregister_wait(it.handle, -1), CBR_ERR_STALE);
    CHECK_EQ(it.destroyed, 1);
  }
}

TEST(membarrier_refused_with_eperm_before_first_use) {
  refuse_membarrier(EPERM);
  check_works();
}

TEST(membarrier_unknown_to_the_kernel) {
  refuse_membarrier(ENOSYS);
  check_works();
}

/* --- a filter installed late -------------------------------------------------------------- */

TEST(membarrier_refused_later_on_an_idle_library) {
  check_works();
  refuse_membarrier(EPERM);
  check_works();
}

TEST(membarrier_refused_while_calls_are_in_flight_loses_no_end) {
  enum { BUSY = 16 };
  struct subject subjects[BUSY], one_more;
  struct occupant guests[BUSY];
  check_works();
  for (int i = 0; i < BUSY; i++) {
    subject_register(&subjects[i]);
    occupy(&guests[i], &subjects[i]);
  }
  refuse_membarrier(EPERM);
  for (int i = 0; i < BUSY; i++) {
    CHECK_OK(cbr_unregister(subjects[i].handle));
    CHECK_EQ(subject_destroyed(&subjects[i]), 0);
  }
  for (int i = 0; i < BUSY; i++) CHECK_OK(vacate(&guests[i]));
  subject_register(&one_more); /* at the latest with the next life's end */
  CHECK_OK(cbr_unregister(one_more.handle));
  for (int i = 0; i < BUSY; i++) CHECK_EQ(subject_destroyed(&subjects[i]), 1);
  check_works();
}

TEST(waits_end_when_membarrier_is_refused_while_calls_are_in_flight) {
  struct subject it;
  struct occupant guest;
  check_works();
  subject_register(&it);
  occupy(&guest, &it);
  refuse_membarrier(EPERM);
  CHECK_STATUS(cbr_unregister_wait(it.handle, 1000000), CBR_ERR_TIMEOUT);
  gate_open(&guest.leave);
  cbr_status status = cbr_unregister_wait(it.handle, -1);
  CHECK(status == CBR_OK || status == CBR_ERR_STALE);
  CHECK_EQ(subject_destroyed(&it), 1);
  join(guest.thread);
  check_works();
}

/* The last caller is outside and sleeps, after thousands of calls in a row: nobody will come by. */
static struct subject sleepers;
static gate sleeping, awake;

static void *calls_and_sleeps(void *arg) {
  (void)arg;
  for (int i = 0; i < 10000; i++) CHECK_OK(cbr_call(sleepers.handle, NULL, NULL));
  gate_open(&sleeping);
  gate_pass(&awake);
  CHECK_STATUS(cbr_call(sleepers.handle, NULL, NULL), CBR_ERR_STALE);
  return NULL;
}

TEST(a_wait_ends_after_a_late_filter_although_the_last_caller_sleeps) {
  gate_init(&sleeping);
  gate_init(&awake);
  subject_register(&sleepers);
  pthread_t thread = start(calls_and_sleeps, NULL);
  gate_pass(&sleeping);
  refuse_membarrier(EPERM);
  CHECK_OK(cbr_unregister_wait(sleepers.handle, -1));
  CHECK_EQ(subject_destroyed(&sleepers), 1);
  gate_open(&awake);
  join(thread);
}

/* A caller that has been in the fast path all the time meets enders while the filter comes. */
enum { RACED = 1000 };
static struct subject raced[RACED];
static cbr_handle raced_now;
static int raced_done;

static void *calls_whatever_is_there(void *arg) {
  (void)arg;
  while (!load_int(&raced_done)) {
    cbr_status status = cbr_call(__atomic_load_n(&raced_now, __ATOMIC_ACQUIRE), NULL, NULL);
    CHECK(status == CBR_OK || status == CBR_ERR_STALE);
  }
  return NULL;
}

TEST(no_end_is_lost_in_a_race_with_a_filter_that_comes_late) {
  long rounds = scaled(RACED);
  pthread_t callers[2];
  for (int i = 0; i < 2; i++) callers[i] = start(calls_whatever_is_there, NULL);
  for (long i = 0; i < rounds; i++) {
    if (i == rounds / 2) refuse_membarrier(EPERM);
    subject_register(&raced[i]);
    __atomic_store_n(&raced_now, raced[i].handle, __ATOMIC_RELEASE);
    POLL_UNTIL(load_int(&raced[i].calls) > 0);
    CHECK_OK(cbr_unregister(raced[i].handle));
  }
  store_int(&raced_done, 1);
  for (int i = 0; i < 2; i++) join(callers[i]);
  struct subject one_more;
  subject_register(&one_more);
  CHECK_OK(cbr_unregister(one_more.handle));
  for (long i = 0; i < rounds; i++) CHECK_EQ(raced[i].destroyed, 1);
  CHECK_EQ(one_more.destroyed, 1);
}

/* --- no randomness, no descriptors -------------------------------------------------------- */

/* Returns the limit there was. */
static rlim_t limit_descriptors(rlim_t most) {
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlim_t before = limit.rlim_cur;
  limit.rlim_cur = most;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  return before;
}

TEST(without_getrandom_and_without_descriptors_it_works_or_says_why_not) {
  struct subject it;
  seccomp_refuse(SYS_getrandom, EPERM);
  rlim_t before = limit_descriptors(0);
  subject_reset(&it);
  cbr_status status = cbr_register(subject_fn, &it, subject_destroy, &it.handle);
  if (status != CBR_OK) {
    CHECK_STATUS(status, CBR_ERR_SYSTEM);
    CHECK_EQ(it.destroyed, 0);
  } else {
    CHECK_OK(cbr_unregister(it.handle));
    CHECK_EQ(it.destroyed, 1);
    check_works();
  }
  limit_descriptors(before);
}

TEST(without_descriptors_everything_works) {
  if (under_valgrind()) SKIP("valgrind keeps descriptors of its own");
  rlim_t before = limit_descriptors(0);
  check_works();
  limit_descriptors(before);
}
