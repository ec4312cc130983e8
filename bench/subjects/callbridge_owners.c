/* callbridge's owners: a scope that callbacks are registered in, a hook, a key and event. The handle of
 * a hook is its address, that of a key is both numbers. */
#include <callbridge.h>
#include <stdlib.h>

#include "keys.h"
#include "subject.h"

static cbr_scope scope;

static void open_scope(void)
{
    if (scope == 0 && cbr_scope_open("bench", &scope) != CBR_OK)
        bench_die("cannot open a scope");
}

/* With a new one for what comes then, which takes a moment. */
static int close_scope(void)
{
    cbr_status status = cbr_scope_close(scope, -1, NULL);
    scope = 0;
    open_scope();
    return status;
}

static int scope_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    options.fn = (cbr_any_fn)fn;
    options.user_data = user_data;
    options.destroy = destroy;
    options.scope = scope;
    return cbr_register_with(&options, out);
}

static inline int hook_call(uint64_t handle, void *arg, intptr_t *out)
{
    return cbr_hook_call((cbr_hook *)(uintptr_t)handle, arg, out);
}

/* What the hook and the key hold alone ends when they let go. */
static int hook_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    cbr_handle handle;
    cbr_hook *hook = malloc(sizeof *hook);
    if (hook == NULL || cbr_register(fn, user_data, destroy, &handle) != CBR_OK)
        return -1;
    *hook = (cbr_hook)CBR_HOOK_INIT;
    *out = (uint64_t)(uintptr_t)hook;
    return cbr_hook_set_once(hook, handle) != CBR_OK || cbr_release(handle) != CBR_OK;
}

static int hook_remove(uint64_t handle)
{
    cbr_hook *hook = (cbr_hook *)(uintptr_t)handle;
    cbr_status status = cbr_hook_swap(hook, CBR_HANDLE_NONE, NULL);
    free(hook);
    return status;
}

static inline int key_call(uint64_t handle, void *arg, intptr_t *out)
{
    return cbr_key_call(scope, key_of(handle), event_of(handle), arg, out);
}

static int key_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    static uint32_t last;
    cbr_handle handle;
    if (scope_add(fn, user_data, destroy, &handle) != CBR_OK)
        return -1;
    *out = key_next(&last);
    return cbr_key_attach(scope, key_of(*out), event_of(*out), handle, CBR_BIND_ONCE) != CBR_OK ||
           cbr_release(handle) != CBR_OK;
}

static int key_remove(uint64_t handle)
{
    return cbr_key_detach(scope, key_of(handle), event_of(handle));
}

#define SUBJECT scope
#define SUBJECT_TEXT "cbr_scope"
#define S_CALL cbr_call
#define S_ADD scope_add
#define S_REMOVE cbr_unregister
#define S_REMOVE_ALL close_scope
#define S_THREAD_ENTER open_scope
#include "loops.h"

#define SUBJECT hook
#define SUBJECT_TEXT "cbr_hook_call"
#define S_CALL hook_call
#define S_ADD hook_add
#define S_REMOVE hook_remove
#include "loops.h"

#define SUBJECT key
#define SUBJECT_TEXT "cbr_key_call"
#define S_CALL key_call
#define S_ADD key_add
#define S_REMOVE key_remove
#define S_THREAD_ENTER open_scope
#include "loops.h"
