"""callbridge: Python functions as C callbacks that are never called after they are gone.

    import callbridge

    @callbridge.callback
    def on_data(address):
        return 42

    some_c_library.subscribe(callbridge.call_ptr, on_data.pointer)
    on_data.close()      # waits for calls on other threads; from now on C gets 0, and nothing crashes

Submodules: `aio` (queues in asyncio), `directory` (names and keys), `observe` (numbers, log, traces).
"""
from . import _threads
from ._gate import FAST
from ._library import PATH as LIBRARY
from ._library import quick as _quick
from .callback import Callback, callback
from .errors import (
    CallbackError,
    ClosedError,
    DeadlockError,
    EmptyError,
    Error,
    ExistsError,
    FullError,
    InvalidError,
    KindError,
    LimitError,
    NoMemoryError,
    NotFoundError,
    NullError,
    OSRefusedError,
    PanicError,
    SignatureError,
    StaleError,
    ThreadError,
    UnsupportedError,
    WaitTimeout,
)
from .handle import Handle, Reference, call_ptr, release_ptr
from .hook import Hook
from .queue import BLOCK, DROP_OLDEST, REJECT, Event, Queue, current_event, select
from .scope import Scope
from .signature import Signature
from .thunk import Thunk

__version__ = "0.1.0"


def library_version():
    """The version of libcallbridge."""
    return _quick.cbr_version_string().decode()


def current():
    """The callback that this thread is inside, the innermost one, as a Handle; None outside."""
    number = _quick.cbr_current()
    return Handle(number) if number else None
