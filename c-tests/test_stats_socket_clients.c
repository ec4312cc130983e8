/* CALLBRIDGE_STATS_SOCKET: clients that do what they should not. The host does not notice, and who
 * behaves is answered. */
#include "support_random.h"
#include "support_stats_socket.h"

#include <poll.h>

enum { STUCK = 8 }; /* as many as are served at once */

/* It is not for ever that somebody waits. */
static void check_ends(int fd) {
  struct pollfd it = {fd, POLLIN, 0};
  CHECK_EQ(poll(&it, 1, 30000), 1);
  CHECK(recv(fd, line, sizeof line, 0) <= 0);
}

TEST(who_sends_nothing_keeps_nobody_waiting) {
  const char *path = serve();
  int fds[2 * STUCK];
  for (int i = 0; i < 2 * STUCK; i++) fds[i] = connect_to(path);
  check_served(path);
  for (int i = 0; i < 2 * STUCK; i++) close(fds[i]);
  check_served(path);
  folder_drop();
}

TEST(who_sends_half_a_request_keeps_nobody_waiting) {
  const char *path = serve();
  int fds[STUCK];
  for (int i = 0; i < STUCK; i++) {
    fds[i] = connect_to(path);
    tell(fds[i], "snap");
  }
  check_served(path);
  int fd = connect_to(path);
  tell(fd, "snapsh");
  check_ends(fd);
  for (int i = 0; i < STUCK; i++) close(fds[i]);
  folder_drop();
}

/* More than the kernel keeps for who does not read. */
TEST(who_reads_no_answer_keeps_nobody_waiting) {
  enum { MANY = 5000 };
  const char *path = serve();
  int fds[STUCK];
  cbr_handle handle;
  for (int i = 0; i < MANY; i++) CHECK_OK(cbr_register(subject_fn, NULL, NULL, &handle));
  for (int i = 0; i < STUCK; i++) {
    fds[i] = connect_to(path);
    tell(fds[i], "snapshot limit=5000\n");
  }
  check_served(path);
  ask(path, "snapshot limit=5000");
  CHECK_EQ(number_after("\"callbacks\"", "truncated"), 0);
  CHECK(strlen(line) > 500000);
  /* A slow reader gets all of it. */
  int fd = connect_to(path);
  tell(fd, "snapshot limit=5000\n");
  sched_yield();
  hear(fd);
  CHECK_EQ(number_after("\"callbacks\"", "total"), MANY);
  /* Who does not read at all is dropped in time. */
  fd = connect_to(path);
  tell(fd, "snapshot limit=5000\n");
  struct pollfd last = {fd, POLLRDHUP, 0};
  CHECK_EQ(poll(&last, 1, 30000), 1);
  size_t got = 0;
  for (ssize_t more; (more = recv(fd, line, sizeof line, 0)) > 0;) got += (size_t)more;
  CHECK(got < 500000);
  for (int i = 0; i < STUCK; i++) close(fds[i]);
  folder_drop();
}

TEST(a_request_without_an_end_ends_the_connection) {
  const char *path = serve();
  char words[64];
  memset(words, 'a', sizeof words);
  int fd = connect_to(path);
  for (int i = 0; i < 1000; i++) {
    if (send(fd, words, sizeof words, MSG_NOSIGNAL) < 0) break;
  }
  check_ends(fd);
  check_served(path);
  folder_drop();
}

TEST(a_thousand_connections_come_and_go) {
  const char *path = serve();
  for (long i = 0; i < scaled(1000); i++) {
    int fd = connect_to(path);
    if (i % 2 == 0) (void)!send(fd, "snapshot\n", 9, MSG_NOSIGNAL);
    close(fd);
  }
  check_served(path);
  /* None of them stays open. */
  POLL_UNTIL(sockets() == 1);
  folder_drop();
}

TEST(noise_is_no_request) {
  struct rng rng = {rng_seed()};
  const char *path = serve();
  for (long round = 0; round < scaled(300); round++) {
    unsigned char noise[700];
    size_t len = 1 + rng_below(&rng, sizeof noise);
    int fd = connect_to(path);
    for (size_t i = 0; i < len; i++) {
      noise[i] = rng_below(&rng, 40) == 0 ? '\n' : (unsigned char)rng_below(&rng, 256);
    }
    if (rng_below(&rng, 2) == 0) memcpy(noise, "snapshot ", len < 9 ? len : 9);
    (void)!send(fd, noise, len, MSG_NOSIGNAL);
    if (rng_below(&rng, 2) == 0) {
      shutdown(fd, SHUT_WR);
      for (ssize_t got; (got = recv(fd, line, sizeof line - 1, 0)) > 0;) {
        line[got] = '\0';
        CHECK(strchr(line, '{') != NULL || strchr(line, '}') != NULL);
      }
    }
    close(fd);
  }
  check_served(path);
  check_library_works();
  folder_drop();
}

static int done;

static void *asks_all_the_time(void *arg) {
  int fd = connect_to((const char *)arg);
  while (!load_int(&done)) {
    tell(fd, "snapshot limit=1 order=inside match=x\n");
    char byte;
    do {
      if (recv(fd, &byte, 1, 0) != 1) FAIL("the connection ended");
    } while (byte != '\n');
  }
  close(fd);
  return NULL;
}

/* It works a quarter of the time at most. */
TEST(who_asks_all_the_time_takes_no_processor_from_the_host) {
  enum { MANY = 20000 };
  const char *path = serve();
  cbr_handle handle;
  struct timespec cpu;
  clockid_t clock = 0;
  for (int i = 0; i < MANY; i++) CHECK_OK(cbr_register(subject_fn, NULL, NULL, &handle));
  /* The library's thread is the one that is not this. */
  DIR *tasks = opendir("/proc/self/task");
  CHECK(tasks != NULL);
  for (struct dirent *it; (it = readdir(tasks)) != NULL;) {
    int thread = atoi(it->d_name);
    if (thread > 0 && thread != getpid()) clock = (clockid_t)((~(unsigned)thread << 3) | 6);
  }
  closedir(tasks);
  CHECK(clock != 0);
  pthread_t asker = start(asks_all_the_time, (void *)(uintptr_t)path);
  int64_t began = now_ns();
  while (now_ns() - began < 500000000) sched_yield();
  CHECK_EQ(clock_gettime(clock, &cpu), 0);
  int64_t used = cpu.tv_sec * INT64_C(1000000000) + cpu.tv_nsec, passed = now_ns() - began;
  store_int(&done, 1);
  join(asker);
  printf("RESULT the library's thread had %d %% of a processor\n", (int)(used * 100 / passed));
  if (used > passed * 45 / 100) FAIL("%lld ns of %lld", (long long)used, (long long)passed);
  folder_drop();
}
