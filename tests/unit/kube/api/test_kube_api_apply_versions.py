"""Managers who spoke different versions of the API: each is asked in its own."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.kube.api.apply import apply, track_update
from wherry.kube.api.catalogue import STATIC
from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds import Kind
from wherry.kube.api.merge_types import MergeType

V1 = STATIC.by_kind("autoscaling", "v1", "HorizontalPodAutoscaler")
V2 = STATIC.by_kind("autoscaling", "v2", "HorizontalPodAutoscaler")
assert V1 is not None
assert V2 is not None


def _in_version(o: dict[str, Any], api_version: str) -> tuple[dict[str, Any], MergeType] | None:
    def find(name: str) -> Kind | None:
        group, _, version = name.rpartition("/")
        return STATIC.by_kind(group, version, "HorizontalPodAutoscaler")

    spoken, wanted = find(o["apiVersion"]), find(api_version)
    if spoken is None or wanted is None:
        return None
    if spoken is not wanted:
        o = wanted.from_stored(spoken.to_stored(o))
    return o, wanted.merge_type()


def _apply(
    kind: Kind, live: dict[str, Any] | None, manager: str, *, force: bool = False, **spec: Any
) -> dict[str, Any]:
    """What applying a spec in a version makes of the stored ``live``, as it is stored."""
    o = {
        "apiVersion": kind.resource.api_version,
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": spec,
    }
    made = apply(
        kind.resource,
        None if live is None else kind.from_stored(live),
        o,
        manager,
        force=force,
        now="2026-01-01T00:00:00Z",
        shape=kind.merge_type(),
        in_version=_in_version,
    )
    return kind.to_stored(made)


def _owned(o: dict[str, Any]) -> dict[str, tuple[str, set[str]]]:
    return {
        entry["manager"]: (entry["apiVersion"], set(entry["fieldsV1"].get("f:spec", ())))
        for entry in o["metadata"]["managedFields"]
    }


def _cpu(utilization: int) -> list[dict[str, Any]]:
    target = {"type": "Utilization", "averageUtilization": utilization}
    return [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def test_a_conflict_is_found_and_named_in_the_others_version() -> None:
    live = _apply(V1, None, "a", maxReplicas=3, targetCPUUtilizationPercentage=50)
    assert live["spec"]["metrics"] == _cpu(50)
    with pytest.raises(StatusError) as refused:
        _apply(V2, live, "b", maxReplicas=3, metrics=_cpu(70))
    assert ".spec.targetCPUUtilizationPercentage" in refused.value.message
    made = _apply(V2, live, "b", force=True, maxReplicas=3, metrics=_cpu(70))
    assert _owned(made) == {
        "a": ("autoscaling/v1", {"f:maxReplicas"}),
        "b": ("autoscaling/v2", {"f:maxReplicas", "f:metrics"}),
    }


def test_the_same_value_in_another_version_is_no_conflict() -> None:
    live = _apply(V1, None, "a", maxReplicas=3, targetCPUUtilizationPercentage=50)
    made = _apply(V2, live, "b", maxReplicas=3, metrics=_cpu(50))
    assert _owned(made)["a"] == (
        "autoscaling/v1",
        {"f:maxReplicas", "f:targetCPUUtilizationPercentage"},
    )


def test_what_was_applied_in_one_version_goes_when_it_is_not_in_the_other() -> None:
    live = _apply(V1, None, "a", minReplicas=2, maxReplicas=3)
    made = _apply(V2, live, "a", maxReplicas=3)
    assert "minReplicas" not in made["spec"]
    assert _owned(made) == {"a": ("autoscaling/v2", {"f:maxReplicas"})}


def test_what_another_holds_in_another_version_stays() -> None:
    live = _apply(V1, None, "a", minReplicas=2, maxReplicas=3)
    live = _apply(V2, live, "b", minReplicas=2, maxReplicas=3)
    made = _apply(V2, live, "a", maxReplicas=3)
    assert made["spec"]["minReplicas"] == 2
    assert _owned(made)["b"] == ("autoscaling/v2", {"f:maxReplicas", "f:minReplicas"})


def test_an_update_takes_what_it_changes_from_all_versions() -> None:
    live = _apply(V1, None, "a", maxReplicas=3, targetCPUUtilizationPercentage=50)
    new = {**live, "metadata": dict(live["metadata"]), "spec": {**live["spec"], "metrics": _cpu(9)}}
    track_update(V2.resource, live, new, "b", now="2026-01-02T00:00:00Z", in_version=_in_version)
    assert _owned(new) == {
        "a": ("autoscaling/v1", {"f:maxReplicas"}),
        "b": ("autoscaling/v2", {"f:metrics"}),
    }


def test_who_spoke_a_version_that_is_gone_is_forgotten() -> None:
    live = _apply(V2, None, "a", maxReplicas=3)
    live["metadata"]["managedFields"][0]["apiVersion"] = "autoscaling/v2alpha1"
    made = _apply(V2, live, "b", maxReplicas=4)
    assert list(_owned(made)) == ["b"]
