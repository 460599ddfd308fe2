"""The Container Runtime Interface on the engine: what a kubelet calls.

Sandboxes and pod containers are ordinary containers of the engine; ``docker ps`` shows them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

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
from wherry.engine.cri.types import (
    AuthConfig,
    ContainerConfig,
    ContainerEvent,
    ContainerRuntime,
    ContainerStats,
    ContainerStatus,
    CRIError,
    CRINotFound,
    ExecResult,
    FilesystemUsage,
    Image,
    LinuxResources,
    PodSandboxConfig,
    PodSandboxStatus,
    ProcessStream,
    RuntimeHandler,
)
from wherry.engine.engine import Engine
from wherry.engine.errors import Conflict, EngineError, NotFound, NotModified
from wherry.engine.image import own
from wherry.engine.image.distribution.credentials import Credentials
from wherry.engine.image.pause import ensure_pause
from wherry.net import namespaces
from wherry.runtime.streams import ExecProcess
from wherry.runtime.types import RuntimeFailure

# No more of the output of a synchronous exec is kept, as in other runtimes.
EXEC_LIMIT = 16 << 20

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _call(
    reason: str = "",
) -> Callable[[Callable[_P, Awaitable[_R]]], Callable[_P, Coroutine[Any, Any, _R]]]:
    """Errors of the engine become errors of CRI, with the kubelet's word for them."""

    def decorate(
        method: Callable[_P, Awaitable[_R]],
    ) -> Callable[_P, Coroutine[Any, Any, _R]]:
        @functools.wraps(method)
        async def translated(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return await method(*args, **kwargs)
            except NotFound as error:
                raise CRINotFound(error.message, reason) from error
            except (EngineError, RuntimeFailure) as error:
                raise CRIError(error.message, reason) from error

        return translated

    return decorate


class EngineRuntime(ContainerRuntime):
    """``ContainerRuntime`` on an engine in the same process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._own_images = asyncio.Lock()
        self._making = asyncio.Lock()
        self._pause_lock = asyncio.Lock()
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

    @_call()
    async def update_runtime_config(self, pod_cidr: str) -> None:
        """The ranges of this node's pods, with commas in between; they are kept over restarts."""
        await self._engine.networks.set_pod_ranges(pod_cidr.split(","))

    async def network_changed(self) -> None:
        """Plugins' configuration is another."""
        await self._engine.networks.plugins.changed()

    # ---- sandboxes

    @_call("CreatePodSandboxError")
    async def run_pod_sandbox(self, config: PodSandboxConfig) -> str:
        """Make and start the pause container; on failure nothing is left."""
        if config.runtime_handler not in RUNTIMES:
            handler = config.runtime_handler
            raise CRIError(
                f'failed to get sandbox runtime: no runtime for "{handler}" is configured'
            )
        await self._open_way(config)
        async with self._own_images:
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
            self._engine.runtime.limit_group(config.cgroup_parent, limits)
        try:
            container = await self._create(request, naming.sandbox_name(config.metadata))
        except EngineError:
            if config.cgroup_parent:
                self._engine.runtime.remove_group(config.cgroup_parent)
            raise
        try:
            await self._engine.containers.lifecycle.start(container)
        except EngineError:
            await self._engine.containers.lifecycle.remove(container, force=True, volumes=True)
            if config.cgroup_parent:
                self._engine.runtime.remove_group(config.cgroup_parent)
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

    @_call()
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

    @_call()
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

    @_call()
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

    @_call("CreateContainerError")
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

    @_call("RunContainerError")
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

    @_call()
    async def stop_container(self, container_id: str, timeout: float) -> None:
        """End it; returns when it has ended and given everything back."""
        try:
            container = self._container(container_id)
            await self._engine.containers.lifecycle.stop(container, timeout=max(0.0, timeout))
        except (CRINotFound, NotModified):
            return

    @_call()
    async def remove_container(self, container_id: str) -> None:
        """Remove it, whatever it is doing."""
        try:
            await self._remove(self._container(container_id))
        except CRINotFound:
            return

    @_call()
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

    @_call()
    async def exec_sync(self, container_id: str, cmd: Sequence[str], timeout: float) -> ExecResult:
        """Run ``cmd`` to its end; what runs too long is killed."""
        started = _KilledAtClose(await self._exec(container_id, cmd, tty=False, stdin=False))
        output = {1: bytearray(), 2: bytearray()}
        try:
            async with asyncio.timeout(timeout or None):
                while (piece := await started.read())[0]:
                    kept = output[piece[0]]
                    kept += piece[1][: EXEC_LIMIT - len(kept)]
                code = await started.wait()
        except TimeoutError:
            raise CRIError(
                f'command "{" ".join(cmd)}" timed out: timeout {timeout:g}s exceeded',
                "DeadlineExceeded",
            ) from None
        finally:
            await started.close()
        return ExecResult(code, bytes(output[1]), bytes(output[2]))

    @_call()
    async def exec(
        self, container_id: str, cmd: Sequence[str], *, tty: bool, stdin: bool
    ) -> ProcessStream:
        """Start ``cmd`` with live streams."""
        return _KilledAtClose(await self._exec(container_id, cmd, tty=tty, stdin=stdin))

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

    @_call()
    async def attach(self, container_id: str, *, stdin: bool) -> ProcessStream:
        """The live streams of its own process."""
        container = self._container(container_id)
        Execs.check_container(container)
        return await self._engine.runtime.attach(
            container.id, stdin=stdin and bool(container.config["OpenStdin"])
        )

    @_call()
    async def port_forward(self, sandbox_id: str, port: int) -> int:
        """A TCP connection to ``port`` of the sandbox's loopback; the caller closes it."""
        sandbox = self._sandbox(sandbox_id)
        if not sandbox.state.running:
            raise CRIError(f"sandbox {sandbox_id} is not ready")
        namespace = None
        if sandbox.network_mode != "host":
            namespace = self._engine.networks.namespace(sandbox.id)
        connection = await asyncio.to_thread(_socket_in, namespace)
        try:
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, ("127.0.0.1", port))
        except OSError as error:
            connection.close()
            reason = os.strerror(error.errno or 0).lower()
            raise CRIError(
                f"failed to connect to localhost:{port} inside namespace {sandbox_id}: {reason}"
            ) from None
        return connection.detach()

    # ---- images

    async def image_status(self, image: str) -> Image | None:
        """The image; None where it is not in the store, or its name is none."""
        try:
            await self._make_own(image)
            return status.image(self._engine.images.resolve(image))
        except EngineError:
            return None

    async def _make_own(self, image: str) -> bool:
        if image not in own.IMAGES:
            return False
        async with self._making:
            await own.ensure(self._engine.images, image)
        return True

    @_call("ErrImagePull")
    async def pull_image(self, image: str, auth: AuthConfig | None = None) -> str:
        """Fetch it; returns its id. Our own images are made here, or it is said why not."""
        if await self._make_own(image):
            return self._engine.images.resolve(image).id
        who = auth or AuthConfig()
        credentials = Credentials(who.username, who.password, who.identity_token)
        return (await self._engine.images.fetch(image, credentials)).id

    async def list_images(self) -> Sequence[Image]:
        """All images."""
        return [status.image(stored) for stored in self._engine.images.list()]

    async def images_in_use(self) -> Collection[str]:
        """Those of Docker's containers, too."""
        return {container.image_id for container in self._engine.containers.store.all()}

    @_call()
    async def remove_image(self, image: str) -> None:
        """Untag it, and remove what nothing uses."""
        try:
            await self._engine.images.remove(image)
        except NotFound:
            return

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

    @_call()
    async def container_filesystem(self, container_id: str) -> FilesystemUsage:
        """The size of its own layer."""
        container = self._container(container_id)
        return await asyncio.to_thread(measured, container.layers / "upper")

    # ---- limits

    @_call()
    async def update_container_resources(
        self, container_id: str, resources: LinuxResources
    ) -> None:
        """Change what a running container may use, and what is remembered of it."""
        container = self._container(container_id)
        await self._engine.containers.update_limits(container, requests.update_body(resources))

    @_call()
    async def update_group(self, group: str, resources: LinuxResources) -> None:
        """Limit a group of pods, or a pod as a whole."""
        self._engine.runtime.limit_group(group, requests.group_limits(resources))

    @_call()
    async def remove_groups(self, group: str, keep: Collection[str]) -> None:
        """What pods have left behind that went while nobody looked."""
        for name in self._engine.runtime.groups_below(group):
            if name not in keep:
                self._engine.runtime.remove_group(f"{group}/{name}")

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


class _KilledAtClose:
    """An exec that does not outlive its client."""

    def __init__(self, inner: ExecProcess) -> None:
        self._inner = inner
        # By descriptor: the number may be another process's by the time of the close.
        try:
            self._pidfd = os.pidfd_open(inner.pid)
        except ProcessLookupError:
            self._pidfd = -1
        self.read = inner.read
        self.write = inner.write
        self.close_stdin = inner.close_stdin
        self.resize = inner.resize
        self.wait = inner.wait

    async def close(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1
        await self._inner.close()


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


def _socket_in(namespace: Path | None) -> socket.socket:
    """A TCP socket that belongs to a network namespace; None is the host's. Blocks."""
    if namespace is None:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with namespaces.enter(namespace):
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def measured(directory: Path) -> FilesystemUsage:
    """What lies below ``directory``, each inode once. Blocks."""
    size = inodes = 0
    seen: set[tuple[int, int]] = set()
    waiting = [directory]
    while waiting:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            current = waiting.pop()
            with os.scandir(current) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        if found.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                            if (found.st_dev, found.st_ino) in seen:
                                continue
                            seen.add((found.st_dev, found.st_ino))
                        size += found.st_blocks * 512
                        inodes += 1
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(Path(entry.path))
    return FilesystemUsage(size, inodes)
