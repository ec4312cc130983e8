"""libcallbridge as ctypes sees it: found, loaded, and its functions declared.

Two views of the same library. `lib` lets go of the GIL, for functions that wait or call host code.
`quick` keeps it, for functions that do neither: they are cheaper, and no other thread gets in between.
"""
import ctypes
import ctypes.util
import os
import subprocess
from ctypes import POINTER, Structure, Union, c_bool, c_char, c_char_p, c_double, c_float, c_int, c_int32
from ctypes import c_int64, c_size_t, c_ssize_t, c_uint32, c_uint64, c_void_p, sizeof

VERSION = (0, 1)
SONAME = "libcallbridge.so.0"


def _candidates():
    """Where the library may be, the surest first. A generator: pkg-config is only run if it must be."""
    chosen = os.environ.get("CALLBRIDGE_LIBRARY")
    if chosen:
        yield chosen
        return
    yield SONAME
    try:
        found = subprocess.run(
            ["pkg-config", "--variable=libdir", "callbridge"], capture_output=True, text=True, check=True
        )
        yield os.path.join(found.stdout.strip(), SONAME)
    except (OSError, subprocess.CalledProcessError):
        pass
    found = ctypes.util.find_library("callbridge")
    if found:
        yield found


def _find():
    failures = []
    for path in _candidates():
        try:
            ctypes.CDLL(path)
            return path
        except OSError as error:
            failures.append(str(error))
    raise ImportError(
        "libcallbridge is not found: install it, or set CALLBRIDGE_LIBRARY to its path (%s)" % "; ".join(failures)
    )


class Value(Union):
    """cbr_value"""

    _fields_ = [("i", c_int64), ("u", c_uint64), ("f64", c_double), ("f32", c_float), ("ptr", c_void_p)]


class CallbackOptions(Structure):
    """cbr_callback_options"""

    _fields_ = [
        ("size", c_size_t),
        ("fn", c_void_p),
        ("user_data", c_void_p),
        ("destroy", c_void_p),
        ("signature", c_uint64),
        ("name", c_char_p),
        ("scope", c_uint64),
        ("home", c_uint64),
        ("destroy_queue", c_uint64),
        ("flags", c_uint32),
        ("on_error", c_void_p),
        ("fallback", Value),
    ]


class Pin(Structure):
    """cbr_pin"""

    _fields_ = [("fn", c_void_p), ("user_data", c_void_p), ("reserved", c_uint64 * 2)]


class Hook(Structure):
    """cbr_hook"""

    _fields_ = [("reserved", c_uint64)]


class QueueOptions(Structure):
    """cbr_queue_options"""

    _fields_ = [
        ("size", c_size_t),
        ("name", c_char_p),
        ("scope", c_uint64),
        ("capacity", c_size_t),
        ("policy", c_uint32),
        ("flags", c_uint32),
    ]


class PostOptions(Structure):
    """cbr_post_options"""

    _fields_ = [
        ("size", c_size_t),
        ("queue", c_uint64),
        ("handle", c_uint64),
        ("data", c_void_p),
        ("len", c_size_t),
        ("free_data", c_void_p),
        ("owner", c_uint64),
        ("timeout_ns", c_int64),
    ]


class Event(Structure):
    """cbr_event"""

    _fields_ = [
        ("handle", c_uint64),
        ("data", c_void_p),
        ("len", c_size_t),
        ("queue", c_uint64),
        ("posted_ns", c_int64),
        ("traceparent", c_char_p),
    ]


STATS = (
    "live registered destroyed destroy_pending calls failures stale in_flight threads queues queued "
    "posted dispatched dropped thunks thunk_stale"
).split()


class Stats(Structure):
    """cbr_stats"""

    _fields_ = [("size", c_size_t)] + [(field, c_uint64) for field in STATS]


class CallbackInfo(Structure):
    """cbr_callback_info"""

    _fields_ = [
        ("size", c_size_t),
        ("handle", c_uint64),
        ("scope", c_uint64),
        ("signature", c_uint64),
        ("references", c_uint32),
        ("in_flight", c_uint32),
        ("flags", c_uint32),
        ("registered_ns", c_int64),
        ("calls", c_uint64),
        ("failures", c_uint64),
        ("name", c_char * 64),
    ]


def sized(structure, **fields):
    """A structure with its `size` set, as the library wants to see it."""
    return structure(size=sizeof(structure), **fields)


# Pointers to results are c_void_p: byref() of anything fits, and no type has to be looked up.
_HANDLE, _OUT, _TIMEOUT = c_uint64, c_void_p, c_int64

# Functions that neither wait nor call host code.
_QUICK = {
    "cbr_status_name": (c_char_p, c_int32),
    "cbr_status_message": (c_char_p, c_int32),
    "cbr_last_error": (c_size_t, c_void_p, c_size_t),
    "cbr_version": (c_uint32,),
    "cbr_version_string": (c_char_p,),
    "cbr_signature_parse": (c_int32, c_char_p, _OUT),
    "cbr_signature_format": (c_size_t, c_uint64, c_void_p, c_size_t),
    "cbr_register_with": (c_int32, _OUT, _OUT),
    "cbr_retain": (c_int32, _HANDLE),
    "cbr_refcount": (c_int32, _HANDLE, _OUT),
    "cbr_is_live": (c_bool, _HANDLE),
    "cbr_fail": (c_int32, c_int32, c_char_p),
    "cbr_current": (c_uint64,),
    "cbr_depth": (c_uint32,),
    "cbr_current_event": (POINTER(Event),),
    "cbr_callback_info_get": (c_int32, _HANDLE, _OUT),
    "cbr_stats_get": (c_int32, _HANDLE, _OUT),
    "cbr_name_find": (c_int32, _HANDLE, c_char_p, _OUT),
    "cbr_key_find": (c_int32, _HANDLE, c_size_t, c_uint32, _OUT),
    "cbr_queue_fd": (c_int32, _HANDLE, _OUT),
    "cbr_queue_len": (c_int32, _HANDLE, _OUT),
    "cbr_set_check": (c_int32, c_uint32),
    "cbr_trace_set": (c_int32, c_char_p),
    "cbr_trace_get": (c_size_t, c_void_p, c_size_t),
    "cbr_log_to_stderr": (c_int32, c_char_p),
}
# Functions that may wait, run a destroy function, or call a callback.
_OTHERS = {
    "cbr_unregister": (c_int32, _HANDLE),
    "cbr_unregister_wait": (c_int32, _HANDLE, _TIMEOUT),
    "cbr_release": (c_int32, _HANDLE),
    "cbr_call": (c_int32, _HANDLE, c_void_p, _OUT),
    "cbr_enter": (c_int32, _HANDLE, c_uint64, _OUT),
    "cbr_hold": (c_int32, _HANDLE, c_uint64, _OUT),
    "cbr_leave": (c_int32, _OUT),
    "cbr_scope_open": (c_int32, c_char_p, _OUT),
    "cbr_scope_close": (c_int32, _HANDLE, _TIMEOUT, _OUT),
    "cbr_scope_drain": (c_int32, _HANDLE, _TIMEOUT),
    "cbr_scope_set_thread_hooks": (c_int32, _HANDLE, c_void_p, c_void_p, c_void_p, c_void_p),
    "cbr_hook_set_once": (c_int32, _OUT, _HANDLE),
    "cbr_hook_swap": (c_int32, _OUT, _HANDLE, _OUT),
    "cbr_hook_call": (c_int32, _OUT, c_void_p, _OUT),
    "cbr_name_bind": (c_int32, _HANDLE, c_char_p, _HANDLE, c_uint32),
    "cbr_name_unbind": (c_int32, _HANDLE, c_char_p),
    "cbr_key_attach": (c_int32, _HANDLE, c_size_t, c_uint32, _HANDLE, c_uint32),
    "cbr_key_call": (c_int32, _HANDLE, c_size_t, c_uint32, c_void_p, _OUT),
    "cbr_key_detach": (c_int32, _HANDLE, c_size_t, c_uint32),
    "cbr_key_detach_all": (c_int32, _HANDLE, c_size_t, _OUT),
    "cbr_queue_open": (c_int32, _OUT, _OUT),
    "cbr_queue_adopt": (c_int32, _HANDLE),
    "cbr_queue_close": (c_int32, _HANDLE, c_uint32),
    "cbr_post": (c_int32, _HANDLE, _HANDLE, c_char_p, c_size_t),
    "cbr_post_with": (c_int32, _OUT),
    "cbr_call_on": (c_int32, _HANDLE, _HANDLE, c_void_p, _TIMEOUT, _OUT),
    "cbr_queue_dispatch": (c_int32, _HANDLE, c_size_t, _TIMEOUT, _OUT),
    "cbr_queue_select": (c_int32, c_void_p, c_size_t, _TIMEOUT, _OUT),
    "cbr_thunk_open": (c_int32, _HANDLE, c_uint64, c_uint32, _OUT, _OUT),
    "cbr_thunk_retarget": (c_int32, _HANDLE, _HANDLE),
    "cbr_thunk_close": (c_int32, _HANDLE),
    "cbr_report": (c_int32, _HANDLE, c_void_p, c_void_p),
    "cbr_metrics": (c_int32, _HANDLE, c_void_p, c_void_p),
    "cbr_profile": (c_int32, _HANDLE, c_void_p, c_void_p),
}


def _declare(library, functions):
    for name, (restype, *argtypes) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = restype, argtypes


PATH = _find()
lib = ctypes.CDLL(PATH)
quick = ctypes.PyDLL(PATH)
try:
    _declare(lib, _OTHERS)
    _declare(quick, _QUICK)
except AttributeError as error:
    raise ImportError("%s is no libcallbridge, or another version of it: %s" % (PATH, error)) from None

_version = quick.cbr_version()
if (_version >> 16, _version >> 8 & 0xFF) != VERSION:
    raise ImportError(
        "%s is version %s, and this binding is for %d.%d" % (PATH, quick.cbr_version_string().decode(), *VERSION)
    )


def address(function):
    """The address of one of the library's functions, or of a CFUNCTYPE."""
    return ctypes.cast(function, c_void_p).value


def nanoseconds(seconds):
    """A timeout as the library has it, of Python's: None waits for ever, and math.inf 292 years."""
    return -1 if seconds is None else max(0, int(min(seconds * 1e9, 2**63 - 1)))


def text(value):
    """A name as the library has it; None stays none."""
    return None if value is None else value.encode()
