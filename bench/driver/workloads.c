/* Calls (one handle, a thousand, two threads), ends of lives, and references. Slices of all subjects
 * take turns, so that a slow spell of the machine meets all of them. */
#include "workloads.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"

#define THOUSAND 1000

#define EACH(plan, it) (const struct subject *const *it = (plan)->subjects; *it != NULL; it++)

void emit(const char *workload, const struct subject *subject, const char *metric, double value)
{
    printf("%s\t%s\t%s\t%.6g\n", workload, subject->name, metric, value);
    fflush(stdout);
}

static void emit_rate(const char *workload, const struct subject *subject, const char *metric,
                      struct rate rate, double value)
{
    if (rate.good > 0)
        emit(workload, subject, metric, value);
}

void shuffle(uint64_t *values, size_t n)
{
    uint64_t random = 0x9e3779b97f4a7c15u;
    for (size_t i = n; i > 1; i--) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t j = random % i;
        uint64_t swapped = values[i - 1];
        values[i - 1] = values[j];
        values[j] = swapped;
    }
}

static void check_sum(const struct calls *calls, intptr_t sum, size_t n)
{
    uintptr_t expected = (uintptr_t)calls->user_data * n + (uintptr_t)n * (n - 1) / 2;
    if ((uintptr_t)sum != expected)
        bench_die("%s: wrong results", calls->subject->name);
}

void calls_work(void *context, size_t n)
{
    struct calls *it = context;
    while (n > 0) {
        size_t left = it->count - it->at, part = n < left ? n : left;
        check_sum(it, it->subject->call_each(&it->handles[it->at], part), part);
        it->at = it->at + part == it->count ? 0 : it->at + part;
        n -= part;
    }
}

void same_work(void *context, size_t n)
{
    struct calls *it = context;
    check_sum(it, it->subject->call_same(it->handles[0], n), n);
}

struct calls calls_new(const struct subject *subject, size_t count, struct counter *counter)
{
    struct calls it = {subject, malloc(count * sizeof *it.handles), count, 0, counter};
    if (it.handles == NULL)
        bench_die("out of memory");
    subject->add_each(bench_callback, counter, bench_destroy_shared, it.handles, count);
    shuffle(it.handles, count);
    return it;
}

void calls_free(struct calls *it, struct counter *counter)
{
    counter->destroyed = 0;
    it->subject->remove_each(it->handles, it->count);
    if (it->subject->flush != NULL)
        it->subject->flush();
    if (counter->destroyed != it->count)
        bench_die("%s: %zu callbacks, %zu destroyed", it->subject->name, it->count,
                  (size_t)counter->destroyed);
    free(it->handles);
}

static void one_thread(const char *workload, const struct plan *plan, size_t count, work_fn work)
{
    static struct counter counter;
    for EACH(plan, s) {
        struct calls calls = calls_new(*s, count, &counter);
        void *contexts[2] = {&calls, NULL};
        struct rate rate = measure(work, contexts, measure_calibrate(work, &calls), ON_FIRST, plan->ms);
        emit_rate(workload, *s, "ns", rate, rate.ns);
        calls_free(&calls, &counter);
    }
}

void both_threads(const char *workload, const struct subject *subject, work_fn work,
                  void *const contexts[2], const struct plan *plan)
{
    size_t batch = measure_calibrate(work, contexts[0]);
    struct rate first = measure(work, contexts, batch, ON_FIRST, plan->ms);
    struct rate other = measure(work, contexts, batch, ON_SECOND, plan->ms);
    struct rate both = measure(work, contexts, batch, ON_BOTH, 2 * plan->ms);
    emit(workload, subject, "good", both.good);
    if (first.good > 0 && other.good > 0 && both.good > 0) {
        emit(workload, subject, "one_ns", (first.ns + other.ns) / 2);
        emit(workload, subject, "two_ns", both.ns);
        emit(workload, subject, "scale", both.per_us * 2 / (first.per_us + other.per_us));
    }
}

static void locked_work(void *counter, size_t n)
{
    for (size_t i = 0; i < n; i++)
        __atomic_fetch_add((uint64_t *)counter, 1, __ATOMIC_RELAXED);
}

/* What one locked instruction costs on this machine: no protection that uses one is faster. */
static void locked_instruction(const struct plan *plan)
{
    static struct counter counter;
    void *contexts[2] = {&counter, NULL};
    struct rate rate = measure(locked_work, contexts, 1000, ON_FIRST, plan->ms);
    if (rate.good > 0)
        printf("w1\tlocked instruction\tns\t%.6g\n", rate.ns);
}

void workload_calls(const struct plan *plan)
{
    static struct counter counter;
    for (unsigned round = 0; round < plan->rounds; round++) {
        locked_instruction(plan);
        one_thread("w1", plan, 1, same_work);
        one_thread("w1k", plan, THOUSAND, calls_work);
        for EACH(plan, s) {
            struct calls calls = calls_new(*s, 1, &counter), copy = calls;
            both_threads("w2", *s, same_work, (void *[]){&calls, &copy}, plan);
            calls_free(&calls, &counter);
        }
    }
}

void pairs_work(void *context, size_t n)
{
    struct pairs *it = context;
    it->subject->pair(it->counter, n);
    it->done += n;
}

void pairs_check(const struct pairs *it)
{
    if (it->counter->destroyed != it->done)
        bench_die("%s: %zu callbacks, %zu destroyed", it->subject->name, (size_t)it->done,
                  (size_t)it->counter->destroyed);
}

struct references {
    const struct subject *subject;
    uint64_t handle;
};

static void references_work(void *context, size_t n)
{
    struct references *it = context;
    it->subject->retain_release(it->handle, n);
}

void workload_lives(const struct plan *plan)
{
    static struct counter counters[2];
    for (unsigned round = 0; round < plan->rounds; round++) {
        for EACH(plan, s) {
            counters[0].destroyed = counters[1].destroyed = 0;
            struct pairs pairs[2] = {{*s, &counters[0], 0}, {*s, &counters[1], 0}};
            both_threads("w3", *s, pairs_work, (void *[]){&pairs[0], &pairs[1]}, plan);
            if ((*s)->flush != NULL)
                (*s)->flush();
            pairs_check(&pairs[0]);
            pairs_check(&pairs[1]);
        }
        for EACH(plan, s) {
            if ((*s)->retain_release == NULL)
                continue;
            struct references it = {*s, (*s)->add(bench_callback, &counters[0], bench_destroy)};
            both_threads("w5", *s, references_work, (void *[]){&it, &it}, plan);
            (*s)->remove(it.handle);
        }
    }
}

void workload_count(const struct plan *plan, const char *operation)
{
    static struct counter counter;
    const struct subject *subject = plan->subjects[0];
    if (strcmp(operation, "pair") == 0) {
        subject->pair(&counter, plan->count);
        return;
    }
    if (strcmp(operation, "all") == 0 && subject->remove_all != NULL) {
        for (size_t i = 0; i < plan->count; i++)
            subject->add(bench_callback, &counter, bench_destroy);
        subject->remove_all();
        return;
    }
    if (strcmp(operation, "1k") == 0) {
        struct calls calls = calls_new(subject, THOUSAND, &counter);
        calls_work(&calls, plan->count);
        calls_free(&calls, &counter);
        return;
    }
    struct calls calls = calls_new(subject, 2, &counter);
    if (strcmp(operation, "call") == 0)
        same_work(&calls, plan->count);
    else if (strcmp(operation, "turns") == 0)
        calls_work(&calls, plan->count);
    else if (strcmp(operation, "retain") == 0 && subject->retain_release != NULL)
        subject->retain_release(calls.handles[0], plan->count);
    else
        bench_die("%s has no operation %s", subject->name, operation);
    calls_free(&calls, &counter);
}
