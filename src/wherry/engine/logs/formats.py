"""What files of lines have in common, whatever stands in a line."""

from __future__ import annotations

import os
from typing import BinaryIO

from wherry.engine.container.units import parse_rfc3339, timestamp
from wherry.engine.logs.files import Decoder

_BLOCK = 1 << 16


class Lines:
    """A message a line; the part of ``files.Format`` that follows from this."""

    def cut(self, batch: bytes, at: int) -> int:
        return batch.find(b"\n", at - 1) + 1 or len(batch)

    def end(self, file: BinaryIO) -> int:
        position = file.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - _BLOCK)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            position = start
        return 0

    def tail(self, file: BinaryIO, messages: int) -> tuple[int, int]:
        position = end = file.seek(0, os.SEEK_END)
        found = 0
        if messages <= 0:
            return end, 0
        while position > 0:
            start = max(0, position - _BLOCK)
            file.seek(start)
            block = file.read(position - start)
            at = len(block)
            while (newline := block.rfind(b"\n", 0, at)) >= 0:
                # The newline before a line begins it; that of the last line ends it.
                if start + newline + 1 < end:
                    found += 1
                    if found == messages:
                        return start + newline + 1, found
                at = newline
            position = start
        return 0, found + (end > 0)

    def decoder(self) -> Decoder:
        raise NotImplementedError


def fixed(time: str) -> str:
    """An RFC 3339 time in UTC with nine decimals.

    Raises:
        ValueError: it is no time.
    """
    if len(time) == 30 and time[-1] == "Z":
        return time
    if time[-1:] == "Z" and time[19:20] in (".", "Z"):
        return f"{time[:19]}.{time[20:-1]:0<9}Z"
    return timestamp(parse_rfc3339(time), fixed=True)
