package io.callbridge;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** What the end of the JVM means for native threads that call. */
final class ShutdownTest {
  private ShutdownTest() {}

  /** What it has printed; it must exit with 7. */
  private static String run(String... arguments) throws IOException, InterruptedException {
    List<String> command = new ArrayList<>();
    command.add(ProcessHandle.current().info().command().orElseThrow());
    // As this one was started: java.library.path, and what keeps the JVM from saying something itself.
    command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
    command.addAll(List.of("-cp", System.getProperty("java.class.path"), ShutdownProgram.class.getName()));
    command.addAll(List.of(arguments));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    if (!process.waitFor(30, TimeUnit.SECONDS)) {
      process.destroyForcibly();
      throw new AssertionError("it does not exit");
    }
    String output = new String(process.getInputStream().readAllBytes());
    Check.equal(7, process.exitValue(), "exit code; output <" + output + ">");
    return output.strip();
  }

  @Test
  static void nativeThreadsAreRefusedWhenTheJvmShutsDown() throws IOException, InterruptedException {
    Check.equal("refused", run(), "output");
  }

  @Test
  static void aCallbackThatNeverReturnsDoesNotKeepTheJvm() throws IOException, InterruptedException {
    Check.equal("", run("stuck"), "output");
  }
}
