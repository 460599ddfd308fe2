"""What a container holds of the kernel while it runs: taking it, and giving it back.

That is the mount of its root file system, its place on its networks, and its process, which is
made here up to the point where the program is about to be executed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from wherry.engine.container import (
    devices,
    identity,
    links,
    namespaces,
    sysctls,
    users,
    working_directory,
)
from wherry.engine.container import remapping as remap
from wherry.engine.container.container import Container
from wherry.engine.container.init_layer import prepare
from wherry.engine.container.mount_sources import MountSources, check_destinations
from wherry.engine.container.naming import Naming
from wherry.engine.container.remapping import Remapping
from wherry.engine.container.spec import container_spec
from wherry.engine.container.store import ContainerStore
from wherry.engine.image.store import ImageStore
from wherry.engine.logs import open_sink
from wherry.engine.network.networks import Networks
from wherry.runtime.rootfs import mount_overlay, unmount
from wherry.runtime.service import Runtime
from wherry.runtime.types import MountSpec

log = logging.getLogger(__name__)


class Resources:
    """Takes and gives back for the containers of one engine."""

    def __init__(
        self,
        store: ContainerStore,
        images: ImageStore,
        networks: Networks,
        runtime: Runtime,
        naming: Naming,
        sources: MountSources,
    ) -> None:
        self._store = store
        self._images = images
        self._networks = networks
        self._runtime = runtime
        self._naming = naming
        self._sources = sources
        self.remapping: Remapping | None = None

    def _remapping(self, container: Container) -> Remapping | None:
        own = remap.of_pod(container)
        if own is not None:
            return own
        return None if container.host_config["UsernsMode"] == "host" else self.remapping

    async def take(self, container: Container, save: Callable[[], None]) -> int:
        """Make everything; returns the pid of the process that waits to be started.

        ``save`` writes the container's document. What was made before an error is given back by
        ``give_back``.

        Raises:
            RuntimeFailure: the command cannot be executed.
            EngineError: something else stands against it.
            OSError: the kernel refuses.
        """
        devices.refuse_requests(container.host_config)
        children = links.linked(container, self._store)
        layers = self._images.layers(self._images.by_id(container.image_id))
        joined = namespaces.joined(container, self._store, self._networks.namespace)
        owner = namespaces.network_owner(container, self._store)
        sysctls.check(
            container.host_config.get("Sysctls") or {},
            network=joined.network,
            ipc=joined.ipc,
            uts=joined.uts,
        )
        remapping = self._remapping(container)
        if remapping is not None:
            await asyncio.to_thread(remap.take, container, remapping)
            container.user_namespace = remap.namespace(container)
            joined = replace(joined, user=namespaces.user_namespace(container, self._store))
        results = await asyncio.gather(
            self._sources.take(container),
            asyncio.to_thread(_prepare_files, container, layers, remapping),
            self._networks.connect(container, save),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        mounts = cast(list[MountSpec], results[0])
        check_destinations(container.rootfs, mounts)
        account = users.account_of(container)
        user = account.user
        container.account = [user.uid, user.gid, *user.additional_gids]
        if directory := container.config["WorkingDir"]:
            working_directory.make(container.rootfs, directory, remapping)
        if owner is container:
            identity.write(
                container,
                gateways=self._networks.host_gateways(),
                linked=links.records(children),
                name_server=self._naming.name_server(container),
            )
            if remapping is not None:
                remap.own_files(container, remapping)
        spec = container_spec(
            container,
            account,
            joined,
            mounts,
            identity=owner.home,
            env=links.environment(container, children),
        )
        if remapping is not None:
            spec = replace(spec, streams_owner=remapping.ids(account.user))
        log = await open_sink(container)
        return await self._runtime.create(spec, log=log)

    async def give_back(self, container: Container) -> bool:
        """Return everything, and tell whether that was possible; the log says what was not.

        May be repeated at any time.
        """
        returned = await asyncio.gather(
            self._runtime.delete(container.id),
            self._networks.disconnect(container),
            return_exceptions=True,
        )
        # Unmounting must wait: as long as processes live, they hold the mounts.
        unmounted = await asyncio.gather(
            asyncio.to_thread(_unmount, container),
            self._sources.give_back(container),
            return_exceptions=True,
        )
        problems = [one for one in (*returned, *unmounted) if isinstance(one, Exception)]
        for problem in problems:
            log.error("cleaning up after %s: %s", container.id[:12], problem, exc_info=problem)
        return not problems


def _prepare_files(
    container: Container, layers: Sequence[Path], remapping: Remapping | None
) -> None:
    upper, work = container.layers / "upper", container.layers / "work"
    for directory in (upper, work, container.rootfs):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    unmount(container.rootfs)  # a failed clean-up may have left it
    lower = [prepare(container.init_layer, layers), *layers]
    if remapping is not None:
        remap.mount(container, lower, remapping)
    else:
        mount_overlay(lower, upper, work, container.rootfs)
    namespaces.mount_shared_memory(container)


def _unmount(container: Container) -> None:
    unmount(container.rootfs)
    remap.give_back(container)
    namespaces.unmount_shared_memory(container)
