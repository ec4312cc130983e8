package io.callbridge.bench;

import io.callbridge.Callback;
import io.callbridge.CallbackRef;
import java.util.Arrays;
import java.util.List;

/** Prints {@code subject<TAB>nanoseconds<TAB>repetition}; the subjects take turns in every repetition. */
final class Bench {
  /** Runs its subject so many times, and says how many nanoseconds that took. */
  private interface Loop {
    long run(long count);
  }

  private record Subject(String name, Loop loop) {}

  private static final int REPETITIONS = 7;

  /**
   * A repetition's slice is divided into turns, and its number is their lower quartile: others on the machine slow down
   * some turns, of one subject or another. Each turn begins with another subject, so that none keeps step with them.
   */
  private static final int TURNS = 11;

  private static long sum;

  private Bench() {}

  public static void main(String[] arguments) {
    long sliceNs = arguments.length > 0 && arguments[0].equals("--quick") ? 50_000_000 : 100_000_000;
    Callback target = arg -> sum += arg;
    try (CallbackRef ref = CallbackRef.register(target);
        CallbackRef other = CallbackRef.register(target)) {
      List<Subject> subjects =
          List.of(
              new Subject("java bare-upcall", count -> Loops.bare(target, count, true)),
              new Subject("java bare-upcall-unchecked", count -> Loops.bare(target, count, false)),
              new Subject("java callbridge-upcall", count -> Loops.callbridge(ref.handle(), ref.handle(), count)),
              new Subject(
                  "java callbridge-upcall-in-turns",
                  count -> Loops.callbridge(ref.handle(), other.handle(), count)),
              new Subject("java foreign-thread-bare-upcall", count -> Loops.foreignThreadBare(target, count)),
              new Subject("java foreign-thread-upcall", count -> Loops.foreignThread(ref.handle(), count)),
              new Subject("java NewGlobalRef-DeleteGlobalRef", count -> globalRefs(target, count)),
              new Subject("java register-release", count -> registrations(target, count)));
      long[] counts = new long[subjects.size()];
      // The first rounds are for the compiler.
      for (int round = 0; round < 5; round++) {
        for (int i = 0; i < counts.length; i++) {
          counts[i] = calibrate(subjects.get(i).loop(), sliceNs / TURNS);
        }
      }
      for (int repetition = 0; repetition < REPETITIONS; repetition++) {
        double[][] ns = new double[counts.length][TURNS];
        for (int turn = 0; turn < TURNS; turn++) {
          for (int place = 0; place < counts.length; place++) {
            int i = (place + turn) % counts.length;
            ns[i][turn] = (double) subjects.get(i).loop().run(counts[i]) / counts[i];
          }
        }
        for (int i = 0; i < counts.length; i++) {
          System.out.printf("%s\t%.2f\t%d%n", subjects.get(i).name(), lowerQuartile(ns[i]), repetition);
        }
      }
    }
  }

  private static double lowerQuartile(double[] numbers) {
    double[] sorted = numbers.clone();
    Arrays.sort(sorted);
    return sorted[sorted.length / 4];
  }

  /** How many times take so long. */
  private static long calibrate(Loop loop, long wantedNs) {
    long count = 1000;
    while (true) {
      long took = loop.run(count);
      if (took >= wantedNs / 2) {
        return Math.max(1, (long) ((double) count * wantedNs / took));
      }
      count = took < wantedNs / 20 ? count * 8 : count * 2;
    }
  }

  private static long globalRefs(Object target, long count) {
    long begin = System.nanoTime();
    for (long i = 0; i < count; i++) {
      Loops.deleteGlobalRef(Loops.newGlobalRef(target));
    }
    return System.nanoTime() - begin;
  }

  private static long registrations(Callback target, long count) {
    long begin = System.nanoTime();
    for (long i = 0; i < count; i++) {
      CallbackRef.register(target).close();
    }
    return System.nanoTime() - begin;
  }
}
