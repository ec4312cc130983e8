/* callbridge as a host uses it, and its other ways to call and to end a callback. */
#include <callbridge.h>
#include <stdlib.h>

#include "subject.h"

static inline int enter_call(uint64_t handle, void *arg, intptr_t *out)
{
    cbr_pin pin;
    cbr_status status = cbr_enter(handle, CBR_SIG_DEFAULT, &pin);
    if (status != CBR_OK)
        return status;
    *out = ((cbr_fn)pin.fn)(pin.user_data, arg);
    return cbr_leave(&pin);
}

static inline int hold_call(uint64_t handle, void *arg, intptr_t *out)
{
    cbr_pin pin;
    cbr_status status = cbr_hold(handle, CBR_SIG_DEFAULT, &pin);
    if (status != CBR_OK)
        return status;
    *out = ((cbr_fn)pin.fn)(pin.user_data, arg);
    return cbr_leave(&pin);
}

static inline int ptr_call(uint64_t handle, void *arg, intptr_t *out)
{
    *out = cbr_call_ptr(CBR_TO_PTR(handle), arg);
    return 0;
}

static inline int remove_wait(uint64_t handle)
{
    return cbr_unregister_wait(handle, -1);
}

/* A callback with a thunk, which alone owns it. */
struct carried {
    intptr_t (*fn)(void *arg);
    cbr_thunk thunk;
};

static inline int thunk_call(uint64_t handle, void *arg, intptr_t *out)
{
    *out = ((struct carried *)(uintptr_t)handle)->fn(arg);
    return 0;
}

static inline int thunk_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    struct carried *it = malloc(sizeof *it);
    cbr_handle handle;
    cbr_any_fn code;
    if (it == NULL || cbr_register(fn, user_data, destroy, &handle) != CBR_OK ||
        cbr_thunk_open(handle, CBR_SIG_DEFAULT, 0, &code, &it->thunk) != CBR_OK)
        return -1;
    it->fn = (intptr_t(*)(void *))code;
    *out = (uint64_t)(uintptr_t)it;
    return cbr_release(handle);
}

static inline int thunk_remove(uint64_t handle)
{
    struct carried *it = (struct carried *)(uintptr_t)handle;
    cbr_status status = cbr_thunk_close(it->thunk);
    free(it);
    return status;
}

#define SUBJECT callbridge
#define SUBJECT_TEXT "callbridge"
#define S_CALL cbr_call
#define S_ADD cbr_register
#define S_REMOVE cbr_unregister
#define S_RETAIN cbr_retain
#define S_RELEASE cbr_release
#include "loops.h"

#define SUBJECT callbridge_enter
#define SUBJECT_TEXT "cbr_enter/leave"
#define S_CALL enter_call
#define S_ADD cbr_register
#define S_REMOVE cbr_unregister
#include "loops.h"

#define SUBJECT callbridge_hold
#define SUBJECT_TEXT "cbr_hold/leave"
#define S_CALL hold_call
#define S_ADD cbr_register
#define S_REMOVE cbr_unregister
#include "loops.h"

#define SUBJECT callbridge_ptr
#define SUBJECT_TEXT "cbr_call_ptr"
#define S_CALL ptr_call
#define S_ADD cbr_register
#define S_REMOVE cbr_unregister
#include "loops.h"

#define SUBJECT callbridge_wait
#define SUBJECT_TEXT "cbr_unregister_wait"
#define S_CALL cbr_call
#define S_ADD cbr_register
#define S_REMOVE remove_wait
#include "loops.h"

#define SUBJECT callbridge_thunk
#define SUBJECT_TEXT "cbr_thunk"
#define S_CALL thunk_call
#define S_ADD thunk_add
#define S_REMOVE thunk_remove
#include "loops.h"
