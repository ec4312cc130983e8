package io.callbridge.bench;

import io.callbridge.Callback;

/** The loops of bench.c. */
final class Loops {
  static {
    System.loadLibrary("callbridge_java_bench");
  }

  private Loops() {}

  static native long bare(Callback target, long count, boolean checked);

  static native long callbridge(long handle, long other, long count);

  static native long foreignThread(long handle, long count);

  static native long foreignThreadBare(Callback target, long count);

  static native long newGlobalRef(Object target);

  static native void deleteGlobalRef(long ref);
}
