"""What controllers own: the pods they make from a template, and how these are found again."""

from __future__ import annotations

from collections.abc import Iterable

from wherry.kube.api import meta
from wherry.kube.api.resources import Resource
from wherry.kube.client.transport import Object

ORPHANS = "orphans of "


def from_template(template: Object, owner: Object, resource: Resource) -> Object:
    """The pod that ``owner``, an object of ``resource``, makes from its template."""
    given = template.get("metadata") or {}
    metadata: Object = {
        "generateName": f"{meta.name(owner)}-",
        "namespace": meta.namespace(owner),
        "ownerReferences": [controller_reference(owner, resource)],
    }
    for part in ("labels", "annotations", "finalizers"):
        if given.get(part):
            metadata[part] = given[part]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def controller_reference(owner: Object, resource: Resource) -> Object:
    """The owner reference of a dependent of ``owner``; works for items of lists, too."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": meta.name(owner),
        "uid": meta.uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def by_controller(object: Object) -> Iterable[str]:
    """Indexer: the uid of an object's controller, or ``ORPHANS`` + namespace where it has none."""
    controller = meta.controller_of(object)
    return (controller["uid"],) if controller else (ORPHANS + meta.namespace(object),)
