/* Metrics over HTTP, for Prometheus: a thread posts readings, another dispatches them, and the main one
 * answers scrapes, one at a time.
 *   metrics_server [PORT]     0, or nothing: a free port. Prints "port=PORT" when it listens; ends on SIGTERM
 *   GET /metrics              of the process
 *   GET /metrics/sensors      of one scope
 * Prometheus reads what cbr_metrics writes only under the content type below. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <callbridge.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define OPENMETRICS "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define PLAIN "text/plain; charset=utf-8"

static void must(bool good, const char *what) {
  if (good) return;
  perror(what);
  exit(1);
}

static void must_be_ok(cbr_status status) {
  char words[256];
  if (status == CBR_OK) return;
  cbr_last_error(words, sizeof words);
  fprintf(stderr, "%s\n", words);
  exit(1);
}

/* --- what there is to measure -------------------------------------------------------------- */

struct sensor {
  unsigned long readings;
  double sum;
};

/* Every hundredth reading is a failure, so that there is one to see. */
static intptr_t take_reading(void *user_data, void *arg) {
  struct sensor *sensor = user_data;
  const double *reading = arg;
  sensor->readings++;
  sensor->sum += *reading;
  if (sensor->readings % 100 == 0) cbr_fail(CBR_ERR_CALLBACK, "the reading is out of range");
  return 0;
}

struct work {
  cbr_scope scope;
  cbr_queue queue;
  cbr_handle handle;
};

static void *post_readings(void *arg) {
  const struct work *work = arg;
  const struct timespec pause = {0, 1000000};
  cbr_status status = CBR_OK;
  for (double reading = 0; status == CBR_OK || status == CBR_ERR_FULL; reading += 0.5) {
    status = cbr_post(work->queue, work->handle, &reading, sizeof reading);
    nanosleep(&pause, NULL);
  }
  return NULL; /* the queue is closed */
}

static void *dispatch_readings(void *arg) {
  const struct work *work = arg;
  cbr_status status;
  do status = cbr_queue_dispatch(work->queue, 64, -1, NULL);
  while (status == CBR_OK);
  return NULL;
}

static void begin_work(struct work *work) {
  cbr_callback_options callback = CBR_CALLBACK_OPTIONS_INIT;
  cbr_queue_options queue = CBR_QUEUE_OPTIONS_INIT;
  must_be_ok(cbr_scope_open("sensors", &work->scope));
  queue.name = "readings";
  queue.scope = work->scope;
  queue.capacity = 256;
  must_be_ok(cbr_queue_open(&queue, &work->queue));
  callback.fn = (cbr_any_fn)take_reading;
  callback.user_data = calloc(1, sizeof(struct sensor));
  must(callback.user_data != NULL, "calloc");
  callback.destroy = free;
  callback.name = "take_reading";
  callback.scope = work->scope;
  callback.flags = CBR_METERED; /* for the latency */
  must_be_ok(cbr_register_with(&callback, &work->handle));
}

/* --- answering ----------------------------------------------------------------------------- */

struct text {
  char *data;
  size_t len;
  bool failed;
};

/* The cbr_write_fn. */
static void append(void *user_data, const char *data, size_t len) {
  struct text *text = user_data;
  char *larger = text->failed ? NULL : realloc(text->data, text->len + len + 1);
  if (larger == NULL) {
    text->failed = true;
    return;
  }
  memcpy(larger + text->len, data, len);
  larger[text->len += len] = 0;
  text->data = larger;
}

static void send_all(int fd, const char *data, size_t len) {
  while (len > 0) {
    ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return; /* the client has gone, or takes nothing for too long */
    data += sent;
    len -= (size_t)sent;
  }
}

static void respond(int fd, bool head, const char *status, const char *type, const char *body, size_t len) {
  char lines[512];
  int size = snprintf(lines, sizeof lines,
                      "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nAllow: GET, HEAD\r\n"
                      "Connection: close\r\n\r\n",
                      status, type, len);
  send_all(fd, lines, (size_t)size);
  if (!head) send_all(fd, body, len);
}

static void respond_plainly(int fd, bool head, const char *status) {
  respond(fd, head, status, PLAIN, status, strlen(status));
}

static void respond_with_metrics(int fd, bool head, cbr_scope scope) {
  struct text text = {NULL, 0, false};
  if (cbr_metrics(scope, append, &text) == CBR_OK && !text.failed) {
    respond(fd, head, "200 OK", OPENMETRICS, text.data, text.len);
  } else {
    respond_plainly(fd, head, "503 Service Unavailable");
  }
  free(text.data);
}

/* Reads up to the empty line; false if there is none. */
static bool read_request(int fd, char *request, size_t room) {
  size_t len = 0;
  while (len < room - 1) {
    ssize_t got = recv(fd, request + len, room - 1 - len, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    request[len += (size_t)got] = 0;
    if (strstr(request, "\r\n\r\n") != NULL) return true;
  }
  return false;
}

static void serve(int fd, const struct work *work) {
  const struct timeval patience = {2, 0};
  char request[8192] = "", method[8] = "", path[256] = "";
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (!read_request(fd, request, sizeof request) || sscanf(request, "%7s %255s HTTP/1.", method, path) != 2) {
    respond_plainly(fd, false, "400 Bad Request");
    return;
  }
  path[strcspn(path, "?")] = 0;
  bool head = strcmp(method, "HEAD") == 0;
  if (!head && strcmp(method, "GET") != 0) respond_plainly(fd, false, "405 Method Not Allowed");
  else if (strcmp(path, "/metrics") == 0) respond_with_metrics(fd, head, 0);
  else if (strcmp(path, "/metrics/sensors") == 0) respond_with_metrics(fd, head, work->scope);
  else respond_plainly(fd, head, "404 Not Found");
}

static int listen_on(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  socklen_t size = sizeof address;
  const int yes = 1;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  must(fd >= 0, "socket");
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  must(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind");
  must(listen(fd, 16) == 0, "listen");
  must(getsockname(fd, (struct sockaddr *)&address, &size) == 0, "getsockname");
  printf("port=%d\n", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

static volatile sig_atomic_t ends;

static void end(int signal_number) {
  (void)signal_number;
  ends = 1;
}

int main(int argc, char **argv) {
  struct work work;
  pthread_t poster, dispatcher;
  sigset_t blocked, before;
  struct sigaction action = {.sa_handler = end};
  /* The other threads inherit the mask, so the signals come here, and only while ppoll waits. */
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGINT);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);

  begin_work(&work);
  must(pthread_create(&poster, NULL, post_readings, &work) == 0, "pthread_create");
  must(pthread_create(&dispatcher, NULL, dispatch_readings, &work) == 0, "pthread_create");

  struct pollfd listener = {listen_on(argc > 1 ? atoi(argv[1]) : 0), POLLIN, 0};
  while (!ends) {
    if (ppoll(&listener, 1, NULL, &before) <= 0) continue;
    int fd = accept4(listener.fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) continue;
    serve(fd, &work);
    close(fd);
  }

  close(listener.fd);
  cbr_queue_close(work.queue, CBR_CLOSE_DRAIN);
  pthread_join(poster, NULL);
  pthread_join(dispatcher, NULL);
  must_be_ok(cbr_scope_close(work.scope, -1, NULL)); /* frees the sensor */
  return 0;
}
