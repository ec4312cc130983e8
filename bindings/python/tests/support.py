"""What the tests share: the C side, and waiting."""
import ctypes
import gc
import os
import subprocess
import sys
import textwrap
import time
import unittest
from ctypes import POINTER, byref, c_bool, c_int, c_int32, c_long, c_ssize_t, c_uint64, c_void_p

import callbridge

OK, PANIC, STALE, CLOSED, CALLBACK = 0, -2, -3, -12, -19

caller = ctypes.CDLL(os.environ["CALLBRIDGE_TEST_CALLER"])
for _name, _restype, _argtypes in (
    ("caller_loop", c_int32, [c_uint64, c_void_p, c_long, POINTER(c_ssize_t)]),
    ("caller_start", c_void_p, [c_uint64, c_void_p, c_long, c_bool]),
    ("caller_calls", c_long, [c_void_p]),
    ("caller_status", c_int32, [c_void_p]),
    ("caller_join", c_int32, [c_void_p, c_bool]),
    ("caller_release_on_thread", c_int32, [c_uint64]),
    ("caller_unregister_on_thread", c_int32, [c_uint64]),
    ("caller_post", c_void_p, [c_uint64, c_uint64, c_uint64]),
    ("caller_posted", c_int32, [c_void_p]),
    ("caller_call_late", None, [c_uint64, c_void_p]),
    ("caller_register", c_int32, [c_ssize_t, POINTER(c_uint64)]),
    ("caller_destroyed", c_long, []),
):
    getattr(caller, _name).restype = _restype
    getattr(caller, _name).argtypes = _argtypes


def call_from_c(handle, arg=None):
    """Status and result of one cbr_call by C, on this thread."""
    result = c_ssize_t()
    status = caller.caller_loop(int(handle), arg, 1, byref(result))
    return status, result.value


class CallerThread:
    """A thread of C's that calls the callback until it is joined, or the callback is gone."""

    def __init__(self, handle, arg=None, count=0, until_stale=False):
        self._it = caller.caller_start(int(handle), arg, count, until_stale)

    @property
    def calls(self):
        return caller.caller_calls(self._it)

    @property
    def status(self):
        return caller.caller_status(self._it)

    def join(self, stop=False):
        it, self._it = self._it, None
        return caller.caller_join(it, stop)


class Payload:
    """Data of a callback, which tells how many of it live."""

    live = 0

    def __init__(self):
        Payload.live += 1

    def __del__(self):
        Payload.live -= 1


class TestCase(unittest.TestCase):
    def wait_until(self, condition, what, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.fail("%s: not within %d seconds" % (what, seconds))
            time.sleep(0.001)

    def collect(self):
        for _ in range(3):
            gc.collect()

    def run_python(self, code, *, check=True, env=None, timeout=60, args=()):
        """A Python of its own."""
        result = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
        )
        if check:
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result


fast = callbridge.FAST
# Else the tests of the C extension would be those of ctypes.
assert fast == (os.environ["CALLBRIDGE_VARIANT"] == "fast"), "the C extension has not been built"
