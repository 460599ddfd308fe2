"""Which objects a quota is about: its scopes.

Upstream: pkg/quota/v1/evaluator/core (podMatchesScopeFunc, pvcMatchesScopeFunc).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from wherry.kube.api.kinds.podspec.resources import qos_class
from wherry.kube.api.resources import PERSISTENT_VOLUME_CLAIMS, PODS, Resource

Object = dict[str, Any]
Requirement = dict[str, Any]
"""A ScopedResourceSelectorRequirement: scopeName, operator, values."""


def requirements(quota: Object) -> list[Requirement]:
    """All that an object has to meet, as one list."""
    spec = quota.get("spec") or {}
    plain = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    return plain + list((spec.get("scopeSelector") or {}).get("matchExpressions") or ())


def meets(resource: Resource, o: Object, requirement: Requirement) -> bool:
    """Whether the object is in the scope. Only pods and claims are in any."""
    if resource is PODS:
        return _pod_meets(o, requirement)
    if resource is PERSISTENT_VOLUME_CLAIMS:
        if requirement["scopeName"] != "VolumeAttributesClass":
            return False
        names = _attributes_classes(o)
        return any(_selects(requirement, name) for name in names or ("",))
    return False


def _pod_meets(pod: Object, requirement: Requirement) -> bool:
    scope = requirement["scopeName"]
    if scope == "PriorityClass":
        return _selects(requirement, pod["spec"].get("priorityClassName", ""))
    found = _PLAIN.get(scope)
    return found is not None and found(pod)


def _terminating(pod: Object) -> bool:
    deadline = pod["spec"].get("activeDeadlineSeconds")
    return deadline is not None and deadline >= 0


def _best_effort(pod: Object) -> bool:
    return qos_class(pod["spec"]) == "BestEffort"


def _crosses_namespaces(pod: Object) -> bool:
    return any(
        term.get("namespaces") or term.get("namespaceSelector") is not None
        for term in _affinity_terms(pod)
    )


def _affinity_terms(pod: Object) -> Iterator[Object]:
    affinity = pod["spec"].get("affinity") or {}
    for name in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(name) or {}
        yield from rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for weighted in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            yield weighted.get("podAffinityTerm") or {}


_PLAIN: dict[str, Callable[[Object], bool]] = {
    "Terminating": _terminating,
    "NotTerminating": lambda pod: not _terminating(pod),
    "BestEffort": _best_effort,
    "NotBestEffort": lambda pod: not _best_effort(pod),
    "CrossNamespacePodAffinity": _crosses_namespaces,
}


def _selects(requirement: Requirement, value: str) -> bool:
    """As a label selector would, of an object that has the label if ``value`` is not ""."""
    operator, values = requirement.get("operator"), requirement.get("values") or ()
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    return bool(value) == (operator == "Exists")


def _attributes_classes(claim: Object) -> list[str]:
    """The class a claim asks for, the one it has, and the one it is on the way to."""
    status = claim.get("status") or {}
    names = (
        (claim.get("spec") or {}).get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return [name for name in dict.fromkeys(names) if name]


def uncovered(limited: Sequence[Requirement], covered: Sequence[Requirement]) -> list[Requirement]:
    """Those scopes that a configuration limits, and no quota is about."""
    names = {requirement["scopeName"] for requirement in covered}
    return [requirement for requirement in limited if requirement["scopeName"] not in names]
