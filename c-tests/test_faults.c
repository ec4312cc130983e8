/* Every call of the allocator and the system refused, one after the other: a status, a consistent state,
 * nothing lost, and never the end of the process. */
#include "support_child.h"
#include "support_faults.h"
#include "support_scenario.h"
#include "support_threads.h"

static bool may_refuse(cbr_status status) {
  return faults.refused > 0 &&
         (status == CBR_ERR_NOMEM || status == CBR_ERR_SYSTEM || status == CBR_ERR_LIMIT);
}

/* Runs the scenario with that call refused. How many there were, up to the first refusal or the end. */
static long run_with(long at, bool and_all_that_follow) {
  arm_faults(at, and_all_that_follow);
  scenario_run();
  disarm_faults();
  return faults.asked;
}

/* What children tell of themselves. */
struct told {
  long asked, refused, at;
  bool follows;
};
static struct told *told;

static cbr_stats stats_now(void) {
  cbr_stats stats = {.size = sizeof stats};
  CHECK_OK(cbr_stats_get(0, &stats));
  return stats;
}

/* A process's first use, and what follows. */
static void first_use(long at, bool and_all_that_follow) {
  pid_t child = fork_watched();
  if (child == 0) {
    told->at = at;
    told->asked = run_with(at, and_all_that_follow);
    told->refused += faults.refused > 0;
    uint64_t before = stats_now().registered;
    run_with(0, false); /* it works as if nothing had been */
    CHECK(stats_now().registered > before + 4);
    scenario_check_end();
    _exit(0);
  }
  int status = wait_for(child);
  if (status != 0)
    FAIL("refused was call %ld%s: %s %d", at, and_all_that_follow ? " and all that followed" : "",
         WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void sweep_first_use(bool and_all_that_follow) {
  skip_where_faults_do_not_work();
  told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(told != MAP_FAILED);
  first_use(0, false);
  long number = told->asked;
  CHECK(number > 100);
  for (long at = 1; at <= number; at++) first_use(at, and_all_that_follow);
  printf("%ld calls, %ld refused\n", number, told->refused);
  CHECK(told->refused >= number - 10); /* some depend on the time that passes */
}

TEST(any_one_call_of_the_system_may_be_refused_from_the_first_use_on) { sweep_first_use(false); }

TEST(all_calls_of_the_system_may_be_refused_from_any_one_on) { sweep_first_use(true); }

/* What is kept for later in places that there are so many of, names of callbacks that have ended and of
 * thunks that are closed: all of them are taken from now on. */
static void fill_what_is_kept(void) {
  enum { NAMES = 4 * 256, CLOSED_THUNKS = 5000 };
  static cbr_handle handles[NAMES];
  CHECK_OK(cbr_log_to(scenario_log, scenario_data(), scenario_destroy, 0, CBR_LOG_WARN));
  for (int i = 0; i < NAMES; i++) handles[i] = scenario_register(0, scenario_fn);
  for (int i = 0; i < NAMES; i++) CHECK_OK(cbr_release(handles[i]));
  for (int i = 0; i < CLOSED_THUNKS / 2; i++) run_with(0, false); /* two a run */
}

/* Tables grow and shrink by so many blocks. */
enum { NOISE = 32 };

/* The same of a thread that comes later, to a library that others use: what is refused is its own part. */
static void *a_threads_first_use(void *arg) {
  bool and_all_that_follow = told->follows;
  (void)arg;
  told->asked = run_with(told->at, and_all_that_follow);
  told->refused += faults.refused > 0;
  scenario_check_end();
  if (told->at % 2 == 0) arm_faults(1, true); /* and at every other thread's end */
  return NULL;
}

static void sweep_threads_first_use(bool and_all_that_follow) {
  static struct told of_threads;
  skip_where_faults_do_not_work();
  fill_what_is_kept();
  of_threads.follows = and_all_that_follow;
  told = &of_threads;
  for (scenario_level = 0; scenario_level <= 2; scenario_level++) {
    told->at = 0;
    for (int i = 0; i < 4; i++) run_on_thread(a_threads_first_use, NULL); /* tables grow before it counts */
    long number = told->asked, blocks = live_blocks, mappings = live_mappings;
    CHECK(number > 50);
    told->refused = 0;
    for (told->at = 1; told->at <= number; told->at++) {
      run_on_thread(a_threads_first_use, NULL);
      run_with(0, false); /* the others are none the worse */
      scenario_check_end();
    }
    printf("level %u: %ld calls, %ld refused; %+ld blocks, %+ld mappings\n", scenario_level, number, told->refused,
           live_blocks - blocks, live_mappings - mappings);
    CHECK(told->refused >= number - 20);
    CHECK(live_blocks <= blocks + NOISE);
    CHECK(live_mappings <= mappings);
  }
}

TEST(any_one_call_of_the_system_may_be_refused_at_a_later_threads_first_use) { sweep_threads_first_use(false); }

TEST(all_calls_of_the_system_may_be_refused_at_a_later_threads_first_use) { sweep_threads_first_use(true); }

/* How many descriptors are open. */
static int descriptors(void) {
  int count = 0;
  for (int fd = 0; fd < 256; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

/* Each refusal so often that what it leaves each time stands out among tables that grow and shrink. */
enum { REPEATS = 48 };

static void sweep_later_use(bool and_all_that_follow) {
  skip_where_faults_do_not_work();
  fill_what_is_kept();
  long number = faults.asked, refused = 0;
  CHECK(number > 100);
  int open_now = descriptors();
  for (long at = 1; at <= number; at++) {
    long blocks = live_blocks, mappings = live_mappings;
    const char *what = "nothing";
    for (int i = 0; i < REPEATS; i++) {
      run_with(at, and_all_that_follow);
      if (faults.refused > 0) what = faults.what;
      refused += faults.refused > 0;
      scenario_check_end();
    }
    if (descriptors() != open_now || live_blocks > blocks + NOISE || live_mappings > mappings)
      FAIL("refused was call %ld of %ld, %s, %d times: %+ld blocks, %+ld mappings, %+d descriptors", at, number,
           what, REPEATS, live_blocks - blocks, live_mappings - mappings, descriptors() - open_now);
  }
  printf("%ld calls, %ld of %ld runs with a refusal\n", number, refused, number * REPEATS);
  CHECK(refused >= (number - 20) * REPEATS);
}

TEST(any_one_call_of_the_system_may_be_refused_and_nothing_is_left) { sweep_later_use(false); }

TEST(all_calls_of_the_system_may_be_refused_and_nothing_is_left) { sweep_later_use(true); }

/* One that no process has read yet, of so many directives; some are wrong. */
static void check_long_filter(const char *directive) {
  char filter[1501] = "";
  skip_where_faults_do_not_work();
  while (strlen(filter) + strlen(directive) < sizeof filter) strcat(filter, directive);
  long asked = 1;
  for (long at = 0; at <= asked; at += 1 + at / 8) {
    pid_t child = fork_watched();
    if (child == 0) {
      CHECK_STATUS(cbr_call(1, NULL, NULL), CBR_ERR_STALE);
      arm_faults(at, true);
      cbr_status status = cbr_log_to_stderr(filter);
      disarm_faults();
      long count = faults.asked;
      CHECK(status == CBR_OK || status == CBR_ERR_INVALID || (status == CBR_ERR_NOMEM && faults.refused > 0));
      CHECK(at == 0 || faults.refused == 0 || status == CBR_ERR_NOMEM);
      CHECK(cbr_log_to_stderr(filter) != CBR_ERR_NOMEM); /* nothing of the reserve is lost */
      _exit(at == 0 ? (int)(count / 64) : 0);
    }
    int status = wait_for(child);
    CHECK(WIFEXITED(status));
    if (at == 0) asked = WEXITSTATUS(status) * 64L;
    else CHECK_EQ(WEXITSTATUS(status), 0);
  }
  CHECK(asked >= 64);
}

TEST(the_longest_filter_of_short_names_needs_no_memory_to_be_refused) { check_long_filter("a,"); }

TEST(the_longest_filter_of_levels_needs_no_memory_to_be_refused) { check_long_filter("a=info,b,c=debug,"); }

TEST(the_longest_filter_of_mistakes_needs_no_memory_to_be_refused) { check_long_filter("a=b,"); }
