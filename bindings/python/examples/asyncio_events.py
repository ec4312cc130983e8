#!/usr/bin/env python3
"""Readings of a sensor come from a thread; a coroutine takes them, and a slow one holds the sensor back."""
import asyncio
import struct
import threading

import callbridge
from callbridge import aio

READINGS = 100


def sensor(queue, handle):
    """In a real program this is C: `cbr_post(queue, handle, &reading, sizeof reading)`."""
    for number in range(READINGS):
        # A full queue makes it wait, because that is its policy.
        queue.post(handle, struct.pack("=d", number / 10))
    queue.close()


async def main():
    total = 0.0
    with callbridge.Queue("readings", capacity=8, policy=callbridge.BLOCK) as queue:
        async with aio.Events(queue) as events:
            thread = threading.Thread(target=sensor, args=(queue, events.handle))
            thread.start()
            async for event in events:
                (reading,) = struct.unpack("=d", event.data)
                total += reading
            thread.join()
    print("%d readings, %.1f in total" % (READINGS, total))
    assert abs(total - 495.0) < 1e-6


asyncio.run(main())
