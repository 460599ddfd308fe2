"""What the metrics server says: objects, lists, tables, what it serves. Pure.

Upstream: metrics-server/pkg/api, k8s.io/metrics/pkg/apis/metrics/v1beta1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.quantity import ZERO, Quantity, parse
from wherry.kube.client.transport import Object
from wherry.kube.metrics.usage import Usage

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"
BASE = f"/apis/{API_VERSION}"
KINDS = {"nodes": "NodeMetrics", "pods": "PodMetrics"}
_VERBS = ["get", "list"]


def node_metrics(node: Object, usage: Usage, now: str) -> Object:
    """NodeMetrics of a node."""
    return {**_head("NodeMetrics", node, now), **usage.times(), "usage": usage.usage()}


def pod_metrics(pod: Object, usages: Mapping[str, Usage], now: str) -> Object:
    """PodMetrics of a pod; the times are those of its last container."""
    latest = max(usages.values(), key=lambda usage: usage.at)
    return {
        **_head("PodMetrics", pod, now),
        **latest.times(),
        "containers": [
            {"name": name, "usage": usage.usage()} for name, usage in sorted(usages.items())
        ],
    }


def _head(kind: str, of: Object, now: str) -> Object:
    metadata: Object = {"name": meta.name(of)}
    if meta.namespace(of):
        metadata["namespace"] = meta.namespace(of)
    metadata["creationTimestamp"] = now
    if meta.labels(of):
        metadata["labels"] = meta.labels(of)
    return {"kind": kind, "apiVersion": API_VERSION, "metadata": metadata}


def list_of(kind: str, items: Iterable[Object]) -> Object:
    """A list of such objects."""
    plain = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in items]
    return {"kind": f"{kind}List", "apiVersion": API_VERSION, "metadata": {}, "items": plain}


def table(items: Sequence[Object], include: str, version: str = "v1") -> Object:
    """The rows kubectl prints. ``include`` is what of each object comes along: None, Metadata or
    Object."""
    summed = [_summed(each) for each in items]
    names = sorted(summed[0]) if summed else []
    columns = [_column("Name", "name", "Name of the resource")] if summed else []
    columns += [_column(name, "quantity", "") for name in names]
    if summed:
        columns.append(_column("Window", "duration", ""))
    rows = []
    for o, usage in zip(items, summed, strict=True):
        cells = [meta.name(o), *(str(usage.get(name, ZERO)) for name in names), o["window"]]
        row: Object = {"cells": cells}
        if include == "Object":
            row["object"] = o
        elif include != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": f"meta.k8s.io/{version}",
                "metadata": o["metadata"],
            }
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": {},
        "columnDefinitions": columns,
        "rows": rows,
    }


def _column(name: str, format: str, description: str) -> Object:
    return {
        "name": name,
        "type": "string",
        "format": format,
        "description": description,
        "priority": 0,
    }


def _summed(o: Object) -> dict[str, Quantity]:
    parts = [each["usage"] for each in o["containers"]] if "containers" in o else [o["usage"]]
    total: dict[str, Quantity] = {}
    for usage in parts:
        for name, value in usage.items():
            total[name] = total.get(name, ZERO) + parse(value)
    return total


# --- about itself ----------------------------------------------------------------------------


def group() -> Object:
    version = {"groupVersion": API_VERSION, "version": VERSION}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [version],
        "preferredVersion": version,
    }


def groups() -> Object:
    told = {name: value for name, value in group().items() if name not in ("kind", "apiVersion")}
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [told]}


def resources() -> Object:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": API_VERSION,
        "resources": [
            {
                "name": name,
                "singularName": "",
                "namespaced": name == "pods",
                "kind": kind,
                "verbs": _VERBS,
            }
            for name, kind in KINDS.items()
        ],
    }


_PREFIX = "io.k8s.metrics.pkg.apis.metrics.v1beta1"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"


def _reference(name: str) -> Object:
    return {"$ref": f"#/definitions/{name}"}


def _text(description: str, **more: str) -> Object:
    return {"type": "string", "description": description, **more}


def _usage() -> Object:
    return {
        "type": "object",
        "description": "What is used: cpu in cores, memory in bytes (the working set).",
        "additionalProperties": _text("A quantity."),
    }


def openapi() -> Object:
    """The OpenAPI 2 document."""
    common = {
        "apiVersion": _text("The version of the object's schema."),
        "kind": _text("The kind of the object."),
    }
    times = {
        "timestamp": _text("The end of the time over which was measured.", format="date-time"),
        "window": _text("How long was measured, as a duration."),
    }
    head = {**common, "metadata": {**_reference(f"{_META}.ObjectMeta")}}
    containers = {
        "type": "array",
        "description": "What each container uses.",
        "items": _reference(f"{_PREFIX}.ContainerMetrics"),
    }
    definitions: dict[str, Any] = {
        f"{_PREFIX}.ContainerMetrics": {
            "type": "object",
            "description": "What a container uses.",
            "required": ["name", "usage"],
            "properties": {"name": _text("The container's name."), "usage": _usage()},
        },
        f"{_PREFIX}.NodeMetrics": {
            "type": "object",
            "description": "What a node uses.",
            "required": ["timestamp", "window", "usage"],
            "properties": {**head, **times, "usage": _usage()},
        },
        f"{_PREFIX}.PodMetrics": {
            "type": "object",
            "description": "What the containers of a pod use.",
            "required": ["timestamp", "window", "containers"],
            "properties": {**head, **times, "containers": containers},
        },
        f"{_META}.ObjectMeta": {"type": "object", "description": "Metadata of an object."},
        f"{_META}.ListMeta": {"type": "object", "description": "Metadata of a list."},
    }
    paths: dict[str, Any] = {}
    for name, kind in KINDS.items():
        gvk = {"group": GROUP, "version": VERSION, "kind": kind}
        definitions[f"{_PREFIX}.{kind}"]["x-kubernetes-group-version-kind"] = [gvk]
        definitions[f"{_PREFIX}.{kind}List"] = {
            "type": "object",
            "description": f"A list of {kind}.",
            "required": ["items"],
            "properties": {
                **common,
                "metadata": _reference(f"{_META}.ListMeta"),
                "items": {"type": "array", "items": _reference(f"{_PREFIX}.{kind}")},
            },
            "x-kubernetes-group-version-kind": [{**gvk, "kind": f"{kind}List"}],
        }
        paths[f"{BASE}/{name}"] = _operation("list", kind, f"{kind}List", [])
        place, parameters = f"{BASE}/{name}", [_parameter("name")]
        if name == "pods":
            within = [_parameter("namespace")]
            place = f"{BASE}/namespaces/{{namespace}}/pods"
            paths[place] = _operation("list", kind, f"{kind}List", within, "Namespaced")
            parameters += within
        paths[f"{place}/{{name}}"] = _operation("get", kind, kind, parameters, "Read")
    return {
        "swagger": "2.0",
        "info": {"title": "Wherry metrics server", "version": VERSION},
        "paths": paths,
        "definitions": definitions,
    }


def _parameter(name: str) -> Object:
    return {"name": name, "in": "path", "required": True, "type": "string"}


def _operation(
    verb: str, kind: str, answer: str, parameters: list[Object], what: str = ""
) -> Object:
    return {
        "get": {
            "operationId": f"{verb}MetricsV1beta1{what}{kind}",
            "produces": ["application/json"],
            "responses": {
                "200": {"description": "OK", "schema": _reference(f"{_PREFIX}.{answer}")}
            },
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": kind},
        },
        "parameters": parameters,
    }
