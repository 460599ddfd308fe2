"""FlowSchemas and PriorityLevelConfigurations: who gets how much of the API server.

Upstream: pkg/apis/flowcontrol/v1/defaults.go and pkg/apis/flowcontrol/validation/validation.go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.base import AGE_COLUMN, NAME_COLUMN, Column, Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.durations import age

_PRECEDENCE: Final = 1000
_MOST: Final = 10_000
_METHODS = ("ByNamespace", "ByUser")
_SUBJECTS = {"Group": "group", "ServiceAccount": "serviceAccount", "User": "user"}
_QUEUING = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}
_TYPES = ("Exempt", "Limited")


class FlowSchema(Kind):
    """Which requests belong to which priority level."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("PriorityLevel", description="Where its requests belong."),
        Column("MatchingPrecedence", "integer", description="The lowest that matches counts."),
        Column("DistinguisherMethod", description="How its requests are told apart."),
        AGE_COLUMN,
        Column("MissingPL", description="Whether there is no such priority level."),
    )

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        if not spec.get("matchingPrecedence"):
            spec["matchingPrecedence"] = _PRECEDENCE

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        order = spec.get("matchingPrecedence", 0)
        where = "spec.matchingPrecedence"
        if order <= 0:
            faults.append(fields.invalid(where, order, "must be a positive value"))
        if order > _MOST:
            faults.append(fields.invalid(where, order, f"must not be greater than {_MOST}"))
        if order == 1 and o["metadata"].get("name") != "exempt":
            why = "only the schema named 'exempt' may have matchingPrecedence 1"
            faults.append(fields.invalid(where, order, why))
        if (method := spec.get("distinguisherMethod")) is not None:
            checks.one_of(method.get("type"), _METHODS, "spec.distinguisherMethod.type", faults)
        if not (level := (spec.get("priorityLevelConfiguration") or {}).get("name", "")):
            where = "spec.priorityLevelConfiguration.name"
            faults.append(fields.required(where, "must reference a priority level"))
        else:
            checks.dns_subdomain(level, "spec.priorityLevelConfiguration.name", faults)
        for index, rule in enumerate(spec.get("rules") or ()):
            _check_rule(rule, f"spec.rules[{index}]", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec, status = o["metadata"], o.get("spec") or {}, o.get("status") or {}
        dangling = "?"
        for condition in status.get("conditions") or ():
            if condition.get("type") == "Dangling":
                dangling = condition.get("status", "?")
        return [
            meta.get("name", ""),
            (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
            spec.get("matchingPrecedence", 0),
            (spec.get("distinguisherMethod") or {}).get("type") or "<none>",
            age(meta.get("creationTimestamp"), now),
            dangling,
        ]


class PriorityLevelConfiguration(Kind):
    """How many requests are served at once, and what becomes of the others."""

    has_generation = True
    columns = (
        NAME_COLUMN,
        Column("Type", description="Limited or Exempt."),
        Column("NominalConcurrencyShares", description="Its share of what is served at once."),
        Column("Queues", description="Queues of requests that wait."),
        Column("HandSize", description="Queues one flow may use."),
        Column("QueueLengthLimit", description="Requests that may wait in a queue."),
        AGE_COLUMN,
    )

    def default(self, o: Object) -> None:
        spec = o.setdefault("spec", {})
        if spec.get("type") == "Exempt":
            exempt = spec.setdefault("exempt", {})
            exempt.setdefault("nominalConcurrencyShares", 0)
            exempt.setdefault("lendablePercent", 0)
        elif (limited := spec.get("limited")) is not None:
            limited.setdefault("nominalConcurrencyShares", 30)
            limited.setdefault("lendablePercent", 0)
            if queuing := (limited.get("limitResponse") or {}).get("queuing"):
                for name, value in _QUEUING.items():
                    if not queuing.get(name):
                        queuing[name] = value
            elif (limited.get("limitResponse") or {}).get("queuing") == {}:
                limited["limitResponse"]["queuing"] = dict(_QUEUING)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        spec = o.get("spec") or {}
        kind = spec.get("type", "")
        checks.one_of(kind, _TYPES, "spec.type", faults)
        limited, exempt = spec.get("limited"), spec.get("exempt")
        if kind == "Exempt" and limited is not None:
            why = "must be nil if the type is not Limited"
            faults.append(fields.forbidden("spec.limited", why))
        if kind == "Limited":
            if exempt is not None:
                why = "must be nil if the type is Limited"
                faults.append(fields.forbidden("spec.exempt", why))
            if limited is None:
                why = "must not be empty when type is Limited"
                faults.append(fields.required("spec.limited", why))
            else:
                _check_limited(limited, "spec.limited", faults)
        return faults

    def row(self, o: Object, now: datetime) -> list[Any]:
        meta, spec = o["metadata"], o.get("spec") or {}
        limits = spec.get("limited") or spec.get("exempt") or {}
        queuing = (limits.get("limitResponse") or {}).get("queuing") or {}
        return [
            meta.get("name", ""),
            spec.get("type", ""),
            str(limits.get("nominalConcurrencyShares", "<none>")),
            *(str(queuing.get(name, "<none>")) for name in _QUEUING),
            age(meta.get("creationTimestamp"), now),
        ]


def _check_rule(rule: Object, path: str, faults: Faults) -> None:
    subjects = rule.get("subjects") or ()
    if not subjects:
        why = "subjects must contain at least one value"
        faults.append(fields.required(f"{path}.subjects", why))
    for index, subject in enumerate(subjects):
        where, kind = f"{path}.subjects[{index}]", subject.get("kind", "")
        checks.one_of(kind, tuple(_SUBJECTS), f"{where}.kind", faults)
        if (field := _SUBJECTS.get(kind)) is None:
            continue
        if (body := subject.get(field)) is None:
            why = f"{field} is required when subject kind is '{kind}'"
            faults.append(fields.required(f"{where}.{field}", why))
            continue
        for name in ("namespace", "name") if kind == "ServiceAccount" else ("name",):
            if not body.get(name):
                faults.append(fields.required(f"{where}.{field}.{name}"))
    resources, urls = rule.get("resourceRules") or (), rule.get("nonResourceRules") or ()
    if not resources and not urls:
        why = "at least one of resourceRules and nonResourceRules has to be non-empty"
        faults.append(fields.required(path, why))
    for index, entry in enumerate(resources):
        where = f"{path}.resourceRules[{index}]"
        for name in ("verbs", "apiGroups", "resources"):
            if not entry.get(name):
                faults.append(fields.required(f"{where}.{name}"))
        if not entry.get("namespaces") and not entry.get("clusterScope"):
            why = "resource rules that are not cluster scoped must supply at least one namespace"
            faults.append(fields.required(f"{where}.namespaces", why))
    for index, entry in enumerate(urls):
        where = f"{path}.nonResourceRules[{index}]"
        for name in ("verbs", "nonResourceURLs"):
            if not entry.get(name):
                faults.append(fields.required(f"{where}.{name}"))


def _check_limited(limited: Object, path: str, faults: Faults) -> None:
    if (shares := limited.get("nominalConcurrencyShares", 0)) < 0:
        why = "must be a non-negative integer"
        faults.append(fields.invalid(f"{path}.nominalConcurrencyShares", shares, why))
    percent = limited.get("lendablePercent", 0)
    if not 0 <= percent <= 100:
        why = "must be between 0 and 100, inclusive"
        faults.append(fields.invalid(f"{path}.lendablePercent", percent, why))
    response, where = limited.get("limitResponse") or {}, f"{path}.limitResponse"
    kind, queuing = response.get("type", ""), response.get("queuing")
    checks.one_of(kind, ("Queue", "Reject"), f"{where}.type", faults)
    if kind == "Reject" and queuing is not None:
        why = "must be nil if limited.limitResponse.type is not Limited"
        faults.append(fields.forbidden(f"{where}.queuing", why))
    if kind == "Queue":
        if queuing is None:
            why = "must not be empty if limited.limitResponse.type is Limited"
            faults.append(fields.required(f"{where}.queuing", why))
            return
        for name in _QUEUING:
            if (value := queuing.get(name, 0)) <= 0:
                why = "must be positive"
                faults.append(fields.invalid(f"{where}.queuing.{name}", value, why))
        if queuing.get("handSize", 0) > queuing.get("queues", 0):
            hand, queues = queuing.get("handSize", 0), queuing.get("queues", 0)
            why = f"should not be greater than queues ({queues})"
            faults.append(fields.invalid(f"{where}.queuing.handSize", hand, why))
