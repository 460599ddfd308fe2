"""What of a recommendation is done now: windows, policies, limits.

An autoscaler remembers what it recommended and how it scaled: the windows and the policies are
about that. Upstream: normalizeDesiredReplicas… in pkg/controller/podautoscaler/horizontal.go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from wherry.kube.api.quantity import to_milli
from wherry.kube.client.transport import Object
from wherry.kube.controllers.autoscaling.replicas import Tolerances

Moment = tuple[datetime, int]
_UP_FACTOR, _UP_LEAST = 2, 4
_LONGEST = timedelta(hours=1)  # no window and no period of a policy is longer
_UP = {
    "selectPolicy": "Max",
    "stabilizationWindowSeconds": 0,
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN = {
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}

WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
TOO_FAST_UP = (
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
)
TOO_FAST_DOWN = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
)
UP_STABILIZED = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)
DOWN_STABILIZED = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent "
    "recommendation",
)
READY = ("ReadyForNewScale", "recommended size matches current size")


@dataclass(slots=True)
class History:
    """What one autoscaler recommended, and by how many replicas it grew and shrank, with times."""

    recommendations: list[Moment] = field(default_factory=list)
    ups: list[Moment] = field(default_factory=list)
    downs: list[Moment] = field(default_factory=list)

    def recommended(self, replicas: int, now: datetime) -> None:
        self.recommendations.append((now, replicas))
        self.recommendations = _recent(self.recommendations, now)

    def scaled(self, before: int, after: int, now: datetime) -> None:
        if after > before:
            self.ups = [*_recent(self.ups, now), (now, after - before)]
        elif after < before:
            self.downs = [*_recent(self.downs, now), (now, before - after)]


def _recent(moments: Iterable[Moment], now: datetime) -> list[Moment]:
    return [each for each in moments if each[0] >= now - _LONGEST]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which numbers, and how many replicas there are now."""

    least: int
    most: int
    current: int


@dataclass(frozen=True, slots=True)
class Decision:
    """So many replicas; what the conditions AbleToScale and ScalingLimited say of it."""

    replicas: int
    able: tuple[str, str]
    limited: bool
    limit: tuple[str, str]


def tolerances(behavior: Object | None, usual: float) -> Tolerances:
    """How far from the target an autoscaler does nothing."""

    def of(name: str) -> float:
        given = ((behavior or {}).get(name) or {}).get("tolerance")
        return usual if given is None else to_milli(given) / 1000

    return Tolerances(of("scaleDown"), of("scaleUp"))


def decide(
    behavior: Object | None,
    history: History,
    desired: int,
    bounds: Bounds,
    now: datetime,
    down_window: float,
) -> Decision:
    """What is done of a recommendation. The caller notes it in the history afterwards.

    Args:
        down_window: seconds of the window for shrinking where the behavior has none.
    """
    if behavior is None:
        since = now - timedelta(seconds=down_window)
        recent = (replicas for moment, replicas in history.recommendations if moment >= since)
        stable = max(recent, default=desired)
        stable = max(stable, desired)
        able = READY if stable == desired else DOWN_STABILIZED
        replicas, limit = _plainly_limited(stable, bounds)
    else:
        up, down = rules(behavior, down_window)
        stable = _stabilized(history.recommendations, desired, bounds.current, up, down, now)
        if stable == desired:
            able = READY
        else:
            able = UP_STABILIZED if desired >= bounds.current else DOWN_STABILIZED
        replicas, limit = _limited(stable, bounds, history, up, down, now)
    return Decision(replicas, able, replicas != stable, limit)


def rules(behavior: Object, down_window: float) -> tuple[Object, Object]:
    """For growing and shrinking, with the defaults."""
    up = {**_UP, **(behavior.get("scaleUp") or {})}
    down = {
        "stabilizationWindowSeconds": down_window,
        **_DOWN,
        **(behavior.get("scaleDown") or {}),
    }
    return up, down


def _plainly_limited(desired: int, bounds: Bounds) -> tuple[int, tuple[str, str]]:
    fastest = max(_UP_FACTOR * bounds.current, _UP_LEAST)
    most, why = (fastest, TOO_FAST_UP) if bounds.most > fastest else (bounds.most, TOO_MANY)
    if desired < bounds.least:
        return bounds.least, TOO_FEW
    if desired > most:
        return most, why
    return desired, WITHIN


def _stabilized(
    recommendations: Sequence[Moment],
    desired: int,
    current: int,
    up: Object,
    down: Object,
    now: datetime,
) -> int:
    """As little away from ``current`` as the recommendations of either window allow."""

    def within(rule: Object) -> list[int]:
        since = now - timedelta(seconds=rule["stabilizationWindowSeconds"])
        return [replicas for moment, replicas in recommendations if moment > since]

    lowest = min([desired, *within(up)])
    highest = max([desired, *within(down)])
    return min(max(current, lowest), highest)


def _limited(
    desired: int, bounds: Bounds, history: History, up: Object, down: Object, now: datetime
) -> tuple[int, tuple[str, str]]:
    current = bounds.current
    if desired > current:
        fastest = max(current, _rate(up, current, history, now, growing=True))
        most, why = (fastest, TOO_FAST_UP) if bounds.most > fastest else (bounds.most, TOO_MANY)
        if desired > most:
            return most, why
    elif desired < current:
        fastest = min(current, _rate(down, current, history, now, growing=False))
        least, why = (fastest, TOO_FAST_DOWN) if bounds.least < fastest else (bounds.least, TOO_FEW)
        if desired < least:
            return least, why
    return desired, WITHIN


def _rate(rule: Object, current: int, history: History, now: datetime, *, growing: bool) -> int:
    """How far the policies let it come."""
    selection = rule.get("selectPolicy") or "Max"
    if selection == "Disabled":
        return current
    # The most change is the highest number when growing, the lowest when shrinking.
    choose: Callable[..., Any] = max if (selection == "Max") == growing else min
    return int(choose(_reach(p, current, history, now, growing) for p in rule["policies"]))


def _reach(policy: Object, current: int, history: History, now: datetime, growing: bool) -> int:
    since = now - timedelta(seconds=policy["periodSeconds"])
    added = sum(change for moment, change in history.ups if moment > since)
    removed = sum(change for moment, change in history.downs if moment > since)
    begun = current - added + removed
    value: int = policy["value"]
    if policy["type"] == "Pods":
        return begun + value if growing else begun - value
    if growing:
        return math.ceil(begun * (1 + value / 100))
    return int(begun * (1 - value / 100))
