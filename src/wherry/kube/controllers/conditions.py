"""Conditions in an object's status, the way the API conventions have them."""

from __future__ import annotations

from collections.abc import Sequence

from wherry.kube.client.transport import Object


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
