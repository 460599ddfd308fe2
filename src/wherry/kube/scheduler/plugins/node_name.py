"""NodeName: a pod that names its node runs there or nowhere."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from wherry.kube.scheduler.framework import Change, Cycle, Filter, Hint, Verdict, always, reject
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_REJECTED = reject("node(s) didn't match the requested node name", resolvable=False)


class NodeName(Filter):
    name = "NodeName"

    def signature(self, pod: PodInfo) -> Hashable:
        return pod.spec.get("nodeName") or ""

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        wanted = pod.spec.get("nodeName")
        return _REJECTED if wanted and wanted != node.name else None

    def helped_by(self) -> Mapping[Change, Hint]:
        return {Change.NODE_ADDED: always}
