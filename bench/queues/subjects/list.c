/* All subjects but Node's, which needs its own process; a new one is declared and listed here. */
#include "queue.h"

#define EACH_SUBJECT(X)                                                                            \
    X(callbridge) X(callbridge_poll) X(ring) X(ring_timed)                                         \
    X(crossbeam) X(uv) X(uv_list) X(gasyncqueue) X(ginvoke) X(eventfd)

#define DECLARE(name) extern const struct queue_subject queue_subject_##name;
EACH_SUBJECT(DECLARE)

#define LIST(name) &queue_subject_##name,
const struct queue_subject *const queue_subjects[] = {EACH_SUBJECT(LIST) NULL};
