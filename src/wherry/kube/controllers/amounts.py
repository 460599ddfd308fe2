"""Counts that a user may give as a number or as a percentage."""

from __future__ import annotations


def resolve(value: int | str, whole: int, *, round_up: bool) -> int:
    """A number, or a percentage of ``whole``."""
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%"))
    return (percent * whole + (99 if round_up else 0)) // 100
