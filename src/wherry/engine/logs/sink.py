"""Where the runtime puts what a container writes: split into lines, given to the drivers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from wherry.engine.logs.files import LogFile
from wherry.engine.logs.lines import Splitter
from wherry.engine.logs.types import Piece, Writer

log = logging.getLogger(__name__)

# So long the end of a container waits for the last words to reach a remote log, in seconds.
CLOSE_TIMEOUT = 10.0


class Sink:
    """The log of one run of a container, kept by one writer or more.

    ``on_close`` is called when the run is over.
    """

    def __init__(self, id: str, writers: Sequence[Writer], on_close: Callable[[], None]) -> None:
        self._id = id
        self._writers = writers
        self._on_close = on_close
        self._splitter = Splitter()
        self._failing: set[Writer] = set()

    @property
    def file(self) -> LogFile | None:
        """What can be read back."""
        return next((w.file for w in self._writers if w.file is not None), None)

    def pending(self) -> dict[int, bytes]:
        """By stream, lines that have begun and are not in the log yet."""
        return self._splitter.pending()

    async def connect(self) -> None:
        """Reach whoever takes the messages.

        Raises:
            OSError: nobody does.
        """
        for writer in self._writers:
            await writer.connect()

    async def write(self, stream: int, data: bytes) -> None:
        """Keep what was read from a stream; see ``LogSink``."""
        pieces = self._splitter.feed(stream, data, time.time_ns())
        if pieces:
            await self._give(pieces)

    async def _give(self, pieces: Sequence[Piece]) -> None:
        for writer in self._writers:
            try:
                await writer.write(pieces)
            except asyncio.CancelledError:
                self._end()  # the runtime has lost patience
                raise
            except OSError as error:
                if writer not in self._failing:
                    self._failing.add(writer)
                    log.error("output of container %s is not logged: %s", self._id[:12], error)
            else:
                self._failing.discard(writer)

    async def settle(self) -> None:
        """Return when what can be read back has all that was written so far."""
        for writer in self._writers:
            if writer.file is not None:
                await writer.settle()

    async def close(self) -> None:
        """The run's last byte has been written."""
        pieces = self._splitter.flush(time.time_ns())
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if pieces:
                    await self._give(pieces)
                for writer in self._writers:
                    await writer.close()
        except (OSError, TimeoutError) as error:
            log.error("closing the log of container %s: %s", self._id[:12], error)
        finally:
            self._end()

    def _end(self) -> None:
        for writer in self._writers:
            writer.abandon()
        self._on_close()
