"""Lists of resources as amounts that can be added and compared, and what a pod asks for in sum.

Upstream: k8s.io/apiserver/pkg/quota/v1/resources.go and k8s.io/component-helpers/resource.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from wherry.kube.api import pods
from wherry.kube.api.quantity import ZERO, Quantity, QuantityError, parse

Object = Mapping[str, Any]
Amounts = dict[str, Quantity]

_POD_LEVEL = ("cpu", "memory")


def read(resources: Mapping[str, Any] | None) -> Amounts:
    """A resource list; what is no quantity (validation names it) is left out."""
    amounts: Amounts = {}
    for name, value in (resources or {}).items():
        try:
            amounts[name] = parse(value if isinstance(value, str) else str(value))
        except QuantityError:
            continue
    return amounts


def write(amounts: Mapping[str, Quantity]) -> dict[str, str]:
    """The resource list, in order of the names."""
    return {name: str(amounts[name]) for name in sorted(amounts)}


def add(total: Amounts, more: Mapping[str, Quantity]) -> None:
    """``total`` grows by ``more``."""
    for name, amount in more.items():
        total[name] = total[name] + amount if name in total else amount


def raise_to(total: Amounts, least: Mapping[str, Quantity]) -> None:
    """``total`` is at least ``least``."""
    for name, amount in least.items():
        if name not in total or total[name] < amount:
            total[name] = amount


def growth(now: Mapping[str, Quantity], before: Mapping[str, Quantity]) -> Amounts:
    """By how much ``now`` is more than ``before``; what did not grow is left out."""
    grown = {name: amount - before.get(name, ZERO) for name, amount in now.items()}
    return {name: amount for name, amount in grown.items() if amount > ZERO}


def masked(amounts: Mapping[str, Quantity], names: Iterable[str]) -> Amounts:
    """Only what is named."""
    return {name: amounts[name] for name in names if name in amounts}


def is_pod_level(name: str) -> bool:
    """Whether a pod as a whole may ask for it."""
    return name in _POD_LEVEL or name.startswith("hugepages-")


def has_pod_level(spec: Object) -> bool:
    """Whether the pod says as a whole what it asks for."""
    whole = spec.get("resources") or {}
    return any(is_pod_level(n) for side in ("requests", "limits") for n in whole.get(side) or ())


def of_pod(pod: Object, side: str, *, overhead: bool = False, allocated: bool = False) -> Amounts:
    """The ``requests`` or ``limits`` (``side``) of a pod in sum: all that run at once, or an init
    container that needs more alone; or what the pod says as a whole.

    ``overhead``: with the pod's overhead (of limits only where there is a limit). ``allocated``: a
    container counts as what it still holds, where it has been asked to shrink.
    """
    spec = pod.get("spec") or {}
    total = of_containers(spec, side, _held(pod, side) if allocated else {})
    whole = read((spec.get("resources") or {}).get(side))
    total.update({name: amount for name, amount in whole.items() if is_pod_level(name)})
    if overhead:
        extra = read(spec.get("overhead"))
        add(total, extra if side == "requests" else masked(extra, list(total)))
    return total


def of_containers(spec: Object, side: str, held: Mapping[str, Amounts] | None = None) -> Amounts:
    """The same of what the containers say alone; one in ``held`` counts as that at least."""
    total: Amounts = {}
    held = held or {}
    for container in spec.get("containers") or ():
        add(total, _of_container(container, side, held))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = _of_container(container, side, held)
        if pods.is_sidecar(container):
            add(total, own)
            add(sidecars, own)
            own = dict(sidecars)
        else:
            add(own, sidecars)
        raise_to(peak, own)
    raise_to(total, peak)
    return total


def _of_container(container: Object, side: str, held: Mapping[str, Amounts]) -> Amounts:
    amounts = read((container.get("resources") or {}).get(side))
    raise_to(amounts, held.get(container.get("name", ""), {}))
    return amounts


def _held(pod: Object, side: str) -> dict[str, Amounts]:
    """What containers hold, by name, as the kubelet says."""
    status = pod.get("status") or {}
    held: dict[str, Amounts] = {}
    for field in ("containerStatuses", "initContainerStatuses"):
        for each in status.get(field) or ():
            amounts = read((each.get("resources") or {}).get(side))
            if side == "requests":
                raise_to(amounts, read(each.get("allocatedResources")))
            if amounts:
                held[each.get("name", "")] = amounts
    return held
