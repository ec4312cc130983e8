package io.callbridge;

import java.util.concurrent.CountDownLatch;

/**
 * A program that exits while native threads call: prints "refused" if they were, from the moment that the shutdown
 * has closed the scopes. With the argument "stuck" a callback never returns.
 */
final class ShutdownProgram {
  private ShutdownProgram() {}

  public static void main(String[] arguments) throws InterruptedException {
    boolean stuck = arguments.length > 0;
    CountDownLatch inside = new CountDownLatch(1);
    Scope scope = Scope.open("program");
    CallbackRef ref =
        CallbackRef.register(
            arg -> {
              inside.countDown();
              if (stuck) {
                new CountDownLatch(1).await();
              }
              return arg;
            },
            new CallbackOptions().scope(scope));
    Host.callForEver(ref.retain());
    inside.await();
    if (!stuck) {
      Runtime.getRuntime().addShutdownHook(new Thread(ShutdownProgram::waitForRefusal));
    }
    System.exit(7);
  }

  private static void waitForRefusal() {
    try {
      Check.eventually(() -> Host.refused() > 0, "native threads are refused when the JVM shuts down");
      System.out.println("refused");
    } catch (InterruptedException | AssertionError failure) {
      System.out.println(failure);
    }
  }
}
