/* SQLite calls back: a scalar function, an aggregate, a collation, an update hook and a progress handler,
 * each backed by a callback of callbridge.
 *
 *   cc sqlite_functions.c $(pkg-config --cflags --libs callbridge sqlite3) -pthread
 *
 * SQLite keeps a void * beside each function and frees it with xDestroy. Here that void * is a handle, and
 * xDestroy is cbr_release_ptr: SQLite owns a reference, and others may own some, too. A small function of
 * SQLite's type (a trampoline) passes the call on; what is gone then is an error of the statement, not of
 * the process. Who frees what, as SQLite's manual has it:
 *
 *   sqlite3_create_function_v2    xDestroy when it is replaced, when the connection closes, and when it fails
 *   sqlite3_create_collation_v2   the same, but not when it fails
 *   sqlite3_update_hook           no xDestroy: the void * of the hook before is returned
 *   sqlite3_progress_handler      neither: its owner gives the reference back
 *
 * SQLite refuses to replace a function while a statement runs. The function price() is a thunk, and can be
 * replaced at any time, by any thread: cbr_thunk_retarget. The old one's data lives until its call returns.
 *
 * The program checks the results and that each destroy function ran once. Exit 0 if all is well. */
#define _GNU_SOURCE
#include "bridge_common.h"

#include <ctype.h>
#include <limits.h>
#include <sqlite3.h>

static int mistakes;
static void check(bool right, const char *what) {
  printf("%-8s %s\n", right ? "ok" : "WRONG", what);
  if (!right) mistakes++;
}

/* --- callbacks with data that is freed once --------------------------------------------------- */

/* What became of the data of each callback. */
enum owner { VAT, WAVG, NATURAL, CHANGES, WATCH, PRICE, NEW_PRICE, REFUSED_FUNCTION, REFUSED_COLLATION, OWNERS };
static int destroyed[OWNERS];

struct data {
  enum owner owner;
  int number; /* what the callback makes of it */
};

static void destroy(void *user_data) {
  struct data *it = user_data;
  __atomic_fetch_add(&destroyed[it->owner], 1, __ATOMIC_RELAXED);
  free(it);
}
static int times_destroyed(enum owner owner) { return __atomic_load_n(&destroyed[owner], __ATOMIC_RELAXED); }

/* A callback with data of its own. `signature` 0: fn is a cbr_fn. `home` 0: called on any thread. */
static cbr_handle make(enum owner owner, int number, cbr_any_fn fn, cbr_signature signature, cbr_queue home) {
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  struct data *data = malloc(sizeof *data);
  cbr_handle handle;
  if (!data) die("malloc");
  *data = (struct data){owner, number};
  options.fn = fn;
  options.user_data = data;
  options.destroy = destroy;
  options.signature = signature;
  options.home = home;
  must(cbr_register_with(&options, &handle), "cbr_register_with");
  return handle;
}

static cbr_handle handle_of(void *pointer) { return (cbr_handle)(uintptr_t)pointer; }

/* --- functions and aggregates ------------------------------------------------------------------ */

/* What a callback gets: a call of SQLite. */
struct call {
  sqlite3_context *context;
  int count;
  sqlite3_value **values;
  enum { STEP, FINAL } phase; /* of an aggregate */
};

/* A call that does not reach its callback, or that fails there, fails the statement. */
static void pass(sqlite3_context *context, struct call *call) {
  char words[512];
  if (cbr_call(handle_of(sqlite3_user_data(context)), call, NULL) == CBR_OK) return;
  cbr_last_error(words, sizeof words);
  sqlite3_result_error(context, words, -1);
}
static void on_step(sqlite3_context *context, int count, sqlite3_value **values) {
  pass(context, &(struct call){context, count, values, STEP});
}
static void on_final(sqlite3_context *context) { pass(context, &(struct call){context, 0, NULL, FINAL}); }

/* vat(cents): with so many percent. */
static intptr_t vat(void *user_data, void *arg) {
  const struct data *it = user_data;
  const struct call *call = arg;
  sqlite3_int64 cents = sqlite3_value_int64(call->values[0]);
  if (cents < 0) {
    cbr_fail(CBR_ERR_CALLBACK, "no VAT on debts");
    return 0;
  }
  sqlite3_result_int64(call->context, cents + cents * it->number / 100);
  return 0;
}

/* wavg(value, weight): the mean of what weighs something. */
struct sums {
  double values, weights;
};
static intptr_t wavg(void *user_data, void *arg) {
  const struct data *it = user_data;
  const struct call *call = arg;
  /* Zeroed by SQLite at the first use in a group, and freed by it. */
  struct sums *sums = sqlite3_aggregate_context(call->context, sizeof *sums);
  if (!sums) {
    sqlite3_result_error_nomem(call->context);
  } else if (call->phase == STEP) {
    double weight = sqlite3_value_double(call->values[1]);
    if (weight < it->number) return 0;
    sums->values += weight * sqlite3_value_double(call->values[0]);
    sums->weights += weight;
  } else if (sums->weights > 0) {
    sqlite3_result_double(call->context, sums->values / sums->weights);
  }
  return 0;
}

/* --- a collation ------------------------------------------------------------------------------- */

struct pair {
  const char *a, *b;
  int a_length, b_length;
};

static int on_compare(void *user_data, int a_length, const void *a, int b_length, const void *b) {
  struct pair pair = {a, b, a_length, b_length};
  intptr_t order;
  if (cbr_call(handle_of(user_data), &pair, &order) == CBR_OK) return (int)order;
  /* A collation cannot fail. Without its callback there must be some order all the same. */
  order = memcmp(a, b, (size_t)(a_length < b_length ? a_length : b_length));
  return order != 0 ? (int)order : a_length - b_length;
}

/* Digits by their value: "item 9" comes before "item 10". */
/* The number there; all that are too large for the type are the same. */
static long number_at(const char *text, int length, int *at) {
  long value = 0;
  for (; *at < length && isdigit((unsigned char)text[*at]); ++*at) {
    const int digit = text[*at] - '0';
    value = value > (LONG_MAX - digit) / 10 ? LONG_MAX : value * 10 + digit;
  }
  return value;
}
static intptr_t natural(void *user_data, void *arg) {
  const struct pair *it = arg;
  int i = 0, j = 0;
  (void)user_data;
  while (i < it->a_length && j < it->b_length) {
    unsigned char a = (unsigned char)it->a[i], b = (unsigned char)it->b[j];
    if (isdigit(a) && isdigit(b)) {
      long left = number_at(it->a, it->a_length, &i), right = number_at(it->b, it->b_length, &j);
      if (left != right) return left < right ? -1 : 1;
    } else if (a != b) {
      return a < b ? -1 : 1;
    } else {
      i++, j++;
    }
  }
  return (it->a_length - i) - (it->b_length - j);
}

/* --- the update hook --------------------------------------------------------------------------- */

/* In the hook the database must not be used. So the change is posted to the callback's home, a queue that
 * is dispatched after the statement, where everything is allowed. */
struct change {
  sqlite3 *db;
  sqlite3_int64 row;
};
static sqlite3 *watched;
static int changes_seen;
static sqlite3_int64 cents_seen;

static void on_update(void *user_data, int operation, const char *database, const char *table, sqlite3_int64 row) {
  struct change change = {watched, row};
  (void)operation, (void)database, (void)table;
  must(cbr_post(0, handle_of(user_data), &change, sizeof change), "cbr_post");
}

static sqlite3_int64 number_of(sqlite3 *db, const char *sql);

static intptr_t changes(void *user_data, void *arg) {
  const struct change *it = arg;
  char sql[100];
  (void)user_data;
  snprintf(sql, sizeof sql, "SELECT cents FROM item WHERE rowid = %lld", (long long)it->row);
  changes_seen++;
  cents_seen += number_of(it->db, sql);
  return 0;
}

/* --- the progress handler ---------------------------------------------------------------------- */

static int on_progress(void *user_data) {
  intptr_t stop;
  /* Whoever watched is gone: then nobody wants it stopped. */
  return cbr_call(handle_of(user_data), NULL, &stop) == CBR_OK && stop != 0;
}

/* Stops a statement when it has been asked so many times. */
static intptr_t too_long(void *user_data, void *arg) {
  struct data *it = user_data;
  (void)arg;
  return --it->number <= 0;
}

/* --- a function that is replaced while it runs ------------------------------------------------- */

#define FUNCTION_SIGNATURE CBR_SIG(CBR_VOID, CBR_PTR, CBR_INT, CBR_PTR)
typedef void (*function)(sqlite3_context *, int, sqlite3_value **);

static cbr_thunk price_thunk;
static cbr_handle price_handle;
static int price_calls;

static void new_price(void *user_data, sqlite3_context *context, int count, sqlite3_value **values) {
  const struct data *it = user_data;
  (void)count;
  sqlite3_result_int64(context, sqlite3_value_int64(values[0]) * it->number);
}

/* A thread that knows nothing of SQLite: there are new prices, and the old ones go. */
static void *reload(void *arg) {
  cbr_handle handle = make(NEW_PRICE, 100, (cbr_any_fn)new_price, FUNCTION_SIGNATURE, 0);
  must(cbr_thunk_retarget(price_thunk, handle), "cbr_thunk_retarget");
  must(cbr_release(handle), "cbr_release"); /* the thunk has its own reference */
  must(cbr_unregister(price_handle), "cbr_unregister");
  return arg;
}

static void price(void *user_data, sqlite3_context *context, int count, sqlite3_value **values) {
  const struct data *it = user_data;
  (void)count;
  if (++price_calls == 2) {
    pthread_join(start(reload, NULL), NULL);
    check(times_destroyed(PRICE) == 0, "the data of the function that was replaced lives while it is called");
  }
  sqlite3_result_int64(context, sqlite3_value_int64(values[0]) * it->number);
}

static void close_thunk(void *thunk) { must(cbr_thunk_close(handle_of(thunk)), "cbr_thunk_close"); }

/* --- statements -------------------------------------------------------------------------------- */

static void run(sqlite3 *db, const char *sql) {
  char *words = NULL;
  if (sqlite3_exec(db, sql, NULL, NULL, &words) == SQLITE_OK) return;
  fprintf(stderr, "%s: %s\n", sql, words);
  abort();
}

/* SQLite's result of running the statement to its end, and the first column of its first row. */
static int result_of(sqlite3 *db, const char *sql, sqlite3_int64 *out) {
  sqlite3_stmt *statement = NULL;
  int result = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
  if (result != SQLITE_OK) return result;
  result = sqlite3_step(statement);
  if (result == SQLITE_ROW) *out = sqlite3_column_int64(statement, 0);
  while (result == SQLITE_ROW) result = sqlite3_step(statement);
  sqlite3_finalize(statement);
  return result == SQLITE_DONE ? SQLITE_OK : result;
}
static sqlite3_int64 number_of(sqlite3 *db, const char *sql) {
  sqlite3_int64 out = -1;
  return result_of(db, sql, &out) == SQLITE_OK ? out : -1;
}

/* SQLite has the callback's reference now, also if it refuses. */
static int add_function(sqlite3 *db, const char *name, int arguments, function scalar, function step,
                        void (*final)(sqlite3_context *), cbr_handle handle) {
  return sqlite3_create_function_v2(db, name, arguments, SQLITE_UTF8, CBR_TO_PTR(handle), scalar, step, final,
                                    cbr_release_ptr);
}
static int add_collation(sqlite3 *db, const char *name, int encoding, cbr_handle handle) {
  int result = sqlite3_create_collation_v2(db, name, encoding, CBR_TO_PTR(handle), on_compare, cbr_release_ptr);
  if (result != SQLITE_OK) cbr_release(handle);
  return result;
}
static void set_update_hook(sqlite3 *db, cbr_handle handle) {
  watched = db;
  cbr_release_ptr(sqlite3_update_hook(db, handle ? on_update : NULL, CBR_TO_PTR(handle)));
}

/* --- the program ------------------------------------------------------------------------------- */

static void functions(sqlite3 *db) {
  sqlite3_int64 ignored;
  cbr_handle handle = make(VAT, 19, (cbr_any_fn)vat, 0, 0);
  check(add_function(db, "vat", 1, on_step, NULL, NULL, handle) == SQLITE_OK &&
             number_of(db, "SELECT sum(vat(cents)) FROM item") == 119 + 238 + 357,
         "a scalar function");
  check(result_of(db, "SELECT vat(-1)", &ignored) == SQLITE_ERROR && strstr(sqlite3_errmsg(db), "no VAT on debts"),
         "a callback that fails is an error of the statement, with its words");
  must(cbr_unregister(handle), "cbr_unregister");
  check(times_destroyed(VAT) == 1 && result_of(db, "SELECT vat(100)", &ignored) == SQLITE_ERROR,
         "and so is one that is gone");

  handle = make(WAVG, 1, (cbr_any_fn)wavg, 0, 0);
  check(add_function(db, "wavg", 2, NULL, on_step, on_final, handle) == SQLITE_OK &&
             number_of(db, "SELECT 1000 * wavg(cents, weight) FROM item") == 250000 &&
             number_of(db, "SELECT wavg(cents, weight) IS NULL FROM item WHERE weight = 0") == 1,
         "an aggregate");

  handle = make(REFUSED_FUNCTION, 0, (cbr_any_fn)vat, 0, 0);
  check(add_function(db, "refused", 1000, on_step, NULL, NULL, handle) == SQLITE_MISUSE &&
             times_destroyed(REFUSED_FUNCTION) == 1,
         "a function that SQLite refuses is destroyed");
}

static void collations(sqlite3 *db) {
  check(add_collation(db, "by_number", SQLITE_UTF8, make(NATURAL, 0, (cbr_any_fn)natural, 0, 0)) == SQLITE_OK &&
             number_of(db, "SELECT cents FROM item ORDER BY name COLLATE by_number") == 100 &&
             number_of(db, "SELECT cents FROM item ORDER BY name COLLATE by_number DESC") == 300,
         "a collation");
  check(add_collation(db, "refused", 99, make(REFUSED_COLLATION, 0, (cbr_any_fn)natural, 0, 0)) == SQLITE_MISUSE &&
             times_destroyed(REFUSED_COLLATION) == 1,
         "a collation that SQLite refuses is destroyed");
}

static void hooks(sqlite3 *db) {
  cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
  cbr_queue queue;
  size_t count;
  options.flags = CBR_QUEUE_OWNED;
  must(cbr_queue_open(&options, &queue), "cbr_queue_open");
  set_update_hook(db, make(CHANGES, 0, (cbr_any_fn)changes, 0, queue));
  run(db, "UPDATE item SET cents = cents + 1 WHERE weight > 0");
  must(cbr_queue_dispatch(queue, 0, 0, &count), "cbr_queue_dispatch");
  check(count == 2 && changes_seen == 2 && cents_seen == 201 + 301,
         "an update hook, whose callback reads the database after the statement");
  run(db, "UPDATE item SET cents = cents - 1 WHERE weight > 0");
  set_update_hook(db, 0);
  check(times_destroyed(CHANGES) == 0, "changes that wait keep its callback alive");
  must(cbr_queue_dispatch(queue, 0, 0, &count), "cbr_queue_dispatch");
  check(changes_seen == 4 && times_destroyed(CHANGES) == 1, "and the last one gives it free");
  must(cbr_queue_close(queue, CBR_CLOSE_DISCARD), "cbr_queue_close");
}

#define COUNT_TO "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT %s) SELECT count(*) FROM n"

static void progress(sqlite3 *db) {
  char sql[200];
  sqlite3_int64 ignored;
  cbr_handle handle = make(WATCH, 50, (cbr_any_fn)too_long, 0, 0);
  sqlite3_progress_handler(db, 1000, on_progress, CBR_TO_PTR(handle));
  snprintf(sql, sizeof sql, COUNT_TO, "-1");
  check(result_of(db, sql, &ignored) == SQLITE_INTERRUPT, "a progress handler stops what would never end");
  must(cbr_release(handle), "cbr_release");
  snprintf(sql, sizeof sql, COUNT_TO, "10000");
  check(times_destroyed(WATCH) == 1 && number_of(db, sql) == 10000, "its callback may go before the handler does");
  sqlite3_progress_handler(db, 0, NULL, NULL);
}

static void replace(sqlite3 *db) {
  cbr_any_fn fn;
  sqlite3_stmt *statement;
  sqlite3_int64 got[3] = {0};
  int rows = 0, refused = 0;
  price_handle = make(PRICE, 1, (cbr_any_fn)price, FUNCTION_SIGNATURE, 0);
  must(cbr_thunk_open(price_handle, FUNCTION_SIGNATURE, 0, &fn, &price_thunk), "cbr_thunk_open");
  if (sqlite3_create_function_v2(db, "price", 1, SQLITE_UTF8, CBR_TO_PTR(price_thunk), (function)fn, NULL, NULL,
                                 close_thunk) != SQLITE_OK ||
      sqlite3_prepare_v2(db, "SELECT price(cents) FROM item ORDER BY rowid", -1, &statement, NULL) != SQLITE_OK) {
    check(false, sqlite3_errmsg(db));
    return;
  }
  while (sqlite3_step(statement) == SQLITE_ROW && rows < 3) {
    if (rows == 0) refused = sqlite3_create_function_v2(db, "price", 1, SQLITE_UTF8, NULL, on_step, NULL, NULL, NULL);
    got[rows++] = sqlite3_column_int64(statement, 0);
  }
  sqlite3_finalize(statement);
  check(refused == SQLITE_BUSY, "SQLite replaces no function while a statement runs");
  check(rows == 3 && got[0] == 100 && got[1] == 200 && got[2] == 30000,
         "another thread does: the row that was at it is the old one's, the next the new one's");
  check(times_destroyed(PRICE) == 1 && times_destroyed(NEW_PRICE) == 0, "the old one's data is freed");
}

int main(void) {
  sqlite3 *db;
  bool once = true;
  if (sqlite3_open(":memory:", &db) != SQLITE_OK) return 1;
  run(db, "CREATE TABLE item (name, cents, weight);"
          "INSERT INTO item VALUES ('item 2', 100, 0), ('item 9', 200, 1), ('item 10', 300, 1)");
  functions(db);
  collations(db);
  hooks(db);
  progress(db);
  replace(db);
  check(times_destroyed(WAVG) == 0 && sqlite3_close(db) == SQLITE_OK, "the connection closes");
  for (int i = 0; i < OWNERS; i++) once = once && times_destroyed((enum owner)i) == 1;
  check(once, "every destroy function ran once");
  return mistakes == 0 ? 0 : 1;
}
