"""From pieces as they are read from a pipe to lines, cut where dockerd cuts them.

A line is kept until its newline has come, but for parts of 16 KiB: such a part is kept on its own,
and the rest of the line follows as further parts. What comes in one piece is taken at one moment,
and all parts of a line at the moment of the first.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from wherry.engine.logs.types import Partial, Piece

LONGEST = 16 << 10


@dataclass(slots=True)
class _Stream:
    rest: bytes = b""  # the beginning of a line, or of its next part
    id: str = ""  # of the long line that is under way, "" for none
    ordinal: int = 0
    begun: int = 0


class Splitter:
    """Cuts the streams of one run of a container."""

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}

    def feed(self, stream: int, data: bytes, now: int) -> list[Piece]:
        """What ``data``, read from ``stream`` at ``now``, completes."""
        state = self._streams.get(stream)
        if state is None:
            state = self._streams[stream] = _Stream()
        if state.rest:
            data = state.rest + data
        pieces: list[Piece] = []
        at, end = 0, len(data)
        if state.id:
            at = self._continue(stream, state, data, pieces)
        whole = at  # from here to ``at``, lines that are complete and short enough
        while at < end and not state.id:
            newline = data.rfind(b"\n", at, at + LONGEST)
            if newline >= 0:
                at = newline + 1
                continue
            if end - at < LONGEST:
                break
            if at > whole:
                pieces.append(Piece(stream, now, data[whole:at]))
            state.id, state.ordinal, state.begun = secrets.token_hex(32), 0, now
            at = whole = self._continue(stream, state, data, pieces, at)
        if at > whole:
            pieces.append(Piece(stream, now, data[whole:at]))
        state.rest = data[at:] if at else data
        return pieces

    def _continue(
        self, stream: int, state: _Stream, data: bytes, pieces: list[Piece], at: int = 0
    ) -> int:
        """Take the parts of the long line that is under way; where in ``data`` they end."""
        while True:
            newline = data.find(b"\n", at, at + LONGEST)
            if newline < 0 and len(data) - at < LONGEST:
                return at
            last = newline >= 0
            upto = newline + 1 if last else at + LONGEST
            state.ordinal += 1
            part = Partial(state.id, state.ordinal, last)
            pieces.append(Piece(stream, state.begun, data[at:upto], part))
            at = upto
            if last:
                state.id = ""
                return at

    def flush(self, now: int) -> list[Piece]:
        """At the end of the output: lines without their newline, as parts that no last follows."""
        pieces = []
        for stream, state in self._streams.items():
            if state.rest:
                name, begun = (state.id, state.begun) if state.id else (secrets.token_hex(32), now)
                part = Partial(name, state.ordinal + 1 if state.id else 1, last=False)
                pieces.append(Piece(stream, begun, state.rest, part))
        self._streams.clear()
        return pieces

    def pending(self) -> dict[int, bytes]:
        """By stream, what has come and is not yet in any piece."""
        return {stream: s.rest for stream, s in self._streams.items() if s.rest}
