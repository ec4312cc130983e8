/*
 * callbridge: lambdas as callbacks, for C++17 and later.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Include this one; link as from C (pkg-config callbridge, or CMake's callbridge::callbridge).
 *
 *   int base = 40;
 *   callbridge::callback add([&](int n) { return base + n; });
 *   add(2);                                       42, from any thread
 *   callbridge::handle(add).call<int(int)>(2);    the same; the signature is compared when it runs
 *   cbr_key_attach(0, fd, EV_READ, add.get(), 0); every C function takes get()
 *
 * The conventions are those of callbridge.h. error, check() and signature<> are in callbridge_function.hpp.
 * What C++ adds:
 *  - Signatures. A function type such as int(double) is made a cbr_signature at compile time
 *    (callbridge::signature). Numbers, bool, enumerations and pointers go as they are; references and
 *    objects as pointers (CBR_PTR): an object argument is moved out of the caller's, a result that is an
 *    object comes back through a pointer in front of the arguments. What a pointer points to no signature
 *    says: both sides must agree, as in C.
 *  - Errors. A function that fails throws callbridge::error. An exception in a callable does not pass
 *    into C: the caller gets CBR_ERR_PANIC with what(), and a C++ caller callbridge::error with that
 *    text. pthread_exit and cancellations pass.
 *  - Ownership. Each class here owns one thing and moves it; none copies, but handle. A destructor ends
 *    what is owned and does not throw; what it could not end stays as its comment says. An object here is
 *    no more thread-safe than an int; what it stands for is, as in C.
 *  - Memory. A callable lives in one allocation of its own, and is destroyed once: when its callback has
 *    ended and the last call has left it, or when it could not be registered. Calls allocate nothing.
 */

#ifndef CALLBRIDGE_HPP
#define CALLBRIDGE_HPP

#include <callbridge_function.hpp>

namespace callbridge {

/**
 * callback<R(A...)> is a callable as a callback, and its owner. From a lambda without auto the type follows:
 * callback add([](int a, int b) { return a + b; }) is a callback<int(int, int)>.
 *
 * Ownership: the callable is moved (or copied, if it is given as an lvalue) into one allocation, and is
 * destroyed exactly once; here, too, when registering it fails. The destructor ends the callback for
 * everybody, as cbr_unregister_wait does: it waits for calls on other threads, so that what the callable
 * refers to may go afterwards. From inside the callable it does not wait, and neither does it with a
 * destroy_queue, or after unregister(). Do not destroy it with a lock that the callable takes, nor
 * before a hold on it: that would wait for ever.
 * Threads: any may call, several at once, and what the callable changes it must protect itself.
 * Errors: the constructors throw error, or what the callable's own move does.
 */
template <class S>
class callback;
template <class R, class... A>
class callback<R(A...)> {
  using function = detail::function<R(A...)>;

 public:
  /** None: calls throw CBR_ERR_STALE. */
  callback() noexcept = default;

  /** The options' fn, user_data, destroy and signature are the callback's own. on_error gets the address of
   * the callable, and must not throw. */
  template <class F, class = std::enable_if_t<detail::fits<F, R(A...)> && !std::is_same_v<std::decay_t<F>, callback>>>
  callback(F &&callable, const callback_options &options = {})
      : handle_(detail::enlist<R(A...)>(std::forward<F>(callable), options)), waits_(options.destroy_queue == 0) {}

  /** With what thunks and cbr_call_ptr return when the callback cannot run. */
  template <class F, class = std::enable_if_t<detail::fits<F, R(A...)>>>
  callback(F &&callable, callback_options options, detail::fallback<R> fallback)
      : callback(std::forward<F>(callable),
                 (options.fallback = detail::value<detail::fallback<R>>(fallback), options)) {}

  callback(callback &&) noexcept = default;
  callback &operator=(callback &&other) noexcept {
    callback old(std::move(other));
    std::swap(handle_, old.handle_);
    std::swap(waits_, old.waits_);
    return *this;
  }
  ~callback() {
    if (handle_.get() == 0) return;
    /* CBR_ERR_STALE: somebody has ended it, and what that leaves to wait for is over; CBR_ERR_DEADLOCK:
     * ended, and this thread is inside. */
    if (!waits_) {
      detail::quietly([this] { (void)cbr_unregister(handle_.get()); });
      return;
    }
    /* What another callback's destroy function throws into the wait does not end it. */
    while (!detail::quietly([this] { (void)cbr_unregister_wait(handle_.get(), -1); })) {
    }
  }

  /** Calls the callable. Throws error: CBR_ERR_PANIC with the text of what it has thrown, CBR_ERR_CALLBACK
   * with that of its cbr_fail, CBR_ERR_STALE if the callback was unregistered, others as cbr_enter. */
  R operator()(A... args) const { return function::call(handle_.get(), detail::send<A>(args)...); }

  /** The handle, to give away: a weak reference. */
  cbr_handle get() const noexcept { return handle_.get(); }
  bool is_live() const noexcept { return cbr_is_live(handle_.get()); }
  explicit operator bool() const noexcept { return handle_.get() != 0; }

  /** The reference is the caller's from now on, to be given back with cbr_release, or cbr_release_ptr by a
   * C library. The callback lives until its last reference goes. */
  [[nodiscard]] cbr_handle release() noexcept { return handle_.release(); }

  /** Ends the callback for everybody, and does not wait. The callable is destroyed here, or by the call that
   * leaves it last. Nothing to do if somebody else has ended it. */
  void unregister() {
    const cbr_status status = cbr_unregister(handle_.get());
    if (status != CBR_OK && status != CBR_ERR_STALE) throw error(status);
    (void)handle_.release();
  }

  /** Ends it, and returns when the callable is destroyed. Throws CBR_ERR_TIMEOUT, and CBR_ERR_DEADLOCK from
   * inside the callable: ended all the same, and may be closed again. */
  void close(nanoseconds timeout = forever) {
    if (handle_.get() == 0) return;
    const cbr_status status = cbr_unregister_wait(handle_.get(), timeout.count());
    if (status != CBR_OK && status != CBR_ERR_STALE) throw error(status);
    (void)handle_.release();
  }

 private:
  detail::owned handle_;
  bool waits_ = true;
};

template <class F>
callback(F &&) -> callback<detail::deduced_t<F>>;
template <class F>
callback(F &&, const callback_options &) -> callback<detail::deduced_t<F>>;
template <class F, class V>
callback(F &&, const callback_options &, V) -> callback<detail::deduced_t<F>>;

/**
 * handle is a reference of a callback of any language and signature: while it lives, only somebody who
 * unregisters the callback ends its life. Copies retain, each for itself.
 * Ownership: the destructor releases; the last one may run the callback's destroy function.
 * Errors: a copy of a handle whose callback has ended is as good as the original: calls throw
 * CBR_ERR_STALE. Other failures of cbr_retain are thrown.
 */
class handle {
 public:
  /** None. */
  handle() noexcept = default;
  /** Retains. Throws CBR_ERR_STALE if the callback is gone, CBR_ERR_KIND, CBR_ERR_LIMIT. */
  explicit handle(cbr_handle weak) {
    check(cbr_retain(weak));
    number_ = detail::owned(weak);
  }
  template <class S>
  explicit handle(const callback<S> &owner) : handle(owner.get()) {}
  /** Takes over the owner's reference: from here on the callback lives as long as its handles, and nobody
   * waits for calls when the last one goes. */
  template <class S>
  explicit handle(callback<S> &&owner) noexcept : number_(owner.release()) {}
  /** Takes over a reference that the caller owns, such as cbr_hook_swap's out_old. */
  static handle adopt(cbr_handle reference) noexcept {
    handle it;
    it.number_ = detail::owned(reference);
    return it;
  }

  handle(const handle &other) {
    if (other.get() == 0) return;
    const cbr_status status = cbr_retain(other.get());
    if (status != CBR_OK && status != CBR_ERR_STALE) throw error(status);
    number_ = detail::owned(other.get());
  }
  handle(handle &&) noexcept = default;
  /** Of both kinds. */
  handle &operator=(handle other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~handle() {
    /* CBR_ERR_STALE: it was unregistered, and nobody's references count any more. */
    if (get() != 0) detail::quietly([this] { (void)cbr_release(get()); });
  }

  /** Calls the callback as S, such as call<int(int)>(2). Throws CBR_ERR_SIGNATURE if it was registered with
   * another signature, and what callback's call throws. */
  template <class S, class... Args>
  typename detail::function<S>::result call(Args &&...args) const {
    static_assert(std::is_invocable_v<S *, Args...>, "these are no arguments of that signature");
    return detail::function<S>::convert_and_call(get(), std::forward<Args>(args)...);
  }

  cbr_handle get() const noexcept { return number_.get(); }
  bool is_live() const noexcept { return cbr_is_live(get()); }
  explicit operator bool() const noexcept { return get() != 0; }
  /** The reference is the caller's from now on. */
  [[nodiscard]] cbr_handle release() noexcept { return number_.release(); }

  friend bool operator==(const handle &a, const handle &b) noexcept { return a.get() == b.get(); }
  friend bool operator!=(const handle &a, const handle &b) noexcept { return a.get() != b.get(); }

 private:
  detail::owned number_;
};

/**
 * pin<R(A...)> stays inside a callback for several calls, as cbr_enter does: they cost no more than a call
 * through a function pointer, and the callable lives until the pin is left.
 * Threads: that of the constructor.
 * Errors: the constructor throws as cbr_enter. A call whose callable throws returns zero; that it failed
 * leave() says. The destructor says nothing.
 */
template <class S>
class pin;
template <class R, class... A>
class pin<R(A...)> {
  static_assert(!detail::by_address<R>, "a failed call through a pin has no object to return");

 public:
  explicit pin(cbr_handle weak) : inside_(weak, signature<R(A...)>) {}
  explicit pin(const callback<R(A...)> &owner) : pin(owner.get()) {}

  R operator()(A... args) const {
    const auto fn = reinterpret_cast<typename detail::function<R(A...)>::pointer>(inside_.pin.fn);
    return fn(inside_.pin.user_data, detail::send<A>(args)...);
  }
  /** Throws CBR_ERR_PANIC or CBR_ERR_CALLBACK if a call has failed (of several, the last one's text); left all
   * the same. No call after it. */
  void leave() { inside_.leave(); }

 private:
  detail::entered inside_;
};
template <class S>
pin(const callback<S> &) -> pin<S>;

/**
 * hold keeps a callable and what it captured alive, as cbr_hold does, until it is left: by any thread.
 * Calls through it there are none; whoever unregisters the callback ends those, and waits for the hold.
 * Errors: the constructor throws as cbr_hold.
 */
class hold {
 public:
  explicit hold(cbr_handle weak) { check(cbr_hold(weak, 0, &pin_)); }
  hold(hold &&other) noexcept : pin_(std::exchange(other.pin_, cbr_pin{})) {}
  hold &operator=(hold &&other) noexcept {
    hold old(std::move(other));
    std::swap(pin_, old.pin_);
    return *this;
  }
  ~hold() { leave(); }
  /** May run the destroy function of the callback. Left already: nothing. */
  void leave() noexcept {
    if (pin_.fn != nullptr) detail::quietly([this] { (void)cbr_leave(&pin_); });
  }

 private:
  cbr_pin pin_{};
};

/**
 * scope owns callbacks (callback_options.scope), names, keys and queues, and ends them with itself.
 * Ownership: the destructor closes and waits, as cbr_scope_close does without a deadline; from inside one
 * of the scope's own callbacks everything is ended and it does not wait, but then the scope stays
 * closing for ever: close() from outside before. What destroy functions of other languages throw into
 * the destructor goes no further.
 * Errors: the constructor throws as cbr_scope_open.
 */
class scope {
 public:
  explicit scope(const char *name = nullptr) {
    cbr_scope number = 0;
    check(cbr_scope_open(name, &number));
    number_ = detail::owned(number);
  }
  scope(scope &&) noexcept = default;
  scope &operator=(scope &&other) noexcept {
    scope old(std::move(other));
    std::swap(number_, old.number_);
    return *this;
  }
  ~scope() {
    /* Each round that throws has run one more destroy function. */
    while (get() != 0 && !detail::quietly([this] { (void)cbr_scope_close(get(), -1, nullptr); })) {
    }
  }

  /** Throws CBR_ERR_TIMEOUT, CBR_ERR_DEADLOCK and CBR_ERR_LIMIT: everything is ended, and the scope may be
   * closed again to wait on. Moved from, or closed: nothing. */
  void close(nanoseconds timeout = forever) {
    if (get() == 0) return;
    const cbr_status status = cbr_scope_close(get(), timeout.count(), nullptr);
    if (status != CBR_OK && status != CBR_ERR_STALE) throw error(status);
    (void)number_.release();
  }
  /** Returns when the callables of all its callbacks that have ended are destroyed. Throws as
   * cbr_scope_drain. */
  void drain(nanoseconds timeout = forever) { check(cbr_scope_drain(get(), timeout.count())); }

  /** attach() returns a void * token (or CBR_THREAD_NOT_OURS) before a thread's first callback of the scope,
   * detach(token) gets it at that thread's end. If attach throws, the call fails with CBR_ERR_PANIC.
   * Before the scope's first registration; throws as cbr_scope_set_thread_hooks, and destroys both. */
  template <class Attach, class Detach>
  void set_thread_hooks(Attach attach, Detach detach) {
    struct both {
      Attach attach;
      Detach detach;
    };
    detail::unregistered<both> own(new both{std::move(attach), std::move(detach)});
    check(cbr_scope_set_thread_hooks(
        get(),
        [](void *it) {
          void *token = nullptr;
          detail::contain([&] { token = static_cast<both *>(it)->attach(); });
          return token;
        },
        [](void *it, void *token) { detail::contain([&] { static_cast<both *>(it)->detach(token); }); },
        own.callable, detail::destroy<both>));
    own.callable = nullptr;
  }

  cbr_scope get() const noexcept { return number_.get(); }

 private:
  detail::owned number_;
};

/**
 * hook is a place for one callback of the default signature, intptr_t(void *). In static storage it needs no
 * initialisation at run time.
 * Ownership: it adds a reference of its own to what is in it; the destructor clears it.
 * Threads: any, all functions at once.
 */
class hook {
 public:
  constexpr hook() noexcept = default;
  hook(const hook &) = delete;
  hook &operator=(const hook &) = delete;
  ~hook() {
    detail::quietly([this] { (void)cbr_hook_swap(&hook_, 0, nullptr); });
  }

  /** Puts the callback in if there is none; false if there is one. Throws as cbr_hook_set_once. */
  bool set_once(cbr_handle callback) {
    const cbr_status status = cbr_hook_set_once(&hook_, callback);
    if (status != CBR_OK && status != CBR_ERR_EXISTS) throw error(status);
    return status == CBR_OK;
  }
  /** Puts the callback in, or none (0), and returns what was there. Throws as cbr_hook_swap. */
  handle swap(cbr_handle callback) {
    cbr_handle old = 0;
    check(cbr_hook_swap(&hook_, callback, &old));
    return handle::adopt(old);
  }
  /** Calls what is there; nothing if there is none. Throws as callback's call. */
  std::optional<std::intptr_t> call(void *arg) {
    std::intptr_t out = 0;
    const cbr_status status = cbr_hook_call(&hook_, arg, &out);
    if (status == CBR_ERR_NOT_FOUND) return std::nullopt;
    check(status);
    return out;
  }
  /** For the C functions. */
  cbr_hook *get() noexcept { return &hook_; }

 private:
  cbr_hook hook_ CBR_HOOK_INIT;
};

/**
 * bound_name binds a name in a scope (0: the default one) and unbinds it in the destructor, if the callback
 * is still the one that was bound: another thread that replaces it just then may lose its own.
 * find() gives what is bound, retained; none if there is nothing.
 * Errors: the constructor throws as cbr_name_bind, find() as cbr_name_find.
 */
class bound_name {
 public:
  bound_name(cbr_scope scope, std::string name, cbr_handle callback, std::uint32_t mode = CBR_BIND_ONCE)
      : scope_(scope), name_(std::move(name)) {
    check(cbr_name_bind(scope, name_.c_str(), callback, mode));
    handle_ = detail::owned(callback);
  }
  bound_name(bound_name &&) noexcept = default;
  bound_name &operator=(bound_name &&other) noexcept {
    bound_name old(std::move(other));
    std::swap(scope_, old.scope_);
    name_.swap(old.name_);
    std::swap(handle_, old.handle_);
    return *this;
  }
  ~bound_name() {
    cbr_handle there = 0;
    if (handle_.get() == 0 || cbr_name_find(scope_, name_.c_str(), &there) != CBR_OK) return;
    if (there == handle_.get()) detail::quietly([this] { (void)cbr_name_unbind(scope_, name_.c_str()); });
  }
  static handle find(cbr_scope scope, const char *name) {
    cbr_handle there = 0;
    return found(cbr_name_find(scope, name, &there), there);
  }

 private:
  friend class attached_key;
  /* It may end between being found and being retained. */
  static handle found(cbr_status status, const cbr_handle &there) {
    if (status == CBR_ERR_NOT_FOUND) return handle();
    check(status);
    status = cbr_retain(there);
    if (status == CBR_ERR_STALE) return handle();
    check(status);
    return handle::adopt(there);
  }

  cbr_scope scope_;
  std::string name_;
  detail::owned handle_;
};

/**
 * attached_key attaches a callback to a key and event in a scope, and detaches it in the destructor, as
 * bound_name does with names.
 * Errors: the constructor throws as cbr_key_attach, find() as cbr_key_find.
 */
class attached_key {
 public:
  attached_key(cbr_scope scope, std::uintptr_t key, std::uint32_t event, cbr_handle callback,
               std::uint32_t mode = CBR_BIND_ONCE)
      : scope_(scope), key_(key), event_(event) {
    check(cbr_key_attach(scope, key, event, callback, mode));
    handle_ = detail::owned(callback);
  }
  attached_key(attached_key &&) noexcept = default;
  attached_key &operator=(attached_key &&other) noexcept {
    attached_key old(std::move(other));
    std::swap(scope_, old.scope_);
    std::swap(key_, old.key_);
    std::swap(event_, old.event_);
    std::swap(handle_, old.handle_);
    return *this;
  }
  ~attached_key() {
    cbr_handle there = 0;
    if (handle_.get() == 0 || cbr_key_find(scope_, key_, event_, &there) != CBR_OK) return;
    if (there == handle_.get()) detail::quietly([this] { (void)cbr_key_detach(scope_, key_, event_); });
  }
  static handle find(cbr_scope scope, std::uintptr_t key, std::uint32_t event) {
    cbr_handle there = 0;
    return bound_name::found(cbr_key_find(scope, key, event, &there), there);
  }

 private:
  cbr_scope scope_;
  std::uintptr_t key_;
  std::uint32_t event_;
  detail::owned handle_;
};

/**
 * queue brings calls from any thread into an event loop.
 * Ownership: the destructor closes it with CBR_CLOSE_DISCARD; payloads that wait are destroyed.
 * Errors: the constructor throws as cbr_queue_open.
 */
class queue {
 public:
  explicit queue(const queue_options &options = {}) {
    cbr_queue number = 0;
    check(cbr_queue_open(&options, &number));
    number_ = detail::owned(number);
  }
  queue(queue &&) noexcept = default;
  queue &operator=(queue &&other) noexcept {
    queue old(std::move(other));
    std::swap(number_, old.number_);
    return *this;
  }
  ~queue() {
    if (get() != 0) detail::quietly([this] { (void)cbr_queue_close(get(), CBR_CLOSE_DISCARD); });
  }

  /**
   * Has the callable called with the address of a T made of `value`, by whoever dispatches. What can be
   * copied by bytes is (up to 40 without an allocation); else T is moved to the heap, and destroyed once
   * whatever becomes of the event; closing `owner` drops the event (0: nobody does).
   * False if the queue is full: back off. Throws CBR_ERR_CLOSED and others as cbr_post.
   * On false and on errors `value` may have been moved from.
   */
  template <class T, class V>
  [[nodiscard]] bool post(const callback<std::intptr_t(T *)> &to, V &&value, cbr_scope owner = 0) {
    using U = std::remove_cv_t<T>;
    if constexpr (std::is_trivially_copyable_v<U> && alignof(U) <= alignof(std::max_align_t)) {
      U copy(std::forward<V>(value));
      if (owner == 0) return accepted(cbr_post(get(), to.get(), std::addressof(copy), sizeof copy));
      cbr_post_options event CBR_POST_OPTIONS_INIT;
      event.queue = get();
      event.handle = to.get();
      event.data = detail::untyped(std::addressof(copy));
      event.len = sizeof copy;
      event.owner = owner;
      return accepted(cbr_post_with(&event));
    } else {
      detail::unregistered<U> own(new U(std::forward<V>(value)));
      cbr_post_options event CBR_POST_OPTIONS_INIT;
      event.queue = get();
      event.handle = to.get();
      event.data = own.callable;
      event.len = sizeof(U);
      event.free_data = [](void *it) { detail::quietly([it] { delete static_cast<U *>(it); }); };
      event.owner = owner;
      if (!accepted(cbr_post_with(&event))) return false;
      own.callable = nullptr;
      return true;
    }
  }
  /** Runs the callable on the thread that dispatches, waits, and returns its result; `arg` may be on the
   * stack. Throws what callback's call throws, and as cbr_call_on. */
  template <class T>
  std::intptr_t call_on(const callback<std::intptr_t(T *)> &to, T *arg, nanoseconds timeout = forever) {
    std::intptr_t out = 0;
    check(cbr_call_on(get(), to.get(), detail::untyped(arg), timeout.count(), &out));
    return out;
  }
  /** Calls at most `max` callbacks (0: what waits now); false when the queue is closed and empty: stop.
   * What callables throw is counted and goes no further. Throws as cbr_queue_dispatch. */
  bool dispatch(std::size_t max = 0, nanoseconds timeout = nanoseconds::zero(), std::size_t *count = nullptr) {
    const cbr_status status = cbr_queue_dispatch(get(), max, timeout.count(), count);
    if (status == CBR_ERR_CLOSED || status == CBR_ERR_STALE) return false;
    if (status != CBR_OK && status != CBR_ERR_EMPTY && status != CBR_ERR_TIMEOUT) throw error(status);
    return true;
  }
  /** As cbr_queue_close: what waits is dispatched, or dropped. Closed already: nothing. */
  void close(std::uint32_t mode = CBR_CLOSE_DRAIN) {
    const cbr_status status = cbr_queue_close(get(), mode);
    if (status != CBR_OK && status != CBR_ERR_CLOSED && status != CBR_ERR_STALE) throw error(status);
  }
  /** The calling thread is the owner of this CBR_QUEUE_OWNED queue from now on. */
  void adopt() { check(cbr_queue_adopt(get())); }
  /** A descriptor to poll, which the caller closes. */
  int fd() const {
    int out = -1;
    check(cbr_queue_fd(get(), &out));
    return out;
  }
  std::size_t size() const {
    std::size_t out = 0;
    check(cbr_queue_len(get(), &out));
    return out;
  }
  cbr_queue get() const noexcept { return number_.get(); }

 private:
  static bool accepted(cbr_status status) {
    if (status != CBR_OK && status != CBR_ERR_FULL) throw error(status);
    return status == CBR_OK;
  }

  detail::owned number_;
};

/**
 * thunk<R(A...)> is a plain function, R (*)(A...), that carries its callback: for C interfaces without a void *.
 *   callbridge::thunk compare([&](const void *a, const void *b) { return order(a, b); });
 *   qsort(base, count, size, compare.get());
 * With a fallback: thunk half{callback([](int n) { return n / 2; }, {}, -1)};
 * Numbers, bool, enumerations and pointers; a reference is a pointer that C must not give as NULL.
 * What the callable throws C does not see: the function returns the fallback, as it does when the callback
 * is gone, and after close() for as long as the process lives.
 * Ownership: a thunk made of a callable, or of a callback that is moved in, owns that and ends it after
 * itself, as callback's destructor does, waiting for calls on other threads. One made of a callback that
 * somebody else owns, or of a handle, adds a reference.
 * Threads: any may call the function.
 * Errors: constructors and retarget() throw as cbr_thunk_open and cbr_thunk_retarget; then nothing has changed.
 */
template <class S>
class thunk;
template <class R, class... A>
class thunk<R(A...)> {
  static_assert(!detail::by_address<R> && !(detail::is_object<A> || ...), "C gives and takes no objects");

 public:
  using pointer = R (*)(A...);

  /** None: get() is a null pointer. */
  thunk() noexcept = default;

  /** `flags`: CBR_THUNK_PERMANENT. */
  template <class F, class = std::enable_if_t<detail::fits<F, R(A...)> && !std::is_same_v<std::decay_t<F>, thunk> &&
                                              !std::is_same_v<std::decay_t<F>, callback<R(A...)>>>>
  thunk(F &&callable, const callback_options &options = {}, std::uint32_t flags = 0)
      : thunk(callback<R(A...)>(std::forward<F>(callable), options), flags) {}
  explicit thunk(callback<R(A...)> &&owner, std::uint32_t flags = 0) : thunk(owner.get(), flags) {
    own_ = std::move(owner);
  }
  explicit thunk(const callback<R(A...)> &other, std::uint32_t flags = 0) : thunk(other.get(), flags) {}
  /** Throws CBR_ERR_SIGNATURE if the callback was registered with another one. */
  explicit thunk(cbr_handle weak, std::uint32_t flags = 0) {
    cbr_any_fn fn = nullptr;
    cbr_thunk number = 0;
    check(cbr_thunk_open(weak, signature<R(A...)>, flags, &fn, &number));
    fn_ = reinterpret_cast<pointer>(fn);
    number_ = detail::owned(number);
  }

  thunk(thunk &&other) noexcept
      : own_(std::move(other.own_)), number_(std::move(other.number_)), fn_(std::exchange(other.fn_, nullptr)) {}
  thunk &operator=(thunk &&other) noexcept {
    thunk old(std::move(other));
    std::swap(own_, old.own_);
    std::swap(number_, old.number_);
    std::swap(fn_, old.fn_);
    return *this;
  }
  ~thunk() {
    if (number_.get() != 0) detail::quietly([this] { (void)cbr_thunk_close(number_.get()); });
  }

  /** The function. */
  pointer get() const noexcept { return fn_; }

  /** Carries another callback from now on, and returns that one's fallback. What it owned ends. */
  void retarget(callback<R(A...)> &&owner) {
    check(cbr_thunk_retarget(number_.get(), owner.get()));
    own_ = std::move(owner);
  }
  void retarget(const callback<R(A...)> &other) { retarget(other.get()); }
  void retarget(cbr_handle weak) {
    check(cbr_thunk_retarget(number_.get(), weak));
    own_ = callback<R(A...)>();
  }

  /** The function returns its fallback from now on. What the thunk owned ends. */
  void close() {
    const cbr_status status = cbr_thunk_close(number_.get());
    if (status != CBR_OK && status != CBR_ERR_STALE) throw error(status);
    (void)number_.release();
    own_ = callback<R(A...)>();
  }

 private:
  callback<R(A...)> own_; /* ends after the thunk is closed */
  detail::owned number_;
  pointer fn_ = nullptr;
};

template <class F>
thunk(F &&) -> thunk<detail::deduced_t<F>>;
template <class F>
thunk(F &&, const callback_options &) -> thunk<detail::deduced_t<F>>;
template <class F>
thunk(F &&, const callback_options &, std::uint32_t) -> thunk<detail::deduced_t<F>>;
template <class S>
thunk(callback<S> &&, std::uint32_t) -> thunk<S>;
template <class S>
thunk(const callback<S> &, std::uint32_t) -> thunk<S>;

}  // namespace callbridge

#endif
