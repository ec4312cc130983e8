/* The callback that every subject calls for each event, apart from the subjects so that no compiler can
 * inline it. */
#include <string.h>

#include "queue.h"

intptr_t queue_callback(void *user_data, void *payload)
{
    struct sink *sink = user_data;
    struct event event;
    memcpy(&event, payload, sizeof event);
    uint64_t *next = &sink->next[event.producer % PRODUCERS], expected = *next;
    if (event.number != expected) {
        sink->late += event.number < expected;
        sink->missing += event.number < expected ? 0 : event.number - expected;
    }
    sink->sum += event.value;
    if ((sink->calls++ & sink->note_mask) == 0)
        notes_add(&sink->notes, now_ns());
    __atomic_store_n(next, event.number + 1, __ATOMIC_RELEASE);
    return (intptr_t)event.value;
}

void queue_destroy(void *user_data)
{
    ((struct sink *)user_data)->destroyed++;
}
