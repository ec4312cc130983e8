/* GLib's GClosure, with a marshaller of just this signature, which is faster than the generic one. */
#include <glib-object.h>

#include "subject.h"

static void marshal(GClosure *closure, GValue *result, guint count, const GValue *params, gpointer hint,
                    gpointer marshal_data)
{
    (void)count, (void)hint, (void)marshal_data;
    bench_fn fn = (bench_fn)((GCClosure *)closure)->callback;
    g_value_set_long(result, fn(closure->data, g_value_get_pointer(&params[0])));
}

static int gclosure_call(uint64_t handle, void *arg, intptr_t *out)
{
    GValue result = G_VALUE_INIT, param = G_VALUE_INIT;
    g_value_init(&result, G_TYPE_LONG);
    g_value_init(&param, G_TYPE_POINTER);
    g_value_set_pointer(&param, arg);
    g_closure_invoke((GClosure *)(uintptr_t)handle, &result, 1, &param, NULL);
    *out = g_value_get_long(&result);
    return 0;
}

static int gclosure_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    /* A destroy function of one parameter in place of GLib's two, as g_free often is. */
    GClosureNotify notify = (GClosureNotify)(void (*)(void))destroy;
    GClosure *closure = g_cclosure_new(G_CALLBACK(fn), user_data, notify);
    g_closure_set_marshal(closure, marshal);
    g_closure_ref(closure);
    g_closure_sink(closure);
    *out = (uint64_t)(uintptr_t)closure;
    return 0;
}

static int gclosure_remove(uint64_t handle)
{
    GClosure *closure = (GClosure *)(uintptr_t)handle;
    g_closure_invalidate(closure);
    g_closure_unref(closure);
    return 0;
}

static int gclosure_retain(uint64_t handle)
{
    g_closure_ref((GClosure *)(uintptr_t)handle);
    return 0;
}

static int gclosure_release(uint64_t handle)
{
    g_closure_unref((GClosure *)(uintptr_t)handle);
    return 0;
}

#define SUBJECT gclosure
#define SUBJECT_TEXT "GClosure"
#define S_CALL gclosure_call
#define S_ADD gclosure_add
#define S_REMOVE gclosure_remove
#define S_RETAIN gclosure_retain
#define S_RELEASE gclosure_release
#include "loops.h"
