"""The numbers that the library must reach, and whether a run's results do."""

import statistics

VALIDATING = ["sharded-slab", "C++ weak_ptr", "mutex+uthash", "DashMap+Arc"]
OURS, LIBRARY_CALL = "callbridge", "plt-out"
THUNK, CLOSURE = "thunk", "libffi closure"
HOOK, KEY, SCOPE, KEYED_RIVAL = "cbr_hook_call", "cbr_key_call", "cbr_scope", "rwlock+uthash"


def _row(work, target, values, unit, reached, note=""):
    """One line of the table: `values` are those of each repetition."""
    if not values:
        return {"work": work, "target": target, "measured": None, "verdict": "NO DATA", "note": note}
    middle = statistics.median(values)
    return {
        "work": work,
        "target": target,
        "measured": middle,
        "lowest": min(values),
        "highest": max(values),
        "unit": unit,
        "verdict": "PASS" if reached(middle) else "MISS",
        "note": note,
    }


def _locked(results, count, base=None):
    """What a number of locked instructions alone would take: the floor of what uses them."""
    one = results.median("w1", "locked instruction")
    if one is None:
        return ""
    instructions = "1 locked instruction" if count == 1 else f"{count} locked instructions"
    if base:
        return f"{instructions} alone: {count * one / results.median('w1', base):.2f}"
    return f"{instructions} alone: {count * one:.1f} ns"


def _fastest(results, workload, subjects):
    found = [(results.median(workload, subject), subject) for subject in subjects]
    return min(((ns, subject) for ns, subject in found if ns is not None), default=(0, subjects[0]))[1]


def _linear(results, subject, metric):
    """ns each of a million over ns each of 10,000, of each repetition."""
    many, few = (results.each(f"w6.{size}", subject, metric) for size in (1_000_000, 10_000))
    return [a / b for a, b in zip(many, few)]


def _scattered(results):
    """What cache misses make of a million callbacks that lie in random order."""
    found = [(subject, _linear(results, subject, "scattered_ns")) for subject in (SCOPE, "raw")]
    ours, plain = (f"{statistics.median(ratios):.1f} x" if ratios else "-" for _, ratios in found)
    return f"scattered in memory: {ours}, raw {plain}"


def evaluate(results, syscalls):
    """A list of rows. `syscalls`: sections as from syscalls.count."""
    rival = _fastest(results, "w1m", VALIDATING)
    calls = [sum(calls.values()) for _, _, calls in syscalls[:3]]
    return [
        _row("cbr_call, one handle, one thread", "<= 1.5 x plt-out",
             results.ratios("w1", OURS, LIBRARY_CALL), "x", lambda x: x <= 1.5, _locked(results, 1, LIBRARY_CALL)),
        _row("the same handle from two threads, total", ">= 1.9 x one thread",
             results.each("w2", OURS, "scale"), "x", lambda x: x >= 1.9),
        _row("1,000,000 live handles, random order", "< peers that validate",
             results.ratios("w1m", OURS, rival), "x", lambda x: x < 1, f"fastest of them: {rival}"),
        _row("register + unregister, one thread", "<= 25 ns",
             results.each("w3", OURS, "one_ns"), "ns", lambda ns: ns <= 25),
        _row("register + unregister, two threads, total", ">= 1.8 x one thread",
             results.each("w3", OURS, "scale"), "x", lambda x: x >= 1.8),
        _row("unregister beside a calling thread", "<= 0.5 x DashMap+Arc",
             results.ratios("w3r", OURS, "DashMap+Arc"), "x", lambda x: x <= 0.5),
        _row("system calls of these ends of lives", "none",
             [sum(calls)], "", lambda n: n == 0, f"in {sum(n for _, n, _ in syscalls[:3]):,} unregisters"),
        _row("memory of a live callback, 1,000,000 alive", "<= 80 bytes",
             results.each("w4", OURS, "bytes"), "B", lambda b: b <= 80),
        _row("retain + release, one thread", "<= 8 ns",
             results.each("w5", OURS, "one_ns"), "ns", lambda ns: ns <= 8, _locked(results, 2)),
        _row("cbr_hook_call, one hook, one thread", "<= 1.5 x cbr_call",
             results.ratios("w1", HOOK, OURS), "x", lambda x: x <= 1.5),
        _row("cbr_key_call, one key, one thread", "< rwlock+uthash",
             results.ratios("w1", KEY, KEYED_RIVAL), "x", lambda x: x < 1),
        _row("cbr_key_call, 1,000 keys, random order", "< rwlock+uthash",
             results.ratios("w1k", KEY, KEYED_RIVAL), "x", lambda x: x < 1),
        _row("two threads, a key each, total", ">= 1.7 x one thread",
             results.each("w2d", KEY, "scale"), "x", lambda x: x >= 1.7),
        _row("two threads, 500 keys each, total", ">= 1.7 x one thread",
             results.each("w2h", KEY, "scale"), "x", lambda x: x >= 1.7),
        _row("closing a scope of 100,000 callbacks", "< 100 ms",
             [ns / 10 for ns in results.each("w6.100000", SCOPE, "called_ns")], "ms", lambda ms: ms < 100),
        _row("closing one of 1,000,000, each", "<= 2 x of 10,000",
             _linear(results, SCOPE, "called_ns"), "x", lambda x: x <= 2, _scattered(results)),
        _row("a call through a thunk", "<= 0.4 x libffi closure",
             results.ratios("t1", THUNK, CLOSURE), "x", lambda x: x <= 0.4),
        _row("a thunk from two threads, total", ">= 1.9 x one thread",
             results.each("t2", THUNK, "scale"), "x", lambda x: x >= 1.9),
        _row("open + close of a thunk", "<= 60 ns",
             results.each("t3", THUNK, "ns"), "ns", lambda ns: ns <= 60),
        _row("memory of a thunk, 100,000 open", "<= 64 bytes",
             results.each("t4", THUNK, "bytes"), "B", lambda b: b <= 64),
    ]


QUEUE_PEERS = ["libuv arrays", "libuv list", "GAsyncQueue", "GLib invoke", "Node tsfn"]
IDEAL, EVENTFD = "ideal ring", "bare eventfd"


def _best(results, above, below):
    """The ratio of the best slices."""
    values = [results.best("q1", subject) for subject in (above, below)]
    return f"best slices: {values[0] / values[1]:.2f} x" if all(values) else ""


def _beside(results, rival):
    """All peers by name, the fastest with its best slices, too."""
    found = [(results.median("q1", peer), peer) for peer in QUEUE_PEERS]
    ours = results.median("q1", OURS)
    others = [f"{peer} {ns / ours:.1f}" for ns, peer in sorted(pair for pair in found if pair[0]) if peer != rival]
    return f"{rival}; {_best(results, rival, OURS)}; " + ", ".join(others)


def evaluate_queues(results):
    rival = _fastest(results, "q1", QUEUE_PEERS)
    latency, least = (results.median("q2", subject) for subject in (OURS, EVENTFD))
    lost = [results.total("q3", OURS, "lost")] if results.each("q3", OURS, "lost") else []
    wakes = results.each("q4", OURS, "wakes")
    return [
        _row("events of one producer a second", ">= 0.6 x ideal ring",
             results.ratios("q1", IDEAL, OURS), "x", lambda x: x >= 0.6, _best(results, IDEAL, OURS)),
        _row("the same beside other queues", ">= 2 x the fastest",
             results.ratios("q1", rival, OURS), "x", lambda x: x >= 2, _beside(results, rival)),
        _row("an event to a sleeping dispatcher, median", "<= 1.15 x bare eventfd",
             results.ratios("q2", OURS, EVENTFD), "x", lambda x: x <= 1.15,
             f"{latency / 1e3:.1f} us, eventfd {least / 1e3:.1f} us" if latency and least else ""),
        _row("lost events of four producers", "none", lost, "", lambda n: n == 0,
             f"of {results.total('q3', OURS, 'posted'):,.0f}"),
        _row("an idle queue: CPU time in a second", "<= 100 us",
             results.each("q4", OURS, "cpu_us"), "us", lambda us: us <= 100,
             f"dispatcher woken {max(wakes):.0f} times" if wakes else ""),
    ]


def number(value, unit=""):
    digits = 0 if unit == "" else 2 if unit == "x" else 1
    return f"{value:.{digits}f}{' ' if unit else ''}{unit}"


def show(rows, paint):
    print(f"{'work':<43} {'target':<22} {'measured':>9} {'(lowest-highest)':>17}")
    for row in rows:
        verdict = row["verdict"]
        color = "32" if verdict == "PASS" else "31"
        if row["measured"] is None:
            print(f"{row['work']:<43} {row['target']:<22} {'-':>9} {'':>17}  {paint(verdict, color)}")
            continue
        unit = row["unit"]
        spread = f"({number(row['lowest'], unit).split()[0]}-{number(row['highest'], unit).split()[0]})"
        spread = "" if row["lowest"] == row["highest"] else spread
        print(f"{row['work']:<43} {row['target']:<22} {number(row['measured'], unit):>9} {spread:>17}"
              f"  {paint(verdict, color)}  {row['note']}".rstrip())
