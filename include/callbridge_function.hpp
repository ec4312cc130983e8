/*
 * callbridge: how a C++ function type goes through C. Included by callbridge.hpp, which has the manual.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */

#ifndef CALLBRIDGE_FUNCTION_HPP
#define CALLBRIDGE_FUNCTION_HPP

#include <callbridge.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#if !defined(__cpp_exceptions)
#error "callbridge.hpp needs exceptions"
#endif

/* What pthread_exit and pthread_cancel unwind with under libstdc++ must go on. */
#if defined(__GLIBCXX__)
#include <cxxabi.h>
#define CALLBRIDGE_PASS_THREAD_END_ \
  catch (abi::__forced_unwind &) {  \
    throw;                          \
  }
/* It is no object, so that what the catch binds is null, which UBSan takes for a mistake. */
#define CALLBRIDGE_MAY_PASS_THREAD_END_ __attribute__((no_sanitize("undefined")))
#else
#define CALLBRIDGE_PASS_THREAD_END_
#define CALLBRIDGE_MAY_PASS_THREAD_END_
#endif

namespace callbridge {

/** Times are as in C: forever waits for ever, 0 does not wait. */
using nanoseconds = std::chrono::nanoseconds;
inline constexpr nanoseconds forever{-1};

/**
 * error is a failed call. what() is what a callback that failed had to say (CBR_ERR_PANIC: the what() of
 * its exception; CBR_ERR_CALLBACK: its cbr_fail; at most 511 bytes), otherwise cbr_last_error.
 */
class [[gnu::visibility("default")]] error : public std::runtime_error {
 public:
  /** Of the call that has just failed on this thread. */
  explicit error(cbr_status status) : std::runtime_error(words(status)), status_(status) {}
  error(cbr_status status, const char *text) : std::runtime_error(text), status_(status) {}

  cbr_status status() const noexcept { return status_; }

 private:
  /* The callback's own words are in "cbr_leave: the callback panicked: WORDS (handle 0x...)". */
  static std::string words(cbr_status status) {
    char text[1024] = "";
    if (cbr_last_error(text, sizeof text) == 0) return cbr_status_message(status);
    if (status != CBR_ERR_PANIC && status != CBR_ERR_CALLBACK) return text;
    const std::string all(text);
    const std::size_t function = all.find(": ");
    const std::size_t failure = function == std::string::npos ? function : all.find(": ", function + 2);
    const std::size_t end = all.rfind(" (handle ");
    if (failure == std::string::npos || end == std::string::npos || end < failure + 2) return all;
    return all.substr(failure + 2, end - failure - 2);
  }

  cbr_status status_;
};

/** check throws the error of a C function that has just failed on this thread. */
inline void check(cbr_status status) {
  if (status != CBR_OK) throw error(status);
}

/** The C structures, with everything at its default. What a class sets itself it overwrites. */
struct callback_options : cbr_callback_options {
  callback_options() noexcept : cbr_callback_options CBR_CALLBACK_OPTIONS_INIT {}
};
struct queue_options : cbr_queue_options {
  queue_options() noexcept : cbr_queue_options CBR_QUEUE_OPTIONS_INIT {}
};

namespace detail {

/* What a type goes as in a signature; 0: by its address. */
template <class T>
constexpr unsigned code() noexcept {
  if constexpr (std::is_enum_v<T>) {
    return code<std::underlying_type_t<T>>();
  } else if constexpr (std::is_void_v<T>) {
    return CBR_VOID;
  } else if constexpr (std::is_same_v<T, bool>) {
    return CBR_BOOL;
  } else if constexpr (std::is_integral_v<T>) {
    constexpr unsigned s = std::is_unsigned_v<T> ? 1 : 0;
    switch (sizeof(T)) {
      case 1: return CBR_I8 + s;
      case 2: return CBR_I16 + s;
      case 4: return CBR_I32 + s;
      case 8: return CBR_I64 + s;
      default: return 0;
    }
  } else if constexpr (std::is_same_v<T, float>) {
    return CBR_F32;
  } else if constexpr (std::is_same_v<T, double>) {
    return CBR_F64;
  } else {
    return std::is_pointer_v<T> ? CBR_PTR : 0;
  }
}
template <class T>
inline constexpr bool by_address = code<std::remove_cv_t<T>>() == 0;
/* A result that is an object is made in the caller's memory. */
template <class R>
inline constexpr bool is_object = by_address<R> && !std::is_reference_v<R>;
template <class T>
using wire = std::conditional_t<by_address<T>, std::add_pointer_t<T>, T>;

template <class T>
wire<T> send(std::remove_reference_t<T> &arg) noexcept {
  if constexpr (by_address<T>) {
    return std::addressof(arg);
  } else {
    return arg;
  }
}
template <class T>
T &&receive(wire<T> &arg) noexcept {
  if constexpr (by_address<T>) {
    return static_cast<T &&>(*arg);
  } else {
    return static_cast<T &&>(arg);
  }
}

template <class T>
void *untyped(T *it) noexcept {
  if constexpr (std::is_function_v<T>) {
    return reinterpret_cast<void *>(it);
  } else {
    return const_cast<void *>(static_cast<const volatile void *>(it));
  }
}

/* Runs code of a callable. What it throws becomes cbr_fail. */
template <class Body>
CALLBRIDGE_MAY_PASS_THREAD_END_ void contain(Body &&body) {
  try {
    body();
  }
  CALLBRIDGE_PASS_THREAD_END_
  catch (const std::exception &thrown) {
    (void)cbr_fail(CBR_ERR_PANIC, thrown.what());
  }
  catch (...) {
    (void)cbr_fail(CBR_ERR_PANIC, "an exception that is no std::exception");
  }
}

/* For destructors: false if something was thrown, which goes no further. */
template <class Body>
CALLBRIDGE_MAY_PASS_THREAD_END_ bool quietly(Body &&body) {
  try {
    body();
    return true;
  }
  CALLBRIDGE_PASS_THREAD_END_
  catch (...) {
    return false;
  }
}

template <class F>
void destroy(void *callable) {
  contain([callable] { delete static_cast<F *>(callable); });
}

/* A callable that the library has not taken over. What its end throws is not the failure of the callback
 * that this thread may be inside, so cbr_fail is not told. */
template <class F>
struct unregistered {
  explicit unregistered(F *it) noexcept : callable(it) {}
  unregistered(const unregistered &) = delete;
  unregistered &operator=(const unregistered &) = delete;
  ~unregistered() {
    quietly([this] { delete callable; });
  }
  F *callable;
};

/* Inside a callback, until left: also when pthread_exit passes, or what a function that is not ours throws. */
struct entered {
  entered(cbr_handle handle, cbr_signature signature) { check(cbr_enter(handle, signature, &pin)); }
  entered(const entered &) = delete;
  entered &operator=(const entered &) = delete;
  ~entered() {
    if (pin.fn != nullptr) quietly([this] { (void)cbr_leave(&pin); });
  }
  void leave() { check(cbr_leave(&pin)); }
  cbr_pin pin{};
};

/* The number of an object that somebody owns; moved from it is 0. */
class owned {
 public:
  owned() noexcept = default;
  explicit owned(std::uint64_t number) noexcept : number_(number) {}
  owned(owned &&other) noexcept : number_(other.release()) {}
  owned &operator=(owned &&other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~owned() = default;
  std::uint64_t get() const noexcept { return number_; }
  std::uint64_t release() noexcept { return std::exchange(number_, 0); }

 private:
  std::uint64_t number_ = 0;
};

inline void no_object() { throw error(CBR_ERR_CALLBACK, "the callback gave no object"); }

template <class S>
struct function;

/* A function type as the library sees it: its signature, how a callable is called, how a caller calls. */
template <class R, class... A>
struct function<R(A...)> {
  using result = R;
  static constexpr unsigned arguments = sizeof...(A) + (is_object<R> ? 1 : 0);
  static_assert(arguments <= 14, "a signature has at most 14 arguments");
  using pointer = std::conditional_t<is_object<R>, void (*)(void *, std::optional<R> *, wire<A>...),
                                     wire<R> (*)(void *, wire<A>...)>;

  static constexpr cbr_signature signature() noexcept {
    cbr_signature packed = static_cast<cbr_signature>(arguments) << 60;
    unsigned shift = 56;
    const auto add = [&](unsigned it) {
      packed |= static_cast<cbr_signature>(it == 0 ? CBR_PTR : it) << shift;
      shift -= 4;
    };
    if constexpr (is_object<R>) add(CBR_VOID);
    add(code<std::remove_cv_t<R>>());
    (add(code<std::remove_cv_t<A>>()), ...);
    return packed;
  }

  template <class F>
  static pointer entry() noexcept {
    if constexpr (is_object<R>) {
      return [](void *callable, std::optional<R> *out, wire<A>... args) {
        contain([&] { out->emplace(std::invoke(*static_cast<F *>(callable), receive<A>(args)...)); });
      };
    } else {
      return [](void *callable, wire<A>... args) -> wire<R> {
        if constexpr (std::is_void_v<R>) {
          contain([&] { std::invoke(*static_cast<F *>(callable), receive<A>(args)...); });
        } else {
          wire<std::remove_cv_t<R>> out{};
          contain([&] {
            if constexpr (std::is_reference_v<R>) {
              using got = std::invoke_result_t<F &, A...>;
              static_assert(std::is_reference_v<got> && std::is_convertible_v<std::add_pointer_t<got>, wire<R>>,
                            "the reference would be to a temporary");
              R it = static_cast<R>(std::invoke(*static_cast<F *>(callable), receive<A>(args)...));
              out = std::addressof(it);
            } else {
              out = static_cast<R>(std::invoke(*static_cast<F *>(callable), receive<A>(args)...));
            }
          });
          return out;
        }
      };
    }
  }

  /* The arguments live in the caller's parameters. */
  static R call(cbr_handle handle, wire<A>... args) {
    if constexpr (signature() == function<std::intptr_t(void *)>::signature()) {
      std::intptr_t out = 0;
      check(cbr_call(handle, untyped(args)..., &out));
      return static_cast<R>(out);
    } else {
      return call_entered(handle, args...);
    }
  }
  /* Conversions that the compiler would warn of here are the caller's own. */
  template <class... Args>
  static R convert_and_call(cbr_handle handle, Args &&...args) {
    return call_with(handle, static_cast<A>(std::forward<Args>(args))...);
  }

 private:
  static R call_with(cbr_handle handle, A... args) { return call(handle, send<A>(args)...); }
  static R call_entered(cbr_handle handle, wire<A>... args) {
    entered inside(handle, signature());
    const auto fn = reinterpret_cast<pointer>(inside.pin.fn);
    if constexpr (std::is_void_v<R>) {
      fn(inside.pin.user_data, args...);
      inside.leave();
    } else if constexpr (is_object<R>) {
      std::optional<R> out;
      fn(inside.pin.user_data, &out, args...);
      inside.leave();
      if (!out) no_object();
      return *std::move(out);
    } else if constexpr (std::is_reference_v<R>) {
      const auto out = fn(inside.pin.user_data, args...);
      inside.leave();
      if (out == nullptr) no_object();
      return static_cast<R>(*out);
    } else {
      const R out = fn(inside.pin.user_data, args...);
      inside.leave();
      return out;
    }
  }
};

/* The function type of a callable that has one: a lambda without auto, a function object, a function. */
template <class M>
struct member;
template <class F, class R, class... A> struct member<R (F::*)(A...)> { using type = R(A...); };
template <class F, class R, class... A> struct member<R (F::*)(A...) const> { using type = R(A...); };
template <class F, class R, class... A> struct member<R (F::*)(A...) &> { using type = R(A...); };
template <class F, class R, class... A> struct member<R (F::*)(A...) const &> { using type = R(A...); };
template <class F, class R, class... A> struct member<R (F::*)(A...) noexcept> { using type = R(A...); };
template <class F, class R, class... A> struct member<R (F::*)(A...) const noexcept> { using type = R(A...); };
template <class F, class R, class... A> struct member<R (F::*)(A...) & noexcept> { using type = R(A...); };
template <class F, class R, class... A> struct member<R (F::*)(A...) const & noexcept> { using type = R(A...); };
template <class F, class = void>
struct deduced {};
template <class F> struct deduced<F, std::void_t<decltype(&F::operator())>> : member<decltype(&F::operator())> {};
template <class R, class... A> struct deduced<R (*)(A...), void> { using type = R(A...); };
template <class R, class... A> struct deduced<R (*)(A...) noexcept, void> { using type = R(A...); };
template <class F>
using deduced_t = typename deduced<std::decay_t<F>>::type;

/* Whether F can be called as S. */
template <class F, class S>
inline constexpr bool fits = false;
template <class F, class R, class... A>
inline constexpr bool fits<F, R(A...)> = std::is_invocable_r_v<R, std::decay_t<F> &, A...>;

/* Makes a callback of a callable and gives its handle, with one reference. */
template <class S, class F>
cbr_handle enlist(F &&callable, cbr_callback_options options) {
  using T = std::decay_t<F>;
  unregistered<T> own(new T(std::forward<F>(callable)));
  options.fn = reinterpret_cast<cbr_any_fn>(function<S>::template entry<T>());
  options.user_data = own.callable;
  options.destroy = destroy<T>;
  options.signature = function<S>::signature();
  cbr_handle handle = 0;
  check(cbr_register_with(&options, &handle));
  own.callable = nullptr;
  return handle;
}

template <class R>
using fallback = std::conditional_t<std::is_void_v<R>, std::nullptr_t, R>;
template <class R>
cbr_value value(R it) noexcept {
  cbr_value out{};
  if constexpr (std::is_same_v<R, std::nullptr_t>) {
    return out;
  } else if constexpr (std::is_enum_v<R>) {
    return value(static_cast<std::underlying_type_t<R>>(it));
  } else if constexpr (std::is_same_v<R, float>) {
    out.f32 = it;
  } else if constexpr (std::is_same_v<R, double>) {
    out.f64 = it;
  } else if constexpr (std::is_pointer_v<R>) {
    std::memcpy(&out.ptr, &it, sizeof it);
  } else {
    static_assert(!by_address<R>, "only numbers, bool, enumerations and pointers have a fallback");
    out.i = static_cast<std::int64_t>(it);
  }
  return out;
}

}  // namespace detail

/** signature<R(A...)> is the cbr_signature of that function type, such as signature<int(void *)>. */
template <class S>
inline constexpr cbr_signature signature = detail::function<S>::signature();

}  // namespace callbridge

#undef CALLBRIDGE_PASS_THREAD_END_
#undef CALLBRIDGE_MAY_PASS_THREAD_END_
#endif
