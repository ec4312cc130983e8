"""Callbacks: Python functions that C may call at any time, on any thread, and after they are gone."""
import functools
import weakref
from ctypes import byref, c_uint64, sizeof

from . import _gate
from ._contain import own_frames, tellers
from ._library import CallbackOptions, lib, quick
from .errors import ClosedError, check
from .handle import Reference, end
from .scope import end_with_interpreter, scope_number
from .signature import DEFAULT, Signature

METERED = 1
_SIZE = sizeof(CallbackOptions)

own_frames(__file__)


def _weak(reference):
    """A function that calls what the weak reference is of."""

    def call(*args):
        function = reference()
        if function is None:
            raise ReferenceError("what the callback was of is gone")
        return function(*args)

    return call


class _Watch:
    """Ends a callback with the object that it is of. That may live long, so nothing stays there afterwards."""

    def __init__(self, watched, number):
        self._finalizer = weakref.finalize(watched, lib.cbr_unregister, number)
        self._finalizer.atexit = False

    def end(self):
        self._finalizer.detach()

    def release(self, number):
        """Gives back the reference of a Callback that was collected. Others may have some, and then it goes on."""
        lib.cbr_release(number)
        if not quick.cbr_is_live(number):
            self.end()


class Callback(Reference):
    """A Python function as C has it: `number` is the cbr_handle. Owns the first reference.

    `function`: called with the arguments of `signature`, on the thread of the caller, with the GIL. Of the default
    signature, intptr_t(void *): with an address, None for NULL; the result is a whole number, or None for 0.
    A weakref.WeakMethod (or weakref.ref of a function) is called as long as its object lives, and the callback ends
    with it.
    `signature`: a CFUNCTYPE, (restype, *argtypes), or text such as "i32(ptr,ptr)".
    `name`: for logs, reports and metrics. None: the function's.
    `scope`: its owner. None: the binding's own, which ends with the interpreter.
    `home`: the owned Queue whose thread alone may call. `destroy_queue`: the Queue where the function is let go of;
    a Queue, because one of C's could do so after the interpreter's end.
    `on_error`: called with the exception of a call that has failed. None: it is logged (logger "callbridge").
    `fallback`: what thunks and call_ptr return when the callback cannot run. `metered`: calls are timed.

    Ownership: the library keeps the function until the callback has ended and no call is inside. close() ends it,
    so does the end of `with`; if the object is collected, its reference is released, and other owners, such as
    thunks, names and waiting events, keep the callback alive.
    A function that refers to its own callback keeps it alive: close it, or give a WeakMethod.
    Errors: what the function raises ends here; the caller gets CBR_ERR_PANIC and the text of the traceback.
    Threads: any.
    """

    __slots__ = ("name", "_needs", "_watch")

    def __init__(
        self, function, *, signature=None, name=None, scope=None, home=None, destroy_queue=None, on_error=None,
        fallback=0, metered=False,
    ):  # fmt: skip
        if not callable(function):
            raise TypeError("%r cannot be called" % (function,))
        if _gate.closed:
            raise ClosedError("the interpreter is ending")
        if destroy_queue is not None and not hasattr(destroy_queue, "handle"):
            raise TypeError("destroy_queue must be a Queue, not %r" % (destroy_queue,))
        signature = Signature.of(signature)
        named, weakly = function, None
        if isinstance(function, weakref.ref):
            named, function = function(), _weak(function)
            if named is None:
                raise ReferenceError("what the callback would be of is gone")
            weakly = getattr(named, "__self__", named)
        # Of its own with on_error, which lasts as long as the library keeps what it calls.
        called = function if on_error is None else functools.partial(function)
        if name is None:
            # A name's place in a function says little, and names are cut where they are shown.
            name = getattr(named, "__qualname__", "").rpartition("<locals>.")[2] or None
        owner = scope_number(scope)
        options = CallbackOptions(
            _SIZE,
            _gate.function_of(signature, DEFAULT),
            id(called),
            _gate.destroy,
            signature.number,
            # At most 255 bytes, and not half a character.
            None if name is None else name.encode()[:255].decode(errors="ignore").encode(),
            owner,
            getattr(home, "handle", home) or 0,
            0 if destroy_queue is None else destroy_queue.handle,
            METERED if metered else 0,
        )
        if fallback:
            options.fallback = signature.value(fallback)
        number = c_uint64()
        # The library's reference is there before the library is: another thread may end the scope at once.
        _gate.hold(called)
        try:
            check(quick.cbr_register_with(byref(options), byref(number)))
        except BaseException:
            _gate.let_go(called)
            raise
        end_with_interpreter(number.value, owner)
        watch = self._watch = None if weakly is None else _Watch(weakly, number.value)
        super().__init__(number.value, signature, lib.cbr_release if watch is None else watch.release)
        if on_error is not None:
            called.on_error = on_error
            tellers[self.number] = called
        self.name = name
        # Collected, a Scope or Queue closes: not as long as this object needs it.
        self._needs = (scope, home, destroy_queue)

    def close(self, timeout=None):
        """Ends the callback for everybody, and waits, `timeout` seconds at most, until no call is inside and the
        function is let go of. A second time nothing happens.

        Returns False inside a call of it (or where the wait could never end): it is revoked, and the function is let
        go of when that call returns. Raises WaitTimeout: it is revoked; close again to wait on.
        """
        try:
            return end(self, timeout)
        finally:
            if self._watch is not None:
                self._watch.end()


def callback(function=None, **options):
    """Makes a Callback of a function, as a decorator with or without options, or in place.

        @callback
        def on_data(address): ...

        @callback(signature=CFUNCTYPE(c_int, c_void_p, c_void_p), name="compare")
        def compare(a, b): ...

        with callback(on_data) as handle: ...
    """
    if function is None:
        return functools.partial(callback, **options)
    return Callback(function, **options)
