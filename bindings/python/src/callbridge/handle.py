"""Handles: numbers that stand for callbacks, whatever language made them."""
import weakref
from ctypes import CFUNCTYPE, byref, c_size_t, c_ssize_t, c_uint32, c_uint64, c_void_p, cast

from ._contain import Entry
from ._library import CallbackInfo, Pin, lib, quick, sized
from .errors import DEADLOCK, OK, STALE, TIMEOUT, check, error_of
from .scope import wait
from .signature import DEFAULT, Signature


class Handle:
    """A weak reference of a callback: it does not keep it alive, and never dangles. Every use of one whose
    callback is gone raises StaleError.

    C functions take it where they want a cbr_handle (argtypes c_uint64); `pointer` is for those that take a
    function and a `void *`: give them `callbridge.call_ptr` and it.
    """

    __slots__ = ("number", "signature", "__weakref__")

    def __init__(self, number, signature=None):
        self.number = int(number)
        self.signature = Signature.of(signature)

    @property
    def _as_parameter_(self):
        return c_uint64(self.number)

    @property
    def pointer(self):
        """CBR_TO_PTR(handle)"""
        return c_void_p(self.number)

    @property
    def live(self):
        """Whether a call is possible now; another thread may end the callback at any time."""
        return quick.cbr_is_live(self.number)

    @property
    def references(self):
        """The number of references, for diagnosis."""
        count = c_uint32()
        check(quick.cbr_refcount(self.number, byref(count)))
        return count.value

    @property
    def info(self):
        """What the library knows of it, as a dict; see cbr_callback_info."""
        info = sized(CallbackInfo)
        check(quick.cbr_callback_info_get(self.number, byref(info)))
        found = {field: getattr(info, field) for field, _ in info._fields_ if field != "size"}
        found["name"] = found["name"].decode(errors="replace")
        return found

    def call(self, *args):
        """Calls it, with the GIL released until it is in Python again. The arguments are those of `signature`; of the
        default one, an address or None.

        Raises PanicError from the exception if it is Python's and has raised one; CallbackError, StaleError,
        SignatureError, ThreadError.
        """
        if self.signature is DEFAULT:
            (arg,) = args or (None,)
            result = c_ssize_t()
            with Entry() as entry:
                entry.check(lib.cbr_call(self.number, arg, byref(result)))
            return result.value
        pin = Pin()
        prototype = CFUNCTYPE(self.signature.restype, c_void_p, *self.signature.argtypes)
        with Entry() as entry:
            check(lib.cbr_enter(self.number, self.signature.number, byref(pin)))
            try:
                result = cast(pin.fn, prototype)(pin.user_data, *args)
            except BaseException:
                # The arguments do not fit: nothing was called.
                lib.cbr_leave(byref(pin))
                raise
            entry.check(lib.cbr_leave(byref(pin)))
        return result

    __call__ = call

    def retain(self):
        """A reference of one's own: as long as it is there, the callback lives, unless somebody unregisters it."""
        check(quick.cbr_retain(self.number))
        return Reference(self.number, self.signature)

    def unregister(self):
        """Ends the callback for everybody, at once. Calls in flight finish; then the function is let go of."""
        check(lib.cbr_unregister(self.number))

    def __eq__(self, other):
        return isinstance(other, Handle) and self.number == other.number

    def __hash__(self):
        return hash(self.number)

    def __int__(self):
        return self.number

    def __reduce__(self):
        raise TypeError("a handle is of its process, and is neither copied nor pickled; its number may be")

    def __repr__(self):
        return "<callbridge.%s %#x%s>" % (type(self).__name__, self.number, "" if self.live else ", gone")


def handle_number(handle):
    """What the library has for a Handle, a number, or None."""
    return 0 if handle is None else getattr(handle, "number", handle)


class Reference(Handle):
    """Owns one reference, and gives it back when it is closed or collected."""

    __slots__ = ("_finalizer",)

    def __init__(self, number, signature=None, release=lib.cbr_release):
        super().__init__(number, signature)
        self._finalizer = weakref.finalize(self, release, self.number)
        # At the interpreter's end the scopes are closed, which is the order that C needs.
        self._finalizer.atexit = False

    def close(self):
        """Gives the reference back; the last one ends the callback. A second time nothing happens."""
        self._finalizer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def end(reference, timeout):
    """Unregisters, and waits until the function is let go of; see Callback.close."""
    reference._finalizer.detach()
    status = lib.cbr_unregister_wait(reference.number, 0)
    if status == TIMEOUT:
        status = wait(lambda ns: lib.cbr_unregister_wait(reference.number, ns), timeout)
    if status not in (OK, STALE, DEADLOCK):
        raise error_of(status)
    return status != DEADLOCK


# The library's functions for C interfaces that take a function and a `void *`: see Handle.pointer.
call_ptr = CFUNCTYPE(c_ssize_t, c_void_p, c_void_p)(("cbr_call_ptr", lib))
release_ptr = CFUNCTYPE(None, c_void_p)(("cbr_release_ptr", lib))
