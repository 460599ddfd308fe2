"""Where a running container's streams meet in this daemon: its pipes, its log, its clients."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeAlias

from wherry.runtime.streams import Input, Outputs, Tap, set_size
from wherry.runtime.types import LogSink

log = logging.getLogger(__name__)

Mark: TypeAlias = Callable[[], Awaitable[None]]

# Stands for a mark among the numbers of streams.
_MARK = -1

# A log that cannot be written holds its container up, but not its end: seconds.
_LOG_TIMEOUT = 10.0
# What a container calls its streams, by their names in the monitor's protocol.
_NUMBERS = {"stdout": 1, "stderr": 2, "terminal": 1}


class Hub:
    """The streams of one container, which it closes.

    ``ends`` are its descriptors as the monitor gave them. All output goes to ``sink`` and to every
    client. ``once`` says that the standard input ends with the first client that has it;
    ``claim_stdin`` is called when there is such a client, so that from then on nobody but this
    daemon holds that input open.
    """

    def __init__(
        self,
        ends: Mapping[str, int],
        sink: LogSink | None,
        *,
        once: bool,
        claim_stdin: Callable[[], None],
    ) -> None:
        self.ends = dict(ends)  # those that another monitor would need
        self.sink = sink
        self._once = once and "terminal" not in ends
        self._claim_stdin = claim_stdin
        self._terminal = ends.get("terminal", -1)
        self._input = Input(ends.get("stdin", self._terminal), terminal=self._terminal >= 0)
        descriptors = {ends[name]: number for name, number in _NUMBERS.items() if name in ends}
        self._outputs = Outputs(descriptors)
        self._logging: asyncio.Task[None] | None = None
        self._log_tap: Tap | None = None
        self._marks: deque[Mark] = deque()
        if sink is not None:
            self._log_tap = self._outputs.tap()
            self._logging = asyncio.create_task(self._keep(self._log_tap, sink))
        self._outputs.start()

    def attach(
        self, exit_code: asyncio.Future[int], *, stdin: bool, at: Mark | None = None
    ) -> ContainerStream:
        """One more client; ``exit_code`` gives the code when the container ends.

        ``at`` is called when the log has all that the client does not get, and nothing of what it
        gets; the log waits until it returns.
        """
        if stdin and self._once and self.ends.pop("stdin", -1) >= 0:
            self._claim_stdin()
        if at is not None:
            self._marks.append(at)
            if self._log_tap is None or self._logging is None or self._logging.done():
                self._logging = asyncio.create_task(self._pass_marks())
            else:
                self._log_tap.push(_MARK, b"")
        return ContainerStream(self, self._outputs.tap(), exit_code, stdin=stdin)

    def leave(self, tap: Tap) -> None:
        """A client has gone."""
        self._outputs.untap(tap)

    async def write(self, data: bytes) -> None:
        """Send ``data`` to the standard input.

        Raises:
            BrokenPipeError: nobody reads it, or there is none.
        """
        await self._input.write(data)

    def end_stdin(self) -> None:
        """A client's input has ended."""
        if self._once:
            self._input.end()

    def resize(self, width: int, height: int) -> None:
        """Tell the terminal, if it has one, its size in characters."""
        if self._terminal >= 0:
            set_size(self._terminal, width, height)

    async def finish(self) -> None:
        """The container has ended: hand out what is left; returns when the log has all of it."""
        await self._close(self._outputs.drain)

    async def release(self) -> None:
        """Let go of a container that goes on; returns when the log has what was read."""
        await self._close(self._outputs.close)

    async def _close(self, outputs: Callable[[], None]) -> None:
        self._terminal = -1
        self.ends.clear()
        self._input.close()
        outputs()
        if self._logging is not None:
            _, late = await asyncio.wait((self._logging,), timeout=_LOG_TIMEOUT)
            if late:
                log.warning("a log takes too long to write: the last of it is lost")
                self._logging.cancel()

    async def _keep(self, tap: Tap, sink: LogSink) -> None:
        """Give the log what comes. One that fails must not hold its container up."""
        try:
            async for stream, data in self._unmarked(tap):
                await sink.write(stream, data)
            await sink.close()
        except Exception:
            log.exception("a container's output is no longer logged")
            async for _ in self._unmarked(tap):
                continue
        finally:
            await self._pass_marks()  # nobody waits for a log that was given up

    async def _pass_marks(self) -> None:
        while self._marks:
            await self._pass_mark()

    async def _unmarked(self, tap: Tap) -> AsyncIterator[tuple[int, bytes]]:
        """What ``tap`` has, but for the marks of those who wait for a place in it."""
        while (piece := await tap.read())[0]:
            if piece[0] == _MARK:
                await self._pass_mark()
            else:
                yield piece

    async def _pass_mark(self) -> None:
        try:
            await self._marks.popleft()()
        except Exception:
            log.exception("joining a client with the log")


class ContainerStream:
    """A client of a container's streams: what ``engine.cri.types.ProcessStream`` asks for."""

    def __init__(self, hub: Hub, tap: Tap, exit_code: asyncio.Future[int], *, stdin: bool) -> None:
        self._hub = hub
        self._tap = tap
        self._exit_code = exit_code
        self._stdin = stdin

    async def read(self) -> tuple[int, bytes]:
        """The next output as (1 for stdout or 2 for stderr, data); ``(0, b"")`` at the end."""
        return await self._tap.read()

    async def write(self, data: bytes) -> None:
        """Send ``data`` to the container's standard input.

        Raises:
            BrokenPipeError: nobody reads it (any more).
        """
        await self._hub.write(data)

    async def close_stdin(self) -> None:
        """End the standard input, where the container was made to end with its first client."""
        if self._stdin:
            self._stdin = False
            self._hub.end_stdin()

    async def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size in characters."""
        self._hub.resize(width, height)

    async def wait(self) -> int:
        """The container's exit code, when it has ended."""
        return await asyncio.shield(self._exit_code)

    async def close(self) -> None:
        """Detach; the container goes on."""
        self._hub.leave(self._tap)
        await self.close_stdin()
