package io.callbridge;

import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.lang.ref.WeakReference;
import java.time.Duration;
import java.util.Objects;

/**
 * Owns a callback that native code calls by its handle. The callback lives until this is {@linkplain #close
 * closed}, or collected while no native owner ({@link #retain}) is left; then the handle is stale, which native
 * code is told instead of crashing.
 *
 * <p>The library keeps the {@link Callback} alive, not this object. So a callback that captures its own
 * {@code CallbackRef}, or what has it in a field, is never collected: use {@link #weak}, or close it.
 *
 * <p>All methods may be called on any thread, also inside the callback.
 */
public final class CallbackRef implements AutoCloseable {
  private final long handle;
  /** So that a scope is not collected, which closes it, while there is something in it. */
  private final Scope scope;
  private final Cleaner.Cleanable collected;

  /** {@code owner}: of a weak callback, else null. */
  private CallbackRef(Callback callback, CallbackOptions options, Object owner) {
    Objects.requireNonNull(callback);
    scope = options.scope;
    try {
      long scopeHandle = scope == null ? Scope.javaScope() : scope.handle();
      handle = Native.register(callback, options.onError, Native.bytes(options.name), scopeHandle, options.flags);
    } finally {
      Reference.reachabilityFence(scope);
    }
    try {
      Cleaner.Cleanable ownerCollected =
          owner == null ? null : Collected.track(owner, new Unregister(handle));
      collected = Collected.track(this, new Release(handle, ownerCollected));
    } catch (Throwable outOfMemory) {
      Native.unregister(handle);
      throw outOfMemory;
    }
  }

  /**
   * What the collector does: gives the reference back. No inner class or lambda, which would hold the very object
   * that is to be collected.
   */
  private record Release(long handle, Cleaner.Cleanable ownerCollected) implements Runnable {
    @Override
    public void run() {
      // Stale: it was closed, or its scope.
      Native.release(handle);
      // Owners may live long: what waits for their end must not outlive the callback.
      if (ownerCollected != null && !Native.isLive(handle)) {
        ownerCollected.clean();
      }
    }
  }

  /** What the collector does with a weak callback whose owner is gone. */
  private record Unregister(long handle) implements Runnable {
    @Override
    public void run() {
      Native.unregister(handle);
    }
  }

  /**
   * Makes a callback.
   *
   * @param callback kept alive until the callback ends
   * @return its owner
   * @throws CallbridgeException {@link Status#CLOSED} when the JVM shuts down; {@link Status#NOMEM}
   */
  public static CallbackRef register(Callback callback) {
    return register(callback, new CallbackOptions());
  }

  /**
   * Makes a callback.
   *
   * @param callback kept alive until the callback ends
   * @param options its name, scope, error listener
   * @return its owner
   * @throws CallbridgeException {@link Status#CLOSED} or {@link Status#STALE}: the scope is closing or closed;
   *     {@link Status#INVALID}: the name is too long; {@link Status#NOMEM}
   */
  public static CallbackRef register(Callback callback, CallbackOptions options) {
    return new CallbackRef(callback, options, null);
  }

  /**
   * Makes a callback of an owner without keeping the owner alive, for one that has the result in a field:
   *
   * <pre>{@code ref = CallbackRef.weak(this, Panel::onEvent);}</pre>
   *
   * It ends when the owner is collected, and as {@link #register}'s.
   *
   * @param <T> the owner's type
   * @param owner held weakly, strongly while a call runs
   * @param callback kept alive; must not capture the owner
   * @param options its name, scope, error listener
   * @return the callback's owner
   * @throws CallbridgeException as {@link #register}
   */
  public static <T> CallbackRef weak(T owner, BoundCallback<? super T> callback, CallbackOptions options) {
    Objects.requireNonNull(callback);
    WeakReference<T> weak = new WeakReference<>(Objects.requireNonNull(owner));
    return new CallbackRef(arg -> callWeak(weak, callback, arg), options, owner);
  }

  /**
   * As {@link #weak(Object, BoundCallback, CallbackOptions)}, without options.
   *
   * @param <T> the owner's type
   * @param owner held weakly, strongly while a call runs
   * @param callback kept alive; must not capture the owner
   * @return the callback's owner
   * @throws CallbridgeException as {@link #register}
   */
  public static <T> CallbackRef weak(T owner, BoundCallback<? super T> callback) {
    return weak(owner, callback, new CallbackOptions());
  }

  private static <T> long callWeak(WeakReference<T> weak, BoundCallback<? super T> callback, long arg)
      throws Exception {
    T owner = weak.get();
    if (owner == null) {
      // The cleaner has not come to it yet.
      throw new IllegalStateException("the callback's owner has been collected");
    }
    try {
      return callback.call(owner, arg);
    } finally {
      Reference.reachabilityFence(owner);
    }
  }

  /**
   * The number that native code calls: a {@code cbr_handle}. Holding it is not owning: what may outlive this
   * object needs {@link #retain}.
   *
   * @return also after the end, when it is stale
   */
  public long handle() {
    return handle;
  }

  /**
   * The handle with a reference for a native owner, who gives it back with {@code cbr_release} (or, as
   * {@code void *}, {@code cbr_release_ptr}). Until then the callback lives without this object.
   *
   * @return the handle
   * @throws CallbridgeException {@link Status#STALE}; {@link Status#LIMIT} at 2^30 references
   */
  public long retain() {
    try {
      CallbridgeException.check(Native.retain(handle));
      return handle;
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /**
   * Calls it, as native code does.
   *
   * @param arg the callback's
   * @return the callback's result
   * @throws CallbridgeException {@link Status#STALE}: it has ended; {@link Status#PANIC}: it has thrown an
   *     exception, the cause
   */
  public long call(long arg) {
    try {
      return Native.call(handle, arg);
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /**
   * Can it be called now? Another thread may end it at any time.
   *
   * @return false for ever, once it has ended
   */
  public boolean isLive() {
    try {
      return Native.isLive(handle);
    } finally {
      Reference.reachabilityFence(this);
    }
  }

  /**
   * Ends the callback for everybody, native owners included. No new call starts after this returns; calls that
   * run finish, and then the {@link Callback} is let go. Closing twice, or inside the callback, is allowed.
   */
  @Override
  public void close() {
    // Stale: it has ended already.
    Native.unregister(handle);
    collected.clean();
  }

  /**
   * Closes, and waits until no call runs any more and the {@link Callback} is let go.
   *
   * @param timeout null: for ever
   * @throws CallbridgeException {@link Status#TIMEOUT}: closed, and a call still runs; {@link Status#DEADLOCK}:
   *     closed, but this is called from inside the callback, directly or through others
   */
  public void closeAndWait(Duration timeout) {
    int status = Native.unregisterWait(handle, Native.nanos(timeout));
    collected.clean();
    if (status != Status.STALE.code()) {
      CallbridgeException.check(status);
    }
  }

  @Override
  public String toString() {
    return String.format("CallbackRef[0x%016x%s]", handle, isLive() ? "" : ", ended");
  }
}
