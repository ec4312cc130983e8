#!/usr/bin/env python3
"""libc's qsort takes a function and no user data: a thunk is that function, and carries its closure along."""
import ctypes
from ctypes import CFUNCTYPE, POINTER, c_double, c_int, c_size_t, sizeof

import callbridge

libc = ctypes.CDLL(None)
COMPARE = CFUNCTYPE(c_int, POINTER(c_double), POINTER(c_double))


def sort_by(key, numbers):
    items = (c_double * len(numbers))(*numbers)

    def compare(a, b):
        left, right = key(a[0]), key(b[0])
        return (left > right) - (left < right)

    with callbridge.Thunk(compare, signature=COMPARE) as function:
        libc.qsort(items, c_size_t(len(items)), c_size_t(sizeof(c_double)), function)
    # Whoever has kept `function` may still call it: it returns 0, and nothing crashes.
    assert function(items, items) == 0
    return list(items)


print(sort_by(abs, [3.0, -1.0, 2.0, -4.0]))
assert sort_by(abs, [3.0, -1.0, 2.0, -4.0]) == [-1.0, 2.0, 3.0, -4.0]
