"""Between the event loop and the worker threads: byte streams in both directions.

Archives are read and written by plain blocking code in threads of their own pool, so that a client
who stalls in the middle of an upload holds up nothing but itself. Streams cross in large pieces; a
piece costs two thread switches.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")

PIECE = 1 << 20
WORKERS = 32

_pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="image")


class Aborted(Exception):
    """The other side of a stream is gone."""


class ThreadReader(io.RawIOBase):
    """A file for a worker thread over an asynchronous iterator of the event loop."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._piece = memoryview(b"")
        self._pending: Future[bytes] | None = None
        self._aborted = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._piece:
            if self._aborted:
                raise Aborted("the stream was cut off")
            self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            if self._aborted:  # just now, by a loop that did not see this read yet
                self._pending.cancel()
            try:
                self._piece = memoryview(self._pending.result())
            except FutureCancelled as error:
                raise Aborted("the stream was cut off") from error
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def abort(self) -> None:
        """Make the thread's next read fail; also one that waits now."""
        self._aborted = True
        if self._pending is not None:
            self._pending.cancel()

    async def _next(self) -> bytes:
        """The next piece: about PIECE bytes, less only at the end."""
        parts: list[bytes] = []
        size = 0
        async for part in self._stream:
            parts.append(part)
            size += len(part)
            if size >= PIECE:
                break
        return b"".join(parts)


async def in_thread(
    function: Callable[..., Result], *arguments: Any, abort: Callable[[], None] | None = None
) -> Result:
    """Run ``function`` in a worker thread and wait for it.

    When the caller is cancelled the thread is told by ``abort`` and awaited all the same: what it
    works on must not be taken from under it.
    """
    future = asyncio.get_running_loop().run_in_executor(_pool, function, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if abort is not None:
            abort()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # it was told to stop; how it ended no longer matters
        raise


async def stream_from(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of a blocking iterator, each fetched in a worker thread.

    Empty ones are passed over (a file that fills its last block has no padding): whoever reads the
    stream may take them for its end.
    """
    while (piece := await in_thread(next, pieces, None)) is not None:
        if piece:
            yield piece
