"""Volumes and claims in use are not deleted: a finalizer holds them until nobody uses them.

Upstream: plugin/pkg/admission/storage/storageobjectinuseprotection.
"""

from __future__ import annotations

from wherry.kube.api.resources import PERSISTENT_VOLUMES
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

_VOLUME = "kubernetes.io/pv-protection"
_CLAIM = "kubernetes.io/pvc-protection"


def admit(attributes: Attributes, context: Context) -> None:
    finalizer = _VOLUME if attributes.resource is PERSISTENT_VOLUMES else _CLAIM
    present = attributes.new["metadata"].get("finalizers") or []
    if finalizer not in present:
        attributes.new["metadata"]["finalizers"] = [*present, finalizer]
