"""Nodes and how pods are run on them."""

from __future__ import annotations

from typing import Any

from wherry.kube.api.warnings.labels import DEPRECATED_LABELS
from wherry.kube.api.warnings.network import block_warnings

Object = dict[str, Any]


def node(new: Object, old: Object | None) -> list[str]:
    spec = new.get("spec") or {}
    told = []
    if spec.get("configSource") is not None:
        told.append("spec.configSource: the feature is removed")
    if spec.get("externalID"):
        told.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
    for i, block in enumerate(spec.get("podCIDRs") or ()):
        told += block_warnings(block, f"spec.podCIDRs[{i}]")
    return told


def runtime_class(new: Object, old: Object | None) -> list[str]:
    selector = (new.get("scheduling") or {}).get("nodeSelector") or ()
    return [
        f"scheduling.nodeSelector: {why}" for key in selector if (why := DEPRECATED_LABELS.get(key))
    ]
