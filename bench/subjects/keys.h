/* Keys for the subjects that find a callback by two numbers, as an event loop does by a file descriptor
 * and an event. Their handle is both: the key in the upper half, the event in the lower. */
#ifndef BENCH_KEYS_H
#define BENCH_KEYS_H

#include <stdint.h>

#define KEYS 256u
#define EVENTS 4u

/* All 1,024 pairs in turns, so at most as many can be alive. `last` is the subject's. */
static inline uint64_t key_next(uint32_t *last)
{
    uint32_t n = __atomic_fetch_add(last, 1, __ATOMIC_RELAXED) % (KEYS * EVENTS);
    return (uint64_t)(n / EVENTS) << 32 | 1u << n % EVENTS;
}

static inline uintptr_t key_of(uint64_t handle)
{
    return (uintptr_t)(handle >> 32);
}

static inline uint32_t event_of(uint64_t handle)
{
    return (uint32_t)handle;
}

#endif
