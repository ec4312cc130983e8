#include "events.h"
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What this thread collects into, while it does. */
static _Thread_local cbrgo_batch *collecting;
static _Thread_local cbr_queue collected;

static bool put(cbrgo_batch *it, const cbr_event *event) {
  cbrgo_event head = {event->posted_ns, event->len, 0};
  if (event->traceparent) head.trace_len = strlen(event->traceparent);
  size_t needed = (sizeof head + head.len + head.trace_len + 7) & ~(size_t)7;
  if (needed < head.len) return false;
  if (it->room - it->len < needed) {
    size_t room = it->room + needed > 2 * it->room ? it->room + needed : 2 * it->room;
    char *bytes = room < needed ? NULL : realloc(it->bytes, room);
    if (!bytes) return false;
    it->bytes = bytes;
    it->room = room;
  }
  char *at = it->bytes + it->len;
  memcpy(at, &head, sizeof head);
  if (head.len) memcpy(at + sizeof head, event->data, head.len);
  if (head.trace_len) memcpy(at + sizeof head + head.len, event->traceparent, head.trace_len);
  it->len += needed;
  return true;
}

/* The callback of events: Go gets them when the crossing that collects them returns. */
static intptr_t collect_event(void *user_data, void *arg) {
  const cbr_event *event = cbr_current_event();
  (void)user_data;
  (void)arg;
  if (!collecting || !event || event->queue != collected) {
    (void)cbr_fail(CBR_ERR_CALLBACK, "events are posted to their own queue, not called");
  } else if (!put(collecting, event)) {
    collecting->lost++;
    (void)cbr_fail(CBR_ERR_CALLBACK, "out of memory");
  }
  return 0;
}

static bool is_readable(int fd) {
  struct pollfd it = {.fd = fd, .events = POLLIN};
  return poll(&it, 1, 0) > 0;
}

cbr_status cbrgo_collect(cbr_queue queue, int fd, size_t most, cbrgo_batch *into) {
  cbr_status status;
  into->len = 0;
  collecting = into;
  collected = queue;
  do {
    status = cbr_queue_dispatch(queue, most, 0, NULL);
    /* Go's poller tells of a change, not of a state. Empty and readable still, for the moment that a post
     * takes from writing to the descriptor to saying that it has, the descriptor need not change with the
     * next event: so look again. */
  } while (status == CBR_ERR_EMPTY && is_readable(fd));
  collecting = NULL;
  collected = 0;
  return status;
}

static void *dispatch_once(void *arg) {
  (void)cbr_queue_dispatch(*(cbr_queue *)arg, 1, 0, NULL);
  return NULL;
}

/* A goroutine dispatches, on whatever thread it is just then. If that were the same one so far, the library
 * would take a post by that thread, to a full queue that blocks, for one that waits for itself. So it gets
 * to see two threads. */
static cbr_status belongs_to_no_thread(cbr_queue queue) {
  pthread_t other;
  if (pthread_create(&other, NULL, dispatch_once, &queue) != 0) return CBR_ERR_SYSTEM;
  (void)dispatch_once(&queue);
  return pthread_join(other, NULL) == 0 ? CBR_OK : CBR_ERR_SYSTEM;
}

cbrgo_source cbrgo_source_open(char *name, size_t capacity, uint32_t policy, uint32_t flags) {
  cbrgo_source it = {.fd = -1};
  cbr_status status = cbr_scope_open(name, &it.scope);
  if (status == CBR_OK) {
    cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
    options.name = name;
    options.scope = it.scope;
    options.capacity = capacity;
    options.policy = policy;
    options.flags = flags;
    status = cbr_queue_open(&options, &it.queue);
  }
  if (status == CBR_OK) status = belongs_to_no_thread(it.queue);
  if (status == CBR_OK) {
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    options.fn = (cbr_any_fn)collect_event;
    options.name = name;
    options.scope = it.scope;
    status = cbr_register_with(&options, &it.handle);
  }
  if (status == CBR_OK) status = cbr_queue_fd(it.queue, &it.fd);
  if (status == CBR_OK) {
    it.batch = calloc(1, sizeof *it.batch);
    if (!it.batch) status = CBR_ERR_NOMEM;
  }
  it.result = cbrgo_answer(status, 0);
  if (status != CBR_OK) {
    if (it.fd >= 0) (void)close(it.fd);
    if (it.scope) (void)cbr_scope_close(it.scope, -1, NULL);
  }
  return it;
}

void cbrgo_keep_numbers(cbr_scope scope, char *name) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  options.name = name;
  options.scope = scope;
  options.capacity = 1;
  (void)cbr_queue_open(&options, &queue);
}

void cbrgo_batch_free(cbrgo_batch *batch) {
  free(batch->bytes);
  free(batch);
}

cbrgo_result cbrgo_post(cbr_queue queue, cbr_handle handle, void *data, size_t len) {
  return cbrgo_answer(cbr_post(queue, handle, data, len), 0);
}

cbrgo_result cbrgo_queue_close(cbr_queue queue, uint32_t mode) {
  return cbrgo_answer(cbr_queue_close(queue, mode), 0);
}

cbrgo_result cbrgo_queue_len(cbr_queue queue) {
  size_t len = 0;
  cbr_status status = cbr_queue_len(queue, &len);
  return cbrgo_answer(status, len);
}
