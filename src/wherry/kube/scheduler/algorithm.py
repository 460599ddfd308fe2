"""One pod, all nodes: which one, or why none.

What the filters and scores of a profile say about a pod and a node is remembered under the pod's
*signature*: all that the plugins look at. A pod of the same signature (the next replica) finds all
answered but for the nodes that changed since, mostly the one its predecessor went to.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from wherry.kube.client.client import Client
from wherry.kube.scheduler.config import ConfigurationError, Profile, resolve
from wherry.kube.scheduler.framework import (
    Bind,
    Cycle,
    Diagnosis,
    Filter,
    Handle,
    Permit,
    Plugin,
    PostBind,
    PostFilter,
    PreBind,
    PreEnqueue,
    PreFilter,
    QueueSort,
    Rejection,
    Reserve,
    Score,
    Signed,
    Verdict,
)
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

_REMEMBERED_SIGNATURES = 16
_ENOUGH_NODES = 100
_LEAST_PERCENTAGE = 5


class Unfit(Exception):
    """No node takes the pod; the text is what the user sees."""

    def __init__(self, message: str, diagnosis: Diagnosis, cycle: Cycle) -> None:
        super().__init__(message)
        self.diagnosis = diagnosis
        self.cycle = cycle


@dataclass(slots=True)
class _Opinion:
    """What is known of a pod on a node as it was in one generation."""

    generation: int
    verdict: Verdict
    rejected_by: str
    scores: list[int] | None = None


@dataclass(slots=True)
class _Memory:
    opinions: dict[str, _Opinion] = field(default_factory=dict)


class Algorithm:
    """The plugins of one profile, at their points, over the shared snapshot."""

    def __init__(
        self, profile: Profile, client: Client, snapshot: Snapshot, percentage_of_nodes: int = 0
    ) -> None:
        self.profile = profile
        self.snapshot = snapshot
        self._percentage = percentage_of_nodes
        handle = Handle(client, snapshot, self._fits)
        plugins: list[Plugin] = []
        weights: dict[str, int] = {}
        for use in profile.plugins:
            plugin = resolve(use.plugin)(handle, use.arguments)
            if plugin.name in weights:
                raise ConfigurationError(f'plugin "{plugin.name}" is used twice')
            plugins.append(plugin)
            weights[plugin.name] = use.weight
        self.plugins = plugins
        self.pre_enqueue = [p for p in plugins if isinstance(p, PreEnqueue)]
        self.pre_filters = [p for p in plugins if isinstance(p, PreFilter)]
        self.filters = [p for p in plugins if isinstance(p, Filter)]
        self.post_filters = [p for p in plugins if isinstance(p, PostFilter)]
        self.scores = [(p, weights[p.name]) for p in plugins if isinstance(p, Score)]
        self.reserves = [p for p in plugins if isinstance(p, Reserve)]
        self.permits = [p for p in plugins if isinstance(p, Permit)]
        self.pre_binds = [p for p in plugins if isinstance(p, PreBind)]
        self.binds = [p for p in plugins if isinstance(p, Bind)]
        self.post_binds = [p for p in plugins if isinstance(p, PostBind)]
        sorts = [p for p in plugins if isinstance(p, QueueSort)]
        if len(sorts) != 1 or not self.binds:
            raise ConfigurationError(
                f'profile "{profile.scheduler_name}" needs one plugin that sorts the queue '
                "and one that binds"
            )
        self.sort = sorts[0]
        self.nominated: dict[str, tuple[PodInfo, str]] = {}
        """Pods that wait for room on a node, by uid, and the node."""
        self._memories: OrderedDict[Hashable, _Memory] = OrderedDict()
        self._next_start = 0

    # -- deciding

    def choose(self, pod: PodInfo) -> tuple[NodeInfo, Cycle]:
        """The node for the pod.

        Raises:
            Unfit: no node takes it.
        """
        cycle = Cycle(self.snapshot)
        nodes = self.snapshot.ordered()
        if not nodes:
            diagnosis = Diagnosis({})
            raise Unfit("no nodes available to schedule pods", diagnosis, cycle)
        allowed = self._pre_filter(cycle, pod)
        memory = self._recall(pod)
        if allowed is not None:
            nodes = [node for node in nodes if node.name in allowed]
        fitting, diagnosis = self._filter(cycle, pod, nodes, memory)
        if not fitting:
            if allowed is not None:
                self._add_excluded(allowed, diagnosis)
            total = len(self.snapshot.ordered())
            raise Unfit(message(total, diagnosis), diagnosis, cycle)
        if len(fitting) == 1:
            return fitting[0][0], cycle
        return self._best(cycle, pod, fitting), cycle

    def _pre_filter(self, cycle: Cycle, pod: PodInfo) -> frozenset[str] | None:
        allowed: frozenset[str] | None = None
        for plugin in self.pre_filters:
            result = plugin.pre_filter(cycle, pod)
            if isinstance(result, Rejection):
                diagnosis = Diagnosis(
                    {node.name: result for node in self.snapshot.ordered()},
                    pre_filter=", ".join(result.reasons),
                    rejected_by={plugin.name},
                )
                raise Unfit(message(len(self.snapshot.nodes), diagnosis), diagnosis, cycle)
            if result is not None:
                allowed = result if allowed is None else allowed & result
        return allowed

    def _add_excluded(self, allowed: frozenset[str], diagnosis: Diagnosis) -> None:
        """Nodes that PreFilter left out were rejected, too."""
        reason = "node(s) didn't satisfy plugin(s) [NodeAffinity]"
        for node in self.snapshot.ordered():
            if node.name not in allowed:
                diagnosis.verdicts[node.name] = Rejection((reason,), resolvable=False)
        diagnosis.rejected_by.update(plugin.name for plugin in self.pre_filters)

    def _filter(
        self, cycle: Cycle, pod: PodInfo, nodes: Sequence[NodeInfo], memory: _Memory
    ) -> tuple[list[tuple[NodeInfo, _Opinion]], Diagnosis]:
        """As many nodes that fit as are enough, from where the last search ended."""
        enough = self._enough(len(nodes))
        fitting: list[tuple[NodeInfo, _Opinion]] = []
        diagnosis = Diagnosis({})
        opinions = memory.opinions
        count = len(nodes)
        start = self._next_start % count if count else 0
        looked_at = 0
        for node in (*nodes[start:], *nodes[:start]) if start else nodes:
            looked_at += 1
            opinion = opinions.get(node.name)
            if opinion is None or opinion.generation != node.generation or self.nominated:
                opinion = opinions[node.name] = self._opinion(cycle, pod, node)
            if opinion.verdict is None:
                fitting.append((node, opinion))
                if len(fitting) >= enough:
                    break
            else:
                diagnosis.verdicts[node.name] = opinion.verdict
                diagnosis.rejected_by.add(opinion.rejected_by)
        self._next_start = start + looked_at
        return fitting, diagnosis

    def _opinion(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> _Opinion:
        """Ask the filters; where others wait for room on the node, as if they had it, too."""
        waiting = [
            other
            for other, name in self.nominated.values()
            if name == node.name and other.priority >= pod.priority and other.uid != pod.uid
        ]
        if waiting:
            crowded = node.without(set())
            for other in waiting:
                crowded.add(other)
            opinion = self._ask(cycle, pod, crowded)
            if opinion.verdict is not None:
                return opinion
        return self._ask(cycle, pod, node)

    def _ask(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> _Opinion:
        for plugin in self.filters:
            verdict = plugin.filter(cycle, pod, node)
            if verdict is not None:
                return _Opinion(node.generation, verdict, plugin.name)
        return _Opinion(node.generation, None, "")

    def _fits(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        return self._ask(cycle, pod, node).verdict

    def _best(
        self, cycle: Cycle, pod: PodInfo, fitting: Sequence[tuple[NodeInfo, _Opinion]]
    ) -> NodeInfo:
        for node, opinion in fitting:
            if opinion.scores is None:
                opinion.scores = [plugin.score(cycle, pod, node) for plugin, _ in self.scores]
        totals = [0] * len(fitting)
        for number, (plugin, weight) in enumerate(self.scores):
            raw = [opinion.scores[number] for _, opinion in fitting if opinion.scores is not None]
            for index, score in enumerate(plugin.normalize(raw)):
                totals[index] += weight * score
        highest = max(totals)
        best = [index for index, total in enumerate(totals) if total == highest]
        return fitting[random.choice(best)][0]  # noqa: S311

    def _enough(self, count: int) -> int:
        """With many nodes, not all need be looked at to find a good one (upstream's rule)."""
        if count <= _ENOUGH_NODES:
            return count
        percentage = self._percentage or max(_LEAST_PERCENTAGE, 50 - count // 125)
        return max(_ENOUGH_NODES, count * min(percentage, 100) // 100)

    # -- remembering

    def _recall(self, pod: PodInfo) -> _Memory:
        """What is known for pods of this signature; nothing where one may not be used again."""
        if pod.signatures is None:
            pod.signatures = self._signature(pod)
        if pod.signatures is False:
            return _Memory()
        memory = self._memories.get(pod.signatures)
        if memory is None:
            memory = self._memories[pod.signatures] = _Memory()
            if len(self._memories) > _REMEMBERED_SIGNATURES:
                self._memories.popitem(last=False)
        else:
            self._memories.move_to_end(pod.signatures)
            if len(memory.opinions) > 2 * len(self.snapshot.nodes) + 16:
                memory.opinions = {
                    name: opinion
                    for name, opinion in memory.opinions.items()
                    if name in self.snapshot.nodes
                }
        return memory

    def _signature(self, pod: PodInfo) -> Hashable:
        parts = []
        for plugin in self.plugins:
            if isinstance(plugin, Signed):
                part = plugin.signature(pod)
                if part is None:
                    return False
                parts.append(part)
        return tuple(parts)


def message(total: int, diagnosis: Diagnosis) -> str:
    """The sentence of FailedScheduling: how many nodes there are, and what was wrong with them."""
    text = f"0/{total} nodes are available:"
    if diagnosis.pre_filter:
        return f"{text} {diagnosis.pre_filter}."
    counts = Counter(
        reason for verdict in diagnosis.verdicts.values() for reason in verdict.reasons
    )
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
    return f"{text} {listed}."
