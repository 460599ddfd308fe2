"""SchedulingGates: a pod with gates is not tried before the last one is removed
(https://kubernetes.io/docs/concepts/scheduling-eviction/pod-scheduling-readiness/)."""

from __future__ import annotations

from collections.abc import Mapping

from wherry.kube.client.transport import Object
from wherry.kube.scheduler.framework import Change, Hint, PreEnqueue, Verdict, reject


class SchedulingGates(PreEnqueue):
    name = "SchedulingGates"

    def pre_enqueue(self, pod: Object) -> Verdict:
        gates = [gate["name"] for gate in pod["spec"].get("schedulingGates") or ()]
        if not gates:
            return None
        return reject(f"waiting for scheduling gates: [{' '.join(gates)}]", resolvable=False)

    def helped_by(self) -> Mapping[Change, Hint]:
        return {}
