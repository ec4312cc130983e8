/* OpenMetrics text for tests: written by cbr_metrics, read line by line and strictly. */
#ifndef CALLBRIDGE_SUPPORT_METRICS_H
#define CALLBRIDGE_SUPPORT_METRICS_H

#include "harness.h"

#include <pthread.h>
#include <sched.h>

enum { METRICS_MAX = 1 << 21, FAMILIES_MAX = 64, LABELS_MAX = 8 };

/* What a text is made of. Strings point into a copy of it. */
struct family {
  char *name, *type, *unit, *help;
};

struct label {
  char *name, *value; /* unescaped */
};

struct sample {
  struct family *family;
  char *name, *line;
  struct label labels[LABELS_MAX];
  int count;
  double value;
};

static char metrics_text[METRICS_MAX];
static size_t metrics_len;
static struct family families[FAMILIES_MAX];
static int family_count;
static struct sample *samples;
static int sample_count;

static inline void metrics_keep(void *user_data, const char *data, size_t len) {
  CHECK(user_data == metrics_text);
  CHECK(metrics_len + len < sizeof metrics_text);
  memcpy(metrics_text + metrics_len, data, len);
  metrics_text[metrics_len += len] = 0;
}

static inline const char *metrics_write(cbr_scope scope) {
  metrics_len = 0;
  CHECK_OK(cbr_metrics(scope, metrics_keep, metrics_text));
  return metrics_text;
}

/* The word up to `end`, which is overwritten; moves on behind it. */
static inline char *metrics_word(char **at, char end) {
  char *word = *at, *stop = strchr(word, end);
  if (stop == NULL) FAIL("no '%c' in \"%s\"", end, word);
  *stop = 0;
  *at = stop + 1;
  return word;
}

static inline void metrics_unescape(char *value) {
  char *to = value;
  for (char *from = value; *from != 0; from++) {
    if (*from == '\\') {
      from++;
      CHECK(*from == '\\' || *from == '"' || *from == 'n');
      *to++ = *from == 'n' ? '\n' : *from;
    } else {
      *to++ = *from;
    }
  }
  *to = 0;
}

static inline const char *label_of(const struct sample *sample, const char *name) {
  for (int i = 0; i < sample->count; i++) {
    if (strcmp(sample->labels[i].name, name) == 0) return sample->labels[i].value;
  }
  return NULL;
}

static inline bool is_histogram_of(const struct family *family, const char *sample) {
  size_t len = strlen(family->name);
  return strncmp(sample, family->name, len) == 0 &&
         (strcmp(sample + len, "_bucket") == 0 || strcmp(sample + len, "_count") == 0 ||
          strcmp(sample + len, "_sum") == 0);
}

static inline void metrics_check_name(const struct family *family, const char *sample) {
  char expected[256];
  const char *suffix = strcmp(family->type, "counter") == 0 ? "_total"
                       : strcmp(family->type, "info") == 0  ? "_info"
                                                            : "";
  if (strcmp(family->type, "histogram") == 0) {
    CHECK(is_histogram_of(family, sample));
    return;
  }
  snprintf(expected, sizeof expected, "%s%s", family->name, suffix);
  CHECK_STR(sample, expected);
}

static inline void metrics_read_sample(char *line) {
  struct sample *sample = &samples[sample_count++];
  char *at = line, *end;
  memset(sample, 0, sizeof *sample);
  CHECK(family_count > 0);
  sample->line = strdup(line);
  sample->family = &families[family_count - 1];
  if (strchr(line, '{') != NULL) {
    sample->name = metrics_word(&at, '{');
    for (;;) {
      struct label *label = &sample->labels[sample->count++];
      CHECK(sample->count < LABELS_MAX);
      label->name = metrics_word(&at, '=');
      CHECK_EQ(*at++, '"');
      label->value = at;
      while (*at != '"') {
        CHECK(*at != 0);
        at += *at == '\\' ? 2 : 1;
      }
      *at++ = 0;
      metrics_unescape(label->value);
      if (*at++ == ',') continue;
      CHECK_EQ(at[-1], '}');
      break;
    }
    CHECK_EQ(*at++, ' ');
  } else {
    sample->name = metrics_word(&at, ' ');
  }
  sample->value = strtod(at, &end);
  CHECK(end > at && *end == 0);
  metrics_check_name(sample->family, sample->name);
  /* The line up to its value is the series. */
  *strrchr(sample->line, ' ') = 0;
  for (int i = 0; i < sample_count - 1; i++) {
    if (strcmp(samples[i].line, sample->line) == 0) FAIL("twice: %s", sample->line);
  }
}

/* Reads what cbr_metrics writes of the scope, and checks its form. */
static inline void metrics_read(cbr_scope scope) {
  static char copy[METRICS_MAX];
  const char *text = metrics_write(scope);
  size_t lines = 0;
  for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++) lines++;
  for (int i = 0; i < sample_count; i++) free(samples[i].line);
  free(samples);
  samples = (struct sample *)calloc(lines, sizeof *samples);
  family_count = sample_count = 0;
  memcpy(copy, text, metrics_len + 1);
  CHECK(metrics_len >= 6);
  CHECK_STR(copy + metrics_len - 6, "# EOF\n");
  copy[metrics_len - 6] = 0;
  for (char *at = copy; *at != 0;) {
    char *line = metrics_word(&at, '\n');
    if (*line != '#') {
      metrics_read_sample(line);
      continue;
    }
    CHECK_EQ(metrics_word(&line, ' ')[0], '#');
    const char *what = metrics_word(&line, ' ');
    char *name = metrics_word(&line, ' ');
    if (strcmp(what, "TYPE") == 0) {
      for (int i = 0; i < family_count; i++) CHECK(strcmp(families[i].name, name) != 0);
      CHECK(family_count < FAMILIES_MAX);
      families[family_count++] = (struct family){name, line, (char *)"", NULL};
      continue;
    }
    struct family *family = &families[family_count - 1];
    CHECK(family_count > 0);
    CHECK_STR(name, family->name);
    if (strcmp(what, "UNIT") == 0) family->unit = line;
    else if (strcmp(what, "HELP") == 0) family->help = line;
    else FAIL("\"# %s\" is no OpenMetrics", what);
  }
}

/* The value of a sample whose label, if one is named, has that value; -1: there is none. */
static inline double metric(const char *name, const char *label, const char *value) {
  double found = -1;
  for (int i = 0; i < sample_count; i++) {
    if (strcmp(samples[i].name, name) != 0) continue;
    if (label != NULL) {
      const char *has = label_of(&samples[i], label);
      if (has == NULL || strcmp(has, value) != 0) continue;
    }
    if (strstr(name, "_bucket") != NULL && strcmp(label_of(&samples[i], "le"), "+Inf") != 0)
      continue;
    if (found >= 0) FAIL("more than one %s", name);
    found = samples[i].value;
  }
  return found;
}

/* --- while things end -------------------------------------------------------------------- */

/* One thread makes something that counts, and ends it while another one looks at what was counted. They take
 * turns, so that a look meets one end at most, and nothing missed or seen twice is hidden by what comes next. */
struct turns {
  unsigned looks, begun, made, ended;
  int over;
  void (*end)(struct turns *, unsigned);
};

/* Until the look that comes next, and then a moment, another one each time. */
static inline void turns_wait(struct turns *turns, unsigned turn) {
  unsigned looks = __atomic_load_n(&turns->looks, __ATOMIC_ACQUIRE);
  __atomic_add_fetch(&turns->made, 1, __ATOMIC_RELEASE);
  while (__atomic_load_n(&turns->looks, __ATOMIC_ACQUIRE) == looks) sched_yield();
  for (volatile unsigned moment = turn * 2654435761u >> 18; moment > 0; moment--) {
  }
}

static inline void *turns_end(void *arg) {
  struct turns *turns = (struct turns *)arg;
  for (unsigned turn = 0; !__atomic_load_n(&turns->over, __ATOMIC_RELAXED); turn++) {
    __atomic_add_fetch(&turns->begun, 1, __ATOMIC_RELEASE);
    turns->end(turns, turn);
    __atomic_add_fetch(&turns->ended, 1, __ATOMIC_RELEASE);
    unsigned looks = __atomic_load_n(&turns->looks, __ATOMIC_ACQUIRE);
    while (__atomic_load_n(&turns->looks, __ATOMIC_ACQUIRE) == looks) sched_yield();
  }
  return NULL;
}

/* `end` makes what counts `each`, calls turns_wait, and ends it; `counted` looks. */
static inline void turns_take(void (*end)(struct turns *, unsigned), double (*counted)(void), double each, long looks) {
  struct turns turns = {0, 0, 0, 0, 0, end};
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, turns_end, &turns), 0);
  for (long look = 0; look < looks; look++) {
    unsigned made = __atomic_load_n(&turns.made, __ATOMIC_ACQUIRE);
    __atomic_add_fetch(&turns.looks, 1, __ATOMIC_RELEASE);
    double now = counted();
    unsigned most = __atomic_load_n(&turns.begun, __ATOMIC_ACQUIRE);
    if (now < each * made || now > each * most)
      FAIL("%.0f were counted, of %.0f to %.0f", now, each * made, each * most);
  }
  __atomic_store_n(&turns.over, 1, __ATOMIC_RELAXED);
  while (__atomic_add_fetch(&turns.looks, 1, __ATOMIC_RELEASE), pthread_tryjoin_np(thread, NULL) != 0) sched_yield();
  CHECK_EQ(counted(), each * turns.ended);
}

#define CHECK_METRIC(name, label, value, expected) \
  CHECK_EQ(metric((name), (label), (value)), (expected))

#endif
