package io.callbridge;

/** What native code calls. May run on any thread, on several at once, and inside itself. */
@FunctionalInterface
public interface Callback {
  /**
   * Runs one call.
   *
   * @param arg the caller's {@code void *arg}, as a number. What it points to is the caller's to say.
   * @return the caller's result
   * @throws Exception anything: it is contained. The caller gets {@code CBR_ERR_PANIC}, with the class and
   *     the message of the exception in {@code cbr_last_error}.
   */
  long call(long arg) throws Exception;
}
