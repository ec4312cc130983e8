/* What owners do: callbacks found by key on two threads, and the end of everything that was registered.
 * That one depends on where the callbacks lie: each called once by another thread, they are in its
 * cache; and where others were registered before and have ended in random order, neighbours in time are
 * none in memory, and what exceeds the caches is fetched one by one. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"
#include "workloads.h"

#define THOUSAND 1000

void workload_keys(const struct plan *plan)
{
    static struct counter counter;
    for (unsigned round = 0; round < plan->rounds; round++) {
        for (const struct subject *const *s = plan->subjects; *s != NULL; s++) {
            struct calls all = calls_new(*s, THOUSAND, &counter);
            struct calls one = all, other = all;
            one.count = other.count = THOUSAND / 2;
            other.handles += THOUSAND / 2;
            both_threads("w2d", *s, same_work, (void *[]){&one, &other}, plan);
            both_threads("w2h", *s, calls_work, (void *[]){&one, &other}, plan);
            calls_free(&all, &counter);
        }
    }
}

static void call_all(void *calls)
{
    calls_work(calls, ((struct calls *)calls)->count);
}

static void rest(void *unused)
{
    (void)unused;
}

/* Registers all and ends all; nanoseconds of the end. */
static double end_all(struct calls *calls, struct counter *counter, bool called)
{
    const struct subject *subject = calls->subject;
    counter->destroyed = 0;
    subject->add_each(bench_callback, counter, bench_destroy, calls->handles, calls->count);
    if (called)
        measure_beside(call_all, rest, calls);
    double from = now_ns();
    if (subject->remove_all != NULL)
        subject->remove_all();
    else
        subject->remove_each(calls->handles, calls->count);
    if (subject->flush != NULL)
        subject->flush();
    double took = now_ns() - from;
    if (counter->destroyed != calls->count)
        bench_die("%s: %zu callbacks, %zu destroyed", subject->name, calls->count,
                  (size_t)counter->destroyed);
    return took;
}

/* Has the next ones registered in the places of others, in random order. */
static void scatter(struct calls *calls, struct counter *counter)
{
    const struct subject *subject = calls->subject;
    subject->add_each(bench_callback, counter, bench_destroy, calls->handles, calls->count);
    shuffle(calls->handles, calls->count);
    subject->remove_each(calls->handles, calls->count);
    if (subject->flush != NULL)
        subject->flush();
}

void workload_closing(const struct plan *plan)
{
    static struct counter counter;
    const struct subject *subject = plan->subjects[0];
    uint64_t *handles = malloc(plan->count * sizeof *handles);
    if (handles == NULL)
        bench_die("out of memory");
    struct calls calls = {subject, handles, plan->count, 0, &counter};
    char workload[32];
    snprintf(workload, sizeof workload, "w6.%zu", plan->count);
    /* A few of many, many of a few. */
    double end = now_ns() + plan->ms * 1e6;
    for (unsigned round = 0; round < plan->rounds || now_ns() < end; round++) {
        emit(workload, subject, "ns", end_all(&calls, &counter, false) / (double)plan->count);
        emit(workload, subject, "called_ns", end_all(&calls, &counter, true) / (double)plan->count);
    }
    scatter(&calls, &counter);
    end = now_ns() + plan->ms * 1e6;
    for (unsigned round = 0; round < plan->rounds || now_ns() < end; round++)
        emit(workload, subject, "scattered_ns", end_all(&calls, &counter, false) / (double)plan->count);
    free(handles);
}
