package io.callbridge;

import java.util.Objects;
import java.util.function.BooleanSupplier;

/** Assertions, which print what they compare. */
final class Check {
  /** A wait that is longer has failed. */
  private static final long DEADLINE_NS = 30_000_000_000L;

  /** What a test does that may throw. */
  interface Action {
    void run() throws Exception;
  }

  private Check() {}

  static void that(boolean condition, String what) {
    if (!condition) {
      throw new AssertionError(what);
    }
  }

  static void equal(Object expected, Object actual, String what) {
    if (!Objects.equals(expected, actual)) {
      throw new AssertionError(what + ": expected <" + expected + ">, got <" + actual + ">");
    }
  }

  static void contains(String part, String whole) {
    that(whole.contains(part), "<" + whole + "> has no <" + part + ">");
  }

  /** The exception, which must come. */
  static CallbridgeException fails(Status status, Action action) {
    try {
      action.run();
    } catch (CallbridgeException it) {
      equal(status, it.status(), "status of <" + it.getMessage() + ">");
      return it;
    } catch (Exception another) {
      throw new AssertionError("expected " + status, another);
    }
    throw new AssertionError("expected " + status + ", and it has succeeded");
  }

  /** Waits for what other threads will bring about. */
  static void eventually(BooleanSupplier condition, String what) throws InterruptedException {
    for (long end = System.nanoTime() + DEADLINE_NS; !condition.getAsBoolean(); Thread.sleep(1)) {
      that(System.nanoTime() < end, "in vain: " + what);
    }
  }

  /** Waits for what the garbage collector will bring about. */
  static void eventuallyCollected(BooleanSupplier condition, String what) throws InterruptedException {
    eventually(
        () -> {
          System.gc();
          return condition.getAsBoolean();
        },
        what);
  }
}
