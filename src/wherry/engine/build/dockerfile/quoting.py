"""Numbers and texts in the form in which Go's standard library reads and writes them.

The builder's messages, and what it writes into an image's history, show them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from wherry.engine.build.dockerfile.errors import DockerfileError

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([^\d.]*)")


def quote(text: str) -> str:
    """``%q`` of one string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")


def quote_list(texts: Sequence[str]) -> str:
    """``%q`` of a list."""
    return "[" + " ".join(quote(text) for text in texts) + "]"


def duration(text: str) -> int:
    """``time.ParseDuration``, in nanoseconds.

    Raises:
        DockerfileError: it is none, in Go's words.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    if not rest:
        raise DockerfileError(f"time: invalid duration {quote(text)}")
    total, position = 0.0, 0
    while position < len(rest):
        match = _PART.match(rest, position)
        if match is None:
            raise DockerfileError(f"time: invalid duration {quote(text)}")
        if not match[2]:
            raise DockerfileError(f"time: missing unit in duration {quote(text)}")
        if match[2] not in _UNITS:
            raise DockerfileError(f"time: unknown unit {quote(match[2])} in duration {quote(text)}")
        total += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    return sign * round(total)


def boolean(text: str) -> bool | None:
    """``strconv.ParseBool``; None where it is none."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    return None
