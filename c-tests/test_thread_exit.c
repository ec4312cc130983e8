/* Callers of the last hour: destructors of thread-local data, and the end of the process. */
#include "support_child.h"
#include "support_subject.h"

enum { ROUNDS = 4 }; /* as many as POSIX grants at least */

/* A host's destructor that still works with callbacks, round after round, also after the
 * library's own destructor has run on this thread. */
struct last_words {
  pthread_key_t key;
  struct subject called, pinned;
  int rounds;
};

static void speaks_again(void *arg) {
  struct last_words *words = (struct last_words *)arg;
  struct subject own;
  cbr_pin pin;
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_call(words->called.handle, NULL, NULL));
  subject_register(&own);
  CHECK_OK(cbr_enter(own.handle, 0, &pin));
  CHECK_OK(cbr_unregister(own.handle));
  CHECK_EQ(own.destroyed, 0);
  CHECK_OK(cbr_leave(&pin));
  CHECK_EQ(own.destroyed, 1);
  subject_register(&own);
  CHECK_OK(cbr_unregister_wait(own.handle, -1));
  CHECK_EQ(own.destroyed, 1);
  if (++words->rounds < ROUNDS) {
    CHECK_EQ(pthread_setspecific(words->key, words), 0);
  }
}

static void *sets_the_key(void *arg) {
  struct last_words *words = (struct last_words *)arg;
  CHECK_OK(cbr_call(words->called.handle, NULL, NULL));
  CHECK_EQ(pthread_setspecific(words->key, words), 0);
  return NULL;
}

static void *only_sets_the_key(void *arg) {
  struct last_words *words = (struct last_words *)arg;
  CHECK_EQ(pthread_setspecific(words->key, words), 0);
  return NULL;
}

static void check_last_words(struct last_words *words, thread_fn run, int calls) {
  words->rounds = 0;
  subject_register(&words->called);
  run_on_thread(run, words);
  CHECK_EQ(words->rounds, ROUNDS);
  CHECK_EQ(words->called.calls, calls);
  CHECK_OK(cbr_unregister_wait(words->called.handle, -1));
  CHECK_EQ(words->called.destroyed, 1);
}

TEST(a_destructor_made_before_the_library_was_used_may_call) {
  struct last_words words;
  CHECK_EQ(pthread_key_create(&words.key, speaks_again), 0);
  check_last_words(&words, sets_the_key, 1 + ROUNDS);
  check_last_words(&words, only_sets_the_key, ROUNDS);
}

TEST(a_destructor_made_after_the_library_was_used_may_call) {
  struct last_words words;
  subject_register(&words.called);
  CHECK_OK(cbr_call(words.called.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(words.called.handle));
  CHECK_EQ(pthread_key_create(&words.key, speaks_again), 0);
  check_last_words(&words, sets_the_key, 1 + ROUNDS);
  check_last_words(&words, only_sets_the_key, ROUNDS);
}

/* In the first round the library's own destructor is still to come, or can come again. */
static void enters_for_ever(void *arg) {
  cbr_pin pin;
  CHECK_OK(cbr_enter(((struct last_words *)arg)->pinned.handle, 0, &pin));
}

TEST(a_pin_entered_in_a_destructor_is_released_too) {
  for (int made_before = 0; made_before < 2; made_before++) {
    struct last_words words;
    if (made_before) CHECK_EQ(pthread_key_create(&words.key, enters_for_ever), 0);
    subject_register(&words.called);
    CHECK_OK(cbr_call(words.called.handle, NULL, NULL));
    if (!made_before) CHECK_EQ(pthread_key_create(&words.key, enters_for_ever), 0);
    subject_register(&words.pinned);
    run_on_thread(sets_the_key, &words);
    CHECK_OK(cbr_unregister_wait(words.pinned.handle, -1));
    CHECK_EQ(words.pinned.destroyed, 1);
    CHECK_OK(cbr_unregister(words.called.handle));
  }
}

/* --- the main thread and the process ------------------------------------------------------ */

static struct subject mains;

static void *outlives_main(void *arg) {
  pthread_t main_thread = *(pthread_t *)arg;
  join(main_thread);
  CHECK_EQ(mains.destroyed, 1);
  CHECK(pthread_equal(mains.destroyed_on, main_thread));
  subject_register(&mains);
  CHECK_OK(cbr_call(mains.handle, NULL, NULL));
  CHECK_OK(cbr_unregister_wait(mains.handle, -1));
  exit(0);
}

static intptr_t ends_main(struct subject *it, void *arg) {
  static pthread_t self;
  (void)arg;
  CHECK_OK(cbr_unregister(it->handle));
  add_int(&it->running, -1);
  self = pthread_self();
  start(outlives_main, &self);
  pthread_exit(NULL);
}

TEST(the_main_thread_may_end_inside_a_callback_before_the_others) {
  subject_register(&mains);
  subject_run(&mains, ends_main, NULL, NULL);
  FAIL("pthread_exit has returned");
}

static void says_so(void *user_data) {
  (void)user_data;
  puts("destroyed");
  fflush(stdout);
}

static intptr_t says_hello(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  puts("called");
  fflush(stdout);
  return 0;
}

CHILD(ends_with_a_live_callback) {
  cbr_handle handle;
  CHECK_OK(cbr_register(says_hello, NULL, says_so, &handle));
  CHECK_OK(cbr_call(handle, NULL, NULL));
}

TEST(process_exit_tears_nothing_down) {
  char output[256];
  check_child("ends_with_a_live_callback", NULL, NULL, output, sizeof output);
  CHECK_STR(output, "called\n");
}

static cbr_handle at_exit_handle;

static void calls_at_exit(void) {
  CHECK_OK(cbr_call(at_exit_handle, NULL, NULL));
  CHECK_OK(cbr_unregister_wait(at_exit_handle, -1));
  CHECK_STATUS(cbr_call(at_exit_handle, NULL, NULL), CBR_ERR_STALE);
}

CHILD(calls_in_an_exit_handler_made_before) {
  CHECK_EQ(atexit(calls_at_exit), 0);
  CHECK_OK(cbr_register(says_hello, NULL, says_so, &at_exit_handle));
}

CHILD(calls_in_an_exit_handler_made_after) {
  CHECK_OK(cbr_register(says_hello, NULL, says_so, &at_exit_handle));
  CHECK_EQ(atexit(calls_at_exit), 0);
}

static intptr_t exits_the_process(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  exit(3);
}

CHILD(exits_inside_a_callback) {
  cbr_handle handle;
  CHECK_OK(cbr_register(says_hello, NULL, says_so, &at_exit_handle));
  CHECK_EQ(atexit(calls_at_exit), 0);
  CHECK_OK(cbr_register(exits_the_process, NULL, says_so, &handle));
  cbr_call(handle, NULL, NULL);
}

TEST(exit_handlers_may_still_call) {
  char output[256];
  check_child("calls_in_an_exit_handler_made_before", NULL, NULL, output, sizeof output);
  CHECK_STR(output, "called\ndestroyed\n");
  check_child("calls_in_an_exit_handler_made_after", NULL, NULL, output, sizeof output);
  CHECK_STR(output, "called\ndestroyed\n");
}

TEST(exit_inside_a_callback_ends_the_process) {
  char output[256];
  CHECK_EQ(run_child("exits_inside_a_callback", NULL, NULL, output, sizeof output), 3);
  CHECK_STR(output, "called\ndestroyed\n");
}
