"""Instructions that an operation takes, by callgrind: the difference of two runs with different loop
counts, which is exact and repeatable. Shows the change against the last run of this script.

    python3 instructions.py BENCH_FOLDER
"""

import json
import os
import re
import subprocess
import sys

OPERATIONS = [
    ("raw", "call"),
    ("plt-out", "call"),
    ("callbridge", "call"),
    ("callbridge", "turns"),
    ("cbr_enter/leave", "call"),
    ("cbr_hold/leave", "call"),
    ("cbr_call_ptr", "call"),
    ("cbr_thunk", "call"),
    ("cbr_thunk", "turns"),
    ("cbr_hook_call", "call"),
    ("cbr_key_call", "call"),
    ("cbr_key_call", "turns"),
    ("cbr_key_call", "1k"),
    ("rwlock+uthash", "call"),
    ("rwlock+uthash", "1k"),
    ("sharded-slab", "call"),
    ("plt-out", "pair"),
    ("callbridge", "pair"),
    ("cbr_unregister_wait", "pair"),
    ("cbr_thunk", "pair"),
    ("cbr_scope", "pair"),
    ("cbr_scope", "all"),
    ("sharded-slab", "pair"),
    ("callbridge", "retain"),
    ("callbridge", "event"),
    ("Rust Arc", "retain"),
]
NAMES = {
    "call": "call, always the same",
    "turns": "call, two in turns",
    "1k": "call, 1,000 in turns",
    "pair": "register + unregister",
    "all": "register + scope's end",
    "retain": "retain + release",
    "event": "post + dispatch",
}
# Both beyond what a subject does differently at first.
FEW, MANY = 10_000, 20_000


def collect(bench, subject, operation, n):
    """(all instructions, those in libcallbridge)."""
    out = os.path.join(bench, "callgrind.out")
    command = ["valgrind", "--tool=callgrind", "--dump-line=no", f"--callgrind-out-file={out}"]
    if operation == "event":
        command += [os.path.join(bench, "bench-queues"), "count", subject, str(n)]
    else:
        command += [os.path.join(bench, "bench"), "count", subject, operation, str(n)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    total = library = 0
    objects, inside, of_callee = {}, False, False
    with open(out, encoding="utf-8") as lines:
        for line in lines:
            if named := re.match(r"(c?ob)=(\(\d+\))(?: (.*))?", line):
                # A name is spelt out once and numbered from then on.
                name = objects.setdefault(named[2], named[3] or "")
                if named[1] == "ob":
                    inside = "libcallbridge" in name
            elif line.startswith("calls="):
                of_callee = True
            elif cost := re.match(r"[\d+*-]\S* (\d+)", line):
                if not of_callee:
                    total += int(cost[1])
                    library += int(cost[1]) * inside
                of_callee = False
    return total, library


def main(bench):
    path = os.path.join(bench, "instructions.json")
    before = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            before = json.load(file)
    now = {}
    print("Instructions an operation, loop and callback included (in libcallbridge; change since last time)")
    for subject, operation in OPERATIONS:
        few, many = (collect(bench, subject, operation, n) for n in (FEW, MANY))
        total, library = ((b - a) / (MANY - FEW) for a, b in zip(few, many))
        key = f"{subject} {operation}"
        now[key] = {"total": total, "libcallbridge": library}
        change = f"{total - before[key]['total']:+.1f}" if key in before else ""
        inside = f"{library:.1f}" if library else ""
        print(f"  {subject:<20} {NAMES[operation]:<22} {total:7.1f} {inside:>7} {change:>7}", flush=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(now, file, indent=1)


if __name__ == "__main__":
    main(sys.argv[1])
