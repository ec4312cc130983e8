"""Queues in asyncio: the loop polls the queue's descriptor, and dispatches when there is something.

    async with aio.attach(queue):              # callbacks run in the loop's thread
        queue.post(callback, b"from any thread")

    async with aio.Events(queue) as events:    # or: events come here
        start_c_threads(queue.handle, events.handle.number)
        async for event in events:
            print(event.data)
"""
import asyncio
import collections
import weakref

from .callback import Callback
from .errors import ClosedError
from .queue import current_event


def attach(queue, loop=None, budget=64):
    """Dispatches the queue in the loop (None: the running one) from now on; see Attachment."""
    return Attachment(queue, loop, budget)


class Attachment:
    """A queue in a loop: one loop, and there once, or it is a RuntimeError. `close` takes it out; `await attachment.wait_closed()` until that, or the queue's end.
    An async context manager.

    `budget`: events at most before the loop gets to its other work.
    Threads: the loop's; an owned queue must be that thread's (Queue.adopt).
    """

    def __init__(self, queue, loop=None, budget=64):
        self.queue, self.budget = queue, budget
        self.loop = loop or asyncio.get_running_loop()
        other = queue.attachment and queue.attachment()
        if other is not None and not other._ended.done() and not other.loop.is_closed():
            # A loop has one reader of a descriptor, and would forget the first.
            raise RuntimeError("%r is attached to a loop already" % (queue,))
        self._ended = self.loop.create_future()
        self.loop.add_reader(queue.fileno(), self._ready)
        queue.attachment = weakref.ref(self)

    def _ready(self):
        try:
            self.queue.dispatch(self.budget)
        except ClosedError:
            Attachment.close(self)

    def close(self):
        """Takes the queue out of the loop. Inside one of its callbacks, too; a second time nothing happens."""
        if not self._ended.done():
            self.loop.remove_reader(self.queue.fileno())
            self._ended.set_result(None)

    async def wait_closed(self):
        """Until the queue is closed and everything in it dispatched, or close."""
        await asyncio.shield(self._ended)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.close()


class Events(Attachment):
    """A queue in a loop, and the events of one callback as an async iterator: `handle` is what to post to, from any
    thread and language. The iteration ends when the queue is closed and nothing is left, or with close.

    Backpressure is the queue's: while `pending` events wait for the reader the queue is not dispatched, gets full,
    and does with further posts what its policy says.
    """

    def __init__(self, queue, loop=None, *, pending=64, name="aio.Events", scope=None):
        waiting = self._waiting = collections.deque()
        self._news = asyncio.Event()
        self._paused = False
        number = queue.handle

        # Not a method of self: the callback would keep this object alive.
        def put(_):
            event = current_event()
            if event is None or event.queue != number:
                # On another thread, maybe, where nobody would wake the reader.
                raise RuntimeError("events are posted to their own queue, not called")
            waiting.append(event)

        self.handle = Callback(put, name=name, scope=scope)
        super().__init__(queue, loop, pending)

    def _ready(self):
        room = self.budget - len(self._waiting)
        if room <= 0:
            self._paused = True
            self.loop.remove_reader(self.queue.fileno())
            return
        try:
            self.queue.dispatch(room)
        except ClosedError:
            Attachment.close(self)
        self._news.set()

    def close(self):
        """Ends the iteration and the callback. Inside a callback, too; a second time nothing happens."""
        super().close()
        self.handle.close()
        self._waiting.clear()
        self._news.set()

    def __aiter__(self):
        return self

    async def __anext__(self):
        while not self._waiting:
            if self._ended.done():
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        event = self._waiting.popleft()
        if self._paused and not self._ended.done():
            self._paused = False
            self.loop.add_reader(self.queue.fileno(), self._ready)
        return event
