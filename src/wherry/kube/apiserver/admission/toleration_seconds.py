"""A pod stays five minutes on a node that is not ready or out of reach, unless it says how long."""

from __future__ import annotations

from typing import Any

from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

_SECONDS = 300
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def admit(attributes: Attributes, context: Context) -> None:
    spec = attributes.new["spec"]
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
