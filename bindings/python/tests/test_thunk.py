"""Plain C function pointers for C interfaces that take no user data."""
import ctypes
import gc
from ctypes import CFUNCTYPE, POINTER, c_bool, c_double, c_float, c_int, c_int8, c_size_t, c_uint64, c_void_p, sizeof

import callbridge
from support import Payload, TestCase

COMPARE = CFUNCTYPE(c_int, POINTER(c_int), POINTER(c_int))
libc = ctypes.CDLL(None)


class Thunks(TestCase):
    def test_qsort_sorts_by_a_closure(self):
        order = {3: 0, 1: 1, 2: 2}
        items = (c_int * 3)(1, 2, 3)
        with callbridge.Thunk(lambda a, b: order[a[0]] - order[b[0]], signature=COMPARE) as compare:
            libc.qsort(items, c_size_t(3), c_size_t(sizeof(c_int)), compare)
        self.assertEqual(list(items), [3, 1, 2])

    def test_arguments_and_results_of_every_type_arrive(self):
        signature = CFUNCTYPE(c_double, c_int8, c_uint64, c_float, c_double, c_bool, c_void_p, c_int)
        seen = []

        def function(*args):
            seen.append(args)
            return 0.5

        with callbridge.Thunk(function, signature=signature) as thunk:
            self.assertEqual(thunk(-1, 2**64 - 1, 1.5, 2.5, True, 0x1234, -(2**31)), 0.5)
        self.assertEqual(seen, [(-1, 2**64 - 1, 1.5, 2.5, True, 0x1234, -(2**31))])
        for text, result in (("i8()", -5), ("u64()", 2**64 - 1), ("f32()", 1.5), ("bool()", True), ("void()", None)):
            with callbridge.Thunk(lambda: result, signature=text) as thunk:
                self.assertEqual(thunk(), result)

    def test_after_close_it_returns_the_fallback_for_ever(self):
        thunk = callbridge.Thunk(lambda a: 1, signature=(c_int, c_int), fallback=-3)
        function = thunk.function
        self.assertEqual(function(0), 1)
        thunk.close()
        thunk.close()
        self.assertEqual(function(0), -3)
        del thunk
        gc.collect()
        self.assertEqual(function(0), -3)

    def test_close_ends_the_function_that_the_thunk_was_made_of_and_nobody_elses(self):
        def own():
            payload = Payload()
            return callbridge.Thunk(lambda: payload is None, signature="i32()")

        thunk = own()
        self.assertEqual(Payload.live, 1)
        thunk.close()
        self.assertEqual(Payload.live, 0)
        with callbridge.callback(lambda: 3, signature="i32()", fallback=-3) as handle:
            thunk = callbridge.Thunk(handle)
            thunk.close()
            self.assertEqual(thunk.function(), -3)
            self.assertEqual(handle(), 3)

    def test_a_dropped_thunk_lets_go_of_its_function(self):
        def own():
            payload = Payload()
            return callbridge.Thunk(lambda: payload is None, signature="i32()")

        function = own().function
        self.collect()
        self.assertEqual(Payload.live, 0)
        self.assertEqual(function(), 0)

    def test_a_thunk_keeps_a_dropped_callback_alive(self):
        thunk = callbridge.Thunk(callbridge.callback(lambda: 8, signature="i32()"))
        self.collect()
        self.assertEqual(thunk.function(), 8)
        thunk.close()

    def test_it_may_be_closed_in_its_own_call(self):
        def function():
            thunk.close()
            return 5

        thunk = callbridge.Thunk(function, signature="i32()", fallback=-1)
        self.assertEqual(thunk.function(), 5)
        self.assertEqual(thunk.function(), -1)

    def test_it_may_be_given_another_callback(self):
        with callbridge.callback(lambda: 2, signature="i32()", fallback=-2) as second:
            thunk = callbridge.Thunk(lambda: 1, signature="i32()", fallback=-1)
            self.assertEqual(thunk.function(), 1)
            thunk.retarget(second)
            self.assertEqual(thunk.function(), 2)
        self.assertEqual(thunk.function(), -2)
        with callbridge.callback(lambda: 2, signature="i64()") as other:
            with self.assertRaises(callbridge.SignatureError):
                thunk.retarget(other)
        thunk.close()

    def test_ctypes_takes_it_where_it_wants_the_function(self):
        sort = libc["qsort"]
        sort.argtypes, sort.restype = [c_void_p, c_size_t, c_size_t, COMPARE], None
        items = (c_int * 4)(4, 2, 3, 1)
        with callbridge.Thunk(lambda a, b: a[0] - b[0], signature=COMPARE) as compare:
            sort(items, 4, sizeof(c_int), compare)
        self.assertEqual(list(items), [1, 2, 3, 4])


class Signatures(TestCase):
    def test_what_ctypes_has_is_what_the_library_has(self):
        for what, text in (
            (CFUNCTYPE(c_int, c_void_p, POINTER(c_int)), "i32(ptr,ptr)"),
            ((None,), "void()"),
            ((c_bool, c_float, c_double), "bool(f32,f64)"),
            ((c_size_t, COMPARE, ctypes.c_char_p), "u64(ptr,ptr)"),
            ("i64(u8,i16)", "i64(u8,i16)"),
        ):
            self.assertEqual(str(callbridge.Signature.of(what)), text)

    def test_what_cannot_be_passed_is_refused(self):
        class Pair(ctypes.Structure):
            _fields_ = [("a", c_int)]

        for what in ((c_int, Pair), (Pair,), (ctypes.c_char_p,), (c_int, None), (c_int,) + (c_int,) * 15, 42, object):
            with self.assertRaises(TypeError, msg=repr(what)):
                callbridge.Signature.of(what)
        with self.assertRaises(ValueError):
            callbridge.Signature.of("i32(void)")
