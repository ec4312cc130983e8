package io.callbridge;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/** Whose threads callbacks run on, and who attaches and detaches them. */
final class ThreadTest {
  private ThreadTest() {}

  /** A callback that notes its threads. */
  private static final class Seen implements AutoCloseable {
    final List<Thread> threads = new ArrayList<>();
    final CallbackRef ref =
        CallbackRef.register(
            arg -> {
              synchronized (threads) {
                return threads.add(Thread.currentThread()) ? 1 : 0;
              }
            });

    Thread last() {
      return threads.get(threads.size() - 1);
    }

    Thread callOn(NativeThread thread) {
      Check.equal(Status.OK, thread.call(ref.handle(), 0).status(), "call");
      return last();
    }

    @Override
    public void close() {
      ref.close();
    }
  }

  @Test
  static void aNativeThreadIsAttachedOnce() {
    try (Seen seen = new Seen();
        NativeThread thread = new NativeThread("c")) {
      Check.that(!thread.isAttached(), "not before it calls");
      for (int i = 0; i < 100; i++) {
        Check.that(seen.callOn(thread) == seen.threads.get(0), "the same Thread at every call");
      }
      Check.equal(1L, Native.attachedThreads(), "attached threads");
      try (Seen another = new Seen()) {
        Check.that(another.callOn(thread) == seen.last(), "the same Thread in every callback");
      }
    }
  }

  @Test
  static void itIsADaemonWithAName() {
    try (Seen seen = new Seen();
        NativeThread thread = new NativeThread("mixer 2")) {
      Thread it = seen.callOn(thread);
      Check.that(it.isDaemon(), "a daemon");
      Check.that(it.getName().matches("callbridge-mixer 2-\\d+"), "named " + it.getName());
    }
  }

  @Test
  static void itIsDetachedAtItsEnd() {
    try (Seen seen = new Seen()) {
      Thread it;
      try (NativeThread thread = new NativeThread("c")) {
        it = seen.callOn(thread);
        Check.that(it.isAlive() && Native.attachedThreads() == 1, "alive");
      }
      Check.that(!it.isAlive(), "the JVM knows that it has ended");
      Check.equal(0L, Native.attachedThreads(), "attached threads");
    }
  }

  @Test
  static void aJvmThreadIsLeftAlone() throws InterruptedException {
    try (Seen seen = new Seen()) {
      Thread me = Thread.currentThread();
      String name = me.getName();
      boolean daemon = me.isDaemon();
      for (int i = 0; i < 10; i++) {
        Host.call(seen.ref.handle(), 0);
        Check.that(seen.last() == me && Thread.currentThread() == me, "the same thread inside and afterwards");
      }
      Check.that(me.getName().equals(name) && me.isDaemon() == daemon, "as it was");
      Check.equal(0L, Native.attachedThreads(), "attached threads");
      Thread another = new Thread(() -> Host.call(seen.ref.handle(), 0), "java");
      another.start();
      another.join();
      Check.that(seen.last() == another, "another thread of Java's, which has ended without harm");
    }
  }

  @Test
  static void aThreadThatTheHostAttachedIsLeftAlone() {
    try (Seen seen = new Seen();
        NativeThread thread = new NativeThread("c")) {
      thread.attach();
      Check.equal("attached by the host", seen.callOn(thread).getName(), "name");
      Check.that(!seen.last().isDaemon() && thread.isAttached(), "as the host has it");
      Check.equal(0L, Native.attachedThreads(), "attached threads");
      thread.detach();
      Check.that(!seen.last().isAlive(), "the host detaches it");
      Check.that(seen.callOn(thread).getName().startsWith("callbridge-c-"), "from now on it is ours");
      Check.equal(1L, Native.attachedThreads(), "attached threads");
    }
    Check.equal(0L, Native.attachedThreads(), "attached threads at the end");
  }

  @Test
  static void aHostMayDetachAThreadThatWasAttachedHere() {
    try (Seen seen = new Seen();
        NativeThread thread = new NativeThread("c")) {
      for (int i = 0; i < 3; i++) {
        Thread it = seen.callOn(thread);
        // The idiom of those who do not look: attach (nothing happens), work, detach.
        thread.attach();
        thread.detach();
        Check.that(!it.isAlive() && !thread.isAttached(), "detached");
        Check.that(seen.callOn(thread) != it, "attached again");
      }
      Check.equal(1L, Native.attachedThreads(), "attached threads");
      thread.attach();
      thread.detach();
    }
    Check.equal(0L, Native.attachedThreads(), "attached threads at the end");
  }

  @Test
  static void aThreadsLastReleaseLetsGo() {
    CallbackRef ref = CallbackRef.register(arg -> 0);
    try (NativeThread thread = new NativeThread("c")) {
      long handle = ref.retain();
      ref.retain();
      Check.equal(Status.OK, thread.release(handle), "release");
      Check.equal(1L, Native.globalRefs(), "others own it");
      // A thread that has never called, and must be attached to let go of the object.
      Check.equal(Status.OK, thread.unregister(handle), "unregister");
      Check.equal(0L, Native.globalRefs(), "nobody owns it");
      Check.equal(1L, Native.attachedThreads(), "attached threads");
    }
    Check.equal(0L, Native.attachedThreads(), "attached threads at the end");
  }

  @Test
  static void aThreadMayCallUntilTheVeryEnd() {
    try (Seen seen = new Seen()) {
      try (NativeThread thread = new NativeThread("c")) {
        seen.callOn(thread);
        thread.callAtExit(seen.ref.handle());
      }
      Check.equal(2, seen.threads.size(), "calls");
      Check.that(!seen.threads.get(0).isAlive() && !seen.threads.get(1).isAlive(), "detached, however often");
      Check.equal(0L, Native.attachedThreads(), "attached threads");
    }
  }

  @Test
  static void threadsThatComeAndGoLeaveNothing() {
    Set<Thread> all = new HashSet<>();
    try (Seen seen = new Seen()) {
      for (int i = 0; i < 300; i++) {
        try (NativeThread thread = new NativeThread("short")) {
          all.add(seen.callOn(thread));
        }
      }
    }
    Check.equal(300, all.size(), "threads");
    Check.that(all.stream().noneMatch(Thread::isAlive), "all have ended");
    Check.that(
        Thread.getAllStackTraces().keySet().stream().noneMatch(it -> it.getName().startsWith("callbridge-short")),
        "the JVM has forgotten them");
  }
}
