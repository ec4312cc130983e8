"""Queues: from any thread, of any language, into an event loop."""
import ctypes
import os
import select as polling
import time
import weakref
from ctypes import byref, c_int, c_size_t, c_ssize_t, c_uint64
from dataclasses import dataclass

from . import _gate
from ._contain import Entry
from ._library import PostOptions, QueueOptions, lib, nanoseconds, quick, sized, text
from .errors import CLOSED, EMPTY, OK, STALE, TIMEOUT, ClosedError, WaitTimeout, check, error_of
from .handle import handle_number
from .scope import scope_number

REJECT, DROP_OLDEST, BLOCK = 0, 1, 2
_COALESCE, _OWNED = 1, 2
_DRAIN, _DISCARD = 0, 1


@dataclass(frozen=True)
class Event:
    """What a callback may know of the event that it is called for."""

    data: bytes
    handle: int
    queue: int
    posted_ns: int
    traceparent: str | None


def current_event():
    """The event that this thread's innermost callback is called for; None if it was called otherwise.
    `data` is a copy."""
    event = quick.cbr_current_event()
    if not event:
        return None
    found = event.contents
    data = ctypes.string_at(found.data, found.len) if found.len else b""
    traceparent = found.traceparent.decode() if found.traceparent else None
    return Event(data, found.handle, found.queue, found.posted_ns, traceparent)


class Queue:
    """Events for callbacks: any thread posts, and who dispatches calls them. A context manager, which at its end drops
    what waits.

    `capacity`: events that have room; 0: 1024. `policy`: what a post does when there is none: REJECT (FullError),
    DROP_OLDEST, BLOCK. `coalesce`: an event replaces the one of the same callback that waits. `owned`: one thread
    dispatches: the one that opens the queue, until another one adopts it.

    Ownership: a waiting event keeps its callback alive. Threads: any; of an owned queue, dispatch its thread alone.
    In the child of a fork every queue of the parent's raises ClosedError.
    """

    def __init__(self, name=None, *, capacity=0, policy=REJECT, coalesce=False, owned=False, scope=None):
        if _gate.closed:
            raise ClosedError("the interpreter is ending")
        flags = (_COALESCE if coalesce else 0) | (_OWNED if owned else 0)
        options = sized(
            QueueOptions, name=text(name), scope=scope_number(scope), capacity=capacity, policy=policy, flags=flags
        )
        handle, descriptor = c_uint64(), c_int()
        check(lib.cbr_queue_open(byref(options), byref(handle)))
        self.handle, self.name = handle.value, name
        # A weak reference of what has put it into a loop: see aio.
        self.attachment = None
        try:
            check(quick.cbr_queue_fd(self.handle, byref(descriptor)))
        except BaseException:
            lib.cbr_queue_close(self.handle, _DISCARD)
            raise
        self._descriptor = descriptor.value
        self._finalizer = weakref.finalize(self, _drop, self.handle, self._descriptor)
        self._finalizer.atexit = False

    @property
    def _as_parameter_(self):
        return c_uint64(self.handle)

    def fileno(self):
        """Readable while events wait, and for ever once the queue is closed: for poll and event loops. The queue's:
        do not read it, and forget it before the Queue is gone."""
        return self._descriptor

    def post(self, handle, data=b"", timeout=None):
        """Has the callback called with a copy of `data` by whoever dispatches. Its argument is the copy's address, None
        if it is empty; current_event() has the bytes. `timeout`: seconds to wait for room; None: as the policy says.

        Raises FullError, ClosedError, StaleError, WaitTimeout, DeadlockError.
        """
        data = bytes(data)
        if timeout is None:
            check(lib.cbr_post(self.handle, handle_number(handle), data, len(data)))
            return
        options = sized(
            PostOptions, queue=self.handle, handle=handle_number(handle), len=len(data), timeout_ns=nanoseconds(timeout)
        )
        options.data = ctypes.cast(data, ctypes.c_void_p) if data else None
        check(lib.cbr_post_with(byref(options)))

    def call(self, handle, arg=None, timeout=None):
        """Runs the callback on the thread that dispatches, and returns its result. `timeout`: seconds to wait for the
        beginning; None: for ever. Raises what Handle.call and post raise; PanicError with the text alone."""
        result = c_ssize_t()
        with Entry() as entry:
            entry.check(lib.cbr_call_on(self.handle, handle_number(handle), arg, nanoseconds(timeout), byref(result)))
        return result.value

    def dispatch(self, max=0, timeout=0):
        """Calls the callbacks of the events that wait, `max` at most (0: what is there now), and returns how many.
        `timeout`: seconds to wait for the first one; None: for ever. 0 means that none came.

        Their exceptions end in them, but KeyboardInterrupt and its like are raised here after the dispatch.
        Raises ClosedError when the queue is closed and nothing is left: stop.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        count = c_size_t()
        while True:
            with Entry(many=True) as entry:
                status = lib.cbr_queue_dispatch(self.handle, max, 0, byref(count))
                entry.check(OK if status in (EMPTY, STALE) else status)
            if status == STALE:
                raise ClosedError("the queue is closed", CLOSED)
            if status == OK:
                return count.value
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return 0
            # poll, and not the library's wait: signal handlers of Python run in it.
            _poll([self._descriptor], left)

    def adopt(self):
        """Makes the calling thread the owner."""
        check(lib.cbr_queue_adopt(self.handle))

    def close(self, discard=False):
        """Refuses posts, and wakes who waits. What waits is still dispatched, or, with `discard`, dropped here. A second
        time nothing happens. The Queue's descriptor is closed with the object."""
        status = lib.cbr_queue_close(self.handle, _DISCARD if discard else _DRAIN)
        if status not in (OK, CLOSED, STALE):
            raise error_of(status)

    def __len__(self):
        """How many events wait."""
        length = c_size_t()
        check(quick.cbr_queue_len(self.handle, byref(length)))
        return length.value

    # An empty queue is still one.
    def __bool__(self):
        return True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close(discard=True)

    def __repr__(self):
        return "<callbridge.Queue %r %#x>" % (self.name, self.handle)


def _drop(handle, descriptor):
    lib.cbr_queue_close(handle, _DISCARD)
    os.close(descriptor)


def _poll(descriptors, timeout):
    """Until one is readable, or `timeout` seconds, or a day, have passed: poll takes no more than some weeks."""
    poll = polling.poll()
    for descriptor in descriptors:
        poll.register(descriptor, polling.POLLIN)
    poll.poll(None if timeout is None else min(timeout, 86400) * 1000)


def select(queues, timeout=None):
    """Waits until one of the queues has something to dispatch, or is closed, and returns it; None after `timeout`
    seconds. Of several that do, it does not always name the same."""
    queues = list(queues)
    handles = (c_uint64 * len(queues))(*(queue.handle for queue in queues))
    index = c_size_t()
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        status = lib.cbr_queue_select(handles, len(queues), 0, byref(index))
        if status == OK:
            return queues[index.value]
        if status not in (EMPTY, TIMEOUT):
            raise error_of(status)
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return None
        _poll([queue.fileno() for queue in queues], left)
