"""ResourceQuotas.

Upstream: pkg/apis/core/validation/validation.go and pkg/registry/core/resourcequota.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age
from wherry.kube.api.kinds.equality import equal
from wherry.kube.api.kinds.podspec import resources

_SCOPES = (
    *("BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating"),
    *("PriorityClass", "Terminating", "VolumeAttributesClass"),
)
_EITHER = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})


class ResourceQuota(Kind):
    """What all objects of a namespace may ask for together."""

    columns = (
        NAME_COLUMN,
        Column("Request", description="Requests and numbers of objects: used, and allowed."),
        Column("Limit", description="Limits: used, and allowed."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        resources.canonicalize(o.setdefault("spec", {}).get("hard"))
        for name in ("hard", "used"):
            resources.canonicalize((o.get("status") or {}).get(name))

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        _check_amounts(spec.get("hard") or {}, "spec.hard", faults)
        _check_scopes(spec, faults)
        return faults

    def validate_change(self, new: Object, old: Object) -> list[FieldError]:
        faults = self.validate_body(new)
        after, before = new.get("spec") or {}, old.get("spec") or {}
        if set(after.get("scopes") or ()) != set(before.get("scopes") or ()):
            value = after.get("scopes") or []
            faults.append(fields.invalid("spec.scopes", value, fields.IMMUTABLE))
        if not equal(after.get("scopeSelector"), before.get("scopeSelector")):
            value = after.get("scopeSelector")
            faults.append(fields.invalid("spec.scopeSelector", value, fields.IMMUTABLE))
        return faults

    def validate_status(self, new: Object, old: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        status = new.get("status") or {}
        for name in ("hard", "used"):
            _check_amounts(status.get(name) or {}, f"status.{name}", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, status = o["metadata"], o.get("status") or {}
        hard, used = status.get("hard") or {}, status.get("used") or {}
        shown: dict[bool, list[str]] = {True: [], False: []}
        for name in sorted(hard):
            text = f"{name}: {used.get(name, '0')}/{hard[name]}"
            shown[name.startswith("limits")].append(text)
        created = age(meta.get("creationTimestamp"), now)
        return [meta.get("name", ""), ", ".join(shown[False]), ", ".join(shown[True]), created]


def _check_amounts(amounts: Mapping[str, Any], path: str, faults: Faults) -> None:
    for name, value in amounts.items():
        where = f"{path}[{name}]"
        resources.check_quota_name(name, where, faults)
        resources.check_quantity(name, value, where, faults)


def _check_scopes(spec: Object, faults: Faults) -> None:
    scopes = spec.get("scopes") or ()
    for scope in scopes:
        if scope not in _SCOPES:
            why = "unsupported scope"
            faults.append(fields.invalid("spec.scopes", list(scopes), why))
    if any(pair <= set(scopes) for pair in _EITHER):
        why = "conflicting scopes"
        faults.append(fields.invalid("spec.scopes", list(scopes), why))
    for term in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        _check_term(term, "spec.scopeSelector.matchExpressions", faults)


def _check_term(term: Object, path: str, faults: Faults) -> None:
    name, operator = term.get("scopeName", ""), term.get("operator", "")
    values = term.get("values") or ()
    if name not in _SCOPES:
        faults.append(fields.invalid(f"{path}.scopeName", name, "unsupported scope"))
    plain = {"BestEffort", "NotBestEffort", "Terminating", "NotTerminating"}
    if name in plain | {"CrossNamespacePodAffinity"} and operator != "Exists":
        why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, "
        why += "ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "
        why += "ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
        faults.append(fields.invalid(f"{path}.operator", operator, why))
    if operator in ("In", "NotIn"):
        if not values:
            why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            faults.append(fields.required(f"{path}.values", why))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            faults.append(fields.invalid(f"{path}.values", list(values), why))
    else:
        why = "not a valid selector operator"
        faults.append(fields.invalid(f"{path}.operator", operator, why))
