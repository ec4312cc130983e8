package io.callbridge;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/** All scopes of Java, so that they are closed when the JVM shuts down. */
final class OpenScopes {
  /** How long the shutdown waits for calls that run. */
  private static final long GRACE_NS = 1_000_000_000L;

  private static final Set<Long> OPEN = ConcurrentHashMap.newKeySet();
  private static volatile boolean shutDown;

  /** The scope of callbacks that have no other. */
  static final long JAVA = open(Native.bytes("java"));

  static {
    try {
      Runtime.getRuntime().addShutdownHook(new Thread(OpenScopes::closeAll, "callbridge-shutdown"));
    } catch (IllegalStateException shuttingDown) {
      closeAll();
    }
  }

  private OpenScopes() {}

  static long open(byte[] name) {
    long scope = Native.scopeOpen(name);
    OPEN.add(scope);
    // Either the shutdown sees it, or we see the shutdown.
    if (shutDown) {
      close(scope, 0);
    }
    return scope;
  }

  static int close(long scope, long timeoutNs) {
    int status = Native.scopeClose(scope, timeoutNs);
    if (status == 0 || status == Status.STALE.code()) {
      OPEN.remove(scope);
    }
    return status;
  }

  /** From now on a native thread that calls gets CBR_ERR_STALE, and does not enter a JVM that goes away. */
  private static void closeAll() {
    shutDown = true;
    for (long scope : OPEN) {
      close(scope, 0);
    }
    long end = System.nanoTime() + GRACE_NS;
    for (long scope : OPEN) {
      close(scope, Math.max(0, end - System.nanoTime()));
    }
    Native.closeThreads();
  }
}
