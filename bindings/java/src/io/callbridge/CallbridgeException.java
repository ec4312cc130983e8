package io.callbridge;

/** A function of the library has failed: {@link #status} says how, and the message is {@code cbr_last_error}. */
public final class CallbridgeException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  private final Status status;

  CallbridgeException(Status status, String message, Throwable cause) {
    super(message, cause);
    this.status = status;
  }

  /**
   * What has happened. {@link Status#STALE}: the callback, scope or queue is gone; {@link Status#PANIC}: the
   * callback has thrown an exception, which is the {@link #getCause cause} if the callback is Java's.
   *
   * @return never null, never {@link Status#OK}
   */
  public Status status() {
    return status;
  }

  /** Throws unless {@code code} is {@code CBR_OK}. */
  static void check(int code) {
    if (code != 0) {
      throw of(code, null);
    }
  }

  /** Called by native code, too. The words are those of the calling thread's last failure. */
  static CallbridgeException of(int code, Throwable cause) {
    return new CallbridgeException(Status.of(code), Native.text(Native.lastError()), cause);
  }
}
