/* The least that a queue can cost which any thread may post to and which sleeps when it is empty: a
 * bounded ring after Vyukov, many producers and one consumer, nothing checked. The eventfd is written
 * only when the consumer sleeps. "ring+clock" also notes the time of the post, as callbridge does. */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "queue.h"

#define LOOKS 4 /* at an empty ring before the consumer sleeps */

struct cell {
    _Alignas(64) atomic_size_t turn; /* the position that may write it; one more: that may read it */
    bench_fn fn;
    void *user_data;
    struct event event;
    uint64_t posted;
};

static struct {
    struct cell *cells;
    int fd;
    bench_fn fn;
    void *user_data;
    _Alignas(128) atomic_size_t tail;
    _Alignas(128) atomic_bool asleep, shut;
} ring;

static void ring_open(bench_fn fn, void *user_data)
{
    ring.fd = eventfd(0, EFD_CLOEXEC);
    ring.cells = aligned_alloc(64, CAPACITY * sizeof *ring.cells);
    if (ring.fd < 0 || ring.cells == NULL)
        bench_die("cannot make a ring");
    for (size_t i = 0; i < CAPACITY; i++)
        atomic_init(&ring.cells[i].turn, i);
    ring.fn = fn;
    ring.user_data = user_data;
    ring.tail = 0;
    ring.asleep = ring.shut = false;
}

static void ring_wake(void)
{
    uint64_t one = 1;
    if (write(ring.fd, &one, sizeof one) != sizeof one)
        bench_die("cannot write to an eventfd");
}

static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return (uint64_t)now_ns();
#endif
}

static inline int ring_put(const struct event *event, bool timed)
{
    size_t at = atomic_load_explicit(&ring.tail, memory_order_relaxed);
    struct cell *cell;
    for (;;) {
        cell = &ring.cells[at % CAPACITY];
        size_t turn = atomic_load_explicit(&cell->turn, memory_order_acquire);
        if (turn == at) {
            if (atomic_compare_exchange_weak_explicit(&ring.tail, &at, at + 1, memory_order_relaxed,
                                                      memory_order_relaxed))
                break;
        } else if ((intptr_t)(turn - at) < 0)
            return 1;
        else
            at = atomic_load_explicit(&ring.tail, memory_order_relaxed);
    }
    cell->fn = ring.fn;
    cell->user_data = ring.user_data;
    cell->event = *event;
    if (timed)
        cell->posted = ticks();
    atomic_store_explicit(&cell->turn, at + 1, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&ring.asleep, memory_order_relaxed) && atomic_exchange(&ring.asleep, false))
        ring_wake();
    return 0;
}

static inline int ring_post(const struct event *event)
{
    return ring_put(event, false);
}

static inline int ring_post_timed(const struct event *event)
{
    return ring_put(event, true);
}

static void ring_sleep(const struct cell *next, size_t head)
{
    uint64_t count;
    atomic_store_explicit(&ring.asleep, true, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&next->turn, memory_order_acquire) == head + 1 || atomic_load(&ring.shut)) {
        /* Who took the flag has written, or will. */
        if (atomic_exchange(&ring.asleep, false))
            return;
    }
    if (read(ring.fd, &count, sizeof count) != sizeof count)
        bench_die("cannot read from an eventfd");
}

static void ring_loop(void)
{
    size_t head = 0;
    for (unsigned looks = 0;;) {
        struct cell *cell = &ring.cells[head % CAPACITY];
        if (atomic_load_explicit(&cell->turn, memory_order_acquire) == head + 1) {
            cell->fn(cell->user_data, &cell->event);
            atomic_store_explicit(&cell->turn, head + CAPACITY, memory_order_release);
            head++;
            looks = 0;
        } else if (looks++ < LOOKS) {
            queue_back_off(0);
        } else {
            if (atomic_load(&ring.shut) &&
                atomic_load_explicit(&cell->turn, memory_order_acquire) != head + 1)
                return;
            ring_sleep(cell, head);
            looks = 0;
        }
    }
}

static void ring_shut(void)
{
    atomic_store(&ring.shut, true);
    if (atomic_exchange(&ring.asleep, false))
        ring_wake();
}

static void ring_free(void)
{
    close(ring.fd);
    free(ring.cells);
}

#define SUBJECT ring
#define SUBJECT_TEXT "ideal ring"
#define S_POST ring_post
#define S_OPEN ring_open
#define S_LOOP ring_loop
#define S_SHUT ring_shut
#define S_FREE ring_free
#include "post.h"

#define SUBJECT ring_timed
#define SUBJECT_TEXT "ring+clock"
#define S_POST ring_post_timed
#define S_OPEN ring_open
#define S_LOOP ring_loop
#define S_SHUT ring_shut
#define S_FREE ring_free
#include "post.h"
