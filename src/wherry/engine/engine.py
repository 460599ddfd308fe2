"""The engine: one object that holds the parts, opens them in order, and serves their API."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wherry.engine import daemon_file
from wherry.engine.build import leftovers
from wherry.engine.container.recovery import resume_log
from wherry.engine.container.service import Containers
from wherry.engine.container.stats import StatsCollector
from wherry.engine.container.store import ContainerStore
from wherry.engine.errors import EngineError
from wherry.engine.events import EventBus
from wherry.engine.image.store import ImageStore
from wherry.engine.network import documents, pools
from wherry.engine.network.cni.plugins import Plugins
from wherry.engine.network.network import Network
from wherry.engine.network.networks import Networks, take_away
from wherry.engine.volume.volumes import Volumes
from wherry.host import mount_table
from wherry.host.files import make_private, write_atomic
from wherry.host.limits import raise_open_files
from wherry.host.process import run
from wherry.net import namespaces
from wherry.net.firewall.firewall import Firewall
from wherry.net.link import links, routes, shaping
from wherry.net.nftables.nft import Nftables
from wherry.runtime.rootfs import mounts_below, unmount
from wherry.runtime.service import Runtime
from wherry.runtime.types import ExitStatus, LogSink

if TYPE_CHECKING:
    from wherry.engine.api.listeners import TLSAddress

if TYPE_CHECKING:
    from wherry.engine.build.builder import Builder

log = logging.getLogger(__name__)

_T = TypeVar("_T")
# So long a daemon that was told to end waits for what is under way, in seconds.
CLOSE_TIMEOUT = 3.0
# Programs whose versions `docker version` shows, in the order of preference of the runtimes.
_COMPONENTS = ("crun", "runc", "catatonit")
# Where plugins for the pods' network lie: upstream's place, and Debian's.
CNI_BIN_DIRS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What makes an engine unlike another on the same machine.

    ``data_dir`` outlives a reboot, ``run_dir`` does not. ``subnet`` is the range of the default
    bridge; ``pod_cidrs`` those of all pods of the cluster, none without one.
    """

    data_dir: Path
    run_dir: Path
    name: str
    bridge: str
    subnet: str
    pod_bridge: str
    pod_cidrs: tuple[str, ...]
    cgroup_root: str
    nft_table: str
    owned_root: Path | None = (
        None  # the topmost directory above data_dir that is ours; None: itself
    )
    userns_remap: str = ""  # "default" or user[:group]: whose subordinate ids containers have
    daemon_file: Path | None = None  # an operator's choices, see ``daemon_file``
    cni_conf_dir: Path | None = None  # where pods' places are made by plugins: which ones
    cni_bin_dirs: tuple[Path, ...] = CNI_BIN_DIRS

    @property
    def containers_dir(self) -> Path:
        return self.data_dir / "containers"

    @property
    def networks_dir(self) -> Path:
        return self.data_dir / "network"

    @property
    def volumes_dir(self) -> Path:
        return self.data_dir / "volumes"

    @property
    def builds_dir(self) -> Path:
        return self.data_dir / "build"

    @property
    def namespaces_dir(self) -> Path:
        return self.run_dir / "netns"


class Engine:
    """A container engine. ``open`` it, ``serve`` its API, ``close`` it; containers go on."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.id = ""
        self.events = EventBus()
        path = config.daemon_file or config.data_dir / "daemon.json"
        self.options = daemon_file.load(path)
        self.images = ImageStore(
            config.data_dir / "images",
            notify=self._image_event,
            registries=self.options.registries,
        )
        self.runtime = _runtime(config, self._exited, self._ran_out_of_memory)
        self.networks = Networks(
            root=config.networks_dir,
            namespaces_root=config.namespaces_dir,
            bridge=config.bridge,
            subnet=config.subnet,
            pod_bridge=config.pod_bridge,
            pod_ranges=config.pod_cidrs,
            nft_table=config.nft_table,
            events=self.events,
            plugins=plugins(config),
        )
        self.volumes = Volumes(config.volumes_dir, self.events)
        self.containers = Containers(
            config.containers_dir,
            self.images,
            self.networks,
            self.events,
            self.runtime,
            self.volumes,
        )
        self.stats = StatsCollector(self)
        self._builder: Builder | None = None
        self._server: Any = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._versions: dict[str, str] | None = None

    def _image_event(self, action: str, image: str, attributes: Mapping[str, str]) -> None:
        self.events.publish("image", action, image, attributes)

    def _exited(self, status: ExitStatus) -> None:
        self.containers.lifecycle.exited(status)

    def _ran_out_of_memory(self, id: str) -> None:
        self.containers.lifecycle.ran_out_of_memory(id)

    async def open(self) -> None:
        """Take up images, networks and containers as they were left, whatever ended the former
        daemon.

        Raises:
            EngineError: something it cannot work without is missing.
        """
        config, opened = self.config, time.time()
        raise_open_files()
        make_private(config.data_dir)
        config.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.id = _identity(config.data_dir / "engine-id")
        self.images.in_use = self._using_image
        self.images.is_running = self._is_running
        await asyncio.gather(self.images.open(), self.networks.open(), self.runtime.open())
        self._remap()
        await self.containers.open()
        await self.containers.sweep_init_layers(opened)
        gone = self.networks.plugins.known() - set(self.containers.store.ids())
        if self.networks.plugins.wanted or gone:
            self.in_flight(self._tidy_up(gone))
        if leftovers.found(config.builds_dir):
            self.in_flight(leftovers.sweep(config.builds_dir, self.containers))

    async def _tidy_up(self, gone: Collection[str]) -> None:
        """What plugins gave to pods of which nothing is known any more is taken back."""
        plugins = self.networks.plugins
        await plugins.release(gone, self.config.namespaces_dir)
        await plugins.collect()

    def _remap(self) -> None:
        from wherry.engine.container import remapping

        found = remapping.find(self.config.userns_remap or self.options.userns_remap)
        if found is not None:
            config = self.config
            remapping.open_way(config.data_dir, make_private(config.containers_dir))
            self.containers.lifecycle.resources.remapping = found

    @property
    def builder(self) -> Builder:
        """Builds; made when the first one comes."""
        if self._builder is None:
            from wherry.engine.build.builder import Builder

            self._builder = Builder(self.config.builds_dir, self.images, self.containers)
        return self._builder

    def _using_image(self, image: str) -> list[str]:
        builds = self._builder.using_image(image) if self._builder is not None else []
        return [*self.containers.using_image(image), *builds]

    def _is_running(self, container_id: str) -> bool:
        container = self.containers.store.find(container_id)
        return container is not None and container.state.running

    async def serve(self, socket: Path, tcp: TLSAddress | None = None) -> None:
        """Serve the Engine API on a unix socket and, where wanted, on TCP with mutual TLS.

        Raises:
            EngineError: the TCP address or its keys cannot be used.
        """
        from wherry.engine.api.server import Server

        self._server = Server(self)
        await self._server.listen(socket, tcp)

    def reload(self) -> None:
        """Take up what may change while the daemon runs: the keys of its TCP address."""
        if self._server is not None:
            self._server.reload()
        attributes = {"name": self.config.name, "live-restore": "true"}
        self.events.publish("daemon", "reload", self.id, attributes)

    async def close(self) -> None:
        """Finish what is under way and let go; containers go on running."""
        if self._server is not None:
            await self._server.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=CLOSE_TIMEOUT)
        for call in self._calls:
            call.cancel()
        await self.containers.close(CLOSE_TIMEOUT)
        await self.networks.close()
        await self.runtime.close()

    def in_flight(self, call: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run a call that must come to its end even when its client leaves."""
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def component_versions(self) -> Mapping[str, str]:
        """The versions of the programs that containers are run with, by name."""
        if self._versions is None:
            present = [name for name in _COMPONENTS if shutil.which(name)]
            results = await asyncio.gather(*(run([name, "--version"]) for name in present))
            self._versions = {}
            for name, result in zip(present, results, strict=True):
                found = re.search(rb"\d+\.\d[\w.+~-]*", result.stdout + result.stderr)
                self._versions[name] = found[0].decode() if found else ""
        return self._versions

    def filesystem(self) -> str:
        """What kind of file system the data directory is on, as ``docker info`` calls it."""
        best, kind = "", "unknown"
        data = str(self.config.data_dir)
        for line in mount_table.lines(mount_table.read("mounts")):
            _, target, name, *_ = line.split(" ")
            inside = data == target or data.startswith(target.rstrip("/") + "/")
            if inside and len(target) >= len(best):
                best, kind = target, name
        return "extfs" if kind.startswith("ext") else kind


def plugins(config: EngineConfig) -> Plugins:
    """Those that make the pods' places, and what they must be told when the pods go."""
    return Plugins(config.cni_conf_dir, config.cni_bin_dirs, config.networks_dir / "cni")


def _runtime(config: EngineConfig, on_exit: Any, on_oom: Any = None) -> Runtime:
    return Runtime(
        state_dir=config.data_dir / "runtime",
        run_dir=config.run_dir / "runtime",
        cgroup_root=config.cgroup_root,
        on_exit=on_exit,
        on_oom=on_oom or (lambda id: None),
    )


def _identity(path: Path) -> str:
    """The engine's id, made at its first start."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        identity = str(uuid.uuid4())
        write_atomic(path, identity.encode())
        return identity


async def stop_all(config: EngineConfig, grace: float) -> None:
    """With no daemon running: end every container, SIGKILL after ``grace`` seconds.

    The containers stay; the next daemon finds how they ended.
    """
    if not config.run_dir.exists() and not config.data_dir.exists():
        return
    await _runtime(config, lambda status: None).destroy_all(grace, log=_logs(config))
    given = plugins(config)
    await given.release(given.known(), config.namespaces_dir)
    await asyncio.to_thread(_release_kernel, config)


def _logs(config: EngineConfig) -> Callable[[str], LogSink | None]:
    """Where the last words of a container go, found without a daemon."""

    @functools.cache
    def containers() -> ContainerStore:
        store = ContainerStore(config.containers_dir)
        store.load()
        return store

    return lambda id: resume_log(containers(), id)


def _release_kernel(config: EngineConfig) -> None:
    for root in (config.containers_dir, config.volumes_dir, config.run_dir):
        for point in mounts_below(root):
            if not point.is_relative_to(config.namespaces_dir):
                unmount(point)
    if config.namespaces_dir.exists():
        for path in config.namespaces_dir.iterdir():
            shaping.unlimit(path.name)
            namespaces.delete(path)


async def purge_all(config: EngineConfig) -> None:
    """After ``stop_all``: remove bridges, routes and rules. Files are left to the caller.

    Nothing happens where nothing is left.
    """
    await Firewall(Nftables(), config.nft_table).teardown()
    await asyncio.to_thread(_purge_networks, config)


def _purge_networks(config: EngineConfig) -> None:
    for entry in documents.read(config.networks_dir / "networks.json")["networks"]:
        network = Network.from_document(entry)
        try:
            take_away(network)
        except (OSError, EngineError) as error:
            log.error("network %s: %s", network.name, error)
    for bridge in (config.bridge, config.pod_bridge):
        links.remove_link(bridge)
    for cidr in (config.subnet, *config.pod_cidrs):
        routes.unblock(cidr)


def slot_config(data_dir: Path, run_dir: Path, slot: int, name: str) -> EngineConfig:
    """The configuration of an engine that runs alone, for development and tests.

    ``slot`` gives the names and ranges that an instance of that slot would have.
    """
    if not 0 <= slot < pools.SLOTS:
        raise EngineError(f"slot {slot} is not between 0 and {pools.SLOTS - 1}")
    return EngineConfig(
        data_dir=data_dir,
        run_dir=run_dir,
        name=name,
        bridge=f"wherry{slot}",
        subnet=pools.default_bridge(slot),
        pod_bridge=f"wherry{slot}p",
        pod_cidrs=(f"10.{244 - slot}.0.0/16",),
        cgroup_root=f"/wherry{slot}",
        nft_table=f"wherry{slot}",
    )
