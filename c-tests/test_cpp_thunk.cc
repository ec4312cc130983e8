/* callbridge::thunk: lambdas as plain C functions. */
#include "support_cpp.h"

#include <vector>

using callbridge::callback;
using callbridge::callback_options;
using callbridge::handle;
using callbridge::thunk;

TEST(a_lambda_with_captures_sorts_for_qsort) {
  std::vector<int> numbers = {3, 1, 4, 1, 5, 9, 2, 6}, weights = {0, 9, 8, 7, 6, 5, 4, 3, 2, 1};
  int compared = 0;
  thunk by_weight([&](const void *a, const void *b) {
    compared++;
    return weights[*static_cast<const unsigned *>(a)] - weights[*static_cast<const unsigned *>(b)];
  });
  static_assert(std::is_same_v<decltype(by_weight.get()), int (*)(const void *, const void *)>);
  qsort(numbers.data(), numbers.size(), sizeof numbers[0], by_weight.get());
  CHECK_EQ(numbers.front(), 9);
  CHECK_EQ(numbers.back(), 1);
  CHECK(compared > 0);
}

TEST(types_arrive_through_the_function) {
  enum class color : short { red = -3 };
  thunk all([](bool a, signed char b, double c, short d, float e, color f, unsigned g, const char *h, long i, int &j,
               double k) {
    j++;
    return a && b == -1 && c == 1.5 && d == -2 && e == 2.5f && f == color::red && g == 4u && *h == 'h' && i == -5 &&
           k == 6;
  });
  int mine = 0;
  CHECK(all.get()(true, -1, 1.5, -2, 2.5f, color::red, 4u, "h", -5, mine, 6));
  CHECK(!all.get()(true, -1, 1.5, -2, 2.5f, color::red, 4u, "x", -5, mine, 6));
  CHECK_EQ(mine, 2);
  thunk half([](float x) { return x / 2; });
  CHECK(half.get()(5) == 2.5f);
}

TEST(a_thunk_owns_its_lambda) {
  tally it;
  int (*fn)(int);
  {
    callback adds([capture = counted(it), base = 40](int n) {
      capture.check();
      return base + n;
    }, {}, -7);
    thunk add(std::move(adds));
    fn = add.get();
    CHECK_EQ(fn(2), 42);
    thunk moved(std::move(add));
    CHECK(add.get() == nullptr);
    thunk<int(int)> assigned;
    assigned = std::move(moved);
    CHECK(assigned.get() == fn);
    CHECK_EQ(fn(3), 43);
    CHECK_EQ(it.live(), 1);
  }
  CHECK_EQ(it.live(), 0);
  CHECK_EQ(fn(2), -7); /* for ever */
  CHECK_EQ(it.copied, 0);
}

TEST(what_the_lambda_throws_becomes_the_fallback) {
  callback_options options;
  options.on_error = [](void *, cbr_handle, cbr_status, const char *message) { fprintf(stderr, "%s\n", message); };
  thunk throws(callback([](int n) -> double { throw std::runtime_error("no " + std::to_string(n)); }, options, -1));
  CHECK(throws.get()(3) == -1.0);
  CHECK_WORDS("no 3");
  thunk nothing([]() -> void { throw 1; });
  nothing.get()();
  thunk pointer(callback([]() -> const char * { throw 1; }, options, "fallback"));
  CHECK_STR(pointer.get()(), "fallback");
}

TEST(a_thunk_of_somebodys_callback_adds_a_reference) {
  tally it;
  callback owner([capture = counted(it)](int n) { return n + 1; }, {}, -7);
  int (*gone)(int);
  {
    thunk other(owner);
    gone = other.get();
    CHECK_EQ(gone(1), 2);
  }
  CHECK_EQ(gone(1), -7);
  uint32_t count = 0;
  CHECK_OK(cbr_refcount(owner.get(), &count));
  CHECK_EQ(count, 1);
  thunk plus(owner);
  static_assert(std::is_same_v<decltype(plus), thunk<int(int)>>);
  {
    handle last(std::move(owner));
  }
  CHECK_EQ(it.live(), 1);
  CHECK_EQ(plus.get()(1), 2);
  plus.close();
  CHECK_EQ(it.live(), 0);
  CHECK_EQ(plus.get()(1), -7);
  plus.close();
}

TEST(retarget_ends_what_the_thunk_owned) {
  tally first, second;
  thunk it([capture = counted(first)](int n) { return n + 1; });
  const auto fn = it.get();
  callback owner([capture = counted(second)](int n) { return n + 2; });
  it.retarget(owner);
  CHECK_EQ(first.live(), 0);
  CHECK_EQ(fn(1), 3);
  it.retarget(std::move(owner));
  CHECK(!owner);
  CHECK_EQ(second.live(), 1);
  it.retarget(callback<int(int)>([](int n) { return n + 3; }));
  CHECK_EQ(second.live(), 0);
  CHECK_EQ(fn(1), 4);
  callback<int(int)> none;
  CHECK_THROWS(it.retarget(std::move(none)), CBR_ERR_STALE);
  callback other([](long n) { return n; });
  CHECK_THROWS(it.retarget(other.get()), CBR_ERR_SIGNATURE);
  CHECK_THROWS(thunk<int(int)>(other.get()), CBR_ERR_SIGNATURE);
  CHECK_EQ(fn(1), 4);
}

TEST(a_failed_thunk_destroys_its_lambda_once) {
  tally it;
  CHECK_THROWS((thunk<void()>([capture = counted(it)] {}, {}, 1u << 31)), CBR_ERR_INVALID);
  CHECK(it.made > 0);
  CHECK_EQ(it.live(), 0);
  callback kept([capture = counted(it)] {});
  CHECK_THROWS(thunk<void()>(std::move(kept), 1u << 31), CBR_ERR_INVALID);
  kept(); /* stays the caller's */
}

TEST(the_end_of_a_thunk_waits_for_calls_on_other_threads) {
  gate inside, leave;
  gate_init(&inside);
  gate_init(&leave);
  std::atomic<bool> returned{false};
  std::thread caller;
  {
    int local = 5;
    thunk slow([&] {
      gate_open(&inside);
      gate_pass(&leave);
      usleep(20000);
      CHECK_EQ(local, 5);
      returned = true;
    });
    caller = std::thread(slow.get());
    gate_pass(&inside);
    gate_open(&leave);
  }
  CHECK(returned);
  caller.join();
}

TEST(a_thunk_may_end_inside_its_own_call) {
  tally it;
  auto own = std::make_unique<thunk<int(int)>>();
  *own = thunk(callback([&own, capture = counted(it)](int n) {
    own.reset();
    capture.check();
    return n;
  }, {}, -7));
  const auto fn = own->get();
  CHECK_EQ(fn(3), 3);
  CHECK_EQ(it.live(), 0);
  CHECK_EQ(fn(3), -7);
}

TEST(threads_call_while_the_thunk_ends) {
  for (long round = scaled(50); round > 0; round--) {
    tally it;
    std::vector<std::thread> threads;
    {
      callback adds([capture = counted(it)](int n) {
        capture.check();
        return n + 1;
      }, {}, -7);
      thunk shared(std::move(adds));
      for (int i = 0; i < 3; i++) {
        threads.emplace_back([fn = shared.get()] {
          for (int n = 0;; n++) {
            const int result = fn(n);
            if (result == -7) return;
            CHECK_EQ(result, n + 1);
          }
        });
      }
      usleep(static_cast<useconds_t>(round % 7) * 50);
    }
    CHECK_EQ(it.live(), 0);
    for (auto &thread : threads) thread.join();
  }
}
