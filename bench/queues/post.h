/* The posting loop, once for all subjects. Include it after defining
 *   SUBJECT         the subject's C name, SUBJECT_TEXT its printed name
 *   S_POST(event)   0 when it was accepted, above 0 when the queue is full
 *   S_OPEN(fn, user_data), S_LOOP(), S_SHUT()  prepare, consume until the end, ask for the end
 *   S_FREE()        after the consumer has ended
 *   S_UNBOUNDED     if the queue never is full: producers bound what waits in it
 *   S_START, S_JOIN optional: instead of a thread that runs S_LOOP
 *   S_CONSUME       optional: consumes what is there
 * It undefines them, so that one file can define several subjects. */
#include "queue.h"

#define POST_GLUE2(a, b) a##_##b
#define POST_GLUE(a, b) POST_GLUE2(a, b)
#define POST(name) POST_GLUE(SUBJECT, name)

static void POST(post_events)(struct producer *from, size_t n)
{
    uint64_t number = from->posted, sum = from->sum;
#ifdef S_UNBOUNDED
    const uint64_t *next = &from->sink->next[from->index];
    uint64_t until = __atomic_load_n(next, __ATOMIC_ACQUIRE) + from->limit;
#endif
    for (size_t i = 0; i < n; i++) {
        struct event event = {from->index, number, number * 3 + from->index};
        int status;
#ifdef S_UNBOUNDED
        for (unsigned tries = 0; number >= until; tries++) {
            until = __atomic_load_n(next, __ATOMIC_ACQUIRE) + from->limit;
            if (number >= until)
                queue_back_off(tries);
        }
#endif
        for (unsigned tries = 0; (status = S_POST(&event)) != 0; tries++) {
            if (status < 0)
                bench_die("%s: post failed", SUBJECT_TEXT);
            queue_back_off(tries);
        }
        number++;
        sum += event.value;
    }
    from->posted = number;
    from->sum = sum;
}

#ifndef S_START
#define S_START() consumer_start(S_LOOP)
#define S_JOIN() consumer_join()
#endif

static pid_t POST(start_slice)(bench_fn fn, void *user_data)
{
    S_OPEN(fn, user_data);
    return S_START();
}

static void POST(end_slice)(void)
{
    S_SHUT();
    S_JOIN();
    S_FREE();
}

#ifdef S_CONSUME
#define POST_PREPARE S_OPEN
#else
#define POST_PREPARE NULL
#define S_CONSUME NULL
#endif

const struct queue_subject POST_GLUE(queue_subject, SUBJECT) = {
    SUBJECT_TEXT, POST(start_slice), POST(post_events), POST(end_slice), POST_PREPARE, S_CONSUME,
};

#undef POST
#undef POST_GLUE
#undef POST_GLUE2
#undef POST_PREPARE
#undef S_CONSUME
#undef S_START
#undef S_JOIN
#undef S_UNBOUNDED
#undef S_FREE
#undef S_SHUT
#undef S_LOOP
#undef S_OPEN
#undef S_POST
#undef SUBJECT
#undef SUBJECT_TEXT
