"""What a callback promises to the C that calls it, and to the Python that made it."""
import weakref
from ctypes import c_int, c_void_p, c_ssize_t, CFUNCTYPE

import callbridge
from support import OK, STALE, Payload, TestCase, call_from_c, caller


class Calls(TestCase):
    def test_c_calls_the_function_with_its_argument_and_gets_its_result(self):
        seen = []
        with callbridge.callback(lambda arg: seen.append(arg) or 7) as handle:
            self.assertEqual(call_from_c(handle, 0x7FFF12345678), (OK, 7))
        self.assertEqual(seen, [0x7FFF12345678])

    def test_null_is_none_and_none_is_zero(self):
        seen = []
        with callbridge.callback(seen.append) as handle:
            self.assertEqual(call_from_c(handle, None), (OK, 0))
        self.assertEqual(seen, [None])

    def test_results_may_be_negative_and_as_wide_as_a_pointer(self):
        for number in (-1, -(2**63), 2**63 - 1, True):
            with callbridge.callback(lambda _: number) as handle:
                self.assertEqual(call_from_c(handle), (OK, int(number)))

    def test_the_decorator_works_with_and_without_options(self):
        @callbridge.callback
        def plain(arg):
            return 1

        @callbridge.callback(name="another name")
        def named(arg):
            return 2

        self.assertEqual((plain(), named()), (1, 2))
        self.assertTrue(plain.info["name"].endswith("plain"))
        self.assertEqual(named.info["name"], "another name")

    def test_any_callable_will_do(self):
        class Counter:
            calls = 0

            def method(self, arg):
                self.calls += 1
                return self.calls

            __call__ = method

        counter = Counter()
        for function in (counter.method, counter):
            with callbridge.callback(function) as handle:
                call_from_c(handle)
        self.assertEqual(counter.calls, 2)
        with self.assertRaises(TypeError):
            callbridge.callback(42)

    def test_the_same_function_may_be_registered_many_times(self):
        def function(arg):
            return 3

        first, second = callbridge.callback(function), callbridge.callback(function)
        self.assertNotEqual(first, second)
        first.close()
        self.assertEqual(call_from_c(first)[0], STALE)
        self.assertEqual(call_from_c(second), (OK, 3))

    def test_a_c_interface_with_a_function_and_a_pointer_gets_call_ptr(self):
        with callbridge.callback(lambda arg: arg + 1, fallback=-5) as handle:
            self.assertEqual(callbridge.call_ptr(handle.pointer, 41), 42)
            pointer = handle.pointer
        self.assertIn(callbridge.call_ptr(pointer, 41), (0, -5))

    def test_a_callback_of_another_signature_is_called_with_its_types(self):
        prototype = CFUNCTYPE(c_int, c_int, c_void_p)
        with callbridge.callback(lambda a, b: a * 2, signature=prototype) as handle:
            self.assertEqual(handle(21, None), 42)
            other = callbridge.Handle(int(handle))
            with self.assertRaises(callbridge.SignatureError):
                other.call(None)
            with self.assertRaises(TypeError):
                handle(1)
            self.assertEqual(callbridge._quick.cbr_depth(), 0, "an argument that does not fit leaves no pin")


class Ends(TestCase):
    def test_after_close_every_use_is_stale(self):
        handle = callbridge.callback(lambda _: 1)
        self.assertTrue(handle.close())
        self.assertFalse(handle.live)
        self.assertEqual(call_from_c(handle)[0], STALE)
        for use in (handle.call, handle.retain, handle.unregister, lambda: handle.references, lambda: handle.info):
            with self.assertRaises(callbridge.StaleError):
                use()

    def test_close_lets_go_of_the_function_though_the_object_stays(self):
        def function(arg):
            return 1

        function.payload = Payload()
        handle = callbridge.callback(function)
        del function
        self.assertEqual(Payload.live, 1)
        handle.close()
        self.assertEqual(Payload.live, 0)

    def test_a_second_close_does_nothing(self):
        handle = callbridge.callback(lambda _: 1)
        for _ in range(3):
            self.assertTrue(handle.close())

    def test_a_handle_that_was_never_issued_is_stale(self):
        with self.assertRaises(callbridge.StaleError):
            callbridge.Handle(0x1234567800000401).call()
        with self.assertRaises(callbridge.KindError):
            with callbridge.Scope() as scope:
                callbridge.Handle(scope.handle).call()

    def test_close_inside_its_own_call_revokes_and_the_function_lives_until_the_call_returns(self):
        payload = Payload()
        alive = []

        def function(arg):
            alive.append(handle.close())
            alive.append(handle.live)
            alive.append(Payload.live)
            return 9

        function.payload, payload = payload, None
        handle = callbridge.callback(function)
        self.assertEqual(call_from_c(handle), (OK, 9))
        self.assertEqual(alive, [False, False, 1])
        self.assertEqual(call_from_c(handle)[0], STALE)
        del function.payload
        self.assertEqual(Payload.live, 0)

    def test_a_scope_ends_its_callbacks(self):
        with callbridge.Scope("plugin") as scope:
            handle = callbridge.callback(lambda _: 1, scope=scope)
            self.assertEqual(call_from_c(handle), (OK, 1))
        self.assertEqual(call_from_c(handle)[0], STALE)
        with self.assertRaises(callbridge.Error):
            callbridge.callback(lambda _: 1, scope=scope)
        scope.close()
        handle.close()

    def test_a_scope_closed_inside_its_own_callback_says_deadlock_and_is_revoked(self):
        scope = callbridge.Scope("own")
        said = []

        def function(arg):
            try:
                scope.close()
            except callbridge.DeadlockError:
                said.append("deadlock")

        handle = callbridge.callback(function, scope=scope)
        self.assertEqual(call_from_c(handle)[0], OK)
        self.assertEqual(said, ["deadlock"])
        self.assertEqual(call_from_c(handle)[0], STALE)
        scope.close(timeout=10)


class Owners(TestCase):
    def test_a_dropped_callback_is_released(self):
        def function(arg):
            return 1

        payload = function.payload = Payload()
        handle = callbridge.callback(function)
        number = int(handle)
        del payload, function, handle
        self.collect()
        self.assertEqual(call_from_c(number)[0], STALE)
        self.assertEqual(Payload.live, 0)

    def test_another_reference_keeps_a_dropped_callback_alive(self):
        handle = callbridge.callback(lambda _: 5)
        reference = callbridge.Handle(int(handle)).retain()
        self.assertEqual(handle.references, 2)
        del handle
        self.collect()
        self.assertEqual(call_from_c(reference), (OK, 5))
        reference.close()
        reference.close()
        self.assertEqual(call_from_c(reference)[0], STALE)

    def test_close_ends_it_for_other_owners_too(self):
        handle = callbridge.callback(lambda _: 5)
        with handle.retain() as reference:
            handle.close()
            self.assertEqual(call_from_c(reference)[0], STALE)

    def test_a_weak_method_ends_with_its_object(self):
        class Listener:
            def on_event(self, arg):
                return 4

        listener = Listener()
        listener.handle = callbridge.callback(weakref.WeakMethod(listener.on_event))
        # Another owner does not keep it either.
        reference = listener.handle.retain()
        self.assertEqual(call_from_c(reference), (OK, 4))
        gone = weakref.ref(listener)
        del listener
        self.collect()
        self.assertIsNone(gone(), "a weak callback must not keep its object")
        self.assertEqual(call_from_c(reference)[0], STALE)

    def test_a_callback_keeps_its_scope_and_queues_open(self):
        handle = callbridge.callback(lambda _: 1, scope=callbridge.Scope(), home=callbridge.Queue(owned=True))
        self.collect()
        self.assertEqual(call_from_c(handle), (OK, 1))

    def test_a_refused_registration_keeps_nothing(self):
        def function(arg):
            return 1

        function.payload = Payload()
        queue = callbridge.Queue("not owned")
        with self.assertRaises(callbridge.InvalidError):
            callbridge.callback(function, home=queue)
        del function
        self.collect()
        self.assertEqual(Payload.live, 0)

    def test_a_callback_of_cs_is_a_handle_like_another(self):
        from ctypes import byref, c_uint64

        number = c_uint64()
        caller.caller_register(40, byref(number))
        before = caller.caller_destroyed()
        handle = callbridge.Handle(number.value)
        self.assertEqual(handle.call(2), 42)
        handle.unregister()
        self.assertEqual(caller.caller_destroyed(), before + 1)
        with self.assertRaises(callbridge.StaleError):
            handle.call(2)
