"""What callbacks cost in other languages, beside those languages' own means: a table and bindings.json.

    python3 bindings.py BENCH_FOLDER [--quick] [--strict]

Every language measures itself, its subjects in turns (bindings/*/bench/run and bench/rust-api/run), and prints
`subject<TAB>nanoseconds<TAB>repetition`. Ratios are taken within a repetition; their median is shown.
"""

import collections
import glob
import json
import os
import statistics
import subprocess
import sys

# (subject, what it is compared with, the ratio that it must keep, or None)
RATIOS = [
    ("go callbridge-upcall", "go bare-upcall", 1.15),
    ("go cgo.Handle-upcall", "go bare-upcall", None),
    ("go callbridge-thunk", "go bare-upcall", None),
    ("go callbridge-register-release", "go cgo.Handle-new-delete", None),
    ("java callbridge-upcall", "java bare-upcall", 1.1),
    ("java foreign-thread-upcall", "java bare-upcall", None),
    ("java register-release", "java NewGlobalRef-DeleteGlobalRef", None),
    ("python callbridge-ctypes-upcall", "python ctypes-upcall", 1.1),
    ("python callbridge-fast-upcall", "python ctypes-upcall", None),
    ("python cffi-upcall", "python ctypes-upcall", None),
    ("python register-release", "python CFUNCTYPE-create-free", None),
    ("rust Callback::call", "rust Arc<dyn Fn>-clone-and-call", None),
    ("rust Handle::call", "rust Arc<dyn Fn>-clone-and-call", None),
    ("rust Thunk", "rust Arc<dyn Fn>-clone-and-call", None),
    ("rust register-drop", "rust Arc-new-drop", None),
]


def main():
    bench, options = sys.argv[1], sys.argv[2:]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    runs = sorted(glob.glob(os.path.join(root, "bindings", "*", "bench", "run")))
    runs.append(os.path.join(root, "bench", "rust-api", "run"))
    times = collections.defaultdict(dict)
    for run in runs:
        build = os.path.join(bench, "bindings", os.path.relpath(run, root).replace(os.sep, "-"))
        os.makedirs(build, exist_ok=True)
        command = [run, build] + [option for option in options if option == "--quick"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{run} has failed with {done.returncode}")
        for line in done.stdout.splitlines():
            subject, nanoseconds, repetition = line.split("\t")
            times[subject][int(repetition)] = float(nanoseconds)

    print(f"{'subject':<36} {'ns':>9} {'least':>9} {'most':>9}")
    for subject, by_repetition in times.items():
        values = by_repetition.values()
        print(f"{subject:<36} {statistics.median(values):9.1f} {min(values):9.1f} {max(values):9.1f}")

    print(f"\n{'ratio, within a repetition':<70} {'median':>7}")
    missed = 0
    ratios = {}
    for subject, other, target in RATIOS:
        both = times[subject].keys() & times[other].keys()
        if not both:
            continue
        ratio = statistics.median(times[subject][it] / times[other][it] for it in both)
        ratios[f"{subject} / {other}"] = ratio
        verdict = ""
        if target is not None:
            verdict = f"  at most {target}: {'reached' if ratio <= target else 'MISSED'}"
            missed += ratio > target
        print(f"{subject + ' / ' + other:<70} {ratio:7.2f}{verdict}")

    with open(os.path.join(bench, "bindings.json"), "w", encoding="utf-8") as out:
        json.dump({"nanoseconds": times, "ratios": ratios}, out, indent=1)
    sys.exit(int(missed > 0 and "--strict" in options))


main()
