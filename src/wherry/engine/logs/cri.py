"""The logs of pods: files in the CRI log format, where the kubelet wants them and rotates them.

A line is ``<RFC 3339 time> <stdout|stderr> <F|P> <text>``. ``P`` marks a part of a longer line,
whose next part follows in the next line of the same stream; ``F`` its last part. See
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

from collections.abc import Sequence

from wherry.engine.container.units import timestamp
from wherry.engine.logs.files import Decoder, LogFile
from wherry.engine.logs.formats import Lines, fixed
from wherry.engine.logs.info import Info
from wherry.engine.logs.types import STREAMS, Entry, FileWriter, Piece, RawTime
from wherry.wire.docker_stream import STDERR, STDOUT


class Writer(FileWriter):
    """Writes the log of one run.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, info: Info) -> None:
        super().__init__(LogFile(info.path, CRILines()))

    def encode(self, pieces: Sequence[Piece]) -> bytes:
        return b"".join(map(encode, pieces))


def encode(piece: Piece) -> bytes:
    """The lines of the file for ``piece``."""
    head = f"{timestamp(piece.time, fixed=True)} {STREAMS[piece.stream]} ".encode()
    partial = piece.partial
    if partial is not None and not partial.last:
        return head + b"P " + piece.data + b"\n"
    head += b"F "
    return head + piece.data[:-1].replace(b"\n", b"\n" + head) + b"\n"


class CRILines(Lines):
    """The format, for files and readers."""

    def decoder(self) -> Decoder:
        return CRIDecoder()


class CRIDecoder:
    """Finds the entries in such a file; lines that are none are left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Entry]:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        return [entry for line in lines if (entry := parse(line)) is not None]

    def fixed_time(self, time: RawTime) -> str:
        return fixed(str(time))


def parse(line: bytes) -> Entry | None:
    """One line without its newline; None where it is none of the format (a torn write)."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    text = parts[3] if len(parts) == 4 else b""
    stream = STDERR if parts[1] == b"stderr" else STDOUT
    if not parts[2].startswith(b"P"):
        text += b"\n"
    return stream, parts[0].decode("ascii", "replace"), text, None
