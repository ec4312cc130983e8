"""Runs the benchmark and reports: targets, tables of all subjects, results.json, results.svg, queues.svg;
with --queues only what is about queues, and queues.json instead.

    python3 report.py BENCH_FOLDER [--quick] [--strict] [--queues]
"""

import json
import os
import platform
import sys
import time

import plot
import queues
import syscalls
import targets
from driver import FALLBACK, Results, run

PLAIN = ["raw", "plt-out"]
PEERS = ["liburcu memb", "Rust Arc", "C++ weak_ptr", "sharded-slab", "mutex+uthash", "DashMap+Arc", "GClosure"]
WAYS_TO_CALL = ["cbr_enter/leave", "cbr_hold/leave", "cbr_call_ptr"]
WAIT = "cbr_unregister_wait"
HOOK, KEY, SCOPE = "cbr_hook_call", "cbr_key_call", "cbr_scope"
KEYED_PEERS = ["rwlock+uthash", "DashMap+Arc keys"]
SUBJECTS = PLAIN + ["callbridge"] + PEERS
ALL = PLAIN + ["callbridge"] + WAYS_TO_CALL + [WAIT, FALLBACK, SCOPE, HOOK, KEY] + PEERS + KEYED_PEERS
CLOSING = ["raw", "callbridge", SCOPE]
SIZES = [10_000, 100_000, 1_000_000]

FULL = {"repetitions": 9, "ms": 30, "rounds": 3, "million": SUBJECTS + [SCOPE],
        "queues": {"ms": 30, "rounds": 3}}
QUICK = {"repetitions": 5, "ms": 12, "rounds": 2,
         "million": ["raw", "callbridge", SCOPE, "C++ weak_ptr", "sharded-slab", "DashMap+Arc"],
         "queues": {"ms": 15, "rounds": 3}}
MILLION = 1_000_000


def repetition(bench, plan, progress):
    """All workloads once; each process measures its subjects in turns."""
    slices = plan["ms"], plan["rounds"]
    # CALLBRIDGE_MEMBARRIER decides for a process: the other way of leaving is measured in its own,
    # which a caller's setting must not change.
    normal, fallback = {"CALLBRIDGE_MEMBARRIER": "1"}, {"CALLBRIDGE_MEMBARRIER": "0"}
    rename = {"callbridge": FALLBACK}
    progress("calls")
    callers = PLAIN + ["callbridge"] + WAYS_TO_CALL + [HOOK, KEY] + PEERS + KEYED_PEERS
    yield from run(bench, "calls", ",".join(callers), *slices, env=normal)
    progress("keys")
    yield from run(bench, "keys", ",".join([KEY] + KEYED_PEERS), *slices, env=normal)
    progress("thunks")
    yield from run(bench, "thunks", "callbridge", *slices, env=normal)
    progress("lives")
    yield from run(bench, "lives", ",".join(PLAIN + ["callbridge", WAIT, SCOPE] + PEERS), *slices, env=normal)
    progress("reaper")
    yield from run(bench, "reaper", ",".join(["raw", "callbridge"] + PEERS), *slices, env=normal)
    progress("without membarrier")
    for workload in "calls", "lives", "reaper":
        yield from run(bench, workload, "callbridge", *slices, env=fallback, rename=rename)
    for subject in plan["million"]:
        progress(f"{MILLION:,} alive: {subject}")
        yield from run(bench, "million", subject, 4 * plan["ms"], 3, MILLION, env=normal)
    for subject in CLOSING:
        progress(f"closing: {subject}")
        for size in SIZES:
            yield from run(bench, "closing", subject, plan["ms"], 1, size, env=normal)


def collect(bench, plan, only_queues):
    results, begun = Results(), time.monotonic()
    for number in range(1, plan["repetitions"] + 1):
        def progress(what):
            text = f"repetition {number} of {plan['repetitions']}, {time.monotonic() - begun:.0f} s: {what}"
            if sys.stderr.isatty():
                print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            elif what == "queues":
                print(text, file=sys.stderr, flush=True)
        progress("queues")
        lines = list(queues.repetition(bench, plan["queues"], number == 1, progress))
        if not only_queues:
            lines += repetition(bench, plan, progress)
        results.add_repetition(lines)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return results


def machine():
    model = "unknown CPU"
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}


COLUMNS = [  # heading, workload, metric, decimals
    ("call", "w1", "ns", 2),
    ("x plt-out", None, None, 2),
    ("1k", "w1k", "ns", 1),
    ("1M", "w1m", "ns", 0),
    ("2 threads", "w2", "scale", 2),
    ("reg+unreg", "w3", "one_ns", 1),
    ("2 threads", "w3", "scale", 2),
    ("reap", "w3r", "ns", 0),
    ("caller", "w3r", "caller_ns", 1),
    ("B each", "w4", "bytes", 0),
    ("ret+rel", "w5", "one_ns", 1),
]


def show_subjects(results):
    print(f"{'':<26}" + "".join(f"{heading:>10}" for heading, *_ in COLUMNS))
    for subject in ALL:
        cells = []
        for _, workload, metric, decimals in COLUMNS:
            if workload:
                value = results.median(workload, subject, metric)
            else:
                ratios = results.ratios("w1", subject, "plt-out")
                value = sorted(ratios)[len(ratios) // 2] if ratios else None
            cells.append(f"{value:>10.{decimals}f}" if value is not None else f"{'':>10}")
        print(f"{subject:<26}" + "".join(cells).rstrip())
    print("Times in ns. 1k, 1M: that many live callbacks in random order. 2 threads: total throughput over one's.")
    print("reap: unregister of what another thread has called; caller: a call of that thread meanwhile.")
    print("B each: resident memory of a live callback. Peers are described in bench/README.md.")


THUNK_COLUMNS = [  # heading, workload, metric, decimals
    ("call", "t1", "ns", 2),
    ("2 threads", "t2", "scale", 2),
    ("open+close", "t3", "ns", 1),
    ("B each", "t4", "bytes", 1),
]


def show_thunks(results):
    print(f"{'Function pointers with data':<26}" + "".join(f"{heading:>12}" for heading, *_ in THUNK_COLUMNS))
    for subject in ["direct pointer", "cbr_call", targets.THUNK, targets.CLOSURE]:
        values = [(results.median(workload, subject, metric), digits) for _, workload, metric, digits in THUNK_COLUMNS]
        cells = [f"{value:>12.{digits}f}" if value is not None else f"{'':>12}" for value, digits in values]
        print(f"  {subject:<24}" + "".join(cells).rstrip())
    print("int(int, void *) that calls int(void *, int, void *). B each: resident memory beyond the callback, of")
    print("100,000 that were all called.")


KEY_COLUMNS = [  # heading, workload, metric, decimals
    ("a key each", "w2d", "scale", 2),
    ("500 each", "w2h", "scale", 2),
    ("one alone", "w2h", "one_ns", 1),
]
PLACES = [("", "ns"), ("called by another thread", "called_ns"), ("scattered", "scattered_ns")]


def show_owners(results):
    print(f"{'Two threads on different keys':<26}" + "".join(f"{heading:>12}" for heading, *_ in KEY_COLUMNS))
    for subject in [KEY] + KEYED_PEERS:
        values = [(results.median(workload, subject, metric), digits) for _, workload, metric, digits in KEY_COLUMNS]
        cells = [f"{value:>12.{digits}f}" if value is not None else f"{'':>12}" for value, digits in values]
        print(f"  {subject:<27}" + "".join(cells).rstrip())
    print("Total throughput over the mean of each alone; one alone: ns of a call, over 500 keys of 1,000.")
    print()
    print(f"{'Ending all, ns each (ms)':<44}" + "".join(f"{size:>20,}" for size in SIZES))
    for subject in CLOSING:
        for place, metric in PLACES:
            cells = []
            for size in SIZES:
                ns = results.median(f"w6.{size}", subject, metric)
                cells.append(f"{f'{ns:.0f} ({ns * size / 1e6:.1f})' if ns is not None else '':>20}")
            print(f"  {subject if metric == 'ns' else '':<15}{place:<27}" + "".join(cells).rstrip())
    print("cbr_scope: cbr_scope_close; the others one by one, in the order of registration. Scattered: registered in")
    print("the places of others that had ended in random order.")


def show_sharing(results, paint):
    """How much of the time counted, of what two threads do."""
    good = [results.median(workload, "callbridge", "good") for workload in ("w2", "w3", "w3r", "q1")]
    shares = [share for share in good if share is not None]
    print("two threads: time in which both really ran: " + ", ".join(f"{share:.0%}" for share in shares))
    if min(shares, default=0) < 0.5:
        print(paint("The machine is busy with other things: times are too high, and ratios uncertain.", "33"))


def main(bench, options):
    plan = QUICK if "--quick" in options else FULL
    only_queues = "--queues" in options
    # Absent when output goes to a file.
    colored = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    paint = (lambda text, color: f"\033[{color}m{text}\033[0m") if colored else (lambda text, _: text)
    begun = time.monotonic()
    sections = [] if only_queues else syscalls.count(bench)
    results = collect(bench, plan, only_queues)
    rows = [] if only_queues else targets.evaluate(results, sections)
    rows += targets.evaluate_queues(results)
    about = machine()

    locked = results.median("w1", "locked instruction")
    print(f"\n{about['cpu']}, {about['cpus']} CPUs, Linux {about['kernel']}; {plan['repetitions']} repetitions"
          + (f"; one locked instruction: {locked:.1f} ns" if locked else ""))
    show_sharing(results, paint)
    print()
    targets.show(rows, paint)
    print()
    if not only_queues:
        show_subjects(results)
        print()
        show_owners(results)
        print()
        show_thunks(results)
        print()
    queues.show(results)
    if not only_queues:
        print()
        syscalls.show(sections)

    name = "queues" if only_queues else "results"
    with open(os.path.join(bench, f"{name}.json"), "w", encoding="utf-8") as file:
        json.dump({
            "machine": about,
            "plan": {key: plan[key] for key in ("repetitions", "ms", "rounds", "queues")},
            "targets": rows,
            "results": [
                {"workload": workload, "subject": subject, "metric": metric, "median": results.median(*key),
                 "best": results.best(*key), "repetitions": values}
                for key, values in results.values.items() for workload, subject, metric in [key]
            ],
            "system_calls": [{"title": t, "operations": n, "calls": dict(calls)} for t, n, calls in sections],
        }, file, indent=1)
    plot.write(os.path.join(bench, "queues.svg"), results, queues.ALL, about, plot.QUEUE_PANELS,
               "events to another thread")
    if not only_queues:
        plot.write(os.path.join(bench, "results.svg"), results, SUBJECTS, about)
    missed = sum(row["verdict"] != "PASS" for row in rows)
    print(f"\n{len(rows) - missed} of {len(rows)} targets reached, in {time.monotonic() - begun:.0f} s; "
          f"{bench}/{name}.json, {bench}/{name}.svg")
    return 1 if missed and "--strict" in options else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
