"""Docker's multiplexed stream: stdout and stderr of a container over one connection.

Each frame is a header of eight bytes (stream, three zero bytes, the length of the payload as a
big-endian 32-bit number) and the payload. See "Stream format" under ``ContainerAttach`` in
https://docs.docker.com/reference/api/engine/version/v1.50/. A container with a terminal has one
stream only, which travels unframed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

STDIN = 0
STDOUT = 1
STDERR = 2
SYSTEM_ERROR = 3  # what the daemon itself has to say when a stream breaks off

_HEADER = struct.Struct(">BxxxL")
# One frame carries at most this much, so that a reader can hold a frame in memory.
MAXIMUM_PAYLOAD = 1 << 20


def frame(stream: int, data: bytes) -> bytes:
    """``data`` as one frame of ``stream``, or as several where it is longer than a frame may be."""
    return b"".join(pieces(stream, data))


def pieces(stream: int, data: bytes) -> Sequence[bytes]:
    """As ``frame``, but in pieces: nothing is copied that need not be cut."""
    if len(data) <= MAXIMUM_PAYLOAD:
        return _HEADER.pack(stream, len(data)), data
    out: list[bytes] = []
    for at in range(0, len(data), MAXIMUM_PAYLOAD):
        out += pieces(stream, data[at : at + MAXIMUM_PAYLOAD])
    return out


class FrameError(ValueError):
    """The bytes are no multiplexed stream."""


class Demultiplexer:
    """Takes bytes as they arrive and gives back the complete frames in them."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that ``data`` completes, as (stream, payload).

        Raises:
            FrameError: a header names no stream, as with the raw stream of a terminal.
        """
        self._buffer += data
        frames: list[tuple[int, bytes]] = []
        at = 0
        while len(self._buffer) - at >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._buffer, at)
            if stream > SYSTEM_ERROR:
                raise FrameError(f"a frame of unknown stream {stream}")
            end = at + _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((stream, bytes(self._buffer[at + _HEADER.size : end])))
            at = end
        del self._buffer[:at]
        return frames

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of their frame; 0 at a clean end."""
        return len(self._buffer)
