/* The timed loops, once for all subjects. Include it after defining
 *   SUBJECT                            the subject's C name, SUBJECT_TEXT its printed name
 *   S_CALL(handle, arg, out)           0 when it called
 *   S_ADD(fn, user_data, destroy, out) 0 when it registered
 *   S_REMOVE(handle)                   0 when it unregistered
 *   S_RETAIN(handle), S_RELEASE(handle)  optional
 *   S_REMOVE_ALL()                       optional: 0 when all that it registered has ended
 *   S_THREAD_ENTER, S_THREAD_LEAVE, S_FLUSH  optional: function names
 * It undefines them, so that one file can define several subjects. */
#include "subject.h"

#define LOOP_GLUE2(a, b) a##_##b
#define LOOP_GLUE(a, b) LOOP_GLUE2(a, b)
#define LOOP(name) LOOP_GLUE(SUBJECT, loop_##name)

static uint64_t LOOP(add)(bench_fn fn, void *user_data, bench_destroy_fn destroy)
{
    uint64_t handle = 0;
    if (S_ADD(fn, user_data, destroy, &handle) != 0)
        bench_die("%s: register failed", SUBJECT_TEXT);
    return handle;
}

static void LOOP(remove)(uint64_t handle)
{
    if (S_REMOVE(handle) != 0)
        bench_die("%s: unregister failed", SUBJECT_TEXT);
}

static void LOOP(add_each)(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *handles,
                           size_t n)
{
    int bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= S_ADD(fn, user_data, destroy, &handles[i]);
    if (bad)
        bench_die("%s: register failed", SUBJECT_TEXT);
}

static void LOOP(remove_each)(const uint64_t *handles, size_t n)
{
    int bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= S_REMOVE(handles[i]);
    if (bad)
        bench_die("%s: unregister failed", SUBJECT_TEXT);
}

static intptr_t LOOP(call_same)(uint64_t handle, size_t n)
{
    uintptr_t sum = 0;
    intptr_t result = 0;
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= S_CALL(handle, (void *)i, &result);
        sum += (uintptr_t)result;
    }
    if (bad)
        bench_die("%s: call failed", SUBJECT_TEXT);
    return (intptr_t)sum;
}

static intptr_t LOOP(call_each)(const uint64_t *handles, size_t n)
{
    uintptr_t sum = 0;
    intptr_t result = 0;
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= S_CALL(handles[i], (void *)i, &result);
        sum += (uintptr_t)result;
    }
    if (bad)
        bench_die("%s: call failed", SUBJECT_TEXT);
    return (intptr_t)sum;
}

static void LOOP(pair)(void *user_data, size_t n)
{
    uint64_t handle = 0;
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= S_ADD(bench_callback, user_data, bench_destroy, &handle);
        bad |= S_REMOVE(handle);
    }
    if (bad)
        bench_die("%s: register or unregister failed", SUBJECT_TEXT);
}

#ifdef S_RETAIN
static void LOOP(retain_release)(uint64_t handle, size_t n)
{
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= S_RETAIN(handle);
        bad |= S_RELEASE(handle);
    }
    if (bad)
        bench_die("%s: retain or release failed", SUBJECT_TEXT);
}
#define LOOP_RETAIN LOOP(retain_release)
#else
#define LOOP_RETAIN NULL
#endif

#ifdef S_REMOVE_ALL
static void LOOP(remove_all)(void)
{
    if (S_REMOVE_ALL() != 0)
        bench_die("%s: not all could be ended", SUBJECT_TEXT);
}
#define LOOP_REMOVE_ALL LOOP(remove_all)
#else
#define LOOP_REMOVE_ALL NULL
#endif

#ifndef S_THREAD_ENTER
#define S_THREAD_ENTER NULL
#endif
#ifndef S_THREAD_LEAVE
#define S_THREAD_LEAVE NULL
#endif
#ifndef S_FLUSH
#define S_FLUSH NULL
#endif

#ifdef __cplusplus
extern "C"
#endif
    const struct subject LOOP_GLUE(subject, SUBJECT);
const struct subject LOOP_GLUE(subject, SUBJECT) = {
    SUBJECT_TEXT,   S_THREAD_ENTER, S_THREAD_LEAVE,    S_FLUSH,         LOOP(add),       LOOP(remove),
    LOOP(add_each), LOOP(remove_each), LOOP(call_same), LOOP(call_each), LOOP(pair), LOOP_RETAIN,
    LOOP_REMOVE_ALL,
};

#undef LOOP_REMOVE_ALL
#undef LOOP_RETAIN
#undef LOOP
#undef LOOP_GLUE
#undef LOOP_GLUE2
#undef S_THREAD_ENTER
#undef S_THREAD_LEAVE
#undef S_FLUSH
#undef S_REMOVE_ALL
#undef S_RETAIN
#undef S_RELEASE
#undef S_REMOVE
#undef S_ADD
#undef S_CALL
#undef SUBJECT
#undef SUBJECT_TEXT
