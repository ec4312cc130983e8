/* libuv: uv_async_send, and a queue under a mutex, of which the consumer takes all that has gathered at
 * once. In its cheapest form that is an exchange of two arrays; as most programs have it, a list of
 * messages that are allocated. */
#include <stdbool.h>
#include <stdlib.h>
#include <uv.h>

#include "queue.h"

struct message {
    bench_fn fn;
    void *user_data;
    struct event event;
    struct message *next; /* in the list */
};

static struct {
    uv_loop_t loop;
    uv_async_t async;
    bench_fn fn;
    void *user_data;
    uv_mutex_t mutex;
    struct message *messages, *taken;
    size_t count;
    struct message *first, **last;
    bool shut;
} uv;

static void uv_on_async(uv_async_t *async)
{
    uv_mutex_lock(&uv.mutex);
    struct message *taken = uv.messages;
    size_t count = uv.count;
    bool shut = uv.shut;
    uv.messages = uv.taken;
    uv.count = 0;
    uv_mutex_unlock(&uv.mutex);
    for (size_t i = 0; i < count; i++)
        taken[i].fn(taken[i].user_data, &taken[i].event);
    uv.taken = taken;
    if (shut)
        uv_close((uv_handle_t *)async, NULL);
}

static void uv_on_async_list(uv_async_t *async)
{
    uv_mutex_lock(&uv.mutex);
    struct message *message = uv.first;
    bool shut = uv.shut;
    uv.first = NULL;
    uv.last = &uv.first;
    uv_mutex_unlock(&uv.mutex);
    while (message != NULL) {
        struct message *next = message->next;
        message->fn(message->user_data, &message->event);
        free(message);
        message = next;
    }
    if (shut)
        uv_close((uv_handle_t *)async, NULL);
}

static void uv_queue_begin(uv_async_cb on_async, bench_fn fn, void *user_data)
{
    uv.messages = malloc(CAPACITY * sizeof *uv.messages);
    uv.taken = malloc(CAPACITY * sizeof *uv.taken);
    if (uv.messages == NULL || uv.taken == NULL || uv_loop_init(&uv.loop) != 0 ||
        uv_async_init(&uv.loop, &uv.async, on_async) != 0 || uv_mutex_init(&uv.mutex) != 0)
        bench_die("libuv: cannot make a loop");
    uv.fn = fn;
    uv.user_data = user_data;
    uv.count = 0;
    uv.first = NULL;
    uv.last = &uv.first;
    uv.shut = false;
}

static void uv_queue_open(bench_fn fn, void *user_data)
{
    uv_queue_begin(uv_on_async, fn, user_data);
}

static void uv_list_open(bench_fn fn, void *user_data)
{
    uv_queue_begin(uv_on_async_list, fn, user_data);
}

static inline int uv_post(const struct event *event)
{
    uv_mutex_lock(&uv.mutex);
    bool full = uv.count == CAPACITY;
    if (!full)
        uv.messages[uv.count++] = (struct message){uv.fn, uv.user_data, *event, NULL};
    uv_mutex_unlock(&uv.mutex);
    return full ? 1 : uv_async_send(&uv.async);
}

static inline int uv_list_post(const struct event *event)
{
    struct message *message = malloc(sizeof *message);
    if (message == NULL)
        return -1;
    *message = (struct message){uv.fn, uv.user_data, *event, NULL};
    uv_mutex_lock(&uv.mutex);
    *uv.last = message;
    uv.last = &message->next;
    uv_mutex_unlock(&uv.mutex);
    return uv_async_send(&uv.async);
}

static void uv_queue_loop(void)
{
    uv_run(&uv.loop, UV_RUN_DEFAULT);
}

static void uv_shut(void)
{
    uv_mutex_lock(&uv.mutex);
    uv.shut = true;
    uv_mutex_unlock(&uv.mutex);
    uv_async_send(&uv.async);
}

static void uv_free(void)
{
    if (uv_loop_close(&uv.loop) != 0)
        bench_die("libuv: the loop has not ended");
    uv_mutex_destroy(&uv.mutex);
    free(uv.messages);
    free(uv.taken);
}

#define SUBJECT uv
#define SUBJECT_TEXT "libuv arrays"
#define S_POST uv_post
#define S_OPEN uv_queue_open
#define S_LOOP uv_queue_loop
#define S_SHUT uv_shut
#define S_FREE uv_free
#include "post.h"

#define SUBJECT uv_list
#define SUBJECT_TEXT "libuv list"
#define S_POST uv_list_post
#define S_UNBOUNDED
#define S_OPEN uv_list_open
#define S_LOOP uv_queue_loop
#define S_SHUT uv_shut
#define S_FREE uv_free
#include "post.h"
