"""The conditions of a pod, from its phase and its containers' statuses. No I/O.

Follows pkg/kubelet/status/generate.go. Conditions of others (readiness gates) stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wherry.kube.api import meta, restarts
from wherry.kube.kubelet import pods, rounds
from wherry.kube.kubelet.view import PodRuntime

Object = dict[str, Any]


def conditions(
    pod: Object,
    runtime: PodRuntime,
    phase: str,
    init: list[Object],
    app: list[Object],
    now: str,
) -> list[Object]:
    """All of them, in upstream's order; ``init`` and ``app`` are the containers' statuses."""
    has_network = runtime.ready_sandbox is not None and (
        pods.is_host_network(pod) or bool(runtime.ips)
    )
    containers_ready = _containers_ready(init, app, pod, phase)
    made = [
        _condition("PodReadyToStartContainers", has_network),
        _initialized(pod, init, phase),
        _ready(pod, containers_ready),
        {**containers_ready, "type": "ContainersReady"},
        _condition("PodScheduled", True),
    ]
    old = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or ()}
    if restarts.may_restart_all(pod["spec"]):
        made.append(_restarting(rounds.is_ending(pod, runtime), phase))
        if old.get("Initialized", {}).get("status") == "True" and phase != "Succeeded":
            made[1] = _condition("Initialized", True)  # what begins anew was initialized before
    generation = meta.generation(pod)
    for condition in made:
        before = old.pop(condition["type"], None)
        unchanged = before is not None and before["status"] == condition["status"]
        condition["lastTransitionTime"] = (
            (before or {}).get("lastTransitionTime") or now if unchanged else now
        )
        if generation:
            condition["observedGeneration"] = generation
    # Conditions of others (readiness gates, DisruptionTarget) stay as they are.
    return made + list(old.values())


def _condition(type_: str, value: bool, reason: str = "", message: str = "") -> Object:
    condition: Object = {"type": type_, "status": "True" if value else "False"}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _initialized(pod: Object, init: list[Object], phase: str) -> Object:
    if phase == "Succeeded":
        return _condition("Initialized", True, "PodCompleted")
    by_name = {c["name"]: c for c in pods.init_containers(pod)}
    incomplete = [
        s["name"]
        for s in init
        if not (s.get("started") if pods.is_sidecar(by_name[s["name"]]) else s["ready"])
    ]
    if not incomplete:
        return _condition("Initialized", True)
    return _condition(
        "Initialized",
        False,
        "ContainersNotInitialized",
        f"containers with incomplete status: [{' '.join(incomplete)}]",
    )


def _restarting(value: bool, phase: str) -> Object:
    if phase in ("Succeeded", "Failed"):
        why = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        return _condition(rounds.CONDITION, False, why)
    if not value:
        return _condition(rounds.CONDITION, False)
    return _condition(rounds.CONDITION, True, rounds.REASON, rounds.MESSAGE)


def _containers_ready(init: list[Object], app: list[Object], pod: Object, phase: str) -> Object:
    if phase == "Succeeded":
        return _condition("ContainersReady", False, "PodCompleted")
    if phase == "Failed":
        return _condition("ContainersReady", False, "PodFailed")
    sidecars = {c["name"] for c in pods.init_containers(pod) if pods.is_sidecar(c)}
    members = [s for s in init if s["name"] in sidecars] + app
    unready = [s["name"] for s in members if not s["ready"]]
    if not unready:
        return _condition("ContainersReady", True)
    return _condition(
        "ContainersReady",
        False,
        "ContainersNotReady",
        f"containers with unready status: [{' '.join(unready)}]",
    )


def _ready(pod: Object, containers_ready: Object) -> Object:
    condition = {**containers_ready, "type": "Ready"}
    if condition["status"] != "True":
        return condition
    present = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or ()}
    missing, false = [], []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in present:
            missing.append(
                f'corresponding condition of pod readiness gate "{kind}" does not exist.'
            )
        elif present[kind] != "True":
            false.append(
                f'the status of pod readiness gate "{kind}" is not "True", but {present[kind]}'
            )
    if missing or false:
        return _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(missing + false))
    return condition


def with_nodes(
    pod: Object, present: list[Object], resize: Sequence[Object], disruption: str, now: str
) -> list[Object]:
    """``present`` with what the node has to say: a resize that waits, that the pod was put off."""
    ours = list(resize)
    gone = {"PodResizePending", "PodResizeInProgress"}
    if disruption:
        ours.append(
            {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "TerminationByKubelet",
                "message": disruption,
            }
        )
        gone.add("DisruptionTarget")
    old = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or ()}
    generation = meta.generation(pod)
    for condition in ours:
        before = old.get(condition["type"]) or {}
        condition["lastTransitionTime"] = before.get("lastTransitionTime") or now
        if generation:
            condition["observedGeneration"] = generation
    return [c for c in present if c["type"] not in gone] + ours
