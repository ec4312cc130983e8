package io.callbridge;

/**
 * A callback's number, which does not own it: one of C's, or of Java's. Used after the callback's end it is
 * refused, never another callback.
 *
 * @param value the {@code cbr_handle}
 */
public record CallbackHandle(long value) {
  /**
   * The callback that the calling thread is inside, the innermost one.
   *
   * @return with value 0 outside
   */
  public static CallbackHandle current() {
    return new CallbackHandle(Native.current());
  }

  /**
   * Calls it, whoever has registered it.
   *
   * @param arg the callback's
   * @return the callback's result
   * @throws CallbridgeException {@link Status#STALE}: it has ended, or never was; {@link Status#KIND}: it is no
   *     callback's; {@link Status#PANIC}, {@link Status#CALLBACK}: it has failed; {@link Status#SIGNATURE},
   *     {@link Status#THREAD}
   */
  public long call(long arg) {
    return Native.call(value, arg);
  }

  /**
   * Can it be called now? Another thread may end it at any time.
   *
   * @return false for ever, once it has ended
   */
  public boolean isLive() {
    return Native.isLive(value);
  }

  /**
   * Ends the callback for everybody, as {@link CallbackRef#close}: for a callback that ends itself.
   *
   * @return false if it had ended already
   */
  public boolean unregister() {
    return Native.unregister(value) == 0;
  }
}
