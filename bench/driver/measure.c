/* A thread works in batches of about 10 us and notes when each ended. */
#include "measure.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

#include "cpus.h"
#include "subject.h"

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

static void *second_main(void *enter)
{
    cpus_pin(0, 1);
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
    for (int i = 0; i < 2; i++)
        notes_init(&notes[i]);
    sem_init(&second.go, 0, 0);
    sem_init(&second.done, 0, 0);
    /* Before this thread is pinned, because a new thread inherits that. */
    if (pthread_create(&thread, NULL, second_main, (void *)enter) != 0)
        bench_die("cannot start a thread");
    second_wait();
    cpus_pin(0, 0);
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
    size_t batch = job.batch;

    for (double warm = now_ns() + 1e6; now_ns() < warm;)
        work(context, batch);
    if (job.both) {
        __atomic_fetch_add(&job.arrived, 1, __ATOMIC_ACQ_REL);
        while (__atomic_load_n(&job.arrived, __ATOMIC_ACQUIRE) != 2)
            ;
    }
    double now = now_ns(), until = now + job.ms * 1e6;
    mine->batch = batch;
    mine->count = 0;
    notes_add(mine, now);
    while (now < until && mine->count < NOTES_MAX) {
        work(context, batch);
        now = now_ns();
        notes_add(mine, now);
    }
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

static struct rate evaluate(unsigned on)
{
    const struct notes *ran[2];
    size_t count = 0;
    for (size_t t = 0; t < 2; t++)
        if (on & (1u << t))
            ran[count++] = &notes[t];
    return notes_rate(ran, count, count);
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
