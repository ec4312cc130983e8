/* What check_top.py watches: callbacks and queues that do known things, a hundred times a second.
 *
 * Reads commands, a line each, and answers each with a line:
 *   counts    how often busy and calm were called, how often busy has failed, what events has dropped
 *   rest      does nothing any more
 *   work      goes on
 *   many N    registers N more callbacks, called more-0 and so on
 *   end       ends */
#include <callbridge.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK_OK(call)                                           \
  do {                                                           \
    cbr_status check_status = (call);                            \
    if (check_status != CBR_OK) {                                \
      fprintf(stderr, "%s: %d\n", #call, (int)check_status);     \
      exit(1);                                                   \
    }                                                            \
  } while (0)

enum { A_ROUND = 100, FAILS_EVERY = 50, EVENTS = 5, ROOM = 8 };

static unsigned long long busy_calls, busy_failures, calm_calls;

static intptr_t busy(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  if (++busy_calls % FAILS_EVERY == 0) {
    busy_failures++;
    CHECK_OK(cbr_fail(CBR_ERR_CALLBACK, "on purpose"));
  }
  return 0;
}

static intptr_t calm(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  calm_calls++;
  usleep(2000); /* longer than anything of busy */
  return 0;
}

static intptr_t listens(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  return 0;
}

static cbr_handle registered(cbr_fn fn, const char *name, cbr_scope scope, uint32_t flags) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  options.fn = (cbr_any_fn)fn;
  options.name = name;
  options.scope = scope;
  options.flags = flags;
  CHECK_OK(cbr_register_with(&options, &handle));
  return handle;
}

static cbr_queue opened(const char *name, uint32_t policy) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  options.name = name;
  options.capacity = ROOM;
  options.policy = policy;
  CHECK_OK(cbr_queue_open(&options, &queue));
  return queue;
}

int main(void) {
  cbr_scope scope;
  cbr_pin pin;
  char command[64], name[32];
  bool works = true;
  CHECK_OK(cbr_scope_open("plugin", &scope));
  cbr_handle is_busy = registered(busy, "busy", 0, CBR_METERED);
  cbr_handle is_calm = registered(calm, "calm", scope, CBR_METERED);
  cbr_handle inside = registered(listens, "stays inside", 0, 0);
  cbr_handle plain = registered(listens, "\x1b[31mred\n", 0, 0);
  registered(listens, NULL, 0, 0);
  cbr_queue events = opened("events", CBR_QUEUE_DROP_OLDEST), taken = opened("taken", CBR_QUEUE_REJECT);
  CHECK_OK(cbr_enter(inside, 0, &pin));
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    struct pollfd asked = {STDIN_FILENO, POLLIN, 0};
    if (poll(&asked, 1, 10) > 0) {
      size_t len = 0;
      /* Not by stdio, which would read on. */
      while (len < sizeof command - 1 && read(STDIN_FILENO, &command[len], 1) == 1 && command[len] != '\n')
        len++;
      command[len] = '\0';
      if (strcmp(command, "rest") == 0) works = false;
      if (strcmp(command, "work") == 0) works = true;
      for (int i = 0; strncmp(command, "many ", 5) == 0 && i < atoi(command + 5); i++) {
        snprintf(name, sizeof name, "more-%d", i);
        registered(listens, name, 0, 0);
      }
      cbr_stats stats = {.size = sizeof stats};
      CHECK_OK(cbr_stats_get(0, &stats));
      printf("%llu %llu %llu %llu\n", busy_calls, calm_calls, busy_failures, (unsigned long long)stats.dropped);
      fflush(stdout);
      if (len == 0 || strcmp(command, "end") == 0) return 0;
      continue;
    }
    if (!works) continue;
    for (int i = 0; i < A_ROUND; i++) (void)cbr_call(is_busy, NULL, NULL);
    CHECK_OK(cbr_call(is_calm, NULL, NULL));
    for (int i = 0; i < EVENTS; i++) CHECK_OK(cbr_post(events, plain, "x", 1));
    for (int i = 0; i < EVENTS; i++) CHECK_OK(cbr_post(taken, plain, "x", 1));
    CHECK_OK(cbr_queue_dispatch(taken, 0, 0, NULL));
  }
}
