"""The extension points: what a plugin may say about a pod, a node, or both.

A pod's way, in the names of upstream's scheduling framework
(https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/)::

    PreEnqueue → QueueSort → PreFilter → Filter → (PostFilter) → PreScore → Score, Normalize
        → Reserve → Permit → PreBind → Bind → PostBind

A plugin is a class that derives from those points it has something to say at. Up to Reserve nothing
waits: the whole decision for one pod is made in one piece, on a view that cannot change under it.

``Verdict`` is None where a plugin has no objection. What a plugin says of a node is kept and used
again, until the node changes, for the next pod that is equal in this plugin's eyes: that is what
``signature`` is for. A plugin without one is asked about each node anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from wherry.kube.client.transport import Object
from wherry.kube.scheduler.room import Room as Room

if TYPE_CHECKING:
    from wherry.kube.client.client import Client
    from wherry.kube.client.informer import SharedInformers
    from wherry.kube.scheduler.nominations import Nominations
    from wherry.kube.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

MAX_SCORE = 100


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why not, in the words users see after ``0/3 nodes are available: 2 …``.

    ``resolvable`` is False where removing other pods from the node would not help either.
    """

    reasons: tuple[str, ...]
    resolvable: bool = True


Verdict = Rejection | None


def reject(*reasons: str, resolvable: bool = True) -> Rejection:
    """The rejection for these reasons."""
    return Rejection(reasons, resolvable)


class Change(Enum):
    """What can happen in the cluster that lets a waiting pod fit."""

    NODE_ADDED = "NodeAdd"
    NODE_REMOVED = "NodeDelete"
    NODE_ALLOCATABLE = "NodeAllocatableChange"
    NODE_LABELS = "NodeLabelChange"
    NODE_TAINTS = "NodeTaintChange"
    NODE_CONDITIONS = "NodeConditionChange"
    POD_ADDED = "AssignedPodAdd"
    POD_CHANGED = "AssignedPodUpdate"
    POD_REMOVED = "AssignedPodDelete"
    NAMESPACE = "NamespaceChange"
    CLAIM = "PersistentVolumeClaimChange"
    VOLUME = "PersistentVolumeChange"
    STORAGE_CLASS = "StorageClassChange"
    CSI_NODE = "CSINodeChange"


Hint = Callable[["PodInfo", "Object | None", "Object | None"], bool]
"""Whether a change, from the old object to the new, may help this pod."""


def always(pod: PodInfo, old: Object | None, new: Object | None) -> bool:
    """The hint of a change that may help any pod."""
    return True


ANYTHING: Mapping[Change, Hint] = dict.fromkeys(Change, always)


@dataclass(slots=True)
class Cycle:
    """What plugins keep for themselves while one pod is decided, under keys of their own."""

    snapshot: Snapshot
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Handle:
    """What a plugin may use of the scheduler."""

    client: Client
    snapshot: Snapshot
    informers: SharedInformers
    """Copies of whatever a plugin looks at; ask for those in the constructor, so that the
    scheduler begins when they are there."""
    nominations: Nominations
    fits: Callable[[Cycle, PodInfo, NodeInfo], Verdict]
    """All filters of the profile: for plugins that ask what if."""
    wake: Callable[[Change, Object | None, Object | None], None]
    """Tell the queue of a change that only this plugin sees."""


class Plugin(ABC):
    """The base of all plugins. ``arguments`` come from the configuration."""

    name: ClassVar[str]

    def __init__(self, handle: Handle, arguments: Mapping[str, Any]) -> None:
        self.handle = handle
        self.arguments = arguments

    def helped_by(self) -> Mapping[Change, Hint]:
        """The changes after which a pod that this plugin rejected should be tried again.

        A change of the pod itself always has it tried again.
        """
        return ANYTHING


IDLE: Hashable = b""
"""The signature of pods about which a plugin has nothing to say."""


class Signed:
    """A plugin whose results may be used again."""

    lasting_signature: ClassVar[bool] = True
    """Whether the signature follows from the pod alone, so that it need be asked for once."""

    def signature(self, pod: PodInfo) -> Hashable | None:
        """All of the pod that the results depend on, besides the node; None if they depend on
        other nodes or pods, too, so that nothing may be used again. ``IDLE`` says that the plugin
        has nothing to say about such pods."""
        return None


class PreEnqueue(Plugin):
    @abstractmethod
    def pre_enqueue(self, pod: Object) -> Verdict:
        """Whether the pod may be tried at all."""


class QueueSort(Plugin):
    """Exactly one is in use."""

    @abstractmethod
    def key(self, pod: PodInfo, queued: float) -> Any:
        """What the queue is sorted by; ``queued`` is when the pod came, in seconds."""


class PreFilter(Plugin):
    @abstractmethod
    def pre_filter(self, cycle: Cycle, pod: PodInfo) -> Verdict | frozenset[str]:
        """Compute what holds for all nodes. A set of names limits the nodes to be looked at."""


class Filter(Plugin, Signed):
    @abstractmethod
    def filter(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Verdict:
        """Whether the pod can run on the node."""


@dataclass(slots=True)
class Diagnosis:
    """Why no node was found."""

    verdicts: dict[str, Rejection]
    """By node; those that were never looked at are absent."""
    pre_filter: str = ""
    """What PreFilter said, where that was all."""
    rejected_by: set[str] = field(default_factory=set)
    """Names of plugins."""


class PostFilter(Plugin):
    @abstractmethod
    def post_filter(self, cycle: Cycle, pod: PodInfo, diagnosis: Diagnosis) -> Room:
        """No node fits: find out how room can be made. The scheduler then makes it."""


class PreScore(Plugin):
    @abstractmethod
    def pre_score(self, cycle: Cycle, pod: PodInfo, nodes: Sequence[NodeInfo]) -> None:
        """Compute what the scores of these nodes, which all fit, have in common. It is only called
        where this plugin's scores are not used again."""


class Score(Plugin, Signed):
    @abstractmethod
    def score(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> int:
        """How well the node suits the pod; any number, higher is better unless normalised so."""

    def normalize(self, scores: list[int]) -> list[int]:
        """The scores of all nodes that fit, brought to 0 … ``MAX_SCORE``.

        Where scores are used again, each different one is there once: only the highest and the
        lowest may decide how they are scaled.
        """
        return scores


class Faceted(Filter, Score):
    """A plugin that looks beyond the node, but for which nodes of one *facet* are all the same.

    A facet is what of the node counts: the zone it is in, how many pods of some kind it has. It
    must follow from the node and its pods. What holds for a facet depends on the whole cluster, and
    is asked for each pod anew, once for each facet and not for each node. ``filter`` says the same
    of a single node, also of one with pods moved in thought.
    """

    @abstractmethod
    def facet(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> Hashable:
        """All of the node that decides, for pods of this signature."""

    @abstractmethod
    def facet_verdict(self, cycle: Cycle, pod: PodInfo, facet: Any) -> Verdict:
        """Whether the pod can run on nodes of the facet, now."""

    @abstractmethod
    def facet_scores(
        self, cycle: Cycle, pod: PodInfo, facets: Sequence[tuple[Any, int]]
    ) -> list[int]:
        """Scores, 0 … ``MAX_SCORE``, of the facets that fit; each comes with its number of nodes,
        and may come several times."""

    def score(self, cycle: Cycle, pod: PodInfo, node: NodeInfo) -> int:
        """Never asked: ``facet_scores`` is."""
        return 0


class Reserve(Plugin):
    @abstractmethod
    def reserve(self, cycle: Cycle, pod: PodInfo, node: str) -> Verdict:
        """The pod is about to go to the node: take what it needs there."""

    @abstractmethod
    def unreserve(self, cycle: Cycle, pod: PodInfo, node: str) -> None:
        """It did not go: give back. Must not fail, and bear that nothing was reserved."""


class Permit(Plugin):
    @abstractmethod
    async def permit(self, cycle: Cycle, pod: PodInfo, node: str) -> Verdict:
        """Whether the pod may be bound now; may wait."""


class PreBind(Plugin):
    @abstractmethod
    async def pre_bind(self, cycle: Cycle, pod: PodInfo, node: str) -> Verdict:
        """Do what must be done before the pod is bound."""


class Bind(Plugin):
    @abstractmethod
    async def bind(self, cycle: Cycle, pod: PodInfo, node: str) -> bool:
        """Bind the pod; False leaves it to the next plugin. Raises where it fails."""


class PostBind(Plugin):
    @abstractmethod
    def post_bind(self, cycle: Cycle, pod: PodInfo, node: str) -> None:
        """The pod is bound."""


POINTS: Mapping[str, type[Plugin]] = {
    "preEnqueue": PreEnqueue,
    "queueSort": QueueSort,
    "preFilter": PreFilter,
    "filter": Filter,
    "postFilter": PostFilter,
    "preScore": PreScore,
    "score": Score,
    "reserve": Reserve,
    "permit": Permit,
    "preBind": PreBind,
    "bind": Bind,
    "postBind": PostBind,
}
"""The extension points by the names that configuration files have for them."""


def normalize(scores: Sequence[int], *, reverse: bool = False) -> list[int]:
    """Scale so that the highest becomes ``MAX_SCORE``, or 0 if ``reverse``."""
    highest = max(scores, default=0)
    if highest == 0:
        return [MAX_SCORE if reverse else 0] * len(scores)
    scaled = [MAX_SCORE * score // highest for score in scores]
    return [MAX_SCORE - score for score in scaled] if reverse else scaled
