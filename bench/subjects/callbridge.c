/* callbridge as a host uses it, and its other ways to call and to end a callback. */
#include <callbridge.h>

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
