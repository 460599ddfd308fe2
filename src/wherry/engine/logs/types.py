"""The words of this package: a piece of output, what a driver writes to, what is asked of a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from wherry.wire.docker_stream import STDERR, STDOUT

if TYPE_CHECKING:
    from wherry.engine.logs.files import LogFile
    from wherry.engine.logs.info import Info

STREAMS: Mapping[int, str] = {STDOUT: "stdout", STDERR: "stderr"}


@dataclass(frozen=True, slots=True)
class Partial:
    """Which part of a long line this is; the parts of one line share ``id`` and count from 1."""

    id: str
    ordinal: int
    last: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Some output of one stream, taken at ``time`` (nanoseconds since the epoch).

    Without ``partial`` it is one or more whole lines, each with its newline; with it, a part of a
    line, the last of which has the newline.
    """

    stream: int
    time: int
    data: bytes
    partial: Partial | None = None

    @property
    def lines(self) -> list[bytes]:
        """The messages in it, without their newlines."""
        lines = self.data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        return lines


class Writer(Protocol):
    """What a driver opens for one run of a container; ``file`` where it can be read back."""

    file: LogFile | None

    async def connect(self) -> None:
        """Reach whoever takes the messages.

        Raises:
            OSError: nobody does.
        """

    async def write(self, pieces: Sequence[Piece]) -> None:
        """Keep or send ``pieces``.

        Raises:
            OSError: they are lost; the caller tells, and goes on.
        """

    async def settle(self) -> None:
        """Return when nothing of what was written waits any more."""

    async def close(self) -> None:
        """Nothing more will come."""

    def abandon(self) -> None:
        """Let go of everything at once, whatever still waits; may be repeated."""


class FileWriter:
    """A writer into a file, but for the encoding of the pieces."""

    file: LogFile | None

    def __init__(self, file: LogFile) -> None:
        self.file = self._file = file

    async def connect(self) -> None:
        """The file is open."""

    async def write(self, pieces: Sequence[Piece]) -> None:
        """Append ``pieces``."""
        await self._file.append(self.encode(pieces))

    def encode(self, pieces: Sequence[Piece]) -> bytes:
        """The messages in the file."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Nothing ever waits."""

    async def close(self) -> None:
        """Close the file."""
        self._file.close()

    def abandon(self) -> None:
        """Close the file."""
        self._file.close()


class Driver(Protocol):
    """What a module of this package offers as a driver."""

    Writer: Callable[[Info], Writer]

    def check(self, config: Mapping[str, str]) -> None:
        """Whether ``config`` has only options that the driver knows.

        Raises:
            BadParameter: it has others, or one makes no sense.
        """


# One message as a reader finds it: stream, time as the format has it, text with its newline, attrs.
RawTime: TypeAlias = "str | int"
Entry: TypeAlias = tuple[int, RawTime, bytes, "Mapping[str, str] | None"]


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What of a log is wanted. Times are nanoseconds since the epoch, 0 for no bound."""

    stdout: bool = True
    stderr: bool = True
    timestamps: bool = False
    details: bool = False
    since: int = 0
    until: int = 0
    tail: int = -1  # messages from the end; -1 for all
    follow: bool = False
