"""A claim grows only if it is bound and its storage class can do it.

Upstream: plugin/pkg/admission/storage/persistentvolume/resize.
"""

from __future__ import annotations

from wherry.kube.api import amounts
from wherry.kube.api.kinds.persistent_volume_claim import CLASS_ANNOTATION
from wherry.kube.api.quantity import ZERO, Quantity
from wherry.kube.api.resources import STORAGE_CLASSES
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.objects import Object


def validate(attributes: Attributes, context: Context) -> None:
    new, old = attributes.new, attributes.old
    if old is None or _size(new) <= _size(old):
        return
    if (old.get("status") or {}).get("phase") != "Bound":
        raise attributes.forbidden("Only bound persistent volume claims can be expanded")
    name = class_of(new)
    found = context.cache.of(STORAGE_CLASSES).get("", name) if name else None
    if name != class_of(old) or found is None or not found.object.get("allowVolumeExpansion"):
        raise attributes.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that "
            "provisions the pvc must support resize"
        )


def class_of(claim: Object) -> str:
    """The storage class of a claim; the old annotation counts first."""
    annotations = claim["metadata"].get("annotations") or {}
    name: str = annotations.get(CLASS_ANNOTATION) or claim["spec"].get("storageClassName") or ""
    return name


def _size(claim: Object) -> Quantity:
    resources = (claim.get("spec") or {}).get("resources") or {}
    return amounts.read(resources.get("requests")).get("storage", ZERO)
