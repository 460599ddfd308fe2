"""DefaultPreemption: less important pods make room for a more important one
(https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/).

For each node where removing pods can help, as few as possible are found: all less important pods
are taken away in thought, then each is given back, the most important first, if the pod still fits.
Of the nodes, the one whose loss is least is chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from wherry.kube.api import meta
from wherry.kube.scheduler.framework import Change, Cycle, Diagnosis, Hint, PostFilter, Room
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_NO_HELP = "Preemption is not helpful for scheduling"
_NO_VICTIMS = "No preemption victims found for incoming pod"

_OFFSET = 2**31  # makes the sum of negative priorities grow with the number of victims, too


class DefaultPreemption(PostFilter):
    name = "DefaultPreemption"

    def post_filter(self, cycle: Cycle, pod: PodInfo, diagnosis: Diagnosis) -> Room:
        if pod.spec.get("preemptionPolicy") == "Never":
            return Room("preemption: not eligible due to preemptionPolicy=Never.")
        if self._is_under_way(pod):
            return Room("preemption: not eligible due to a terminating pod on the nominated node.")
        reasons: Counter[str] = Counter()
        candidates: list[tuple[NodeInfo, list[PodInfo]]] = []
        for node in cycle.snapshot.ordered():
            verdict = diagnosis.verdicts.get(node.name)
            if verdict is None:
                continue
            if not verdict.resolvable:
                reasons[_NO_HELP] += 1
                continue
            found = self._victims(cycle, pod, node)
            if isinstance(found, list):
                candidates.append((node, found))
            else:
                reasons.update(found)
        if candidates:
            node, victims = min(candidates, key=_loss)
            return Room(node=node.name, victims=tuple(victims))
        if not reasons:
            return Room()
        listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        total = len(cycle.snapshot.ordered())
        return Room(f"preemption: 0/{total} nodes are available: {listed}.")

    def helped_by(self) -> Mapping[Change, Hint]:
        return {}

    def _is_under_way(self, pod: PodInfo) -> bool:
        """Whether less important pods are just leaving the node that was chosen before."""
        nominated = (pod.object.get("status") or {}).get("nominatedNodeName")
        node = self.handle.snapshot.nodes.get(nominated or "")
        return node is not None and any(
            other.priority < pod.priority and meta.is_deleting(other.object)
            for other in node.pods.values()
        )

    def _victims(
        self, cycle: Cycle, pod: PodInfo, node: NodeInfo
    ) -> list[PodInfo] | tuple[str, ...]:
        """The fewest pods whose absence lets ``pod`` fit, or why there are none."""
        lower = [other for other in node.pods.values() if other.priority < pod.priority]
        if not lower:
            return (_NO_VICTIMS,)
        trial = node.without({other.uid for other in lower})
        verdict = self.handle.fits(cycle, pod, trial)
        if verdict is not None:
            return verdict.reasons
        victims = []
        for other in sorted(lower, key=_importance):
            trial.add(other)
            if self.handle.fits(cycle, pod, trial) is not None:
                trial.remove(other.uid)
                victims.append(other)
        return victims


def _importance(pod: PodInfo) -> tuple[int, str]:
    """Sorts the most important first: by priority, then the one that runs longest."""
    return -pod.priority, (pod.object.get("status") or {}).get("startTime") or "9"


def _loss(candidate: tuple[NodeInfo, list[PodInfo]]) -> tuple[int, int, int]:
    """Sorts by the highest priority that is lost, then the sum, then the number."""
    _, victims = candidate
    priorities = [victim.priority for victim in victims]
    return max(priorities), sum(p + _OFFSET for p in priorities), len(victims)
