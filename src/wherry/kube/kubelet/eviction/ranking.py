"""Who goes first when the node runs short, and what the pod is told. No I/O.

Follows pkg/kubelet/eviction/helpers.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api import amounts, meta, quantity
from wherry.kube.kubelet.eviction.thresholds import RESOURCES, Observation, Threshold, describe

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Use:
    """What a pod uses: bytes of memory, of the disk, inodes, processes; by container, too."""

    memory: int = 0
    disk: int = 0
    inodes: int = 0
    pids: int = 0
    containers: Mapping[str, Use] = field(default_factory=dict)

    def of(self, resource: str) -> int:
        """What is used of ``memory``, ``ephemeral-storage``, ``inodes`` or ``pids``."""
        return {
            "memory": self.memory,
            "ephemeral-storage": self.disk,
            "inodes": self.inodes,
            "pids": self.pids,
        }[resource]


NOTHING = Use()


def requested(pod: Object, resource: str) -> int:
    """What the pod requests of it; nobody requests inodes or processes."""
    found = amounts.of_pod(pod, "requests", overhead=True).get(resource, quantity.ZERO)
    return found.to_int()


def ranked(pods: Iterable[Object], uses: Mapping[str, Use], signal: str) -> list[Object]:
    """The pods in the order in which they go: those over their request first, then by priority,
    then by how far they are over it. ``uses`` is by uid."""
    resource = RESOURCES[signal]

    def key(pod: Object) -> tuple[bool, int, int, str]:
        over = uses.get(meta.uid(pod), NOTHING).of(resource) - requested(pod, resource)
        exceeds = over > 0 if resource != "pids" else True
        priority = int(pod["spec"].get("priority") or 0)
        return not exceeds, priority, -over, meta.uid(pod)

    return sorted(pods, key=key)


def message(pod: Object, use: Use, threshold: Threshold, observation: Observation | None) -> str:
    """What the status of a pod that is evicted for want of a resource says."""
    signal = threshold.signal
    resource = RESOURCES[signal]
    text = f"The node was low on resource: {resource}. "
    if observation is not None:
        text += (
            f"Threshold quantity: {threshold.amount.describe(observation.capacity, signal)}, "
            f"available: {describe(observation.available, signal)}. "
        )
    for container in pod["spec"].get("containers") or ():
        used = use.containers.get(container["name"], NOTHING).of(resource)
        asked = amounts.read((container.get("resources") or {}).get("requests"))
        request = asked.get(resource, quantity.ZERO)
        if used > request.to_int():
            text += (
                f"Container {container['name']} was using {describe(used, signal)}, "
                f"request is {request}, has larger consumption of {resource}. "
            )
    return text


def over_limit(pod: Object, use: Use, volumes: Mapping[str, int]) -> str:
    """Why the pod's own limits on storage put it off the node, empty where they do not.

    ``volumes`` is what its emptyDirs use, by name.
    """
    for volume in pod["spec"].get("volumes") or ():
        source = volume.get("emptyDir")
        limit = (source or {}).get("sizeLimit")
        if limit is None or (source or {}).get("medium") == "Memory":
            continue
        bound = quantity.parse(str(limit))
        if bound and volumes.get(volume["name"], 0) > bound.to_int():
            return f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{limit}". '
    limit_of_all = amounts.of_pod(pod, "limits").get("ephemeral-storage")
    if limit_of_all and use.disk > limit_of_all.to_int():
        return (
            "Pod ephemeral local storage usage exceeds the total limit of containers "
            f"{limit_of_all}. "
        )
    for container in pod["spec"].get("containers") or ():
        limits = amounts.read((container.get("resources") or {}).get("limits"))
        bound = limits.get("ephemeral-storage", quantity.ZERO)
        used = use.containers.get(container["name"], NOTHING).disk
        if bound and used > bound.to_int():
            return (
                f"Container {container['name']} exceeded its local ephemeral storage limit "
                f'"{bound}". '
            )
    return ""


def has_limits(pod: Object) -> bool:
    """Whether what the pod writes must be measured."""
    if any(
        (v.get("emptyDir") or {}).get("sizeLimit") and v["emptyDir"].get("medium") != "Memory"
        for v in pod["spec"].get("volumes") or ()
    ):
        return True
    return bool(amounts.of_pod(pod, "limits").get("ephemeral-storage"))
