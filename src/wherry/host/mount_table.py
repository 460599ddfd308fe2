"""What is mounted, by whomsoever: the kernel's tables below ``/proc/self`` (proc(5)).

Anybody who may mount something, as every user may by FUSE, chooses its place: that need be no
UTF-8, and what Python takes for a space or the end of a line may be in it. The kernel writes only a
newline, a space, a tab, a backslash and ``#`` in another way.
"""

from __future__ import annotations

import os
from pathlib import Path


def read(table: str = "mountinfo") -> str:
    """The text of ``mountinfo`` or ``mounts``, with surrogates for what is no UTF-8."""
    return os.fsdecode(Path("/proc/self", table).read_bytes())


def lines(text: str) -> list[str]:
    """A line for each mount, whose fields have one space between them."""
    return [line for line in text.split("\n") if line]
