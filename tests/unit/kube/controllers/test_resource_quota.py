from __future__ import annotations

from typing import Any

from wherry.kube.api.quota import reservations, usage
from wherry.kube.api.quota.reservations import Reservation
from wherry.kube.api.resources import CONFIG_MAPS, PODS
from wherry.kube.controllers.resource_quota import freed, recount

NOW = 1_800_000_000.0


def pod(name: str, phase: str = "Running") -> dict[str, Any]:
    metadata = {"name": name, "uid": name, "resourceVersion": "1"}
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": phase},
    }


def quota(**hard: str) -> dict[str, Any]:
    return {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}}


def test_everything_there_is_is_counted() -> None:
    body = quota(pods="5", configmaps="3", widgets="1")
    objects: Any = {PODS: [pod("a"), pod("b", "Failed")], CONFIG_MAPS: [pod("c")]}
    counted, reserved = recount(body, objects, NOW)
    assert counted["status"] == {
        "hard": {"pods": "5", "configmaps": "3", "widgets": "1"},
        "used": {"pods": "1", "configmaps": "1"},
    }
    assert not reserved


def test_what_is_reserved_and_not_there_yet_counts_too() -> None:
    noted = {uid: Reservation({"pods": usage.ONE}, NOW + 60) for uid in ("a", "z")}
    body = reservations.write(quota(pods="5"), noted)
    counted, reserved = recount(body, {PODS: [pod("a")]}, NOW)
    assert counted["status"]["used"] == {"pods": "2"}
    assert reserved
    assert reservations.read(counted).keys() == {"z"}
    counted, reserved = recount(body, {PODS: [pod("a")]}, NOW, {"z"})
    assert counted["status"]["used"] == {"pods": "1"}
    assert not reserved


def test_only_what_uses_less_is_worth_a_count() -> None:
    assert freed(PODS, pod("a"), pod("a", "Succeeded"), NOW)
    assert not freed(PODS, pod("a", "Pending"), pod("a"), NOW)
