/* The workloads. Slices of all subjects take turns, so that a slow spell of the machine meets all of
 * them. A slice opens the subject anew; at its end every event is accounted for. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cpus.h"
#include "queue.h"

#define BATCH 250
#define BATCH_NS 2e4
#define WARM_UP_NS 3e6
#define SAMPLES 50   /* of the latency in a slice */
#define WARM_UP 5    /* of them beforehand */
#define ASLEEP_NS 3e5 /* a guest's idle CPU looks for work for up to 0.2 ms before it halts */
#define STUCK_NS 1e10
#define IDLE_NS 1000000000

#define EACH(plan, it) (const struct queue_subject *const *it = (plan)->subjects; *it != NULL; it++)

static struct sink sink;
static struct producer producers[PRODUCERS];

static void emit(const char *workload, const struct queue_subject *subject, const char *metric, double value)
{
    printf("%s\t%s\t%s\t%.6g\n", workload, subject->name, metric, value);
    fflush(stdout);
}

static void begin(size_t count, uint64_t note_mask)
{
    struct notes notes = sink.notes;
    if (notes.end == NULL)
        notes_init(&notes);
    notes.count = 0;
    notes.batch = note_mask + 1;
    memset(&sink, 0, sizeof sink);
    sink.notes = notes;
    sink.note_mask = note_mask;
    for (size_t i = 0; i < PRODUCERS; i++)
        producers[i] = (struct producer){&sink, i, 0, 0, CAPACITY / count};
}

static pid_t start(const struct queue_subject *subject, size_t count, uint64_t note_mask)
{
    begin(count, note_mask);
    return subject->open(queue_callback, &sink);
}

static void await(const struct queue_subject *subject, const struct producer *it)
{
    double stuck = now_ns() + STUCK_NS;
    while (__atomic_load_n(&sink.next[it->index], __ATOMIC_ACQUIRE) != it->posted) {
        if (now_ns() > stuck)
            bench_die("%s: an event does not arrive", subject->name);
        queue_pause();
    }
}

/* Ends the slice; how many events were lost. */
static uint64_t finish(const struct queue_subject *subject)
{
    uint64_t posted = 0, sum = 0;
    subject->close();
    for (size_t i = 0; i < PRODUCERS; i++) {
        posted += producers[i].posted;
        sum += producers[i].sum;
    }
    if (sink.late != 0 || sink.calls > posted)
        bench_die("%s: a producer's events came out of order, or twice", subject->name);
    if (sink.calls == posted && (sink.sum != sum || sink.missing != 0))
        bench_die("%s: payloads were not what was posted", subject->name);
    return posted - sink.calls;
}

static void finish_complete(const struct queue_subject *subject)
{
    uint64_t lost = finish(subject);
    if (lost != 0)
        bench_die("%s: %zu events were lost", subject->name, (size_t)lost);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct rate saturated_slice(const struct queue_subject *subject, double ms)
{
    static struct notes posts;
    struct producer *it = &producers[0];
    if (posts.end == NULL)
        notes_init(&posts);
    cpus_pin(start(subject, 1, 63), 1);
    double from = now_ns(), now = from;
    for (; now < from + WARM_UP_NS; now = now_ns())
        subject->post(it, 32);
    size_t batch = 1 + (size_t)((double)it->posted / (now - from) * BATCH_NS);
    double until = now + ms * 1e6;
    posts.count = 0;
    posts.batch = batch;
    notes_add(&posts, now);
    while (now < until && posts.count < NOTES_MAX) {
        subject->post(it, batch);
        now = now_ns();
        notes_add(&posts, now);
    }
    finish_complete(subject);
    const struct notes *const both[] = {&sink.notes, &posts};
    return notes_rate(both, 2, 1);
}

static struct {
    _Alignas(128) uint64_t there;
    _Alignas(128) uint64_t back;
} ball;

static void *play_back(void *turns)
{
    cpus_pin(0, 1);
    for (uint64_t turn = 1; turn <= *(uint64_t *)turns; turn++) {
        while (__atomic_load_n(&ball.there, __ATOMIC_ACQUIRE) != turn)
            queue_pause();
        __atomic_store_n(&ball.back, turn, __ATOMIC_RELEASE);
    }
    return NULL;
}

/* What lets the two CPUs hear from each other: they may share a core, or only the outermost cache. */
static void between_cpus(void)
{
    enum { PART = 100, PARTS = 20 };
    uint64_t turns = PART * PARTS;
    double took[PARTS];
    pthread_t thread;
    ball.there = ball.back = 0;
    if (pthread_create(&thread, NULL, play_back, &turns) != 0)
        bench_die("cannot start a thread");
    for (uint64_t turn = 1, part = 0; part < PARTS; part++) {
        double from = now_ns();
        for (size_t i = 0; i < PART; i++, turn++) {
            __atomic_store_n(&ball.there, turn, __ATOMIC_RELEASE);
            while (__atomic_load_n(&ball.back, __ATOMIC_ACQUIRE) != turn)
                queue_pause();
        }
        took[part] = (now_ns() - from) / PART;
    }
    pthread_join(thread, NULL);
    qsort(took, PARTS, sizeof *took, compare);
    printf("q1\tround trip\tns\t%.6g\n", took[PARTS / 2]);
}

/* One producer that never waits unless the queue is full; the rate is the consumer's. */
static void saturated(const struct queue_plan *plan)
{
    between_cpus();
    for EACH(plan, s) {
        struct rate rate = {0, 0, 0};
        for (int tries = 0; tries < 5 && rate.good == 0; tries++)
            rate = saturated_slice(*s, plan->ms);
        if (rate.good > 0) {
            emit("q1", *s, "ns", rate.ns);
            emit("q1", *s, "good", rate.good);
        }
    }
}

static int open_of_thread(pid_t thread, const char *file)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/%s", (int)thread, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        bench_die("cannot open %s", path);
    return fd;
}

static void await_sleep(const struct queue_subject *subject, int stat)
{
    for (double stuck = now_ns() + STUCK_NS; now_ns() < stuck;) {
        char text[256];
        ssize_t length = pread(stat, text, sizeof text - 1, 0);
        text[length > 0 ? length : 0] = '\0';
        const char *state = strrchr(text, ')');
        if (state != NULL && state[1] == ' ' && state[2] == 'S')
            return;
    }
    bench_die("%s: the consumer does not sleep", subject->name);
}

static void latency_slice(const struct queue_subject *subject)
{
    static double took[WARM_UP + SAMPLES];
    struct producer *it = &producers[0];
    pid_t consumer = start(subject, 1, 0);
    int stat = open_of_thread(consumer, "stat");
    cpus_pin(consumer, 1);
    for (size_t i = 0; i < WARM_UP + SAMPLES; i++) {
        await_sleep(subject, stat);
        for (double until = now_ns() + ASLEEP_NS; now_ns() < until;)
            queue_pause();
        took[i] = -now_ns();
        subject->post(it, 1);
        await(subject, it);
        took[i] += sink.notes.end[i];
    }
    close(stat);
    finish_complete(subject);
    qsort(took + WARM_UP, SAMPLES, sizeof *took, compare);
    emit("q2", subject, "ns", took[WARM_UP + SAMPLES / 2]);
    emit("q2", subject, "p90_ns", took[WARM_UP + SAMPLES * 9 / 10]);
    emit("q2", subject, "samples", SAMPLES);
}

/* From before the post to the callback, one event at a time, each to a consumer that sleeps. */
static void latency(const struct queue_plan *plan)
{
    for (int i = 0; i < 3; i++)
        for EACH(plan, s)
            latency_slice(*s);
}

static struct {
    const struct queue_subject *subject;
    pthread_barrier_t begin;
    double ms;
} four;

static void *produce(void *producer)
{
    cpus_release(0);
    pthread_barrier_wait(&four.begin);
    for (double until = now_ns() + four.ms * 1e6; now_ns() < until;)
        four.subject->post(producer, BATCH);
    return NULL;
}

/* More threads than CPUs, which the scheduler moves as it likes: who took a CPU away cannot be told,
 * so all the time counts. */
static void four_producers(const struct queue_plan *plan)
{
    pthread_barrier_init(&four.begin, NULL, PRODUCERS + 1);
    four.ms = plan->ms;
    for EACH(plan, s) {
        pthread_t threads[PRODUCERS];
        uint64_t posted = 0;
        four.subject = *s;
        cpus_release(start(*s, PRODUCERS, 63));
        for (size_t i = 0; i < PRODUCERS; i++)
            if (pthread_create(&threads[i], NULL, produce, &producers[i]) != 0)
                bench_die("cannot start a thread");
        pthread_barrier_wait(&four.begin);
        double from = now_ns();
        for (size_t i = 0; i < PRODUCERS; i++)
            pthread_join(threads[i], NULL);
        uint64_t lost = finish(*s);
        double took = now_ns() - from;
        for (size_t i = 0; i < PRODUCERS; i++)
            posted += producers[i].posted;
        emit("q3", *s, "ns", took / (double)posted);
        emit("q3", *s, "posted", (double)posted);
        emit("q3", *s, "lost", (double)lost);
    }
    pthread_barrier_destroy(&four.begin);
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double sleeps(int status)
{
    char text[4096];
    ssize_t length = pread(status, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    const char *found = strstr(text, "\nvoluntary_ctxt_switches:");
    if (found == NULL)
        bench_die("/proc does not tell how often a thread slept");
    return strtod(strchr(found, ':') + 1, NULL);
}

/* The process's CPU time and how often the consumer woke, in a second in which nothing is posted. */
static void idle(const struct queue_plan *plan)
{
    for EACH(plan, s) {
        struct producer *it = &producers[0];
        pid_t consumer = start(*s, 1, 63);
        int stat = open_of_thread(consumer, "stat"), status = open_of_thread(consumer, "status");
        for (size_t i = 0; i < BATCH; i++) {
            (*s)->post(it, 1);
            await(*s, it);
        }
        struct timespec settle = {0, 20000000}, second = {IDLE_NS / 1000000000, IDLE_NS % 1000000000};
        nanosleep(&settle, NULL);
        await_sleep(*s, stat);
        double slept = sleeps(status), used = cpu_ns();
        nanosleep(&second, NULL);
        used = cpu_ns() - used;
        slept = sleeps(status) - slept;
        close(stat);
        close(status);
        finish_complete(*s);
        emit("q4", *s, "cpu_us", used / 1e3);
        emit("q4", *s, "wakes", slept);
    }
}

void queue_count(const struct queue_subject *subject, size_t events)
{
    if (subject->consume == NULL)
        bench_die("%s needs a thread that consumes", subject->name);
    begin(1, UINT64_MAX);
    subject->prepare(queue_callback, &sink);
    for (; producers[0].posted < events; subject->consume())
        subject->post(&producers[0], BATCH);
    if (sink.sum != producers[0].sum)
        bench_die("%s: payloads were not what was posted", subject->name);
}

void queue_workload(const char *name, const struct queue_plan *plan)
{
    static const struct {
        const char *name;
        void (*run)(const struct queue_plan *);
    } all[] = {{"saturated", saturated}, {"latency", latency}, {"four", four_producers}, {"idle", idle}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(name, all[i].name) != 0)
            continue;
        cpus_pin(0, 0);
        for (unsigned round = 0; round < plan->rounds; round++)
            all[i].run(plan);
        return;
    }
    bench_die("no workload %s", name);
}
