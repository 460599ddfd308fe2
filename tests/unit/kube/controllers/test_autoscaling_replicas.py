"""How many replicas follow from figures: tables, and what holds for all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.kube.api import meta
from wherry.kube.controllers.autoscaling import replicas
from wherry.kube.controllers.autoscaling.replicas import (
    CannotCompute,
    Figure,
    Timing,
    Tolerances,
    for_average,
    for_utilization,
    for_value,
    for_value_per_pod,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TIMING = Timing(NOW)
TEN = Tolerances()


def ago(**span: float) -> str:
    return meta.format_time(NOW - timedelta(**span))


def pod(
    name: str,
    cpu: str | None = "1",
    *,
    phase: str = "Running",
    ready: bool | None = True,
    started: str | None = ago(hours=1),
    changed: str = ago(hours=1),
    **more: Any,
) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "app"}
    if cpu is not None:
        container["resources"] = {"requests": {"cpu": cpu}}
    status: dict[str, Any] = {"phase": phase}
    if started:
        status["startTime"] = started
    if ready is not None:
        state = "True" if ready else "False"
        status["conditions"] = [{"type": "Ready", "status": state, "lastTransitionTime": changed}]
    return {
        "metadata": {"name": name, **more},
        "spec": {"containers": [container]},
        "status": status,
    }


def figures(*values: int | None) -> dict[str, Figure]:
    return {f"p{i}": Figure(v, NOW, MINUTE) for i, v in enumerate(values) if v is not None}


def alike(count: int, **more: Any) -> list[dict[str, Any]]:
    return [pod(f"p{i}", **more) for i in range(count)]


def utilization(
    current: int, target: int, found: list[dict[str, Any]], *values: int | None
) -> replicas.Proposal:
    return for_utilization(current, target, found, figures(*values), "", "cpu", TEN, TIMING)


@pytest.mark.parametrize(
    ("current", "target", "values", "wanted", "percentage"),
    [
        (3, 30, (300, 500, 700), 5, 50),  # grows by the ratio of the sums
        (3, 50, (100, 100, 100), 1, 10),  # shrinks
        (3, 100, (1010, 1030, 1020), 3, 102),  # within the tolerance
        (3, 100, (920, 910, 915), 3, 91),
        (4, 30, (300, 500, 700, None), 5, 50),  # the fourth is supposed to use nothing
        (4, 60, (100, 100, 100, None), 3, 10),  # the fourth is supposed to use all it asks for
        (5, 50, (600, 600, None, None, None), 5, 60),  # the missing turn the direction: nothing
        (2, 50, (1000, 1000), 4, 100),
        (1, 100, (100,), 1, 10),
    ],
)
def test_replicas_follow_the_utilization(
    current: int, target: int, values: tuple[int | None, ...], wanted: int, percentage: int
) -> None:
    proposal = utilization(current, target, alike(current), *values)
    assert (proposal.replicas, proposal.utilization) == (wanted, percentage)


def test_pods_that_are_not_ready_use_nothing_when_growing() -> None:
    found = [pod("p0", ready=False, started=ago(minutes=2), changed=ago(minutes=2)), *alike(3)[1:]]
    # Two that are ready use 600 of 1000: with the third at nothing that is 40 %, 4/3 of the target.
    assert utilization(3, 30, found, 900, 600, 600).replicas == 4


def test_pending_and_failed_pods_do_not_count() -> None:
    found = [*alike(2), pod("p2", phase="Pending", ready=None, started=None)]
    assert utilization(3, 50, found, 300, 300).replicas == 2  # shrinking: nobody counts it
    failed = [*alike(2), pod("p2", phase="Failed"), pod("p3", deletionTimestamp=ago(seconds=1))]
    assert utilization(2, 50, failed, 1000, 1000, 5000, 5000).replicas == 4


@pytest.mark.parametrize(
    ("ready", "started", "changed", "counts"),
    [
        (True, ago(minutes=2), ago(minutes=2), True),
        (True, ago(minutes=2), ago(seconds=30), False),  # less than a window since it was ready
        (False, ago(minutes=2), ago(minutes=1), False),
        (False, ago(minutes=10), ago(minutes=9, seconds=45), False),  # never was ready
        (False, ago(minutes=10), ago(minutes=1), True),  # was ready, is not now
        (None, ago(minutes=10), ago(minutes=1), False),  # nothing is known
        (True, None, ago(minutes=1), False),
    ],
)
def test_cpu_of_a_starting_pod_is_doubted(
    ready: bool | None, started: str | None, changed: str, counts: bool
) -> None:
    found = [pod("p0", ready=ready, started=started, changed=changed)]
    assert (replicas.group(found, figures(500), "cpu", TIMING).ready == 1) is counts
    assert replicas.group(found, figures(500), "memory", TIMING).ready == 1


def test_a_restarting_init_container_requests_too_and_a_pods_own_request_holds_for_all() -> None:
    sidecar = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}}
    found = pod("p0")
    found["spec"]["initContainers"] = [sidecar, {"name": "once"}]
    assert replicas.requests([found], "", "cpu") == {"p0": 1500}
    assert replicas.requests([found], "s", "cpu") == {"p0": 500}
    found["spec"]["resources"] = {"requests": {"cpu": "4"}}
    assert replicas.requests([found], "", "cpu") == {"p0": 4000}
    assert replicas.requests([found], "app", "cpu") == {"p0": 1000}


@pytest.mark.parametrize(
    ("found", "values", "text"),
    [
        ([], (), "no pods returned by selector while calculating replica count"),
        ([pod("p0", cpu=None)], (1,), "missing request for cpu in container app of Pod p0"),
        ([pod("p0", phase="Pending")], (1,), "did not receive metrics for any ready pods"),
        ([pod("other")], (1,), "no metrics returned matched known pods"),
    ],
)
def test_why_nothing_follows(found: list[Any], values: tuple[int, ...], text: str) -> None:
    with pytest.raises(CannotCompute, match=f"^{text}$"):
        utilization(1, 50, found, *values)


@pytest.mark.parametrize(
    ("current", "target", "values", "wanted"),
    [
        (3, 15_000, (20_000, 10_000, 30_000), 4),
        (3, 20_000, (10_000, 10_000, 10_000), 2),
        (3, 20_000, (20_000, 20_000, 21_000), 3),
        (3, 15_000, (20_000, 25_000, None), 3),  # the missing one at nothing: 15 000, the target
        (3, 15_000, (5_000, 5_000, None), 2),
    ],
)
def test_replicas_follow_the_average(
    current: int, target: int, values: tuple[int | None, ...], wanted: int
) -> None:
    found = alike(current)
    proposal = for_average(current, target, found, figures(*values), "", TEN, TIMING)
    assert proposal.replicas == wanted


@pytest.mark.parametrize(
    ("current", "target", "value", "wanted"),
    [
        (3, 1000, 2000, 6),
        (3, 1000, 1090, 3),
        (0, 1000, 2500, 3),  # from nothing
        (0, 1000, 0, 0),
        (3, 1000, 0, 0),
    ],
)
def test_replicas_follow_one_figure(current: int, target: int, value: int, wanted: int) -> None:
    assert for_value(current, target, value, alike(current), TEN).replicas == wanted


def test_replicas_follow_each_ones_part_of_a_figure() -> None:
    assert for_value_per_pod(3, 2000, 8600, TEN) == replicas.Proposal(5, 2867)
    assert for_value_per_pod(3, 2000, 6100, TEN).replicas == 3
    assert for_value_per_pod(0, 2000, 6000, TEN) == replicas.Proposal(3, 6000)
    assert for_value_per_pod(0, 2000, 0, TEN).replicas == 0


def test_tolerances_differ_by_direction() -> None:
    eager = Tolerances(down=0.5, up=0.0)
    found = alike(4)

    def of(value: int) -> int:
        measured = figures(*[value] * 4)
        return for_utilization(4, 50, found, measured, "", "cpu", eager, TIMING).replicas

    assert of(510) == 5
    assert of(300) == 4
    assert of(200) == 2


amounts = st.lists(st.one_of(st.none(), st.integers(0, 5000)), min_size=1, max_size=12)


@given(amounts, st.integers(1, 200), st.floats(0, 0.5))
def test_nothing_changes_within_the_tolerance(
    values: list[int | None], target: int, tolerance: float
) -> None:
    if all(v is None for v in values):
        return
    found = alike(len(values))
    tolerances = Tolerances(tolerance, tolerance)
    proposal = for_utilization(
        len(values), target, found, figures(*values), "", "cpu", tolerances, TIMING
    )
    assert proposal.utilization is not None
    ratio = proposal.utilization / target
    if tolerances.within(ratio):
        if None not in values:
            assert proposal.replicas == len(values)
    elif ratio > 1:
        assert proposal.replicas >= len(values)
    else:
        assert proposal.replicas <= len(values)


@given(amounts, st.integers(1, 200))
def test_pods_without_figures_hold_back(values: list[int | None], target: int) -> None:
    known = [v for v in values if v is not None]
    if not known:
        return
    found = alike(len(values))
    with_gaps = utilization(len(values), target, found, *values).replicas
    measured = {f"p{i}": Figure(v or 0, NOW, MINUTE) for i, v in enumerate(values)}
    idle = for_utilization(len(values), target, found, measured, "", "cpu", TEN, TIMING).replicas
    # Never more than if they used nothing, unless that is what there is.
    assert with_gaps <= max(idle, len(values))
