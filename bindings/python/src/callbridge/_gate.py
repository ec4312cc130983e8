"""The C functions that call Python: those of the C extension if it was built, else those of ctypes."""
import os

from . import _contain, _upcall

# Set at the interpreter's end: nothing new is registered.
closed = False

# The C extension, or None.
fast = None
if os.environ.get("CALLBRIDGE_PURE", "0") in ("", "0"):
    try:
        from . import _fast as fast
    except ImportError:
        pass

if fast is not None:
    fast.bind(_contain.contain)
    destroy, hold, let_go = fast.DESTROY, fast.hold, fast.let_go
else:
    destroy, hold, let_go = _upcall.destroy, _upcall.hold, _upcall.let_go

FAST = fast is not None


def function_of(signature, default):
    """The address of the C function that calls Python functions of the signature."""
    if fast is not None and signature == default:
        return fast.UPCALL
    return _upcall.function_of(signature, default)
