package io.callbridge;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Runs the tests of the classes that are named, and says of each by name what has become of it. Every test must leave
 * as many callbacks, global references and attached threads as it has found.
 */
final class Runner {
  private static final long LIMIT_NS = 60_000_000_000L;

  /** Has a test failed already, and perhaps left something? */
  private static volatile boolean unclean;

  private Runner() {}

  public static void main(String[] classes) throws Exception {
    int failed = 0;
    int passed = 0;
    for (String name : classes) {
      for (Method test : tests(Class.forName("io.callbridge." + name))) {
        Throwable failure = run(test);
        if (failure == null) {
          passed++;
          System.out.printf("  ok       %s.%s%n", name, test.getName());
        } else {
          failed++;
          unclean = true;
          System.out.printf("  FAILED   %s.%s%n", name, test.getName());
          failure.printStackTrace(System.out);
        }
      }
    }
    System.out.printf("%d passed, %d failed%n", passed, failed);
    if (failed > 0 || passed == 0) {
      // Threads of a failed test may still run.
      Runtime.getRuntime().halt(1);
    }
  }

  private static List<Method> tests(Class<?> group) {
    return Arrays.stream(group.getDeclaredMethods())
        .filter(method -> method.isAnnotationPresent(Test.class))
        .sorted(Comparator.comparing(Method::getName))
        .toList();
  }

  private static Throwable run(Method test) throws InterruptedException {
    AtomicReference<Throwable> failure = new AtomicReference<>();
    Thread thread =
        new Thread(
            () -> {
              try {
                test.setAccessible(true);
                test.invoke(null);
                if (!unclean) {
                  leavesNothing();
                }
              } catch (InvocationTargetException thrown) {
                failure.set(thrown.getCause());
              } catch (Throwable thrown) {
                failure.set(thrown);
              }
            },
            test.getName());
    thread.setDaemon(true);
    thread.start();
    thread.join(LIMIT_NS / 1_000_000);
    if (thread.isAlive()) {
      for (Map.Entry<Thread, StackTraceElement[]> it : Thread.getAllStackTraces().entrySet()) {
        System.out.println(it.getKey());
        Arrays.stream(it.getValue()).forEach(frame -> System.out.println("    " + frame));
      }
      failure.compareAndSet(null, new AssertionError("did not end"));
    }
    return failure.get();
  }

  private static void leavesNothing() throws InterruptedException {
    Check.eventuallyCollected(
        () -> Native.globalRefs() == 0 && Native.attachedThreads() == 0,
        "no global reference and no attached thread is left");
    Stats stats = Stats.of(OpenScopes.JAVA);
    Check.equal(0L, stats.live() + stats.destroyPending(), "callbacks that are left in " + stats);
  }
}
