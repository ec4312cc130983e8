/* Three ways to bring events from one thread into callbacks, compared at a fixed rate:
 *   direct   cbr_call, on the thread that has the event
 *   queue    cbr_post; another thread dispatches
 *   select   the same over QUEUES queues in turns, which one thread selects from
 *
 *   cc bridge_compare.c $(pkg-config --cflags --libs callbridge) -pthread -lm
 *   bridge_compare [-t MS] [-r RATE] [-c CAPACITY] [-p PAUSE_MS] [plot.svg]
 *
 * An open loop: event i is due at start + i / RATE, fixed in advance, whatever became of those before, and
 * its latency is counted from there. So a stall counts for every event that it delays, and not as one.
 * -p makes the callback pause once a second, as a garbage collector would: a direct call hands the pause on
 * to the sender, a queue takes it up, or drops what it has no room for (-c 64).
 *
 * MS is for each way. Exit 0 only if every event was delivered or refused, in order, and each callback
 * destroyed once. */
#define _GNU_SOURCE
#include "bridge_common.h"

#include <getopt.h>
#include <math.h>
#include <sched.h>
#include <sys/prctl.h>

enum { QUEUES = 8, BUDGET = 64, SECOND = 1000000000 };
enum way { DIRECT, QUEUE, SELECT, WAYS };
static const char *const way_names[] = {"direct call", "queue", "select over 8"};

struct event {
  uint64_t number;
  int64_t due_ns;
};

/* One callback: the end of one queue, or of the calls. */
struct sink {
  struct run *run;
  cbr_handle handle;
  cbr_queue queue; /* 0 if called directly */
  uint64_t last;   /* number of the event before, plus 1 */
};

struct run {
  enum way way;
  pthread_t dispatcher;
  size_t sinks;
  struct sink sink[QUEUES];
  int64_t *latency; /* of what was delivered, in nanoseconds; the callbacks' */
  uint64_t delivered, out_of_order, destroyed;
  int64_t next_pause, last_ns;
  uint64_t sent, dropped; /* the sender's */
  double per_second;
};

static int64_t duration_ns = 2 * (int64_t)SECOND, rate = 10000, capacity = 1024, pause_ns;

/* ---- the callback ------------------------------------------------------------------------------ */

static intptr_t on_event(void *user_data, void *arg) {
  struct sink *sink = user_data;
  struct run *run = sink->run;
  const struct event *event = arg;
  run->last_ns = now_ns();
  run->latency[run->delivered++] = run->last_ns - event->due_ns;
  if (event->number < sink->last) run->out_of_order++;
  sink->last = event->number + 1;
  if (pause_ns && run->last_ns >= run->next_pause) {
    run->next_pause += SECOND;
    sleep_until(run->last_ns + pause_ns);
  }
  return 0;
}

static void on_destroy(void *user_data) { ((struct sink *)user_data)->run->destroyed++; }

/* ---- the dispatching thread -------------------------------------------------------------------- */

/* One wait, one dispatch; false: the queue is over. */
static bool serve(cbr_queue queue, int64_t timeout_ns) {
  cbr_status status = cbr_queue_dispatch(queue, BUDGET, timeout_ns, NULL);
  if (status == CBR_ERR_CLOSED || status == CBR_ERR_STALE) return false;
  if (status != CBR_ERR_EMPTY) must(status, "dispatch");
  return true;
}

static void *run_dispatcher(void *arg) {
  const struct run *run = arg;
  cbr_queue queues[QUEUES];
  size_t open = run->sinks, index;
  for (size_t i = 0; i < open; i++) queues[i] = run->sink[i].queue;
  if (run->way == QUEUE) {
    while (serve(queues[0], -1)) continue;
    return NULL;
  }
  while (open > 0) {
    must(cbr_queue_select(queues, open, -1, &index), "select");
    if (!serve(queues[index], 0)) queues[index] = queues[--open];
  }
  return NULL;
}

/* ---- the sender -------------------------------------------------------------------------------- */

/* Sleeps most of the way and looks at the clock for the rest, as a sleep ends late. */
static void wait_until(int64_t due_ns) {
  const int64_t early_ns = 60000;
  if (due_ns - now_ns() > 2 * early_ns) sleep_until(due_ns - early_ns);
  while (now_ns() < due_ns) sched_yield();
}

static void send_event(struct run *run, struct sink *sink, struct event *event) {
  if (run->way == DIRECT) {
    must(cbr_call(sink->handle, event, NULL), "call");
    return;
  }
  cbr_status status = cbr_post(sink->queue, sink->handle, event, sizeof *event);
  if (status == CBR_ERR_FULL) run->dropped++;
  else must(status, "post");
}

static void measure(struct run *run, enum way way) {
  uint64_t events = (uint64_t)((double)duration_ns / SECOND * (double)rate);
  *run = (struct run){.way = way, .sinks = way == SELECT ? QUEUES : 1};
  run->latency = calloc(events, sizeof *run->latency);
  if (!run->latency) die("calloc");
  memset(run->latency, 1, events * sizeof *run->latency); /* so that no page is touched first by a callback */
  for (size_t i = 0; i < run->sinks; i++) {
    struct sink *sink = &run->sink[i];
    sink->run = run;
    must(cbr_register(on_event, sink, on_destroy, &sink->handle), "register");
    if (way == DIRECT) continue;
    cbr_queue_options options = CBR_QUEUE_OPTIONS_INIT;
    options.capacity = (size_t)capacity;
    must(cbr_queue_open(&options, &sink->queue), "open a queue");
  }
  int64_t began = now_ns() + 10000000;
  run->next_pause = began + SECOND / 2;
  if (way != DIRECT) run->dispatcher = start(run_dispatcher, run);

  for (; run->sent < events; run->sent++) {
    struct event event = {.number = run->sent,
                          .due_ns = began + (int64_t)((double)run->sent / (double)rate * SECOND)};
    wait_until(event.due_ns);
    send_event(run, &run->sink[run->sent % run->sinks], &event);
  }
  if (way != DIRECT) {
    for (size_t i = 0; i < run->sinks; i++) must(cbr_queue_close(run->sink[i].queue, CBR_CLOSE_DRAIN), "close");
    pthread_join(run->dispatcher, NULL);
  }
  for (size_t i = 0; i < run->sinks; i++) must(cbr_unregister(run->sink[i].handle), "unregister");
  run->per_second = (double)run->delivered / ((double)(run->last_ns - began) / SECOND);
}

/* ---- the report -------------------------------------------------------------------------------- */

static int compare(const void *left, const void *right) {
  int64_t l = *(const int64_t *)left, r = *(const int64_t *)right;
  return (l > r) - (l < r);
}

/* The latency in microseconds that this share of the events did not exceed; they are sorted. */
static double percentile(const struct run *run, double share) {
  if (run->delivered == 0) return NAN;
  uint64_t rank = (uint64_t)ceil(share * (double)run->delivered);
  return (double)run->latency[rank ? rank - 1 : 0] / 1000;
}

static bool report(const struct run *run) {
  printf("%-14s%10llu%10llu%9llu%11.0f%10.1f%10.1f%10.1f%10.1f\n", way_names[run->way],
         (unsigned long long)run->sent, (unsigned long long)run->delivered, (unsigned long long)run->dropped,
         run->per_second, percentile(run, 0.5), percentile(run, 0.99), percentile(run, 0.999),
         percentile(run, 1));
  uint64_t accounted = run->delivered + run->dropped;
  bool good = expect(accounted == run->sent, "each event is delivered or refused", accounted, run->sent);
  good &= expect(run->out_of_order == 0, "in order", run->out_of_order, 0);
  good &= expect(run->destroyed == run->sinks, "each callback is destroyed once", run->destroyed, run->sinks);
  return good;
}

/* The distributions, both axes logarithmic: to the right the share of events that are slower. */
enum { WIDTH = 760, HEIGHT = 460, LEFT = 70, RIGHT = 30, TOP = 94, BOTTOM = 52 };
static double low = 1e9, high, nines; /* the axes' ends: powers of ten of microseconds; of 1 / share */

static double x_of(double share) { return LEFT - log10(1 - share) / nines * (WIDTH - LEFT - RIGHT); }
static double y_of(double us) { return TOP + (high - log10(us)) / (high - low) * (HEIGHT - TOP - BOTTOM); }

static void text(FILE *svg, double x, double y, const char *anchor, int size, const char *color,
                 const char *words) {
  fprintf(svg,
          "<text x='%.1f' y='%.1f' text-anchor='%s' font-size='%d' fill='%s' "
          "font-family='DejaVu Sans, Helvetica, Arial, sans-serif'>%s</text>\n",
          x, y, anchor, size, color, words);
}

static void line(FILE *svg, double x1, double y1, double x2, double y2) {
  fprintf(svg, "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' stroke='#ddd'/>\n", x1, y1, x2, y2);
}

static void plot_axes(FILE *svg) {
  char words[160];
  fprintf(svg,
          "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' viewBox='0 0 %d %d'>\n"
          "<rect width='%d' height='%d' fill='white'/>\n",
          WIDTH, HEIGHT, WIDTH, HEIGHT, WIDTH, HEIGHT);
  snprintf(words, sizeof words, "Latency from the intended time at %lld events a second", (long long)rate);
  text(svg, LEFT, 24, "start", 16, "#222", words);
  for (int power = (int)low; power <= (int)high; power++) {
    const char *const units[] = {"ns", "µs", "ms", "s"};
    int unit = (power + 3) / 3;
    snprintf(words, sizeof words, "%g %s", pow(10, (power + 3) % 3), units[unit]);
    line(svg, LEFT, y_of(pow(10, power)), WIDTH - RIGHT, y_of(pow(10, power)));
    text(svg, LEFT - 8, y_of(pow(10, power)) + 4, "end", 11, "#666", words);
  }
  for (int power = 0; power <= (int)nines; power++) {
    double share = 1 - pow(10, -power);
    snprintf(words, sizeof words, power ? "%.*f %%" : "0 %%", power > 2 ? power - 2 : 0, share * 100);
    line(svg, x_of(share), TOP, x_of(share), HEIGHT - BOTTOM);
    text(svg, x_of(share), HEIGHT - BOTTOM + 18, "middle", 11, "#666", words);
  }
  text(svg, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12, "middle", 11, "#666", "events that were no slower");
}

static void plot_run(FILE *svg, const struct run *run) {
  static const char *const colors[] = {"#0072b2", "#e69f00", "#009e73"};
  char words[160];
  fprintf(svg, "<polyline fill='none' stroke='%s' stroke-width='2' points='", colors[run->way]);
  for (double power = 0; power < nines + 0.01; power += 0.02) {
    double share = 1 - pow(10, -fmin(power, nines));
    fprintf(svg, "%.1f,%.1f ", x_of(share), y_of(fmax(percentile(run, share), pow(10, low))));
  }
  fprintf(svg, "'/>\n");
  double y = 40 + run->way * 15;
  fprintf(svg, "<rect x='%d' y='%.1f' width='10' height='10' fill='%s'/>\n", LEFT, y, colors[run->way]);
  snprintf(words, sizeof words, "%s: p50 %.1f µs, p99 %.1f µs; %.0f a second, %llu of %llu dropped",
           way_names[run->way], percentile(run, 0.5), percentile(run, 0.99), run->per_second,
           (unsigned long long)run->dropped, (unsigned long long)run->sent);
  text(svg, LEFT + 16, y + 9, "start", 11, "#222", words);
}

static void plot(const char *path, const struct run *runs) {
  FILE *svg = fopen(path, "w");
  if (!svg) die(path);
  uint64_t most = 10;
  for (int way = 0; way < WAYS; way++) {
    if (runs[way].delivered == 0) continue;
    low = fmin(low, floor(log10(fmax(percentile(&runs[way], 0), 0.001))));
    high = fmax(high, ceil(log10(percentile(&runs[way], 1))));
    if (runs[way].delivered > most) most = runs[way].delivered;
  }
  nines = floor(log10((double)most)); /* beyond there is less than one event */
  plot_axes(svg);
  for (int way = 0; way < WAYS; way++)
    if (runs[way].delivered) plot_run(svg, &runs[way]);
  fprintf(svg, "</svg>\n");
  if (fclose(svg)) die(path);
}

int main(int argc, char **argv) {
  static struct run runs[WAYS];
  for (int option; (option = getopt(argc, argv, "t:r:c:p:")) != -1;) {
    if (option == 't') duration_ns = parse_number(optarg, 10, 3600 * 1000) * 1000000;
    else if (option == 'r') rate = parse_number(optarg, 100, 1000000);
    else if (option == 'c') capacity = parse_number(optarg, 1, 1 << 20);
    else if (option == 'p') pause_ns = parse_number(optarg, 0, 500) * 1000000;
    else return fprintf(stderr, "usage: bridge_compare [-t MS] [-r RATE] [-c CAPACITY] [-p PAUSE_MS] [SVG]\n"), 2;
  }
  prctl(PR_SET_TIMERSLACK, 1UL); /* else a sleep may end 50 us late */

  printf("%lld events a second, latency in microseconds from the intended time\n", (long long)rate);
  printf("%-14s%10s%10s%9s%11s%10s%10s%10s%10s\n", "", "sent", "delivered", "dropped", "per second", "p50", "p99",
         "p99.9", "max");
  bool good = true;
  for (int way = 0; way < WAYS; way++) {
    measure(&runs[way], (enum way)way);
    qsort(runs[way].latency, runs[way].delivered, sizeof *runs[way].latency, compare);
    good &= report(&runs[way]);
    fflush(stdout);
  }
  if (optind < argc) plot(argv[optind], runs);
  for (int way = 0; way < WAYS; way++) free(runs[way].latency);
  return good ? 0 : 1;
}
