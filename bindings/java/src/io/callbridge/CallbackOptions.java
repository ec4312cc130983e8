package io.callbridge;

/** What can be said of a callback beyond its code. Not thread-safe; copied by the registration. */
public final class CallbackOptions {
  String name;
  Scope scope;
  FailureListener onError;
  int flags;

  /** Everything at its default. */
  public CallbackOptions() {}

  /**
   * Its name in reports, metrics and logs.
   *
   * @param name at most 255 bytes of UTF-8
   * @return this
   */
  public CallbackOptions name(String name) {
    this.name = name;
    return this;
  }

  /**
   * Its owner: closing the scope ends the callback.
   *
   * @param scope null: the process's scope of Java callbacks, which closes when the JVM shuts down
   * @return this
   */
  public CallbackOptions scope(Scope scope) {
    this.scope = scope;
    return this;
  }

  /**
   * Who is told of its failures.
   *
   * @param listener kept alive as long as the callback
   * @return this
   */
  public CallbackOptions onError(FailureListener listener) {
    this.onError = listener;
    return this;
  }

  /**
   * Has its calls, failures and latency counted, at two looks at the clock a call.
   *
   * @return this
   */
  public CallbackOptions metered() {
    this.flags |= Native.METERED;
    return this;
  }
}
