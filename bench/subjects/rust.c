/* The Rust peers, through the C ABI of bench/peers-rust as a C host would use them. */
#include "keys.h"
#include "subject.h"

#define PEER(name)                                                                                 \
    int32_t name##_register(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out); \
    int32_t name##_unregister(uint64_t handle);                                                    \
    int32_t name##_call(uint64_t handle, void *arg, intptr_t *out);

PEER(peer_dashmap)
PEER(peer_sharded)
PEER(peer_arc)
int32_t peer_arc_retain(uint64_t handle);
int32_t peer_arc_release(uint64_t handle);

int32_t peer_dashmap_keys_attach(uintptr_t key, uint32_t event, bench_fn fn, void *user_data,
                                 bench_destroy_fn destroy);
int32_t peer_dashmap_keys_detach(uintptr_t key, uint32_t event);
int32_t peer_dashmap_keys_call(uintptr_t key, uint32_t event, void *arg, intptr_t *out);

static inline int dashmap_keys_call(uint64_t handle, void *arg, intptr_t *out)
{
    return peer_dashmap_keys_call(key_of(handle), event_of(handle), arg, out);
}

static int dashmap_keys_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    static uint32_t last;
    *out = key_next(&last);
    return peer_dashmap_keys_attach(key_of(*out), event_of(*out), fn, user_data, destroy);
}

static int dashmap_keys_remove(uint64_t handle)
{
    return peer_dashmap_keys_detach(key_of(handle), event_of(handle));
}

#define SUBJECT dashmap
#define SUBJECT_TEXT "DashMap+Arc"
#define S_CALL peer_dashmap_call
#define S_ADD peer_dashmap_register
#define S_REMOVE peer_dashmap_unregister
#include "loops.h"

#define SUBJECT dashmap_keys
#define SUBJECT_TEXT "DashMap+Arc keys"
#define S_CALL dashmap_keys_call
#define S_ADD dashmap_keys_add
#define S_REMOVE dashmap_keys_remove
#include "loops.h"

#define SUBJECT sharded
#define SUBJECT_TEXT "sharded-slab"
#define S_CALL peer_sharded_call
#define S_ADD peer_sharded_register
#define S_REMOVE peer_sharded_unregister
#include "loops.h"

#define SUBJECT arc
#define SUBJECT_TEXT "Rust Arc"
#define S_CALL peer_arc_call
#define S_ADD peer_arc_register
#define S_REMOVE peer_arc_unregister
#define S_RETAIN peer_arc_retain
#define S_RELEASE peer_arc_release
#include "loops.h"
