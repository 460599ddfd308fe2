"""Resource requests and limits: names, quantities, and the class of service they make.

Upstream: pkg/apis/core/helper/helpers.go, pkg/apis/core/helper/qos and
k8s.io/component-helpers/resource.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from wherry.kube.api import amounts, names
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.quantity import ZERO, Quantity, QuantityError, parse

Object = dict[str, Any]
Spec = Mapping[str, Any]
ResourceList = Mapping[str, Any]

_CONTAINER = frozenset({"cpu", "memory", "ephemeral-storage"})
_OBJECT_COUNTS = frozenset(
    {
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    }
)
_STANDARD = (
    _CONTAINER
    | _OBJECT_COUNTS
    | {f"{side}.{name}" for side in ("requests", "limits") for name in _CONTAINER}
    | {"storage", "requests.storage"}
)
_POD_LEVEL: Final = ("cpu", "memory")


def _is_huge_page(name: str) -> bool:
    return name.startswith("hugepages-")


def _is_native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """Whether the resource is one that Kubernetes does not know: a device."""
    if _is_native(name) or name.startswith("requests."):
        return False
    return not names.is_qualified_name(f"requests.{name}")


def _may_overcommit(name: str) -> bool:
    return _is_native(name) and not _is_huge_page(name)


def _is_whole(name: str) -> bool:
    return name in _OBJECT_COUNTS or is_extended(name)


# Defaults ---------------------------------------------------------------------------------------


@lru_cache(4096)
def _as_stored(text: str) -> str:
    quantity = parse(text)
    if quantity.nanos % 10**6:
        quantity = Quantity(quantity.to_milli() * 10**6, quantity.format)
    return str(quantity)


def canonicalize(resources: Object | None) -> None:
    """Write each quantity in its one form, in whole thousandths; what is no quantity stays as it
    is, for validation to name."""
    if resources:
        for name in resources:
            canonicalize_one(resources, name)


def canonicalize_one(o: Object, name: str) -> None:
    """The same for one field, if it is there."""
    value = o.get(name)
    if value is None:
        return
    text = value if isinstance(value, str) else str(value)
    with suppress(QuantityError):
        o[name] = _as_stored(text)


def requests_from_limits(requirements: Object) -> None:
    """What is limited and not requested is requested up to the limit."""
    if limits := requirements.get("limits"):
        requirements["requests"] = {**limits, **(requirements.get("requests") or {})}


def default_pod_level(spec: Object) -> None:
    """Requests of the pod as a whole, where it has limits as a whole."""
    requirements = spec.get("resources")
    if not requirements or not requirements.get("limits"):
        return
    requests = dict(requirements.get("requests") or {})
    for name, quantity in amounts.of_containers(spec, "requests").items():
        if name in _POD_LEVEL:
            requests.setdefault(name, str(quantity))
    for name, limit in requirements["limits"].items():
        if amounts.is_pod_level(name):
            requests.setdefault(name, limit)
    if requests:
        requirements["requests"] = requests


# Class of service -------------------------------------------------------------------------------


def qos_class(spec: Spec) -> str:
    """``Guaranteed``: every container limits cpu and memory and requests just that; ``BestEffort``:
    none says anything; else ``Burstable``. Requests and limits of zero count as nothing said."""
    whole = spec.get("resources") or {}
    sources: Iterable[Mapping[str, Any]]
    if whole.get("requests") or whole.get("limits"):
        sources = (whole,)
    else:
        sources = [
            container.get("resources") or {}
            for kind in ("containers", "initContainers")
            for container in spec.get(kind) or ()
        ]
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}
    guaranteed = True
    for source in sources:
        amounts.add(requests, _said(source.get("requests")))
        limited = _said(source.get("limits"))
        amounts.add(limits, limited)
        guaranteed = guaranteed and len(limited) == len(_POD_LEVEL)
    if not requests and not limits:
        return "BestEffort"
    return "Guaranteed" if guaranteed and requests == limits else "Burstable"


def _said(resources: ResourceList | None) -> dict[str, Quantity]:
    if not resources:
        return {}
    return {n: q for n, q in amounts.read(resources).items() if n in _POD_LEVEL and q > ZERO}


# Validation -------------------------------------------------------------------------------------


def check_container(requirements: Spec, claims: set[str], path: str, faults: Faults) -> None:
    """Faults of one container's ``resources``; ``claims`` are the pod's resource claims."""
    _check_requirements(requirements, _check_container_name, path, faults)
    if requirements.get("claims"):
        _check_claims(requirements["claims"], claims, f"{path}.claims", faults)


def check_overhead(overhead: ResourceList, path: str, faults: Faults) -> None:
    """Faults of ``spec.overhead``."""
    _check_requirements({"limits": overhead}, _check_container_name, path, faults)


def check_pod_level(spec: Spec, path: str, faults: Faults) -> None:
    """Faults of the pod's own ``resources``, also against those of its containers."""
    requirements = spec["resources"]
    if requirements.get("claims"):
        why = "claims cannot be set for Resources at pod-level"
        faults.append(fields.forbidden(f"{path}.claims", why))
    _check_requirements(requirements, _check_pod_level_name, path, faults)
    requests, limits = (
        amounts.read(requirements.get("requests")),
        amounts.read(requirements.get("limits")),
    )
    for name, needed in sorted(amounts.of_containers(spec, "requests").items()):
        have = requests.get(name, ZERO)
        if needed > have:
            why = f"must be greater than or equal to aggregate container requests of {needed}"
            faults.append(fields.invalid(f"{path}.requests[{name}]", str(have), why))
    for index, container in enumerate(spec.get("containers") or ()):
        for name, limit in amounts.read((container.get("resources") or {}).get("limits")).items():
            if name in limits and limit > limits[name]:
                where = f"{path}.containers[{index}][{name}].limits"
                why = f"must be less than or equal to pod limits of {limits[name]}"
                faults.append(fields.invalid(where, str(limit), why))


def check_quantity(name: str, value: Any, path: str, faults: Faults) -> Quantity | None:
    """Faults of an amount of the resource; the amount, if it is one."""
    text = value if isinstance(value, str) else str(value)
    try:
        quantity = parse(text)
    except QuantityError as error:
        faults.append(fields.invalid(path, text, str(error)))
        return None
    if quantity < ZERO:
        faults.append(fields.invalid(path, str(quantity), fields.NEGATIVE))
    if quantity.nanos % 10**9 and _is_whole(name):
        faults.append(fields.invalid(path, str(quantity), "must be an integer"))
    return quantity


def _check_requirements(
    requirements: Spec, check_name: Callable[[str, str, Faults], None], path: str, faults: Faults
) -> None:
    limits, requests = requirements.get("limits") or {}, requirements.get("requests") or {}
    if not limits and not requests:
        return
    limit_of: dict[str, Quantity] = {}
    for name, value in limits.items():
        where = f"{path}.limits[{name}]"
        check_name(name, where, faults)
        if quantity := _check_amount(name, value, where, faults):
            limit_of[name] = quantity
    for name, value in requests.items():
        where = f"{path}.requests[{name}]"
        check_name(name, where, faults)
        requested = _check_amount(name, value, where, faults)
        if requested is None:
            continue
        if name not in limits:
            if not _may_overcommit(name):
                why = "Limit must be set for non overcommitable resources"
                faults.append(fields.required(f"{path}.limits", why))
            continue
        limit = limit_of.get(name, ZERO)
        if requested != limit and not _may_overcommit(name):
            why = f"must be equal to {name} limit of {limit}"
            faults.append(fields.invalid(f"{path}.requests", str(requested), why))
        elif requested > limit:
            why = f"must be less than or equal to {name} limit of {limit}"
            faults.append(fields.invalid(f"{path}.requests", str(requested), why))
    named = limits.keys() | requests.keys()
    if any(map(_is_huge_page, named)) and named.isdisjoint(_POD_LEVEL):
        faults.append(fields.forbidden(path, "HugePages require cpu or memory"))


def _check_amount(name: str, value: Any, path: str, faults: Faults) -> Quantity | None:
    quantity = check_quantity(name, value, path, faults)
    if quantity is not None and _is_huge_page(name):
        try:
            size = parse(name.removeprefix("hugepages-"))
        except QuantityError:
            size = ZERO
        if size <= ZERO or quantity.nanos % size.nanos:
            why = f"{quantity} is not positive integer multiple of {name}"
            faults.append(fields.invalid(path, str(quantity), why))
    return quantity


def check_name(name: str, path: str, faults: Faults) -> bool:
    """Faults of the name of a resource; whether there are none."""
    before = len(faults)
    checks.qualified_name(name, path, faults)
    if len(faults) == before and "/" not in name:
        standard = name in _STANDARD or name.startswith(("hugepages-", "requests.hugepages-"))
        if not standard:
            why = "must be a standard resource type or fully qualified"
            faults.append(fields.invalid(path, name, why))
    return len(faults) == before


def check_quota_name(name: str, path: str, faults: Faults) -> None:
    """Faults of the name of what a quota counts."""
    if not check_name(name, path, faults) or "/" in name:
        return
    standard = name in _STANDARD or name.startswith("requests.hugepages-")
    if not standard or name == "storage":
        faults.append(fields.invalid(path, name, "must be a standard resource for quota"))


def _check_container_name(name: str, path: str, faults: Faults) -> None:
    if name in _CONTAINER:
        return
    check_name(name, path, faults)
    if "/" not in name:
        if not _is_huge_page(name):
            why = "must be a standard resource for containers"
            faults.append(fields.invalid(path, name, why))
    elif not _is_native(name) and not is_extended(name):
        why = "doesn't follow extended resource name standard"
        faults.append(fields.invalid(path, name, why))


def _check_pod_level_name(name: str, path: str, faults: Faults) -> None:
    if check_name(name, path, faults) and name not in _POD_LEVEL and not _is_huge_page(name):
        faults.append(fields.not_supported(path, name, _POD_LEVEL))


def _check_claims(claims: Sequence[Spec], declared: set[str], path: str, faults: Faults) -> None:
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        where, name, request = f"{path}[{index}]", claim.get("name"), claim.get("request")
        if not name:
            faults.append(fields.required(where))
            continue
        key = f"{name}/{request}" if request else name
        if name in seen:
            faults.append(fields.duplicate(where, name))
        else:
            if request:
                checks.dns_label(request, f"{where}.request", faults)
            if key in seen:
                faults.append(fields.duplicate(where, key))
            elif not request and any(other.startswith(f"{name}/") for other in seen):
                faults.append(fields.duplicate(where, name))
            seen.add(key)
        if name not in declared:
            known = f": {', '.join(sorted(declared))}" if declared else " which is empty"
            why = f"must be one of the names in pod.spec.resourceClaims{known}"
            faults.append(fields.not_found(where, name, why))
