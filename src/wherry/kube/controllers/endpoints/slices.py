"""Which EndpointSlices a Service should have, given those it has: a pure function.

A slice holds addresses of one family behind one set of ports, at most a hundred. Endpoints stay in
the slice they are in, so that one pod's change is one slice's change; only as many slices are
written as must be (https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/).
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from wherry.kube.api import meta, pods
from wherry.kube.api.endpoint_slices import SERVICE_NAME
from wherry.kube.api.resources import ENDPOINT_SLICES, SERVICES
from wherry.kube.client.transport import Object
from wherry.kube.controllers.endpoints import backends, hints
from wherry.kube.controllers.ownership import controller_reference

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
LARGEST = 100

_RESERVED = (SERVICE_NAME, MANAGED_BY, backends.HEADLESS)


@dataclass(slots=True)
class Changes:
    """Slices to write."""

    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    """Reasons and messages of events about hints."""


def families(service: Object) -> list[str]:
    """The address types the Service has slices for."""
    spec = service["spec"]
    named = [str(family) for family in spec.get("ipFamilies") or ()]
    if named:
        return named
    ip = spec.get("clusterIP")
    if ip and ip != "None":
        return [_family(ip)]
    return ["IPv4", "IPv6"]


def _family(address: str) -> str:
    return "IPv6" if ipaddress.ip_address(address).version == 6 else "IPv4"


def endpoint(service: Object, pod: Object, addresses: Sequence[str], zone: str | None) -> Object:
    """The pod as an endpoint. It is ready when it serves and is not about to end, or when the
    Service publishes all; serving tells of its readiness alone."""
    serving, terminating = pods.is_ready(pod), meta.is_deleting(pod)
    ready = backends.publishes_not_ready(service) or (serving and not terminating)
    result: Object = {
        "addresses": list(addresses),
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": backends.target(pod),
    }
    if pod["spec"].get("nodeName"):
        result["nodeName"] = pod["spec"]["nodeName"]
    if zone:
        result["zone"] = zone
    hostname = backends.hostname(service, pod)
    if hostname:
        result["hostname"] = hostname
    return result


def reconcile(
    service: Object,
    selected: Iterable[Object],
    zones: Mapping[str, str],
    existing: Sequence[Object],
    trigger: str,
    cpus: Mapping[str, float] | None = None,
) -> Changes:
    """What must be written so that slices show the ``selected`` pods.

    ``zones`` is by node name, ``existing`` are the slices of ours for this Service, ``trigger`` the
    time for the annotation of those that change (see ``TriggerTimes``), ``cpus`` are those of the
    nodes by zone, for hints (see ``hints.give``).
    """
    changes = Changes()
    by_family: dict[str, list[Object]] = defaultdict(list)
    for slice in existing:
        by_family[slice["addressType"]].append(slice)
    chosen = [pod for pod in selected if backends.is_backend(pod, terminating=True)]
    wanted_families = families(service)
    for family in wanted_families:
        wanted = _wanted(service, chosen, family, zones)
        endpoints = [e for group in wanted.values() for e in group.values()]
        why_not = hints.give(service, endpoints, cpus or {})
        told = hints.told(service, why_not, by_family[family])
        if told is not None:
            changes.told.append((told[0], f"{told[1]}, addressType: {family}"))
        _reconcile_family(service, family, wanted, by_family[family], changes)
    for family, slices in by_family.items():
        if family not in wanted_families:
            changes.delete += slices
    for written in (*changes.create, *changes.update):
        annotations = written["metadata"].setdefault("annotations", {})
        annotations.pop(backends.TRIGGER_TIME, None)
        if trigger:
            annotations[backends.TRIGGER_TIME] = trigger
    return changes


def _wanted(
    service: Object, chosen: Sequence[Object], family: str, zones: Mapping[str, str]
) -> dict[bytes, dict[str, Object]]:
    """The endpoints by port set, then by the pod's uid."""
    result: dict[bytes, dict[str, Object]] = defaultdict(dict)
    for pod in chosen:
        own = [address for address in pods.addresses(pod) if _family(address) == family]
        found = backends.ports(service, pod)
        if not own or (not found and service["spec"].get("ports")):
            continue
        zone = zones.get(pod["spec"].get("nodeName") or "")
        result[_port_key(found)][meta.uid(pod)] = endpoint(service, pod, own, zone)
    return result


def _port_key(ports: Iterable[Object]) -> bytes:
    return orjson.dumps(sorted(ports, key=str), option=orjson.OPT_SORT_KEYS)


def _reconcile_family(
    service: Object,
    family: str,
    wanted: dict[bytes, dict[str, Object]],
    existing: Sequence[Object],
    changes: Changes,
) -> None:
    by_ports: dict[bytes, list[Object]] = defaultdict(list)
    for slice in existing:
        by_ports[_port_key(slice.get("ports") or ())].append(slice)
    spare: list[Object] = []
    created, kept = [], 0
    for key, endpoints in wanted.items():
        plan = _arrange(endpoints, by_ports.pop(key, []))
        for slice, contents in plan.contents:
            if contents:
                kept += 1
                _update(service, slice, contents, orjson.loads(key), changes)
            else:
                spare.append(slice)
        for contents in plan.new:
            created.append(_make(service, family, contents, orjson.loads(key)))
    for slices in by_ports.values():
        spare += slices
    if not kept and not created:
        # A Service without endpoints shows that with one empty slice.
        if spare:
            _update(service, spare.pop(0), [], [], changes)
        else:
            created.append(_make(service, family, [], []))
    changes.create += created
    changes.delete += spare


@dataclass(slots=True)
class _Arrangement:
    contents: list[tuple[Object, list[Object]]]
    """What each slice that exists shall hold."""
    new: list[list[Object]]
    """What each slice to be made shall hold."""


def _arrange(endpoints: Mapping[str, Object], existing: Sequence[Object]) -> _Arrangement:
    """Endpoints where they are; new ones where room is, in slices that change anyway first."""
    placed: set[str] = set()
    contents: list[tuple[Object, list[Object]]] = []
    for slice in sorted(existing, key=meta.name):
        held = []
        for old in slice.get("endpoints") or ():
            uid = (old.get("targetRef") or {}).get("uid") or ""
            if uid in endpoints and uid not in placed:
                placed.add(uid)
                held.append(endpoints[uid])
        contents.append((slice, held))
    missing = [endpoint for uid, endpoint in endpoints.items() if uid not in placed]
    if missing:
        changing = [c for c in contents if c[1] != (c[0].get("endpoints") or [])]
        others = [c for c in contents if c[1] == (c[0].get("endpoints") or [])]
        others.sort(key=lambda c: len(c[1]), reverse=True)
        for _, held in (*changing, *others):
            room = LARGEST - len(held)
            held += missing[:room]
            missing = missing[room:]
    new = [missing[start : start + LARGEST] for start in range(0, len(missing), LARGEST)]
    return _Arrangement(contents, new)


def _labels(service: Object) -> dict[str, str]:
    labels = {k: v for k, v in meta.labels(service).items() if k not in _RESERVED}
    labels[SERVICE_NAME] = meta.name(service)
    labels[MANAGED_BY] = MANAGER
    if backends.is_headless(service):
        labels[backends.HEADLESS] = ""
    return labels


def _make(service: Object, family: str, endpoints: list[Object], ports: list[Object]) -> Object:
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {
            "generateName": f"{meta.name(service)}-",
            "namespace": meta.namespace(service),
            "labels": _labels(service),
            "ownerReferences": [controller_reference(service, SERVICES)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    }


def _update(
    service: Object, slice: Object, endpoints: list[Object], ports: list[Object], changes: Changes
) -> None:
    labels = _labels(service)
    owners = [controller_reference(service, SERVICES)]
    same = (
        (slice.get("endpoints") or []) == endpoints
        and (slice.get("ports") or []) == ports
        and meta.labels(slice) == labels
        and meta.owner_references(slice) == owners
    )
    if same:
        return
    metadata = {**slice["metadata"], "labels": labels, "ownerReferences": owners}
    metadata["annotations"] = dict(meta.annotations(slice))
    changes.update.append({**slice, "metadata": metadata, "endpoints": endpoints, "ports": ports})
