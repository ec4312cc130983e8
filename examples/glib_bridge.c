/* A GLib main loop that other threads post to: callbridge_glib.h at work.
 *
 *   cc glib_bridge.c $(pkg-config --cflags --libs callbridge glib-2.0) -pthread
 *
 * Each of WORKERS threads posts STEPS steps in two ways:
 *   steps      a queue with little room that has the poster wait (CBR_QUEUE_BLOCK): every step arrives,
 *              in order
 *   progress   a queue that keeps of each callback the newest event only (CBR_QUEUE_COALESCE): what a
 *              display wants, which need not show every number but must end with the last one
 * Both are sources of the main loop, which has a timer as well: a budget keeps the queues from starving it.
 *
 * The last worker closes the queues. What waits in them is still dispatched, then GLib removes their
 * sources, and the second one to go quits the loop. Exit 0 only if the counts agree. */
#define _GNU_SOURCE
#include "bridge_common.h"

#include <callbridge_glib.h>

enum { WORKERS = 3, STEPS = 100000, CAPACITY = 64, BUDGET = 32 };

struct worker {
  cbr_handle on_step, on_progress;
  uint64_t steps, shown; /* calls of the two callbacks */
  uint64_t last_shown;
  uint64_t out_of_order;
  uint64_t destroyed;
};

static struct worker workers[WORKERS];
static cbr_queue steps, progress;
static _Atomic int working = WORKERS;
static GMainLoop *loop;
static int sources;
static uint64_t ticks;

/* ---- the threads ------------------------------------------------------------------------------- */

static void *run_worker(void *arg) {
  const struct worker *w = arg;
  for (uint64_t step = 1; step <= STEPS; step++) {
    must(cbr_post(steps, w->on_step, &step, sizeof step), "post a step");
    must(cbr_post(progress, w->on_progress, &step, sizeof step), "post progress");
  }
  if (atomic_fetch_sub(&working, 1) == 1) {
    must(cbr_queue_close(steps, CBR_CLOSE_DRAIN), "close steps");
    must(cbr_queue_close(progress, CBR_CLOSE_DRAIN), "close progress");
  }
  return NULL;
}

/* ---- the main loop's thread: no lock anywhere ---------------------------------------------------- */

static intptr_t on_step(void *user_data, void *arg) {
  struct worker *w = user_data;
  const uint64_t *step = arg;
  w->steps++;
  if (*step != w->steps) w->out_of_order++;
  return 0;
}

static intptr_t on_progress(void *user_data, void *arg) {
  struct worker *w = user_data;
  const uint64_t *step = arg;
  w->shown++;
  if (*step <= w->last_shown) w->out_of_order++;
  w->last_shown = *step;
  return 0;
}

static void worker_destroyed(void *user_data) { ((struct worker *)user_data)->destroyed++; }

static gboolean on_tick(gpointer data) {
  (void)data;
  ticks++;
  return G_SOURCE_CONTINUE;
}

static void on_ended(cbr_status status, gpointer name) {
  if (status != CBR_ERR_CLOSED && status != CBR_ERR_STALE) must(status, name);
  if (--sources == 0) g_main_loop_quit(loop);
}

/* Opens a queue and puts it into the main loop. */
static cbr_queue add_queue(const char *name, uint32_t policy, uint32_t flags) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  GSource *source = NULL;
  options.name = name;
  options.capacity = CAPACITY;
  options.policy = policy;
  options.flags = flags;
  must(cbr_queue_open(&options, &queue), "open a queue");
  must(cbr_glib_source_new(queue, BUDGET, &source), "make a source");
  g_source_set_callback(source, G_SOURCE_FUNC(on_ended), (gpointer)name, NULL);
  g_source_attach(source, NULL);
  g_source_unref(source); /* the context has its own reference */
  sources++;
  return queue;
}

static bool report(const struct worker *w) {
  printf("%6d %10llu %10llu %10llu\n", (int)(w - workers), (unsigned long long)w->steps,
         (unsigned long long)w->shown, (unsigned long long)w->last_shown);
  bool good = expect(w->steps == STEPS, "every step arrives", w->steps, STEPS);
  good &= expect(w->out_of_order == 0, "in order", w->out_of_order, 0);
  good &= expect(w->shown > 0 && w->shown <= STEPS, "progress is shown", w->shown, STEPS);
  good &= expect(w->last_shown == STEPS, "up to the last one", w->last_shown, STEPS);
  good &= expect(w->destroyed == 2, "each callback is destroyed once", w->destroyed, 2);
  return good;
}

int main(void) {
  pthread_t threads[WORKERS];
  alarm(300); /* a lost wake-up is to be a failure, not a hang */
  loop = g_main_loop_new(NULL, FALSE);
  steps = add_queue("steps", CBR_QUEUE_BLOCK, 0);
  progress = add_queue("progress", CBR_QUEUE_REJECT, CBR_QUEUE_COALESCE);
  guint timer = g_timeout_add(10, on_tick, NULL);
  for (size_t i = 0; i < WORKERS; i++) {
    struct worker *w = &workers[i];
    must(cbr_register(on_step, w, worker_destroyed, &w->on_step), "register");
    must(cbr_register(on_progress, w, worker_destroyed, &w->on_progress), "register");
  }
  int64_t began = now_ns();
  for (size_t i = 0; i < WORKERS; i++) threads[i] = start(run_worker, &workers[i]);
  g_main_loop_run(loop);
  int64_t took = now_ns() - began;
  g_source_remove(timer);
  g_main_loop_unref(loop);
  for (size_t i = 0; i < WORKERS; i++) pthread_join(threads[i], NULL);
  for (size_t i = 0; i < WORKERS; i++) {
    must(cbr_release(workers[i].on_step), "release");
    must(cbr_release(workers[i].on_progress), "release");
  }

  printf("%d steps from each of %d threads in %lld ms, %llu ticks of a timer meanwhile\n", STEPS, WORKERS,
         (long long)(took / 1000000), (unsigned long long)ticks);
  printf("%6s %10s %10s %10s\n", "thread", "steps", "shown", "last shown");
  bool good = true;
  for (size_t i = 0; i < WORKERS; i++) good &= report(&workers[i]);
  good &= expect(ticks > 0 || took < 20000000, "the timer is not starved", ticks, (uint64_t)took);
  return good ? 0 : 1;
}
