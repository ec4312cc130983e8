#!/usr/bin/env python3
"""What examples/metrics_server serves, as those see it who read metrics.

  check_metrics.py text --promtool P -- SERVER...
      the strict OpenMetrics parser of prometheus_client accepts it, and promtool finds nothing to complain
      of. promtool reads the older text format alone, so the client library writes that from what it has read.
  check_metrics.py scrape --prometheus P --rules FILE -- SERVER...
      a Prometheus scrapes it, loads the alerts, and answers queries.

SERVER is a command that prints "port=PORT" and ends on SIGTERM.
"""
import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PAGES = ("/metrics", "/metrics/sensors")
DEADLINE = float(os.environ.get("CALLBRIDGE_TEST_TIMEOUT", "60")) * 0.8


def check(good, words):
    if not good:
        sys.exit(f"FAILED {words}")


@contextlib.contextmanager
def running(command, end=signal.SIGTERM, **how):
    """A program that is ended in any case, and has ended well."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **how)
    try:
        yield process
        process.send_signal(end)
        check(process.wait(30) == 0, f"{command[0]} has ended with {process.returncode}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextlib.contextmanager
def server(command):
    with running(command, stdout=subprocess.PIPE, text=True) as process:
        word, _, port = process.stdout.readline().strip().partition("=")
        check(word == "port", "the server has not started")
        yield int(port)


def get(port, page, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, page)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, response.headers, body


# --- text -------------------------------------------------------------------------------------


def strictly(text):
    """The families of an OpenMetrics text, or ValueError."""
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    return list(text_string_to_metric_families(text))


def is_refused(text):
    try:
        strictly(text)
    except ValueError:
        return True
    return False


def in_the_older_format(families):
    from prometheus_client import CollectorRegistry, generate_latest

    class Collector:
        def collect(self):
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    return generate_latest(registry).decode()


def lint(promtool, text):
    """What promtool has to say."""
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    words = (done.stdout + done.stderr).strip()
    check(bool(words) == (done.returncode != 0), f"promtool has ended with {done.returncode}: {words}")
    return words


def check_text(port, promtool):
    for page in PAGES:
        status, headers, text = get(port, page)
        check(status == 200 and headers["Content-Type"] == OPENMETRICS, f"{page}: {status}, {headers}")
        families = strictly(text)
        count = sum(len(family.samples) for family in families)
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        check(count == len(lines), f"{page}: {count} samples of {len(lines)} lines")
        older = in_the_older_format(families)
        check(older.count("\n# TYPE ") + 1 >= len(families), f"{page}: the older format lacks some:\n{older}")
        words = lint(promtool, older)
        check(not words, f"{page}: promtool says: {words}")
        print(f"{page}: {len(families)} metrics, {count} samples")
        # The tools see what is wrong, so what they accept is right.
        check(is_refused(text.replace("# EOF\n", "")), "no end is accepted")
        check(is_refused(text.replace("# EOF\n", "# TYPE callbridge_threads gauge\n# EOF\n")), "a metric twice is accepted")
        check(is_refused(text.replace("# UNIT callbridge_dispatch_latency_seconds seconds", "# UNIT callbridge_dispatch_latency_seconds metres")),
              "a wrong unit is accepted")
        check("callbridge_queue_dropped" in lint(promtool, older.replace("callbridge_queue_dropped_total", "callbridge_queue_dropped")),
              "promtool does not see a counter without _total")
    status, headers, text = get(port, "/metrics", "HEAD")
    check((status, text) == (200, "") and int(headers["Content-Length"]) > 1000, f"HEAD: {status}, {headers}")
    for method, page, expected in (("GET", "/", 404), ("GET", "/metrics?x=1", 200), ("POST", "/metrics", 405)):
        status, _, _ = get(port, page, method)
        check(status == expected, f"{method} {page}: {status}")


# --- scrape -----------------------------------------------------------------------------------


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class Prometheus:
    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"

    def ask(self, path, **parameters):
        url = f"{self.base}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)["data"]

    def value(self, query):
        """Of a query with one result; None as long as it has none."""
        result = self.ask("/api/v1/query", query=query)["result"]
        check(len(result) <= 1, f"{query}: {result}")
        return float(result[0]["value"][1]) if result else None

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"{self.base}/-/ready", timeout=30) as response:
                return response.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False


def until(what, condition, process):
    """Polls until the condition gives something."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        check(process.poll() is None, f"prometheus has ended with {process.returncode}")
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    return check(False, f"not within {DEADLINE:.0f} s: {what}")


def write_configuration(path, port, rules):
    jobs = [
        {
            "job_name": page.rpartition("/")[2],
            "metrics_path": page,
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        }
        for page in PAGES
    ]
    scrape = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    with open(path, "w", encoding="utf-8") as file:
        # JSON is YAML.
        json.dump({"global": scrape, "rule_files": [os.path.abspath(rules)], "scrape_configs": jobs}, file)


def check_answers(prometheus, process):
    host, sensors = '{job="metrics"}', '{job="sensors",scope="sensors"}'
    until("both pages are scraped", lambda: prometheus.value("sum(up)") == 2, process)
    first = until("a count", lambda: prometheus.value(f"callbridge_calls_total{host}"), process)
    until("a count that grows", lambda: prometheus.value(f"callbridge_calls_total{host}") > first, process)
    for query, is_right in (
        (f"callbridge_callbacks_live{host}", lambda it: it == 1),
        (f"callbridge_callbacks_live{sensors}", lambda it: it == 1),
        (f'callbridge_queue_capacity{{job="metrics",queue="readings"}}', lambda it: it == 256),
        (f"sum by (job) (rate(callbridge_queue_dispatched_total{sensors}[30s]))", lambda it: it > 1),
        (f'rate(callbridge_failures_total{{job="metrics",status="CBR_ERR_CALLBACK"}}[30s])', lambda it: it > 0),
        (f"callbridge_stale_calls_total{host}", lambda it: it == 0),
        (f'histogram_quantile(0.5, rate(callbridge_call_duration_seconds_bucket{{job="metrics",callback="take_reading"}}[30s]))',
         lambda it: 0 < it < 1),
        (f"rate(callbridge_dispatch_latency_seconds_sum{sensors}[30s])", lambda it: it > 0),
    ):
        answer = until(query, lambda query=query, is_right=is_right: (
            lambda it: it is not None and is_right(it) and [it])(prometheus.value(query)), process)
        print(f"{query} = {answer[0]:g}")
    # Units are in OpenMetrics alone: Prometheus has read it as that.
    for metric, kind, unit in (("callbridge_calls", "counter", ""), ("callbridge_queue_depth", "gauge", ""),
                               ("callbridge_build", "info", ""),
                               ("callbridge_dispatch_latency_seconds", "histogram", "seconds")):
        said = prometheus.ask("/api/v1/metadata", metric=metric)
        check({(it["type"], it["unit"]) for it in said.get(metric, [])} == {(kind, unit)}, f"{metric}: {said}")
    rules = [rule for group in prometheus.ask("/api/v1/rules")["groups"] for rule in group["rules"]]
    until("the alerts are evaluated", lambda: all(rule["health"] == "ok" for group in prometheus.ask(
        "/api/v1/rules")["groups"] for rule in group["rules"]), process)
    check(len(rules) >= 5, f"rules: {rules}")
    print(f"{len(rules)} alerts are loaded and evaluated")


def check_scrape(port, program, rules):
    with tempfile.TemporaryDirectory() as folder:
        configuration = os.path.join(folder, "prometheus.yml")
        write_configuration(configuration, port, rules)
        web = free_port()
        command = [program, f"--config.file={configuration}", f"--storage.tsdb.path={folder}/data",
                   f"--web.listen-address=127.0.0.1:{web}", "--log.level=error"]
        with running(command, cwd=folder) as process:
            prometheus = Prometheus(web)
            until("Prometheus is ready", prometheus.is_ready, process)
            check_answers(prometheus, process)


def main():
    apart = sys.argv.index("--")
    own, command = sys.argv[1:apart], sys.argv[apart + 1:]
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["text", "scrape"])
    for option in ("--promtool", "--prometheus", "--rules"):
        parser.add_argument(option)
    options = parser.parse_args(own)
    with server(command) as port:
        if options.what == "text":
            check_text(port, options.promtool)
        else:
            check_scrape(port, options.prometheus, options.rules)


main()
