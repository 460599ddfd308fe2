"""Whether this node takes a pod that was bound to it. No I/O.

The scheduler has judged by what it knew; the kubelet knows what really is on the node. A pod that
is refused ends as Failed with the reasons of pkg/kubelet/lifecycle/predicate.go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.kube.api import amounts, meta, node_selection, quantity, taints
from wherry.kube.kubelet import sysctls
from wherry.kube.kubelet.resources import BEST_EFFORT, SYSTEM_CRITICAL_PRIORITY, qos_class

Object = dict[str, Any]

SOURCE, MIRROR = "kubernetes.io/config.source", "kubernetes.io/config.mirror"
MEMORY_TAINT = {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pod may not be here: ``reason`` and ``message`` of its status."""

    reason: str
    message: str


def is_static(pod: Object) -> bool:
    """Whether the pod comes from this node's own files."""
    annotations = meta.annotations(pod)
    return MIRROR in annotations or annotations.get(SOURCE, "api") != "api"


def is_critical(pod: Object) -> bool:
    """Whether the node is worth nothing without the pod: it is never put off."""
    return is_static(pod) or int(pod["spec"].get("priority") or 0) >= SYSTEM_CRITICAL_PRIORITY


def refuse(
    pod: Object,
    others: Iterable[Object],
    node: Object,
    allocatable: Mapping[str, str],
    *,
    pressure: Collection[str] = (),
    unsafe_sysctls: Sequence[str] = (),
    shutting_down: bool = False,
) -> Refusal | None:
    """The first reason against the pod, None where there is none.

    Args:
        others: the pods of the node that have not ended.
        node: the Node, with its labels and taints.
        pressure: the node's conditions of pressure.
        unsafe_sysctls: those that may be set although they are not safe, ``net.*`` for families.
        shutting_down: the node is about to go.
    """
    if shutting_down:
        return Refusal("NodeShutdown", "Pod was rejected as the node is shutting down.")
    return (
        _under_pressure(pod, pressure)
        or _forbidden_sysctl(pod, unsafe_sysctls)
        or _short_of(pod, list(others), allocatable)
        or _unfit(pod, list(others), node)
    )


def _under_pressure(pod: Object, pressure: Collection[str]) -> Refusal | None:
    if not pressure or is_critical(pod):
        return None
    if set(pressure) == {"MemoryPressure"}:
        tolerations = pod["spec"].get("tolerations") or ()
        if qos_class(pod) != BEST_EFFORT or any(
            taints.tolerates(t, MEMORY_TAINT) for t in tolerations
        ):
            return None
    return Refusal("Evicted", f"The node had condition: [{' '.join(sorted(pressure))}]. ")


def _forbidden_sysctl(pod: Object, allowed: Sequence[str]) -> Refusal | None:
    fault = sysctls.fault(pod, allowed)
    return Refusal(sysctls.REASON, fault) if fault else None


def value(name: str, amount: quantity.Quantity) -> int:
    """An amount as the node counts it: thousandths of a CPU, else whole units."""
    return amount.to_milli() if name == "cpu" else amount.to_int()


def _short_of(
    pod: Object, others: Sequence[Object], allocatable: Mapping[str, str]
) -> Refusal | None:
    have = amounts.read(allocatable)
    pods = value("pods", have.get("pods", quantity.ZERO))
    if len(others) + 1 > pods:
        return _out_of("pods", 1, len(others), pods)
    wanted = amounts.of_pod(pod, "requests", overhead=True)
    used: amounts.Amounts = {}
    for other in others:
        amounts.add(used, amounts.of_pod(other, "requests", overhead=True))
    for name, amount in wanted.items():
        if not amount or name not in have:
            continue  # what nobody offers, as devices of a plugin that is gone, is not judged here
        taken, whole = value(name, used.get(name, quantity.ZERO)), value(name, have[name])
        if value(name, amount) > whole - taken:
            return _out_of(name, value(name, amount), taken, whole)
    return None


def _out_of(name: str, requested: int, used: int, capacity: int) -> Refusal:
    return Refusal(
        f"OutOf{name}",
        f"Node didn't have enough resource: {name}, requested: {requested}, used: {used}, "
        f"capacity: {capacity}",
    )


def _unfit(pod: Object, others: Sequence[Object], node: Object) -> Refusal | None:
    spec = pod["spec"]
    if not node_selection.matches(spec, meta.labels(node), meta.name(node)):
        return _failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
    taken = {port for other in others for port in _host_ports(other)}
    if any(_conflicts(port, taken) for port in _host_ports(pod)):
        return _failed("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    if not is_static(pod):
        tolerations = spec.get("tolerations") or ()
        for taint in (node.get("spec") or {}).get("taints") or ():
            if taint.get("effect") == "NoExecute" and not any(
                taints.tolerates(t, taint) for t in tolerations
            ):
                return _failed("TaintToleration", "node(s) had untolerated taint(s)")
    return None


def _failed(predicate: str, why: str) -> Refusal:
    return Refusal(predicate, f"Predicate {predicate} failed: {why}")


def _host_ports(pod: Object) -> set[tuple[str, str, int]]:
    running = list(pod["spec"].get("containers") or ())
    running += [
        c for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"
    ]
    return {
        (port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", int(port["hostPort"]))
        for container in running
        for port in container.get("ports") or ()
        if port.get("hostPort")
    }


def _conflicts(port: tuple[str, str, int], taken: Collection[tuple[str, str, int]]) -> bool:
    address, *rest = port
    return any(
        rest == others and (address == other or "0.0.0.0" in (address, other))
        for other, *others in taken
    )
