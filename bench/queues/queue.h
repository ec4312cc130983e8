/* What the benchmark asks of every way to bring events into the thread that consumes them. */
#ifndef BENCH_QUEUE_H
#define BENCH_QUEUE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "notes.h"
#include "subject.h"

#define CAPACITY 1024 /* events: of a bounded queue, and of what producers let wait in another */
#define PRODUCERS 4   /* at most; a divisor of CAPACITY */

/* The payload: 24 bytes, copied by the queue. */
struct event {
    uint64_t producer, number, value;
};

/* Where the consumer's callback counts; it is the user data. Alone on its cache lines. */
struct sink {
    _Alignas(128) uint64_t next[PRODUCERS]; /* number of each producer's next event; read by all */
    _Alignas(128) uint64_t sum;
    uint64_t calls, missing, late; /* events: all, left out, and those that came after a later one */
    uint64_t destroyed;            /* callbacks, by the subjects that have that */
    uint64_t note_mask; /* notes each (mask + 1)-th event */
    struct notes notes;
};

struct producer {
    _Alignas(128) struct sink *sink;
    uint64_t index, posted, sum;
    uint64_t limit; /* of its events that may wait in a queue without bounds */
};

struct queue_subject {
    const char *name;
    /* Starts the consumer, which calls fn(user_data, payload) for each event; its thread. */
    pid_t (*open)(bench_fn fn, void *user_data);
    /* Posts n events; tries again when the queue is full. */
    void (*post)(struct producer *from, size_t n);
    /* After the last post: returns when everything was consumed and the consumer has ended. */
    void (*close)(void);
    /* For counting instructions on one thread: prepare without a consumer, and consume what is there.
     * NULL where that cannot be. */
    void (*prepare)(bench_fn fn, void *user_data);
    void (*consume)(void);
};

/* In another translation unit, as bench_callback. */
intptr_t queue_callback(void *user_data, void *payload);
void queue_destroy(void *user_data);

/* Waits, longer with each try of the same event. */
void queue_back_off(unsigned tries);

/* For subjects: runs `loop` in a thread, and waits for its end. */
pid_t consumer_start(void (*loop)(void));
void consumer_join(void);

static inline void queue_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

extern const struct queue_subject *const queue_subjects[]; /* ends with NULL */

/* Prints lines of "workload TAB subject TAB metric TAB value". */
struct queue_plan {
    const struct queue_subject *subjects[16]; /* ends with NULL */
    double ms;                                /* length of a slice */
    unsigned rounds;                          /* slices of each subject */
};
void queue_workload(const char *name, const struct queue_plan *plan); /* saturated, latency, four, idle */
void queue_count(const struct queue_subject *subject, size_t events);

#endif
