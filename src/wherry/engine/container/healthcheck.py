"""Health checks: what is to be tried, what came of it, and what that says about the container.

A container with a health check is ``starting`` until a probe has succeeded or too many have failed
in a row. Nothing here runs anything: see ``health`` for that.
https://docs.docker.com/reference/dockerfile/#healthcheck
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.engine.container.units import go_duration, timestamp
from wherry.engine.errors import BadParameter

log = logging.getLogger(__name__)

STARTING, HEALTHY, UNHEALTHY, NONE = "starting", "healthy", "unhealthy", "none"
KEPT_RESULTS = 5
OUTPUT_LIMIT = 4096
"""Bytes of a probe's output that are kept."""

_MINIMUM = 1_000_000  # a millisecond, in nanoseconds
_DEFAULT_SHELL = ("/bin/sh", "-c")
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """A health check with its defaults filled in; times are seconds."""

    command: Sequence[str]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3

    def next_probe(self, status: str, since_start: float) -> float:
        """Seconds until the next probe of a container that started ``since_start`` seconds ago."""
        if since_start < self.start_period and status == STARTING:
            return self.start_interval
        return self.interval


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one probe; times are nanoseconds since the epoch."""

    start: int
    end: int
    exit_code: int  # -1 where it could not be run, or did not end in time
    output: str


@dataclass(slots=True)
class Health:
    """How a container is, and why one thinks so."""

    status: str = STARTING
    failing_streak: int = 0
    log: list[Result] = field(default_factory=list)

    def restart(self) -> None:
        """A new run of the container has begun; what former probes said can still be read."""
        self.status, self.failing_streak = STARTING, 0

    def note(self, result: Result, check: Check, started_at: int) -> bool:
        """Take in the result of a probe; whether the status is another now.

        Failures within the start period do not count, until a probe has succeeded.
        """
        former = self.status
        self.log = [*self.log[-(KEPT_RESULTS - 1) :], result]
        if result.exit_code == 0:
            self.status, self.failing_streak = HEALTHY, 0
        elif former != STARTING or result.start - started_at >= check.start_period * _SECOND:
            self.failing_streak += 1
            if self.failing_streak >= check.retries:
                self.status = UNHEALTHY
        return self.status != former

    @property
    def words(self) -> str:
        """What ``docker ps`` says in parentheses."""
        return "health: starting" if self.status == STARTING else self.status

    def shown(self) -> dict[str, Any]:
        """``State.Health`` of ``docker inspect``."""
        return {
            "Status": self.status,
            "FailingStreak": self.failing_streak,
            "Log": [
                {
                    "Start": timestamp(result.start),
                    "End": timestamp(result.end),
                    "ExitCode": result.exit_code,
                    "Output": result.output,
                }
                for result in self.log
            ],
        }

    @classmethod
    def decode(cls, document: Mapping[str, Any]) -> Health:
        """From what ``dataclasses.asdict`` made of one."""
        results = [Result(**result) for result in document["log"]]
        return cls(document["status"], document["failing_streak"], results)


def check_of(config: Mapping[str, Any]) -> Check | None:
    """The health check that a container's ``Config`` asks for; None where it asks for none."""
    given = config.get("Healthcheck") or {}
    test = given.get("Test") or ["NONE"]
    kind, *command = test
    if kind == "CMD-SHELL":
        command = [*(config.get("Shell") or _DEFAULT_SHELL), *command]
    elif kind != "CMD":
        if kind != "NONE":
            log.warning("unknown kind of health check: %s (expected CMD)", kind)
        return None
    chosen = {
        name: given[field_name] / _SECOND for name, field_name in _TIMES if given.get(field_name)
    }
    retries = given.get("Retries") or 0
    return Check(command, retries=retries if retries > 0 else 3, **chosen)


_TIMES = (
    ("interval", "Interval"),
    ("timeout", "Timeout"),
    ("start_period", "StartPeriod"),
    ("start_interval", "StartInterval"),
)


def validate(given: Mapping[str, Any] | None) -> None:
    """Judge a ``Healthcheck``.

    Raises:
        BadParameter: a time is too short, or a number is negative, or of another type.
    """
    if not given:
        return
    for _, name in _TIMES:
        value = _integer(given, name)
        if value != 0 and value < _MINIMUM:
            raise BadParameter(f"{name} in Healthcheck cannot be less than {go_duration(_MINIMUM)}")
    if _integer(given, "Retries") < 0:
        raise BadParameter("Retries in Healthcheck cannot be negative")
    test = given.get("Test")
    if test is not None and not (
        isinstance(test, list) and all(isinstance(word, str) for word in test)
    ):
        raise BadParameter(
            "invalid JSON: json: cannot unmarshal into Go struct field "
            "CreateRequest.Healthcheck.Test of type []string"
        )


def _integer(given: Mapping[str, Any], name: str) -> int:
    value = given.get(name) or 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadParameter(
            "invalid JSON: json: cannot unmarshal into Go struct field "
            f"CreateRequest.Healthcheck.{name} of type time.Duration"
        )
    return value


def merged(
    chosen: Mapping[str, Any] | None, image: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The user's health check completed, field by field, from the image's; no field is empty."""
    both = ((check or {}).items() for check in (image, chosen))
    return {name: value for check in both for name, value in check if value} or None
