"""Volumes, claims, classes."""

from __future__ import annotations

from typing import Any

from wherry.kube.api.warnings.amounts import claim_amounts
from wherry.kube.api.warnings.labels import DEPRECATED_LABELS, in_expressions, in_terms

Object = dict[str, Any]

_CLASS = "volume.beta.kubernetes.io/storage-class"
_PLUGINS = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_SHOWN = {"storageos": "storageOS"}


def volume(new: Object, old: Object | None) -> list[str]:
    spec = new.get("spec") or {}
    told = _class(new)
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        told.append(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. "
            "Instead, the recommended approach is to use dynamic provisioning."
        )
    required = (spec.get("nodeAffinity") or {}).get("required") or {}
    told += in_terms(
        required.get("nodeSelectorTerms") or (), "spec.nodeAffinity.required.nodeSelectorTerms"
    )
    for name, why in _PLUGINS.items():
        if name in spec:
            told.append(f"spec.{_SHOWN.get(name, name)}: {why}")
    return told


def claim(new: Object, old: Object | None) -> list[str]:
    return _class(new) + claim_amounts(new.get("spec") or {}, "spec")


def _class(new: Object) -> list[str]:
    if _CLASS not in (new["metadata"].get("annotations") or {}):
        return []
    why = 'deprecated since v1.8; use "storageClassName" attribute instead'
    return [f"metadata.annotations[{_CLASS}]: {why}"]


def storage_class(new: Object, old: Object | None) -> list[str]:
    return [
        text
        for i, term in enumerate(new.get("allowedTopologies") or ())
        for text in in_expressions(
            term.get("matchLabelExpressions") or (),
            f"allowedTopologies[{i}].matchLabelExpressions",
        )
    ]


def capacity(new: Object, old: Object | None) -> list[str]:
    topology = new.get("nodeTopology") or {}
    told = in_expressions(topology.get("matchExpressions") or (), "nodeTopology.matchExpressions")
    for label in topology.get("matchLabels") or ():
        if why := DEPRECATED_LABELS.get(label):
            told.append(f"nodeTopology.matchLabels.{label}: {why}")
    return told
