"""Objects as the server-side table that kubectl prints.

A table holds a row of cells for each object, and as much of the object as was asked for. Both wide
and narrow columns are always sent; the client leaves out those with a priority.

Upstream: k8s.io/apiserver/pkg/registry/rest/table.go, pkg/printers and meta/v1 Table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from wherry.kube.api.kinds import Kind

_META = "meta.k8s.io/v1"

_COMPLETED = {
    "Succeeded": "The pod has completed successfully.",
    "Failed": "The pod failed.",
}


def table(
    kind: Kind,
    objects: Iterable[dict[str, Any]],
    *,
    include_object: str = "Metadata",
    now: datetime,
) -> dict[str, Any]:
    """A meta.k8s.io/v1 Table of the objects, without list metadata (the caller's to set).

    ``include_object`` is the request's parameter: ``Metadata`` (also for ""), ``Object`` or
    ``None``. ``now`` is what ages are counted to.
    """
    return {
        "kind": "Table",
        "apiVersion": _META,
        "metadata": {},
        "columnDefinitions": column_definitions(kind),
        "rows": [_row(kind, o, include_object, now) for o in objects],
    }


def column_definitions(kind: Kind) -> list[dict[str, Any]]:
    """The columns, as a Table describes them."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in kind.columns
    ]


def partial(o: Mapping[str, Any]) -> dict[str, Any]:
    """The object's metadata alone, as a PartialObjectMetadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": _META,
        "metadata": o.get("metadata") or {},
    }


def _row(kind: Kind, o: dict[str, Any], include: str, now: datetime) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": kind.row(o, now)}
    if conditions := _conditions(kind, o):
        row["conditions"] = conditions
    if include == "Object":
        row["object"] = o
    elif include != "None":
        row["object"] = partial(o)
    return row


def _conditions(kind: Kind, o: Mapping[str, Any]) -> list[dict[str, str]]:
    """Pods that ended are marked, so that a client may leave them out."""
    if kind.resource.kind != "Pod":
        return []
    phase = (o.get("status") or {}).get("phase", "")
    if phase not in _COMPLETED:
        return []
    message = _COMPLETED[phase]
    return [{"type": "Completed", "status": "True", "reason": phase, "message": message}]
