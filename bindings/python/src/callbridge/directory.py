"""Names and keys: finding a callback again. An entry keeps its callback alive, and goes when it is unbound, when the
scope closes, or when the callback ends. Threads: any."""
from ctypes import byref, c_size_t, c_ssize_t, c_uint64

from ._contain import Entry
from ._library import lib, quick, text
from .errors import check
from .handle import Handle, handle_number

_ONCE, _REPLACE = 0, 1


def _scope(scope):
    # Scope 0 is the process's, which all languages share; the binding's own would hide names from C.
    return getattr(scope, "handle", scope) or 0


def bind(name, handle, *, scope=None, replace=False):
    """Gives the callback a name. Raises ExistsError if it is taken, unless it is to be replaced."""
    check(lib.cbr_name_bind(_scope(scope), text(name), handle_number(handle), _REPLACE if replace else _ONCE))


def find(name, *, scope=None, signature=None):
    """The callback of that name, as a Handle; raises NotFoundError."""
    number = c_uint64()
    check(quick.cbr_name_find(_scope(scope), text(name), byref(number)))
    return Handle(number.value, signature)


def unbind(name, *, scope=None):
    """Takes the name away."""
    check(lib.cbr_name_unbind(_scope(scope), text(name)))


def attach(key, event, handle, *, scope=None, replace=False):
    """The callback of a key, such as a descriptor, and one of its events."""
    mode = _REPLACE if replace else _ONCE
    check(lib.cbr_key_attach(_scope(scope), key, event, handle_number(handle), mode))


def find_key(key, event, *, scope=None):
    """The callback of a key and event, as a Handle; raises NotFoundError."""
    number = c_uint64()
    check(quick.cbr_key_find(_scope(scope), key, event, byref(number)))
    return Handle(number.value)


def call(key, event, arg=None, *, scope=None):
    """Calls the callback of a key and event, as Handle.call; raises NotFoundError."""
    result = c_ssize_t()
    with Entry() as entry:
        entry.check(lib.cbr_key_call(_scope(scope), key, event, arg, byref(result)))
    return result.value


def detach(key, event, *, scope=None):
    """Detaches the callback of a key and event."""
    check(lib.cbr_key_detach(_scope(scope), key, event))


def detach_all(key, *, scope=None):
    """Detaches the callbacks of all events of a key, and returns how many there were."""
    count = c_size_t()
    check(lib.cbr_key_detach_all(_scope(scope), key, byref(count)))
    return count.value
