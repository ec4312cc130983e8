/* Function pointers that carry data: an int(int, void *) that calls an int(void *, int, void *). Beside
 * a function that carries none, the callback by its handle, and a closure of libffi whose function does
 * nothing but call. */
#include <callbridge.h>
#include <ffi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"
#include "workloads.h"

#define HUNDRED_THOUSAND 100000
#define SIGNATURE CBR_SIG(CBR_INT, CBR_INT, CBR_PTR)

typedef int (*plain_fn)(int number, void *pointer);

struct way {
    struct subject subject; /* for its name */
    plain_fn (*open)(void **out_it);
    void (*close)(void *it);
};

static int bias = 1000;
static cbr_handle handle;

/* --- the ways ------------------------------------------------------------------------------------- */

static plain_fn direct_open(void **out_it)
{
    *out_it = NULL;
    return bench_plain;
}

static void direct_close(void *it)
{
    (void)it;
}

static plain_fn thunk_open(void **out_it)
{
    cbr_any_fn fn;
    cbr_thunk thunk;
    if (cbr_thunk_open(handle, SIGNATURE, 0, &fn, &thunk) != CBR_OK)
        bench_die("cbr_thunk_open failed");
    *out_it = CBR_TO_PTR(thunk);
    return (plain_fn)fn;
}

static void thunk_close(void *it)
{
    if (cbr_thunk_close((uintptr_t)it) != CBR_OK)
        bench_die("cbr_thunk_close failed");
}

static ffi_cif cif;

static void closure_run(ffi_cif *unused, void *result, void **arguments, void *user_data)
{
    (void)unused;
    *(ffi_arg *)result = (ffi_arg)bench_carried(user_data, *(int *)arguments[0], *(void **)arguments[1]);
}

static plain_fn closure_open(void **out_it)
{
    void *code = NULL;
    *out_it = ffi_closure_alloc(sizeof(ffi_closure), &code);
    if (*out_it == NULL || ffi_prep_closure_loc(*out_it, &cif, closure_run, &bias, code) != FFI_OK)
        bench_die("no closure of libffi");
    return (plain_fn)(uintptr_t)code;
}

static void prepare(void)
{
    static ffi_type *types[2] = {&ffi_type_sint, &ffi_type_pointer};
    cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
    options.fn = (cbr_any_fn)bench_carried;
    options.user_data = &bias;
    options.signature = SIGNATURE;
    if (cbr_register_with(&options, &handle) != CBR_OK)
        bench_die("cbr_register_with failed");
    if (ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 2, &ffi_type_sint, types) != FFI_OK)
        bench_die("ffi_prep_cif failed");
}

static const struct way WAYS[] = {
    {{.name = "direct pointer"}, direct_open, direct_close},
    {{.name = "thunk"}, thunk_open, thunk_close},
    {{.name = "libffi closure"}, closure_open, ffi_closure_free},
};
#define N_WAYS (sizeof WAYS / sizeof *WAYS)

/* --- the loops ------------------------------------------------------------------------------------ */

static void call_work(void *context, size_t n)
{
    plain_fn fn = *(plain_fn *)context;
    unsigned sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (unsigned)fn((int)i, context);
    if (sum != (unsigned)(n * (n - 1) / 2 + n * 1000))
        bench_die("a function pointer returns wrong results");
}

/* What a host with a place for the handle does. */
static void by_handle_work(void *unused, size_t n)
{
    intptr_t result;
    (void)unused;
    for (size_t i = 0; i < n; i++)
        if (cbr_call(*(cbr_handle *)unused, (void *)i, &result) != CBR_OK)
            bench_die("cbr_call failed");
}

static void pair_work(void *context, size_t n)
{
    const struct way *way = context;
    void *it;
    for (size_t i = 0; i < n; i++) {
        way->open(&it);
        way->close(it);
    }
}

static void emit_ns(const char *workload, const struct subject *subject, work_fn work, void *context,
                    const struct plan *plan)
{
    struct rate rate = measure(work, (void *[]){context, NULL}, measure_calibrate(work, context), ON_FIRST,
                               plan->ms);
    if (rate.good > 0)
        emit(workload, subject, "ns", rate.ns);
}

/* All of them called, because code that runs is in memory, too. */
static void many(const struct way *way)
{
    static void *its[HUNDRED_THOUSAND];
    static plain_fn fns[HUNDRED_THOUSAND];
    memset(its, 0xff, sizeof its), memset(fns, 0xff, sizeof fns);
    double before = resident_bytes(), from = now_ns();
    for (size_t i = 0; i < HUNDRED_THOUSAND; i++)
        fns[i] = way->open(&its[i]);
    double opened = now_ns();
    for (size_t i = 0; i < HUNDRED_THOUSAND; i++)
        call_work(&fns[i], 1);
    emit("t4", &way->subject, "bytes", (resident_bytes() - before) / HUNDRED_THOUSAND);
    emit("t4", &way->subject, "open_ns", (opened - from) / HUNDRED_THOUSAND);
    for (size_t i = 0; i < HUNDRED_THOUSAND; i++)
        way->close(its[i]);
}

void workload_thunks(const struct plan *plan)
{
    static const struct subject BY_HANDLE = {.name = "cbr_call"};
    prepare();
    /* Before the others have left closed ones behind. */
    many(&WAYS[1]);
    many(&WAYS[2]);
    cbr_handle called;
    if (cbr_register(bench_callback, NULL, NULL, &called) != CBR_OK)
        bench_die("cbr_register failed");
    for (unsigned round = 0; round < plan->rounds; round++) {
        emit_ns("t1", &BY_HANDLE, by_handle_work, &called, plan);
        for (const struct way *way = WAYS; way < WAYS + N_WAYS; way++) {
            void *it;
            plain_fn fn = way->open(&it);
            emit_ns("t1", &way->subject, call_work, &fn, plan);
            both_threads("t2", &way->subject, call_work, (void *[]){&fn, &fn}, plan);
            way->close(it);
            if (way != WAYS)
                emit_ns("t3", &way->subject, pair_work, (void *)(uintptr_t)way, plan);
        }
    }
}
