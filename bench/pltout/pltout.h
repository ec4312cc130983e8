/* The least that a library can do for a callback: a status, an out parameter, an indirect call. */
#ifndef PLTOUT_H
#define PLTOUT_H

#include <stdint.h>

int32_t pltout_register(intptr_t (*fn)(void *, void *), void *user_data, void (*destroy)(void *),
                        uint64_t *out_handle);
int32_t pltout_unregister(uint64_t handle);
int32_t pltout_call(uint64_t handle, void *arg, intptr_t *out_result);

#endif
