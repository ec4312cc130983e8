package io.callbridge;

import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.time.Duration;

/**
 * An owner of callbacks: a plugin, a connection, a module. Closing it ends everything that is registered in it.
 * One that is collected is closed; its callbacks' {@link CallbackRef}s keep it.
 *
 * <p>When the JVM shuts down, all are closed, so that native threads do not call into it any more.
 *
 * <p>All methods may be called on any thread.
 */
public final class Scope implements AutoCloseable {
  private final long handle;
  private final Cleaner.Cleanable collected;

  private Scope(String name) {
    handle = OpenScopes.open(Native.bytes(name));
    collected = Collected.track(this, new Close(handle));
  }

  private record Close(long handle) implements Runnable {
    @Override
    public void run() {
      OpenScopes.close(handle, 0);
    }
  }

  /**
   * Opens a scope.
   *
   * @param name for reports, metrics and logs, at most 255 bytes of UTF-8; null: none
   * @return to be closed
   * @throws CallbridgeException {@link Status#INVALID}: the name is too long; {@link Status#CLOSED} when the
   *     JVM shuts down; {@link Status#NOMEM}
   */
  public static Scope open(String name) {
    return new Scope(name);
  }

  /** The scope of callbacks that have no other, which is closed when the JVM shuts down. */
  static long javaScope() {
    return OpenScopes.JAVA;
  }

  /**
   * The {@code cbr_scope}.
   *
   * @return also after the end, when it is stale
   */
  public long handle() {
    return handle;
  }

  /**
   * Numbers of it.
   *
   * @return as of now
   * @throws CallbridgeException {@link Status#STALE}: it is closed
   */
  public Stats stats() {
    try {
      return Stats.of(handle);
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /** Closes, and waits for ever, as {@link #close(Duration)}. */
  @Override
  public void close() {
    close(null);
  }

  /**
   * Ends everything that is registered here, and waits until no call runs any more. Closing again is allowed,
   * and waits on.
   *
   * @param timeout null: for ever
   * @throws CallbridgeException {@link Status#TIMEOUT} or, from inside one of its callbacks,
   *     {@link Status#DEADLOCK}: everything has ended, and calls still run
   */
  public void close(Duration timeout) {
    int status = OpenScopes.close(handle, Native.nanos(timeout));
    if (status == 0 || status == Status.STALE.code()) {
      collected.clean();
    } else {
      throw CallbridgeException.of(status, null);
    }
  }
}
