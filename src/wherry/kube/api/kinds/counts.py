"""Fields that are a number or a percentage: ``maxUnavailable: 25%``.

Upstream: ValidatePositiveIntOrPercent and its kin in pkg/apis/apps/validation/validation.go.
"""

from __future__ import annotations

import re

from wherry.kube.api import names
from wherry.kube.api.kinds import fields
from wherry.kube.api.kinds.checks import Faults

Count = int | str

_PERCENT = "[0-9]+%"


def number(value: Count) -> int:
    """A count, or the number before the percent sign (0 where there is none)."""
    if isinstance(value, int):
        return value
    return int(value[:-1]) if re.fullmatch(_PERCENT, value) else 0


def check_count(value: Count, path: str, faults: Faults) -> None:
    """A number that is not negative, or a percentage."""
    if isinstance(value, int):
        faults += fields.non_negative(path, value)
    elif not re.fullmatch(_PERCENT, value):
        rule = "a valid percent string must be a numeric string followed by an ending '%'"
        why = names.regex_error(rule, _PERCENT, "1%", "93%")
        faults.append(fields.invalid(path, value, why))


def check_at_most_all(value: Count, path: str, faults: Faults) -> None:
    """If a percentage, no more than 100%."""
    if isinstance(value, str) and number(value) > 100:
        faults.append(fields.invalid(path, value, "must not be greater than 100%"))
