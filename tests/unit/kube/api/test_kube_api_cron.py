"""Schedules: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from wherry.kube.api.cron import ScheduleError, parse_schedule

NOON = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)  # a Thursday


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("* * * * *", "2026-01-01T12:01"),
        ("*/5 * * * *", "2026-01-01T12:05"),
        ("7/20 * * * *", "2026-01-01T12:07"),
        ("0 12 * * *", "2026-01-02T12:00"),
        ("30 8-10,14 * * *", "2026-01-01T14:30"),
        ("0 0 * * mon-fri", "2026-01-02T00:00"),
        ("0 0 * * SUN", "2026-01-04T00:00"),
        ("0 0 13 * fri", "2026-01-02T00:00"),  # the 13th, and any Friday
        ("0 0 29 feb ?", "2028-02-29T00:00"),
        ("@daily", "2026-01-02T00:00"),
        ("@monthly", "2026-02-01T00:00"),
        ("@every 90m", "2026-01-01T13:30"),
        ("TZ=UTC 0 13 * * *", "2026-01-01T13:00"),
    ],
)
def test_the_next_time_a_schedule_is_due(text: str, due: str) -> None:
    after = parse_schedule(text).after(NOON)
    assert after is not None
    assert after.isoformat().startswith(due)


def test_some_days_never_come() -> None:
    assert parse_schedule("0 0 30 2 *").after(NOON) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty spec string"),
        ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("@often", "unrecognized descriptor: @often"),
        (
            "@every soon",
            'failed to parse duration @every soon: time: invalid duration "soon"',
        ),
    ],
)
def test_what_is_no_schedule_is_told_why(text: str, why: str) -> None:
    with pytest.raises(ScheduleError) as error:
        parse_schedule(text)
    assert str(error.value) == why
