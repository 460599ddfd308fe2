"""Wait on the event loop until a file descriptor can be read or written.

For descriptors that asyncio's transports do not know: sequenced-packet sockets, terminals, pidfds.
Pulling on demand, instead of a transport that pushes, keeps the kernel's buffer the only one: a
slow consumer slows its producer, and a cancelled wait loses nothing.

A descriptor is closed only when nobody waits for it any more: one who was cancelled still does
until it has had its turn. libuv tells the kernel what to watch at the end of a turn, and aborts the
whole process where that has been closed meanwhile.
"""

from __future__ import annotations

import asyncio


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def readable(*descriptors: int) -> None:
    """Return when one of ``descriptors`` has data, has ended or has failed.

    At most one task may wait to read a descriptor at a time.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    for descriptor in descriptors:
        loop.add_reader(descriptor, _wake, future)
    try:
        await future
    finally:
        for descriptor in descriptors:
            loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    """Return when ``descriptor`` takes data, or has failed; one task at a time."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _wake, future)
    try:
        await future
    finally:
        loop.remove_writer(descriptor)
