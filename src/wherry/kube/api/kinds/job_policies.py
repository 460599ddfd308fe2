"""What a Job makes of failed and succeeded pods.

Upstream: pkg/apis/batch/validation/validation.go.
"""

from __future__ import annotations

import re
from typing import Any, Final

from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.checks import Faults

Object = dict[str, Any]

_RULES_LIMIT: Final = 20
_CODES_LIMIT: Final = 255
_PATTERNS_LIMIT: Final = 20
_INDEXES_LIMIT: Final = 64 * 1024
_MANAGER_LIMIT: Final = 63
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
_OPERATORS = ("In", "NotIn")
_STATUSES = ("False", "True", "Unknown")


def default_failure_policy(policy: Object) -> None:
    """Conditions are looked for where they are true."""
    for rule in policy.get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"


def check_manager(manager: str, path: str, faults: Faults) -> None:
    """Faults of ``managedBy``: a domain, a slash, and a path."""
    checks.domain_path(manager, path, faults)
    if len(manager) > _MANAGER_LIMIT:
        faults.append(fields.too_long(path, _MANAGER_LIMIT))


def check_failure_policy(policy: Object, spec: Object, path: str, faults: Faults) -> None:
    """Faults of ``podFailurePolicy``."""
    pod = (spec.get("template") or {}).get("spec") or {}
    known = {
        c.get("name") for kind in ("containers", "initContainers") for c in pod.get(kind) or ()
    }
    rules = policy.get("rules") or ()
    if len(rules) > _RULES_LIMIT:
        faults.append(fields.too_many(f"{path}.rules", len(rules), _RULES_LIMIT))
    for index, rule in enumerate(rules):
        _check_rule(rule, spec, known, f"{path}.rules[{index}]", faults)


def _check_rule(rule: Object, spec: Object, known: set[Any], path: str, faults: Faults) -> None:
    action = rule.get("action", "")
    if action == "FailIndex" and "backoffLimitPerIndex" not in spec:
        why = "requires the backoffLimitPerIndex to be set"
        faults.append(fields.invalid(f"{path}.action", action, why))
    checks.one_of(action, _ACTIONS, f"{path}.action", faults)
    codes, patterns = rule.get("onExitCodes"), rule.get("onPodConditions") or ()
    if codes is not None:
        _check_codes(codes, known, f"{path}.onExitCodes", faults)
    if len(patterns) > _PATTERNS_LIMIT:
        faults.append(fields.too_many(f"{path}.onPodConditions", len(patterns), _PATTERNS_LIMIT))
    for index, pattern in enumerate(patterns):
        where = f"{path}.onPodConditions[{index}]"
        checks.qualified_name(pattern.get("type", ""), f"{where}.type", faults)
        checks.one_of(pattern.get("status"), _STATUSES, f"{where}.status", faults)
    if codes is not None and patterns:
        why = "specifying both OnExitCodes and OnPodConditions is not supported"
        faults.append(fields.invalid(path, fields.Struct(), why))
    if codes is None and not patterns:
        why = "specifying one of OnExitCodes and OnPodConditions is required"
        faults.append(fields.invalid(path, fields.Struct(), why))


def _check_codes(codes: Object, known: set[Any], path: str, faults: Faults) -> None:
    operator, values = codes.get("operator", ""), codes.get("values") or ()
    checks.one_of(operator, _OPERATORS, f"{path}.operator", faults)
    name = codes.get("containerName")
    if name is not None and name not in known:
        why = "must be one of the container or initContainer names in the pod template"
        faults.append(fields.invalid(f"{path}.containerName", name, why))
    if not values:
        faults.append(
            fields.invalid(f"{path}.values", list(values), "at least one value is required")
        )
    elif len(values) > _CODES_LIMIT:
        faults.append(fields.too_many(f"{path}.values", len(values), _CODES_LIMIT))
    for index, value in enumerate(values):
        where = f"{path}.values[{index}]"
        if operator == "In" and value == 0:
            why = "must not be 0 for the In operator"
            faults.append(fields.invalid(where, value, why))
        if value in values[:index]:
            faults.append(fields.duplicate(where, value))
    if list(values) != sorted(values):
        faults.append(fields.invalid(f"{path}.values", list(values), "must be ordered"))


def check_success_policy(policy: Object, spec: Object, path: str, faults: Faults) -> None:
    """Faults of ``successPolicy`` of an indexed job."""
    rules = policy.get("rules") or ()
    where = f"{path}.rules"
    if not rules:
        why = "at least one rules must be specified when the successPolicy is specified"
        faults.append(fields.required(where, why))
    if len(rules) > _RULES_LIMIT:
        faults.append(fields.too_many(where, len(rules), _RULES_LIMIT))
    completions = spec.get("completions") or 0
    for index, rule in enumerate(rules):
        at = f"{where}[{index}]"
        count, indexes = rule.get("succeededCount"), rule.get("succeededIndexes")
        if count is None and indexes is None:
            why = "at least one of succeededCount or succeededIndexes must be specified"
            faults.append(fields.required(at, why))
        total = completions
        if indexes is not None:
            if len(indexes) > _INDEXES_LIMIT:
                faults.append(fields.too_long(f"{at}.succeededIndexes", _INDEXES_LIMIT))
            number = _count_indexes(indexes, completions)
            if number is None:
                why = "error parsing succeededIndexes: cannot convert string to integer for index"
                faults.append(fields.invalid(f"{at}.succeededIndexes", indexes, why))
            else:
                total = number
        if count is not None:
            faults += fields.non_negative(f"{at}.succeededCount", count)
            if count > completions:
                limit = f"must be less than or equal to {completions}"
                why = f"{limit} (the number of specified completions)"
                faults.append(fields.invalid(f"{at}.succeededCount", count, why))
            elif indexes is not None and count > total:
                limit = f"must be less than or equal to {total}"
                why = f"{limit} (the number of indexes in the specified succeededIndexes field)"
                faults.append(fields.invalid(f"{at}.succeededCount", count, why))


def _count_indexes(text: str, completions: int) -> int | None:
    """How many indexes ``0,2-4`` names; None where it is malformed."""
    total, last = 0, -1
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        if match is None:
            return None
        first = int(match[1])
        end = int(match[2] or first)
        if first <= last or end < first or end >= completions:
            return None
        total, last = total + end - first + 1, end
    return total
