import io.callbridge.CallbackOptions;
import io.callbridge.CallbackRef;
import io.callbridge.Scope;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/** A C library (ticker.c) calls Java on a thread of its own, and goes on doing so after Java has ended the callback. */
final class Ticker {
  static {
    System.loadLibrary("ticker");
  }

  private Ticker() {}

  /** Starts a thread that calls {@code handle} every millisecond. */
  private static native long start(long handle);

  /** Ends it, and says how many of its calls were refused because the callback was gone. */
  private static native long stop(long ticker);

  public static void main(String[] arguments) throws InterruptedException {
    AtomicLong failures = new AtomicLong();
    CountDownLatch ticks = new CountDownLatch(10);
    CallbackOptions options =
        new CallbackOptions().name("tick").onError((handle, status, message) -> {
          failures.incrementAndGet();
          System.out.println(status + ": " + message);
        });
    long ticker;
    try (Scope scope = Scope.open("ticker")) {
      CallbackRef ref =
          CallbackRef.register(
              number -> {
                if (number == 3) {
                  throw new IllegalArgumentException("I do not like " + number);
                }
                if (number == 4) {
                  System.out.println("on " + Thread.currentThread());
                }
                ticks.countDown();
                return number;
              },
              options.scope(scope));
      // The native thread owns a reference; this program need not keep its own.
      ticker = start(ref.retain());
      if (!ticks.await(30, TimeUnit.SECONDS)) {
        throw new AssertionError("the ticker does not tick");
      }
    }
    // The scope is closed: no call runs any more. The thread still ticks, and is told CBR_ERR_STALE.
    long refused = stop(ticker);
    System.out.println(failures + " call failed, then calls were refused: " + (refused > 0));
    if (failures.get() != 1 || refused == 0) {
      throw new AssertionError();
    }
  }
}
