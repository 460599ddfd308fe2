"""What every controller is: informers that feed a queue, a function that decides, a loop that acts.

A controller decides from its informers' copies alone and waits, after each write, until they show
it (``Controller.seen``). So it never acts twice on the same view, and nothing needs a timeout.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import Resource
from wherry.kube.client.client import Client
from wherry.kube.client.informer import Informer, SharedInformers
from wherry.kube.client.queue import WorkQueue, work
from wherry.kube.client.recorder import EventRecorder
from wherry.kube.client.transport import Object

if TYPE_CHECKING:
    from wherry.kube.controllers.certificates.signing import Authority


@dataclass(frozen=True, slots=True)
class AutoscalingOptions:
    """When and how autoscalers scale; times in seconds. Names and values as
    kube-controller-manager's options ``--horizontal-pod-autoscaler-…``."""

    period: float = 15.0
    """How often each is looked at."""
    downscale_stabilization: float = 300.0
    """So long the highest recommendation holds."""
    tolerance: float = 0.1
    cpu_initialization: float = 300.0
    """So long after its start a pod's CPU may be that of its start."""
    initial_readiness: float = 30.0
    """A pod that became unready so soon after its start has not been ready before."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the one who starts controllers decides for them.

    ``enabled`` follows kube-controller-manager's ``--controllers``: ``*`` for all, ``name`` and
    ``-name``. Times are in seconds.
    """

    enabled: tuple[str, ...] = ("*",)
    own: tuple[type[Controller], ...] = ()
    """Controllers of the user's own, beside those of the table."""
    root_ca: str = ""
    """PEM of the authority pods trust for the API server; without it none is published."""
    sign_token: Callable[[Object], str] | None = None
    """Signs the claims of a ServiceAccount's token; without it Secrets get none."""
    authority: Authority | None = None
    """Signs CertificateSigningRequests; without it nobody here does."""
    cluster_cidr: str = ""
    """Where pods' addresses come from; without it nodes get no range."""
    cluster_dns: str = ""
    """The address of the cluster's name server among services; without it there is none."""
    load_balancer_pool: tuple[str, ...] = ()
    """Networks from which Services of type LoadBalancer get an address each; without, they get
    those of the nodes."""
    volumes: str = "/var/lib/wherry/volumes"
    """The directory of nodes below which the volumes of the default class are made."""
    node_mask: int = 24
    node_grace: float = 40.0
    """Without a sign of life for so long a node's state is unknown."""
    node_start_grace: float = 60.0
    """The same for a node that has not yet shown any."""
    autoscaling: AutoscalingOptions = AutoscalingOptions()
    terminated_pods: int = 12500
    """How many finished pods are kept before the oldest are removed."""


@dataclass(slots=True)
class Context:
    """What controllers of one process share."""

    client: Client
    informers: SharedInformers
    options: Options = field(default_factory=Options)
    _recorders: dict[str, EventRecorder] = field(default_factory=dict)

    def recorder(self, component: str) -> EventRecorder:
        """The recorder of events that come from ``component``."""
        recorder = self._recorders.get(component)
        if recorder is None:
            recorder = self._recorders[component] = EventRecorder(self.client, component)
            recorder.start()
        return recorder

    async def close(self) -> None:
        """Stop recording."""
        await asyncio.gather(*(recorder.stop() for recorder in self._recorders.values()))


class Controller(ABC):
    """One controller. A subclass names itself, watches what it needs, and defines ``sync``.

    The constructor registers handlers and starts nothing; ``run`` works until it is cancelled.
    """

    name: ClassVar[str]
    """Upstream's name, for ``--controllers``."""
    account: ClassVar[str | None] = ""
    """The ServiceAccount in kube-system as which it acts; called as the controller where empty.
    None: it acts as the controller manager itself."""
    workers: ClassVar[int] = 8

    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.options = context.options
        self.context = context
        self.queue: WorkQueue[str] = WorkQueue()
        self._watched: dict[Resource, Informer] = {}

    @classmethod
    def identity(cls) -> str | None:
        """The ServiceAccount as which it acts, or None."""
        return None if cls.account is None else cls.account or cls.name

    def watch(self, resource: Resource) -> Informer:
        """The shared informer of ``resource``; ``run`` waits until it is synced."""
        informer = self.context.informers.informer(resource)
        self._watched[resource] = informer
        return informer

    def unwatch(self, resource: Resource) -> None:
        """Forget the informer of a resource that is served no more."""
        self._watched.pop(resource, None)

    async def seen(self, resource: Resource, written: Object) -> Object:
        """Wait until the informer shows what was just written; returns ``written``."""
        await self._watched[resource].reached(written)
        return written

    async def ready(self) -> None:
        """Return once every informer of this controller is synced."""
        await asyncio.gather(*(informer.wait_synced() for informer in self._watched.values()))

    async def run(self) -> None:
        """Work until cancelled."""
        await self.ready()
        await work(self.queue, self.sync, workers=self.workers, name=self.name)

    @abstractmethod
    async def sync(self, key: str) -> None:
        """Bring what ``key`` names one step nearer to what is wanted; raise to be asked again."""

    def enqueue(self, object: Mapping[str, Any]) -> None:
        """Have the object of that name looked at."""
        self.queue.add(meta.key(object))

    def enqueue_update(self, old: Object, new: Object) -> None:
        """``enqueue`` as an informer's ``on_update``."""
        self.queue.add(meta.key(new))


def split_key(key: str) -> tuple[str, str]:
    """``namespace/name`` apart; the namespace is empty for cluster-scoped objects."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def namespace_is_leaving(error: BaseException | None) -> bool:
    """Whether a create was refused because its namespace is being deleted: nothing to repeat."""
    if not isinstance(error, StatusError):
        return False
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


def now() -> datetime:
    """The present; pure functions take it as an argument."""
    return datetime.now(UTC)
