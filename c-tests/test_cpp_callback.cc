/* callbridge::callback and handle: who owns a lambda, when it ends, and what becomes of exceptions. */
#include "support_cpp.h"

#include <memory>
#include <vector>

using callbridge::callback;
using callbridge::callback_options;
using callbridge::handle;

/* --- allocations ------------------------------------------------------------------------- */

namespace {
std::atomic<long> allocations{0};
}

/* Not inlined: gcc would see malloc meet delete, and warn. */
[[gnu::noinline]] void *operator new(std::size_t size) {
  allocations++;
  if (void *it = malloc(size)) return it;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void *it) noexcept { free(it); }
[[gnu::noinline]] void operator delete(void *it, std::size_t) noexcept { free(it); }

TEST(a_callback_is_one_allocation_and_calls_are_none) {
  if (under_valgrind()) SKIP("valgrind brings its own operator new");
  long big[16] = {1, 2, 3};
  const long before = allocations;
  callback sum([big](int n, const std::string &s) { return big[0] + big[2] + n + static_cast<long>(s.size()); });
  CHECK_EQ(allocations - before, 1);
  const std::string text("a text that is too long for the small string");
  const long made = allocations;
  for (int i = 0; i < 10; i++) CHECK_EQ(sum(i, text), 4 + i + 44);
  handle copy(sum);
  CHECK_EQ(copy.call<long(int, const std::string &)>(0, text), 48);
  CHECK_EQ(allocations - made, 0);
}

/* --- owning ------------------------------------------------------------------------------ */

TEST(captures_are_moved_in_and_destroyed_once) {
  tally it;
  {
    auto number = std::make_unique<int>(40);
    callback add([capture = counted(it), number = std::move(number)](int n) {
      capture.check();
      return *number + n;
    });
    CHECK_EQ(it.live(), 1);
    CHECK_EQ(add(2), 42);
    callback moved(std::move(add));
    CHECK(!add);
    CHECK_EQ(moved(3), 43);
    CHECK_THROWS(add(2), CBR_ERR_STALE);
    callback<int(int)> assigned;
    assigned = std::move(moved);
    CHECK_EQ(assigned(4), 44);
    CHECK_EQ(it.live(), 1);
  }
  CHECK_EQ(it.live(), 0);
  CHECK_EQ(it.copied, 0);
}

TEST(a_callable_that_is_given_as_lvalue_is_copied) {
  tally it;
  {
    const auto lambda = [capture = counted(it)] { capture.check(); };
    callback copy(lambda);
    CHECK_EQ(it.copied, 1);
    CHECK_EQ(it.live(), 2);
    copy();
  }
  CHECK_EQ(it.live(), 0);
}

TEST(an_assignment_ends_what_was_there) {
  tally first, second;
  callback<void()> it([capture = counted(first)] {});
  const cbr_handle was = it.get();
  it = callback<void()>([capture = counted(second)] {});
  CHECK_EQ(first.live(), 0);
  CHECK(!cbr_is_live(was));
  auto &same = it;
  it = std::move(same);
  CHECK_EQ(second.live(), 1);
  it();
}

TEST(a_failed_registration_destroys_the_lambda_once) {
  tally it;
  callback_options options;
  options.scope = 12345;
  const outcome failed = outcome_of([&] { callback<void()>([capture = counted(it)] {}, options); });
  CHECK_STATUS(failed.status, CBR_ERR_STALE);
  CHECK_CONTAINS(failed.text.c_str(), "cbr_register_with");
  CHECK(it.made > 1);
  CHECK_EQ(it.live(), 0);
}

struct refuses_copies {
  refuses_copies() = default;
  refuses_copies(const refuses_copies &) { throw std::runtime_error("no copies"); }
  void operator()() const {}
};

TEST(a_callable_whose_copy_throws_registers_nothing) {
  const refuses_copies given;
  bool thrown = false;
  try {
    callback<void()> never(given);
  } catch (const callbridge::error &) {
  } catch (const std::runtime_error &error) {
    CHECK_STR(error.what(), "no copies");
    thrown = true;
  }
  CHECK(thrown);
}

TEST(the_owner_waits_for_calls_on_other_threads) {
  gate inside, leave;
  gate_init(&inside);
  gate_init(&leave);
  std::atomic<bool> returned{false};
  std::thread caller;
  {
    int local = 5;
    callback slow([&] {
      gate_open(&inside);
      gate_pass(&leave);
      usleep(20000);
      CHECK_EQ(local, 5);
      returned = true;
    });
    caller = std::thread([&slow] { slow(); });
    gate_pass(&inside);
    gate_open(&leave);
  }
  CHECK(returned);
  caller.join();
}

TEST(a_callback_may_end_itself) {
  tally it;
  auto own = std::make_unique<callback<int()>>();
  *own = callback<int()>([&own, capture = counted(it)] {
    own.reset(); /* does not wait for itself */
    capture.check();
    return 42;
  });
  const cbr_handle number = own->get();
  CHECK_EQ(callbridge::handle(number).call<int()>(), 42);
  CHECK(!own);
  CHECK_EQ(it.live(), 0);
  CHECK(!cbr_is_live(number));
}

TEST(unregister_does_not_wait_and_close_says_why_it_stopped) {
  gate inside, leave;
  gate_init(&inside);
  gate_init(&leave);
  tally it;
  callback slow([&inside, &leave, capture = counted(it)] {
    gate_open(&inside);
    gate_pass(&leave);
    capture.check();
  });
  handle other(slow);
  std::thread caller([number = slow.get()] { handle(number).call<void()>(); });
  gate_pass(&inside);
  CHECK_THROWS(slow.close(std::chrono::milliseconds(1)), CBR_ERR_TIMEOUT);
  CHECK(slow);
  slow.unregister();
  CHECK_EQ(it.live(), 1);
  CHECK(!slow);
  CHECK_THROWS(other.call<void()>(), CBR_ERR_STALE);
  gate_open(&leave);
  caller.join();
  CHECK_EQ(it.live(), 0);

  callback<void()> own([&] { own.close(); });
  CHECK_THROWS(own(), CBR_ERR_PANIC); /* close has thrown CBR_ERR_DEADLOCK in it */
  CHECK(!own.is_live());
  own.close();
  own.close();
}

TEST(copies_of_a_handle_keep_the_lambda_alive) {
  tally it;
  std::vector<handle> copies;
  {
    callback owner([capture = counted(it)](int n) { return n + 1; });
    handle first(std::move(owner));
    CHECK(!owner);
    copies.assign(10, first);
    uint32_t count = 0;
    CHECK_OK(cbr_refcount(first.get(), &count));
    CHECK_EQ(count, 11);
    CHECK(copies.front() == first);
  }
  CHECK_EQ(copies[9].call<int(int)>(1), 2);
  const handle last = copies[3];
  copies.clear();
  CHECK_EQ(it.live(), 1);
  handle moved = last;
  CHECK_EQ(handle(std::move(moved)).call<int(int)>(2), 3);
  CHECK(!moved);
  CHECK_EQ(last.call<int(int)>(3), 4);
  CHECK_OK(cbr_unregister(last.get()));
  CHECK_EQ(it.live(), 0);
}

TEST(the_last_handle_ends_the_callback) {
  tally it;
  callback owner([capture = counted(it)] {});
  handle first(std::move(owner));
  handle second(first);
  first = handle();
  CHECK_EQ(it.live(), 1);
  second = handle();
  CHECK_EQ(it.live(), 0);
}

TEST(a_handle_of_what_is_gone_is_refused_and_a_copy_of_one_is_as_stale) {
  callback owner([] {});
  handle kept(owner);
  const cbr_handle number = owner.get();
  owner.close();
  CHECK_THROWS(handle(number), CBR_ERR_STALE);
  handle copy(kept);
  CHECK(copy == kept);
  CHECK_THROWS(copy.call<void()>(), CBR_ERR_STALE);
  cbr_scope scope;
  CHECK_OK(cbr_scope_open(nullptr, &scope));
  CHECK_THROWS(handle(scope), CBR_ERR_KIND);
  CHECK_OK(cbr_scope_close(scope, -1, nullptr));
}

static void c_library(intptr_t (*fn)(void *, void *), void *data, void (*destroy)(void *)) {
  int step = 2;
  CHECK_EQ(fn(data, &step), 42);
  destroy(data);
}

TEST(a_c_library_gets_the_reference_and_gives_it_back) {
  tally it;
  callback add([capture = counted(it), base = 40](void *arg) -> intptr_t { return base + *static_cast<int *>(arg); });
  const cbr_handle number = add.release();
  CHECK(!add);
  c_library(cbr_call_ptr, CBR_TO_PTR(number), cbr_release_ptr);
  CHECK_EQ(it.live(), 0);
}

TEST(a_fallback_is_what_c_gets_when_the_callback_cannot_run) {
  callback<intptr_t(void *)> throws([](void *) -> intptr_t { throw 1; }, {}, -7);
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(throws.get()), nullptr), -7);
}

/* --- exceptions -------------------------------------------------------------------------- */

TEST(an_exception_reaches_the_caller_with_its_text) {
  std::string what("boom: at 7 (handle 0x1)");
  callback throws([&what](int n) -> int {
    if (n == 0) throw std::runtime_error(what);
    return n;
  });
  for (int i = 0; i < 3; i++) {
    const outcome it = outcome_of([&] { throws(0); });
    CHECK_STATUS(it.status, CBR_ERR_PANIC);
    CHECK_STR(it.text.c_str(), what.c_str());
    CHECK_EQ(cbr_depth(), 0);
    CHECK_EQ(throws(5), 5);
  }
  CHECK_STR(outcome_of([&] { handle(throws).call<int(int)>(0); }).text.c_str(), what.c_str());
  what.assign(2000, 'x');
  CHECK_STR(outcome_of([&] { throws(0); }).text.c_str(), std::string(511, 'x').c_str());
  what.clear();
  CHECK_CONTAINS(outcome_of([&] { throws(0); }).text.c_str(), "panicked");
}

TEST(c_callers_get_a_status_and_the_text) {
  callback<intptr_t(void *)> throws([](void *) -> intptr_t { throw std::runtime_error("out of luck"); });
  intptr_t result = 77;
  CHECK_STATUS(cbr_call(throws.get(), nullptr, &result), CBR_ERR_PANIC);
  CHECK_WORDS("out of luck");
  CHECK_EQ(result, 77);
  CHECK_STR(outcome_of([&] { throws(nullptr); }).text.c_str(), "out of luck");
}

TEST(what_is_no_std_exception_is_contained_too) {
  callback throws([] { throw 5; });
  const outcome it = outcome_of([&] { throws(); });
  CHECK_STATUS(it.status, CBR_ERR_PANIC);
  CHECK_CONTAINS(it.text.c_str(), "no std::exception");
}

TEST(a_lambda_may_fail_without_throwing) {
  callback fails([] {
    cbr_fail(CBR_ERR_CALLBACK, "not today");
    return std::string("never seen");
  });
  const outcome it = outcome_of([&] { fails(); });
  CHECK_STATUS(it.status, CBR_ERR_CALLBACK);
  CHECK_STR(it.text.c_str(), "not today");
}

TEST(an_inner_failure_passes_the_outer_callback_as_an_exception) {
  callback inner([]() -> int { throw std::runtime_error("inner"); });
  callback outer([&] { return inner(); });
  CHECK_STR(outcome_of([&] { outer(); }).text.c_str(), "inner");
  callback catches([&] {
    try {
      return inner();
    } catch (const callbridge::error &) {
      return 3;
    }
  });
  CHECK_EQ(catches(), 3);
}

struct throws_at_its_end {
  explicit throws_at_its_end(tally &it) : capture(it) {}
  throws_at_its_end(throws_at_its_end &&other) noexcept : capture(std::move(other.capture)) { other.armed = false; }
  ~throws_at_its_end() noexcept(false) {
    if (armed) throw std::runtime_error("a bad end");
  }
  counted capture;
  bool armed = true;
};

TEST(a_destructor_of_a_capture_that_throws_is_contained) {
  tally it;
  {
    callback owner([end = throws_at_its_end(it)] { (void)end; });
    owner();
  }
  CHECK_EQ(it.live(), 0);
  callback_options options;
  options.scope = 12345;
  CHECK_THROWS(callback<void()>([end = throws_at_its_end(it)] { (void)end; }, options), CBR_ERR_STALE);
  CHECK_EQ(it.live(), 0);
  callback again([end = throws_at_its_end(it)] { (void)end; });
  again.close();
  CHECK_EQ(it.live(), 0);
}

TEST(a_registration_that_fails_inside_a_call_does_not_fail_that_call) {
  tally it;
  callback outer([&it] {
    callback_options options;
    options.scope = 12345;
    CHECK_THROWS(callback<void()>([end = throws_at_its_end(it)] { (void)end; }, options), CBR_ERR_STALE);
    return 7;
  });
  CHECK_EQ(outer(), 7);
  CHECK_EQ(it.live(), 0);
}

template <class S>
struct foreign;
template <class R, class... A>
struct foreign<R(A...)> {
  static R throws(void *, A...) { throw std::runtime_error("not ours"); }
};

/* The signature of cbr_fn is called by another function of the library than others. */
template <class S, class... Args>
static void check_passes(Args... args) {
  callback_options options;
  options.fn = reinterpret_cast<cbr_any_fn>(foreign<S>::throws);
  options.signature = callbridge::signature<S>;
  cbr_handle number;
  CHECK_OK(cbr_register_with(&options, &number));
  const handle it = handle::adopt(number);
  bool caught = false;
  try {
    it.call<S>(args...);
  } catch (const callbridge::error &) {
  } catch (const std::runtime_error &error) {
    CHECK_STR(error.what(), "not ours");
    caught = true;
  }
  CHECK(caught);
  CHECK_EQ(cbr_depth(), 0);
}

TEST(what_a_function_of_another_library_throws_passes_through_a_handle) {
  check_passes<intptr_t(void *)>(nullptr);
  check_passes<void *(void *)>(nullptr);
  check_passes<void(int, double)>(1, 2.5);
}

/* --- threads ----------------------------------------------------------------------------- */

static void *exits_inside(void *arg) {
  (*static_cast<callback<int()> *>(arg))();
  FAIL("pthread_exit did not pass");
}

TEST(pthread_exit_passes_through_a_lambda) {
  tally it;
  callback<int()> exits([&it]() -> int {
    counted local(it);
    pthread_exit(&it);
  });
  CHECK(join(start(exits_inside, &exits)) == &it);
  CHECK_EQ(it.live(), 0);
  exits.close(std::chrono::seconds(10)); /* nobody is inside */
}

TEST(threads_call_while_the_owner_ends_it) {
  for (long round = scaled(100); round > 0; round--) {
    tally it;
    std::vector<std::thread> threads;
    std::atomic<bool> go{false};
    {
      callback shared([capture = counted(it)](int n) {
        capture.check();
        return n + 1;
      });
      for (int i = 0; i < 3; i++) {
        threads.emplace_back([&go, number = shared.get()] {
          while (!go) sched_yield();
          for (int n = 0;; n++) {
            const outcome now = outcome_of([&] { CHECK_EQ(handle(number).call<int(int)>(n), n + 1); });
            if (now.status != CBR_OK) {
              CHECK_STATUS(now.status, CBR_ERR_STALE);
              return;
            }
          }
        });
      }
      go = true;
      usleep(static_cast<useconds_t>(round % 7) * 50);
    }
    CHECK_EQ(it.live(), 0);
    for (auto &thread : threads) thread.join();
  }
}
