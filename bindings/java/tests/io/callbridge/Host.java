package io.callbridge;

/** The C program that calls back (host.c), on the thread that asks for it. */
final class Host {
  static {
    System.loadLibrary("callbridge_java_test");
  }

  private Host() {}

  /** What C got. */
  record Answer(Status status, long result, String words) {
    static Answer of(int status, long result, byte[] words) {
      return new Answer(Status.of(status), result, Native.text(words));
    }
  }

  static native Answer call(long handle, long arg);

  static native int release(long handle);

  /** A callback of C's, which negates its argument. */
  static native long registerNegate();

  /** A native thread calls the handle until the process ends. */
  static native void callForEver(long handle);

  static native long entered();

  static native long refused();
}
