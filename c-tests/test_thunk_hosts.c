/* Thunks where C takes a function and no void pointer: qsort, atexit, threads, ftw, scandir, signals. */
#include "support_child.h"
#include "support_thunk.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <sys/stat.h>

/* --- qsort ------------------------------------------------------------------------------------ */

struct order {
  int sign, calls;
  int close_at; /* the call in which the comparator closes its own thunk; 0: never */
  cbr_thunk thunk;
};

static int compares(void *user_data, const void *left, const void *right) {
  struct order *it = (struct order *)user_data;
  int a = *(const int *)left, b = *(const int *)right;
  if (++it->calls == it->close_at) CHECK_OK(cbr_thunk_close(it->thunk));
  return it->sign * ((a > b) - (a < b));
}

static int (*comparator(struct order *it))(const void *, const void *) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)compares;
  options.user_data = it;
  options.signature = CBR_SIG(CBR_INT, CBR_PTR, CBR_PTR);
  options.name = "comparator";
  CHECK_OK(cbr_register_with(&options, &handle));
  cbr_any_fn fn = thunk_of(handle, options.signature, &it->thunk);
  CHECK_OK(cbr_release(handle));
  return (int (*)(const void *, const void *))fn;
}

TEST(qsort_sorts_by_a_comparator_with_data) {
  int numbers[1000];
  struct order up = {1, 0, 0, 0}, down = {-1, 0, 0, 0};
  int (*by_up)(const void *, const void *) = comparator(&up);
  int (*by_down)(const void *, const void *) = comparator(&down);
  for (int i = 0; i < 1000; i++) numbers[i] = i * 7919 % 1000;
  qsort(numbers, 1000, sizeof numbers[0], by_up);
  for (int i = 0; i < 1000; i++) CHECK_EQ(numbers[i], i);
  qsort(numbers, 1000, sizeof numbers[0], by_down);
  for (int i = 0; i < 1000; i++) CHECK_EQ(numbers[i], 999 - i);
  CHECK_OK(cbr_thunk_close(up.thunk));
  CHECK_OK(cbr_thunk_close(down.thunk));
}

TEST(qsort_ends_with_a_comparator_that_closes_itself) {
  int numbers[1000], seen[1000] = {0};
  struct order it = {1, 0, 50, 0};
  for (int i = 0; i < 1000; i++) numbers[i] = i * 7919 % 1000;
  qsort(numbers, 1000, sizeof numbers[0], comparator(&it));
  CHECK_EQ(it.calls, 50); /* then the fallback: all equal */
  for (int i = 0; i < 1000; i++) seen[numbers[i]]++;
  for (int i = 0; i < 1000; i++) CHECK_EQ(seen[i], 1);
}

/* --- atexit ----------------------------------------------------------------------------------- */

static void says(void *user_data) {
  printf("%s\n", (const char *)user_data);
  fflush(stdout);
}

static cbr_any_fn speaker(const char *words, uint32_t flags, cbr_thunk *out_thunk) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  cbr_any_fn fn;
  options.fn = (cbr_any_fn)says;
  options.user_data = (void *)(uintptr_t)words;
  options.signature = CBR_SIG(CBR_VOID);
  options.name = "at exit";
  CHECK_OK(cbr_register_with(&options, &handle));
  CHECK_OK(cbr_thunk_open(handle, options.signature, flags, &fn, out_thunk));
  CHECK_OK(cbr_release(handle));
  return fn;
}

CHILD(leaves_thunks_to_atexit) {
  cbr_thunk kept, closed;
  CHECK_EQ(atexit((void (*)(void))speaker("kept runs", CBR_THUNK_PERMANENT, &kept)), 0);
  CHECK_EQ(atexit((void (*)(void))speaker("closed runs", CBR_THUNK_PERMANENT, &closed)), 0);
  CHECK_OK(cbr_thunk_close(closed));
}

TEST(atexit_runs_a_thunk_and_a_closed_one_is_contained) {
  char output[4096];
  check_child("leaves_thunks_to_atexit", "CALLBRIDGE_LOG", "warn", output, sizeof output);
  CHECK_CONTAINS(output, "kept runs");
  CHECK_CONTAINS(output, "'at exit'");
  CHECK(strstr(output, "closed runs") == NULL);
}

/* --- threads ---------------------------------------------------------------------------------- */

static void *starts(void *user_data, void *arg) {
  CHECK_EQ(cbr_depth(), 1);
  add_int((int *)user_data, 1);
  return arg;
}

static void *starts_and_exits(void *user_data, void *arg) {
  add_int((int *)user_data, 1);
  pthread_exit(arg);
}

static thread_fn starter(void *(*fn)(void *, void *), int *count, cbr_thunk *out_thunk,
                         cbr_handle *out_handle) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = (cbr_any_fn)fn;
  options.user_data = count;
  options.signature = CBR_SIG(CBR_PTR, CBR_PTR);
  CHECK_OK(cbr_register_with(&options, out_handle));
  return (thread_fn)thunk_of(*out_handle, options.signature, out_thunk);
}

TEST(pthread_create_takes_a_thunk) {
  int count = 0;
  cbr_thunk thunk;
  cbr_handle handle;
  thread_fn fn = starter(starts, &count, &thunk, &handle);
  pthread_t threads[8];
  for (int i = 0; i < 8; i++) threads[i] = start(fn, &threads[i]);
  for (int i = 0; i < 8; i++) CHECK(join(threads[i]) == &threads[i]);
  CHECK_EQ(count, 8);
  CHECK_OK(cbr_thunk_close(thunk));
  CHECK_OK(cbr_unregister_wait(handle, 0));
}

TEST(pthread_exit_passes_through_a_thunk_and_leaves_nothing_in_flight) {
  int count = 0;
  cbr_thunk thunk;
  cbr_handle handle;
  thread_fn fn = starter(starts_and_exits, &count, &thunk, &handle);
  CHECK(run_on_thread(fn, &count) == &count);
  CHECK_EQ(count, 1);
  CHECK_OK(cbr_unregister_wait(handle, 0));
  CHECK_OK(cbr_thunk_close(thunk));
}

/* --- longjmp ---------------------------------------------------------------------------------- */

static jmp_buf back;
static void *jumps(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  longjmp(back, 1);
}

TEST(longjmp_passes_through_a_thunk_and_unwind_to_releases_the_call) {
  int count = 0;
  cbr_thunk thunk;
  cbr_handle handle;
  thread_fn fn = starter(jumps, &count, &thunk, &handle);
  uint32_t depth = cbr_depth();
  if (setjmp(back) == 0) {
    fn(NULL);
    FAIL("the callback returned");
  }
  CHECK_EQ(cbr_depth(), 1);
  CHECK_OK(cbr_unwind_to(depth));
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_unregister_wait(handle, 0));
  CHECK_OK(cbr_thunk_close(thunk));
}

/* --- ftw and scandir ---------------------------------------------------------------------------- */

struct walk {
  int seen, stop_at;
};

static int visits(void *user_data, const char *path, const struct stat *about, int kind) {
  struct walk *it = (struct walk *)user_data;
  CHECK(path != NULL && about != NULL);
  (void)kind;
  return ++it->seen == it->stop_at ? 4711 : 0;
}

static int chooses(void *user_data, const struct dirent *entry) {
  (void)user_data;
  return strchr(entry->d_name, 'k') != NULL;
}

/* A folder with as many files as there are names. */
static const char *folder_with(const char *const *names, int count) {
  static char folder[64];
  char path[128];
  snprintf(folder, sizeof folder, "/tmp/callbridge-XXXXXX");
  CHECK(mkdtemp(folder) != NULL);
  for (int i = 0; i < count; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(file >= 0);
    close(file);
  }
  return folder;
}

static void remove_folder(const char *folder) {
  char command[128];
  snprintf(command, sizeof command, "rm -r %s", folder);
  CHECK_EQ(system(command), 0);
}

static const char *const NAMES[] = {"keep", "drop", "kitten", "wood"};

TEST(ftw_walks_with_a_thunk) {
  struct walk it = {0, 0};
  cbr_thunk thunk;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)visits;
  options.user_data = &it;
  options.signature = CBR_SIG(CBR_INT, CBR_PTR, CBR_PTR, CBR_INT);
  options.fallback.i = -1;
  CHECK_OK(cbr_register_with(&options, &handle));
  cbr_any_fn fn = thunk_of(handle, options.signature, &thunk);
  int (*visitor)(const char *, const struct stat *, int) =
      (int (*)(const char *, const struct stat *, int))fn;
  const char *folder = folder_with(NAMES, 4);
  CHECK_EQ(ftw(folder, visitor, 4), 0);
  CHECK_EQ(it.seen, 5);
  it = (struct walk){0, 2};
  CHECK_EQ(ftw(folder, visitor, 4), 4711);
  CHECK_EQ(it.seen, 2);
  CHECK_OK(cbr_thunk_close(thunk));
  CHECK_EQ(ftw(folder, visitor, 4), -1);
  CHECK_EQ(it.seen, 2);
  remove_folder(folder);
}

TEST(scandir_chooses_with_a_thunk) {
  cbr_thunk thunk;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  struct dirent **entries = NULL;
  options.fn = (cbr_any_fn)chooses;
  options.signature = CBR_SIG(CBR_INT, CBR_PTR);
  CHECK_OK(cbr_register_with(&options, &handle));
  cbr_any_fn fn = thunk_of(handle, options.signature, &thunk);
  const char *folder = folder_with(NAMES, 4);
  int found = scandir(folder, &entries, (int (*)(const struct dirent *))fn, alphasort);
  CHECK_EQ(found, 2);
  CHECK_STR(entries[0]->d_name, "keep");
  CHECK_STR(entries[1]->d_name, "kitten");
  for (int i = 0; i < found; i++) free(entries[i]);
  free(entries);
  remove_folder(folder);
  CHECK_OK(cbr_thunk_close(thunk));
}

/* --- signals: a handler must not run a thunk, so it tells the program to --------------------------- */

static int signal_pipe[2];
static void tells(int number) {
  char byte = (char)number;
  if (write(signal_pipe[1], &byte, 1) != 1) _exit(1);
}

static void on_signal(void *user_data, int number) { *(int *)user_data = number; }

TEST(a_signal_reaches_a_thunk_through_a_pipe) {
  int got = 0;
  char byte = 0;
  cbr_thunk thunk;
  cbr_handle handle;
  struct sigaction action;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = (cbr_any_fn)on_signal;
  options.user_data = &got;
  options.signature = CBR_SIG(CBR_VOID, CBR_INT);
  CHECK_OK(cbr_register_with(&options, &handle));
  void (*handler)(int) = (void (*)(int))thunk_of(handle, options.signature, &thunk);
  CHECK_EQ(pipe(signal_pipe), 0);
  memset(&action, 0, sizeof action);
  action.sa_handler = tells;
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  CHECK_EQ(raise(SIGUSR1), 0);
  CHECK_EQ(read(signal_pipe[0], &byte, 1), 1);
  handler(byte);
  CHECK_EQ(got, SIGUSR1);
  CHECK_OK(cbr_thunk_close(thunk));
}
