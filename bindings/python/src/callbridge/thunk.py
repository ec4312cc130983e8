"""Thunks: plain C function pointers, for C interfaces that take a function and no `void *`."""
import ctypes
import weakref
from ctypes import byref, c_uint64, c_void_p

from . import _gate
from ._library import lib
from .callback import Callback
from .errors import STALE, ClosedError, check
from .handle import Handle, handle_number

PERMANENT = 1


class Thunk:
    """A C function that calls a callback, whose `signature` it has without user_data. A context manager that gives
    `function`, which ctypes takes as an argument: `libc.qsort(items, count, size, function)`.

    `of`: a Callback or Handle, or a Python function, then with `signature` and the other options of Callback; that
    callback ends with the thunk. `permanent`: for interfaces that never let go of a function, such as atexit.

    Ownership: the thunk keeps the callback alive. After close, or without its callback, the address stays good: it
    returns the callback's fallback, as long as the process lives.
    Threads: any.
    """

    def __init__(self, of, *, permanent=False, **options):
        if _gate.closed:
            raise ClosedError("the interpreter is ending")
        self._own = None
        if not isinstance(of, Handle):
            of = self._own = Callback(of, **options)
        elif options:
            raise TypeError("the callback has its options already: %s" % ", ".join(options))
        self.signature = of.signature
        address, thunk = c_void_p(), c_uint64()
        flags = PERMANENT if permanent else 0
        check(lib.cbr_thunk_open(of.number, self.signature.number, flags, byref(address), byref(thunk)))
        self.handle, self.address = thunk.value, address.value
        self.function = self.signature.prototype(self.address)
        self._finalizer = weakref.finalize(self, lib.cbr_thunk_close, self.handle)
        # What C still calls after the interpreter's end answers with its fallback: the scopes are closed.
        self._finalizer.atexit = False

    @property
    def _as_parameter_(self):
        return self.function

    def retarget(self, handle):
        """Calls another callback of the same signature from now on. The caller's reference stays the caller's."""
        check(lib.cbr_thunk_retarget(self.handle, handle_number(handle)))
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def close(self):
        """The function returns its fallback from now on; calls in flight finish. A second time nothing happens."""
        self._finalizer()
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def __enter__(self):
        return self.function

    def __exit__(self, *_):
        self.close()

    def __repr__(self):
        return "<callbridge.Thunk %s at %#x>" % (self.signature, self.address)
