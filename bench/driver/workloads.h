/* What can be measured; each prints lines of "workload TAB subject TAB metric TAB value". */
#ifndef BENCH_WORKLOADS_H
#define BENCH_WORKLOADS_H

#include <stddef.h>
#include <stdint.h>

#include "subject.h"

struct plan {
    const struct subject *subjects[32]; /* ends with NULL */
    double ms;                          /* length of a slice */
    unsigned rounds;                    /* slices of each subject */
    size_t count;                       /* callbacks alive (million, closing), operations (count) */
};

/* A counter alone on its cache line: the user data of the callbacks of one thread. */
struct counter {
    _Alignas(128) uint64_t destroyed;
};

void workload_calls(const struct plan *plan);   /* w1, w1k, w2 */
void workload_lives(const struct plan *plan);   /* w3, w5 */
void workload_reaper(const struct plan *plan);  /* w3r */
void workload_million(const struct plan *plan); /* w1m, w4: one subject a process */
void workload_keys(const struct plan *plan);    /* w2d, w2h */
void workload_closing(const struct plan *plan); /* w6.COUNT: one subject a process */
void workload_thunks(const struct plan *plan);  /* t1, t2, t3, t4 */
void workload_count(const struct plan *plan, const char *operation);
void workload_syscalls(const struct plan *plan);

/* The pieces that several workloads use. */
struct calls {
    const struct subject *subject;
    uint64_t *handles;
    size_t count, at;
    void *user_data;
};
struct calls calls_new(const struct subject *subject, size_t count, struct counter *counter);
void calls_free(struct calls *calls, struct counter *counter); /* checks: each destroyed exactly once */
void calls_work(void *calls, size_t n); /* over all handles in turn; checks the results */
void same_work(void *calls, size_t n);  /* the first of them */
void shuffle(uint64_t *values, size_t n);

struct pairs {
    const struct subject *subject;
    struct counter *counter;
    uint64_t done;
};
void pairs_work(void *pairs, size_t n);
void pairs_check(const struct pairs *pairs); /* each destroyed exactly once */

struct reaped {
    double unregister_ns, register_ns, caller_ns;
    double good; /* share of the batches that counted */
    uint64_t unregistered;
};
/* Until `batches` were reaped or `ms` are over; `mark` (may be NULL) is told 0 after the warm-up and 1
 * before the end, on the reaping thread. */
struct reaped reap(const struct subject *subject, size_t batches, double ms, void (*mark)(int end));

/* Each thread alone, then both: one_ns, two_ns, scale. */
void both_threads(const char *workload, const struct subject *subject, void (*work)(void *, size_t),
                  void *const contexts[2], const struct plan *plan);

/* Resident memory of the process. */
double resident_bytes(void);

void emit(const char *workload, const struct subject *subject, const char *metric, double value);

#endif
