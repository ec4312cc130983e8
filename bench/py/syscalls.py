"""Counts the system calls that callbridge makes between the marks of `bench syscalls`, with strace.

    python3 syscalls.py BENCH_FOLDER
"""

import collections
import os
import re
import subprocess
import sys

MARK = re.compile(r'write\(-1, "bench:(begin|end):([^:"]*):(\d+)"')
CALL = re.compile(r"^\d+ +(\w+)\(")
SECTIONS = 5


def count(bench, subject="callbridge"):
    """A list of (title, operations, {system call: number}); the first three are ends of lives of which
    nobody is inside, the last shows that strace would see a system call."""
    log = os.path.join(bench, "strace.log")
    subprocess.run(
        ["strace", "-f", "-qq", "-s", "200", "-o", log, os.path.join(bench, "bench"), "syscalls", subject],
        check=True,
    )
    sections, current = [], None
    with open(log, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            mark = MARK.search(line)
            if mark and mark[1] == "begin":
                current = (mark[2], int(mark[3]), collections.Counter())
            elif mark:
                sections.append(current)
                current = None
            elif current and (call := CALL.match(line)):
                current[2][call[1]] += 1
    if len(sections) != SECTIONS or current:
        sys.exit(f"the marks are not all in {log}")
    return sections


def describe(calls):
    return ", ".join(f"{number} {name}" for name, number in calls.most_common()) or "none"


def show(sections):
    print("System calls of callbridge (strace)")
    for title, operations, calls in sections:
        print(f"  {operations:>7} x {title:<60} {describe(calls)}")
    if not sections[-1][2]["membarrier"]:
        print("  (no membarrier in the last line: the kernel refuses it, or CALLBRIDGE_MEMBARRIER=0)")


if __name__ == "__main__":
    show(count(sys.argv[1]))
