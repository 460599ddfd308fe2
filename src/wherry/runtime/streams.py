"""The live ends of a contained process: reading what it writes, writing what it reads.

``Outputs`` hands every piece that it reads to all its taps: the log, and each client that is
attached. What the slowest of them has not yet taken is bounded; beyond that nothing is read, so
that the process stands still at its pipe, as it should.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import struct
import termios
from collections import deque
from collections.abc import Callable, Mapping

from wherry.host.process import Child, exit_status

# So many bytes a tap may be behind, as with dockerd; a piece counts as more than its bytes, so that
# many tiny ones do not take more memory than that either.
BEHIND = 1 << 20
_PIECE = 256
# A pipe takes 64 KiB at first (pipe(7)). One that is found full is made larger, and read in larger
# pieces: fewer wake-ups for those with much to say, nothing for those that have little.
_SMALL, _LARGE = 1 << 16, 1 << 18
_PIPE = 1 << 20


def _widen(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # no pipe, or beyond what the user may have
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)


def set_size(terminal: int, width: int, height: int) -> None:
    """Tell a terminal its size in characters."""
    with contextlib.suppress(OSError):  # its last user may have gone
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


class Tap:
    """What one reader has still to take: pieces of output in the order in which they were read."""

    __slots__ = ("_ended", "_on_room", "_pieces", "_waiter", "behind")

    def __init__(self, on_room: Callable[[], None]) -> None:
        self.behind = 0
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._on_room = on_room

    def push(self, stream: int, data: bytes) -> None:
        """One more piece."""
        self._pieces.append((stream, data))
        self.behind += len(data) + _PIECE
        self._wake()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> tuple[int, bytes]:
        """The next output as (1 for stdout or 2 for stderr, data); ``(0, b"")`` at the end."""
        while not self._pieces:
            if self._ended:
                return 0, b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        piece = self._pieces.popleft()
        self.behind -= len(piece[1]) + _PIECE
        self._on_room()
        return piece


class _Output:
    """One descriptor that is read; ``size`` is how much at a time."""

    __slots__ = ("descriptor", "open", "size", "stream")

    def __init__(self, descriptor: int, stream: int) -> None:
        self.descriptor = descriptor
        self.stream = stream
        self.size = _SMALL
        self.open = True  # its end has not been seen

    def read(self) -> bytes | None:
        """What is there, empty at the end; None where there is nothing yet."""
        try:
            data = os.read(self.descriptor, self.size)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal without a user, for now at least
                raise
            return b""
        if len(data) == _SMALL == self.size:
            self.size = _LARGE
            _widen(self.descriptor)
        return data


class Outputs:
    """Reads descriptors, given with 1 (stdout) or 2 (stderr) for each, and closes them.

    What nobody wants is read and dropped.
    """

    def __init__(self, descriptors: Mapping[int, int]) -> None:
        self._outputs = [_Output(*item) for item in descriptors.items()]
        self._taps: list[Tap] = []
        self._paused = True

    def start(self) -> None:
        """Begin to read; for whoever has no tap by now that is too late."""
        self._flow()

    def tap(self) -> Tap:
        """A new tap, which gets all that is read from now on."""
        tap = Tap(self._room)
        if self._outputs:
            self._taps.append(tap)
        else:
            tap.end()  # all has been read
        return tap

    def untap(self, tap: Tap) -> None:
        """Its reader has gone."""
        if tap in self._taps:
            self._taps.remove(tap)
        tap.end()
        self._room()

    def _flow(self) -> None:
        self._paused = False
        loop = asyncio.get_running_loop()
        for output in self._outputs:
            if output.open:
                loop.add_reader(output.descriptor, self._readable, output)

    def _pause(self) -> None:
        self._paused = True
        loop = asyncio.get_running_loop()
        for output in self._outputs:
            loop.remove_reader(output.descriptor)

    def _room(self) -> None:
        if self._paused and all(tap.behind <= BEHIND // 2 for tap in self._taps):
            self._flow()

    def _readable(self, output: _Output) -> None:
        data = output.read()
        if data:
            self._hand_out(output.stream, data)
            if any(tap.behind > BEHIND for tap in self._taps):
                self._pause()
        elif data is not None:
            output.open = False
            asyncio.get_running_loop().remove_reader(output.descriptor)

    def _hand_out(self, stream: int, data: bytes) -> None:
        for tap in self._taps:
            tap.push(stream, data)

    def drain(self) -> None:
        """The process has ended: hand out what it left, whether or not anybody takes it, and close.

        That is no more than a pipe holds. Whoever it left behind in the background may go on
        writing, but nobody is there to read it.
        """
        for output in self._outputs:
            left = 2 * _PIPE
            while left > 0 and (data := output.read()):
                self._hand_out(output.stream, data)
                left -= len(data)
        self.close()

    def close(self) -> None:
        """Read nothing more; the taps end with what they have."""
        if self._outputs:
            self._pause()
        for output in self._outputs:
            os.close(output.descriptor)
        self._outputs.clear()
        for tap in self._taps:
            tap.end()


class Input:
    """The writing end of a process' standard input, or -1; several clients may share it.

    It is closed by ``close``, unless it is a ``terminal``, whose descriptor is an output too: there
    an end of input is a key.
    """

    def __init__(self, descriptor: int, *, terminal: bool) -> None:
        self._descriptor = descriptor
        self._terminal = terminal
        self._turn = asyncio.Lock()
        self._waiter: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Send ``data``; returns when the kernel has taken all of it.

        Raises:
            BrokenPipeError: nobody reads it any more, or there is no standard input.
        """
        async with self._turn:
            view = memoryview(data)
            while view:
                if self._descriptor < 0:
                    raise BrokenPipeError(errno.EPIPE, "the standard input is closed")
                try:
                    view = view[os.write(self._descriptor, view) :]
                except BlockingIOError:
                    await self._writable()
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    raise BrokenPipeError(errno.EPIPE, "the terminal is closed") from error

    async def _writable(self) -> None:
        if not self._terminal:
            _widen(self._descriptor)
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        loop.add_writer(self._descriptor, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._descriptor >= 0:
                loop.remove_writer(self._descriptor)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """The client's input has ended: end the process', unless it is a terminal."""
        if not self._terminal:
            self.close()

    def close(self) -> None:
        """Write nothing more."""
        if self._descriptor < 0:
            return
        asyncio.get_running_loop().remove_writer(self._descriptor)
        if not self._terminal:
            os.close(self._descriptor)
        self._descriptor = -1
        self._wake()


class ExecProcess:
    """A process that ``exec`` added to a container: our child runs it, we hold its ends.

    ``outputs`` maps a descriptor to 1 (stdout) or 2 (stderr); ``stdin`` is one to write to, or -1.
    A ``terminal`` is one descriptor for both. All are closed by this object.
    """

    def __init__(
        self, child: Child, pid: int, *, outputs: Mapping[int, int], stdin: int, terminal: bool
    ) -> None:
        self.pid = pid
        self._child = child
        self._terminal = next(iter(outputs)) if terminal else -1
        self._outputs = Outputs(outputs)
        self._tap = self._outputs.tap()
        self._input = Input(stdin, terminal=terminal)
        self._outputs.start()
        child.when_ended(self._finish)

    def _finish(self) -> None:
        """The process has ended; what it left in the background may hold its outputs for ever."""
        self._input.close()
        self._terminal = -1
        self._outputs.drain()

    async def read(self) -> tuple[int, bytes]:
        """The next output as (1 for stdout or 2 for stderr, data); ``(0, b"")`` when the process
        has ended and nothing more is there.
        """
        return await self._tap.read()

    async def write(self, data: bytes) -> None:
        """Send ``data`` to the standard input.

        Raises:
            BrokenPipeError: the process has closed it, or was started without one.
        """
        await self._input.write(data)

    async def close_stdin(self) -> None:
        """End the standard input; a terminal stays open, its end of input is a key."""
        self._input.end()

    async def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size in characters."""
        if self._terminal >= 0:
            set_size(self._terminal, width, height)
            # A runtime that relays to a terminal of its own is not told by the kernel.
            self._child.kill(signal.SIGWINCH)

    async def wait(self) -> int:
        """The exit code, 128 + n for signal n."""
        return exit_status(await self._child.wait())

    async def close(self) -> None:
        """Let go of the streams; the process goes on."""
        self._input.close()
        self._terminal = -1
        self._outputs.close()
