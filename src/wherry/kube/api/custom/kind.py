"""A custom resource's rules: those of its definition, on the behaviour all kinds have.

Upstream: k8s.io/apiextensions-apiserver/pkg/registry/customresource and
.../customresourcedefinition/conversion.go, .../tableconvertor.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from wherry.kube.api.custom import paths
from wherry.kube.api.custom.rules import check_rules
from wherry.kube.api.custom.structural import Structural
from wherry.kube.api.definitions import prose
from wherry.kube.api.errors import FieldError, StatusError
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.durations import human
from wherry.kube.api.kinds.equality import equal
from wherry.kube.api.merge_types import MergeType, merge_type_of
from wherry.kube.api.meta import clone, parse_time
from wherry.kube.api.resources import Resource
from wherry.kube.api.schema import Decoded, decode_custom

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_EMPTY: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_V2_DROPPED = frozenset(("allOf", "anyOf", "default", "nullable", "not", "oneOf"))


class CustomKind(Kind):
    """One version of a custom resource.

    Args:
        resource: what it is called and where it lies.
        version: the version's part of the definition.
        definition_tag: changes whenever the definition does.
        terminating: the definition is being deleted: nothing new is made.
        unpruned: fields that the schema does not know are kept, as definitions of v1beta1 have it.
    """

    has_generation = True
    unconditional_update = False
    strategic = False
    conversion_webhook: Object | None = None
    """The webhook that turns one version into another; None where they differ only in name."""
    kube_finalizers = False

    def __init__(
        self,
        resource: Resource,
        version: Object,
        definition_tag: str,
        *,
        terminating: bool = False,
        unpruned: bool = False,
    ) -> None:
        super().__init__(resource)
        raw = (version.get("schema") or {}).get("openAPIV3Schema") or _EMPTY
        self.schema_tag = definition_tag
        self.terminating = terminating
        self._unpruned = unpruned
        self._schema = Structural(raw)
        self.has_defaults = self._schema.values or self._schema.has_default
        self._raw = raw
        self._merge: MergeType | None = None
        subresources = version.get("subresources") or {}
        self._scale = subresources.get("scale")
        printed = version.get("additionalPrinterColumns")
        if printed:
            columns = [_column(each) for each in printed]
            self._paths: list[tuple[str, str]] = [(c["type"], c["jsonPath"]) for c in printed]
        else:
            columns, self._paths = [AGE_COLUMN], [("date", ".metadata.creationTimestamp")]
        self.columns = (NAME_COLUMN, *columns)  # type: ignore[misc]
        self._selected = [
            each["jsonPath"].removeprefix(".") for each in version.get("selectableFields") or ()
        ]
        self.selectable = self.selectable | frozenset(self._selected)
        self.deprecation = ""
        if version.get("deprecated"):
            self.deprecation = version.get("deprecationWarning") or (
                f"{resource.api_version} {resource.kind} is deprecated"
            )

    # Writing ------------------------------------------------------------------------------------

    def decode(self, value: Any, *, patch: str | None = None) -> Decoded:
        return decode_custom(self.resource, value, self._pruned, patch=patch)

    def _pruned(self, value: Object, unknown: list[str]) -> Object:
        if self._unpruned:
            return clone(value)  # type: ignore[no-any-return]
        pruned: Object = self._schema.prune(value, "", unknown, root=True)
        return clone(pruned)  # type: ignore[no-any-return]

    def default(self, o: Object) -> None:
        self._schema.fill(o)

    def prepare_create(self, o: Object) -> None:
        if self.terminating:
            raise StatusError(
                405,
                "MethodNotAllowed",
                "create not allowed while custom resource definition is terminating",
                details={"group": self.resource.group, "kind": self.resource.plural},
            )
        if self.has_status:
            o.pop("status", None)
        o["metadata"]["generation"] = 1

    def prepare_status_update(self, new: Object, old: Object) -> None:
        metadata = new["metadata"]
        status = new.get("status")
        kept = {**old["metadata"]}
        for name in ("managedFields", "resourceVersion"):
            if name in metadata:
                kept[name] = metadata[name]
        new.clear()
        new.update(old)
        new["metadata"] = kept
        if status is not None:
            new["status"] = status
        else:
            new.pop("status", None)

    def changes_generation(self, new: Object, old: Object) -> bool:
        left = ("metadata", "status") if self.has_status else ("metadata",)
        return not equal(_without(new, left), _without(old, left))

    # Judging ------------------------------------------------------------------------------------

    def validate_body(self, o: Object) -> list[FieldError]:
        return self._faults(o, None)

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        return self._faults(new, old)

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        return self._faults(new, old)

    def _faults(self, new: Object, old: Object | None) -> list[FieldError]:
        faults: list[FieldError] = []
        self._schema.validate(new, "", faults)
        if old is not None and faults:
            faults = self._ratcheted(new, old, faults)
        if not faults:
            check_rules(self._schema, new, old, faults)
        faults += self._scale_faults(new)
        return faults

    def _ratcheted(self, new: Object, old: Object, faults: list[FieldError]) -> list[FieldError]:
        """Without faults that were there before, in values that did not change."""
        before: list[FieldError] = []
        self._schema.validate(old, "", before)
        known = {(fault.field, str(fault)) for fault in before}
        return [fault for fault in faults if (fault.field, str(fault)) not in known]

    def _scale_faults(self, o: Object) -> list[FieldError]:
        if not self._scale:
            return []
        faults = []
        for name in ("specReplicasPath", "statusReplicasPath"):
            path = self._scale.get(name, "")
            count = _at(o, path)
            if isinstance(count, int) and not isinstance(count, bool) and count < 0:
                faults.append(
                    fields.invalid(
                        path.removeprefix("."), count, "should be a non-negative integer"
                    )
                )
        return faults

    # Showing ------------------------------------------------------------------------------------

    def row(self, o: Object, now: datetime) -> list[Any]:
        name = o["metadata"].get("name", "")
        return [name, *(_cell(o, type, path, now) for type, path in self._paths)]

    def selectable_fields(self, o: Object) -> dict[str, str]:
        found = super().selectable_fields(o)
        for path in self._selected:
            value = _at(o, f".{path}")
            if isinstance(value, bool):
                value = "true" if value else "false"
            found[path] = "" if value is None else str(value)
        return found

    # Scaling ------------------------------------------------------------------------------------

    def scale(self, o: Object) -> Object:
        metadata = o["metadata"]
        scale = self._scale or {}
        names = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        status: Object = {"replicas": _at(o, scale.get("statusReplicasPath", "")) or 0}
        if selector := _at(o, scale.get("labelSelectorPath") or ""):
            status["selector"] = selector
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {name: metadata[name] for name in names if name in metadata},
            "spec": {"replicas": _at(o, scale.get("specReplicasPath", "")) or 0},
            "status": status,
        }

    def apply_scale(self, o: Object, scale: Object) -> None:
        names = paths.simple((self._scale or {}).get("specReplicasPath", "")) or ("spec",)
        target = o
        for name in names[:-1]:
            below = target.get(name)
            target[name] = target = dict(below) if isinstance(below, dict) else {}
        target[names[-1]] = (scale.get("spec") or {}).get("replicas", 0)

    def validate_scale(self, scale: Object) -> list[FieldError]:
        count = (scale.get("spec") or {}).get("replicas", 0)
        return fields.non_negative("spec.replicas", count)

    # Describing ---------------------------------------------------------------------------------

    def merge_type(self) -> MergeType:
        if self._merge is None:
            self._merge = merge_type_of(self._raw, root=True)
        return self._merge

    def schemas(self, form: int) -> dict[str, Object]:
        prefix = "#/definitions/" if form == 2 else "#/components/schemas/"
        r = self.resource
        identity = [{"group": r.group, "version": r.version, "kind": r.kind}]
        body = _published(self._raw, form)
        said = prose(_ANY_OBJECT)
        named = {
            name: {"type": "string", "description": said[name]} for name in ("apiVersion", "kind")
        }
        properties = {
            **(body.get("properties") or {}),
            **named,
            "metadata": _reference(prefix + _META + "ObjectMeta", said["metadata"], form),
        }
        items: Object = {"type": "array", "description": f"List of {r.plural}."}
        items["items"] = {"$ref": prefix + r.schema}
        lists: Object = {
            "type": "object",
            "description": f"{r.list_kind} is a list of {r.kind}",
            "required": ["items"],
            "properties": {
                **named,
                "metadata": _reference(
                    prefix + _META + "ListMeta", "Standard list metadata.", form
                ),
                "items": items,
            },
            "x-kubernetes-group-version-kind": [{**identity[0], "kind": r.list_kind}],
        }
        own: Object = {
            **body,
            "type": "object",
            "properties": dict(sorted(properties.items())),
            "x-kubernetes-group-version-kind": identity,
        }
        if form == 2 and self._raw.get("x-kubernetes-preserve-unknown-fields"):
            # With any properties at all, clients would refuse all others.
            own = {"type": "object", "x-kubernetes-group-version-kind": identity}
        return {r.schema: own, f"{r.schema}List": lists}


_ANY_OBJECT = "io.k8s.api.core.v1.ConfigMap"


def _reference(to: str, description: str, form: int) -> Object:
    if form == 3:
        return {"allOf": [{"$ref": to}], "description": description}
    return {"$ref": to, "description": description}


def _published(raw: Object, form: int) -> Object:
    """The schema as the OpenAPI document of that version can tell it."""
    out: Object = {}
    for key, value in raw.items():
        if key == "properties":
            out[key] = {name: _published(part, form) for name, part in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            out[key] = _published(value, form)
        elif form == 3 or key not in _V2_DROPPED:
            out[key] = value
    return _for_version_2(raw, out) if form == 2 else out


def _for_version_2(raw: Object, out: Object) -> Object:
    """Without what clients of OpenAPI 2, which validate by it, take for more than it says."""
    open_ended = raw.get("x-kubernetes-preserve-unknown-fields")
    if open_ended or raw.get("nullable"):
        out.pop("properties", None)
        out.pop("items", None)
    if (
        raw.get("nullable")
        or raw.get("x-kubernetes-int-or-string")
        or (open_ended and raw.get("type") == "object")
        or (raw.get("type") == "array" and "items" not in out)
    ):
        out.pop("type", None)
    if "required" in out:
        parts = raw.get("properties") or {}
        needed = [n for n in out["required"] if not parts.get(n, {}).get("nullable")]
        out["required"] = needed
        if not needed or "properties" not in out:
            del out["required"]
    if isinstance(out.get("additionalProperties"), bool):
        del out["additionalProperties"]
    return out


def _column(each: Object) -> Column:
    return Column(
        each["name"],
        each["type"],
        each.get("format", ""),
        each.get("description")
        or f"Custom resource definition column (in JSONPath format): {each['jsonPath']}",
        each.get("priority", 0),
    )


def _without(o: Object, names: tuple[str, ...]) -> Object:
    return {key: value for key, value in o.items() if key not in names}


def _at(o: Object, path: str) -> Any:
    """What a path of names leads to, or None."""
    names = paths.simple(path) if path else None
    if names is None:
        return None
    value: Any = o
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value


def _cell(o: Object, type: str, path: str, now: datetime) -> Any:
    try:
        found = paths.find(path, o)
    except paths.BadPath:
        return None
    if not found:
        return None
    value = found[0]
    match type:
        case "integer":
            return int(value) if isinstance(value, int | float) else None
        case "number":
            return value if isinstance(value, int | float) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case "date":
            if not isinstance(value, str):
                return None
            try:
                moment = parse_time(value)
            except ValueError:
                return "<invalid>"
            return human((now - moment).total_seconds())
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else orjson.dumps(value).decode()
