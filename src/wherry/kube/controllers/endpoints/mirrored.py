"""EndpointSlices that show an Endpoints object which somebody wrote by hand: a pure function.

Proxies read slices alone, so what stands in the Endpoints of a Service without a selector is
mirrored. Follows k8s.io/endpointslicemirroring
(https://kubernetes.io/docs/concepts/services-networking/service/#endpointslice-mirroring).
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Sequence

import orjson

from wherry.kube.api import meta
from wherry.kube.api.endpoint_slices import SERVICE_NAME
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS
from wherry.kube.client.transport import Object
from wherry.kube.controllers.endpoints import backends, slices
from wherry.kube.controllers.ownership import controller_reference

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
MOST = 1000
"""Addresses of one subset that are mirrored."""

_LOCK = "control-plane.alpha.kubernetes.io/leader"  # elections were held on Endpoints once
_NOT_MIRRORED = ("kubectl.kubernetes.io/last-applied-configuration", backends.TRIGGER_TIME)

Group = tuple[str, bytes]
"""Address family and ports."""


def is_mirrored(endpoints: Object | None, service: Object | None) -> bool:
    """Whether the object is somebody's own, of a Service that does not select pods itself."""
    if endpoints is None or service is None or meta.is_deleting(endpoints):
        return False
    if meta.labels(endpoints).get(SKIP) == "true" or _LOCK in meta.annotations(endpoints):
        return False
    return not service["spec"].get("selector")


class Mirror:
    """What the slices shall show, and what of the object cannot be shown."""

    def __init__(self, endpoints: Object) -> None:
        self.groups: dict[Group, dict[str, Object]] = defaultdict(dict)
        self.ports: dict[Group, list[Object]] = {}
        self.invalid: list[str] = []
        self.left_out = 0
        for subset in endpoints.get("subsets") or ():
            self._add(subset)

    def _add(self, subset: Object) -> None:
        ports = [{"name": "", "protocol": "TCP", **port} for port in subset.get("ports") or ()]
        encoded = orjson.dumps(sorted(ports, key=str), option=orjson.OPT_SORT_KEYS)
        count = 0
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for entry in subset.get(field) or ():
                try:
                    version = ipaddress.ip_address(entry["ip"]).version
                except ValueError:
                    self.invalid.append(entry["ip"])
                    continue
                if count >= MOST:
                    self.left_out += 1
                    continue
                count += 1
                group = ("IPv6" if version == 6 else "IPv4", encoded)
                self.ports[group] = ports
                self.groups[group][entry["ip"]] = _endpoint(entry, ready=ready)


def _endpoint(entry: Object, *, ready: bool) -> Object:
    result: Object = {"addresses": [entry["ip"]], "conditions": {"ready": ready}}
    for field in ("hostname", "nodeName", "targetRef"):
        if entry.get(field):
            result[field] = entry[field]
    return result


def reconcile(endpoints: Object, mirror: Mirror, existing: Sequence[Object]) -> slices.Changes:
    """What must be written so that slices of ours show ``mirror``, which was made of
    ``endpoints``."""
    changes = slices.Changes()
    by_group: dict[Group, list[Object]] = defaultdict(list)
    for slice in existing:
        key = orjson.dumps(sorted(slice.get("ports") or (), key=str), option=orjson.OPT_SORT_KEYS)
        by_group[slice["addressType"], key].append(slice)
    for group, wanted in mirror.groups.items():
        present = sorted(by_group.pop(group, []), key=meta.name)
        contents = list(wanted.values())
        # All of a group fit into one slice: a subset shows no more than a slice may hold.
        for start in range(0, len(contents), MOST):
            part = contents[start : start + MOST]
            if present:
                _update(endpoints, present.pop(0), part, mirror.ports[group], changes)
            else:
                changes.create.append(_make(endpoints, group[0], part, mirror.ports[group]))
        changes.delete += present
    for surplus in by_group.values():
        changes.delete += surplus
    return changes


def _metadata(endpoints: Object) -> Object:
    labels = dict(meta.labels(endpoints))
    labels[SERVICE_NAME] = meta.name(endpoints)
    labels[slices.MANAGED_BY] = MANAGER
    annotations = meta.annotations(endpoints)
    return {
        "labels": labels,
        "annotations": {k: v for k, v in annotations.items() if k not in _NOT_MIRRORED},
        "ownerReferences": [controller_reference(endpoints, ENDPOINTS)],
    }


def _make(endpoints: Object, family: str, contents: list[Object], ports: list[Object]) -> Object:
    metadata = {"generateName": f"{meta.name(endpoints)}-", "namespace": meta.namespace(endpoints)}
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {**metadata, **_metadata(endpoints)},
        "addressType": family,
        "endpoints": contents,
        "ports": ports,
    }


def _update(
    endpoints: Object,
    slice: Object,
    contents: list[Object],
    ports: list[Object],
    changes: slices.Changes,
) -> None:
    wanted = _metadata(endpoints)
    same = (slice.get("endpoints") or []) == contents and all(
        (slice["metadata"].get(part) or type(value)()) == value for part, value in wanted.items()
    )
    if not same:
        metadata = {**slice["metadata"], **wanted}
        changed = {**slice, "metadata": metadata, "endpoints": contents, "ports": ports}
        changes.update.append(changed)
