/* A plain indirect call through an object on the heap: nothing checked, nothing protected. Its
 * "retain" is an atomic counter beside the object. */
#include <stdlib.h>

#include "subject.h"

struct object {
    bench_fn fn;
    void *user_data;
    bench_destroy_fn destroy;
    uint64_t count;
};

static inline int raw_call(uint64_t handle, void *arg, intptr_t *out)
{
    struct object *object = (struct object *)(uintptr_t)handle;
    *out = object->fn(object->user_data, arg);
    return 0;
}

static inline int raw_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    struct object *object = malloc(sizeof *object);
    if (object == NULL)
        return -1;
    *object = (struct object){fn, user_data, destroy, 1};
    *out = (uint64_t)(uintptr_t)object;
    return 0;
}

static inline int raw_remove(uint64_t handle)
{
    struct object *object = (struct object *)(uintptr_t)handle;
    object->destroy(object->user_data);
    free(object);
    return 0;
}

static inline int raw_retain(uint64_t handle)
{
    __atomic_fetch_add(&((struct object *)(uintptr_t)handle)->count, 1, __ATOMIC_RELAXED);
    return 0;
}

static inline int raw_release(uint64_t handle)
{
    return __atomic_sub_fetch(&((struct object *)(uintptr_t)handle)->count, 1, __ATOMIC_ACQ_REL) == 0;
}

#define SUBJECT raw
#define SUBJECT_TEXT "raw"
#define S_CALL raw_call
#define S_ADD raw_add
#define S_REMOVE raw_remove
#define S_RETAIN raw_retain
#define S_RELEASE raw_release
#include "loops.h"
