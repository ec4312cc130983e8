/* The queues' benchmark; scripts/bench calls it.
 *   bench-queues saturated|latency|four|idle SUBJECTS MS ROUNDS
 *   bench-queues count SUBJECT EVENTS */
#include <stdlib.h>
#include <string.h>

#include "queue.h"

static const struct queue_subject *find(const char *name)
{
    for (const struct queue_subject *const *it = queue_subjects; *it != NULL; it++)
        if (strcmp((*it)->name, name) == 0)
            return *it;
    bench_die("no subject named %s", name);
}

int main(int argc, char **argv)
{
    static struct queue_plan plan;
    size_t n = 0;
    if (argc == 4 && strcmp(argv[1], "count") == 0) {
        queue_count(find(argv[2]), strtoull(argv[3], NULL, 10));
        return 0;
    }
    if (argc != 5)
        bench_die("usage: bench-queues saturated|latency|four|idle SUBJECTS MS ROUNDS");
    for (char *name = strtok(argv[2], ","); name != NULL; name = strtok(NULL, ",")) {
        if (n + 1 == sizeof plan.subjects / sizeof *plan.subjects)
            bench_die("too many subjects");
        plan.subjects[n++] = find(name);
    }
    plan.ms = strtod(argv[3], NULL);
    plan.rounds = (unsigned)strtoul(argv[4], NULL, 10);
    queue_workload(argv[1], &plan);
    return 0;
}
