"""Conditions in an object's status, the way the API conventions have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Object = dict[str, Any]


def of(o: Mapping[str, Any], type: str) -> Object | None:
    """The condition of that type in the status of an object."""
    return find((o.get("status") or {}).get("conditions") or (), type)


def is_true(o: Mapping[str, Any], type: str) -> bool:
    """Whether the status of an object has the condition, and it is True."""
    return holds((o.get("status") or {}).get("conditions") or (), type)


def holds(conditions: Iterable[Mapping[str, Any]], type: str) -> bool:
    """Whether the condition is among these, and it is True."""
    return any(c.get("type") == type and c.get("status") == "True" for c in conditions)


def find(conditions: Sequence[Object], type: str) -> Object | None:
    """The condition of that type."""
    return next((c for c in conditions if c.get("type") == type), None)


def without(conditions: Sequence[Object], type: str) -> list[Object]:
    """All other conditions."""
    return [c for c in conditions if c.get("type") != type]


def put(conditions: Sequence[Object], new: Object) -> list[Object]:
    """``conditions`` with ``new`` in the place of the one of its type.

    Nothing changes where status and reason are as they were; ``lastTransitionTime`` is kept where
    only the reason changed.
    """
    current = find(conditions, new["type"])
    if current is not None and current.get("status") == new["status"]:
        if current.get("reason") == new.get("reason"):
            return list(conditions)
        if "lastTransitionTime" in new:
            new = {**new, "lastTransitionTime": current.get("lastTransitionTime")}
    return [*without(conditions, new["type"]), new]
