/* The socket that says what is going on, for tests: a place for it, and asking. */
#ifndef CALLBRIDGE_SUPPORT_STATS_SOCKET_H
#define CALLBRIDGE_SUPPORT_STATS_SOCKET_H

#include "support_subject.h"

#include <dirent.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define STATS_SOCKET "CALLBRIDGE_STATS_SOCKET"

/* How many entries a folder has. */
static inline int count_in(const char *path) {
  int count = 0;
  DIR *entries = opendir(path);
  CHECK(entries != NULL);
  for (struct dirent *it; (it = readdir(entries)) != NULL;) count += it->d_name[0] != '.';
  closedir(entries);
  return count;
}

static inline int threads(void) { return count_in("/proc/self/task"); }

/* How many descriptors of this process are sockets, standard input and output apart. */
static inline int sockets(void) {
  int count = 0;
  DIR *entries = opendir("/proc/self/fd");
  CHECK(entries != NULL);
  for (struct dirent *it; (it = readdir(entries)) != NULL;) {
    struct stat status;
    int fd = atoi(it->d_name);
    count += fd > STDERR_FILENO && fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
  }
  closedir(entries);
  return count;
}

/* An empty folder of the test's own, which everybody may look into. */
static char folder[64];

static inline void folder_make(void) {
  snprintf(folder, sizeof folder, "/tmp/callbridge-test-XXXXXX");
  CHECK(mkdtemp(folder) != NULL);
  CHECK_EQ(chmod(folder, 0755), 0);
}

/* A path in it. */
static inline const char *in_folder(const char *name) {
  static char path[4][512];
  static int next;
  char *it = path[next++ % 4];
  snprintf(it, sizeof path[0], "%s/%s", folder, name);
  return it;
}

static inline void folder_drop(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  CHECK_EQ(system(command), 0);
}

static inline bool is_there(const char *path) {
  struct stat status;
  return lstat(path, &status) == 0;
}

/* The library's first use in this process, with the socket at `place`. */
static inline void serve_at(const char *place) {
  cbr_stats stats = {.size = sizeof stats};
  CHECK_EQ(setenv(STATS_SOCKET, place, 1), 0);
  CHECK_OK(cbr_stats_get(0, &stats));
}

/* In a new folder; the path. */
static inline const char *serve(void) {
  folder_make();
  serve_at(in_folder("stats"));
  return in_folder("stats");
}

static inline struct sockaddr_un address_of(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  CHECK(strlen(path) < sizeof address.sun_path);
  memcpy(address.sun_path, path, strlen(path));
  return address;
}

/* A socket that is bound there, and listens. */
static inline int listen_at(const char *path) {
  struct sockaddr_un address = address_of(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
  CHECK_EQ(listen(fd, 8), 0);
  return fd;
}

/* -1: refused, and errno says why. */
static inline int try_connect(const char *path) {
  struct sockaddr_un address = address_of(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

static inline int connect_to(const char *path) {
  int fd = try_connect(path);
  if (fd < 0) FAIL("connect to %s: %s", path, strerror(errno));
  return fd;
}

static inline void tell(int fd, const char *words) {
  CHECK_EQ(send(fd, words, strlen(words), MSG_NOSIGNAL), (ssize_t)strlen(words));
}

/* The next line, without its end; "" if there is none any more. */
static char line[8 << 20];

static inline const char *hear(int fd) {
  size_t len = 0;
  for (;;) {
    /* Byte by byte at the end would be slow, and more than one line is not asked for at once. */
    ssize_t got = recv(fd, line + len, sizeof line - 1 - len, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      CHECK_EQ(len, 0);
      line[0] = '\0';
      return line;
    }
    len += (size_t)got;
    CHECK(len < sizeof line - 1);
    if (line[len - 1] == '\n') {
      line[len - 1] = '\0';
      return line;
    }
  }
}

/* One request on a connection of its own. */
static inline const char *ask(const char *path, const char *request) {
  int fd = connect_to(path);
  tell(fd, request);
  tell(fd, "\n");
  hear(fd);
  close(fd);
  return line;
}

/* The library works, whatever has become of the socket. */
static inline void check_library_works(void) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
  CHECK_EQ(it.destroyed, 1);
}

/* It is answered. */
static inline void check_served(const char *path) {
  CHECK_CONTAINS(ask(path, "snapshot limit=0"), "{\"callbridge\":1,");
}

/* The number of a field, after the first `part` of the line. */
static inline uint64_t number_after(const char *part, const char *field) {
  char name[64];
  const char *at = strstr(line, part);
  snprintf(name, sizeof name, "\"%s\":", field);
  if (at == NULL || (at = strstr(at, name)) == NULL)
    FAIL("no %s after %s in %.2000s", field, part, line);
  return strtoull(at + strlen(name), NULL, 10);
}

#endif
