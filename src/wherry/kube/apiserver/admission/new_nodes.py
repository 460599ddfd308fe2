"""TaintNodesByCondition: a new node is not ready until its controller says so.

Upstream: plugin/pkg/admission/nodetaint.
"""

from __future__ import annotations

from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

_KEY, _EFFECT = "node.kubernetes.io/not-ready", "NoSchedule"


def admit(attributes: Attributes, context: Context) -> None:
    spec = attributes.new.setdefault("spec", {})
    taints = spec.get("taints") or []
    if not any(t.get("key") == _KEY and t.get("effect") == _EFFECT for t in taints):
        spec["taints"] = [*taints, {"key": _KEY, "effect": _EFFECT}]
