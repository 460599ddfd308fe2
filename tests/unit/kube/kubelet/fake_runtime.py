"""A container runtime in a dict: sandboxes and containers with states, events, and no processes."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from wherry.engine.cri.types import (
    POD_CIDR_IN_USE,
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    ContainerStatus,
    CRIError,
    CRINotFound,
    ExecResult,
    FilesystemUsage,
    Image,
    PodSandboxConfig,
    PodSandboxState,
    PodSandboxStatus,
    RuntimeHandler,
)


class FakeRuntime:
    """Implements ``ContainerRuntime``; ``calls`` tells what was asked, in order."""

    def __init__(self, *, images: Sequence[str] = ("web:1",)) -> None:
        self.images = {name: Image(f"sha256:{name}", [name], size=1000) for name in images}
        self.sandboxes: dict[str, PodSandboxStatus] = {}
        self.containers: dict[str, ContainerStatus] = {}
        self.configs: dict[str, ContainerConfig] = {}
        self.sandbox_configs: dict[str, PodSandboxConfig] = {}
        self.network_news = asyncio.Event()
        self.calls: list[tuple[str, str]] = []
        self.fail: dict[str, CRIError] = {}  # by the name of a call
        self.exits_at_once: dict[str, int] = {}  # container name: code
        self.ignores_term: set[str] = set()
        self.exec_results: dict[str, ExecResult] = {}  # by the first word of the command
        self.cannot_run = False
        self.cidr = ""
        self.stats: list = []
        self.layers: dict[str, FilesystemUsage] = {}
        self.updated: dict = {}  # limits by container
        self.groups: dict = {}  # limits by cgroup
        self._numbers = itertools.count(1)
        self._listeners: list[asyncio.Queue[ContainerEvent]] = []

    async def handlers(self):
        return [RuntimeHandler("", True, True)]

    async def rotate_logs(self, size, rotate) -> None:
        self.log_size, self.rotate = size, rotate

    # for tests

    def exit(self, id: str, code: int = 0, *, reason: str = "") -> None:
        """The container's process ends by itself."""
        self._change(
            id,
            state=ContainerState.EXITED,
            exit_code=code,
            finished_at=time.time_ns(),
            reason=reason or ("Completed" if code == 0 else "Error"),
        )
        self._tell("stopped", id)

    def running(self, name: str) -> ContainerStatus:
        (found,) = [
            c
            for c in self.containers.values()
            if c.metadata.name == name and c.state is ContainerState.RUNNING
        ]
        return found

    def count(self, call: str) -> int:
        return sum(1 for name, _ in self.calls if name == call)

    def _change(self, id: str, **fields: object) -> None:
        self.containers[id] = dataclasses.replace(self.containers[id], **fields)

    def _tell(self, kind: str, id: str) -> None:
        if id in self.sandboxes:
            uid, sandbox = self.sandboxes[id].metadata.uid, id
        else:
            status = self.containers[id]
            uid, sandbox = status.labels["io.kubernetes.pod.uid"], status.pod_sandbox_id
        event = ContainerEvent(kind, id, sandbox, uid)
        for queue in self._listeners:
            queue.put_nowait(event)

    async def _call(self, name: str, what: str = "") -> None:
        self.calls.append((name, what))
        await asyncio.sleep(0)
        if name in self.fail:
            raise self.fail[name]

    # the protocol

    async def version(self):
        return {"runtime_name": "docker", "runtime_version": "28.5.0", "runtime_api_version": "v1"}

    async def network_changed(self) -> None:
        await self.network_news.wait()
        self.network_news.clear()

    async def update_runtime_config(self, pod_cidr: str) -> None:
        await self._call("update_runtime_config", pod_cidr)
        held = [s for s in self.sandboxes.values() if s.state is PodSandboxState.READY and s.ips]
        if held and pod_cidr != self.cidr:
            raise CRIError(f"pods have addresses of {self.cidr}", POD_CIDR_IN_USE)
        self.cidr = pod_cidr

    async def pod_cidr(self) -> str:
        return self.cidr

    async def run_pod_sandbox(self, config: PodSandboxConfig) -> str:
        await self._call("run_pod_sandbox", config.metadata.name)
        number = next(self._numbers)
        id = f"s{number}"
        self.sandboxes[id] = PodSandboxStatus(
            id,
            config.metadata,
            PodSandboxState.READY,
            time.time_ns(),
            [str(ipaddress.ip_network(self.cidr)[number])] if config.network.value == "POD" else [],
            config.labels,
            config.annotations,
        )
        self.sandbox_configs[id] = config
        self._tell("started", id)
        return id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        await self._call("stop_pod_sandbox", sandbox_id)
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None:
            return
        for container in list(self.containers.values()):
            running = container.state is ContainerState.RUNNING
            if container.pod_sandbox_id == sandbox_id and running:
                self.exit(container.id, 137)
        self.sandboxes[sandbox_id] = dataclasses.replace(sandbox, state=PodSandboxState.NOTREADY)
        self.network_news.set()
        self._tell("stopped", sandbox_id)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        await self._call("remove_pod_sandbox", sandbox_id)
        if sandbox_id not in self.sandboxes:
            return
        for container in list(self.containers.values()):
            if container.pod_sandbox_id == sandbox_id:
                await self.remove_container(container.id)
        uid = self.sandboxes.pop(sandbox_id).metadata.uid
        for queue in self._listeners:
            queue.put_nowait(ContainerEvent("deleted", sandbox_id, sandbox_id, uid))

    async def pod_sandbox_status(self, sandbox_id: str) -> PodSandboxStatus:
        if sandbox_id not in self.sandboxes:
            raise CRINotFound(f"no sandbox {sandbox_id}")
        return self.sandboxes[sandbox_id]

    async def list_pod_sandboxes(self):
        return list(self.sandboxes.values())

    async def create_container(
        self, sandbox_id: str, config: ContainerConfig, sandbox_config: PodSandboxConfig
    ) -> str:
        await self._call("create_container", config.metadata.name)
        id = f"c{next(self._numbers)}"
        self.containers[id] = ContainerStatus(
            id,
            sandbox_id,
            config.metadata,
            ContainerState.CREATED,
            time.time_ns(),
            image=config.image.removeprefix("sha256:"),
            image_ref=config.image,
            labels=config.labels,
            annotations=config.annotations,
            log_path=Path(sandbox_config.log_directory) / config.log_path,
        )
        self.configs[id] = config
        self._tell("created", id)
        return id

    async def start_container(self, container_id: str) -> None:
        name = self.containers[container_id].metadata.name
        if self.cannot_run:
            self.exit(container_id, 127, reason="ContainerCannotRun")
        await self._call("start_container", name)
        self._change(container_id, state=ContainerState.RUNNING, started_at=time.time_ns())
        self._tell("started", container_id)
        if name in self.exits_at_once:
            self.exit(container_id, self.exits_at_once[name])

    async def stop_container(self, container_id: str, timeout: float) -> None:
        status = self.containers.get(container_id)
        await self._call("stop_container", f"{status.metadata.name if status else '?'} {timeout:g}")
        if status is None or status.state is not ContainerState.RUNNING:
            return
        if status.metadata.name in self.ignores_term:
            await asyncio.sleep(timeout)
            if self.containers[container_id].state is ContainerState.RUNNING:
                self.exit(container_id, 137)
        else:
            self.exit(container_id, 143)

    async def remove_container(self, container_id: str) -> None:
        await self._call("remove_container", container_id)
        status = self.containers.pop(container_id, None)
        if status is not None:
            uid = status.labels["io.kubernetes.pod.uid"]
            for queue in self._listeners:
                event = ContainerEvent("deleted", container_id, status.pod_sandbox_id, uid)
                queue.put_nowait(event)

    async def container_status(self, container_id: str) -> ContainerStatus:
        if container_id not in self.containers:
            raise CRINotFound(f"no container {container_id}")
        return self.containers[container_id]

    async def list_containers(self):
        return list(self.containers.values())

    async def exec_sync(self, container_id: str, cmd: Sequence[str], timeout: float) -> ExecResult:
        await self._call("exec_sync", " ".join(cmd))
        return self.exec_results.get(cmd[0], ExecResult(0, b"", b""))

    async def exec(self, container_id, cmd, *, tty, stdin):
        raise NotImplementedError

    async def attach(self, container_id, *, stdin):
        raise NotImplementedError

    async def port_forward(self, sandbox_id: str, port: int) -> int:
        raise NotImplementedError

    async def image_status(self, image: str) -> Image | None:
        for found in self.images.values():
            if image in (found.id, *found.repo_tags):
                return found
        return None

    async def pull_image(self, image: str, auth=None) -> str:
        await self._call("pull_image", image)
        self.images[image] = Image(f"sha256:{image}", [image], size=1000)
        return f"sha256:{image}"

    async def list_images(self):
        return list(self.images.values())

    async def remove_image(self, image: str) -> None:
        self.images.pop(image, None)

    async def images_in_use(self):
        return [c.image_ref for c in self.containers.values()]

    async def container_stats(self):
        return self.stats

    async def pod_sandbox_stats(self):
        return []

    async def container_filesystem(self, container_id: str):
        return self.layers.get(container_id, FilesystemUsage(0, 0))

    async def update_container_resources(self, container_id, resources):
        await self._call("update_container_resources", container_id)
        self.updated[container_id] = resources

    async def update_group(self, group, resources):
        self.groups[group] = resources

    async def remove_groups(self, group, keep):
        return

    def events(self) -> AsyncIterator[ContainerEvent]:
        queue: asyncio.Queue[ContainerEvent] = asyncio.Queue()
        self._listeners.append(queue)

        async def told() -> AsyncIterator[ContainerEvent]:
            try:
                while True:
                    yield await queue.get()
            finally:
                self._listeners.remove(queue)

        return told()
