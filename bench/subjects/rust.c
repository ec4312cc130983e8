/* The Rust peers, through the C ABI of bench/peers-rust as a C host would use them. */
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

#define SUBJECT dashmap
#define SUBJECT_TEXT "DashMap+Arc"
#define S_CALL peer_dashmap_call
#define S_ADD peer_dashmap_register
#define S_REMOVE peer_dashmap_unregister
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
