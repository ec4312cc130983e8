"""Runs target/bench/bench and reads its lines."""

import os
import statistics
import subprocess
import sys

FALLBACK = "callbridge, no membarrier"


def run(bench, *arguments, env=None, rename=None):
    """Yields (workload, subject, metric, value) of one process."""
    command = [os.path.join(bench, "bench"), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with {done.returncode}")
    for line in done.stdout.splitlines():
        workload, subject, metric, value = line.split("\t")
        yield workload, (rename or {}).get(subject, subject), metric, float(value)


class Results:
    """Medians of each repetition, by (workload, subject, metric)."""

    def __init__(self):
        self.values = {}

    def add_repetition(self, lines):
        slices = {}
        for workload, subject, metric, value in lines:
            slices.setdefault((workload, subject, metric), []).append(value)
        for key, found in slices.items():
            self.values.setdefault(key, []).append(statistics.median(found))

    def each(self, workload, subject, metric="ns"):
        return self.values.get((workload, subject, metric), [])

    def median(self, workload, subject, metric="ns"):
        found = self.each(workload, subject, metric)
        return statistics.median(found) if found else None

    def ratios(self, workload, subject, base, metric="ns"):
        """Within each repetition."""
        return [a / b for a, b in zip(self.each(workload, subject, metric), self.each(workload, base, metric))]
