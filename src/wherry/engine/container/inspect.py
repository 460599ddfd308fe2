"""``docker inspect`` and ``docker ps``: containers as the Engine API shows them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from wherry.engine import logs
from wherry.engine.container.container import Container, Endpoint, MountPoint
from wherry.engine.container.units import human_duration, timestamp
from wherry.engine.network import endpoints
from wherry.engine.network.ports import by_container_port, parse_port


def inspect(
    container: Container,
    *,
    driver_data: Mapping[str, str],
    exec_ids: list[str] | None,
    links: list[str] | None = None,
    sizes: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """ContainerInspectResponse. ``sizes`` are bytes of its own layer and of everything."""
    state = container.state
    document: dict[str, Any] = {
        "Id": container.id,
        "Created": timestamp(container.created_at),
        "Path": container.path,
        "Args": container.args,
        "State": {
            "Status": state.status,
            "Running": state.running,
            "Paused": state.paused,
            "Restarting": state.restarting,
            "OOMKilled": state.oom_killed,
            "Dead": state.dead,
            "Pid": state.pid,
            "ExitCode": state.exit_code,
            "Error": state.error,
            "StartedAt": timestamp(state.started_at),
            "FinishedAt": timestamp(state.finished_at),
        },
        "Image": container.image_id,
        "ResolvConfPath": str(container.file("resolv.conf")),
        "HostnamePath": str(container.file("hostname")),
        "HostsPath": str(container.file("hosts")),
        "LogPath": logs.shown_path(container),
        "Name": container.display_name,
        "RestartCount": container.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": exec_ids,
        "HostConfig": {**container.host_config, "Links": links},
        "GraphDriver": {"Data": dict(driver_data), "Name": "overlay2"},
    }
    if state.health is not None:
        document["State"]["Health"] = state.health.shown()
    if sizes is not None:
        document["SizeRw"], document["SizeRootFs"] = sizes
    document["Mounts"] = [mount(point) for point in container.mounts if point.listed]
    document["Config"] = container.config
    document["NetworkSettings"] = network_settings(container)
    return document


def mount(point: MountPoint) -> dict[str, Any]:
    """MountPoint of the API."""
    shown: dict[str, Any] = {"Type": point.type}
    if point.name:
        shown["Name"] = point.name
    shown |= {"Source": point.source, "Destination": point.destination}
    if point.driver:
        shown["Driver"] = point.driver
    return shown | {
        "Mode": point.mode,
        "RW": point.writable,
        "Propagation": point.propagation,
    }


def network_settings(container: Container) -> dict[str, Any]:
    """NetworkSettings of the API, with the old fields that speak of the default bridge alone."""
    default = container.endpoints.get("bridge") or Endpoint("bridge")
    own = container.holding and container.state.running and bool(container.sandbox)
    return {
        "Bridge": "",
        "SandboxID": container.id if own else "",
        "SandboxKey": container.sandbox if own else "",
        "Ports": ports(container),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": default.endpoint_id,
        "Gateway": default.gateway,
        "GlobalIPv6Address": default.address6,
        "GlobalIPv6PrefixLen": default.prefix_length6,
        "IPAddress": default.address,
        "IPPrefixLen": default.prefix_length,
        "IPv6Gateway": default.gateway6,
        "MacAddress": default.mac_address,
        "Networks": {
            name: endpoints.inspect(e, container) for name, e in container.endpoints.items()
        },
    }


def ports(container: Container) -> dict[str, list[dict[str, str]] | None]:
    """Exposed and published ports; none while nothing runs that could answer."""
    if not container.state.running or not container.endpoints:
        return {}
    return by_container_port(container.config.get("ExposedPorts") or {}, container.ports)


def summary(
    container: Container,
    image: str,
    *,
    names: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    now: float | None = None,
) -> dict[str, Any]:
    """One entry of ``GET /containers/json``; ``image`` is what to call its image today.

    ``names`` are what others call it by their links.
    """
    shown: dict[str, Any] = {
        "Id": container.id,
        "Names": [container.display_name, *names],
        "Image": image,
        "ImageID": container.image_id,
        "Command": command_line(container),
        "Created": container.created_at // 1_000_000_000,
        "Ports": _summary_ports(container),
    }
    if size is not None:
        shown["SizeRw"], shown["SizeRootFs"] = size
    shown |= {
        "Labels": container.labels,
        "State": container.state.status,
        "Status": status_line(container, now),
        "HostConfig": {"NetworkMode": container.network_mode},
        "NetworkSettings": {
            "Networks": {name: endpoints.inspect(e) for name, e in container.endpoints.items()}
        },
        "Mounts": [mount(point) for point in container.mounts if point.listed],
    }
    if annotations := container.host_config.get("Annotations"):
        shown["HostConfig"]["Annotations"] = annotations
    return shown


def command_line(container: Container) -> str:
    """The command on one line; arguments with blanks are quoted."""
    args = (f"'{arg}'" if " " in arg else arg for arg in container.args)
    return " ".join([container.path, *args])


def _summary_ports(container: Container) -> list[dict[str, Any]]:
    if not container.state.running:
        return []
    shown: list[dict[str, Any]] = []
    for key, bindings in ports(container).items():
        number, protocol = parse_port(key)
        for binding in bindings or [{}]:
            port: dict[str, Any] = {"PrivatePort": number, "Type": protocol}
            if binding:
                port = {
                    "IP": binding["HostIp"],
                    "PrivatePort": number,
                    "PublicPort": int(binding["HostPort"]),
                    "Type": protocol,
                }
            shown.append(port)
    return shown


def status_line(container: Container, now: float | None = None) -> str:
    """The STATUS column of ``docker ps``."""
    state = container.state
    moment = time.time() if now is None else now

    def ago(nanoseconds: int) -> str:
        return human_duration(moment - nanoseconds / 1e9)

    match state.status:
        case "paused":
            return f"Up {ago(state.started_at)} (Paused)"
        case "restarting":
            return f"Restarting ({state.exit_code}) {ago(state.finished_at)} ago"
        case "running":
            health = f" ({state.health.words})" if state.health is not None else ""
            return f"Up {ago(state.started_at)}{health}"
        case "removing":
            return "Removal In Progress"
        case "dead":
            return "Dead"
        case "created":
            return "Created"
        case _:
            return f"Exited ({state.exit_code}) {ago(state.finished_at)} ago"
