/*
 * callbridge: a queue in a GLib main loop.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Static inline functions, so that the library itself needs no GLib:
 *   cc program.c $(pkg-config --cflags --libs callbridge glib-2.0)
 *
 *   cbr_queue queue;
 *   GSource *source;
 *   cbr_queue_open(NULL, &queue);
 *   cbr_glib_source_new(queue, 64, &source);
 *   g_source_attach(source, NULL);
 *   g_source_unref(source);
 *   g_main_loop_run(loop);           what any thread posts to the queue runs here
 *
 * The conventions are those of callbridge.h. Callbacks run on the thread that iterates the context.
 */

#ifndef CALLBRIDGE_GLIB_H
#define CALLBRIDGE_GLIB_H

#include <callbridge.h>
#include <glib.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * cbr_glib_ended_fn is told, in the context, that nothing of the queue will run there any more, and why:
 * CBR_ERR_CLOSED: it is closed, and what was to be drained has run; CBR_ERR_STALE: it is gone; another
 * status: it cannot be dispatched there, such as CBR_ERR_THREAD. The source is destroyed after it. Set
 * it with g_source_set_callback(source, G_SOURCE_FUNC(ended), data, notify).
 */
typedef void (*cbr_glib_ended_fn)(cbr_status status, gpointer data);

/* The source; private. */
typedef struct cbr_glib_source_ {
  GSource base;
  cbr_queue queue;
  size_t budget;
  int fd;
  gpointer tag;
} cbr_glib_source_;

/* The queue's descriptor is readable: events wait, or it is closed. */
static inline gboolean cbr_glib_dispatch_(GSource *source, GSourceFunc callback, gpointer data) {
  cbr_glib_source_ *it = (cbr_glib_source_ *)source;
  size_t dispatched;
  cbr_status status = cbr_queue_dispatch(it->queue, it->budget, 0, &dispatched);
  /* What the budget has left makes the descriptor readable in the next iteration, too.
   * CBR_ERR_EMPTY: another thread that dispatches the queue was faster. */
  if (status == CBR_OK || status == CBR_ERR_EMPTY) return G_SOURCE_CONTINUE;
  /* A queue that is closed stays readable: watched any longer it would keep the loop busy for ever. */
  if (callback && !g_source_is_destroyed(source)) ((cbr_glib_ended_fn)(void (*)(void))callback)(status, data);
  return G_SOURCE_REMOVE;
}

static inline void cbr_glib_finalize_(GSource *source) { (void)close(((cbr_glib_source_ *)source)->fd); }

/**
 * cbr_glib_source_new makes a source that dispatches the queue, to be attached to a context with
 * g_source_attach.
 * `budget`: after how many events the context gets to its other sources; 0: after those that are there.
 * Ownership: the source has one reference, the caller's, to be dropped with g_source_unref; a context
 * adds its own. The queue stays the caller's: the source and the queue end each on its own, in any
 * order (g_source_destroy; cbr_queue_close).
 * Threads: any. If the queue is CBR_QUEUE_OWNED, it must belong to the thread that iterates the context
 * before the first event (cbr_queue_adopt). A loop that a callback of the queue runs dispatches the
 * queue only with g_source_set_can_recurse.
 * Returns: CBR_OK; CBR_ERR_INVALID if `out_source` is NULL; what cbr_queue_fd returns.
 */
static inline cbr_status cbr_glib_source_new(cbr_queue queue, size_t budget, GSource **out_source) {
  /* Neither prepare nor check: GLib looks at the descriptor itself. */
  static GSourceFuncs functions = {NULL, NULL, cbr_glib_dispatch_, cbr_glib_finalize_, NULL, NULL};
  cbr_glib_source_ *it;
  cbr_status status;
  int fd;
  if (!out_source) return CBR_ERR_INVALID;
  status = cbr_queue_fd(queue, &fd);
  if (status != CBR_OK) return status;
  *out_source = g_source_new(&functions, sizeof *it);
  it = (cbr_glib_source_ *)*out_source;
  it->queue = queue;
  it->budget = budget;
  it->fd = fd;
  it->tag = g_source_add_unix_fd(*out_source, fd, G_IO_IN);
  g_source_set_name(*out_source, "callbridge queue");
  return CBR_OK;
}

/**
 * cbr_glib_source_stop leaves the events in the queue until cbr_glib_source_start: for a consumer that
 * cannot take more just now. The queue fills up and its policy tells the posters. Called inside a
 * callback of the queue it comes after what is left of the budget.
 * `source`: from cbr_glib_source_new, not destroyed.
 * Threads: any.
 */
static inline void cbr_glib_source_stop(GSource *source) {
  g_source_modify_unix_fd(source, ((cbr_glib_source_ *)source)->tag, (GIOCondition)0);
}

/**
 * cbr_glib_source_start goes on after cbr_glib_source_stop. A new source is started.
 * `source`: from cbr_glib_source_new, not destroyed.
 * Threads: any.
 */
static inline void cbr_glib_source_start(GSource *source) {
  g_source_modify_unix_fd(source, ((cbr_glib_source_ *)source)->tag, G_IO_IN);
}

#ifdef __cplusplus
}
#endif

#endif /* CALLBRIDGE_GLIB_H */
