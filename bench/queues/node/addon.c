/* Node-API's thread-safe function, in a Node process of its own: Node's main thread is the consumer, and
 * a thread of this addon runs the workloads. The function calls C and no JavaScript, as the others do. */
#define NAPI_VERSION 8
#define _GNU_SOURCE
#include <node_api.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "queue.h"

/* One without a function marks the end of a slice. */
struct message {
    bench_fn fn;
    void *user_data;
    struct event event;
};

static struct {
    napi_threadsafe_function function;
    bench_fn fn;
    void *user_data;
    sem_t ended;
    pthread_t thread;
    char workload[32];
    struct queue_plan plan;
} tsfn;

static void called(napi_env env, napi_value callback, void *context, void *data)
{
    struct message *message = data;
    (void)env, (void)callback, (void)context;
    if (message->fn != NULL)
        message->fn(message->user_data, &message->event);
    else
        sem_post(&tsfn.ended);
    free(message);
}

static void tsfn_open(bench_fn fn, void *user_data)
{
    tsfn.fn = fn;
    tsfn.user_data = user_data;
}

static int tsfn_send(const struct message *what)
{
    struct message *message = malloc(sizeof *message);
    if (message == NULL)
        return -1;
    *message = *what;
    napi_status status = napi_call_threadsafe_function(tsfn.function, message, napi_tsfn_nonblocking);
    if (status == napi_ok)
        return 0;
    free(message);
    return status == napi_queue_full ? 1 : -1;
}

static inline int tsfn_post(const struct event *event)
{
    return tsfn_send(&(struct message){tsfn.fn, tsfn.user_data, *event});
}

static pid_t tsfn_start(void)
{
    return getpid(); /* the main thread */
}

static void tsfn_shut(void)
{
    int status = 1;
    for (unsigned tries = 0; status > 0; tries++) {
        status = tsfn_send(&(struct message){NULL, NULL, {0, 0, 0}});
        if (status > 0)
            queue_back_off(tries);
    }
    if (status < 0)
        bench_die("Node: post failed");
}

static void tsfn_join(void)
{
    while (sem_wait(&tsfn.ended) != 0)
        ;
}

static void tsfn_free(void)
{
}

#define SUBJECT tsfn
#define SUBJECT_TEXT "Node tsfn"
#define S_POST tsfn_post
#define S_OPEN tsfn_open
#define S_START tsfn_start
#define S_JOIN tsfn_join
#define S_SHUT tsfn_shut
#define S_FREE tsfn_free
#include "post.h"

static void *measure_main(void *unused)
{
    queue_workload(tsfn.workload, &tsfn.plan);
    napi_release_threadsafe_function(tsfn.function, napi_tsfn_release);
    return unused;
}

static void released(napi_env env, void *data, void *context)
{
    (void)env, (void)data, (void)context;
    pthread_join(tsfn.thread, NULL);
}

static void must(napi_status status, const char *what)
{
    if (status != napi_ok)
        bench_die("Node: %s failed", what);
}

/* run(workload, ms, rounds) */
static napi_value run(napi_env env, napi_callback_info info)
{
    size_t count = 3;
    napi_value arguments[3], name;
    must(napi_get_cb_info(env, info, &count, arguments, NULL, NULL), "reading the arguments");
    must(napi_get_value_string_utf8(env, arguments[0], tsfn.workload, sizeof tsfn.workload, NULL), "workload");
    must(napi_get_value_double(env, arguments[1], &tsfn.plan.ms), "ms");
    must(napi_get_value_uint32(env, arguments[2], &tsfn.plan.rounds), "rounds");
    tsfn.plan.subjects[0] = &queue_subject_tsfn;
    sem_init(&tsfn.ended, 0, 0);
    must(napi_create_string_utf8(env, "bench", NAPI_AUTO_LENGTH, &name), "a name");
    must(napi_create_threadsafe_function(env, NULL, NULL, name, CAPACITY, 1, NULL, released, NULL, called,
                                         &tsfn.function),
         "a thread-safe function");
    if (pthread_create(&tsfn.thread, NULL, measure_main, NULL) != 0)
        bench_die("cannot start a thread");
    return NULL;
}

NAPI_MODULE_INIT()
{
    napi_value function;
    must(napi_create_function(env, "run", NAPI_AUTO_LENGTH, run, NULL, &function), "a function");
    must(napi_set_named_property(env, exports, "run", function), "an export");
    return exports;
}
