/* liburcu, membarrier flavour: an array of pointers, objects freed after a grace period in batches
 * (defer_rcu), which is its cheapest end of a life. The handle is an index without generation, so a
 * stale one is not detected once the index is used again. */
#define URCU_INLINE_SMALL_FUNCTIONS
#define _LGPL_SOURCE
#include <stdlib.h>
#include <urcu/urcu-memb.h>
#include <urcu/defer.h>

#include "subject.h"

#define CAPACITY (1u << 21)

struct object {
    bench_fn fn;
    void *user_data;
    bench_destroy_fn destroy;
};

static struct object *objects[CAPACITY];
static uint32_t next_free[CAPACITY];
static uint32_t used = 1; /* index 0 ends a free list */
static __thread uint32_t free_head;

static void urcu_thread_enter(void)
{
    urcu_memb_register_thread();
    if (urcu_memb_defer_register_thread() != 0)
        bench_die("liburcu: cannot register the thread");
}

static void urcu_thread_leave(void)
{
    urcu_memb_defer_unregister_thread();
    urcu_memb_unregister_thread();
}

static void urcu_flush(void)
{
    urcu_memb_defer_barrier();
}

static void urcu_end(void *pointer)
{
    struct object *object = pointer;
    object->destroy(object->user_data);
    free(object);
}

static inline int urcu_call(uint64_t handle, void *arg, intptr_t *out)
{
    urcu_memb_read_lock();
    struct object *object = rcu_dereference(objects[handle]);
    if (object != NULL)
        *out = object->fn(object->user_data, arg);
    urcu_memb_read_unlock();
    return object != NULL ? 0 : -1;
}

static int urcu_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    struct object *object = malloc(sizeof *object);
    if (object == NULL)
        return -1;
    *object = (struct object){fn, user_data, destroy};
    uint32_t index = free_head;
    if (index != 0)
        free_head = next_free[index];
    else
        index = __atomic_fetch_add(&used, 1, __ATOMIC_RELAXED);
    if (index >= CAPACITY)
        bench_die("liburcu: out of indices");
    rcu_assign_pointer(objects[index], object);
    *out = index;
    return 0;
}

static int urcu_remove(uint64_t handle)
{
    struct object *object = rcu_xchg_pointer(&objects[handle], NULL);
    if (object == NULL)
        return -1;
    next_free[handle] = free_head;
    free_head = (uint32_t)handle;
    urcu_memb_defer_rcu(urcu_end, object);
    return 0;
}

#define SUBJECT liburcu
#define SUBJECT_TEXT "liburcu memb"
#define S_CALL urcu_call
#define S_ADD urcu_add
#define S_REMOVE urcu_remove
#define S_THREAD_ENTER urcu_thread_enter
#define S_THREAD_LEAVE urcu_thread_leave
#define S_FLUSH urcu_flush
#include "loops.h"
