"""Schedules as cron writes them: ``*/5 8-18 * * mon-fri``, ``@daily``, ``@every 1h30m``.

Upstream takes them by the Go library robfig/cron (its standard parser), whose rules and texts
these are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final


class ScheduleError(ValueError):
    """The text is no schedule; ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due: at minutes that match, or (``every``) at equal distances.

    ``any_day`` and ``any_weekday`` tell fields that begin with a star; only where neither does, a
    day is one that matches either of the two.
    """

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    any_day: bool = True
    any_weekday: bool = True
    every: timedelta | None = None

    def after(self, moment: datetime) -> datetime | None:
        """The first time due after ``moment``, in its time zone; None if there is none within
        five years (the 30th of February)."""
        if self.every is not None:
            return moment.replace(microsecond=0) + self.every
        at = (moment + timedelta(minutes=1)).replace(second=0, microsecond=0)
        end = moment.year + 5
        while at.year <= end:
            if at.month not in self.months:
                year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
                at = at.replace(year=year, month=month, day=1, hour=0, minute=0)
            elif not self._on(at):
                at = at.replace(hour=0, minute=0) + timedelta(days=1)
            elif at.hour not in self.hours:
                at = at.replace(minute=0) + timedelta(hours=1)
            elif at.minute not in self.minutes:
                at += timedelta(minutes=1)
            else:
                return at
        return None

    def _on(self, at: datetime) -> bool:
        day, weekday = at.day in self.days, (at.weekday() + 1) % 7 in self.weekdays
        return day and weekday if self.any_day or self.any_weekday else day or weekday


@dataclass(frozen=True, slots=True)
class _Field:
    low: int
    high: int
    names: tuple[str, ...] = ()


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final = (
    _Field(0, 59),
    _Field(0, 23),
    _Field(1, 31),
    _Field(1, 12, _MONTHS),
    _Field(0, 6, _WEEKDAYS),
)
_DESCRIPTORS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY: Final = "@every "
_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_SPAN = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")


@lru_cache(1024)
def parse_schedule(text: str) -> Schedule:
    """What a schedule says. A leading ``TZ=…`` or ``CRON_TZ=…`` is passed over.

    Raises:
        ScheduleError: it is none.
    """
    if not text:
        raise ScheduleError("empty spec string")
    if text.startswith(("TZ=", "CRON_TZ=")):
        text = text.partition(" ")[2].strip()
    if text.startswith("@"):
        return _described(text)
    parts = text.split()
    if len(parts) != len(_FIELDS):
        shown = "[" + " ".join(parts) + "]"
        raise ScheduleError(f"expected exactly 5 fields, found {len(parts)}: {shown}")
    values = [_values(part, field) for part, field in zip(parts, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = (numbers for numbers, _ in values)
    return Schedule(minutes, hours, days, months, weekdays, values[2][1], values[4][1])


def _described(text: str) -> Schedule:
    if text in _DESCRIPTORS:
        return parse_schedule(_DESCRIPTORS[text])
    if text.startswith(_EVERY):
        span = text.removeprefix(_EVERY)
        if not _SPAN.sub("", span) and span:
            seconds = sum(float(n) * _UNITS[unit] for n, unit in _SPAN.findall(span))
            try:
                return Schedule(every=timedelta(seconds=max(1, int(seconds))))
            except OverflowError:
                pass
        why = f'time: invalid duration "{span}"'
        raise ScheduleError(f"failed to parse duration {text}: {why}")
    raise ScheduleError(f"unrecognized descriptor: {text}")


def _values(text: str, field: _Field) -> tuple[frozenset[int], bool]:
    """The numbers a field means, and whether a star is among its ranges."""
    numbers: set[int] = set()
    star = False
    for part in text.split(","):
        if part:
            found, starred = _range(part, field)
            numbers.update(found)
            star = star or starred
    return frozenset(numbers), star


def _range(text: str, field: _Field) -> tuple[range, bool]:
    span, *steps = text.split("/")
    ends = span.split("-")
    star = ends[0] in ("*", "?")
    if star:
        start, end = field.low, field.high
    else:
        start = _number(ends[0], field)
        end = start
        if len(ends) == 2:
            end = _number(ends[1], field)
        elif len(ends) > 2:
            raise ScheduleError(f"too many hyphens: {text}")
    step = 1
    if len(steps) == 1:
        step = _number(steps[0], _Field(0, 0))
        if len(ends) == 1 and not star:  # "3/5": from the third on
            end = field.high
    elif len(steps) > 1:
        raise ScheduleError(f"too many slashes: {text}")
    if start < field.low:
        raise ScheduleError(f"beginning of range ({start}) below minimum ({field.low}): {text}")
    if end > field.high:
        raise ScheduleError(f"end of range ({end}) above maximum ({field.high}): {text}")
    if start > end:
        raise ScheduleError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise ScheduleError(f"step of range should be a positive number: {text}")
    return range(start, end + 1, step), star and step == 1


def _number(text: str, field: _Field) -> int:
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.low
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        why = f'strconv.Atoi: parsing "{text}": invalid syntax'
        raise ScheduleError(f"failed to parse int from {text}: {why}")
    if len(text) > 18:
        why = f'strconv.Atoi: parsing "{text}": value out of range'
        raise ScheduleError(f"failed to parse int from {text}: {why}")
    if int(text) < 0:
        raise ScheduleError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)
