"""Whether this node takes a pod that was bound to it. No I/O.

The scheduler has judged by what it knew; the kubelet knows what really is on the node. A pod that
is refused ends as Failed with the reasons of pkg/kubelet/lifecycle/predicate.go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.kube.api import amounts, meta, node_selection, quantity, taints
from wherry.kube.api.pods import lasting_containers
from wherry.kube.kubelet import pods, preemption, sysctls
from wherry.kube.kubelet.resources import BEST_EFFORT, qos_class, units

Object = dict[str, Any]

MEMORY_TAINT = {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pod may not be here: ``reason`` and ``message`` of its status."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Shortage:
    """More is asked for than is left of a resource; thousandths of a CPU, else whole units."""

    name: str
    requested: int
    used: int
    capacity: int

    @property
    def missing(self) -> int:
        """How much must be given back."""
        return self.requested - (self.capacity - self.used)

    @property
    def refusal(self) -> Refusal:
        """What a pod is told that is not worth another's end."""
        return Refusal(
            f"OutOf{self.name}",
            f"Node didn't have enough resource: {self.name}, requested: {self.requested}, "
            f"used: {self.used}, capacity: {self.capacity}",
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the node takes the pod, and who must go first.

    ``preempted`` go for want of ``scarce``.
    """

    refusal: Refusal | None = None
    preempted: Sequence[Object] = ()
    scarce: str = ""


def judge(
    pod: Object,
    others: Iterable[Object],
    node: Object,
    allocatable: Mapping[str, str],
    *,
    pressure: Collection[str] = (),
    unsafe_sysctls: Sequence[str] = (),
    shutting_down: bool = False,
) -> Verdict:
    """The first reason against the pod, or room for it.

    A critical pod is not refused for want of resources: pods that matter less go.

    Args:
        others: the pods of the node that have not ended.
        node: the Node, with its labels and taints.
        pressure: the node's conditions of pressure.
        unsafe_sysctls: those that may be set although they are not safe, ``net.*`` for families.
        shutting_down: the node is about to go.
    """
    if shutting_down:
        return Verdict(Refusal("NodeShutdown", "Pod was rejected as the node is shutting down."))
    neighbours = list(others)
    first = _under_pressure(pod, pressure) or _forbidden_sysctl(pod, unsafe_sysctls)
    if first is not None:
        return Verdict(first)
    shortages = _shortages(pod, neighbours, allocatable)
    if shortages and not pods.is_critical(pod):
        return Verdict(shortages[0].refusal)
    unfit = _unfit(pod, neighbours, node)
    if unfit is not None or not shortages:
        return Verdict(unfit)
    try:
        gone = preemption.victims(pod, neighbours, {s.name: s.missing for s in shortages})
    except preemption.NoRoom as fault:
        return Verdict(
            Refusal(
                "UnexpectedAdmissionError",
                "Unexpected error while attempting to recover from admission failure: "
                f"preemption: error finding a set of pods to preempt: {fault}",
            )
        )
    return Verdict(preempted=gone, scarce=shortages[0].name)


def _under_pressure(pod: Object, pressure: Collection[str]) -> Refusal | None:
    if not pressure or pods.is_critical(pod):
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


def _shortages(
    pod: Object, others: Sequence[Object], allocatable: Mapping[str, str]
) -> list[Shortage]:
    have = amounts.read(allocatable)
    short = []
    room = units("pods", have.get("pods", quantity.ZERO))
    if len(others) + 1 > room:
        short.append(Shortage("pods", 1, len(others), room))
    used: amounts.Amounts = {}
    for other in others:
        amounts.add(used, amounts.of_pod(other, "requests", overhead=True))
    for name, amount in amounts.of_pod(pod, "requests", overhead=True).items():
        if not amount or (name not in have and "/" in name):
            continue  # what nobody offers, as devices of a plugin that is gone, is not judged here
        asked, taken, whole = (
            units(name, each.get(name, quantity.ZERO)) for each in ({name: amount}, used, have)
        )
        if asked > whole - taken:
            short.append(Shortage(name, asked, taken, whole))
    return short


def _unfit(pod: Object, others: Sequence[Object], node: Object) -> Refusal | None:
    spec = pod["spec"]
    if not node_selection.matches(spec, meta.labels(node), meta.name(node)):
        return _failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
    taken = {port for other in others for port in _host_ports(other)}
    if any(_conflicts(port, taken) for port in _host_ports(pod)):
        return _failed("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    if not pods.is_static(pod):
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
    return {
        (port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", int(port["hostPort"]))
        for container in lasting_containers(pod["spec"])
        for port in container.get("ports") or ()
        if port.get("hostPort")
    }


def _conflicts(port: tuple[str, str, int], taken: Collection[tuple[str, str, int]]) -> bool:
    address, *rest = port
    return any(
        rest == others and (address == other or "0.0.0.0" in (address, other))
        for other, *others in taken
    )
