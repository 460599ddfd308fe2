"""Events of events.k8s.io: the core's Event, with better names.

Upstream: pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

from dataclasses import replace

from wherry.kube.api.conversion.version import Conversion
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds.base import Object

_NAMES = {
    "deprecatedCount": "count",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedSource": "source",
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
}
"""Field → its name in the core."""

_CORE = {stored: name for name, stored in _NAMES.items()}

_LABELS = {
    **{
        f"regarding.{part}": f"involvedObject.{part}"
        for part in (
            "apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid"
        )
    },
    "reportingController": "reportingComponent",
}  # fmt: skip


def to_stored(o: Object) -> Object:
    """From events.k8s.io."""
    return {_NAMES.get(name, name): value for name, value in o.items()}


def from_stored(o: Object) -> Object:
    """To events.k8s.io."""
    return {_CORE.get(name, name): value for name, value in o.items()}


def _fault(fault: FieldError) -> FieldError:
    first, dot, rest = fault.field.partition(".")
    return replace(fault, field=f"{_CORE.get(first, first)}{dot}{rest}")


EVENT = Conversion(to_stored, from_stored, fault=_fault, labels=_LABELS)
