"""TaintToleration: no pods for a node whose taints they do not tolerate; rather none for one whose
soft taints they do not."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import orjson

from wherry.kube.api.taints import (
    NO_EXECUTE,
    NO_SCHEDULE,
    PREFER_NO_SCHEDULE,
    tolerates,
    untolerated,
)
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import (
    Change,
    Cycle,
    Filter,
    Hint,
    Score,
    Verdict,
    normalize,
    reject,
)
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_HARD = (NO_SCHEDULE, NO_EXECUTE)


class TaintToleration(Filter, Score):
    name = "TaintToleration"

    def signature(self, pod: PodInfo) -> Hashable:
        tolerations = pod.spec.get("tolerations")
        return orjson.dumps(tolerations) if tolerations else b""

    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        if not node.taints:
            return None
        tolerations = pod.spec.get("tolerations") or ()
        taint = untolerated(node.taints, tolerations, _HARD)
        if taint is None:
            return None
        text = f"{taint['key']}: {taint.get('value') or ''}"
        return reject(f"node(s) had untolerated taint {{{text}}}", resolvable=False)

    def score(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> int:
        """How many soft taints the pod does not tolerate."""
        if not node.taints:
            return 0
        tolerations = [
            toleration
            for toleration in pod.spec.get("tolerations") or ()
            if not toleration.get("effect") or toleration["effect"] == PREFER_NO_SCHEDULE
        ]
        return sum(
            taint.get("effect") == PREFER_NO_SCHEDULE
            and not any(tolerates(toleration, taint) for toleration in tolerations)
            for taint in node.taints
        )

    def normalize(self, scores: list[int]) -> list[int]:
        return normalize(scores, reverse=True)

    def helped_by(self) -> Mapping[Change, Hint]:
        def bearable(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
            taints = ((new or {}).get("spec") or {}).get("taints") or ()
            return untolerated(taints, pod.spec.get("tolerations") or (), _HARD) is None

        return {Change.NODE_ADDED: bearable, Change.NODE_TAINTS: bearable}
