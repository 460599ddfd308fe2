"""What one object uses of which resources.

Upstream: pkg/quota/v1/evaluator/core and k8s.io/apiserver/pkg/quota/v1/generic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wherry.kube.api import amounts, pods
from wherry.kube.api.amounts import Amounts
from wherry.kube.api.kinds.persistent_volume_claim import CLASS_ANNOTATION
from wherry.kube.api.kinds.podspec.resources import is_extended
from wherry.kube.api.meta import parse_time
from wherry.kube.api.quantity import ZERO, Quantity, from_int
from wherry.kube.api.quota import scopes
from wherry.kube.api.resources import (
    EVENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_CLAIMS,
    SERVICES,
    Resource,
)

Object = dict[str, Any]

ONE = from_int(1)

_ALIASES = frozenset(("configmaps", "resourcequotas", "replicationcontrollers", "secrets"))
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_POD_NAMES = frozenset(
    (
        "count/pods",
        "pods",
        *(f"{prefix}{name}" for prefix in ("", "requests.", "limits.") for name in _COMPUTE),
    )
)
_MUST_SPECIFY = frozenset(
    f"{prefix}{name}" for prefix in ("", "requests.", "limits.") for name in ("cpu", "memory")
)
_SERVICE_NAMES = frozenset(
    ("count/services", "services", "services.nodeports", "services.loadbalancers")
)
_CLAIM_NAMES = ("persistentvolumeclaims", "requests.storage")
_BY_CLASS = ".storageclass.storage.k8s.io/"
_DEVICES = ".deviceclass.resource.k8s.io/devices"
_ALL_DEVICES = 32  # that a claim can be allocated at most


def count_name(resource: Resource) -> str:
    """``count/pods``, ``count/deployments.apps``."""
    group = f".{resource.group}" if resource.group else ""
    return f"count/{resource.plural}{group}"


def countable(resource: Resource) -> bool:
    """Whether objects of the resource are charged at all."""
    return resource.namespaced and resource is not EVENTS and "create" in resource.verbs


def charged_on_update(resource: Resource) -> bool:
    """Whether a change of an object can use more; otherwise only its creation does."""
    return resource is SERVICES or resource is PERSISTENT_VOLUME_CLAIMS


def matching(resource: Resource, names: Iterable[str]) -> list[str]:
    """Those of a quota's resources that objects of ``resource`` are charged to, sorted."""
    return sorted(name for name in names if _matches(resource, name))


def _matches(resource: Resource, name: str) -> bool:
    if resource is PODS:
        if name in _POD_NAMES or name.startswith(("hugepages-", "requests.hugepages-")):
            return True
        bare = name.removeprefix("requests.")
        return bare != name and is_extended(bare)
    if resource is SERVICES:
        return name in _SERVICE_NAMES
    if resource is PERSISTENT_VOLUME_CLAIMS:
        return (
            name in _CLAIM_NAMES
            or name == "count/persistentvolumeclaims"
            or name.endswith(tuple(f"{_BY_CLASS}{each}" for each in _CLAIM_NAMES))
        )
    if name == count_name(resource):
        return True
    if resource is RESOURCE_CLAIMS:
        return name.endswith(_DEVICES)
    return not resource.group and name == resource.plural and name in _ALIASES


def of(resource: Resource, o: Object, now: float) -> Amounts:
    """What the object uses at ``now`` (seconds since the epoch)."""
    if resource is PODS:
        return _of_pod(o, now)
    if resource is SERVICES:
        return _of_service(o)
    if resource is PERSISTENT_VOLUME_CLAIMS:
        return _of_claim(o)
    used = {count_name(resource): ONE}
    if resource is RESOURCE_CLAIMS:
        amounts.add(used, _devices(o))
    if not resource.group and resource.plural in _ALIASES:
        used[resource.plural] = ONE
    return used


def counts(pod: Object, now: float) -> bool:
    """Whether a pod uses anything but its place in the store: not when it has finished, nor when
    it should long be gone and nobody says so."""
    if pods.is_finished(pod):
        return False
    metadata = pod["metadata"]
    deleted, grace = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if deleted is None or grace is None:
        return True
    return bool(now <= parse_time(deleted).timestamp() + float(grace))


def _of_pod(pod: Object, now: float) -> Amounts:
    used = {"count/pods": ONE}
    if not counts(pod, now):
        return used
    requests = amounts.of_pod(pod, "requests", overhead=True, allocated=True)
    limits = amounts.of_pod(pod, "limits", overhead=True, allocated=True)
    used.update(_compute(requests, limits))
    return used


def _compute(requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]) -> Amounts:
    used = {"pods": ONE}
    for name, amount in requests.items():
        huge = name.startswith("hugepages-")
        if name in _COMPUTE or huge:
            used[name] = amount
        if name in _COMPUTE or huge or is_extended(name):
            used[f"requests.{name}"] = amount
    for name in _COMPUTE:
        if name in limits:
            used[f"limits.{name}"] = limits[name]
    return used


def missing(names: Iterable[str], pod: Object) -> str:
    """What a pod's containers would have to say for a quota of cpu or memory, or "": which of
    ``names``, for which containers."""
    spec = pod["spec"]
    if amounts.has_pod_level(spec):
        return ""
    lacking: dict[str, set[str]] = {}
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            resources = container.get("resources") or {}
            said = _compute(
                amounts.read(resources.get("requests")), amounts.read(resources.get("limits"))
            )
            for name in _MUST_SPECIFY.intersection(names) - said.keys():
                lacking.setdefault(name, set()).add(container["name"])
    if not lacking:
        return ""
    told = (f"{name} for: {','.join(sorted(lacking[name]))}" for name in sorted(lacking))
    return f"must specify {'; '.join(told)}"


def _of_service(service: Object) -> Amounts:
    """Node ports are charged by what is meant: they may not be allocated yet."""
    spec = service.get("spec") or {}
    ports = spec.get("ports") or ()
    node_ports = balancers = 0
    if spec.get("type") == "NodePort":
        node_ports = len(ports)
    elif spec.get("type") == "LoadBalancer":
        balancers, node_ports = 1, len(ports)
        if spec.get("allocateLoadBalancerNodePorts") is False:
            node_ports = sum(1 for port in ports if port.get("nodePort"))
    return {
        "count/services": ONE,
        "services": ONE,
        "services.nodeports": from_int(node_ports),
        "services.loadbalancers": from_int(balancers),
    }


def _of_claim(claim: Object) -> Amounts:
    spec = claim.get("spec") or {}
    annotations = claim["metadata"].get("annotations") or {}
    name = annotations.get(CLASS_ANNOTATION) or spec.get("storageClassName") or ""
    used = {"count/persistentvolumeclaims": ONE, "persistentvolumeclaims": ONE}
    asked = amounts.read((spec.get("resources") or {}).get("requests")).get("storage")
    held = amounts.read((claim.get("status") or {}).get("allocatedResources")).get("storage")
    size = asked if held is None or (asked is not None and asked >= held) else held
    if size is not None:
        used["requests.storage"] = Quantity(size.to_int() * 10**9, size.format)
    if name:
        used.update(
            {f"{name}{_BY_CLASS}{each}": used[each] for each in _CLAIM_NAMES if each in used}
        )
    return used


def _devices(claim: Object) -> Amounts:
    """The devices of each class that a ResourceClaim may be allocated: where a request has
    alternatives, the most that any of them asks for of a class."""
    total: Amounts = {}
    for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
        most: Amounts = {}
        for each in request.get("firstAvailable") or [request.get("exactly") or {}]:
            mode = each.get("allocationMode") or "ExactCount"
            count = each.get("count", 1) if mode == "ExactCount" else _ALL_DEVICES
            if each.get("deviceClassName"):
                amounts.raise_to(most, {f"{each['deviceClassName']}{_DEVICES}": from_int(count)})
        amounts.add(total, most)
    return total


def in_scope(resource: Resource, o: Object, quota: Object) -> bool:
    """Whether the quota is about the object."""
    return all(scopes.meets(resource, o, each) for each in scopes.requirements(quota))


def total(quota: Object, resource: Resource, objects: Iterable[Object], now: float) -> Amounts:
    """What ``objects`` use together of the quota; zero of what none of them does."""
    names = matching(resource, (quota.get("spec") or {}).get("hard") or ())
    used: Amounts = dict.fromkeys(names, ZERO)
    if names:
        for o in objects:
            if in_scope(resource, o, quota):
                amounts.add(used, amounts.masked(of(resource, o, now), names))
    return used
