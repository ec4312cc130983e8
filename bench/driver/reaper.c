/* A thread that ends callbacks which another thread has called and no longer calls, while that one
 * keeps calling others: what a host does that closes idle connections beside a busy event loop.
 *
 * Two batches take turns. The caller calls each callback of its batch once, says so, and goes on
 * calling them; then the reaper ends the whole other batch (timed), registers as many anew, and says so;
 * then the caller moves there. So no callback is ended before the other thread has called it, and none
 * while it is being called. */
#include <stdatomic.h>
#include <stdbool.h>

#include "measure.h"
#include "workloads.h"

#define BATCH 256
#define WARM_UP 8

static struct {
    const struct subject *subject;
    uint64_t handles[2][BATCH];
    struct counter counter;
    _Alignas(128) atomic_size_t filled; /* batches registered so far: batch b lies in handles[b & 1] */
    _Alignas(128) atomic_size_t called; /* batches of which each was called; the caller is in the last */
    _Alignas(128) atomic_size_t calls;
    _Atomic double due; /* a caller that has not counted again by then is not running */
    _Alignas(128) atomic_bool stop;
    void (*mark)(int end);
    size_t batches;
    double ms;
    struct reaped result;
} shared;

static void call_batches(void *unused)
{
    (void)unused;
    size_t done = 0;
    for (size_t batch = 0;; batch++) {
        struct calls calls = {shared.subject, shared.handles[batch & 1], BATCH, 0, &shared.counter};
        calls_work(&calls, BATCH);
        atomic_store_explicit(&shared.called, batch + 1, memory_order_release);
        while (atomic_load_explicit(&shared.filled, memory_order_acquire) < batch + 2) {
            if (atomic_load_explicit(&shared.stop, memory_order_relaxed))
                return;
            double from = now_ns();
            calls_work(&calls, BATCH);
            double to = now_ns();
            done += BATCH;
            atomic_store_explicit(&shared.calls, done, memory_order_relaxed);
            atomic_store_explicit(&shared.due, to + 3 * (to - from) + 5e3, memory_order_relaxed);
        }
    }
}

static void reap_batches(void *unused)
{
    (void)unused;
    const struct subject *subject = shared.subject;
    double removing = 0, adding = 0, end = now_ns() + shared.ms * 1e6;
    size_t good = 0, calls = 0, batch = 0;
    while (batch < shared.batches + WARM_UP && (batch < 2 * WARM_UP || now_ns() < end)) {
        if (batch == WARM_UP && shared.mark != NULL)
            shared.mark(0);
        while (atomic_load_explicit(&shared.called, memory_order_acquire) < batch + 2)
            ;
        uint64_t *handles = shared.handles[batch & 1];
        size_t before = atomic_load_explicit(&shared.calls, memory_order_relaxed);
        double due = atomic_load_explicit(&shared.due, memory_order_relaxed);
        double from = now_ns();
        subject->remove_each(handles, BATCH);
        double to = now_ns();
        size_t meanwhile = atomic_load_explicit(&shared.calls, memory_order_relaxed) - before;
        subject->add_each(bench_callback, &shared.counter, bench_destroy_shared, handles, BATCH);
        double added = now_ns();
        double due_after = atomic_load_explicit(&shared.due, memory_order_relaxed);
        atomic_store_explicit(&shared.filled, batch + 3, memory_order_release);
        /* Only if both threads really ran. */
        bool ran = added - from < 1e6 && from < due && added < due_after;
        if (batch++ >= WARM_UP && meanwhile > 0 && ran) {
            removing += to - from;
            adding += added - to;
            calls += meanwhile;
            good++;
        }
    }
    if (shared.mark != NULL)
        shared.mark(1);
    atomic_store(&shared.stop, true);
    double ended = (double)good * BATCH;
    shared.result = (struct reaped){
        removing / ended, adding / ended, removing / (double)calls,
        (double)good / (double)(batch - WARM_UP), (batch - WARM_UP) * BATCH,
    };
    shared.counter.destroyed -= batch * BATCH;
}

struct reaped reap(const struct subject *subject, size_t batches, double ms, void (*mark)(int end))
{
    shared.subject = subject;
    shared.batches = batches;
    shared.ms = ms;
    shared.mark = mark;
    shared.counter.destroyed = 0;
    for (int i = 0; i < 2; i++)
        subject->add_each(bench_callback, &shared.counter, bench_destroy_shared, shared.handles[i], BATCH);
    atomic_store(&shared.filled, 2);
    atomic_store(&shared.called, 0);
    atomic_store(&shared.calls, 0);
    atomic_store(&shared.stop, false);
    measure_beside(call_batches, reap_batches, NULL);
    for (int i = 0; i < 2; i++)
        subject->remove_each(shared.handles[i], BATCH);
    if (subject->flush != NULL)
        subject->flush();
    if (shared.counter.destroyed != 2 * BATCH)
        bench_die("%s: not every callback was destroyed exactly once", subject->name);
    return shared.result;
}

void workload_reaper(const struct plan *plan)
{
    for (unsigned round = 0; round < plan->rounds; round++) {
        for (const struct subject *const *s = plan->subjects; *s != NULL; s++) {
            struct reaped it = reap(*s, SIZE_MAX / 2, 3 * plan->ms, NULL);
            emit("w3r", *s, "good", it.good);
            if (it.good == 0)
                continue;
            emit("w3r", *s, "ns", it.unregister_ns);
            emit("w3r", *s, "register_ns", it.register_ns);
            emit("w3r", *s, "caller_ns", it.caller_ns);
        }
    }
}
