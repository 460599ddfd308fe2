"""Who owns whom, by uid, as the informers show it.

A change is told to the graph, which answers with the uids of the objects it concerns: those must be
looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from wherry.kube.api import meta
from wherry.kube.api.resources import Resource
from wherry.kube.client.transport import Object

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(slots=True, eq=False)
class Node:
    """An object, as far as ownership goes."""

    uid: str
    resource: Resource
    namespace: str
    name: str
    owners: tuple[Object, ...]
    deleting: bool
    waits_for_dependents: bool
    """It is being deleted in the foreground: it goes after those that block it."""
    orphans_dependents: bool
    """It is being deleted, and its dependents are to stay."""


def node_of(resource: Resource, object: Object) -> Node:
    deleting, finalizers = meta.is_deleting(object), meta.finalizers(object)
    return Node(
        uid=meta.uid(object),
        resource=resource,
        namespace=meta.namespace(object),
        name=meta.name(object),
        owners=tuple(meta.owner_references(object)),
        deleting=deleting,
        waits_for_dependents=deleting and FOREGROUND in finalizers,
        orphans_dependents=deleting and ORPHAN in finalizers,
    )


def blocks(dependent: Node, owner: str) -> bool:
    """Whether the owner with that uid must not go before ``dependent``."""
    return any(
        reference["uid"] == owner and reference.get("blockOwnerDeletion")
        for reference in dependent.owners
    )


def may_own(owner: Node, dependent: Node) -> bool:
    """Owners are cluster-scoped or in the dependent's own namespace."""
    return not owner.namespace or owner.namespace == dependent.namespace


class Graph:
    """All objects that are known, and the dependents of each uid, known or not."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._dependents: dict[str, dict[str, Node]] = {}

    def dependents(self, uid: str) -> list[Node]:
        """The objects that name ``uid`` as an owner."""
        return list(self._dependents.get(uid, {}).values())

    def put(self, node: Node) -> set[str]:
        """An object was made or changed; whom that concerns."""
        old = self.nodes.get(node.uid)
        self.nodes[node.uid] = node
        concerned: set[str] = set()
        before = {reference["uid"] for reference in old.owners} if old is not None else set()
        after = {reference["uid"] for reference in node.owners}
        for uid in before - after:
            self._unlink(uid, node.uid)
        for uid in after:
            self._dependents.setdefault(uid, {})[node.uid] = node
        if old is None or old.owners != node.owners:
            concerned.update(self._waiting(before | after))
            if not all(self.keeps(uid, node) for uid in after):
                concerned.add(node.uid)
        if node.waits_for_dependents and not (old is not None and old.waits_for_dependents):
            concerned.add(node.uid)
            concerned.update(dependent.uid for dependent in self.dependents(node.uid))
        if node.orphans_dependents and not (old is not None and old.orphans_dependents):
            concerned.add(node.uid)
        return concerned

    def remove(self, uid: str) -> set[str]:
        """An object is gone; whom that concerns."""
        node = self.nodes.pop(uid, None)
        if node is None:
            return set()
        owners = [reference["uid"] for reference in node.owners]
        for owner in owners:
            self._unlink(owner, uid)
        return {dependent.uid for dependent in self.dependents(uid)} | self._waiting(owners)

    def _unlink(self, owner: str, dependent: str) -> None:
        links = self._dependents.get(owner)
        if links is not None:
            links.pop(dependent, None)
            if not links:
                del self._dependents[owner]

    def _waiting(self, owners: Iterable[str]) -> set[str]:
        """Those of the owners that wait for their dependents to go."""
        nodes = (self.nodes.get(uid) for uid in owners)
        return {node.uid for node in nodes if node is not None and node.waits_for_dependents}

    def keeps(self, owner: str, dependent: Node) -> bool:
        """Whether the owner with that uid is known, may own ``dependent``, and does not go."""
        node = self.nodes.get(owner)
        return node is not None and not node.waits_for_dependents and may_own(node, dependent)
