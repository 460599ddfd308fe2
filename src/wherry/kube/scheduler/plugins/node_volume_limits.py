"""NodeVolumeLimits: no more volumes of a CSI driver on a node than the driver can attach there."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.resources import CSI_NODES, STORAGE_CLASSES
from wherry.kube.api.volume_matching import class_of
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import (
    Change,
    Cycle,
    Filter,
    Handle,
    Hint,
    Verdict,
    always,
    reject,
)
from wherry.kube.scheduler.plugins import pod_claims
from wherry.kube.scheduler.plugins.pod_claims import PodClaims
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_REJECTED = reject("node(s) exceed max volume count")


class NodeVolumeLimits(Filter):
    name = "NodeVolumeLimits"

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        self._claims = PodClaims(handle.informers)
        self._classes = handle.informers.informer(STORAGE_CLASSES)
        self._nodes = handle.informers.informer(CSI_NODES)
        self._nodes.add_handlers(
            on_add=lambda new: handle.wake(Change.CSI_NODE, None, new),
            on_update=lambda old, new: handle.wake(Change.CSI_NODE, old, new),
        )

    def signature(self, pod: PodInfo) -> Hashable | None:
        return pod_claims.signature(pod)

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        if not pod.claims:
            return None
        limits = self._limits(node.name)
        if not limits:
            return None
        wanted = self._used(pod)
        there = {volume for other in node.pods.values() for volume in self._used(other)}
        for driver, limit in limits.items():
            new = {volume for volume in wanted - there if volume[0] == driver}
            if new and len(new) + sum(d == driver for d, _ in there) > limit:
                return _REJECTED
        return None

    def _limits(self, node: str) -> dict[str, int]:
        found = self._nodes.get(None, node)
        return {
            driver["name"]: driver["allocatable"]["count"]
            for driver in ((found or {}).get("spec") or {}).get("drivers") or ()
            if (driver.get("allocatable") or {}).get("count") is not None
        }

    def _used(self, pod: PodInfo) -> set[tuple[str, str]]:
        """The pod's volumes as driver and name; a claim that has none yet counts as one."""
        used = set()
        for claim in self._claims.of(pod) if pod.claims else ():
            volume = self._claims.volume(claim["spec"].get("volumeName") or "")
            if volume is None:
                found: Object = self._classes.get(None, class_of(claim)) or {}
                used.add((found.get("provisioner") or "", meta.key(claim)))
            elif volume["spec"].get("csi"):
                csi = volume["spec"]["csi"]
                used.add((csi["driver"], csi["volumeHandle"]))
        return used

    def helped_by(self) -> Mapping[Change, Hint]:
        return {
            Change.CSI_NODE: always,
            Change.NODE_ADDED: always,
            Change.POD_REMOVED: always,
            Change.CLAIM: pod_claims.is_own_claim,
        }
