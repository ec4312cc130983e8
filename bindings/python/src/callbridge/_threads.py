"""Threads of other languages: attached to the interpreter once, and detached at their end.

Without that, every call on such a thread makes a thread state and drops it, which costs more than all the rest, and
threading.local is empty each time. The library runs attach on a thread before its first callback of a scope with thread
hooks; that makes calls of such a scope slower, so there is one apart, with a single callback, which is visited once.
"""
from ctypes import byref, c_uint64

from . import _gate
from ._library import CallbackOptions, address, lib, quick, sized
from .errors import check
from .scope import Scope

_scope = Scope("python threads")
check(lib.cbr_scope_set_thread_hooks(_scope.handle, _gate.attach, _gate.detach, None, None))
_visitor = c_uint64()
check(
    quick.cbr_register_with(
        byref(sized(CallbackOptions, fn=_gate.visit, scope=_scope.handle, name=b"attach_thread")), byref(_visitor)
    )
)
_gate.attach_with(address(lib.cbr_call), _visitor.value)


def attach_thread():
    """Keeps the calling thread attached to the interpreter until its end, if it is one of another language. With the C
    extension (FAST) a thread's first call does so by itself. Call it in a callback; a second time nothing happens."""
    check(lib.cbr_call(_visitor.value, None, None))
