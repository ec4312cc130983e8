/* What walks the stack through a thunk: C++ exceptions, cancellations, backtrace() and gdb. */
#include "support_child.h"
#include "support_exception.h"
#include "support_thunk.h"

#include <dlfcn.h>

#include <string>
#include <vector>

namespace {

/* A callback that throws the number it is called with, unless that is 0, and a thunk of it:
 * R(int, A...). */
template <cbr_signature Signature, class R, class... A>
struct thrower {
  cbr_handle handle = 0;
  cbr_thunk thunk = 0;
  R (*fn)(int, A...) = nullptr;
  int calls = 0;

  static R run(void *user_data, int number, A...) {
    static_cast<thrower *>(user_data)->calls++;
    CHECK_EQ(cbr_depth(), 1);
    if (number == 0) return R();
    throw boom(number);
  }

  thrower() {
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    options.fn = reinterpret_cast<cbr_any_fn>(run);
    options.user_data = this;
    options.signature = Signature;
    CHECK_OK(cbr_register_with(&options, &handle));
    fn = reinterpret_cast<R (*)(int, A...)>(thunk_of(handle, Signature, &thunk));
  }

  /* Exceptions pass through, and nothing is left in flight. */
  void check(A... rest) {
    for (int i = 1; i <= 100; i++) {
      CHECK_EQ(caught([&] { fn(i, rest...); }), i);
      CHECK_EQ(cbr_depth(), 0);
    }
    for (int i = 0; i < 5000; i++) fn(0, rest...);
    CHECK_EQ(caught([&] { fn(5, rest...); }), 5);
    CHECK_EQ(cbr_depth(), 0);
    CHECK_EQ(calls, 5101);
    CHECK_OK(cbr_unregister_wait(handle, 0));
    CHECK_EQ(caught([&] { fn(5, rest...); }), 0);
    CHECK_OK(cbr_thunk_close(thunk));
  }
};

}  // namespace

TEST(an_exception_passes_through_a_thunk_with_arguments_in_integer_registers) {
  thrower<CBR_SIG(CBR_I32, CBR_I32, CBR_PTR), int, void *>().check(nullptr);
  thrower<CBR_SIG(CBR_F64, CBR_I32), double>().check();
}

TEST(an_exception_passes_through_a_thunk_with_arguments_in_floating_registers) {
  thrower<CBR_SIG(CBR_I32, CBR_I32, CBR_F64), int, double>().check(1.5);
  thrower<CBR_SIG(CBR_F32, CBR_I32, CBR_F32), float, float>().check(1.5f);
}

TEST(an_exception_passes_through_a_thunk_with_arguments_on_the_stack) {
  thrower<CBR_SIG(CBR_I32, CBR_I32, CBR_I64, CBR_I64, CBR_I64, CBR_I64, CBR_I64), int, long,
                    long, long, long, long>()
      .check(1, 2, 3, 4, 5);
  thrower<CBR_SIG(CBR_F64, CBR_I32, CBR_F64, CBR_F64, CBR_F64, CBR_F64, CBR_F64, CBR_F64,
                            CBR_F64, CBR_F64, CBR_F64),
                    double, double, double, double, double, double, double, double, double,
                    double>()
      .check(1, 2, 3, 4, 5, 6, 7, 8, 9);
}

TEST(an_exception_passes_through_a_thunk_beyond_the_first_table) {
  constexpr cbr_signature signature = CBR_SIG(CBR_I32, CBR_I32, CBR_PTR);
  cbr_handle handle = 0;
  cbr_thunk thunk;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  options.fn = reinterpret_cast<cbr_any_fn>(adder_fn);
  options.signature = signature;
  CHECK_OK(cbr_register_with(&options, &handle));
  for (int i = 0; i < 5000; i++) (void)thunk_of(handle, signature, &thunk);
  thrower<signature, int, void *>().check(nullptr);
}

namespace {

int ends_itself_and_throws(void *user_data, int number, void *) {
  auto *it = static_cast<adder *>(user_data);
  CHECK_OK(cbr_thunk_close(it->thunk));
  CHECK_EQ(it->subject.destroyed, 0);
  throw boom(number);
}

}  // namespace

TEST(an_exception_out_of_a_thunk_that_has_closed_itself_ends_the_callback) {
  struct adder it;
  cbr_callback_options options = adder_options(&it, 0);
  options.fn = reinterpret_cast<cbr_any_fn>(ends_itself_and_throws);
  CHECK_OK(cbr_register_with(&options, &it.subject.handle));
  adder_open(&it);
  CHECK_OK(cbr_release(it.subject.handle));
  CHECK_EQ(caught([&] { it.fn(4, nullptr); }), 4);
  CHECK_EQ(it.subject.destroyed, 1);
  CHECK_EQ(it.fn(4, nullptr), FALLBACK);
}

TEST(an_exception_passes_through_thunks_inside_thunks) {
  struct adder it;
  adder_begin(&it, 0);
  it.action = [](struct adder *self) {
    if (cbr_depth() == 100) throw boom(100);
    self->fn(1, nullptr);
  };
  CHECK_EQ(caught([&] { it.fn(1, nullptr); }), 100);
  CHECK_EQ(cbr_depth(), 0);
  it.action = nullptr;
  it.subject.running = 0;
  CHECK_OK(cbr_thunk_close(it.thunk));
  CHECK_EQ(it.subject.destroyed, 1);
}

/* --- cancellation ------------------------------------------------------------------------------------ */

namespace {

gate cancel_here;

void waits_to_be_cancelled(struct adder *it) {
  it->subject.running = 0;
  gate_open(&cancel_here);
  for (;;) pause();
}

void *calls_until_cancelled(void *arg) {
  static_cast<adder *>(arg)->fn(1, nullptr);
  return nullptr;
}

}  // namespace

TEST(a_cancellation_inside_a_thunk_leaves_nothing_in_flight) {
  struct adder it;
  adder_register(&it, 0);
  adder_open(&it);
  it.action = waits_to_be_cancelled;
  gate_init(&cancel_here);
  pthread_t thread = start(calls_until_cancelled, &it);
  gate_pass(&cancel_here);
  CHECK_EQ(pthread_cancel(thread), 0);
  CHECK(join(thread) == PTHREAD_CANCELED);
  CHECK_OK(cbr_unregister_wait(it.subject.handle, 0));
  CHECK_EQ(it.subject.destroyed, 1);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

/* --- backtrace and gdb ---------------------------------------------------------------------------------- */

namespace {

std::vector<std::string> frames;

void looks_up(struct adder *) {
  void *places[64];
  int count = backtrace(places, 64);
  char **names = backtrace_symbols(places, count);
  CHECK(names != nullptr);
  frames.assign(names, names + count);
  free(names);
}

int looks_up_of_many(void *, long, long, long, long, long, long, long, double) {
  looks_up(nullptr);
  return 1;
}

void check_frames(const char *caller) {
  for (const std::string &frame : frames) {
    if (frame.find(caller) != std::string::npos) return;
  }
  std::string all;
  for (const std::string &frame : frames) all += frame + "\n";
  FAIL("backtrace() does not see %s:\n%s", caller, all.c_str());
}

}  // namespace

extern "C" __attribute__((noinline)) int calls_the_thunk(int_fn fn) {
  return fn(1, nullptr) + (int)frames.size();
}
extern "C" __attribute__((noinline)) int calls_the_long_thunk(cbr_any_fn fn) {
  using long_fn = int (*)(long, long, long, long, long, long, long, double);
  return reinterpret_cast<long_fn>(fn)(1, 2, 3, 4, 5, 6, 7, 8) + (int)frames.size();
}

TEST(backtrace_sees_the_caller_of_a_thunk) {
  struct adder it;
  adder_begin(&it, 0);
  it.action = looks_up;
  calls_the_thunk(it.fn);
  check_frames("calls_the_thunk");
  check_frames("main");
  CHECK_OK(cbr_thunk_close(it.thunk));

  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = 0;
  cbr_thunk thunk = 0;
  options.fn = reinterpret_cast<cbr_any_fn>(looks_up_of_many);
  options.signature =
      CBR_SIG(CBR_I32, CBR_I64, CBR_I64, CBR_I64, CBR_I64, CBR_I64, CBR_I64, CBR_I64, CBR_F64);
  CHECK_OK(cbr_register_with(&options, &handle));
  calls_the_long_thunk(thunk_of(handle, options.signature, &thunk));
  check_frames("calls_the_long_thunk");
  check_frames("main");
  CHECK_OK(cbr_thunk_close(thunk));
}

#if defined(__x86_64__)
#include <ucontext.h>

namespace {

/* The processor traps after every instruction; the handler walks the stack each time. */
struct steps {
  uintptr_t begin, end; /* of the caller's code */
  void *outermost;      /* the last frame, which a walk that goes astray does not come to */
  long count, lost;
  uintptr_t first_lost;
} steps;

void on_step(int, siginfo_t *, void *context) {
  auto *registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
  auto at = static_cast<uintptr_t>(registers[REG_RIP]);
  if (at >= steps.begin && at < steps.end) return;
  void *places[64];
  int count = backtrace(places, 64);
  steps.count++;
  bool complete = places[count - 1] == steps.outermost;
  for (int i = 0; complete && i < count; i++) {
    auto place = reinterpret_cast<uintptr_t>(places[i]);
    if (place >= steps.begin && place < steps.end) return;
  }
  if (steps.lost++ == 0) steps.first_lost = at;
}

}  // namespace

#define TRAP_ON asm volatile("pushfq; orl $0x100, (%%rsp); popfq" ::: "memory", "cc")
#define TRAP_OFF asm volatile("pushfq; andl $~0x100, (%%rsp); popfq" ::: "memory", "cc")

/* A page of its own, so that its addresses are known. */
extern "C" __attribute__((noinline, aligned(4096))) int steps_through_integers(int_fn fn) {
  TRAP_ON;
  int result = fn(1, nullptr);
  TRAP_OFF;
  return result;
}
extern "C" __attribute__((noinline, aligned(4096))) int steps_through_long(cbr_any_fn fn) {
  using long_fn = int (*)(long, long, long, long, long, long, long, double);
  TRAP_ON;
  int result = reinterpret_cast<long_fn>(fn)(1, 2, 3, 4, 5, 6, 7, 8);
  TRAP_OFF;
  return result;
}

namespace {

int takes_many(void *, long, long, long, long, long, long, long h, double) { return (int)h; }

template <class Fn>
void check_steps(int (*caller)(Fn), cbr_any_fn fn, int expected) {
  steps = {};
  steps.begin = reinterpret_cast<uintptr_t>(caller);
  steps.end = steps.begin + 256;
  void *places[64];
  steps.outermost = places[backtrace(places, 64) - 1];
  CHECK_EQ(caller(reinterpret_cast<Fn>(fn)), expected);
  CHECK(steps.count > 20);
  if (steps.lost != 0) {
    Dl_info about = {};
    dladdr(reinterpret_cast<void *>(steps.first_lost), &about);
    FAIL("at %ld of %ld instructions the caller is lost, first at %p (%s)", steps.lost, steps.count,
         reinterpret_cast<void *>(steps.first_lost), about.dli_sname ? about.dli_sname : "?");
  }
}

}  // namespace

TEST(the_caller_is_seen_from_every_instruction_of_a_call) {
#ifdef CALLBRIDGE_TEST_LIBFFI
  SKIP("libffi's closures say nothing of their first instructions");
#endif
  if (HARNESS_SANITIZED || under_valgrind()) SKIP("the tool does not trap after every instruction");
  struct sigaction action = {};
  struct adder it;
  adder_begin(&it, 0);
  looks_up(nullptr); /* loads the unwinder */
  action.sa_sigaction = on_step;
  action.sa_flags = SA_SIGINFO;
  CHECK_EQ(sigaction(SIGTRAP, &action, nullptr), 0);
  check_steps(steps_through_integers, reinterpret_cast<cbr_any_fn>(it.fn), 1);
  check_steps(steps_through_integers, reinterpret_cast<cbr_any_fn>(it.fn), 1);
  CHECK_OK(cbr_thunk_close(it.thunk));
  check_steps(steps_through_integers, reinterpret_cast<cbr_any_fn>(it.fn), FALLBACK);

  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = 0;
  cbr_thunk thunk = 0;
  options.fn = reinterpret_cast<cbr_any_fn>(takes_many);
  options.signature =
      CBR_SIG(CBR_I32, CBR_I64, CBR_I64, CBR_I64, CBR_I64, CBR_I64, CBR_I64, CBR_I64, CBR_F64);
  CHECK_OK(cbr_register_with(&options, &handle));
  check_steps(steps_through_long, thunk_of(handle, options.signature, &thunk), 7);
  CHECK_OK(cbr_thunk_close(thunk));
}
#endif

extern "C" __attribute__((noinline)) void gdb_stops_here(struct adder *) { asm volatile(""); }

CHILD(calls_a_thunk_for_gdb) {
  struct adder it;
  adder_begin(&it, 0);
  it.action = gdb_stops_here;
  calls_the_thunk(it.fn);
  CHECK_OK(cbr_thunk_close(it.thunk));
}

TEST(gdb_sees_the_caller_of_a_thunk) {
  if (HARNESS_SANITIZED || under_valgrind()) SKIP("gdb does not debug through the tool");
  if (system("gdb --version >/dev/null 2>&1") != 0) SKIP("gdb is not installed");
  char program[4096] = "", command[8192], line[4096];
  CHECK(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
  snprintf(command, sizeof command,
           "gdb -batch -nx -ex 'set debuginfod enabled off' -ex 'break gdb_stops_here' -ex run -ex bt "
           "--args '%s' --child calls_a_thunk_for_gdb </dev/null 2>&1",
           program);
  FILE *gdb = popen(command, "r");
  CHECK(gdb != nullptr);
  std::string output;
  while (fgets(line, sizeof line, gdb) != nullptr) output += line;
  pclose(gdb);
  if (output.find("ptrace") != std::string::npos) SKIP("gdb may not trace here");
  CHECK_CONTAINS(output.c_str(), "gdb_stops_here");
  CHECK_CONTAINS(output.c_str(), "adder_fn");
  CHECK_CONTAINS(output.c_str(), "calls_the_thunk");
  CHECK_CONTAINS(output.c_str(), "main");
}
