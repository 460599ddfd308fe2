"""DefaultPreemption: less important pods make room for a more important one
(https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/).

For each node where removing pods can help, as few as possible are found: all less important pods
are taken away in thought, then each is given back, those first whose budget would be violated, and
the most important first, if the pod still fits. Of the nodes, that with the least loss is chosen.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.resources import POD_DISRUPTION_BUDGETS
from wherry.kube.api.selectors import labels_from_object
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.config import ConfigurationError
from wherry.kube.scheduler.framework import (
    Change,
    Cycle,
    Diagnosis,
    Handle,
    Hint,
    PostFilter,
    Room,
)
from wherry.kube.scheduler.room import Candidate, importance, least_harm
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo

_NO_HELP = "Preemption is not helpful for scheduling"
_NO_VICTIMS = "No preemption victims found for incoming pod"


class DefaultPreemption(PostFilter):
    name = "DefaultPreemption"

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        super().__init__(handle, arguments)
        self._percentage = int(arguments.get("minCandidateNodesPercentage", 10))
        self._absolute = int(arguments.get("minCandidateNodesAbsolute", 100))
        if not 0 <= self._percentage <= 100 or self._absolute < 0:
            raise ConfigurationError(
                "minCandidateNodesPercentage must be between 0 and 100, "
                "minCandidateNodesAbsolute not negative"
            )
        self._budgets = handle.informers.informer(POD_DISRUPTION_BUDGETS)

    def post_filter(self, cycle: Cycle, pod: PodInfo, diagnosis: Diagnosis) -> Room:
        if pod.spec.get("preemptionPolicy") == "Never":
            return Room("preemption: not eligible due to preemptionPolicy=Never.")
        if self._is_under_way(pod, diagnosis):
            return Room("preemption: not eligible due to a terminating pod on the nominated node.")
        reasons: Counter[str] = Counter()
        promising: list[NodeInfo] = []
        for node in cycle.snapshot.ordered():
            verdict = diagnosis.verdicts.get(node.name)
            if verdict is None:
                continue
            if verdict.resolvable:
                promising.append(node)
            else:
                reasons[_NO_HELP] += 1
        candidates = self._candidates(cycle, pod, promising, reasons)
        if candidates:
            best = least_harm(candidates)
            return Room(node=best.node, victims=best.victims, candidates=tuple(candidates))
        if not reasons:
            return Room()
        listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        total = len(cycle.snapshot.nodes)
        text = f"preemption: 0/{total} nodes are available: {listed}."
        return Room(text, hopeless=not promising)

    def helped_by(self) -> Mapping[Change, Hint]:
        return {}

    def _is_under_way(self, pod: PodInfo, diagnosis: Diagnosis) -> bool:
        """Whether less important pods are just leaving the node that was chosen before."""
        nominated = self.handle.nominations.node_of(pod.uid)
        node = self.handle.snapshot.nodes.get(nominated)
        verdict = diagnosis.verdicts.get(nominated)
        if node is None or (verdict is not None and not verdict.resolvable):
            return False
        return any(
            other.priority < pod.priority and other.is_leaving for other in node.pods.values()
        )

    def _candidates(
        self, cycle: Cycle, pod: PodInfo, promising: Sequence[NodeInfo], reasons: Counter[str]
    ) -> list[Candidate]:
        """Nodes where room can be made; of many, as many as are enough to choose from."""
        count = len(promising)
        enough = min(count, max(self._absolute, count * self._percentage // 100))
        start = random.randrange(count) if count else 0  # noqa: S311
        budgets = self._budgets.list()
        found: list[Candidate] = []
        for node in (*promising[start:], *promising[:start]):
            candidate = self._candidate(cycle, pod, node, budgets)
            if isinstance(candidate, Candidate):
                found.append(candidate)
                if len(found) >= enough and any(not c.violations for c in found):
                    break
            else:
                reasons.update(candidate)
        return found

    def _candidate(
        self, cycle: Cycle, pod: PodInfo, node: NodeInfo, budgets: Sequence[Object]
    ) -> Candidate | tuple[str, ...]:
        """The fewest pods whose absence lets ``pod`` fit, or why there are none."""
        lower = [other for other in node.pods.values() if other.priority < pod.priority]
        if not lower:
            return (_NO_VICTIMS,)
        trial = node.copy()
        for other in lower:
            trial.take(other)
        for waiting in self.handle.nominations.before(pod, node.name):
            trial.give(waiting)
        verdict = self.handle.fits(cycle, pod, trial)
        if verdict is not None:
            return verdict.reasons
        lower.sort(key=importance)
        violating, others = by_budget(lower, budgets)
        victims: list[PodInfo] = []
        violations = 0
        for other in (*violating, *others):
            trial.give(other)
            if self.handle.fits(cycle, pod, trial) is not None:
                trial.take(other)
                victims.append(other)
                violations += other in violating
        if not victims:
            return (_NO_VICTIMS,)
        victims.sort(key=importance)
        return Candidate(node.name, tuple(victims), violations)


def by_budget(
    pods: Iterable[PodInfo], budgets: Sequence[Object]
) -> tuple[list[PodInfo], list[PodInfo]]:
    """The pods whose eviction would violate a PodDisruptionBudget, and the others, in order."""
    allowed = [(b.get("status") or {}).get("disruptionsAllowed") or 0 for b in budgets]
    selectors = [labels_from_object((b.get("spec") or {}).get("selector")) for b in budgets]
    violating: list[PodInfo] = []
    others: list[PodInfo] = []
    for pod in pods:
        violated = False
        for number, budget in enumerate(budgets):
            if meta.namespace(budget) != pod.namespace or not pod.labels:
                continue
            selector = selectors[number]
            if selector.empty or not selector.matches(pod.labels):
                continue
            if meta.name(pod.object) in ((budget.get("status") or {}).get("disruptedPods") or {}):
                continue  # its eviction was counted already
            allowed[number] -= 1
            if allowed[number] < 0:
                violated = True
        (violating if violated else others).append(pod)
    return violating, others
