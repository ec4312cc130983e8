/* What the echo server and its client share: the framing of messages and a few small helpers.
 * A message is four bytes of length, little endian, and 1 to MESSAGE_MAX bytes of content. */
#ifndef ECHO_COMMON_H
#define ECHO_COMMON_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 4, MESSAGE_MAX = 16384, FRAME_MAX = HEADER + MESSAGE_MAX };

static inline void put_length(unsigned char *at, uint32_t length) {
  for (int i = 0; i < HEADER; i++) at[i] = (unsigned char)(length >> (8 * i));
}

static inline uint32_t get_length(const unsigned char *at) {
  return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline int64_t now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* Counters that several threads raise and one reads: sums, so no ordering is needed. */
typedef _Atomic uint64_t counter;

static inline void count(counter *it, uint64_t by) {
  atomic_fetch_add_explicit(it, by, memory_order_relaxed);
}

static inline uint64_t total(counter *it) {
  return atomic_load_explicit(it, memory_order_relaxed);
}

/* Says what failed and why (errno) and ends the program. */
_Noreturn static inline void die(const char *what) {
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

/* Says which promise was broken, with both numbers, and reports whether it was kept. */
static inline bool expect(bool kept, const char *promise, uint64_t left, uint64_t right) {
  if (!kept)
    fprintf(stderr, "does not agree: %s (%llu, %llu)\n", promise, (unsigned long long)left,
            (unsigned long long)right);
  return kept;
}

static inline void print_number(const char *name, uint64_t value) {
  printf("%s=%llu\n", name, (unsigned long long)value);
}

/* A number of the command line, from low to high. */
static inline int64_t parse_number(const char *text, int64_t low, int64_t high) {
  char *end;
  errno = 0;
  long long value = strtoll(text, &end, 0);
  if (errno || end == text || *end || value < low || value > high) {
    fprintf(stderr, "%s: a number from %lld to %lld is wanted\n", text, (long long)low, (long long)high);
    exit(2);
  }
  return value;
}

static inline struct sockaddr_in loopback(uint16_t port) {
  return (struct sockaddr_in){.sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Small messages must not wait for the acknowledgement of earlier ones. */
static inline void set_nodelay(int fd) {
  int on = 1;
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) die("TCP_NODELAY");
}

/* A listening socket; port 0 takes a free one. Says on stdout which it is. */
static inline int listen_on(uint16_t port) {
  struct sockaddr_in address = loopback(port);
  socklen_t size = sizeof address;
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
      bind(fd, (struct sockaddr *)&address, size) || listen(fd, SOMAXCONN) ||
      getsockname(fd, (struct sockaddr *)&address, &size))
    die("listen");
  print_number("port", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

/* Adds fd to an epoll set; the event will carry `tag`. */
static inline void watch(int epoll, int fd, uint64_t tag) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};
  if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

#endif
