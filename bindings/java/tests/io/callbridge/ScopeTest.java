package io.callbridge;

import java.lang.ref.WeakReference;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;

/** Scopes: an owner and everything it has registered. */
final class ScopeTest {
  private ScopeTest() {}

  private static CallbackRef register(Scope scope, Callback callback) {
    return CallbackRef.register(callback, new CallbackOptions().scope(scope).name("in a scope").metered());
  }

  @Test
  static void closingEndsEverythingInIt() {
    List<CallbackRef> refs = new ArrayList<>();
    CallbackRef outside = CallbackRef.register(arg -> arg);
    Scope scope = Scope.open("plugin");
    for (int i = 0; i < 100; i++) {
      refs.add(register(scope, arg -> arg));
    }
    Check.equal(100L, scope.stats().live(), "live");
    scope.close();
    Check.that(refs.stream().noneMatch(CallbackRef::isLive), "all have ended");
    Check.that(outside.isLive(), "others have not");
    Check.equal(1L, Native.globalRefs(), "global references");
    scope.close();
    Check.fails(Status.STALE, scope::stats);
    Check.fails(Status.STALE, () -> register(scope, arg -> arg));
    Check.equal(1L, Native.globalRefs(), "a registration that has failed has kept nothing");
    outside.close();
  }

  @Test
  static void statsCountWhatHappens() {
    try (Scope scope = Scope.open(null)) {
      CallbackRef ref =
          register(
              scope,
              arg -> {
                if (arg < 0) {
                  throw new IllegalArgumentException();
                }
                return arg;
              });
      register(scope, arg -> arg).close();
      ref.call(1);
      ref.call(2);
      Check.fails(Status.PANIC, () -> ref.call(-1));
      Check.equal(new Stats(1, 2, 1, 0, 0, 3, 1, 0), scope.stats(), "stats");
      Check.that(Stats.ofProcess().calls() >= 3, "the process's");
      ref.close();
    }
  }

  @Test
  static void closingWaitsForCalls() throws InterruptedException {
    CountDownLatch inside = new CountDownLatch(1);
    CountDownLatch out = new CountDownLatch(1);
    Scope scope = Scope.open("busy");
    CallbackRef ref =
        register(
            scope,
            arg -> {
              inside.countDown();
              out.await();
              return arg;
            });
    Thread caller = new Thread(() -> Host.call(ref.handle(), 0));
    caller.start();
    inside.await();
    Check.fails(Status.TIMEOUT, () -> scope.close(Duration.ofMillis(5)));
    Check.that(!ref.isLive(), "it has ended all the same");
    Check.fails(Status.CLOSED, () -> register(scope, arg -> arg));
    out.countDown();
    scope.close();
    caller.join();
    Check.equal(0L, Native.globalRefs(), "global references");
  }

  @Test
  static void closingInsideIsADeadlockAndEndsEverything() {
    Scope scope = Scope.open("closes itself");
    CallbackRef ref =
        register(
            scope,
            arg -> {
              Check.fails(Status.DEADLOCK, scope::close);
              return arg;
            });
    Check.equal(42L, ref.call(42), "the call that closes");
    Check.that(!ref.isLive(), "ended");
    scope.close();
    Check.fails(Status.STALE, scope::stats);
  }

  @Test
  static void aScopeLivesAsLongAsItsRefs() throws InterruptedException {
    AtomicReference<CallbackRef> ref = new AtomicReference<>();
    WeakReference<Scope> scope = dropped(ref);
    for (int i = 0; i < 3; i++) {
      System.gc();
      Check.equal(42L, ref.get().call(42), "a call");
    }
    ref.set(null);
    Check.eventuallyCollected(() -> scope.get() == null, "the scope is collected with the last of them");
  }

  private static WeakReference<Scope> dropped(AtomicReference<CallbackRef> ref) {
    Scope scope = Scope.open("dropped");
    ref.set(register(scope, arg -> arg));
    return new WeakReference<>(scope);
  }

  @Test
  static void aCollectedScopeIsClosed() throws InterruptedException {
    long handle = Scope.open("forgotten").handle();
    Check.eventuallyCollected(() -> isGone(handle), "closed");
  }

  private static boolean isGone(long scope) {
    return Native.stats(scope, new long[8]) == Status.STALE.code();
  }
}
