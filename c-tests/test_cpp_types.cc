/* callbridge.hpp's function types: what a signature is made of, and that values arrive as they left. */
#include "support_cpp.h"

#include <limits>
#include <memory>

using callbridge::callback;
using callbridge::handle;
using callbridge::signature;

/* --- at compile time --------------------------------------------------------------------- */

enum class color : short { red = -3 };
enum plain { first, second };
struct incomplete;
struct point {
  double x, y;
};

static_assert(signature<int(void *, const char *)> == CBR_SIG(CBR_INT, CBR_PTR, CBR_PTR));
static_assert(signature<std::intptr_t(void *)> == CBR_SIG_DEFAULT);
static_assert(signature<void()> == CBR_SIG(CBR_VOID));
static_assert(signature<bool(bool, float, double)> == CBR_SIG(CBR_BOOL, CBR_BOOL, CBR_F32, CBR_F64));
static_assert(signature<void(std::int8_t, std::uint8_t, std::int16_t, std::uint16_t)> ==
              CBR_SIG(CBR_VOID, CBR_I8, CBR_U8, CBR_I16, CBR_U16));
static_assert(signature<void(std::int32_t, std::uint32_t, std::int64_t, std::uint64_t)> ==
              CBR_SIG(CBR_VOID, CBR_I32, CBR_U32, CBR_I64, CBR_U64));
static_assert(signature<long(int, long, std::size_t, std::intptr_t, long long)> ==
              CBR_SIG(CBR_LONG, CBR_INT, CBR_LONG, CBR_SIZE, CBR_INTPTR, CBR_I64));
static_assert(signature<void(signed char, unsigned char, char16_t, char32_t)> ==
              CBR_SIG(CBR_VOID, CBR_I8, CBR_U8, CBR_U16, CBR_U32));
static_assert(signature<color(color, std::byte)> == CBR_SIG(CBR_I16, CBR_I16, CBR_U8));
/* References are pointers, also to what is not known yet. */
static_assert(signature<int &(incomplete &, const int &, int &&)> == CBR_SIG(CBR_PTR, CBR_PTR, CBR_PTR, CBR_PTR));
static_assert(signature<void(void (*)(int), incomplete *)> == CBR_SIG(CBR_VOID, CBR_PTR, CBR_PTR));
/* Objects, too, and those that come back come back through the first argument. */
static_assert(signature<void(point, std::string, long double)> == CBR_SIG(CBR_VOID, CBR_PTR, CBR_PTR, CBR_PTR));
static_assert(signature<std::string(int)> == CBR_SIG(CBR_VOID, CBR_PTR, CBR_INT));
static_assert(signature<void(int, int, int, int, int, int, int, int, int, int, int, int, int, int)> >> 60 == 14);

/* A callback cannot be called with what its type does not take, nor made of what cannot be called so. */
static_assert(std::is_invocable_r_v<int, const callback<int(int)> &, short>);
static_assert(!std::is_invocable_v<const callback<int(int)> &>);
static_assert(!std::is_invocable_v<const callback<int(int)> &, int, int>);
static_assert(!std::is_invocable_v<const callback<int(int)> &, std::string>);
static_assert(!std::is_invocable_v<const callback<int(int *)> &, const int *>);
static_assert(!std::is_constructible_v<callback<int(int)>, void (*)(std::string)>);
static_assert(!std::is_constructible_v<callback<int(int)>, void (*)(int)>);
static_assert(std::is_constructible_v<callback<void(int)>, int (*)(int)>);
static_assert(std::is_constructible_v<callback<double(short)>, int (*)(long)>);

static_assert(!std::is_copy_constructible_v<callback<void()>> && !std::is_copy_assignable_v<callback<void()>>);
static_assert(std::is_nothrow_move_constructible_v<callback<void()>> &&
              std::is_nothrow_move_assignable_v<callback<void()>> && std::is_nothrow_destructible_v<callback<void()>>);
static_assert(std::is_copy_constructible_v<handle> && std::is_nothrow_move_constructible_v<handle>);
static_assert(std::is_nothrow_copy_constructible_v<callbridge::error>);

static int twice(int n) noexcept { return 2 * n; }
static_assert(std::is_same_v<decltype(callback(twice)), callback<int(int)>>);
static_assert(std::is_same_v<decltype(callback(&twice)), callback<int(int)>>);
inline const auto lambda = [](int &, std::string) noexcept { return 1.5f; };
static_assert(std::is_same_v<decltype(callback(lambda)), callback<float(int &, std::string)>>);
static_assert(std::is_same_v<decltype(callback(std::declval<callback<int()>>())), callback<int()>>);

/* --- values ------------------------------------------------------------------------------ */

/* Both ways and through a handle, unchanged. */
template <class T>
static void echo(T value) {
  callback same([](T it) { return it; });
  CHECK(same(value) == value);
  CHECK(handle(same).call<T(T)>(value) == value);
}
template <class T>
static void echo_limits() {
  echo<T>(std::numeric_limits<T>::min());
  echo<T>(std::numeric_limits<T>::max());
  echo<T>(std::numeric_limits<T>::lowest());
  echo<T>(T{});
}

TEST(numbers_of_every_width_arrive_unchanged) {
  echo_limits<bool>();
  echo_limits<char>();
  echo_limits<signed char>();
  echo_limits<unsigned char>();
  echo_limits<short>();
  echo_limits<unsigned short>();
  echo_limits<int>();
  echo_limits<unsigned>();
  echo_limits<long>();
  echo_limits<unsigned long>();
  echo_limits<long long>();
  echo_limits<unsigned long long>();
  echo_limits<wchar_t>();
  echo_limits<float>();
  echo_limits<double>();
  echo_limits<long double>();
  echo(color::red);
  echo(second);
  echo(static_cast<const char *>("text"));
  echo<void *>(nullptr);
  echo(&twice);
  callback many([](bool a, signed char b, double c, short d, float e, long f, unsigned g, const char *h) {
    return a && b == -1 && c == 1.5 && d == -2 && e == 2.5f && f == -3 && g == 4u && *h == 'h';
  });
  CHECK(many(true, -1, 1.5, -2, 2.5f, -3, 4u, "h"));
  CHECK(!many(true, -1, 1.5, -2, 2.5f, -3, 4u, "x"));
}

TEST(fourteen_arguments_of_two_kinds_arrive_in_order) {
  callback all([](int a, double b, int c, double d, int e, double f, int g, double h, int i, double j, int k, double l,
                  int m, double n) {
    return a == 1 && b == 2 && c == 3 && d == 4 && e == 5 && f == 6 && g == 7 && h == 8 && i == 9 && j == 10 &&
           k == 11 && l == 12 && m == 13 && n == 14;
  });
  CHECK(all(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14));
}

TEST(references_are_to_the_callers_objects) {
  int mine = 1;
  callback increments([](int &n) -> int & { return ++n; });
  increments(mine) += 10;
  CHECK_EQ(mine, 12);
  CHECK(&increments(mine) == &mine);
  callback reads([](const std::string &text) -> const char & { return text[1]; });
  const std::string text("abc");
  CHECK(&reads(text) == &text[1]);
  callback takes([](std::unique_ptr<int> &&it) { return *std::unique_ptr<int>(std::move(it)); });
  auto pointer = std::make_unique<int>(5);
  CHECK_EQ(takes(std::move(pointer)), 5);
  CHECK(!pointer);
}

TEST(objects_are_moved_in_and_out) {
  tally it;
  {
    callback wraps([](counted one, std::unique_ptr<int> two, std::string three) {
      one.check();
      return std::make_pair(std::move(two), three + "!");
    });
    auto [two, three] = wraps(counted(it), std::make_unique<int>(4), "three");
    CHECK_EQ(*two, 4);
    CHECK_STR(three.c_str(), "three!");
    callback<std::unique_ptr<int>(int)> makes([](int n) { return std::make_unique<int>(n); });
    CHECK_EQ(*makes(9), 9);
    CHECK_EQ(*handle(makes).call<std::unique_ptr<int>(int)>(8), 8);
    callback adds([](point a, point b) { return point{a.x + b.x, a.y + b.y}; });
    CHECK_EQ(adds({1, 2}, {3, 4}).y, 6);
  }
  CHECK_EQ(it.live(), 0);
  CHECK_EQ(it.copied, 0);
}

TEST(an_object_that_was_made_before_the_failure_is_destroyed) {
  tally it;
  callback fails([&it] {
    cbr_fail(CBR_ERR_CALLBACK, "made, and refused");
    return counted(it);
  });
  CHECK_THROWS(fails(), CBR_ERR_CALLBACK);
  CHECK_EQ(it.live(), 0);
  CHECK(it.made > 0);
}

TEST(an_argument_that_cannot_be_moved_in_is_an_exception_of_the_callback) {
  struct stubborn {
    stubborn() = default;
    stubborn(stubborn &&) { throw std::runtime_error("not moving"); }
  };
  callback takes([](stubborn) {});
  const outcome it = outcome_of([&] { takes(stubborn()); });
  CHECK_STATUS(it.status, CBR_ERR_PANIC);
  CHECK_STR(it.text.c_str(), "not moving");
}

TEST(what_can_be_called_otherwise_is_converted) {
  callback<double(short)> wide([](long n) { return static_cast<int>(n) + 1; });
  CHECK(wide(2) == 3.0);
  int seen = 0;
  callback<void(int)> ignores([&seen](int n) { return seen = n; });
  ignores(5);
  CHECK_EQ(seen, 5);
  callback<int(int)> generic([](auto n) { return n + 1; });
  CHECK_EQ(generic(1), 2);
}

struct account {
  int money = 5;
  int add(int n) { return money += n; }
};

TEST(functions_and_members_are_callables_too) {
  CHECK_EQ(callback(twice)(4), 8);
  CHECK_EQ(callback(&twice)(5), 10);
  callback<int(account &, int)> add(&account::add);
  account mine;
  CHECK_EQ(add(mine, 2), 7);
  callback<int &(account &)> money(&account::money);
  money(mine) = 3;
  CHECK_EQ(mine.money, 3);
  callback inner(twice);
  callback outer(std::move(inner));
  callback<long(int)> other(std::move(outer));
  CHECK_EQ(other(6), 12);
}

TEST(a_wrong_signature_is_refused_when_it_runs) {
  int calls = 0;
  callback add([&calls](int n) { return calls += n; });
  const handle it(add);
  CHECK_THROWS(it.call<long(int)>(1), CBR_ERR_SIGNATURE);
  CHECK_THROWS(it.call<int(unsigned)>(1u), CBR_ERR_SIGNATURE);
  CHECK_THROWS(it.call<int()>(), CBR_ERR_SIGNATURE);
  CHECK_THROWS(it.call<void(int)>(1), CBR_ERR_SIGNATURE);
  CHECK_THROWS(it.call<intptr_t(void *)>(nullptr), CBR_ERR_SIGNATURE);
  const outcome refused = outcome_of([&] { it.call<double(float)>(1.0f); });
  CHECK_CONTAINS(refused.text.c_str(), "f64(f32)");
  CHECK_CONTAINS(refused.text.c_str(), "i32(i32)");
  CHECK_EQ(calls, 0);
  CHECK_EQ(it.call<int(int)>(2), 2);
}

static double c_half(void *user_data, int n) { return *static_cast<double *>(user_data) * n; }
static void *c_nothing(void *, void *) { return nullptr; }
static void c_no_object(void *, void *) {}

TEST(a_handle_calls_functions_of_other_languages) {
  double half = 0.5;
  callbridge::callback_options options;
  options.fn = reinterpret_cast<cbr_any_fn>(c_half);
  options.user_data = &half;
  options.signature = CBR_SIG(CBR_F64, CBR_INT);
  cbr_handle number;
  CHECK_OK(cbr_register_with(&options, &number));
  CHECK(handle::adopt(number).call<double(int)>(5) == 2.5);

  options.fn = reinterpret_cast<cbr_any_fn>(c_nothing);
  options.signature = CBR_SIG(CBR_PTR, CBR_PTR);
  CHECK_OK(cbr_register_with(&options, &number));
  const handle nothing = handle::adopt(number);
  CHECK(nothing.call<void *(void *)>(nullptr) == nullptr);
  int mine = 0;
  CHECK_THROWS(nothing.call<int &(int &)>(mine), CBR_ERR_CALLBACK); /* no reference to nothing */

  options.fn = reinterpret_cast<cbr_any_fn>(c_no_object);
  options.signature = CBR_SIG(CBR_VOID, CBR_PTR);
  CHECK_OK(cbr_register_with(&options, &number));
  CHECK_THROWS(handle::adopt(number).call<std::string()>(), CBR_ERR_CALLBACK);
}
