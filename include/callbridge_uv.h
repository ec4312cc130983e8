/*
 * callbridge: a queue in a libuv loop.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Static inline functions, so that the library itself needs no libuv:
 *   cc program.c $(pkg-config --cflags --libs callbridge libuv)
 *
 *   cbr_queue queue;
 *   static cbr_uv results;
 *   cbr_queue_open(NULL, &queue);
 *   cbr_uv_init(&results, loop, queue, 64);
 *   cbr_uv_start(&results, NULL);
 *   uv_run(loop, UV_RUN_DEFAULT);    what any thread posts to the queue runs here
 *
 * The conventions are those of callbridge.h, but for threads: like libuv's own, these functions are for
 * the thread that runs the loop. What other threads do is post.
 */

#ifndef CALLBRIDGE_UV_H
#define CALLBRIDGE_UV_H

#include <callbridge.h>
#include <errno.h>
#include <unistd.h>
#include <uv.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cbr_uv cbr_uv;

/**
 * cbr_uv_ended_fn is told, in the loop, that nothing of the queue will run here any more, and why:
 * CBR_ERR_CLOSED: it is closed, and what was to be drained has run; CBR_ERR_STALE: it is gone; another
 * status: it cannot be dispatched here, such as CBR_ERR_THREAD. `it` is stopped, and may be closed in
 * the function.
 */
typedef void (*cbr_uv_ended_fn)(cbr_uv *it, cbr_status status);

/**
 * cbr_uv_closed_fn gets `it` back: the loop does not know it any more, and its memory is the host's.
 */
typedef void (*cbr_uv_closed_fn)(cbr_uv *it);

/**
 * cbr_uv is a queue that is dispatched in a loop, a libuv handle like others: it keeps the loop running
 * while it is started (uv_unref(&it->poll) changes that) and ends with cbr_uv_close.
 */
struct cbr_uv {
  /**
   * poll.data is the host's; all else is private.
   */
  uv_poll_t poll;
  cbr_queue queue;
  size_t budget;
  int fd;
  cbr_uv_ended_fn ended;
  cbr_uv_closed_fn closed;
};

/* The queue's descriptor is readable: events wait, or it is closed. */
static inline void cbr_uv_readable_(uv_poll_t *poll, int error, int events) {
  cbr_uv *it = (cbr_uv *)poll;
  cbr_status status = CBR_ERR_SYSTEM;
  size_t dispatched;
  (void)events;
  if (error == 0) {
    status = cbr_queue_dispatch(it->queue, it->budget, 0, &dispatched);
    /* What the budget has left makes the descriptor readable in the loop's next round, too.
     * CBR_ERR_EMPTY: another thread that dispatches the queue was faster. */
    if (status == CBR_OK || status == CBR_ERR_EMPTY) return;
    /* What ran may have stopped or closed it. */
    if (!uv_is_active((const uv_handle_t *)poll)) return;
  }
  /* A queue that is closed stays readable: watched any longer it would keep the loop busy for ever. */
  (void)uv_poll_stop(poll);
  if (it->ended) it->ended(it, status);
}

static inline void cbr_uv_closed_(uv_handle_t *handle) {
  cbr_uv *it = (cbr_uv *)handle;
  /* Not earlier: closed under epoll, a duplicate would stay in its set for the life of the queue. */
  (void)close(it->fd);
  if (it->closed) it->closed(it);
}

/**
 * cbr_uv_init makes `it` a handle of the loop that will dispatch the queue. cbr_uv_start begins.
 * `budget`: after how many events the loop gets to its other handles; 0: after those that are there.
 * Ownership: `it` is the loop's until cbr_uv_close has called back, and must not be moved. The queue
 * stays the caller's: `it` and the queue are closed each on its own, in any order. On failure `it` is
 * the caller's, and there is nothing to close.
 * Threads: the loop's. If the queue is CBR_QUEUE_OWNED, it must belong to that thread before the first
 * event (cbr_queue_adopt).
 * Returns: CBR_OK; CBR_ERR_INVALID if `it` or `loop` is NULL; what cbr_queue_fd returns; CBR_ERR_NOMEM
 * or CBR_ERR_SYSTEM if libuv refuses the descriptor: then errno says why, not cbr_last_error.
 */
static inline cbr_status cbr_uv_init(cbr_uv *it, uv_loop_t *loop, cbr_queue queue, size_t budget) {
  cbr_status status;
  int fd, error;
  if (!it || !loop) return CBR_ERR_INVALID;
  status = cbr_queue_fd(queue, &fd);
  if (status != CBR_OK) return status;
  error = uv_poll_init(loop, &it->poll, fd);
  if (error) {
    (void)close(fd);
    errno = -error;
    return error == UV_ENOMEM ? CBR_ERR_NOMEM : CBR_ERR_SYSTEM;
  }
  it->queue = queue;
  it->budget = budget;
  it->fd = fd;
  it->ended = NULL;
  it->closed = NULL;
  return CBR_OK;
}

/**
 * cbr_uv_start begins to dispatch, or goes on after cbr_uv_stop.
 * `ended`: told when that is over; may be NULL.
 * Threads: the loop's.
 * Returns: CBR_OK, also if it is started already; CBR_ERR_STALE after cbr_uv_close.
 */
static inline cbr_status cbr_uv_start(cbr_uv *it, cbr_uv_ended_fn ended) {
  if (uv_is_closing((const uv_handle_t *)&it->poll)) return CBR_ERR_STALE;
  it->ended = ended;
  /* Fails for a descriptor that another handle watches, only, and this one is ours alone. */
  return uv_poll_start(&it->poll, UV_READABLE, cbr_uv_readable_) ? CBR_ERR_SYSTEM : CBR_OK;
}

/**
 * cbr_uv_stop leaves the events in the queue until cbr_uv_start: for a consumer that cannot take more
 * just now. The queue fills up and its policy tells the posters. Called inside a callback of the queue
 * it comes after what is left of the budget.
 * Threads: the loop's.
 * Returns: CBR_OK, also if it is stopped already; CBR_ERR_STALE after cbr_uv_close.
 */
static inline cbr_status cbr_uv_stop(cbr_uv *it) {
  if (uv_is_closing((const uv_handle_t *)&it->poll)) return CBR_ERR_STALE;
  return uv_poll_stop(&it->poll) ? CBR_ERR_SYSTEM : CBR_OK;
}

/**
 * cbr_uv_close takes `it` out of the loop. What is in the queue stays there; `ended` is not called.
 * `closed`: called in the loop's next round; may be NULL.
 * Ownership: `it` is the caller's again from that call on. The queue is not closed.
 * Threads: the loop's, also inside a callback of the queue: what is left of the budget still runs.
 * Returns: CBR_OK; CBR_ERR_STALE if it was closed before.
 */
static inline cbr_status cbr_uv_close(cbr_uv *it, cbr_uv_closed_fn closed) {
  if (uv_is_closing((const uv_handle_t *)&it->poll)) return CBR_ERR_STALE;
  it->closed = closed;
  uv_close((uv_handle_t *)&it->poll, cbr_uv_closed_);
  return CBR_OK;
}

#ifdef __cplusplus
}
#endif

#endif /* CALLBRIDGE_UV_H */
