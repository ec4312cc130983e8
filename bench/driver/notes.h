/* When the batches of a thread's work ended, and which of that time counts. On a shared machine the
 * hypervisor takes a CPU away for milliseconds, and only the notes show it: a batch that took far
 * longer than it can. Time is cut into windows of 1 ms; a window that such a gap touches, of any of
 * the threads, does not count. */
#ifndef BENCH_NOTES_H
#define BENCH_NOTES_H

#include <stddef.h>

#define NOTES_MAX (1u << 18)

struct notes {
    double *end;  /* end[0] is the start of the first batch */
    size_t count; /* of end */
    size_t batch; /* operations in each */
};

struct rate {
    double ns;       /* per operation of one thread, mean of the threads that ran */
    double per_us;   /* operations of all threads per microsecond */
    double good;     /* share of the time that counted */
};

void notes_init(struct notes *notes);

static inline void notes_add(struct notes *notes, double at)
{
    if (notes->count < NOTES_MAX)
        notes->end[notes->count++] = at;
}

/* Over the time that all threads have notes of; the operations are those of the first `counted`. */
struct rate notes_rate(const struct notes *const *threads, size_t count, size_t counted);

double now_ns(void);

#endif
