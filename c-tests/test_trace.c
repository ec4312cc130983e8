/* Trace contexts: a thread's own, and those that events bring from where they were posted. What
 * tracers see of calls: test_trace_hooks. */
#include "support_child.h"
#include "support_memory.h"
#include "support_queue.h"

#include <malloc.h>
#include <setjmp.h>

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define FIRST "00-" TRACE "-00f067aa0ba902b7-01"
#define SECOND "00-" TRACE "-b7ad6b7169203331-00"
#define THIRD "00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01"
#define LATER "cc-" TRACE "-00f067aa0ba902b7-01-what=ever;is,there"

#define CHECK_CONTEXT(expected) check_context(__FILE__, __LINE__, (expected))
#define CHECK_NO_CONTEXT() CHECK_CONTEXT("")

static void check_context(const char *file, int line, const char *expected) {
  char text[256] = "rubbish";
  size_t needed = cbr_trace_get(text, sizeof text);
  harness_check_str(file, line, "cbr_trace_get", text, expected);
  harness_check_eq(file, line, "needed", "its length", (intmax_t)needed,
                   (intmax_t)strlen(expected));
}

/* --- a thread's own --------------------------------------------------------------------------- */

TEST(a_thread_has_none_then_the_one_that_it_has_set_then_none) {
  CHECK_NO_CONTEXT();
  CHECK_OK(cbr_trace_set(NULL));
  CHECK_NO_CONTEXT();
  CHECK_OK(cbr_trace_set(FIRST));
  CHECK_CONTEXT(FIRST);
  CHECK_OK(cbr_trace_set(SECOND));
  CHECK_CONTEXT(SECOND);
  CHECK_OK(cbr_trace_set(LATER));
  CHECK_CONTEXT(LATER);
  CHECK_OK(cbr_trace_set(NULL));
  CHECK_NO_CONTEXT();
}

TEST(it_is_copied) {
  char text[] = FIRST;
  CHECK_OK(cbr_trace_set(text));
  memset(text, 'x', sizeof text);
  CHECK_CONTEXT(FIRST);
}

TEST(get_writes_as_much_as_has_room) {
  char text[60];
  CHECK_EQ(cbr_trace_get(NULL, 0), 0);
  CHECK_OK(cbr_trace_set(FIRST));
  CHECK_EQ(cbr_trace_get(NULL, 0), 55);
  CHECK_EQ(cbr_trace_get(NULL, 100), 55);
  for (size_t room = 0; room < sizeof text; room++) {
    memset(text, 'x', sizeof text);
    CHECK_EQ(cbr_trace_get(text, room), 55);
    size_t written = room == 0 ? 0 : room - 1 < 55 ? room - 1 : 55;
    CHECK(memcmp(text, FIRST, written) == 0);
    if (room > 0) CHECK_EQ(text[written], '\0');
    for (size_t i = room; i < sizeof text; i++) CHECK_EQ(text[i], 'x');
  }
  CHECK_OK(cbr_trace_set(NULL));
  memset(text, 'x', sizeof text);
  CHECK_EQ(cbr_trace_get(text, sizeof text), 0);
  CHECK_STR(text, "");
}

/* Each is wrong in one way: at a place of FIRST stands something else, or it ends there. */
TEST(what_is_no_traceparent_is_refused_in_words_and_changes_nothing) {
  static const struct {
    const char *text, *words;
  } wrong[] = {
      {"", "55"},
      {"00-" TRACE "-00f067aa0ba902b7-0", "55"},
      {"00-" TRACE "-00f067aa0ba902b7-01-", "version 00"},
      {"00-" TRACE "-00f067aa0ba902b7-01 ", "version 00"},
      {"ff-" TRACE "-00f067aa0ba902b7-01", "version ff"},
      {"ff-" TRACE "-00f067aa0ba902b7-01-more", "version ff"},
      {"0G-" TRACE "-00f067aa0ba902b7-01", "hexadecimal"},
      {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", "lower case"},
      {"00-" TRACE "-00F067aa0ba902b7-01", "lower case"},
      {"00-" TRACE "-00f067aa0ba902b7-0A", "lower case"},
      {"00_" TRACE "-00f067aa0ba902b7-01", "hexadecimal"},
      {"00-" TRACE "_00f067aa0ba902b7-01", "hexadecimal"},
      {"00-" TRACE "-00f067aa0ba902b7_01", "hexadecimal"},
      {" 0-" TRACE "-00f067aa0ba902b7-01", "hexadecimal"},
      {"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "trace-id"},
      {"00-" TRACE "-0000000000000000-01", "parent-id"},
      {"01-" TRACE "-00f067aa0ba902b7-01.", "'-'"},
      {"01-" TRACE "-00f067aa0ba902b7-011", "'-'"},
      {"01-" TRACE "-00f067aa0ba902b7-01-\n", "printed"},
      {"01-" TRACE "-00f067aa0ba902b7-01-\xff", "printed"},
      {"01-" TRACE "-\xc3\xbc", "55"},
  };
  CHECK_OK(cbr_trace_set(SECOND));
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    CHECK_STATUS(cbr_trace_set(wrong[i].text), CBR_ERR_INVALID);
    CHECK_WORDS("cbr_trace_set");
    CHECK_WORDS(wrong[i].words);
    CHECK_CONTEXT(SECOND);
  }
}

TEST(later_versions_are_kept_as_they_are_up_to_255_characters) {
  char text[300] = "cc-" TRACE "-00f067aa0ba902b7-01";
  CHECK_OK(cbr_trace_set(text));
  CHECK_CONTEXT(text);
  size_t len = strlen(text);
  text[len++] = '-';
  CHECK_OK(cbr_trace_set(text));
  CHECK_CONTEXT(text);
  for (; len < 255; len++) text[len] = (char)('!' + len % 94);
  CHECK_OK(cbr_trace_set(text));
  CHECK_CONTEXT(text);
  text[len] = 'x';
  CHECK_REFUSED(cbr_trace_set(text), CBR_ERR_INVALID);
  CHECK_OK(cbr_trace_set("fe-" TRACE "-00f067aa0ba902b7-ff"));
}

static void *has_none_sets_its_own_and_ends(void *arg) {
  CHECK_NO_CONTEXT();
  CHECK_REFUSED(cbr_trace_set(""), CBR_ERR_INVALID); /* now the library knows the thread */
  CHECK_NO_CONTEXT();
  CHECK_OK(cbr_trace_set((const char *)arg));
  CHECK_CONTEXT((const char *)arg);
  return NULL;
}

/* The second thread may well get what the library had kept for the first. */
TEST(every_thread_has_its_own_and_it_ends_with_the_thread) {
  CHECK_OK(cbr_trace_set(FIRST));
  for (int i = 0; i < 3; i++) run_on_thread(has_none_sets_its_own_and_ends, (void *)SECOND);
  CHECK_CONTEXT(FIRST);
}

static intptr_t sets(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_trace_set((const char *)arg));
  return 0;
}

TEST(a_direct_call_shares_its_callers) {
  struct subject it;
  subject_register(&it);
  CHECK_OK(cbr_trace_set(FIRST));
  CHECK_OK(subject_run(&it, sets, (void *)SECOND, NULL));
  CHECK_CONTEXT(SECOND);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- across queues ------------------------------------------------------------------------------ */

/* A listener writes down under which contexts it was called, and may do something then. */
struct listener {
  cbr_handle handle;
  int count, destroyed;
  char contexts[HEARD][64];
  char payloads[HEARD][64];
  void (*then)(struct listener *);
  void *extra;
};

static intptr_t listener_fn(void *user_data, void *arg) {
  struct listener *it = (struct listener *)user_data;
  const cbr_event *event = cbr_current_event();
  char context[64] = "";
  CHECK(it->count < HEARD);
  cbr_trace_get(context, sizeof context);
  strcpy(it->contexts[it->count], context);
  CHECK(event != NULL);
  CHECK_STR(event->traceparent != NULL ? event->traceparent : "", context);
  CHECK((event->traceparent == NULL) == (context[0] == '\0'));
  if (event->len > 0 && event->len < 64) {
    CHECK(event->data == arg);
    CHECK_EQ((uintptr_t)arg % 8, 0);
    memcpy(it->payloads[it->count], arg, event->len);
  }
  it->count++;
  if (it->then != NULL) it->then(it);
  return it->count;
}

static void listener_destroy(void *user_data) {
  CHECK_EQ(++((struct listener *)user_data)->destroyed, 1);
}

static void listener_register(struct listener *it, void (*then)(struct listener *), void *extra) {
  memset(it, 0, sizeof *it);
  it->then = then;
  it->extra = extra;
  CHECK_OK(cbr_register(listener_fn, it, listener_destroy, &it->handle));
}

static void listener_end(struct listener *it) {
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_EQ(it->destroyed, 1);
}

/* Posts under this context, which then is not the thread's any more. */
static cbr_status post_under(const char *context, cbr_queue queue, struct listener *it,
                             const void *data, size_t len) {
  CHECK_OK(cbr_trace_set(context));
  cbr_status posted = cbr_post(queue, it->handle, data, len);
  CHECK_CONTEXT(context != NULL ? context : "");
  CHECK_OK(cbr_trace_set(NULL));
  return posted;
}

#define CHECK_HEARD_UNDER(it, ...)                                                 \
  check_heard_under(__FILE__, __LINE__, (it), (const char *const[]){__VA_ARGS__},  \
                    (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

static void check_heard_under(const char *file, int line, struct listener *it,
                              const char *const *contexts, int count) {
  for (int i = 0; i < count && i < it->count; i++)
    harness_check_str(file, line, "the context of a call", it->contexts[i], contexts[i]);
  if (it->count != count) harness_fail(file, line, "called %d times, not %d", it->count, count);
  it->count = 0;
}

TEST(an_event_brings_its_posters_context_and_the_dispatchers_own_comes_back) {
  struct listener it;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&it, NULL, NULL);
  for (int round = 0; round < 2; round++) {
    CHECK_OK(post_under(FIRST, queue, &it, NULL, 0));
    CHECK_OK(post_under(NULL, queue, &it, NULL, 0));
    CHECK_OK(post_under(SECOND, queue, &it, NULL, 0));
    CHECK_OK(post_under(NULL, queue, &it, NULL, 0));
    if (round == 1) CHECK_OK(cbr_trace_set(THIRD));
    dispatch_some(queue, 1);
    CHECK_CONTEXT(round == 1 ? THIRD : "");
    dispatch_all(queue);
    CHECK_CONTEXT(round == 1 ? THIRD : "");
    CHECK_HEARD_UNDER(&it, FIRST, "", SECOND, "");
  }
  queue_discard(queue);
  listener_end(&it);
}

static void *posts_under_second(void *arg) {
  void **both = (void **)arg;
  CHECK_OK(cbr_trace_set(SECOND));
  CHECK_OK(cbr_post(*(cbr_queue *)both[0], ((struct listener *)both[1])->handle, "x", 1));
  return NULL;
}

/* The poster's thread is gone, and has taken its context with it. */
TEST(a_context_outlives_its_thread) {
  struct listener it;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  void *both[] = {&queue, &it};
  listener_register(&it, NULL, NULL);
  run_on_thread(posts_under_second, both);
  run_on_thread(has_none_sets_its_own_and_ends, (void *)THIRD);
  dispatch_all(queue);
  CHECK_HEARD_UNDER(&it, SECOND);
  queue_discard(queue);
  listener_end(&it);
}

/* With a context and without, of every size around those that lie in an event. */
TEST(payloads_of_every_size_come_whole_under_a_context) {
  struct listener it;
  char bytes[64];
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&it, NULL, NULL);
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)('A' + i);
  for (size_t len = 0; len <= 56; len++) {
    CHECK_OK(post_under(FIRST, queue, &it, bytes, len));
    CHECK_OK(post_under(NULL, queue, &it, bytes, len));
    CHECK_EQ(dispatch_all(queue), 2);
    for (int i = 0; i < 2; i++) {
      CHECK(memcmp(it.payloads[i], bytes, len) == 0);
      CHECK_EQ(it.payloads[i][len], 0);
      memset(it.payloads[i], 0, sizeof it.payloads[i]);
    }
    CHECK_HEARD_UNDER(&it, FIRST, "");
  }
  queue_discard(queue);
  listener_end(&it);
}

static void sets_third(struct listener *it) {
  (void)it;
  CHECK_OK(cbr_trace_set(THIRD));
  CHECK_CONTEXT(THIRD);
  CHECK_OK(cbr_trace_set(SECOND));
}
static void sets_none(struct listener *it) {
  (void)it;
  CHECK_OK(cbr_trace_set(NULL));
  CHECK_NO_CONTEXT();
}

/* Of an event with a context and of one without, on a thread with one and on one without; and what
 * the event had brought is to be seen till the end. */
TEST(what_a_dispatched_callback_sets_ends_with_it) {
  struct listener it;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&it, NULL, NULL);
  for (int round = 0; round < 4; round++) {
    const char *own = round % 2 == 0 ? NULL : FIRST;
    it.then = round < 2 ? sets_third : sets_none;
    CHECK_OK(post_under(NULL, queue, &it, "0123456789012345678901234567890123456789", 40));
    CHECK_OK(post_under(SECOND, queue, &it, NULL, 0));
    CHECK_OK(post_under(NULL, queue, &it, NULL, 0));
    CHECK_OK(cbr_trace_set(own));
    for (int i = 0; i < 3; i++) {
      dispatch_some(queue, 1);
      CHECK_CONTEXT(own != NULL ? own : "");
    }
    CHECK_HEARD_UNDER(&it, "", SECOND, "");
  }
  queue_discard(queue);
  listener_end(&it);
}

static void sees_its_event_though_it_sets_another(struct listener *it) {
  const cbr_event *event = cbr_current_event();
  (void)it;
  CHECK_OK(cbr_trace_set(THIRD));
  CHECK(cbr_current_event() == event);
  CHECK_STR(event->traceparent, SECOND);
  CHECK_OK(cbr_trace_set(NULL));
  CHECK_STR(event->traceparent, SECOND);
}

TEST(the_events_own_context_is_to_be_seen_whatever_its_callback_sets) {
  struct listener it;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&it, sees_its_event_though_it_sets_another, NULL);
  CHECK_OK(post_under(SECOND, queue, &it, NULL, 0));
  dispatch_all(queue);
  CHECK_HEARD_UNDER(&it, SECOND);
  queue_discard(queue);
  listener_end(&it);
}

static void posts_to_extra(struct listener *it) {
  struct listener *next = (struct listener *)it->extra;
  CHECK_OK(cbr_post(cbr_current_event()->queue, next->handle, NULL, 0));
}

TEST(what_a_callback_posts_goes_on_with_its_context) {
  struct listener first, second, third;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&third, NULL, NULL);
  listener_register(&second, posts_to_extra, &third);
  listener_register(&first, posts_to_extra, &second);
  CHECK_OK(post_under(FIRST, queue, &first, NULL, 0));
  CHECK_OK(post_under(NULL, queue, &first, NULL, 0));
  CHECK_OK(post_under(SECOND, queue, &first, NULL, 0));
  CHECK_OK(cbr_trace_set(THIRD));
  CHECK_EQ(dispatch_all(queue), 9);
  CHECK_HEARD_UNDER(&first, FIRST, "", SECOND);
  CHECK_HEARD_UNDER(&second, FIRST, "", SECOND);
  CHECK_HEARD_UNDER(&third, FIRST, "", SECOND);
  queue_discard(queue);
  listener_end(&first);
  listener_end(&second);
  listener_end(&third);
}

static void dispatches_extra(struct listener *it) {
  char before[64] = "";
  cbr_trace_get(before, sizeof before);
  dispatch_all(*(cbr_queue *)it->extra);
  CHECK_CONTEXT(before);
}

/* Events with and without one, inside events with and without one. */
TEST(a_nested_dispatch_gives_back_the_context_that_it_found) {
  struct listener outer, inner;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0), nested = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&outer, dispatches_extra, &nested);
  listener_register(&inner, sets_third, NULL);
  for (int round = 0; round < 2; round++) {
    CHECK_OK(post_under(NULL, nested, &inner, NULL, 0));
    CHECK_OK(post_under(SECOND, nested, &inner, NULL, 0));
    CHECK_OK(post_under(NULL, nested, &inner, NULL, 0));
    CHECK_OK(post_under(round == 0 ? FIRST : NULL, queue, &outer, NULL, 0));
    dispatch_all(queue);
    CHECK_NO_CONTEXT();
    CHECK_HEARD_UNDER(&outer, round == 0 ? FIRST : "");
    CHECK_HEARD_UNDER(&inner, "", SECOND, "");
  }
  queue_discard(queue);
  queue_discard(nested);
  listener_end(&outer);
  listener_end(&inner);
}

static void sets_third_in_destroy(struct subject *it) {
  (void)it;
  CHECK_OK(cbr_trace_set(THIRD));
}

static void runs_a_destroy_in_a_nested_dispatch(struct listener *it) {
  cbr_queue *nested = (cbr_queue *)it->extra;
  struct subject ends;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  subject_reset(&ends);
  ends.on_destroy = sets_third_in_destroy;
  options.fn = (cbr_any_fn)subject_fn;
  options.user_data = &ends;
  options.destroy = subject_destroy;
  options.destroy_queue = *nested;
  CHECK_OK(cbr_register_with(&options, &ends.handle));
  CHECK_OK(cbr_unregister(ends.handle));
  CHECK_EQ(ends.destroyed, 0);
  CHECK_EQ(dispatch_some(*nested, 0), 1);
  CHECK_EQ(ends.destroyed, 1);
  CHECK_CONTEXT(THIRD);
}

/* No event is delivered there but the outer one's. */
TEST(what_a_destroy_function_sets_in_a_nested_dispatch_ends_with_the_outer_callback) {
  struct listener it;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  cbr_queue nested = queue_open(8, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED);
  listener_register(&it, runs_a_destroy_in_a_nested_dispatch, &nested);
  CHECK_OK(post_under(NULL, queue, &it, NULL, 0));
  CHECK_OK(post_under(FIRST, queue, &it, NULL, 0));
  for (int i = 0; i < 2; i++) {
    CHECK_OK(cbr_trace_set(i == 0 ? NULL : SECOND));
    dispatch_some(queue, 1);
    CHECK_CONTEXT(i == 0 ? "" : SECOND);
  }
  CHECK_HEARD_UNDER(&it, "", FIRST);
  queue_discard(queue);
  queue_discard(nested);
  listener_end(&it);
}

struct call_under {
  cbr_queue queue;
  struct listener *it;
  const char *context;
};

static void *calls_on(void *arg) {
  struct call_under *self = (struct call_under *)arg;
  intptr_t result = 0;
  CHECK_OK(cbr_trace_set(self->context));
  CHECK_OK(cbr_call_on(self->queue, self->it->handle, NULL, -1, &result));
  CHECK_EQ(result, 1);
  CHECK_CONTEXT(self->context != NULL ? self->context : "");
  return NULL;
}

TEST(a_call_on_runs_under_its_callers_context) {
  static const char *const contexts[] = {FIRST, NULL, SECOND};
  struct listener it;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&it, sets_third, NULL);
  CHECK_OK(cbr_trace_set(THIRD));
  for (int i = 0; i < 3; i++) {
    struct call_under call = {queue, &it, contexts[i]};
    pthread_t caller = start(calls_on, &call);
    CHECK_OK(cbr_queue_dispatch(queue, 1, -1, NULL));
    join(caller);
    CHECK_CONTEXT(THIRD);
    CHECK_HEARD_UNDER(&it, contexts[i] != NULL ? contexts[i] : "");
  }
  queue_discard(queue);
  listener_end(&it);
}

/* --- whatever becomes of events ------------------------------------------------------------------ */

static jmp_buf landing;
static void jumps(struct listener *it) {
  (void)it;
  CHECK_OK(cbr_trace_set(THIRD));
  longjmp(landing, 1);
}

/* For each an event with a context, one without, and a call whose caller has one. */
TEST(a_longjmp_out_of_a_dispatch_gives_the_dispatchers_context_back) {
  struct listener it;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&it, jumps, NULL);
  for (volatile int round = 0; round < 4; round++) {
    CHECK_OK(post_under(round % 2 == 0 ? FIRST : NULL, queue, &it, NULL, 0));
    CHECK_OK(cbr_trace_set(round < 2 ? SECOND : NULL));
    if (setjmp(landing) == 0) {
      dispatch_all(queue);
      FAIL("the callback has returned");
    }
    CHECK_OK(cbr_unwind_to(0));
    CHECK_CONTEXT(round < 2 ? SECOND : "");
    CHECK_HEARD_UNDER(&it, round % 2 == 0 ? FIRST : "");
  }
  queue_discard(queue);
  listener_end(&it);
}

static void *fails_to_call_on(void *arg) {
  struct call_under *self = (struct call_under *)arg;
  CHECK_OK(cbr_trace_set(self->context));
  CHECK_STATUS(cbr_call_on(self->queue, self->it->handle, NULL, -1, NULL), CBR_ERR_CALLBACK);
  return NULL;
}

TEST(a_longjmp_out_of_a_call_on_gives_the_dispatchers_context_back) {
  struct listener it;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&it, jumps, NULL);
  for (volatile int round = 0; round < 2; round++) {
    struct call_under call = {queue, &it, round == 0 ? FIRST : NULL};
    pthread_t caller = start(fails_to_call_on, &call);
    CHECK_OK(cbr_trace_set(SECOND));
    if (setjmp(landing) == 0) {
      CHECK_OK(cbr_queue_dispatch(queue, 1, -1, NULL));
      FAIL("the callback has returned");
    }
    CHECK_OK(cbr_unwind_to(0));
    join(caller);
    CHECK_CONTEXT(SECOND);
    CHECK_HEARD_UNDER(&it, round == 0 ? FIRST : "");
  }
  queue_discard(queue);
  listener_end(&it);
}

/* How much of the heap is in use. */
static size_t in_use(void) { return mallinfo2().uordblks; }

static const char forty[] = "0123456789012345678901234567890123456789";

/* Posts of all kinds: small, large, taken over, taken over with an owner. */
static int post_all_kinds(cbr_queue queue, cbr_handle handle, struct payload *payload,
                          struct payload *owned, cbr_scope owner) {
  int accepted = 0;
  char large[100] = "";
  accepted += cbr_post(queue, handle, "x", 1) == CBR_OK;
  accepted += cbr_post(queue, handle, forty, 40) == CBR_OK;
  accepted += cbr_post(queue, handle, large, sizeof large) == CBR_OK;
  accepted += payload_post(payload, 1, queue, handle, 0) == CBR_OK;
  accepted += payload_post(owned, 1, queue, handle, owner) == CBR_OK;
  return accepted;
}

/* Every way out, again and again: what is not freed would add up, and what is freed twice would
 * show as another context, or end the process. (A context takes 64 bytes of the heap here.) */
TEST(a_context_is_freed_once_on_every_way_out_of_a_queue) {
  enum { ROUNDS = 200 };
  struct listener it;
  struct ear gone;
  struct payload payload, owned, more[2], full_payloads[2];
  size_t before = 0;
  listener_register(&it, NULL, NULL);
  for (int round = 0; round < ROUNDS + 50; round++) {
    cbr_scope owner = scope_open("owner");
    cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
    cbr_queue small = queue_open(2, CBR_QUEUE_DROP_OLDEST, 0);
    cbr_queue merged = queue_open(8, CBR_QUEUE_REJECT, CBR_QUEUE_COALESCE);
    cbr_queue closed = queue_open(8, CBR_QUEUE_REJECT, 0), full = queue_open(1, CBR_QUEUE_REJECT, 0);
    if (round == 50) before = in_use(); /* with what is made once */
    /* dispatched; refused because full; dispatched when the callback is gone; the scope closes */
    CHECK_OK(cbr_trace_set(FIRST));
    CHECK_EQ(post_all_kinds(queue, it.handle, &payload, &owned, owner), 5);
    CHECK_EQ(dispatch_all(queue), 5);
    CHECK_HEARD_UNDER(&it, FIRST, FIRST, FIRST, FIRST, FIRST);
    CHECK_EQ(post_all_kinds(queue, it.handle, &payload, &owned, owner), 5);
    CHECK_EQ(post_all_kinds(queue, it.handle, &more[0], &more[1], owner), 3);
    CHECK_EQ(post_all_kinds(full, it.handle, &full_payloads[0], &full_payloads[1], owner), 1);
    CHECK_STATUS(cbr_call_on(full, it.handle, NULL, 0, NULL), CBR_ERR_FULL);
    CHECK_STATUS(cbr_call_on(closed, it.handle, NULL, 0, NULL), CBR_ERR_TIMEOUT);
    ear_register(&gone);
    CHECK_OK(post_number(closed, &gone, 1));
    ear_end(&gone);
    CHECK_OK(cbr_trace_set(NULL));
    dispatch_all(queue);
    CHECK_EQ(it.count, 8);
    it.count = 0;
    CHECK_EQ(dispatch_all(closed), 1);
    /* displaced by younger ones, and by their successors */
    CHECK_OK(cbr_trace_set(SECOND));
    CHECK_EQ(post_all_kinds(small, it.handle, &payload, &owned, owner), 5);
    CHECK_EQ(post_all_kinds(merged, it.handle, &more[0], &more[1], owner), 5);
    CHECK_OK(cbr_trace_set(NULL));
    CHECK_EQ(dispatch_some(merged, 0), 1);
    CHECK_HEARD_UNDER(&it, SECOND);
    /* owned by a scope that closes; in a queue that is closed */
    CHECK_OK(cbr_trace_set(THIRD));
    CHECK_EQ(post_all_kinds(closed, it.handle, &more[0], &more[1], owner), 5);
    CHECK_OK(cbr_trace_set(NULL));
    scope_close(owner);
    CHECK_EQ(queue_len(closed), 4);
    CHECK_EQ(queue_len(small), 1);
    queue_discard(closed);
    queue_discard(small);
    queue_discard(full);
    queue_discard(merged);
    queue_discard(queue);
    /* refused, with nothing taken */
    CHECK_OK(cbr_trace_set(FIRST));
    CHECK_EQ(post_all_kinds(closed, it.handle, &more[0], &more[1], 0), 0);
    CHECK_OK(cbr_trace_set(NULL));
  }
  /* Less than a fifth of one context a round. */
  if (!under_valgrind() && !HARNESS_SANITIZED)
    CHECK((intptr_t)(in_use() - before) < ROUNDS * 64 / 5);
  listener_end(&it);
}

static void *ends_with_context(void *arg) {
  (void)arg;
  CHECK_OK(cbr_trace_set(FIRST));
  return NULL;
}

TEST(a_thread_that_ends_frees_its_context) {
  enum { ROUNDS = 500 };
  size_t before = 0;
  for (int round = 0; round < ROUNDS + 10; round++) {
    if (round == 10) before = in_use();
    run_on_thread(ends_with_context, NULL);
  }
  if (!under_valgrind() && !HARNESS_SANITIZED)
    CHECK((intptr_t)(in_use() - before) < ROUNDS * 64 / 5);
}

static void exits_thread(struct listener *it) {
  (void)it;
  CHECK_OK(cbr_trace_set(THIRD));
  pthread_exit(NULL);
}

static void *dispatches_with_context(void *arg) {
  CHECK_OK(cbr_trace_set(SECOND));
  dispatch_all(*(cbr_queue *)arg);
  FAIL("the callback has returned");
}

TEST(a_callback_that_ends_its_thread_frees_all_contexts) {
  enum { ROUNDS = 200 };
  struct listener it;
  size_t before = 0;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&it, exits_thread, NULL);
  for (int round = 0; round < ROUNDS + 10; round++) {
    if (round == 10) before = in_use();
    CHECK_OK(post_under(FIRST, queue, &it, forty, 40));
    run_on_thread(dispatches_with_context, &queue);
    CHECK_HEARD_UNDER(&it, FIRST);
  }
  if (!under_valgrind() && !HARNESS_SANITIZED)
    CHECK((intptr_t)(in_use() - before) < ROUNDS * 64 / 5);
  queue_discard(queue);
  listener_end(&it);
}

TEST(in_the_child_of_a_fork_the_thread_has_its_context) {
  struct listener it;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  listener_register(&it, NULL, NULL);
  CHECK_OK(post_under(SECOND, queue, &it, forty, 40));
  CHECK_OK(cbr_trace_set(FIRST));
  pid_t child = fork_watched();
  if (child == 0) {
    CHECK_CONTEXT(FIRST);
    CHECK_STATUS(cbr_post(queue, it.handle, forty, 40), CBR_ERR_CLOSED);
    cbr_queue own = queue_open(8, CBR_QUEUE_REJECT, 0);
    CHECK_OK(cbr_post(own, it.handle, forty, 40));
    CHECK_OK(cbr_trace_set(NULL));
    dispatch_all(own);
    CHECK_HEARD_UNDER(&it, FIRST);
    run_on_thread(has_none_sets_its_own_and_ends, (void *)THIRD);
    _exit(0);
  }
  check_child_passed(child);
  dispatch_all(queue);
  CHECK_HEARD_UNDER(&it, SECOND);
  queue_discard(queue);
  listener_end(&it);
}

TEST(without_memory_a_context_is_refused_and_a_post_with_one_too) {
  struct listener it;
  skip_where_limits_do_not_work();
  cbr_queue queue = queue_open(1 << 20, CBR_QUEUE_REJECT, 0);
  listener_register(&it, NULL, NULL);
  CHECK_OK(post_under(NULL, queue, &it, NULL, 0)); /* its first one does take memory */
  dispatch_all(queue);
  CHECK_OK(cbr_trace_set(FIRST));
  /* Whatever can be had of the heap, down to the last small block. */
  limit_address_space(0);
  for (size_t size = 1 << 20; size >= 16; size /= 2)
    while (malloc(size) != NULL) {
    }
  CHECK_STATUS(cbr_trace_set(SECOND), CBR_ERR_NOMEM);
  CHECK_CONTEXT(FIRST);
  CHECK_OK(cbr_post(queue, it.handle, "x", 1)); /* takes none */
  CHECK_STATUS(cbr_post(queue, it.handle, forty, 40), CBR_ERR_NOMEM);
  CHECK_EQ(queue_len(queue), 1);
  CHECK_OK(cbr_trace_set(NULL));
  CHECK_OK(cbr_post(queue, it.handle, forty, 40)); /* nor does this one */
}

/* --- with many threads ---------------------------------------------------------------------------- */

enum { POSTERS = 3 };

struct poster {
  cbr_queue queue;
  cbr_handle handle;
  int number;
  long posts;
  pthread_t thread;
};

static void context_of(char *text, int poster, long number) {
  snprintf(text, 56, "00-%032x-%016lx-01", poster + 1, number + 1);
}

static void *posts_many(void *arg) {
  struct poster *self = (struct poster *)arg;
  for (long i = 0; i < self->posts; i++) {
    char context[64] = "";
    char bytes[48] = "";
    /* Every third one has none; sizes on both sides of what needs memory. */
    if (i % 3 != 2) {
      context_of(context, self->number, i);
      memcpy(bytes, &i, sizeof i);
      bytes[8] = (char)self->number;
    }
    CHECK_OK(cbr_trace_set(context[0] != '\0' ? context : NULL));
    CHECK_OK(cbr_post(self->queue, self->handle, bytes, 16 + (size_t)(i % 4) * 8));
  }
  return NULL;
}

static int mismatches, heard;

static intptr_t compares(void *user_data, void *arg) {
  char expected[64] = "", context[64] = "";
  const char *bytes = (const char *)arg;
  long number;
  (void)user_data;
  memcpy(&number, bytes, sizeof number);
  if (number != 0 || bytes[8] != 0 || cbr_current_event()->traceparent != NULL)
    context_of(expected, bytes[8], number);
  cbr_trace_get(context, sizeof context);
  if (strcmp(expected, context) != 0) add_int(&mismatches, 1);
  if (number % 5 == 0) cbr_trace_set(number % 2 == 0 ? NULL : FIRST);
  add_int(&heard, 1);
  return 0;
}

TEST(every_event_has_its_own_context_whoever_posts_and_dispatches_meanwhile) {
  struct poster posters[POSTERS];
  struct loop loops[2];
  cbr_handle handle;
  long posts = scaled(30000);
  cbr_queue queue = queue_open(64, CBR_QUEUE_BLOCK, 0);
  CHECK_OK(cbr_register(compares, NULL, NULL, &handle));
  for (int i = 0; i < 2; i++) loop_start(&loops[i], queue, false);
  for (int i = 0; i < POSTERS; i++) {
    posters[i] = (struct poster){queue, handle, i, posts, 0};
    posters[i].thread = start(posts_many, &posters[i]);
  }
  for (int i = 0; i < POSTERS; i++) join(posters[i].thread);
  for (int i = 0; i < 2; i++) loop_end(&loops[i]);
  CHECK_EQ(mismatches, 0);
  CHECK_EQ(heard, POSTERS * posts);
  CHECK_OK(cbr_unregister(handle));
}
