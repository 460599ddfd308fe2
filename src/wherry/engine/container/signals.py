"""Signals by name and number."""

from __future__ import annotations

import signal

from wherry.engine.errors import BadParameter

KILL = int(signal.SIGKILL)
_NAMES = {s.name.removeprefix("SIG"): int(s) for s in signal.Signals}


def parse(text: str) -> int:
    """The number of ``15``, ``TERM``, ``SIGTERM``, ``RTMIN+3`` or ``RTMAX-1``.

    Raises:
        BadParameter: there is no such signal.
    """
    if text.isdigit():
        number = int(text)
        if 0 < number <= signal.SIGRTMAX:
            return number
        raise BadParameter(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    if name in _NAMES:
        return _NAMES[name]
    for base, sign in (("RTMIN", 1), ("RTMAX", -1)):
        offset = name.removeprefix(base).removeprefix("+" if sign > 0 else "-")
        if name.startswith(base) and offset.isdigit():
            number = _NAMES[base] + sign * int(offset)
            if _NAMES["RTMIN"] <= number <= _NAMES["RTMAX"]:
                return number
    raise BadParameter(f"invalid signal: {text}")
