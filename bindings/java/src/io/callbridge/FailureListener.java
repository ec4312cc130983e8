package io.callbridge;

/** Told of every failure of a callback, on the thread and inside the call that has failed. */
@FunctionalInterface
public interface FailureListener {
  /**
   * A call has failed. What this throws is dropped.
   *
   * @param handle the callback's handle
   * @param status {@link Status#PANIC}: an exception has left the callback; {@link Status#CALLBACK}: it could
   *     not be run
   * @param message for an exception its class and message
   */
  void failed(long handle, Status status, String message);
}
