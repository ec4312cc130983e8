"""Children of a fork have callbacks of their own, and queues of none."""
import copy
import multiprocessing
import os
import pickle
import signal
import threading
import time

import callbridge
from support import OK, STALE, CallerThread, TestCase, call_from_c


def fork(function):
    """What the function returns in a child of a fork, as text; "" if the child has died."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(function()).encode())
        finally:
            os._exit(0)
    os.close(write)
    deadline = time.monotonic() + 30
    with open(read) as pipe:
        timer = threading.Timer(30, os.kill, (child, signal.SIGKILL))
        timer.start()
        said = pipe.read()
        os.waitpid(child, 0)
        timer.cancel()
    assert time.monotonic() < deadline, "the child hangs"
    return said


def in_process(handle, results):
    results.put(call_from_c(handle))


class Fork(TestCase):
    def test_callbacks_work_in_the_child_and_ending_them_there_is_its_own_matter(self):
        handle = callbridge.callback(lambda arg: 3)

        def child():
            called = call_from_c(handle)
            handle.close()
            with callbridge.callback(lambda arg: 4) as another:
                return [called, call_from_c(handle)[0], call_from_c(another)]

        self.assertEqual(fork(child), str([(OK, 3), STALE, (OK, 4)]))
        self.assertEqual(call_from_c(handle), (OK, 3))
        handle.close()

    def test_queues_of_the_parent_are_closed_in_the_child(self):
        with callbridge.Queue() as queue, callbridge.callback(lambda arg: 5) as handle:
            queue.post(handle)

            def child():
                said = []
                for use in (lambda: queue.post(handle), queue.dispatch):
                    try:
                        use()
                    except callbridge.ClosedError:
                        said.append("closed")
                with callbridge.Queue() as own:
                    own.post(handle)
                    said.append(own.dispatch())
                return said

            self.assertEqual(fork(child), str(["closed", "closed", 1]))
            self.assertEqual(queue.dispatch(), 1)

    def test_calls_of_threads_that_are_not_there_block_nothing(self):
        entered, leave = threading.Event(), threading.Event()

        def function(arg):
            entered.set()
            leave.wait(30)

        handle = callbridge.callback(function)
        thread = CallerThread(handle, count=1)
        self.assertTrue(entered.wait(30))
        self.assertEqual(fork(lambda: handle.close(timeout=20)), "True")
        leave.set()
        self.assertEqual(thread.join(), OK)
        handle.close()

    def test_a_callback_may_fork(self):
        with callbridge.callback(lambda arg: int(fork(lambda: call_from_c(inner)[1]))) as outer:
            with callbridge.callback(lambda arg: 6) as inner:
                self.assertEqual(call_from_c(outer), (OK, 6))
                thread = CallerThread(outer, count=1)
                self.assertEqual(thread.join(), OK)

    def test_a_child_that_exits_as_programs_do_ends_its_own(self):
        result = self.run_python(
            """
            import callbridge, os, sys
            from support import call_from_c
            handle = callbridge.callback(lambda arg: 7)
            queue = callbridge.Queue()
            child = os.fork()
            if child:
                assert os.waitpid(child, 0)[1] == 0
            print(call_from_c(handle), flush=True)
            """
        )
        self.assertEqual(result.stdout, "(0, 7)\n" * 2)
        self.assertEqual(result.stderr, "")

    def test_multiprocessing_forks(self):
        context = multiprocessing.get_context("fork")
        with callbridge.callback(lambda arg: 8) as handle:
            results = context.SimpleQueue()
            process = context.Process(target=in_process, args=(int(handle), results))
            process.start()
            process.join(30)
            self.assertEqual(process.exitcode, 0)
            self.assertEqual(results.get(), (OK, 8))

    def test_a_handle_is_neither_copied_nor_pickled(self):
        with callbridge.callback(lambda arg: 9) as handle:
            for use in (pickle.dumps, copy.copy, copy.deepcopy):
                with self.assertRaises(TypeError):
                    use(handle)
            self.assertEqual(handle.references, 1)
