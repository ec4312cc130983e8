/* A tracer for tests: it writes down what it is told of calls. */
#ifndef CALLBRIDGE_SUPPORT_TRACER_H
#define CALLBRIDGE_SUPPORT_TRACER_H

#include "support_threads.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define FIRST "00-" TRACE "-00f067aa0ba902b7-01"
#define SECOND "00-" TRACE "-b7ad6b7169203331-00"
#define THIRD "00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01"

enum { TOLD = 64 };

/* A call that it was told of. */
struct told {
  cbr_handle handle;
  char name[64], context[64];
  bool has_context;
  int ended;
  cbr_status status;
  int order;          /* of the end, among the ends */
  pthread_t thread;
};

struct tracer {
  uint32_t state;
  int begun, ended, destroyed;
  bool sets_contexts;                     /* every span has one, by its number */
  void (*in_begin)(struct tracer *);      /* may be NULL, as those that follow */
  void (*in_end)(struct tracer *);
  void (*on_destroy)(struct tracer *);
  void *extra;                            /* for the test */
  struct told told[TOLD];
};

enum { TRACER_ALIVE = 0x600d600d, TRACER_DESTROYED = 0x0badbad0 };

static inline void span_context(char *text, int number) {
  snprintf(text, 64, "00-" TRACE "-%016x-01", number + 1);
}

static inline void *tracer_begin(void *user_data, cbr_handle handle, const char *name,
                                 const char *traceparent) {
  struct tracer *it = (struct tracer *)user_data;
  CHECK_EQ(it->state, TRACER_ALIVE);
  int number = add_int(&it->begun, 1) - 1;
  CHECK(number < TOLD);
  struct told *told = &it->told[number];
  memset(told, 0, sizeof *told);
  told->handle = handle;
  told->thread = pthread_self();
  CHECK(name != NULL && strlen(name) < sizeof told->name);
  strcpy(told->name, name);
  told->has_context = traceparent != NULL;
  if (traceparent != NULL) strcpy(told->context, traceparent);
  char context[64] = "";
  cbr_trace_get(context, sizeof context);
  CHECK_STR(context, told->context);
  CHECK_EQ(cbr_current(), handle);
  if (it->sets_contexts) {
    span_context(context, number);
    CHECK_OK(cbr_trace_set(context));
    if (traceparent != NULL) CHECK_STR(traceparent, told->context); /* still there */
  }
  if (it->in_begin != NULL) it->in_begin(it);
  return told;
}

static inline void tracer_end(void *user_data, void *span, cbr_status status) {
  struct tracer *it = (struct tracer *)user_data;
  struct told *told = (struct told *)span;
  CHECK_EQ(it->state, TRACER_ALIVE);
  CHECK(told >= it->told && told < it->told + load_int(&it->begun));
  CHECK_EQ(cbr_current(), told->handle);
  CHECK(pthread_equal(told->thread, pthread_self()));
  CHECK_EQ(add_int(&told->ended, 1), 1);
  told->status = status;
  told->order = add_int(&it->ended, 1) - 1;
  if (it->in_end != NULL) it->in_end(it);
}

static inline void tracer_destroy(void *user_data) {
  struct tracer *it = (struct tracer *)user_data;
  CHECK_EQ(it->state, TRACER_ALIVE);
  it->state = TRACER_DESTROYED;
  if (it->on_destroy != NULL) it->on_destroy(it);
  CHECK_EQ(add_int(&it->destroyed, 1), 1);
}

static inline void tracer_init(struct tracer *it) {
  memset(it, 0, sizeof *it);
  it->state = TRACER_ALIVE;
}

static inline void tracer_set_in(struct tracer *it, cbr_scope owner) {
  CHECK_OK(cbr_set_call_hooks(tracer_begin, tracer_end, it, tracer_destroy, owner));
}

static inline void tracer_set(struct tracer *it) { tracer_set_in(it, 0); }

static inline void tracer_start(struct tracer *it) {
  tracer_init(it);
  tracer_set(it);
}

static inline void remove_tracer(void) { CHECK_OK(cbr_set_call_hooks(NULL, NULL, NULL, NULL, 0)); }

/* No tracer from now on; this one is gone, and every begin has had its end. */
static inline void tracer_stop(struct tracer *it) {
  remove_tracer();
  CHECK_EQ(load_int(&it->destroyed), 1);
  CHECK_EQ(it->begun, it->ended);
  for (int i = 0; i < it->begun; i++) CHECK_EQ(it->told[i].ended, 1);
}

/* It was told of one call since it was last asked, of this callback, ended with this status. */
static inline void check_told_once(const char *file, int line, struct tracer *it, cbr_handle handle,
                                   const char *name, cbr_status status) {
  harness_check_eq(file, line, "begun", "1", it->begun, 1);
  harness_check_eq(file, line, "ended", "1", it->ended, 1);
  harness_check_eq(file, line, "the callback", "", (intmax_t)it->told[0].handle, (intmax_t)handle);
  harness_check_str(file, line, "its name", it->told[0].name, name);
  harness_check_status(file, line, "the end", it->told[0].status, status);
  it->begun = it->ended = 0;
}

#define CHECK_TOLD_ONCE(tracer, handle, name, status) \
  check_told_once(__FILE__, __LINE__, (tracer), (handle), (name), (status))
#define CHECK_TOLD_NOTHING(tracer) CHECK_EQ((tracer)->begun, 0)

#endif
