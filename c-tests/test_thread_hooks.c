/* Thread hooks: a scope's attach function runs once on every thread before its first callback
 * there, its detach function at that thread's end, and destroy when the scope is closed. */
#include "support_child.h"
#include "support_owners.h"
#include "support_random.h"

#include <malloc.h>

#define MS INT64_C(1000000)

enum { CALLS = 4 };

/* A scope with thread hooks and some callbacks. Each thread's state is checked by every function:
 * attach runs on a thread that is not attached, callbacks and detach on one that is. */
struct hooked {
  cbr_scope scope;
  uint64_t life; /* another number for every scope */
  int attached, detached, destroyed;
  void *(*on_attach)(struct hooked *); /* what attach does besides; its result is the token */
  void (*on_detach)(struct hooked *);  /* what detach does besides; may be NULL */
  void (*on_destroy)(struct hooked *); /* likewise */
  void *extra;                         /* for the test */
  pthread_t destroyed_on;
  bool gone; /* closed: nothing may run any more */
  struct subject all[CALLS];
};

enum { DETACHED, ATTACHING, ATTACHED };

/* The calling thread's state. The scopes that a thread uses at a time are opened one soon after the
 * other, so that they do not meet here. Not pthread_setspecific: hooks run when that is gone. */
static int *state_here(const struct hooked *self) {
  static __thread struct {
    uint64_t life;
    int state;
  } states[64];
  int place = (int)(self->life % 64);
  if (states[place].life != self->life) {
    states[place].life = self->life;
    states[place].state = DETACHED;
  }
  return &states[place].state;
}

static void check_not_gone(struct hooked *self) {
  if (__atomic_load_n(&self->gone, __ATOMIC_ACQUIRE)) FAIL("a hook runs after the scope's close");
}

/* What attach returned here: every thread has another token. */
static void *token_here(void) {
  static __thread int place;
  return &place;
}

static void *attach(void *user_data) {
  struct hooked *self = (struct hooked *)user_data;
  check_not_gone(self);
  CHECK_EQ(*state_here(self), DETACHED);
  *state_here(self) = ATTACHING;
  add_int(&self->attached, 1);
  void *token = self->on_attach == NULL ? token_here() : self->on_attach(self);
  if (*state_here(self) == ATTACHING) *state_here(self) = ATTACHED;
  return token;
}

static void detach(void *user_data, void *token) {
  struct hooked *self = (struct hooked *)user_data;
  check_not_gone(self);
  if (self->on_attach == NULL) CHECK(token == token_here());
  CHECK_EQ(cbr_depth(), 0);
  CHECK_EQ(cbr_current(), CBR_HANDLE_NONE);
  CHECK_EQ(*state_here(self), ATTACHED);
  *state_here(self) = DETACHED;
  add_int(&self->detached, 1);
  if (self->on_detach != NULL) self->on_detach(self);
}

static void hooks_destroy(void *user_data) {
  struct hooked *self = (struct hooked *)user_data;
  check_not_gone(self);
  self->destroyed_on = pthread_self();
  if (self->on_destroy != NULL) self->on_destroy(self);
  if (add_int(&self->destroyed, 1) != 1) FAIL("the thread hooks are destroyed a second time");
}

/* Which scope a subject belongs to is in its `extra`. */
static intptr_t hooked_fn(void *user_data, void *arg) {
  struct subject *it = (struct subject *)user_data;
  struct hooked *self = (struct hooked *)it->extra;
  CHECK(*state_here(self) != DETACHED);
  return subject_fn(user_data, arg);
}

static void hooked_register(struct hooked *self, struct subject *it) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(it);
  it->extra = self;
  options.fn = (cbr_any_fn)hooked_fn;
  options.user_data = it;
  options.destroy = subject_destroy;
  options.scope = self->scope;
  CHECK_OK(cbr_register_with(&options, &it->handle));
}

static void hooked_open_without_hooks(struct hooked *self) {
  static uint64_t lives;
  memset(self, 0, sizeof *self);
  self->life = __atomic_add_fetch(&lives, 1, __ATOMIC_RELAXED);
  self->scope = scope_open("hooked");
}

static void hooked_open_without_callbacks(struct hooked *self) {
  hooked_open_without_hooks(self);
  CHECK_OK(cbr_scope_set_thread_hooks(self->scope, attach, detach, self, hooks_destroy));
}

static void hooked_open(struct hooked *self) {
  hooked_open_without_callbacks(self);
  for (int i = 0; i < CALLS; i++) hooked_register(self, &self->all[i]);
}

static void hooked_closed(struct hooked *self) {
  CHECK_EQ(self->destroyed, 1);
  for (int i = 0; i < CALLS; i++) {
    if (self->all[i].handle != CBR_HANDLE_NONE) CHECK_EQ(self->all[i].destroyed, 1);
  }
  __atomic_store_n(&self->gone, true, __ATOMIC_RELEASE);
}

static void hooked_close(struct hooked *self) {
  CHECK_EQ(self->destroyed, 0);
  scope_close(self->scope);
  hooked_closed(self);
}

static void hooked_call(struct hooked *self, int number) {
  CHECK_OK(cbr_call(self->all[number].handle, NULL, NULL));
  CHECK_EQ(*state_here(self), ATTACHED);
}

static void *calls_once(void *arg) {
  hooked_call((struct hooked *)arg, 0);
  return NULL;
}

/* --- the ways to call --------------------------------------------------------------------- */

static cbr_hook hook = CBR_HOOK_INIT;

static void by_call(struct hooked *self) { CHECK_OK(cbr_call(self->all[0].handle, NULL, NULL)); }

static void by_hook(struct hooked *self) {
  (void)self;
  CHECK_OK(cbr_hook_call(&hook, NULL, NULL));
}

static void by_key(struct hooked *self) {
  CHECK_OK(cbr_key_call(self->scope, 1, 2, NULL, NULL));
}

static void by_key_of_another_scope(struct hooked *self) {
  (void)self;
  CHECK_OK(cbr_key_call(0, 1, 2, NULL, NULL));
}

static void by_name(struct hooked *self) {
  cbr_handle handle;
  CHECK_OK(cbr_name_find(self->scope, "name", &handle));
  CHECK_EQ(cbr_depth(), 0);
  CHECK_OK(cbr_call(handle, NULL, NULL));
}

static void by_pointer(struct hooked *self) {
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(self->all[0].handle), NULL), SUBJECT_RESULT);
}

static void by_pin(struct hooked *self) {
  cbr_pin pin;
  CHECK_OK(cbr_enter(self->all[0].handle, CBR_SIG_DEFAULT, &pin));
  CHECK_EQ(*state_here(self), ATTACHED);
  CHECK_EQ(((cbr_fn)pin.fn)(pin.user_data, NULL), SUBJECT_RESULT);
  CHECK_OK(cbr_leave(&pin));
}

static void by_unchecked_pin(struct hooked *self) {
  cbr_pin pin;
  CHECK_OK(cbr_enter(self->all[0].handle, 0, &pin));
  CHECK_EQ(*state_here(self), ATTACHED);
  CHECK_EQ(((cbr_fn)pin.fn)(pin.user_data, NULL), SUBJECT_RESULT);
  CHECK_OK(cbr_leave(&pin));
}

static void by_hold(struct hooked *self) {
  cbr_pin pin;
  CHECK_OK(cbr_hold(self->all[0].handle, CBR_SIG_DEFAULT, &pin));
  CHECK_EQ(*state_here(self), ATTACHED);
  CHECK_EQ(((cbr_fn)pin.fn)(pin.user_data, NULL), SUBJECT_RESULT);
  CHECK_OK(cbr_leave(&pin));
}

typedef void (*way)(struct hooked *self);

static const way ways[] = {by_call,    by_hook, by_key,           by_key_of_another_scope, by_name,
                           by_pointer, by_pin,  by_unchecked_pin, by_hold};
enum { WAYS = sizeof ways / sizeof ways[0] };

static void ways_open(struct hooked *self) {
  hooked_open(self);
  cbr_handle handle = self->all[0].handle;
  CHECK_OK(cbr_hook_swap(&hook, handle, NULL));
  CHECK_OK(cbr_key_attach(self->scope, 1, 2, handle, CBR_BIND_REPLACE));
  CHECK_OK(cbr_key_attach(0, 1, 2, handle, CBR_BIND_REPLACE));
  CHECK_OK(cbr_name_bind(self->scope, "name", handle, CBR_BIND_REPLACE));
}

/* One way first, then all the others. */
struct way_thread {
  struct hooked *hooked;
  int first;
};

static void *goes_all_ways(void *arg) {
  struct way_thread *self = (struct way_thread *)arg;
  struct hooked *hooked = self->hooked;
  CHECK_EQ(*state_here(hooked), DETACHED);
  for (int i = 0; i < WAYS; i++) {
    ways[(self->first + i) % WAYS](hooked);
    CHECK_EQ(*state_here(hooked), ATTACHED);
    CHECK_EQ(cbr_depth(), 0);
  }
  return NULL;
}

TEST(attach_runs_once_a_thread_whatever_the_first_way_of_calling) {
  struct hooked self;
  ways_open(&self);
  CHECK_EQ(self.attached, 0); /* not for registering, binding and finding */
  for (int i = 0; i < WAYS; i++) {
    struct way_thread thread = {&self, i};
    run_on_thread(goes_all_ways, &thread);
    CHECK_EQ(self.attached, i + 1);
    CHECK_EQ(self.detached, i + 1);
    CHECK_EQ(self.all[0].calls, (i + 1) * WAYS);
  }
  hooked_close(&self);
}

TEST(attach_runs_once_a_thread_at_every_check_level) {
  for (uint32_t level = 0; level < 3; level++) {
    struct hooked self;
    CHECK_OK(cbr_set_check(level));
    ways_open(&self);
    for (int i = 0; i < WAYS; i++) {
      struct way_thread thread = {&self, i};
      CHECK_OK(cbr_set_check((level + (uint32_t)i) % 3));
      run_on_thread(goes_all_ways, &thread);
      CHECK_EQ(self.attached, i + 1);
      CHECK_EQ(self.detached, i + 1);
    }
    hooked_close(&self);
  }
}

static void *calls_ten_thousand_times(void *arg) {
  struct hooked *self = (struct hooked *)arg;
  cbr_pin pin;
  for (int i = 0; i < 10000; i++) {
    hooked_call(self, 0);
    CHECK_OK(cbr_enter(self->all[1].handle, 0, &pin));
    CHECK_OK(cbr_leave(&pin));
  }
  for (int i = 0; i < 10000; i++) hooked_call(self, 0); /* nothing else in between */
  return NULL;
}

TEST(attach_runs_once_a_thread_however_many_calls_there_are) {
  struct hooked self;
  hooked_open(&self);
  for (int i = 0; i < 2; i++) run_on_thread(calls_ten_thousand_times, &self);
  CHECK_EQ(self.attached, 2);
  CHECK_EQ(self.detached, 2);
  hooked_close(&self);
}

static int32_t sum(void *user_data, int32_t left, int32_t right) {
  CHECK_EQ(*state_here((struct hooked *)((struct subject *)user_data)->extra), ATTACHED);
  return left + right;
}

static void *calls_sum(void *arg) {
  struct subject *it = (struct subject *)arg;
  cbr_pin pin;
  CHECK_OK(cbr_enter(it->handle, CBR_SIG(CBR_I32, CBR_I32, CBR_I32), &pin));
  CHECK_EQ(((int32_t (*)(void *, int32_t, int32_t))pin.fn)(pin.user_data, 40, 2), 42);
  CHECK_OK(cbr_leave(&pin));
  return NULL;
}

TEST(attach_runs_before_a_callback_of_another_signature_too) {
  struct hooked self;
  struct subject it;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  hooked_open(&self);
  subject_reset(&it);
  it.extra = &self;
  options.fn = (cbr_any_fn)sum;
  options.user_data = &it;
  options.destroy = subject_destroy;
  options.signature = CBR_SIG(CBR_I32, CBR_I32, CBR_I32);
  options.scope = self.scope;
  CHECK_OK(cbr_register_with(&options, &it.handle));
  run_on_thread(calls_sum, &it);
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
  CHECK_EQ(it.destroyed, 1);
}

/* --- which threads, which scopes ---------------------------------------------------------- */

static void *calls_all(void *arg) {
  struct hooked *self = (struct hooked *)arg;
  for (int i = 0; i < 2 * CALLS; i++) hooked_call(self, i % CALLS);
  return NULL;
}

TEST(a_thread_attaches_once_for_all_callbacks_of_a_scope) {
  struct hooked self;
  hooked_open(&self);
  for (int i = 1; i <= 3; i++) {
    run_on_thread(calls_all, &self);
    CHECK_EQ(self.attached, i);
    CHECK_EQ(self.detached, i);
  }
  hooked_close(&self);
}

TEST(the_main_thread_attaches_like_any_other) {
  struct hooked self;
  if (HARNESS_SANITIZED) SKIP("LeakSanitizer does not look where a live thread's list is kept");
  hooked_open(&self);
  calls_all(&self);
  CHECK_EQ(self.attached, 1);
  run_on_thread(calls_all, &self);
  CHECK_EQ(self.attached, 2);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
  CHECK_EQ(self.attached, 2);
  CHECK_EQ(self.detached, 1); /* the scope was closed before the thread's end */
}

static void *calls_old_and_new(void *arg) {
  struct hooked *self = (struct hooked *)arg;
  struct subject later;
  hooked_call(self, 0);
  for (int i = 0; i < 3; i++) {
    hooked_register(self, &later);
    CHECK_OK(cbr_call(later.handle, NULL, NULL));
    CHECK_OK(cbr_unregister(later.handle));
    CHECK_EQ(later.destroyed, 1);
  }
  return NULL;
}

TEST(callbacks_registered_later_need_no_further_attach) {
  struct hooked self;
  hooked_open(&self);
  run_on_thread(calls_old_and_new, &self);
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
}

enum { SCOPES = 8, THREADS = 32 };

static void *calls_every_scope(void *arg) {
  struct hooked *all = (struct hooked *)arg;
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < SCOPES; i++) hooked_call(&all[i], round);
  }
  return NULL;
}

TEST(every_thread_attaches_to_every_scope_once_and_detaches_once) {
  static struct hooked all[SCOPES];
  pthread_t threads[THREADS];
  for (long round = 0; round < 1 + scaled(10); round++) {
    for (int i = 0; i < SCOPES; i++) hooked_open(&all[i]);
    for (int i = 0; i < THREADS; i++) threads[i] = start(calls_every_scope, all);
    for (int i = 0; i < THREADS; i++) join(threads[i]);
    for (int i = 0; i < SCOPES; i++) {
      CHECK_EQ(all[i].attached, THREADS);
      CHECK_EQ(all[i].detached, THREADS);
      CHECK_EQ(all[i].all[0].calls, THREADS);
      hooked_close(&all[i]);
    }
  }
}

static void *calls_other_scopes_only(void *arg) {
  struct subject *subjects = (struct subject *)arg;
  for (int i = 0; i < 3; i++) CHECK_OK(cbr_call(subjects[i % 2].handle, NULL, NULL));
  return NULL;
}

TEST(a_thread_that_calls_other_scopes_only_is_not_attached) {
  struct hooked self;
  struct subject others[2];
  cbr_scope scope = scope_open("without hooks");
  hooked_open(&self);
  subject_register_in(&others[0], scope);
  subject_register(&others[1]);
  run_on_thread(calls_other_scopes_only, others);
  CHECK_EQ(self.attached, 0);
  scope_close(scope);
  CHECK_OK(cbr_unregister(others[1].handle));
  hooked_close(&self);
  CHECK_EQ(self.attached + self.detached, 0);
}

static void *is_refused(void *arg) {
  struct hooked *self = (struct hooked *)arg;
  cbr_pin pin;
  CHECK_STATUS(cbr_call(self->all[0].handle, NULL, NULL), CBR_ERR_STALE);
  CHECK_STATUS(cbr_enter(self->all[0].handle, 0, &pin), CBR_ERR_STALE);
  CHECK_STATUS(cbr_hold(self->all[0].handle, 0, &pin), CBR_ERR_STALE);
  CHECK_OK(cbr_unregister(self->all[1].handle));
  CHECK_OK(cbr_retain(self->all[2].handle));
  CHECK_OK(cbr_release(self->all[2].handle));
  return NULL;
}

TEST(a_thread_that_runs_no_callback_is_not_attached) {
  struct hooked self;
  hooked_open(&self);
  CHECK_OK(cbr_unregister(self.all[0].handle));
  run_on_thread(is_refused, &self);
  CHECK_EQ(self.attached, 0);
  hooked_close(&self);
  CHECK_EQ(self.attached + self.detached, 0);
}

static intptr_t calls_the_other_scope(struct subject *it, void *arg) {
  (void)it;
  hooked_call((struct hooked *)arg, 0);
  return 0;
}

static void *nests_scopes(void *arg) {
  struct hooked *all = (struct hooked *)arg;
  CHECK_OK(subject_run(&all[0].all[0], calls_the_other_scope, &all[1], NULL));
  CHECK_EQ(*state_here(&all[0]), ATTACHED);
  return NULL;
}

TEST(a_callback_may_be_the_first_to_call_another_scope) {
  struct hooked all[2];
  for (int i = 0; i < 2; i++) hooked_open(&all[i]);
  run_on_thread(nests_scopes, all);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(all[i].attached, 1);
    CHECK_EQ(all[i].detached, 1);
    hooked_close(&all[i]);
  }
}

/* --- tokens ------------------------------------------------------------------------------- */

static void *returns_the_extra(struct hooked *self) { return self->extra; }

static void *token_of_detach;

static void detach_keeps_the_token(void *user_data, void *token) {
  token_of_detach = token;
  detach(user_data, token);
}

TEST(detach_gets_what_attach_returned_whatever_that_is) {
  void *const tokens[] = {NULL, &hook, (void *)1, (void *)-2, (void *)INTPTR_MIN};
  for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
    struct hooked self;
    hooked_open_without_hooks(&self);
    self.on_attach = returns_the_extra;
    self.extra = tokens[i];
    CHECK_OK(cbr_scope_set_thread_hooks(self.scope, attach, detach_keeps_the_token, &self,
                                        hooks_destroy));
    hooked_register(&self, &self.all[0]);
    token_of_detach = (void *)77;
    run_on_thread(calls_once, &self);
    CHECK_EQ(self.detached, 1);
    CHECK(token_of_detach == tokens[i]);
    hooked_close(&self);
  }
}

static void *is_not_ours(struct hooked *self) {
  (void)self;
  return CBR_THREAD_NOT_OURS;
}

TEST(a_thread_that_is_not_ours_is_attached_once_and_not_detached) {
  struct hooked self;
  hooked_open(&self);
  self.on_attach = is_not_ours;
  run_on_thread(calls_all, &self);
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 0);
  self.on_attach = NULL;
  run_on_thread(calls_all, &self); /* each thread is asked anew */
  CHECK_EQ(self.attached, 2);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
}

TEST(without_a_detach_function_there_is_nothing_to_undo) {
  struct hooked self;
  hooked_open_without_hooks(&self);
  CHECK_OK(cbr_scope_set_thread_hooks(self.scope, attach, NULL, &self, hooks_destroy));
  hooked_register(&self, &self.all[0]);
  run_on_thread(calls_once, &self);
  run_on_thread(calls_once, &self);
  CHECK_EQ(self.attached, 2);
  hooked_close(&self);
}

TEST(without_a_destroy_function_user_data_stays_the_callers) {
  struct hooked self;
  hooked_open_without_hooks(&self);
  CHECK_OK(cbr_scope_set_thread_hooks(self.scope, attach, detach, &self, NULL));
  hooked_register(&self, &self.all[0]);
  run_on_thread(calls_once, &self);
  scope_close(self.scope);
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 1);
  CHECK_EQ(self.all[0].destroyed, 1);
}

/* --- setting ------------------------------------------------------------------------------ */

static void *refused_attach(void *user_data) {
  (void)user_data;
  FAIL("an attach function that was refused runs");
}

static void refused_detach(void *user_data, void *token) {
  (void)user_data;
  (void)token;
  FAIL("a detach function that was refused runs");
}

static void refused_destroy(void *user_data) {
  (void)user_data;
  FAIL("thread hooks that were refused are destroyed");
}

static void check_refused(cbr_scope scope, cbr_status expected) {
  int user_data;
  CHECK_REFUSED(cbr_scope_set_thread_hooks(scope, refused_attach, refused_detach, &user_data,
                                           refused_destroy),
                expected);
}

TEST(thread_hooks_need_an_attach_function_and_a_scope_of_ones_own) {
  struct hooked self;
  cbr_scope scope = scope_open("plugin");
  CHECK_REFUSED(cbr_scope_set_thread_hooks(scope, NULL, refused_detach, NULL, refused_destroy),
                CBR_ERR_NULL);
  check_refused(0, CBR_ERR_INVALID);
  scope_close(scope);
  check_refused(scope, CBR_ERR_STALE);
  hooked_open(&self); /* being refused elsewhere has broken nothing */
  check_refused(self.all[0].handle, CBR_ERR_KIND);
  run_on_thread(calls_once, &self);
  hooked_close(&self);
}

TEST(after_a_refusal_thread_hooks_can_still_be_set) {
  struct hooked self;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = 99;
  hooked_open_without_hooks(&self);
  CHECK_REFUSED(cbr_scope_set_thread_hooks(self.scope, NULL, detach, &self, hooks_destroy),
                CBR_ERR_NULL);
  options.scope = self.scope;
  CHECK_REFUSED(cbr_register_with(&options, &handle), CBR_ERR_NULL); /* that was no registration */
  CHECK_OK(cbr_scope_set_thread_hooks(self.scope, attach, detach, &self, hooks_destroy));
  hooked_register(&self, &self.all[0]);
  run_on_thread(calls_once, &self);
  CHECK_EQ(self.attached, 1);
  hooked_close(&self);
}

TEST(thread_hooks_are_set_once_and_the_first_stay) {
  struct hooked self;
  hooked_open_without_callbacks(&self);
  check_refused(self.scope, CBR_ERR_EXISTS);
  hooked_register(&self, &self.all[0]);
  check_refused(self.scope, CBR_ERR_EXISTS);
  run_on_thread(calls_once, &self);
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
}

TEST(after_the_first_registration_thread_hooks_are_refused) {
  struct subject first, second;
  cbr_scope scope = scope_open("plugin");
  subject_register_in(&first, scope);
  check_refused(scope, CBR_ERR_EXISTS);
  CHECK_OK(cbr_call(first.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(first.handle));
  check_refused(scope, CBR_ERR_EXISTS); /* also when nothing is left */
  subject_register_in(&second, scope);
  CHECK_OK(cbr_call(second.handle, NULL, NULL));
  scope_close(scope);
}

TEST(a_closing_scope_takes_no_thread_hooks) {
  struct closing closing;
  closing_begin(&closing, scope_open("plugin"));
  check_refused(closing.scope, CBR_ERR_CLOSED);
  closing_end(&closing);
  check_refused(closing.scope, CBR_ERR_STALE);
}

/* A registration and the hooks at once: the hooks are set and run, or are refused. */
static struct {
  struct hooked hooked;
  struct subject it;
  pthread_barrier_t meeting;
  long rounds;
} setting;

static void *registers_meanwhile(void *arg) {
  (void)arg;
  for (long i = setting.rounds; i > 0; i--) {
    meet(&setting.meeting);
    subject_register_in(&setting.it, setting.hooked.scope);
    CHECK_OK(cbr_call(setting.it.handle, NULL, NULL));
    meet(&setting.meeting);
  }
  return NULL;
}

TEST(thread_hooks_that_meet_the_first_registration_run_or_are_refused) {
  struct hooked *self = &setting.hooked;
  int won = 0;
  setting.rounds = scaled(5000);
  CHECK_EQ(pthread_barrier_init(&setting.meeting, NULL, 2), 0);
  pthread_t thread = start(registers_meanwhile, NULL);
  for (long i = setting.rounds; i > 0; i--) {
    hooked_open_without_hooks(self);
    meet(&setting.meeting);
    cbr_status status =
        cbr_scope_set_thread_hooks(self->scope, attach, detach, self, hooks_destroy);
    meet(&setting.meeting);
    if (status != CBR_OK) CHECK_STATUS(status, CBR_ERR_EXISTS);
    won += status == CBR_OK;
    CHECK_EQ(self->attached, status == CBR_OK);
    scope_close(self->scope);
    CHECK_EQ(self->destroyed, status == CBR_OK);
    CHECK_EQ(setting.it.destroyed, 1);
  }
  join(thread);
  printf("%s: set in %d of %ld rounds\n", harness_current, won, setting.rounds);
}

/* --- destroy ------------------------------------------------------------------------------ */

static void sees_all_callbacks_gone(struct hooked *self) {
  for (int i = 0; i < CALLS; i++) CHECK_EQ(subject_destroyed(&self->all[i]), 1);
}

TEST(destroy_runs_once_when_everything_else_of_the_scope_is_done) {
  struct hooked self;
  struct occupant guest;
  hooked_open(&self);
  self.on_destroy = sees_all_callbacks_gone;
  occupy(&guest, &self.all[0]);
  for (int i = 0; i < 3; i++) {
    CHECK_STATUS(cbr_scope_close(self.scope, i * MS, NULL), CBR_ERR_TIMEOUT);
    CHECK_EQ(self.destroyed, 0);
  }
  CHECK_OK(vacate(&guest));
  CHECK_EQ(self.destroyed, 0); /* the scope waits to be closed */
  hooked_close(&self);
  CHECK(pthread_equal(self.destroyed_on, pthread_self()));
  CHECK_STATUS(cbr_scope_close(self.scope, -1, NULL), CBR_ERR_STALE);
  CHECK_EQ(self.destroyed, 1);
}

TEST(destroy_runs_for_a_scope_that_never_had_a_callback) {
  struct hooked self;
  hooked_open_without_callbacks(&self);
  hooked_close(&self);
  CHECK_EQ(self.attached + self.detached, 0);
}

static void closes_in_the_hooks_destroy(struct hooked *self) {
  CHECK_REFUSED(cbr_scope_close(self->scope, -1, NULL), CBR_ERR_DEADLOCK);
  CHECK_REFUSED(cbr_scope_close(self->scope, 0, NULL), CBR_ERR_DEADLOCK);
}

TEST(closing_inside_the_hooks_destroy_is_a_deadlock) {
  struct hooked self;
  hooked_open(&self);
  self.on_destroy = closes_in_the_hooks_destroy;
  hooked_close(&self);
}

/* A hook that stays inside until it is told to leave. */
struct lingering {
  gate inside, leave;
};

static void lingers(struct hooked *self) {
  struct lingering *gates = (struct lingering *)self->extra;
  gate_open(&gates->inside);
  gate_pass(&gates->leave);
}

static void lingering_init(struct lingering *gates, struct hooked *self) {
  gate_init(&gates->inside);
  gate_init(&gates->leave);
  self->extra = gates;
}

struct closer {
  struct hooked *hooked;
  int64_t timeout_ns;
  pthread_t thread;
  cbr_status status;
  size_t running;
  int destroyed;
};

static void *closer_main(void *arg) {
  struct closer *self = (struct closer *)arg;
  self->status = cbr_scope_close(self->hooked->scope, self->timeout_ns, &self->running);
  self->destroyed = load_int(&self->hooked->destroyed);
  return NULL;
}

static void closer_start(struct closer *self, struct hooked *hooked, int64_t timeout_ns) {
  self->hooked = hooked;
  self->timeout_ns = timeout_ns;
  self->running = 77;
  self->thread = start(closer_main, self);
}

static void check_closed(cbr_status status) {
  if (status != CBR_ERR_STALE) CHECK_OK(status);
}

/* Before it can say that the scope is closed, a second closer waits for the destroy function that
 * the first one runs; and it is woken when that has returned. */
TEST(a_second_closer_waits_for_the_hooks_destroy) {
  struct hooked self;
  struct lingering gates;
  struct closer closers[4];
  hooked_open(&self);
  lingering_init(&gates, &self);
  self.on_destroy = lingers;
  closer_start(&closers[0], &self, -1);
  gate_pass(&gates.inside);
  CHECK_STATUS(cbr_scope_close(self.scope, 0, NULL), CBR_ERR_TIMEOUT);
  for (int i = 1; i < 4; i++) closer_start(&closers[i], &self, i % 2 ? -1 : 50000 * MS);
  CHECK_STATUS(cbr_scope_close(self.scope, 20 * MS, NULL), CBR_ERR_TIMEOUT);
  gate_open(&gates.leave);
  for (int i = 0; i < 4; i++) {
    join(closers[i].thread);
    check_closed(closers[i].status);
    CHECK_EQ(closers[i].destroyed, 1);
  }
  hooked_closed(&self);
}

/* --- inside attach ------------------------------------------------------------------------ */

static void *calls_its_own_scope(struct hooked *self) {
  CHECK_EQ(cbr_depth(), 1); /* inside the protection of the call that needs it */
  CHECK_EQ(cbr_current(), self->all[0].handle);
  for (int i = 0; i < CALLS; i++) {
    cbr_pin pin;
    intptr_t result = 0;
    CHECK_OK(cbr_call(self->all[i].handle, NULL, &result));
    CHECK_EQ(result, SUBJECT_RESULT);
    CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(self->all[i].handle), NULL), SUBJECT_RESULT);
    CHECK_OK(cbr_enter(self->all[i].handle, CBR_SIG_DEFAULT, &pin));
    CHECK_OK(cbr_leave(&pin));
    CHECK_OK(cbr_hold(self->all[i].handle, CBR_SIG_DEFAULT, &pin));
    CHECK_OK(cbr_leave(&pin));
  }
  CHECK_EQ(cbr_depth(), 1);
  return token_here();
}

static void *calls_the_first(void *arg) {
  struct hooked *self = (struct hooked *)arg;
  intptr_t result = 0;
  CHECK_OK(cbr_call(self->all[0].handle, NULL, &result));
  CHECK_EQ(result, SUBJECT_RESULT);
  CHECK_EQ(*state_here(self), ATTACHED);
  CHECK_EQ(cbr_depth(), 0);
  return NULL;
}

TEST(attach_may_call_callbacks_of_its_scope_without_being_attached_again) {
  struct hooked self;
  hooked_open(&self);
  self.on_attach = calls_its_own_scope;
  run_on_thread(calls_the_first, &self);
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 1);
  CHECK_EQ(self.all[0].calls, 3); /* twice in attach, then the call itself */
  CHECK_EQ(self.all[1].calls, 2);
  hooked_close(&self);
}

static void *calls_another_scope(struct hooked *self) {
  hooked_call((struct hooked *)self->extra, 0);
  return token_here();
}

TEST(attach_may_call_another_scope_which_attaches_first) {
  struct hooked self, other;
  hooked_open(&self);
  hooked_open(&other);
  self.on_attach = calls_another_scope;
  self.extra = &other;
  run_on_thread(calls_once, &self);
  CHECK_EQ(self.attached + other.attached, 2);
  CHECK_EQ(self.detached + other.detached, 2);
  hooked_close(&self);
  hooked_close(&other);
}

static void *closes_scopes_that_it_opens(struct hooked *self) {
  (void)self;
  for (int i = 0; i < 20; i++) {
    struct hooked inner;
    hooked_open(&inner);
    hooked_call(&inner, 1);
    hooked_close(&inner);
  }
  return token_here();
}

TEST(attach_may_open_use_and_close_other_scopes_with_hooks) {
  struct hooked self;
  hooked_open(&self);
  self.on_attach = closes_scopes_that_it_opens;
  run_on_thread(calls_all, &self);
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
}

static void *ends_the_callback(struct hooked *self) {
  CHECK_OK(cbr_unregister(self->all[0].handle));
  CHECK_EQ(self->all[0].destroyed, 0);
  return token_here();
}

TEST(a_callback_that_attach_ends_still_runs_this_once) {
  struct hooked self;
  hooked_open(&self);
  self.on_attach = ends_the_callback;
  run_on_thread(calls_the_first, &self);
  CHECK_EQ(self.all[0].calls, 1);
  CHECK_EQ(self.all[0].destroyed, 1);
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
}

static void *closes_in_attach(struct hooked *self) {
  size_t running = 77;
  CHECK_REFUSED(cbr_scope_close(self->scope, -1, &running), CBR_ERR_DEADLOCK);
  CHECK_EQ(running, 1);
  CHECK_REFUSED(cbr_scope_close(self->scope, 0, NULL), CBR_ERR_DEADLOCK);
  CHECK_EQ(self->destroyed, 0);
  CHECK_EQ(self->all[0].destroyed, 0);
  CHECK_EQ(self->all[1].destroyed, 1); /* everything is revoked all the same */
  return token_here();
}

TEST(closing_inside_attach_is_a_deadlock_and_revokes_all_the_same) {
  struct hooked self;
  hooked_open(&self);
  self.on_attach = closes_in_attach;
  run_on_thread(calls_the_first, &self);
  CHECK_EQ(self.all[0].calls, 1);
  CHECK_EQ(self.all[0].destroyed, 1);
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 0); /* the scope was closing when the thread ended */
  hooked_close(&self);
}

static void *stays_in_attach(struct hooked *self) {
  lingers(self);
  return token_here();
}

TEST(close_waits_for_a_running_attach) {
  struct hooked self;
  struct lingering gates;
  struct closer closer;
  size_t running = 77;
  hooked_open(&self);
  lingering_init(&gates, &self);
  self.on_attach = stays_in_attach;
  pthread_t thread = start(calls_the_first, &self);
  gate_pass(&gates.inside);
  CHECK_STATUS(cbr_scope_close(self.scope, 0, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 1);
  closer_start(&closer, &self, -1);
  gate_open(&gates.leave);
  join(closer.thread);
  CHECK_OK(closer.status);
  CHECK_EQ(closer.destroyed, 1);
  join(thread);
  CHECK_EQ(self.all[0].calls, 1); /* it had begun */
  CHECK_EQ(self.detached, 0);
  hooked_closed(&self);
}

/* --- attach that refuses ------------------------------------------------------------------ */

static void *fails_in_attach(struct hooked *self) {
  CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "no room for this thread"));
  *state_here(self) = DETACHED;
  return token_here();
}

static void *is_refused_by_attach(void *arg) {
  struct hooked *self = (struct hooked *)arg;
  cbr_handle handle = self->all[0].handle;
  cbr_pin pin;
  intptr_t result = 77;
  memset(&pin, 0, sizeof pin);
  CHECK_REFUSED(cbr_call(handle, NULL, &result), CBR_ERR_CALLBACK);
  CHECK_WORDS("no room for this thread");
  CHECK_REFUSED(cbr_enter(handle, 0, &pin), CBR_ERR_CALLBACK);
  CHECK_REFUSED(cbr_hold(handle, 0, &pin), CBR_ERR_CALLBACK);
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(handle), NULL), 0);
  CHECK_EQ(result, 77);
  CHECK_EQ(cbr_depth(), 0);
  CHECK_EQ(self->attached, 4);
  CHECK_EQ(self->all[0].calls, 0);
  self->on_attach = NULL;
  calls_all(self); /* asked again, it agrees */
  CHECK_EQ(self->attached, 5);
  return NULL;
}

TEST(attach_may_refuse_the_thread_and_is_asked_again_at_the_next_call) {
  struct hooked self;
  hooked_open(&self);
  self.on_attach = fails_in_attach;
  run_on_thread(is_refused_by_attach, &self);
  CHECK_EQ(self.detached, 1);
  CHECK_OK(cbr_unregister_wait(self.all[0].handle, -1)); /* nothing is left in flight */
  hooked_close(&self);
}

/* --- the thread's end --------------------------------------------------------------------- */

static void *enters_unregisters_and_ends(void *arg) {
  struct hooked *self = (struct hooked *)arg;
  cbr_pin pin;
  CHECK_OK(cbr_enter(self->all[0].handle, 0, &pin));
  CHECK_OK(cbr_enter(self->all[1].handle, 0, &pin));
  CHECK_OK(cbr_unregister(self->all[0].handle));
  CHECK_EQ(self->all[0].destroyed, 0);
  return NULL;
}

static void sees_the_first_destroyed(struct hooked *self) {
  CHECK_EQ(self->all[0].destroyed, 1);
  CHECK_EQ(self->all[1].destroyed, 0);
}

TEST(detach_runs_after_pins_that_were_left_behind_are_released) {
  struct hooked self;
  hooked_open(&self);
  self.on_detach = sees_the_first_destroyed;
  run_on_thread(enters_unregisters_and_ends, &self);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
}

static intptr_t exits(struct subject *it, void *arg) {
  (void)arg;
  add_int(&it->running, -1); /* subject_fn will not get to it */
  pthread_exit((void *)4711);
}

static void *calls_and_exits(void *arg) {
  subject_run(&((struct hooked *)arg)->all[0], exits, NULL, NULL);
  FAIL("pthread_exit has returned");
}

static intptr_t nests_and_exits(struct subject *it, void *arg) {
  add_int(&it->running, -1);
  subject_run((struct subject *)arg, exits, NULL, NULL);
  FAIL("pthread_exit has returned");
}

static void *calls_both_scopes_and_exits(void *arg) {
  struct hooked *all = (struct hooked *)arg;
  subject_run(&all[0].all[0], nests_and_exits, &all[1].all[0], NULL);
  FAIL("pthread_exit has returned");
}

TEST(detach_runs_once_after_pthread_exit_inside_a_callback) {
  struct hooked all[2];
  for (int i = 0; i < 2; i++) hooked_open(&all[i]);
  CHECK_EQ((intptr_t)run_on_thread(calls_and_exits, &all[0]), 4711);
  CHECK_EQ(all[0].attached, 1);
  CHECK_EQ(all[0].detached, 1);
  CHECK_EQ((intptr_t)run_on_thread(calls_both_scopes_and_exits, all), 4711);
  CHECK_EQ(all[0].attached, 2);
  CHECK_EQ(all[0].detached, 2);
  CHECK_EQ(all[1].attached, 1);
  CHECK_EQ(all[1].detached, 1);
  for (int i = 0; i < 2; i++) hooked_close(&all[i]);
}

static intptr_t stays_to_be_cancelled(struct subject *it, void *arg) {
  add_int(&it->running, -1);
  gate_open((gate *)arg);
  while (pause() != 0) { /* a cancellation point, and it never returns 0 */
  }
  return 0;
}

static void *calls_to_be_cancelled(void *arg) {
  struct hooked *self = (struct hooked *)arg;
  subject_run(&self->all[0], stays_to_be_cancelled, self->extra, NULL);
  FAIL("the call has returned");
}

TEST(detach_runs_once_after_pthread_cancel_inside_a_callback) {
  struct hooked self;
  gate inside;
  gate_init(&inside);
  hooked_open(&self);
  self.extra = &inside;
  pthread_t thread = start(calls_to_be_cancelled, &self);
  gate_pass(&inside);
  CHECK_EQ(pthread_cancel(thread), 0);
  CHECK(join(thread) == PTHREAD_CANCELED);
  CHECK_EQ(self.attached, 1);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
}

static void *exits_in_attach(struct hooked *self) {
  *state_here(self) = DETACHED;
  pthread_exit((void *)4713);
}

static void *is_ended_by_attach(void *arg) {
  struct way_thread *self = (struct way_thread *)arg;
  ways[self->first](self->hooked);
  FAIL("pthread_exit has returned");
}

TEST(after_pthread_exit_inside_attach_nothing_is_left_to_detach_or_in_flight) {
  struct hooked self;
  ways_open(&self);
  for (int i = 0; i < WAYS; i++) {
    struct way_thread thread = {&self, i};
    self.on_attach = exits_in_attach;
    CHECK_EQ((intptr_t)run_on_thread(is_ended_by_attach, &thread), 4713);
    CHECK_EQ(self.attached, i + 1);
    CHECK_EQ(self.all[0].calls, 0);
  }
  CHECK_EQ(self.detached, 0);
  self.on_attach = NULL;
  run_on_thread(calls_once, &self);
  CHECK_EQ(self.detached, 1);
  CHECK_OK(cbr_unregister_wait(self.all[0].handle, -1));
  hooked_close(&self);
}

/* A destructor of the host's that still calls, round after round, also after the library's own
 * destructor has run on this thread: no callback ever runs on a thread that is not attached. */
struct last_words {
  struct hooked hooked;
  pthread_key_t key;
  int rounds;
};

static void speaks_again(void *arg) {
  struct last_words *self = (struct last_words *)arg;
  hooked_call(&self->hooked, self->rounds % CALLS);
  if (++self->rounds < 3) CHECK_EQ(pthread_setspecific(self->key, self), 0);
}

static void *sets_the_key(void *arg) {
  struct last_words *self = (struct last_words *)arg;
  hooked_call(&self->hooked, 0);
  CHECK_EQ(pthread_setspecific(self->key, self), 0);
  return NULL;
}

TEST(a_destructor_made_before_or_after_the_librarys_may_call_callbacks_with_hooks) {
  for (int made_before = 1; made_before >= 0; made_before--) {
    struct last_words self;
    if (made_before) CHECK_EQ(pthread_key_create(&self.key, speaks_again), 0);
    hooked_open(&self.hooked); /* the library has made its own by now */
    if (!made_before) CHECK_EQ(pthread_key_create(&self.key, speaks_again), 0);
    self.rounds = 0;
    run_on_thread(sets_the_key, &self);
    CHECK_EQ(self.rounds, 3);
    CHECK(self.hooked.attached >= 1);
    CHECK_EQ(self.hooked.detached, self.hooked.attached);
    hooked_close(&self.hooked);
    CHECK_EQ(pthread_key_delete(self.key), 0);
  }
}

static void calls_in_detach(struct hooked *self) {
  if (self->detached == 1) CHECK_OK(cbr_call(self->all[1].handle, NULL, NULL));
}

TEST(detach_may_call_callbacks_of_its_scope_which_attaches_and_detaches_again) {
  struct hooked self;
  hooked_open(&self);
  self.on_detach = calls_in_detach;
  run_on_thread(calls_once, &self);
  CHECK_EQ(self.all[1].calls, 1);
  CHECK_EQ(self.attached, 2);
  CHECK_EQ(self.detached, 2);
  hooked_close(&self);
}

static void calls_the_other_in_detach(struct hooked *self) {
  if (self->detached == 1)
    CHECK_OK(cbr_call(((struct hooked *)self->extra)->all[1].handle, NULL, NULL));
}

static void *calls_both_scopes(void *arg) {
  struct hooked *all = (struct hooked *)arg;
  hooked_call(&all[0], 0);
  hooked_call(&all[1], 0);
  return NULL;
}

/* The other one is still attached, or attaches again: never twice at a time. */
TEST(detach_may_call_callbacks_of_another_scope_that_the_thread_is_attached_to) {
  for (int calling = 0; calling < 3; calling++) {
    struct hooked all[2];
    for (int i = 0; i < 2; i++) {
      hooked_open(&all[i]);
      all[i].extra = &all[1 - i];
      if (calling == i || calling == 2) all[i].on_detach = calls_the_other_in_detach;
    }
    run_on_thread(calls_both_scopes, all);
    for (int i = 0; i < 2; i++) {
      CHECK_EQ(all[i].all[1].calls, calling == 1 - i || calling == 2);
      CHECK(all[i].attached >= 1);
      CHECK_EQ(all[i].detached, all[i].attached);
      hooked_close(&all[i]);
    }
  }
}

static void calls_in_every_detach(struct hooked *self) {
  CHECK_OK(cbr_call(self->all[1].handle, NULL, NULL));
}

TEST(a_detach_function_that_never_stops_calling_does_not_keep_its_thread_from_ending) {
  struct hooked self;
  hooked_open(&self);
  self.on_detach = calls_in_every_detach;
  run_on_thread(calls_once, &self);
  CHECK(self.detached >= 2);
  hooked_close(&self);
}

static void uses_the_library_in_detach(struct hooked *self) {
  struct subject mine;
  struct hooked inner;
  cbr_pin pin;
  (void)self;
  subject_register(&mine);
  CHECK_OK(cbr_enter(mine.handle, 0, &pin));
  CHECK_OK(cbr_leave(&pin));
  CHECK_OK(cbr_unregister_wait(mine.handle, -1));
  CHECK_EQ(mine.destroyed, 1);
  hooked_open(&inner);
  hooked_call(&inner, 0);
  hooked_close(&inner);
}

TEST(detach_may_use_the_library) {
  struct hooked self;
  hooked_open(&self);
  self.on_detach = uses_the_library_in_detach;
  for (int i = 0; i < 3; i++) run_on_thread(calls_once, &self);
  CHECK_EQ(self.detached, 3);
  hooked_close(&self);
}

/* --- threads' ends against close ---------------------------------------------------------- */

/* A thread that calls and then stays alive until it is told to end. */
struct survivor {
  struct hooked *hooked;
  gate called, end;
  pthread_t thread;
};

static void *survivor_main(void *arg) {
  struct survivor *self = (struct survivor *)arg;
  calls_all(self->hooked);
  gate_open(&self->called);
  gate_pass(&self->end);
  return NULL;
}

static void survivor_start(struct survivor *self, struct hooked *hooked) {
  self->hooked = hooked;
  gate_init(&self->called);
  gate_init(&self->end);
  self->thread = start(survivor_main, self);
  gate_pass(&self->called);
}

static void survivor_end(struct survivor *self) {
  gate_open(&self->end);
  join(self->thread);
}

TEST(detach_is_not_called_for_a_closed_scope) {
  struct hooked closed, open;
  struct survivor survivors[3];
  for (int round = 0; round < 3; round++) {
    hooked_open(&closed);
    hooked_open(&open);
    for (int i = 0; i < 3; i++) {
      survivor_start(&survivors[i], &closed);
      run_on_thread(calls_once, &open);
    }
    hooked_close(&closed);
    for (int i = 0; i < 3; i++) survivor_end(&survivors[i]);
    CHECK_EQ(closed.attached, 3);
    CHECK_EQ(closed.detached, 0);
    CHECK_EQ(open.detached, 3);
    hooked_close(&open);
  }
}

static void *calls_the_successor(void *arg) {
  struct hooked *all = (struct hooked *)arg;
  for (int i = 0; i < 50; i++) {
    hooked_open(&all[0]);
    calls_all(&all[0]);
    CHECK_EQ(all[0].attached, 1); /* being attached to its predecessor does not count */
    hooked_close(&all[0]);
    CHECK_EQ(all[0].detached, 0);
  }
  hooked_open(&all[1]);
  calls_all(&all[1]);
  return NULL;
}

TEST(a_scope_in_the_place_of_a_closed_one_attaches_its_own_threads) {
  struct hooked all[2];
  run_on_thread(calls_the_successor, all);
  CHECK_EQ(all[0].detached, 0);
  CHECK_EQ(all[1].attached, 1);
  CHECK_EQ(all[1].detached, 1);
  hooked_close(&all[1]);
}

TEST(detach_is_not_called_for_a_closing_scope_and_does_not_hold_up_its_close) {
  struct hooked self;
  struct occupant guest;
  struct survivor survivor;
  hooked_open(&self);
  survivor_start(&survivor, &self);
  occupy(&guest, &self.all[0]);
  CHECK_STATUS(cbr_scope_close(self.scope, 0, NULL), CBR_ERR_TIMEOUT);
  survivor_end(&survivor);
  CHECK_OK(vacate(&guest));
  CHECK_EQ(self.attached, 2);
  CHECK_EQ(self.detached, 0);
  hooked_close(&self);
}

TEST(close_waits_for_a_running_detach) {
  struct hooked self;
  struct lingering gates;
  struct closer closer;
  size_t running = 77;
  hooked_open(&self);
  lingering_init(&gates, &self);
  self.on_detach = lingers;
  pthread_t thread = start(calls_once, &self);
  gate_pass(&gates.inside);
  CHECK_STATUS(cbr_scope_close(self.scope, 0, &running), CBR_ERR_TIMEOUT);
  CHECK_EQ(running, 1);
  for (int i = 0; i < CALLS; i++) CHECK_EQ(self.all[i].destroyed, 1);
  CHECK_STATUS(cbr_scope_close(self.scope, 5 * MS, NULL), CBR_ERR_TIMEOUT);
  CHECK_EQ(load_int(&self.destroyed), 0);
  closer_start(&closer, &self, -1);
  gate_open(&gates.leave);
  join(closer.thread);
  CHECK_OK(closer.status);
  CHECK_EQ(closer.running, 0);
  CHECK_EQ(closer.destroyed, 1);
  join(thread);
  CHECK_EQ(self.detached, 1);
  hooked_closed(&self);
}

static void closes_in_detach(struct hooked *self) {
  size_t running = 77;
  CHECK_REFUSED(cbr_scope_close(self->scope, -1, &running), CBR_ERR_DEADLOCK);
  CHECK_EQ(running, 1);
  CHECK_REFUSED(cbr_scope_close(self->scope, 0, NULL), CBR_ERR_DEADLOCK);
  CHECK_EQ(self->destroyed, 0);
  for (int i = 0; i < CALLS; i++) CHECK_EQ(self->all[i].destroyed, 1);
}

TEST(closing_inside_detach_is_a_deadlock_and_revokes_all_the_same) {
  struct hooked self;
  hooked_open(&self);
  self.on_detach = closes_in_detach;
  run_on_thread(calls_once, &self);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
}

/* A thread in detach waits for a callback whose thread closes the scope that is detached from. */
struct detach_ring {
  struct hooked hooked;
  struct subject other;
  pthread_barrier_t both_inside;
  cbr_status detach_status, close_status;
};

static void detach_waits_for_the_other(struct hooked *self) {
  struct detach_ring *ring = (struct detach_ring *)self->extra;
  meet(&ring->both_inside);
  ring->detach_status = cbr_unregister_wait(ring->other.handle, -1);
}

static intptr_t closes_the_hooked(struct subject *it, void *arg) {
  struct detach_ring *ring = (struct detach_ring *)arg;
  (void)it;
  meet(&ring->both_inside);
  ring->close_status = cbr_scope_close(ring->hooked.scope, -1, NULL);
  return 0;
}

TEST(a_ring_of_waits_is_found_through_a_detach_function) {
  struct detach_ring ring;
  CHECK_EQ(pthread_barrier_init(&ring.both_inside, NULL, 2), 0);
  for (long i = scaled(300); i > 0; i--) {
    hooked_open(&ring.hooked);
    ring.hooked.on_detach = detach_waits_for_the_other;
    ring.hooked.extra = &ring;
    subject_register(&ring.other);
    pthread_t thread = start(calls_once, &ring.hooked);
    CHECK_OK(subject_run(&ring.other, closes_the_hooked, &ring, NULL));
    join(thread);
    CHECK(ring.detach_status == CBR_ERR_DEADLOCK || ring.close_status == CBR_ERR_DEADLOCK);
    if (ring.detach_status != CBR_ERR_DEADLOCK) check_closed(ring.detach_status);
    if (ring.close_status != CBR_ERR_DEADLOCK) CHECK_OK(ring.close_status);
    check_closed(cbr_scope_close(ring.hooked.scope, -1, NULL));
    hooked_closed(&ring.hooked);
    CHECK_EQ(ring.other.destroyed, 1);
  }
}

/* Threads end while the scope closes. Whatever detach has run is done when the close has returned,
 * and none begins after it: check_not_gone says so. */
enum { ENDING = 3 };

static struct {
  struct hooked hooked;
  pthread_barrier_t meeting;
} ending;

static void dawdle_for_a_while(struct rng *rng) {
  volatile uint64_t left = rng_below(rng, 20000);
  while (left > 0) left--;
}

static void *ends_soon(void *arg) {
  struct rng rng = {*(uint64_t *)arg};
  hooked_call(&ending.hooked, 0);
  meet(&ending.meeting);
  dawdle_for_a_while(&rng);
  return NULL;
}

TEST(a_thread_that_ends_while_its_scope_closes_detaches_before_the_close_returns_or_not_at_all) {
  struct hooked *self = &ending.hooked;
  struct rng rng = {rng_seed()};
  pthread_t threads[ENDING];
  uint64_t seeds[ENDING];
  long detached = 0, rounds = scaled(2000);
  CHECK_EQ(pthread_barrier_init(&ending.meeting, NULL, ENDING + 1), 0);
  for (long round = 0; round < rounds; round++) {
    hooked_open(self);
    for (int i = 0; i < ENDING; i++) {
      seeds[i] = rng_next(&rng);
      threads[i] = start(ends_soon, &seeds[i]);
    }
    meet(&ending.meeting);
    dawdle_for_a_while(&rng);
    scope_close(self->scope);
    int before = load_int(&self->detached);
    hooked_closed(self);
    for (int i = 0; i < ENDING; i++) join(threads[i]);
    CHECK_EQ(self->attached, ENDING);
    CHECK_EQ(self->detached, before);
    detached += before;
  }
  printf("%s: %ld of %ld detached\n", harness_current, detached, rounds * ENDING);
}

/* --- long lives --------------------------------------------------------------------------- */

static void *outlives_thousands_of_scopes(void *arg) {
  struct hooked self;
  struct mallinfo2 before = {0};
  long rounds = scaled(20000);
  for (long i = -100; i < rounds; i++) {
    if (i == 0) before = mallinfo2();
    hooked_open(&self);
    hooked_call(&self, 0);
    hooked_close(&self);
    CHECK_EQ(self.attached, 1);
    CHECK_EQ(self.detached, 0);
  }
  struct mallinfo2 after = mallinfo2();
  int64_t grown = (int64_t)after.uordblks - (int64_t)before.uordblks;
  printf("%s: heap %+lld bytes\n", harness_current, (long long)grown);
  CHECK(grown < 64 * 1024);
  return arg;
}

TEST(a_thread_that_outlives_thousands_of_scopes_keeps_nothing_of_them) {
  run_on_thread(outlives_thousands_of_scopes, NULL);
}

static int64_t time_of_calls(struct hooked *all, int scopes) {
  enum { IN_ALL = 40000 };
  int64_t best = INT64_MAX;
  for (int turn = 0; turn < 5; turn++) {
    int64_t begun = now_ns();
    for (int i = 0; i < IN_ALL; i++)
      CHECK_OK(cbr_call(all[i % scopes].all[0].handle, NULL, NULL));
    int64_t took = now_ns() - begun;
    if (took < best) best = took;
  }
  return best;
}

TEST(calls_into_thousands_of_scopes_are_not_slower_by_their_number) {
  enum { FEW_SCOPES = 4, MANY_SCOPES = 4000 };
  struct hooked *all = (struct hooked *)calloc(MANY_SCOPES, sizeof *all);
  CHECK(all != NULL);
  for (int i = 0; i < MANY_SCOPES; i++) {
    hooked_open_without_callbacks(&all[i]);
    subject_register_in(&all[i].all[0], all[i].scope);
  }
  int64_t few = time_of_calls(all, FEW_SCOPES), many = time_of_calls(all, MANY_SCOPES);
  printf("%s: %lld ns a call in %d scopes, %lld in %d\n", harness_current, (long long)few / 40000,
         FEW_SCOPES, (long long)many / 40000, MANY_SCOPES);
  CHECK(many < few * 30); /* they miss the caches, and met thousands of attachments each */
  for (int i = 0; i < MANY_SCOPES; i++) scope_close(all[i].scope);
  free(all);
}

/* The forking thread is the child's only one, and is attached there as it was. */
TEST(in_the_child_of_a_fork_the_forking_thread_stays_attached_and_no_other_is_detached) {
  struct hooked self;
  struct survivor survivor;
  if (HARNESS_SANITIZED) SKIP("a lock of the sanitizer may be held by another thread at the fork");
  hooked_open(&self);
  survivor_start(&survivor, &self);
  calls_all(&self);
  CHECK_EQ(self.attached, 2);
  pid_t child = fork_watched();
  if (child == 0) {
    calls_all(&self);
    CHECK_EQ(self.attached, 2);
    run_on_thread(calls_all, &self);
    CHECK_EQ(self.attached, 3);
    CHECK_EQ(self.detached, 1);
    hooked_close(&self);
    CHECK_EQ(self.detached, 1);
    _exit(0);
  }
  check_child_passed(child);
  survivor_end(&survivor);
  CHECK_EQ(self.detached, 1);
  hooked_close(&self);
}
