"""What a disruption budget allows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cluster import Cluster

from wherry.kube.api.meta import format_time, name
from wherry.kube.api.resources import EVENTS, POD_DISRUPTION_BUDGETS, PODS
from wherry.kube.controllers.disruption import (
    Counts,
    counts,
    disrupted,
    failed,
    overdue,
    status,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def pod(name: str, *, ready: bool = True, deleting: bool = False) -> dict[str, Any]:
    metadata = {"name": name, **({"deletionTimestamp": format_time(NOW)} if deleting else {})}
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {"metadata": metadata, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("spec", "there", "scale", "wanted"),
    [
        ({"minAvailable": 2}, 3, 0, Counts(3, 2)),
        ({"minAvailable": "50%"}, 3, 5, Counts(5, 3)),
        ({"maxUnavailable": 1}, 3, 5, Counts(5, 4)),
        ({"maxUnavailable": "30%"}, 3, 5, Counts(5, 3)),
        ({"maxUnavailable": 9}, 3, 5, Counts(5, 0)),
        ({}, 3, 0, Counts(3, 0)),
    ],
)
def test_numbers_are_of_pods_and_percentages_of_what_owners_want(
    spec: dict[str, Any], there: int, scale: int, wanted: Counts
) -> None:
    assert counts(spec, there, scale) == wanted


def test_who_is_leaving_or_not_ready_is_not_healthy() -> None:
    budget = {"metadata": {"name": "b", "generation": 3}}
    found = [pod("a"), pod("b", ready=False), pod("c", deleting=True), pod("d")]
    told = status(budget, found, Counts(4, 1), {"d": format_time(NOW)}, format_time(NOW))
    assert (told["currentHealthy"], told["disruptionsAllowed"]) == (1, 0)
    assert (told["expectedPods"], told["observedGeneration"]) == (4, 3)
    assert told["disruptedPods"] == {"d": format_time(NOW)}
    assert told["conditions"][0]["reason"] == "InsufficientPods"


def test_a_budget_of_no_pods_allows_nothing() -> None:
    told = status({"metadata": {"name": "b"}}, [], Counts(0, 0), {}, format_time(NOW))
    assert told["disruptionsAllowed"] == 0


def test_who_was_to_go_and_has_not_is_forgotten_after_two_minutes() -> None:
    early, late = NOW - timedelta(minutes=3), NOW - timedelta(minutes=1)
    noted = {"a": format_time(early), "b": format_time(late), "gone": format_time(late)}
    budget = {"status": {"disruptedPods": noted}}
    going, again = disrupted(budget, [pod("a"), pod("b")], NOW)
    assert going == {"b": format_time(late)}
    assert again == late + timedelta(minutes=2)
    assert [name(p) for p in overdue(budget, [pod("a"), pod("b")], going)] == ["a"]


async def test_a_pod_of_two_budgets_is_told() -> None:
    async with Cluster("disruption-controller", kubelet=False) as cluster:
        for each in ("one", "two"):
            spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
            metadata = {"name": each, "namespace": "default"}
            await cluster.client.create(
                POD_DISRUPTION_BUDGETS, {"metadata": metadata, "spec": spec}
            )
        await cluster.settle()
        labels = {"labels": {"app": "web"}, "name": "p", "namespace": "default"}
        await cluster.client.create(PODS, {"metadata": labels, "spec": {"containers": []}})
        told = lambda: {e["reason"]: e["message"] for e in cluster.api.find(EVENTS)}  # noqa: E731
        await cluster.until(lambda: "MultiplePodDisruptionBudgets" in told())
        assert told()["MultiplePodDisruptionBudgets"] == (
            'Pod "default"/"p" matches multiple PodDisruptionBudgets.  Chose "one" arbitrarily.'
        )


def test_what_cannot_be_counted_allows_nothing_and_says_why() -> None:
    budget = {"metadata": {"name": "b"}, "status": {"disruptionsAllowed": 3}}
    told = failed(budget, "found no controllers", format_time(NOW))
    assert told["disruptionsAllowed"] == 0
    (said,) = told["conditions"]
    assert (said["status"], said["reason"], said["message"]) == (
        *("False", "SyncFailed"),
        "found no controllers",
    )
