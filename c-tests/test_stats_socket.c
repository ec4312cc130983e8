/* CALLBRIDGE_STATS_SOCKET: what is going on, over a socket, for who may ask, and only if it is set. */
#include "support_child.h"
#include "support_seccomp.h"
#include "support_stats_socket.h"

#include <grp.h>
#include <sys/mman.h>

enum { NOBODY = 65534 };

static cbr_stats stats_now(void) {
  cbr_stats stats = {.size = sizeof stats};
  CHECK_OK(cbr_stats_get(0, &stats));
  return stats;
}

static cbr_handle registered_with(const char *name, struct subject *it, uint32_t flags) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(it);
  options.flags = flags;
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = it;
  options.destroy = subject_destroy;
  options.name = name;
  CHECK_OK(cbr_register_with(&options, &it->handle));
  return it->handle;
}

static cbr_handle registered(const char *name, struct subject *it) {
  return registered_with(name, it, 0);
}

/* A handle as the answers write it. */
static const char *written(uint64_t handle) {
  static char text[32];
  snprintf(text, sizeof text, "\"0x%016llx\"", (unsigned long long)handle);
  return text;
}

/* --- what is served ------------------------------------------------------------------------ */

TEST(nothing_is_served_unless_the_environment_says_so) {
  int before = threads();
  folder_make();
  CHECK_EQ(chdir(folder), 0);
  unsetenv(STATS_SOCKET);
  check_library_works();
  CHECK_EQ(threads(), before);
  pid_t child = fork_watched(); /* its own first use was the parent's */
  if (child == 0) {
    serve_at(in_folder("stats"));
    CHECK_EQ(sockets(), 0);
    _exit(0);
  }
  check_child_passed(child);
  CHECK_EQ(count_in(folder), 0);
  folder_drop();
}

TEST(an_empty_path_is_as_good_as_none) {
  int before = threads();
  folder_make();
  CHECK_EQ(chdir(folder), 0);
  serve_at("");
  CHECK_EQ(threads(), before);
  CHECK_EQ(count_in(folder), 0);
  folder_drop();
}

TEST(an_answer_says_what_the_library_says) {
  struct subject it, other;
  cbr_queue queue;
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_pin pin;
  uint32_t references;
  const char *path = serve();
  registered("say \"h\xc3\xa9llo\"\n\\", &it);
  registered("other", &other);
  options.name = "events";
  options.capacity = 2;
  options.policy = CBR_QUEUE_DROP_OLDEST;
  CHECK_OK(cbr_queue_open(&options, &queue));
  for (int i = 0; i < 5; i++) CHECK_OK(cbr_post(queue, it.handle, "x", 1));
  CHECK_OK(cbr_retain(it.handle));
  CHECK_OK(cbr_enter(other.handle, 0, &pin));
  for (int i = 0; i < 3; i++) CHECK_OK(cbr_call(it.handle, NULL, NULL));

  CHECK_OK(cbr_refcount(it.handle, &references));
  CHECK(references > 2); /* events wait */
  cbr_stats stats = stats_now();
  ask(path, "snapshot");
  CHECK_CONTAINS(line, "{\"callbridge\":1,\"version\":\"" CALLBRIDGE_VERSION_STRING "\",");
  CHECK_EQ(number_after("{", "pid"), getpid());
  CHECK_CONTAINS(line, "\"name\":\"test_stats_sock");
  CHECK(number_after("{", "began_ns") <= number_after("{", "time_ns"));
  CHECK((int64_t)number_after("{", "time_ns") <= now_ns());
#define CHECK_STAT(field) CHECK_EQ(number_after("\"stats\"", #field), stats.field)
  CHECK_STAT(live);
  CHECK_STAT(registered);
  CHECK_STAT(destroyed);
  CHECK_STAT(destroy_pending);
  CHECK_STAT(calls);
  CHECK_STAT(failures);
  CHECK_STAT(stale);
  CHECK_STAT(in_flight);
  CHECK_STAT(threads);
  CHECK_STAT(queues);
  CHECK_STAT(queued);
  CHECK_STAT(posted);
  CHECK_STAT(dispatched);
  CHECK_STAT(dropped);
  CHECK_STAT(thunks);
  CHECK_STAT(thunk_stale);
  CHECK_EQ(stats.live, 2);
  CHECK_EQ(stats.threads, 1); /* the library's own is none of the host's */

  const char *row = strstr(line, written(queue));
  CHECK(row != NULL);
  CHECK_CONTAINS(row, "\"name\":\"events\",\"scope\":\"\",\"depth\":2,\"capacity\":2,\"posted\":5,"
                      "\"dispatched\":0,\"dropped\":3,\"refused\":0,\"blocked\":0,");
  row = strstr(line, written(it.handle));
  CHECK(row != NULL);
  CHECK_CONTAINS(row, "\"name\":\"say \\u0022h\xc3\xa9llo\\u0022\\u000a\\u005c\",\"scope\":\"\",");
  CHECK_EQ(number_after(written(it.handle), "references"), references);
  CHECK_EQ(number_after(written(it.handle), "in_flight"), 0);
  CHECK(number_after(written(it.handle), "age_ns") < 60000000000);
  CHECK_EQ(number_after(written(other.handle), "in_flight"), 1);
  CHECK_EQ(number_after("\"callbacks\"", "total"), 2);
  CHECK_EQ(number_after("\"callbacks\"", "truncated"), 0);
  CHECK_OK(cbr_leave(&pin));
  folder_drop();
}

TEST(scopes_are_named_and_what_has_ended_is_gone) {
  struct subject it;
  cbr_scope scope;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_queue_options queue_options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  const char *path = serve();
  CHECK_OK(cbr_scope_open("plugin", &scope));
  subject_reset(&it);
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &it;
  options.scope = scope;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  queue_options.scope = scope;
  CHECK_OK(cbr_queue_open(&queue_options, &queue));
  ask(path, "snapshot");
  CHECK_CONTAINS(strstr(line, written(queue)), "\"name\":\"\",\"scope\":\"plugin\",");
  CHECK_CONTAINS(strstr(line, written(it.handle)), "\"name\":\"\",\"scope\":\"plugin\",");
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  ask(path, "snapshot");
  CHECK(strstr(line, "plugin") == NULL);
  CHECK_CONTAINS(line, "\"queues\":{\"rows\":[],\"total\":0,\"truncated\":0}");
  CHECK_CONTAINS(line, "\"callbacks\":{\"rows\":[],\"total\":0,\"truncated\":0}");
  folder_drop();
}

TEST(a_request_says_how_many_which_first_and_which_at_all) {
  enum { COUNT = 30 };
  static struct subject many[COUNT];
  char name[32];
  cbr_pin pin;
  const char *path = serve();
  for (int i = 0; i < COUNT; i++) {
    snprintf(name, sizeof name, "Number %d", i);
    registered(name, &many[i]);
  }
  CHECK_OK(cbr_enter(many[17].handle, 0, &pin));
  ask(path, "snapshot limit=3 order=inside");
  CHECK_CONTAINS(line, "\"callbacks\":{\"rows\":[{\"handle\":");
  CHECK_EQ(number_after("\"callbacks\"", "total"), COUNT);
  CHECK_EQ(number_after("\"callbacks\"", "truncated"), COUNT - 3);
  const char *first = strstr(line, "\"name\":\"Number 17\"");
  CHECK(first != NULL && first == strstr(line, "\"name\":\"Number"));

  ask(path, "snapshot match=number 2");
  CHECK_EQ(number_after("\"callbacks\"", "total"), 11); /* 2, and 20 to 29 */
  CHECK_CONTAINS(line, "\"Number 29\"");
  CHECK(strstr(line, "\"Number 1\"") == NULL);

  char request[64];
  snprintf(request, sizeof request, "snapshot match=%llX", (unsigned long long)many[4].handle);
  ask(path, request);
  CHECK_EQ(number_after("\"callbacks\"", "total"), 1);
  CHECK_CONTAINS(line, written(many[4].handle));
  CHECK_OK(cbr_leave(&pin));
  folder_drop();
}

static intptr_t fails(struct subject *it, void *arg) {
  (void)it, (void)arg;
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "on purpose"));
  return 0;
}

TEST(metered_callbacks_have_calls_failures_and_latency) {
  struct subject metered, plain;
  const char *path = serve();
  registered_with("metered", &metered, CBR_METERED);
  registered("plain", &plain);
  for (int i = 0; i < 8; i++) CHECK_OK(cbr_call(metered.handle, NULL, NULL));
  for (int i = 0; i < 2; i++)
    CHECK_STATUS(subject_run(&metered, fails, NULL, NULL), CBR_ERR_CALLBACK);
  CHECK_OK(cbr_call(plain.handle, NULL, NULL));
  ask(path, "snapshot");
  CHECK_CONTAINS(strstr(line, written(plain.handle)),
                 "\"calls\":null,\"failures\":null,\"latency\":null}");
  const char *row = strstr(line, written(metered.handle));
  CHECK(row != NULL);
  CHECK_CONTAINS(row, "\"calls\":10,\"failures\":2,\"latency\":{\"sum_ns\":");
  CHECK(number_after(written(metered.handle), "sum_ns") > 0);
  /* One count for each bound, and one for what took longer. */
  uint64_t count = 0, buckets = 0, bounds = 0;
  for (const char *at = strstr(row, "\"counts\":[") + 9; *at != ']'; buckets++)
    count += strtoull(at + 1, (char **)&at, 10);
  for (const char *at = strstr(line, "\"bounds_ns\":[") + 12; *at != ']'; bounds++)
    strtoull(at + 1, (char **)&at, 10);
  CHECK_EQ(count, 10);
  CHECK_EQ(buckets, bounds + 1);
  folder_drop();
}

static void call_often(struct subject *it, int times) {
  for (int i = 0; i < times; i++) CHECK_OK(cbr_call(it->handle, NULL, NULL));
}

static void check_first(int fd, const char *request, const struct subject *it) {
  char start[128];
  snprintf(start, sizeof start, "\"callbacks\":{\"rows\":[{\"handle\":%s,", written(it->handle));
  tell(fd, request);
  CHECK_CONTAINS(hear(fd), start);
}

TEST(the_busiest_come_first_by_what_they_did_since_the_last_answer) {
  enum { COUNT = 40 };
  static struct subject many[COUNT];
  const char *path = serve();
  for (int i = 0; i < COUNT; i++) registered_with(NULL, &many[i], i % 2 ? CBR_METERED : 0);
  int fd = connect_to(path);
  call_often(&many[33], 100);
  call_often(&many[7], 50);
  call_often(&many[8], 200); /* nobody counts that */
  check_first(fd, "snapshot limit=1 order=rate\n", &many[33]);
  call_often(&many[7], 10);
  call_often(&many[11], 5);
  check_first(fd, "snapshot limit=1 order=rate\n", &many[7]);
  check_first(fd, "snapshot limit=1 order=calls\n", &many[33]);
  /* What has ended and what has come are not mixed up. */
  CHECK_OK(cbr_unregister(many[33].handle));
  registered_with(NULL, &many[33], CBR_METERED);
  call_often(&many[33], 3);
  call_often(&many[11], 2);
  check_first(fd, "snapshot limit=1 order=rate\n", &many[33]);
  check_first(fd, "snapshot limit=1 order=calls\n", &many[7]);
  for (int i = 0; i < 4; i++)
    CHECK_STATUS(subject_run(&many[5], fails, NULL, NULL), CBR_ERR_CALLBACK);
  check_first(fd, "snapshot limit=1 order=failures\n", &many[5]);
  close(fd);
  folder_drop();
}

TEST(several_requests_on_one_connection_are_answered_in_turn) {
  const char *path = serve();
  int fd = connect_to(path);
  for (int i = 0; i < 20; i++) {
    tell(fd, "snapshot limit=0\r\n");
    CHECK_CONTAINS(hear(fd), "\"stats\":");
  }
  tell(fd, "what\nsnapshot limit=0\n");
  char both[8192];
  size_t len = 0;
  for (int lines = 0; lines < 2;) {
    ssize_t got = recv(fd, both + len, sizeof both - 1 - len, 0);
    CHECK(got > 0);
    for (ssize_t i = 0; i < got; i++) lines += both[len + (size_t)i] == '\n';
    len += (size_t)got;
  }
  both[len] = '\0';
  CHECK_CONTAINS(both, "{\"callbridge\":1,\"error\":\"unknown request: ");
  CHECK_CONTAINS(both, "\"}\n{\"callbridge\":1,\"version\":");
  /* Who says that it has asked all gets the rest of the answers. */
  tell(fd, "snapshot limit=0\n");
  CHECK_EQ(shutdown(fd, SHUT_WR), 0);
  CHECK_CONTAINS(hear(fd), "\"stats\":");
  CHECK_STR(hear(fd), "");
  close(fd);
  folder_drop();
}

TEST(no_destroy_function_runs_on_the_librarys_thread) {
  enum { ALIVE = 64 };
  static struct subject many[ALIVE];
  char name[256];
  const char *path = serve();
  int fd = connect_to(path);
  memset(name, 'n', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  for (int i = 0; i < ALIVE; i++) registered(name, &many[i]);
  tell(fd, "snapshot\n");
  for (long answers = 0; answers < scaled(1000);) {
    for (int i = 0; i < ALIVE; i++) {
      CHECK_OK(cbr_call(many[i].handle, NULL, NULL));
      CHECK_OK(cbr_unregister(many[i].handle));
      CHECK_EQ(many[i].destroyed, 1); /* nobody was inside */
      CHECK(pthread_equal(many[i].destroyed_on, pthread_self()));
      registered_with(name, &many[i], i % 2 ? CBR_METERED : 0);
    }
    ssize_t got = recv(fd, line, sizeof line, MSG_DONTWAIT);
    if (got <= 0) continue;
    if (line[got - 1] == '\n') {
      answers++;
      tell(fd, "snapshot\n");
    }
  }
  close(fd);
  folder_drop();
}

/* --- where, and who may ask ----------------------------------------------------------------- */

TEST(the_socket_is_its_owners_alone_from_the_beginning) {
  struct stat status;
  umask(0);
  /* Nothing can make it so later. */
  if (!under_valgrind()) {
    seccomp_refuse(SYS_fchmodat, EPERM);
#ifdef SYS_chmod
    seccomp_refuse(SYS_chmod, EPERM);
#endif
  }
  snprintf(folder, sizeof folder, "/tmp/callbridge-test-XXXXXX");
  CHECK(mkdtemp(folder) != NULL);
  serve_at(in_folder("stats"));
  CHECK_EQ(lstat(in_folder("stats"), &status), 0);
  CHECK_EQ(status.st_mode, S_IFSOCK | 0600);
  check_served(in_folder("stats"));
  folder_drop();
}

TEST(an_umask_that_takes_more_does_not_keep_the_owner_out) {
  struct stat status;
  folder_make();
  umask(0777);
  serve_at(in_folder("stats"));
  umask(077);
  CHECK_EQ(lstat(in_folder("stats"), &status), 0);
  CHECK_EQ(status.st_mode, S_IFSOCK | 0600);
  check_served(in_folder("stats"));
  folder_drop();
}

static void become_nobody(void) {
  CHECK_EQ(setgroups(0, NULL), 0);
  CHECK_EQ(setgid(NOBODY), 0);
  CHECK_EQ(setuid(NOBODY), 0);
}

TEST(another_user_gets_no_answer) {
  if (geteuid() != 0) SKIP("only root can be two users");
  const char *path = serve();
  pid_t child = fork_watched();
  if (child == 0) {
    become_nobody();
    CHECK_EQ(try_connect(path), -1);
    CHECK_EQ(errno, EACCES);
    _exit(0);
  }
  check_child_passed(child);
  /* Not even who can connect, because somebody has changed the mode. */
  CHECK_EQ(chmod(path, 0666), 0);
  child = fork_watched();
  if (child == 0) {
    become_nobody();
    int fd = connect_to(path);
    (void)!send(fd, "snapshot\n", 9, MSG_NOSIGNAL);
    CHECK(recv(fd, line, sizeof line, 0) <= 0);
    _exit(0);
  }
  check_child_passed(child);
  check_served(path);
  folder_drop();
}

TEST(root_may_ask_everybody) {
  if (geteuid() != 0) SKIP("only root can be two users");
  gate *ready = (gate *)mmap(NULL, 2 * sizeof *ready, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(ready != MAP_FAILED);
  CHECK_EQ(sem_init(&ready[0], 1, 0), 0);
  CHECK_EQ(sem_init(&ready[1], 1, 0), 0);
  folder_make();
  CHECK_EQ(chown(folder, NOBODY, NOBODY), 0);
  pid_t child = fork_watched();
  if (child == 0) {
    become_nobody();
    serve_at(in_folder("stats"));
    gate_open(&ready[0]);
    gate_pass(&ready[1]);
    _exit(0);
  }
  gate_pass(&ready[0]);
  check_served(in_folder("stats"));
  gate_open(&ready[1]);
  check_child_passed(child);
  folder_drop();
}
