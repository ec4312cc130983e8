"""Exceptions end here: none of them gets into C.

The library marks the call as failed (cbr_fail), so that its caller gets CBR_ERR_PANIC and not the result. A Python
caller on the same thread gets the exception itself as well; of all others it is logged, and never lost.
"""
import logging
import threading
import traceback
import weakref
from ctypes import byref

from ._library import CallbackInfo, quick, sized
from .errors import OK, PANIC, error_of

log = logging.getLogger("callbridge")

# What cbr_fail keeps, without the NUL.
_ROOM = 511


# What is called for callbacks that have an on_error, by handle: as long as the library keeps it.
tellers = weakref.WeakValueDictionary()


class _Local(threading.local):
    entry = None


_local = _Local()


class Entry:
    """A Python call into the library on this thread, in which callbacks may run: their exceptions meet it here.

    `depth`: that of the one callback which this call itself makes; an exception of one deeper inside is not its own.
    `many`: it makes several, and reports no exception of any.
    """

    __slots__ = ("depth", "error", "interrupt", "_outer")

    def __init__(self, many=False):
        self.depth = None if many else quick.cbr_depth() + 1
        self.error = self.interrupt = None

    def __enter__(self):
        self._outer, _local.entry = _local.entry, self
        return self

    def __exit__(self, *_):
        _local.entry = self._outer

    def check(self, status):
        """Raises what `status` says, from the callback's own exception. KeyboardInterrupt and its like of any
        callback inside are raised as they are: they are meant for the program, not for the caller."""
        error, interrupt = self.error, self.interrupt
        self.error = self.interrupt = None
        try:
            if interrupt is not None:
                raise interrupt
            if status != OK:
                raise error_of(status) from error
        finally:
            # The traceback holds this frame: without them it is no cycle.
            del error, interrupt


def describe(error):
    """The exception in the room that cbr_fail has: what it says, then where, the innermost first."""
    lines = [line.rstrip("\n") for line in traceback.format_exception_only(type(error), error)]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename not in _OWN]
    for frame in reversed(frames):
        lines.append('  File "%s", line %d, in %s' % (frame.filename, frame.lineno or 0, frame.name))
    words = "\n".join(lines).replace("\0", "\\0").encode(errors="backslashreplace")
    return words[:_ROOM].decode(errors="ignore").encode()


def contain(error):
    """Makes the innermost callback of this thread one that has failed with `error`. Never raises itself."""
    # First without words: formatting them runs code of others', and may fail.
    quick.cbr_fail(PANIC, type(error).__name__.encode(errors="backslashreplace"))
    try:
        quick.cbr_fail(PANIC, describe(error))
    except BaseException:
        pass
    try:
        entry, teller = _local.entry, tellers.get(quick.cbr_current())
        if entry is not None and quick.cbr_depth() == entry.depth:
            entry.error = error
        if entry is not None and not isinstance(error, Exception):
            entry.interrupt = error
        if teller is not None:
            teller.on_error(error)
        elif entry is None or (entry.error is not error and entry.interrupt is not error):
            log.error("callback %s has failed", current_name(), exc_info=error)
    except BaseException as second:
        _say("on_error or the log has failed, too", second)


def _say(words, error):
    try:
        log.error(words, exc_info=error)
    except BaseException:
        pass


def current_name():
    """The name, or else the handle, of the callback that this thread is inside."""
    handle = quick.cbr_current()
    info = sized(CallbackInfo)
    if quick.cbr_callback_info_get(handle, byref(info)) == OK and info.name:
        return repr(info.name.decode(errors="replace"))
    return "%#x" % handle


# Frames of the binding itself say nothing about where the exception comes from.
_OWN = {__file__}


def own_frames(path):
    """Says that frames of the file are the binding's."""
    _OWN.add(path)

