"""What the worker of a pod needs of the kubelet, in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from wherry.engine.cri.types import ContainerRuntime
from wherry.kube.api.resources import PODS
from wherry.kube.client.recorder import EventRecorder
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.awaited import Awaited
from wherry.kube.kubelet.config import DEFAULTS, Settings
from wherry.kube.kubelet.hooks import Asker
from wherry.kube.kubelet.images import ImagePuller
from wherry.kube.kubelet.log_files import LogFiles
from wherry.kube.kubelet.metrics import Metrics
from wherry.kube.kubelet.network import PodNetwork
from wherry.kube.kubelet.objects import ObjectCache
from wherry.kube.kubelet.probes import Probes
from wherry.kube.kubelet.resources import HUGE_PAGES
from wherry.kube.kubelet.runtime_classes import RuntimeClasses
from wherry.kube.kubelet.status_manager import StatusManager
from wherry.kube.kubelet.tokens import Tokens
from wherry.kube.kubelet.user_namespaces import UserNamespaces
from wherry.kube.kubelet.view import RuntimeView
from wherry.kube.kubelet.volumes.claims import Claims
from wherry.kube.kubelet.volumes.manager import Volumes

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KubeletConfig:
    """All that a kubelet is told; it guesses nothing.

    Attributes:
        node_name: the name of the Node object.
        node_ip: the address of this node that pods and the API server reach.
        second_ip: the one in the other version of IP, of a cluster that has both; may be empty.
        root_dir: where volumes and other state of pods lie.
        pod_logs: where logs of containers lie, laid out like ``/var/log/pods``.
        port: of the HTTPS server.
        tls_cert, tls_key: of that server.
        client_ca: who signed the certificates of its clients.
        allowed_client: the common name of the one client it obeys (the API server).
        cluster_dns: resolvers of the cluster; none: pods use the node's own.
        container_logs: where to link logs by pod and container name (``/var/log/containers``).
        labels: further labels of the node.
        settings: what the kubelet's configuration file says.
        first_user: the first of the ids of the host that users of pods with namespaces of their
            own are; a thousand ranges follow it.
        static_pods: a directory whose manifests are pods of this node, whatever the API says.
    """

    node_name: str
    node_ip: str
    root_dir: Path
    pod_logs: Path
    port: int
    tls_cert: Path
    tls_key: Path
    client_ca: Path
    allowed_client: str
    second_ip: str = ""
    cluster_dns: Sequence[str] = ()
    cluster_domain: str = "cluster.local"
    container_logs: Path | None = None
    labels: dict[str, str] = field(default_factory=dict)
    settings: Settings = DEFAULTS
    static_pods: Path | None = None
    first_user: int = 65536

    @property
    def seccomp_root(self) -> Path:
        """Below which the profiles of system calls lie that pods may name."""
        return self.root_dir / "seccomp"

    @property
    def node_ips(self) -> tuple[str, ...]:
        """The addresses of this node, the primary one first."""
        return tuple(filter(None, (self.node_ip, self.second_ip)))


class Walls(Protocol):
    """Who judges the connections of pods (``kube.network_policy``), if anybody does."""

    async def cover(self, pod: Object, ips: Sequence[str], *, alone: bool = False) -> None:
        """Return when a pod with addresses ``ips`` may start; may be repeated.

        One that is to run ``alone``, without the API, may start though nobody answers there.
        """

    def uncover(self, pod: Object) -> None:
        """Nothing is left of a pod; may be repeated."""


class NoWalls:
    """Nobody does."""

    async def cover(self, pod: Object, ips: Sequence[str], *, alone: bool = False) -> None:
        return

    def uncover(self, pod: Object) -> None:
        return


# Returns when nobody is led to that address of a namespace's pod any more.
Withdrawn = Callable[[str, str], Awaitable[None]]


async def at_once(_namespace: str, _address: str) -> None:
    """Nobody leads anybody."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The duties, each with its one module."""

    config: KubeletConfig
    runtime: ContainerRuntime
    view: RuntimeView
    volumes: Volumes
    logs: LogFiles
    objects: ObjectCache
    tokens: Tokens
    claims: Claims
    images: ImagePuller
    asker: Asker
    probes: Probes
    statuses: StatusManager
    recorder: EventRecorder
    services: Callable[[], list[Object]]
    services_synced: Callable[[], Any]  # an awaitable: the services are known
    allocatable: dict[str, str]
    memory_capacity: int
    process_limit: int  # of one pod
    runtime_classes: RuntimeClasses
    active_pods: Callable[[], list[Object]]  # those that have not ended, as they hold
    metrics: Metrics
    walls: Walls
    users: UserNamespaces
    awaited: Awaited
    network: PodNetwork
    withdrawn: Withdrawn

    @property
    def page_sizes(self) -> list[str]:
        """The sizes of the node's huge pages, such as ``2Mi``."""
        names = (n for n in self.allocatable if n.startswith(HUGE_PAGES))
        return [name.removeprefix(HUGE_PAGES) for name in names]

    def tell(self, pod: Object, type_: str, reason: str, message: str) -> None:
        """Record an event of a pod."""
        self.recorder.event(PODS, pod, type_, reason, message)

    def tell_of(
        self, pod: Object, container: Object, type_: str, reason: str, message: str
    ) -> None:
        """Record an event of one container of a pod."""
        path = pods.field_path(pod, container)
        self.recorder.event(PODS, pod, type_, reason, message, field_path=path)
