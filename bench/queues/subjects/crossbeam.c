/* A bounded crossbeam channel, through the C ABI of bench/peers-rust. */
#include "queue.h"

void *peer_channel_open(size_t capacity);
int32_t peer_channel_post(const void *channel, bench_fn fn, void *user_data, const struct event *event);
void peer_channel_consume(const void *channel);
void peer_channel_shut(const void *channel);
void peer_channel_free(void *channel);

static void *channel, *channel_user_data;
static bench_fn channel_fn;

static void channel_open(bench_fn fn, void *user_data)
{
    channel = peer_channel_open(CAPACITY);
    if (channel == NULL)
        bench_die("crossbeam: cannot make a channel");
    channel_fn = fn;
    channel_user_data = user_data;
}

static inline int channel_post(const struct event *event)
{
    return peer_channel_post(channel, channel_fn, channel_user_data, event);
}

static void channel_loop(void)
{
    peer_channel_consume(channel);
}

static void channel_shut(void)
{
    peer_channel_shut(channel);
}

static void channel_free(void)
{
    peer_channel_free(channel);
}

#define SUBJECT crossbeam
#define SUBJECT_TEXT "crossbeam"
#define S_POST channel_post
#define S_OPEN channel_open
#define S_LOOP channel_loop
#define S_SHUT channel_shut
#define S_FREE channel_free
#include "post.h"
