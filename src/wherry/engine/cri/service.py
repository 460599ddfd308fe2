"""The Container Runtime Interface on the engine: what a kubelet calls.

Sandboxes and pod containers are ordinary containers of the engine; ``docker ps`` shows them.
"""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from pathlib import Path

from wherry import __version__
from wherry.engine.container import remapping, stats, users
from wherry.engine.container.container import Container
from wherry.engine.container.create import CreateRequest
from wherry.engine.container.execs import Execs
from wherry.engine.container.failure import exec_error
from wherry.engine.container.mount_sources import RECURSIVE_READ_ONLY_SINCE, kernel_version
from wherry.engine.container.rules import RUNTIMES
from wherry.engine.container.spec import process
from wherry.engine.cri import naming, requests, status
from wherry.engine.cri.errors import cri_errors
from wherry.engine.cri.images import EngineImages
from wherry.engine.cri.streams import KilledAtClose, connect, run_to_end
from wherry.engine.cri.types import (
    POD_CIDR_IN_USE,
    ContainerConfig,
    ContainerEvent,
    ContainerRuntime,
    ContainerStats,
    ContainerStatus,
    CRIError,
    CRINotFound,
    ExecResult,
    FilesystemUsage,
    LinuxResources,
    PodSandboxConfig,
    PodSandboxStatus,
    ProcessStream,
    RuntimeHandler,
)
from wherry.engine.cri.usage import measured
from wherry.engine.engine import Engine
from wherry.engine.errors import Conflict, EngineError, NotModified
from wherry.engine.image.pause import ensure_pause
from wherry.engine.network.network import POD_NETWORK
from wherry.net.nftables.nft import NftError
from wherry.runtime.streams import ExecProcess
from wherry.runtime.types import RuntimeFailure


class EngineRuntime(EngineImages, ContainerRuntime):
    """``ContainerRuntime`` on an engine in the same process."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._making_pause = asyncio.Lock()
        self._rotation: tuple[int, Callable[[Path], Awaitable[None]]] | None = None

    # ---- lookups

    def _sandbox(self, id: str) -> Container:
        container = self._engine.containers.store.find(id)
        if container is None or not naming.is_sandbox(container):
            raise CRINotFound(f"no such sandbox: {id}")
        return container

    def _container(self, id: str) -> Container:
        container = self._engine.containers.store.find(id)
        if container is None or not naming.is_pod_container(container):
            raise CRINotFound(f"no such container: {id}")
        return container

    def _of_sandbox(self, sandbox_id: str) -> list[Container]:
        return [
            c
            for c in self._engine.containers.store.all()
            if c.labels.get(naming.SANDBOX_ID) == sandbox_id
        ]

    # ---- the runtime

    async def version(self) -> Mapping[str, str]:
        """Who we are."""
        # The name by which containers' ids are told (docker://…) in Kubernetes.
        return {
            "runtime_name": "docker",
            "runtime_version": __version__,
            "runtime_api_version": "v1",
        }

    async def handlers(self) -> Sequence[RuntimeHandler]:
        """Those of the engine. The kernel's age says what they can."""
        kernel = kernel_version()
        recursive, mapped = kernel >= RECURSIVE_READ_ONLY_SINCE, kernel >= remapping.MAPPED_SINCE
        mapped = mapped and Path("/proc/self/ns/user").exists()
        return [RuntimeHandler(name, recursive, mapped) for name in sorted(RUNTIMES)]

    async def pod_cidr(self) -> str:
        """The ranges of this node's pods, with commas in between; the disk keeps them."""
        network = self._engine.networks.find(POD_NETWORK)
        return ",".join(network.ranges) if network is not None else ""

    @cri_errors()
    async def update_runtime_config(self, pod_cidr: str) -> None:
        """The ranges of this node's pods, with commas in between."""
        try:
            await self._engine.networks.set_pod_ranges(pod_cidr.split(","))
        except Conflict as error:
            raise CRIError(error.message, POD_CIDR_IN_USE) from error
        except (OSError, NftError) as error:
            raise EngineError(
                f"NetworkReady=false message:the network {pod_cidr} cannot be made: {error}"
            ) from error

    async def network_changed(self) -> None:
        """Plugins' configuration is another, or the last pod has left the former range."""
        await self._engine.networks.pods_may_change()

    # ---- sandboxes

    @cri_errors("CreatePodSandboxError")
    async def run_pod_sandbox(self, config: PodSandboxConfig) -> str:
        """Make and start the pause container; on failure nothing is left."""
        if config.runtime_handler not in RUNTIMES:
            handler = config.runtime_handler
            raise CRIError(
                f'failed to get sandbox runtime: no runtime for "{handler}" is configured'
            )
        await self._open_way(config)
        async with self._making_pause:
            image = await ensure_pause(self._engine.images)
        request = requests.sandbox_request(config, image)
        return await self._engine.in_flight(self._run_sandbox(config, request))

    async def _open_way(self, config: PodSandboxConfig) -> None:
        """Where the pod's root is nobody here, let it get to its files."""
        if config.user_range is not None:
            place = self._engine.config
            root = place.owned_root or place.data_dir
            await asyncio.to_thread(remapping.open_way, root, place.containers_dir)

    async def _run_sandbox(self, config: PodSandboxConfig, request: CreateRequest) -> str:
        if config.resources is not None:
            limits = requests.group_limits(config.resources)
            self._engine.runtime.groups.limit(config.cgroup_parent, limits)
        try:
            container = await self._create(request, naming.sandbox_name(config.metadata))
        except EngineError:
            if config.cgroup_parent:
                self._engine.runtime.groups.remove(config.cgroup_parent)
            raise
        try:
            await self._engine.containers.lifecycle.start(container)
        except EngineError:
            await self._engine.containers.lifecycle.remove(container, force=True, volumes=True)
            if config.cgroup_parent:
                self._engine.runtime.groups.remove(config.cgroup_parent)
            raise
        return container.id

    async def _create(self, request: CreateRequest, name: str) -> Container:
        """Create a container; one that an interrupted call left under its name gives way."""
        containers = self._engine.containers
        try:
            return (await containers.create(request, name))[0]
        except Conflict:
            former = containers.store.find(name)
            if former is not None:
                await containers.lifecycle.remove(former, force=True, volumes=True)
            return (await containers.create(request, name))[0]

    @cri_errors()
    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Kill everything in it; its addresses and ports are free afterwards."""
        try:
            sandbox = self._sandbox(sandbox_id)
        except CRINotFound:
            return
        await asyncio.gather(*(self._kill(container) for container in self._of_sandbox(sandbox.id)))
        await self._kill(sandbox)

    async def _kill(self, container: Container) -> None:
        try:
            await self._engine.containers.lifecycle.kill(container, signal.SIGKILL)
        except Conflict:
            return  # it does not run

    @cri_errors()
    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Remove it and its containers."""
        try:
            sandbox = self._sandbox(sandbox_id)
        except CRINotFound:
            return
        await asyncio.gather(
            *(self._remove(container) for container in self._of_sandbox(sandbox.id))
        )
        await self._remove(sandbox)

    async def _remove(self, container: Container) -> None:
        lifecycle = self._engine.containers.lifecycle
        if container.state.removing:
            gone = self._engine.containers.wait(container, "removed")
            await gone
            return
        await self._engine.in_flight(lifecycle.remove(container, force=True, volumes=True))

    @cri_errors()
    async def pod_sandbox_status(self, sandbox_id: str) -> PodSandboxStatus:
        """One sandbox."""
        return status.sandbox_status(
            self._sandbox(sandbox_id), self._engine.networks.pods_lead_with
        )

    async def list_pod_sandboxes(self) -> Sequence[PodSandboxStatus]:
        """All sandboxes."""
        return [
            status.sandbox_status(container, self._engine.networks.pods_lead_with)
            for container in self._engine.containers.store.all()
            if naming.is_sandbox(container)
        ]

    # ---- containers

    @cri_errors("CreateContainerError")
    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox_config: PodSandboxConfig
    ) -> str:
        """Create a container in a sandbox, its log where the kubelet wants it."""
        sandbox = self._sandbox(sandbox_id)
        await self._open_way(sandbox_config)
        profile = config.security.seccomp_profile
        seccomp = None if profile is None else await asyncio.to_thread(_read_profile, profile)
        request = requests.container_request(config, sandbox_config, sandbox.id, seccomp)
        if request.log_path is not None:
            request.log_path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        name = naming.container_name(config.metadata, sandbox_config.metadata)
        return (await self._create(request, name)).id

    @cri_errors("RunContainerError")
    async def start_container(self, container_id: str) -> None:
        """Start it; nothing happens where it runs."""
        container = self._container(container_id)
        lifecycle = self._engine.containers.lifecycle
        try:
            await self._engine.in_flight(lifecycle.start(container))
        except NotModified:
            return
        self._limit_log(container)

    async def rotate_logs(self, size: int, rotate: Callable[[Path], Awaitable[None]]) -> None:
        """Have the logs of pods rotated from ``size`` bytes on."""
        self._rotation = size, rotate
        for container in self._engine.containers.store.all():
            if naming.is_pod_container(container):
                self._limit_log(container)

    def _limit_log(self, container: Container) -> None:
        file = container.log.file if container.log is not None else None
        if file is not None and self._rotation is not None:
            size, rotate = self._rotation
            file.rotate_by(size, functools.partial(rotate, file.path))

    @cri_errors()
    async def stop_container(self, container_id: str, timeout: float) -> None:
        """End it; returns when it has ended and given everything back."""
        try:
            container = self._container(container_id)
            await self._engine.containers.lifecycle.stop(container, timeout=max(0.0, timeout))
        except (CRINotFound, NotModified):
            return

    @cri_errors()
    async def remove_container(self, container_id: str) -> None:
        """Remove it, whatever it is doing."""
        try:
            await self._remove(self._container(container_id))
        except CRINotFound:
            return

    @cri_errors()
    async def container_status(self, container_id: str) -> ContainerStatus:
        """One container."""
        return status.container_status(self._container(container_id))

    async def list_containers(self) -> Sequence[ContainerStatus]:
        """All containers of all sandboxes."""
        return [
            status.container_status(container)
            for container in self._engine.containers.store.all()
            if naming.is_pod_container(container)
        ]

    # ---- streams

    @cri_errors()
    async def exec_sync(self, container_id: str, cmd: Sequence[str], timeout: float) -> ExecResult:
        """Run ``cmd`` to its end; what runs too long is killed."""
        started = KilledAtClose(await self._exec(container_id, cmd, tty=False, stdin=False))
        return await run_to_end(started, cmd, timeout)

    @cri_errors()
    async def exec(
        self, container_id: str, cmd: Sequence[str], *, tty: bool, stdin: bool
    ) -> ProcessStream:
        """Start ``cmd`` with live streams."""
        return KilledAtClose(await self._exec(container_id, cmd, tty=tty, stdin=stdin))

    async def _exec(
        self, container_id: str, cmd: Sequence[str], *, tty: bool, stdin: bool
    ) -> ExecProcess:
        container = self._container(container_id)
        Execs.check_container(container)
        account = users.account_of(container)
        specification = process(container, account, args=list(cmd), terminal=tty)
        try:
            return await self._engine.runtime.exec(container.id, specification, stdin=stdin)
        except RuntimeFailure as failure:
            raise exec_error(failure) from failure

    @cri_errors()
    async def attach(self, container_id: str, *, stdin: bool) -> ProcessStream:
        """The live streams of its own process."""
        container = self._container(container_id)
        Execs.check_container(container)
        return await self._engine.runtime.attach(
            container.id, stdin=stdin and bool(container.config["OpenStdin"])
        )

    @cri_errors()
    async def port_forward(self, sandbox_id: str, port: int) -> int:
        """A TCP connection to ``port`` of the sandbox's loopback; the caller closes it."""
        sandbox = self._sandbox(sandbox_id)
        if not sandbox.state.running:
            raise CRIError(f"sandbox {sandbox_id} is not ready")
        namespace = None
        if sandbox.network_mode != "host":
            namespace = self._engine.networks.namespace(sandbox.id)
        return await connect(sandbox_id, namespace, port)

    # ---- watching

    async def container_stats(self) -> Sequence[ContainerStats]:
        """What the running containers use."""
        return await self._stats(naming.is_pod_container)

    async def pod_sandbox_stats(self) -> Sequence[ContainerStats]:
        """What the pause processes use, and what went through the pods' networks."""
        return await self._stats(naming.is_sandbox)

    async def _stats(self, which: Callable[[Container], bool]) -> list[ContainerStats]:
        found = []
        for container in self._engine.containers.store.all():
            if not which(container) or not container.state.running:
                continue
            try:
                usage = await self._engine.runtime.usage(container.id)
                cgroup = self._engine.runtime.cgroup(container.id)
                interfaces = await stats.interfaces(self._engine, container)
            except RuntimeFailure:
                continue  # it has just ended
            found.append(status.container_stats(container, usage, cgroup, interfaces))
        return found

    @cri_errors()
    async def container_filesystem(self, container_id: str) -> FilesystemUsage:
        """The size of its own layer."""
        container = self._container(container_id)
        return await asyncio.to_thread(measured, container.layers / "upper")

    # ---- limits

    @cri_errors()
    async def update_container_resources(
        self, container_id: str, resources: LinuxResources
    ) -> None:
        """Change what a running container may use, and what is remembered of it."""
        container = self._container(container_id)
        await self._engine.containers.update_limits(container, requests.update_body(resources))

    @cri_errors()
    async def update_group(self, group: str, resources: LinuxResources) -> None:
        """Limit a group of pods, or a pod as a whole."""
        self._engine.runtime.groups.limit(group, requests.group_limits(resources))

    @cri_errors()
    async def remove_groups(self, group: str, keep: Collection[str]) -> None:
        """What pods have left behind that went while nobody looked."""
        for name in self._engine.runtime.groups.below(group):
            if name not in keep:
                self._engine.runtime.groups.remove(f"{group}/{name}")

    def events(self) -> AsyncIterator[ContainerEvent]:
        """What happens to pods from this call on."""
        subscription = self._engine.events.subscribe()

        async def translated() -> AsyncIterator[ContainerEvent]:
            try:
                async for event in subscription:
                    if found := status.container_event(event):
                        yield found
            finally:
                subscription.close()

        return translated()


def _read_profile(path: Path) -> str:
    """A profile of system calls. Blocks.

    Raises:
        CRIError: it cannot be read.
    """
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CRIError(
            f'cannot load seccomp profile "{path}": open {path}: {reason.lower()}',
            "CreateContainerError",
        ) from None
