#define _GNU_SOURCE
#include "cpus.h"

#include <pthread.h>
#include <sched.h>

#include "subject.h"

static cpu_set_t allowed;

/* Before the first thread is pinned. */
static void read_allowed(void)
{
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        bench_die("cannot read the CPU affinity");
}

static void know_allowed(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_allowed);
}

void cpus_pin(pid_t thread, unsigned which)
{
    know_allowed();
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        if (which-- == 0) {
            CPU_SET(cpu, &one);
            if (sched_setaffinity(thread, sizeof one, &one) != 0)
                bench_die("cannot pin a thread");
            return;
        }
    }
    bench_die("two CPUs are needed");
}

void cpus_release(pid_t thread)
{
    know_allowed();
    if (sched_setaffinity(thread, sizeof allowed, &allowed) != 0)
        bench_die("cannot let a thread run everywhere");
}
