/* The usual do-it-yourself registry: numbers in a hash table (uthash) under a mutex. The lock is
 * held during the callback, which is its cheapest safe form (and forbids the callback to use it). */
#include <pthread.h>
#include <stdlib.h>
#include <uthash.h>

#include "subject.h"

struct object {
    uint64_t handle;
    bench_fn fn;
    void *user_data;
    bench_destroy_fn destroy;
    uint64_t count;
    UT_hash_handle hh;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct object *table;
static uint64_t last;

static inline struct object *find(uint64_t handle)
{
    struct object *object;
    HASH_FIND(hh, table, &handle, sizeof handle, object);
    return object;
}

static int uthash_call(uint64_t handle, void *arg, intptr_t *out)
{
    pthread_mutex_lock(&lock);
    struct object *object = find(handle);
    if (object != NULL)
        *out = object->fn(object->user_data, arg);
    pthread_mutex_unlock(&lock);
    return object != NULL ? 0 : -1;
}

static int uthash_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    struct object *object = malloc(sizeof *object);
    if (object == NULL)
        return -1;
    object->fn = fn;
    object->user_data = user_data;
    object->destroy = destroy;
    object->count = 1;
    pthread_mutex_lock(&lock);
    *out = object->handle = ++last;
    HASH_ADD(hh, table, handle, sizeof object->handle, object);
    pthread_mutex_unlock(&lock);
    return 0;
}

static int uthash_retain(uint64_t handle)
{
    pthread_mutex_lock(&lock);
    struct object *object = find(handle);
    if (object != NULL)
        object->count++;
    pthread_mutex_unlock(&lock);
    return object != NULL ? 0 : -1;
}

static int uthash_release(uint64_t handle)
{
    pthread_mutex_lock(&lock);
    struct object *object = find(handle);
    int end = object != NULL && --object->count == 0;
    if (end)
        HASH_DELETE(hh, table, object);
    pthread_mutex_unlock(&lock);
    if (object == NULL)
        return -1;
    if (end) {
        object->destroy(object->user_data);
        free(object);
    }
    return 0;
}

#define SUBJECT uthash
#define SUBJECT_TEXT "mutex+uthash"
#define S_CALL uthash_call
#define S_ADD uthash_add
#define S_REMOVE uthash_release
#define S_RETAIN uthash_retain
#define S_RELEASE uthash_release
#include "loops.h"
