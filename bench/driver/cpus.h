/* Which CPU a thread runs on. */
#ifndef BENCH_CPUS_H
#define BENCH_CPUS_H

#include <sys/types.h>

/* Pins a thread (0: the caller) to the first, second ... CPU that the process may use. */
void cpus_pin(pid_t thread, unsigned which);

/* Lets it run on all of them again. */
void cpus_release(pid_t thread);

#endif
