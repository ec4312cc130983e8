/* Queues: opening, posting, dispatching and closing; what happens to every payload and to every
 * event's callback. */
#include "support_child.h"
#include "support_memory.h"
#include "support_queue.h"
#include "support_random.h"

/* --- open ---------------------------------------------------------------------------------- */

TEST(the_initializers_set_the_size_and_nothing_else) {
  cbr_queue_options queue = CBR_QUEUE_OPTIONS_INIT, no_queue;
  cbr_post_options post = CBR_POST_OPTIONS_INIT, no_post;
  memset(&no_queue, 0, sizeof no_queue);
  memset(&no_post, 0, sizeof no_post);
  no_queue.size = sizeof queue;
  no_post.size = sizeof post;
  CHECK(memcmp(&queue, &no_queue, sizeof queue) == 0);
  CHECK(memcmp(&post, &no_post, sizeof post) == 0);
}

/* So many fit, and one more does not. */
static void check_capacity(cbr_queue queue, size_t capacity) {
  struct subject it;
  subject_register(&it);
  for (size_t i = 0; i < capacity; i++) CHECK_OK(cbr_post(queue, it.handle, NULL, 0));
  CHECK_EQ(queue_len(queue), capacity);
  CHECK_REFUSED(cbr_post(queue, it.handle, NULL, 0), CBR_ERR_FULL);
  CHECK_EQ(queue_len(queue), capacity);
  CHECK_EQ(dispatch_all(queue), capacity);
  CHECK_EQ(it.calls, capacity);
  CHECK_OK(cbr_post(queue, it.handle, NULL, 0));
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(without_options_a_queue_holds_1024_events_and_refuses_more) {
  cbr_queue queue = 0, another = 0;
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  CHECK_OK(cbr_queue_open(NULL, &queue));
  CHECK_OK(cbr_queue_open(&options, &another));
  CHECK(queue != 0 && another != 0 && queue != another);
  check_capacity(queue, 1024);
  check_capacity(another, 1024);
}

TEST(a_queue_holds_as_many_events_as_it_was_opened_for) {
  static const size_t capacities[] = {1, 2, 3, 4, 5, 7, 1000, 1025, 70000};
  for (size_t i = 0; i < sizeof capacities / sizeof capacities[0]; i++)
    check_capacity(queue_open(capacities[i], CBR_QUEUE_REJECT, 0), capacities[i]);
}

TEST(a_queue_of_one_event_works_for_ever) {
  cbr_queue queue = queue_open(1, CBR_QUEUE_REJECT, 0);
  struct ear ear;
  ear_register(&ear);
  for (int i = 0; i < 1000; i++) {
    CHECK_OK(post_number(queue, &ear, i));
    CHECK_STATUS(post_number(queue, &ear, -2), CBR_ERR_FULL);
    CHECK_EQ(dispatch_some(queue, 0), 1);
    CHECK_HEARD(&ear, i);
  }
  queue_discard(queue);
  ear_end(&ear);
}

static void check_open_refused(const cbr_queue_options *options, cbr_status expected) {
  cbr_queue queue = 99;
  CHECK_REFUSED(cbr_queue_open(options, &queue), expected);
  CHECK_EQ(queue, 99);
}

TEST(open_without_a_place_for_the_handle_is_invalid) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  CHECK_REFUSED(cbr_queue_open(&options, NULL), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_queue_open(NULL, NULL), CBR_ERR_INVALID);
}

TEST(unknown_policies_and_flags_are_invalid) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  static const uint32_t policies[] = {3, 4, 1000, UINT32_MAX};
  for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
    options.policy = policies[i];
    check_open_refused(&options, CBR_ERR_INVALID);
  }
  options.policy = CBR_QUEUE_REJECT;
  for (int bit = 2; bit < 32; bit++) {
    options.flags = UINT32_C(1) << bit | CBR_QUEUE_OWNED;
    check_open_refused(&options, CBR_ERR_INVALID);
  }
}

TEST(a_capacity_that_no_memory_can_hold_is_refused) {
  static const size_t capacities[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 64, (size_t)1 << 60};
  if (HARNESS_SANITIZED) SKIP("the sanitizer ends a process that asks for so much");
  for (size_t i = 0; i < sizeof capacities / sizeof capacities[0]; i++) {
    cbr_queue queue = 99;
    cbr_status status = queue_try_open(0, capacities[i], CBR_QUEUE_REJECT, 0, &queue);
    if (status != CBR_ERR_INVALID && status != CBR_ERR_LIMIT) CHECK_STATUS(status, CBR_ERR_NOMEM);
    CHECK_EQ(queue, 99);
  }
}

TEST(queue_options_too_small_for_the_first_version_are_invalid) {
  static const size_t sizes[] = {0,    1,       sizeof(size_t), sizeof(cbr_queue_options) - 1,
                                 4097, SIZE_MAX};
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    options.size = sizes[i];
    check_open_refused(&options, CBR_ERR_INVALID);
  }
}

TEST(larger_queue_options_are_accepted_while_their_tail_is_zero) {
  static union {
    cbr_queue_options options;
    unsigned char bytes[4096];
  } large;
  for (size_t extra = 1; extra <= sizeof large - sizeof large.options; extra = extra * 2 + 7) {
    cbr_queue queue = 0;
    memset(&large, 0, sizeof large);
    large.options.size = sizeof large.options + extra;
    CHECK_OK(cbr_queue_open(&large.options, &queue));
    queue_discard(queue);
    large.bytes[sizeof large.options] = 1;
    check_open_refused(&large.options, CBR_ERR_UNSUPPORTED);
    large.bytes[sizeof large.options] = 0;
    large.bytes[large.options.size - 1] = 0x80;
    check_open_refused(&large.options, CBR_ERR_UNSUPPORTED);
  }
}

TEST(a_queue_has_any_name_or_none) {
  char longest[257];
  static const char *const bad[] = {"\x80", "n\xc3", "\xed\xa0\x80"};
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  memset(longest, 'n', 256);
  longest[256] = '\0';
  options.name = longest;
  check_open_refused(&options, CBR_ERR_INVALID);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    options.name = bad[i];
    check_open_refused(&options, CBR_ERR_INVALID);
  }
  longest[255] = '\0';
  const char *const good[] = {NULL, "", "loop", "loop", longest, "\xc3\xa4\xe2\x82\xac"};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    options.name = good[i];
    CHECK_OK(cbr_queue_open(&options, &queue));
    queue_discard(queue);
  }
}

TEST(a_queue_is_opened_in_a_scope_that_is_open) {
  struct subject it;
  cbr_queue queue = 99;
  cbr_scope scope = scope_open("gone");
  scope_close(scope);
  subject_register(&it);
  CHECK_REFUSED(queue_try_open(scope, 0, 0, 0, &queue), CBR_ERR_STALE);
  CHECK_REFUSED(queue_try_open(it.handle, 0, 0, 0, &queue), CBR_ERR_KIND);
  CHECK_REFUSED(queue_try_open(77, 0, 0, 0, &queue), CBR_ERR_STALE);
  CHECK_EQ(queue, 99);
  CHECK_OK(cbr_unregister(it.handle));
}

/* --- descriptors --------------------------------------------------------------------------- */

static int open_descriptors(void) {
  int count = 0;
  for (int fd = 0; fd < 1024; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

static void limit_descriptors(int most) {
  struct rlimit limit = {(rlim_t)most, (rlim_t)most};
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static int highest_descriptor(void) {
  int highest = -1;
  for (int fd = 0; fd < 1024; fd++) {
    if (fcntl(fd, F_GETFD) >= 0) highest = fd;
  }
  return highest;
}

/* Takes every number below, so that there is none to be had. */
static void use_up_descriptors(void) {
  limit_descriptors(highest_descriptor() + 8);
  while (dup(STDERR_FILENO) >= 0) {
  }
  CHECK_EQ(errno, EMFILE);
}

TEST(without_descriptors_open_gives_a_status_and_leaks_nothing) {
  cbr_queue queue = 99;
  struct ear ear;
  ear_register(&ear);
  cbr_queue before = queue_open(4, CBR_QUEUE_REJECT, 0);
  int fd = dup(STDERR_FILENO);
  if (under_valgrind()) SKIP("valgrind keeps descriptors of its own");
  use_up_descriptors();
  int count = open_descriptors();
  for (int i = 0; i < 100; i++) {
    CHECK_REFUSED(cbr_queue_open(NULL, &queue), CBR_ERR_SYSTEM);
    CHECK_EQ(queue, 99);
    CHECK_EQ(open_descriptors(), count);
  }
  int none = 99;
  CHECK_REFUSED(cbr_queue_fd(before, &none), CBR_ERR_SYSTEM);
  CHECK_EQ(none, 99);
  CHECK_OK(post_number(before, &ear, 1)); /* what is open goes on */
  CHECK_EQ(dispatch_some(before, 0), 1);
  CHECK_HEARD(&ear, 1);
  queue_discard(before);
  close(fd);
  CHECK_OK(cbr_queue_open(NULL, &queue)); /* and so does opening */
  CHECK_OK(post_number(queue, &ear, 2));
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK_HEARD(&ear, 2);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(ten_thousand_queues_one_after_another_keep_no_descriptor) {
  struct subject it;
  subject_register(&it);
  int count = open_descriptors();
  for (long i = scaled(10000); i > 0; i--) {
    cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, i % 3 == 0 ? CBR_QUEUE_OWNED : 0);
    int fd = queue_fd(queue);
    CHECK_OK(cbr_post(queue, it.handle, NULL, 0));
    CHECK_OK(cbr_queue_close(queue, i % 2 ? CBR_CLOSE_DISCARD : CBR_CLOSE_DRAIN));
    dispatch_all(queue);
    close(fd);
  }
  CHECK(open_descriptors() <= count + 16); /* a few may be kept for what comes next */
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(the_descriptor_is_readable_while_events_wait) {
  struct ear ear;
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  int fd = queue_fd(queue), second = queue_fd(queue);
  CHECK(fd != second);
  CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  CHECK(!readable(fd));
  CHECK_OK(post_number(queue, &ear, 1));
  CHECK(readable(fd));
  CHECK(readable(second));
  CHECK_OK(post_number(queue, &ear, 2));
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK(readable(fd)); /* one is left */
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_STATUS(cbr_queue_dispatch(queue, 0, 0, NULL), CBR_ERR_EMPTY);
  CHECK(!readable(fd)); /* or a loop would spin */
  close(second);
  CHECK_OK(post_number(queue, &ear, 3));
  CHECK(readable(fd));
  close(fd);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 1, 2, 3);
  CHECK_OK(post_number(queue, &ear, 4));
  fd = queue_fd(queue); /* asked for when one waits already */
  CHECK(readable(fd));
  close(fd);
  queue_discard(queue);
  ear_end(&ear);
}

static void check_readable_once_closed(uint32_t mode, bool with_an_event) {
  struct ear ear;
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  int fd = queue_fd(queue);
  if (with_an_event) CHECK_OK(post_number(queue, &ear, 1));
  CHECK_OK(cbr_queue_close(queue, mode));
  CHECK(readable(fd));
  dispatch_all(queue);
  CHECK(readable(fd));
  CHECK_EQ(ear.count, with_an_event && mode == CBR_CLOSE_DRAIN);
  for (int i = 0; i < 100; i++) queue_discard(queue_open(2, CBR_QUEUE_REJECT, 0));
  CHECK(readable(fd)); /* for ever */
  close(fd);
  ear_end(&ear);
}

TEST(the_descriptor_of_a_closed_queue_is_readable_for_ever) {
  check_readable_once_closed(CBR_CLOSE_DRAIN, false);
  check_readable_once_closed(CBR_CLOSE_DRAIN, true);
  check_readable_once_closed(CBR_CLOSE_DISCARD, false);
  check_readable_once_closed(CBR_CLOSE_DISCARD, true);
}

/* --- what is refused ------------------------------------------------------------------------ */

/* Every function that takes a queue refuses it with this status, and changes nothing. */
static void check_queue_refused(cbr_queue queue, cbr_status expected) {
  struct ear ear;
  struct payload payload;
  size_t count = 77;
  int fd = 77, number = 1;
  intptr_t result = 77;
  ear_register(&ear);
  CHECK_REFUSED(cbr_queue_close(queue, CBR_CLOSE_DISCARD), expected);
  CHECK_REFUSED(cbr_queue_adopt(queue), expected);
  CHECK_REFUSED(cbr_queue_dispatch(queue, 0, 0, &count), expected);
  CHECK_EQ(count, 0); /* always written */
  CHECK_REFUSED(cbr_queue_dispatch(queue, 0, -1, NULL), expected);
  cbr_status status = cbr_queue_select(&queue, 1, -1, &count);
  if (expected == CBR_ERR_KIND) CHECK_STATUS(status, expected);
  else CHECK(status == CBR_OK || status == expected); /* stale may be one that was closed: ready */
  CHECK_EQ(count, 0);
  CHECK_REFUSED(cbr_queue_fd(queue, &fd), expected);
  CHECK_EQ(fd, 77);
  count = 77;
  CHECK_REFUSED(cbr_queue_len(queue, &count), expected);
  CHECK_EQ(count, 77);
  if (queue != 0) { /* the callback's home */
    CHECK_REFUSED(cbr_post(queue, ear.handle, &number, sizeof number), expected);
    CHECK_REFUSED(payload_post(&payload, 1, queue, ear.handle, 0), expected);
    CHECK_EQ(payload.freed, 0);
    CHECK_REFUSED(cbr_call_on(queue, ear.handle, &number, -1, &result), expected);
    CHECK_EQ(result, 77);
  }
  CHECK_EQ(references(ear.handle), 1);
  CHECK_HEARD_NOTHING(&ear);
  ear_end(&ear);
}

TEST(a_queue_that_never_was_is_stale) {
  cbr_queue queue = queue_open(0, 0, 0);
  cbr_queue forged[] = {0, 1, UINT64_MAX, queue ^ UINT64_C(1) << 32, queue ^ UINT64_C(1) << 63,
                        queue + (UINT64_C(1) << 32), queue ^ UINT64_C(1) << 27};
  for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++)
    check_queue_refused(forged[i], CBR_ERR_STALE);
  CHECK_EQ(queue_len(queue), 0);
  queue_discard(queue);
}

TEST(a_callback_and_a_scope_are_no_queues) {
  struct subject it;
  cbr_scope scope = scope_open("scope");
  subject_register(&it);
  check_queue_refused(it.handle, CBR_ERR_KIND);
  check_queue_refused(scope, CBR_ERR_KIND);
  CHECK_OK(cbr_call(it.handle, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
  scope_close(scope);
}

TEST(a_queue_is_neither_a_callback_nor_a_scope) {
  cbr_queue queue = queue_open(0, 0, 0);
  cbr_hook hook = CBR_HOOK_INIT;
  cbr_pin pin;
  intptr_t result = 77;
  uint32_t count = 77;
  size_t running = 77;
  CHECK_REFUSED(cbr_call(queue, NULL, &result), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_enter(queue, 0, &pin), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_hold(queue, 0, &pin), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_retain(queue), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_release(queue), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_refcount(queue, &count), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_unregister(queue), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_unregister_wait(queue, -1), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_hook_set_once(&hook, queue), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_name_bind(0, "name", queue, CBR_BIND_ONCE), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_key_attach(0, 1, 1, queue, CBR_BIND_ONCE), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_scope_close(queue, -1, &running), CBR_ERR_KIND);
  CHECK_REFUSED(cbr_scope_drain(queue, -1), CBR_ERR_KIND);
  CHECK(!cbr_is_live(queue));
  CHECK_EQ(cbr_call_ptr(CBR_TO_PTR(queue), NULL), 0);
  cbr_release_ptr(CBR_TO_PTR(queue));
  CHECK_EQ(result, 77);
  CHECK_EQ(count, 77);
  CHECK_EQ(queue_len(queue), 0);
  queue_discard(queue);
}

static void check_handle_refused(cbr_queue queue, cbr_handle handle, cbr_status expected) {
  struct payload payload;
  int number = 1;
  intptr_t result = 77;
  CHECK_REFUSED(cbr_post(queue, handle, &number, sizeof number), expected);
  CHECK_REFUSED(payload_post(&payload, 1, queue, handle, 0), expected);
  CHECK_EQ(payload.freed, 0);
  CHECK_REFUSED(cbr_call_on(queue, handle, &number, -1, &result), expected);
  CHECK_EQ(result, 77);
  CHECK_EQ(queue_len(queue), 0);
}

TEST(what_is_no_callback_is_refused_at_the_post) {
  cbr_queue queue = queue_open(0, 0, 0);
  cbr_scope scope = scope_open("scope");
  struct subject it;
  subject_register(&it);
  check_handle_refused(queue, 0, CBR_ERR_STALE);
  check_handle_refused(queue, 1, CBR_ERR_STALE);
  check_handle_refused(queue, UINT64_MAX, CBR_ERR_STALE);
  check_handle_refused(queue, it.handle + (UINT64_C(1) << 32), CBR_ERR_STALE);
  check_handle_refused(queue, queue, CBR_ERR_KIND);
  check_handle_refused(queue, scope, CBR_ERR_KIND);
  CHECK_OK(cbr_unregister(it.handle));
  check_handle_refused(queue, it.handle, CBR_ERR_STALE);
  scope_close(scope);
  queue_discard(queue);
}

static void takes_other_arguments(void *user_data, int a, int b) {
  (void)user_data;
  FAIL("called with another signature: %d, %d", a, b);
}

TEST(another_signature_is_refused_at_the_post) {
  cbr_queue queue = queue_open(0, 0, 0);
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle = 0;
  options.fn = (cbr_any_fn)takes_other_arguments;
  options.signature = CBR_SIG(CBR_VOID, CBR_INT, CBR_INT);
  CHECK_OK(cbr_register_with(&options, &handle));
  check_handle_refused(queue, handle, CBR_ERR_SIGNATURE);
  CHECK_WORDS("void(i32,i32)");
  CHECK_EQ(references(handle), 1);
  CHECK_OK(cbr_unregister(handle));
  queue_discard(queue);
}

TEST(arguments_out_of_range_are_invalid_and_change_nothing) {
  static const int64_t timeouts[] = {-2, -1000000, INT64_MIN};
  static const uint32_t modes[] = {2, 3, UINT32_MAX};
  struct ear ear;
  struct payload payload;
  size_t count = 77;
  intptr_t result = 77;
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  CHECK_OK(post_number(queue, &ear, 1));
  for (size_t i = 0; i < 3; i++) {
    payload_init(&payload, 2);
    cbr_post_options options = payload_options(&payload, queue, ear.handle);
    options.timeout_ns = timeouts[i];
    CHECK_REFUSED(cbr_post_with(&options), CBR_ERR_INVALID);
    CHECK_EQ(payload.freed, 0);
    count = 77;
    CHECK_REFUSED(cbr_queue_dispatch(queue, 0, timeouts[i], &count), CBR_ERR_INVALID);
    CHECK_EQ(count, 0);
    CHECK_REFUSED(cbr_queue_select(&queue, 1, timeouts[i], &count), CBR_ERR_INVALID);
    CHECK_REFUSED(cbr_call_on(queue, ear.handle, NULL, timeouts[i], &result), CBR_ERR_INVALID);
    CHECK_EQ(result, 77);
    CHECK_REFUSED(cbr_queue_close(queue, modes[i]), CBR_ERR_INVALID);
  }
  CHECK_REFUSED(cbr_queue_fd(queue, NULL), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_queue_len(queue, NULL), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_post_with(NULL), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_post(queue, ear.handle, NULL, 1), CBR_ERR_INVALID);
  CHECK_REFUSED(cbr_post(queue, ear.handle, NULL, SIZE_MAX), CBR_ERR_INVALID);
  CHECK_EQ(queue_len(queue), 1);
  CHECK_OK(post_number(queue, &ear, 2)); /* not closed either */
  CHECK_EQ(dispatch_all(queue), 2);
  CHECK_HEARD(&ear, 1, 2);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(post_options_too_small_for_the_first_version_are_invalid) {
  static const size_t sizes[] = {0,    1,       sizeof(size_t), sizeof(cbr_post_options) - 1,
                                 4097, SIZE_MAX};
  struct ear ear;
  struct payload payload;
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  payload_init(&payload, 1);
  cbr_post_options options = payload_options(&payload, queue, ear.handle);
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    options.size = sizes[i];
    CHECK_REFUSED(cbr_post_with(&options), CBR_ERR_INVALID);
  }
  CHECK_EQ(payload.freed, 0);
  CHECK_EQ(queue_len(queue), 0);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(larger_post_options_are_accepted_while_their_tail_is_zero) {
  static union {
    cbr_post_options options;
    unsigned char bytes[4096];
  } large;
  struct ear ear;
  struct payload payload;
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  for (size_t extra = 1; extra <= sizeof large - sizeof large.options; extra = extra * 2 + 7) {
    memset(&large, 0, sizeof large);
    payload_init(&payload, (int)extra);
    large.options = payload_options(&payload, queue, ear.handle);
    large.options.size = sizeof large.options + extra;
    CHECK_OK(cbr_post_with(&large.options));
    CHECK_EQ(dispatch_all(queue), 1);
    CHECK_HEARD(&ear, (int)extra);
    CHECK_EQ(payload.freed, 1);
    payload_init(&payload, 0);
    large.bytes[sizeof large.options] = 1;
    CHECK_REFUSED(cbr_post_with(&large.options), CBR_ERR_UNSUPPORTED);
    large.bytes[sizeof large.options] = 0;
    large.bytes[large.options.size - 1] = 0x80;
    CHECK_REFUSED(cbr_post_with(&large.options), CBR_ERR_UNSUPPORTED);
    CHECK_EQ(payload.freed, 0);
  }
  queue_discard(queue);
  ear_end(&ear);
}

/* --- payloads ------------------------------------------------------------------------------- */

struct seen {
  int calls;
  const unsigned char *arg;
  size_t len;
  uint64_t sum;
  bool aligned;
};

static uint64_t sum_of(const unsigned char *bytes, size_t len) {
  uint64_t sum = len;
  for (size_t i = 0; i < len; i++) sum = sum * 31 + bytes[i];
  return sum;
}

static intptr_t sees(void *user_data, void *arg) {
  struct seen *it = (struct seen *)user_data;
  const cbr_event *event = cbr_current_event();
  CHECK(event != NULL);
  CHECK(event->data == arg);
  it->calls++;
  it->arg = (const unsigned char *)arg;
  it->len = event->len;
  it->sum = sum_of(it->arg, it->len);
  it->aligned = (uintptr_t)arg % _Alignof(max_align_t) == 0;
  return 0;
}

static void check_copied(size_t len) {
  struct seen seen;
  cbr_handle handle = 0;
  unsigned char *bytes = (unsigned char *)malloc(len + 1);
  CHECK(bytes != NULL);
  memset(&seen, 0, sizeof seen);
  for (size_t i = 0; i < len; i++) bytes[i] = (unsigned char)(i * 7 + i / 251 + 1);
  uint64_t sum = sum_of(bytes, len);
  CHECK_OK(cbr_register(sees, &seen, NULL, &handle));
  cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, 0);
  CHECK_OK(cbr_post(queue, handle, bytes, len));
  memset(bytes, 0xdb, len);
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.len, len);
  CHECK(seen.sum == sum);
  CHECK(seen.arg != bytes);
  if (len == 0) CHECK(seen.arg == NULL);
  if (len >= 8) CHECK((uintptr_t)seen.arg % 8 == 0);
  if (len > 40) CHECK(seen.aligned); /* as malloc's */
  queue_discard(queue);
  CHECK_OK(cbr_unregister(handle));
  free(bytes);
}

TEST(a_payload_of_any_size_is_copied) {
  for (size_t len = 0; len <= 200; len++) check_copied(len);
  for (size_t len = 255; len < (1 << 20); len = len * 2 + 1) check_copied(len);
}

TEST(a_payload_of_64_mebibytes_is_copied) { check_copied((size_t)64 << 20); }

TEST(a_payload_without_memory_for_its_copy_gives_a_status) {
  enum { LEN = 64 << 20 };
  struct ear ear;
  skip_where_limits_do_not_work();
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  void *bytes = calloc(1, LEN);
  CHECK(bytes != NULL);
  limit_address_space(16 << 20);
  for (int i = 0; i < 10; i++) {
    CHECK_REFUSED(cbr_post(queue, ear.handle, bytes, LEN), CBR_ERR_NOMEM);
    CHECK_EQ(references(ear.handle), 1);
    CHECK_EQ(queue_len(queue), 0);
  }
  CHECK_OK(post_number(queue, &ear, 1));
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 1);
  free(bytes);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(a_payload_that_is_taken_over_reaches_the_callback_itself_and_is_freed_after_it) {
  static const size_t lens[] = {sizeof(struct payload), 40, 41, 1, SIZE_MAX};
  struct seen seen;
  cbr_handle handle = 0;
  struct payload payload;
  cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, 0);
  for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
    struct ear ear;
    ear_register(&ear);
    payload_init(&payload, 5);
    cbr_post_options options = payload_options(&payload, queue, ear.handle);
    options.len = lens[i]; /* is the host's own affair */
    CHECK_OK(cbr_post_with(&options));
    CHECK_EQ(payload.freed, 0);
    CHECK_EQ(dispatch_some(queue, 0), 1);
    CHECK_HEARD(&ear, 5);
    CHECK_EQ(payload.freed, 1);
    CHECK(pthread_equal(payload.freed_on, pthread_self()));
    ear_end(&ear);
  }
  memset(&seen, 0, sizeof seen);
  CHECK_OK(cbr_register(sees, &seen, NULL, &handle));
  CHECK_OK(payload_post(&payload, 6, queue, handle, 0));
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK(seen.arg == (const unsigned char *)&payload);
  CHECK_OK(cbr_unregister(handle));
  queue_discard(queue);
}

TEST(a_payload_of_no_bytes_that_is_taken_over_is_freed) {
  struct subject it;
  struct payload payload;
  cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, 0);
  subject_register(&it);
  payload_init(&payload, 0);
  cbr_post_options options = payload_options(&payload, queue, it.handle);
  options.len = 0;
  CHECK_OK(cbr_post_with(&options));
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  CHECK_EQ(payload.freed, 1);
  CHECK_OK(cbr_unregister(it.handle));
}

static intptr_t checks_that_it_is_not_freed(struct subject *it, void *arg) {
  (void)it;
  CHECK_EQ(payload_freed((const struct payload *)arg), 0);
  return 0;
}

struct action_payload {
  struct action action; /* first, for subject_fn */
  struct payload payload;
};

static void frees_action(void *data) { payload_free(&((struct action_payload *)data)->payload); }

TEST(free_data_does_not_run_during_the_callback) {
  struct subject it;
  struct action_payload data;
  subject_register(&it);
  payload_init(&data.payload, 0);
  data.action.run = checks_that_it_is_not_freed;
  data.action.arg = &data.payload;
  cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, 0);
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  options.queue = queue;
  options.handle = it.handle;
  options.data = &data;
  options.len = sizeof data;
  options.free_data = frees_action;
  CHECK_OK(cbr_post_with(&options));
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK_EQ(it.calls, 1);
  CHECK_EQ(data.payload.freed, 1);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
}

struct reposting {
  struct payload payload;
  cbr_queue queue;
  struct ear *ear;
};

static void free_posts_again(struct payload *it) {
  struct reposting *self = (struct reposting *)it->extra;
  CHECK_OK(post_number(self->queue, self->ear, 100));
}

TEST(free_data_may_post_to_the_same_queue) {
  struct reposting displaced, dispatched;
  struct ear ear;
  ear_register(&ear);
  cbr_queue queue = queue_open(2, CBR_QUEUE_DROP_OLDEST, 0);
  struct reposting *const both[] = {&displaced, &dispatched};
  for (int i = 0; i < 2; i++) {
    payload_init(&both[i]->payload, i);
    both[i]->payload.on_free = free_posts_again;
    both[i]->payload.extra = both[i];
    both[i]->queue = queue;
    both[i]->ear = &ear;
    cbr_post_options options = payload_options(&both[i]->payload, queue, ear.handle);
    CHECK_OK(cbr_post_with(&options));
  }
  CHECK_OK(post_number(queue, &ear, 2)); /* displaces the first, whose free posts, too */
  CHECK_EQ(displaced.payload.freed, 1);
  dispatch_all(queue);
  CHECK_EQ(dispatched.payload.freed, 1);
  CHECK(ear.count >= 2);
  queue_discard(queue);
  ear_end(&ear);
}

/* --- dispatch ------------------------------------------------------------------------------- */

TEST(events_are_dispatched_in_the_order_of_their_posts) {
  struct ear ear, other;
  ear_register(&ear);
  ear_register(&other);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  for (int i = 0; i < 10; i++) { /* round and round */
    CHECK_OK(post_number(queue, &ear, 1));
    CHECK_OK(post_number(queue, &other, 2));
    CHECK_OK(post_number(queue, &ear, 3));
    CHECK_EQ(dispatch_some(queue, 0), 3);
    CHECK_HEARD(&ear, 1, 3);
    CHECK_HEARD(&other, 2);
  }
  queue_discard(queue);
  ear_end(&ear);
  ear_end(&other);
}

TEST(dispatch_takes_no_more_than_its_budget) {
  struct ear ear;
  ear_register(&ear);
  cbr_queue queue = queue_open(16, CBR_QUEUE_REJECT, 0);
  for (int i = 0; i < 10; i++) CHECK_OK(post_number(queue, &ear, i));
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_HEARD(&ear, 0);
  CHECK_EQ(dispatch_some(queue, 3), 3);
  CHECK_HEARD(&ear, 1, 2, 3);
  CHECK_EQ(queue_len(queue), 6);
  size_t count = 77;
  CHECK_OK(cbr_queue_dispatch(queue, SIZE_MAX, -1, &count)); /* does not wait for more */
  CHECK_EQ(count, 6);
  CHECK_HEARD(&ear, 4, 5, 6, 7, 8, 9);
  queue_discard(queue);
  ear_end(&ear);
}

struct posting {
  cbr_queue queue;
  struct subject *target;
  int left;
};

static intptr_t posts_again(struct subject *it, void *arg) {
  struct posting *self = (struct posting *)arg;
  if (self->left-- > 0) CHECK_OK(post_action(self->queue, it, posts_again, self));
  return 0;
}

TEST(without_a_budget_dispatch_takes_what_is_there_and_not_what_its_callbacks_post) {
  struct subject it;
  struct posting posting = {queue_open(16, CBR_QUEUE_REJECT, 0), &it, 1000};
  subject_register(&it);
  for (int i = 0; i < 3; i++) CHECK_OK(post_action(posting.queue, &it, posts_again, &posting));
  CHECK_EQ(dispatch_some(posting.queue, 0), 3);
  CHECK_EQ(it.calls, 3);
  CHECK_EQ(queue_len(posting.queue), 3);
  CHECK_EQ(dispatch_all(posting.queue), 1000);
  CHECK_EQ(it.calls, 1003);
  queue_discard(posting.queue);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(an_empty_queue_says_so_at_once_or_at_the_deadline) {
  cbr_queue queue = queue_open(0, 0, 0);
  size_t count = 77;
  CHECK_REFUSED(cbr_queue_dispatch(queue, 0, 0, &count), CBR_ERR_EMPTY);
  CHECK_EQ(count, 0);
  int64_t start = now_ns();
  count = 77;
  CHECK_REFUSED(cbr_queue_dispatch(queue, 5, 20 * MS, &count), CBR_ERR_TIMEOUT);
  CHECK_EQ(count, 0);
  CHECK(now_ns() - start >= 20 * MS);
  CHECK_STATUS(cbr_queue_dispatch(queue, 0, 1, NULL), CBR_ERR_TIMEOUT);
  queue_discard(queue);
}

TEST(a_waiting_dispatcher_is_woken_by_a_post) {
  struct subject it;
  struct loop loop;
  subject_register(&it);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  loop_start(&loop, queue, false);
  for (long i = scaled(2000); i > 0; i--) {
    int before = load_int(&it.calls);
    if (i % 16 == 0) POLL_UNTIL(sleeps(&loop.number));
    CHECK_OK(cbr_post(queue, it.handle, NULL, 0));
    POLL_UNTIL(load_int(&it.calls) > before);
  }
  loop_end(&loop);
  CHECK_EQ(loop.dispatched, it.calls);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(waiting_dispatchers_are_woken_by_a_close) {
  static const uint32_t modes[] = {CBR_CLOSE_DRAIN, CBR_CLOSE_DISCARD};
  for (int i = 0; i < 2; i++) {
    struct loop loops[3];
    cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
    for (int j = 0; j < 3; j++) loop_start(&loops[j], queue, false);
    for (int j = 0; j < 3; j++) POLL_UNTIL(sleeps(&loops[j].number));
    CHECK_OK(cbr_queue_close(queue, modes[i]));
    for (int j = 0; j < 3; j++) join(loops[j].thread);
  }
}

TEST(a_deadline_far_away_is_no_deadline) {
  struct ear ear;
  size_t count = 0;
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  struct producer producer;
  producer_init(&producer, queue, ear.handle, 1);
  producer.thread = start(producer_main, &producer);
  CHECK_OK(cbr_queue_dispatch(queue, 0, INT64_MAX, &count));
  CHECK_EQ(count, 1);
  CHECK_OK(producer_join(&producer));
  CHECK_HEARD(&ear, 1);
  queue_discard(queue);
  ear_end(&ear);
}

/* --- the event that is dispatched ----------------------------------------------------------- */

struct expected_event {
  cbr_event event;
  int64_t after, before; /* posted_ns lies between */
};

/* Of an action. */
static cbr_event expects(cbr_handle handle, cbr_queue queue) {
  cbr_event event;
  memset(&event, 0, sizeof event);
  event.handle = handle;
  event.queue = queue;
  event.len = sizeof(struct action);
  return event;
}

static void check_event(const struct expected_event *expected) {
  const cbr_event *event = cbr_current_event();
  CHECK(event != NULL);
  CHECK_EQ(event->handle, expected->event.handle);
  CHECK_EQ(event->queue, expected->event.queue);
  CHECK_EQ(event->len, expected->event.len);
  CHECK(event->traceparent == NULL);
  CHECK(event->posted_ns >= expected->after && event->posted_ns <= expected->before);
}

static intptr_t checks_its_event(struct subject *it, void *arg) {
  check_event((const struct expected_event *)arg);
  CHECK_EQ(cbr_current(), it->handle);
  CHECK_EQ(cbr_depth(), 1);
  return 0;
}

static intptr_t sees_no_event(struct subject *it, void *arg) {
  (void)it;
  (void)arg;
  CHECK(cbr_current_event() == NULL);
  return 0;
}

TEST(a_callback_can_ask_for_its_event) {
  struct subject it;
  subject_register(&it);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  struct expected_event expected = {expects(it.handle, queue), 0, 0};
  expected.after = now_ns();
  CHECK_OK(post_action(queue, &it, checks_its_event, &expected));
  expected.before = now_ns();
  CHECK(cbr_current_event() == NULL);
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK_EQ(it.calls, 1);
  CHECK(cbr_current_event() == NULL);
  CHECK_OK(subject_run(&it, sees_no_event, NULL, NULL));
  CHECK_OK(cbr_unregister(it.handle));
  queue_discard(queue);
}

static intptr_t gets_nothing(void *user_data, void *arg) {
  CHECK(arg == NULL);
  CHECK(cbr_current_event()->data == NULL);
  CHECK_EQ(cbr_current_event()->len, 0);
  ++*(int *)user_data;
  return 0;
}

TEST(an_event_without_a_payload_gives_NULL_also_with_an_owner) {
  int calls = 0;
  cbr_handle handle;
  cbr_post_options event = CBR_POST_OPTIONS_INIT;
  CHECK_OK(cbr_register(gets_nothing, &calls, NULL, &handle));
  CHECK_OK(cbr_scope_open("owner", &event.owner));
  event.queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  event.handle = handle;
  event.data = &event;
  CHECK_OK(cbr_post_with(&event));
  CHECK_OK(cbr_post(event.queue, handle, &event, 0));
  CHECK_EQ(dispatch_some(event.queue, 0), 2);
  CHECK_EQ(calls, 2);
  CHECK_OK(cbr_unregister(handle));
  queue_discard(event.queue);
  CHECK_OK(cbr_scope_close(event.owner, -1, NULL));
}

static cbr_handle called_by_free;

static void frees_and_calls(void *data) {
  *(int *)data += 1;
  CHECK_OK(cbr_call(called_by_free, NULL, NULL));
}

static intptr_t sees_none(void *user_data, void *arg) {
  (void)arg;
  CHECK(cbr_current_event() == NULL);
  ++*(int *)user_data;
  return 0;
}

TEST(what_a_free_function_calls_was_not_called_for_the_event) {
  struct ear ear;
  int freed = 0, called = 0;
  cbr_post_options event = CBR_POST_OPTIONS_INIT;
  ear_register(&ear);
  CHECK_OK(cbr_register(sees_none, &called, NULL, &called_by_free));
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  event.queue = queue;
  event.handle = ear.handle;
  event.data = &freed;
  event.len = sizeof freed;
  event.free_data = frees_and_calls;
  CHECK_OK(cbr_post_with(&event));
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK_EQ(freed, 1);
  CHECK_EQ(called, 1);
  CHECK_OK(cbr_unregister(called_by_free));
  queue_discard(queue);
  ear_end(&ear);
}

struct nested {
  struct expected_event expected;
  cbr_queue inner;
  struct subject *it;
  struct expected_event inner_expected;
};

static intptr_t dispatches_another(struct subject *it, void *arg) {
  struct nested *self = (struct nested *)arg;
  (void)it;
  check_event(&self->expected);
  CHECK_EQ(dispatch_some(self->inner, 1), 1);
  check_event(&self->expected);
  CHECK_EQ(cbr_depth(), 1);
  return 0;
}

static intptr_t checks_inner_event(struct subject *it, void *arg) {
  (void)it;
  check_event((const struct expected_event *)arg);
  CHECK_EQ(cbr_depth(), 2);
  return 0;
}

TEST(dispatch_may_be_nested_and_each_callback_sees_its_own_event) {
  for (int same = 0; same < 2; same++) {
    struct subject outer, inner;
    struct nested nested;
    memset(&nested, 0, sizeof nested);
    subject_register(&outer);
    subject_register(&inner);
    cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, same ? 0 : CBR_QUEUE_OWNED);
    nested.inner = same ? queue : queue_open(4, CBR_QUEUE_REJECT, 0);
    nested.expected.event = expects(outer.handle, queue);
    nested.expected.before = INT64_MAX;
    nested.inner_expected.event = expects(inner.handle, nested.inner);
    nested.inner_expected.before = INT64_MAX;
    CHECK_OK(post_action(queue, &outer, dispatches_another, &nested));
    CHECK_OK(post_action(nested.inner, &inner, checks_inner_event, &nested.inner_expected));
    CHECK(dispatch_some(queue, 0) >= 1);
    CHECK_EQ(outer.calls, 1);
    CHECK_EQ(inner.calls, 1);
    CHECK_EQ(dispatch_all(queue) + dispatch_all(nested.inner), 0);
    queue_discard(queue);
    if (!same) queue_discard(nested.inner);
    CHECK_OK(cbr_unregister(outer.handle));
    CHECK_OK(cbr_unregister(inner.handle));
  }
}

static intptr_t takes_the_rest(struct subject *it, void *arg) {
  struct posting *self = (struct posting *)arg;
  (void)it;
  dispatch_all(self->queue);
  return 0;
}

TEST(a_nested_dispatch_may_take_the_rest_of_what_was_there) {
  struct subject it;
  struct ear ear;
  size_t count = 77;
  subject_register(&it);
  ear_register(&ear);
  struct posting posting = {queue_open(8, CBR_QUEUE_REJECT, 0), NULL, 0};
  CHECK_OK(post_number(posting.queue, &ear, 1));
  CHECK_OK(post_action(posting.queue, &it, takes_the_rest, &posting));
  CHECK_OK(post_number(posting.queue, &ear, 2));
  CHECK_OK(post_number(posting.queue, &ear, 3));
  CHECK_OK(cbr_queue_dispatch(posting.queue, 0, -1, &count)); /* and is not stuck without them */
  CHECK_EQ(count, 2);
  CHECK_HEARD(&ear, 1, 2, 3);
  queue_discard(posting.queue);
  CHECK_OK(cbr_unregister(it.handle));
  ear_end(&ear);
}

static intptr_t fails_with(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_fail(*(const cbr_status *)arg, "not today"));
  return 0;
}

TEST(dispatch_goes_on_after_a_callback_that_fails) {
  static const cbr_status failures[] = {CBR_ERR_CALLBACK, CBR_ERR_PANIC};
  struct subject it;
  struct ear ear;
  subject_register(&it);
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  for (int i = 0; i < 2; i++) {
    cbr_status failure = failures[i];
    CHECK_OK(post_action(queue, &it, fails_with, &failure));
    CHECK_OK(post_number(queue, &ear, i));
    CHECK_EQ(dispatch_some(queue, 0), 2);
    CHECK_HEARD(&ear, i);
  }
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
  ear_end(&ear);
}

/* --- events and the life of their callback --------------------------------------------------- */

TEST(an_event_owns_a_reference) {
  struct ear ear;
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  CHECK_OK(post_number(queue, &ear, 1));
  CHECK_OK(post_number(queue, &ear, 2));
  CHECK_EQ(references(ear.handle), 3);
  CHECK_OK(cbr_release(ear.handle));
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_EQ(references(ear.handle), 1);
  CHECK_EQ(ear.destroyed, 0);
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_EQ(ear.destroyed, 1); /* with the last event */
  CHECK_HEARD(&ear, 1, 2);
  CHECK(!cbr_is_live(ear.handle));
  queue_discard(queue);
}

TEST(dropped_events_give_their_reference_back) {
  struct ear ear;
  struct subject other;
  subject_register(&other);
  for (int way = 0; way < 3; way++) {
    ear_register(&ear);
    cbr_queue queue = queue_open(1, CBR_QUEUE_DROP_OLDEST, 0);
    CHECK_OK(post_number(queue, &ear, 1));
    CHECK_OK(cbr_release(ear.handle));
    CHECK_EQ(ear.destroyed, 0);
    if (way == 0) CHECK_OK(cbr_post(queue, other.handle, NULL, 0));
    if (way == 1) CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
    if (way == 2) CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DRAIN));
    if (way == 2) CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
    CHECK_EQ(ear.destroyed, 1);
    CHECK_HEARD_NOTHING(&ear);
    if (way == 0) queue_discard(queue);
  }
  CHECK_EQ(references(other.handle), 1);
  CHECK_OK(cbr_unregister(other.handle));
}

TEST(a_refused_post_leaves_no_reference) {
  struct ear ear;
  struct payload payload;
  ear_register(&ear);
  cbr_queue queue = queue_open(1, CBR_QUEUE_REJECT, 0);
  CHECK_OK(post_number(queue, &ear, 1));
  CHECK_REFUSED(payload_post(&payload, 2, queue, ear.handle, 0), CBR_ERR_FULL);
  CHECK_EQ(payload.freed, 0);
  CHECK_EQ(references(ear.handle), 2);
  queue_discard(queue);
  CHECK_EQ(references(ear.handle), 1);
  check_gone(payload_post(&payload, 3, queue, ear.handle, 0));
  CHECK_EQ(payload.freed, 0);
  CHECK_EQ(references(ear.handle), 1);
  ear_end(&ear);
}

TEST(events_of_a_callback_that_is_gone_are_freed_at_dispatch) {
  struct ear gone, there;
  struct payload payloads[3];
  ear_register(&gone);
  ear_register(&there);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  CHECK_OK(payload_post(&payloads[0], 1, queue, gone.handle, 0));
  CHECK_OK(payload_post(&payloads[1], 2, queue, there.handle, 0));
  CHECK_OK(payload_post(&payloads[2], 3, queue, gone.handle, 0));
  CHECK_OK(post_number(queue, &gone, 4));
  CHECK_OK(cbr_unregister(gone.handle));
  CHECK_EQ(gone.destroyed, 1); /* events do not hold up an unregister */
  CHECK_EQ(payloads[0].freed, 0);
  dispatch_all(queue);
  for (int i = 0; i < 3; i++) CHECK_EQ(payloads[i].freed, 1);
  CHECK_HEARD_NOTHING(&gone);
  CHECK_HEARD(&there, 2);
  CHECK_EQ(queue_len(queue), 0);
  queue_discard(queue);
  ear_end(&there);
}

/* The callback that takes the place of one that is gone gets none of its events. */
TEST(events_of_a_callback_that_is_gone_never_reach_another) {
  enum { ALL = 50 };
  static struct ear old[ALL], fresh[ALL];
  cbr_queue queue = queue_open(ALL, CBR_QUEUE_REJECT, 0);
  for (int i = 0; i < ALL; i++) {
    ear_register(&old[i]);
    CHECK_OK(post_number(queue, &old[i], i));
  }
  for (int i = 0; i < ALL; i++) ear_end(&old[i]);
  for (int i = 0; i < ALL; i++) ear_register(&fresh[i]);
  dispatch_all(queue);
  for (int i = 0; i < ALL; i++) {
    CHECK_HEARD_NOTHING(&old[i]);
    CHECK_HEARD_NOTHING(&fresh[i]);
    ear_end(&fresh[i]);
  }
  queue_discard(queue);
}

static intptr_t unregisters_itself(struct subject *it, void *arg) {
  (void)arg;
  CHECK_OK(cbr_unregister(it->handle));
  CHECK_EQ(it->destroyed, 0);
  return 0;
}

TEST(a_callback_may_unregister_itself_inside_a_dispatch) {
  struct subject it;
  struct payload payload;
  subject_register(&it);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  CHECK_OK(post_action(queue, &it, unregisters_itself, NULL));
  CHECK_OK(payload_post(&payload, 2, queue, it.handle, 0));
  CHECK(dispatch_some(queue, 0) >= 1);
  dispatch_all(queue);
  CHECK_EQ(it.calls, 1);
  CHECK_EQ(it.destroyed, 1);
  CHECK_EQ(payload.freed, 1);
  queue_discard(queue);
}

static intptr_t closes_its_queue(struct subject *it, void *arg) {
  (void)it;
  CHECK_OK(cbr_queue_close(cbr_current_event()->queue, *(const uint32_t *)arg));
  return 0;
}

TEST(a_callback_may_close_the_queue_that_it_is_dispatched_from) {
  for (uint32_t mode = CBR_CLOSE_DRAIN; mode <= CBR_CLOSE_DISCARD; mode++) {
    for (size_t budget = 0; budget < 2; budget++) {
      struct subject it;
      struct ear ear;
      struct payload payload;
      subject_register(&it);
      ear_register(&ear);
      cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, budget ? CBR_QUEUE_OWNED : 0);
      CHECK_OK(post_action(queue, &it, closes_its_queue, &mode));
      CHECK_OK(payload_post(&payload, 1, queue, ear.handle, 0));
      CHECK_OK(post_number(queue, &ear, 2));
      CHECK(dispatch_some(queue, budget) >= 1);
      dispatch_all(queue);
      CHECK_EQ(it.calls, 1);
      CHECK_EQ(payload.freed, 1);
      if (mode == CBR_CLOSE_DRAIN) CHECK_HEARD(&ear, 1, 2);
      else CHECK_HEARD_NOTHING(&ear);
      check_gone(post_number(queue, &ear, 3));
      check_gone(cbr_queue_dispatch(queue, 0, -1, NULL));
      CHECK_OK(cbr_unregister(it.handle));
      ear_end(&ear);
    }
  }
}

static intptr_t closes_its_scope(struct subject *it, void *arg) {
  CHECK_STATUS(cbr_scope_close(*(const cbr_scope *)arg, -1, NULL), CBR_ERR_DEADLOCK);
  CHECK(!cbr_is_live(it->handle));
  return 0;
}

TEST(a_callback_that_closes_the_scope_of_itself_and_its_queue_is_told_of_the_deadlock) {
  for (int own_queue = 0; own_queue < 2; own_queue++) {
    struct subject it;
    struct payload payload;
    cbr_scope scope = scope_open("plugin");
    subject_register_in(&it, scope);
    cbr_queue queue = queue_open_in(own_queue ? scope : 0, 8, CBR_QUEUE_REJECT, 0);
    CHECK_OK(post_action(queue, &it, closes_its_scope, &scope));
    CHECK_OK(payload_post(&payload, 1, queue, it.handle, scope));
    CHECK(dispatch_some(queue, 0) >= 1);
    CHECK_EQ(it.calls, 1);
    scope_close(scope);
    CHECK_EQ(it.destroyed, 1);
    CHECK_EQ(payload.freed, 1);
    if (!own_queue) queue_discard(queue);
    else check_gone(cbr_queue_dispatch(queue, 0, 0, NULL));
  }
}

/* --- policies ------------------------------------------------------------------------------- */

TEST(a_full_queue_refuses_and_the_payload_stays_the_posters) {
  struct ear ear;
  struct payload taken[2], refused;
  ear_register(&ear);
  cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, 0);
  for (int i = 0; i < 2; i++) CHECK_OK(payload_post(&taken[i], i, queue, ear.handle, 0));
  CHECK_REFUSED(payload_post(&refused, 3, queue, ear.handle, 0), CBR_ERR_FULL);
  CHECK_EQ(refused.freed, 0);
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_OK(payload_post(&refused, 3, queue, ear.handle, 0)); /* there is room again */
  dispatch_all(queue);
  CHECK_HEARD(&ear, 0, 1, 3);
  CHECK_EQ(refused.freed + taken[0].freed + taken[1].freed, 3);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(drop_oldest_drops_the_oldest_and_frees_it_in_the_post) {
  struct ear ear;
  struct payload payloads[7];
  ear_register(&ear);
  cbr_queue queue = queue_open(3, CBR_QUEUE_DROP_OLDEST, 0);
  for (int i = 0; i < 7; i++) {
    if (i < 3) {
      CHECK_OK(payload_post(&payloads[i], i, queue, ear.handle, 0));
      continue;
    }
    struct producer producer;
    producer_init(&producer, queue, ear.handle, i);
    payload_init(&payloads[i], i);
    producer.options.data = &payloads[i];
    CHECK_EQ(payloads[i - 3].freed, 0);
    producer_start(&producer);
    CHECK_OK(producer_join(&producer));
    CHECK_EQ(payloads[i - 3].freed, 1);
    CHECK(pthread_equal(payloads[i - 3].freed_on, producer.thread));
    CHECK_EQ(queue_len(queue), 3);
  }
  CHECK_EQ(references(ear.handle), 4);
  CHECK_EQ(dispatch_all(queue), 3);
  CHECK_HEARD(&ear, 4, 5, 6);
  for (int i = 0; i < 7; i++) CHECK_EQ(payloads[i].freed, 1);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(drop_oldest_with_room_for_one_keeps_the_newest) {
  struct ear ear;
  ear_register(&ear);
  cbr_queue queue = queue_open(1, CBR_QUEUE_DROP_OLDEST, 0);
  for (int i = 0; i < 100; i++) CHECK_OK(post_number(queue, &ear, i));
  CHECK_EQ(queue_len(queue), 1);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 99);
  queue_discard(queue);
  ear_end(&ear);
}

static void destroy_posts(struct subject *it) {
  struct posting *self = (struct posting *)it->extra;
  CHECK_OK(cbr_post(self->queue, self->target->handle, NULL, 0));
}

TEST(the_destroy_function_of_a_dropped_events_callback_may_post) {
  struct subject dropped, other;
  struct posting posting = {queue_open(2, CBR_QUEUE_DROP_OLDEST, 0), &other, 0};
  subject_register(&dropped);
  subject_register(&other);
  dropped.on_destroy = destroy_posts;
  dropped.extra = &posting;
  CHECK_OK(cbr_post(posting.queue, dropped.handle, NULL, 0));
  CHECK_OK(cbr_release(dropped.handle));
  CHECK_OK(cbr_post(posting.queue, other.handle, NULL, 0));
  CHECK_OK(cbr_post(posting.queue, other.handle, NULL, 0));
  CHECK_EQ(dropped.destroyed, 1);
  CHECK_EQ(dispatch_all(posting.queue), 2);
  CHECK_EQ(other.calls, 2);
  queue_discard(posting.queue);
  CHECK_OK(cbr_unregister(other.handle));
}

/* --- COALESCE ------------------------------------------------------------------------------- */

TEST(coalescing_replaces_the_payload_in_its_place) {
  struct ear a, b;
  ear_register(&a);
  ear_register(&b);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, CBR_QUEUE_COALESCE);
  CHECK_OK(post_number(queue, &a, 1));
  CHECK_OK(post_number(queue, &b, 2));
  CHECK_OK(post_number(queue, &a, 3));
  CHECK_EQ(queue_len(queue), 2);
  CHECK_EQ(references(a.handle), 2);
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_HEARD(&a, 3); /* before b's, as the first was */
  CHECK_HEARD_NOTHING(&b);
  CHECK_OK(post_number(queue, &a, 4)); /* none waits: a new one, at the end */
  CHECK_OK(post_number(queue, &a, 5));
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_HEARD(&b, 2);
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_HEARD(&a, 5);
  CHECK_EQ(references(a.handle), 1);
  queue_discard(queue);
  ear_end(&a);
  ear_end(&b);
}

TEST(a_coalesced_payload_is_freed_on_the_posters_thread_in_the_post) {
  struct ear ear;
  struct payload first;
  struct producer second;
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, CBR_QUEUE_COALESCE);
  CHECK_OK(payload_post(&first, 1, queue, ear.handle, 0));
  producer_init(&second, queue, ear.handle, 2);
  producer_start(&second);
  CHECK_OK(producer_join(&second));
  CHECK_EQ(first.freed, 1);
  CHECK(pthread_equal(first.freed_on, second.thread));
  CHECK_EQ(second.payload.freed, 0);
  CHECK_OK(post_number(queue, &ear, 3)); /* a copy in the place of one that was taken over */
  CHECK_EQ(second.payload.freed, 1);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 3);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(coalescing_needs_no_room) {
  static const uint32_t policies[] = {CBR_QUEUE_REJECT, CBR_QUEUE_DROP_OLDEST, CBR_QUEUE_BLOCK};
  for (int i = 0; i < 3; i++) {
    struct ear a, b;
    ear_register(&a);
    ear_register(&b);
    cbr_queue queue = queue_open(2, policies[i], CBR_QUEUE_COALESCE);
    CHECK_OK(post_number(queue, &a, 1));
    CHECK_OK(post_number(queue, &b, 2));
    CHECK_OK(post_number(queue, &a, 3));
    CHECK_OK(post_number(queue, &b, 4));
    CHECK_EQ(queue_len(queue), 2);
    CHECK_EQ(dispatch_all(queue), 2);
    CHECK_HEARD(&a, 3);
    CHECK_HEARD(&b, 4);
    queue_discard(queue);
    ear_end(&a);
    ear_end(&b);
  }
}

TEST(coalescing_with_drop_oldest_forgets_what_was_dropped) {
  struct ear a, b, c;
  ear_register(&a);
  ear_register(&b);
  ear_register(&c);
  cbr_queue queue = queue_open(2, CBR_QUEUE_DROP_OLDEST, CBR_QUEUE_COALESCE);
  CHECK_OK(post_number(queue, &a, 1));
  CHECK_OK(post_number(queue, &b, 2));
  CHECK_OK(post_number(queue, &c, 3)); /* drops a's */
  CHECK_OK(post_number(queue, &a, 4)); /* drops b's */
  CHECK_OK(post_number(queue, &a, 5));
  CHECK_EQ(dispatch_all(queue), 2);
  CHECK_HEARD(&a, 5);
  CHECK_HEARD_NOTHING(&b);
  CHECK_HEARD(&c, 3);
  queue_discard(queue);
  ear_end(&a);
  ear_end(&b);
  ear_end(&c);
}

static intptr_t posts_to_itself_once(struct subject *it, void *arg) {
  struct posting *self = (struct posting *)arg;
  if (self->left-- > 0) {
    CHECK_OK(post_action(self->queue, it, posts_to_itself_once, self));
    CHECK_EQ(queue_len(self->queue), 1); /* the one that runs does not wait any more */
  }
  return 0;
}

TEST(an_event_that_runs_is_not_coalesced_with) {
  struct subject it;
  struct posting posting = {queue_open(4, CBR_QUEUE_REJECT, CBR_QUEUE_COALESCE), NULL, 1};
  subject_register(&it);
  CHECK_OK(post_action(posting.queue, &it, posts_to_itself_once, &posting));
  CHECK_EQ(dispatch_some(posting.queue, 0), 1);
  CHECK_EQ(dispatch_some(posting.queue, 0), 1);
  CHECK_EQ(it.calls, 2);
  queue_discard(posting.queue);
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(coalescing_does_not_mistake_a_new_callback_for_one_that_is_gone) {
  enum { ALL = 50 };
  static struct ear old[ALL], fresh[ALL];
  static struct payload payloads[ALL];
  cbr_queue queue = queue_open(2 * ALL, CBR_QUEUE_REJECT, CBR_QUEUE_COALESCE);
  for (int i = 0; i < ALL; i++) {
    ear_register(&old[i]);
    CHECK_OK(payload_post(&payloads[i], i, queue, old[i].handle, 0));
    ear_end(&old[i]);
    ear_register(&fresh[i]);
    CHECK_OK(post_number(queue, &fresh[i], i + 1000));
  }
  dispatch_all(queue);
  for (int i = 0; i < ALL; i++) {
    CHECK_HEARD_NOTHING(&old[i]);
    CHECK_HEARD(&fresh[i], i + 1000);
    CHECK_EQ(payloads[i].freed, 1);
    ear_end(&fresh[i]);
  }
  queue_discard(queue);
}

TEST(a_thousand_callbacks_coalesce_each_with_itself) {
  enum { ALL = 1000 };
  static struct ear ears[ALL];
  struct rng rng = {rng_seed()};
  cbr_queue queue = queue_open(ALL, CBR_QUEUE_REJECT, CBR_QUEUE_COALESCE);
  for (int i = 0; i < ALL; i++) ear_register(&ears[i]);
  for (int round = 0; round < 20; round++) {
    static int last[ALL];
    int waiting = 0;
    memset(last, 0, sizeof last);
    for (int i = 1; i <= 3 * ALL; i++) {
      int one = (int)rng_below(&rng, ALL);
      waiting += last[one] == 0;
      last[one] = i;
      CHECK_OK(post_number(queue, &ears[one], i));
    }
    CHECK_EQ(queue_len(queue), waiting);
    CHECK_EQ(dispatch_all(queue), waiting);
    for (int i = 0; i < ALL; i++) {
      if (last[i] != 0) CHECK_HEARD(&ears[i], last[i]);
      else CHECK_HEARD_NOTHING(&ears[i]);
    }
  }
  queue_discard(queue);
  for (int i = 0; i < ALL; i++) ear_end(&ears[i]);
}

/* --- close ---------------------------------------------------------------------------------- */

TEST(a_queue_closed_to_drain_takes_nothing_more_and_gives_what_is_there) {
  struct ear ear;
  struct payload payload, late;
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  CHECK_OK(payload_post(&payload, 1, queue, ear.handle, 0));
  CHECK_OK(post_number(queue, &ear, 2));
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DRAIN));
  CHECK_REFUSED(payload_post(&late, 3, queue, ear.handle, 0), CBR_ERR_CLOSED);
  CHECK_EQ(late.freed, 0);
  CHECK_REFUSED(post_number(queue, &ear, 3), CBR_ERR_CLOSED);
  CHECK_REFUSED(cbr_call_on(queue, ear.handle, NULL, 0, NULL), CBR_ERR_CLOSED);
  CHECK_EQ(queue_len(queue), 2);
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_EQ(payload.freed, 1);
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK_HEARD(&ear, 1, 2);
  check_gone(cbr_queue_dispatch(queue, 0, -1, NULL));
  check_gone(cbr_queue_dispatch(queue, 0, 0, NULL));
  check_gone(post_number(queue, &ear, 4));
  check_gone(cbr_queue_close(queue, CBR_CLOSE_DRAIN));
  ear_end(&ear);
}

TEST(a_queue_closed_to_discard_drops_what_is_there) {
  struct ear ear;
  struct payload payload, late;
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  CHECK_OK(post_number(queue, &ear, 1));
  CHECK_OK(payload_post(&payload, 2, queue, ear.handle, 0));
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  CHECK_EQ(payload.freed, 1);
  CHECK_EQ(references(ear.handle), 1);
  check_gone(payload_post(&late, 3, queue, ear.handle, 0));
  CHECK_EQ(late.freed, 0);
  check_gone(cbr_queue_dispatch(queue, 0, -1, NULL));
  check_gone(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  CHECK_HEARD_NOTHING(&ear);
  ear_end(&ear);
}

TEST(a_queue_that_drains_can_be_closed_to_discard_the_rest) {
  struct ear ear;
  struct payload payloads[2];
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  for (int i = 0; i < 2; i++) CHECK_OK(payload_post(&payloads[i], i, queue, ear.handle, 0));
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DRAIN));
  CHECK_EQ(dispatch_some(queue, 1), 1);
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  CHECK_EQ(payloads[0].freed, 1);
  CHECK_EQ(payloads[1].freed, 1);
  check_gone(cbr_queue_dispatch(queue, 0, 0, NULL));
  CHECK_HEARD(&ear, 0);
  ear_end(&ear);
}

static void *closes_to_discard(void *arg) {
  CHECK_OK(cbr_queue_close(*(const cbr_queue *)arg, CBR_CLOSE_DISCARD));
  return NULL;
}

/* The one that runs runs to its end; its payload is freed after it. */
static intptr_t is_closed_meanwhile(struct subject *it, void *arg) {
  struct action_payload *self = (struct action_payload *)arg;
  cbr_queue queue = cbr_current_event()->queue;
  (void)it;
  run_on_thread(closes_to_discard, &queue);
  CHECK_EQ(payload_freed(&self->payload), 0);
  CHECK(cbr_current_event()->data == &self->action);
  return 0;
}

TEST(closing_does_not_touch_the_event_that_runs) {
  struct subject it;
  struct action_payload data;
  struct payload waiting;
  subject_register(&it);
  payload_init(&data.payload, 0);
  data.action.run = is_closed_meanwhile;
  data.action.arg = &data;
  cbr_queue queue = queue_open(2, CBR_QUEUE_REJECT, 0);
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  options.queue = queue;
  options.handle = it.handle;
  options.data = &data;
  options.len = sizeof data;
  options.free_data = frees_action;
  CHECK_OK(cbr_post_with(&options));
  CHECK_OK(payload_post(&waiting, 0, queue, it.handle, 0));
  CHECK(dispatch_some(queue, 0) >= 1);
  CHECK_EQ(data.payload.freed, 1);
  CHECK_EQ(waiting.freed, 1);
  CHECK_EQ(it.calls, 1);
  check_gone(cbr_queue_dispatch(queue, 0, 0, NULL));
  CHECK_OK(cbr_unregister(it.handle));
}

TEST(a_closed_queue_stays_closed_however_many_come_after_it) {
  struct ear ear;
  ear_register(&ear);
  cbr_queue first = queue_open(2, CBR_QUEUE_REJECT, 0);
  queue_discard(first);
  for (long i = scaled(2000); i > 0; i--) {
    cbr_queue next = queue_open(2, CBR_QUEUE_REJECT, 0);
    CHECK(next != first);
    check_gone(post_number(first, &ear, 1));
    check_gone(cbr_queue_dispatch(first, 0, 0, NULL));
    check_gone(cbr_queue_close(first, CBR_CLOSE_DISCARD));
    CHECK_EQ(queue_len(next), 0);
    queue_discard(next);
  }
  ear_end(&ear);
}

/* --- an owner ------------------------------------------------------------------------------- */

static void *is_refused(void *arg) {
  cbr_queue queue = *(const cbr_queue *)arg;
  size_t count = 77;
  CHECK_REFUSED(cbr_queue_dispatch(queue, 0, 0, &count), CBR_ERR_THREAD);
  CHECK_EQ(count, 0);
  CHECK_STATUS(cbr_queue_dispatch(queue, 0, -1, NULL), CBR_ERR_THREAD);
  return NULL;
}

static void *adopts(void *arg) {
  cbr_queue queue = *(const cbr_queue *)arg;
  CHECK_OK(cbr_queue_adopt(queue));
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK_OK(cbr_queue_adopt(queue)); /* its own already */
  return NULL;
}

TEST(an_owned_queue_is_dispatched_by_its_owner_only) {
  struct ear ear;
  ear_register(&ear);
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, CBR_QUEUE_OWNED);
  CHECK_OK(post_number(queue, &ear, 1));
  run_on_thread(is_refused, &queue);
  CHECK_EQ(queue_len(queue), 1);
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK_OK(post_number(queue, &ear, 2));
  run_on_thread(adopts, &queue);
  CHECK_REFUSED(cbr_queue_dispatch(queue, 0, 0, NULL), CBR_ERR_THREAD);
  run_on_thread(is_refused, &queue); /* the owner has ended; another thread is not the owner */
  CHECK_OK(cbr_queue_adopt(queue));
  CHECK_OK(post_number(queue, &ear, 3));
  CHECK_EQ(dispatch_some(queue, 0), 1);
  CHECK_HEARD(&ear, 1, 2, 3);
  queue_discard(queue);
  ear_end(&ear);
}

TEST(only_an_owned_queue_can_be_adopted) {
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  CHECK_REFUSED(cbr_queue_adopt(queue), CBR_ERR_INVALID);
  queue_discard(queue);
}

/* --- several threads ------------------------------------------------------------------------ */

enum { PRODUCERS = 4 };

struct lane {
  cbr_queue queue;
  cbr_handle handle;
  int number;
  long count;
  long last; /* that came out */
};

struct lane_event {
  struct lane *lane;
  long number;
};

static intptr_t keeps_lanes_in_order(void *user_data, void *arg) {
  const struct lane_event *event = (const struct lane_event *)arg;
  (void)user_data;
  CHECK_EQ(event->number, event->lane->last + 1);
  event->lane->last = event->number;
  return 0;
}

static void *posts_its_lane(void *arg) {
  struct lane *self = (struct lane *)arg;
  for (long i = 1; i <= self->count; i++) {
    struct lane_event event = {self, i};
    CHECK_OK(cbr_post(self->queue, self->handle, &event, sizeof event));
  }
  return NULL;
}

TEST(the_events_of_one_producer_stay_in_order) {
  static const size_t capacities[] = {1, 2, 64};
  for (int round = 0; round < 3; round++) {
    struct lane lanes[PRODUCERS];
    pthread_t threads[PRODUCERS];
    struct loop loop;
    cbr_handle handle = 0;
    long count = scaled(3000);
    cbr_queue queue = queue_open(capacities[round], CBR_QUEUE_BLOCK, 0);
    CHECK_OK(cbr_register(keeps_lanes_in_order, NULL, NULL, &handle));
    loop_start(&loop, queue, false);
    for (int i = 0; i < PRODUCERS; i++) {
      lanes[i] = (struct lane){queue, handle, i, count, 0};
      threads[i] = start(posts_its_lane, &lanes[i]);
    }
    for (int i = 0; i < PRODUCERS; i++) join(threads[i]);
    loop_end(&loop);
    for (int i = 0; i < PRODUCERS; i++) CHECK_EQ(lanes[i].last, count);
    CHECK_EQ(loop.dispatched, count * PRODUCERS);
    CHECK_OK(cbr_unregister(handle));
  }
}

static void *dispatches_and_exits(void *arg) {
  size_t count = 0;
  cbr_queue_dispatch(*(const cbr_queue *)arg, 0, 0, &count);
  FAIL("a dispatch whose callback has ended the thread returns");
}

static intptr_t exits_its_thread(struct subject *it, void *arg) {
  (void)arg;
  add_int(&it->running, -1); /* subject_fn will not get to it */
  pthread_exit((void *)4711);
}

TEST(a_callback_that_ends_its_thread_loses_no_other_event) {
  struct subject it;
  struct ear ear;
  struct action_payload data;
  subject_register(&it);
  ear_register(&ear);
  payload_init(&data.payload, 0);
  data.action.run = exits_its_thread;
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  cbr_post_options options = CBR_POST_OPTIONS_INIT;
  options.queue = queue;
  options.handle = it.handle;
  options.data = &data;
  options.len = sizeof data;
  options.free_data = frees_action;
  CHECK_OK(post_number(queue, &ear, 1));
  CHECK_OK(cbr_post_with(&options));
  CHECK_OK(post_number(queue, &ear, 2));
  CHECK_EQ((intptr_t)run_on_thread(dispatches_and_exits, &queue), 4711);
  CHECK_EQ(payload_freed(&data.payload), 1);
  CHECK_EQ(references(it.handle), 1);
  CHECK_EQ(queue_len(queue), 1);
  CHECK_EQ(dispatch_all(queue), 1);
  CHECK_HEARD(&ear, 1, 2);
  queue_discard(queue);
  CHECK_OK(cbr_unregister_wait(it.handle, -1));
  ear_end(&ear);
}

/* --- fork ----------------------------------------------------------------------------------- */

static void check_inherited(cbr_queue queue) {
  struct ear ear;
  struct payload payload;
  size_t count = 77;
  ear_register(&ear);
  CHECK_REFUSED(post_number(queue, &ear, 1), CBR_ERR_CLOSED);
  CHECK_REFUSED(payload_post(&payload, 1, queue, ear.handle, 0), CBR_ERR_CLOSED);
  CHECK_EQ(payload.freed, 0);
  CHECK_REFUSED(cbr_queue_dispatch(queue, 0, 0, &count), CBR_ERR_CLOSED);
  CHECK_EQ(count, 0);
  CHECK_REFUSED(cbr_queue_dispatch(queue, 0, -1, NULL), CBR_ERR_CLOSED);
  CHECK_REFUSED(cbr_call_on(queue, ear.handle, NULL, -1, NULL), CBR_ERR_CLOSED);
  CHECK_REFUSED(cbr_queue_adopt(queue), CBR_ERR_CLOSED);
  ear_end(&ear);
}

TEST(inherited_queues_are_closed_in_the_child_and_the_parents_are_not_touched) {
  static const uint32_t flags[] = {0, CBR_QUEUE_OWNED, CBR_QUEUE_COALESCE};
  for (int i = 0; i < 3; i++) {
    struct ear ear;
    struct payload waiting;
    ear_register(&ear);
    cbr_scope scope = scope_open("plugin");
    cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, flags[i]);
    cbr_queue busy = queue_open(8, CBR_QUEUE_REJECT, flags[i]);
    cbr_queue of_scope = queue_open_in(scope, 8, CBR_QUEUE_REJECT, flags[i]);
    int fd = queue_fd(queue), fd_of_scope = queue_fd(of_scope);
    CHECK_OK(payload_post(&waiting, 1, busy, ear.handle, 0));
    pid_t child = fork_watched();
    if (child == 0) {
      struct ear own;
      check_inherited(queue);
      check_inherited(busy);
      check_inherited(of_scope);
      cbr_queue_close(queue, CBR_CLOSE_DISCARD);
      scope_close(scope);
      ear_register(&own);
      cbr_queue fresh = queue_open(8, CBR_QUEUE_REJECT, flags[i]);
      CHECK_OK(post_number(fresh, &own, 1));
      CHECK_EQ(dispatch_all(fresh), 1);
      CHECK_HEARD(&own, 1);
      queue_discard(fresh);
      _exit(0);
    }
    check_child_passed(child);
    CHECK(!readable(fd));
    CHECK(!readable(fd_of_scope));
    CHECK_OK(post_number(queue, &ear, 2));
    CHECK_OK(post_number(of_scope, &ear, 3));
    CHECK(readable(fd));
    CHECK_EQ(dispatch_all(busy) + dispatch_all(queue) + dispatch_all(of_scope), 3);
    CHECK_HEARD(&ear, 1, 2, 3);
    CHECK_EQ(waiting.freed, 1);
    close(fd);
    close(fd_of_scope);
    scope_close(scope);
    queue_discard(queue);
    queue_discard(busy);
    ear_end(&ear);
  }
}

static intptr_t forks(struct subject *it, void *arg) {
  (void)it;
  *(pid_t *)arg = fork_watched();
  return 0;
}

TEST(a_callback_that_forks_returns_from_its_dispatch_in_both) {
  struct subject it;
  struct ear ear;
  pid_t child = -1;
  size_t count = 77;
  subject_register(&it);
  ear_register(&ear);
  cbr_queue queue = queue_open(8, CBR_QUEUE_REJECT, 0);
  CHECK_OK(post_action(queue, &it, forks, &child));
  CHECK_OK(post_number(queue, &ear, 1));
  cbr_status status = cbr_queue_dispatch(queue, 0, 0, &count);
  if (child == 0) {
    CHECK_STATUS(cbr_queue_dispatch(queue, 0, 0, NULL), CBR_ERR_CLOSED);
    CHECK_OK(cbr_unregister_wait(it.handle, -1));
    CHECK_EQ(it.destroyed, 1);
    _exit(0);
  }
  CHECK_OK(status);
  CHECK_EQ(count, 2);
  CHECK_HEARD(&ear, 1);
  check_child_passed(child);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(it.handle));
  ear_end(&ear);
}

/* --- dispatchers that keep up ------------------------------------------------------------------ */

static intptr_t posts_itself(void *user_data, void *arg) {
  cbr_queue queue = *(cbr_queue *)user_data;
  (void)arg;
  CHECK_OK(cbr_post(queue, cbr_current(), NULL, 0));
  return 0;
}

/* The shortest of some tries, because others run on the machine. */
static int64_t shortest_round(cbr_queue queue, int64_t timeout_ns) {
  int64_t best = INT64_MAX;
  for (int i = 0; i < 20; i++) {
    int64_t began = now_ns();
    for (int j = 0; j < 50; j++) CHECK_OK(cbr_queue_dispatch(queue, 0, timeout_ns, NULL));
    int64_t took = now_ns() - began;
    if (took < best) best = took;
  }
  return best;
}

/* A dispatch that may wait looks away from a queue that others post to; never from its own thread's. */
TEST(a_dispatch_that_may_wait_does_not_wait_for_what_is_there) {
  cbr_handle handle;
  cbr_queue queue = queue_open(4, CBR_QUEUE_REJECT, 0);
  CHECK_OK(cbr_register(posts_itself, &queue, NULL, &handle));
  CHECK_OK(cbr_post(queue, handle, NULL, 0));
  int64_t without = shortest_round(queue, 0);
  int64_t with = shortest_round(queue, -1);
  if (with > 10 * without)
    FAIL("50 dispatches took %lld ns, without waiting %lld ns", (long long)with, (long long)without);
  queue_discard(queue);
  CHECK_OK(cbr_unregister(handle));
}
