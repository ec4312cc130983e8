"""The garbage collector at any moment, and everything exactly once."""
import gc
import sys
import weakref

import callbridge
from callbridge import observe
from support import OK, CallerThread, Payload, TestCase, call_from_c


class Lifetime(TestCase):
    def test_nothing_is_left_after_many_lives(self):
        def function(arg):
            return 1

        def lives():
            for _ in range(500):
                callbridge.callback(function).close()
                callbridge.callback(function)
                with callbridge.Thunk(function, signature="void()"):
                    pass
                with callbridge.Queue():
                    pass
                with callbridge.Scope():
                    pass
                callbridge.Hook()

        lives()
        self.collect()
        before, references, objects = observe.stats(), sys.getrefcount(function), len(gc.get_objects())
        lives()
        self.collect()
        after = observe.stats()
        for field in ("live", "destroy_pending", "queues", "thunks"):
            self.assertEqual(after[field], before[field], field)
        self.assertEqual(sys.getrefcount(function), references)
        self.assertLess(len(gc.get_objects()) - objects, 100)

    def test_a_long_lived_object_keeps_nothing_of_its_callbacks(self):
        class Lives:
            def method(self, arg):
                return 1

        lives = Lives()

        def left():
            self.collect()
            return len(weakref.finalize._registry)

        before = left()
        for _ in range(100):
            callbridge.callback(weakref.WeakMethod(lives.method)).close()
            callbridge.callback(weakref.WeakMethod(lives.method))
        self.assertLessEqual(left(), before)
        # One that others own still ends with the object.
        owned = callbridge.callback(weakref.WeakMethod(lives.method)).retain()
        self.collect()
        self.assertTrue(owned.live)
        del lives
        self.collect()
        self.assertFalse(owned.live)

    def test_a_call_leaves_nothing_behind(self):
        def function(arg):
            return arg + 2**40

        def fails(arg):
            raise ValueError(arg)

        for called in (function, fails):
            with callbridge.callback(called, on_error=lambda error: None) as handle:

                def calls():
                    for number in range(1000):
                        call_from_c(handle, 2**40 + number)

                calls()
                self.collect()
                before = sys.getallocatedblocks()
                calls()
                self.collect()
                self.assertLess(sys.getallocatedblocks() - before, 500)

    def test_descriptors_are_closed(self):
        import os

        def count():
            return len(os.listdir("/proc/self/fd"))

        before = count()
        for _ in range(100):
            callbridge.Queue()
        self.assertEqual(count(), before)

    def test_the_collector_may_run_at_every_allocation(self):
        threshold = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for _ in range(100):

                class Cycle:
                    def method(self, arg):
                        return 6

                cycle = Cycle()
                cycle.own = callbridge.callback(weakref.WeakMethod(cycle.method))
                cycle.myself = cycle
                self.assertEqual(call_from_c(cycle.own), (OK, 6))
        finally:
            gc.set_threshold(*threshold)

    def test_the_collector_in_a_callback_may_end_that_callback(self):
        def make():
            payload = Payload()

            def function(arg):
                handles.clear()
                gc.collect()
                return payload.live

            return callbridge.callback(function)

        handles = [make()]
        self.assertEqual(call_from_c(handles[0]), (OK, 1))
        self.collect()
        self.assertEqual(Payload.live, 0)

    def test_callbacks_collected_on_other_threads_than_those_that_made_them(self):
        # The callers allocate, so the collector runs in them.
        threshold = gc.get_threshold()
        gc.set_threshold(5)
        try:
            with callbridge.callback(lambda arg: len([[] for _ in range(20)])) as busy:
                threads = [CallerThread(busy) for _ in range(2)]
                for _ in range(2000):
                    cycle = [callbridge.callback(lambda arg: 1), Payload()]
                    cycle.append(cycle)
                for thread in threads:
                    self.assertEqual(thread.join(stop=True), OK)
        finally:
            gc.set_threshold(*threshold)
        del cycle
        self.collect()
        self.assertEqual(Payload.live, 0)

    def test_an_exception_out_of_a_del_stays_where_it_is(self):
        class Dies:
            def __del__(self):
                raise ValueError("dies")

        def make():
            dies = Dies()
            return callbridge.callback(lambda arg: dies is not None)

        told = []
        before, sys.unraisablehook = sys.unraisablehook, lambda unraisable: told.append(unraisable.exc_type)
        try:
            handle = make()
            self.assertTrue(handle.close())
            del handle
        finally:
            sys.unraisablehook = before
        self.assertEqual(told, [ValueError])

    def test_a_destroy_may_close_others_and_register_new_ones(self):
        made = []

        class Chain:
            def __init__(self, following):
                self.following = following

            def __del__(self):
                if self.following is not None:
                    self.following.close()
                made.append(callbridge.callback(lambda arg: 2))

        last = callbridge.callback(lambda arg: 1)

        def function(arg):
            return 1

        function.chain = Chain(last)
        first = callbridge.callback(function)
        del function
        first.close()
        del first
        self.collect()
        self.assertFalse(last.live)
        self.assertEqual(call_from_c(made[0]), (OK, 2))
