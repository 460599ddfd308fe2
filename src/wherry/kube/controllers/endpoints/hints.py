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


def give(service: Object, endpoints: Sequence[Object], cpus: Mapping[str, float]) -> str:
    """Set the hints of ``endpoints``, fresh objects of one address family that have none. Returns
    why there are none, where the automatic mode asks for some.

    ``cpus`` are those of the ready nodes by zone, empty where a node's zone is unknown; only the
    automatic mode asks.
    """
    ready = [e for e in endpoints if e["conditions"]["ready"]]
    if is_automatic(service):
        for endpoint, zone in zip(ready, shares(ready, cpus), strict=False):
            endpoint["hints"] = {"forZones": [{"name": zone}]}
        return obstacle(ready, cpus)
    wanted = service["spec"].get("trafficDistribution")
    if wanted not in ("PreferClose", "PreferSameZone", "PreferSameNode"):
        return ""
    for endpoint in ready:
        hints: Object = {}
        if endpoint.get("zone"):
            hints["forZones"] = [{"name": endpoint["zone"]}]
        if wanted == "PreferSameNode" and endpoint.get("nodeName"):
            hints["forNodes"] = [{"name": endpoint["nodeName"]}]
        if hints:
            endpoint["hints"] = hints
    return ""


def told(service: Object, why_not: str, existing: Sequence[Object]) -> tuple[str, str] | None:
    """Reason and message of what is to be told of a Service whose slices of one address family are
    ``existing``, and are about to get hints unless ``why_not`` says why they do not."""
    had = any(
        (endpoint.get("hints") or {}).get("forZones")
        for slice in existing
        for endpoint in slice.get("endpoints") or ()
    )
    if not is_automatic(service):
        if not had or service["spec"].get("trafficDistribution"):
            return None
        return "TopologyAwareHintsDisabled", "Topology Aware Hints has been disabled"
    if why_not:
        return "TopologyAwareHintsDisabled", why_not
    return None if had else ("TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled")


def _least(count: int, cpus: Mapping[str, float]) -> dict[str, int]:
    """How many of ``count`` endpoints each zone must have, that none has too much to bear."""
    total = sum(cpus.values())
    return {z: math.ceil(count * cpu / total / (1 + _OVERLOAD)) for z, cpu in cpus.items()}


def obstacle(endpoints: Sequence[Object], cpus: Mapping[str, float]) -> str:
    """Why endpoints cannot be shared out to zones, in upstream's words; "" where they can."""
    counts = f"({len(endpoints)} endpoints, {len(cpus)} zones)"
    if len(cpus) < 2 or not sum(cpus.values()):
        return (
            "Insufficient Node information: allocatable CPU or zone not specified on one or more "
            "nodes"
        )
    if len(endpoints) < len(cpus):
        return f"Insufficient number of endpoints {counts}"
    if sum(_least(len(endpoints), cpus).values()) > len(endpoints):
        return (
            "Unable to allocate minimum required endpoints to each zone without exceeding overload "
            f"threshold {counts}"
        )
    if any(endpoint.get("zone") not in cpus for endpoint in endpoints):
        return "One or more endpoints do not have a zone specified"
    return ""


def shares(endpoints: Sequence[Object], cpus: Mapping[str, float]) -> list[str]:
    """The zone for each of ``endpoints``; nothing where there is an ``obstacle``."""
    if obstacle(endpoints, cpus):
        return []
    total = sum(cpus.values())
    desired = {zone: len(endpoints) * cpu / total for zone, cpu in cpus.items()}
    least = _least(len(endpoints), cpus)
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
