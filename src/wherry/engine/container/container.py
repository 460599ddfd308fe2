"""What a container is: what was asked for, what it is doing, what it holds.

The part that must outlive the daemon is one JSON document (``Container.encode``); times in it are
nanoseconds since the epoch. The live part (locks, waiters, the watch over the current run) starts
empty with every daemon.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from wherry.engine.container import init_layer
from wherry.engine.container.healthcheck import Health

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from wherry.engine.logs.sink import Sink
    from wherry.runtime.types import ExitStatus

FORMAT = 1


@dataclass(slots=True)
class State:
    """What a container is doing. While it waits for its next restart it counts as running, too."""

    running: bool = False
    paused: bool = False
    restarting: bool = False
    removing: bool = False
    dead: bool = False
    oom_killed: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: int = 0
    finished_at: int = 0
    health: Health | None = None

    @property
    def status(self) -> str:
        """Docker's one word for it."""
        if self.running:
            if self.paused:
                return "paused"
            return "restarting" if self.restarting else "running"
        if self.removing:
            return "removing"
        if self.dead:
            return "dead"
        return "exited" if self.started_at else "created"


@dataclass(slots=True)
class Endpoint:
    """A container's place on one network: what was asked for, and, while it runs, what it has."""

    network: str  # the network's name
    network_id: str = ""
    # Asked for.
    aliases: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)  # "container:alias", user-defined networks only
    options: dict[str, str] = field(default_factory=dict)
    gateway_priority: int = 0
    wanted_address: str = ""
    wanted_address6: str = ""
    link_local: list[str] = field(default_factory=list)
    wanted_mac: str = ""
    # Given, as long as the container runs.
    endpoint_id: str = ""
    interface: str = ""  # its name in the container
    address: str = ""
    prefix_length: int = 0
    gateway: str = ""
    address6: str = ""
    prefix_length6: int = 0
    gateway6: str = ""
    mac_address: str = ""
    # Being made or taken away while the container runs: a daemon that finds this undoes it.
    changing: bool = False

    @property
    def host_interface(self) -> str:
        """The name of its link on the host; it follows from the endpoint, so that it can be
        removed by a daemon that did not create it."""
        return f"veth{self.endpoint_id[:7]}"

    @property
    def connected(self) -> bool:
        return bool(self.endpoint_id)

    @property
    def addresses(self) -> list[str]:
        """Those it has, IPv4 first."""
        return [address for address in (self.address, self.address6) if address]

    def disconnected(self) -> Endpoint:
        """What is left of it when the container does not run: what was asked for."""
        return Endpoint(
            self.network,
            self.network_id,
            self.aliases,
            self.links,
            self.options,
            self.gateway_priority,
            self.wanted_address,
            self.wanted_address6,
            self.link_local,
            self.wanted_mac,
        )


@dataclass(slots=True)
class PublishedPort:
    """A port of the container that the host answers for; ``address`` is the container's."""

    protocol: str
    container_port: int
    host_ip: str
    host_port: int
    address: str = ""
    routed: bool = False


@dataclass(slots=True)
class MountPoint:
    """A path of the container that is not part of its root file system."""

    type: str  # "bind", "volume", "tmpfs", "image"
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    writable: bool = True
    propagation: str = ""
    options: list[str] = field(default_factory=list)
    create_source: bool = False  # a directory of the host that is missing is made
    recursive: bool = True  # a bind takes along what is mounted below its source
    read_only: str = ""  # how far down, where not writable: "top", "all", "" is as far as can be
    slave_if_possible: bool = False  # propagation was not chosen; private where it cannot be slave
    copy: bool = False  # an empty volume is filled with what the image has there
    anonymous: bool = False  # the volume has no name that a user chose; it goes with `rm -v`
    subpath: str = ""  # what of a volume or image is mounted
    image_id: str = ""
    listed: bool = True  # `docker inspect` shows it among the mounts; not so --tmpfs


@dataclass(slots=True)
class Link:
    """A name of its own that a container on the default bridge has for another.

    ``name`` is what the other was called then; it is shown when there is no such container left.
    """

    alias: str
    id: str
    name: str


class Run:
    """One run of a container's process: from start until everything it held was given back."""

    def __init__(self) -> None:
        self.status: ExitStatus | None = None  # how the process ended
        self.oom_told = False  # before its end, that its memory ran out
        self.settled = asyncio.Event()  # exited, and its network and mounts are gone
        self.signalling = asyncio.Lock()  # held from sending a signal until that has been told


@dataclass(slots=True, eq=False)
class Container:
    """One container. ``config`` and ``host_config`` are as the Engine API has them, complete."""

    id: str
    name: str
    created_at: int
    image_id: str
    config: dict[str, Any]
    host_config: dict[str, Any]
    path: str
    args: list[str]
    home: Path
    log_path: str = ""
    state: State = field(default_factory=State)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    ports: list[PublishedPort] = field(default_factory=list)
    mounts: list[MountPoint] = field(default_factory=list)
    # Whom its process runs or ran as, in numbers: user, group, further groups.
    account: list[int] = field(default_factory=list)
    sandbox: str = ""  # where its network namespace is to be found, while it has one
    links: list[Link] = field(default_factory=list)
    restart_count: int = 0
    manually_stopped: bool = False
    # It holds, or may hold, kernel resources: mounts, a namespace, an OCI container. Set before the
    # first is taken, cleared after the last is given back.
    holding: bool = False
    # Its anonymous volumes go with it. On disk before the first of them is removed.
    remove_volumes: bool = False

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Held while its places on networks change: a container may end while it is being connected.
    network_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    run: Run | None = None
    user_namespace: Path | None = None  # where its own is held, while it runs
    log: Sink | None = None  # where its output goes while it runs
    restart_timer: asyncio.TimerHandle | None = None
    restart_delay: float = 0.0
    ending: bool = False  # its end has been asked for: no policy brings it back
    keep: bool = (
        False  # not to be removed or restarted at its next exit: `docker restart` is at work
    )
    # Clients that attached before the start, and whether they will send input.
    attaching: list[tuple[asyncio.Future[Any], bool]] = field(default_factory=list)
    exit_waiters: list[asyncio.Future[int]] = field(default_factory=list)
    removal_waiters: list[asyncio.Future[int]] = field(default_factory=list)

    # ---- where things are

    @property
    def layers(self) -> Path:
        """Where its own layer is: ``upper`` and ``work`` of the overlay."""
        return self.home / "overlay"

    @property
    def init_layer(self) -> Path:
        """The layer under its own: what the runtime mounts things on (see ``init_layer``)."""
        return self.home.parent.parent / "init-layers" / init_layer.name_of(self.image_id)

    @property
    def rootfs(self) -> Path:
        """Where its root file system is mounted while it runs."""
        return self.home / "rootfs"

    def file(self, name: str) -> Path:
        """Its ``hosts``, ``hostname`` or ``resolv.conf``."""
        return self.home / name

    # ---- short words for what is asked often

    @property
    def tty(self) -> bool:
        return bool(self.config["Tty"])

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.config["Labels"]
        return labels

    @property
    def auto_remove(self) -> bool:
        return bool(self.host_config["AutoRemove"])

    @property
    def network_mode(self) -> str:
        return str(self.host_config["NetworkMode"])

    @property
    def display_name(self) -> str:
        """The name as the API shows it, with its slash."""
        return f"/{self.name}"

    def event_attributes(self) -> dict[str, str]:
        """What every event about it carries."""
        return {**self.labels, "image": str(self.config["Image"]), "name": self.name}

    # ---- on disk

    def encode(self) -> bytes:
        """The document to keep."""
        document: dict[str, Any] = {"format": FORMAT}
        for name in _PLAIN:
            document[name] = getattr(self, name)
        document["state"] = asdict(self.state)
        document["endpoints"] = {name: asdict(e) for name, e in self.endpoints.items()}
        document["ports"] = [asdict(port) for port in self.ports]
        document["mounts"] = [asdict(mount) for mount in self.mounts]
        document["links"] = [asdict(link) for link in self.links]
        return orjson.dumps(document)

    @classmethod
    def decode(cls, data: bytes, home: Path) -> Container:
        """The container that ``encode`` wrote.

        Raises:
            ValueError: the document is not one of ours, or from a later version.
        """
        document = orjson.loads(data)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"{home / 'container.json'} is not a container of format {FORMAT}")
        return cls(
            home=home,
            state=_state(document["state"]),
            endpoints={n: _known(Endpoint, e) for n, e in document["endpoints"].items()},
            ports=[_known(PublishedPort, port) for port in document["ports"]],
            mounts=[_known(MountPoint, mount) for mount in document["mounts"]],
            links=[_known(Link, link) for link in document.get("links", ())],
            **{name: document[name] for name in _PLAIN if name in document},
        )


_PLAIN = (
    "id",
    "name",
    "created_at",
    "image_id",
    "config",
    "host_config",
    "path",
    "args",
    "log_path",
    "restart_count",
    "manually_stopped",
    "holding",
    "account",
    "sandbox",
    "remove_volumes",
)


def _state(document: dict[str, Any]) -> State:
    state = _known(State, document)
    if health := document.get("health"):
        state.health = Health.decode(health)
    return state


_T = TypeVar("_T", bound="DataclassInstance")


def _known(kind: type[_T], values: dict[str, Any]) -> _T:
    names = {f.name for f in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})
