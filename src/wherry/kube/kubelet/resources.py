"""What a container may use: quality of service, CPU shares and quota, memory, OOM score, cgroups.

Numbers as in pkg/kubelet/cm/helpers_linux.go, pkg/kubelet/qos/policy.go and
https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wherry.engine.cri.types import LinuxResources
from wherry.kube.api import amounts, meta, quantity
from wherry.kube.kubelet import pods

Object = dict[str, Any]

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
PERIOD = 100_000  # µs of the CPU quota's period
MIN_QUOTA = 1_000  # µs: the kernel takes no less
HUGE_PAGES = "hugepages-"
MIN_SHARES, MAX_SHARES = 2, 262_144


def amount(container: Object, kind: str, resource: str) -> quantity.Quantity | None:
    """``container``'s ``requests`` or ``limits`` of ``resource``, None where it has none."""
    values = (container.get("resources") or {}).get(kind) or {}
    text = values.get(resource)
    return None if text is None else quantity.parse(str(text))


def units(name: str, amount: quantity.Quantity) -> int:
    """An amount as the node counts it: thousandths of a CPU, else whole units."""
    return amount.to_milli() if name == "cpu" else amount.to_int()


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


def cpu_quota(milli: int, period: int = PERIOD) -> int:
    """µs of each period that ``milli`` thousandths of a CPU are."""
    return max(MIN_QUOTA, milli * period // 1000)


def oom_score_adjustment(pod: Object, container: Object, memory_capacity: int) -> int:
    """How readily the kernel kills it when memory runs out (-1000 never … 1000 first)."""
    if int(pod["spec"].get("priority") or 0) >= pods.SYSTEM_CRITICAL_PRIORITY:
        return -997
    kind = qos_class(pod)
    if kind == GUARANTEED:
        return -997
    if kind == BEST_EFFORT:
        return 1000
    request = amount(container, "requests", "memory")
    wanted = request.to_int() if request else 0
    return max(3, min(999, 1000 - 1000 * wanted // max(memory_capacity, 1)))


def linux_resources(
    pod: Object,
    container: Object,
    memory_capacity: int,
    *,
    period: int = PERIOD,
    quota: bool = True,
    page_sizes: Iterable[str] = (),
) -> LinuxResources:
    """The container's limits in the kernel's units; without ``quota`` none of CPU.

    ``page_sizes`` are those of the node's huge pages (``2Mi``).
    """
    cpu_limit = amount(container, "limits", "cpu")
    cpu_request = amount(container, "requests", "cpu") or cpu_limit
    memory_limit = amount(container, "limits", "memory")
    whole = pod["spec"].get("resources") or {}
    if cpu_limit is None and (whole.get("limits") or {}).get("cpu"):
        cpu_limit = quantity.parse(str(whole["limits"]["cpu"]))
    if memory_limit is None and (whole.get("limits") or {}).get("memory"):
        memory_limit = quantity.parse(str(whole["limits"]["memory"]))
    return LinuxResources(
        cpu_shares=cpu_shares(cpu_request.to_milli() if cpu_request else 0),
        cpu_quota=cpu_quota(cpu_limit.to_milli(), period) if cpu_limit and quota else 0,
        cpu_period=period if cpu_limit and quota else 0,
        memory_limit=memory_limit.to_int() if memory_limit else 0,
        oom_score_adj=oom_score_adjustment(pod, container, memory_capacity),
        hugepage_limits=_pages_of_container(pod, container, page_sizes),
    )


def _pages_of_container(pod: Object, container: Object, sizes: Iterable[str]) -> dict[str, int]:
    """Nothing where the pod has none: then its own group says so for all of its containers."""
    limits = amounts.of_pod(pod, "limits")
    if not any(limits.get(f"{HUGE_PAGES}{size}") for size in sizes):
        return {}
    own = amounts.read((container.get("resources") or {}).get("limits"))
    whole = amounts.read((pod["spec"].get("resources") or {}).get("limits"))
    return huge_page_limits({**whole, **own}, sizes)


def huge_page_limits(
    limits: Mapping[str, quantity.Quantity], sizes: Iterable[str]
) -> dict[str, int]:
    """Bytes of each of the node's sizes, by the kernel's names of them (``2MB``); 0 where there is
    no limit, for who asks for no huge pages gets none."""
    return {
        f"{size.removesuffix('i')}B": limits.get(f"{HUGE_PAGES}{size}", quantity.ZERO).to_int()
        for size in sizes
    }


def pod_resources(
    pod: Object,
    *,
    pids: int = 0,
    period: int = PERIOD,
    quota: bool = True,
    page_sizes: Iterable[str] = (),
) -> LinuxResources:
    """What the pod may use as a whole, on the cgroup above its containers.

    Limits are in force where every container has one, or the pod says one itself
    (ResourceConfigForPod of pkg/kubelet/cm/helpers_linux.go). ``pids`` limits its processes.
    """
    kind = qos_class(pod)
    requests = amounts.of_pod(pod, "requests", overhead=True)
    limits = amounts.of_pod(pod, "limits", overhead=True)
    whole = (pod["spec"].get("resources") or {}).get("limits") or {}
    members = [*pods.containers(pod), *pods.init_containers(pod)]

    def limited(name: str) -> int:
        bounded = name in whole or all(amount(c, "limits", name) for c in members)
        value = limits.get(name) if bounded else None
        if not value:
            return 0
        return value.to_milli() if name == "cpu" else value.to_int()

    cpu = requests.get("cpu")
    cpu_limit = limited("cpu") if quota else 0
    shares = MIN_SHARES if kind == BEST_EFFORT else cpu_shares(cpu.to_milli() if cpu else 0)
    return LinuxResources(
        cpu_shares=shares,
        cpu_quota=cpu_quota(cpu_limit, period) if cpu_limit else 0,
        cpu_period=period if cpu_limit else 0,
        memory_limit=limited("memory"),
        pids_limit=max(0, pids),
        hugepage_limits=huge_page_limits(limits, page_sizes),
    )


def tier_resources(active: Iterable[Object]) -> dict[str, LinuxResources]:
    """Of the groups of burstable and best-effort pods: CPU as the pods in them request together."""
    burstable = 0
    for pod in active:
        if qos_class(pod) == BURSTABLE:
            cpu = amounts.of_pod(pod, "requests", overhead=True).get("cpu")
            burstable += cpu.to_milli() if cpu else 0
    return {
        "kubepods/besteffort": LinuxResources(cpu_shares=MIN_SHARES),
        "kubepods/burstable": LinuxResources(cpu_shares=cpu_shares(burstable)),
    }
