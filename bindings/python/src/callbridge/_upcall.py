"""From C into Python, by ctypes alone: one C function a signature, shared by all callbacks.

user_data is the Python function itself; the library owns a reference of it until destroy. ctypes takes the GIL, on
threads of other languages too, and gives the function as an object (py_object), so nothing has to be looked up.
"""
import ctypes
import sys
from ctypes import CFUNCTYPE, c_ssize_t, c_void_p, py_object, pythonapi

from ._contain import contain, own_frames
from ._library import address

own_frames(__file__)


# --- the default signature ---------------------------------------------------------------------


def _run(function, arg):
    """Costs a frame and nothing else: a try that nothing is raised in is free."""
    try:
        return function(arg)
    except BaseException as error:
        contain(error)


# A result of type c_void_p: as wide as intptr_t, any whole number fits, and None is 0.
_shared = {None: CFUNCTYPE(c_void_p, py_object, c_void_p)(_run)}
_runners = {_run}


# --- other signatures --------------------------------------------------------------------------


def _runner(convert):
    def run(function, *args):
        try:
            result = function(*args)
            return result if convert is None else convert(result)
        except BaseException as error:
            contain(error)
            return 0

    return run


def function_of(signature, default):
    """The address of the C function of a signature."""
    _watch()
    key = None if signature == default else (signature.restype, signature.argtypes)
    function = _shared.get(key)
    if function is None:
        run = _runner(signature.converter)
        # setdefault: another thread may have been faster.
        function = _shared.setdefault(key, CFUNCTYPE(signature.restype, py_object, *signature.argtypes)(run))
        _runners.add(run)
    return address(function)


# --- what ctypes finds after the function has returned ------------------------------------------


def _watch():
    """Has ctypes tell us, too, of what it cannot give to C: a result of a wrong type, or KeyboardInterrupt that
    arrives outside the try above. It says so to sys.unraisablehook alone."""
    if sys.unraisablehook is not _on_unraisable:
        _on_unraisable.others = sys.unraisablehook
        sys.unraisablehook = _on_unraisable


def _is_ours(unraisable):
    if unraisable.object is not None:
        return unraisable.object in _runners
    # From 3.13 on the object is in the words alone.
    words = unraisable.err_msg or ""
    return "ctypes callback function" in words and any(repr(run) in words for run in _runners)


def _on_unraisable(unraisable):
    try:
        ours = _is_ours(unraisable)
    except Exception:
        ours = False
    if ours:
        contain(unraisable.exc_value)
    else:
        _on_unraisable.others(unraisable)


# --- the end -----------------------------------------------------------------------------------

hold = pythonapi.Py_IncRef
hold.argtypes, hold.restype = [py_object], None
let_go = pythonapi.Py_DecRef
let_go.argtypes, let_go.restype = [py_object], None


@CFUNCTYPE(None, py_object)
def _destroy(function):
    let_go(function)


destroy = address(_destroy)

# --- threads -----------------------------------------------------------------------------------

_ensure = pythonapi.PyGILState_Ensure
_ensure.argtypes, _ensure.restype = [], ctypes.c_int
_this_thread = pythonapi.PyGILState_GetThisThreadState
_this_thread.argtypes, _this_thread.restype = [], c_void_p
_thread_id = pythonapi.PyThreadState_GetID
_thread_id.argtypes, _thread_id.restype = [c_void_p], ctypes.c_uint64
_interpreter = pythonapi.PyInterpreterState_Get
_interpreter.argtypes, _interpreter.restype = [], c_void_p
_first_thread = pythonapi.PyInterpreterState_ThreadHead
_first_thread.argtypes, _first_thread.restype = [c_void_p], c_void_p
_next_thread = pythonapi.PyThreadState_Next
_next_thread.argtypes, _next_thread.restype = [c_void_p], c_void_p
_clear, _delete = pythonapi.PyThreadState_Clear, pythonapi.PyThreadState_Delete
_clear.argtypes, _clear.restype = [c_void_p], None
_delete.argtypes, _delete.restype = [c_void_p], None


# ctypes makes a thread state for the time of each call if the thread has none; counted once more, it stays. The
# token is its number.
@CFUNCTYPE(c_void_p, c_void_p)
def _attach(user_data):
    _ensure()
    return _thread_id(_this_thread())


# By now the thread has forgotten its state, and ctypes has made another one. If it was a thread of Python's own, its
# state is gone already, and none has the number.
@CFUNCTYPE(None, c_void_p, c_void_p)
def _detach(user_data, token):
    state = _first_thread(_interpreter())
    while state and _thread_id(state) != token:
        state = _next_thread(state)
    if state:
        _clear(state)
        _delete(state)


@CFUNCTYPE(c_ssize_t, c_void_p, c_void_p)
def _visit(user_data, arg):
    return 0


attach, detach, visit = address(_attach), address(_detach), address(_visit)
