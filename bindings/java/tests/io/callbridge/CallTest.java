package io.callbridge;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;

/** Calls, and what a callback may be. */
final class CallTest {
  private CallTest() {}

  @Test
  static void argumentAndResultPassWhole() {
    try (CallbackRef ref = CallbackRef.register(arg -> arg);
        NativeThread thread = new NativeThread("c")) {
      for (long number : new long[] {0, 1, -1, Long.MAX_VALUE, Long.MIN_VALUE, 0x1234_5678_9abc_def0L}) {
        Check.equal(new Host.Answer(Status.OK, number, ""), Host.call(ref.handle(), number), "a Java thread's call");
        Check.equal(new Host.Answer(Status.OK, number, ""), thread.call(ref.handle(), number), "a C thread's call");
        Check.equal(number, ref.call(number), "Java's call");
      }
    }
  }

  private static final class Hidden implements Callback {
    @Override
    public long call(long arg) {
      return arg + 1;
    }
  }

  private static class Base {
    public long call(long arg) {
      return arg + 1;
    }
  }

  private static final class Inherits extends Base implements Callback {}

  private interface WithDefault extends Callback {
    @Override
    default long call(long arg) {
      return next(arg);
    }

    long next(long arg);
  }

  private record Adds(long step) implements Callback {
    @Override
    public long call(long arg) {
      return arg + step;
    }
  }

  private static long next(long arg) {
    return arg + 1;
  }

  @Test
  static void anyClassCanBeACallback() {
    long one = Long.parseLong("1");
    WithDefault withDefault = arg -> arg + 1;
    Callback anonymous =
        new Callback() {
          @Override
          public long call(long arg) {
            return arg + one;
          }
        };
    List<Callback> all =
        List.of(
            new Hidden(), new Inherits(), withDefault, anonymous, new Adds(1), CallTest::next, arg -> arg + one);
    for (Callback callback : all) {
      try (CallbackRef ref = CallbackRef.register(callback)) {
        Check.equal(42L, Host.call(ref.handle(), 41).result(), callback.getClass().getName());
      }
    }
  }

  @Test
  static void callsNest() {
    AtomicReference<CallbackRef> self = new AtomicReference<>();
    try (CallbackRef ref =
        CallbackRef.register(arg -> arg == 0 ? 0 : 1 + Host.call(self.get().handle(), arg - 1).result())) {
      self.set(ref);
      Check.equal(100L, ref.call(100), "a call of a call of a call");
    }
  }

  @Test
  static void manyThreadsCallOneCallback() throws InterruptedException {
    AtomicLong sum = new AtomicLong();
    List<Thread> threads = new ArrayList<>();
    try (CallbackRef ref = CallbackRef.register(sum::addAndGet)) {
      for (int i = 0; i < 8; i++) {
        boolean foreign = i % 2 == 0;
        threads.add(new Thread(() -> callOften(ref, foreign)));
      }
      threads.forEach(Thread::start);
      for (Thread thread : threads) {
        thread.join();
      }
    }
    Check.equal(8 * 1000L, sum.get(), "every call has run once");
  }

  private static void callOften(CallbackRef ref, boolean foreign) {
    if (!foreign) {
      for (int i = 0; i < 1000; i++) {
        Host.call(ref.handle(), 1);
      }
      return;
    }
    try (NativeThread thread = new NativeThread("caller")) {
      for (int i = 0; i < 1000; i++) {
        thread.call(ref.handle(), 1);
      }
    }
  }

  @Test
  static void currentIsTheCallbackThatRuns() {
    Check.equal(0L, CallbackHandle.current().value(), "outside");
    try (CallbackRef ref = CallbackRef.register(arg -> CallbackHandle.current().value())) {
      Check.equal(ref.handle(), ref.call(0), "inside");
    }
  }

  @Test
  static void javaCallsCallbacksOfC() {
    CallbackHandle negate = new CallbackHandle(Host.registerNegate());
    Check.equal(-42L, negate.call(42), "C's callback");
    Check.that(negate.isLive(), "it lives");
    Check.that(negate.unregister(), "it ends");
    Check.that(!negate.unregister() && !negate.isLive(), "it has ended");
    Check.fails(Status.STALE, () -> negate.call(42));
  }

  @Test
  static void whatIsNoCallbackIsRefused() {
    Check.fails(Status.STALE, () -> new CallbackHandle(0).call(0));
    Check.fails(Status.STALE, () -> new CallbackHandle(0x1234_5678_1000_0400L).call(0));
    try (Scope scope = Scope.open("no callback")) {
      Check.fails(Status.KIND, () -> new CallbackHandle(scope.handle()).call(0));
    }
    try {
      CallbackRef.register(null);
      throw new AssertionError("null was taken for a callback");
    } catch (NullPointerException expected) {
      // That is how Java says it.
    }
  }
}
