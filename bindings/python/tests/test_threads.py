"""Threads of C's and of Python's call, close and let go at the same time."""
import ctypes
import threading
import unittest
from ctypes import c_void_p, pythonapi

import callbridge
from support import OK, STALE, CallerThread, Payload, TestCase, call_from_c, caller, fast


def thread_states():
    """How many threads the interpreter knows."""
    first, following = pythonapi.PyInterpreterState_ThreadHead, pythonapi.PyThreadState_Next
    for function in (first, following, pythonapi.PyInterpreterState_Get):
        function.restype = c_void_p
    state, count = first(c_void_p(pythonapi.PyInterpreterState_Get())), 0
    while state:
        state, count = following(c_void_p(state)), count + 1
    return count


class Calls(TestCase):
    def test_threads_of_cs_call_under_the_gil(self):
        total = [0]

        def function(arg):
            # Read, and written a moment later: without the GIL counts would be lost.
            now = total[0]
            total[0] = now + 1
            return 1

        with callbridge.callback(function) as handle:
            # A lock, because the GIL may change hands between the two lines.
            lock = threading.Lock()

            def locked(arg):
                with lock:
                    return function(arg)

            with callbridge.callback(locked) as safe:
                threads = [CallerThread(safe, count=2000) for _ in range(4)]
                self.assertEqual([thread.join() for thread in threads], [OK] * 4)
            self.assertEqual(total[0], 8000)
            threads = [CallerThread(handle, count=2000) for _ in range(4)]
            self.assertEqual([thread.join() for thread in threads], [OK] * 4)

    @unittest.skipUnless(fast, "ctypes makes a thread state for each call")
    def test_a_thread_of_cs_has_thread_locals_of_its_own_that_stay(self):
        local = threading.local()
        counts = []

        def function(arg):
            local.calls = getattr(local, "calls", 0) + 1
            counts.append(local.calls)

        with callbridge.callback(function) as handle:
            for _ in range(2):
                self.assertEqual(CallerThread(handle, count=3).join(), OK)
        self.assertEqual(counts, [1, 2, 3, 1, 2, 3])

    def test_a_thread_of_cs_leaves_no_thread_state_behind(self):
        with callbridge.callback(lambda arg: 0) as handle:
            before = thread_states()
            for _ in range(50):
                self.assertEqual(CallerThread(handle, count=2).join(), OK)
            self.assertEqual(thread_states(), before)

    def test_a_thread_of_pythons_is_none_of_ours(self):
        results = []
        with callbridge.callback(lambda arg: 1) as handle:
            before = thread_states()
            for start in (lambda run: threading.Thread(target=run).start(), None):
                done = threading.Event()

                def run():
                    results.append(call_from_c(handle))
                    done.set()

                if start is None:
                    import _thread

                    _thread.start_new_thread(run, ())
                else:
                    start(run)
                self.assertTrue(done.wait(30))
            self.wait_until(lambda: thread_states() == before, "threads end")
        self.assertEqual(results, [(OK, 1)] * 2)

    def test_callbacks_on_several_threads_do_not_hold_each_other_up(self):
        # Both must be inside at once.
        barrier = threading.Barrier(2)

        def function(arg):
            return barrier.wait(30) is not None

        with callbridge.callback(function) as handle:
            threads = [CallerThread(handle, count=1) for _ in range(2)]
            self.assertEqual([thread.join() for thread in threads], [OK, OK])


class Ends(TestCase):
    def test_close_waits_for_the_call_on_another_thread(self):
        entered, leave, left = threading.Event(), threading.Event(), []

        def function(arg):
            entered.set()
            leave.wait(30)
            left.append(True)

        handle = callbridge.callback(function)
        thread = CallerThread(handle, count=1)
        self.assertTrue(entered.wait(30))
        with self.assertRaises(callbridge.WaitTimeout):
            handle.close(timeout=0.01)
        self.assertFalse(handle.live, "revoked all the same")
        threading.Timer(0.02, leave.set).start()
        self.assertTrue(handle.close())
        self.assertEqual(left, [True])
        self.assertEqual(thread.join(), OK)

    def test_a_call_that_races_with_close_runs_or_is_stale(self):
        for _ in range(30):
            function = lambda arg: 1
            function.payload = Payload()
            handle = callbridge.callback(function)
            threads = [CallerThread(handle, until_stale=True) for _ in range(2)]
            self.wait_until(lambda: threads[0].calls and threads[1].calls, "threads call")
            del function
            self.assertTrue(handle.close())
            del handle
            self.assertEqual([thread.join() for thread in threads], [STALE] * 2)
            self.assertEqual(Payload.live, 0)

    def test_the_function_is_let_go_of_on_a_thread_of_cs(self):
        threads = []

        class Tells(Payload):
            def __del__(self):
                threads.append(threading.get_ident())
                super().__del__()

        for end in (caller.caller_release_on_thread, caller.caller_unregister_on_thread):
            function = lambda arg: 1
            function.payload = Tells()
            with callbridge.Scope() as scope:
                # Without an object that keeps the function.
                handle = callbridge.callback(function, scope=scope).retain()
                del function
                self.collect()
                self.assertEqual(Payload.live, 1)
                self.assertEqual(end(handle.number), OK)
                self.assertEqual(Payload.live, 0)
                handle.close()
        self.assertEqual(len(threads), 2, "each once")
        self.assertNotIn(threading.get_ident(), threads)

    def test_two_that_close_each_other_do_not_hang(self):
        both = threading.Barrier(2)
        results = []

        def closes(other):
            def function(arg):
                both.wait(30)
                results.append(handles[other].close(timeout=30))

            return function

        handles = [callbridge.callback(closes(1)), callbridge.callback(closes(0))]
        threads = [CallerThread(handle, count=1) for handle in handles]
        self.assertEqual([thread.join() for thread in threads], [OK, OK])
        self.assertIn(False, results)

    def test_a_dropped_callback_that_runs_elsewhere_ends_when_that_call_returns(self):
        entered, leave = threading.Event(), threading.Event()

        def make():
            payload = Payload()

            def function(arg):
                entered.set()
                leave.wait(30)
                return payload.live

            return callbridge.callback(function)

        handle = make()
        thread = CallerThread(handle, count=1)
        self.assertTrue(entered.wait(30))
        del handle
        self.collect()
        self.assertEqual(Payload.live, 1)
        leave.set()
        self.assertEqual(thread.join(), OK)
        self.assertEqual(Payload.live, 0)
