/* CALLBRIDGE_STATS_SOCKET: the socket's place, what is there already, forks, and what a machine refuses. */
#include "support_child.h"
#include "support_seccomp.h"
#include "support_stats_socket.h"

#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/resource.h>

enum { NOBODY = 65534 };

/* Uses the library in a process of its own, with the socket at `place`; what it logs is in `output`. */
static char output[1 << 14];

CHILD(uses_the_library) {
  CHECK_EQ(setenv("CALLBRIDGE_LOG", "warn", 1), 0);
  check_library_works();
}

static void check_warns(const char *place, const char *words) {
  check_child("uses_the_library", STATS_SOCKET, place, output, sizeof output);
  CHECK_CONTAINS(output, "CALLBRIDGE_STATS_SOCKET=");
  CHECK_CONTAINS(output, "statistics are not served: ");
  CHECK_CONTAINS(output, words);
}

static void check_does_not_warn(const char *place) {
  check_child("uses_the_library", STATS_SOCKET, place, output, sizeof output);
  CHECK_STR(output, "");
}

/* --- the place ------------------------------------------------------------------------------ */

TEST(the_place_may_have_the_processs_number) {
  char path[64];
  folder_make();
  serve_at(in_folder("%p-100%%"));
  snprintf(path, sizeof path, "%d-100%%", getpid());
  check_served(in_folder(path));
  folder_drop();
}

TEST(a_relative_place_is_where_the_process_was) {
  folder_make();
  CHECK_EQ(chdir(folder), 0);
  pid_t child = fork_watched();
  if (child == 0) {
    serve_at("stats");
    CHECK_EQ(chdir("/"), 0);
    check_served(in_folder("stats"));
    exit(0); /* takes it away again */
  }
  check_child_passed(child);
  CHECK_EQ(count_in(folder), 0);
  folder_drop();
}

TEST(a_place_that_cannot_be_is_a_warning) {
  char longest[128], longer[128];
  folder_make();
  snprintf(longest, sizeof longest, "%s/%0*d", folder, (int)(106 - strlen(folder)), 0);
  CHECK_EQ(strlen(longest), 107);
  check_does_not_warn(longest);
  snprintf(longer, sizeof longer, "%s0", longest);
  check_warns(longer, "the path is longer than 107 bytes");
  check_warns(in_folder("none/stats"), "bind: No such file or directory");
  check_warns(in_folder("%d"), "it has a % that is neither");
  check_warns(in_folder("%"), "it has a % that is neither");
  CHECK_EQ(count_in(folder), 0);
  folder_drop();
}

TEST(at_exit_the_path_goes) {
  folder_make();
  check_does_not_warn(in_folder("stats"));
  CHECK_EQ(count_in(folder), 0);
  folder_drop();
}

CHILD(loses_its_path) {
  const char *path = getenv(STATS_SOCKET);
  check_library_works();
  CHECK_EQ(unlink(path), 0);
  CHECK(listen_at(path) >= 0); /* another one's, for what the library knows */
}

TEST(at_exit_anothers_path_stays) {
  folder_make();
  check_child("loses_its_path", STATS_SOCKET, in_folder("stats"), output, sizeof output);
  CHECK_EQ(count_in(folder), 1);
  folder_drop();
}

/* --- what is there already ------------------------------------------------------------------ */

TEST(what_a_dead_process_has_left_is_replaced) {
  folder_make();
  pid_t child = fork_watched();
  if (child == 0) {
    serve_at(in_folder("stats"));
    check_served(in_folder("stats"));
    raise(SIGKILL);
  }
  CHECK_EQ(wait_for(child), SIGKILL);
  CHECK_EQ(try_connect(in_folder("stats")), -1);
  CHECK_EQ(errno, ECONNREFUSED);
  serve_at(in_folder("stats"));
  check_served(in_folder("stats"));
  CHECK_EQ(count_in(folder), 1);
  folder_drop();
}

TEST(what_a_live_process_serves_stays) {
  const char *path = serve();
  check_warns(path, "another process serves it");
  check_served(path);
  folder_drop();
}

TEST(who_has_no_time_to_listen_keeps_its_path) {
  folder_make();
  const char *path = in_folder("stats");
  int listener = listen_at(path), waiting = 0;
  /* As many as there is room for wait to be let in. */
  struct sockaddr_un address = address_of(path);
  for (;;) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) break;
    waiting++;
  }
  CHECK_EQ(errno, EAGAIN);
  check_warns(path, "another process serves it");
  for (int i = 0; i < waiting; i++) CHECK(accept(listener, NULL, NULL) >= 0);
  CHECK(try_connect(path) >= 0);
  folder_drop();
}

TEST(what_is_no_socket_stays) {
  struct stat status;
  folder_make();
  int file = open(in_folder("file"), O_CREAT | O_WRONLY, 0644);
  CHECK_EQ(write(file, "mine", 4), 4);
  CHECK_EQ(mkdir(in_folder("folder"), 0755), 0);
  CHECK_EQ(symlink("nothing", in_folder("link")), 0);
  CHECK_EQ(symlink("file", in_folder("link-to-file")), 0);
  check_warns(in_folder("file"), "what is there is no socket");
  check_warns(in_folder("folder"), "what is there is no socket");
  check_warns(in_folder("link"), "what is there is no socket");
  check_warns(in_folder("link-to-file"), "what is there is no socket");
  CHECK_EQ(stat(in_folder("file"), &status), 0);
  CHECK_EQ(status.st_size, 4);
  CHECK_EQ(count_in(folder), 4);
  folder_drop();
}

/* All find the same stale path. One gets it, and keeps it. */
TEST(of_processes_that_start_at_once_one_serves) {
  enum { PROCESSES = 8 };
  pid_t children[PROCESSES];
  folder_make();
  const char *path = in_folder("stats");
  CHECK_EQ(setenv("CALLBRIDGE_LOG", "off", 1), 0);
  for (long round = 0; round < scaled(30); round++) {
    int start_ends[2], done_ends[2], told = 0;
    char byte;
    unlink(path);
    close(listen_at(path));
    CHECK_EQ(pipe(start_ends), 0);
    CHECK_EQ(pipe(done_ends), 0);
    for (int i = 0; i < PROCESSES; i++) {
      children[i] = fork_watched();
      if (children[i] != 0) continue;
      close(start_ends[1]);
      CHECK_EQ(read(start_ends[0], &byte, 1), 0);
      serve_at(path);
      CHECK_EQ(write(done_ends[1], sockets() > 0 ? "y" : "n", 1), 1);
      pause();
    }
    close(start_ends[0]);
    close(start_ends[1]);
    for (int i = 0; i < PROCESSES; i++) {
      CHECK_EQ(read(done_ends[0], &byte, 1), 1);
      told += byte == 'y';
    }
    CHECK_EQ(told, 1);
    check_served(path);
    pid_t server = (pid_t)number_after("{", "pid");
    bool is_one = false;
    for (int i = 0; i < PROCESSES; i++) {
      is_one |= children[i] == server;
      kill(children[i], SIGKILL);
      CHECK_EQ(wait_for(children[i]), SIGKILL);
    }
    CHECK(is_one);
    close(done_ends[0]);
    close(done_ends[1]);
  }
  folder_drop();
}

/* Another user may lock a folder like /tmp. */
TEST(a_folder_that_somebody_has_locked_is_no_reason_to_wait) {
  folder_make();
  int held = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  CHECK_EQ(flock(held, LOCK_EX), 0);
  close(listen_at(in_folder("stats")));
  serve_at(in_folder("stats"));
  check_served(in_folder("stats"));
  folder_drop();
}

/* --- forks ------------------------------------------------------------------------------- */

TEST(the_child_of_a_fork_serves_nothing_and_takes_nothing_away) {
  const char *path = serve();
  int client = connect_to(path);
  tell(client, "snapshot limit=0\n");
  hear(client);
  pid_t child = fork_watched();
  if (child == 0) {
    close(client);
    CHECK_EQ(sockets(), 0);
    check_library_works();
    exit(0);
  }
  check_child_passed(child);
  check_served(path);
  tell(client, "snapshot limit=0\n");
  CHECK_CONTAINS(hear(client), "\"stats\":");
  folder_drop();
}

/* A host may close all descriptors that it does not know, and open its own. */
TEST(the_child_of_a_fork_keeps_what_the_host_has_opened_in_the_sockets_place) {
  serve();
  int fd = STDERR_FILENO + 1;
  struct stat status;
  while (fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode)) CHECK(++fd < 1024);
  CHECK_EQ(dup2(STDERR_FILENO, fd), fd);
  pid_t child = fork_watched();
  if (child == 0) {
    CHECK(fcntl(fd, F_GETFD) >= 0);
    _exit(0);
  }
  check_child_passed(child);
  folder_drop();
}

/* With a copy of the descriptor the child would keep the path alive, and its clients waiting. */
TEST(a_child_that_outlives_its_parent_does_not_keep_the_path) {
  int ends[2], back[2];
  char byte;
  folder_make();
  const char *path = in_folder("stats");
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(pipe(back), 0);
  pid_t parent = fork_watched();
  if (parent == 0) {
    serve_at(path);
    CHECK_EQ(write(ends[1], "s", 1), 1);
    CHECK_EQ(read(back[0], &byte, 1), 1); /* a client is connected */
    if (fork_watched() == 0) {
      CHECK_EQ(write(ends[1], "c", 1), 1);
      CHECK_EQ(read(back[0], &byte, 1), 1);
      _exit(0);
    }
    pause();
  }
  CHECK_EQ(read(ends[0], &byte, 1), 1);
  int client = connect_to(path);
  tell(client, "snapshot limit=0\n");
  CHECK_CONTAINS(hear(client), "\"stats\":");
  CHECK_EQ(write(back[1], "g", 1), 1);
  CHECK_EQ(read(ends[0], &byte, 1), 1); /* the child lives */
  kill(parent, SIGKILL);
  CHECK_EQ(wait_for(parent), SIGKILL);
  CHECK(recv(client, line, sizeof line, 0) <= 0);
  CHECK_EQ(try_connect(path), -1);
  CHECK_EQ(errno, ECONNREFUSED);
  serve_at(path);
  check_served(path);
  CHECK_EQ(write(back[1], "g", 1), 1);
  folder_drop();
}

TEST(forks_while_clients_come_and_go_leave_nothing_behind) {
  const char *path = serve();
  CHECK_EQ(sockets(), 1); /* it listens */
  for (long round = 0; round < scaled(200); round++) {
    int fd = connect_to(path);
    tell(fd, "snapshot\n");
    pid_t child = fork_watched();
    if (child == 0) {
      close(fd);
      CHECK_EQ(sockets(), 0);
      _exit(0);
    }
    CHECK_CONTAINS(hear(fd), "\"stats\":");
    close(fd);
    check_child_passed(child);
  }
  check_served(path);
  folder_drop();
}

TEST(a_program_that_a_host_starts_finds_the_path_in_use) {
  char pattern[256];
  const char *path = serve();
  check_warns(path, "another process serves it");
  check_served(path);
  /* With its own number in the path it has one of its own. */
  snprintf(pattern, sizeof pattern, "%s/%%p", folder);
  check_does_not_warn(pattern);
  folder_drop();
}

TEST(a_program_that_a_host_becomes_has_no_descriptors_of_it) {
  folder_make();
  pid_t child = fork_watched();
  if (child == 0) {
    serve_at(in_folder("stats"));
    int client = connect_to(in_folder("stats"));
    tell(client, "snapshot limit=0\n");
    hear(client);
    CHECK_EQ(fcntl(client, F_SETFD, FD_CLOEXEC), 0);
    execl("/bin/sh", "sh", "-c", "for fd in /proc/self/fd/*; do [ ! -S $fd ] || exit 1; done", NULL);
    _exit(126);
  }
  check_child_passed(child);
  folder_drop();
}

/* --- what a machine refuses, and what a host does ------------------------------------------- */

static void check_goes_without(void) {
  int before = threads();
  serve_at(in_folder("stats"));
  check_library_works();
  CHECK_EQ(threads(), before);
  CHECK(!is_there(in_folder("stats")));
}

/* In a child that ends at once: a sanitizer that looks for leaks needs what is refused here. */
TEST(without_threads_nothing_is_served) {
  folder_make();
  pid_t child = fork_watched();
  if (child == 0) {
#ifdef SYS_clone3
    seccomp_refuse(SYS_clone3, EAGAIN);
#endif
    seccomp_refuse(SYS_clone, EAGAIN);
    check_goes_without();
    _exit(0);
  }
  check_child_passed(child);
  folder_drop();
}

TEST(a_filter_that_forbids_sockets_forbids_the_view_alone) {
  static const long calls[] = {SYS_socket, SYS_bind, SYS_listen};
  folder_make();
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
    pid_t child = fork_watched();
    if (child == 0) {
      seccomp_refuse(calls[i], EPERM);
      check_goes_without();
      _exit(0);
    }
    check_child_passed(child);
  }
  folder_drop();
}

TEST(without_descriptors_nothing_is_served) {
  if (under_valgrind()) SKIP("valgrind keeps descriptors of its own");
  folder_make();
  pid_t child = fork_watched();
  if (child == 0) {
    struct rlimit limit = {3, 3};
    DIR *entries = opendir("/proc/self/task"); /* while there are some */
    int before = threads(), count = 0;
    CHECK(entries != NULL);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    serve_at(in_folder("stats"));
    check_library_works();
    for (struct dirent *it; (it = readdir(entries)) != NULL;) count += it->d_name[0] != '.';
    CHECK_EQ(count, before);
    CHECK(!is_there(in_folder("stats")));
    _exit(0);
  }
  check_child_passed(child);
  folder_drop();
}

static int signals_taken;

static void takes_signal(int number) {
  (void)number;
  add_int(&signals_taken, 1);
}

TEST(signals_are_left_to_the_hosts_threads) {
  struct sigaction action;
  sigset_t mask, pending;
  memset(&action, 0, sizeof action);
  action.sa_handler = takes_signal;
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  const char *path = serve();
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &mask, NULL), 0);
  CHECK_EQ(kill(getpid(), SIGUSR1), 0);
  check_served(path); /* the library's thread has run meanwhile */
  CHECK_EQ(load_int(&signals_taken), 0);
  CHECK_EQ(sigpending(&pending), 0);
  CHECK(sigismember(&pending, SIGUSR1));
  CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &mask, NULL), 0);
  CHECK_EQ(load_int(&signals_taken), 1);
  folder_drop();
}

TEST(the_host_keeps_its_signal_mask) {
  sigset_t before, after;
  sigemptyset(&before);
  sigaddset(&before, SIGUSR2);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
  serve();
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &after), 0);
  for (int number = 1; number < 32; number++)
    CHECK_EQ(sigismember(&after, number), number == SIGUSR2);
  folder_drop();
}

/* --- a program with rights that its starter lacks -------------------------------------------- */

CHILD(is_privileged) {
  if (getauxval(AT_SECURE) == 0) SKIP("programs get no rights from their files' modes here");
  CHECK_EQ(setenv("CALLBRIDGE_LOG", "warn", 1), 0);
  check_library_works();
  _exit(0); /* a sanitizer may not look for leaks here */
}

TEST(a_privileged_program_serves_nothing) {
  char command[1024], program[512] = "";
  if (geteuid() != 0) SKIP("only root can make a program of another user's");
  if (under_valgrind()) SKIP("valgrind runs no program with other rights");
  folder_make();
  CHECK_EQ(chmod(folder, 0777), 0);
  CHECK(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
  snprintf(command, sizeof command,
           "cp %s %s/program && chown %d %s/program && chmod 4755 %s/program && " STATS_SOCKET
           "=%s/stats %s/program --child is_privileged 2>%s/log",
           program, folder, NOBODY, folder, folder, folder, folder, folder);
  int status = system(command);
  if (WEXITSTATUS(status) == HARNESS_SKIPPED) SKIP("programs get no rights from files here");
  CHECK_EQ(status, 0);
  FILE *log = fopen(in_folder("log"), "r");
  CHECK(log != NULL);
  output[fread(output, 1, sizeof output - 1, log)] = '\0';
  fclose(log);
  CHECK_CONTAINS(output, "statistics are not served: the program has rights");
  CHECK(!is_there(in_folder("stats")));
  folder_drop();
}
