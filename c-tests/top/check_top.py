#!/usr/bin/env python3
"""callbridge-top, as somebody at a terminal sees it, and as a script does.

  check_top.py TEST --top PROGRAM --host PROGRAM

The terminal is tmux's. HOST is host.c, whose callbacks and queues do known things. Exit code 77: this machine
cannot do that; the reason is printed.
"""
import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

DEADLINE = 30  # seconds until what is waited for has to be there
NOBODY = 65534
VARIABLE = "CALLBRIDGE_STATS_SOCKET"


def fail(words):
    sys.exit(f"FAILED {words}")


def check(good, words):
    if not good:
        fail(words)


def skip(why):
    print(f"SKIPPED {arguments.test}: {why}")
    sys.exit(77)


def until(what, look):
    """Looks until there is something to be seen."""
    deadline = time.monotonic() + DEADLINE
    while True:
        seen = look()
        if seen:
            return seen
        check(time.monotonic() < deadline, f"not within {DEADLINE} s: {what() if callable(what) else what}")
        time.sleep(0.02)


class Host:
    """A process to watch."""

    def __init__(self, place):
        self.process = subprocess.Popen(
            [arguments.host], env=os.environ | {VARIABLE: place}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        check(self.process.stdout.readline() == "ready\n", "the host has not started")

    def tell(self, command):
        """The host's answer: calls of busy and of calm, failures of busy, drops."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return [int(number) for number in self.process.stdout.readline().split()]

    def kill(self):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def hosts():
    """Starts hosts, and ends them in any case; with a folder."""
    started = []

    def start(place="stats"):
        started.append(Host(os.path.join(folder, place)))
        return started[-1]

    with tempfile.TemporaryDirectory(prefix="callbridge-top-") as folder:
        try:
            yield folder, start
        finally:
            for host in started:
                host.kill()


class Screen:
    """A terminal of a fixed size, with a shell that runs the program and then stays."""

    count = 0

    def __init__(self, *words, width=120, height=24):
        if not shutil.which("tmux"):
            skip("tmux is not installed")
        Screen.count += 1
        self.socket = f"callbridge-{os.getpid()}-{Screen.count}"
        quoted = " ".join(f"'{word}'" for word in (arguments.top, *map(str, words)))
        script = f'before=$(stty -g); {quoted}; echo "code=$?"; [ "$before" = "$(stty -g)" ] && echo restored; exec cat'
        self.tmux("-f/dev/null", "new-session", "-d", f"-x{width}", f"-y{height}", "sh", "-c", script)

    def tmux(self, *words):
        command = ["tmux", "-u", "-L", self.socket, *words]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        check(done.returncode == 0, f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def lines(self):
        return [line.rstrip() for line in self.tmux("capture-pane", "-p").split("\n")]

    def press(self, *keys):
        self.tmux("send-keys", *keys)

    def wait(self, pattern):
        """The match of a line that looks like this, once there is one."""
        find = lambda: next(filter(None, (re.search(pattern, line) for line in self.lines())), None)
        return until(lambda: f"{pattern} on the screen:\n" + "\n".join(self.lines()), find)

    def is_restored(self, code):
        self.wait(rf"^code={code}$")
        self.wait("^restored$")
        state = self.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}").strip()
        check(state == "0 1 0", f"the terminal is left as {state}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["tmux", "-L", self.socket, "kill-server"], capture_output=True)


def run(*words, code=0, **how):
    """Runs the program without a terminal: what it says on stdout, or, where it fails, on stderr."""
    command = [arguments.top, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL, **how)
    check(done.returncode == code, f"{words} has ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stderr if code else done.stdout


def row(rows, name):
    found = [it for it in rows["rows"] if it["name"] == name]
    check(len(found) == 1, f"{len(found)} rows are called {name}")
    return found[0]


# --- on a terminal -----------------------------------------------------------------------------


def test_callbacks_and_queues_are_on_the_screen():
    with hosts() as (folder, start):
        host = start()
        with Screen(host.pid) as screen:
            screen.wait(rf"^host  pid {host.pid}  up \d+s  callbacks 5  threads 1  thunks 0$")
            # Some thousand calls a second; how many, the machine decides.
            screen.wait(r"^calls [\d.]+k?/s  failed \d+(\.\d)?/s  stale 0/s  inside 1$")
            screen.wait(r"^queues 2  waiting 8  in \d+/s  out \d+/s  dropped \d+/s  refused 0/s$")
            screen.wait(r"^QUEUE +SCOPE +DEPTH +CAPACITY +IN/S +OUT/S +DROPS/S +DROPPED")
            screen.wait(r"^events +8 +8 +[1-9]\d* +0 +[1-9]\d* +[1-9][\d,]* ")
            screen.wait(r"^taken +0 +8 +[1-9]\d* +[1-9]\d* +0 +0 ")
            screen.wait(r"^CALLBACK +SCOPE +CALLS/S +P50 +P99 +INSIDE +FAILS/S +FAILS +CALLS")
            screen.wait(r"^busy +[1-9]\d+(\.\dk)? +\d+ns +\d+(\.\d)?(ns|µs) +0 +[1-9]\d*(\.\d)? +[1-9]\d* +[\d,]+ ")
            screen.wait(r"^calm +plugin +[1-9]\d*(\.\d)? +\d+(\.\d)?ms +\d+(\.\d)?ms +\d +0 +0 ")
            screen.wait(r"^stays inside +- +- +- +1 +- ")
            # Others' words do nothing to the terminal, and what has no name is called by its place.
            screen.wait(r"^\?\[31mred\? +- ")
            screen.wait(r"^host\+0x[0-9a-f]+ +- ")
            names = [line.split()[0] for line in screen.lines() if re.match(r"(busy|calm|stays) ", line)]
            check(names == ["busy", "calm", "stays"], f"the busiest is not the first: {names}")


def test_it_refreshes_and_q_leaves_the_terminal_as_it_was():
    with hosts() as (folder, start):
        start()
        with Screen("-i", "0.2", os.path.join(folder, "stats")) as screen:
            calls = lambda: int(screen.wait(r"^busy .* ([\d,]+) +\d+ +\d+s")[1].replace(",", ""))
            first = calls()
            until("more calls", lambda: calls() > first)
            second = calls()
            until("more calls", lambda: calls() > second)
            screen.press("q")
            screen.is_restored(0)


def test_keys_sort_filter_and_scroll():
    with hosts() as (folder, start):
        host = start()
        host.tell("many 300")
        with Screen("-n", "250", host.pid) as screen:

            def first():
                lines = screen.lines()
                titles = [place for place, line in enumerate(lines) if line.startswith("CALLBACK")]
                return lines[titles[0] + 1] if titles else ""

            screen.wait(r"/ filter   1-14 of 305 \(55 not fetched\)$")
            screen.press("s")
            screen.wait("^q quit   s sort: p99 ")
            until("calm, which takes longest, is the first", lambda: first().startswith("calm "))
            screen.press("s")
            screen.wait("^q quit   s sort: inside ")
            until("the one with a call inside is the first", lambda: first().startswith("stays inside "))
            screen.press("S", "S", "S")
            screen.wait("^q quit   s sort: name ")
            screen.press("Down")
            screen.wait(r"  2-15 of 305")
            screen.press("End")
            screen.wait(r"  237-250 of 305")
            screen.press("PageUp")
            screen.wait(r"  223-236 of 305")
            screen.press("Home")
            screen.wait(r"  1-14 of 305")
            # The library looks for it among all, not among those that were fetched.
            screen.press("/", "M", "O", "R", "E", "-", "2", "9", "x", "BSpace")
            screen.wait(r"^filter: MORE-29_ ")
            screen.press("Enter")
            screen.wait(r"^more-299 ")
            screen.wait(r"/ filter: MORE-29   1-11 of 11$")
            check(not any(line.startswith("busy") for line in screen.lines()), "busy is there, too")
            screen.press("Escape")
            screen.wait(r" of 305 ")
            screen.press("C-c")
            screen.is_restored(0)


def test_a_terminal_that_changes_its_size_is_filled():
    with hosts() as (folder, start):
        host = start()
        with Screen(host.pid, width=60, height=12) as screen:
            screen.wait(r"^CALLBACK +CALLS/S +P50 +P99 +INSIDE +FAILS/S$")
            screen.tmux("resize-window", "-x160", "-y30")
            screen.wait(r"^CALLBACK +SCOPE +CALLS/S .* HANDLE *$")
            screen.wait(r"^busy .* 0x[0-9a-f]{16}$")
            screen.tmux("resize-window", "-x2", "-y2")
            screen.tmux("resize-window", "-x80", "-y24")
            screen.wait(r"^busy ")


def test_a_process_that_ends_is_said_and_what_was_seen_stays():
    with hosts() as (folder, start):
        host = start()
        path = os.path.join(folder, "stats")
        with Screen("-i", "0.2", path) as screen:
            screen.wait(r"^busy +[1-9]")
            host.kill()
            screen.wait(r"^nobody serves .*stats: the process has ended$")
            screen.wait(r"^busy +[1-9]")
            # Another one at the same place is taken for what it is.
            other = start()
            screen.wait(rf"^host  pid {other.pid} ")
            screen.wait(r"^busy +[1-9]")
            check(not any("has ended" in line for line in screen.lines()), "it is gone, and there again")
            other.tell("end")
            screen.wait(r"^there is no .*stats: ")
            screen.press("q")
            screen.is_restored(0)


def test_signals_leave_the_terminal_as_it_was():
    with hosts() as (folder, start):
        host = start()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            with Screen(host.pid) as screen:
                screen.wait(r"^busy ")
                shell = screen.tmux("display-message", "-p", "#{pane_pid}").strip()
                program = int(subprocess.check_output(["ps", "-o", "pid=", "--ppid", shell], text=True))
                os.kill(program, number)
                screen.is_restored(128 + number)


def test_it_ends_with_its_terminal():
    with hosts() as (folder, start):
        host = start()
        with Screen(host.pid) as screen:
            screen.wait(r"^busy ")
            shell = screen.tmux("display-message", "-p", "#{pane_pid}").strip()
            program = subprocess.check_output(["ps", "-o", "pid=", "--ppid", shell], text=True).strip()
            screen.tmux("kill-server")
            # A zombie is nobody's to wait for here.
            state = lambda: subprocess.run(["ps", "-o", "stat=", "-p", program], capture_output=True, text=True).stdout.strip()
            until("the program's end", lambda: state() == "" or state().startswith("Z"))


# --- for scripts -----------------------------------------------------------------------------


def test_once_prints_both_tables():
    with hosts() as (folder, start):
        host = start()
        text = run("--once", "-i", "0.3", host.pid)
        lines = text.split("\n")
        check(lines[0].startswith(f"host  pid {host.pid}  up "), text)
        columns = lambda title: next((line.split() for line in lines if line.startswith(title + " ")), [])
        check(columns("QUEUE")[:3] == ["QUEUE", "SCOPE", "DEPTH"], text)
        check(columns("events")[1:3] == ["8", "8"], text)
        check(columns("CALLBACK")[:4] == ["CALLBACK", "SCOPE", "CALLS/S", "P50"], text)
        check(float(columns("busy")[1].rstrip("k")) > 0, text)
        check(columns("calm")[1] == "plugin", text)


def test_json_says_what_the_host_knows():
    with hosts() as (folder, start):
        host = start()
        until("work", lambda: host.tell("counts")[1] > 3)
        busy, calm, failures, dropped = host.tell("rest")
        document = json.loads(run("--once", "--json", "-i", "0.2", host.pid))
        check(document["callbridge"] == 1 and document["pid"] == host.pid and document["name"] == "host", document)
        check(150_000_000 < document["interval_ns"] < 10**10, document["interval_ns"])
        stats = document["stats"]
        check(stats["live"] == 5 and stats["threads"] == 1 and stats["in_flight"] == 1, stats)
        check(stats["failures"] == failures and stats["dropped"] == dropped, stats)
        # The pin has entered, too, and the events that were taken were calls.
        taken, events = row(document["queues"], "taken"), row(document["queues"], "events")
        check(stats["calls"] == busy + calm + 1 + taken["dispatched"], (stats, busy, calm, taken))
        check(taken["posted"] == taken["dispatched"] and taken["depth"] == 0 and taken["capacity"] == 8, taken)
        check(events["dropped"] == dropped and events["posted"] == dropped + 8 and events["depth"] == 8, events)
        callbacks = document["callbacks"]
        check(callbacks["total"] == 5 and callbacks["truncated"] == 0, callbacks)
        it = row(callbacks, "busy")
        check((it["calls"], it["failures"], it["calls_per_second"]) == (busy, failures, 0), it)
        check(it["latency"] is None and it["latency_total"]["count"] == busy, it)
        it = row(callbacks, "calm")
        check((it["calls"], it["failures"], it["scope"]) == (calm, 0, "plugin"), it)
        check(1_000_000 < it["latency_total"]["p50_ns"] < 1e9, it)
        it = row(callbacks, "stays inside")
        check((it["calls"], it["calls_per_second"], it["in_flight"]) == (None, None, 1), it)
        row(callbacks, "\x1b[31mred\n")
        check(re.fullmatch(r"host\+0x[0-9a-f]+", row(callbacks, "")["function"]), callbacks)


def test_rates_are_those_of_the_interval():
    with hosts() as (folder, start):
        host = start()
        before = host.tell("counts")
        document = json.loads(run("--once", "--json", "-i", "0.5", host.pid))
        after = host.tell("counts")
        seconds = document["interval_ns"] / 1e9
        it = row(document["callbacks"], "busy")
        called = round(it["calls_per_second"] * seconds)
        check(0 < called <= after[0] - before[0], (called, before, after))
        check(before[0] <= it["calls"] <= after[0], (it, before, after))
        check(abs(it["latency"]["count"] - called) < 200, it)  # counted when they are over
        failed = round(it["failures_per_second"] * seconds)
        check(0 < failed <= after[2] - before[2] and abs(failed * 50 - called) <= 50, (failed, called))
        dropped = round(row(document["queues"], "events")["dropped_per_second"] * seconds)
        check(0 < dropped <= after[3] - before[3], (dropped, before, after))
        check(abs(document["per_second"]["dropped"] * seconds - dropped) <= 10, document["per_second"])


def test_the_filter_and_the_number_of_rows_are_the_librarys():
    with hosts() as (folder, start):
        host = start()
        host.tell("many 30")
        rows = json.loads(run("--once", "--json", "-i", "0.1", "-n", "4", "-f", "more-", "-s", "name", host.pid))["callbacks"]
        check((len(rows["rows"]), rows["total"], rows["truncated"]) == (4, 30, 26), rows)
        names = [it["name"] for it in rows["rows"]]
        check(names == sorted(names) and all(name.startswith("more-") for name in names), names)


# --- which process ------------------------------------------------------------------------------


def test_a_process_is_found_by_its_number():
    with hosts() as (folder, start):
        first, second = start("%p.sock"), start("%p.sock")
        for host in (first, second):
            check(f"pid {host.pid} " in run("--once", "-i", "0.1", host.pid), "another process answers")
        link = os.path.join(folder, "link")
        os.symlink(f"{first.pid}.sock", link)
        check(f"pid {first.pid} " in run("--once", "-i", "0.1", link), "another process answers")


def test_a_path_that_is_too_long_for_an_address_is_no_obstacle():
    with hosts() as (folder, start):
        host = start()
        deep = folder
        for _ in range(5):
            deep = os.path.join(deep, "x" * 30)
            os.mkdir(deep)
        os.rename(os.path.join(folder, "stats"), os.path.join(deep, "stats"))
        check(f"pid {host.pid} " in run("--once", "-i", "0.1", os.path.join(deep, "stats")), "no answer")


def test_what_cannot_be_watched_is_said():
    with hosts() as (folder, start):
        host = start()
        path = os.path.join(folder, "stats")
        check("there is no process 4194305" in run("--once", 4194305, code=1), "no process")
        check("without CALLBRIDGE_STATS_SOCKET" in run("--once", os.getpid(), code=1), "not served")
        check("there is no " in run("--once", os.path.join(folder, "none"), code=1), "no socket")
        check("no terminal" in run(path, code=1), "no terminal")
        # Two processes with one path: one of them serves it.
        second = start()
        check(f"it is process {host.pid} that serves" in run("--once", second.pid, code=1), "another process's")
        host.kill()
        check("the process has ended" in run("--once", path, code=1), "a process that has ended")
        check(run("--once", code=2) and run("--json", path, code=2) and run("-i", "0", path, code=2), "usage")
        check("EXIT STATUS" in run("--help") and run("--version").startswith("callbridge-top "), "help")


def test_a_process_that_ends_between_two_looks_is_an_error():
    with hosts() as (folder, start):
        host = start()
        threading.Timer(0.5, host.kill).start()
        check("ended" in run("--once", "--json", "-i", "2", os.path.join(folder, "stats"), code=1), "it has ended")


def test_a_stopped_process_does_not_stop_who_looks():
    with hosts() as (folder, start):
        host = start()
        os.kill(host.pid, signal.SIGSTOP)
        check("is the process stopped?" in run("--once", host.pid, code=1), "it is stopped")
        os.kill(host.pid, signal.SIGCONT)
        with Screen(host.pid) as screen:
            screen.wait(r"^busy ")
            os.kill(host.pid, signal.SIGSTOP)
            screen.wait(r"is the process stopped\?$")
            os.kill(host.pid, signal.SIGCONT)
            until("it is there again", lambda: not any("stopped" in line for line in screen.lines()))
            screen.press("q")
            screen.is_restored(0)


def test_another_user_may_not_look():
    if os.geteuid() != 0:
        skip("only root can be two users")
    with hosts() as (folder, start):
        host = start()
        os.chmod(folder, 0o755)
        # A program that everybody can run.
        program = shutil.copy(arguments.top, folder)
        os.chmod(program, 0o755)
        for target, words in ((os.path.join(folder, "stats"), "is another user's"), (host.pid, "cannot be read")):
            done = subprocess.run([program, "--once", str(target)], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True)
            check(done.returncode == 1 and words in done.stderr, done)


def test_what_is_no_answer_is_said():
    answers = {
        b"220 mail ready\n": "that is no answer of callbridge",
        b'{"callbridge":2,"stats":1}\n': "the process speaks format 2",
        b"": "closed without an answer",
        b"[" * 100_000 + b"\n": "that is no answer of callbridge",
        b'{"callbridge":1,"error":"a\x1b[31m\\u001b[31mb"}\n': "that is no answer",
        b'{"callbridge":1,"error":"a \\u001b[31mb"}\n': "a ?[31mb",
    }
    with tempfile.TemporaryDirectory(prefix="callbridge-top-") as folder:
        path = os.path.join(folder, "stats")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        for answer, words in answers.items():

            def serve():
                client, _ = server.accept()
                client.recv(1000)
                client.sendall(answer)
                client.close()

            thread = threading.Thread(target=serve)
            thread.start()
            said = run("--once", path, code=1)
            thread.join()
            check(words in said and "\x1b" not in said, f"{answer[:80]}: {said}")


# -----------------------------------------------------------------------------------------------

parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
parser.add_argument("test")
parser.add_argument("--top", required=True)
parser.add_argument("--host", required=True)
arguments = parser.parse_args()
globals()[f"test_{arguments.test}"]()
print(f"ok      {arguments.test}")
