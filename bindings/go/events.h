/* Events that C posts, taken out of their queue many at a time. */
#ifndef CALLBRIDGE_GO_EVENTS_H
#define CALLBRIDGE_GO_EVENTS_H

#include "bridge.h"

/* Events, one after the other: a cbrgo_event, its payload, its trace context, and so on; each begins at a
 * multiple of 8. */
typedef struct cbrgo_batch {
  char *bytes;
  size_t len, room;
  uint64_t lost; /* for want of memory */
} cbrgo_batch;

typedef struct cbrgo_event {
  int64_t posted_ns;
  uint64_t len, trace_len;
} cbrgo_event;

typedef struct cbrgo_source {
  cbrgo_result result;
  cbr_scope scope;
  cbr_queue queue;
  cbr_handle handle;
  int fd;
  cbrgo_batch *batch;
} cbrgo_source;

/* Everything that a source of events has: a scope with a queue and the callback that events are for. */
cbrgo_source cbrgo_source_open(char *name, size_t capacity, uint32_t policy, uint32_t flags);
/* Takes up to `most` events. CBR_ERR_EMPTY only when the queue's descriptor will tell of the next one. */
cbr_status cbrgo_collect(cbr_queue queue, int fd, size_t most, cbrgo_batch *into);
/* Has the scope's metrics keep the numbers of its queue of that name when the queue is gone: by another one. */
void cbrgo_keep_numbers(cbr_scope scope, char *name);
void cbrgo_batch_free(cbrgo_batch *batch);
cbrgo_result cbrgo_post(cbr_queue queue, cbr_handle handle, void *data, size_t len);
cbrgo_result cbrgo_queue_close(cbr_queue queue, uint32_t mode);
cbrgo_result cbrgo_queue_len(cbr_queue queue);

#endif
