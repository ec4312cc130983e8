"""Queues in asyncio."""
import asyncio
import gc
import struct
import threading

import callbridge
from callbridge import aio
from support import OK, TestCase, caller


class Aio(TestCase):
    def run_async(self, coroutine):
        return asyncio.run(asyncio.wait_for(coroutine, 30))

    def test_callbacks_run_in_the_loops_thread(self):
        async def main():
            done = asyncio.Event()
            threads = []

            def function(arg):
                threads.append(threading.get_ident())
                done.set()

            with callbridge.Queue() as queue, callbridge.callback(function) as handle:
                async with aio.attach(queue):
                    posting = caller.caller_post(queue.handle, handle.number, 1)
                    await done.wait()
                    self.assertEqual(caller.caller_posted(posting), OK)
            self.assertEqual(threads, [threading.get_ident()])

        self.run_async(main())

    def test_all_events_of_c_come_in_order_and_a_full_queue_holds_c_back(self):
        async def main():
            queue = callbridge.Queue(capacity=16)
            async with aio.Events(queue, pending=8) as events:
                posting = caller.caller_post(queue.handle, events.handle.number, 3000)
                numbers = []
                async for event in events:
                    numbers.append(struct.unpack("=Q", event.data)[0])
                    self.assertLessEqual(len(events._waiting), 8)
                    # A slow reader: the loop gets to the queue several times between two events.
                    for _ in range(3):
                        await asyncio.sleep(0)
                    if len(numbers) == 3000:
                        break
                self.assertEqual(caller.caller_posted(posting), OK)
            self.assertEqual(numbers, list(range(3000)))

        self.run_async(main())

    def test_the_iteration_ends_with_the_queue_and_not_before_its_events(self):
        async def main():
            queue = callbridge.Queue()
            async with aio.Events(queue, pending=2) as events:
                for number in range(5):
                    queue.post(events.handle, b"%d" % number)
                queue.close()
                self.assertEqual([event.data async for event in events], [b"0", b"1", b"2", b"3", b"4"])
                await events.wait_closed()

        self.run_async(main())

    def test_close_wakes_who_waits(self):
        async def main():
            events = aio.Events(callbridge.Queue())

            async def read():
                return [event async for event in events]

            readers = [asyncio.ensure_future(read()) for _ in range(2)]
            await asyncio.sleep(0)
            events.close()
            events.close()
            self.assertEqual(await asyncio.gather(*readers), [[], []])

        self.run_async(main())

    def test_it_may_be_closed_in_a_callback_of_its_queue(self):
        async def main():
            queue = callbridge.Queue()
            with callbridge.callback(lambda arg: attachment.close()) as handle:
                attachment = aio.attach(queue)
                queue.post(handle)
                await attachment.wait_closed()
                queue.post(handle)
                for _ in range(3):
                    await asyncio.sleep(0)
                self.assertEqual(len(queue), 1, "nobody dispatches any more")
                queue.close(discard=True)

        self.run_async(main())

    def test_a_queue_is_in_one_loop_once(self):
        queue = callbridge.Queue()

        async def main(leave):
            events = aio.Events(queue)
            for attach in (aio.attach, aio.Events):
                with self.assertRaises(RuntimeError):
                    attach(queue)
            queue.post(events.handle, b"still read")
            self.assertEqual((await events.__anext__()).data, b"still read")
            if leave:
                events.close()
                aio.attach(queue).close()

        # The second loop ends with the queue in it; the third one is another.
        for leave in (True, False, True):
            self.run_async(main(leave))

    def test_events_are_posted_to_their_own_queue_and_not_called(self):
        async def main():
            queue, other = callbridge.Queue(), callbridge.Queue()
            async with aio.Events(queue) as events:
                with self.assertRaises(callbridge.PanicError) as raised:
                    events.handle()
                self.assertIn("posted to their own queue", str(raised.exception))
                other.post(events.handle, b"astray")
                with self.assertLogs("callbridge"):
                    self.assertEqual(other.dispatch(), 1)
                queue.post(events.handle, b"here")
                self.assertEqual((await events.__anext__()).data, b"here")

        self.run_async(main())

    def test_a_callback_that_fails_does_not_stop_the_loop(self):
        async def main():
            told, done = [], asyncio.Event()

            def fails(arg):
                raise ValueError

            with callbridge.Queue() as queue, callbridge.callback(fails, on_error=told.append) as bad:
                with callbridge.callback(lambda arg: done.set()) as good:
                    async with aio.attach(queue):
                        queue.post(bad)
                        queue.post(good)
                        await done.wait()
            self.assertEqual(len(told), 1)

        self.run_async(main())

    def test_a_busy_queue_leaves_the_loop_its_turn(self):
        async def main():
            turns = []

            def again(arg):
                turns.append(1)
                queue.post(handle)

            queue = callbridge.Queue()
            with callbridge.callback(again) as handle:
                async with aio.attach(queue, budget=4):
                    queue.post(handle)
                    for _ in range(10):
                        await asyncio.sleep(0)
                queue.close(discard=True)
            self.assertLessEqual(len(turns), 44)

        self.run_async(main())

    def test_a_waiting_reader_may_be_cancelled_and_nothing_is_lost(self):
        async def main():
            queue = callbridge.Queue()
            async with aio.Events(queue) as events:
                reader = asyncio.ensure_future(events.__anext__())
                await asyncio.sleep(0)
                reader.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await reader
                queue.post(events.handle, b"kept")
                self.assertEqual((await events.__anext__()).data, b"kept")

        self.run_async(main())

    def test_closed_events_are_collected(self):
        async def main():
            events = aio.Events(callbridge.Queue())
            number = events.handle.number
            events.close()
            return number, events

        number, events = self.run_async(main())
        del events
        self.collect()
        self.assertFalse(callbridge.Handle(number).live)
        self.assertFalse([it for it in gc.get_objects() if isinstance(it, aio.Events)])
