/* fork: handlers that the host has registered with pthread_atfork before its first use of the library run
 * between the library's own. */
#include "support_child.h"
#include "support_owners.h"

enum { PREPARE = 1, PARENT = 2, CHILD = 4 };

static struct {
  int when; /* which handlers use the library */
  cbr_scope scope;
  cbr_handle handle;
  int ran;
} host;

static intptr_t seven(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 7;
}

/* What a fork of another thread would have to wait for. */
static void use_the_library(void) {
  cbr_handle found = 0, fresh = 0;
  uintptr_t key = (uintptr_t)pthread_self();
  intptr_t result = 0;
  CHECK_OK(cbr_name_find(0, "of the host", &found));
  CHECK_EQ(found, host.handle);
  CHECK_OK(cbr_key_attach(host.scope, key, 0, host.handle, CBR_BIND_REPLACE));
  CHECK_OK(cbr_key_call(host.scope, key, 0, NULL, &result));
  CHECK_EQ(result, 7);
  CHECK_OK(cbr_key_detach(host.scope, key, 0));
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = (cbr_any_fn)seven;
  options.scope = host.scope;
  CHECK_OK(cbr_register_with(&options, &fresh));
  CHECK_OK(cbr_call(fresh, NULL, NULL));
  CHECK_OK(cbr_unregister(fresh));
}

static void handler(int now) {
  if ((host.when & now) == 0) return;
  use_the_library();
  add_int(&host.ran, 1);
}

static void prepare(void) { handler(PREPARE); }
static void in_parent(void) { handler(PARENT); }
static void in_child(void) {
  harness_watch(); /* fork has not returned yet */
  handler(CHILD);
}

static void begin(int when) {
  CHECK_EQ(pthread_atfork(prepare, in_parent, in_child), 0); /* before the library's */
  host.scope = scope_open("of the host");
  CHECK_OK(cbr_register(seven, NULL, NULL, &host.handle));
  CHECK_OK(cbr_name_bind(0, "of the host", host.handle, CBR_BIND_ONCE));
  host.when = when;
}

static void *use_on_thread(void *arg) {
  use_the_library();
  return arg;
}

static void *fork_once(void *arg) {
  host.ran = 0;
  pid_t child = fork_watched();
  CHECK_EQ(host.ran, host.when == PREPARE || host.when == (child == 0 ? CHILD : PARENT));
  use_the_library();
  run_on_thread(use_on_thread, NULL); /* other threads, too */
  if (child == 0) {
    scope_close(host.scope);
    _exit(0);
  }
  check_child_passed(child);
  return arg;
}

static void check_handler(int when) {
  begin(when);
  fork_once(NULL);
  run_on_thread(fork_once, NULL); /* one that has not used the library */
  scope_close(host.scope);
}

TEST(a_prepare_handler_of_the_host_may_use_the_library) { check_handler(PREPARE); }

TEST(a_parent_handler_of_the_host_may_use_the_library) { check_handler(PARENT); }

TEST(a_child_handler_of_the_host_may_use_the_library) { check_handler(CHILD); }

/* --- several threads that fork ------------------------------------------------------------ */

enum { FORKERS = 2 };
static int done;

static void *hammer(void *arg) {
  cbr_handle found;
  while (!load_int(&done)) {
    CHECK_OK(cbr_name_bind(host.scope, "hammered", host.handle, CBR_BIND_REPLACE));
    CHECK_OK(cbr_name_find(host.scope, "hammered", &found));
    CHECK_OK(cbr_name_unbind(host.scope, "hammered"));
  }
  return arg;
}

static void *fork_again_and_again(void *arg) {
  for (long i = 0; i < scaled(100); i++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      cbr_name_unbind(host.scope, "hammered");
      CHECK_OK(cbr_name_bind(host.scope, "hammered", host.handle, CBR_BIND_ONCE));
      _exit(0);
    }
    check_child_passed(child);
  }
  return arg;
}

TEST(threads_that_fork_at_once_all_run_handlers_that_use_the_library) {
  pthread_t forkers[FORKERS];
  if (under_valgrind()) SKIP("what a vanished thread had allocated is a leak in the child");
  begin(PREPARE | PARENT | CHILD);
  pthread_t hammerer = start(hammer, NULL);
  for (int i = 0; i < FORKERS; i++) forkers[i] = start(fork_again_and_again, NULL);
  for (int i = 0; i < FORKERS; i++) join(forkers[i]);
  store_int(&done, 1);
  join(hammerer);
  CHECK_EQ(host.ran, 2 * FORKERS * scaled(100));
  scope_close(host.scope);
}
