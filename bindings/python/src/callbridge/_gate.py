"""The C functions that call Python: those of the C extension if it was built, else those of ctypes."""
import os

from . import _contain, _upcall

# Set at the interpreter's end: nothing new is registered.
closed = False

_fast = None
if os.environ.get("CALLBRIDGE_PURE", "0") in ("", "0"):
    try:
        from . import _fast
    except ImportError:
        pass

if _fast is not None:
    _fast.bind(_contain.contain)
    attach, detach, visit, destroy = _fast.ATTACH, _fast.DETACH, _fast.VISIT, _fast.DESTROY
    hold, let_go = _fast.hold, _fast.let_go
else:
    attach, detach, visit, destroy = _upcall.attach, _upcall.detach, _upcall.visit, _upcall.destroy
    hold, let_go = _upcall.hold, _upcall.let_go

# Whether exceptions and threads are handled in C.
FAST = _fast is not None


def attach_with(call, handle):
    """Has each thread's first call visit the callback `handle`, by the function `call`, if exceptions are caught in C;
    ctypes has no place for that."""
    if _fast is not None:
        _fast.attach_with(call, handle)


def function_of(signature, default):
    """The address of the C function that calls Python functions of the signature."""
    if _fast is not None and signature == default:
        return _fast.UPCALL
    return _upcall.function_of(signature, default)
