"""What pods and claims may ask for, and what containers get that ask for nothing, by LimitRanges.

https://kubernetes.io/docs/concepts/policy/limit-range/
Upstream: plugin/pkg/admission/limitranger/admission.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wherry.kube.api import amounts
from wherry.kube.api.amounts import Amounts
from wherry.kube.api.quantity import Quantity
from wherry.kube.api.resources import LIMIT_RANGES, PODS
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.objects import Object

ANNOTATION = "kubernetes.io/limit-ranger"
_BOTH = (("containers", "container"), ("initContainers", "init container"))


def _limits(attributes: Attributes, context: Context) -> list[list[Object]]:
    """The limits of each LimitRange of the namespace."""
    found = context.cache.of(LIMIT_RANGES).list(attributes.namespace)
    return [(stored.object.get("spec") or {}).get("limits") or [] for stored in found]


def admit(attributes: Attributes, context: Context) -> None:
    """Give a new pod's containers the defaults."""
    for limits in _limits(attributes, context):
        _set_defaults(attributes.new, limits)


def _set_defaults(pod: Object, limits: Iterable[Object]) -> None:
    requests: dict[str, Any] = {}
    most: dict[str, Any] = {}
    for limit in limits:
        if limit.get("type") == "Container":
            requests.update(limit.get("defaultRequest") or {})
            most.update(limit.get("default") or {})
    if not requests and not most:
        return
    told: list[str] = []
    for field, word in _BOTH:
        for container in pod["spec"].get(field) or ():
            resources = container.setdefault("resources", {})
            where = f"{word} {container.get('name', '')}"
            for side, text, defaults in (
                ("requests", "request", requests),
                ("limits", "limit", most),
            ):
                given = resources.get(side) or {}
                added = sorted(defaults.keys() - given.keys())
                if added:
                    resources[side] = {**given, **{name: defaults[name] for name in added}}
                    told.append(f"{', '.join(added)} {text} for {where}")
    if told:
        annotations = pod["metadata"].get("annotations") or {}
        text = f"LimitRanger plugin set: {'; '.join(told)}"
        pod["metadata"]["annotations"] = {**annotations, ANNOTATION: text}


def validate(attributes: Attributes, context: Context) -> None:
    """Refuse what is outside the bounds."""
    if attributes.old is not None and "deletionTimestamp" in attributes.old["metadata"]:
        return
    for limits in _limits(attributes, context):
        if attributes.resource is PODS:
            faults = [fault for limit in limits for fault in _pod_faults(attributes.new, limit)]
        else:
            faults = [fault for limit in limits for fault in _claim_faults(attributes.new, limit)]
        if faults:
            unique = list(dict.fromkeys(faults))
            raise attributes.forbidden(unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]")


def _pod_faults(pod: Object, limit: Object) -> Iterator[str]:
    kind = limit.get("type")
    if kind == "Container":
        for field, _ in _BOTH:
            for container in pod["spec"].get(field) or ():
                resources = container.get("resources") or {}
                requests = amounts.read(resources.get("requests"))
                yield from _faults(limit, requests, amounts.read(resources.get("limits")))
    elif kind == "Pod":
        requests, limits = amounts.of_pod(pod, "requests"), amounts.of_pod(pod, "limits")
        yield from _faults(limit, requests, limits)


def _claim_faults(claim: Object, limit: Object) -> Iterator[str]:
    """Only what a claim requests counts."""
    if limit.get("type") != "PersistentVolumeClaim":
        return
    spec = claim.get("spec") or {}
    requests = amounts.read((spec.get("resources") or {}).get("requests"))
    for name, least in sorted(amounts.read(limit.get("min")).items()):
        yield from _below(limit["type"], name, least, requests, {})
    for name, most in sorted(amounts.read(limit.get("max")).items()):
        said = f"maximum {name} usage per {limit['type']} is {most}"
        if name not in requests:
            yield f"{said}.  No request is specified"
        elif requests[name] > most:
            yield f"{said}, but request is {requests[name]}"


def _faults(limit: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    kind = limit["type"]
    for name, least in sorted(amounts.read(limit.get("min")).items()):
        yield from _below(kind, name, least, requests, limits)
    for name, most in sorted(amounts.read(limit.get("max")).items()):
        yield from _above(kind, name, most, requests, limits)
    for name, ratio in sorted(amounts.read(limit.get("maxLimitRequestRatio")).items()):
        yield from _apart(kind, name, ratio, requests, limits)


def _below(
    kind: str,
    name: str,
    least: Quantity,
    requests: Mapping[str, Quantity],
    limits: Mapping[str, Quantity],
) -> Iterator[str]:
    said = f"minimum {name} usage per {kind} is {least}"
    if name not in requests:
        yield f"{said}.  No request is specified"
    elif requests[name] < least:
        yield f"{said}, but request is {requests[name]}"
    elif name in limits and limits[name] < least:
        yield f"{said}, but limit is {limits[name]}"


def _above(
    kind: str, name: str, most: Quantity, requests: Amounts, limits: Amounts
) -> Iterator[str]:
    said = f"maximum {name} usage per {kind} is {most}"
    if name not in limits:
        yield f"{said}.  No limit is specified"
    elif limits[name] > most:
        yield f"{said}, but limit is {limits[name]}"
    elif name in requests and requests[name] > most:
        yield f"{said}, but request is {requests[name]}"


def _apart(
    kind: str, name: str, ratio: Quantity, requests: Amounts, limits: Amounts
) -> Iterator[str]:
    said = f"{name} max limit to request ratio per {kind} is {ratio}"
    if not requests.get(name):
        yield f"{said}, but no request is specified or request is 0"
    elif not limits.get(name):
        yield f"{said}, but no limit is specified or limit is 0"
    elif limits[name].nanos * 10**9 > ratio.nanos * requests[name].nanos:
        yield f"{said}, but provided ratio is {limits[name].nanos / requests[name].nanos:f}"
