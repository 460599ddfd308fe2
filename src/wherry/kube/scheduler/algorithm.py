"""One pod, all nodes: which one, or why none.

What the plugins of a profile say about a pod and a node is remembered under the pod's *signature*:
all that those plugins look at (``memory``). Where every plugin has signed, choosing costs what has
changed since the last pod of the kind. Plugins that look beyond the node are *open* for a pod they
have something to say about: they are asked about each node that the others take.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.client.transport import Object
from wherry.kube.scheduler.config import ConfigurationError, Profile, Use, resolve
from wherry.kube.scheduler.framework import (
    IDLE,
    POINTS,
    Bind,
    Change,
    Cycle,
    Diagnosis,
    Faceted,
    Filter,
    Handle,
    Permit,
    Plugin,
    PostBind,
    PostFilter,
    PreBind,
    PreEnqueue,
    PreFilter,
    PreScore,
    QueueSort,
    Rejection,
    Reserve,
    Score,
    Verdict,
)
from wherry.kube.scheduler.memory import Group, Judge, Memory, Opinion
from wherry.kube.scheduler.nominations import Nominations
from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

_REMEMBERED_SIGNATURES = 64
_REMEMBERED = 200_000  # opinions on nodes, of all signatures
_ENOUGH_NODES = 100
_LEAST_PERCENTAGE = 5


class Unfit(Exception):
    """No node takes the pod; the text is what the user sees."""

    def __init__(self, message: str, diagnosis: Diagnosis, cycle: Cycle) -> None:
        super().__init__(message)
        self.diagnosis = diagnosis
        self.cycle = cycle


@dataclass(slots=True)
class _Open:
    """The plugins that must be asked about each node for this pod."""

    filters: list[Filter]
    scores: list[tuple[Score, int]]

    def __bool__(self) -> bool:
        return bool(self.filters or self.scores)


@dataclass(slots=True)
class Candidates:
    """The nodes that take a pod, with their scores."""

    cycle: Cycle
    nodes: list[NodeInfo]
    scores: list[int]
    diagnosis: Diagnosis = field(default_factory=lambda: Diagnosis({}))
    """Why the others do not."""

    def best(self) -> NodeInfo:
        """One of those with the highest score."""
        highest = max(self.scores)
        best = [node for node, s in zip(self.nodes, self.scores, strict=True) if s == highest]
        return random.choice(best)  # noqa: S311


class Algorithm:
    """The plugins of one profile, at their points, over the shared snapshot."""

    def __init__(
        self,
        profile: Profile,
        client: Client,
        snapshot: Snapshot,
        informers: SharedInformers,
        *,
        percentage_of_nodes: int = 0,
        nominations: Nominations | None = None,
        wake: Callable[[Change, Object | None, Object | None], None] = lambda *_: None,
    ) -> None:
        self.profile = profile
        self.snapshot = snapshot
        self.nominations = nominations if nominations is not None else Nominations()
        self._percentage = profile.percentage_of_nodes or percentage_of_nodes
        handle = Handle(client, snapshot, informers, self.nominations, self._fits, wake)
        self.plugins: list[Plugin] = []
        self._uses: dict[str, Use] = {}
        for use in profile.plugins:
            plugin = resolve(use.plugin)(handle, use.arguments)
            if plugin.name in self._uses:
                raise ConfigurationError(f'plugin "{plugin.name}" is used twice')
            self.plugins.append(plugin)
            self._uses[plugin.name] = use
        self.pre_enqueue: list[PreEnqueue] = self._at("preEnqueue")
        self.pre_filters: list[PreFilter] = self._at("preFilter")
        self.filters: list[Filter] = self._at("filter")
        self.post_filters: list[PostFilter] = self._at("postFilter")
        self.scores: list[tuple[Score, int]] = [
            (p, self._uses[p.name].weight) for p in self._at("score")
        ]
        self.pre_scores: dict[str, PreScore] = {p.name: p for p in self._at("preScore")}
        self.reserves: list[Reserve] = self._at("reserve")
        self.permits: list[Permit] = self._at("permit")
        self.pre_binds: list[PreBind] = self._at("preBind")
        self.binds: list[Bind] = self._at("bind")
        self.post_binds: list[PostBind] = self._at("postBind")
        sorts: list[QueueSort] = self._at("queueSort")
        if len(sorts) != 1 or not self.binds:
            raise ConfigurationError(
                f'profile "{profile.scheduler_name}" needs one plugin that sorts the queue '
                "and one that binds"
            )
        self.sort = sorts[0]
        asked: dict[str, Filter | Score] = {p.name: p for p in self.filters}
        asked.update({p.name: p for p, _ in self.scores})
        self._signing = list(asked.values())
        self._numbers = {p.name: number for number, p in enumerate(self._signing)}
        self._memories: OrderedDict[Hashable, tuple[Memory, _Judges]] = OrderedDict()
        self._next_start = 0

    def _at(self, point: str) -> list[Any]:
        """The plugins that have a say at an extension point, in the order of the profile."""
        kind = POINTS[point]
        return [p for p in self.plugins if isinstance(p, kind) and self._uses[p.name].is_at(point)]

    # -- deciding

    def choose(self, pod: PodInfo) -> tuple[NodeInfo, Cycle]:
        """The node for the pod.

        Raises:
            Unfit: no node takes it.
        """
        found = self.find(pod)
        if isinstance(found, Candidates):
            return found.best(), found.cycle
        return found

    def find(
        self, pod: PodInfo, *, all_of_them: bool = False
    ) -> tuple[NodeInfo, Cycle] | Candidates:
        """The node for the pod where that is plain, else those that are to be chosen from.

        Args:
            all_of_them: candidates are wanted in any case.

        Raises:
            Unfit: no node takes it.
        """
        cycle = Cycle(self.snapshot)
        nodes = self.snapshot.ordered()
        if not nodes:
            raise Unfit("no nodes available to schedule pods", Diagnosis({}), cycle)
        allowed, limiting = self._pre_filter(cycle, pod)
        promised = self.snapshot.nodes.get(self.nominations.node_of(pod.uid))
        if promised is not None and not all_of_them:
            may = allowed is None or promised.name in allowed
            if may and self._verdict(cycle, pod, promised) is None:
                return promised, cycle
        memory, judges, beyond = self._recall(pod)

        def judge(node: NodeInfo) -> Opinion:
            return judges.judge(cycle, pod, node)

        memory.refresh(judge)
        if allowed is None and not beyond and not all_of_them:
            diagnosis = Diagnosis({})
            node = self._quick(cycle, pod, memory, judges, judge, diagnosis)
            if node is not None:
                return node, cycle
        else:
            if allowed is not None:
                nodes = [node for node in nodes if node.name in allowed]
            fitting, diagnosis = self._filter(cycle, pod, nodes, memory, judge, judges, beyond)
            if fitting:
                if len(fitting) == 1 and not all_of_them:
                    return fitting[0][0], cycle
                candidates = self._scored(cycle, pod, fitting, judges, beyond)
                if all_of_them:
                    candidates.diagnosis = diagnosis
                    if allowed is not None:
                        self._add_excluded(allowed, limiting, diagnosis)
                return candidates
            if allowed is not None:
                self._add_excluded(allowed, limiting, diagnosis)
        raise Unfit(message(len(self.snapshot.nodes), diagnosis), diagnosis, cycle)

    def _pre_filter(self, cycle: Cycle, pod: PodInfo) -> tuple[frozenset[str] | None, list[str]]:
        allowed: frozenset[str] | None = None
        limiting = []
        for plugin in self.pre_filters:
            result = plugin.pre_filter(cycle, pod)
            if isinstance(result, Rejection):
                diagnosis = Diagnosis(
                    dict.fromkeys(self.snapshot.nodes, result),
                    pre_filter=", ".join(result.reasons),
                    rejected_by={plugin.name},
                )
                raise Unfit(message(len(self.snapshot.nodes), diagnosis), diagnosis, cycle)
            if result is not None:
                limiting.append(plugin.name)
                allowed = result if allowed is None else allowed & result
        return allowed, limiting

    def _add_excluded(
        self, allowed: frozenset[str], limiting: list[str], diagnosis: Diagnosis
    ) -> None:
        """Nodes that PreFilter left out were rejected, too."""
        reason = f"node(s) didn't satisfy plugin(s) [{' '.join(limiting)}]"
        rejection = Rejection((reason,), resolvable=False)
        for name in self.snapshot.nodes:
            if name not in allowed:
                diagnosis.verdicts[name] = rejection
        diagnosis.rejected_by.update(limiting)

    def _quick(
        self,
        cycle: Cycle,
        pod: PodInfo,
        memory: Memory,
        judges: _Judges,
        judge: Judge,
        diagnosis: Diagnosis,
    ) -> NodeInfo | None:
        """The best node by what is remembered; where none fits, ``diagnosis`` says why."""

        def rate(groups: Sequence[tuple[Group, int]]) -> list[int | None]:
            return judges.rate(cycle, pod, groups)

        crowded: dict[str, tuple[Rejection, str]] = {}
        enough = self._enough(len(self.snapshot.nodes))
        while True:
            memory.extend(judge, enough)
            for name in memory.best(rate):
                node = self.snapshot.nodes[name]
                rejected = self._crowded(cycle, pod, node) if self.nominations else None
                if rejected is None:
                    return node
                crowded[name] = rejected
            if memory.complete:
                break
            enough = len(self.snapshot.nodes)
        verdicts, blamed = diagnosis.verdicts, diagnosis.rejected_by
        for name, opinion in memory.opinions.items():
            if opinion.verdict is not None:
                verdicts[name] = opinion.verdict
                blamed.add(opinion.rejected_by)
        for group, names in memory.groups():
            found = judges.verdict(cycle, pod, group)
            for name in names:
                said = found or crowded.get(name)
                if said is not None:
                    verdicts[name] = said[0]
                    blamed.add(said[1])
        return None

    def _filter(
        self,
        cycle: Cycle,
        pod: PodInfo,
        nodes: Sequence[NodeInfo],
        memory: Memory,
        judge: Judge,
        judges: _Judges,
        beyond: _Open,
    ) -> tuple[list[tuple[NodeInfo, Opinion]], Diagnosis]:
        """As many nodes that fit as are enough, from where the last search ended."""
        enough = self._enough(len(nodes))
        fitting: list[tuple[NodeInfo, Opinion]] = []
        diagnosis = Diagnosis({})
        verdicts, blamed = diagnosis.verdicts, diagnosis.rejected_by
        opinions = memory.opinions
        filters = beyond.filters
        nominations = self.nominations
        said: dict[Hashable, tuple[Rejection, str] | None] = {}
        count = len(nodes)
        start = self._next_start % count if count else 0
        looked_at = 0
        for node in (*nodes[start:], *nodes[:start]) if start else nodes:
            looked_at += 1
            opinion = opinions.get(node.name)
            if opinion is None or opinion.generation != node.generation:
                opinion = memory.opinion(node, judge)
            verdict, plugin = opinion.verdict, opinion.rejected_by
            if verdict is None and judges.faceted:
                facets = opinion.group[2]
                if facets not in said:
                    said[facets] = judges.verdict(cycle, pod, opinion.group)
                found = said[facets]
                if found is not None:
                    verdict, plugin = found
            if verdict is None:
                for each in filters:
                    verdict = each.filter(cycle, pod, node)
                    if verdict is not None:
                        plugin = each.name
                        break
                else:
                    if nominations:
                        rejected = self._crowded(cycle, pod, node)
                        if rejected is not None:
                            verdict, plugin = rejected
            if verdict is None:
                fitting.append((node, opinion))
                if len(fitting) >= enough:
                    break
            else:
                verdicts[node.name] = verdict
                blamed.add(plugin)
        self._next_start = start + looked_at
        return fitting, diagnosis

    def _crowded(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> tuple[Rejection, str] | None:
        """What is said where others wait for room on the node, as if they had it."""
        waiting = self.nominations.before(pod, node.name)
        if not waiting:
            return None
        crowded = node.copy()
        for other in waiting:
            crowded.give(other)
        return self._ask(cycle, pod, crowded)

    def _verdict(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> tuple[Rejection, str] | None:
        return self._crowded(cycle, pod, node) or self._ask(cycle, pod, node)

    def _ask(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> tuple[Rejection, str] | None:
        for plugin in self.filters:
            verdict = plugin.filter(cycle, pod, node)
            if verdict is not None:
                return verdict, plugin.name
        return None

    def _fits(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        rejected = self._ask(cycle, pod, node)
        return rejected[0] if rejected is not None else None

    def _scored(
        self,
        cycle: Cycle,
        pod: PodInfo,
        fitting: Sequence[tuple[NodeInfo, Opinion]],
        judges: _Judges,
        beyond: _Open,
    ) -> Candidates:
        nodes = [node for node, _ in fitting]
        rated = judges.rate(cycle, pod, [(opinion.group, 1) for _, opinion in fitting])
        totals = [score or 0 for score in rated]
        for plugin, weight in beyond.scores:
            before = self.pre_scores.get(plugin.name)
            if before is not None:
                before.pre_score(cycle, pod, nodes)
            raw = [plugin.score(cycle, pod, node) for node in nodes]
            for index, score in enumerate(plugin.normalize(raw)):
                totals[index] += weight * score
        return Candidates(cycle, nodes, totals)

    def _enough(self, count: int) -> int:
        """With many nodes, not all need be looked at to find a good one (upstream's rule)."""
        if count <= _ENOUGH_NODES:
            return count
        percentage = self._percentage or max(_LEAST_PERCENTAGE, 50 - count // 125)
        return max(_ENOUGH_NODES, count * min(percentage, 100) // 100)

    # -- remembering

    def _recall(self, pod: PodInfo) -> tuple[Memory, _Judges, _Open]:
        """What is known for pods of this signature, and who must be asked besides."""
        signature, beyond = self._signature(pod)
        known = self._memories.get(signature)
        if known is None:
            judges = _Judges(self, beyond).without_idle(
                lambda name: signature[self._numbers[name]] == IDLE
            )
            known = Memory(self.snapshot, self._next_start), judges
            self._next_start += self._enough(len(self.snapshot.nodes))
            self._memories[signature] = known
            sizes = [len(memory.opinions) for memory, _ in self._memories.values()]
            for _ in range(len(sizes) - 1):
                if len(self._memories) <= _REMEMBERED_SIGNATURES and sum(sizes) <= _REMEMBERED:
                    break
                self._memories.popitem(last=False)
                sizes.pop(0)
        else:
            self._memories.move_to_end(signature)
        return *known, beyond

    def _signature(self, pod: PodInfo) -> tuple[tuple[Hashable, ...], _Open]:
        lasting = pod.signatures
        if lasting is None:
            lasting = pod.signatures = {}
        parts = []
        for number, plugin in enumerate(self._signing):
            if not plugin.lasting_signature:
                part = plugin.signature(pod)
            elif number in lasting:
                part = lasting[number]
            else:
                part = lasting[number] = plugin.signature(pod)
            parts.append(part)
        if None not in parts:
            return tuple(parts), _Open([], [])
        asked = {p.name for p, part in zip(self._signing, parts, strict=True) if part is None}
        return tuple(parts), _Open(
            [p for p in self.filters if p.name in asked],
            [(p, weight) for p, weight in self.scores if p.name in asked],
        )


class _Judges:
    """The plugins of an algorithm that have signed for a kind of pod."""

    def __init__(self, algorithm: Algorithm, beyond: _Open) -> None:
        left = {p.name for p in beyond.filters} | {p.name for p, _ in beyond.scores}
        filters = [p for p in algorithm.filters if p.name not in left]
        scores = [(p, weight) for p, weight in algorithm.scores if p.name not in left]
        self._filters = [p for p in filters if not isinstance(p, Faceted)]
        plain = [(p, w) for p, w in scores if not isinstance(p, Faceted)]
        self._final = [(p, w) for p, w in plain if type(p).normalize is Score.normalize]
        self._raw = [(p, w) for p, w in plain if type(p).normalize is not Score.normalize]
        weights = {p.name: weight for p, weight in scores}
        filtering = {p.name for p in filters}
        both = {p.name: p for p in (*filters, *(p for p, _ in scores)) if isinstance(p, Faceted)}
        self.faceted = [(p, p.name in filtering, weights.get(p.name, 0)) for p in both.values()]

    def without_idle(self, idle: Callable[[str], bool]) -> _Judges:
        """Leave out the faceted plugins that have nothing to say about this kind of pod."""
        self.faceted = [each for each in self.faceted if not idle(each[0].name)]
        return self

    def judge(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Opinion:
        for plugin in self._filters:
            verdict = plugin.filter(cycle, pod, node)
            if verdict is not None:
                return Opinion(node.generation, verdict, plugin.name, (0, (), ()))
        total = 0
        for score, weight in self._final:
            total += weight * score.score(cycle, pod, node)
        raw = tuple([score.score(cycle, pod, node) for score, _ in self._raw])
        facets = tuple([p.facet(cycle, pod, node) for p, _, _ in self.faceted])
        return Opinion(node.generation, None, "", (total, raw, facets))

    def verdict(self, cycle: Cycle, pod: PodInfo, group: Group) -> tuple[Rejection, str] | None:
        """What the plugins that look beyond the node say of a group of nodes."""
        for (plugin, filters, _), facet in zip(self.faceted, group[2], strict=True):
            verdict = plugin.facet_verdict(cycle, pod, facet) if filters else None
            if verdict is not None:
                return verdict, plugin.name
        return None

    def rate(
        self, cycle: Cycle, pod: PodInfo, groups: Sequence[tuple[Group, int]]
    ) -> list[int | None]:
        """The final scores of groups; None for those where the pod cannot be."""
        if not self.faceted:
            return list(self._normalize([group for group, _ in groups]))
        fits = [self.verdict(cycle, pod, group) is None for group, _ in groups]
        fitting = [each for each, fit in zip(groups, fits, strict=True) if fit]
        totals = self._normalize([group for group, _ in fitting])
        for number, (plugin, _, weight) in enumerate(self.faceted):
            if weight:
                facets = [(group[2][number], nodes) for group, nodes in fitting]
                for index, score in enumerate(plugin.facet_scores(cycle, pod, facets)):
                    totals[index] += weight * score
        left = iter(totals)
        return [next(left) if fit else None for fit in fits]

    def _normalize(self, groups: list[Group]) -> list[int]:
        totals = [group[0] for group in groups]
        if not groups or all(group[1] == groups[0][1] for group in groups):
            return totals  # equal in what is to be normalised: that decides nothing
        for number, (plugin, weight) in enumerate(self._raw):
            scores = [group[1][number] for group in groups]
            for index, score in enumerate(plugin.normalize(scores)):
                totals[index] += weight * score
        return totals


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


__all__ = ["Algorithm", "Candidates", "Unfit", "message"]
