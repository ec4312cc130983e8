"""Exceptions end in the callback: C gets a status, Python the exception or a line of the log."""
import ctypes
import logging
import sys
from ctypes import CFUNCTYPE, c_bool, c_double, c_float, c_int, c_void_p

import callbridge
from callbridge.errors import last_error
from support import OK, PANIC, CallerThread, Payload, TestCase, call_from_c


def fails(arg):
    raise ValueError("no step back")


class ForC(TestCase):
    def test_the_caller_gets_panic_and_the_log_the_traceback(self):
        with callbridge.callback(fails) as handle, self.assertLogs("callbridge", logging.ERROR) as logs:
            self.assertEqual(call_from_c(handle), (PANIC, 0))
        (record,) = logs.records
        self.assertIn("'fails'", record.getMessage())
        self.assertIs(record.exc_info[0], ValueError)
        self.assertIn("in fails", logging.Formatter().formatException(record.exc_info))

    def test_the_words_of_the_error_are_those_of_the_traceback(self):
        with callbridge.callback(fails) as handle, self.assertLogs("callbridge"):
            call_from_c(handle)
        words = last_error()
        self.assertIn("ValueError: no step back", words)
        self.assertIn('File "%s", line' % __file__, words)
        self.assertIn("in fails", words)

    def test_long_and_strange_words_are_cut(self):
        def strange(arg):
            raise ValueError("\udcff\0é" * 1000)

        with callbridge.callback(strange) as handle, self.assertLogs("callbridge"):
            self.assertEqual(call_from_c(handle)[0], PANIC)
        self.assertIn("ValueError", last_error())

    def test_an_exception_that_cannot_say_what_it_is_ends_too(self):
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("mute")

        def mute(arg):
            raise Mute

        with callbridge.callback(mute) as handle, self.assertLogs("callbridge"):
            self.assertEqual(call_from_c(handle)[0], PANIC)
        self.assertIn("Mute", last_error())

    def test_an_exception_that_nobody_can_describe_ends_too(self):
        class Loader:
            def get_source(self, name):
                raise RuntimeError("no source")

        names = {"__name__": "nowhere", "__loader__": Loader()}
        exec(compile("def undescribed(arg): raise ValueError", "nowhere.py", "exec"), names)
        with callbridge.callback(names["undescribed"]) as handle, self.assertLogs("callbridge"):
            self.assertEqual(call_from_c(handle)[0], PANIC)
        self.assertIn("ValueError", last_error())

    def test_a_result_that_is_no_number_is_a_type_error(self):
        for result in ("text", 1.5, object()):
            with callbridge.callback(lambda _: result) as handle, self.assertLogs("callbridge") as logs:
                self.assertEqual(call_from_c(handle)[0], PANIC)
            self.assertIs(logs.records[0].exc_info[0], TypeError)

    def test_on_a_thread_of_cs_it_is_the_same(self):
        with callbridge.callback(fails) as handle, self.assertLogs("callbridge") as logs:
            self.assertEqual(CallerThread(handle, count=3).join(), PANIC)
        self.assertEqual(len(logs.records), 3)

    def test_a_recursion_without_end_ends(self):
        def deeper(arg):
            return deeper(arg)

        with callbridge.callback(deeper) as handle, self.assertLogs("callbridge") as logs:
            self.assertEqual(call_from_c(handle)[0], PANIC)
        self.assertIs(logs.records[0].exc_info[0], RecursionError)

    def test_what_the_function_held_is_let_go_of(self):
        def holds(arg):
            payload = Payload()
            raise ValueError(payload)

        with callbridge.callback(holds, on_error=lambda error: None) as handle:
            self.assertEqual(call_from_c(handle)[0], PANIC)
            self.assertEqual(Payload.live, 0, "without the garbage collector")

    def test_a_thunk_returns_its_fallback(self):
        for restype, fallback in ((c_int, -7), (c_double, 2.5), (c_float, 1.5), (c_bool, True), (c_void_p, 0x1234)):
            signature = CFUNCTYPE(restype, c_int)
            with callbridge.Thunk(fails, signature=signature, fallback=fallback) as function:
                with self.assertLogs("callbridge"):
                    self.assertEqual(function(1), fallback)

    def test_a_thunks_result_that_does_not_fit_is_its_fallback(self):
        with callbridge.Thunk(lambda a: "text", signature=(c_int, c_int), fallback=-7) as function:
            with self.assertLogs("callbridge"):
                self.assertEqual(function(1), -7)


class ForPython(TestCase):
    def test_a_python_caller_gets_the_exception_and_the_log_nothing(self):
        for signature, args in ((None, (None,)), ((c_int, c_int), (1,))):
            with callbridge.callback(fails, signature=signature) as handle:
                with self.assertNoLogs("callbridge"), self.assertRaises(callbridge.PanicError) as caught:
                    handle(*args)
            self.assertIsInstance(caught.exception.__cause__, ValueError)
            self.assertIn("no step back", str(caught.exception))
            self.assertEqual(caught.exception.name, "CBR_ERR_PANIC")

    def test_on_error_is_told_instead_of_the_log(self):
        told = []
        with callbridge.callback(fails, on_error=told.append) as handle, self.assertNoLogs("callbridge"):
            self.assertEqual(call_from_c(handle)[0], PANIC)
        self.assertEqual([str(error) for error in told], ["no step back"])

    def test_on_error_is_told_of_a_result_that_does_not_fit(self):
        told = []
        with callbridge.callback(lambda _: "text", on_error=told.append) as handle, self.assertNoLogs("callbridge"):
            self.assertEqual(call_from_c(handle)[0], PANIC)
        self.assertEqual([type(error) for error in told], [TypeError])

    def test_on_error_is_let_go_of_with_the_function(self):
        on_error = lambda error: None
        on_error.payload = Payload()
        handle = callbridge.callback(fails, on_error=on_error)
        del on_error
        self.assertEqual(Payload.live, 1)
        handle.close()
        self.assertEqual(Payload.live, 0)

    def test_on_error_that_fails_is_logged(self):
        def on_error(error):
            raise KeyError("worse")

        with callbridge.callback(fails, on_error=on_error) as handle, self.assertLogs("callbridge") as logs:
            self.assertEqual(call_from_c(handle)[0], PANIC)
        self.assertIs(logs.records[0].exc_info[0], KeyError)

    def test_a_failure_further_inside_is_not_the_callers(self):
        with callbridge.callback(fails) as inner:
            with callbridge.callback(lambda _: 10 + call_from_c(inner)[0]) as outer:
                with self.assertLogs("callbridge") as logs:
                    self.assertEqual(outer(), 10 + PANIC)
        self.assertEqual(len(logs.records), 1)

    def test_an_exception_passes_a_chain_of_python_and_c(self):
        with callbridge.callback(fails) as inner, callbridge.callback(lambda _: inner()) as outer:
            with self.assertRaises(callbridge.PanicError) as caught:
                outer()
        self.assertIsInstance(caught.exception.__cause__, callbridge.PanicError)
        self.assertIsInstance(caught.exception.__cause__.__cause__, ValueError)

    def test_exit_and_interrupt_are_raised_where_python_called(self):
        for what in (KeyboardInterrupt, SystemExit):

            def leaves(arg):
                raise what

            with callbridge.callback(leaves) as handle, self.assertRaises(what):
                handle()
            with callbridge.callback(leaves) as handle, callbridge.Queue() as queue:
                queue.post(handle)
                with self.assertRaises(what):
                    queue.dispatch()

    def test_an_interrupt_is_not_kept(self):
        def leaves(arg):
            raise KeyboardInterrupt(Payload())

        with callbridge.callback(leaves) as handle:
            try:
                handle()
            except KeyboardInterrupt:
                self.assertEqual(Payload.live, 1)
            self.assertEqual(Payload.live, 0, "without the garbage collector")

    def test_a_dispatch_goes_on_after_an_exception(self):
        seen = []
        with callbridge.Queue() as queue, callbridge.callback(fails) as bad, callbridge.callback(seen.append) as good:
            for handle in (bad, good, bad, good):
                queue.post(handle)
            with self.assertLogs("callbridge") as logs:
                self.assertEqual(queue.dispatch(), 4)
        self.assertEqual((len(seen), len(logs.records)), (2, 2))

    def test_the_exception_is_not_kept(self):
        def holds(arg):
            raise ValueError(Payload())

        with callbridge.callback(holds) as handle:
            try:
                handle()
            except callbridge.PanicError:
                self.assertEqual(Payload.live, 1)
            self.assertEqual(Payload.live, 0, "without the garbage collector")


class OthersHooks(TestCase):
    """ctypes tells sys.unraisablehook of exceptions, which belongs to everybody."""

    def test_exceptions_are_contained_whatever_unraisablehook_others_set(self):
        for signature in (None, (c_int, c_int)):
            with callbridge.callback(fails, signature=signature, on_error=lambda _: None) as handle:
                before, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
                try:
                    if signature is None:
                        self.assertEqual(call_from_c(handle)[0], PANIC)
                    with self.assertRaises(callbridge.PanicError):
                        handle(1)
                finally:
                    sys.unraisablehook = before

    def test_what_is_contained_is_not_printed_as_well(self):
        result = self.run_python(
            """
            import callbridge, logging
            logging.getLogger("callbridge").addHandler(logging.NullHandler())
            from support import call_from_c
            def fails(arg):
                raise ValueError
            handle = callbridge.callback(fails)
            assert call_from_c(handle)[0] == -2
            """
        )
        self.assertEqual(result.stderr, "")

    def test_what_is_not_ours_is_still_printed(self):
        result = self.run_python(
            """
            import callbridge
            from ctypes import CFUNCTYPE, c_int
            @CFUNCTYPE(None, c_int)
            def bare(number):
                raise ValueError("bare")
            class Dies:
                def __del__(self):
                    raise ValueError("dies")
            def function(arg):
                bare(1)
                Dies()
                return 1
            handle = callbridge.callback(function, signature="i64(ptr)")
            assert handle(None) == 1
            """
        )
        self.assertIn("ValueError: bare", result.stderr)
        self.assertIn("ValueError: dies", result.stderr)

    def test_ctrl_c_while_c_calls_ends_the_call_and_the_process_lives(self):
        result = self.run_python(
            """
            import callbridge, os, signal, threading
            from support import call_from_c, caller
            from ctypes import byref, c_ssize_t
            calls = 0
            def function(arg):
                global calls
                calls += 1
                if calls == 1000:
                    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
                return 1
            errors = []
            handle = callbridge.callback(function, on_error=errors.append)
            total = c_ssize_t()
            # C stops at the first failure, or after a number of calls that take minutes.
            status = caller.caller_loop(handle.number, None, 1_000_000_000, byref(total))
            assert status == -2, status
            print("lives", status)
            """
        )
        self.assertIn("lives -2", result.stdout)
