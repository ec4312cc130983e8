"""Runs the queues' benchmark and prints its table; report.py calls it."""

import os
import shutil

import targets
from driver import run

SUBJECTS = ["callbridge", "callbridge+poll", "ideal ring", "ring+clock", "crossbeam", "libuv arrays", "libuv list",
            "GAsyncQueue", "GLib invoke"]
NODE, EVENTFD = "Node tsfn", targets.EVENTFD
ALL = SUBJECTS + [NODE, EVENTFD]
NODE_SCRIPT = os.path.join(os.path.dirname(__file__), "..", "queues", "node", "run.js")


def repetition(bench, plan, first, progress):
    """All workloads once; a process for each, and for Node one more."""
    env = {"CALLBRIDGE_MEMBARRIER": "1"}
    node = (shutil.which("node"), NODE_SCRIPT, os.path.join(bench, "tsfn.node"))
    ms, rounds = plan["ms"], plan["rounds"]
    # Being idle is the same each time: all are looked at once, callbridge again and again.
    idle = SUBJECTS + [EVENTFD] if first else SUBJECTS[:1]
    for workload, subjects, length, slices in (
        ("saturated", SUBJECTS, ms, rounds),
        ("latency", SUBJECTS + [EVENTFD], ms, rounds),
        ("four", SUBJECTS, 2 * ms, rounds),
        ("idle", idle, ms, 1),
    ):
        progress(f"queues, {workload}")
        yield from run(bench, workload, ",".join(subjects), length, slices, program=("bench-queues",), env=env)
        if workload != "idle" or first:
            yield from run(bench, workload, length, slices, program=node, env=env)


COLUMNS = [  # heading, value of (results, subject), decimals
    ("ns/event", lambda r, s: r.median("q1", s), 1),
    ("best", lambda r, s: r.best("q1", s), 1),
    ("latency us", lambda r, s: thousandth(r.median("q2", s)), 1),
    ("best", lambda r, s: thousandth(r.best("q2", s)), 1),
    ("90 %", lambda r, s: thousandth(r.median("q2", s, "p90_ns")), 1),
    ("four: ns", lambda r, s: r.median("q3", s), 1),
    ("best", lambda r, s: r.best("q3", s), 1),
    ("idle us", lambda r, s: r.median("q4", s, "cpu_us"), 0),
    ("wakes", lambda r, s: r.median("q4", s, "wakes"), 0),
]


def thousandth(value):
    return value / 1e3 if value is not None else None


def show(results):
    print(f"{'Events to another thread':<26}" + "".join(f"{heading:>11}" for heading, *_ in COLUMNS))
    for subject in ALL:
        values = [(value(results, subject), digits) for _, value, digits in COLUMNS]
        cells = [f"{value:>11.{digits}f}" if value is not None else f"{'':>11}" for value, digits in values]
        print(f"  {subject:<24}" + "".join(cells).rstrip())
    print("24 bytes each. best: the best slice. Latency: to the callback, the consumer asleep; median and 90 %.")
    print("four: four producers on all CPUs. idle: CPU time of the process and wakes of the consumer in a second.")
    if trip := results.median("q1", "round trip"):
        slices = results.slices["q1", "round trip", "ns"]
        print(f"A value from one CPU to the other and back: {trip:.0f} ns ({min(slices):.0f}-{max(slices):.0f}).")
