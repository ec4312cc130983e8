package io.callbridge;

import java.lang.ref.Cleaner;
import java.util.concurrent.atomic.LongAdder;

/** What happens to owners that nobody has closed: one daemon thread of the process ends what they own. */
final class Collected {
  private static final Cleaner CLEANER =
      Cleaner.create(
          task -> {
            Thread thread = new Thread(task, "callbridge-cleaner");
            thread.setDaemon(true);
            return thread;
          });

  private static final LongAdder WAITING = new LongAdder();

  private Collected() {}

  /** {@code action} must not refer to {@code owner}. It runs once: then, or when the result is cleaned. */
  static Cleaner.Cleanable track(Object owner, Runnable action) {
    Cleaner.Cleanable it = CLEANER.register(owner, new Counted(action));
    WAITING.increment();
    return it;
  }

  private record Counted(Runnable action) implements Runnable {
    @Override
    public void run() {
      WAITING.decrement();
      action.run();
    }
  }

  /** How many actions have not run: for tests. */
  static long waiting() {
    return WAITING.sum();
  }
}
