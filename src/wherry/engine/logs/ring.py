"""``mode=non-blocking``: what a driver does not take in time is dropped, not waited for."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from wherry.engine.logs.files import LogFile
from wherry.engine.logs.types import Piece, Writer

log = logging.getLogger(__name__)


class Ring:
    """Up to ``size`` bytes of messages that wait for ``inner``; of more, the newest are dropped.

    A message that is larger than the buffer is taken where the buffer is empty.
    """

    def __init__(self, inner: Writer, size: int) -> None:
        self.file: LogFile | None = inner.file
        self._inner = inner
        self._size = size
        self._queue: deque[Piece] = deque()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Reach whoever takes the messages."""
        await self._inner.connect()

    async def write(self, pieces: Sequence[Piece]) -> None:
        """Keep as many of the messages as there is room for."""
        for piece in pieces:
            self._enqueue(piece)
        if self._queue and self._task is None:
            self._task = asyncio.create_task(self._drain())

    def _enqueue(self, piece: Piece) -> None:
        room = self._size - self._waiting
        if len(piece.data) > room:
            if piece.partial is not None:
                if self._queue:
                    return
            else:
                cut = piece.data.rfind(b"\n", 0, max(0, room)) + 1
                if not cut and not self._queue:
                    cut = piece.data.find(b"\n") + 1
                if not cut:
                    return
                piece = replace(piece, data=piece.data[:cut])
        self._queue.append(piece)
        self._waiting += len(piece.data)

    async def _drain(self) -> None:
        failing = False
        while self._queue:
            piece = self._queue.popleft()
            try:
                await self._inner.write((piece,))
            except OSError as error:
                if not failing:
                    log.error("output of a container is not logged: %s", error)
                failing = True
            self._waiting -= len(piece.data)
        self._task = None

    async def settle(self) -> None:
        """Wait until the queue is empty."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def close(self) -> None:
        """Hand over what waits."""
        await self.settle()
        await self._inner.close()

    def abandon(self) -> None:
        """Drop what waits."""
        if self._task is None:
            self._inner.abandon()
        else:  # who still waits for its socket leaves first, see host/readiness.py
            self._task.cancel()
            self._task.add_done_callback(lambda _: self._inner.abandon())
