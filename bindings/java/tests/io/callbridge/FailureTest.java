package io.callbridge;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;

/** Exceptions stay where they were thrown, and everybody who should know is told. */
final class FailureTest {
  private FailureTest() {}

  private static String panicOf(Callback callback) {
    try (CallbackRef ref = CallbackRef.register(callback);
        NativeThread thread = new NativeThread("c")) {
      Host.Answer answer = thread.call(ref.handle(), 7);
      Check.equal(Status.PANIC, answer.status(), "status");
      Check.equal(0L, answer.result(), "a result that is not written");
      // The same again: an exception leaves nothing behind.
      Check.equal(answer, thread.call(ref.handle(), 7), "the second call");
      Check.equal(answer, Host.call(ref.handle(), 7), "the call on a Java thread");
      return answer.words();
    }
  }

  private static final class Mute extends RuntimeException {
    private static final long serialVersionUID = 1L;

    @Override
    public String getMessage() {
      throw new UnsupportedOperationException("no comment");
    }
  }

  private static long recurse(long arg) {
    return recurse(arg + 1) + 1;
  }

  @Test
  static void theCallerGetsClassAndMessage() {
    Check.contains(
        "java.io.IOException: disk 7 is gone",
        panicOf(
            arg -> {
              throw new java.io.IOException("disk " + arg + " is gone");
            }));
  }

  @Test
  static void anythingThrownIsContained() {
    Check.contains("java.lang.StackOverflowError", panicOf(FailureTest::recurse));
    Check.contains(
        "java.lang.AssertionError",
        panicOf(
            arg -> {
              throw new AssertionError();
            }));
    Check.contains(
        "its message has thrown java.lang.UnsupportedOperationException",
        panicOf(
            arg -> {
              throw new Mute();
            }));
  }

  @Test
  static void endlessRecursionThroughCEnds() {
    AtomicReference<CallbackRef> self = new AtomicReference<>();
    AtomicLong depth = new AtomicLong();
    try (CallbackRef ref =
        CallbackRef.register(
            arg -> {
              depth.incrementAndGet();
              Host.Answer answer = Host.call(self.get().handle(), arg);
              // The innermost one that is refused: out of stack, or at the library's limit.
              return answer.status() == Status.OK ? answer.result() : answer.status().code();
            })) {
      self.set(ref);
      Host.Answer answer = Host.call(ref.handle(), 0);
      Check.that(depth.get() > 10, "depth " + depth);
      Check.that(
          answer.status() == Status.PANIC || answer.result() == Status.PANIC.code()
              || answer.result() == Status.LIMIT.code(),
          "answer " + answer);
    }
  }

  @Test
  static void messagesAreUtf8AndCutBetweenCharacters() {
    Check.contains(
        "z\u00fcrnt \ud83d\ude21",
        panicOf(
            arg -> {
              throw new RuntimeException("z\u00fcrnt \ud83d\ude21");
            }));
    Check.contains(
        "before after",
        panicOf(
            arg -> {
              throw new RuntimeException("before\0after");
            }));
    String words =
        panicOf(
            arg -> {
              throw new RuntimeException("\ud83d\ude21".repeat(1000));
            });
    Check.contains("\ud83d\ude21".repeat(100), words);
    Check.that(words.indexOf('\ufffd') < 0 && words.indexOf('?') < 0, "half a character in <" + words + ">");
  }

  /** A thread without Java frames has nobody who would free what is left behind: -Xcheck:jni counts it. */
  @Test
  static void manyFailuresLeaveNothingOnANativeThread() {
    long[] told = new long[1];
    CallbackOptions options = new CallbackOptions().onError((handle, status, message) -> told[0]++);
    try (CallbackRef ref =
            CallbackRef.register(
                arg -> {
                  throw new IllegalStateException();
                },
                options);
        NativeThread thread = new NativeThread("c")) {
      for (int i = 0; i < 1000; i++) {
        Check.equal(Status.PANIC, thread.call(ref.handle(), 0).status(), "status");
      }
    }
    Check.equal(1000L, told[0], "failures");
  }

  @Test
  static void javaGetsTheExceptionAsCause() {
    RuntimeException thrown = new RuntimeException("why");
    try (CallbackRef ref =
        CallbackRef.register(
            arg -> {
              throw thrown;
            })) {
      CallbridgeException it = Check.fails(Status.PANIC, () -> ref.call(0));
      Check.that(it.getCause() == thrown, "the cause is what was thrown");
      Check.contains("java.lang.RuntimeException: why", it.getMessage());
    }
  }

  @Test
  static void whatCHasHandledIsNoCause() {
    RuntimeException inner = new RuntimeException("inner");
    RuntimeException outer = new RuntimeException("outer");
    try (CallbackRef fails =
            CallbackRef.register(
                arg -> {
                  throw inner;
                });
        CallbackRef goesOn = CallbackRef.register(arg -> Host.call(fails.handle(), arg).status().code());
        CallbackRef failsToo =
            CallbackRef.register(
                arg -> {
                  Host.call(fails.handle(), arg);
                  throw outer;
                });
        CallbackRef passesOn = CallbackRef.register(fails::call)) {
      Check.equal((long) Status.PANIC.code(), goesOn.call(0), "the outer call has succeeded");
      Check.that(Check.fails(Status.PANIC, () -> failsToo.call(0)).getCause() == outer, "the outer one's own");
      Throwable chain = Check.fails(Status.PANIC, () -> passesOn.call(0)).getCause();
      Check.that(chain instanceof CallbridgeException && chain.getCause() == inner, "a chain of causes");
    }
  }

  @Test
  static void theListenerIsTold() {
    List<String> told = new ArrayList<>();
    CallbackOptions options =
        new CallbackOptions()
            .name("fails")
            .onError((handle, status, message) -> told.add(handle + " " + status + " " + message));
    try (CallbackRef ref =
            CallbackRef.register(
                arg -> {
                  throw new IllegalStateException("no. " + arg);
                },
                options);
        NativeThread thread = new NativeThread("c")) {
      thread.call(ref.handle(), 1);
      Host.call(ref.handle(), 2);
      String prefix = ref.handle() + " PANIC java.lang.IllegalStateException: no. ";
      Check.equal(List.of(prefix + 1, prefix + 2), told, "what it was told");
    }
  }

  @Test
  static void aListenersOwnExceptionChangesNothing() {
    CallbackOptions options =
        new CallbackOptions()
            .onError(
                (handle, status, message) -> {
                  throw new IllegalStateException("the listener's");
                });
    try (CallbackRef ref =
        CallbackRef.register(
            arg -> {
              throw new IllegalArgumentException("the callback's");
            },
            options)) {
      Check.contains("the callback's", Host.call(ref.handle(), 0).words());
      Check.contains("the callback's", Check.fails(Status.PANIC, () -> ref.call(0)).getCause().getMessage());
    }
  }

  @Test
  static void anInterruptIsNotLost() {
    try (CallbackRef ref =
        CallbackRef.register(
            arg -> {
              throw new InterruptedException();
            })) {
      Check.fails(Status.PANIC, () -> ref.call(0));
      Check.that(Thread.interrupted(), "the flag is set");
    }
  }

  @Test
  static void aStaleCallThrowsWhatItIs() {
    CallbackRef ref = CallbackRef.register(arg -> 0);
    ref.close();
    CallbridgeException it = Check.fails(Status.STALE, () -> ref.call(0));
    Check.contains(Long.toHexString(ref.handle()), it.getMessage());
    Check.that(it.getCause() == null, "nothing has run");
    Check.equal(Status.STALE, Host.call(ref.handle(), 0).status(), "what C gets");
  }

  @Test
  static void statusesHaveTheNamesOfC() {
    for (Status status : Status.values()) {
      String name = Native.text(Native.statusName(status.code()));
      Check.equal(status == Status.OK ? "CBR_OK" : "CBR_ERR_" + status, name, "name of " + status.code());
      Check.equal(status, Status.of(status.code()), "status of " + status.code());
    }
    Check.equal("CBR_ERR_UNKNOWN", Native.text(Native.statusName(-Status.values().length + 1)), "one further");
    Check.equal(Status.UNKNOWN, Status.of(-Status.values().length + 1), "one further");
    Check.equal(Status.UNKNOWN, Status.of(1), "no error");
  }

  @Test
  static void namesThatAreNoneAreRefused() {
    Check.fails(
        Status.INVALID, () -> CallbackRef.register(arg -> 0, new CallbackOptions().name("x".repeat(256))));
    Check.fails(Status.INVALID, () -> Scope.open("\u20ac".repeat(86)));
    CallbackRef.register(arg -> 0, new CallbackOptions().name("x".repeat(255))).close();
    try {
      Scope.open("a\0b");
      throw new AssertionError("a name with NUL was taken");
    } catch (IllegalArgumentException expected) {
      // C would see half of it.
    }
  }
}
