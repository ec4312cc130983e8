/* A libuv server on loopback whose answers are made by other threads: callbridge_uv.h at work.
 *
 *   cc uv_bridge.c $(pkg-config --cflags --libs callbridge libuv) -pthread
 *
 * A client connects, says which one it is, and gets results until an END. The results are made
 * by WORKERS threads, which know of a connection two numbers only: a queue and a callback. They post;
 * the loop dispatches; the callback writes to the socket.
 *
 * Backpressure goes from end to end without a lock of ours. A client that reads slowly leaves bytes in
 * the socket; above HIGH_WATER the connection stops its queue; the queue fills up; the workers hear
 * CBR_ERR_FULL, or for one in PATIENT results wait a while and then hear CBR_ERR_TIMEOUT. Other
 * connections have queues of their own and notice nothing.
 *
 * A client that goes away takes its connection along: the queue is closed with what is in it, and workers
 * who still post hear CBR_ERR_CLOSED, later CBR_ERR_STALE. They hold no pointer that could dangle.
 *
 * The end of a connection, each step in the callback of the one before:
 *   all is posted, and the last worker closes the queue (CBR_CLOSE_DRAIN)
 *   the loop has dispatched the rest: on_ended writes END; the client reads it and hangs up
 *   on_read sees that: the queue is closed (CBR_CLOSE_DISCARD, if it is not yet) and left by the loop
 *   on_left closes the socket, on_socket_closed unregisters the callback, whose destroy frees it all
 * So destroy comes last: a loop must have let go of its handles before their memory goes.
 *
 * The program is its own client, and ends by itself after two seconds. Exit 0 only if every result
 * is accounted for: on the side of the workers, of the loop, of the library (each payload freed once)
 * and of the clients. */
#define _GNU_SOURCE
#include "bridge_common.h"

#include <callbridge_uv.h>
#include <signal.h>

enum { CLIENTS = 8, WORKERS = 3, CAPACITY = 64, BUDGET = 16, PATIENT = 16 };
enum { HIGH_WATER = 16384, LOW_WATER = 4096, SOCKET_BUFFER = 8192 };
enum { FAST, SLOW, LEAVES };
static const char *const kind_names[] = {"fast", "slow", "leaves"};
static const int64_t interval_ns = 1000000, patience_ns = 500000, slow_ns = 50000000;

/* What goes over the wire: the client's number, then results, then END with a count. */
struct result {
  uint32_t client, sequence;
  uint64_t value;
  unsigned char content[496];
};
enum { END = UINT32_MAX };

/* What happened to the results of one client. Outlives its connection. */
struct tally {
  counter posted, full, timed_out, gone; /* said by the posts */
  counter delivered;                     /* callbacks that ran */
  counter freed;                         /* payloads that the library gave back */
  counter stops;                         /* times that the connection stopped its queue */
  counter destroyed;                     /* connections */
  _Atomic bool made;                     /* no more results will be posted */
  bool begun;                            /* the loop's */
  bool ended, wrong;                     /* the client's, as the rest: END has come; with a mistake */
  uint32_t kind, received, told;         /* results that came; what END said */
};

static struct tally tallies[CLIENTS];
static int64_t results = 1500; /* for each client */

static uint64_t value_of(uint32_t client, uint32_t sequence) {
  return ((uint64_t)client << 32 | sequence) * UINT64_C(0x9e3779b97f4a7c15);
}

/* ---- workers: they see numbers, never a connection --------------------------------------------- */

struct job {
  cbr_queue queue;
  cbr_handle on_result;
  uint32_t client, next, total;
  int inside; /* workers that post for it just now */
  int64_t due_ns;
};

static struct {
  pthread_mutex_t lock;
  pthread_cond_t wake;
  struct job jobs[CLIENTS];
  size_t begun, finished;
} work = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void free_result(void *data) {
  const struct result *result = data;
  count(&tallies[result->client].freed, 1);
  free(data);
}

/* Makes one result and posts it; false: nobody wants more. */
static bool post_result(const struct job *job) {
  struct tally *tally = &tallies[job->client];
  struct result *result = calloc(1, sizeof *result);
  if (!result) die("calloc");
  result->client = job->client;
  result->sequence = job->next;
  result->value = value_of(job->client, job->next);
  memset(result->content, (int)job->next, sizeof result->content);

  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  options.queue = job->queue;
  options.handle = job->on_result;
  options.data = result;
  options.len = sizeof *result;
  options.free_data = free_result;
  if (job->next % PATIENT == 0) options.timeout_ns = patience_ns;
  cbr_status status = cbr_post_with(&options);
  if (status == CBR_OK) {
    count(&tally->posted, 1);
    return true;
  }
  free(result); /* refused, so it is still ours */
  bool gone = status == CBR_ERR_CLOSED || status == CBR_ERR_STALE;
  if (gone) count(&tally->gone, 1);
  else if (status == CBR_ERR_FULL) count(&tally->full, 1);
  else if (status == CBR_ERR_TIMEOUT) count(&tally->timed_out, 1);
  else must(status, "post");
  return !gone;
}

/* The job that is due first, NULL if there is none now. */
static struct job *pick(void) {
  struct job *first = NULL;
  for (size_t i = 0; i < work.begun; i++) {
    struct job *job = &work.jobs[i];
    if (job->next < job->total && (!first || job->due_ns < first->due_ns)) first = job;
  }
  return first;
}

static void *run_worker(void *arg) {
  pthread_mutex_lock(&work.lock);
  while (work.finished < CLIENTS) {
    struct job *job = pick();
    if (!job) {
      pthread_cond_wait(&work.wake, &work.lock);
      continue;
    }
    struct job mine = *job;
    job->next++;
    job->due_ns += interval_ns;
    job->inside++;
    pthread_mutex_unlock(&work.lock);
    sleep_until(mine.due_ns);
    bool wanted = post_result(&mine);
    pthread_mutex_lock(&work.lock);
    if (!wanted) job->total = job->next;
    if (--job->inside > 0 || job->next < job->total) continue;
    work.finished++;
    pthread_cond_broadcast(&work.wake);
    pthread_mutex_unlock(&work.lock);
    atomic_store(&tallies[mine.client].made, true);
    /* The last result is in. If the client is gone, the loop has closed the queue already. */
    cbr_status status = cbr_queue_close(mine.queue, CBR_CLOSE_DRAIN);
    if (status != CBR_ERR_CLOSED && status != CBR_ERR_STALE) must(status, "close the queue");
    pthread_mutex_lock(&work.lock);
  }
  pthread_mutex_unlock(&work.lock);
  return arg;
}

/* ---- the loop's thread: connections ------------------------------------------------------------ */

struct connection {
  uv_tcp_t socket;
  cbr_uv results;
  cbr_queue queue;
  cbr_handle on_result;
  struct tally *tally; /* NULL until the client has said who it is */
  bool drained;        /* nothing will come out of the queue any more */
  size_t have;
  union {
    uint32_t client;
    char bytes[sizeof(uint32_t)];
  } in;
};

struct write {
  uv_write_t request;
  struct result result;
};

static uv_loop_t *loop;
static uv_tcp_t listener;
static size_t accepted;

static void on_ended(cbr_uv *results_of, cbr_status status);

static void uv_must(int error, const char *what) {
  if (error == 0) return;
  fprintf(stderr, "%s: %s\n", what, uv_strerror(error));
  abort();
}

static void on_written(uv_write_t *request, int error) {
  struct connection *c = request->handle->data;
  (void)error; /* if the client is gone, on_read says so */
  free(request); /* it is the first member of its write */
  if (!c->drained && uv_stream_get_write_queue_size((uv_stream_t *)&c->socket) <= LOW_WATER &&
      !uv_is_active((uv_handle_t *)&c->results.poll) && !uv_is_closing((uv_handle_t *)&c->results.poll))
    must(cbr_uv_start(&c->results, on_ended), "start");
}

static void send_result(struct connection *c, const struct result *result) {
  struct write *write = malloc(sizeof *write);
  if (!write) die("malloc");
  write->result = *result; /* the payload is ours until the callback returns, the write takes longer */
  uv_buf_t buffer = uv_buf_init((char *)&write->result, sizeof write->result);
  uv_must(uv_write(&write->request, (uv_stream_t *)&c->socket, &buffer, 1, on_written), "write");
}

/* The callback of a connection: runs in the loop for every result that a worker has posted. */
static intptr_t on_result(void *user_data, void *arg) {
  struct connection *c = user_data;
  count(&c->tally->delivered, 1);
  if (uv_is_closing((uv_handle_t *)&c->results.poll)) return 0; /* what was left of the budget */
  send_result(c, arg);
  if (uv_stream_get_write_queue_size((uv_stream_t *)&c->socket) > HIGH_WATER &&
      uv_is_active((uv_handle_t *)&c->results.poll)) {
    must(cbr_uv_stop(&c->results), "stop");
    count(&c->tally->stops, 1);
  }
  return 0;
}

/* destroy of on_result: the loop has let go of the connection before, and no call is left. */
static void connection_free(void *user_data) {
  struct connection *c = user_data;
  if (c->tally) count(&c->tally->destroyed, 1);
  free(c);
}

static void on_socket_closed(uv_handle_t *socket) {
  struct connection *c = socket->data;
  must(cbr_unregister(c->on_result), "unregister"); /* frees c */
}

static void on_left(cbr_uv *results_of) {
  struct connection *c = results_of->poll.data;
  uv_close((uv_handle_t *)&c->socket, on_socket_closed);
}

static void on_ended(cbr_uv *results_of, cbr_status status) {
  struct connection *c = results_of->poll.data;
  if (status != CBR_ERR_CLOSED && status != CBR_ERR_STALE) must(status, "dispatch");
  c->drained = true;
  struct result end = {.client = END, .value = total(&c->tally->delivered)};
  send_result(c, &end);
}

/* The client has hung up. */
static void connection_end(struct connection *c) {
  if (uv_is_closing((uv_handle_t *)&c->results.poll)) return;
  uv_read_stop((uv_stream_t *)&c->socket);
  /* The workers learn from it. What is in the queue is freed here. */
  cbr_status status = cbr_queue_close(c->queue, CBR_CLOSE_DISCARD);
  if (status != CBR_ERR_CLOSED && status != CBR_ERR_STALE) must(status, "discard the queue");
  must(cbr_uv_close(&c->results, on_left), "leave the queue");
}

/* The client has said who it is: the workers may begin. */
static void begin(struct connection *c, uint32_t client) {
  if (client >= CLIENTS || tallies[client].begun) {
    connection_end(c);
    return;
  }
  c->tally = &tallies[client];
  c->tally->begun = true;
  must(cbr_uv_start(&c->results, on_ended), "start");
  pthread_mutex_lock(&work.lock);
  work.jobs[work.begun++] = (struct job){.queue = c->queue,
                                         .on_result = c->on_result,
                                         .client = client,
                                         .total = (uint32_t)results,
                                         .due_ns = now_ns()};
  pthread_cond_broadcast(&work.wake);
  pthread_mutex_unlock(&work.lock);
}

static void on_room(uv_handle_t *socket, size_t suggested, uv_buf_t *buffer) {
  struct connection *c = socket->data;
  (void)suggested;
  *buffer = uv_buf_init(c->in.bytes + c->have, (unsigned)(sizeof c->in - c->have));
}

static void on_read(uv_stream_t *socket, ssize_t got, const uv_buf_t *buffer) {
  struct connection *c = socket->data;
  (void)buffer;
  if (got == 0) return;
  if (got < 0) {
    connection_end(c);
    return;
  }
  c->have += (size_t)got;
  if (c->have < sizeof c->in) return;
  c->have = 0;
  begin(c, c->in.client);
}

static void on_connection(uv_stream_t *server, int error) {
  uv_must(error, "listen");
  struct connection *c = calloc(1, sizeof *c);
  if (!c) die("calloc");
  uv_must(uv_tcp_init(loop, &c->socket), "tcp");
  uv_must(uv_accept(server, (uv_stream_t *)&c->socket), "accept");
  c->socket.data = c;
  int size = SOCKET_BUFFER; /* else the kernel would take megabytes before a slow client is noticed */
  uv_must(uv_send_buffer_size((uv_handle_t *)&c->socket, &size), "send buffer");

  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  options.name = "connection";
  options.capacity = CAPACITY;
  must(cbr_queue_open(&options, &c->queue), "open a queue");
  must(cbr_register(on_result, c, connection_free, &c->on_result), "register");
  must(cbr_uv_init(&c->results, loop, c->queue, BUDGET), "put the queue into the loop");
  c->results.poll.data = c;
  uv_must(uv_read_start((uv_stream_t *)&c->socket, on_room, on_read), "read");
  if (++accepted == CLIENTS) uv_close((uv_handle_t *)&listener, NULL);
}

/* ---- clients ----------------------------------------------------------------------------------- */

static struct sockaddr_in server_address;

static bool take(int fd, struct result *result) {
  size_t have = 0;
  while (have < sizeof *result) {
    ssize_t got = recv(fd, (char *)result + have, sizeof *result - have, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) die("recv");
    if (got == 0) return false;
    have += (size_t)got;
  }
  return true;
}

/* Checks one result; `seen` has a flag for each. */
static bool is_right(const struct result *result, uint32_t client, bool *seen) {
  if (result->client != client || result->sequence >= results || seen[result->sequence]) return false;
  seen[result->sequence] = true;
  return result->value == value_of(client, result->sequence) &&
         result->content[sizeof result->content - 1] == (unsigned char)result->sequence;
}

static void *run_client(void *arg) {
  struct tally *tally = arg;
  uint32_t client = (uint32_t)(tally - tallies);
  bool *seen = calloc((size_t)results, sizeof *seen);
  int size = SOCKET_BUFFER, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (!seen || fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) ||
      connect(fd, (struct sockaddr *)&server_address, sizeof server_address) ||
      send(fd, &client, sizeof client, MSG_NOSIGNAL) != sizeof client)
    die("connect");
  struct result result;
  while (!tally->ended && take(fd, &result)) {
    if (result.client == END) {
      tally->told = (uint32_t)result.value;
      tally->ended = true;
      continue;
    }
    tally->wrong |= !is_right(&result, client, seen);
    tally->received++;
    if (tally->kind == LEAVES && tally->received == results / 16) break; /* and there was more to come */
    /* Slow as long as results are made, then it hurries, as this is to end soon. */
    if (tally->kind != FAST && tally->received % 8 == 0 && !atomic_load(&tally->made))
      sleep_until(now_ns() + slow_ns);
  }
  close(fd);
  free(seen);
  return NULL;
}

/* ---- main -------------------------------------------------------------------------------------- */

/* One row of the report; true if its numbers agree. */
static bool report(struct tally *t) {
  uint64_t posted = total(&t->posted), refused = total(&t->full) + total(&t->timed_out);
  uint64_t delivered = total(&t->delivered), gone = total(&t->gone), freed = total(&t->freed);
  bool leaves = t->kind == LEAVES;
  printf("%6d  %-7s%8llu%8llu%8llu%8llu%10llu%8llu%8u%8llu\n", (int)(t - tallies), kind_names[t->kind],
         (unsigned long long)posted, (unsigned long long)total(&t->full),
         (unsigned long long)total(&t->timed_out), (unsigned long long)gone, (unsigned long long)delivered,
         (unsigned long long)(posted - delivered), t->received, (unsigned long long)total(&t->stops));
  bool good = expect(!t->wrong, "results come once and unharmed", t->wrong, 0);
  good &= expect(freed == posted, "every payload that was taken is freed once", freed, posted);
  good &= expect(total(&t->destroyed) == 1, "the connection is destroyed once", total(&t->destroyed), 1);
  good &= expect(t->ended != leaves, "who stays is told the end", t->ended, !leaves);
  if (leaves) return good & expect(t->received <= delivered, "none from nowhere", t->received, delivered);
  good &= expect(posted + refused + gone == (uint64_t)results, "each result is taken or refused",
                 posted + refused + gone, (uint64_t)results);
  good &= expect(gone == 0, "nobody is gone", gone, 0);
  good &= expect(delivered == posted, "what was taken is delivered", delivered, posted);
  good &= expect(t->received == delivered, "what was delivered arrives", t->received, delivered);
  good &= expect(t->told == delivered, "END says how many", t->told, delivered);
  if (t->kind == SLOW) {
    good &= expect(total(&t->full) > 0, "a slow client is felt by the workers", total(&t->full), 0);
    good &= expect(total(&t->stops) > 0, "through its stopped queue", total(&t->stops), 0);
  }
  return good;
}

int main(int argc, char **argv) {
  if (argc > 2) return fprintf(stderr, "usage: uv_bridge [RESULTS]\n"), 2;
  if (argc == 2) results = parse_number(argv[1], 600, 1000000);
  signal(SIGPIPE, SIG_IGN); /* libuv writes to clients that have gone away */
  alarm(300); /* a lost wake-up is to be a failure, not a hang */
  for (int i = 0; i < CLIENTS; i++) tallies[i].kind = i < 5 ? FAST : i < 7 ? SLOW : LEAVES;

  loop = uv_default_loop();
  struct sockaddr_in any = loopback(0);
  int size = sizeof server_address;
  uv_must(uv_tcp_init(loop, &listener), "tcp");
  uv_must(uv_tcp_bind(&listener, (struct sockaddr *)&any, 0), "bind");
  uv_must(uv_listen((uv_stream_t *)&listener, CLIENTS, on_connection), "listen");
  uv_must(uv_tcp_getsockname(&listener, (struct sockaddr *)&server_address, &size), "address");

  pthread_t workers[WORKERS], clients[CLIENTS];
  for (size_t i = 0; i < WORKERS; i++) workers[i] = start(run_worker, NULL);
  for (size_t i = 0; i < CLIENTS; i++) clients[i] = start(run_client, &tallies[i]);
  uv_run(loop, UV_RUN_DEFAULT); /* until the last connection is closed */
  for (size_t i = 0; i < WORKERS; i++) pthread_join(workers[i], NULL);
  for (size_t i = 0; i < CLIENTS; i++) pthread_join(clients[i], NULL);

  printf("%lld results for each client, one a millisecond\n", (long long)results);
  printf("%6s  %-7s%8s%8s%8s%8s%10s%8s%8s%8s\n", "client", "", "posted", "full", "timeout", "gone", "delivered",
         "dropped", "arrived", "stops");
  bool good = true;
  for (size_t i = 0; i < CLIENTS; i++) good &= report(&tallies[i]);
  int left = uv_loop_close(loop);
  good &= expect(left == 0, "nothing is left in the loop", (uint64_t)-left, 0);
  return good ? 0 : 1;
}
