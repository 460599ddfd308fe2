"""From a CustomResourceDefinition to the kinds it has served, and to the state of its names.

Upstream: k8s.io/apiextensions-apiserver/pkg/controller/status and .../pkg/apiserver.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from wherry.kube.api.conditions import is_true
from wherry.kube.api.custom.kind import CustomKind
from wherry.kube.api.meta import metadata, now
from wherry.kube.api.resources import Resource

Object = dict[str, Any]

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


def kinds_of(crd: Object) -> list[CustomKind]:
    """The kinds that a definition has served now, one for each version, the stored one first;
    none until it is established."""
    if not is_true(crd, "Established"):
        return []
    spec = crd["spec"]
    accepted = (crd.get("status") or {}).get("acceptedNames") or {}
    names = {field: name for field, name in accepted.items() if name} or spec["names"]
    names = {"plural": spec["names"]["plural"], "kind": spec["names"]["kind"], **names}
    tag = f"{metadata(crd).get('uid')}/{metadata(crd).get('generation')}"
    terminating = metadata(crd).get("deletionTimestamp") is not None
    storage = next(v for v in spec["versions"] if v["storage"])
    found = []
    stored: Resource | None = None
    for version in sorted(spec["versions"], key=lambda v: not v["storage"]):
        if version["served"] or version is storage:
            resource = _resource(spec, names, version)
            if stored is None:
                stored = resource = replace(resource, hidden=not version["served"])
            else:
                resource = replace(resource, stored_as=stored)
            made = CustomKind(
                resource,
                version,
                tag,
                terminating=terminating,
                unpruned=bool(spec.get("preserveUnknownFields")),
            )
            if made.has_defaults:
                made.defaults_since = int(metadata(crd).get("resourceVersion") or 0)
            found.append(made)
    conversion = spec.get("conversion") or {}
    if conversion.get("strategy") == "Webhook":
        for kind in found:
            kind.conversion_webhook = conversion.get("webhook") or {}
    return found


def _resource(spec: Object, names: Object, version: Object) -> Resource:
    group, plural, kind = spec["group"], names["plural"], names["kind"]
    reversed_group = ".".join(reversed(group.split(".")))
    subresources = version.get("subresources") or {}
    return Resource(
        group,
        version["name"],
        kind,
        plural,
        names.get("singular") or kind.lower(),
        spec["scope"] == "Namespaced",
        f"{reversed_group}.{version['name']}.{kind}",
        tuple(names.get("shortNames") or ()),
        tuple(names.get("categories") or ()),
        tuple(name for name in ("status", "scale") if name in subresources),
        storage_prefix=f"{group}/{plural}",
        custom=True,
        list_name=names.get("listKind") or f"{kind}List",
    )


def _condition(type: str, status: str, reason: str, message: str) -> Object:
    return {
        "type": type,
        "status": status,
        "lastTransitionTime": now(),
        "reason": reason,
        "message": message,
    }


def status_of(crd: Object, others: Iterable[Object]) -> Object:
    """The status a definition should have. ``others`` are the definitions of the same group, whose
    accepted names are taken."""
    spec, status = crd["spec"], crd.get("status") or {}
    accepted, conflict = _accept(spec["names"], status.get("acceptedNames") or {}, others)
    conditions = {c.get("type", ""): c for c in status.get("conditions") or ()}
    if conflict is None:
        names = _condition("NamesAccepted", "True", "NoConflicts", "no conflicts found")
        established = _condition(
            "Established", "True", "InitialNamesAccepted",
            "the initial names have been accepted",
        )  # fmt: skip
    else:
        names = _condition("NamesAccepted", "False", *conflict)
        established = _condition(
            "Established", "False", "NotAccepted", "not all names are accepted"
        )
        if conditions.get("Established", {}).get("status") == "True":
            established = conditions["Established"]  # once established, it stays so
    wanted = [names, established]
    if metadata(crd).get("deletionTimestamp") is not None:
        wanted.append(
            _condition(
                "Terminating",
                "True",
                "InstanceDeletionInProgress",
                "CustomResource deletion is in progress",
            )
        )
    for each in wanted:
        before = conditions.get(each["type"])
        if before is not None and before.get("status") == each["status"]:
            each = {**each, "lastTransitionTime": before.get("lastTransitionTime")}
        conditions[each["type"]] = each
    storage = next(v["name"] for v in spec["versions"] if v["storage"])
    stored = list(status.get("storedVersions") or ())
    if storage not in stored:
        stored.append(storage)
    return {
        **status,
        "conditions": list(conditions.values()),
        "acceptedNames": accepted,
        "storedVersions": stored,
    }


def _accept(
    wanted: Object, accepted: Object, others: Iterable[Object]
) -> tuple[Object, tuple[str, str] | None]:
    """The names that may be used, and why not all (reason, message)."""
    taken: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        names = (other.get("status") or {}).get("acceptedNames") or {}
        taken.update((names.get("plural", ""), names.get("singular", "")))
        taken.update(names.get("shortNames") or ())
        kinds.update((names.get("kind", ""), names.get("listKind", "")))
    conflict: tuple[str, str] | None = None
    out = dict(wanted)
    for field, used in (("plural", taken), ("singular", taken), ("kind", kinds),
                        ("listKind", kinds)):  # fmt: skip
        name = wanted.get(field, "")
        if name and name in used:
            conflict = (f"{field[0].upper()}{field[1:]}Conflict", f'"{name}" is already in use')
            if accepted.get(field):
                out[field] = accepted[field]
            else:
                out.pop(field, None)
    clashing = [name for name in wanted.get("shortNames") or () if name in taken]
    if clashing:
        conflict = ("ShortNamesConflict", f'"{clashing[0]}" is already in use')
        if accepted.get("shortNames"):
            out["shortNames"] = accepted["shortNames"]
        else:
            out.pop("shortNames", None)
    return out, conflict
