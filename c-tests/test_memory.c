/* Out of memory: a status, nothing half done, and never an abort. */
#include "support_child.h"
#include "support_memory.h"
#include "support_subject.h"

#include <sys/mman.h>

enum { MOST = 4000000, ROOM = 16 << 20 };

static int destroyed;

static void count_destroy(void *user_data) {
  (void)user_data;
  destroyed++;
}

static intptr_t answer(void *user_data, void *arg) {
  (void)user_data;
  (void)arg;
  return 42;
}

static bool is_out_of_memory(cbr_status status) {
  return status == CBR_ERR_NOMEM || status == CBR_ERR_LIMIT;
}

/* Registers until there is no more room; returns how many there are. */
static long fill(cbr_handle *handles, const char *name) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = (cbr_any_fn)answer;
  options.destroy = count_destroy;
  options.name = name;
  for (long i = 0; i < MOST; i++) {
    handles[i] = 99;
    cbr_status status = cbr_register_with(&options, &handles[i]);
    if (status == CBR_OK) continue;
    if (!is_out_of_memory(status)) CHECK_STATUS(status, CBR_ERR_NOMEM);
    CHECK_EQ(handles[i], 99);
    CHECK(cbr_last_error(NULL, 0) > 0);
    return i;
  }
  SKIP("the limit on the address space did not bite");
}

static void check_registering_runs_out(const char *name) {
  cbr_handle *handles = (cbr_handle *)mmap(NULL, MOST * sizeof *handles, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(handles != MAP_FAILED);
  intptr_t result = 0;
  limit_address_space(ROOM);
  long count = fill(handles, name);
  CHECK(count > 0);
  CHECK_EQ(destroyed, 0);
  for (long i = 0; i < count; i++) {
    CHECK_OK(cbr_call(handles[i], NULL, &result));
    CHECK_EQ(result, 42);
  }
  /* What is given back can be had again. */
  CHECK_OK(cbr_unregister(handles[count / 2]));
  CHECK_EQ(destroyed, 1);
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = (cbr_any_fn)answer;
  options.destroy = count_destroy;
  options.name = name;
  CHECK_OK(cbr_register_with(&options, &handles[count / 2]));
  for (long i = 0; i < count; i++) CHECK_OK(cbr_unregister(handles[i]));
  CHECK_EQ(destroyed, count + 1);
  destroyed = 0;
  long again = fill(handles, name);
  CHECK(again >= count - count / 8); /* as much room as before, give or take a chunk */
  for (long i = 0; i < again; i++) CHECK_OK(cbr_release(handles[i]));
  CHECK_EQ(destroyed, again);
}

TEST(registering_until_memory_is_out_gives_a_status) {
  skip_where_limits_do_not_work();
  check_registering_runs_out(NULL);
}

TEST(registering_with_names_until_memory_is_out_gives_a_status) {
  static char name[256];
  skip_where_limits_do_not_work();
  memset(name, 'n', sizeof name - 1);
  check_registering_runs_out(name);
}

/* --- a thread's first use ----------------------------------------------------------------- */

enum { BLOCKS = 1 << 20 };
static void *blocks[BLOCKS];

/* Takes every byte that the heap can give. */
static long take_all_memory(void) {
  long count = 0;
  limit_address_space(1 << 20);
  for (size_t size = 1 << 20; size >= 16; size /= 2) {
    while (count < BLOCKS && (blocks[count] = malloc(size)) != NULL) count++;
  }
  return count;
}

struct late_thread {
  gate begin, tried, again;
  cbr_handle handle;
  cbr_pin hold;
};

static void *uses_the_library_without_memory(void *arg) {
  struct late_thread *self = (struct late_thread *)arg;
  cbr_handle handle = 99;
  cbr_pin pin;
  intptr_t result = 77;
  gate_pass(&self->begin);
  cbr_status status = cbr_call(self->handle, NULL, &result);
  CHECK(status == CBR_OK || is_out_of_memory(status));
  CHECK_EQ(result, status == CBR_OK ? 42 : 77);
  status = cbr_enter(self->handle, 0, &pin);
  if (status == CBR_OK) CHECK_OK(cbr_leave(&pin));
  else CHECK(is_out_of_memory(status));
  status = cbr_register(answer, NULL, count_destroy, &handle);
  if (status == CBR_OK) CHECK_OK(cbr_unregister(handle));
  else CHECK(is_out_of_memory(status) && handle == 99 && destroyed == 0);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
  CHECK(cbr_call(CBR_HANDLE_NONE, NULL, NULL) != CBR_OK);
  CHECK_OK(cbr_retain(self->handle));
  status = cbr_release(self->handle);
  CHECK(status == CBR_OK || is_out_of_memory(status));
  gate_open(&self->tried);
  gate_pass(&self->again);
  if (status != CBR_OK) CHECK_OK(cbr_release(self->handle));
  CHECK(cbr_is_live(self->handle));
  destroyed = 0;
  CHECK_OK(cbr_call(self->handle, NULL, &result));
  CHECK_EQ(result, 42);
  CHECK_OK(cbr_leave(&self->hold));
  CHECK_OK(cbr_unregister_wait(self->handle, -1));
  CHECK_EQ(destroyed, 1);
  return NULL;
}

TEST(a_threads_first_use_without_memory_gives_a_status) {
  static struct late_thread self;
  skip_where_limits_do_not_work();
  gate_init(&self.begin);
  gate_init(&self.tried);
  gate_init(&self.again);
  CHECK_OK(cbr_register(answer, NULL, count_destroy, &self.handle));
  CHECK_OK(cbr_hold(self.handle, 0, &self.hold));
  pthread_t thread = start(uses_the_library_without_memory, &self);
  /* To give back to the kernel: what a heap frees may be another thread's to take, or nobody's. */
  enum { CUSHION = 1 << 20 };
  void *cushion = mmap(NULL, CUSHION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(cushion != MAP_FAILED);
  long count = take_all_memory();
  CHECK(count > 0);
  gate_open(&self.begin);
  gate_pass(&self.tried);
  while (count > 0) free(blocks[--count]);
  CHECK_EQ(munmap(cushion, CUSHION), 0);
  gate_open(&self.again);
  join(thread);
}

/* The process's very first use of the library, likewise. */
static void first_use_of_all_without_memory(void) {
  cbr_handle handle = 99;
  intptr_t result = 0;
  long count = take_all_memory();
  cbr_status status = cbr_register(answer, NULL, count_destroy, &handle);
  if (status != CBR_OK) {
    CHECK(is_out_of_memory(status));
    CHECK_EQ(handle, 99);
    CHECK_EQ(destroyed, 0);
  } else {
    CHECK_OK(cbr_unregister(handle));
  }
  while (count > 0) free(blocks[--count]);
  destroyed = 0;
  CHECK_OK(cbr_register(answer, NULL, count_destroy, &handle));
  CHECK_OK(cbr_call(handle, NULL, &result));
  CHECK_EQ(result, 42);
  CHECK_OK(cbr_unregister(handle));
  CHECK_EQ(destroyed, 1);
}

TEST(the_first_use_of_all_without_memory_gives_a_status) {
  skip_where_limits_do_not_work();
  first_use_of_all_without_memory();
}

TEST(reading_the_environment_without_memory_is_no_abort) {
  skip_where_limits_do_not_work();
  CHECK_EQ(setenv("CALLBRIDGE_MEMBARRIER", "1", 1), 0);
  first_use_of_all_without_memory();
}

TEST(starting_the_log_without_memory_is_no_abort) {
  skip_where_limits_do_not_work();
  CHECK_EQ(setenv("CALLBRIDGE_LOG", "warn", 1), 0);
  first_use_of_all_without_memory();
}

/* --- failures while memory is out --------------------------------------------------------- */

static intptr_t fails_without_memory(void *user_data, void *arg) {
  (void)user_data;
  long count = take_all_memory();
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, (const char *)arg));
  while (count > 0) free(blocks[--count]);
  return 0;
}

TEST(fail_without_memory_still_fails_the_call) {
  static char message[10000];
  cbr_handle handle;
  skip_where_limits_do_not_work();
  memset(message, '\xff', sizeof message - 1); /* no UTF-8, so that it has to be made fit */
  CHECK_OK(cbr_register(fails_without_memory, NULL, count_destroy, &handle));
  CHECK_STATUS(cbr_call(handle, message, NULL), CBR_ERR_CALLBACK);
  CHECK_OK(cbr_unregister(handle));
  CHECK_EQ(destroyed, 1);
}

static void destroy_fails_without_memory(void *user_data) {
  count_destroy(user_data);
  long count = take_all_memory();
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, "this goes to the log"));
  while (count > 0) free(blocks[--count]);
}

TEST(logging_without_memory_is_no_abort) {
  cbr_handle handle;
  skip_where_limits_do_not_work();
  CHECK_EQ(setenv("CALLBRIDGE_LOG", "warn", 1), 0);
  CHECK_OK(cbr_register(answer, NULL, destroy_fails_without_memory, &handle));
  CHECK_OK(cbr_unregister(handle));
  CHECK_EQ(destroyed, 1);
}

/* Words are made when asked for, which may be the worst moment. */
TEST(last_error_without_memory_gives_words_or_nothing) {
  char words[256] = "";
  skip_where_limits_do_not_work();
  CHECK_STATUS(cbr_unregister(12345), CBR_ERR_STALE);
  long count = take_all_memory();
  CHECK(cbr_unregister(CBR_HANDLE_NONE) != CBR_OK);
  size_t length = cbr_last_error(words, sizeof words);
  CHECK(length == 0 || strlen(words) == length);
  CHECK(cbr_status_message(CBR_ERR_NOMEM)[0] != '\0');
  while (count > 0) free(blocks[--count]);
}
