"""Events of core/v1.

Upstream: pkg/apis/core/validation/events.go (what it calls legacy validation) and
pkg/registry/core/event/strategy.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age

_LENGTH_LIMIT: Final = 128
_NOTE_LIMIT: Final = 1024
_OBJECT_FIELDS = (
    "kind",
    "namespace",
    "name",
    "uid",
    "apiVersion",
    "resourceVersion",
    "fieldPath",
)


class Event(Kind):
    """Something that happened to an object."""

    columns = (
        Column("Last Seen", description="Time since it was last seen."),
        Column("Type", description="Normal or Warning."),
        Column("Reason", description="Why, in one word for programs."),
        Column("Object", description="What it happened to."),
        Column("Subobject", description="Which part of the object.", priority=1),
        Column("Source", description="Who reports it.", priority=1),
        Column("Message", description="What happened, in words for people."),
        Column("First Seen", description="Time since it was first seen.", priority=1),
        Column("Count", description="How often it was seen.", priority=1),
        Column("Name", format="name", description=NAME_COLUMN.description, priority=1),
    )
    create_on_update = True
    field_names = frozenset(
        {f"involvedObject.{name}" for name in _OBJECT_FIELDS}
        | {"reason", "reportingComponent", "source", "type"}
    )

    def name_messages(self, name: str, prefix: bool) -> list[str]:
        return names.is_path_segment(name)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        namespace = (o.get("metadata") or {}).get("namespace", "")
        about = (o.get("involvedObject") or {}).get("namespace", "")
        if not o.get("eventTime"):
            matches = about == namespace if about else namespace in ("", "default")
        else:
            matches = bool(about) or namespace in ("default", "kube-system")
            _check_new(o, faults)
        if not matches:
            why = "does not match event.namespace"
            faults.insert(0, fields.invalid("involvedObject.namespace", about, why))
        checks.dns_subdomain(namespace, "namespace", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        first = age(o.get("firstTimestamp") or o.get("eventTime"), now)
        last = age(o["lastTimestamp"], now) if o.get("lastTimestamp") else first
        count = o.get("count") or 1
        if (series := o.get("series")) is not None:
            last, count = age(series.get("lastObservedTime"), now), series.get("count", 0)
        about = o.get("involvedObject") or {}
        kind, name = about.get("kind", "").lower(), about.get("name")
        return [
            last,
            o.get("type", ""),
            o.get("reason", ""),
            f"{kind}/{name}" if name else kind,
            about.get("fieldPath", ""),
            _source(o),
            o.get("message", "").strip(),
            first,
            count,
            o["metadata"].get("name", ""),
        ]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        values = super().selectable_fields(o)
        about = o.get("involvedObject") or {}
        for name in _OBJECT_FIELDS:
            values[f"involvedObject.{name}"] = about.get(name, "")
        reporter = o.get("reportingComponent", "")
        values["reason"] = o.get("reason", "")
        values["reportingComponent"] = reporter
        values["source"] = (o.get("source") or {}).get("component") or reporter
        values["type"] = o.get("type", "")
        return values


def _check_new(o: Object, faults: Faults) -> None:
    """An event with an eventTime comes from a newer client, which fills in more."""
    reporter = o.get("reportingComponent", "")
    if not reporter:
        faults.append(fields.required("reportingController"))
    checks.qualified_name(reporter, "reportingController", faults)
    for name in ("reportingInstance", "action", "reason"):
        text = o.get(name, "")
        if not text:
            faults.append(fields.required(name))
        if len(text.encode()) > _LENGTH_LIMIT:
            why = f"can have at most {_LENGTH_LIMIT} characters"
            faults.append(fields.invalid(name, "", why))
    if len(o.get("message", "").encode()) > _NOTE_LIMIT:
        why = f"can have at most {_NOTE_LIMIT} characters"
        faults.append(fields.invalid("message", "", why))


def _source(o: Object) -> str:
    source = o.get("source") or {}
    component = source.get("component") or o.get("reportingComponent", "")
    instance = source.get("host") or o.get("reportingInstance", "")
    return f"{component}, {instance}" if instance else component
