"""Creating a container: from the body of a create request to a directory that stands for it."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry.engine.container import (
    links,
    merge,
    mounts,
    names,
    options,
    rules,
    security,
    working_directory,
)
from wherry.engine.container.container import Container, Link
from wherry.engine.container.mount_options import decode_mounts
from wherry.engine.container.mounts import NEWEST
from wherry.engine.container.spec import INIT_PROGRAM
from wherry.engine.container.store import ContainerStore
from wherry.engine.container.volume_claims import VolumeClaims
from wherry.engine.errors import BadParameter, EngineError
from wherry.engine.events import EventBus
from wherry.engine.image.manifest import Platform, parse_platform
from wherry.engine.image.store import ImageStore, check_platform
from wherry.engine.image.threads import in_thread
from wherry.engine.logs import DEFAULT
from wherry.engine.network import endpoints
from wherry.engine.network.network import Network
from wherry.host.files import sync_directory

# Joining a container by name means that container, whatever it is called later.
_JOINING = ("NetworkMode", "IpcMode", "PidMode")


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A decoded request; ``log_path`` overrides where the container's output is kept.

    ``version`` is that of the API that the client speaks.
    """

    config: dict[str, Any]
    host_config: dict[str, Any]
    endpoints: Mapping[str, Any] = field(default_factory=dict)
    log_path: Path | None = None
    platform: Platform | None = None
    version: tuple[int, int] = NEWEST


def decode(body: Any, platform: str = "", *, version: tuple[int, int] = NEWEST) -> CreateRequest:
    """The request in the body of ``POST /containers/create``; ``platform`` is a parameter of it.

    Raises:
        BadParameter: it has not the form that the API says.
    """
    if body is not None and not isinstance(body, dict):
        raise BadParameter(
            f"invalid JSON: json: cannot unmarshal {options.json_name(body)} into Go value of type "
            "container.CreateRequest"
        )
    if not body or options.CONFIG.keys().isdisjoint(body):
        raise BadParameter("config cannot be empty in order to create a container")
    networking = body.get("NetworkingConfig") or {}
    endpoints = networking.get("EndpointsConfig") if isinstance(networking, dict) else None
    if endpoints is not None and not isinstance(endpoints, dict):
        raise BadParameter("invalid JSON: EndpointsConfig is not an object")
    path = "CreateRequest.HostConfig"
    host = options.decode(options.HOST_CONFIG, body.get("HostConfig"), path)
    if "Mounts" in host:
        host["Mounts"] = decode_mounts(host["Mounts"], f"{path}.Mounts")
    for name in ("Mounts", "Tmpfs"):
        if name in host and not host[name]:
            del host[name]
    return CreateRequest(
        config=options.decode(options.CONFIG, body, "CreateRequest"),
        host_config=host,
        endpoints=endpoints or {},
        platform=parse_platform(platform) if platform else None,
        version=version,
    )


def normalise(host: dict[str, Any], *, cgroup_v2: bool = True) -> None:
    """Fill in, in place, what follows from other options, as dockerd does."""
    if host["NetworkMode"] in ("", "default"):
        host["NetworkMode"] = "bridge"
    policy = host["RestartPolicy"]
    host["RestartPolicy"] = {
        "Name": policy.get("Name") or "no",
        "MaximumRetryCount": policy.get("MaximumRetryCount") or 0,
    }
    log_config = options.decode(
        options.LOG_CONFIG, host["LogConfig"], "CreateRequest.HostConfig.LogConfig"
    )
    host["LogConfig"] = log_config | {"Type": log_config["Type"] or DEFAULT}
    if host["Memory"] and not host["MemorySwap"]:
        host["MemorySwap"] = host["Memory"] * 2
    host["IpcMode"] = host["IpcMode"] or "private"
    if not host["CgroupnsMode"]:
        # Where groups of v1 are shown to the container it could do little with a view of its own.
        own = cgroup_v2 and not host["Privileged"]
        host["CgroupnsMode"] = "private" if own else "host"
    host["Runtime"] = host["Runtime"] or "runc"
    if host["OomKillDisable"] is None:
        host["OomKillDisable"] = False
    security.complete(host)
    host["ShmSize"] = host["ShmSize"] or 64 << 20
    if host["PidsLimit"] is not None and host["PidsLimit"] <= 0:
        host["PidsLimit"] = None
    bindings = {}
    for port, hosts in host["PortBindings"].items():
        number, _, protocol = str(port).partition("/")
        bindings[f"{number}/{protocol or 'tcp'}"] = hosts or [{"HostIp": "", "HostPort": ""}]
    host["PortBindings"] = bindings


class Creator:
    """Makes containers in a store."""

    def __init__(
        self,
        store: ContainerStore,
        images: ImageStore,
        events: EventBus,
        claims: VolumeClaims,
        machine: Callable[[], rules.Machine],
        find_network: Callable[[str], Network | None],
    ) -> None:
        self._store = store
        self._find_network = find_network
        self._images = images
        self._events = events
        self._claims = claims
        self._making: dict[str, str] = {}  # id of a container → id of its image
        self._machine = machine

    async def create(self, request: CreateRequest, name: str = "") -> tuple[Container, list[str]]:
        """Make a container called ``name``, or something pleasant; returns it and warnings.

        When this returns it is on disk, power cut or not.

        Raises:
            BadParameter: the request makes no sense.
            NotFound: there is no such image, or no such container to join.
            Conflict: the name is taken.
        """
        host = request.host_config
        machine = self._machine()
        normalise(host, cgroup_v2=machine.features.cgroup_v2)
        warnings = rules.check(request.config, host, machine)
        if not any(request.config[name] for name in ("Image", "Cmd", "Entrypoint")):
            raise BadParameter("no command specified")
        image = self._images.resolve(request.config["Image"])
        check_platform(image, request.platform)
        image_config = image.config.get("config") or {}
        config = merge.merge_image(request.config, image_config)
        joined = self._resolve_joined(host)
        places = {}
        if not request.config.get("NetworkDisabled"):
            places = endpoints.requested(
                request.endpoints,
                host["NetworkMode"],
                request.config.get("MacAddress") or "",
                self._find_network,
            )
        linked = self._resolve_links(host)
        wanted = mounts.wanted(config, host, self._mount_context(request))
        if host.get("Init") and not INIT_PROGRAM.exists():
            raise EngineError(f"--init needs {INIT_PROGRAM} on the host (Debian: catatonit)")
        identifier = self._store.new_id()
        self._set_hostname(config, host, identifier, joined)
        program, args = merge.command(config)
        name = self._take_name(name, identifier)
        home = self._store.root / identifier
        container = Container(
            id=identifier,
            name=name,
            created_at=time.time_ns(),
            image_id=image.id,
            config=config,
            host_config=host,
            path=program,
            args=args,
            home=home,
            log_path=str(request.log_path or ""),
            endpoints=places,
            links=linked,
        )
        self._making[identifier] = image.id
        try:
            home.mkdir(mode=0o710)
            await self._claims.claim(container, wanted, image)
            if config["WorkingDir"]:
                layers = self._images.layers(image)
                await in_thread(lambda: working_directory.make_at_creation(container, layers))
            self._store.save(container)
            sync_directory(self._store.root)
            self._claims.settle(container, wanted)
        except BaseException as error:
            self._store.release_name(name, identifier)
            self._claims.abandon(container, wanted)
            shutil.rmtree(home, ignore_errors=True)
            if isinstance(error, OSError):
                raise EngineError(f"cannot create the container: {error}") from error
            raise
        finally:
            del self._making[identifier]
        self._store.add(container)
        self._events.publish("container", "create", identifier, container.event_attributes())
        return container, warnings

    def using_image(self, image_id: str) -> list[str]:
        """The containers that are being made from an image and are in no store yet."""
        return [id for id, image in self._making.items() if image == image_id]

    def _mount_context(self, request: CreateRequest) -> mounts.Context:
        return mounts.Context(
            daemon_root=self._store.root.parent, find=self._store.find, version=request.version
        )

    def _take_name(self, name: str, identifier: str) -> str:
        if not name:
            return self._store.generate_name(identifier)
        bare = names.check(name)
        self._store.reserve_name(bare, identifier)
        return bare

    def _resolve_joined(self, host: dict[str, Any]) -> Container | None:
        """Replace names by ids in ``container:`` modes; returns whose network is joined."""
        network: Container | None = None
        for field_name in _JOINING:
            kind, separator, reference = str(host[field_name]).partition(":")
            if kind != "container" or not separator:
                continue
            other = self._store.find(reference)
            if other is None and field_name == "NetworkMode":
                continue  # it may come to be before this one is started
            if other is None:
                raise BadParameter(f"No such container: {reference}")
            host[field_name] = f"container:{other.id}"
            if field_name == "NetworkMode":
                network = other
        return network

    def _resolve_links(self, host: dict[str, Any]) -> list[Link]:
        """Links of the default bridge; they are shown by the names of the day."""
        wanted, host["Links"] = host["Links"] or (), None
        return links.resolve(wanted, self._store) if links.of_old(host["NetworkMode"]) else []

    @staticmethod
    def _set_hostname(
        config: dict[str, Any], host: Mapping[str, Any], id: str, joined: Container | None
    ) -> None:
        if joined is not None:
            config["Hostname"] = joined.config["Hostname"]
            config["Domainname"] = joined.config["Domainname"]
        elif not config["Hostname"]:
            shares = host["NetworkMode"] == "host"
            config["Hostname"] = socket.gethostname() if shares else id[:12]
