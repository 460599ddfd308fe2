"""For whom an endpoint is meant: proxies near it prefer it. Pure functions.

``trafficDistribution`` says so by place alone: each endpoint serves its own zone, or its own node
first. The topology mode ``Auto`` shares endpoints out to zones in proportion to their CPUs, and
gives no hints where that would burden a zone's endpoints by more than a fifth.
(https://kubernetes.io/docs/reference/networking/virtual-ips/#traffic-distribution)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from wherry.kube.api import meta
from wherry.kube.client.transport import Object

TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
_OLD_MODE = "service.kubernetes.io/topology-aware-hints"
_OVERLOAD = 0.2


def is_automatic(service: Object) -> bool:
    """Whether the Service's topology mode is ``Auto``."""
    annotations = meta.annotations(service)
    return annotations.get(_OLD_MODE, annotations.get(TOPOLOGY_MODE)) in ("Auto", "auto")


def give(service: Object, endpoints: Sequence[Object], cpus: Mapping[str, float]) -> None:
    """Set the hints of ``endpoints``, fresh objects of one address family that have none.

    ``cpus`` are those of the ready nodes by zone, empty where a node's zone is unknown; only the
    automatic mode asks.
    """
    ready = [e for e in endpoints if e["conditions"]["ready"]]
    if is_automatic(service):
        for endpoint, zone in zip(ready, shares(ready, cpus), strict=False):
            endpoint["hints"] = {"forZones": [{"name": zone}]}
        return
    wanted = service["spec"].get("trafficDistribution")
    if wanted not in ("PreferClose", "PreferSameZone", "PreferSameNode"):
        return
    for endpoint in ready:
        hints: Object = {}
        if endpoint.get("zone"):
            hints["forZones"] = [{"name": endpoint["zone"]}]
        if wanted == "PreferSameNode" and endpoint.get("nodeName"):
            hints["forNodes"] = [{"name": endpoint["nodeName"]}]
        if hints:
            endpoint["hints"] = hints


def shares(endpoints: Sequence[Object], cpus: Mapping[str, float]) -> list[str]:
    """The zone for each of ``endpoints``; nothing where there are not enough of them, or too little
    is known."""
    total = sum(cpus.values())
    if len(cpus) < 2 or not total or len(endpoints) < len(cpus):
        return []
    if any(endpoint.get("zone") not in cpus for endpoint in endpoints):
        return []
    desired = {zone: len(endpoints) * cpu / total for zone, cpu in cpus.items()}
    least = {zone: math.ceil(n / (1 + _OVERLOAD)) for zone, n in desired.items()}
    if sum(least.values()) > len(endpoints):
        return []
    result = [str(endpoint["zone"]) for endpoint in endpoints]
    count = {zone: result.count(zone) for zone in cpus}
    for zone in sorted(cpus):
        while count[zone] < least[zone]:
            giving = max(
                (z for z in sorted(cpus) if count[z] > least[z]),
                key=lambda z: count[z] - desired[z],
            )
            result[len(result) - 1 - result[::-1].index(giving)] = zone
            count[giving] -= 1
            count[zone] += 1
    return result
