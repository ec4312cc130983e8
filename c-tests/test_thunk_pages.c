/* Where thunks live: addresses that are not used again too soon, tables beyond the first, and pages
 * that nobody can write and execute. */
#include "support_child.h"
#include "support_seccomp.h"
#include "support_thunk.h"

#include <dlfcn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { QUARANTINE = 4096, MANY = 10000 };

static int zero_fn(void *user_data, int number, void *ignored) {
  (void)user_data;
  (void)ignored;
  return number;
}

static cbr_handle zero_register(cbr_signature signature) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = 0;
  options.fn = (cbr_any_fn)zero_fn;
  options.signature = signature;
  options.fallback.i = FALLBACK;
  CHECK_OK(cbr_register_with(&options, &handle));
  return handle;
}

static int by_address(const void *left, const void *right) {
  uintptr_t a = *(const uintptr_t *)left, b = *(const uintptr_t *)right;
  return a < b ? -1 : a > b;
}

/* --- quarantine ------------------------------------------------------------------------------ */

TEST(a_closed_address_serves_again_after_4096_further_closes_and_not_before) {
  static cbr_any_fn closed[3 * QUARANTINE];
  cbr_handle handle = zero_register(INT_SIGNATURE);
  cbr_thunk thunk;
  bool again = false;
  for (int i = 0; i < 3 * QUARANTINE; i++) {
    closed[i] = thunk_of(handle, INT_SIGNATURE, &thunk);
    for (int j = 0; j < i; j++) {
      if (closed[j] != closed[i]) continue;
      /* Closed as number j; numbers j+1 to i-1 were closed after it. */
      if (i - 1 - j < QUARANTINE) FAIL("used again after %d closes", i - 1 - j);
      again = true;
    }
    CHECK_OK(cbr_thunk_close(thunk));
  }
  CHECK(again);
}

TEST(a_closed_address_serves_its_own_signature_only) {
  static cbr_any_fn first[2 * QUARANTINE], second[2 * QUARANTINE];
  const cbr_signature other = CBR_SIG(CBR_I32, CBR_PTR, CBR_I32);
  cbr_handle a = zero_register(INT_SIGNATURE), b = zero_register(other);
  cbr_thunk thunk;
  for (int i = 0; i < 2 * QUARANTINE; i++) {
    first[i] = thunk_of(a, INT_SIGNATURE, &thunk);
    CHECK_OK(cbr_thunk_close(thunk));
  }
  for (int i = 0; i < 2 * QUARANTINE; i++) {
    second[i] = thunk_of(b, other, &thunk);
    CHECK_OK(cbr_thunk_close(thunk));
  }
  qsort(first, 2 * QUARANTINE, sizeof first[0], by_address);
  for (int i = 0; i < 2 * QUARANTINE; i++) {
    CHECK(bsearch(&second[i], first, 2 * QUARANTINE, sizeof first[0], by_address) == NULL);
  }
}

TEST(the_address_of_a_permanent_thunk_never_serves_another) {
  cbr_handle handle = zero_register(INT_SIGNATURE);
  cbr_any_fn fn;
  cbr_thunk thunk;
  CHECK_OK(cbr_thunk_open(handle, INT_SIGNATURE, CBR_THUNK_PERMANENT, &fn, &thunk));
  CHECK_EQ(((int_fn)fn)(3, NULL), 3);
  CHECK_OK(cbr_thunk_close(thunk));
  for (int i = 0; i < 4 * QUARANTINE; i++) {
    CHECK(thunk_of(handle, INT_SIGNATURE, &thunk) != fn);
    CHECK_OK(cbr_thunk_close(thunk));
  }
  CHECK_EQ(((int_fn)fn)(3, NULL), FALLBACK);
}

TEST(a_number_stays_stale_when_its_address_serves_again) {
  cbr_handle handle = zero_register(INT_SIGNATURE);
  cbr_thunk first, thunk;
  cbr_any_fn fn = thunk_of(handle, INT_SIGNATURE, &first);
  CHECK_OK(cbr_thunk_close(first));
  int opened = 0;
  while (thunk_of(handle, INT_SIGNATURE, &thunk) != fn) {
    CHECK_OK(cbr_thunk_close(thunk));
    CHECK(++opened < 2 * QUARANTINE);
  }
  CHECK(thunk != first);
  CHECK_REFUSED(cbr_thunk_close(first), CBR_ERR_STALE);
  CHECK_EQ(((int_fn)fn)(3, NULL), 3);
  CHECK_OK(cbr_thunk_close(thunk));
}

/* --- growth ---------------------------------------------------------------------------------- */

/* Opens so many that several tables are needed, and calls each. */
static void opens_many(int count) {
  cbr_handle handle = zero_register(INT_SIGNATURE);
  cbr_any_fn *fns = (cbr_any_fn *)calloc((size_t)count, sizeof *fns);
  cbr_thunk *thunks = (cbr_thunk *)calloc((size_t)count, sizeof *thunks);
  CHECK(fns != NULL && thunks != NULL);
  for (int i = 0; i < count; i++) fns[i] = thunk_of(handle, INT_SIGNATURE, &thunks[i]);
  for (int i = 0; i < count; i++) CHECK_EQ(((int_fn)fns[i])(i, NULL), i);
  for (int i = 0; i < count; i++) CHECK_OK(cbr_thunk_close(thunks[i]));
  for (int i = 0; i < count; i++) CHECK_EQ(((int_fn)fns[i])(i, NULL), FALLBACK);
  qsort(fns, (size_t)count, sizeof *fns, by_address);
  for (int i = 1; i < count; i++) CHECK(fns[i] != fns[i - 1]);
  free(fns);
  free(thunks);
  CHECK_OK(cbr_unregister(handle));
}

TEST(there_are_as_many_thunks_as_are_opened) { opens_many((int)scaled(200000)); }

static void *opens_while_a_cancellation_waits(void *arg) {
  enum { COUNT = 3000 };
  cbr_handle handle = *(cbr_handle *)arg;
  cbr_thunk *thunks = (cbr_thunk *)calloc(COUNT, sizeof *thunks);
  CHECK(thunks != NULL);
  CHECK_EQ(pthread_cancel(pthread_self()), 0);
  for (int i = 0; i < COUNT; i++) (void)thunk_of(handle, INT_SIGNATURE, &thunks[i]);
  for (int i = 0; i < COUNT; i++) CHECK_OK(cbr_thunk_close(thunks[i]));
  free(thunks);
  *(cbr_handle *)arg = 0;
  pthread_testcancel();
  FAIL("the cancellation was lost");
}

TEST(opening_thunks_is_no_cancellation_point) {
  cbr_handle handle = zero_register(INT_SIGNATURE), left = handle;
  uint32_t count = 0;
  CHECK(join(start(opens_while_a_cancellation_waits, &left)) == PTHREAD_CANCELED);
  CHECK_EQ(left, 0);
  CHECK_OK(cbr_refcount(handle, &count));
  CHECK_EQ(count, 1);
  CHECK_OK(cbr_unregister(handle));
}

static void check_no_page_is_writable_and_executable(void) {
  char line[4096];
  FILE *maps = fopen("/proc/self/maps", "r");
  CHECK(maps != NULL);
  while (fgets(line, sizeof line, maps) != NULL) {
    const char *rights = strchr(line, ' ');
    if (rights != NULL && rights[2] == 'w' && rights[3] == 'x') FAIL("%s", line);
  }
  fclose(maps);
}

TEST(no_page_is_writable_and_executable) {
#ifdef CALLBRIDGE_TEST_LIBFFI
  SKIP("libffi's closures may be made at run time");
#endif
  if (under_valgrind()) SKIP("valgrind makes code at run time");
  opens_many(MANY);
  check_no_page_is_writable_and_executable();
}

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

TEST(thunks_work_where_the_kernel_refuses_code_made_at_run_time) {
#ifdef CALLBRIDGE_TEST_LIBFFI
  SKIP("libffi's closures may be made at run time");
#endif
  if (under_valgrind()) SKIP("valgrind makes code at run time");
  if (prctl(PR_SET_MDWE, 1L, 0L, 0L, 0L) != 0) {
    if (errno == EINVAL) SKIP("this kernel has no PR_SET_MDWE");
    FAIL("PR_SET_MDWE: %s", strerror(errno));
  }
  opens_many(MANY);
  check_no_page_is_writable_and_executable();
}

/* --- when the library's file is not what it was ------------------------------------------------ */

/* What the library offers, from a copy of it that is loaded by name. */
struct copy {
  cbr_status (*register_with)(const cbr_callback_options *, cbr_handle *);
  cbr_status (*open)(cbr_handle, cbr_signature, uint32_t, cbr_any_fn *, cbr_thunk *);
  size_t (*last_error)(char *, size_t);
  char path[64];
};

static void load_copy(struct copy *it) {
  Dl_info about;
  char command[8192];
  if (dladdr((void *)(uintptr_t)cbr_thunk_open, &about) == 0 || strstr(about.dli_fname, ".so") == NULL)
    SKIP("the library is part of the program");
  snprintf(it->path, sizeof it->path, "/tmp/callbridge-%d.so", (int)getpid());
  snprintf(command, sizeof command, "cp '%s' %s", about.dli_fname, it->path);
  CHECK_EQ(system(command), 0);
  void *library = dlopen(it->path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) FAIL("%s", dlerror());
  *(void **)&it->register_with = dlsym(library, "cbr_register_with");
  *(void **)&it->open = dlsym(library, "cbr_thunk_open");
  *(void **)&it->last_error = dlsym(library, "cbr_last_error");
  CHECK(it->register_with != cbr_register_with);
}

static void opens_many_in(struct copy *it, int count) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = 0;
  options.fn = (cbr_any_fn)zero_fn;
  options.signature = INT_SIGNATURE;
  CHECK_OK(it->register_with(&options, &handle));
  for (int i = 0; i < count; i++) {
    cbr_any_fn fn;
    cbr_thunk thunk;
    char words[512] = "";
    cbr_status status = it->open(handle, INT_SIGNATURE, 0, &fn, &thunk);
    it->last_error(words, sizeof words);
    if (status != CBR_OK) FAIL("after %d thunks: %d, %s", i, (int)status, words);
    CHECK_EQ(((int_fn)fn)(i, NULL), i);
  }
}

TEST(thunks_work_when_the_librarys_file_is_deleted) {
  struct copy it;
  load_copy(&it);
  CHECK_EQ(unlink(it.path), 0);
  opens_many_in(&it, MANY);
}

TEST(thunks_work_when_the_librarys_file_was_replaced_by_another) {
  struct copy it;
  char command[256];
  load_copy(&it);
  CHECK_EQ(unlink(it.path), 0);
  snprintf(command, sizeof command, "head -c 4000000 /dev/zero > %s", it.path);
  CHECK_EQ(system(command), 0);
  opens_many_in(&it, MANY);
  CHECK_EQ(unlink(it.path), 0);
}

/* What the static library is part of. */
CHILD(opens_many_after_its_program_was_deleted) {
  char program[4096] = "";
  CHECK(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
  CHECK_EQ(unlink(program), 0);
  opens_many(MANY);
}

TEST(thunks_work_when_the_programs_file_is_deleted) {
  if (under_valgrind()) SKIP("valgrind would start a program of its own");
  char command[8192], program[4096] = "", copy[64];
  CHECK(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
  snprintf(copy, sizeof copy, "/tmp/callbridge-%d", (int)getpid());
  snprintf(command, sizeof command, "cp '%s' %s && %s --child opens_many_after_its_program_was_deleted",
           program, copy, copy);
  CHECK_EQ(system(command), 0);
  CHECK(access(copy, F_OK) != 0);
}

TEST(without_descriptors_an_open_that_needs_one_is_refused_and_works_again_later) {
#ifdef CALLBRIDGE_TEST_LIBFFI
  SKIP("libffi's closures need no descriptors");
#endif
  if (under_valgrind()) SKIP("valgrind keeps descriptors of its own and refuses the limit");
  struct rlimit limit, none;
  cbr_handle handle = zero_register(INT_SIGNATURE);
  cbr_any_fn fn, last = NULL;
  cbr_thunk thunk;
  cbr_status status = CBR_OK;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  none = limit;
  none.rlim_cur = 0;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  for (int i = 0; i < MANY && status == CBR_OK; i++) {
    status = cbr_thunk_open(handle, INT_SIGNATURE, 0, &fn, &thunk);
    if (status == CBR_OK) last = fn;
  }
  CHECK_STATUS(status, CBR_ERR_SYSTEM);
  CHECK(fn == last);
  CHECK_EQ(((int_fn)last)(3, NULL), 3);
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  for (int i = 0; i < MANY; i++) (void)thunk_of(handle, INT_SIGNATURE, &thunk);
}

TEST(without_memory_an_open_that_needs_some_is_refused_and_works_again_later) {
  if (under_valgrind() || HARNESS_SANITIZED) SKIP("the tool itself needs memory");
  struct rlimit limit, none;
  cbr_handle handle = zero_register(INT_SIGNATURE);
  cbr_any_fn fn;
  cbr_thunk thunk;
  cbr_status status = CBR_OK;
  CHECK_EQ(getrlimit(RLIMIT_AS, &limit), 0);
  none = limit;
  none.rlim_cur = 1;
  CHECK_EQ(setrlimit(RLIMIT_AS, &none), 0);
  for (int i = 0; i < MANY && status == CBR_OK; i++) {
    status = cbr_thunk_open(handle, INT_SIGNATURE, 0, &fn, &thunk);
  }
  CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  CHECK_STATUS(status, CBR_ERR_NOMEM);
  for (int i = 0; i < MANY; i++) (void)thunk_of(handle, INT_SIGNATURE, &thunk);
}

/* --- how much ---------------------------------------------------------------------------------- */

static long resident(void) {
  char line[256];
  long kilobytes = 0;
  FILE *file = fopen("/proc/self/smaps_rollup", "r");
  if (file == NULL) SKIP("no /proc/self/smaps_rollup");
  while (fgets(line, sizeof line, file) != NULL) {
    if (sscanf(line, "Rss: %ld kB", &kilobytes) == 1) break;
  }
  fclose(file);
  return kilobytes * 1024;
}

TEST(a_thunk_takes_at_most_64_bytes_beyond_its_callback) {
#ifdef CALLBRIDGE_TEST_LIBFFI
  SKIP("libffi's closures take more");
#endif
  if (under_valgrind() || HARNESS_SANITIZED) SKIP("the tool's own memory would be counted");
  enum { COUNT = 100000 };
  static cbr_any_fn fns[COUNT];
  cbr_thunk thunk;
  cbr_handle handle = zero_register(INT_SIGNATURE);
  memset(fns, 1, sizeof fns);
  CHECK_EQ(((int_fn)thunk_of(handle, INT_SIGNATURE, &thunk))(1, NULL), 1);
  long before = resident();
  for (int i = 0; i < COUNT; i++) fns[i] = thunk_of(handle, INT_SIGNATURE, &thunk);
  for (int i = 0; i < COUNT; i++) CHECK_EQ(((int_fn)fns[i])(i, NULL), i);
  double each = (double)(resident() - before) / COUNT;
  printf("RESULT %.1f bytes a thunk, all of them called\n", each);
  if (each > 64) FAIL("%.1f bytes a thunk", each);
}
