package io.callbridge;

import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharsetEncoder;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;

/** Exceptions in words. Called by native code, which has caught one. */
final class Failures {
  /** What {@code cbr_fail} keeps of a message. */
  private static final int LIMIT = 511;

  private Failures() {}

  /** Class and message as UTF-8, without NUL, cut between characters. */
  static byte[] describe(Throwable thrown) {
    if (thrown instanceof InterruptedException) {
      // It is contained here, and who looks at the flag shall still see it.
      Thread.currentThread().interrupt();
    }
    String text = thrown.getClass().getName();
    try {
      String message = thrown.getLocalizedMessage();
      if (message != null) {
        text += ": " + message;
      }
    } catch (Throwable another) {
      text += " (its message has thrown " + another.getClass().getName() + ")";
    }
    CharsetEncoder encoder =
        StandardCharsets.UTF_8
            .newEncoder()
            .onMalformedInput(CodingErrorAction.REPLACE)
            .onUnmappableCharacter(CodingErrorAction.REPLACE);
    // An encoder does not write half a character.
    ByteBuffer bytes = ByteBuffer.allocate(LIMIT);
    encoder.encode(CharBuffer.wrap(text.replace('\0', ' ')), bytes, true);
    byte[] result = new byte[bytes.position()];
    bytes.flip().get(result);
    return result;
  }

  /** {@code cbr_error_fn} of a callback with a listener. */
  static void tell(FailureListener listener, long handle, int status, byte[] message) {
    listener.failed(handle, Status.of(status), Native.text(message));
  }
}
