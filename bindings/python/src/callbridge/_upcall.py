"""From C into Python, by ctypes alone: one C function a signature, shared by all callbacks.

user_data is the Python function itself; the library owns a reference of it until destroy. ctypes takes the GIL, on
threads of other languages too, and gives the function as an object (py_object), so nothing has to be looked up:
operator.call calls it, without a frame of ours. (A frame with a try costs an eighth of an upcall.)

So exceptions get to ctypes, which tells sys.unraisablehook, and with it whoever listens to audit events: that is where
they are contained. It is also told of a result that does not fit, and of a KeyboardInterrupt before the function's first
line, which no try in a frame would see. Anybody may replace sys.unraisablehook; an audit hook stays.
"""
import operator
import sys
from ctypes import CFUNCTYPE, c_void_p, py_object, pythonapi

from ._contain import contain
from ._library import address, quick

# --- calls -------------------------------------------------------------------------------------

# A result of type c_void_p: as wide as intptr_t, any whole number fits, and None is 0.
_shared = {None: CFUNCTYPE(c_void_p, py_object, c_void_p)(operator.call)}


def function_of(signature, default):
    """The address of the C function that calls Python functions of the signature."""
    _listen()
    key = None if signature == default else (signature.restype, signature.argtypes)
    function = _shared.get(key)
    if function is None:
        function = CFUNCTYPE(signature.restype, py_object, *signature.argtypes)(operator.call)
        # Another thread may have been faster.
        function = _shared.setdefault(key, function)
    return address(function)


# --- exceptions --------------------------------------------------------------------------------

_WORDS = "ctypes callback function"


def _is_ours(unraisable):
    words = unraisable.err_msg or ""
    if _WORDS not in words or not quick.cbr_current():
        return False
    # From Python 3.13 on, the object is in the words alone.
    return unraisable.object is operator.call or (unraisable.object is None and repr(operator.call) in words)


def _audit(event, arguments):
    if event == "sys.unraisablehook":
        if _is_ours(arguments[1]):
            contain(arguments[1].exc_value)
    elif event == "callbridge.listen":
        _listen.heard = True


def _on_unraisable(unraisable):
    # What is contained needs no further words on stderr.
    if not _is_ours(unraisable):
        _on_unraisable.others(unraisable)


def _listen():
    """Once, and only if callbacks go through ctypes: each audit event of the process costs a Python call more."""
    if _listen.heard:
        return
    _on_unraisable.others = sys.unraisablehook
    sys.unraisablehook = _on_unraisable
    sys.addaudithook(_audit)
    sys.audit("callbridge.listen")
    if not _listen.heard:
        raise RuntimeError("an audit hook is refused here, and without it exceptions cannot be contained")


_listen.heard = False

# --- the end -----------------------------------------------------------------------------------

hold = pythonapi.Py_IncRef
hold.argtypes, hold.restype = [py_object], None
let_go = pythonapi.Py_DecRef
let_go.argtypes, let_go.restype = [py_object], None


@CFUNCTYPE(None, py_object)
def _destroy(function):
    let_go(function)


destroy = address(_destroy)
