"""Label selectors as fields of an object: judging them, and showing them in a table.

What a selector means is in ``kube.api.selectors``; here is what is said about a bad one.

Upstream: k8s.io/apimachinery/pkg/apis/meta/v1/validation and .../meta/v1/helpers.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wherry.kube.api import names
from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds import checks, fields
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.selectors import LabelSelector, labels_from_object

Selector = Mapping[str, Any]

NONE: Final = "<none>"


def check_selector(selector: Selector | None, path: str, faults: Faults) -> None:
    """Faults of a selector of ``matchLabels`` and ``matchExpressions``."""
    if not selector:
        return
    checks.labels(selector.get("matchLabels") or {}, f"{path}.matchLabels", faults)
    for index, requirement in enumerate(selector.get("matchExpressions") or ()):
        _check_requirement(requirement, f"{path}.matchExpressions[{index}]", faults)


def _check_requirement(requirement: Mapping[str, Any], path: str, faults: Faults) -> None:
    operator, values = requirement.get("operator", ""), requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            why = "must be specified when `operator` is 'In' or 'NotIn'"
            faults.append(fields.required(f"{path}.values", why))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            faults.append(fields.forbidden(f"{path}.values", why))
    else:
        why = "not a valid selector operator"
        faults.append(fields.invalid(f"{path}.operator", operator, why))
    checks.qualified_name(requirement.get("key", ""), f"{path}.key", faults)
    for index, value in enumerate(values):
        checks.check(names.is_label_value, value, f"{path}.values[{index}]", faults)


def parse(selector: Selector | None) -> LabelSelector | None:
    """What the selector selects (nothing where it is absent); None if it is malformed."""
    try:
        return labels_from_object(selector)
    except StatusError:
        return None


def as_shown(selector: Selector | None) -> fields.Struct | None:
    """The selector as it stands in a fault."""
    if selector is None:
        return None
    shown = fields.Struct()
    if labels := selector.get("matchLabels"):
        shown["matchLabels"] = dict(sorted(labels.items()))
    if expressions := selector.get("matchExpressions"):
        shown["matchExpressions"] = expressions
    return shown


def labels_text(labels: Mapping[str, str] | None) -> str:
    """``a=b,c=d``, sorted, as ``-o wide`` shows a map of labels."""
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


def selector_text(selector: Selector | None) -> str:
    """The selector as ``-o wide`` shows it."""
    parsed = parse(selector)
    return "<error>" if parsed is None else str(parsed) or NONE
