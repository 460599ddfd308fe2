"""The messages of pull, load, import and push, one JSON object each, as the CLI draws them.

``current`` and ``total`` are bytes. ``progress`` is the bar drawn for old clients; new ones draw
their own from ``progressDetail``.
"""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_BAR = 50


def status(text: str, identifier: str = "") -> Message:
    """A line of its own, or the state of the item ``identifier``."""
    message: Message = {"status": text}
    if identifier:
        message["id"] = identifier
    return message


def step(action: str, identifier: str, current: int, total: int) -> Message:
    """How far ``action`` on ``identifier`` has come."""
    detail = {"current": current} if total <= 0 else {"current": current, "total": total}
    message: Message = {"status": action, "progressDetail": detail}
    message["progress"] = bar(current, total)
    if identifier:
        message["id"] = identifier
    return message


def stream(text: str) -> Message:
    """Text that the client prints as it is."""
    return {"stream": text}


def failure(text: str) -> Message:
    """The end of a stream that has failed after it began."""
    return {"errorDetail": {"message": text}, "error": text}


def bar(current: int, total: int) -> str:
    """``[=====>   ]  1.2MB/3MB``."""
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{human_size(current):>8}"
    done = min(int(current / total * 100) // 2, _BAR)
    drawn = f"[{'=' * done}>{' ' * (_BAR - done)}] "
    if current > total:
        return f"{drawn}{human_size(current):>8}"
    return f"{drawn}{human_size(current):>8}/{human_size(total)}"


def human_size(size: float) -> str:
    """Four significant digits with a decimal unit, as Docker writes sizes."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.4g}{_UNITS[unit]}"
