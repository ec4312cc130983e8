/* The load for echo_server: many connections, messages of pseudo-random size and content, every
 * byte of every echo compared. It uses no callbacks itself; it is the peer that misbehaves:
 *   cuts    closes in the middle of a message, every second time with a reset, and connects again
 *   idles   falls silent until the server ends the connection, and connects again
 *   dozes   falls silent for about the server's idle limit, so that its next message races the reaper
 *
 *   echo_client -p PORT [-c CONNECTIONS] [-m MESSAGES] [-t THREADS] [-i IDLE_MS] [-s SEED]
 *
 * On stdout: one name=value a line. Exit 0 only if every echo was right and the counts agree. */
#define _GNU_SOURCE
#include "echo_common.h"

#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>

enum { BURST = 4, BATCH = 128 };

enum mood { TALKING, DOZING, IDLE };

struct peer {
  int fd; /* -1: all its messages are verified */
  enum mood mood;
  uint32_t armed;
  uint64_t random;
  uint64_t left;   /* messages still to verify */
  int64_t wake_ns; /* DOZING: when to talk again */
  /* The burst under way: one to BURST messages. */
  size_t messages, ends[BURST];        /* where each message ends in bytes */
  size_t length, cut;                  /* bytes to send; where to break off, or length */
  size_t sent, echoed;
  unsigned char bytes[BURST * FRAME_MAX];
};

struct worker {
  pthread_t thread;
  int epoll;
  struct peer *peers;
  size_t count, active, dozing;
  int64_t next_wake_ns; /* no later than the earliest of its dozing peers */
};

static struct {
  counter opened, closed, ended_idle, ended_dozing, ended_busy, cuts, idles, dozes;
  counter verified, unanswered, sent, checked, mismatches;
} n;
static uint16_t port;
static int64_t idle_limit_ns = 20 * 1000000;

/* xorshift64*: seeded, so that every run sends the same messages. */
static uint64_t next_random(struct peer *p) {
  p->random ^= p->random >> 12;
  p->random ^= p->random << 25;
  p->random ^= p->random >> 27;
  return p->random * UINT64_C(0x2545F4914F6CDD1D);
}

static uint64_t below(struct peer *p, uint64_t limit) { return (next_random(p) >> 16) % limit; }

static void arm(const struct worker *w, struct peer *p, uint32_t wanted, int operation) {
  struct epoll_event event = {.events = wanted, .data.ptr = p};
  if (operation == EPOLL_CTL_MOD && wanted == p->armed) return;
  if (epoll_ctl(w->epoll, operation, p->fd, &event)) die("epoll_ctl");
  p->armed = wanted;
}

/* The burst is over, or its connection: messages are verified, or sent whole without their echo. */
static void settle(struct peer *p) {
  for (size_t i = 0; i < p->messages; i++) {
    if (p->ends[i] <= p->echoed) {
      count(&n.verified, 1);
      p->left--;
    } else if (p->ends[i] <= p->sent) {
      count(&n.unanswered, 1);
    }
  }
  count(&n.sent, p->sent);
  count(&n.checked, p->echoed);
  p->messages = p->length = p->cut = p->sent = p->echoed = 0;
}

static void compose(struct peer *p) {
  p->mood = TALKING;
  p->messages = 1 + below(p, BURST);
  if (p->messages > p->left) p->messages = p->left;
  for (size_t i = 0; i < p->messages; i++) {
    /* Every order of magnitude as often as the others: most are small, some fill the buffers. */
    uint32_t size = 1 + (uint32_t)below(p, UINT64_C(1) << below(p, 15));
    unsigned char *at = p->bytes + p->length;
    put_length(at, size);
    for (uint32_t done = 0; done < size; done += sizeof(uint64_t)) {
      uint64_t noise = next_random(p);
      memcpy(at + HEADER + done, &noise, size - done < sizeof noise ? size - done : sizeof noise);
    }
    p->length += HEADER + size;
    p->ends[i] = p->length;
  }
  p->cut = p->length;
  if (below(p, 64) == 0) { /* inside one of the messages, never between two */
    size_t victim = below(p, p->messages), start = victim ? p->ends[victim - 1] : 0;
    p->cut = start + 1 + below(p, p->ends[victim] - start - 1);
  }
}

static void open_connection(const struct worker *w, struct peer *p) {
  struct sockaddr_in address = loopback(port);
  p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (p->fd < 0 || connect(p->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
  if (fcntl(p->fd, F_SETFL, O_NONBLOCK)) die("O_NONBLOCK");
  set_nodelay(p->fd);
  arm(w, p, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD); /* at once writable: the worker begins to talk */
  count(&n.opened, 1);
  compose(p);
}

/* What a peer does when a burst is verified. */
static void choose(struct worker *w, struct peer *p) {
  uint64_t dice = below(p, 64);
  if (dice == 0) {
    p->mood = IDLE;
    count(&n.idles, 1);
  } else if (dice < 4) {
    p->mood = DOZING;
    p->wake_ns = now_ns() + idle_limit_ns * (int64_t)(90 + below(p, 20)) / 100;
    if (w->dozing++ == 0 || p->wake_ns < w->next_wake_ns) w->next_wake_ns = p->wake_ns;
    count(&n.dozes, 1);
  } else {
    compose(p);
  }
}

/* The connection is over, by us or by the server. Starts a new one while messages are left. */
static void close_connection(struct worker *w, struct peer *p, counter *reason) {
  settle(p);
  count(reason, 1);
  if (p->mood == DOZING) w->dozing--;
  close(p->fd);
  p->fd = -1;
  if (p->left) open_connection(w, p);
  else w->active--;
}

static void ended_by_server(struct worker *w, struct peer *p) {
  close_connection(w, p, p->mood == IDLE ? &n.ended_idle : p->mood == DOZING ? &n.ended_dozing : &n.ended_busy);
}

static void cut_connection(struct worker *w, struct peer *p) {
  if (below(p, 2)) {
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset)) die("SO_LINGER");
  }
  count(&n.cuts, 1);
  close_connection(w, p, &n.closed);
}

/* Sends what the socket takes of the burst. */
static void talk(struct worker *w, struct peer *p) {
  while (p->sent < p->cut) {
    ssize_t done = send(p->fd, p->bytes + p->sent, p->cut - p->sent, MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) {
      if (errno == EAGAIN) arm(w, p, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
      else ended_by_server(w, p);
      return;
    }
    p->sent += (size_t)done;
  }
  if (p->cut < p->length) cut_connection(w, p);
  else arm(w, p, EPOLLIN, EPOLL_CTL_MOD);
}

/* Compares what has come back with what was sent; more than was sent is wrong, too. */
static void check_echo(struct peer *p, const unsigned char *got, size_t length) {
  size_t due = p->sent - p->echoed, compared = length < due ? length : due;
  if (length > due || memcmp(got, p->bytes + p->echoed, compared) != 0) {
    count(&n.mismatches, 1);
    fprintf(stderr, "wrong echo: %zu bytes at %zu of a burst of %zu, %zu due\n", length, p->echoed, p->length, due);
  }
  p->echoed += compared;
}

static void listen_to(struct worker *w, struct peer *p) {
  unsigned char got[FRAME_MAX];
  ssize_t length = recv(p->fd, got, sizeof got, 0);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (length <= 0) {
    ended_by_server(w, p);
    return;
  }
  check_echo(p, got, (size_t)length);
  if (p->mood != TALKING || p->echoed < p->length) return;
  settle(p);
  if (p->left == 0) {
    close_connection(w, p, &n.closed);
    return;
  }
  choose(w, p);
  if (p->mood == TALKING) talk(w, p);
}

static void wake_dozing(struct worker *w) {
  int64_t now = now_ns(), next = INT64_MAX;
  if (now < w->next_wake_ns) return;
  for (size_t i = 0; i < w->count; i++) {
    struct peer *p = &w->peers[i];
    if (p->fd < 0 || p->mood != DOZING) continue;
    if (p->wake_ns <= now) {
      w->dozing--;
      compose(p);
      talk(w, p);
    } else if (p->wake_ns < next) {
      next = p->wake_ns;
    }
  }
  w->next_wake_ns = next;
}

static void *run_worker(void *arg) {
  struct worker *w = arg;
  struct epoll_event batch[BATCH];
  w->active = w->count;
  for (size_t i = 0; i < w->count; i++) open_connection(w, &w->peers[i]);
  while (w->active) {
    int ready = epoll_wait(w->epoll, batch, BATCH, w->dozing ? 1 : -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < ready; i++) {
      struct peer *p = batch[i].data.ptr;
      if (batch[i].events & ~(uint32_t)EPOLLOUT) listen_to(w, p);
      else talk(w, p);
    }
    if (w->dozing) wake_dozing(w);
  }
  close(w->epoll);
  return NULL;
}

static bool report(uint64_t messages, double seconds) {
  const struct { const char *name; counter *value; } lines[] = {
      {"opened", &n.opened}, {"closed", &n.closed}, {"ended_idle", &n.ended_idle},
      {"ended_dozing", &n.ended_dozing}, {"ended_busy", &n.ended_busy}, {"cuts", &n.cuts},
      {"idles", &n.idles}, {"dozes", &n.dozes}, {"verified", &n.verified}, {"unanswered", &n.unanswered},
      {"sent", &n.sent}, {"checked", &n.checked}, {"mismatches", &n.mismatches}};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) print_number(lines[i].name, total(lines[i].value));
  print_number("elapsed_us", (uint64_t)(seconds * 1e6));
  uint64_t ends = total(&n.closed) + total(&n.ended_idle) + total(&n.ended_dozing) + total(&n.ended_busy);
  bool good = expect(total(&n.verified) == messages, "every message is verified", total(&n.verified), messages);
  good &= expect(total(&n.mismatches) == 0, "no echo is wrong", total(&n.mismatches), 0);
  good &= expect(ends == total(&n.opened), "every connection ends", ends, total(&n.opened));
  return good;
}

int main(int argc, char **argv) {
  int64_t connections = 256, messages = 2500000, threads = 2, seed = 1;
  for (int option; (option = getopt(argc, argv, "p:c:m:t:i:s:")) != -1;) {
    if (option == 'p') port = (uint16_t)parse_number(optarg, 1, 65535);
    else if (option == 'c') connections = parse_number(optarg, 1, 100000);
    else if (option == 'm') messages = parse_number(optarg, 1, INT64_MAX);
    else if (option == 't') threads = parse_number(optarg, 1, 64);
    else if (option == 'i') idle_limit_ns = parse_number(optarg, 1, 3600 * 1000) * 1000000;
    else if (option == 's') seed = parse_number(optarg, 0, INT64_MAX);
    else port = 0, optind = argc;
  }
  if (port == 0 || connections < threads || messages < connections) {
    fprintf(stderr, "usage: echo_client -p PORT [-c CONNECTIONS] [-m MESSAGES] [-t THREADS] [-i IDLE_MS] [-s SEED]\n");
    return 2;
  }
  struct peer *peers = calloc((size_t)connections, sizeof *peers);
  struct worker *workers = calloc((size_t)threads, sizeof *workers);
  if (!peers || !workers) die("calloc");
  for (int64_t i = 0; i < connections; i++) {
    peers[i].random = ((uint64_t)seed << 20 | (uint64_t)(i + 1)) * UINT64_C(0x9E3779B97F4A7C15);
    peers[i].left = (uint64_t)(messages * (i + 1) / connections - messages * i / connections);
  }
  int64_t began = now_ns();
  for (int64_t i = 0; i < threads; i++) {
    struct worker *w = &workers[i];
    int64_t first = connections * i / threads;
    w->peers = peers + first;
    w->count = (size_t)(connections * (i + 1) / threads - first);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0 || pthread_create(&w->thread, NULL, run_worker, w)) die("pthread_create");
  }
  for (int64_t i = 0; i < threads; i++) pthread_join(workers[i].thread, NULL);
  bool good = report((uint64_t)messages, (double)(now_ns() - began) / 1e9);
  free(workers);
  free(peers);
  return good ? 0 : 1;
}
