/* Plugins: a shared object whose callbacks other threads call without pause can be unloaded as soon
 * as its scope is closed, and no code of it runs afterwards; unless a callback has pinned it. */
#include "support_owners.h"
#include "support_random.h"

#include "plugin/plugin.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

/* CMake says where it is. Without it this file can be compiled, but not run. */
#ifndef PLUGIN_PATH
#define PLUGIN_PATH "plugin.so"
#endif

/* A plugin while it is loaded. */
struct plugin {
  void *object;
  const char *path;
  char *begin; /* the memory that it takes */
  size_t size;
  struct plugin_host host;
  cbr_handle handles[PLUGIN_CALLBACKS];
};

static bool is_loaded(const char *path) {
  void *object = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
  if (object == NULL) return false;
  CHECK_EQ(dlclose(object), 0);
  return true;
}

static int find_memory(struct dl_phdr_info *info, size_t size, void *arg) {
  struct plugin *it = (struct plugin *)arg;
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = UINTPTR_MAX, end = 0;
  (void)size;
  if (info->dlpi_addr != ((struct link_map *)it->object)->l_addr) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *part = &info->dlpi_phdr[i];
    if (part->p_type != PT_LOAD) continue;
    uintptr_t at = info->dlpi_addr + part->p_vaddr;
    if (at < begin) begin = at;
    if (at + part->p_memsz > end) end = at + part->p_memsz;
  }
  begin &= ~(page - 1);
  it->begin = (char *)begin;
  it->size = (end - begin + page - 1) & ~(page - 1);
  return 1;
}

static void *find_symbol(struct plugin *it, const char *name) {
  void *symbol = dlsym(it->object, name);
  if (symbol == NULL) FAIL("dlsym: %s", dlerror());
  CHECK((char *)symbol >= it->begin && (char *)symbol < it->begin + it->size);
  return symbol;
}

static void plugin_load_from(struct plugin *it, const char *path) {
  memset(it, 0, sizeof *it);
  it->path = path;
  it->object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (it->object == NULL) FAIL("dlopen: %s", dlerror());
  CHECK_EQ(dl_iterate_phdr(find_memory, it), 1);
}

static void plugin_load(struct plugin *it) {
  CHECK(!is_loaded(PLUGIN_PATH));
  plugin_load_from(it, PLUGIN_PATH);
}

static cbr_status plugin_try_start(struct plugin *it, cbr_scope scope, uint32_t flags) {
  struct plugin_host *host = &it->host;
  plugin_start_fn start_it;
  *(void **)&start_it = find_symbol(it, "plugin_start");
  host->register_with = cbr_register_with;
  host->set_thread_hooks = cbr_scope_set_thread_hooks;
  host->name_bind = cbr_name_bind;
  host->key_attach = cbr_key_attach;
  host->call = cbr_call;
  host->scope = scope;
  host->flags = flags;
  return start_it(host, it->handles);
}

static void plugin_start(struct plugin *it, uint32_t flags) {
  CHECK_OK(plugin_try_start(it, scope_open("plugin"), flags));
}

static long load_long(const long *it) { return __atomic_load_n(it, __ATOMIC_ACQUIRE); }

/* Everything has ended, and the plugin has seen nothing that should not be. */
static void check_ended(struct plugin *it) {
  CHECK_EQ(load_long(&it->host.left), load_long(&it->host.entered));
  CHECK_EQ(load_long(&it->host.destroyed), PLUGIN_CALLBACKS);
  CHECK_EQ(load_long(&it->host.hooks_destroyed), 1);
  CHECK(load_long(&it->host.detached) <= load_long(&it->host.attached));
  CHECK_EQ(load_long(&it->host.wrong), 0);
}

static void plugin_close(struct plugin *it) {
  scope_close(it->host.scope);
  check_ended(it);
}

static void *calls_all(void *arg) {
  struct plugin *it = (struct plugin *)arg;
  for (int i = 0; i < PLUGIN_CALLBACKS; i++) {
    intptr_t result = 0;
    CHECK_OK(cbr_call(it->handles[i], NULL, &result));
    CHECK_EQ(result, PLUGIN_RESULT + i);
  }
  return NULL;
}

/* From a thread of its own, which the plugin attaches and detaches. */
static void check_calls(struct plugin *it) {
  long detached = it->host.detached;
  run_on_thread(calls_all, it);
  CHECK_EQ(it->host.detached, detached + 1);
  CHECK_EQ(it->host.attached, it->host.detached);
}

/* Unloads it, and puts pages without any rights in its place: so code that still ran there would
 * crash, also when the next plugin is loaded. False if somebody else took the place first. */
static bool plugin_unload(struct plugin *it) {
  CHECK_EQ(dlclose(it->object), 0);
  CHECK(!is_loaded(it->path));
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
  void *place = mmap(it->begin, it->size, PROT_NONE, flags, -1, 0);
  if (place == it->begin) return true;
  if (place != MAP_FAILED) CHECK_EQ(munmap(place, it->size), 0);
  return false;
}

/* --- unloading under load ----------------------------------------------------------------- */

enum { CALLERS = 2 };

static struct {
  struct plugin *plugin; /* that is called; never freed, so that late callers find its handles */
  cbr_hook hook;
  int stop;
  long called, refused;
} load;

struct caller {
  pthread_t thread;
  struct rng rng;
};

static void tally(cbr_status status, long *called, long *refused) {
  if (status == CBR_OK) {
    ++*called;
  } else {
    if (status != CBR_ERR_NOT_FOUND) CHECK_STATUS(status, CBR_ERR_STALE);
    ++*refused;
  }
}

static cbr_status call_function_of(cbr_pin *pin, struct rng *rng) {
  void *arg = rng_below(rng, 4) == 0 ? rng : NULL;
  intptr_t result = ((cbr_fn)pin->fn)(pin->user_data, arg);
  CHECK(result >= PLUGIN_RESULT && result < PLUGIN_RESULT + PLUGIN_CALLBACKS);
  return cbr_leave(pin);
}

/* One call, in one of the ways that there are. */
static cbr_status call_somehow(struct plugin *it, struct rng *rng) {
  uint32_t number = (uint32_t)rng_below(rng, PLUGIN_CALLBACKS);
  cbr_handle handle = it->handles[number];
  void *arg = rng_below(rng, 4) == 0 ? rng : NULL;
  intptr_t result = PLUGIN_RESULT + number;
  cbr_status status;
  cbr_pin pin;
  switch (rng_below(rng, 8)) {
    case 0: return cbr_hook_call(&load.hook, arg, NULL);
    case 1: return cbr_key_call(it->host.scope, PLUGIN_KEY, number, arg, NULL);
    case 2:
      status = cbr_name_find(it->host.scope, "first", &handle);
      return status == CBR_OK ? cbr_call(handle, arg, NULL) : status;
    case 3: return cbr_call_ptr(CBR_TO_PTR(handle), arg) != 0 ? CBR_OK : CBR_ERR_STALE;
    case 4:
      status = cbr_enter(handle, CBR_SIG_DEFAULT, &pin);
      return status == CBR_OK ? call_function_of(&pin, rng) : status;
    case 5:
      status = cbr_hold(handle, CBR_SIG_DEFAULT, &pin);
      return status == CBR_OK ? call_function_of(&pin, rng) : status;
    default: status = cbr_call(handle, arg, &result);
  }
  CHECK_EQ(result, PLUGIN_RESULT + number);
  return status;
}

static void call_a_few(struct rng *rng, long most) {
  struct plugin *it = __atomic_load_n(&load.plugin, __ATOMIC_ACQUIRE);
  long called = 0, refused = 0;
  for (long i = 0; i < most; i++) tally(call_somehow(it, rng), &called, &refused);
  CHECK_EQ(cbr_depth(), 0);
  __atomic_add_fetch(&load.called, called, __ATOMIC_RELAXED);
  __atomic_add_fetch(&load.refused, refused, __ATOMIC_RELAXED);
}

/* Lives through all plugins, and keeps the tokens of those whose callbacks it called. */
static void *calls_without_pause(void *arg) {
  struct caller *self = (struct caller *)arg;
  while (!load_int(&load.stop)) call_a_few(&self->rng, 20);
  return NULL;
}

static void *calls_and_ends(void *arg) {
  struct caller *self = (struct caller *)arg;
  call_a_few(&self->rng, 5);
  return NULL;
}

/* Threads that end while their plugin is there, or just not any more. */
static void *starts_threads_that_call(void *arg) {
  while (!load_int(&load.stop)) run_on_thread(calls_and_ends, arg);
  return NULL;
}

static void close_or_find_closed(cbr_scope scope, int64_t timeout_ns) {
  cbr_status status;
  while ((status = cbr_scope_close(scope, timeout_ns, NULL)) == CBR_ERR_TIMEOUT) {
  }
  if (status != CBR_ERR_STALE) CHECK_OK(status);
}

static void *closes_too(void *arg) {
  close_or_find_closed(((struct plugin *)arg)->host.scope, -1);
  return NULL;
}

/* The host closes in different ways, round by round; of two who close, each may unload. */
static void close_under_load(struct plugin *it, long round) {
  pthread_t other;
  bool two = round % 4 == 3;
  if (two) other = start(closes_too, it);
  close_or_find_closed(it->host.scope, round % 4 == 1 ? 0 : round % 4 == 2 ? 20000 : -1);
  check_ended(it);
  if (two) join(other);
}

TEST(no_code_of_a_plugin_runs_after_its_scope_is_closed_and_it_is_unloaded) {
  long rounds = scaled(1000), kept_clear = 0, calls = 0;
  struct plugin *all = (struct plugin *)calloc((size_t)rounds, sizeof *all);
  long *entered = (long *)calloc((size_t)rounds, sizeof *entered);
  struct caller callers[CALLERS + 1];
  uint64_t seed = rng_seed();
  CHECK(all != NULL && entered != NULL);
  for (long round = 0; round < rounds; round++) {
    struct plugin *it = &all[round];
    plugin_load(it);
    plugin_start(it, 0);
    CHECK_OK(cbr_hook_swap(&load.hook, it->handles[round % PLUGIN_CALLBACKS], NULL));
    __atomic_store_n(&load.plugin, it, __ATOMIC_RELEASE);
    for (int i = 0; round == 0 && i < CALLERS + 1; i++) {
      callers[i].rng.state = seed + (uint64_t)i;
      callers[i].thread =
          start(i < CALLERS ? calls_without_pause : starts_threads_that_call, &callers[i]);
    }
    POLL_UNTIL(load_long(&it->host.entered) >= 20);
    close_under_load(it, round);
    entered[round] = load_long(&it->host.entered);
    kept_clear += plugin_unload(it);
    for (int i = 0; i < PLUGIN_CALLBACKS; i++)
      CHECK_STATUS(cbr_call(it->handles[i], NULL, NULL), CBR_ERR_STALE);
  }
  store_int(&load.stop, 1);
  for (int i = 0; i < CALLERS + 1; i++) join(callers[i].thread);
  for (long round = 0; round < rounds; round++) {
    CHECK_EQ(all[round].host.entered, entered[round]); /* nothing came later */
    check_ended(&all[round]);
    calls += all[round].host.entered;
  }
  printf("%s: %ld plugins, %ld calls in them, %ld calls refused, %ld places kept clear\n",
         harness_current, rounds, calls, load.refused, kept_clear);
  CHECK(load.refused > 0 || rounds < 100); /* else nobody called while none was there */
  CHECK(kept_clear > rounds / 2);
  free(entered);
  free(all);
}

/* --- tokens that outlive the plugin ------------------------------------------------------- */

struct survivor {
  struct plugin *plugin;
  gate called, end;
};

static void *calls_and_survives(void *arg) {
  struct survivor *self = (struct survivor *)arg;
  calls_all(self->plugin);
  gate_open(&self->called);
  gate_pass(&self->end);
  return NULL;
}

TEST(a_thread_that_outlives_a_plugin_is_not_detached_by_code_that_is_gone) {
  struct plugin it;
  struct survivor survivor = {.plugin = &it};
  gate_init(&survivor.called);
  gate_init(&survivor.end);
  plugin_load(&it);
  plugin_start(&it, 0);
  pthread_t thread = start(calls_and_survives, &survivor);
  gate_pass(&survivor.called);
  CHECK_EQ(it.host.attached, 1);
  plugin_close(&it);
  CHECK(plugin_unload(&it));
  gate_open(&survivor.end);
  join(thread);
  CHECK_EQ(it.host.detached, 0);
}

/* --- from inside -------------------------------------------------------------------------- */

static struct plugin asking;

static cbr_status unload_from_inside(void) {
  size_t running = 77;
  CHECK_REFUSED(cbr_scope_close(asking.host.scope, -1, &running), CBR_ERR_DEADLOCK);
  CHECK_EQ(running, 1);
  return CBR_OK;
}

static void *calls_the_one_that_asks(void *arg) {
  intptr_t result = 0;
  CHECK_OK(cbr_call(asking.handles[PLUGIN_CALLBACKS - 1], NULL, &result));
  CHECK_EQ(result, PLUGIN_RESULT + PLUGIN_CALLBACKS - 1);
  return arg;
}

TEST(a_plugin_that_asks_for_its_end_is_unloaded_when_its_callback_has_returned) {
  plugin_load(&asking);
  plugin_start(&asking, 0);
  asking.host.ask = unload_from_inside;
  run_on_thread(calls_the_one_that_asks, NULL);
  CHECK_EQ(asking.host.destroyed, PLUGIN_CALLBACKS);
  plugin_close(&asking);
  CHECK(plugin_unload(&asking));
}

/* --- CBR_PIN_MODULE ----------------------------------------------------------------------- */

TEST(without_a_pin_the_object_goes) {
  for (int i = 0; i < 3; i++) {
    struct plugin it;
    plugin_load(&it);
    plugin_start(&it, 0);
    check_calls(&it);
    plugin_close(&it);
    CHECK(is_loaded(PLUGIN_PATH));
    CHECK(plugin_unload(&it));
  }
}

static void check_function_still_runs(cbr_fn function, void *user_data, struct plugin *it) {
  long entered = it->host.entered;
  CHECK_EQ(function(user_data, NULL), PLUGIN_RESULT);
  CHECK_EQ(it->host.entered, entered + 1);
  CHECK_EQ(it->host.wrong, 0);
}

/* Leaves the object loaded, and so the test's process is the last to use it. */
static void check_pinned(const char *path) {
  struct plugin it;
  cbr_handle handle;
  void *user_data;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  plugin_function_fn function_of;
  plugin_load_from(&it, path);
  *(void **)&function_of = find_symbol(&it, "plugin_function");
  plugin_start(&it, CBR_PIN_MODULE);
  CHECK_EQ(dlclose(it.object), 0);
  CHECK(is_loaded(path));
  check_calls(&it); /* by the library, of a plugin that nobody holds but the pin */
  plugin_close(&it);
  CHECK(is_loaded(path)); /* for the life of the process, not only for that of the callbacks */
  cbr_fn function = function_of(&user_data);
  check_function_still_runs(function, user_data, &it);
  for (int i = 0; i < 3; i++) {
    void *object = dlopen(path, RTLD_NOW);
    CHECK(object == it.object);
    CHECK_EQ(dlclose(object), 0);
    check_function_still_runs(function, user_data, &it);
  }
  options.fn = (cbr_any_fn)function;
  options.user_data = user_data;
  options.flags = CBR_PIN_MODULE; /* once more does no harm */
  CHECK_OK(cbr_register_with(&options, &handle));
  CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_OK(cbr_unregister(handle));
}

TEST(a_pinned_object_stays_after_dlclose) { check_pinned(PLUGIN_PATH); }

TEST(an_object_that_was_loaded_by_a_relative_path_can_be_pinned_from_elsewhere) {
  char folder[4096], name[4096];
  struct plugin it;
  snprintf(folder, sizeof folder, "%s", PLUGIN_PATH);
  char *slash = strrchr(folder, '/');
  CHECK(slash != NULL);
  snprintf(name, sizeof name, "./%s", slash + 1);
  *slash = '\0';
  CHECK_EQ(chdir(folder), 0);
  plugin_load_from(&it, name);
  CHECK_EQ(chdir("/"), 0);
  plugin_start(&it, CBR_PIN_MODULE);
  CHECK_EQ(dlclose(it.object), 0);
  check_calls(&it);
  plugin_close(&it);
  CHECK(is_loaded(PLUGIN_PATH));
}

/* As after an upgrade of its package: the file is another one, or none. */
TEST(an_object_whose_file_is_gone_can_be_pinned) {
  char path[64], bytes[4096];
  struct plugin it;
  size_t got;
  int copy = memfd_create("plugin", MFD_CLOEXEC);
  FILE *file = fopen(PLUGIN_PATH, "re");
  CHECK(copy >= 0 && file != NULL);
  while ((got = fread(bytes, 1, sizeof bytes, file)) > 0)
    CHECK_EQ(write(copy, bytes, got), (ssize_t)got);
  fclose(file);
  snprintf(path, sizeof path, "/proc/self/fd/%d", copy);
  plugin_load_from(&it, path);
  CHECK_EQ(close(copy), 0);
  plugin_start(&it, CBR_PIN_MODULE);
  CHECK_EQ(dlclose(it.object), 0);
  check_calls(&it);
  plugin_close(&it);
  CHECK(!is_loaded(PLUGIN_PATH)); /* it was the copy */
}

/* The library finds this one instead of the C library's. */
static bool loader_marks_nothing;

void *dlopen(const char *path, int flags) {
  static void *(*real)(const char *, int);
  if (loader_marks_nothing && (flags & RTLD_NODELETE) != 0) return NULL;
  if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "dlopen");
  return real(path, flags);
}

TEST(a_pinned_object_stays_even_if_the_loader_cannot_mark_it) {
  struct plugin it;
  plugin_load(&it);
  loader_marks_nothing = true;
  plugin_start(&it, CBR_PIN_MODULE);
  loader_marks_nothing = false;
  CHECK_EQ(dlclose(it.object), 0);
  CHECK(is_loaded(it.path));
  check_calls(&it);
  plugin_close(&it);
  CHECK(is_loaded(it.path));
}

TEST(what_is_always_loaded_can_be_pinned) {
  struct subject it;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn; /* of the main program */
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.flags = CBR_PIN_MODULE;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
  options.destroy = NULL;
  options.fn = (cbr_any_fn)getpid; /* of the C library */
  options.signature = CBR_SIG(CBR_I32);
  CHECK_OK(cbr_register_with(&options, &handle));
  CHECK_OK(cbr_unregister(handle));
  options.fn = (cbr_any_fn)cbr_version; /* of the library itself */
  CHECK_OK(cbr_register_with(&options, &handle));
  CHECK_OK(cbr_unregister(handle));
}

TEST(code_in_no_object_cannot_be_pinned) {
  struct subject it;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = 99;
  void *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(code != MAP_FAILED);
  subject_reset(&it);
  *(void **)&options.fn = code;
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.flags = CBR_PIN_MODULE;
  CHECK_REFUSED(cbr_register_with(&options, &handle), CBR_ERR_INVALID);
  CHECK_EQ(handle, 99);
  CHECK_EQ(it.destroyed, 0);
  options.flags = 0; /* without the pin it is the host's business what it registers */
  CHECK_OK(cbr_register_with(&options, &handle));
  CHECK_OK(cbr_unregister(handle));
  CHECK_EQ(it.destroyed, 1);
}

TEST(a_registration_that_is_refused_pins_nothing) {
  struct plugin it;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = 99;
  cbr_scope closed = scope_open("closed");
  struct closing closing;
  plugin_function_fn function_of;
  scope_close(closed);
  closing_begin(&closing, scope_open("closing"));
  plugin_load(&it);
  *(void **)&function_of = find_symbol(&it, "plugin_function");
  options.fn = (cbr_any_fn)function_of(&options.user_data);
  options.flags = CBR_PIN_MODULE;
  options.name = "\xff";
  CHECK_REFUSED(cbr_register_with(&options, &handle), CBR_ERR_INVALID);
  options.name = NULL;
  options.signature = 1;
  CHECK_REFUSED(cbr_register_with(&options, &handle), CBR_ERR_INVALID);
  options.signature = 0;
  options.flags = CBR_PIN_MODULE | 4;
  CHECK_REFUSED(cbr_register_with(&options, &handle), CBR_ERR_INVALID);
  options.flags = CBR_PIN_MODULE;
  options.scope = closing.inside.handle;
  CHECK_REFUSED(cbr_register_with(&options, &handle), CBR_ERR_KIND);
  options.scope = closed;
  CHECK_REFUSED(cbr_register_with(&options, &handle), CBR_ERR_STALE);
  options.scope = closing.scope;
  CHECK_REFUSED(cbr_register_with(&options, &handle), CBR_ERR_CLOSED);
  CHECK_EQ(handle, 99);
  CHECK(plugin_unload(&it));
  closing_end(&closing);
}
