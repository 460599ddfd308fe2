"""What the checks share: the containers of a pod, and the words for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from wherry.kube.api.pods import all_containers

Object = dict[str, Any]


class Violation(NamedTuple):
    """Why a pod is not allowed: in short, and which parts of it."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


CheckPod = Callable[[Object, Object], Violation | None]
"""From a pod's metadata and spec to what is wrong."""


def context(o: Object) -> Object:
    """The securityContext of a pod's spec or a container."""
    return o.get("securityContext") or {}


def plural(one: str, many: str, count: int) -> str:
    return one if count == 1 else many


def quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{item}"' for item in items)


def named(names: Sequence[str]) -> str:
    """``container "a"``, ``containers "a", "b"``."""
    return f"{plural('container', 'containers', len(names))} {quoted(names)}"


def setters(spec: Object, wrong: Callable[[Object], bool]) -> list[str]:
    """Who has a securityContext that is ``wrong``: ``pod``, ``containers "a", "b"``."""
    found = ["pod"] if wrong(context(spec)) else []
    if names := [c["name"] for c in all_containers(spec) if wrong(context(c))]:
        found.append(named(names))
    return found


def is_windows(spec: Object) -> bool:
    return (spec.get("os") or {}).get("name") == "windows"


def in_user_namespace(spec: Object) -> bool:
    """Whether root in the pod is nobody outside."""
    return spec.get("hostUsers") is False
