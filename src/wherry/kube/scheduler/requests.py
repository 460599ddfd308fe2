"""What a pod asks of a node (https://kubernetes.io/docs/concepts/workloads/pods/init-containers/).

Containers run together with all sidecars; init containers run one after the other, each beside the
sidecars that were started before it. What the pod needs is the largest of these moments, and its
overhead. Quantities are integers: thousandths for cpu, whole units for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from wherry.kube.api import pods, quantity
from wherry.kube.api.amounts import is_pod_level

Resources = dict[str, int]

DEFAULT_MILLI_CPU = 100
DEFAULT_MEMORY = 200 * 1024 * 1024


def read(quantities: Mapping[str, Any] | None) -> Resources:
    """A resource list in integers."""
    return {
        name: quantity.to_milli(value) if name == "cpu" else quantity.to_int(value)
        for name, value in (quantities or {}).items()
    }


def _add(total: Resources, more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _raise_to(total: Resources, least: Mapping[str, int]) -> None:
    for name, amount in least.items():
        if amount > total.get(name, 0):
            total[name] = amount


def of_pod(spec: Mapping[str, Any], *, assume: Mapping[str, int] | None = None) -> Resources:
    """What a pod of this spec requests.

    ``assume`` is what a container that requests none of a resource counts as, for scores: a node
    full of pods without requests is not an empty node.
    """
    total: Resources = {}
    for container in spec.get("containers") or ():
        _add(total, _of_container(container, assume))
    sidecars: Resources = {}
    peak: Resources = {}
    for container in spec.get("initContainers") or ():
        own = _of_container(container, assume)
        if pods.is_sidecar(container):
            _add(sidecars, own)
            _add(total, own)
            own = dict(sidecars)
        else:
            _add(own, sidecars)
        _raise_to(peak, own)
    _raise_to(total, peak)
    whole = read((spec.get("resources") or {}).get("requests"))
    total.update({name: amount for name, amount in whole.items() if is_pod_level(name)})
    _add(total, read(spec.get("overhead")))
    return total


def _of_container(container: Mapping[str, Any], assume: Mapping[str, int] | None) -> Resources:
    requested = read((container.get("resources") or {}).get("requests"))
    for name, amount in (assume or {}).items():
        requested.setdefault(name, amount)
    return requested


def requested_and_assumed(spec: Mapping[str, Any]) -> tuple[Resources, Resources]:
    """What the pod requests, and cpu and memory as scores count them; the work for equal specs is
    done once."""
    parts = [
        [
            (container.get("resources") or {}).get("requests"),
            container.get("restartPolicy") if number else None,
        ]
        for number, containers in enumerate((spec.get("containers"), spec.get("initContainers")))
        for container in containers or ()
    ]
    count = len(spec.get("containers") or ())
    whole = (spec.get("resources") or {}).get("requests")
    return _worked_out(count, orjson.dumps([parts, whole, spec.get("overhead")]))


@lru_cache(1024)
def _worked_out(count: int, text: bytes) -> tuple[Resources, Resources]:
    parts, whole, overhead = orjson.loads(text)
    containers = [{"resources": {"requests": r}, "restartPolicy": policy} for r, policy in parts]
    spec = {
        "containers": containers[:count],
        "initContainers": containers[count:],
        "resources": {"requests": whole},
        "overhead": overhead,
    }
    return of_pod(spec), assumed(spec)


_ASSUMED = {"cpu": DEFAULT_MILLI_CPU, "memory": DEFAULT_MEMORY}


def assumed(spec: Mapping[str, Any]) -> Resources:
    """cpu and memory as scores count them."""
    found = of_pod(spec, assume=_ASSUMED)
    return {name: found.get(name, 0) for name in _ASSUMED}


Port = tuple[str, str, int]
"""Address, protocol, number on the host."""


def host_ports(spec: Mapping[str, Any]) -> list[Port]:
    """The ports of the node itself that the pod takes."""
    return [
        (
            port.get("hostIP") or "0.0.0.0",
            port.get("protocol") or "TCP",
            int(port["hostPort"]),
        )
        for container in pods.lasting_containers(spec)
        for port in container.get("ports") or ()
        if port.get("hostPort")
    ]
