"""What a container may use: quality of service, CPU shares and quota, memory, OOM score, cgroups.

Numbers as in pkg/kubelet/cm/helpers_linux.go, pkg/kubelet/qos/policy.go and
https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wherry.engine.cri.types import LinuxResources
from wherry.kube.api import meta, quantity
from wherry.kube.kubelet import pods

Object = dict[str, Any]

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
PERIOD = 100_000  # µs of the CPU quota's period
MIN_QUOTA = 1_000  # µs: the kernel takes no less
MIN_SHARES, MAX_SHARES = 2, 262_144
SYSTEM_CRITICAL_PRIORITY = 2_000_000_000


def amount(container: Object, kind: str, resource: str) -> quantity.Quantity | None:
    """``container``'s ``requests`` or ``limits`` of ``resource``, None where it has none."""
    values = (container.get("resources") or {}).get(kind) or {}
    text = values.get(resource)
    return None if text is None else quantity.parse(str(text))


def qos_class(pod: Object) -> str:
    """The pod's quality of service."""
    members = [*pods.init_containers(pod), *pods.containers(pod)]
    pod_level = {"resources": pod["spec"].get("resources") or {}}
    if any(pod_level["resources"].values()):
        members = [pod_level]
    if not any(_amounts(c, kind) for c in members for kind in ("requests", "limits")):
        return BEST_EFFORT
    return GUARANTEED if all(_is_guaranteed(c) for c in members) else BURSTABLE


def _amounts(container: Object, kind: str) -> dict[str, quantity.Quantity]:
    found = {name: amount(container, kind, name) for name in ("cpu", "memory")}
    return {name: value for name, value in found.items() if value}


def _is_guaranteed(container: Object) -> bool:
    limits = _amounts(container, "limits")
    requests = _amounts(container, "requests")
    return len(limits) == 2 and all(requests.get(k, v) == v for k, v in limits.items())


def cgroup_parent(pod: Object) -> str:
    """Where the pod's containers lie below the node's own cgroup."""
    leaf = f"pod{meta.uid(pod)}"
    kind = qos_class(pod)
    return f"kubepods/{leaf}" if kind == GUARANTEED else f"kubepods/{kind.lower()}/{leaf}"


def cpu_shares(milli: int) -> int:
    """The weight of ``milli`` thousandths of a CPU."""
    return max(MIN_SHARES, min(MAX_SHARES, milli * 1024 // 1000))


def cpu_quota(milli: int) -> int:
    """µs of each period that ``milli`` thousandths of a CPU are."""
    return max(MIN_QUOTA, milli * PERIOD // 1000)


def oom_score_adjustment(pod: Object, container: Object, memory_capacity: int) -> int:
    """How readily the kernel kills it when memory runs out (-1000 never … 1000 first)."""
    if int(pod["spec"].get("priority") or 0) >= SYSTEM_CRITICAL_PRIORITY:
        return -997
    kind = qos_class(pod)
    if kind == GUARANTEED:
        return -997
    if kind == BEST_EFFORT:
        return 1000
    request = amount(container, "requests", "memory")
    wanted = request.to_int() if request else 0
    return max(3, min(999, 1000 - 1000 * wanted // max(memory_capacity, 1)))


def linux_resources(pod: Object, container: Object, memory_capacity: int) -> LinuxResources:
    """The container's limits in the kernel's units."""
    cpu_limit = amount(container, "limits", "cpu")
    cpu_request = amount(container, "requests", "cpu") or cpu_limit
    memory_limit = amount(container, "limits", "memory")
    return LinuxResources(
        cpu_shares=cpu_shares(cpu_request.to_milli() if cpu_request else 0),
        cpu_quota=cpu_quota(cpu_limit.to_milli()) if cpu_limit else 0,
        cpu_period=PERIOD if cpu_limit else 0,
        memory_limit=memory_limit.to_int() if memory_limit else 0,
        oom_score_adj=oom_score_adjustment(pod, container, memory_capacity),
    )


def total_requests(members: Iterable[Object]) -> dict[str, int]:
    """Sum of CPU (milli) and memory (bytes) requests."""
    total = {"cpu": 0, "memory": 0}
    for container in members:
        cpu, memory = (amount(container, "requests", name) for name in ("cpu", "memory"))
        total["cpu"] += cpu.to_milli() if cpu else 0
        total["memory"] += memory.to_int() if memory else 0
    return total
