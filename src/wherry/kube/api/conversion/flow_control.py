"""PriorityLevelConfigurations of flowcontrol v1beta1 and v1beta2: shares had another name.

Upstream: pkg/apis/flowcontrol/v1beta2/conversion.go.
"""

from __future__ import annotations

from dataclasses import replace

from wherry.kube.api.conversion.version import Conversion
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds.base import Object

_OLD, _NEW = "assuredConcurrencyShares", "nominalConcurrencyShares"


def to_stored(o: Object) -> Object:
    """From v1beta1 or v1beta2."""
    return _renamed(o, _OLD, _NEW)


def from_stored(o: Object) -> Object:
    """To v1beta1 or v1beta2."""
    return _renamed(o, _NEW, _OLD)


def _renamed(o: Object, before: str, after: str) -> Object:
    spec = o.get("spec") or {}
    limited = spec.get("limited") or {}
    if before not in limited:
        return o
    limited = {after if name == before else name: value for name, value in limited.items()}
    return {**o, "spec": {**spec, "limited": limited}}


def _default(o: Object) -> None:
    """A share of 0 was none given."""
    limited = (o.get("spec") or {}).get("limited") or {}
    if limited.get(_OLD) == 0:
        del limited[_OLD]


def _fault(fault: FieldError) -> FieldError:
    return replace(fault, field=fault.field.replace(_NEW, _OLD))


PRIORITY_LEVEL = Conversion(to_stored, from_stored, _default, _fault)
