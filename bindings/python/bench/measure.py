"""Measures calls from C into Python, and callbacks' lives: lines of subject, nanoseconds of CPU time, repetition.

  measure.py upcall.so [--quick]        with callbridge on PYTHONPATH

Subjects take turns within each repetition. All upcalls are of the same Python function, which counts and returns 1; a bare
one has the (void *, void *) that C gives, callbridge's the argument alone, because its user_data is the function.
"""
import ctypes
import importlib.util
import os
import sys
import time
from ctypes import CFUNCTYPE, c_double, c_long, c_ssize_t, c_uint64, c_void_p, cast

import callbridge

REPETITIONS = 9
QUICK = "--quick" in sys.argv
SLICE = 50e6 if QUICK else 100e6

upcall = ctypes.CDLL(sys.argv[1])
for name, argtypes in (("bare", [c_void_p, c_void_p, c_long]), ("handle", [c_void_p, c_uint64, c_long])):
    for suffix in ("", "_on_thread"):
        function = getattr(upcall, "upcall_%s%s" % (name, suffix))
        function.restype, function.argtypes = c_double, argtypes
call = cast(ctypes.CDLL(callbridge.LIBRARY).cbr_call, c_void_p).value


def without_extension():
    """The package once more, under another name, as it is where its extension could not be built."""
    spec = importlib.util.spec_from_file_location(
        "callbridge_pure", callbridge.__file__, submodule_search_locations=callbridge.__path__
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["callbridge_pure"] = package
    os.environ["CALLBRIDGE_PURE"] = "1"
    spec.loader.exec_module(package)
    return package


calls = [0]


def counts(arg):
    calls[0] += 1
    return 1


def counts_bare(user_data, arg):
    calls[0] += 1
    return 1


PROTOTYPE = CFUNCTYPE(c_ssize_t, c_void_p, c_void_p)
# Any address will do; C interfaces have one there.
USER_DATA = ctypes.addressof(ctypes.create_string_buffer(1))
pure = without_extension()
bare = PROTOTYPE(counts_bare)
bare_address = cast(bare, c_void_p).value
pure_callback = pure.callback(counts)

upcalls = {
    "ctypes-upcall": lambda n: upcall.upcall_bare(bare_address, USER_DATA, n),
    "callbridge-ctypes-upcall": lambda n: upcall.upcall_handle(call, pure_callback.number, n),
}
threads = {
    "ctypes-thread-upcall": lambda n: upcall.upcall_bare_on_thread(bare_address, USER_DATA, n),
}
if callbridge.FAST:
    fast_callback = callbridge.callback(counts)
    upcalls["callbridge-fast-upcall"] = lambda n: upcall.upcall_handle(call, fast_callback.number, n)
    threads["callbridge-fast-thread-upcall"] = lambda n: upcall.upcall_handle_on_thread(call, fast_callback.number, n)
try:
    import cffi
except ImportError:
    print("python cffi-upcall: skipped, cffi is not installed", file=sys.stderr)
else:
    ffi = cffi.FFI()
    cffi_callback = ffi.callback("intptr_t(void *, void *)", counts_bare)
    cffi_address = int(ffi.cast("intptr_t", cffi_callback))
    upcalls["cffi-upcall"] = lambda n: upcall.upcall_bare(cffi_address, USER_DATA, n)


def timed(function):
    def run(count):
        before = time.thread_time_ns()
        for _ in range(count):
            function()
        return (time.thread_time_ns() - before) / count

    return run


lives = {
    "register-release": timed(lambda: callbridge.callback(counts).close()),
    "CFUNCTYPE-create-free": timed(lambda: PROTOTYPE(counts_bare)),
}

subjects = {**upcalls, **threads, **lives}
repeats = {}
for name, subject in subjects.items():
    count = 1000
    subject(count)
    repeats[name] = max(count, int(SLICE / min(subject(count) for _ in range(3))))
for repetition in range(REPETITIONS):
    for name, subject in subjects.items():
        nanoseconds = subject(repeats[name])
        if nanoseconds < 0:
            sys.exit("%s: calls are missing" % name)
        print("python %s\t%.1f\t%d" % (name, nanoseconds, repetition))
