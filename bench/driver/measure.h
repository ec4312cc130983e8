/* Timing on one or two pinned threads, with the time in which the machine was taken away left out. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "notes.h"

/* Does n operations. */
typedef void (*work_fn)(void *context, size_t n);

/* Starts the second thread, which sleeps unless it measures: glibc drops locked instructions from
 * processes of one thread. Pins the caller to the first CPU that it may use and the other to the
 * second. `enter` runs on both. */
void measure_start(void (*enter)(void));

/* Runs `leave` on both threads. */
void measure_end(void (*leave)(void));

enum { ON_FIRST = 1, ON_SECOND = 2, ON_BOTH = 3 };

/* How many operations take about 10 microseconds. */
size_t measure_calibrate(work_fn work, void *context);

/* Runs work for `ms` milliseconds on the threads of the mask `on`, each with its own context. */
struct rate measure(work_fn work, void *const contexts[2], size_t batch, unsigned on, double ms);

/* Runs work once on the second thread while the caller runs `here`, and waits for both. */
void measure_beside(void (*there)(void *), void (*here)(void *), void *context);

#endif
