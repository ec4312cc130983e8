/* libpltout.so: what a call through a shared library costs at least. No protection whatever: the
 * handle is the object's address. */
#include "pltout.h"

#include <stdlib.h>

struct object {
    intptr_t (*fn)(void *, void *);
    void *user_data;
    void (*destroy)(void *);
};

int32_t pltout_register(intptr_t (*fn)(void *, void *), void *user_data, void (*destroy)(void *),
                        uint64_t *out_handle)
{
    struct object *object = malloc(sizeof *object);
    if (object == NULL)
        return -1;
    *object = (struct object){fn, user_data, destroy};
    *out_handle = (uint64_t)(uintptr_t)object;
    return 0;
}

int32_t pltout_unregister(uint64_t handle)
{
    struct object *object = (struct object *)(uintptr_t)handle;
    object->destroy(object->user_data);
    free(object);
    return 0;
}

int32_t pltout_call(uint64_t handle, void *arg, intptr_t *out_result)
{
    struct object *object = (struct object *)(uintptr_t)handle;
    *out_result = object->fn(object->user_data, arg);
    return 0;
}
