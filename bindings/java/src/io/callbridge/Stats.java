package io.callbridge;

/**
 * Numbers of a scope or of the process, as {@code cbr_stats}. Each is right; they need not agree with each other
 * while other threads go on.
 *
 * @param live callbacks that can be called now
 * @param registered callbacks that were ever registered
 * @param destroyed those of them whose end is complete
 * @param destroyPending callbacks that have ended, and whose data is not freed yet
 * @param inFlight calls inside a callback now
 * @param calls calls that have entered a callback; of a scope only metered ones
 * @param failures those of them that have failed
 * @param stale calls that found their callback gone; of a scope 0
 */
public record Stats(
    long live,
    long registered,
    long destroyed,
    long destroyPending,
    long inFlight,
    long calls,
    long failures,
    long stale) {

  /**
   * Numbers of the whole process, native code included.
   *
   * @return as of now
   */
  public static Stats ofProcess() {
    return of(0);
  }

  static Stats of(long scope) {
    long[] numbers = new long[8];
    CallbridgeException.check(Native.stats(scope, numbers));
    return new Stats(
        numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7]);
  }
}
