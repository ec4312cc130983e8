package io.callbridge;

import java.nio.charset.StandardCharsets;
import java.time.Duration;

/**
 * The C shim. Functions that return int return a {@code cbr_status}; the others throw. Arguments in the order
 * of the C API.
 */
final class Native {
  /** {@code CBR_METERED}. */
  static final int METERED = 1;

  static {
    System.loadLibrary("callbridge_jni");
  }

  private Native() {}

  static native long register(Callback callback, FailureListener onError, byte[] name, long scope, int flags);

  static native int unregister(long handle);

  static native int unregisterWait(long handle, long timeoutNs);

  static native int retain(long handle);

  static native int release(long handle);

  static native boolean isLive(long handle);

  static native long call(long handle, long arg);

  static native long current();

  static native long scopeOpen(byte[] name);

  static native int scopeClose(long scope, long timeoutNs);

  static native int stats(long scope, long[] outNumbers);

  /** The thread's last failure, UTF-8. */
  static native byte[] lastError();

  /** {@code cbr_status_name}. */
  static native byte[] statusName(int status);

  /** Threads that are attached stay so; no other one is attached any more. */
  static native void closeThreads();

  /** Global references that callbacks hold now, and native threads that are attached: for tests. */
  static native long globalRefs();

  static native long attachedThreads();

  static byte[] bytes(String text) {
    if (text == null) {
      return null;
    }
    if (text.indexOf('\0') >= 0) {
      throw new IllegalArgumentException("a name has no NUL in it");
    }
    return text.getBytes(StandardCharsets.UTF_8);
  }

  static String text(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8);
  }

  static long nanos(Duration timeout) {
    if (timeout == null) {
      return -1;
    }
    if (timeout.isNegative()) {
      throw new IllegalArgumentException("a timeout is not negative");
    }
    try {
      return timeout.toNanos();
    } catch (ArithmeticException tooLong) {
      return Long.MAX_VALUE;
    }
  }
}
