/* All subjects; a new one is declared and listed here. */
#include <string.h>

#include "subject.h"

#define EACH_SUBJECT(X)                                                                            \
    X(raw) X(pltout)                                                                               \
    X(callbridge) X(callbridge_enter) X(callbridge_hold) X(callbridge_ptr) X(callbridge_wait)      \
    X(callbridge_thunk) X(scope) X(hook) X(key)                                                    \
    X(liburcu) X(arc) X(weakptr) X(sharded) X(uthash) X(dashmap) X(gclosure)                       \
    X(rwlock) X(dashmap_keys)

#define DECLARE(name) extern const struct subject subject_##name;
EACH_SUBJECT(DECLARE)

#define LIST(name) &subject_##name,
const struct subject *const bench_subjects[] = {EACH_SUBJECT(LIST) NULL};

const struct subject *bench_find_subject(const char *name)
{
    for (const struct subject *const *it = bench_subjects; *it != NULL; it++)
        if (strcmp((*it)->name, name) == 0)
            return *it;
    bench_die("no subject named %s", name);
}
