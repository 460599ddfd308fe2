"""How a transfer tells of its progress, and of its end."""

from __future__ import annotations

import time
from collections.abc import Callable

from wherry.engine.image import progress
from wherry.engine.image.progress import Message

Tell = Callable[[Message], None]
_TELL_EVERY = 0.1  # seconds between two messages about one layer


class Meter:
    """Tells how far a layer is, not too often."""

    def __init__(self, action: str, name: str, total: int, tell: Tell) -> None:
        self._action, self._name, self._total = action, name, total
        self._tell = tell
        self._told = 0.0

    def reached(self, done: int) -> None:
        """So many bytes are done."""
        now = time.monotonic()
        if now - self._told < _TELL_EVERY and done < self._total:
            return
        self._told = now
        self._tell(progress.step(self._action, self._name, done, self._total))


def short(digest: str) -> str:
    """What a layer is called in messages."""
    return digest.removeprefix("sha256:")[:12]


def about(text: str, name: str) -> Message:
    """The state of a layer."""
    return {**progress.status(text, name), "progressDetail": {}}


def first(group: BaseExceptionGroup[Exception]) -> Exception:
    """The error that ended a group of tasks."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error
