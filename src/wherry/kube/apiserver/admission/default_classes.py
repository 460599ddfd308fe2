"""A claim that names no storage class gets the default one; an Ingress its default class likewise.

Of several defaults the newest counts. Upstream: plugin/pkg/admission/storage/storageclass and
plugin/pkg/admission/network/defaultingressclass.
"""

from __future__ import annotations

from wherry.kube.api.kinds.persistent_volume_claim import CLASS_ANNOTATION
from wherry.kube.api.resources import INGRESS_CLASSES, STORAGE_CLASSES, Resource
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context

_STORAGE = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_INGRESS = ("ingressclass.kubernetes.io/is-default-class",)
_INGRESS_ANNOTATION = "kubernetes.io/ingress.class"


def storage(attributes: Attributes, context: Context) -> None:
    """DefaultStorageClass."""
    spec, metadata = attributes.new.setdefault("spec", {}), attributes.new["metadata"]
    if "storageClassName" in spec or CLASS_ANNOTATION in (metadata.get("annotations") or {}):
        return
    if name := _default(context, STORAGE_CLASSES, _STORAGE):
        spec["storageClassName"] = name


def ingress(attributes: Attributes, context: Context) -> None:
    """DefaultIngressClass."""
    spec, metadata = attributes.new.setdefault("spec", {}), attributes.new["metadata"]
    if "ingressClassName" in spec or _INGRESS_ANNOTATION in (metadata.get("annotations") or {}):
        return
    if name := _default(context, INGRESS_CLASSES, _INGRESS):
        spec["ingressClassName"] = name


def _default(context: Context, resource: Resource, marks: tuple[str, ...]) -> str:
    """The name of the default class, "" where there is none."""
    found = [
        stored.object["metadata"]
        for stored in context.cache.of(resource).list()
        if any(
            (stored.object["metadata"].get("annotations") or {}).get(mark) == "true"
            for mark in marks
        )
    ]
    found.sort(key=lambda metadata: str(metadata["name"]))
    newest = max(found, key=lambda metadata: str(metadata["creationTimestamp"]), default=None)
    return "" if newest is None else str(newest["name"])
