/* What the benchmark asks of every way to keep and call a callback ("subject"). Each file in
 * subjects/ implements it by defining a few macros and including loops.h, so the loops that are
 * timed are the same text for all. */
#ifndef BENCH_SUBJECT_H
#define BENCH_SUBJECT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef intptr_t (*bench_fn)(void *user_data, void *arg);
typedef void (*bench_destroy_fn)(void *user_data);

struct subject {
    const char *name;
    /* Prepare the calling thread, undo that, and wait until every destroy that is due has run. May be
     * NULL. */
    void (*thread_enter)(void);
    void (*thread_leave)(void);
    void (*flush)(void);
    uint64_t (*add)(bench_fn fn, void *user_data, bench_destroy_fn destroy);
    void (*remove)(uint64_t handle);
    void (*add_each)(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *handles, size_t n);
    void (*remove_each)(const uint64_t *handles, size_t n);
    /* Call with the arguments 0 to n-1 and return the sum of the results. */
    intptr_t (*call_same)(uint64_t handle, size_t n);
    intptr_t (*call_each)(const uint64_t *handles, size_t n);
    /* Register and unregister n times. */
    void (*pair)(void *user_data, size_t n);
    /* NULL where the subject has no counted reference. */
    void (*retain_release)(uint64_t handle, size_t n);
    /* End all that were added and not removed. NULL where that is one remove after the other. */
    void (*remove_all)(void);
};

/* In another translation unit, so that no subject's compiler can see through the pointer. */
intptr_t bench_callback(void *user_data, void *arg); /* user_data + arg */
void bench_destroy(void *user_data);                 /* counts in *(uint64_t *)user_data */
void bench_destroy_shared(void *user_data);          /* the same, from any thread */

/* The same for what a function pointer carries: *(int *)user_data + number, and 1000 + number. */
int bench_carried(void *user_data, int number, void *pointer);
int bench_plain(int number, void *pointer);

void bench_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2), cold));

/* All subjects, in the order in which they are measured; ends with NULL. */
extern const struct subject *const bench_subjects[];
const struct subject *bench_find_subject(const char *name);

#ifdef __cplusplus
}
#endif
#endif
