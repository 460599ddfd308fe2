"""VolumeZone: a volume that is labelled with zones is used there."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from wherry.kube.api import meta
from wherry.kube.scheduler.framework import (
    Change,
    Cycle,
    Filter,
    Handle,
    Hint,
    PreFilter,
    Verdict,
    always,
    reject,
)
from wherry.kube.scheduler.plugins import pod_claims
from wherry.kube.scheduler.plugins.pod_claims import PodClaims
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_REJECTED = reject("node(s) had no available volume zone", resolvable=False)

_LABELS = {
    "topology.kubernetes.io/zone": "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region": "failure-domain.beta.kubernetes.io/region",
}
_LABELS.update({old: new for new, old in _LABELS.items()})


class VolumeZone(PreFilter, Filter):
    name = "VolumeZone"

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        self._claims = PodClaims(handle.informers)

    def signature(self, pod: PodInfo) -> Hashable | None:
        return pod_claims.signature(pod)

    def pre_filter(self, cycle: Cycle, pod: PodInfo) -> Verdict | frozenset[str]:
        wanted = [
            (key, frozenset(value.split("__")))
            for volume in (self._claims.volumes_of(pod) if pod.claims else ())
            for key, value in meta.labels(volume).items()
            if key in _LABELS
        ]
        if wanted:
            cycle.data[self.name] = wanted
        return None

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        wanted = cycle.data.get(self.name)
        if not wanted or not any(key in node.labels for key in _LABELS):
            return None  # a cluster without zones
        for key, zones in wanted:
            if node.labels.get(key, node.labels.get(_LABELS[key])) not in zones:
                return _REJECTED
        return None

    def helped_by(self) -> Mapping[Change, Hint]:
        return {
            Change.NODE_ADDED: always,
            Change.NODE_LABELS: always,
            Change.CLAIM: pod_claims.is_own_claim,
            Change.VOLUME: always,
        }
