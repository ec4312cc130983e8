/* GLib's two ways: a GAsyncQueue that a thread pops from, and g_main_context_invoke_full. Neither has
 * bounds. Each event is a message of its own. */
#include <glib.h>
#include <stdbool.h>

#include "queue.h"

struct message {
    bench_fn fn;
    void *user_data;
    struct event event;
};

static struct {
    GAsyncQueue *queue;
    GMainContext *context;
    GMainLoop *loop;
    bench_fn fn;
    void *user_data;
} gl;

static struct message *message_new(const struct event *event)
{
    struct message *message = g_slice_new(struct message);
    *message = (struct message){gl.fn, gl.user_data, *event};
    return message;
}

static void message_free(void *message)
{
    g_slice_free(struct message, message);
}

static void async_open(bench_fn fn, void *user_data)
{
    gl.queue = g_async_queue_new();
    gl.fn = fn;
    gl.user_data = user_data;
}

static inline int async_post(const struct event *event)
{
    g_async_queue_push(gl.queue, message_new(event));
    return 0;
}

/* A message without a function is the last. */
static void async_loop(void)
{
    for (bool more = true; more;) {
        struct message *message = g_async_queue_pop(gl.queue);
        more = message->fn != NULL;
        if (more)
            message->fn(message->user_data, &message->event);
        message_free(message);
    }
}

static void async_shut(void)
{
    g_async_queue_push(gl.queue, g_slice_new0(struct message));
}

static void async_free(void)
{
    g_async_queue_unref(gl.queue);
}

static void invoke_open(bench_fn fn, void *user_data)
{
    gl.context = g_main_context_new();
    gl.loop = g_main_loop_new(gl.context, FALSE);
    gl.fn = fn;
    gl.user_data = user_data;
}

static gboolean invoked(void *data)
{
    struct message *message = data;
    message->fn(message->user_data, &message->event);
    return G_SOURCE_REMOVE;
}

static inline int invoke_post(const struct event *event)
{
    g_main_context_invoke_full(gl.context, G_PRIORITY_DEFAULT, invoked, message_new(event), message_free);
    return 0;
}

static void invoke_loop(void)
{
    g_main_context_push_thread_default(gl.context);
    g_main_loop_run(gl.loop);
    g_main_context_pop_thread_default(gl.context);
}

static gboolean invoke_quit(void *loop)
{
    g_main_loop_quit(loop);
    return G_SOURCE_REMOVE;
}

/* Not invoke: if the thread has not come to its loop yet, that would run it here and now. */
static void invoke_shut(void)
{
    GSource *source = g_idle_source_new();
    g_source_set_priority(source, G_PRIORITY_DEFAULT);
    g_source_set_callback(source, invoke_quit, gl.loop, NULL);
    g_source_attach(source, gl.context);
    g_source_unref(source);
}

static void invoke_free(void)
{
    g_main_loop_unref(gl.loop);
    g_main_context_unref(gl.context);
}

#define SUBJECT gasyncqueue
#define SUBJECT_TEXT "GAsyncQueue"
#define S_POST async_post
#define S_UNBOUNDED
#define S_OPEN async_open
#define S_LOOP async_loop
#define S_SHUT async_shut
#define S_FREE async_free
#include "post.h"

#define SUBJECT ginvoke
#define SUBJECT_TEXT "GLib invoke"
#define S_POST invoke_post
#define S_UNBOUNDED
#define S_OPEN invoke_open
#define S_LOOP invoke_loop
#define S_SHUT invoke_shut
#define S_FREE invoke_free
#include "post.h"
