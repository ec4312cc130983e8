"""Threads of other languages: attached to the interpreter at their first call, and detached at their end.

Without that, every call on such a thread makes a thread state and drops it, which costs more than all the rest, and
threading.local is empty each time. The library runs attach on a thread before its first callback of a scope with thread
hooks; that makes calls of such a scope slower, so there is one apart, with a single callback, which the C extension
visits once a thread. Without the extension threads stay as ctypes has them: its callbacks cannot do this, because at a
thread's end they would need a thread state themselves.
"""
from ctypes import byref, c_uint64

from . import _gate
from ._library import CallbackOptions, address, lib, quick, sized
from .errors import check
from .scope import Scope


def _attach_all(fast):
    scope, visitor = Scope("python threads"), c_uint64()
    check(lib.cbr_scope_set_thread_hooks(scope.handle, fast.ATTACH, fast.DETACH, None, None))
    options = sized(CallbackOptions, fn=fast.VISIT, scope=scope.handle, name=b"thread")
    check(quick.cbr_register_with(byref(options), byref(visitor)))
    fast.attach_with(address(lib.cbr_call), visitor.value)
    return scope


# Kept: collected, a scope closes.
scope = None if _gate.fast is None else _attach_all(_gate.fast)
