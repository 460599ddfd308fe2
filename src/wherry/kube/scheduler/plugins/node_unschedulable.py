"""NodeUnschedulable: no pods for a cordoned node, but for those that tolerate it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from wherry.kube.api.taints import NO_SCHEDULE, tolerates
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import Change, Cycle, Filter, Hint, Verdict, reject
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_REJECTED = reject("node(s) were unschedulable", resolvable=False)
_TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": NO_SCHEDULE}


def _tolerated(pod: PodInfo) -> bool:
    return any(tolerates(t, _TAINT) for t in pod.spec.get("tolerations") or ())


class NodeUnschedulable(Filter):
    name = "NodeUnschedulable"

    def signature(self, pod: PodInfo) -> Hashable:
        return _tolerated(pod)

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        return _REJECTED if node.unschedulable and not _tolerated(pod) else None

    def helped_by(self) -> Mapping[Change, Hint]:
        def opened(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            return new is not None and not (new.get("spec") or {}).get("unschedulable")

        return {Change.NODE_ADDED: opened, Change.NODE_TAINTS: opened}
