"""Other requests and limits for containers that run (``kubectl patch --subresource resize``).

What a pod *holds* is what the kubelet has granted it; what its spec says is only wanted. A resize
is granted when the node has room, and then carried out on the running containers, or by starting
them anew where their ``resizePolicy`` says so. The API is the memory: ``allocatedResources`` and
``resources`` of the statuses.
https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wherry.kube.api import amounts, quantity
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.resources import units

Object = dict[str, Any]
Allocation = dict[str, Object]
"""``resources`` by container."""

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` is empty where the resize is granted, else Deferred or Infeasible."""

    reason: str = ""
    message: str = ""


def _resizable(pod: Object) -> list[Object]:
    return [*pods.containers(pod), *(c for c in pods.init_containers(pod) if pods.is_sidecar(c))]


def wanted(pod: Object) -> Allocation:
    """What the spec asks for."""
    return {c["name"]: c.get("resources") or {} for c in _resizable(pod)}


def remembered(pod: Object) -> Allocation:
    """What the pod held according to its status; what it asks for where that says nothing."""
    told = {
        s["name"]: s
        for field in ("containerStatuses", "initContainerStatuses")
        for s in (pod.get("status") or {}).get(field) or ()
    }
    found = wanted(pod)
    for name, asked in found.items():
        status = told.get(name) or {}
        if "running" not in (status.get("state") or {}) or "resources" not in status:
            continue
        held = dict(status["resources"])
        if status.get("allocatedResources"):
            held["requests"] = status["allocatedResources"]
        found[name] = asked if same(held, asked) else held
    return found


def same(one: Object, other: Object) -> bool:
    """Whether two ``resources`` mean the same."""
    return all(
        amounts.read(one.get(side)) == amounts.read(other.get(side))
        for side in ("requests", "limits")
    )


def changed(held: Allocation, asked: Allocation) -> list[str]:
    """The containers that are to be resized."""
    return [name for name, new in asked.items() if not same(held.get(name, new), new)]


def holding(pod: Object, held: Allocation) -> Object:
    """The pod as if its spec asked for what it holds."""
    if not changed(held, wanted(pod)):
        return pod
    spec = dict(pod["spec"])
    for kind in ("containers", "initContainers"):
        if kind in spec:
            spec[kind] = [
                {**c, "resources": held[c["name"]]} if c["name"] in held else c for c in spec[kind]
            ]
    return {**pod, "spec": spec}


def decide(pod: Object, others: Iterable[Object], allocatable: Mapping[str, str]) -> Verdict:
    """Whether the node has room for the pod as its spec wants it.

    ``others`` are the other pods of the node as they hold, ``allocatable`` the node's.
    """
    if pods.is_static(pod):
        return Verdict("Infeasible", "In-place resize of static-pods is not supported")
    have = amounts.read(allocatable)
    asked = amounts.of_pod(pod, "requests", overhead=True)
    used: amounts.Amounts = {}
    for other in others:
        amounts.add(used, amounts.of_pod(other, "requests", overhead=True))
    for name in ("cpu", "memory"):
        whole = units(name, have.get(name, quantity.ZERO))
        request = units(name, asked.get(name, quantity.ZERO))
        if request > whole:
            return Verdict(
                "Infeasible",
                f"Node didn't have enough capacity: {name}, requested: {request}, "
                f"capacity: {whole}",
            )
    for name in ("cpu", "memory"):
        whole = units(name, have.get(name, quantity.ZERO))
        request = units(name, asked.get(name, quantity.ZERO))
        taken = units(name, used.get(name, quantity.ZERO))
        if request > whole - taken:
            return Verdict(
                "Deferred",
                f"Node didn't have enough resource: {name}, requested: {request}, "
                f"used: {taken}, capacity: {whole}",
            )
    return Verdict()


def must_restart(container: Object, old: Object, new: Object) -> bool:
    """Whether ``resizePolicy`` wants the container started anew for this change."""
    policies = {p["resourceName"]: p["restartPolicy"] for p in container.get("resizePolicy") or ()}
    for name, policy in policies.items():
        for side in ("requests", "limits"):
            before, after = (amounts.read(r.get(side)).get(name) for r in (old, new))
            if before != after and policy == "RestartContainer":
                return True
    return False


def conditions(verdict: Verdict, error: str, *, busy: bool) -> list[Object]:
    """What the pod's status says of a resize."""
    found: list[Object] = []
    if verdict.reason:
        found.append(
            {
                "type": PENDING,
                "status": "True",
                "reason": verdict.reason,
                "message": verdict.message,
            }
        )
    if error:
        found.append({"type": IN_PROGRESS, "status": "True", "reason": "Error", "message": error})
    elif busy:
        found.append({"type": IN_PROGRESS, "status": "True"})
    return found


def summary(pod: Object) -> Object:
    """The resize as events tell it."""
    return {
        "containers": [
            {"name": c["name"], "resources": c.get("resources") or {}} for c in _resizable(pod)
        ],
        "generation": (pod.get("metadata") or {}).get("generation", 0),
    }
