"""What the library's statuses are in Python: a class each, all of them `Error`.

A call that fails changes nothing (callbridge.h, convention 1), so every one of them may be caught and gone on from.
"""
import ctypes

from ._library import quick

OK = 0
EMPTY, TIMEOUT, CLOSED, STALE, DEADLOCK, CALLBACK, PANIC = -11, -9, -12, -3, -8, -19, -2


class Error(Exception):
    """A function of the library has failed. `status` is its number, `name` the constant's, such as CBR_ERR_STALE."""

    status = 0

    def __init__(self, message, status=None):
        super().__init__(message)
        if status is not None:
            self.status = status

    @property
    def name(self):
        return quick.cbr_status_name(self.status).decode()


class NullError(Error, ValueError):
    """A NULL function where one is needed."""


class StaleError(Error, ReferenceError):
    """The object is gone, or never was."""


class InvalidError(Error, ValueError):
    """An argument is out of its range."""


class KindError(Error, TypeError):
    """The handle is of another kind of object."""


class SignatureError(Error, TypeError):
    """The callback was registered with another signature."""


class ThreadError(Error):
    """The callback, queue or pin belongs to another thread."""


class DeadlockError(Error):
    """The wait could never end."""


class WaitTimeout(Error, TimeoutError):
    """The deadline has passed."""


class FullError(Error):
    """The queue is full: back off."""


class EmptyError(Error):
    """Nothing to dispatch."""


class ClosedError(Error):
    """The queue or scope no longer takes work: stop."""


class ExistsError(Error):
    """Already set, and the first one stays."""


class NotFoundError(Error, LookupError):
    """Nothing is known under this name or key."""


class LimitError(Error):
    """A stated limit is reached."""


class NoMemoryError(Error, MemoryError):
    """Out of memory."""


class OSRefusedError(Error):
    """The operating system refused; the message has errno."""


class UnsupportedError(Error):
    """Not in this version of the library."""


class CallbackError(Error):
    """The callback has run and reported failure. `__cause__` is its exception if it is a Python function
    that was called on this thread; the message has its text in any case."""


class PanicError(CallbackError):
    """The callback has raised an exception, or its language's like of one."""


_CLASSES = {
    -1: NullError,
    -2: PanicError,
    -3: StaleError,
    -4: InvalidError,
    -5: KindError,
    -6: SignatureError,
    -7: ThreadError,
    -8: DeadlockError,
    -9: WaitTimeout,
    -10: FullError,
    -11: EmptyError,
    -12: ClosedError,
    -13: ExistsError,
    -14: NotFoundError,
    -15: LimitError,
    -16: NoMemoryError,
    -17: OSRefusedError,
    -18: UnsupportedError,
    -19: CallbackError,
}
for _status, _class in _CLASSES.items():
    _class.status = _status


def last_error():
    """The calling thread's last failure in words."""
    room = ctypes.create_string_buffer(quick.cbr_last_error(None, 0) + 1)
    quick.cbr_last_error(room, len(room))
    return room.value.decode(errors="replace")


def error_of(status):
    """The exception of a status that a function has just returned on this thread."""
    return _CLASSES.get(status, Error)(last_error(), status)


def check(status):
    """Raises what `status` says, unless that is CBR_OK."""
    if status != OK:
        raise error_of(status)
