"""What runs on this node, kept current by the runtime's events.

Everything is listed once; from then on an event names the one container or sandbox whose state is
read anew. Nothing is polled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from wherry.engine.cri.types import (
    IMAGE_ADDED,
    ContainerEvent,
    ContainerRuntime,
    ContainerState,
    ContainerStatus,
    CRIError,
    CRINotFound,
    PodSandboxState,
    PodSandboxStatus,
)
from wherry.kube.client.backoff import Backoff
from wherry.kube.kubelet import pods

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodRuntime:
    """The sandboxes and containers of one pod, each newest first."""

    uid: str
    sandboxes: tuple[PodSandboxStatus, ...] = ()
    containers: tuple[ContainerStatus, ...] = ()
    messages: Mapping[str, str] = field(default_factory=dict)  # last words by container id

    @property
    def sandbox(self) -> PodSandboxStatus | None:
        """The newest sandbox, ready or not."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def ready_sandbox(self) -> PodSandboxStatus | None:
        """The newest sandbox if it is ready."""
        newest = self.sandbox
        return newest if newest is not None and newest.state is PodSandboxState.READY else None

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses, while it has a sandbox."""
        sandbox = self.ready_sandbox
        return tuple(sandbox.ips) if sandbox is not None else ()

    def named(self, name: str) -> list[ContainerStatus]:
        """All incarnations of a container, newest first."""
        return [c for c in self.containers if c.metadata.name == name]

    def latest(self, name: str) -> ContainerStatus | None:
        """The newest incarnation of a container."""
        return next((c for c in self.containers if c.metadata.name == name), None)

    def running(self) -> list[ContainerStatus]:
        """The containers that run."""
        return [c for c in self.containers if c.state is ContainerState.RUNNING]

    def is_empty(self) -> bool:
        """Whether nothing is left of the pod."""
        return not self.sandboxes and not self.containers


class RuntimeView:
    """All pods as the runtime has them.

    ``on_change`` is called with a pod's uid whenever something of it changed; ``read_message``
    reads the last words of a container that has ended; ``on_images`` is called when there is an
    image more.
    """

    def __init__(
        self,
        runtime: ContainerRuntime,
        *,
        on_change: Callable[[str], None],
        read_message: Callable[[ContainerStatus], str],
        on_images: Callable[[], None] = lambda: None,
    ) -> None:
        self._runtime = runtime
        self._on_change = on_change
        self._read_message = read_message
        self._on_images = on_images
        self._sandboxes: dict[str, PodSandboxStatus] = {}
        self._containers: dict[str, ContainerStatus] = {}
        self._messages: dict[str, str] = {}
        self._by_pod: dict[str, set[str]] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self.loaded = asyncio.Event()  # what ran at the start is known

    async def load(self) -> None:
        """Take everything from the runtime anew."""
        sandboxes = await self._runtime.list_pod_sandboxes()
        containers = await self._runtime.list_containers()
        known = set(self._by_pod)
        self._sandboxes = {s.id: s for s in sandboxes}
        self._containers = {c.id: c for c in containers}
        self._by_pod = {}
        for sandbox in sandboxes:
            self._by_pod.setdefault(sandbox.metadata.uid, set()).add(sandbox.id)
        for container in containers:
            self._by_pod.setdefault(pod_uid(container), set()).add(container.id)
            self._remember_message(container)
        for id in list(self._ends):
            self._notice_end(id)
        for uid in known | set(self._by_pod):
            self._on_change(uid)
        self._on_images()

    async def follow(self) -> None:
        """Load everything, then follow the runtime's events until cancelled.

        Where the stream of events breaks, everything is loaded anew.
        """
        backoff = Backoff(0.1, 10)
        while True:
            try:
                # Listening begins before the list is taken, so that nothing falls between.
                events = self._runtime.events()
                await self.load()
                self.loaded.set()
                async for event in events:
                    backoff.reset()
                    await self._handle(event)
            except CRIError as error:
                log.warning("the runtime's events broke off: %s", error)
            await asyncio.sleep(backoff.next())

    async def _handle(self, event: ContainerEvent) -> None:
        if event.kind == IMAGE_ADDED:
            self._on_images()
        elif event.container_id == event.pod_sandbox_id:
            await self.refresh_sandbox(event.container_id)
        else:
            await self.refresh_container(event.container_id)
        if event.pod_uid:
            self._on_change(event.pod_uid)

    async def refresh_sandbox(self, id: str) -> None:
        """Read one sandbox anew."""
        try:
            status = await self._runtime.pod_sandbox_status(id)
        except CRINotFound:
            former = self._sandboxes.pop(id, None)
            if former is not None:
                self._forget(former.metadata.uid, id)
            return
        self._sandboxes[id] = status
        self._by_pod.setdefault(status.metadata.uid, set()).add(id)

    async def refresh_container(self, id: str) -> None:
        """Read one container anew."""
        try:
            status = await self._runtime.container_status(id)
        except CRINotFound:
            former = self._containers.pop(id, None)
            self._messages.pop(id, None)
            self._notice_end(id)
            if former is not None:
                self._forget(pod_uid(former), id)
            return
        self._containers[id] = status
        self._by_pod.setdefault(pod_uid(status), set()).add(id)
        self._remember_message(status)
        self._notice_end(id)

    async def refresh(self, uid: str) -> PodRuntime:
        """Read all that is known of a pod anew, and return it."""
        for id in sorted(self._by_pod.get(uid, ())):
            if id in self._sandboxes:
                await self.refresh_sandbox(id)
            else:
                await self.refresh_container(id)
        return self.pod(uid)

    def pod(self, uid: str) -> PodRuntime:
        """A pod as it was when last read."""
        ids = self._by_pod.get(uid, ())
        sandboxes = [self._sandboxes[i] for i in ids if i in self._sandboxes]
        containers = [self._containers[i] for i in ids if i in self._containers]
        sandboxes.sort(key=lambda s: (s.metadata.attempt, s.created_at), reverse=True)
        containers.sort(key=lambda c: (c.created_at, c.metadata.attempt), reverse=True)
        messages = {c.id: self._messages[c.id] for c in containers if c.id in self._messages}
        return PodRuntime(uid, tuple(sandboxes), tuple(containers), messages)

    def uids(self) -> Iterable[str]:
        """The pods of which something is left."""
        return list(self._by_pod)

    def container(self, id: str) -> ContainerStatus | None:
        """One container as it was when last read."""
        return self._containers.get(id)

    def end_of(self, id: str) -> asyncio.Event:
        """Set when the container no longer runs (at once, where it does not)."""
        event = self._ends.setdefault(id, asyncio.Event())
        self._notice_end(id)
        return event

    def _notice_end(self, id: str) -> None:
        container = self._containers.get(id)
        if container is None or container.state is not ContainerState.RUNNING:
            event = self._ends.pop(id, None)
            if event is not None:
                event.set()

    def ready_sandboxes(self) -> list[PodSandboxStatus]:
        """The sandboxes that are ready."""
        return [s for s in self._sandboxes.values() if s.state is PodSandboxState.READY]

    def containers(self) -> list[ContainerStatus]:
        """All containers."""
        return list(self._containers.values())

    def _remember_message(self, container: ContainerStatus) -> None:
        if container.state is ContainerState.EXITED and container.id not in self._messages:
            self._messages[container.id] = self._read_message(container)

    def _forget(self, uid: str, id: str) -> None:
        ids = self._by_pod.get(uid)
        if ids is not None:
            ids.discard(id)
            if not ids:
                del self._by_pod[uid]


def pod_uid(container: ContainerStatus) -> str:
    """The uid of the pod that a container belongs to."""
    return container.labels.get(pods.POD_UID, "")
