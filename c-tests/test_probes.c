/* Probe points (USDT) for debuggers and tracers: they are in the file, and a debugger that attaches to a
 * running program sees what it does through them. */
#include "support_probes.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/prctl.h>

/* --- in the file --------------------------------------------------------------------------- */

TEST(every_probe_is_listed_in_the_file) {
  static char notes[1 << 20];
  char command[4200];
  char name[64];
#if !defined(__x86_64__)
  SKIP("there are probes on x86_64 alone");
#endif
  skip_without("readelf");
  snprintf(command, sizeof command, "readelf -nW '%s'", library_file());
  FILE *readelf = popen(command, "r");
  CHECK(readelf != NULL);
  notes[fread(notes, 1, sizeof notes - 1, readelf)] = 0;
  CHECK_EQ(pclose(readelf), 0);
  for (int probe = 0; probe < PROBES; probe++) {
    snprintf(name, sizeof name, "Name: %s\n", probes[probe].name);
    CHECK_CONTAINS(notes, name);
  }
  /* Every one says where it is, whose it is, and has as many arguments as are promised. */
  int found = 0;
  for (char *note = notes; (note = strstr(note, "Provider: ")) != NULL; note++) {
    char provider[32] = "", place[32] = "", arguments[256] = "";
    if (sscanf(note,
               "Provider: %31[^\n] Name: %63[^\n] Location: %31[^,], Base: %*[^,], Semaphore: "
               "0x0000000000000000 Arguments: %255[^\n]",
               provider, name, place, arguments) != 4 ||
        strcmp(provider, "callbridge") != 0)
      continue;
    int probe = 0, count = 0;
    while (probe < PROBES && strcmp(probes[probe].name, name) != 0) probe++;
    if (probe == PROBES) FAIL("nobody knows the probe %s", name);
    for (char *at = arguments; (at = strchr(at, '@')) != NULL; at++) count++;
    if (count != probes[probe].count) FAIL("%s has the arguments %s", name, arguments);
    CHECK(strtoull(place, NULL, 16) != 0);
    found++;
  }
  CHECK(found >= PROBES);
}

/* --- a program to watch -------------------------------------------------------------------- */

static intptr_t nothing(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 0;
}

static intptr_t calls_another(void *user_data, void *arg) {
  (void)user_data;
  CHECK_OK(cbr_call(*(cbr_handle *)arg, NULL, NULL));
  return 0;
}

static intptr_t fails(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "on purpose"));
  return 0;
}

static intptr_t panics(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_PANIC, "on purpose"));
  return 0;
}

static intptr_t jumps(void *user_data, void *arg) {
  (void)user_data;
  longjmp(*(jmp_buf *)arg, 1);
}

static intptr_t exits(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  pthread_exit(NULL);
}

static int nothing_typed(void *user_data, int number) {
  (void)user_data;
  return number;
}

static void destroyed(void *user_data) { (void)user_data; }

static cbr_handle named(const char *name, cbr_fn fn, cbr_scope scope) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)fn;
  options.name = name;
  options.scope = scope;
  options.destroy = destroyed;
  CHECK_OK(cbr_register_with(&options, &handle));
  return handle;
}

static void *call_in_thread(void *handle) {
  CHECK_OK(cbr_call(*(cbr_handle *)handle, NULL, NULL));
  return NULL;
}

static void *leave_in_thread(void *pin) {
  CHECK_OK(cbr_leave(pin));
  return NULL;
}

static cbr_queue queue;

static void *call_on_in_thread(void *handle) {
  CHECK_OK(cbr_call_on(queue, *(cbr_handle *)handle, NULL, -1, NULL));
  return NULL;
}

static void *never_left(void *handle) {
  cbr_pin pin;
  CHECK_OK(cbr_enter(*(cbr_handle *)handle, 0, &pin));
  return NULL;
}

static void in_thread(void *(*run)(void *), void *arg) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, run, arg), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* What the program does, by callback: how often it is called, and with what end. */
static const struct expected {
  const char *name;
  int calls, status;
} expected[] = {
    {"plain", 2, CBR_OK},
    {"outer", 1, CBR_OK},
    {"failing", 1, CBR_ERR_CALLBACK},
    {"panicking", 1, CBR_ERR_PANIC},
    {"jumping", 1, CBR_ERR_CALLBACK},
    {"exiting", 1, CBR_ERR_CALLBACK},
    {"pinned", 2, CBR_OK},
    {"forgotten", 1, CBR_ERR_CALLBACK},
    {"held", 1, CBR_OK},
    {"hooked", 1, CBR_OK},
    {"keyed", 1, CBR_OK},
    {"pointed", 1, CBR_OK},
    {"thunked", 2, CBR_OK},
    {"often", 2100, CBR_OK}, /* also when a thread takes the short way */
    {"posted", 2, CBR_OK},
    {"asked", 1, CBR_OK},
    {"dropped", 0, CBR_OK},
    {"scoped", 0, CBR_OK},
    {"slow", 1, CBR_OK},
};
enum { EXPECTED = sizeof expected / sizeof *expected };

static void call_in_every_way(void) {
  const cbr_handle plain = named("plain", nothing, 0), outer = named("outer", calls_another, 0),
                   failing = named("failing", fails, 0), panicking = named("panicking", panics, 0),
                   jumping = named("jumping", jumps, 0);
  cbr_handle exiting = named("exiting", exits, 0), forgotten = named("forgotten", nothing, 0);
  CHECK_OK(cbr_call(plain, NULL, NULL));
  CHECK_OK(cbr_call(outer, (void *)&plain, NULL));
  CHECK_STATUS(cbr_call(failing, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_STATUS(cbr_call(panicking, NULL, NULL), CBR_ERR_PANIC);
  jmp_buf home;
  if (setjmp(home) == 0) cbr_call(jumping, &home, NULL);
  CHECK_OK(cbr_unwind_to(0));
  in_thread(call_in_thread, &exiting);
  in_thread(never_left, &forgotten);

  const cbr_handle pinned = named("pinned", nothing, 0), held = named("held", nothing, 0);
  cbr_pin first, second, third;
  CHECK_OK(cbr_enter(pinned, 0, &first));
  CHECK_OK(cbr_enter(pinned, 0, &second));
  CHECK_STATUS(cbr_enter(pinned, CBR_SIG(CBR_VOID), &third), CBR_ERR_SIGNATURE);
  CHECK_OK(cbr_leave(&first));
  CHECK_OK(cbr_leave(&second));
  CHECK_OK(cbr_hold(held, 0, &third));
  in_thread(leave_in_thread, &third);

  const cbr_handle hooked = named("hooked", nothing, 0), keyed = named("keyed", nothing, 0),
                   pointed = named("pointed", nothing, 0), often = named("often", nothing, 0);
  cbr_hook hook = CBR_HOOK_INIT;
  CHECK_OK(cbr_hook_set_once(&hook, hooked));
  CHECK_OK(cbr_hook_call(&hook, NULL, NULL));
  CHECK_OK(cbr_key_attach(0, 1, 2, keyed, CBR_BIND_ONCE));
  CHECK_OK(cbr_key_call(0, 1, 2, NULL, NULL));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(pointed), NULL), 0);
  for (int call = 0; call < 2100; call++) CHECK_OK(cbr_call(often, NULL, NULL));

  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle thunked;
  cbr_any_fn fn;
  cbr_thunk thunk;
  options.fn = (cbr_any_fn)nothing_typed;
  options.signature = CBR_SIG(CBR_INT, CBR_INT);
  options.name = "thunked";
  CHECK_OK(cbr_register_with(&options, &thunked));
  CHECK_OK(cbr_thunk_open(thunked, options.signature, 0, &fn, &thunk));
  CHECK_EQ(((int (*)(int))fn)(1), 1);
  CHECK_EQ(((int (*)(int))fn)(2), 2);
  CHECK_OK(cbr_thunk_close(thunk));

  cbr_handle slow = named("slow", nothing, 0);
  CHECK_OK(cbr_set_check(2));
  CHECK_OK(cbr_call(slow, NULL, NULL));
  CHECK_OK(cbr_set_check(1));
}

static void post_in_every_way(void) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  const cbr_handle posted = named("posted", nothing, 0), dropped = named("dropped", nothing, 0);
  cbr_handle asked = named("asked", nothing, 0);
  char large[100] = "";
  pthread_t thread;
  options.capacity = 1;
  options.policy = CBR_QUEUE_DROP_OLDEST;
  CHECK_OK(cbr_queue_open(&options, &queue));
  CHECK_OK(cbr_post(queue, dropped, NULL, 0));
  CHECK_OK(cbr_post(queue, posted, "text", 4));
  CHECK_OK(cbr_queue_dispatch(queue, 0, 0, NULL));
  CHECK_OK(cbr_post(queue, posted, large, sizeof large));
  CHECK_OK(cbr_queue_dispatch(queue, 0, 0, NULL));
  CHECK_EQ(pthread_create(&thread, NULL, call_on_in_thread, &asked), 0);
  CHECK_OK(cbr_queue_dispatch(queue, 1, -1, NULL));
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_OK(cbr_post(queue, dropped, NULL, 0));
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
}

/* Waits on stdin, so that whoever watches has the time to begin. On one processor, because bpftrace keeps
 * what it has seen on each for itself, and so shows it in no order. */
CHILD(watched) {
  char byte;
  cbr_scope scope;
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(sched_getcpu(), &here);
  CHECK_EQ(sched_setaffinity(0, sizeof here, &here), 0);
  /* Where debuggers may attach to their own children alone. */
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
  CHECK_EQ(read(STDIN_FILENO, &byte, 1), 1);
  call_in_every_way();
  post_in_every_way();
  CHECK_OK(cbr_scope_open("owner", &scope));
  cbr_handle scoped = named("scoped", nothing, scope);
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  CHECK_STATUS(cbr_call(scoped, NULL, NULL), CBR_ERR_STALE);
}

/* --- what a watcher has seen --------------------------------------------------------------- */

static char seen[16 << 20];

struct known {
  uint64_t handle;
  int begun, ended, open, posts, dispatches, delivered, drops, unregistered, destroyed, stale;
  char why[2][16];
};

/* Reads lines "PROBE NAME THREAD ARGUMENTS..." and checks that they are what CHILD(watched) does. Of
 * another tool than gdb the threads' numbers are the kernel's. */
static void check_what_was_seen(void) {
  struct known known[EXPECTED] = {0};
  enum { DEEP = 8, THREADS = 64 };
  struct {
    int number, depth;
    uint64_t inside[DEEP];
  } threads[THREADS] = {{0}};
  for (char *line = seen; line != NULL; line = strchr(line, '\n') != NULL ? strchr(line, '\n') + 1 : NULL) {
    char probe[32], words[3][64] = {"", "", ""};
    int number;
    uint64_t handle;
    if (sscanf(line, "PROBE %31s %d %" SCNx64 " %63[^ \n] %63[^ \n] %63[^ \n]", probe, &number, &handle,
               words[0], words[1], words[2]) < 3)
      continue;
    int index = 0, place = 0;
    if (strcmp(probe, "register") == 0) {
      while (index < EXPECTED && strcmp(expected[index].name, words[1]) != 0) index++;
      if (index == EXPECTED) FAIL("who is this? %.100s", line);
      CHECK_EQ(known[index].handle, 0);
      CHECK((strtoull(words[2], NULL, 16) != 0) == (strcmp(expected[index].name, "scoped") == 0));
      known[index].handle = handle;
    }
    for (index = 0; index < EXPECTED && known[index].handle != handle;) index++;
    if (index == EXPECTED) FAIL("whose is this? %.100s", line);
    for (place = 0; threads[place].number != 0 && threads[place].number != number;) {
      CHECK(++place < THREADS);
    }
    threads[place].number = number;
    struct known *it = &known[index];
    if (strcmp(probe, "call_begin") == 0) {
      it->begun++, it->open++;
      CHECK(threads[place].depth < DEEP);
      threads[place].inside[threads[place].depth++] = handle;
    } else if (strcmp(probe, "call_end") == 0) {
      CHECK_EQ(strtol(words[0], NULL, 10), expected[index].status);
      it->ended++, it->open--;
      CHECK(it->open >= 0);
      /* On the thread where it began, and the innermost: but for pins and holds. */
      if (strcmp(expected[index].name, "held") != 0) {
        CHECK(threads[place].depth > 0);
        CHECK_EQ(threads[place].inside[--threads[place].depth], handle);
      }
    } else if (strcmp(probe, "post") == 0) {
      it->posts++;
    } else if (strcmp(probe, "dispatch_begin") == 0) {
      it->dispatches++;
    } else if (strcmp(probe, "dispatch_end") == 0) {
      CHECK_EQ(it->open, 0);
      it->delivered++;
    } else if (strcmp(probe, "drop") == 0) {
      CHECK(it->drops < 2);
      snprintf(it->why[it->drops++], sizeof it->why[0], "%.15s", words[1]);
    } else if (strcmp(probe, "unregister") == 0) {
      it->unregistered++;
    } else if (strcmp(probe, "destroy") == 0) {
      CHECK_EQ(it->unregistered, 1);
      it->destroyed++;
    } else if (strcmp(probe, "stale") == 0) {
      CHECK_EQ(it->destroyed, 1);
      it->stale++;
    }
  }
  for (int index = 0; index < EXPECTED; index++) {
    const struct known *it = &known[index];
    const char *name = expected[index].name;
    harness_current = name;
    CHECK(it->handle != 0);
    CHECK_EQ(it->begun, expected[index].calls);
    CHECK_EQ(it->ended, expected[index].calls);
    CHECK_EQ(it->open, 0);
    bool is_posted = strcmp(name, "posted") == 0, is_dropped = strcmp(name, "dropped") == 0,
         is_asked = strcmp(name, "asked") == 0, is_scoped = strcmp(name, "scoped") == 0;
    CHECK_EQ(it->posts, is_posted || is_dropped ? 2 : is_asked);
    CHECK_EQ(it->dispatches, is_posted ? 2 : is_asked);
    CHECK_EQ(it->delivered, it->dispatches);
    CHECK_EQ(it->drops, is_dropped ? 2 : 0);
    CHECK_EQ(it->unregistered, is_scoped);
    CHECK_EQ(it->destroyed, is_scoped);
    CHECK_EQ(it->stale, is_scoped);
    if (is_dropped) {
      CHECK_STR(it->why[0], "displaced");
      CHECK_STR(it->why[1], "closed");
    }
  }
}

/* Reads what comes from `from` behind what was seen, until `until` is in it; NULL: to the end. */
static bool read_until(int from, const char *until) {
  size_t len = strlen(seen);
  while (until == NULL || strstr(seen, until) == NULL) {
    CHECK(len + 1 < sizeof seen);
    ssize_t got = read(from, seen + len, sizeof seen - 1 - len);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return until == NULL;
    seen[len += (size_t)got] = 0;
  }
  return true;
}

/* Starts a program with its output in a pipe; `in`: its standard input. */
static pid_t start(char *const arguments[], int in, int *out) {
  int ends[2];
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  fflush(NULL);
  pid_t child = fork();
  if (child < 0) FAIL("fork: %s", strerror(errno));
  if (child == 0) {
    dup2(in, STDIN_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    execvp(arguments[0], arguments);
    _exit(126);
  }
  close(ends[1]);
  *out = ends[0];
  return child;
}

/* CHILD(watched), which waits until there is a byte in the pipe `gate`. */
static pid_t start_watched(int gate, int *output) {
  static char path[4096];
  CHECK(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
  char *const program[] = {path, "--child", "watched", NULL};
  return start(program, gate, output);
}

static void check_passed(pid_t watched, int output) {
  int status = wait_for(watched);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  read_until(output, NULL);
  FAIL("the program ended with %d; what was said:\n%s", status, seen);
}

static FILE *script(char *path) {
  int file = mkstemp(path);
  CHECK(file >= 0);
  FILE *stream = fdopen(file, "w");
  CHECK(stream != NULL);
  return stream;
}

TEST(a_debugger_that_attaches_sees_every_call_begin_and_end) {
  char commands[] = "/tmp/callbridge_probes_XXXXXX", process[16];
  int gate[2], said, output, null = open("/dev/null", O_RDWR | O_CLOEXEC);
  skip_where_no_debugger_works();
  skip_without("gdb");

  /* The program runs, and waits; gdb attaches, sets its breakpoints, and says so. */
  CHECK_EQ(pipe2(gate, O_CLOEXEC), 0);
  pid_t watched = start_watched(gate[0], &output);
  FILE *to = script(commands);
  fputs("set pagination off\nset confirm off\nhandle SIGURG SIGALRM nostop noprint pass\n", to);
  for (int probe = 0; probe < PROBES; probe++) {
    const struct probe *it = &probes[probe];
    fprintf(to, "break -probe-stap callbridge:%s\ncommands\nsilent\nprintf \"PROBE %s %%d %s\\n\", $_thread",
            it->name, it->name, it->format);
    for (int argument = 0; argument < it->count; argument++) {
      fprintf(to, ", %s$_probe_arg%d", argument == it->text ? "(char *)" : "", argument);
    }
    fputs("\ncontinue\nend\n", to);
  }
  fputs("echo READY\\n\ncontinue\n", to);
  fclose(to);
  snprintf(process, sizeof process, "%d", (int)watched);
  char *const debugger[] = {"gdb", "-nx", "-batch", "-p", process, "-x", commands, NULL};
  pid_t gdb = start(debugger, null, &said);
  bool ready = read_until(said, "\nREADY\n");
  unlink(commands);
  if (!ready && strstr(seen, "ptrace: Operation not permitted") != NULL) {
    kill(watched, SIGKILL);
    SKIP("the system does not let gdb attach (ptrace: Operation not permitted)");
  }
  if (!ready) FAIL("gdb did not attach; it said:\n%s", seen);

  CHECK_EQ(write(gate[1], "", 1), 1);
  read_until(said, NULL);
  wait_for(gdb);
  check_passed(watched, output);
  check_what_was_seen();
}

TEST(bpftrace_that_attaches_sees_every_call_begin_and_end) {
  char commands[] = "/tmp/callbridge_probes_XXXXXX", process[16];
  int gate[2], said, output, null = open("/dev/null", O_RDWR | O_CLOEXEC);
  skip_where_no_debugger_works();
  skip_without("bpftrace");
  if (geteuid() != 0) SKIP("bpftrace needs root");

  CHECK_EQ(pipe2(gate, O_CLOEXEC), 0);
  pid_t watched = start_watched(gate[0], &output);
  FILE *to = script(commands);
  /* Shown when it begins to read what its programs have to say: then all are attached. */
  fputs("BEGIN { printf(\"\\nREADY\\n\"); }\n", to);
  for (int probe = 0; probe < PROBES; probe++) {
    const struct probe *it = &probes[probe];
    fprintf(to, "usdt:%s:callbridge:%s { printf(\"PROBE %s %%d %s\\n\", tid", library_file(), it->name,
            it->name, it->format);
    for (int argument = 0; argument < it->count; argument++) {
      fprintf(to, argument == it->text ? ", str(arg%d)" : ", arg%d", argument);
    }
    fputs("); }\n", to);
  }
  fclose(to);
  snprintf(process, sizeof process, "%d", (int)watched);
  /* Room for all that comes at once. */
  setenv("BPFTRACE_PERF_RB_PAGES", "1024", 1);
  char *const tracer[] = {"bpftrace", "-p", process, commands, NULL};
  pid_t bpftrace = start(tracer, null, &said);
  bool ready = read_until(said, "\nREADY\n");
  unlink(commands);
  if (!ready) {
    kill(watched, SIGKILL);
    fputs(seen, stderr);
    SKIP("bpftrace does not work with this kernel, or is not allowed to; it said what is above");
  }
  CHECK_EQ(write(gate[1], "", 1), 1);
  check_passed(watched, output);
  read_until(said, NULL);
  wait_for(bpftrace);
  if (strstr(seen, "Lost ") != NULL) FAIL("bpftrace has lost some:\n%.2000s", strstr(seen, "Lost "));
  check_what_was_seen();
}
