"""The claims that a pod's volumes stand for; what the plugins about volumes share."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from wherry.kube.api import meta
from wherry.kube.api.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from wherry.kube.api.volume_matching import BIND_COMPLETED
from wherry.kube.client.informer import SharedInformers
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import IDLE
from wherry.kube.scheduler.snapshot import PodInfo


@dataclass(frozen=True, slots=True)
class PodClaims:
    """The copies of claims and volumes, looked at from a pod."""

    informers: SharedInformers

    def get(self, namespace: str, name: str) -> Object | None:
        """A claim."""
        return self.informers.informer(PERSISTENT_VOLUME_CLAIMS).get(namespace, name)

    def volume(self, name: str) -> Object | None:
        """A volume."""
        return self.informers.informer(PERSISTENT_VOLUMES).get(None, name)

    def of(self, pod: PodInfo) -> Iterable[Object]:
        """The pod's claims that there are."""
        for name, _ in pod.claims:
            claim = self.get(pod.namespace, name)
            if claim is not None:
                yield claim

    def volumes_of(self, pod: PodInfo) -> Iterable[Object]:
        """The volumes that the pod's claims are bound to."""
        for claim in self.of(pod):
            volume = self.volume(claim["spec"].get("volumeName") or "")
            if volume is not None:
                yield volume


def is_bound(claim: Object) -> bool:
    """Whether claim and volume point to each other."""
    return bool(claim["spec"].get("volumeName")) and BIND_COMPLETED in meta.annotations(claim)


def signature(pod: PodInfo) -> Hashable | None:
    """Of a plugin that only speaks of pods with claims."""
    return None if pod.claims else IDLE


def is_own_claim(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
    """Hint: whether the claim that changed is one of the pod's."""
    claim = new or old
    return (
        claim is not None
        and meta.namespace(claim) == pod.namespace
        and any(name == meta.name(claim) for name, _ in pod.claims)
    )
