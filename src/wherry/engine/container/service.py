"""Containers as the two doors of the engine use them: the Engine API, and CRI."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from wherry.engine import logs
from wherry.engine.container import filters as selection
from wherry.engine.container import (
    identity,
    init_layer,
    inspect,
    limits,
    links,
    names,
    options,
    processes,
    recovery,
    rules,
)
from wherry.engine.container.archive import Files
from wherry.engine.container.container import Container, Endpoint
from wherry.engine.container.create import CreateRequest, Creator
from wherry.engine.container.execs import Execs
from wherry.engine.container.health import HealthMonitors
from wherry.engine.container.lifecycle import Lifecycle
from wherry.engine.container.networking import Networking
from wherry.engine.container.pausing import Pausing, restarting
from wherry.engine.container.store import ContainerStore
from wherry.engine.errors import (
    BadParameter,
    Conflict,
    EngineError,
    NotFound,
    NotImplementedByEngine,
    NotModified,
)
from wherry.engine.events import EventBus
from wherry.engine.filters import Filters
from wherry.engine.image.store import ImageStore
from wherry.engine.logs.reading import Reading
from wherry.engine.logs.types import LogQuery
from wherry.engine.network.networks import Networks
from wherry.engine.volume.volumes import Volumes
from wherry.host.files import directory_size
from wherry.runtime.service import Runtime
from wherry.runtime.types import RuntimeFailure

log = logging.getLogger(__name__)


class Containers:
    """All containers of one engine.

    A ``reference`` is an id, a name, or an unambiguous beginning of an id; what is not found
    raises NotFound.
    """

    def __init__(
        self,
        root: Path,
        images: ImageStore,
        networks: Networks,
        events: EventBus,
        runtime: Runtime,
        volumes: Volumes,
    ) -> None:
        self.store = ContainerStore(root)
        self.images = images
        self.networks = networks
        self.events = events
        self.runtime = runtime
        self.lifecycle = Lifecycle(self.store, images, networks, events, runtime, volumes)
        self.execs = Execs(self.lifecycle)
        self.files = Files(self.lifecycle, images)
        self.health = HealthMonitors(self.lifecycle, self.execs)
        self._pruning = False
        self._creator = Creator(
            self.store, images, events, self.lifecycle.claims, self._machine, networks.find
        )
        self._networking = Networking(self.store, networks)
        self._pausing = Pausing(self.lifecycle, self.health)

    def _machine(self) -> rules.Machine:
        return rules.Machine(
            self.runtime.features,
            remapped=self.lifecycle.resources.remapping is not None,
            forwards=_forwards(),
        )

    async def open(self) -> None:
        """Read the containers and take up what runs."""
        await recovery.recover(self.lifecycle)

    async def sweep_init_layers(self, opened: float) -> None:
        """Remove those of images that no container is made from any more, and what was left half
        before ``opened``, in seconds since the epoch."""
        images = {container.image_id for container in self.store.all()}
        root = self.store.root.parent / "init-layers"
        await asyncio.to_thread(init_layer.sweep, root, images, opened)

    async def close(self, timeout: float) -> None:
        """Let what is under way end, within ``timeout`` seconds; the containers go on."""
        await self.lifecycle.close(timeout)
        self.lifecycle.naming.close()

    def get(self, reference: str) -> Container:
        """One container."""
        return self.store.get(reference)

    def using_image(self, image_id: str) -> list[str]:
        """The ids of the containers made from an image, or that mount it."""
        return [
            c.id
            for c in self.store.all()
            if c.image_id == image_id or any(m.image_id == image_id for m in c.mounts)
        ] + self._creator.using_image(image_id)

    # ---- life

    async def create(self, request: CreateRequest, name: str = "") -> tuple[Container, list[str]]:
        """See ``Creator.create``."""
        return await self._creator.create(request, name)

    async def start(self, reference: str) -> None:
        """See ``Lifecycle.start``."""
        await self.lifecycle.start(self.get(reference))

    async def stop(self, reference: str, *, timeout: float | None = None, signal: str = "") -> None:
        """See ``Lifecycle.stop``."""
        container = self.get(reference)
        try:
            await self.lifecycle.stop(container, timeout=timeout, signal=signal)
        except (BadParameter, NotModified):
            raise
        except EngineError as error:
            raise type(error)(f"cannot stop container: {reference}: {error.message}") from error

    async def restart(
        self, reference: str, *, timeout: float | None = None, signal: str = ""
    ) -> None:
        """See ``Lifecycle.restart``."""
        container = self.get(reference)
        try:
            await self.lifecycle.restart(container, timeout=timeout, signal=signal)
        except EngineError as error:
            raise type(error)(f"Cannot restart container {reference}: {error.message}") from error

    async def kill(self, reference: str, signal: int) -> None:
        """See ``Lifecycle.kill``."""
        try:
            await self.lifecycle.kill(self.get(reference), signal)
        except EngineError as error:
            raise type(error)(f"cannot kill container: {reference}: {error.message}") from error

    async def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        """See ``Lifecycle.remove``."""
        await self.lifecycle.remove(self.get(reference), force=force, volumes=volumes)

    async def pause(self, reference: str) -> None:
        """See ``Pausing.pause``."""
        await self._pausing.pause(self.get(reference))

    async def unpause(self, reference: str) -> None:
        """See ``Pausing.unpause``."""
        await self._pausing.unpause(self.get(reference))

    def held_still(self, container: Container, *, pause: bool) -> AbstractAsyncContextManager[None]:
        """See ``Pausing.held_still``."""
        return self._pausing.held_still(container, pause=pause)

    async def rename(self, reference: str, name: str) -> None:
        """Call it ``name``.

        Raises:
            BadParameter: that is no name, or the one it has.
            Conflict: another container has it.
        """
        if not reference or not name:
            raise BadParameter("Neither old nor new names may be empty")
        container = self.get(reference)
        async with container.lock:
            if container.state.removing or container.state.dead:
                raise NotFound(f"No such container: {reference}")
            bare = names.check(name)
            if bare == container.name:
                raise BadParameter("Renaming a container with the same name as its current name")
            try:
                self.store.reserve_name(bare, container.id)
            except Conflict as error:
                raise Conflict(f"Error when allocating new name: {error.message}") from None
            former, container.name = container.name, bare
            try:
                self.store.save(container)
            except OSError:
                container.name = former
                self.store.release_name(bare, container.id)
                raise
            self.store.release_name(former, container.id)
            await self.lifecycle.naming.renamed(container)
            self.lifecycle.publish(container, "rename", {"oldName": f"/{former}"})

    async def remove_link(self, reference: str) -> None:
        """Remove the link called ``container/alias``.

        Raises:
            Conflict: it is a container's own name.
            NotFound: there is no such link.
        """
        parent = links.remove(reference, self.store)
        self.store.save(parent)
        if parent.state.running:
            identity.linked_gone(parent, reference.rpartition("/")[2])

    async def update(self, reference: str, body: Any) -> list[str]:
        """Change limits and the restart policy; what the body does not name stays.

        Returns warnings.

        Raises:
            BadParameter: the limits make no sense, or contradict those it has.
            Conflict: it is being removed.
        """
        container = self.get(reference)
        given = options.decode(options.RESOURCES, body, "UpdateConfig")
        policy = body.get("RestartPolicy") if isinstance(body, dict) else None
        if policy:
            policy = rules.restart_policy(policy)
            rules.check_restart(policy, auto_remove=False)
        warnings = limits.check(given, self.runtime.features, update=True)
        async with container.lock:
            try:
                await self._update(container, given, policy or None)
            except EngineError as error:
                raise type(error)(
                    f"Cannot update container {container.id}: {error.message}"
                ) from error
        self.lifecycle.publish(container, "update")
        return warnings

    async def _update(
        self, container: Container, given: dict[str, Any], policy: dict[str, Any] | None
    ) -> None:
        if container.state.removing or container.state.dead:
            raise Conflict('container is marked for removal and cannot be "update"')
        host = limits.updated(container.host_config, given)
        if policy and policy["Name"]:
            if container.auto_remove and policy["Name"] != "no":
                raise Conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the "
                    "container"
                )
            host["RestartPolicy"] = policy
        if container.state.running and not container.state.restarting:
            changes = limits.limits(host)
            if changes.pids is None and given["PidsLimit"] is not None:
                changes = replace(changes, pids=-1)
            try:
                await self.runtime.update(container.id, changes)
            except RuntimeFailure as failure:
                raise EngineError(failure.message) from failure
        container.host_config = host
        self.store.save(container)

    async def update_limits(self, container: Container, changes: Mapping[str, int]) -> None:
        """Set the limits named in ``changes``, whatever they were; -1 takes one away.

        Raises:
            EngineError: the kernel refuses them; nothing has changed.
        """
        async with container.lock:
            host = {**container.host_config, **changes}
            if container.state.running:
                try:
                    await self.runtime.update(container.id, limits.limits(host))
                except RuntimeFailure as failure:
                    raise EngineError(failure.message) from failure
            container.host_config = host
            self.store.save(container)
        self.lifecycle.publish(container, "update")

    async def prune(self, filters: Filters) -> tuple[list[str], int]:
        """Remove those that do not run; returns their ids and the bytes that became free.

        Raises:
            Conflict: somebody else is at it.
        """
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        try:
            removed, freed = await self._prune(filters)
        finally:
            self._pruning = False
        self.events.publish("container", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    async def _prune(self, filters: Filters) -> tuple[list[str], int]:
        removed, freed = [], 0
        for container in selection.prunable(self.store.all(), filters, time.time()):
            size = await asyncio.to_thread(directory_size, container.layers / "upper")
            try:
                await self.lifecycle.remove(container)
            except (Conflict, NotFound):
                continue  # someone has just started or removed it
            except EngineError as error:
                log.warning("not pruned: container %s: %s", container.id[:12], error.message)
                continue
            removed.append(container.id)
            freed += size
        return removed, freed

    async def connect(self, network: str, reference: str, endpoint: Endpoint) -> None:
        """See ``Networking.connect``."""
        await self._networking.connect(network, self.get(reference), endpoint)

    async def disconnect(self, network: str, reference: str, *, force: bool = False) -> None:
        """See ``Networking.disconnect``."""
        await self._networking.disconnect(network, self.get(reference), force=force)

    # ---- looking

    def list(self, filters: Filters, *, all_: bool = False, limit: int = 0) -> list[Container]:
        """Those that ``docker ps`` shows."""
        return selection.select(
            self.store.all(),
            filters,
            all_=all_,
            limit=limit,
            find=self.get,
            image_ids=self._image_ids,
        )

    def _image_ids(self, reference: str) -> set[str]:
        """The image that ``reference`` means and those that were built from it here.

        Sharing layers does not count: two builds that only differ in labels share all of them.
        """
        try:
            family = {self.images.resolve(reference).id}
        except EngineError:
            return set()
        images = self.images.list()
        while children := {i.id for i in images if i.parent in family} - family:
            family |= children
        return family

    def image_name(self, container: Container) -> str:
        """What ``docker ps`` calls its image: the name it was made by, or the image's id today."""
        name = str(container.config["Image"])
        try:
            if self.images.resolve(name).id == container.image_id:
                return name
        except EngineError:
            pass  # the name is gone; the image is not
        return container.image_id

    async def inspect(self, reference: str, *, size: bool = False) -> dict[str, Any]:
        """ContainerInspectResponse of the API."""
        container = self.get(reference)
        sizes = await self.sizes(container) if size else None
        try:
            lower = self.images.layers(self.images.by_id(container.image_id))
        except NotFound:
            lower = ()
        return inspect.inspect(
            container,
            driver_data={
                "ID": container.id,
                "LowerDir": ":".join(map(str, lower)),
                "MergedDir": str(container.rootfs),
                "UpperDir": str(container.layers / "upper"),
                "WorkDir": str(container.layers / "work"),
            },
            exec_ids=self.execs.of(container),
            links=links.shown(container, self.store),
            sizes=sizes,
        )

    async def sizes(self, container: Container) -> tuple[int, int]:
        """Bytes of its own layer, and of that with its image."""
        own = await asyncio.to_thread(directory_size, container.layers / "upper")
        try:
            image = self.images.by_id(container.image_id).size
        except NotFound:
            image = 0
        return own, own + image

    async def top(self, reference: str, ps_options: str) -> dict[str, Any]:
        """Its processes as the host's ps shows them.

        Raises:
            Conflict: it does not run.
        """
        container = self.get(reference)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        if container.state.restarting:
            raise restarting(container)
        try:
            pids = await self.runtime.processes(container.id)
        except RuntimeFailure as failure:
            raise Conflict(f"container {container.id} is not running") from failure
        listed = await processes.list_processes(pids, ps_options)
        self.lifecycle.publish(container, "top")
        return listed

    def logs(self, container: Container, query: LogQuery) -> Reading:
        """What it wrote, framed unless it has a terminal, from this moment on.

        Following ends when the container does.

        Raises:
            Conflict: it is being removed.
            NotImplementedByEngine: its driver keeps nothing that can be read.
        """
        if container.state.removing or container.state.dead:
            raise Conflict("can not get logs from container which is dead or marked for removal")
        reader = logs.reader(container)
        if reader is None:
            raise NotImplementedByEngine(logs.UNREADABLE)
        return reader.open(query, framed=not container.tty)

    # ---- waiting

    def wait(self, container: Container, condition: str) -> asyncio.Future[int]:
        """A future of the exit code, when ``condition`` holds; at once where it does already.

        Raises:
            BadParameter: there is no such condition.
        """
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        match condition:
            case "" | "not-running":
                waiters = container.exit_waiters
                settled = container.run is None or container.run.settled.is_set()
                if not container.state.running and settled:
                    waiter.set_result(container.state.exit_code)
                    return waiter
            case "next-exit":
                waiters = container.exit_waiters
            case "removed":
                waiters = container.removal_waiters
            case _:
                raise BadParameter(f'invalid condition: "{condition}"')
        waiters.append(waiter)
        waiter.add_done_callback(lambda _: _discard(waiters, waiter))
        return waiter

    async def resize(self, reference: str, width: int, height: int) -> None:
        """Give its terminal a size.

        Raises:
            Conflict: it does not run.
        """
        container = self.get(reference)
        if not container.state.running or container.state.restarting:
            raise Conflict(f"container {container.id} is not running")
        try:
            self.runtime.resize(container.id, width, height)
        except RuntimeFailure as failure:
            raise Conflict(f"container {container.id} is not running") from failure
        self.lifecycle.publish(container, "resize", {"height": str(height), "width": str(width)})


def _forwards() -> bool:
    return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"


def _discard(entries: list[Any], entry: Any) -> None:
    if entry in entries:
        entries.remove(entry)
