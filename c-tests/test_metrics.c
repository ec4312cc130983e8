/* Metrics: what cbr_metrics writes is OpenMetrics, is what docs/METRICS.md says, and is right. */
#include "support_metrics.h"
#include "support_queue.h"

static intptr_t add_one(void *user_data, void *arg) {
  (void)user_data;
  return (intptr_t)arg + 1;
}

static intptr_t fails_as(void *user_data, void *arg) {
  (void)user_data;
  CHECK_OK(cbr_fail((cbr_status)(intptr_t)arg, "on purpose"));
  return 0;
}

static cbr_handle registered(cbr_fn fn) {
  cbr_handle handle;
  CHECK_OK(cbr_register(fn, NULL, NULL, &handle));
  return handle;
}

static cbr_queue queue_named(const char *name, cbr_scope scope, size_t capacity, uint32_t policy) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  options.name = name;
  options.scope = scope;
  options.capacity = capacity;
  options.policy = policy;
  CHECK_OK(cbr_queue_open(&options, &queue));
  return queue;
}

/* --- the contract -------------------------------------------------------------------------- */

#ifndef METRICS_PAGE
#define METRICS_PAGE "docs/METRICS.md" /* for compilers that are not called by CMake */
#endif

enum { NAME, TYPE, UNIT, LABELS, OF_SCOPE, SIGNAL, STABILITY, HELP, COLUMNS };

/* The table of docs/METRICS.md, without the quotes around names. */
static char *contract[FAMILIES_MAX][COLUMNS];
static int contract_count;

static void read_contract(void) {
  static char text[1 << 16];
  FILE *file = fopen(METRICS_PAGE, "r");
  if (file == NULL) FAIL("%s: %s", METRICS_PAGE, strerror(errno));
  text[fread(text, 1, sizeof text - 1, file)] = 0;
  fclose(file);
  char *to = text;
  for (char *from = text; *from != 0; from++) {
    if (*from != '`') *to++ = *from;
  }
  *to = 0;
  for (char *at = strstr(text, "| metric |"); at != NULL && *at == '|';) {
    char *line = metrics_word(&at, '\n');
    if (strncmp(line, "| callbridge_", 13) != 0) continue;
    CHECK(contract_count < FAMILIES_MAX);
    line += 2;
    for (int column = 0; column < COLUMNS; column++) {
      char *end = strstr(line, column == COLUMNS - 1 ? " |" : "| ");
      CHECK(end != NULL);
      *end = 0;
      if (end > line && end[-1] == ' ') end[-1] = 0;
      contract[contract_count][column] = line;
      line = end + 2;
    }
    contract_count++;
  }
  CHECK(contract_count > 10);
}

static bool is_said(char *const *row, const struct family *family) {
  char name[256];
  const char *suffix = strcmp(row[TYPE], "counter") == 0 ? "_total"
                       : strcmp(row[TYPE], "info") == 0  ? "_info"
                                                         : "";
  snprintf(name, sizeof name, "%s%s", family->name, suffix);
  return strcmp(name, row[NAME]) == 0;
}

/* A sample has the labels that the row names, in that order, and those of its kind. */
static void check_labels(char *const *row, const struct sample *sample, bool of_scope) {
  char said[256] = "", has[256] = "";
  if (of_scope) strcat(said, "scope, ");
  if (*row[LABELS] != 0) strcat(strcat(said, row[LABELS]), ", ");
  if (strstr(sample->name, "_bucket") != NULL) strcat(said, "le, ");
  for (int i = 0; i < sample->count; i++) strcat(strcat(has, sample->labels[i].name), ", ");
  CHECK_STR(has, said);
}

static void check_contract(bool of_scope) {
  int at = 0;
  for (int i = 0; i < contract_count; i++) {
    char *const *row = contract[i];
    if (of_scope && strcmp(row[OF_SCOPE], "yes") != 0) continue;
    if (at == family_count) FAIL("%s is not written", row[NAME]);
    struct family *family = &families[at++];
    if (!is_said(row, family)) FAIL("%s is written, said is %s", family->name, row[NAME]);
    CHECK_STR(family->type, row[TYPE]);
    CHECK_STR(family->unit, row[UNIT]);
    CHECK_STR(family->help, row[HELP]);
    int count = 0;
    for (int k = 0; k < sample_count; k++) {
      if (samples[k].family != family) continue;
      check_labels(row, &samples[k], of_scope);
      count++;
    }
    if (count == 0) FAIL("no sample of %s", family->name);
  }
  if (at != family_count) FAIL("%s is in no contract", families[at].name);
}

TEST(what_is_written_is_what_the_page_says) {
  cbr_scope scope;
  cbr_handle metered;
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  read_contract();
  CHECK_OK(cbr_scope_open("plugin", &scope));
  options.fn = (cbr_any_fn)add_one;
  options.scope = scope;
  options.flags = CBR_METERED;
  CHECK_OK(cbr_register_with(&options, &metered));
  cbr_queue queue = queue_named("events", scope, 0, 0);
  CHECK_OK(cbr_post(queue, registered(add_one), NULL, 0));
  metrics_read(0);
  check_contract(false);
  metrics_read(scope);
  check_contract(true);
  CHECK_STR(label_of(&samples[0], "scope"), "plugin");
}

TEST(the_version_is_the_librarys) {
  metrics_read(0);
  CHECK_METRIC("callbridge_build_info", "version", cbr_version_string(), 1);
}

TEST(names_are_escaped) {
  static const char name[] = "a\"b\\c\nd \xc3\xa4{}=,";
  cbr_scope scope;
  CHECK_OK(cbr_scope_open(name, &scope));
  (void)queue_named(name, scope, 7, 0);
  CHECK_CONTAINS(metrics_write(scope),
                 "callbridge_queue_capacity{scope=\"a\\\"b\\\\c\\nd \xc3\xa4{}=,\","
                 "queue=\"a\\\"b\\\\c\\nd \xc3\xa4{}=,\"} 7\n");
  metrics_read(scope);
  CHECK_METRIC("callbridge_queue_capacity", "queue", name, 7);
  CHECK_METRIC("callbridge_queue_capacity", "scope", name, 7);
}

/* --- numbers ------------------------------------------------------------------------------- */

TEST(callbacks_and_calls_are_counted) {
  cbr_handle handle = registered(add_one), gone = registered(add_one);
  cbr_thunk thunk;
  cbr_any_fn fn;
  cbr_pin pin;
  CHECK_OK(cbr_thunk_open(gone, CBR_SIG_DEFAULT, 0, &fn, &thunk));
  CHECK_OK(cbr_unregister(gone));
  CHECK_OK(cbr_call(handle, NULL, NULL));
  CHECK_OK(cbr_hold(handle, 0, &pin));
  CHECK_STATUS(cbr_call(gone, NULL, NULL), CBR_ERR_STALE);
  CHECK_EQ(((intptr_t (*)(void *))fn)(NULL), 0);
  metrics_read(0);
  CHECK_METRIC("callbridge_callbacks_live", NULL, NULL, 1);
  CHECK_METRIC("callbridge_callbacks_registered_total", NULL, NULL, 2);
  CHECK_METRIC("callbridge_callbacks_destroyed_total", NULL, NULL, 1);
  CHECK_METRIC("callbridge_destroys_pending", NULL, NULL, 0);
  CHECK_METRIC("callbridge_calls_total", NULL, NULL, 2);
  CHECK_METRIC("callbridge_calls_in_flight", NULL, NULL, 1);
  CHECK_METRIC("callbridge_stale_calls_total", NULL, NULL, 2);
  CHECK_METRIC("callbridge_threads", NULL, NULL, 1);
  CHECK_METRIC("callbridge_thunks_open", NULL, NULL, 1);
  CHECK_METRIC("callbridge_thunk_stale_calls_total", NULL, NULL, 1);
  CHECK_OK(cbr_unregister(handle));
  metrics_read(0);
  CHECK_METRIC("callbridge_callbacks_live", NULL, NULL, 0);
  CHECK_METRIC("callbridge_destroys_pending", NULL, NULL, 1);
  CHECK_OK(cbr_leave(&pin));
}

static void *call_elsewhere(void *handle) {
  CHECK_REFUSED(cbr_call(*(cbr_handle *)handle, NULL, NULL), CBR_ERR_THREAD);
  return NULL;
}

static intptr_t call_itself(void *user_data, void *arg) {
  cbr_status *deepest = arg;
  (void)user_data;
  cbr_status status = cbr_call(cbr_current(), arg, NULL);
  if (status != CBR_OK) *deepest = status;
  return 0;
}

TEST(failures_are_counted_by_status) {
  static const char *const statuses[] = {"CBR_ERR_CALLBACK", "CBR_ERR_PANIC", "CBR_ERR_SIGNATURE",
                                         "CBR_ERR_THREAD", "CBR_ERR_LIMIT"};
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle typed, at_home, failing = registered(fails_as);
  cbr_status deepest = CBR_OK;
  metrics_read(0);
  for (int i = 0; i < 5; i++) CHECK_METRIC("callbridge_failures_total", "status", statuses[i], 0);
  options.fn = (cbr_any_fn)add_one;
  options.signature = CBR_SIG(CBR_VOID);
  CHECK_OK(cbr_register_with(&options, &typed));
  options.signature = 0;
  options.home = queue_open(0, 0, CBR_QUEUE_OWNED);
  CHECK_OK(cbr_register_with(&options, &at_home));
  void *panics = (void *)(intptr_t)CBR_ERR_PANIC, *callback = (void *)(intptr_t)CBR_ERR_CALLBACK;
  CHECK_STATUS(cbr_call(failing, callback, NULL), CBR_ERR_CALLBACK);
  for (int i = 0; i < 2; i++) CHECK_STATUS(cbr_call(failing, panics, NULL), CBR_ERR_PANIC);
  for (int i = 0; i < 3; i++) CHECK_STATUS(cbr_call(typed, NULL, NULL), CBR_ERR_SIGNATURE);
  for (int i = 0; i < 4; i++) run_on_thread(call_elsewhere, &at_home);
  CHECK_OK(cbr_call(registered(call_itself), &deepest, NULL));
  CHECK_STATUS(deepest, CBR_ERR_LIMIT);
  metrics_read(0);
  for (int i = 0; i < 4; i++) {
    CHECK_METRIC("callbridge_failures_total", "status", statuses[i], i + 1);
  }
  CHECK_METRIC("callbridge_failures_total", "status", "CBR_ERR_LIMIT", 1);
  CHECK_METRIC("callbridge_stale_calls_total", NULL, NULL, 0);
}

static void *post_one(void *queue) {
  CHECK_OK(cbr_post(*(cbr_queue *)queue, registered(add_one), NULL, 0));
  return NULL;
}

TEST(queues_are_counted_by_name) {
  cbr_handle handle = registered(add_one);
  cbr_queue first = queue_named("work", 0, 2, CBR_QUEUE_DROP_OLDEST);
  cbr_queue second = queue_named("work", 0, 4, CBR_QUEUE_REJECT);
  cbr_queue other = queue_named(NULL, 0, 2, CBR_QUEUE_BLOCK);
  for (int i = 0; i < 3; i++) CHECK_OK(cbr_post(first, handle, NULL, 0));
  for (int i = 0; i < 4; i++) CHECK_OK(cbr_post(second, handle, NULL, 0));
  CHECK_STATUS(cbr_post(second, handle, NULL, 0), CBR_ERR_FULL);
  CHECK_EQ(dispatch_some(second, 3), 3);
  for (int i = 0; i < 2; i++) CHECK_OK(cbr_post(other, handle, NULL, 0));
  pthread_t blocked = start(post_one, &other);
  do metrics_read(0);
  while (metric("callbridge_queue_blocked_total", "queue", "") < 1);
  CHECK_METRIC("callbridge_queues_open", "queue", "work", 2);
  CHECK_METRIC("callbridge_queue_depth", "queue", "work", 3);
  CHECK_METRIC("callbridge_queue_capacity", "queue", "work", 6);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 7);
  CHECK_METRIC("callbridge_queue_dispatched_total", "queue", "work", 3);
  CHECK_METRIC("callbridge_queue_dropped_total", "queue", "work", 1);
  CHECK_METRIC("callbridge_queue_refused_total", "queue", "work", 1);
  CHECK_METRIC("callbridge_queue_blocked_total", "queue", "work", 0);
  CHECK_METRIC("callbridge_queue_depth", "queue", "", 2);
  CHECK_METRIC("callbridge_queue_blocked_total", "queue", "", 1);
  CHECK_EQ(dispatch_some(other, 1), 1);
  join(blocked);
  /* What one has counted stays when it ends, and when all have. */
  CHECK_OK(cbr_queue_close(first, CBR_CLOSE_DISCARD));
  metrics_read(0);
  CHECK_METRIC("callbridge_queues_open", "queue", "work", 1);
  CHECK_METRIC("callbridge_queue_depth", "queue", "work", 1);
  CHECK_METRIC("callbridge_queue_capacity", "queue", "work", 4);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 7);
  CHECK_METRIC("callbridge_queue_dropped_total", "queue", "work", 3);
  CHECK_OK(cbr_queue_close(second, CBR_CLOSE_DISCARD));
  metrics_read(0);
  CHECK_METRIC("callbridge_queues_open", "queue", "work", 0);
  CHECK_METRIC("callbridge_queue_capacity", "queue", "work", 0);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 7);
  CHECK_METRIC("callbridge_queue_dropped_total", "queue", "work", 4);
}

TEST(a_scopes_metrics_are_its_own) {
  cbr_scope scope, other;
  cbr_handle handle = registered(add_one);
  CHECK_OK(cbr_scope_open("plugin", &scope));
  CHECK_OK(cbr_scope_open("other", &other));
  cbr_queue inside = queue_named("work", scope, 4, 0), same = queue_named("work", scope, 8, 0);
  cbr_queue elsewhere = queue_named("work", other, 16, 0);
  (void)queue_named("more", other, 16, 0);
  CHECK_OK(cbr_post(inside, handle, NULL, 0));
  CHECK_OK(cbr_post(elsewhere, handle, NULL, 0));
  metrics_read(scope);
  CHECK_METRIC("callbridge_callbacks_live", NULL, NULL, 0);
  CHECK_METRIC("callbridge_queue_capacity", "queue", "work", 12);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 1);
  CHECK_METRIC("callbridge_queue_capacity", "queue", "more", -1);
  metrics_read(0);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 2);
  /* One of two ends, then both: the process does not forget. */
  CHECK_OK(cbr_queue_close(inside, CBR_CLOSE_DISCARD));
  metrics_read(scope);
  CHECK_METRIC("callbridge_queue_capacity", "queue", "work", 8);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 1);
  CHECK_OK(cbr_queue_close(same, CBR_CLOSE_DISCARD));
  metrics_read(scope);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", -1);
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  CHECK_OK(cbr_scope_close(other, -1, NULL));
  metrics_read(0);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 2);
  CHECK_METRIC("callbridge_queue_dropped_total", "queue", "work", 2);
}

TEST(a_limit_bounds_the_names) {
  char name[32];
  cbr_handle handle = registered(add_one);
  for (int i = 0; i < 300; i++) {
    snprintf(name, sizeof name, "queue %d", i);
    cbr_queue queue = queue_named(name, 0, 1, 0);
    CHECK_OK(cbr_post(queue, handle, NULL, 0));
    CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  }
  metrics_read(0);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "queue 255", 1);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "queue 256", -1);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "other", 44);
}

static void close_in(struct turns *turns, unsigned turn) {
  static cbr_handle handle;
  if (handle == 0) handle = registered(add_one);
  cbr_queue queue = queue_named("short-lived", 0, 4, 0);
  for (int post = 0; post < 3; post++) CHECK_OK(cbr_post(queue, handle, NULL, 0));
  turns_wait(turns, turn);
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
}

static double posted_by_name(void) {
  metrics_read(0);
  return metric("callbridge_queue_posted_total", "queue", "short-lived");
}

static double posted_in_all(void) {
  cbr_stats stats = {.size = sizeof stats};
  CHECK_OK(cbr_stats_get(0, &stats));
  return (double)stats.posted;
}

TEST(what_was_counted_is_seen_once_while_queues_end) {
  (void)queue_named("short-lived", 0, 4, 0);
  turns_take(close_in, posted_by_name, 3, scaled(5000));
  CHECK_METRIC("callbridge_queue_dropped_total", "queue", "short-lived",
               metric("callbridge_queue_posted_total", "queue", "short-lived"));
}

TEST(what_was_counted_is_in_the_statistics_once_while_queues_end) {
  turns_take(close_in, posted_in_all, 3, scaled(5000));
}

static intptr_t close_from_inside(void *user_data, void *arg) {
  (void)user_data;
  CHECK_OK(cbr_queue_close(*(cbr_queue *)arg, CBR_CLOSE_DISCARD));
  metrics_read(0);
  CHECK_METRIC("callbridge_queues_open", "queue", "work", 0);
  CHECK_METRIC("callbridge_queue_capacity", "queue", "work", 0);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 1);
  return 0;
}

TEST(a_queue_that_is_closed_is_not_there_although_somebody_is_inside) {
  cbr_queue queue = queue_named("work", 0, 4, 0);
  CHECK_OK(cbr_post(queue, registered(close_from_inside), &queue, sizeof queue));
  CHECK_EQ(dispatch_some(queue, 1), 1);
}

/* --- refusals ------------------------------------------------------------------------------ */

static void never(void *user_data, const char *data, size_t len) {
  (void)user_data, (void)data, (void)len;
  FAIL("written in vain");
}

TEST(metrics_of_what_is_gone_are_refused) {
  cbr_scope scope;
  CHECK_OK(cbr_scope_open("plugin", &scope));
  CHECK_REFUSED(cbr_metrics(scope, NULL, NULL), CBR_ERR_NULL);
  CHECK_REFUSED(cbr_metrics(registered(add_one), never, NULL), CBR_ERR_KIND);
  CHECK_OK(cbr_scope_close(scope, -1, NULL));
  CHECK_REFUSED(cbr_metrics(scope, never, NULL), CBR_ERR_STALE);
}

static void use_the_library(void *user_data, const char *data, size_t len) {
  static const char name[] = "another";
  (void)data, (void)len;
  if (user_data != NULL) return;
  CHECK_OK(cbr_unregister(registered(add_one)));
  CHECK_OK(cbr_queue_close(queue_named(name, 0, 1, 0), CBR_CLOSE_DISCARD));
  CHECK_OK(cbr_metrics(0, use_the_library, (void *)name));
}

TEST(the_writer_of_metrics_may_use_the_library) {
  CHECK_OK(cbr_metrics(0, use_the_library, NULL));
}

TEST(in_the_child_of_a_fork_only_the_parents_queues_are_forgotten) {
  int status = 0;
  cbr_queue queue = queue_named("work", 0, 4, 0);
  CHECK_OK(cbr_post(queue, registered(add_one), NULL, 0));
  CHECK_OK(cbr_queue_close(queue_named("done", 0, 4, 0), CBR_CLOSE_DISCARD));
  pid_t child = fork();
  if (child == 0) {
    metrics_read(0);
    CHECK_METRIC("callbridge_queues_open", "queue", "work", 0);
    CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 0);
    CHECK_METRIC("callbridge_queue_posted_total", "queue", "done", 0);
    CHECK_METRIC("callbridge_callbacks_live", NULL, NULL, 1);
    (void)queue_named("work", 0, 4, 0);
    metrics_read(0);
    CHECK_METRIC("callbridge_queues_open", "queue", "work", 1);
    _exit(0);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  metrics_read(0);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 1);
}

static gate inside, go_on;

static intptr_t stay_inside(void *user_data, void *arg) {
  (void)user_data, (void)arg;
  gate_open(&inside);
  gate_pass(&go_on);
  return 0;
}

static void *dispatch_one(void *queue) {
  CHECK_EQ(dispatch_some(*(cbr_queue *)queue, 1), 1);
  return NULL;
}

TEST(in_the_child_of_a_fork_a_queue_that_was_closing_is_forgotten_as_well) {
  int status = 0;
  if (under_valgrind()) SKIP("in the child nobody frees what a thread that is not there had allocated");
  cbr_queue queue = queue_named("work", 0, 4, 0);
  gate_init(&inside);
  gate_init(&go_on);
  CHECK_OK(cbr_post(queue, registered(stay_inside), NULL, 0));
  pthread_t dispatcher = start(dispatch_one, &queue);
  gate_pass(&inside);
  CHECK_OK(cbr_queue_close(queue, CBR_CLOSE_DISCARD));
  pid_t child = fork();
  if (child == 0) {
    CHECK_OK(cbr_unregister(registered(add_one))); /* ends what its thread was inside of, which is not here */
    metrics_read(0);
    CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 0);
    _exit(0);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  gate_open(&go_on);
  join(dispatcher);
  metrics_read(0);
  CHECK_METRIC("callbridge_queue_posted_total", "queue", "work", 1);
}
