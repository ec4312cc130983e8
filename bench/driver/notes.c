#include "notes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "subject.h"

#define GAP_NS 5e5
#define WINDOW_NS 1e6
#define MAX_WINDOWS 4096
#define MIN_GOOD 4

double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

void notes_init(struct notes *notes)
{
    notes->count = 0;
    notes->end = malloc(NOTES_MAX * sizeof *notes->end);
    if (notes->end == NULL)
        bench_die("out of memory");
    memset(notes->end, 0, NOTES_MAX * sizeof *notes->end);
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
    return batches * (double)it->batch;
}

struct rate notes_rate(const struct notes *const *threads, size_t count, size_t counted)
{
    static bool bad[MAX_WINDOWS + 1];
    double from = 0, to = 1e300;
    for (size_t t = 0; t < count; t++) {
        if (threads[t]->count == 0)
            return (struct rate){0, 0, 0};
        double first = threads[t]->end[0], last = threads[t]->end[threads[t]->count - 1];
        from = first > from ? first : from;
        to = last < to ? last : to;
    }
    size_t windows = (size_t)((to - from) / WINDOW_NS), good = 0;
    if (to <= from || windows == 0)
        return (struct rate){0, 0, 0};
    windows = windows < MAX_WINDOWS ? windows : MAX_WINDOWS;
    memset(bad, 0, sizeof bad);
    for (size_t t = 0; t < count; t++)
        mark_gaps(threads[t], from, bad, windows);
    for (size_t w = 0; w < windows; w++)
        good += !bad[w];
    if (good < MIN_GOOD)
        return (struct rate){0, 0, 0};
    double operations = 0, time = (double)good * WINDOW_NS;
    for (size_t t = 0; t < counted; t++)
        operations += count_good(threads[t], from, bad, windows);
    return (struct rate){
        .ns = time * (double)counted / operations,
        .per_us = operations / time * 1e3,
        .good = (double)good / (double)windows,
    };
}
