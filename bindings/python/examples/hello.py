#!/usr/bin/env python3
"""A Python function as C has it: a handle that may be called at any time, also after its end."""
import callbridge


@callbridge.callback
def half(number):
    if number is None:
        raise ValueError("nothing to halve")
    return number // 2


# What a C interface of (fn, void *) gets: `some_library_subscribe(callbridge.call_ptr, half.pointer)`.
# It calls, on any thread:
print(callbridge.call_ptr(half.pointer, 84))

# A failure ends in the callback; a Python caller gets the exception.
try:
    half(None)
except callbridge.PanicError as error:
    print(repr(error.__cause__))

half.close()  # waits for calls on other threads; from now on none begins
print(callbridge.call_ptr(half.pointer, 84))
try:
    half(84)
except callbridge.StaleError as error:
    print(error.name)
