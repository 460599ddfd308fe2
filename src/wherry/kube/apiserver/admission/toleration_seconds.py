"""A pod stays five minutes on a node that is not ready or out of reach, unless it says how long."""

from __future__ import annotations

from typing import Any

from wherry.kube.api.resources import PODS
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.cache import Cache

_SECONDS = 300
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


async def admit(attributes: Attributes, cache: Cache) -> None:
    if not attributes.is_for(PODS, "CREATE", "UPDATE"):
        return
    assert attributes.object is not None
    spec = attributes.object["spec"]
    present = spec.get("tolerations") or []
    added = [
        {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _SECONDS}
        for taint in _TAINTS
        if not any(_concerns(toleration, taint) for toleration in present)
    ]
    if added:
        spec["tolerations"] = [*present, *added]


def _concerns(toleration: dict[str, Any], taint: str) -> bool:
    return toleration.get("key", "") in ("", taint) and toleration.get("effect", "") in (
        "",
        "NoExecute",
    )
