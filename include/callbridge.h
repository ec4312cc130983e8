/*
 * callbridge: safe, almost free callbacks across languages.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Generated from src/ffi by scripts/header. The comments are the reference.
 *
 * Conventions, said once:
 *  1. A call that fails changes nothing: it takes no ownership, writes no output, runs no destroy
 *     function. Except: CBR_ERR_CALLBACK and CBR_ERR_PANIC (the callback ran; the result is not
 *     written), and CBR_ERR_TIMEOUT and CBR_ERR_DEADLOCK of cbr_unregister_wait and cbr_scope_close,
 *     and CBR_ERR_LIMIT of cbr_scope_close (about the wait: what they end is revoked all the same); and
 *     the counts out_running and out_dispatched are always written. A call that is refused may have
 *     been the last that an ended callback waited for: then that one's destroy function runs in it.
 *  2. Every object is a 64-bit handle, 0 is none. Handles may be copied, stored, compared, logged and
 *     passed between threads freely. A handle never dangles: used after its object is gone it gives
 *     CBR_ERR_STALE, used for another kind of object CBR_ERR_KIND, a number that was never issued
 *     CBR_ERR_STALE; never undefined behaviour, never another object.
 *  3. Any thread may call any function unless its comment says otherwise. No lock of the library is
 *     held while host code runs, so host code may call any function from inside a callback or a
 *     destroy function. No function and no thunk is async-signal-safe.
 *  4. Holding a handle is not owning it: a handle is a weak reference until cbr_retain succeeds. Hooks,
 *     names, keys, thunks and accepted events each add a reference of their own, and drop it when they
 *     let go.
 *  5. Parameters: the object first, then inputs, then out_*. fn, user_data and destroy travel
 *     together, and user_data comes first in every callback. Strings are NUL-terminated UTF-8 and
 *     copied. Times are nanoseconds; -1 waits for ever, 0 does not wait.
 *  6. A NULL out_* pointer is allowed where the comment says so, otherwise it is CBR_ERR_INVALID.
 *  7. cbr_status is CBR_OK, which is 0, or a negative error. cbr_last_error has the words. A thread's
 *     first use of the library, whatever the function, may give CBR_ERR_NOMEM or CBR_ERR_SYSTEM.
 *  8. Structures that a host fills start with their size; use the initialisers. Zero in a field means
 *     the default. Those that the library fills get at most so many bytes, and size says how many.
 *  9. Scope 0 is the process's default scope for registration, names and keys, and the whole process
 *     for statistics and reports.
 *
 * Every process has its own handles, and so has every static copy of this library in a process.
 */


#ifndef CALLBRIDGE_H
#define CALLBRIDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The version of this header. cbr_version() is that of the library. */
#define CALLBRIDGE_VERSION_MAJOR 0
#define CALLBRIDGE_VERSION_MINOR 1
#define CALLBRIDGE_VERSION_PATCH 0
#define CALLBRIDGE_VERSION_STRING "0.1.0"

/* No handle. */
#define CBR_HANDLE_NONE ((cbr_handle)0)

#if UINTPTR_MAX == UINT64_MAX
#define CBR_POINTERS_HAVE_64_BITS 1
/* A handle as the void * that C interfaces carry beside a function; see cbr_call_ptr. */
#define CBR_TO_PTR(handle) ((void *)(uintptr_t)(handle))
#endif

/* Types in a signature. */
#define CBR_VOID 1
#define CBR_BOOL 2
#define CBR_I8 3
#define CBR_U8 4
#define CBR_I16 5
#define CBR_U16 6
#define CBR_I32 7
#define CBR_U32 8
#define CBR_I64 9
#define CBR_U64 10
#define CBR_F32 11
#define CBR_F64 12
#define CBR_PTR 13
/* The platform's. */
#define CBR_INT CBR_I32
#if defined(__LP64__)
#define CBR_LONG CBR_I64
#else
#define CBR_LONG CBR_I32
#endif
#if UINTPTR_MAX == UINT64_MAX
#define CBR_SIZE CBR_U64
#define CBR_INTPTR CBR_I64
#else
#define CBR_SIZE CBR_U32
#define CBR_INTPTR CBR_I32
#endif

/*
 * CBR_SIG(return type, argument types...) is the signature as a constant expression, without the
 * leading user_data: CBR_SIG(CBR_I32, CBR_PTR, CBR_PTR) is 0x27dd000000000000, CBR_SIG(CBR_VOID) that
 * of a function with user_data alone. At most 14 arguments.
 */
#define CBR_SIG(...)                                                                               \
  CBR_SIG_PACK_(CBR_SIG_COUNT_(__VA_ARGS__, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0),  \
                __VA_ARGS__, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
#define CBR_SIG_COUNT_(r, a, b, c, d, e, f, g, h, i, j, k, l, m, n, count, ...) count
#define CBR_SIG_PACK_(count, r, a, b, c, d, e, f, g, h, i, j, k, l, m, n, ...)                     \
  ((uint64_t)(count) << 60 | (uint64_t)(r) << 56 | (uint64_t)(a) << 52 | (uint64_t)(b) << 48 |     \
   (uint64_t)(c) << 44 | (uint64_t)(d) << 40 | (uint64_t)(e) << 36 | (uint64_t)(f) << 32 |         \
   (uint64_t)(g) << 28 | (uint64_t)(h) << 24 | (uint64_t)(i) << 20 | (uint64_t)(j) << 16 |         \
   (uint64_t)(k) << 12 | (uint64_t)(l) << 8 | (uint64_t)(m) << 4 | (uint64_t)(n))

/* What cbr_call calls: a cbr_fn. */
#define CBR_SIG_DEFAULT CBR_SIG(CBR_INTPTR, CBR_PTR)

/* An empty cbr_hook. */
#define CBR_HOOK_INIT {0}

/* What a cbr_thread_attach_fn returns when the host had attached the thread: no detach. */
#define CBR_THREAD_NOT_OURS ((void *)(intptr_t)-1)

/* Structures that a host fills, with everything at its default. */
#ifdef __cplusplus
#define CBR_CALLBACK_OPTIONS_INIT                                                                  \
  { sizeof(cbr_callback_options), nullptr, nullptr, nullptr, 0, nullptr, 0, 0, 0, 0, nullptr, {0} }
#define CBR_QUEUE_OPTIONS_INIT {sizeof(cbr_queue_options), nullptr, 0, 0, 0, 0}
#define CBR_POST_OPTIONS_INIT {sizeof(cbr_post_options), 0, 0, nullptr, 0, nullptr, 0, 0}
#else
#define CBR_CALLBACK_OPTIONS_INIT {.size = sizeof(cbr_callback_options)}
#define CBR_QUEUE_OPTIONS_INIT {.size = sizeof(cbr_queue_options)}
#define CBR_POST_OPTIONS_INIT {.size = sizeof(cbr_post_options)}
#endif

/**
 * In cbr_callback_options.flags: the shared object that holds `fn` stays loaded for the life of the
 * process, whoever closes it. In the main program there is nothing to do; code that is in no object,
 * made at run time, is CBR_ERR_INVALID.
 */
#define CBR_PIN_MODULE 2

/**
 * In cbr_callback_options.flags: calls and failures of the callback are counted, and how long its calls
 * take, for cbr_metrics, cbr_report and cbr_callback_info_get; and how long its events wait in their queues.
 * A call then costs two looks at the clock more, and a thread that calls keeps 256 bytes for it.
 */
#define CBR_METERED 1

/**
 * For cbr_name_bind and cbr_key_attach: the first one stays, and a second is CBR_ERR_EXISTS.
 */
#define CBR_BIND_ONCE 0

/**
 * For cbr_name_bind and cbr_key_attach: takes the place of what is there.
 */
#define CBR_BIND_REPLACE 1

/**
 * A full queue refuses: CBR_ERR_FULL.
 */
#define CBR_QUEUE_REJECT 0

/**
 * A full queue drops its oldest event.
 */
#define CBR_QUEUE_DROP_OLDEST 1

/**
 * A full queue has the poster wait for room.
 */
#define CBR_QUEUE_BLOCK 2

/**
 * An event whose callback has one waiting already replaces that one's payload, in its place.
 */
#define CBR_QUEUE_COALESCE 1

/**
 * One thread dispatches the queue: who opened it, until another one adopts it.
 */
#define CBR_QUEUE_OWNED 2

/**
 * cbr_queue_close: what waits is still dispatched.
 */
#define CBR_CLOSE_DRAIN 0

/**
 * cbr_queue_close: what waits is dropped.
 */
#define CBR_CLOSE_DISCARD 1

/**
 * In the flags of cbr_thunk_open: after cbr_thunk_close the address never serves another thunk. For
 * interfaces that never let go of a function, such as atexit.
 */
#define CBR_THUNK_PERMANENT 1

/**
 * Levels of log lines. OFF is no line's.
 */
#define CBR_LOG_OFF 0

/**
 * What the system refused: memory, descriptors.
 */
#define CBR_LOG_ERROR 1

/**
 * What the host has done wrong, and was kept from harm.
 */
#define CBR_LOG_WARN 2

#define CBR_LOG_INFO 3

/**
 * What a developer may want to follow.
 */
#define CBR_LOG_DEBUG 4

#define CBR_LOG_TRACE 5

/**
 * cbr_status is the result of most functions: `CBR_OK` or a negative error.
 */
typedef int32_t cbr_status;

/**
 * cbr_signature says what a callback takes, after its `user_data`, and returns. A 64-bit constant
 * made by CBR_SIG: bits 63..60 the number of arguments (0 to 14), 59..56 the return type, then 4
 * bits an argument from bit 55 down. 0 is no signature.
 */
typedef uint64_t cbr_signature;

/**
 * cbr_fn is a callback of the default signature.
 */
typedef intptr_t (*cbr_fn)(void *user_data, void *arg);

/**
 * cbr_destroy_fn frees a callback's data. It runs exactly once, when nobody is inside the callback
 * any more and nobody can enter it. It may use the library, and may end by an exception or
 * pthread_exit, unless an unwind or the thread's end is what makes it run.
 */
typedef void (*cbr_destroy_fn)(void *user_data);

/**
 * cbr_handle stands for an object. 0 (CBR_HANDLE_NONE) is none. A number: copy, store, compare, log
 * and pass it between threads freely. Holding one is not owning the object, and it never dangles:
 * used after its object is gone it gives CBR_ERR_STALE.
 */
typedef uint64_t cbr_handle;

/**
 * cbr_any_fn is a function of any other signature: cast from and to what it is.
 */
typedef void (*cbr_any_fn)(void);

/**
 * cbr_scope is the owner of callbacks, names and keys: a plugin, a connection, a module. 0 is the
 * process's default scope, which is always open.
 */
typedef uint64_t cbr_scope;

/**
 * cbr_queue is a queue into an event loop, see cbr_queue_open. 0 is none.
 */
typedef uint64_t cbr_queue;

/**
 * cbr_error_fn is told of a failure that the callback has reported with cbr_fail: CBR_ERR_CALLBACK
 * or CBR_ERR_PANIC, and the message. It runs inside cbr_fail, so `user_data` is alive.
 */
typedef void (*cbr_error_fn)(void *user_data,
                             cbr_handle handle,
                             cbr_status status,
                             const char *message);

/**
 * cbr_value is a value of any type that a signature can name.
 */
typedef union cbr_value {
  int64_t i;
  uint64_t u;
  double f64;
  float f32;
  void *ptr;
} cbr_value;

/**
 * cbr_callback_options describes a callback for cbr_register_with. Start from
 * CBR_CALLBACK_OPTIONS_INIT; zero in a field means the default.
 */
typedef struct cbr_callback_options {
  /**
   * sizeof(cbr_callback_options).
   */
  size_t size;
  /**
   * The function; its first argument is `user_data`.
   */
  cbr_any_fn fn;
  void *user_data;
  /**
   * NULL: nothing to free.
   */
  cbr_destroy_fn destroy;
  /**
   * 0: `fn` is a cbr_fn, which is CBR_SIG_DEFAULT.
   */
  cbr_signature signature;
  /**
   * For logs; at most 255 bytes of UTF-8, copied. NULL: none.
   */
  const char *name;
  /**
   * The owner: closing it ends the callback. 0: the process's default scope.
   */
  cbr_scope scope;
  /**
   * The callback may be called on the thread that owns this CBR_QUEUE_OWNED queue alone; elsewhere calls
   * give CBR_ERR_THREAD. 0: on any thread.
   */
  cbr_queue home;
  /**
   * `destroy` runs when this CBR_QUEUE_OWNED queue is dispatched, after what waits there for the
   * callback; and when the queue was closed as with 0: on the thread that ends the callback's life.
   */
  cbr_queue destroy_queue;
  /**
   * CBR_METERED, CBR_PIN_MODULE.
   */
  uint32_t flags;
  /**
   * Told of every failure that the callback reports with cbr_fail. May be NULL.
   */
  cbr_error_fn on_error;
  /**
   * What cbr_call_ptr and thunks return when the callback cannot run; a thunk as its type asks for.
   */
  union cbr_value fallback;
} cbr_callback_options;

/**
 * cbr_pin keeps a callback alive between cbr_enter or cbr_hold and cbr_leave. Zeroed it is none.
 * A copy is the same pin: only one of them can be left.
 */
typedef struct cbr_pin {
  /**
   * The function: cast it to what its signature says.
   */
  cbr_any_fn fn;
  /**
   * Its first argument.
   */
  void *user_data;
  /**
   * The library's.
   */
  uint64_t reserved[2];
} cbr_pin;

/**
 * cbr_thread_attach_fn runs on each thread once, before the first callback of its scope there, inside
 * the protection of that call. It returns a token for the detach function, or CBR_THREAD_NOT_OURS if
 * the host had attached the thread: then there is nothing to detach. With cbr_fail it refuses: the
 * call returns that error without running the callback, and the next call asks again.
 */
typedef void *(*cbr_thread_attach_fn)(void *user_data);

/**
 * cbr_thread_detach_fn runs at the end of a thread that the attach function of its scope has run on,
 * with the token; not for a scope that is closing or closed, and not for the main thread when the
 * process exits. As long as it runs, its scope does not close. What it calls may attach the thread
 * again; one that does so every time is given up after a number of rounds, and logged.
 */
typedef void (*cbr_thread_detach_fn)(void *user_data, void *token);

/**
 * cbr_hook is a place for one callback, in the host's own memory, such as a global variable that other
 * modules may put their logger into:
 *   cbr_hook on_log = CBR_HOOK_INIT;
 * It owns a reference of what is in it. A callback that is gone counts as none. The library never
 * remembers a hook's address: before its memory goes, clear it with cbr_hook_swap(hook, 0, NULL).
 */
typedef struct cbr_hook {
  /**
   * The library's.
   */
  uint64_t reserved;
} cbr_hook;

/**
 * cbr_queue_options describes a queue. Start from CBR_QUEUE_OPTIONS_INIT; zero in a field means the
 * default.
 */
typedef struct cbr_queue_options {
  /**
   * sizeof(cbr_queue_options).
   */
  size_t size;
  /**
   * For logs; at most 255 bytes of UTF-8, copied. NULL: none.
   */
  const char *name;
  /**
   * The owner: closing it closes the queue, with CBR_CLOSE_DISCARD. 0: the process's default scope.
   */
  cbr_scope scope;
  /**
   * How many events have room. 0: 1024.
   */
  size_t capacity;
  /**
   * What a post does when there is no room: CBR_QUEUE_REJECT, CBR_QUEUE_DROP_OLDEST, CBR_QUEUE_BLOCK.
   */
  uint32_t policy;
  /**
   * CBR_QUEUE_COALESCE, CBR_QUEUE_OWNED.
   */
  uint32_t flags;
} cbr_queue_options;

/**
 * cbr_post_options describes an event. Start from CBR_POST_OPTIONS_INIT.
 */
typedef struct cbr_post_options {
  /**
   * sizeof(cbr_post_options).
   */
  size_t size;
  /**
   * 0: the callback's home.
   */
  cbr_queue queue;
  cbr_handle handle;
  void *data;
  size_t len;
  /**
   * NULL: the payload is copied. Else it is taken over when the post is accepted, and freed with this
   * exactly once, whatever becomes of the event.
   */
  cbr_destroy_fn free_data;
  /**
   * The scope whose code `free_data` is: closing it drops the event wherever it waits. 0: nobody's.
   */
  cbr_scope owner;
  /**
   * How long to wait for room in a full queue, in nanoseconds; -1: for ever; 0: as the queue's policy
   * says.
   */
  int64_t timeout_ns;
} cbr_post_options;

/**
 * cbr_event is what a callback may know of the event that it is called for, see cbr_current_event.
 */
typedef struct cbr_event {
  cbr_handle handle;
  /**
   * The payload, which is also the callback's `arg`; NULL for none.
   */
  const void *data;
  size_t len;
  cbr_queue queue;
  /**
   * When it was posted, in nanoseconds of CLOCK_MONOTONIC; from cbr_call_on: when the callback began.
   */
  int64_t posted_ns;
  /**
   * The poster's trace context (cbr_trace_set); NULL: it had none. Until the callback returns.
   */
  const char *traceparent;
} cbr_event;

/**
 * cbr_thunk is a plain function pointer that carries its callback, for C interfaces that take a function
 * and no `void *`. 0 is none.
 */
typedef uint64_t cbr_thunk;

/**
 * cbr_stats is numbers of the process, or of a scope. Taken while other threads go on: the numbers are
 * each right, and need not agree with each other to the last one. Those that count what has happened
 * never go back, also when threads, callbacks, queues and scopes end; but of a scope those about events do
 * when one of its queues closes.
 */
typedef struct cbr_stats {
  /**
   * sizeof(cbr_stats); then how much of it was filled.
   */
  size_t size;
  /**
   * Callbacks that can be called now.
   */
  uint64_t live;
  /**
   * Callbacks that were ever registered, and those of them whose end is complete.
   */
  uint64_t registered;
  uint64_t destroyed;
  /**
   * Callbacks that have ended, and whose destroy has not returned.
   */
  uint64_t destroy_pending;
  /**
   * Calls, dispatches, holds and pins that have entered a callback. Of a scope: of its
   * CBR_METERED callbacks.
   */
  uint64_t calls;
  /**
   * Of these, those that cbr_fail has marked as failed. Of a scope: likewise.
   */
  uint64_t failures;
  /**
   * Calls that found their callback gone. Of a scope: 0.
   */
  uint64_t stale;
  /**
   * Calls, pins and holds inside a callback now. (Not who is inside the log's sink or a call hook.)
   */
  uint64_t in_flight;
  /**
   * Threads that use the library; of a scope: that are inside one of its callbacks now.
   */
  uint64_t threads;
  /**
   * Queues that are there, and events that wait in them.
   */
  uint64_t queues;
  uint64_t queued;
  /**
   * Events that were ever put into queues, taken out by dispatchers, and dropped: displaced by others,
   * or left when the queue or their owner closed. Of a scope: by its queues that are there.
   */
  uint64_t posted;
  uint64_t dispatched;
  uint64_t dropped;
  /**
   * Thunks that are open, and calls of thunks that no callback got (those count as stale as well). Of a
   * scope: 0.
   */
  uint64_t thunks;
  uint64_t thunk_stale;
} cbr_stats;

/**
 * cbr_callback_info describes a callback.
 */
typedef struct cbr_callback_info {
  /**
   * sizeof(cbr_callback_info); then how much of it was filled.
   */
  size_t size;
  cbr_handle handle;
  /**
   * 0: the default scope.
   */
  cbr_scope scope;
  cbr_signature signature;
  uint32_t references;
  /**
   * Calls, pins and holds that are inside now; of a tracer's hooks, threads that run one or are in a call
   * that they were told of.
   */
  uint32_t in_flight;
  /**
   * As cbr_callback_options had them.
   */
  uint32_t flags;
  /**
   * When it was registered, by CLOCK_MONOTONIC. 0: not noted, because it was registered with nothing but
   * a function, its data and a destroy function, the check level was below 2, and no stack recorded.
   */
  int64_t registered_ns;
  /**
   * Calls, dispatches, pins and holds that have entered, and those of them that have failed. Counted of
   * CBR_METERED callbacks alone, else 0.
   */
  uint64_t calls;
  uint64_t failures;
  /**
   * Its name, NUL-terminated, cut between characters if it is longer.
   */
  char name[64];
} cbr_callback_info;

/**
 * cbr_write_fn takes a part of a text, `len` bytes, not NUL-terminated. It is called before the function
 * that it was given to returns, and never later.
 */
typedef void (*cbr_write_fn)(void *user_data, const char *data, size_t len);

/**
 * cbr_call_begin_fn is told that a call of the callback `handle` begins, and returns what its cbr_call_end_fn
 * gets: a span, or whatever it likes. `name`: the callback's, "" if it has none; `traceparent`: the context
 * that it will run under (cbr_trace_get), NULL if there is none; both live until it returns.
 * It may set a context with cbr_trace_set, that of its span: then the callback and what it posts have that
 * one, until the call is over and the one before comes back.
 */
typedef void *(*cbr_call_begin_fn)(void *user_data,
                                   cbr_handle handle,
                                   const char *name,
                                   const char *traceparent);

/**
 * cbr_call_end_fn is told that the call is over whose begin has returned `span`, on the same thread, while
 * the callback's user_data still lives. `status`: what the caller gets: CBR_OK, CBR_ERR_CALLBACK or
 * CBR_ERR_PANIC; CBR_ERR_CALLBACK also if an exception, pthread_exit, a cancellation or a longjmp has left
 * the callback, or its thread has ended inside a pin.
 */
typedef void (*cbr_call_end_fn)(void *user_data, void *span, cbr_status status);

/**
 * cbr_log_fn takes a line of the log: its level, CBR_LOG_ERROR to CBR_LOG_TRACE, its target, "callbridge",
 * and its words, which live until it returns. It is called on the thread that the line is about, inside the
 * function of the library that has something to say, and holds no lock. It may use the library: lines that
 * come of that do not reach it again, and cbr_last_error is afterwards what it was before. An exception,
 * pthread_exit or a cancellation passes through, but ends the process if the line is about something that
 * an exception or a thread's end is leaving already. Lines are cut at 1,023 bytes.
 */
typedef void (*cbr_log_fn)(void *user_data, uint32_t level, const char *target, const char *message);

/**
 * Done.
 */
#define CBR_OK 0

/**
 * A NULL function where one is needed.
 */
#define CBR_ERR_NULL -1

/**
 * The callback's language wrapper caught a panic or an exception and reported it (cbr_fail).
 */
#define CBR_ERR_PANIC -2

/**
 * The object is gone, or never was.
 */
#define CBR_ERR_STALE -3

/**
 * An argument is out of its range.
 */
#define CBR_ERR_INVALID -4

/**
 * The handle is of another kind of object.
 */
#define CBR_ERR_KIND -5

/**
 * The callback was registered with another signature.
 */
#define CBR_ERR_SIGNATURE -6

/**
 * The callback, queue or pin belongs to another thread (both are named in cbr_last_error).
 */
#define CBR_ERR_THREAD -7

/**
 * The wait could never end: the caller is, directly or through others, inside what it waits for.
 */
#define CBR_ERR_DEADLOCK -8

/**
 * The deadline passed.
 */
#define CBR_ERR_TIMEOUT -9

/**
 * The queue is full: back off.
 */
#define CBR_ERR_FULL -10

/**
 * Nothing to dispatch.
 */
#define CBR_ERR_EMPTY -11

/**
 * The queue or scope no longer takes work: stop.
 */
#define CBR_ERR_CLOSED -12

/**
 * Already set, and the first one stays.
 */
#define CBR_ERR_EXISTS -13

/**
 * Nothing is known under this name or key.
 */
#define CBR_ERR_NOT_FOUND -14

/**
 * A stated limit is reached (references, nesting, slots).
 */
#define CBR_ERR_LIMIT -15

/**
 * Out of memory.
 */
#define CBR_ERR_NOMEM -16

/**
 * The operating system refused; errno is in cbr_last_error.
 */
#define CBR_ERR_SYSTEM -17

/**
 * Not in this version of the library.
 */
#define CBR_ERR_UNSUPPORTED -18

/**
 * The callback reported failure with cbr_fail.
 */
#define CBR_ERR_CALLBACK -19

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * cbr_status_name gives the constant's name, such as "CBR_ERR_STALE".
 * Ownership: static text, never NULL; "CBR_ERR_UNKNOWN" for a number that is no status.
 * Threads: any.
 */
const char *cbr_status_name(cbr_status status);

/**
 * cbr_status_message says in one sentence what the status means.
 * Ownership: static text, never NULL.
 * Threads: any. cbr_last_error has the details of a particular failure.
 */
const char *cbr_status_message(cbr_status status);

/**
 * cbr_last_error writes the calling thread's last failure in words, such as
 * "cbr_call: stale: the object is gone, or never was (handle 0x8d2f11c010000400)".
 * Like errno it is not cleared by success; before the first failure it is empty.
 * `len`: the room in `buf`, in bytes; the text is cut to fit and NUL-terminated. `buf` may be NULL
 * to ask for the length.
 * Threads: any; each has its own.
 * Returns: the length that the whole text needs, without the NUL, like snprintf.
 */
size_t cbr_last_error(char *buf, size_t len);

/**
 * cbr_version is the version of the library that runs: 0x00MMmmpp, major, minor and patch. The
 * CALLBRIDGE_VERSION macros are those of the header that the program was compiled with.
 * Threads: any.
 */
uint32_t cbr_version(void);

/**
 * cbr_version_string is the same in words, such as "0.1.0".
 * Ownership: static text, never NULL.
 * Threads: any.
 */
const char *cbr_version_string(void);

/**
 * cbr_signature_parse reads a signature such as "i32(ptr,ptr)" or "void()". The types are void,
 * bool, i8, u8, i16, u16, i32, u32, i64, u64, f32, f64 and ptr, and the platform's int, long, size
 * and intptr. Blanks between them are allowed.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_INVALID if the text is NULL or no signature (a void argument, more than
 * 14 arguments, an unknown type), or `out` is NULL. Then `out` is unchanged.
 */
cbr_status cbr_signature_parse(const char *text, cbr_signature *out);

/**
 * cbr_signature_format writes a signature in words, as cbr_signature_parse reads it;
 * "invalid(0x...)" for a number that is none. `buf`, `len` and the result are those of snprintf;
 * `buf` may be NULL to ask for the length.
 * Threads: any.
 */
size_t cbr_signature_format(cbr_signature signature, char *buf, size_t len);

/**
 * cbr_register makes a callback of `fn` and `user_data` and gives its handle, with one reference,
 * the caller's.
 * Ownership: `user_data` belongs to the callback until `destroy` is called with it: exactly once,
 * after the last reference is released or the callback is unregistered, when no call is inside any
 * more, on the thread that ends the last use. `destroy` NULL: nothing to free. When cbr_register
 * fails, `user_data` stays the caller's.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_NULL if `fn` is NULL; CBR_ERR_INVALID if `out_handle` is NULL;
 * CBR_ERR_NOMEM; CBR_ERR_LIMIT at 2^28 objects; CBR_ERR_SYSTEM at a thread's first use. With
 * cbr_set_check(2) also CBR_ERR_INVALID if a function is no code.
 */
cbr_status cbr_register(cbr_fn fn, void *user_data, cbr_destroy_fn destroy, cbr_handle *out_handle);

/**
 * cbr_register_with is cbr_register with everything else that can be said of a callback: another
 * signature, a name, a scope, an error function, a fallback.
 * Ownership: as cbr_register; `options` and the name are copied.
 * Threads: any.
 * Returns: what cbr_register returns, and CBR_ERR_INVALID if `options` is NULL, its `size` is too
 * small or above 4096, the signature or a flag is unknown, or the name is longer than 255 bytes or not
 * UTF-8, or with CBR_PIN_MODULE and no shared object that holds `fn`;
 * CBR_ERR_CLOSED if the scope, `home` or `destroy_queue` is closing, CBR_ERR_STALE if it is gone,
 * CBR_ERR_KIND if it is something else; CBR_ERR_INVALID if such a queue is not CBR_QUEUE_OWNED;
 * CBR_ERR_SYSTEM if CBR_PIN_MODULE's object is not found again;
 * CBR_ERR_UNSUPPORTED for a field that this version does not know or requires to be 0.
 */
cbr_status cbr_register_with(const struct cbr_callback_options *options,
                             cbr_handle *out_handle);

/**
 * cbr_unregister ends the callback's life for everybody, whatever the number of references. No new
 * call starts after it returns; calls in flight finish.
 * Ownership: destroy runs exactly once: here if nobody is inside, else on the thread whose leave is
 * the last. Other owners' cbr_release gives CBR_ERR_STALE from now on and changes nothing.
 * Threads: any; inside the callback itself it returns at once, and destroy runs when that call
 * returns.
 * Returns: CBR_OK; CBR_ERR_STALE if it is gone already; CBR_ERR_KIND.
 */
cbr_status cbr_unregister(cbr_handle handle);

/**
 * cbr_unregister_wait is cbr_unregister, and returns when destroy has run. On a callback that is
 * unregistered or released already, and whose destroy has not returned yet, it waits all the same,
 * so it can be called again after a timeout.
 * `timeout_ns`: nanoseconds; -1 waits for ever, 0 does not wait.
 * Threads: any. From inside the callback, or while the wait could not end because a thread inside
 * it waits, directly or through others, for something that the caller is inside, it returns
 * CBR_ERR_DEADLOCK at once; the callback is unregistered all the same. A hold (cbr_hold) that
 * nobody leaves is not seen as a deadlock: holds have no thread. Not a cancellation point.
 * Returns: CBR_OK: destroy has returned; CBR_ERR_STALE: it had before, or the handle never was;
 * CBR_ERR_TIMEOUT and CBR_ERR_DEADLOCK: unregistered, and destroy will run; CBR_ERR_INVALID if
 * `timeout_ns` is below -1: nothing has changed; CBR_ERR_KIND.
 */
cbr_status cbr_unregister_wait(cbr_handle handle, int64_t timeout_ns);

/**
 * cbr_retain adds a reference: from now on the caller is an owner, too.
 * Ownership: to be given back with cbr_release.
 * Threads: any.
 * Returns: CBR_OK: the callback lives until the caller releases it or somebody unregisters it;
 * CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_LIMIT at 2^30 references.
 */
cbr_status cbr_retain(cbr_handle handle);

/**
 * cbr_release gives a reference back. The last one ends the callback's life as cbr_unregister does.
 * Ownership: as cbr_unregister.
 * Threads: any, also inside the callback.
 * Returns: CBR_OK; CBR_ERR_STALE if the callback is gone, then nothing has changed; CBR_ERR_KIND.
 */
cbr_status cbr_release(cbr_handle handle);

/**
 * cbr_refcount gives the number of references, for diagnosis: it may have changed already.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_INVALID if `out_count` is NULL.
 */
cbr_status cbr_refcount(cbr_handle handle, uint32_t *out_count);

/**
 * cbr_is_live says whether a call through this handle is possible now. Another thread may end the
 * callback at any time: only cbr_retain, cbr_enter or the call itself can tell for sure.
 * Threads: any.
 */
bool cbr_is_live(cbr_handle handle);

/**
 * cbr_call calls the callback with its user_data and `arg`. The callback lives, and so does its
 * user_data, until the call returns, whoever unregisters it meanwhile.
 * `out_result`: where the result goes; may be NULL.
 * Threads: any; nested at most 4096 deep on one thread. Not async-signal-safe. A C++ exception,
 * pthread_exit or a cancellation inside the callback passes through, and the call is over; after a
 * longjmp call cbr_unwind_to.
 * Returns: CBR_OK; CBR_ERR_STALE: the callback was not entered; CBR_ERR_CALLBACK or CBR_ERR_PANIC:
 * it ran and said so with cbr_fail, and the result is not written; CBR_ERR_SIGNATURE if it was
 * registered with another signature than CBR_SIG_DEFAULT; CBR_ERR_THREAD on another thread than those
 * of the callback's `home`, CBR_ERR_CLOSED if that queue is gone; CBR_ERR_KIND; CBR_ERR_LIMIT at 4096 nested
 * calls; CBR_ERR_NOMEM or CBR_ERR_SYSTEM at a thread's first use.
 */
cbr_status cbr_call(cbr_handle handle,
                    void *arg,
                    intptr_t *out_result);

/**
 * cbr_enter enters the callback as cbr_call does, and leaves the calling to the host, which can
 * so call a function of any signature: cast `out_pin->fn`, pass `out_pin->user_data` first.
 * `signature`: what the host will call; 0: unchecked.
 * Ownership: the callback and its user_data live until cbr_leave; on this thread, in any order with
 * other pins. A pin that is not left when its thread ends is left then, and logged.
 * Threads: any. Not async-signal-safe.
 * Returns: CBR_OK; CBR_ERR_STALE; CBR_ERR_SIGNATURE; CBR_ERR_KIND; CBR_ERR_THREAD and CBR_ERR_CLOSED as
 * cbr_call; CBR_ERR_CALLBACK or CBR_ERR_PANIC if the scope's attach function has said so with cbr_fail:
 * nothing is entered; CBR_ERR_INVALID if `out_pin` is NULL; CBR_ERR_LIMIT at 4096 nested calls and pins; CBR_ERR_NOMEM or CBR_ERR_SYSTEM at a thread's
 * first use. Then `out_pin` is unchanged.
 */
cbr_status cbr_enter(cbr_handle handle,
                     cbr_signature signature,
                     struct cbr_pin *out_pin);

/**
 * cbr_hold is cbr_enter for a pin that any thread may leave. It costs a shared write, is not part
 * of cbr_depth, and is not released by its thread's end.
 * Ownership: the callback and its user_data live until cbr_leave.
 * Threads: any.
 * Returns: as cbr_enter, but at any nesting; CBR_ERR_LIMIT at 2^30 holds of one callback or 2^28
 * objects; CBR_ERR_NOMEM.
 */
cbr_status cbr_hold(cbr_handle handle, cbr_signature signature, struct cbr_pin *out_pin);

/**
 * cbr_leave ends a pin and zeroes it. If the callback was unregistered meanwhile and this was the
 * last use, destroy runs here.
 * Threads: an entered pin: the thread that entered; a held one: any.
 * Returns: CBR_OK; CBR_ERR_CALLBACK or CBR_ERR_PANIC: left, and the function had said so with
 * cbr_fail; CBR_ERR_STALE if it was left before, or never entered; CBR_ERR_THREAD on another thread
 * than the one that entered; CBR_ERR_INVALID if `pin` is NULL. On the last three nothing changes.
 */
cbr_status cbr_leave(struct cbr_pin *pin);

/**
 * cbr_fail marks the innermost call or pin of this thread as failed: cbr_call, or cbr_leave, will
 * return `status`, and a thunk its fallback. For the wrapper that a language puts around its functions: it catches what must
 * not pass (a panic, an exception) and says so here. The callback's on_error is told at once. Said
 * twice, the last one counts. In a destroy function it is logged, and that is all.
 * `status`: CBR_ERR_CALLBACK or CBR_ERR_PANIC. `message`: why, for cbr_last_error, copied, cut at
 * 511 bytes; may be NULL.
 * Threads: the one that runs the callback.
 * Returns: CBR_OK; CBR_ERR_INVALID for another status or outside of any callback.
 */
cbr_status cbr_fail(cbr_status status,
                    const char *message);

/**
 * cbr_current gives the callback that this thread is inside, the innermost one: of a call or a pin,
 * not of a destroy function. 0 outside.
 * Threads: any; each has its own.
 */
cbr_handle cbr_current(void);

/**
 * cbr_depth says how many calls and entered pins this thread is inside. Note it before a setjmp
 * whose longjmp may leave callbacks, and pass it to cbr_unwind_to.
 * Threads: any; each has its own.
 */
uint32_t cbr_depth(void);

/**
 * cbr_unwind_to releases the calls and pins of this thread above `depth`, after a longjmp has
 * jumped over them; destroy functions that were jumped out of count as run. Pins that were entered
 * before `depth` was noted must not have been left since. Call it from the function that called
 * setjmp, on the stack that was jumped on: the stack tells which destroy functions were left.
 * Threads: the one that jumped.
 * Returns: CBR_OK; CBR_ERR_INVALID if `depth` is greater than cbr_depth().
 */
cbr_status cbr_unwind_to(uint32_t depth);

#if defined(CBR_POINTERS_HAVE_64_BITS)
/**
 * cbr_call_ptr is cbr_call for C interfaces that take a function and a `void *`: give them
 * cbr_call_ptr and CBR_TO_PTR(handle).
 * Threads: as cbr_call.
 * Returns: the callback's result; when it cannot run, or has failed, the callback's fallback, as
 * long as the library remembers it (at least until destroy has run), else 0. cbr_last_error then
 * says why.
 */
intptr_t cbr_call_ptr(void *handle, void *arg);
#endif

#if defined(CBR_POINTERS_HAVE_64_BITS)
/**
 * cbr_release_ptr is cbr_release for such interfaces, as the function that frees their `void *`. A
 * stale handle is nothing to release.
 * Threads: any.
 */
void cbr_release_ptr(void *handle);
#endif

/**
 * cbr_scope_open makes a scope.
 * `name`: for logs, at most 255 bytes of UTF-8, copied; may be NULL.
 * Ownership: to be ended with cbr_scope_close.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_INVALID if `out_scope` is NULL or the name too long or not UTF-8;
 * CBR_ERR_NOMEM; CBR_ERR_LIMIT at 2^28 objects.
 */
cbr_status cbr_scope_open(const char *name, cbr_scope *out_scope);

/**
 * cbr_scope_close ends a scope and everything it owns. In this order: registrations, names and keys
 * are refused (CBR_ERR_CLOSED); its callbacks are revoked, and thunks of them return their
 * fallback; its names and keys go, with their references; calls in flight are awaited and destroy functions run, on the threads that leave last
 * and here; at last that of the thread hooks. CBR_OK means that no code of the scope can run any more,
 * so that its shared object may be unloaded.
 * `timeout_ns`: nanoseconds; -1 waits for ever, 0 does not wait. `out_running`: how many of its
 * callbacks have a destroy function that has not returned, and threads that detach; always written; may
 * be NULL. 0 with CBR_ERR_TIMEOUT: only another thread's cbr_scope_close is not done.
 * Threads: any, several at once. From inside one of its callbacks, of their destroy functions, of its
 * detach function, or of a destroy function that the close itself runs, or while a thread inside one
 * waits, directly or through others, for something that the caller is inside, it returns
 * CBR_ERR_DEADLOCK at once; all the same everything is revoked. Until CBR_OK the scope stays closing,
 * and can be closed again to wait on. An exception or pthread_exit from a destroy function
 * passes through; then close again (CBR_ERR_STALE if it was that of the thread hooks, the last one). A
 * hold (cbr_hold) that nobody leaves is not seen as a deadlock.
 * Returns: CBR_OK: closed, and `scope` is stale from now on; CBR_ERR_TIMEOUT; CBR_ERR_DEADLOCK;
 * CBR_ERR_LIMIT at 4096 nested calls: closing, and to be closed again; CBR_ERR_STALE; CBR_ERR_KIND;
 * CBR_ERR_INVALID for scope 0 or a timeout below -1: nothing has changed.
 */
cbr_status cbr_scope_close(cbr_scope scope,
                           int64_t timeout_ns,
                           size_t *out_running);

/**
 * cbr_scope_drain waits until the destroy function of every callback of the scope that has ended, by
 * cbr_unregister or its last cbr_release, has returned. Callbacks that live are not touched; those that
 * end meanwhile are waited for, too. Scope 0 is the default scope: that takes a look at every callback
 * of the process.
 * `timeout_ns`: nanoseconds; -1 waits for ever, 0 does not wait.
 * Threads: any; destroy functions that nobody is about to run, because a cbr_scope_close was cut short,
 * run here. Inside one that has ended, in a destroy function that a cbr_scope_close of the scope runs,
 * or in a wait that could never end, CBR_ERR_DEADLOCK.
 * Returns: CBR_OK; CBR_ERR_TIMEOUT; CBR_ERR_DEADLOCK; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_INVALID for
 * a timeout below -1.
 */
cbr_status cbr_scope_drain(cbr_scope scope,
                           int64_t timeout_ns);

/**
 * cbr_scope_set_thread_hooks has `attach` run on every thread before its first callback of the scope,
 * by whatever function it is called or entered, and `detach` at that thread's end: what a language's
 * runtime needs to know of threads that it has not made. To be set before the scope's first
 * registration; a scope has one set. Calls of other scopes cost nothing more because of it.
 * `attach`: must not be NULL. `detach`: may be. `user_data`: their first argument.
 * Ownership: `user_data` is the scope's until `destroy` is called with it, once, when cbr_scope_close
 * is about to return CBR_OK; `destroy` may be NULL. On failure `user_data` stays the caller's.
 * Threads: any. Threads that are alive when the scope closes keep their token, and are not detached.
 * Returns: CBR_OK; CBR_ERR_EXISTS after the first registration or a second time; CBR_ERR_NULL;
 * CBR_ERR_INVALID for scope 0; CBR_ERR_CLOSED; CBR_ERR_STALE; CBR_ERR_KIND.
 */
cbr_status cbr_scope_set_thread_hooks(cbr_scope scope,
                                      cbr_thread_attach_fn attach,
                                      cbr_thread_detach_fn detach,
                                      void *user_data,
                                      cbr_destroy_fn destroy);

/**
 * cbr_hook_set_once puts the callback in if there is none: of several, the first wins.
 * Ownership: the hook adds a reference of its own; the caller's stays the caller's.
 * Threads: any, at once with all other functions of the hook.
 * Returns: CBR_OK; CBR_ERR_EXISTS if one is there; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_LIMIT at 2^30
 * references; CBR_ERR_INVALID if `hook` is NULL.
 */
cbr_status cbr_hook_set_once(struct cbr_hook *hook,
                             cbr_handle handle);

/**
 * cbr_hook_swap puts the callback in, or none if `handle` is 0, whatever is there. A call that meets
 * it runs the old callback or the new one.
 * Ownership: the hook adds a reference of its own. `out_old`: the callback that was there, with the
 * hook's reference, which is the caller's now; 0 if there was none or it is gone. NULL: that reference
 * is released.
 * Threads: any, also inside the callback that is swapped.
 * Returns: CBR_OK; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_LIMIT at 2^30 references; CBR_ERR_INVALID if
 * `hook` is NULL.
 */
cbr_status cbr_hook_swap(struct cbr_hook *hook,
                         cbr_handle handle,
                         cbr_handle *out_old);

/**
 * cbr_hook_call calls what is in the hook, as cbr_call. Lock-free.
 * Threads: any.
 * Returns: what cbr_call returns, but CBR_ERR_NOT_FOUND if there is no callback, or it is gone;
 * CBR_ERR_INVALID if `hook` is NULL.
 */
cbr_status cbr_hook_call(struct cbr_hook *hook, void *arg, intptr_t *out_result);

/**
 * cbr_name_bind gives the callback a name in the scope. The name goes when it is unbound, when the scope
 * closes, or when the callback ends. (cbr_callback_options.name is another one, for logs.)
 * `name`: 1 to 255 bytes of UTF-8, copied. `mode`: CBR_BIND_ONCE or CBR_BIND_REPLACE.
 * Ownership: the name adds a reference of its own. That of a replaced callback is released.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_EXISTS; CBR_ERR_STALE or CBR_ERR_KIND for the handle or the scope;
 * CBR_ERR_CLOSED; CBR_ERR_INVALID; CBR_ERR_LIMIT at 2^30 references; CBR_ERR_NOMEM.
 */
cbr_status cbr_name_bind(cbr_scope scope,
                         const char *name,
                         cbr_handle handle,
                         uint32_t mode);

/**
 * cbr_name_find gives the callback of that name: a weak handle, to be retained or called.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_NOT_FOUND; CBR_ERR_STALE or CBR_ERR_KIND for the scope; CBR_ERR_INVALID for
 * the name or if `out_handle` is NULL.
 */
cbr_status cbr_name_find(cbr_scope scope,
                         const char *name,
                         cbr_handle *out_handle);

/**
 * cbr_name_unbind takes the name away.
 * Ownership: the name's reference is released.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_NOT_FOUND; CBR_ERR_STALE or CBR_ERR_KIND for the scope; CBR_ERR_INVALID for
 * the name.
 */
cbr_status cbr_name_unbind(cbr_scope scope,
                           const char *name);

/**
 * cbr_key_attach attaches the callback to a key, such as a connection's address or file descriptor, and
 * one of its events, in the scope. One callback a key and event. It goes when it is detached, when the
 * scope closes, or when the callback ends.
 * `mode`: CBR_BIND_ONCE or CBR_BIND_REPLACE.
 * Ownership: the key adds a reference of its own. That of a replaced callback is released.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_EXISTS; CBR_ERR_STALE or CBR_ERR_KIND for the handle or the scope;
 * CBR_ERR_CLOSED; CBR_ERR_INVALID for the mode; CBR_ERR_LIMIT at 2^30 references; CBR_ERR_NOMEM.
 */
cbr_status cbr_key_attach(cbr_scope scope,
                          uintptr_t key,
                          uint32_t event,
                          cbr_handle handle,
                          uint32_t mode);

/**
 * cbr_key_find gives the callback of that key and event: a weak handle, to be retained or called.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_NOT_FOUND; CBR_ERR_STALE or CBR_ERR_KIND for the scope; CBR_ERR_INVALID if
 * `out_handle` is NULL.
 */
cbr_status cbr_key_find(cbr_scope scope,
                        uintptr_t key,
                        uint32_t event,
                        cbr_handle *out_handle);

/**
 * cbr_key_call calls the callback of that key and event, as cbr_call. A call that meets a replacement
 * runs the old callback or the new one. What a thread has called before it finds without a lock.
 * Threads: any.
 * Returns: what cbr_call returns, but CBR_ERR_NOT_FOUND if there is no callback, or it is gone;
 * CBR_ERR_STALE or CBR_ERR_KIND for the scope.
 */
cbr_status cbr_key_call(cbr_scope scope,
                        uintptr_t key,
                        uint32_t event,
                        void *arg,
                        intptr_t *out_result);

/**
 * cbr_key_detach detaches the callback of that key and event.
 * Ownership: the key's reference is released.
 * Threads: any, also inside the callback.
 * Returns: CBR_OK; CBR_ERR_NOT_FOUND; CBR_ERR_STALE or CBR_ERR_KIND for the scope.
 */
cbr_status cbr_key_detach(cbr_scope scope, uintptr_t key, uint32_t event);

/**
 * cbr_key_detach_all detaches the callbacks of all events of a key: the connection is gone. It revokes
 * nothing: a callback that others own lives on.
 * `out_count`: how many there were; may be NULL.
 * Ownership: the key's references are released.
 * Threads: any, also inside one of the callbacks.
 * Returns: CBR_OK, also if there were none; CBR_ERR_STALE or CBR_ERR_KIND for the scope.
 */
cbr_status cbr_key_detach_all(cbr_scope scope,
                              uintptr_t key,
                              size_t *out_count);

/**
 * cbr_queue_open makes a queue.
 * `options`: copied; NULL: all defaults.
 * Ownership: to be ended with cbr_queue_close, or with its scope. A queue takes one descriptor of the
 * process, an eventfd. In the child of a fork every queue of the parent gives CBR_ERR_CLOSED.
 * Threads: any; of a CBR_QUEUE_OWNED queue the calling thread is the owner.
 * Returns: CBR_OK; CBR_ERR_INVALID for an unknown policy or flag, a wrong `size`, a name that is too
 * long or not UTF-8, or if `out_queue` is NULL; CBR_ERR_UNSUPPORTED for a field of a later version;
 * CBR_ERR_CLOSED, CBR_ERR_STALE or CBR_ERR_KIND for the scope; CBR_ERR_SYSTEM if the process may open
 * no more descriptors; CBR_ERR_NOMEM; CBR_ERR_LIMIT at 2^32 events or 2^28 objects.
 */
cbr_status cbr_queue_open(const struct cbr_queue_options *options,
                          cbr_queue *out_queue);

/**
 * cbr_queue_adopt makes the calling thread the owner of a CBR_QUEUE_OWNED queue, and so of the callbacks
 * whose home it is. For a loop that was opened on one thread and runs on another.
 * Threads: the one that will dispatch; not while another one does.
 * Returns: CBR_OK; CBR_ERR_INVALID if the queue is not CBR_QUEUE_OWNED; CBR_ERR_CLOSED; CBR_ERR_STALE;
 * CBR_ERR_KIND.
 */
cbr_status cbr_queue_adopt(cbr_queue queue);

/**
 * cbr_queue_close closes a queue: posts are refused (CBR_ERR_CLOSED), everybody who waits to post is
 * woken, and its descriptors stay readable.
 * `mode`: CBR_CLOSE_DRAIN: what waits is still dispatched, then dispatches give CBR_ERR_CLOSED.
 * CBR_CLOSE_DISCARD: it is dropped, here: payloads are freed, destroy functions that wait run, who waits
 * in cbr_call_on gets CBR_ERR_CLOSED.
 * Ownership: the queue's memory goes when nobody is inside a function of it any more.
 * Threads: any, also inside a callback that the queue dispatches.
 * Returns: CBR_OK; CBR_ERR_CLOSED if it is closed, or draining and `mode` is CBR_CLOSE_DRAIN;
 * CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_INVALID for another mode.
 */
cbr_status cbr_queue_close(cbr_queue queue,
                           uint32_t mode);

/**
 * cbr_post has the callback called with a copy of the payload by whoever dispatches the queue. Events of
 * one thread stay in order.
 * `queue`: 0: the callback's home. `data`, `len`: copied; up to 40 bytes without an allocation. The
 * callback's `arg` points to the copy, aligned for any type, and is NULL if `len` is 0.
 * Ownership: the event owns a reference of the callback until it has been dispatched or dropped.
 * Threads: any. On a full CBR_QUEUE_BLOCK queue it waits. What CBR_QUEUE_DROP_OLDEST and
 * CBR_QUEUE_COALESCE displace is freed here.
 * Returns: CBR_OK; CBR_ERR_FULL; CBR_ERR_CLOSED; CBR_ERR_STALE or CBR_ERR_KIND for queue or callback (a
 * queue that was closed long ago is stale); CBR_ERR_SIGNATURE if the callback has not the default one;
 * CBR_ERR_THREAD if the queue is not the callback's home; CBR_ERR_DEADLOCK if the queue is full and only
 * the calling thread dispatches it, or the wait could never end; CBR_ERR_INVALID if `data` is NULL and
 * `len` is not 0, or for queue 0 without a home; CBR_ERR_LIMIT; CBR_ERR_NOMEM.
 */
cbr_status cbr_post(cbr_queue queue,
                    cbr_handle handle,
                    const void *data,
                    size_t len);

/**
 * cbr_post_with is cbr_post with everything else that can be said of an event.
 * Ownership: with `free_data`, `data` is the event's once the post is accepted; when it fails it stays
 * the caller's.
 * Threads: any.
 * Returns: as cbr_post; CBR_ERR_TIMEOUT; CBR_ERR_CLOSED, CBR_ERR_STALE or CBR_ERR_KIND also for the
 * owner; CBR_ERR_INVALID also if `options` is NULL, its size wrong, or the timeout below -1;
 * CBR_ERR_UNSUPPORTED for a field of a later version.
 */
cbr_status cbr_post_with(const struct cbr_post_options *options);

/**
 * cbr_call_on runs the callback on the thread that dispatches the queue, and brings its result. On that
 * thread itself it runs at once.
 * `arg`: the callback's; it may be on the caller's stack. `timeout_ns`: how long to wait for the
 * beginning: -1 for ever; 0: not at all. Once begun it is waited for to the end. `out_result`: may be
 * NULL.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_TIMEOUT: it has not run, and never will; CBR_ERR_CLOSED: the queue was
 * closed before it began; CBR_ERR_FULL: the queue is full, or has dropped it; CBR_ERR_DEADLOCK: the
 * dispatching thread waits, directly or through others, for this one; CBR_ERR_CALLBACK or CBR_ERR_PANIC:
 * it ran and said so (or an exception has left it); CBR_ERR_STALE: the callback is gone, or was when its
 * turn came; else as cbr_post. The result is written on CBR_OK only.
 */
cbr_status cbr_call_on(cbr_queue queue,
                       cbr_handle handle,
                       void *arg,
                       int64_t timeout_ns,
                       intptr_t *out_result);

/**
 * cbr_queue_dispatch calls the callbacks of the events that wait, one after the other, and runs the
 * destroy functions that have come to the queue; those count as events.
 * `max`: at most so many; 0: what is there now. `timeout_ns`: how long to wait for the first one; -1 for
 * ever, 0 not at all. `out_dispatched`: how many; always written; may be NULL. A callback that has
 * failed, or was gone, counts.
 * A call that may wait, by a thread that keeps up with other threads' posts (it has not had to sleep in
 * its last dispatch of this queue), lets events gather for up to 10 us if fewer than 16 are there.
 * Threads: any, several at once; of a CBR_QUEUE_OWNED queue its owner alone. Also inside a callback that
 * it has called. An exception or pthread_exit passes through, and the event is over.
 * Returns: CBR_OK: one or more; CBR_ERR_EMPTY: none, and timeout 0; CBR_ERR_TIMEOUT; CBR_ERR_CLOSED:
 * closed, and nothing is left: stop; CBR_ERR_STALE: the same, later, or never a queue; CBR_ERR_KIND;
 * CBR_ERR_THREAD; CBR_ERR_INVALID for a timeout below -1; CBR_ERR_LIMIT at 4096 nested calls;
 * CBR_ERR_NOMEM.
 */
cbr_status cbr_queue_dispatch(cbr_queue queue,
                              size_t max,
                              int64_t timeout_ns,
                              size_t *out_dispatched);

/**
 * cbr_queue_select waits until one of the queues has something to dispatch, or is closed. Of several
 * that do, it does not always name the same.
 * `queues`, `count`: at least one. `timeout_ns`: -1 waits for ever, 0 does not wait. `out_index`: which.
 * Threads: any; of CBR_QUEUE_OWNED queues the owner.
 * Returns: CBR_OK; CBR_ERR_EMPTY: none, and timeout 0; CBR_ERR_TIMEOUT; CBR_ERR_THREAD; CBR_ERR_KIND;
 * CBR_ERR_INVALID if `queues` or `out_index` is NULL, `count` is 0, or for a timeout below -1;
 * CBR_ERR_LIMIT at 4096 queues and calls; CBR_ERR_NOMEM.
 */
cbr_status cbr_queue_select(const cbr_queue *queues,
                            size_t count,
                            int64_t timeout_ns,
                            size_t *out_index);

/**
 * cbr_queue_fd gives a descriptor for an event loop of the host's: readable while events wait, and for
 * ever once the queue is closed. Poll it, and call cbr_queue_dispatch with timeout 0 when it is readable;
 * do not read it. That is for level-triggered polling. Where it is edge-triggered (EPOLLET), look after each
 * CBR_ERR_EMPTY with poll(2) whether it is readable still, and then dispatch again: a post that finds it
 * readable makes no new edge.
 * Ownership: a duplicate (close-on-exec) that the caller closes, also after the queue was closed.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_SYSTEM if the process may open no more; CBR_ERR_CLOSED; CBR_ERR_STALE;
 * CBR_ERR_KIND; CBR_ERR_INVALID if `out_fd` is NULL.
 */
cbr_status cbr_queue_fd(cbr_queue queue,
                        int *out_fd);

/**
 * cbr_queue_len says how many events wait; it may have changed already.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_CLOSED; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_INVALID if `out_len` is NULL.
 */
cbr_status cbr_queue_len(cbr_queue queue,
                         size_t *out_len);

/**
 * cbr_current_event describes the event that the calling thread's innermost callback is called for.
 * Ownership: the library's, until that callback returns.
 * Threads: the one that runs the callback.
 * Returns: NULL outside of callbacks, and in one that was called otherwise.
 */
const struct cbr_event *cbr_current_event(void);

/**
 * cbr_thunk_open makes a function of the signature, without the leading `user_data`: cast `*out_fn` to
 * what `signature` says and call it, or give it to who will. It calls the callback, with its user_data
 * before the arguments, as cbr_call does: the callback and its user_data live until the call returns,
 * and an exception, pthread_exit or a cancellation passes through. When the callback cannot run (it is
 * gone; it failed with cbr_fail; it belongs to another thread; 4096 calls are nested), and after
 * cbr_thunk_close, the function returns the callback's fallback, whatever thread calls it, as long as the
 * process lives; cbr_last_error then says why. Calls that no callback got are counted, and the first,
 * second, fourth and so on of each thunk are logged with the callback's name.
 * `flags`: 0 or CBR_THUNK_PERMANENT.
 * Ownership: the thunk adds a reference of its own, until cbr_thunk_close or cbr_thunk_retarget, and
 * copies the fallback. The thunk is the caller's to close, whatever becomes of the callback or its scope.
 * Threads: any; so for the function, which is not async-signal-safe: in a signal handler it must not run
 * (have the handler write to a pipe, or set a flag, and call it from there).
 * Returns: CBR_OK; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_SIGNATURE if the callback was registered with
 * another signature; CBR_ERR_INVALID if `signature` is none, a flag is unknown, or `out_fn` or
 * `out_thunk` is NULL; CBR_ERR_LIMIT at 2^30 references, 2^28 thunks or 2^15 signatures; CBR_ERR_NOMEM;
 * CBR_ERR_SYSTEM if the library's code cannot be mapped again for more thunks.
 */
cbr_status cbr_thunk_open(cbr_handle handle,
                          cbr_signature signature,
                          uint32_t flags,
                          cbr_any_fn *out_fn,
                          cbr_thunk *out_thunk);

/**
 * cbr_thunk_retarget has the thunk carry another callback of the same signature, and return that one's
 * fallback. A call that meets it runs the old callback or the new one; if that one cannot, it returns
 * either's fallback.
 * Ownership: the thunk adds a reference of the new callback and releases that of the old one.
 * Threads: any, also inside a call of the thunk, which goes on with the old callback.
 * Returns: CBR_OK; CBR_ERR_STALE if the thunk or the callback is gone; CBR_ERR_KIND;
 * CBR_ERR_SIGNATURE; CBR_ERR_LIMIT at 2^30 references.
 */
cbr_status cbr_thunk_retarget(cbr_thunk thunk,
                              cbr_handle handle);

/**
 * cbr_thunk_close has the function return its fallback from now on. Its address serves another thunk
 * only of the same signature, and only after 4,096 more thunks of that signature have been closed; with
 * CBR_THUNK_PERMANENT never. So long, calling it is harmless.
 * Ownership: the thunk's reference of its callback is released.
 * Threads: any, also inside a call of the thunk; calls in flight finish.
 * Returns: CBR_OK; CBR_ERR_STALE if it is closed already; CBR_ERR_KIND.
 */
cbr_status cbr_thunk_close(cbr_thunk thunk);

/**
 * cbr_set_check sets how much is checked from now on, also for callbacks that were registered before.
 * `level`: 0: handles only; the signature that is given to cbr_enter and cbr_hold is not compared.
 * 1: the default. 2: also, whether functions that are registered are code (CBR_ERR_INVALID), and how
 * long calls (not pins) take: from CALLBRIDGE_SLOW_MS
 * milliseconds on (default 100) the callback is logged by name; and where each callback is registered is
 * noted, for cbr_report. Level 2 makes calls slower; back at
 * level 1 they are as before.
 * The environment variable CALLBRIDGE_CHECK sets the level at the first use of the library.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_INVALID for another level.
 */
cbr_status cbr_set_check(uint32_t level);

/**
 * cbr_stats_get fills `out_stats` with the numbers of `scope`, or, if that is 0, of the process. Takes a
 * look at every callback and every thread; calls go on as fast as ever.
 * `out_stats`: its `size` is to be set; at most so many bytes are written, and `size` says how many.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_STALE if the scope is gone; CBR_ERR_KIND; CBR_ERR_INVALID if `out_stats` is
 * NULL or its `size` too small; CBR_ERR_NOMEM.
 */
cbr_status cbr_stats_get(cbr_scope scope,
                         struct cbr_stats *out_stats);

/**
 * cbr_callback_info_get describes a callback that lives.
 * `out_info`: as `out_stats` of cbr_stats_get.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_STALE; CBR_ERR_KIND; CBR_ERR_INVALID if `out_info` is NULL or its `size` too
 * small; CBR_ERR_LIMIT at 4096 nested calls.
 */
cbr_status cbr_callback_info_get(cbr_handle handle,
                                 struct cbr_callback_info *out_info);

/**
 * cbr_report writes a table of the live callbacks of `scope`, or, if that is 0, of the process, for
 * people: handle, name, scope, references, calls that are inside, calls and failures, age, function, and
 * where it was registered. "-" is what is not known: the age of a callback that was registered with nothing
 * but a function, its data and a destroy function, and where, unless the check level was 2 (cbr_set_check) or
 * its stack recorded (cbr_profile).
 * Its words may change with any version. The program callbridge-top shows the same of a running process, if
 * the environment variable CALLBRIDGE_STATS_SOCKET was set at its first use of the library.
 * `write`: gets the text, in one piece or several; may use the library.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_NULL if `write` is NULL; CBR_ERR_STALE if the scope is gone; CBR_ERR_KIND;
 * CBR_ERR_NOMEM: nothing was written.
 */
cbr_status cbr_report(cbr_scope scope,
                      cbr_write_fn write,
                      void *user_data);

/**
 * cbr_metrics writes the metrics of the process, or, if `scope` is not 0, of a scope, as OpenMetrics text
 * 1.0. A server answers with it under the content type
 * "application/openmetrics-text; version=1.0.0; charset=utf-8". Calls go on as fast as ever.
 * Queues of one name are one series, and those that are gone stay in what it has counted: nothing that
 * counts goes back. After 256 names, new ones are counted under "other". The metrics of a scope have its
 * name as the label "scope", and only those marked with (scope) below; those of the process have no such
 * label. In a scope, a series is gone with the last queue or callback of its name.
 * - callbridge_build_info{version}, info: The version of the library.
 * - callbridge_callbacks_live, gauge (scope): Callbacks that can be called now.
 * - callbridge_callbacks_registered_total, counter (scope): Callbacks that were ever registered.
 * - callbridge_callbacks_destroyed_total, counter (scope): Callbacks whose end is complete.
 * - callbridge_destroys_pending, gauge (scope): Callbacks that have ended, and whose destroy functions
 *   have not returned.
 * - callbridge_calls_total, counter: Calls, dispatches, pins and holds that have entered a callback.
 * - callbridge_calls_in_flight, gauge (scope): Calls, pins and holds inside a callback now; not in the
 *   log's sink or a call hook.
 * - callbridge_failures_total{status}, counter: Calls that the callback has marked as failed, and calls
 *   that were refused, by status; stale ones apart.
 * - callbridge_stale_calls_total, counter: Calls that found their callback gone.
 * - callbridge_threads, gauge (scope): Threads that use the library; of a scope: that are inside one of
 *   its callbacks now.
 * - callbridge_thunks_open, gauge: Thunks that are open.
 * - callbridge_thunk_stale_calls_total, counter: Calls of thunks that returned the fallback, because
 *   the callback was gone or the thunk closed.
 * - callbridge_queues_open{queue}, gauge (scope): Queues of that name that are there.
 * - callbridge_queue_depth{queue}, gauge (scope): Events that wait in queues of that name.
 * - callbridge_queue_capacity{queue}, gauge (scope): Events that queues of that name have room for.
 * - callbridge_queue_posted_total{queue}, counter (scope): Events that were put into queues of that
 *   name.
 * - callbridge_queue_dispatched_total{queue}, counter (scope): Events that dispatchers have taken out.
 * - callbridge_queue_dropped_total{queue}, counter (scope): Events that were accepted and not
 *   delivered: displaced by others, or left when the queue or their owner closed.
 * - callbridge_queue_refused_total{queue}, counter (scope): Posts that failed because the queue was
 *   full.
 * - callbridge_queue_blocked_total{queue}, counter (scope): Posts that have waited for room.
 * - callbridge_dispatch_latency_seconds{queue}, histogram in seconds (scope): From the post to the
 *   dispatch, of events of CBR_METERED callbacks.
 * - callbridge_callback_calls_total{callback}, counter (scope): Calls, dispatches, pins and holds that
 *   have entered CBR_METERED callbacks of that name.
 * - callbridge_callback_failures_total{callback}, counter (scope): Calls and pins that CBR_METERED
 *   callbacks of that name have marked as failed.
 * - callbridge_call_duration_seconds{callback}, histogram in seconds (scope): How long calls of
 *   CBR_METERED callbacks of that name took; not pins and holds.
 *
 * `write`: gets the text, in one piece or several; may use the library.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_NULL if `write` is NULL; CBR_ERR_STALE if the scope is gone; CBR_ERR_KIND;
 * CBR_ERR_NOMEM: nothing was written.
 */
cbr_status cbr_metrics(cbr_scope scope,
                       cbr_write_fn write,
                       void *user_data);

/**
 * cbr_profile writes a profile of the live callbacks of `scope`, or, if that is 0, of the process, by the
 * stacks that they were registered by: in the format of pprof, gzipped, for `go tool pprof`, speedscope and
 * others. A sample has the number of callbacks and the bytes of what the library keeps of them beside their
 * slots of 64 bytes (their cold data); its labels, `callback` and `scope`, are the names that they have.
 * Stacks are recorded of callbacks that are registered while the environment variable CALLBRIDGE_STACKS, or
 * CALLBRIDGE_LEAK_CHECK, is set as below; at level 2 (cbr_set_check), the place alone. Others are counted under
 * "[stack not recorded]".
 * Functions have the names that they have in the symbol tables of program and libraries as they are now.
 * Environment, read at the first use of the library: CALLBRIDGE_STACKS=1 has the stack of every registration
 * recorded, up to 32 frames, at some microseconds each; 65,536 different stacks at most, further ones are left
 * out. CALLBRIDGE_LEAK_CHECK=1 has it recorded too (unless CALLBRIDGE_STACKS=0), and at the end of the process
 * what is live is written to stderr: callbacks by the stacks that they were registered by, scopes,
 * queues, thunks that are not CBR_THUNK_PERMANENT, holds. That is when it exits by exit or the return of main,
 * after all handlers of atexit and destructors of C++ and of shared objects that use the library; not in
 * the child of a fork that came after the first use, and not at _exit, quick_exit, or a signal.
 * CALLBRIDGE_LEAK_CHECK=exit:CODE does the same, and if something is live the process exits with CODE, 1 to 255.
 * `write`: gets the profile, in one piece or several; may use the library.
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_NULL if `write` is NULL; CBR_ERR_STALE if the scope is gone; CBR_ERR_KIND;
 * CBR_ERR_NOMEM: nothing was written; CBR_ERR_SYSTEM at a thread's first use.
 */
cbr_status cbr_profile(cbr_scope scope,
                       cbr_write_fn write,
                       void *user_data);

/**
 * cbr_trace_set sets the trace context of the calling thread: the request that it works for, as the
 * HTTP header traceparent of W3C Trace Context has it. An event that is posted (cbr_post, cbr_post_with,
 * cbr_call_on) takes it along, and its callback runs under it, on whatever thread: there cbr_trace_get
 * gives it, and what the callback posts takes it further. An event without one has its callback run
 * without one. Afterwards the dispatching thread has its own again.
 * `traceparent`: copied, and kept as it is; NULL: none from now on. Version 00: 55 characters,
 * "00-" 32 "-" 16 "-" 2 digits, hexadecimal in lower case, trace-id and parent-id not all zero. Of a later
 * version, not ff, the first 55 characters are right and the last, or "-" and what is not looked at
 * follows (printable ASCII); 255 at most. The library passes it on and changes nothing in it.
 * Holds until it is set again; in a callback that a dispatch has called, until that returns at the
 * latest. (A callback that was called otherwise shares the context of its caller.)
 * Threads: any; each has its own. Posts and dispatches without a context cost nothing more. With one, an
 * event has room for 32 bytes without an allocation.
 * Returns: CBR_OK; CBR_ERR_INVALID if it is not a traceparent, with words; CBR_ERR_NOMEM.
 */
cbr_status cbr_trace_set(const char *traceparent);

/**
 * cbr_trace_get writes the trace context of the calling thread, cut to `len` bytes and NUL-terminated.
 * `buf` may be NULL if `len` is 0.
 * Threads: any; each has its own.
 * Returns: the length needed without the NUL, like snprintf; 0: there is none.
 */
size_t cbr_trace_get(char *buf,
                     size_t len);

/**
 * cbr_set_call_hooks has `begin` and `end` told of every call in the process from now on, in place of those
 * before: for a tracer. Calls are those of cbr_call, cbr_call_ptr, cbr_hook_call, cbr_key_call and
 * cbr_call_on, dispatched events, thunks, and entered pins, from cbr_enter to cbr_leave. Not held pins, destroy
 * functions, on_error and thread hooks; not calls that are refused; not those that run already.
 * Every begin that has returned has one end, with the same `user_data`, whoever takes the hooks' place
 * meanwhile. They are called on the thread of the call, inside it (cbr_current, cbr_depth and
 * cbr_current_event are the callback's), and may use the library: calls that they make are not told, and
 * cbr_last_error is afterwards what it was before.
 * An exception, pthread_exit or a cancellation out of `begin` passes through, and the callback is not called,
 * nor `end`; out of `end` it passes through after the callback has run, but ends the process if the call is
 * being left by another one. After a longjmp out of either, call cbr_unwind_to with a depth from before the
 * call, or the pin. What they say with cbr_fail is logged, and that is all.
 * Without memory, or at 4,096 nested calls and some 60 destroy functions, a call may not be told.
 * Either may be NULL; with both NULL nobody is told from now on, and the other arguments are not looked at.
 * `owner`: the scope whose code they are: closing it removes them, and waits until no call is inside them;
 * inside a call that they were told of it gives CBR_ERR_DEADLOCK. 0: nobody's.
 * Calls cost nothing more while there are no hooks; setting the first and removing the last ones takes a
 * look at every callback.
 * Ownership: as cbr_register: `destroy` runs exactly once, when others have taken the hooks' place or the
 * owner is closed, and the last call that they were told of is over. The hooks count as a callback in
 * statistics and reports, with the name "cbr_set_call_hooks".
 * Threads: any, also inside the hooks.
 * Returns: CBR_OK; CBR_ERR_INVALID, with cbr_set_check(2), for a function that is no code; CBR_ERR_CLOSED,
 * CBR_ERR_STALE or CBR_ERR_KIND for the owner; CBR_ERR_LIMIT at 2^28 objects; CBR_ERR_NOMEM. Then the hooks
 * before stay.
 */
cbr_status cbr_set_call_hooks(cbr_call_begin_fn begin,
                              cbr_call_end_fn end,
                              void *user_data,
                              cbr_destroy_fn destroy,
                              cbr_scope owner);

/**
 * cbr_log_to has the log's lines of up to `level` go to `fn` from now on, in place of the sink before;
 * other threads may be in the middle of a line for that one. Beside it, lines still go to stderr, if
 * CALLBRIDGE_LOG or cbr_log_to_stderr says so. There is a warning for whatever is refused because the host
 * has done something wrong, with the callback's name; the first, second, fourth and so on of each callback
 * and reason, and 100 a second at most. (Of a callback that is gone the name is known if it ended lately,
 * and somebody was listening.) Nobody listens at first, and then nothing is formatted.
 * `fn` NULL: no sink from now on; `user_data` and `destroy` are not looked at.
 * `level`: CBR_LOG_OFF to CBR_LOG_TRACE.
 * `owner`: the scope whose code `fn` is: closing it ends the sink, and waits for it. 0: nobody's.
 * Ownership: as cbr_register: `destroy` runs exactly once, when another sink has taken the place or the
 * owner is closed, and nobody is inside `fn`. The sink counts as a callback in statistics and reports, with
 * the name "cbr_log_to"; its lines do not count as calls.
 * Threads: any, also inside the sink.
 * Returns: CBR_OK; CBR_ERR_INVALID for another level, or, with cbr_set_check(2), a function that is no
 * code; CBR_ERR_CLOSED, CBR_ERR_STALE or CBR_ERR_KIND for the owner; CBR_ERR_LIMIT at 2^28 objects;
 * CBR_ERR_NOMEM.
 */
cbr_status cbr_log_to(cbr_log_fn fn,
                      void *user_data,
                      cbr_destroy_fn destroy,
                      cbr_scope owner,
                      uint32_t level);

/**
 * cbr_log_to_stderr prints the log to stderr from now on, as far as `filter` lets it through, beside the
 * sink of cbr_log_to. Each different filter takes some memory that stays.
 * `filter`: env_logger's syntax, such as "warn", "callbridge=debug" or "off"; copied. NULL: as the variable
 * CALLBRIDGE_LOG says, and "warn" if it is not set or empty. (With the variable the log is printed from the
 * library's first use on.)
 * Threads: any.
 * Returns: CBR_OK; CBR_ERR_INVALID if the filter is not UTF-8, of another syntax, or longer than 1,500
 * bytes: the one before stays; CBR_ERR_EXISTS in a Rust program that has a logger of its own, where the lines
 * go; CBR_ERR_NOMEM.
 */
cbr_status cbr_log_to_stderr(const char *filter);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CALLBRIDGE_H */
