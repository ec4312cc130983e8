/* A bare eventfd: what waking a thread costs. It holds one event, so that only the latency is measured. */
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "queue.h"

static struct {
    int fd;
    bench_fn fn;
    void *user_data;
    struct event event;
    atomic_bool shut;
} bare;

static void bare_open(bench_fn fn, void *user_data)
{
    bare.fd = eventfd(0, EFD_CLOEXEC);
    if (bare.fd < 0)
        bench_die("cannot make an eventfd");
    bare.fn = fn;
    bare.user_data = user_data;
    bare.shut = false;
}

static int bare_wake(void)
{
    uint64_t one = 1;
    return write(bare.fd, &one, sizeof one) == sizeof one ? 0 : -1;
}

static inline int bare_post(const struct event *event)
{
    bare.event = *event;
    return bare_wake();
}

static void bare_loop(void)
{
    uint64_t count;
    while (read(bare.fd, &count, sizeof count) == sizeof count && !atomic_load(&bare.shut))
        bare.fn(bare.user_data, &bare.event);
}

static void bare_shut(void)
{
    atomic_store(&bare.shut, true);
    bare_wake();
}

static void bare_free(void)
{
    close(bare.fd);
}

#define SUBJECT eventfd
#define SUBJECT_TEXT "bare eventfd"
#define S_POST bare_post
#define S_UNBOUNDED
#define S_OPEN bare_open
#define S_LOOP bare_loop
#define S_SHUT bare_shut
#define S_FREE bare_free
#include "post.h"
