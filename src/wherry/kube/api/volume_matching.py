"""Which PersistentVolume serves a claim: the rules that the binder and the scheduler share
(https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from wherry.kube.api import meta
from wherry.kube.api.node_selection import term_matches
from wherry.kube.api.quantity import to_milli
from wherry.kube.api.selectors import labels_from_object

CLASS_ANNOTATION: Final = "volume.beta.kubernetes.io/storage-class"
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"

Object = dict[str, Any]


def class_of(o: Object) -> str:
    """The storage class that a claim or a volume names; empty where it names none."""
    annotated = meta.annotations(o).get(CLASS_ANNOTATION)
    return annotated if annotated is not None else (o["spec"].get("storageClassName") or "")


def waits_for_consumer(storage_class: Object | None) -> bool:
    """Whether claims of the class are bound when a pod that uses them is scheduled."""
    mode = (storage_class or {}).get("volumeBindingMode")
    return mode == "WaitForFirstConsumer"


def is_reserved_for(volume: Object, claim: Object) -> bool:
    """Whether the volume's ``claimRef`` means this claim."""
    wanted = volume["spec"].get("claimRef")
    if wanted is None:
        return False
    same = wanted.get("name") == meta.name(claim)
    same = same and wanted.get("namespace") == meta.namespace(claim)
    return same and wanted.get("uid") in (None, "", meta.uid(claim))


def reaches(volume: Object, node: Object) -> bool:
    """Whether the volume can be used on the node, by its node affinity."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    if required is None:
        return True
    labels, name = meta.labels(node), meta.name(node)
    return any(term_matches(t, labels, name) for t in required.get("nodeSelectorTerms") or ())


def size(o: Object) -> int:
    """How much storage a volume has, in thousandths of a byte."""
    return to_milli((o["spec"].get("capacity") or {}).get("storage") or 0)


def requested(claim: Object) -> int:
    """How much storage a claim asks for, in thousandths of a byte."""
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return to_milli(requests.get("storage") or 0)


def misfit(volume: Object, claim: Object) -> str:
    """Why a volume that was chosen by name cannot serve the claim; empty where it can."""
    if size(volume) < requested(claim):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if _mode(volume) != _mode(claim):
        return "incompatible volumeMode"
    if not _access(volume, claim):
        return "incompatible accessMode"
    return ""


def _mode(o: Object) -> str:
    return o["spec"].get("volumeMode") or "Filesystem"


def _access(volume: Object, claim: Object) -> bool:
    return set(claim["spec"].get("accessModes") or ()) <= set(
        volume["spec"].get("accessModes") or ()
    )


def find_volume(
    claim: Object,
    volumes: Iterable[Object],
    *,
    node: Object | None = None,
    taken: Collection[str] = (),
    delayed: bool = False,
) -> Object | None:
    """The volume for ``claim``: one reserved for it, else the smallest free one that fits.

    Args:
        node: where the volume must be usable; None before a node is chosen.
        taken: names of volumes that other claims are about to get.
        delayed: the class waits for a consumer, so that without a node only a volume reserved for
            the claim will do.
    """
    best: Object | None = None
    selector = claim["spec"].get("selector")
    matches = labels_from_object(selector).matches if selector else None
    for volume in volumes:
        if meta.name(volume) in taken or meta.is_deleting(volume):
            continue
        reserved = is_reserved_for(volume, claim)
        if volume["spec"].get("claimRef") is not None and not reserved:
            continue
        if size(volume) < requested(claim) or _mode(volume) != _mode(claim):
            continue
        wanted = claim["spec"].get("volumeAttributesClassName") or ""
        if (volume["spec"].get("volumeAttributesClassName") or "") != wanted:
            continue
        near = node is None or reaches(volume, node)
        if reserved:
            return volume if near else None
        if not near or (node is None and delayed):
            continue
        if (volume.get("status") or {}).get("phase") != "Available":
            continue
        if matches is not None and not matches(meta.labels(volume)):
            continue
        if class_of(volume) != class_of(claim) or not _access(volume, claim):
            continue
        if best is None or (size(volume), meta.name(volume)) < (size(best), meta.name(best)):
            best = volume
    return best
