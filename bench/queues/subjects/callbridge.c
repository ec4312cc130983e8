/* callbridge's queue: dispatched by a thread that waits in it, and by a loop that polls its descriptor. */
#include <callbridge.h>
#include <poll.h>
#include <unistd.h>

#include "queue.h"

static struct {
    cbr_queue queue;
    cbr_handle handle;
    int fd;
    struct sink *sink;
} bridge;

static void must(cbr_status status, const char *what)
{
    if (status != CBR_OK)
        bench_die("callbridge: %s: %s", what, cbr_status_name(status));
}

static void bridge_open(bench_fn fn, void *user_data)
{
    cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
    options.capacity = CAPACITY;
    must(cbr_queue_open(&options, &bridge.queue), "open");
    must(cbr_register(fn, user_data, queue_destroy, &bridge.handle), "register");
    bridge.fd = -1;
    bridge.sink = user_data;
}

static void bridge_open_fd(bench_fn fn, void *user_data)
{
    bridge_open(fn, user_data);
    must(cbr_queue_fd(bridge.queue, &bridge.fd), "fd");
}

static inline int bridge_post(const struct event *event)
{
    cbr_status status = cbr_post(bridge.queue, bridge.handle, event, sizeof *event);
    return status == CBR_OK ? 0 : status == CBR_ERR_FULL ? 1 : -1;
}

static void check_end(cbr_status status)
{
    if (status != CBR_ERR_CLOSED && status != CBR_ERR_STALE)
        must(status, "dispatch");
}

static void bridge_loop(void)
{
    cbr_status status;
    do {
        size_t dispatched;
        status = cbr_queue_dispatch(bridge.queue, 0, -1, &dispatched);
    } while (status == CBR_OK);
    check_end(status);
}

static void bridge_poll_loop(void)
{
    cbr_status status;
    do {
        struct pollfd fd = {.fd = bridge.fd, .events = POLLIN};
        size_t dispatched;
        if (poll(&fd, 1, -1) != 1)
            bench_die("callbridge: poll failed");
        status = cbr_queue_dispatch(bridge.queue, 0, 0, &dispatched);
    } while (status == CBR_OK || status == CBR_ERR_EMPTY);
    check_end(status);
}

static void bridge_consume(void)
{
    size_t dispatched;
    must(cbr_queue_dispatch(bridge.queue, 0, 0, &dispatched), "dispatch");
}

static void bridge_shut(void)
{
    must(cbr_queue_close(bridge.queue, CBR_CLOSE_DRAIN), "close");
}

static void bridge_free(void)
{
    must(cbr_unregister_wait(bridge.handle, -1), "unregister");
    if (bridge.sink->destroyed != 1)
        bench_die("callbridge: the callback was not destroyed exactly once");
    if (bridge.fd >= 0)
        close(bridge.fd);
}

#define SUBJECT callbridge
#define SUBJECT_TEXT "callbridge"
#define S_POST bridge_post
#define S_OPEN bridge_open
#define S_LOOP bridge_loop
#define S_CONSUME bridge_consume
#define S_SHUT bridge_shut
#define S_FREE bridge_free
#include "post.h"

#define SUBJECT callbridge_poll
#define SUBJECT_TEXT "callbridge+poll"
#define S_POST bridge_post
#define S_OPEN bridge_open_fd
#define S_LOOP bridge_poll_loop
#define S_SHUT bridge_shut
#define S_FREE bridge_free
#include "post.h"
