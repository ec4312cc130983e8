/* callbridge_glib.h: queues in a GLib main loop. */
#include "support_loops.h"

#include <callbridge_glib.h>

static GMainContext *context;
static int ends, notified;
static cbr_status last_end;

static void on_ended(cbr_status status, gpointer data) {
  CHECK(data == &ends);
  ends++;
  last_end = status;
}

static void on_notify(gpointer data) {
  CHECK(data == &ends);
  notified++;
}

/* A source in a context of its own, with a reference of ours. */
static GSource *begin(struct loop_subject *it, const cbr_queue_options *options, size_t budget) {
  GSource *source = NULL;
  loop_subject_open(it, options);
  context = g_main_context_new();
  CHECK_OK(cbr_glib_source_new(it->queue, budget, &source));
  g_source_set_callback(source, G_SOURCE_FUNC(on_ended), &ends, on_notify);
  g_source_attach(source, context);
  return source;
}

static bool iterate(void) { return g_main_context_iteration(context, FALSE); }

static void finish(GSource *source) {
  g_source_destroy(source);
  g_source_unref(source);
  g_main_context_unref(context);
}

TEST(what_threads_post_runs_in_the_loop) {
  struct loop_subject it;
  pthread_t threads[POSTERS];
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  options.policy = CBR_QUEUE_BLOCK;
  options.capacity = 16;
  GSource *source = begin(&it, &options, 8);
  for (int i = 0; i < POSTERS; i++) threads[i] = start(run_poster, &it);
  while (it.calls < POSTERS * POSTS) g_main_context_iteration(context, TRUE);
  for (int i = 0; i < POSTERS; i++) join(threads[i]);
  CHECK_EQ(it.calls, POSTERS * POSTS);
  CHECK_EQ(ends, 0);
  finish(source);
}

TEST(a_budget_lets_the_context_get_to_its_other_sources) {
  struct loop_subject it;
  GSource *source = begin(&it, NULL, 10);
  post(&it, 95);
  for (int round = 1; round <= 9; round++) {
    CHECK(iterate());
    CHECK_EQ(it.calls, 10 * round);
  }
  CHECK(iterate());
  CHECK_EQ(it.calls, 95);
  CHECK(!iterate());
  finish(source);
}

TEST(a_stopped_queue_fills_up_and_goes_on_when_started) {
  struct loop_subject it;
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  options.capacity = 4;
  GSource *source = begin(&it, &options, 0);
  cbr_glib_source_stop(source);
  post(&it, 4);
  CHECK(!iterate());
  CHECK_REFUSED(cbr_post(it.queue, it.handle, NULL, 0), CBR_ERR_FULL);
  cbr_glib_source_start(source);
  CHECK(iterate());
  CHECK_EQ(it.calls, 4);
  finish(source);
}

TEST(a_drained_queue_tells_its_end_once_and_its_source_goes) {
  struct loop_subject it;
  GSource *source = begin(&it, NULL, 2);
  int before = open_descriptors();
  post(&it, 5);
  CHECK_OK(cbr_queue_close(it.queue, CBR_CLOSE_DRAIN));
  while (iterate()) continue;
  CHECK_EQ(it.calls, 5);
  CHECK_EQ(ends, 1);
  CHECK_STATUS(last_end, CBR_ERR_CLOSED);
  CHECK(g_source_is_destroyed(source));
  CHECK_EQ(notified, 1);
  g_source_unref(source);
  g_main_context_unref(context);
  CHECK(open_descriptors() < before);
}

static void *run_closer(void *arg) {
  struct loop_subject *it = (struct loop_subject *)arg;
  usleep(20000);
  CHECK_OK(cbr_queue_close(it->queue, CBR_CLOSE_DISCARD));
  return NULL;
}

TEST(a_close_from_another_thread_wakes_the_loop) {
  struct loop_subject it;
  GSource *source = begin(&it, NULL, 0);
  pthread_t closer = start(run_closer, &it);
  while (!ends) g_main_context_iteration(context, TRUE);
  join(closer);
  CHECK(g_source_is_destroyed(source));
  finish(source);
}

static void destroy_source(struct loop_subject *it) {
  GSource *source = (GSource *)it->extra;
  g_source_destroy(source);
  g_source_unref(source);
}

TEST(a_callback_may_destroy_its_source) {
  struct loop_subject it;
  GSource *source = begin(&it, NULL, 3);
  it.extra = source;
  it.at = 2;
  it.then = destroy_source;
  post(&it, 5);
  CHECK(iterate());
  CHECK(!iterate());
  CHECK_EQ(it.calls, 3);
  CHECK_EQ(waiting(&it), 2);
  CHECK_EQ(ends, 0);
  g_main_context_unref(context);
}

static void close_all(struct loop_subject *it) {
  destroy_source(it);
  CHECK_OK(cbr_queue_close(it->queue, CBR_CLOSE_DISCARD));
}

TEST(a_callback_may_destroy_its_source_and_its_queue) {
  struct loop_subject it;
  GSource *source = begin(&it, NULL, 3);
  it.extra = source;
  it.at = 2;
  it.then = close_all;
  post(&it, 5);
  CHECK(iterate());
  CHECK(!iterate());
  CHECK_EQ(it.calls, 2);
  CHECK_EQ(ends, 0);
  g_main_context_unref(context);
}

static void nested_iteration(struct loop_subject *it) {
  CHECK_EQ(it->calls, 1);
  g_main_context_iteration(context, FALSE);
}

TEST(a_loop_inside_a_callback_leaves_the_queue_alone) {
  struct loop_subject it;
  GSource *source = begin(&it, NULL, 1);
  it.at = 1;
  it.then = nested_iteration;
  post(&it, 2);
  CHECK(iterate());
  CHECK_EQ(it.calls, 1);
  CHECK(iterate());
  CHECK_EQ(it.calls, 2);
  finish(source);
}

TEST(a_loop_inside_a_callback_dispatches_if_the_source_can_recurse) {
  struct loop_subject it;
  GSource *source = begin(&it, NULL, 1);
  g_source_set_can_recurse(source, TRUE);
  it.at = 1;
  it.then = nested_iteration;
  post(&it, 2);
  CHECK(iterate());
  CHECK_EQ(it.calls, 2);
  finish(source);
}

TEST(the_descriptor_is_closed_with_the_source) {
  struct loop_subject it;
  loop_subject_open(&it, NULL);
  int before = open_descriptors();
  GSource *source = NULL;
  CHECK_OK(cbr_glib_source_new(it.queue, 0, &source));
  CHECK_EQ(open_descriptors(), before + 1);
  g_source_unref(source);
  CHECK_EQ(open_descriptors(), before);
  CHECK_OK(cbr_queue_close(it.queue, CBR_CLOSE_DISCARD));
}

TEST(an_owned_queue_of_another_thread_is_refused_at_its_first_event) {
  struct loop_subject it;
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  options.flags = CBR_QUEUE_OWNED;
  GSource *source = begin(&it, &options, 0);
  run_on_thread(run_adopter, &it);
  post(&it, 1);
  CHECK(iterate());
  CHECK_EQ(ends, 1);
  CHECK_STATUS(last_end, CBR_ERR_THREAD);
  CHECK(g_source_is_destroyed(source));
  finish(source);
}

TEST(new_refuses_what_is_no_open_queue) {
  struct loop_subject it;
  GSource *source = NULL;
  loop_subject_open(&it, NULL);
  CHECK_STATUS(cbr_glib_source_new(it.queue, 0, NULL), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_glib_source_new(it.handle, 0, &source), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_glib_source_new(0, 0, &source), CBR_ERR_STALE);
  rlim_t before = forbid_descriptors();
  cbr_status status = cbr_glib_source_new(it.queue, 0, &source);
  allow_descriptors(before);
  CHECK_STATUS(status, CBR_ERR_SYSTEM);
  CHECK_OK(cbr_queue_close(it.queue, CBR_CLOSE_DISCARD));
  status = cbr_glib_source_new(it.queue, 0, &source);
  CHECK(status == CBR_ERR_CLOSED || status == CBR_ERR_STALE);
  CHECK(source == NULL);
}
