#!/usr/bin/env python3
"""Runs examples/otel_trace.py and looks at the spans that it exports.

  check_otel.py OTEL_TRACE LIBRARY
"""
import json
import subprocess
import sys


def check(good, words):
    if not good:
        sys.exit(f"FAILED {words}")


done = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.PIPE, text=True, timeout=60)
check(done.returncode == 0, f"the example ended with {done.returncode}")
spans = {span["name"]: span for span in map(json.loads, done.stdout.splitlines())}
check(sorted(spans) == ["notify", "request", "store"], f"spans: {sorted(spans)}")
request, store, notify = spans["request"], spans["store"], spans["notify"]
thread = lambda span: span["attributes"]["thread.id"]

check(len({span["context"]["trace_id"] for span in spans.values()}) == 1, "they are not one trace")
check(len({span["context"]["span_id"] for span in spans.values()}) == 3, "spans share a number")
check(request["parent_id"] is None, "the request has a parent")
check(store["parent_id"] == request["context"]["span_id"], "the event's parent is not its poster")
check(thread(store) != thread(request), "the event did not cross threads")
check(notify["parent_id"] == store["context"]["span_id"], "a call's parent is not its caller")
check(thread(notify) == thread(store), "a call changed threads")
check(notify["status"]["status_code"] == "ERROR", "the failure is not in its span")
check("CBR_ERR_CALLBACK" in notify["status"]["description"], "nor what it was")
check(store["status"]["status_code"] == request["status"]["status_code"] == "UNSET", "others have failed, too")
print(f"{len(spans)} spans of one trace, across a queue")
