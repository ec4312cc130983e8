package io.callbridge;

/**
 * A callback of an owner that it does not keep alive, see {@link CallbackRef#weak}. Do not capture the owner:
 * it is handed in for the time of the call.
 *
 * @param <T> the owner's type
 */
@FunctionalInterface
public interface BoundCallback<T> {
  /**
   * Runs one call, as {@link Callback#call}.
   *
   * @param owner alive until this returns
   * @param arg the caller's {@code void *arg}, as a number
   * @return the caller's result
   * @throws Exception anything: it is contained
   */
  long call(T owner, long arg) throws Exception;
}
