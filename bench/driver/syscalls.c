/* Runs the ends of lives between marks that strace shows (writes to descriptor -1), so that the system
 * calls in between can be counted. The threads meet by spinning, which makes none itself. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "measure.h"
#include "workloads.h"

#define PAIRS 100000
#define BATCHES 400
#define IN_FLIGHT 100
#define LONG_RUN 10000

static const char *title;
static size_t operations;

static void mark(int end)
{
    char text[128];
    int length = snprintf(text, sizeof text, "bench:%s:%s:%zu", end ? "end" : "begin", title, operations);
    if (write(-1, text, (size_t)length) != -1)
        bench_die("wrote to descriptor -1");
}

static struct {
    const struct subject *subject;
    struct pairs pairs[2];
    atomic_uint met, inside, ended;
} shared;

static void meet(unsigned until)
{
    atomic_fetch_add(&shared.met, 1);
    while (atomic_load(&shared.met) < until)
        ;
}

static void pairs_there(void *unused)
{
    (void)unused;
    pairs_work(&shared.pairs[1], 2 * BATCHES); /* what a thread needs once */
    meet(2);
    meet(4);
    pairs_work(&shared.pairs[1], PAIRS);
    meet(6);
    meet(8);
}

static void pairs_here(void *unused)
{
    (void)unused;
    meet(2);
    mark(0);
    meet(4);
    pairs_work(&shared.pairs[0], PAIRS);
    meet(6);
    mark(1);
    meet(8);
}

/* Stays inside until the reaping thread has unregistered it. */
static intptr_t stay_inside(void *user_data, void *arg)
{
    (void)user_data;
    unsigned turn = atomic_fetch_add(&shared.inside, 1) + 1;
    while (atomic_load(&shared.ended) < turn)
        ;
    return (intptr_t)arg;
}

static uint64_t in_flight[IN_FLIGHT];

static void run_there(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < IN_FLIGHT; i++) {
        shared.subject->call_same(in_flight[i], LONG_RUN);
        atomic_store(&shared.inside, i + 1);
        while (atomic_load(&shared.ended) < i + 1)
            ;
    }
}

static void inside_there(void *unused)
{
    (void)unused;
    shared.subject->call_each(in_flight, IN_FLIGHT);
}

static void inside_here(void *unused)
{
    (void)unused;
    mark(0);
    for (unsigned i = 0; i < IN_FLIGHT; i++) {
        while (atomic_load(&shared.inside) < i + 1)
            ;
        shared.subject->remove(in_flight[i]);
        atomic_store(&shared.ended, i + 1);
    }
    mark(1);
}

/* Ends each callback as soon as the other thread is inside it, or has just left it. */
static void end_each(const char *what, bench_fn fn, void (*there)(void *), struct counter *counter)
{
    title = what;
    operations = IN_FLIGHT;
    counter->destroyed = 0;
    atomic_store(&shared.inside, 0);
    atomic_store(&shared.ended, 0);
    shared.subject->add_each(fn, counter, bench_destroy_shared, in_flight, IN_FLIGHT);
    measure_beside(there, inside_here, NULL);
    if (shared.subject->flush != NULL)
        shared.subject->flush();
    if (counter->destroyed != IN_FLIGHT)
        bench_die("%s: not every callback was destroyed exactly once", shared.subject->name);
}

void workload_syscalls(const struct plan *plan)
{
    static struct counter counters[3];
    const struct subject *subject = shared.subject = plan->subjects[0];
    for (size_t i = 0; i < 2; i++)
        shared.pairs[i] = (struct pairs){subject, &counters[i], 0};
    pairs_work(&shared.pairs[0], 2 * BATCHES);

    title = "register+unregister, one thread";
    operations = PAIRS;
    mark(0);
    pairs_work(&shared.pairs[0], PAIRS);
    mark(1);

    title = "register+unregister, two threads";
    operations = 2 * PAIRS;
    measure_beside(pairs_there, pairs_here, NULL);

    title = "unregister beside a calling thread";
    operations = BATCHES * 256;
    reap(subject, BATCHES, 60e3, mark);

    end_each("unregister of what another thread just called 10,000 times", bench_callback, run_there,
             &counters[2]);
    end_each("unregister while another thread is inside", stay_inside, inside_there, &counters[2]);
    if (subject->flush != NULL)
        subject->flush();
    pairs_check(&shared.pairs[0]);
    pairs_check(&shared.pairs[1]);
}
