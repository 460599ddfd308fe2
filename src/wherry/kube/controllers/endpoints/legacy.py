"""The Endpoints object of a Service: a pure function.

The same addresses as the slices', in the form of before they existed: one object, grouped into
subsets by equal ports, ready ones apart from those that are not.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from wherry.kube.api import meta, pods
from wherry.kube.client.transport import Object
from wherry.kube.controllers.endpoints import backends

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
LARGEST = 1000


def address(service: Object, pod: Object, ip: str) -> Object:
    """The EndpointAddress of a pod behind the Service."""
    result: Object = {"ip": ip}
    hostname = backends.hostname(service, pod)
    if hostname:
        result["hostname"] = hostname
    if pod["spec"].get("nodeName"):
        result["nodeName"] = pod["spec"]["nodeName"]
    result["targetRef"] = backends.target(pod)
    return result


def subsets(service: Object, selected: Iterable[Object]) -> tuple[list[Object], bool]:
    """The subsets, in an order of their own, and whether addresses had to be left out."""
    publish_all = backends.publishes_not_ready(service)
    groups: dict[bytes, tuple[list[Object], list[Object], list[Object]]] = {}
    for pod in selected:
        if not backends.is_backend(pod, terminating=publish_all):
            continue
        ip = _address(service, pod)
        ports = [
            {k: v for k, v in port.items() if k != "name" or v}
            for port in backends.ports(service, pod)
        ]
        if ip is None or (not ports and service["spec"].get("ports")):
            continue
        key = orjson.dumps(sorted(ports, key=str), option=orjson.OPT_SORT_KEYS)
        _, ready, unready = groups.setdefault(key, (ports, [], []))
        (ready if publish_all or pods.is_ready(pod) else unready).append(address(service, pod, ip))
    room, truncated = LARGEST, False
    result = []
    for key in sorted(groups):
        ports, ready, unready = groups[key]
        subset: Object = {}
        for field, group in (("addresses", ready), ("notReadyAddresses", unready)):
            group.sort(key=lambda entry: (entry["ip"], entry["targetRef"]["uid"]))
            truncated = truncated or len(group) > room
            if group[:room]:
                subset[field] = group[:room]
            room = max(0, room - len(group))
        if subset:
            if ports:
                subset["ports"] = ports
            result.append(subset)
    return result, truncated


def _address(service: Object, pod: Object) -> str | None:
    """The pod's address of the Service's first family."""
    family = (service["spec"].get("ipFamilies") or ["IPv4"])[0]
    own = pods.addresses(pod)
    if not service["spec"].get("ipFamilies") and backends.is_headless(service):
        return own[0] if own else None
    return next((ip for ip in own if (":" in ip) == (family == "IPv6")), None)


def reconcile(
    service: Object, selected: Iterable[Object], existing: Object | None, trigger: str
) -> Object | None:
    """The Endpoints object to write, or None where ``existing`` is right."""
    wanted, truncated = subsets(service, selected)
    labels = dict(meta.labels(service))
    labels[MANAGED_BY] = MANAGER
    if backends.is_headless(service):
        labels[backends.HEADLESS] = ""
    else:
        labels.pop(backends.HEADLESS, None)
    old = dict(meta.annotations(existing)) if existing is not None else {}
    if (
        existing is not None
        and (existing.get("subsets") or []) == wanted
        and meta.labels(existing) == labels
        and (OVER_CAPACITY in old) == truncated
    ):
        return None
    annotations = {k: v for k, v in old.items() if k not in (backends.TRIGGER_TIME, OVER_CAPACITY)}
    if trigger:
        annotations[backends.TRIGGER_TIME] = trigger
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    metadata = {
        **(existing["metadata"] if existing is not None else {}),
        "name": meta.name(service),
        "namespace": meta.namespace(service),
        "labels": labels,
        "annotations": annotations,
    }
    result: Object = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata}
    if wanted:
        result["subsets"] = wanted
    return result
