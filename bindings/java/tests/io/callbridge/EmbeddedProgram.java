package io.callbridge;

/** What a C program with a JVM inside (embed.c) runs in it. */
final class EmbeddedProgram {
  private EmbeddedProgram() {}

  /** A callback that C owns. */
  static long start() {
    return CallbackRef.register(arg -> arg).retain();
  }
}
