"""What is going on: numbers, a report, metrics; the log, and traces."""
import ctypes
from ctypes import CFUNCTYPE, byref, c_size_t, c_void_p

from ._library import STATS, Stats, address, lib, quick, sized, text
from .errors import check

_WRITE = CFUNCTYPE(None, c_void_p, c_void_p, c_size_t)


def stats(scope=None):
    """The numbers of the process, or of a scope, as a dict; see cbr_stats."""
    numbers = sized(Stats)
    check(quick.cbr_stats_get(_whole(scope), byref(numbers)))
    return {field: getattr(numbers, field) for field in STATS}


def _written(function, scope):
    parts = []

    @_WRITE
    def write(_, data, length):
        parts.append(ctypes.string_at(data, length))

    check(function(_whole(scope), address(write), None))
    return b"".join(parts)


def _whole(scope):
    # Unlike elsewhere, none is the whole process.
    return getattr(scope, "handle", scope) or 0


def report(scope=None):
    """A table of the live callbacks of the process, or of a scope, for people."""
    return _written(lib.cbr_report, scope).decode()


def metrics(scope=None):
    """The metrics of the process, or of a scope, as OpenMetrics text."""
    return _written(lib.cbr_metrics, scope).decode()


def profile(scope=None):
    """The live callbacks by the stacks that they were registered by, as a gzipped pprof profile."""
    return _written(lib.cbr_profile, scope)


def log_to_stderr(filter=None):
    """Prints the library's log, such as "warn" or "callbridge=debug"; None: as CALLBRIDGE_LOG says."""
    check(quick.cbr_log_to_stderr(text(filter)))


def set_check(level):
    """How much is checked from now on: 0, 1 or 2; as CALLBRIDGE_CHECK."""
    check(quick.cbr_set_check(level))


def set_trace(traceparent):
    """The trace context of this thread, which posted events take along; None: none."""
    check(quick.cbr_trace_set(text(traceparent)))


def get_trace():
    """The trace context of this thread, or None."""
    room = ctypes.create_string_buffer(quick.cbr_trace_get(None, 0) + 1)
    quick.cbr_trace_get(room, len(room))
    return room.value.decode() or None
