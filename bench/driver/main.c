/* The benchmark's command line; scripts/bench calls it.
 *   bench calls|lives|reaper|keys|thunks SUBJECTS MS ROUNDS
 *   bench million|closing SUBJECT MS ROUNDS COUNT
 *   bench count SUBJECT call|turns|1k|pair|all|retain N
 *   bench syscalls SUBJECT
 *   bench list */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"
#include "workloads.h"

static struct plan plan;

static void enter_all(void)
{
    for (const struct subject *const *s = plan.subjects; *s != NULL; s++)
        if ((*s)->thread_enter != NULL)
            (*s)->thread_enter();
}

static void leave_all(void)
{
    for (const struct subject *const *s = plan.subjects; *s != NULL; s++)
        if ((*s)->thread_leave != NULL)
            (*s)->thread_leave();
}

static void run(const char *command, int argc, char **argv)
{
    if (strcmp(command, "syscalls") == 0) {
        workload_syscalls(&plan);
        return;
    }
    if (strcmp(command, "count") == 0 && argc == 5) {
        plan.count = strtoull(argv[4], NULL, 10);
        workload_count(&plan, argv[3]);
        return;
    }
    if (argc < 5)
        bench_die("%s: MS and ROUNDS are missing", command);
    plan.ms = strtod(argv[3], NULL);
    plan.rounds = (unsigned)strtoul(argv[4], NULL, 10);
    plan.count = argc > 5 ? strtoull(argv[5], NULL, 10) : 1;
    if (strcmp(command, "calls") == 0)
        workload_calls(&plan);
    else if (strcmp(command, "lives") == 0)
        workload_lives(&plan);
    else if (strcmp(command, "reaper") == 0)
        workload_reaper(&plan);
    else if (strcmp(command, "million") == 0)
        workload_million(&plan);
    else if (strcmp(command, "keys") == 0)
        workload_keys(&plan);
    else if (strcmp(command, "thunks") == 0)
        workload_thunks(&plan);
    else if (strcmp(command, "closing") == 0)
        workload_closing(&plan);
    else
        bench_die("no workload %s", command);
}

static void parse_subjects(char *names)
{
    size_t n = 0;
    for (char *name = strtok(names, ","); name != NULL; name = strtok(NULL, ",")) {
        if (n + 1 == sizeof plan.subjects / sizeof *plan.subjects)
            bench_die("too many subjects");
        plan.subjects[n++] = bench_find_subject(name);
    }
    if (n == 0)
        bench_die("no subject");
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "list") == 0) {
        for (const struct subject *const *s = bench_subjects; *s != NULL; s++)
            puts((*s)->name);
        return 0;
    }
    if (argc < 3)
        bench_die("usage: bench calls|lives|reaper|keys|thunks|million|closing|count|syscalls|list ...");
    parse_subjects(argv[2]);
    measure_start(enter_all);
    run(command, argc, argv);
    measure_end(leave_all);
    return 0;
}
