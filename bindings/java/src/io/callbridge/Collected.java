package io.callbridge;

import java.lang.ref.Cleaner;
import java.util.concurrent.atomic.LongAdder;

/** What happens to owners that nobody has closed: daemon threads of the process end what they own. */
final class Collected {
  /** A cleaner has one lock, which many threads that register and close would queue for: they share four. */
  private static final Cleaner[] CLEANERS = new Cleaner[4];

  static {
    for (int i = 0; i < CLEANERS.length; i++) {
      String name = "callbridge-cleaner-" + i;
      CLEANERS[i] =
          Cleaner.create(
              task -> {
                Thread thread = new Thread(task, name);
                thread.setDaemon(true);
                return thread;
              });
    }
  }

  private static final LongAdder WAITING = new LongAdder();

  private Collected() {}

  /** {@code action} must not refer to {@code owner}. It runs once: then, or when the result is cleaned. */
  static Cleaner.Cleanable track(Object owner, Runnable action) {
    int mine = (int) (Thread.currentThread().getId() % CLEANERS.length);
    Cleaner.Cleanable it = CLEANERS[mine].register(owner, new Counted(action));
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
