/* A comparator with a context for qsort, which takes a function and no void pointer: each thunk is a
 * plain function pointer that carries its own data, so two threads sort by different columns at once. */
#include <callbridge.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct city {
  const char *name;
  double area, people; /* km2, millions */
};

enum column { NAME, AREA, PEOPLE };

/* What the comparator is to know. */
struct order {
  enum column column;
  int sign; /* -1: the largest first */
};

static int compare(void *user_data, const void *left, const void *right) {
  struct order *order = (struct order *)user_data;
  const struct city *a = (const struct city *)left, *b = (const struct city *)right;
  int result = 0;
  switch (order->column) {
    case NAME: result = strcmp(a->name, b->name); break;
    case AREA: result = (a->area > b->area) - (a->area < b->area); break;
    case PEOPLE: result = (a->people > b->people) - (a->people < b->people); break;
  }
  return order->sign * result;
}

typedef int (*comparator)(const void *, const void *);

/* A comparator for this order. The order is the thunk's: closing that frees it. */
static comparator open_comparator(enum column column, int sign, cbr_thunk *out_thunk) {
  struct order *order = calloc(1, sizeof *order);
  cbr_callback_options options = CBR_CALLBACK_OPTIONS_INIT;
  cbr_handle handle;
  cbr_any_fn fn = NULL;
  if (order == NULL) return NULL;
  *order = (struct order){column, sign};
  options.fn = (cbr_any_fn)compare;
  options.user_data = order;
  options.destroy = free;
  options.signature = CBR_SIG(CBR_INT, CBR_PTR, CBR_PTR);
  options.name = "compare cities";
  options.fallback.i = 0; /* once it is closed, all are equal */
  if (cbr_register_with(&options, &handle) != CBR_OK) {
    free(order);
    return NULL;
  }
  if (cbr_thunk_open(handle, options.signature, 0, &fn, out_thunk) != CBR_OK) fn = NULL;
  cbr_release(handle); /* the thunk has a reference of its own */
  return (comparator)fn;
}

struct job {
  enum column column;
  int sign;
  struct city cities[5];
};

static void *sort(void *arg) {
  struct job *job = (struct job *)arg;
  cbr_thunk thunk;
  comparator by = open_comparator(job->column, job->sign, &thunk);
  if (by == NULL) return NULL;
  qsort(job->cities, 5, sizeof job->cities[0], by);
  cbr_thunk_close(thunk);
  /* Whoever has kept the pointer gets the fallback: no crash, and a line in the log. */
  return by(&job->cities[0], &job->cities[4]) == 0 ? job : NULL;
}

#define CITIES \
  {{"Oslo", 480, 0.7}, {"Cairo", 606, 10.1}, {"Lima", 2672, 10.0}, {"Pune", 516, 3.1}, {"Graz", 128, 0.3}}

int main(void) {
  struct job jobs[] = {{NAME, 1, CITIES}, {PEOPLE, -1, CITIES}, {AREA, 1, CITIES}};
  pthread_t threads[3];
  int good = 1;
  for (int i = 0; i < 3; i++) {
    if (pthread_create(&threads[i], NULL, sort, &jobs[i]) != 0) return 1;
  }
  for (int i = 0; i < 3; i++) {
    void *done;
    pthread_join(threads[i], &done);
    good &= done != NULL;
    for (int j = 0; j < 5; j++) printf("%s%s", jobs[i].cities[j].name, j < 4 ? ", " : "\n");
  }
  for (int i = 0; i < 3; i++) {
    struct order order = {jobs[i].column, jobs[i].sign};
    for (int j = 1; j < 5; j++) good &= compare(&order, &jobs[i].cities[j - 1], &jobs[i].cities[j]) <= 0;
  }
  return good ? 0 : 1;
}
