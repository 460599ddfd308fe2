"""A kubelet writes only what is its own: its Node, its lease, the pods bound to it."""

from __future__ import annotations

from wherry.kube.api.resources import LEASES, NODES, PODS
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.service_account import MIRROR
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import User

_USER = "system:node:"
_GROUP = "system:nodes"
_LEASES = "kube-node-lease"


def node_of(user: User) -> str:
    """The node whose kubelet asks, or ""."""
    if user.name.startswith(_USER) and _GROUP in user.groups:
        return user.name[len(_USER) :]
    return ""


def admit(attributes: Attributes, context: Context) -> None:
    if attributes.user.name.startswith(_USER) and (node := node_of(attributes.user)):
        if attributes.resource is PODS:
            _pod(attributes, node, context.cache)
        elif attributes.resource is NODES:
            _node(attributes, node)
        elif attributes.resource is LEASES:
            _lease(attributes, node)


def _pod(attributes: Attributes, node: str, cache: Cache) -> None:
    if attributes.subresource == "eviction":
        found = cache.of(PODS).get(attributes.namespace, attributes.name)
        if found is not None and _place(found.object) != node:
            raise attributes.forbidden(
                f"node {node} can only evict pods with spec.nodeName set to itself"
            )
        return
    if attributes.subresource == "status":
        assert attributes.old is not None and attributes.object is not None
        if _place(attributes.old) != node:
            raise attributes.forbidden(
                f'node "{node}" can only update pod status for pods with spec.nodeName '  # noqa: S608
                "set to itself"
            )
        if attributes.object["metadata"].get("labels") != attributes.old["metadata"].get("labels"):
            raise attributes.forbidden(f'node "{node}" cannot update labels through pod status')
        return
    if attributes.operation == "CREATE":
        assert attributes.object is not None
        if MIRROR not in (attributes.object["metadata"].get("annotations") or {}):
            raise attributes.forbidden(
                f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror '
                "pods"
            )
        if _place(attributes.object) != node:
            raise attributes.forbidden(
                f'node "{node}" can only create pods with spec.nodeName set to itself'
            )
    elif attributes.operation == "DELETE":
        if attributes.old is not None and _place(attributes.old) != node:
            raise attributes.forbidden(
                f'node "{node}" can only delete pods with spec.nodeName set to itself'
            )
    elif attributes.operation == "UPDATE":
        raise attributes.forbidden(
            f'unexpected operation "UPDATE", node "{node}" can only create and delete mirror pods'
        )


def _place(pod: Object) -> str:
    name: str = pod["spec"].get("nodeName", "")
    return name


def _node(attributes: Attributes, node: str) -> None:
    asked = attributes.name
    if not asked and attributes.object is not None:
        asked = attributes.object["metadata"].get("name", "")
    if asked != node:
        raise attributes.forbidden(f'node "{node}" is not allowed to modify node "{asked}"')
    if attributes.operation == "UPDATE":
        assert attributes.old is not None and attributes.object is not None
        before = attributes.old.get("spec", {}).get("taints") or []
        if (attributes.object.get("spec", {}).get("taints") or []) != before:
            raise attributes.forbidden(f'node "{node}" is not allowed to modify taints')


def _lease(attributes: Attributes, node: str) -> None:
    if attributes.namespace != _LEASES:
        raise attributes.forbidden(f'can only access leases in the "{_LEASES}" system namespace')
    asked = attributes.name
    if not asked and attributes.object is not None:
        asked = attributes.object["metadata"].get("name", "")
    if asked != node:
        raise attributes.forbidden(
            "can only access node lease with the same name as the requesting node"
        )
