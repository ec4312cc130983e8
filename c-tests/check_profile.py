#!/usr/bin/env python3
"""The profile and the report of examples/leaks, as those see them who read them.

  check_profile.py pprof --go GO --cache FOLDER -- LEAKS...       go tool pprof
  check_profile.py speedscope --node NODE --package FOLDER -- LEAKS...   speedscope's own importer
  check_profile.py flamegraph --script SCRIPT -- LEAKS...         scripts/flamegraph, and the report

LEAKS is a command that takes the profile's name and leaves 48 callbacks.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

# How many callbacks each function has registered, with those that it has called, and by itself.
ALL = {
    "main": (48, 0),
    "accept_connections": (40, 0),
    "open_connection": (40, 0),
    "start_timer": (40, 0),
    "add_callback": (40, 40),
    "load_plugin": (8, 8),
}
STACK = ["add_callback", "start_timer", "open_connection", "accept_connections", "main"]


def check(good, words):
    if not good:
        sys.exit(f"FAILED {words}")


def run(command, code=0, **environment):
    """What it says, stdout and stderr."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, **environment}
    )
    check(done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


def check_pprof(given, profile):
    environment = {"GOTOOLCHAIN": "local", "GOCACHE": given.cache, "GOFLAGS": "", "GOPROXY": "off"}
    pprof = [given.go, "tool", "pprof", "-symbolize=none"]
    top, _ = run([*pprof, "-top", "-nodefraction=0", profile], **environment)
    check("Type: callbacks\n" in top, f"the default is callbacks:\n{top}")
    rows = re.findall(r"^ *(\d+) +[\d.]+% +[\d.]+% +(\d+) +[\d.]+%  (.+)$", top, re.M)
    found = {name: (int(whole), int(own)) for own, whole, name in rows}
    for name, numbers in ALL.items():
        check(found.get(name) == numbers, f"{name}: {found.get(name)}, not {numbers}:\n{top}")
    check("timeout" in run([*pprof, "-tags", profile], **environment)[0], "the names are labels")
    # Of each callback, at least its entry.
    cold, _ = run([*pprof, "-top", "-sample_index=cold", "-unit=bytes", profile], **environment)
    total = re.search(r"of (\d+)B total", cold)
    check(total and 48 * 128 <= int(total[1]) <= 48 * 400, f"bytes of cold data:\n{cold}")
    raw, _ = run([*pprof, "-raw", profile], **environment)
    check(re.search(r"^1: \S+ \S*leaks [0-9a-f]{8,} \[FN\]$", raw, re.M), f"file and build id:\n{raw}")


def check_speedscope(given, profile):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "read_in_speedscope.mjs")
    said, _ = run([given.node, script, given.package, profile])
    lines = [line.split("\t") for line in said.splitlines()]
    found = {name: (int(whole), int(own)) for name, whole, own in lines}
    check(found.pop("", None) == (48, 0), f"the whole:\n{said}")
    for name, numbers in ALL.items():
        check(found.get(name) == numbers, f"{name}: {found.get(name)}, not {numbers}:\n{said}")


def check_flamegraph(given, profile, report):
    svg = profile + ".svg"
    check(run([sys.executable, given.script, profile, svg])[0] == svg + "\n", "it says what it has made")
    space = "{http://www.w3.org/2000/svg}"
    boxes = {}
    for group in xml.parse(svg).getroot().iter(space + "g"):
        name, value = re.fullmatch(r"(.*): (\d+) callbacks, [\d.]+%", group.find(space + "title").text).groups()
        rect = group.find(space + "rect")
        boxes[name] = (int(value), *(float(rect.get(key)) for key in ("x", "y", "width")))
    for name, (whole, _) in ALL.items():
        check(name in boxes and boxes[name][0] == whole, f"{name}: {boxes}")
    for upper, lower in zip(STACK, STACK[1:]):
        (_, x, y, width), (_, left, below, room) = boxes[upper], boxes[lower]
        check(y < below and left <= x and x + width <= left + room + 0.01, f"{upper} is above {lower}: {boxes}")
    check(abs(boxes["load_plugin"][3] / boxes["main"][3] - 8 / 48) < 0.01, f"widths are shares: {boxes}")

    # The largest group is the first, and each function is named, though none is exported.
    check(report.startswith("callbridge: live at exit: 48 callbacks, 1 scope\n"), report)
    group = report.split("\n\n")[1].splitlines()
    check(group[0] == "40 callbacks registered at", report)
    names = [re.fullmatch(r"    #\d+ +(?:(\S+)\+0x[0-9a-f]+ )?\(\S+\+0x[0-9a-f]+\)", line) for line in group[1:6]]
    check([name and name[1] for name in names] == STACK, report)
    check(any(re.fullmatch(r"  0x[0-9a-f]{16} 'timeout': give_up \(.*\)", line) for line in group), report)
    check("  and 32 more" in group, report)
    check("8 callbacks registered at" in report and "of scope 'statistics': observe" in report, report)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["pprof", "speedscope", "flamegraph"])
    for option in ("--go", "--cache", "--node", "--package", "--script"):
        parser.add_argument(option)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        profile = os.path.join(folder, "leaks.pb.gz")
        report = run([*given.command, profile], code=23, CALLBRIDGE_LEAK_CHECK="exit:23")[1]
        if given.what == "pprof":
            check_pprof(given, profile)
        elif given.what == "speedscope":
            check_speedscope(given, profile)
        else:
            check_flamegraph(given, profile, report)


main()
