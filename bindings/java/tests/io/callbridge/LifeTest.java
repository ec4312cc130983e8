package io.callbridge;

import java.lang.ref.WeakReference;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;

/** How a callback ends: closed, collected, with its owner. */
final class LifeTest {
  private static final Duration LONG = Duration.ofSeconds(30);

  private LifeTest() {}

  /** A callback that stays inside until it is let out. */
  private static final class Stays implements Callback, AutoCloseable {
    final CountDownLatch inside = new CountDownLatch(1);
    final CountDownLatch out = new CountDownLatch(1);
    final CallbackRef ref = CallbackRef.register(this);
    final AtomicReference<Object> result = new AtomicReference<>();
    final Thread thread = new Thread(() -> result.set(Host.call(ref.handle(), 42)));

    @Override
    public long call(long arg) throws InterruptedException {
      inside.countDown();
      out.await();
      return arg;
    }

    void enter() throws InterruptedException {
      thread.start();
      inside.await();
    }

    void leave() throws InterruptedException {
      out.countDown();
      thread.join();
      Check.equal(new Host.Answer(Status.OK, 42, ""), result.get(), "the call that ran");
    }

    @Override
    public void close() {
      out.countDown();
      ref.close();
    }
  }

  /** Something that a callback captures. */
  private static final class Captured {
    final long number = Long.parseLong("42");

    long call(long arg) {
      return number;
    }
  }

  // --- closed -----------------------------------------------------------------------------------------------

  @Test
  static void closeEndsItForEverybody() {
    CallbackRef ref = CallbackRef.register(arg -> arg);
    long handle = ref.retain();
    Check.that(ref.isLive(), "it lives");
    ref.close();
    Check.that(!ref.isLive(), "it has ended");
    Check.equal(Status.STALE, Host.call(handle, 0).status(), "a native owner's call");
    Check.equal(Status.STALE.code(), Host.release(handle), "a native owner's release");
    Check.fails(Status.STALE, ref::retain);
  }

  @Test
  static void closeLetsTheCallbackGo() throws InterruptedException {
    AtomicReference<CallbackRef> ref = new AtomicReference<>();
    WeakReference<Captured> captured = captured(ref);
    ref.get().close();
    Check.eventuallyCollected(() -> captured.get() == null, "the closed callback's data is collected");
    Check.that(!ref.get().isLive(), "though its owner is not");
  }

  private static WeakReference<Captured> captured(AtomicReference<CallbackRef> ref) {
    Captured it = new Captured();
    ref.set(CallbackRef.register(it::call));
    return new WeakReference<>(it);
  }

  @Test
  static void closeLeavesNothingToTheCollector() {
    Captured owner = new Captured();
    List<CallbackRef> all = new ArrayList<>();
    long before = Collected.waiting();
    for (int i = 0; i < 10; i++) {
      all.add(CallbackRef.register(owner::call));
      all.add(CallbackRef.weak(owner, Captured::call));
    }
    Check.that(Collected.waiting() >= before + 30, "something waits for their end, and for the owner's");
    all.forEach(CallbackRef::close);
    Check.that(Collected.waiting() <= before, "nothing does, though they are still there: " + all.size());
  }

  @Test
  static void closeTwiceIsAllowed() {
    CallbackRef ref = CallbackRef.register(arg -> arg);
    ref.close();
    ref.close();
    ref.closeAndWait(LONG);
    CallbackRef next = CallbackRef.register(arg -> arg);
    ref.close();
    Check.that(next.isLive(), "whoever has its place now is not closed");
    next.close();
  }

  @Test
  static void closeInsideItsOwnCallIsAllowed() {
    AtomicReference<CallbackRef> self = new AtomicReference<>();
    CallbackRef ref =
        CallbackRef.register(
            arg -> {
              self.get().close();
              Check.equal(1L, Native.globalRefs(), "it lives until this returns");
              return arg;
            });
    self.set(ref);
    Check.equal(42L, ref.call(42), "the call that closes");
    Check.equal(0L, Native.globalRefs(), "gone with that call");
    Check.fails(Status.STALE, () -> ref.call(42));
  }

  @Test
  static void closeDoesNotWaitForCalls() throws InterruptedException {
    try (Stays it = new Stays()) {
      it.enter();
      it.ref.close();
      Check.equal(1L, Native.globalRefs(), "the call that runs keeps it");
      Check.equal(Status.STALE, Host.call(it.ref.handle(), 0).status(), "another call");
      it.leave();
      Check.equal(0L, Native.globalRefs(), "gone with the last call");
    }
  }

  @Test
  static void closeAndWaitWaitsForCalls() throws InterruptedException {
    try (Stays it = new Stays()) {
      it.enter();
      Check.fails(Status.TIMEOUT, () -> it.ref.closeAndWait(Duration.ofMillis(5)));
      AtomicBoolean left = new AtomicBoolean();
      Thread closer =
          new Thread(
              () -> {
                it.ref.closeAndWait(null);
                left.set(it.out.getCount() == 0 && Native.globalRefs() == 0);
              });
      closer.start();
      Check.eventually(() -> closer.getState() == Thread.State.RUNNABLE, "the closer runs");
      it.leave();
      closer.join();
      Check.that(left.get(), "it has returned after the call, and the callback is let go");
    }
  }

  @Test
  static void closeAndWaitInsideIsADeadlockAndEndsIt() {
    AtomicReference<CallbackRef> self = new AtomicReference<>();
    CallbackRef ref =
        CallbackRef.register(
            arg -> {
              Check.fails(Status.DEADLOCK, () -> self.get().closeAndWait(LONG));
              return arg;
            });
    self.set(ref);
    Check.equal(42L, ref.call(42), "the call that closes");
    Check.that(!ref.isLive(), "it has ended all the same");
    ref.closeAndWait(LONG);
  }

  @Test
  static void aCallbackMayEndItself() {
    CallbackRef ref = CallbackRef.register(arg -> CallbackHandle.current().unregister() ? arg : -1);
    Check.equal(42L, ref.call(42), "the call that ends it");
    Check.fails(Status.STALE, () -> ref.call(42));
  }

  // --- collected --------------------------------------------------------------------------------------------

  @Test
  static void whatIsNotClosedEndsWhenItIsCollected() throws InterruptedException {
    CallbackHandle handle = new CallbackHandle(CallbackRef.register(new Captured()::call).handle());
    Check.eventuallyCollected(() -> !handle.isLive(), "the callback has ended");
    Check.fails(Status.STALE, () -> handle.call(0));
    Check.eventually(() -> Native.globalRefs() == 0, "its references are gone");
  }

  @Test
  static void aNativeOwnerKeepsItAlive() throws InterruptedException {
    AtomicReference<WeakReference<CallbackRef>> ref = new AtomicReference<>();
    long handle = dropped(ref);
    Check.eventuallyCollected(() -> ref.get().get() == null, "Java's owner is collected");
    // Its cleaner is another thread, which comes to what the same thread has registered in the order of collection.
    CallbackHandle later = new CallbackHandle(CallbackRef.register(new Captured()::call).handle());
    Check.eventuallyCollected(() -> !later.isLive(), "another callback has ended");
    for (int i = 0; i < 3; i++) {
      System.gc();
      Check.equal(42L, Host.call(handle, 0).result(), "the native owner's call");
    }
    Check.equal(0, Host.release(handle), "its release");
    Check.equal(Status.STALE, Host.call(handle, 0).status(), "nobody owns it now");
    Check.equal(0L, Native.globalRefs(), "global references");
  }

  private static long dropped(AtomicReference<WeakReference<CallbackRef>> weak) {
    CallbackRef ref = CallbackRef.register(new Captured()::call);
    weak.set(new WeakReference<>(ref));
    return ref.retain();
  }

  @Test
  static void whatIsBeingUsedIsNotCollected() {
    // Nobody holds the object but the method that runs on it; and when that is compiled, not even its frame does,
    // unless it says so.
    for (int i = 0; i < 30_000; i++) {
      Check.equal(42L, CallbackRef.register(arg -> arg).call(42), "a call on a temporary");
    }
    Callback collects =
        arg -> {
          CallbackHandle self = CallbackHandle.current();
          CallbackHandle later = new CallbackHandle(CallbackRef.register(new Captured()::call).handle());
          Check.eventuallyCollected(() -> !later.isLive(), "another callback has ended");
          return self.isLive() ? 42 : 0;
        };
    for (int i = 0; i < 3; i++) {
      Check.equal(42L, CallbackRef.register(collects).call(42), "a call on a temporary that is not collected");
    }
  }

  // --- with an owner ----------------------------------------------------------------------------------------

  /** What a user writes: an object with its callback in a field. */
  private static final class Panel {
    final long number = Long.parseLong("42");
    final CallbackRef ref = CallbackRef.weak(this, Panel::onEvent);

    long onEvent(long arg) {
      return number + arg;
    }
  }

  @Test
  static void aWeakCallbackDoesNotKeepItsOwner() throws InterruptedException {
    AtomicReference<CallbackHandle> handle = new AtomicReference<>();
    WeakReference<Panel> panel = panel(handle);
    Check.eventuallyCollected(() -> panel.get() == null, "the owner is collected");
    Check.eventually(() -> !handle.get().isLive(), "the callback has ended");
    Check.eventually(() -> Native.globalRefs() == 0, "its references are gone");
  }

  private static WeakReference<Panel> panel(AtomicReference<CallbackHandle> handle) {
    Panel panel = new Panel();
    handle.set(new CallbackHandle(panel.ref.handle()));
    Check.equal(43L, handle.get().call(1), "a call of the owner's method");
    return new WeakReference<>(panel);
  }

  @Test
  static void aWeakCallbackEndsWithItsOwnerThoughOthersHaveIt() throws InterruptedException {
    AtomicReference<CallbackRef> ref = new AtomicReference<>();
    long handle = ofOwner(ref);
    Check.eventuallyCollected(() -> !ref.get().isLive(), "it has ended with its owner");
    Check.equal(Status.STALE, Host.call(handle, 0).status(), "a native owner's call");
    ref.get().close();
  }

  private static long ofOwner(AtomicReference<CallbackRef> ref) {
    ref.set(CallbackRef.weak(new Captured(), Captured::call));
    return ref.get().retain();
  }

  @Test
  static void weakCallbacksOfALongLivedOwnerLeaveNothing() throws InterruptedException {
    Captured owner = new Captured();
    long before = Collected.waiting();
    for (int i = 0; i < 1000; i++) {
      CallbackRef ref = CallbackRef.weak(owner, Captured::call);
      if (i % 2 == 0) {
        ref.close();
      }
    }
    Check.eventuallyCollected(() -> Collected.waiting() <= before, "nothing waits for the owner's end");
    Check.equal(42L, owner.number, "the owner, which has lived until here");
  }
}
