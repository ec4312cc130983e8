/* Many live callbacks: the memory that each takes, and calls in random order. One subject a process,
 * so that none inherits another's heap. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure.h"
#include "workloads.h"

double resident_bytes(void)
{
    /* smaps_rollup is exact; statm lags by up to 63 pages a thread. */
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    double kilobytes = -1;
    while (file != NULL && kilobytes < 0 && fgets(line, sizeof line, file) != NULL)
        sscanf(line, "Rss: %lf kB", &kilobytes);
    if (kilobytes < 0)
        bench_die("cannot read /proc/self/smaps_rollup");
    fclose(file);
    return kilobytes * 1024;
}

void workload_million(const struct plan *plan)
{
    static struct counter counter;
    const struct subject *subject = plan->subjects[0];
    size_t count = plan->count;
    uint64_t *handles = malloc(count * sizeof *handles);
    if (handles == NULL)
        bench_die("out of memory");
    memset(handles, 0xff, count * sizeof *handles);

    /* One before, so that what a subject needs once is not counted. */
    uint64_t one = subject->add(bench_callback, &counter, bench_destroy);
    double before = resident_bytes(), from = now_ns();
    subject->add_each(bench_callback, &counter, bench_destroy, handles, count);
    double added = now_ns();
    emit("w4", subject, "bytes", (resident_bytes() - before) / (double)count);
    emit("w4", subject, "register_ns", (added - from) / (double)count);

    shuffle(handles, count);
    struct calls calls = {subject, handles, count, 0, &counter};
    calls_work(&calls, count); /* the first call of each is not what is asked */
    size_t batch = measure_calibrate(calls_work, &calls);
    for (unsigned round = 0; round < plan->rounds; round++) {
        struct rate rate = measure(calls_work, (void *[]){&calls, NULL}, batch, ON_FIRST, plan->ms);
        if (rate.good > 0)
            emit("w1m", subject, "ns", rate.ns);
    }
    from = now_ns();
    subject->remove_each(handles, count);
    emit("w4", subject, "unregister_ns", (now_ns() - from) / (double)count);
    subject->remove(one);
    if (subject->flush != NULL)
        subject->flush();
    if (counter.destroyed != count + 1)
        bench_die("%s: not every callback was destroyed exactly once", subject->name);
    free(handles);
}
