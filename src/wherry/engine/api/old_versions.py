"""What clients of older versions of the API mean, and what they expect to see.

Pure functions on documents: requests are brought to the meaning of the current version before they
are decoded, answers back to the form of the client's (Docker Engine API, "API version history").
What an answer lacks in old versions is taken out here; images have their own such rules in
``engine.image.views``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.engine.container.units import ZERO_TIME
from wherry.engine.errors import BadParameter

Version = tuple[int, int]
_PREDEFINED = ("bridge", "host", "none", "default", "")


def asked(body: Any, version: Version) -> Any:
    """The body of ``POST /containers/create`` as the current version would say it.

    A body of the wrong form is left to the decoder. ``body`` is not changed.

    Raises:
        BadParameter: it uses what the version does not have, and dropping it would be dangerous.
    """
    if version >= (1, 48) or not isinstance(body, dict):
        return body
    host = body.get("HostConfig")
    changed = dict(body)
    if isinstance(host, dict):
        changed["HostConfig"] = _asked_host(dict(host), version)
    elif host is None and version < (1, 41):
        changed["HostConfig"] = _asked_host({}, version)
    if version < (1, 44):
        check = body.get("Healthcheck")
        if isinstance(check, dict) and check.get("StartInterval"):
            changed["Healthcheck"] = check | {"StartInterval": 0}
        _one_network(body.get("NetworkingConfig"))
    return changed


def _asked_host(host: dict[str, Any], version: Version) -> dict[str, Any]:
    if version < (1, 40) and not host.get("IpcMode"):
        host["IpcMode"] = "shareable"
    if version < (1, 41) and not host.get("CgroupnsMode"):
        host["CgroupnsMode"] = "host"
    if version < (1, 42):
        host["ConsoleSize"] = None
    if version < (1, 43):
        host.pop("Annotations", None)
    mounts = host.get("Mounts")
    if isinstance(mounts, list):
        host["Mounts"] = [
            _asked_mount(dict(mount), version) if isinstance(mount, dict) else mount
            for mount in mounts
        ]
    return host


def _asked_mount(mount: dict[str, Any], version: Version) -> dict[str, Any]:
    kind = mount.get("Type")
    if kind == "image":
        raise BadParameter('Mount type "Image" needs API v1.48 or newer')
    options = mount.get("BindOptions")
    bind = dict(options) if isinstance(options, dict) else {}
    if version < (1, 40):
        bind.pop("NonRecursive", None)
    if version < (1, 42):
        bind.pop("CreateMountpoint", None)
    if version < (1, 44):
        # Silently leaving a mount writable, whose client wants none of it so, would be worse.
        if bind.get("ReadOnlyForceRecursive"):
            raise BadParameter("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
        if kind == "bind" and mount.get("ReadOnly"):
            bind["ReadOnlyNonRecursive"] = True
    volume = mount.get("VolumeOptions")
    if version < (1, 45) and isinstance(volume, dict) and volume.get("Subpath"):
        raise BadParameter("VolumeOptions.Subpath needs API v1.45 or newer")
    if bind != (options or {}):
        mount["BindOptions"] = bind
    return mount


def _one_network(networking: Any) -> None:
    endpoints = networking.get("EndpointsConfig") if isinstance(networking, dict) else None
    if isinstance(endpoints, dict) and len(endpoints) > 1:
        names = ", ".join(sorted(endpoints))
        raise BadParameter(f"Container cannot be created with multiple network endpoints: {names}")


def inspected(document: dict[str, Any], version: Version) -> dict[str, Any]:
    """``GET /containers/{id}/json``, changed in place where it is not the client's own."""
    if version >= (1, 45):
        return document
    if document["State"]["StartedAt"] == ZERO_TIME:
        return document  # these names came with the first start; docker-compose 1 relies on it
    short, hostname = document["Id"][:12], document["Config"].get("Hostname")
    networks = document["NetworkSettings"]["Networks"]
    for name, settings in networks.items():
        if name not in _PREDEFINED:
            aliases = [*(settings.get("Aliases") or ()), short, hostname]
            networks[name] = settings | {"Aliases": list(dict.fromkeys(filter(None, aliases)))}
    return document


def listed(entry: dict[str, Any], version: Version) -> dict[str, Any]:
    """An entry of ``GET /containers/json``, changed in place where it is not the client's own."""
    if version < (1, 46):
        entry["HostConfig"].pop("Annotations", None)
    return entry


def tells(message: Mapping[str, Any], version: Version) -> bool:
    """Whether clients of ``version`` are told of an event at all."""
    return version >= (1, 46) or message["Type"] != "image" or message["Action"] != "create"


def info(document: dict[str, Any], version: Version) -> dict[str, Any]:
    """``GET /info``, changed in place."""
    if version < (1, 50):
        document.pop("DiscoveredDevices", None)
    if version < (1, 49):
        document.pop("FirewallBackend", None)
        document["BridgeNfIptables"] = document["BridgeNfIp6tables"] = False
        for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            document[name]["Expected"] = document[name]["ID"]
    if version < (1, 48):
        document["RegistryConfig"] |= {
            "AllowNondistributableArtifactsCIDRs": None,
            "AllowNondistributableArtifactsHostnames": None,
        }
    if version < (1, 46):
        document.pop("Containerd", None)
    if version < (1, 44):
        for runtime in document["Runtimes"].values():
            runtime.pop("status", None)
    if version < (1, 42):
        document["KernelMemory"] = document["KernelMemoryTCP"] = False
        document["ClusterStore"] = document["ClusterAdvertise"] = ""
        document["SystemStatus"] = None
    if version < (1, 39):
        for name in ("KernelVersion", "OperatingSystem"):
            document[name] = document[name] or "<unknown>"
    if version < (1, 25):
        document["ExecutionDriver"] = "<not supported>"
        document["SecurityOptions"] = [_bare(text) for text in document["SecurityOptions"]]
    return document


def _bare(option: str) -> str:
    """The name alone of a security option such as ``name=seccomp,profile=builtin``."""
    for part in option.split(","):
        name, _, value = part.partition("=")
        if name == "name":
            return value
    return option
