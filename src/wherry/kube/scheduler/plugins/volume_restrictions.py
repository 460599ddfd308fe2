"""VolumeRestrictions: what may be used by one pod, or on one node, alone: claims with access mode
``ReadWriteOncePod``, and disks of old kinds of volumes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import (
    IDLE,
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
from wherry.kube.scheduler.plugins.pod_claims import PodClaims, is_own_claim
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_IN_USE = reject(
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
)
_DISK_IN_USE = reject("node(s) had no available disk")

Volume = Mapping[str, Any]


def _rbd_conflict(a: Volume, b: Volume) -> bool:
    same = (a.get("pool") or "rbd", a.get("image")) == (b.get("pool") or "rbd", b.get("image"))
    monitors = set(a.get("monitors") or ()) & set(b.get("monitors") or ())
    return same and bool(monitors) and not (a.get("readOnly") and b.get("readOnly"))


_CONFLICTS: Mapping[str, Callable[[Volume, Volume], bool]] = {
    "gcePersistentDisk": lambda a, b: (
        a.get("pdName") == b.get("pdName") and not (a.get("readOnly") and b.get("readOnly"))
    ),
    "awsElasticBlockStore": lambda a, b: a.get("volumeID") == b.get("volumeID"),
    "iscsi": lambda a, b: (
        a.get("iqn") == b.get("iqn") and not (a.get("readOnly") and b.get("readOnly"))
    ),
    "rbd": _rbd_conflict,
}


def _disks(pod: PodInfo) -> list[tuple[str, Volume]]:
    return [
        (kind, volume[kind])
        for volume in pod.spec.get("volumes") or ()
        for kind in _CONFLICTS
        if volume.get(kind)
    ]


class VolumeRestrictions(PreFilter, Filter):
    name = "VolumeRestrictions"

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        self._claims = PodClaims(handle.informers)

    def signature(self, pod: PodInfo) -> Hashable | None:
        return None if pod.claims or _disks(pod) else IDLE

    def pre_filter(self, cycle: Cycle, pod: PodInfo) -> Verdict | frozenset[str]:
        if pod.claims:
            cycle.data[self.name] = [
                f"{pod.namespace}/{claim['metadata']['name']}"
                for claim in self._claims.of(pod)
                if "ReadWriteOncePod" in (claim["spec"].get("accessModes") or ())
            ]
        return None

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        for kind, disk in _disks(pod):
            for other in node.pods.values():
                if any(k == kind and _CONFLICTS[kind](disk, d) for k, d in _disks(other)):
                    return _DISK_IN_USE
        for claim in cycle.data.get(self.name, ()):
            users = sum(self.handle.snapshot.population.users(claim).values())
            users -= sum(claim in other.claim_keys for other in node.removed.values())
            users += sum(claim in other.claim_keys for other in node.added.values())
            if users > 0:
                return _IN_USE
        return None

    def helped_by(self) -> Mapping[Change, Hint]:
        def freed(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            if old is None:
                return False
            gone = PodInfo(old)
            return bool(set(gone.claim_keys) & set(pod.claim_keys)) or bool(_disks(gone))

        return {
            Change.POD_REMOVED: freed,
            Change.NODE_ADDED: always,
            Change.CLAIM: is_own_claim,
        }
