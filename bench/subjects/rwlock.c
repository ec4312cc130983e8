/* What an event loop's authors write themselves: keys and events in a hash table (uthash) under a
 * read-write lock. Who detaches frees, so the read lock is held during the callback: its cheapest safe
 * form (and the callback must not detach anything). */
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <uthash.h>

#include "keys.h"
#include "subject.h"

struct object {
    uintptr_t key;
    uint32_t event;
    bench_fn fn;
    void *user_data;
    bench_destroy_fn destroy;
    UT_hash_handle hh;
};

/* Both numbers, without the padding after them. */
#define KEY_LENGTH (offsetof(struct object, event) + sizeof(uint32_t))

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct object *table;
static uint32_t last;

static inline struct object *find(uint64_t handle)
{
    struct object wanted, *object;
    wanted.key = key_of(handle);
    wanted.event = event_of(handle);
    HASH_FIND(hh, table, &wanted.key, KEY_LENGTH, object);
    return object;
}

static int rwlock_call(uint64_t handle, void *arg, intptr_t *out)
{
    pthread_rwlock_rdlock(&lock);
    struct object *object = find(handle);
    if (object != NULL)
        *out = object->fn(object->user_data, arg);
    pthread_rwlock_unlock(&lock);
    return object != NULL ? 0 : -1;
}

static int rwlock_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    struct object *object = malloc(sizeof *object);
    if (object == NULL)
        return -1;
    *out = key_next(&last);
    object->key = key_of(*out);
    object->event = event_of(*out);
    object->fn = fn;
    object->user_data = user_data;
    object->destroy = destroy;
    pthread_rwlock_wrlock(&lock);
    struct object *other = find(*out);
    if (other == NULL)
        HASH_ADD(hh, table, key, KEY_LENGTH, object);
    pthread_rwlock_unlock(&lock);
    if (other != NULL)
        free(object);
    return other == NULL ? 0 : -1;
}

static int rwlock_remove(uint64_t handle)
{
    pthread_rwlock_wrlock(&lock);
    struct object *object = find(handle);
    if (object != NULL)
        HASH_DELETE(hh, table, object);
    pthread_rwlock_unlock(&lock);
    if (object == NULL)
        return -1;
    object->destroy(object->user_data);
    free(object);
    return 0;
}

#define SUBJECT rwlock
#define SUBJECT_TEXT "rwlock+uthash"
#define S_CALL rwlock_call
#define S_ADD rwlock_add
#define S_REMOVE rwlock_remove
#include "loops.h"
