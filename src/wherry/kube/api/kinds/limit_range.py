"""LimitRanges.

Upstream: pkg/apis/core/v1/defaults.go and pkg/apis/core/validation/validation.go.
"""

from __future__ import annotations

from wherry.kube.api import names
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.base import Kind, Object
from wherry.kube.api.kinds.checks import Faults
from wherry.kube.api.kinds.podspec import resources
from wherry.kube.api.quantity import Quantity, from_int

_BOUNDS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
_TYPES = ("Container", "PersistentVolumeClaim", "Pod")

_ORDER = (
    ("min", "min", "max"),
    ("defaultRequest", "min", "defaultRequest"),
    ("defaultRequest", "defaultRequest", "max"),
    ("defaultRequest", "defaultRequest", "default"),
    ("default", "min", "default"),
    ("default", "default", "max"),
)
"""Which bound is blamed where the second is above the third."""

_WORDS = {
    "min": "min value",
    "max": "max value",
    "default": "default value",
    "defaultRequest": "default request value",
}


def _word(blamed: str, bound: str) -> str:
    same = blamed == "defaultRequest" and bound == "default"
    return "default limit value" if same else _WORDS[bound]


class LimitRange(Kind):
    """What pods, containers and claims may ask for, and what they get that ask for nothing."""

    create_on_update = True

    def default(self, o: Object) -> None:
        for item in o.setdefault("spec", {}).get("limits") or ():
            for bound in _BOUNDS:
                resources.canonicalize(item.get(bound))
            if item.get("type") == "Container":
                _default_container(item)

    def validate_body(self, o: Object) -> list[FieldError]:
        faults: list[FieldError] = []
        seen: set[str] = set()
        for index, item in enumerate((o.get("spec") or {}).get("limits") or ()):
            _check_item(item, seen, f"spec.limits[{index}]", faults)
        return faults


def _default_container(item: Object) -> None:
    """An absent limit is the largest allowed; an absent request the limit, else the smallest."""
    default = {**(item.get("max") or {}), **(item.get("default") or {})}
    request = {**(item.get("min") or {}), **default, **(item.get("defaultRequest") or {})}
    if default:
        item["default"] = default
    if request:
        item["defaultRequest"] = request


def _check_item(item: Object, seen: set[str], path: str, faults: Faults) -> None:
    kind = item.get("type", "")
    if "/" in kind or kind in _TYPES:
        for message in names.is_qualified_name(kind):
            faults.append(fields.invalid(f"{path}.type", kind, message))
    else:
        why = "must be a standard limit type or fully qualified"
        faults.append(fields.invalid(f"{path}.type", kind, why))
    if kind in seen:
        faults.append(fields.duplicate(f"{path}.type", kind))
    seen.add(kind)
    bounds: dict[str, dict[str, Quantity]] = {}
    for bound in _BOUNDS:
        bounds[bound] = {}
        for name, value in (item.get(bound) or {}).items():
            where = f"{path}.{bound}[{name}]"
            resources.check_name(name, where, faults)
            amount = resources.check_quantity(name, value, where, faults)
            if amount is not None:
                bounds[bound][name] = amount
    if kind == "Pod":
        for bound in ("default", "defaultRequest"):
            if item.get(bound):
                why = "may not be specified when `type` is 'Pod'"
                faults.append(fields.forbidden(f"{path}.{bound}", why))
    if kind == "PersistentVolumeClaim" and not any(
        "storage" in bounds[bound] for bound in ("min", "max")
    ):
        why = "either minimum or maximum storage value is required, but neither was provided"
        faults.append(fields.required(f"{path}.limits", why))
    _compare(bounds, path, faults)


def _compare(bounds: dict[str, dict[str, Quantity]], path: str, faults: Faults) -> None:
    for name in sorted({name for bound in bounds.values() for name in bound}):
        low, high = bounds["min"].get(name), bounds["max"].get(name)
        ratio = bounds["maxLimitRequestRatio"].get(name)
        for blamed, small, large in _ORDER:
            a, b = bounds[small].get(name), bounds[large].get(name)
            if a is not None and b is not None and a > b:
                why = f"{_WORDS[small]} {a} is greater than {_word(blamed, large)} {b}"
                faults.append(fields.invalid(f"{path}.{blamed}[{name}]", str(a), why))
        where = f"{path}.maxLimitRequestRatio[{name}]"
        if ratio is None:
            continue
        if ratio < from_int(1):
            why = f"ratio {ratio} is less than 1"
            faults.append(fields.invalid(where, str(ratio), why))
        if low and high and ratio.nanos * low.nanos > high.nanos * 10**9:
            limit = high.nanos / low.nanos
            why = f"ratio {ratio} is greater than max/min = {limit:f}"
            faults.append(fields.invalid(where, str(ratio), why))
