package io.callbridge;

import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.BrokenBarrierException;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.concurrent.atomic.AtomicReference;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.management.ObjectName;

/** Many callbacks, made and given up by many threads at once. */
final class StressTest {
  private static final int THREADS = 64;
  private static final int CALLBACKS = 10_000;
  private static final int ROUNDS = 5;

  private StressTest() {}

  /** An owner of a callback, of the kind that is measured. */
  private interface Owner {
    long handle();

    void close();
  }

  private interface Maker {
    Owner make(Callback callback, Scope scope);
  }

  private record Cleaned(CallbackRef ref) implements Owner {
    @Override
    public long handle() {
      return ref.handle();
    }

    @Override
    public void close() {
      ref.close();
    }
  }

  /** What a binding did before there were cleaners: release when the finalizer comes to it. */
  private static final class Finalized implements Owner {
    private final long handle;

    Finalized(Callback callback, Scope scope) {
      handle = Native.register(callback, null, null, scope.handle(), 0);
    }

    @Override
    public long handle() {
      return handle;
    }

    @Override
    public void close() {
      Native.unregister(handle);
    }

    @Override
    @SuppressWarnings({"deprecation", "removal"})
    protected void finalize() {
      Native.release(handle);
    }
  }

  /** The sums of all rounds. */
  private static final class Times {
    final AtomicLong making = new AtomicLong();
    final AtomicLong closing = new AtomicLong();
    long untilCollected;
    long residual;
    long leaked;
  }

  @Test
  static void halfClosedAndHalfCollectedLeaveNothing() throws Exception {
    Maker cleaned =
        (callback, scope) -> new Cleaned(CallbackRef.register(callback, new CallbackOptions().scope(scope)));
    Times byCleaner = new Times();
    Times byFinalizer = new Times();
    // Once before it counts: by then everything is loaded and compiled.
    round(cleaned, new Times(), ROUNDS);
    round(Finalized::new, new Times(), ROUNDS);
    long before = jvmGlobalRefs();
    for (int round = 0; round < ROUNDS; round++) {
      round(cleaned, byCleaner, round);
      round(Finalized::new, byFinalizer, round);
    }
    // The binding's count is its own; this is the JVM's. It makes some for its threads, but no hundreds.
    long left = jvmGlobalRefs() - before;
    Check.that(left < 100, "the JVM counts " + left + " global references more");
    print("cleaner", byCleaner);
    print("finalize()", byFinalizer);
  }

  /** How many global references the JVM has, as it says at the end of a thread dump. */
  private static long jvmGlobalRefs() throws Exception {
    Object dump =
        ManagementFactory.getPlatformMBeanServer()
            .invoke(
                new ObjectName("com.sun.management:type=DiagnosticCommand"),
                "threadPrint",
                new Object[] {new String[0]},
                new String[] {String[].class.getName()});
    Matcher refs = Pattern.compile("JNI global refs: (\\d+)").matcher((String) dump);
    Check.that(refs.find(), "a thread dump without a count");
    return Long.parseLong(refs.group(1));
  }

  private static void print(String kind, Times times) {
    System.out.printf(
        "RESULT java %-10s %d callbacks on %d threads, half closed, half collected: residual %.1f %%, leaked"
            + " references %d; mean: make %d ns, close %d ns, all collected after %.1f ms%n",
        kind,
        CALLBACKS,
        THREADS,
        100.0 * times.residual / (ROUNDS * CALLBACKS),
        times.leaked,
        times.making.get() / (ROUNDS * CALLBACKS),
        times.closing.get() / (ROUNDS * CALLBACKS / 2),
        times.untilCollected / 1e6 / ROUNDS);
  }

  /** Each thread's share, all alive at a time, then given up while another thread calls them. */
  private static void round(Maker maker, Times times, int seed) throws Exception {
    long references = Native.globalRefs();
    AtomicLongArray handles = new AtomicLongArray(CALLBACKS);
    AtomicReference<Throwable> failure = new AtomicReference<>();
    CyclicBarrier step = new CyclicBarrier(THREADS + 1);
    AtomicBoolean done = new AtomicBoolean();
    try (Scope scope = Scope.open("stress")) {
      List<Thread> threads = new ArrayList<>();
      for (int i = 0; i < THREADS; i++) {
        int first = i;
        threads.add(
            new Thread(
                () -> {
                  try {
                    share(maker, times, scope, first, handles, step);
                  } catch (Throwable thrown) {
                    failure.set(thrown);
                    step.reset();
                  }
                }));
      }
      threads.forEach(Thread::start);
      try {
        step.await();
        step.await();
        Check.equal((long) CALLBACKS, scope.stats().live(), "all alive at a time");
        Check.equal(references + CALLBACKS, Native.globalRefs(), "a global reference each");
        Check.that(jvmGlobalRefs() >= CALLBACKS, "the JVM counts them, too");
        step.await();
      } catch (BrokenBarrierException broken) {
        throw new AssertionError("a thread has failed", failure.get());
      }
      Thread caller =
          new Thread(
              () -> {
                try {
                  callSome(handles, seed, done);
                } catch (Throwable thrown) {
                  failure.set(thrown);
                }
              });
      caller.start();
      for (Thread thread : threads) {
        thread.join();
      }
      long begin = System.nanoTime();
      Check.eventuallyCollected(
          () -> scope.stats().live() + scope.stats().destroyPending() == 0, "no callback is left");
      times.untilCollected += System.nanoTime() - begin;
      done.set(true);
      caller.join();
      Check.that(failure.get() == null, "a thread has failed: " + failure.get());
      Stats stats = scope.stats();
      times.residual += stats.live() + stats.destroyPending();
      times.leaked += Native.globalRefs() - references;
      Check.equal((long) CALLBACKS, stats.destroyed(), "each has ended once");
      Check.equal(0L, times.residual, "callbacks that are left");
      Check.equal(0L, times.leaked, "global references that are left");
    }
  }

  private static void share(
      Maker maker, Times times, Scope scope, int first, AtomicLongArray handles, CyclicBarrier step)
      throws Exception {
    List<Owner> mine = new ArrayList<>();
    step.await();
    long begin = System.nanoTime();
    for (int i = first; i < CALLBACKS; i += THREADS) {
      int number = i;
      mine.add(maker.make(arg -> arg + number, scope));
    }
    times.making.addAndGet(System.nanoTime() - begin);
    for (int i = 0; i < mine.size(); i++) {
      int number = first + i * THREADS;
      handles.set(number, mine.get(i).handle());
      Check.equal(number + 1L, Host.call(mine.get(i).handle(), 1).result(), "its call");
    }
    step.await();
    step.await();
    begin = System.nanoTime();
    // Every other one of all of them.
    for (int i = 0; i < mine.size(); i++) {
      if ((i + first) % 2 == 0) {
        mine.get(i).close();
      }
    }
    times.closing.addAndGet(System.nanoTime() - begin);
    mine.clear();
  }

  /** A native call either runs whole or is refused. */
  private static void callSome(AtomicLongArray handles, int seed, AtomicBoolean done) {
    Random random = new Random(seed);
    while (!done.get()) {
      int number = random.nextInt(CALLBACKS);
      Host.Answer answer = Host.call(handles.get(number), 1);
      Check.that(
          answer.status() == Status.STALE || answer.equals(new Host.Answer(Status.OK, number + 1L, "")),
          "callback " + number + " gave " + answer);
    }
  }
}
