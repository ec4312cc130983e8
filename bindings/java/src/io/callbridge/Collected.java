package io.callbridge;

import java.lang.ref.Cleaner;

/** What happens to owners that nobody has closed: one daemon thread of the process ends what they own. */
final class Collected {
  private static final Cleaner CLEANER =
      Cleaner.create(
          task -> {
            Thread thread = new Thread(task, "callbridge-cleaner");
            thread.setDaemon(true);
            return thread;
          });

  private Collected() {}

  /** {@code action} must not refer to {@code owner}. */
  static Cleaner.Cleanable track(Object owner, Runnable action) {
    return CLEANER.register(owner, action);
  }
}
