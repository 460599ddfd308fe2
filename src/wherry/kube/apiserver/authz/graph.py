"""What a node's pods need, found by going from the node to its pods and on to what they name.

Only which pods are on which node is kept; the rest is read off the objects when a kubelet asks.
A node has few pods, and a kubelet asks little, while pods are many.
"""

from __future__ import annotations

from collections.abc import Iterator

from wherry.kube.api import references
from wherry.kube.api.references import References
from wherry.kube.api.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    RESOURCE_SLICES,
    VOLUME_ATTACHMENTS,
)
from wherry.kube.apiserver.cache import Cache, Event
from wherry.kube.apiserver.objects import Object, Stored

_MIRROR = "kubernetes.io/config.mirror"
_ASSIGNED = b'"nodeName":"'
_NOTHING = References(frozenset(), frozenset(), frozenset(), frozenset(), "")


class Graph:
    """Who is related to whom, by the objects in ``cache``, once `follow` was called."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._pods: dict[str, dict[str, References | None]] = {}  # node, pod's key; None: not read

    def follow(self) -> None:
        """Take in what the cache holds, and keep to its events from now on."""
        pods = self._cache.of(PODS)
        for stored in pods.list():
            if node := _place(stored):
                self._pods.setdefault(node, {})[stored.key] = None
        pods.listen(self._changed)

    def _changed(self, event: Event) -> None:
        if event.previous is not None and (node := _place(event.previous)):
            there = self._pods.get(node)
            if there is not None:
                there.pop(event.key, None)
                if not there:
                    del self._pods[node]
        if event.current is not None and (node := _place(event.current)):
            self._pods.setdefault(node, {})[event.key] = None

    # --- what a node is related to ------------------------------------------------------------

    def pod(self, node: str, namespace: str, name: str) -> bool:
        return f"{namespace}/{name}" in self._pods.get(node, ())

    def secret(self, node: str, namespace: str, name: str) -> bool:
        if any(name in needed.secrets for needed in self._needs(node, namespace)):
            return True
        return any(
            (namespace, name) in references.secrets_of_volume(volume)
            for volume in self._volumes(node)
        )

    def config_map(self, node: str, namespace: str, name: str) -> bool:
        return any(name in needed.config_maps for needed in self._needs(node, namespace))

    def claim(self, node: str, namespace: str, name: str) -> bool:
        return any(name in needed.claims for needed in self._needs(node, namespace))

    def resource_claim(self, node: str, namespace: str, name: str) -> bool:
        return any(name in needed.resource_claims for needed in self._needs(node, namespace))

    def service_account(self, node: str, namespace: str, name: str) -> bool:
        return any(name == needed.service_account for needed in self._needs(node, namespace))

    def volume(self, node: str, namespace: str, name: str) -> bool:
        stored = self._cache.of(PERSISTENT_VOLUMES).get("", name)
        if stored is None:
            return False
        claim = stored.object.get("spec", {}).get("claimRef") or {}
        return self.claim(node, claim.get("namespace", ""), claim.get("name", ""))

    def attachment(self, node: str, namespace: str, name: str) -> bool:
        stored = self._cache.of(VOLUME_ATTACHMENTS).get("", name)
        return stored is not None and stored.object.get("spec", {}).get("nodeName") == node

    def slice(self, node: str, namespace: str, name: str) -> bool:
        stored = self._cache.of(RESOURCE_SLICES).get("", name)
        return stored is not None and stored.object.get("spec", {}).get("nodeName") == node

    def _needs(self, node: str, namespace: str) -> Iterator[References]:
        """What the node's pods in a namespace refer to."""
        start = f"{namespace}/"
        for key in list(self._pods.get(node, ())):
            if key.startswith(start):
                yield self._needs_of(node, key)

    def _needs_of(self, node: str, key: str) -> References:
        there = self._pods[node]
        needed = there[key]
        if needed is None:
            stored = self._cache.of(PODS).find(key)
            needed = there[key] = _NOTHING if stored is None else _needed(stored.object)
        return needed

    def _volumes(self, node: str) -> Iterator[Object]:
        """The volumes bound to claims of the node's pods."""
        claims = self._cache.of(PERSISTENT_VOLUME_CLAIMS)
        volumes = self._cache.of(PERSISTENT_VOLUMES)
        for key in list(self._pods.get(node, ())):
            namespace = key.partition("/")[0]
            for name in self._needs_of(node, key).claims:
                claim = claims.get(namespace, name)
                if claim is None:
                    continue
                volume = volumes.get("", claim.object.get("spec", {}).get("volumeName", ""))
                if volume is None:
                    continue
                bound = volume.object.get("spec", {}).get("claimRef") or {}
                if (bound.get("namespace"), bound.get("name")) == (namespace, name):
                    yield volume.object


def _needed(pod: Object) -> References:
    if _MIRROR in (pod["metadata"].get("annotations") or {}):
        return _NOTHING  # a node made it: it must not thereby get at anything
    return references.of_pod(pod)


def _place(pod: Stored) -> str:
    """The node a pod is on, or ""; most that are on none need not be decoded to know."""
    if _ASSIGNED not in pod.data:
        return ""
    name: str = pod.object.get("spec", {}).get("nodeName") or ""
    return name
