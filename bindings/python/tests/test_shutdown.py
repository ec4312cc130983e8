"""The end of the interpreter: C may go on calling, and gets a status."""
from support import TestCase


class Shutdown(TestCase):
    def test_what_is_left_open_ends_quietly(self):
        result = self.run_python(
            """
            import callbridge, asyncio, weakref
            from callbridge import aio, directory, observe
            import support
            class Listener:
                def on_event(self, arg):
                    pass
            listener = Listener()
            scope = callbridge.Scope("plugin")
            queue = callbridge.Queue("events", owned=True)
            left = [
                callbridge.callback(print), callbridge.callback(print, scope=scope), callbridge.Hook(),
                callbridge.callback(print, destroy_queue=queue), callbridge.callback(print).retain(),
                callbridge.Thunk(lambda: 1, signature="i32()"), scope, queue,
                callbridge.callback(weakref.WeakMethod(listener.on_event)),
            ]
            left[2].set_once(left[0])
            directory.bind("left", left[0])
            queue.post(left[0], b"event")
            left.append(left)
            """
        )
        self.assertEqual(result.stdout + result.stderr, "")

    def test_a_late_call_is_stale_and_a_late_thunk_returns_its_fallback(self):
        result = self.run_python(
            """
            import callbridge
            from support import caller
            handle = callbridge.callback(lambda arg: print("called"))
            thunk = callbridge.Thunk(lambda number: number, signature="i32(i32)", fallback=-4)
            caller.caller_call_late(handle.number, thunk.address)
            """
        )
        self.assertEqual(result.stdout, "late CBR_ERR_STALE CBR_ERR_STALE -4\n")

    def test_callbacks_in_a_scope_that_python_has_not_opened_end_as_well(self):
        result = self.run_python(
            """
            import callbridge
            from ctypes import byref, c_uint64
            from callbridge import _library, scope
            from support import caller
            other = c_uint64()
            assert _library.lib.cbr_scope_open(b"of C's", byref(other)) == 0
            for number in (0, other.value):
                for _ in range(1000):
                    callbridge.callback(print, scope=number)
                assert len(scope._elsewhere) < 300, len(scope._elsewhere)
                handle = callbridge.callback(lambda arg: print("called"), scope=number)
                kept = handle.retain()
            thunk = callbridge.Thunk(lambda number: number, signature="i32(i32)", fallback=-4, scope=other.value)
            caller.caller_call_late(handle.number, thunk.address)
            """
        )
        self.assertEqual(result.stdout, "late CBR_ERR_STALE CBR_ERR_STALE -4\n")

    def test_threads_of_cs_that_call_all_the_time_survive_the_end(self):
        for _ in range(3):
            result = self.run_python(
                """
                import callbridge
                from support import CallerThread
                total = [0]
                def function(arg):
                    total[0] += 1
                    return 1
                handle = callbridge.callback(function)
                threads = [CallerThread(handle) for _ in range(3)]
                while not all(thread.calls for thread in threads):
                    pass
                print("calling")
                """
            )
            self.assertEqual((result.stdout, result.stderr), ("calling\n", ""))

    def test_the_end_waits_for_a_call_that_runs(self):
        result = self.run_python(
            """
            import callbridge, threading
            from support import CallerThread
            entered = threading.Event()
            def function(arg):
                entered.set()
                while handle.live:
                    pass
                print("revoked, and still in Python", flush=True)
            handle = callbridge.callback(function)
            thread = CallerThread(handle, count=1)
            entered.wait()
            """
        )
        self.assertEqual(result.stdout, "revoked, and still in Python\n")

    def test_the_end_waits_for_a_call_of_a_scope_that_was_dropped(self):
        result = self.run_python(
            """
            import atexit, callbridge, threading
            from support import CallerThread
            entered, leave = threading.Event(), threading.Event()
            def function(arg):
                entered.set()
                leave.wait()
                print("still in Python", flush=True)
            scope = callbridge.Scope()
            # Without the Callback, which would keep the scope.
            reference = callbridge.callback(function, scope=scope).retain()
            thread = CallerThread(reference, count=1)
            entered.wait()
            del scope
            assert not reference.live
            # Between the two: the scopes are being closed.
            from callbridge import scope as module
            wait = module.wait
            def let_go(*arguments):
                leave.set()
                return wait(*arguments)
            module.wait = let_go
            """
        )
        self.assertEqual(result.stdout, "still in Python\n")

    def test_the_end_does_not_wait_for_ever(self):
        result = self.run_python(
            """
            import callbridge, threading
            from callbridge import scope
            from support import CallerThread
            scope.EXIT_TIMEOUT = 0.2
            entered = threading.Event()
            def function(arg):
                entered.set()
                threading.Event().wait()
            handle = callbridge.callback(function)
            thread = CallerThread(handle, count=1)
            entered.wait()
            print("ends")
            """,
            timeout=30,
        )
        self.assertEqual(result.stdout, "ends\n")

    def test_after_the_end_nothing_is_registered(self):
        result = self.run_python(
            """
            import atexit
            def late():
                for make in (lambda: callbridge.callback(print), callbridge.Scope, callbridge.Queue,
                             lambda: callbridge.Thunk(print, signature="void()")):
                    try:
                        make()
                    except callbridge.ClosedError:
                        print("closed")
                    else:
                        print("registered")
            # Those that were registered first run last.
            atexit.register(late)
            import callbridge
            """
        )
        self.assertEqual(result.stdout, "closed\n" * 4)

    def test_functions_are_let_go_of_before_the_interpreter_is(self):
        result = self.run_python(
            """
            import callbridge, threading
            class Dies:
                def __del__(self):
                    print("let go of", threading is not None)
            def function(arg):
                return 1
            function.dies = Dies()
            reference = callbridge.callback(function).retain()
            del function
            """
        )
        self.assertEqual(result.stdout, "let go of True\n")
