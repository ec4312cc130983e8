"""Scopes: an owner, and everything that was registered in it. The interpreter's end closes them all."""
import atexit
import time
import weakref
from ctypes import byref, c_size_t, c_uint64

from . import _gate
from ._library import lib, nanoseconds, quick, text
from .errors import OK, STALE, TIMEOUT, ClosedError, check, error_of

# How long the end of the interpreter waits for callbacks that run.
EXIT_TIMEOUT = 5.0

# A signal's handler in Python runs between two waits of this length.
_SLICE = 0.1


def wait(function, timeout):
    """Calls `function(nanoseconds)` until it no longer says CBR_ERR_TIMEOUT or `timeout` has passed, with time
    for Python's signal handlers in between. Returns the last status."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _SLICE if deadline is None else max(0.0, deadline - time.monotonic())
        status = function(nanoseconds(min(left, _SLICE)))
        if status != TIMEOUT or left == 0.0:
            return status


class Scope:
    """Owns callbacks, queues, names and keys; closing it ends them all. A context manager.

    Threads: any. At the interpreter's end it is closed.
    """

    def __init__(self, name=None):
        if _gate.closed:
            raise ClosedError("the interpreter is ending")
        handle = c_uint64()
        check(lib.cbr_scope_open(text(name), byref(handle)))
        self.handle, self.name = handle.value, name
        _open[self.handle] = self.handle
        self._finalizer = weakref.finalize(self, _drop, self.handle)
        self._finalizer.atexit = False

    @property
    def _as_parameter_(self):
        return c_uint64(self.handle)

    def close(self, timeout=None):
        """Revokes everything that the scope owns, and waits until no callback of it runs, `timeout` seconds at most.

        Raises WaitTimeout (how many still run is `running` of the exception; close again to wait on), DeadlockError
        inside one of its own callbacks: everything is revoked all the same. A scope that is closed stays closed.
        """
        running = c_size_t()
        status = wait(lambda ns: lib.cbr_scope_close(self.handle, ns, byref(running)), timeout)
        if status in (OK, STALE):
            self._finalizer.detach()
            _open.pop(self.handle, None)
            return
        error = error_of(status)
        error.running = running.value
        raise error

    def drain(self, timeout=None):
        """Waits until every callback of the scope that has ended is destroyed."""
        check(wait(lambda ns: lib.cbr_scope_drain(self.handle, ns), timeout))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
        return "<callbridge.Scope %r %#x>" % (self.name, self.handle)


def _drop(handle):
    # In the garbage collector, maybe inside a callback of it: nothing is waited for, but at the interpreter's end.
    if lib.cbr_scope_close(handle, 0, None) in (OK, STALE):
        _open.pop(handle, None)


def scope_number(scope):
    """What the library has for a Scope, a number, or None: the binding's own scope."""
    return root().handle if scope is None else getattr(scope, "handle", scope)


_open = {}
_root = []
# Callbacks in scopes that Python has not opened, a plugin's or the process's, which its end does not close. Those that
# are gone are forgotten when there are so many.
_elsewhere = set()
_elsewhere_many = 100


def end_with_interpreter(number, scope):
    """Has a callback of the scope end with the interpreter at the latest."""
    global _elsewhere_many
    if scope in _open:
        return
    _elsewhere.add(number)
    if _gate.closed:
        lib.cbr_unregister(number)
    if len(_elsewhere) >= _elsewhere_many:
        for it in list(_elsewhere):
            if not quick.cbr_is_live(it) and lib.cbr_unregister_wait(it, 0) in (OK, STALE):
                _elsewhere.discard(it)
        _elsewhere_many = max(100, 2 * len(_elsewhere))


def _close(handle, timeout_ns):
    return lib.cbr_scope_close(handle, timeout_ns, None)


def root():
    """The scope of what is registered without one."""
    if not _root:
        _root.append(Scope("python"))
    return _root[0]


@atexit.register
def _end():
    """Before the interpreter is finalized: from now on C gets CBR_ERR_STALE, or a thunk's fallback, and Python is
    not entered any more. What runs is waited for, with the GIL released."""
    _gate.closed = True
    deadline = time.monotonic() + EXIT_TIMEOUT
    everything = [(_close, scope) for scope in list(_open)]
    everything += [(lib.cbr_unregister_wait, callback) for callback in list(_elsewhere)]
    for end, handle in everything:
        end(handle, 0)
    for end, handle in everything:
        wait(lambda ns: end(handle, ns), max(0.0, deadline - time.monotonic()))
