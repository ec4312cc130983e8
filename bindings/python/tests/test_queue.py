"""Queues: from any thread into the one that dispatches."""
import os
import select
import signal
import struct
import threading
import time

import callbridge
from callbridge import observe
from support import OK, CallerThread, Payload, TestCase, call_from_c, caller


class Queues(TestCase):
    def test_events_of_a_thread_of_cs_come_in_order_with_their_bytes(self):
        seen = []
        with callbridge.Queue("numbers", capacity=64) as queue:
            with callbridge.callback(lambda arg: seen.append(callbridge.current_event())) as handle:
                posting = caller.caller_post(queue.handle, handle.number, 5000)
                while len(seen) < 5000:
                    self.assertGreater(queue.dispatch(timeout=30), 0)
                self.assertEqual(caller.caller_posted(posting), OK)
        self.assertEqual([struct.unpack("=Q", event.data)[0] for event in seen], list(range(5000)))
        self.assertEqual({(event.handle, event.queue) for event in seen}, {(handle.number, queue.handle)})

    def test_outside_of_a_dispatch_there_is_no_event(self):
        self.assertIsNone(callbridge.current_event())
        with callbridge.callback(lambda arg: callbridge.current_event() is None) as handle:
            self.assertEqual(call_from_c(handle), (OK, 1))

    def test_the_descriptor_is_readable_while_events_wait(self):
        with callbridge.Queue() as queue, callbridge.callback(lambda arg: 0) as handle:
            self.assertEqual(select.select([queue], [], [], 0)[0], [])
            queue.post(handle, b"x" * 1000)
            self.assertEqual(len(queue), 1)
            self.assertEqual(select.select([queue], [], [], 30)[0], [queue])
            self.assertEqual(queue.dispatch(), 1)
            self.assertEqual(select.select([queue], [], [], 0)[0], [])
            self.assertTrue(queue, "an empty queue is no false one")

    def test_a_full_queue_does_as_it_was_told(self):
        seen = []
        with callbridge.callback(lambda arg: seen.append(callbridge.current_event().data)) as handle:
            with callbridge.Queue(capacity=2) as queue:
                for data in (b"1", b"2"):
                    queue.post(handle, data)
                with self.assertRaises(callbridge.FullError):
                    queue.post(handle, b"3")
                with self.assertRaises(TimeoutError):
                    queue.post(handle, b"3", timeout=0.01)
                queue.dispatch()
            with callbridge.Queue(capacity=2, policy=callbridge.DROP_OLDEST) as queue:
                for data in (b"4", b"5", b"6"):
                    queue.post(handle, data)
                queue.dispatch()
            with callbridge.Queue(coalesce=True) as queue:
                for data in (b"7", b"8"):
                    queue.post(handle, data)
                queue.dispatch()
            with callbridge.Queue(capacity=1, policy=callbridge.BLOCK) as queue:
                queue.post(handle, b"9")
                poster = threading.Thread(target=queue.post, args=(handle, b"10"))
                poster.start()
                while len(seen) < 7:
                    queue.dispatch(timeout=30)
                poster.join(30)
        self.assertEqual(seen, [b"1", b"2", b"5", b"6", b"8", b"9", b"10"])

    def test_a_closed_queue_is_dispatched_to_its_end(self):
        seen = []
        with callbridge.callback(seen.append) as handle:
            queue = callbridge.Queue()
            queue.post(handle)
            queue.close()
            with self.assertRaises(callbridge.ClosedError):
                queue.post(handle)
            self.assertEqual(queue.dispatch(timeout=None), 1)
            for _ in range(2):
                with self.assertRaises(callbridge.ClosedError):
                    queue.dispatch(timeout=None)
                queue.close()
            discarded = callbridge.Queue()
            discarded.post(handle)
            discarded.close(discard=True)
            with self.assertRaises(callbridge.ClosedError):
                discarded.dispatch()
        self.assertEqual(len(seen), 1)

    def test_a_queue_that_was_closed_long_ago_is_closed(self):
        queue = callbridge.Queue()
        queue.close()
        for _ in range(5000):
            callbridge.Queue()
        for use in (queue.dispatch, lambda: queue.dispatch(timeout=None)):
            with self.assertRaises(callbridge.ClosedError):
                use()
        queue.close()

    def test_a_waiting_event_keeps_its_callback_alive(self):
        payload = Payload()
        seen = []
        queue = callbridge.Queue()

        def post():
            held = payload
            queue.post(callbridge.callback(lambda arg: seen.append(held.live)))

        post()
        del payload
        self.collect()
        self.assertEqual(queue.dispatch(), 1)
        self.assertEqual(seen, [1])

    def test_call_runs_on_the_dispatching_thread_and_brings_the_result(self):
        ran_on = []

        def function(arg):
            ran_on.append(threading.get_ident())
            return arg * 2

        with callbridge.Queue() as queue, callbridge.callback(function) as handle:
            results = []
            other = threading.Thread(target=lambda: results.append(queue.call(handle, 21, timeout=30)))
            other.start()
            while not results:
                queue.dispatch(timeout=0.05)
            other.join(30)
        self.assertEqual((results, ran_on), ([42], [threading.get_ident()]))

    def test_call_that_nobody_begins_times_out_and_never_runs(self):
        seen, caught = [], []
        with callbridge.Queue() as queue, callbridge.callback(seen.append) as handle:

            def call():
                try:
                    queue.call(handle, timeout=0.01)
                except TimeoutError as error:
                    caught.append(error)

            other = threading.Thread(target=call)
            other.start()
            other.join(30)
            queue.dispatch()
        self.assertEqual((len(caught), seen), (1, []))

    def test_call_brings_the_words_of_an_exception(self):
        def fails(arg):
            raise ValueError("over there")

        caught = []
        with callbridge.Queue() as queue, callbridge.callback(fails, on_error=lambda error: None) as handle:

            def call():
                try:
                    queue.call(handle, timeout=30)
                except callbridge.PanicError as error:
                    caught.append(str(error))

            other = threading.Thread(target=call)
            other.start()
            while not caught:
                queue.dispatch(timeout=0.05)
            other.join(30)
        self.assertIn("ValueError: over there", caught[0])

    def test_a_callback_at_home_is_called_there_alone(self):
        with callbridge.Queue(owned=True) as queue, callbridge.callback(lambda arg: 1, home=queue) as handle:
            self.assertEqual(handle(), 1)
            thread = CallerThread(handle, count=1)
            self.assertEqual(thread.join(), -7)
            caught = []

            def call():
                try:
                    handle()
                except callbridge.ThreadError as error:
                    caught.append(error)

            other = threading.Thread(target=call)
            other.start()
            other.join(30)
            self.assertEqual(len(caught), 1)

    def test_a_function_is_let_go_of_where_it_was_asked_for(self):
        ended_on = []

        class Tells(Payload):
            def __del__(self):
                ended_on.append(threading.get_ident())
                super().__del__()

        def make(queue):
            payload = Tells()
            return callbridge.callback(lambda arg: payload.live, destroy_queue=queue)

        with callbridge.Queue(owned=True) as queue:
            handle = make(queue)
            with handle.retain() as reference:
                del handle
                self.collect()
                self.assertEqual(caller.caller_unregister_on_thread(reference.number), OK)
            self.assertEqual(ended_on, [])
            self.assertEqual(queue.dispatch(), 1)
        self.assertEqual(ended_on, [threading.get_ident()])

    def test_a_queue_that_is_not_pythons_lets_go_of_no_function(self):
        with callbridge.Queue(owned=True) as queue, self.assertRaisesRegex(TypeError, "destroy_queue must be a Queue"):
            callbridge.callback(print, destroy_queue=queue.handle)

    def test_select_names_the_queue_that_has_something(self):
        with callbridge.Queue() as first, callbridge.Queue() as second, callbridge.callback(lambda arg: 0) as handle:
            self.assertIsNone(callbridge.select([first, second], timeout=0))
            threading.Timer(0.01, second.post, (handle,)).start()
            self.assertIs(callbridge.select([first, second], timeout=30), second)
            first.close()
            second.dispatch()
            self.assertIs(callbridge.select([first, second]), first)

    def test_a_timeout_may_be_as_long_as_one_likes(self):
        with callbridge.callback(lambda arg: 3) as handle:
            for timeout in (float("inf"), 1e10):
                with callbridge.Queue() as queue:
                    queue.post(handle, timeout=timeout)
                    self.assertEqual(queue.dispatch(timeout=timeout), 1)
                    # Both are about to wait.
                    for wait in (lambda: callbridge.select([queue], timeout), lambda: queue.dispatch(timeout=timeout)):
                        threading.Timer(0.01, queue.post, (handle,)).start()
                        self.assertTrue(wait())
                        queue.dispatch()
                with callbridge.Queue() as queue:
                    dispatcher = threading.Thread(target=queue.dispatch, args=(1, 30))
                    dispatcher.start()
                    self.assertEqual(queue.call(handle, timeout=timeout), 3)
                    dispatcher.join()

    def test_a_signal_interrupts_who_waits(self):
        class Alarm(Exception):
            pass

        def on_alarm(*_):
            raise Alarm

        entered, leave = threading.Event(), threading.Event()

        def function(arg):
            entered.set()
            leave.wait(30)

        before = signal.signal(signal.SIGALRM, on_alarm)
        handle = callbridge.callback(function)
        thread = CallerThread(handle, count=1)
        self.assertTrue(entered.wait(30))
        try:
            with callbridge.Queue() as queue:
                for wait in (
                    lambda: queue.dispatch(timeout=None),
                    lambda: callbridge.select([queue]),
                    handle.close,
                ):
                    signal.setitimer(signal.ITIMER_REAL, 0.05)
                    with self.assertRaises(Alarm):
                        wait()
        finally:
            signal.signal(signal.SIGALRM, before)
            leave.set()
            thread.join()

    def test_a_trace_context_goes_along(self):
        context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        seen = []
        with callbridge.Queue() as queue:
            handle = callbridge.callback(
                lambda arg: seen.append((observe.get_trace(), callbridge.current_event().traceparent))
            )
            observe.set_trace(context)
            queue.post(handle)
            observe.set_trace(None)
            queue.dispatch()
            self.assertIsNone(observe.get_trace())
        self.assertEqual(seen, [(context, context)])
