#!/usr/bin/env python3
"""A request that crosses a queue, as OpenTelemetry sees it.

  otel_trace.py [libcallbridge.so.0]      needs opentelemetry-sdk

A thread handles a request: it posts to a queue, whose callback another thread runs, which calls a third one. The
library tells a tracer of every call (cbr_set_call_hooks) and takes the trace context along with the event
(cbr_trace_set), so the spans are one trace, and each knows its parent, whatever thread it was on. They are
exported as JSON, a line each.
"""
import ctypes
import itertools
import json
import sys
import threading
from ctypes import CFUNCTYPE, c_char_p, c_int, c_int64, c_size_t, c_ssize_t, c_uint64, c_void_p

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# --- the library -------------------------------------------------------------------------------

lib = ctypes.CDLL(sys.argv[1] if len(sys.argv) > 1 else "libcallbridge.so.0")
CALLBACK = CFUNCTYPE(c_ssize_t, c_void_p, c_void_p)
DESTROY = CFUNCTYPE(None, c_void_p)
BEGIN = CFUNCTYPE(c_void_p, c_void_p, c_uint64, c_char_p, c_char_p)
END = CFUNCTYPE(None, c_void_p, c_void_p, c_int)
OK, ERR_CALLBACK = 0, -19


class Options(ctypes.Structure):
    """cbr_callback_options"""

    _fields_ = [
        ("size", c_size_t),
        ("fn", CALLBACK),
        ("user_data", c_void_p),
        ("destroy", c_void_p),
        ("signature", c_uint64),
        ("name", c_char_p),
        ("scope", c_uint64),
        ("home", c_uint64),
        ("destroy_queue", c_uint64),
        ("flags", ctypes.c_uint32),
        ("on_error", c_void_p),
        ("fallback", c_uint64),
    ]


lib.cbr_status_name.restype = c_char_p
lib.cbr_call.argtypes = [c_uint64, c_void_p, c_void_p]
lib.cbr_post.argtypes = [c_uint64, c_uint64, c_void_p, c_size_t]
lib.cbr_queue_open.argtypes = [c_void_p, c_void_p]
lib.cbr_queue_close.argtypes = [c_uint64, ctypes.c_uint32]
lib.cbr_queue_dispatch.argtypes = [c_uint64, c_size_t, c_int64, c_void_p]
lib.cbr_unregister_wait.argtypes = [c_uint64, c_int64]
lib.cbr_fail.argtypes = [c_int, c_char_p]
lib.cbr_trace_set.argtypes = [c_char_p]
lib.cbr_set_call_hooks.argtypes = [BEGIN, END, c_void_p, c_void_p, c_uint64]


def check(status):
    if status != OK:
        raise RuntimeError(lib.cbr_status_name(status).decode())


kept_alive = []


def callback(name, function):
    """The handle of a callback that calls `function`."""
    options, handle = Options(size=ctypes.sizeof(Options), name=name.encode()), c_uint64()
    options.fn = CALLBACK(lambda user_data, arg: function() or 0)
    kept_alive.append(options.fn)
    check(lib.cbr_register_with(ctypes.byref(options), ctypes.byref(handle)))
    return handle.value


# --- the tracer --------------------------------------------------------------------------------


def one_line(span):
    return json.dumps(json.loads(span.to_json())) + "\n"


provider = TracerProvider(resource=Resource.create({"service.name": "otel_trace"}))
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=one_line)))
tracer = provider.get_tracer("callbridge")
propagator = TraceContextTextMapPropagator()
numbers, open_spans = itertools.count(1), {}


@BEGIN
def begin(user_data, handle, name, traceparent):
    # The context is the caller's: of this thread, or, behind a queue, of the poster's.
    parent = propagator.extract({"traceparent": traceparent.decode()} if traceparent else {})
    attributes = {"callbridge.handle": f"{handle:#x}", "thread.id": threading.get_native_id()}
    span = tracer.start_span(name.decode() or "(unnamed)", context=parent, kind=SpanKind.INTERNAL, attributes=attributes)
    # What the callback calls and posts is below this span.
    context = span.get_span_context()
    lib.cbr_trace_set(f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}".encode())
    number = next(numbers)
    open_spans[number] = span
    return number


@END
def end(user_data, number, status):
    span = open_spans.pop(number)
    if status != OK:
        span.set_status(Status(StatusCode.ERROR, lib.cbr_status_name(status).decode()))
    span.end()


# --- the program -------------------------------------------------------------------------------


def handle_request():
    check(lib.cbr_post(queue.value, store, None, 0))


def store_order():
    assert lib.cbr_call(notify, None, None) == ERR_CALLBACK


def notify_customer():
    lib.cbr_fail(ERR_CALLBACK, b"the mail server does not answer")


def dispatch():
    while lib.cbr_queue_dispatch(queue.value, 0, -1, None) == OK:
        pass


check(lib.cbr_set_call_hooks(begin, end, None, None, 0))
queue = c_uint64()
check(lib.cbr_queue_open(None, ctypes.byref(queue)))
request, store, notify = (
    callback(name, function)
    for name, function in [("request", handle_request), ("store", store_order), ("notify", notify_customer)]
)
worker = threading.Thread(target=dispatch)
worker.start()
check(lib.cbr_call(request, None, None))
# What waits is still dispatched, then the worker ends.
check(lib.cbr_queue_close(queue.value, 0))
worker.join()
for handle in (request, store, notify):
    check(lib.cbr_unregister_wait(handle, -1))
check(lib.cbr_set_call_hooks(BEGIN(), END(), None, None, 0))
provider.shutdown()
