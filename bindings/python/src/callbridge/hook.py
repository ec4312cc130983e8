"""Hooks: one place for one callback."""
import ctypes
import weakref
from ctypes import byref, c_ssize_t, c_uint64

from . import _library
from ._contain import Entry
from ._library import lib
from .errors import check
from .handle import Reference, handle_number


class Hook:
    """A place for one callback, which it keeps alive. Others may put theirs in: `address` is the cbr_hook, for C.
    Threads: any."""

    def __init__(self):
        self._place = _library.Hook()
        self._finalizer = weakref.finalize(self, lib.cbr_hook_swap, byref(self._place), 0, None)
        self._finalizer.atexit = False

    @property
    def address(self):
        """Good as long as this object is there."""
        return ctypes.addressof(self._place)

    def set_once(self, handle):
        """Puts it in if there is none; raises ExistsError if there is."""
        check(lib.cbr_hook_set_once(byref(self._place), handle_number(handle)))

    def swap(self, handle=None):
        """Puts it in, or none, whatever is there, and returns what was, as a Reference, or None."""
        old = c_uint64()
        check(lib.cbr_hook_swap(byref(self._place), handle_number(handle), byref(old)))
        return Reference(old.value) if old.value else None

    def call(self, arg=None):
        """Calls what is in it, as Handle.call; raises NotFoundError if there is none, or it is gone."""
        result = c_ssize_t()
        with Entry() as entry:
            entry.check(lib.cbr_hook_call(byref(self._place), arg, byref(result)))
        return result.value
