"""Server-side apply: who set which field, and what follows from it.

Every object carries, in ``metadata.managedFields``, the fields each manager set last. Whoever
applies a configuration takes the fields in it: a field that another manager holds with another
value is a conflict, unless forced; a field applied before and no longer is removed, unless another
holds it too. Other writes never conflict: what they change, they take.

Ordinary writes pass through ``track_update``, so it looks only at what differs.
Upstream: k8s.io/apimachinery/pkg/util/managedfields, sigs.k8s.io/structured-merge-diff, merge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
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
from wherry.kube.api.memo import Memo
from wherry.kube.api.merge_types import MergeType, merge_type
from wherry.kube.api.merging import compare, duplicates, field_set, merge, named_as_members, without
from wherry.kube.api.resources import Resource

Object = dict[str, Any]

InVersion = Callable[[Object, str], tuple[Object, MergeType] | None]
"""An object of any version of its kind in the version with a given ``apiVersion``, and how it
merges there; None where there is no such version any more."""

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

_SYSTEM = _IDENTITY["f:metadata"]
_NOT_SET = ("apiVersion", "kind", "metadata")

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
    in_version: InVersion | None = None,
) -> Object:
    """The object that applying a configuration makes, with its new managedFields.

    Args:
        live: the present object; None where there is none, and the configuration becomes it.
        applied: the configuration, decoded but not defaulted.
        manager: the name of who applies.
        force: take fields from other managers instead of failing.
        now: the time to note, as meta/v1 Time.
        shape: how the resource merges, where the schema data does not say it.
        in_version: what managers hold who spoke another version is found in theirs; without it
            all versions have the same fields.

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
        result = _apply(resource, shape, live, applied, me, in_version, force=force, now=now)
    except _Conflicts as conflicts:
        if manager != "kubectl" or conflicts.beyond(_last_applied(shape, live)):
            raise conflicts.error() from None
        # Its fields came by client-side apply: the same hand, so there is nothing to resolve.
        result = _apply(resource, shape, live, applied, me, in_version, force=True, now=now)
    if manager == "kubectl" and result is not live:
        return _with_last_applied(result, applied)
    return result


def _apply(
    resource: Resource,
    shape: MergeType,
    live: Object,
    applied: Object,
    me: _Manager,
    in_version: InVersion | None,
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
        merged = _pruned(resource, shape, merged, wanted, last, managers, in_version)
    changes = _Changes(resource, me.subresource, live, merged, shape, in_version)
    changed, removed = changes.here
    others = {
        who: (entry, seen)
        for who, entry in managers.items()
        if who != me and (seen := changes.seen_by(entry)) is not None
    }
    conflicts = {who: intersection(entry.fields, seen[0]) for who, (entry, seen) in others.items()}
    conflicts = {who: fields for who, fields in conflicts.items() if fields}
    if conflicts and not force:
        raise _Conflicts(conflicts)
    managers = {who: _less(entry, *seen) for who, (entry, seen) in others.items()}
    managers[me] = _Entry(mine, resource.api_version, former[me].time if me in former else now)
    managers = {who: entry for who, entry in managers.items() if entry.fields}
    if not changed and not removed and managers == former:
        return live
    if me in managers:
        managers[me] = replace(managers[me], time=now)
    return _with_managers(merged, managers)


def _pruned(
    resource: Resource,
    shape: MergeType,
    merged: Object,
    wanted: Fields,
    last: _Entry,
    managers: _Managers,
    in_version: InVersion | None,
) -> Object:
    """``merged`` without what was applied ``last`` and is not ``wanted`` any more, unless another
    manager holds it: each is asked in the version it spoke."""
    held = {last.api_version: [wanted]} if in_version is None else {resource.api_version: [wanted]}
    for entry in managers.values():
        version = last.api_version if in_version is None else entry.api_version
        held.setdefault(version, []).append(entry.fields)
    first = (merged, shape)
    if in_version is not None and last.api_version != resource.api_version:
        found = in_version(merged, last.api_version)
        if found is None:
            return merged
        first = found
    there, its = first
    kept: Fields = {}
    for fields in held.pop(last.api_version, ()):
        kept = union(kept, named_as_members(fields, its))
    pruned: Object = without(there, difference(named_as_members(last.fields, its), kept), its)
    for version, sets in held.items():
        assert in_version is not None
        before, after = in_version(merged, version), in_version(pruned, version)
        if before is None or after is None:
            continue
        whole, its = before
        gone = difference(
            named_as_members(field_set(whole, its), its),
            named_as_members(field_set(after[0], its), its),
        )
        for fields in sets:
            gone = difference(gone, named_as_members(fields, its))
        pruned = without(whole, gone, its)
    if in_version is None:
        return pruned
    back = in_version(pruned, resource.api_version)
    return pruned if back is None else back[0]


class _Changes:
    """What a write changes and removes: here, in the version it was made in, and in others."""

    def __init__(
        self,
        resource: Resource,
        subresource: str,
        live: Object,
        new: Object,
        shape: MergeType,
        in_version: InVersion | None,
    ) -> None:
        self._resource = resource
        self._subresource = subresource
        self._live = live
        self._new = new
        self._in_version = in_version
        self.here = self._compare(live, new, shape)
        self._known: dict[str, tuple[Fields, Fields] | None] = {resource.api_version: self.here}

    def _compare(self, live: Object, new: Object, shape: MergeType) -> tuple[Fields, Fields]:
        changed, removed = compare(live, new, shape)
        return _managed(changed, self._resource, self._subresource), removed

    def seen_by(self, entry: _Entry) -> tuple[Fields, Fields] | None:
        """The changes in the version a manager spoke; None where that is served no more, and
        nothing of what the manager holds can be found."""
        if self._in_version is None:
            return self.here
        version = entry.api_version
        if version not in self._known:
            new = self._in_version(self._new, version)
            live = self._in_version(self._live, version) if self._live else new
            self._known[version] = (
                None
                if new is None or live is None
                else self._compare(live[0] if self._live else {}, *new)
            )
        return self._known[version]


def track_update(
    resource: Resource,
    live: Object | None,
    new: Object,
    manager: str,
    *,
    subresource: str = "",
    now: str,
    shape: MergeType | None = None,
    in_version: InVersion | None = None,
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
    shape = shape or merge_type(resource.schema)
    if live is None and not entries:
        metadata.pop("managedFields", None)
        if fields := _created(resource, new, shape, subresource):
            me = _Manager(manager, "Update", resource.api_version, subresource)
            metadata["managedFields"] = _written({me: _Entry(fields, resource.api_version, now)})
        return
    metadata["managedFields"] = entries
    changes = _Changes(resource, subresource, live or {}, new, shape, in_version)
    changed, removed = changes.here
    changed = _without_structs(changed)
    if not changed and not removed:
        if not entries:
            del metadata["managedFields"]
        return
    managers = {
        who: _less(entry, _without_structs(seen[0]), seen[1])
        for who, entry in _read(entries).items()
        if (seen := changes.seen_by(entry)) is not None
    }
    if changed:
        me = _Manager(manager, "Update", resource.api_version, subresource)
        mine = managers[me].fields if me in managers else {}
        managers[me] = _Entry(union(mine, changed), resource.api_version, now)
    managers = _capped({who: entry for who, entry in managers.items() if entry.fields})
    metadata["managedFields"] = _written(managers)
    if not managers:
        del metadata["managedFields"]


_CREATED: Memo[Fields] = Memo()


def _created(resource: Resource, new: Object, shape: MergeType, subresource: str) -> Fields:
    """What is set by who creates ``new``; found once for all objects that differ in what nobody
    manages alone."""
    metadata = {k: v for k, v in new["metadata"].items() if f"f:{k}" not in _SYSTEM}
    seen = {k: v for k, v in new.items() if k not in _NOT_SET}
    seen["metadata"] = metadata
    key = Memo.key((resource, shape, subresource), seen)
    fields = _CREATED.get(key)
    if fields is None:
        changed, _ = compare({}, new, shape)
        fields = _without_structs(_managed(changed, resource, subresource))
        _CREATED.put(key, fields)
    return fields


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
