"""Tolerations put together: of two of which one says all the other does, it alone stays.

Upstream: pkg/util/tolerations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Toleration = dict[str, Any]

_FIELDS = ("key", "operator", "value", "effect")


def merge(first: Iterable[Toleration], second: Iterable[Toleration]) -> list[Toleration]:
    """Both lists in one; of equal ones the first stays."""
    every = [*first, *second]
    merged: list[Toleration] = []
    for index, each in enumerate(every):
        if any(covers(other, each) for other in merged):
            continue
        if any(not _equal(each, o) and covers(o, each) for o in every[index + 1 :]):
            continue
        merged.append(dict(each))
    return merged


def within(tolerations: Sequence[Toleration], allowed: Sequence[Toleration]) -> bool:
    """Whether each is covered by one that is allowed; an empty list allows all."""
    return not allowed or all(any(covers(a, t) for a in allowed) for t in tolerations)


def covers(wide: Toleration, narrow: Toleration) -> bool:
    """Whether ``wide`` tolerates all that ``narrow`` does."""
    if _equal(wide, narrow):
        return True
    key, operator = wide.get("key", ""), wide.get("operator") or "Equal"
    if narrow.get("key", "") != key and (key or operator != "Exists"):
        return False
    effect = wide.get("effect", "")
    if effect and narrow.get("effect", "") != effect:
        return False
    seconds = wide.get("tolerationSeconds")
    if effect == "NoExecute" and seconds is not None:
        asked = narrow.get("tolerationSeconds")
        if asked is None or asked > seconds:
            return False
    if operator == "Exists":
        return True
    same = (narrow.get("operator") or "Equal") == "Equal"
    return same and narrow.get("value", "") == wide.get("value", "")


def _equal(a: Toleration, b: Toleration) -> bool:
    return a.get("tolerationSeconds") == b.get("tolerationSeconds") and all(
        a.get(field, "") == b.get(field, "") for field in _FIELDS
    )
