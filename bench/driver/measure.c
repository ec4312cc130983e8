/* A thread works in batches of about 10 us and notes when each ended. On a shared machine the
 * hypervisor takes a CPU away for milliseconds, and only the notes show it: a batch that took far
 * longer than it can. Time is cut into windows of 1 ms; a window that such a gap touches, of any of
 * the threads, does not count. */
#define _GNU_SOURCE
#include "measure.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "subject.h"

#define MAX_NOTES (1u << 18)
#define GAP_NS 5e5
#define WINDOW_NS 1e6
#define MAX_WINDOWS 4096
#define MIN_GOOD 4

struct notes {
    double *end; /* end[0] is the start of the first batch */
    size_t count;
};

static struct notes notes[2];

static struct {
    sem_t go, done;
    void (*run)(void *);
    void *context;
} second;

static struct {
    work_fn work;
    void *const *contexts;
    size_t batch;
    double ms;
    bool both;
    uint32_t arrived;
} job;

double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void pin(unsigned which)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        bench_die("cannot read the CPU affinity");
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        if (which-- == 0) {
            CPU_SET(cpu, &one);
            if (sched_setaffinity(0, sizeof one, &one) != 0)
                bench_die("cannot pin a thread");
            return;
        }
    }
    bench_die("two CPUs are needed");
}

static void *second_main(void *enter)
{
    pin(1);
    ((void (*)(void))enter)();
    sem_post(&second.done);
    for (;;) {
        while (sem_wait(&second.go) != 0)
            ;
        second.run(second.context);
        sem_post(&second.done);
    }
    return NULL;
}

static void second_wait(void)
{
    while (sem_wait(&second.done) != 0)
        ;
}

void measure_start(void (*enter)(void))
{
    pthread_t thread;
    for (int i = 0; i < 2; i++) {
        notes[i].end = malloc(MAX_NOTES * sizeof *notes[i].end);
        if (notes[i].end == NULL)
            bench_die("out of memory");
        memset(notes[i].end, 0, MAX_NOTES * sizeof *notes[i].end);
    }
    sem_init(&second.go, 0, 0);
    sem_init(&second.done, 0, 0);
    /* Before this thread is pinned, because a new thread inherits that. */
    if (pthread_create(&thread, NULL, second_main, (void *)enter) != 0)
        bench_die("cannot start a thread");
    second_wait();
    pin(0);
    enter();
}

static void call_leave(void *leave)
{
    ((void (*)(void))leave)();
}

void measure_end(void (*leave)(void))
{
    second.run = call_leave;
    second.context = (void *)leave;
    sem_post(&second.go);
    second_wait();
    leave();
}

void measure_beside(void (*there)(void *), void (*here)(void *), void *context)
{
    second.run = there;
    second.context = context;
    sem_post(&second.go);
    here(context);
    second_wait();
}

size_t measure_calibrate(work_fn work, void *context)
{
    for (size_t n = 1;; n *= 2) {
        double best = 1e18;
        for (int i = 0; i < 3; i++) {
            double from = now_ns();
            work(context, n);
            double took = now_ns() - from;
            best = took < best ? took : best;
        }
        if (best >= 7e3)
            return n;
    }
}

static void work_one(size_t thread)
{
    struct notes *mine = &notes[thread];
    void *context = job.contexts[thread];
    work_fn work = job.work;
    size_t batch = job.batch, count = 1;

    for (double warm = now_ns() + 1e6; now_ns() < warm;)
        work(context, batch);
    if (job.both) {
        __atomic_fetch_add(&job.arrived, 1, __ATOMIC_ACQ_REL);
        while (__atomic_load_n(&job.arrived, __ATOMIC_ACQUIRE) != 2)
            ;
    }
    double now = now_ns(), until = now + job.ms * 1e6;
    mine->end[0] = now;
    while (now < until && count < MAX_NOTES) {
        work(context, batch);
        now = now_ns();
        mine->end[count++] = now;
    }
    mine->count = count;
}

static void work_first(void *unused)
{
    (void)unused;
    work_one(0);
}

static void work_second(void *unused)
{
    (void)unused;
    work_one(1);
}

static size_t window_of(double at, double from, size_t windows)
{
    double index = (at - from) / WINDOW_NS;
    return index <= 0 ? 0 : index >= (double)windows ? windows : (size_t)index;
}

static void mark_gaps(const struct notes *it, double from, bool *bad, size_t windows)
{
    for (size_t i = 1; i < it->count; i++) {
        if (it->end[i] - it->end[i - 1] < GAP_NS)
            continue;
        size_t last = window_of(it->end[i], from, windows);
        for (size_t w = window_of(it->end[i - 1], from, windows); w <= last && w < windows; w++)
            bad[w] = true;
    }
}

/* Operations of one thread within the good windows. */
static double count_good(const struct notes *it, double from, const bool *bad, size_t windows)
{
    double batches = 0;
    for (size_t i = 1; i < it->count; i++) {
        double a = it->end[i - 1], b = it->end[i];
        for (size_t w = window_of(a, from, windows); w < windows; w++) {
            double low = from + (double)w * WINDOW_NS, high = low + WINDOW_NS;
            if (low >= b)
                break;
            double overlap = (b < high ? b : high) - (a > low ? a : low);
            if (!bad[w] && overlap > 0)
                batches += overlap / (b - a);
        }
    }
    return batches * (double)job.batch;
}

static struct rate evaluate(unsigned on)
{
    static bool bad[MAX_WINDOWS + 1];
    double from = 0, to = 1e300;
    for (size_t t = 0; t < 2; t++) {
        if (!(on & (1u << t)))
            continue;
        double first = notes[t].end[0], last = notes[t].end[notes[t].count - 1];
        from = first > from ? first : from;
        to = last < to ? last : to;
    }
    size_t windows = (size_t)((to - from) / WINDOW_NS), good = 0, threads = 0;
    if (to <= from || windows == 0)
        return (struct rate){0, 0, 0};
    windows = windows < MAX_WINDOWS ? windows : MAX_WINDOWS;
    memset(bad, 0, sizeof bad);
    for (size_t t = 0; t < 2; t++)
        if (on & (1u << t))
            mark_gaps(&notes[t], from, bad, windows);
    for (size_t w = 0; w < windows; w++)
        good += !bad[w];
    if (good < MIN_GOOD)
        return (struct rate){0, 0, 0};
    double operations = 0, time = (double)good * WINDOW_NS;
    for (size_t t = 0; t < 2; t++) {
        if (!(on & (1u << t)))
            continue;
        threads++;
        operations += count_good(&notes[t], from, bad, windows);
    }
    return (struct rate){
        .ns = time * (double)threads / operations,
        .per_us = operations / time * 1e3,
        .good = (double)good / (double)windows,
    };
}

struct rate measure(work_fn work, void *const contexts[2], size_t batch, unsigned on, double ms)
{
    struct rate rate = {0, 0, 0};
    job.work = work;
    job.contexts = contexts;
    job.batch = batch;
    job.ms = ms;
    job.both = on == ON_BOTH;
    /* On a machine that is busy with other things, perhaps nothing counted. */
    for (int tries = 0; tries < 5 && rate.good == 0; tries++) {
        job.arrived = 0;
        if (on == ON_FIRST)
            work_first(NULL);
        else if (on == ON_SECOND) {
            second.run = work_second;
            sem_post(&second.go);
            second_wait();
        } else
            measure_beside(work_second, work_first, NULL);
        rate = evaluate(on);
    }
    return rate;
}
