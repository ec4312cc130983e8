/* An epoll echo server on loopback whose connections are callbacks.
 *
 *   cc echo_server.c $(pkg-config --cflags --libs callbridge) -pthread
 *
 * A connection has two callbacks on one struct:
 *   data    the event loop calls it when the socket is ready
 *   closed  called once, when the last data call is over
 *
 * There are two ways to find them again, the second one with -k:
 *                    by handle                     by key
 *   kept             in struct conn                by the library, for (fd, DATA) and (fd, CLOSED)
 *   epoll carries    data's handle, no pointer     the file descriptor
 *   owner of data    nobody: cbr_unregister ends   the key: cbr_key_detach ends it
 *                    it for everybody
 *   owner of closed  data                          the key: cbr_key_detach_all, when data has ended
 *   a late event     CBR_ERR_STALE                 CBR_ERR_NOT_FOUND, or the next connection with that
 *                                                  descriptor, which finds nothing to read
 *
 * Whoever finds the connection over ends data; of several at once the library tells exactly one CBR_OK.
 * data's destroy, data_ended, calls closed and lets go of it; the destroy of closed, conn_free, frees
 * struct conn and closes the socket. So a descriptor is not used again before its keys are gone.
 * All of it belongs to one scope. Closing that at the end proves that nothing of it runs any more.
 *
 * Threads: main accepts and takes signals, LOOPS event loops, one reaper. SIGTERM ends it cleanly.
 * On stdout: port=N first, at the end one name=value a line. Exit 0 only if the counts agree. */
#define _GNU_SOURCE
#include "echo_common.h"
#include "echo_stats.h"

#include <callbridge.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

enum { LOOPS = 2, BATCH = 128 };
enum { DATA, CLOSED };     /* the events of a key */
enum { WAKE_UP = 0 };      /* no handle; and no connection's fd, as main has opened others before */
static const int64_t sweep_ns = 200 * 1000; /* far below any idle limit: the reaper shall meet live traffic */

struct conn {
  int fd, epoll;
  uint32_t armed;            /* what epoll waits for: EPOLLIN, or EPOLLOUT while an echo is stuck */
  cbr_handle data, closed;   /* by handle; by key the struct needs none */
  _Atomic int64_t active_ns; /* written by data, read by the reaper */
  _Atomic bool inside;       /* a data call runs; only to prove that destroy waits for it */
  size_t have, whole, sent;  /* bytes in `in`; of these, in complete messages; of these, echoed */
  unsigned char in[FRAME_MAX];
};

struct loop {
  pthread_t thread;
  int epoll, stop;
};

static struct loop loops[LOOPS];
static cbr_scope connections;
static bool by_key;
static int64_t idle_limit_ns = 20 * 1000000;

/* Ends the program with the library's words. For calls that can fail only by a mistake of ours. */
static void must(cbr_status status, const char *what) {
  char words[512];
  if (status == CBR_OK) return;
  cbr_last_error(words, sizeof words);
  fprintf(stderr, "%s: %s: %s\n", what, cbr_status_name(status), words);
  abort();
}

/* What is looked for has ended: a stale handle, or a key without a callback. */
static bool is_gone(cbr_status status) { return status == CBR_ERR_STALE || status == CBR_ERR_NOT_FOUND; }

/* ---- the connection -------------------------------------------------------------------------- */

static uint64_t tag_of(const struct conn *c) { return by_key ? (uint64_t)c->fd : c->data; }

static cbr_status call_data(uint64_t tag, int64_t *now) {
  return by_key ? cbr_key_call(connections, tag, DATA, now, NULL) : cbr_call(tag, now, NULL);
}

/* destroy of `closed`: the last reference is gone, so nobody can reach c any more. */
static void conn_free(void *user_data) {
  struct conn *c = user_data;
  close(c->fd); /* takes it out of epoll, too */
  free(c);
  count(&n.destroyed, 1);
}

/* closed: no data call runs and none can start, so c is ours without a lock. */
static intptr_t on_closed(void *user_data, void *arg) {
  const struct conn *c = user_data;
  (void)arg;
  count(&n.entered, 1);
  if (c->have > c->whole) count(&n.unfinished, 1);
  return 0;
}

/* destroy of `data`: runs exactly once, on whichever thread ends the last data call. */
static void data_ended(void *user_data) {
  const struct conn *c = user_data;
  if (atomic_load(&c->inside)) count(&n.early, 1);
  if (by_key) {
    uintptr_t fd = (uintptr_t)c->fd;
    size_t detached;
    must(cbr_key_call(connections, fd, CLOSED, NULL, NULL), "closed");
    must(cbr_key_detach_all(connections, fd, &detached), "detach all"); /* may free c, and then fd */
    count(&n.detached, detached);
  } else {
    cbr_handle closed = c->closed;
    must(cbr_call(closed, NULL, NULL), "closed");
    must(cbr_release(closed), "release of data's reference"); /* may free c */
  }
  count(&n.calls, 1);
}

/* Ends a connection. Of two that try at once, one gets CBR_OK and counts it. From inside data alone:
 * elsewhere c could be gone, and its descriptor another connection's. */
static bool conn_end(const struct conn *c, counter *reason) {
  cbr_status status =
      by_key ? cbr_key_detach(connections, (uintptr_t)c->fd, DATA) : cbr_unregister(c->data);
  if (is_gone(status)) return false;
  must(status, "end of data");
  count(reason, 1);
  return true;
}

/* Finds the complete messages among the bytes that have come in; false: not our protocol. */
static bool take_messages(struct conn *c) {
  while (c->have - c->whole >= HEADER) {
    uint32_t length = get_length(c->in + c->whole);
    if (length == 0 || length > MESSAGE_MAX) return false;
    if (c->have - c->whole < HEADER + length) break;
    c->whole += HEADER + length;
    count(&n.messages, 1);
  }
  return true;
}

/* Echoes complete messages as far as the socket takes them; false: the peer is gone. */
static bool send_echo(struct conn *c) {
  while (c->sent < c->whole) {
    ssize_t done = send(c->fd, c->in + c->sent, c->whole - c->sent, MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0 && errno != EAGAIN) return false;
    if (done < 0) break;
    c->sent += (size_t)done;
    count(&n.bytes, (uint64_t)done);
  }
  if (c->sent == c->whole) {
    memmove(c->in, c->in + c->whole, c->have - c->whole);
    c->have -= c->whole;
    c->whole = c->sent = 0;
  }
  /* While an echo is stuck nothing more is read: a slow peer slows itself down. */
  uint32_t wanted = c->whole ? EPOLLOUT : EPOLLIN;
  if (wanted != c->armed) {
    struct epoll_event event = {.events = wanted, .data.u64 = tag_of(c)};
    if (epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->fd, &event)) die("epoll_ctl");
    c->armed = wanted;
  }
  return true;
}

/* Reads what there is and echoes what is complete; if the connection is over: as what it counts. */
static counter *echo(struct conn *c) {
  if (!c->whole) {
    ssize_t got = recv(c->fd, c->in + c->have, sizeof c->in - c->have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return NULL;
    if (got <= 0) return &n.by_peer;
    c->have += (size_t)got;
    if (!take_messages(c)) return &n.by_error;
  }
  return send_echo(c) ? NULL : &n.by_peer;
}

/* data: only c's own loop calls it, so one call at a time; the library keeps c alive meanwhile,
 * even when the reaper ends the connection under it. */
static intptr_t on_data(void *user_data, void *arg) {
  struct conn *c = user_data;
  const int64_t *now = arg;
  count(&n.entered, 1);
  atomic_store(&c->inside, true);
  atomic_store_explicit(&c->active_ns, *now, memory_order_relaxed);
  counter *over = echo(c);
  if (over) conn_end(c, over); /* from inside itself: returns at once, data_ended runs when we return */
  atomic_store(&c->inside, false);
  return 0;
}

/* ---- the reaper ------------------------------------------------------------------------------ */

static struct {
  pthread_mutex_t lock;
  pthread_cond_t wake;
  cbr_handle *fresh; /* accepted since the reaper looked last */
  size_t len, cap;
  bool stop;
} reaper = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void push(cbr_handle **list, size_t *len, size_t *cap, cbr_handle handle) {
  if (*len == *cap) {
    *cap = *cap ? *cap * 2 : 64;
    *list = realloc(*list, *cap * sizeof **list);
    if (!*list) die("realloc");
  }
  (*list)[(*len)++] = handle;
}

/* Looks at one connection; true: it is over, forget the handle. The handle owns nothing, and tells two
 * connections with the same descriptor apart. */
static bool reap(cbr_handle data, int64_t now, bool stopping) {
  cbr_pin pin;
  cbr_status status = cbr_enter(data, CBR_SIG_DEFAULT, &pin);
  if (is_gone(status)) { /* ended by its peer since */
    count(&n.swept, 1);
    return true;
  }
  must(status, "enter");
  struct conn *c = pin.user_data; /* cannot be freed before the leave, must not be touched after it */
  bool idle = now - atomic_load_explicit(&c->active_ns, memory_order_relaxed) > idle_limit_ns;
  bool over = idle || stopping;
  /* A loop may be in the middle of data, or have an event of it in its batch: the call that runs
   * finishes with live data, the one that has not begun is refused. Neither needs our attention. */
  if (over && !conn_end(c, stopping ? &n.by_shutdown : &n.by_reaper)) count(&n.swept, 1);
  must(cbr_leave(&pin), "leave"); /* data_ended runs here, or when the loop's call returns */
  return over;
}

static void *run_reaper(void *arg) {
  cbr_handle *handles = NULL;
  size_t len = 0, cap = 0;
  for (bool stopping = false; !stopping;) {
    int64_t until = now_ns() + sweep_ns;
    struct timespec deadline = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    pthread_mutex_lock(&reaper.lock);
    while (!reaper.stop && pthread_cond_timedwait(&reaper.wake, &reaper.lock, &deadline) != ETIMEDOUT) continue;
    stopping = reaper.stop;
    for (size_t i = 0; i < reaper.len; i++) push(&handles, &len, &cap, reaper.fresh[i]);
    reaper.len = 0;
    pthread_mutex_unlock(&reaper.lock); /* no lock of ours is held while destroy functions run */
    int64_t now = now_ns();
    for (size_t i = 0; i < len;)
      if (reap(handles[i], now, stopping)) handles[i] = handles[--len];
      else i++;
  }
  free(handles);
  return arg;
}

/* ---- event loops ----------------------------------------------------------------------------- */

static void *run_loop(void *arg) {
  const struct loop *loop = arg;
  struct epoll_event batch[BATCH];
  for (bool stop = false; !stop;) {
    int ready = epoll_wait(loop->epoll, batch, BATCH, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    int64_t began = now_ns();
    for (int i = 0; i < ready; i++) {
      uint64_t tag = batch[i].data.u64;
      if (tag == WAKE_UP) {
        stop = true;
        continue;
      }
      cbr_status status = call_data(tag, &began);
      if (is_gone(status)) {
        /* The reaper was faster; a pointer here would be a use after free. The event may come again
         * until conn_free has closed the socket. */
        count(&n.refused, 1);
        continue;
      }
      must(status, "data");
      count(&n.calls, 1);
    }
    count(&n.busy_ns, (uint64_t)(now_ns() - began));
  }
  return NULL;
}

/* Registers a callback of the scope; the one reference is the caller's. */
static cbr_handle add(const char *name, cbr_fn fn, struct conn *c, cbr_destroy_fn destroy) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)fn;
  options.user_data = c;
  options.destroy = destroy;
  options.name = name;
  options.scope = connections;
  must(cbr_register_with(&options, &handle), name);
  return handle;
}

static void accept_one(int fd) {
  /* A descriptor has its loop, so that whoever gets it next is called by the same thread: by key, an
   * event that is late may be taken for the next connection's, but never runs beside another one. */
  const struct loop *loop = &loops[fd % LOOPS];
  struct conn *c = calloc(1, sizeof *c);
  if (!c) die("calloc");
  c->fd = fd;
  c->epoll = loop->epoll;
  c->armed = EPOLLIN;
  atomic_init(&c->active_ns, now_ns());
  set_nodelay(fd);
  cbr_handle closed = add("closed", on_closed, c, conn_free); /* our reference: c is ours */
  cbr_handle data = add("data", on_data, c, data_ended);
  count(&n.accepted, 1);
  if ((uint64_t)fd > total(&n.highest_fd)) atomic_store(&n.highest_fd, (uint64_t)fd);

  if (by_key) {
    must(cbr_key_attach(connections, (uintptr_t)fd, CLOSED, closed, CBR_BIND_ONCE), "attach closed");
    /* Before data can be found, as data may have epoll wait for something else. An event that comes in
     * between finds no key, and comes again. */
    watch(loop->epoll, fd, (uint64_t)fd);
    must(cbr_key_attach(connections, (uintptr_t)fd, DATA, data, CBR_BIND_ONCE), "attach data");
    must(cbr_release(data), "release of data"); /* the keys have references of their own */
  } else {
    c->data = data;
    c->closed = closed;
    must(cbr_retain(closed), "retain for data");
    watch(loop->epoll, fd, data); /* from here on the loop may end the connection */
  }
  must(cbr_release(closed), "release of accept_one's reference"); /* and c is not ours any more */

  pthread_mutex_lock(&reaper.lock);
  push(&reaper.fresh, &reaper.len, &reaper.cap, data);
  pthread_mutex_unlock(&reaper.lock);
}

static void accept_all(int listener) {
  int fd;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0 || errno == ECONNABORTED)
    if (fd >= 0) accept_one(fd);
  if (errno != EAGAIN && errno != EINTR) die("accept");
}

/* ---- main ------------------------------------------------------------------------------------ */

/* Accepts until SIGTERM or SIGINT, with a progress line if wanted: often on a terminal, else for a log. */
static void serve(int listener, int signals, bool progress) {
  enum { LISTENER, SIGNALS, CLOCK };
  const struct timespec interval = {isatty(2) ? 0 : 1, isatty(2) ? 250 * 1000000 : 0};
  const struct itimerspec clock = {interval, interval};
  int epoll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  if (epoll < 0 || timer < 0 || (progress && timerfd_settime(timer, 0, &clock, NULL))) die("serve");
  watch(epoll, listener, LISTENER);
  watch(epoll, signals, SIGNALS);
  watch(epoll, timer, CLOCK);
  int64_t began = now_ns();
  for (;;) {
    struct epoll_event event;
    uint64_t ticks;
    if (epoll_wait(epoll, &event, 1, -1) < 1) continue;
    if (event.data.u64 == SIGNALS) break;
    if (event.data.u64 == LISTENER) accept_all(listener);
    else if (read(timer, &ticks, sizeof ticks) > 0) show_progress((double)(now_ns() - began) / 1e9);
  }
  if (progress && isatty(2)) fputc('\n', stderr);
  accept_all(listener); /* whoever has connected gets a connection, and its end */
  close(timer);
  close(epoll);
}

int main(int argc, char **argv) {
  int64_t port = 0;
  bool progress = false;
  for (int option; (option = getopt(argc, argv, "p:i:kv")) != -1;) {
    if (option == 'p') port = parse_number(optarg, 0, 65535);
    else if (option == 'i') idle_limit_ns = parse_number(optarg, 1, 3600 * 1000) * 1000000;
    else if (option == 'k') by_key = true;
    else if (option == 'v') progress = true;
    else return fprintf(stderr, "usage: echo_server [-p PORT] [-i IDLE_MS] [-k] [-v]\n"), 2;
  }
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread starts, so that all inherit it */
  int signals = signalfd(-1, &set, SFD_CLOEXEC);
  must(cbr_scope_open("connections", &connections), "open the scope");

  for (size_t i = 0; i < LOOPS; i++) {
    loops[i].epoll = epoll_create1(EPOLL_CLOEXEC);
    loops[i].stop = eventfd(0, EFD_CLOEXEC);
    watch(loops[i].epoll, loops[i].stop, WAKE_UP);
    if (pthread_create(&loops[i].thread, NULL, run_loop, &loops[i])) die("pthread_create");
  }
  pthread_t reaper_thread;
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&reaper.wake, &monotonic);
  if (pthread_create(&reaper_thread, NULL, run_reaper, NULL)) die("pthread_create");

  int listener = listen_on((uint16_t)port);
  serve(listener, signals, progress);
  close(listener);

  /* The reaper goes first: it ends what is left, while the loops may still be inside. The scope waits
   * for them and their destroy functions, and then has nothing left to wait for, though the loops still
   * run: what they may have in their batches is refused. */
  pthread_mutex_lock(&reaper.lock);
  reaper.stop = true;
  pthread_cond_signal(&reaper.wake);
  pthread_mutex_unlock(&reaper.lock);
  pthread_join(reaper_thread, NULL);
  size_t running = 0;
  must(cbr_scope_drain(connections, -1), "drain the scope");
  cbr_status closed = cbr_scope_close(connections, 0, &running);
  count(&n.running, running); /* then the report fails */
  if (!running) must(closed, "close the scope");
  for (size_t i = 0; i < LOOPS; i++) {
    if (eventfd_write(loops[i].stop, 1)) die("eventfd_write");
    pthread_join(loops[i].thread, NULL);
    close(loops[i].stop);
    close(loops[i].epoll);
  }
  free(reaper.fresh);
  close(signals);
  return report(by_key) ? 0 : 1;
}
