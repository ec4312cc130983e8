"""Runs the programs in target/bench and reads their lines."""

import os
import statistics
import subprocess
import sys

FALLBACK = "callbridge, no membarrier"


def run(bench, *arguments, program=("bench",), env=None, rename=None):
    """Yields (workload, subject, metric, value) of one process."""
    command = [os.path.join(bench, program[0]), *program[1:], *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with {done.returncode}")
    for line in done.stdout.splitlines():
        workload, subject, metric, value = line.split("\t")
        yield workload, (rename or {}).get(subject, subject), metric, float(value)


class Results:
    """Medians of each repetition, and all slices, by (workload, subject, metric)."""

    def __init__(self):
        self.values = {}
        self.slices = {}

    def add_repetition(self, lines):
        slices = {}
        for workload, subject, metric, value in lines:
            slices.setdefault((workload, subject, metric), []).append(value)
        for key, found in slices.items():
            self.values.setdefault(key, []).append(statistics.median(found))
            self.slices.setdefault(key, []).extend(found)

    def each(self, workload, subject, metric="ns"):
        return self.values.get((workload, subject, metric), [])

    def median(self, workload, subject, metric="ns"):
        found = self.each(workload, subject, metric)
        return statistics.median(found) if found else None

    def best(self, workload, subject, metric="ns"):
        """The lowest of all slices."""
        return min(self.slices.get((workload, subject, metric), []), default=None)

    def total(self, workload, subject, metric):
        return sum(self.slices.get((workload, subject, metric), []))

    def ratios(self, workload, subject, base, metric="ns"):
        """Within each repetition."""
        return [a / b for a, b in zip(self.each(workload, subject, metric), self.each(workload, base, metric))]
