"""Server-side apply: who set which field, and what follows from it.

Every object carries, in ``metadata.managedFields``, the fields each manager set last. Whoever
applies a configuration takes the fields in it: a field that another manager holds with another
value is a conflict, unless forced; a field applied before and no longer is removed, unless another
holds it too. Other writes never conflict: what they change, they take.

Ordinary writes pass through ``track_update``, so it looks only at what differs.
Upstream: k8s.io/apimachinery/pkg/util/managedfields, sigs.k8s.io/structured-merge-diff, merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import orjson

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError, bad_request
from wherry.kube.api.field_sets import (
    SELF,
    Fields,
    difference,
    intersection,
    is_well_formed,
    path_text,
    paths,
    union,
)
from wherry.kube.api.merge_types import MergeType, merge_type
from wherry.kube.api.merging import compare, duplicates, field_set, merge, named_as_members, without
from wherry.kube.api.resources import Resource

Object = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_MOST_UPDATERS = 10

_IDENTITY: Fields = {
    "f:apiVersion": {},
    "f:kind": {},
    "f:metadata": {
        SELF: {},
        "f:creationTimestamp": {},
        "f:generation": {},
        "f:managedFields": {},
        "f:name": {},
        "f:namespace": {},
        "f:resourceVersion": {},
        "f:selfLink": {},
        "f:uid": {},
    },
}
"""Fields that nobody manages: they are the server's, or say which object is meant."""

_ALWAYS_THERE = frozenset({"f:metadata", "f:spec", "f:status", "f:strategy", "f:template"})
"""Structs that an object has even when empty, so that creating it does not set them."""


class _Manager(NamedTuple):
    """Who manages. The same name by another operation is another manager."""

    name: str
    operation: str
    api_version: str  # empty for Apply: one who applies stays the same across versions
    subresource: str

    def __str__(self) -> str:
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a manager holds, by the version it spoke, and since when."""

    fields: Fields
    api_version: str
    time: str


_Managers = dict[_Manager, _Entry]


def apply(
    resource: Resource,
    live: Object | None,
    applied: Object,
    manager: str,
    *,
    subresource: str = "",
    force: bool = False,
    now: str,
    shape: MergeType | None = None,
) -> Object:
    """The object that applying a configuration makes, with its new managedFields.

    Args:
        live: the present object; None where there is none, and the configuration becomes it.
        applied: the configuration, decoded but not defaulted.
        manager: the name of who applies.
        force: take fields from other managers instead of failing.
        now: the time to note, as meta/v1 Time.
        shape: how the resource merges, where the schema data does not say it.

    Returns:
        A new object, or ``live`` itself where applying changes nothing. Inputs are not changed,
        and the result shares parts with them.

    Raises:
        StatusError: 409, others hold fields with other values, each told in ``details.causes``;
            400, the configuration has an item twice.
    """
    shape = shape or merge_type(resource.schema)
    if twice := duplicates(applied, shape):
        raise bad_request(
            f"failed to create typed patch object ({meta.key(applied)}; {resource.api_version}, "
            f"Kind={resource.kind}): errors:\n  " + "\n  ".join(twice)
        )
    me = _Manager(manager, "Apply", "", subresource)
    if live is None:
        fields = _managed(field_set(applied, shape), resource, subresource)
        return _with_managers(applied, {me: _Entry(fields, resource.api_version, now)})
    try:
        result = _apply(resource, shape, live, applied, me, force=force, now=now)
    except _Conflicts as conflicts:
        if manager != "kubectl" or conflicts.beyond(_last_applied(shape, live)):
            raise conflicts.error() from None
        # Its fields came by client-side apply: the same hand, so there is nothing to resolve.
        result = _apply(resource, shape, live, applied, me, force=True, now=now)
    if manager == "kubectl" and result is not live:
        return _with_last_applied(result, applied)
    return result


def _apply(
    resource: Resource,
    shape: MergeType,
    live: Object,
    applied: Object,
    me: _Manager,
    *,
    force: bool,
    now: str,
) -> Object:
    managers = _read(meta.metadata(live).get("managedFields"))
    former = dict(managers)
    if not managers:
        created, _ = compare({}, live, shape)
        fields = _without_structs(_managed(created, resource, ""))
        unknown = _Manager("before-first-apply", "Update", resource.api_version, "")
        managers[unknown] = _Entry(fields, resource.api_version, now)
    merged = merge(live, applied, shape)
    wanted = field_set(applied, shape)
    last = managers.get(me)
    mine = _managed(wanted, resource, me.subresource)
    managers[me] = _Entry(mine, resource.api_version, last.time if last else now)
    if last is not None:
        held = [wanted, *(entry.fields for entry in managers.values())]
        kept = reduce(union, (named_as_members(fields, shape) for fields in held))
        merged = without(merged, difference(named_as_members(last.fields, shape), kept), shape)
    changed, removed = compare(live, merged, shape)
    changed = _managed(changed, resource, me.subresource)
    others = {who: entry for who, entry in managers.items() if who != me}
    conflicts = {who: intersection(entry.fields, changed) for who, entry in others.items()}
    conflicts = {who: fields for who, fields in conflicts.items() if fields}
    if conflicts and not force:
        raise _Conflicts(conflicts)
    managers = {who: _less(entry, changed, removed) for who, entry in others.items()}
    managers[me] = _Entry(mine, resource.api_version, former[me].time if me in former else now)
    managers = {who: entry for who, entry in managers.items() if entry.fields}
    if not changed and not removed and managers == former:
        return live
    if me in managers:
        managers[me] = replace(managers[me], time=now)
    return _with_managers(merged, managers)


def track_update(
    resource: Resource,
    live: Object | None,
    new: Object,
    manager: str,
    *,
    subresource: str = "",
    now: str,
    shape: MergeType | None = None,
) -> None:
    """Notes in ``new``, in place, that ``manager`` set what differs from ``live``.

    ``new`` is what will be stored, all else done; ``live`` is None where it is created. An object
    without any managedFields stays so until something is applied to it. The client may have sent
    managedFields of its own (the way to repair them); what makes no sense is replaced by those of
    ``live``, and ``[{}]`` or ``[]`` clears them.
    """
    metadata = new["metadata"]
    old_entries = meta.metadata(live).get("managedFields") if live is not None else None
    entries = metadata.get("managedFields")
    if entries is None or (entries != old_entries and subresource):
        entries = old_entries
    if entries in ([], [{}]):
        entries = None
    elif entries != old_entries and not _is_well_formed(entries):
        entries = old_entries
    if live is not None and not entries:
        metadata.pop("managedFields", None)
        return
    metadata["managedFields"] = entries
    changed, removed = compare(live or {}, new, shape or merge_type(resource.schema))
    changed = _without_structs(_managed(changed, resource, subresource))
    if not changed and not removed:
        if not entries:
            del metadata["managedFields"]
        return
    managers = {who: _less(entry, changed, removed) for who, entry in _read(entries).items()}
    if changed:
        me = _Manager(manager, "Update", resource.api_version, subresource)
        mine = managers[me].fields if me in managers else {}
        managers[me] = _Entry(union(mine, changed), resource.api_version, now)
    managers = _capped({who: entry for who, entry in managers.items() if entry.fields})
    metadata["managedFields"] = _written(managers)
    if not managers:
        del metadata["managedFields"]


def _less(entry: _Entry, changed: Fields, removed: Fields) -> _Entry:
    fields = difference(difference(entry.fields, changed), removed)
    return entry if fields is entry.fields else replace(entry, fields=fields)


def _managed(fields: Fields, resource: Resource, subresource: str) -> Fields:
    """The fields a write by this door can set: status by its own, everything else by the other."""
    fields = difference(fields, _IDENTITY)
    if subresource == "status":
        return {key: node for key, node in fields.items() if key == "f:status"}
    if "status" in resource.subresources and "f:status" in fields:
        return {key: node for key, node in fields.items() if key != "f:status"}
    return fields


def _without_structs(fields: Fields) -> Fields:
    """The set without the structs that are always there, which so nobody sets."""
    return {
        key: _without_structs({k: v for k, v in node.items() if k != SELF})
        if key in _ALWAYS_THERE
        else node
        for key, node in fields.items()
    }


# --- managedFields as objects carry them ---------------------------------------------------------


def _is_well_formed(entries: Any) -> bool:
    return isinstance(entries, list) and all(
        entry.get("fieldsType") == "FieldsV1"
        and entry.get("operation") in ("Apply", "Update")
        and is_well_formed(entry.get("fieldsV1"))
        for entry in entries
    )


def _read(entries: Iterable[Mapping[str, Any]] | None) -> _Managers:
    managers: _Managers = {}
    for entry in entries or ():
        version, operation = entry.get("apiVersion", ""), entry.get("operation", "")
        who = _Manager(
            entry.get("manager", ""),
            operation,
            "" if operation == "Apply" else version,
            entry.get("subresource", ""),
        )
        managers[who] = _Entry(entry.get("fieldsV1") or {}, version, entry.get("time", ""))
    return managers


def _written(managers: _Managers) -> list[Object]:
    """The entries in upstream's order: who applied before who updated, older before newer."""
    ordered = sorted(
        managers.items(),
        key=lambda pair: (
            pair[0].operation, pair[1].time, pair[0].name, pair[1].api_version, pair[0].subresource
        ),
    )  # fmt: skip
    out = []
    for who, entry in ordered:
        written: Object = {
            "manager": who.name,
            "operation": who.operation,
            "apiVersion": entry.api_version,
            "time": entry.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": entry.fields,
        }
        if not entry.time:
            del written["time"]
        if who.subresource:
            written["subresource"] = who.subresource
        out.append(written)
    return out


def _with_managers(o: Object, managers: _Managers) -> Object:
    metadata = {**meta.metadata(o)}
    metadata.pop("managedFields", None)
    if entries := _written({who: entry for who, entry in managers.items() if entry.fields}):
        metadata["managedFields"] = entries
    return {**o, "metadata": metadata}


def _capped(managers: _Managers) -> _Managers:
    """No more than so many updaters: the oldest become one, called ``ancient-changes``."""
    updaters = sorted(
        (who for who in managers if who.operation == "Update"), key=lambda who: managers[who].time
    )
    if len(updaters) <= _MOST_UPDATERS:
        return managers
    out = dict(managers)
    for who in updaters[: len(updaters) - _MOST_UPDATERS + 1]:
        ancient = _Manager("ancient-changes", "Update", who.api_version, "")
        entry = out.pop(who)
        if ancient in out:
            entry = replace(entry, fields=union(out[ancient].fields, entry.fields))
        out[ancient] = entry
    return out


# --- conflicts -----------------------------------------------------------------------------------


class _Conflicts(Exception):
    """Fields of the configuration that others hold, by manager."""

    def __init__(self, by_manager: dict[_Manager, Fields]) -> None:
        super().__init__(by_manager)
        self.by_manager = by_manager

    def beyond(self, allowed: Fields) -> bool:
        """Whether any of the fields is not in ``allowed``."""
        return any(difference(fields, allowed) for fields in self.by_manager.values())

    def error(self) -> StatusError:
        found = [
            (str(who), path_text(path))
            for who, fields in sorted(self.by_manager.items())
            for path in paths(fields)
        ]
        if len(found) == 1:
            message = "Apply failed with 1 conflict: conflict with {}: {}".format(*found[0])
        else:
            lines = []
            for who, path in found:
                if f"conflicts with {who}:" not in lines:
                    lines.append(f"conflicts with {who}:")
                lines.append(f"- {path}")
            message = f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)
        causes = [
            {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": path}
            for who, path in found
        ]
        return StatusError(409, "Conflict", message, details={"causes": causes})


def _last_applied(shape: MergeType, live: Object) -> Fields:
    """The fields that client-side apply set last, by the note it leaves in an annotation."""
    try:
        applied = orjson.loads(meta.annotations(live).get(LAST_APPLIED, ""))
    except orjson.JSONDecodeError:
        return {}
    return field_set(applied, shape) if isinstance(applied, dict) else {}


def _with_last_applied(merged: Object, applied: Object) -> Object:
    """Keeps that note true where there is one, so that client-side apply can take over again."""
    if LAST_APPLIED not in meta.annotations(merged):
        return merged
    metadata = {k: v for k, v in meta.metadata(applied).items() if k != "managedFields"}
    annotations = {k: v for k, v in meta.annotations(applied).items() if k != LAST_APPLIED}
    if annotations:
        metadata["annotations"] = annotations
    else:
        metadata.pop("annotations", None)
    note = orjson.dumps({**applied, "metadata": metadata}, option=orjson.OPT_SORT_KEYS).decode()
    noted = {**meta.annotations(merged), LAST_APPLIED: f"{note}\n"}
    return {**merged, "metadata": {**meta.metadata(merged), "annotations": noted}}
