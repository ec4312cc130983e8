/* What the echo server counts, and which of its numbers must agree at the end. */
#ifndef ECHO_STATS_H
#define ECHO_STATS_H

#include "echo_common.h"

#define ECHO_COUNTERS(_) \
  _(accepted)     /* connections that were set up */                                \
  _(highest_fd)   /* the highest file descriptor of a connection */                 \
  _(destroyed)    /* connections that were freed */                                 \
  _(running)      /* callbacks that still ran when the scope was closed: never */   \
  _(detached)     /* keys that cbr_key_detach_all found, one for each connection */ \
  _(calls)        /* calls that returned CBR_OK */                                  \
  _(entered)      /* callbacks that ran */                                          \
  _(refused)      /* events whose callback was gone; by key: or not there yet */    \
  _(swept)        /* handles that the reaper found stale */                         \
  _(early)        /* connections whose destroy ran during a data call: never */     \
  _(by_peer)      /* connections ended because the peer went away */                \
  _(by_reaper)    /* because they were idle */                                      \
  _(by_shutdown)  /* by SIGTERM */                                                  \
  _(by_error)     /* because the peer did not keep to the protocol */               \
  _(unfinished)   /* connections that ended in the middle of a message */           \
  _(messages)     /* complete messages that came in */                              \
  _(bytes)        /* bytes sent back */                                             \
  _(busy_ns)      /* time the loops spent in batches of events */

static struct {
#define ECHO_FIELD(name) counter name;
  ECHO_COUNTERS(ECHO_FIELD)
#undef ECHO_FIELD
} n;

static inline void show_progress(double seconds) {
  fprintf(stderr, "%s%5.1f s %9llu messages %7.1f MB/s %6llu connections, %llu open, %llu reaped, %llu stale%s",
          isatty(2) ? "\r" : "", seconds, (unsigned long long)total(&n.messages),
          (double)total(&n.bytes) / 1e6 / seconds, (unsigned long long)total(&n.accepted),
          (unsigned long long)(total(&n.accepted) - total(&n.destroyed)), (unsigned long long)total(&n.by_reaper),
          (unsigned long long)(total(&n.refused) + total(&n.swept)), isatty(2) ? "  " : "\n");
}

/* Prints every number; true if they agree. For the end, when no other thread counts. */
static inline bool report(bool by_key) {
#define ECHO_PRINT(name) print_number(#name, total(&n.name));
  ECHO_COUNTERS(ECHO_PRINT)
#undef ECHO_PRINT
  uint64_t by_others = total(&n.by_peer) + total(&n.by_error);
  uint64_t ended = by_others + total(&n.by_reaper) + total(&n.by_shutdown);
  bool good = expect(total(&n.destroyed) == total(&n.accepted), "every connection is destroyed once",
                     total(&n.destroyed), total(&n.accepted));
  good &= expect(total(&n.running) == 0, "nothing runs when the scope is closed", total(&n.running), 0);
  uint64_t keys = by_key ? total(&n.accepted) : 0;
  good &= expect(total(&n.detached) == keys, "every connection's keys are detached once", total(&n.detached), keys);
  good &= expect(total(&n.early) == 0, "no connection is destroyed during a call", total(&n.early), 0);
  good &= expect(ended == total(&n.accepted), "every connection is ended by one", ended, total(&n.accepted));
  good &= expect(total(&n.calls) == total(&n.entered), "what a call reports is what has run",
                 total(&n.calls), total(&n.entered));
  good &= expect(total(&n.swept) == by_others, "handles of ended connections are refused to the reaper",
                 total(&n.swept), by_others);
  return good;
}

#endif
