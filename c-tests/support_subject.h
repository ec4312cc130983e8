/* A callback under test. Its data is poisoned by destroy, so that a call after destroy, a second
 * destroy and a destroy during a call are all caught where they happen. */
#ifndef CALLBRIDGE_SUPPORT_SUBJECT_H
#define CALLBRIDGE_SUPPORT_SUBJECT_H

#include "support_threads.h"

enum { SUBJECT_ALIVE = 0x600d600d, SUBJECT_DESTROYED = 0x0badbad0 };

struct subject {
  cbr_handle handle;
  uint32_t state;
  int calls, running, destroyed;
  int process; /* that it was called in: whoever was inside at a fork is not in the child */
  pthread_t destroyed_on;
  void (*on_destroy)(struct subject *); /* what destroy does besides counting; may be NULL */
  void *extra;                          /* for the test */
};

/* What a call does: cbr_call's arg, NULL for nothing. */
struct action {
  intptr_t (*run)(struct subject *, void *arg);
  void *arg;
};

#define SUBJECT_RESULT 4711

static inline void subject_check_alive(struct subject *it) {
  uint32_t state = __atomic_load_n(&it->state, __ATOMIC_ACQUIRE);
  if (state != SUBJECT_ALIVE) FAIL("a callback runs with destroyed data (state 0x%x)", state);
}

static inline intptr_t subject_fn(void *user_data, void *arg) {
  struct subject *it = (struct subject *)user_data;
  struct action *action = (struct action *)arg;
  subject_check_alive(it);
  add_int(&it->calls, 1);
  add_int(&it->running, 1);
  __atomic_store_n(&it->process, harness_process, __ATOMIC_RELAXED);
  intptr_t result = action != NULL ? action->run(it, action->arg) : SUBJECT_RESULT;
  add_int(&it->running, -1);
  subject_check_alive(it);
  return result;
}

static inline void subject_destroy(void *user_data) {
  struct subject *it = (struct subject *)user_data;
  uint32_t was = __atomic_exchange_n(&it->state, SUBJECT_DESTROYED, __ATOMIC_ACQ_REL);
  if (was != SUBJECT_ALIVE) FAIL("destroy runs a second time (state 0x%x)", was);
  if (load_int(&it->running) != 0 && it->process == harness_process)
    FAIL("destroy runs during %d calls", load_int(&it->running));
  it->destroyed_on = pthread_self();
  if (it->on_destroy != NULL) it->on_destroy(it);
  add_int(&it->destroyed, 1);
}

static inline void subject_reset(struct subject *it) {
  memset(it, 0, sizeof *it);
  it->state = SUBJECT_ALIVE;
}

static inline cbr_handle subject_register(struct subject *it) {
  subject_reset(it);
  CHECK_OK(cbr_register(subject_fn, it, subject_destroy, &it->handle));
  CHECK(it->handle != CBR_HANDLE_NONE);
  return it->handle;
}

static inline int subject_destroyed(const struct subject *it) { return load_int(&it->destroyed); }

/* Calls the subject and runs this inside. */
static inline cbr_status subject_run(struct subject *it, intptr_t (*run)(struct subject *, void *),
                                     void *arg, intptr_t *out_result) {
  struct action action = {run, arg};
  return cbr_call(it->handle, &action, out_result);
}

/* An occupant is a thread that stays inside a subject's call until it is told to leave. */
struct occupant {
  struct subject *subject;
  gate inside, leave;
  pthread_t thread;
  cbr_status status;
};

static inline intptr_t occupant_stay(struct subject *it, void *arg) {
  struct occupant *self = (struct occupant *)arg;
  (void)it;
  gate_open(&self->inside);
  gate_pass(&self->leave);
  return SUBJECT_RESULT;
}

static inline void *occupant_main(void *arg) {
  struct occupant *self = (struct occupant *)arg;
  self->status = subject_run(self->subject, occupant_stay, self, NULL);
  return NULL;
}

/* Returns when the new thread is inside. */
static inline void occupy(struct occupant *self, struct subject *subject) {
  self->subject = subject;
  self->status = 1;
  gate_init(&self->inside);
  gate_init(&self->leave);
  self->thread = start(occupant_main, self);
  gate_pass(&self->inside);
}

/* Lets it leave and returns when its thread is gone, with what its cbr_call returned. */
static inline cbr_status vacate(struct occupant *self) {
  gate_open(&self->leave);
  join(self->thread);
  return self->status;
}

#endif
