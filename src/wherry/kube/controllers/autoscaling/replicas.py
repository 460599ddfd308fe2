"""How many replicas a figure asks for.

Values are thousandths, as integers. What pods that are not ready, or of which nothing was measured,
might use is guessed so that it holds back: nothing when growing, all of it when shrinking.
Upstream: pkg/controller/podautoscaler/replica_calculator.go, metrics/utilization.go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from wherry.kube.api import conditions, meta, pods
from wherry.kube.api.quantity import to_milli
from wherry.kube.client.transport import Object

_MOST = 2**31 - 1


class CannotCompute(Exception):
    """Nothing follows from what was measured; ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured of one pod: ``value`` over ``window``, which ended at ``timestamp``."""

    value: int
    timestamp: datetime
    window: timedelta


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How far from its target a ratio may be without consequence."""

    down: float = 0.1
    up: float = 0.1

    def within(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Timing:
    """``now``, and how long a pod's figures are doubted: ``initialization`` after its start while
    it is not ready, ``readiness`` is how soon after its start it can have become unready without
    ever having been ready."""

    now: datetime
    initialization: timedelta = timedelta(minutes=5)
    readiness: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Proposal:
    """So many replicas; ``usage`` is the average behind it, ``utilization`` the same as percentage
    of what was requested."""

    replicas: int
    usage: int
    utilization: int | None = None


@dataclass(frozen=True, slots=True)
class Groups:
    """Pods, by whether their figures count."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def group(
    found: Sequence[Object], figures: Mapping[str, Figure], resource: str, timing: Timing
) -> Groups:
    """Sort the pods; ``resource`` is empty where the figure is no resource."""
    ready, unready, missing, ignored = 0, set(), set(), set()
    for pod in found:
        name = meta.name(pod)
        figure = figures.get(name)
        if meta.is_deleting(pod) or pods.phase(pod) == "Failed":
            ignored.add(name)
        elif pods.phase(pod) == "Pending":
            unready.add(name)
        elif figure is None:
            missing.add(name)
        elif resource == "cpu" and _starting(pod, figure, timing):
            unready.add(name)
        else:
            ready += 1
    return Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _starting(pod: Object, figure: Figure, timing: Timing) -> bool:
    """Whether what it uses may be the cost of its start."""
    condition = conditions.of(pod, "Ready")
    started = (pod.get("status") or {}).get("startTime")
    if condition is None or not started:
        return True
    began = meta.parse_time(started)
    unready = condition.get("status") == "False"
    since = condition.get("lastTransitionTime")
    changed = meta.parse_time(since) if since else datetime.min.replace(tzinfo=began.tzinfo)
    if began + timing.initialization > timing.now:
        return unready or figure.timestamp < changed + figure.window
    return unready and began + timing.readiness > changed


def requests(found: Sequence[Object], container: str, resource: str) -> dict[str, int]:
    """What each pod requests (or its one container of that name).

    Raises:
        CannotCompute: one of them requests nothing.
    """
    return {meta.name(pod): _request(pod, container, resource) for pod in found}


def _request(pod: Object, container: str, resource: str) -> int:
    spec = pod.get("spec") or {}
    whole = (spec.get("resources") or {}).get("requests") or {}
    if whole and not container:
        if resource not in whole:
            raise CannotCompute(f"missing pod-level request for {resource} in Pod {meta.name(pod)}")
        return to_milli(whole[resource])
    total = 0
    for each in pods.lasting_containers(spec):
        if container and each["name"] != container:
            continue
        wanted = (each.get("resources") or {}).get("requests") or {}
        if resource not in wanted:
            raise CannotCompute(
                f"missing request for {resource} in container {each['name']} of "
                f"Pod {meta.name(pod)}"
            )
        total += to_milli(wanted[resource])
    return total


def for_utilization(
    current: int,
    target: int,
    found: Sequence[Object],
    figures: Mapping[str, Figure],
    container: str,
    resource: str,
    tolerances: Tolerances,
    timing: Timing,
) -> Proposal:
    """What brings the use of a resource to ``target`` percent of what is requested.

    Raises:
        CannotCompute: see its text.
    """
    _some(found)
    groups = group(found, figures, resource, timing)
    values = _counted(figures, groups)
    requested = requests(found, container, resource)
    if not values:
        raise CannotCompute("did not receive metrics for any ready pods")
    ratio, utilization, usage = _utilization(values, requested, target)

    def proposal(replicas: int) -> Proposal:
        return Proposal(replicas, usage, utilization)

    growing = bool(groups.unready) and ratio > 1.0
    if not growing and not groups.missing:
        if tolerances.within(ratio):
            return proposal(current)
        return proposal(_ceil(ratio * groups.ready))
    if ratio < 1.0:
        supposed = max(100, target)
        for name in groups.missing:
            values[name] = _quotient(requested[name] * supposed, 100)
    elif ratio > 1.0:
        values.update(dict.fromkeys(groups.missing, 0))
    if growing:
        values.update(dict.fromkeys(groups.unready, 0))
    again, _, _ = _utilization(values, requested, target)
    return proposal(_guarded(current, ratio, again, len(values), tolerances))


def for_average(
    current: int,
    target: int,
    found: Sequence[Object],
    figures: Mapping[str, Figure],
    resource: str,
    tolerances: Tolerances,
    timing: Timing,
) -> Proposal:
    """What brings the average over the pods to ``target``.

    Raises:
        CannotCompute: see its text.
    """
    _some(found)
    groups = group(found, figures, resource, timing)
    values = _counted(figures, groups)
    if not values:
        raise CannotCompute("did not receive metrics for any ready pods")
    usage = _average(values)
    ratio = usage / target
    growing = bool(groups.unready) and ratio > 1.0
    if not growing and not groups.missing:
        if tolerances.within(ratio):
            return Proposal(current, usage)
        return Proposal(_ceil(ratio * groups.ready), usage)
    values.update(dict.fromkeys(groups.missing, target if ratio < 1.0 else 0))
    if growing:
        values.update(dict.fromkeys(groups.unready, 0))
    again = _average(values) / target
    return Proposal(_guarded(current, ratio, again, len(values), tolerances), usage)


def for_value(
    current: int, target: int, value: int, found: Sequence[Object], tolerances: Tolerances
) -> Proposal:
    """What brings one figure that all replicas share to ``target``; from nothing, whatever is
    measured asks for.

    Raises:
        CannotCompute: there are no pods.
    """
    ratio = value / target
    if current == 0:
        return Proposal(_ceil(ratio), value)
    if tolerances.within(ratio):
        return Proposal(current, value)
    try:
        _some(found)
    except CannotCompute as error:
        raise CannotCompute(f"unable to calculate ready pods: {error}") from error
    ready = sum(1 for pod in found if pods.phase(pod) == "Running" and pods.is_ready(pod))
    return Proposal(_ceil(ratio * ready), value)


def for_value_per_pod(replicas: int, target: int, value: int, tolerances: Tolerances) -> Proposal:
    """What brings each replica's part of one figure to ``target``; ``replicas`` is how many
    there are."""
    if replicas and tolerances.within(value / (target * replicas)):
        wanted = replicas
    else:
        wanted = _ceil(value / target)
    return Proposal(wanted, math.ceil(value / replicas) if replicas else value)


def _some(found: Sequence[Object]) -> None:
    if not found:
        raise CannotCompute("no pods returned by selector while calculating replica count")


def _counted(figures: Mapping[str, Figure], groups: Groups) -> dict[str, int]:
    """What counts at first: also what was measured of pods that nobody knows any more."""
    out = groups.ignored | groups.unready
    return {name: figure.value for name, figure in figures.items() if name not in out}


def _guarded(current: int, ratio: float, again: float, count: int, tolerances: Tolerances) -> int:
    """What the ratio with all guesses asks for, where it still points to the same side."""
    if tolerances.within(again) or (ratio < 1.0 < again) or (again < 1.0 < ratio):
        return current
    replicas = _ceil(again * count)
    if (again < 1.0 and replicas > current) or (again > 1.0 and replicas < current):
        return current
    return replicas


def _utilization(
    values: Mapping[str, int], requested: Mapping[str, int], target: int
) -> tuple[float, int, int]:
    """The ratio to the target, the percentage, the average."""
    known = [name for name in values if name in requested]
    total = sum(values[name] for name in known)
    wanted = sum(requested[name] for name in known)
    if wanted == 0:
        raise CannotCompute("no metrics returned matched known pods")
    percentage = _quotient(total * 100, wanted)
    return percentage / target, percentage, _quotient(total, len(known))


def _average(values: Mapping[str, int]) -> int:
    return _quotient(sum(values.values()), len(values))


def _quotient(number: int, divisor: int) -> int:
    """Cut towards zero."""
    return number // divisor if number >= 0 else -(-number // divisor)


def _ceil(number: float) -> int:
    return min(math.ceil(number), _MOST)
