"""Values of log options, read as dockerd reads them, with its words for what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wherry.engine.errors import BadParameter

_SIZE = re.compile(r"(\d+(?:\.\d+)*) ?([kmgtp])?i?b?", re.IGNORECASE)
_POWERS = " kmgtp"


def check_known(config: Mapping[str, str], known: frozenset[str], complaint: str) -> None:
    """Whether all options are ``known``.

    Raises:
        BadParameter: ``complaint`` with the name of one that is not.
    """
    for name in config:
        if name not in known:
            raise BadParameter(complaint.format(name))


def human_size(text: str, base: int = 1000) -> int:
    """Bytes of ``10m``: powers of 1000, or of ``base``.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text)
    if match is None or match[1].count(".") > 1:
        raise ValueError(f"invalid size: '{text}'")
    power: int = base ** _POWERS.index((match[2] or " ").lower())
    return int(float(match[1]) * power)


def integer(text: str) -> int:
    """A decimal number.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def boolean(text: str) -> bool:
    """A truth value in one of the forms that Go knows.

    Raises:
        ValueError: it is none.
    """
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
