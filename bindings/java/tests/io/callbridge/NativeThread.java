package io.callbridge;

/** A thread that C has made, which carries out orders one at a time. */
final class NativeThread implements AutoCloseable {
  static {
    // Its library is that of Host.
    Host.entered();
  }

  // As in host.c.
  private static final int CALL = 0;
  private static final int RELEASE = 1;
  private static final int UNREGISTER = 2;
  private static final int ATTACH = 3;
  private static final int DETACH = 4;
  private static final int IS_ATTACHED = 5;
  private static final int CALL_AT_EXIT = 6;
  private static final int END = 7;

  private final long thread;

  /** {@code name}: at most 15 bytes. */
  NativeThread(String name) {
    thread = start(Native.bytes(name));
  }

  Host.Answer call(long handle, long arg) {
    return order(thread, CALL, handle, arg);
  }

  Status release(long handle) {
    return order(thread, RELEASE, handle, 0).status();
  }

  Status unregister(long handle) {
    return order(thread, UNREGISTER, handle, 0).status();
  }

  void attach() {
    Check.equal(0, order(thread, ATTACH, 0, 0).status().code(), "AttachCurrentThread");
  }

  void detach() {
    Check.equal(0, order(thread, DETACH, 0, 0).status().code(), "DetachCurrentThread");
  }

  boolean isAttached() {
    return order(thread, IS_ATTACHED, 0, 0).result() != 0;
  }

  /** Has it call the handle when its thread-specific data is destroyed. */
  void callAtExit(long handle) {
    order(thread, CALL_AT_EXIT, handle, 0);
  }

  /** Ends it, and waits for that. */
  @Override
  public void close() {
    order(thread, END, 0, 0);
    join(thread);
  }

  private static native long start(byte[] name);

  private static native Host.Answer order(long thread, int order, long handle, long arg);

  private static native void join(long thread);
}
