"""Which create requests make sense, judged before anything is made. Texts are dockerd's."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.engine import logs
from wherry.engine.container import (
    devices,
    healthcheck,
    limits,
    links,
    namespaces,
    security,
    signals,
)
from wherry.engine.errors import BadParameter
from wherry.runtime.features import Features

# What clients may call the one runtime there is.
RUNTIMES = ("", "runc", "crun", "io.containerd.runc.v2")
ULIMITS = frozenset(
    (
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
        *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
    )
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What of the machine and the engine decides whether a request makes sense here."""

    features: Features = field(default_factory=Features)
    remapped: bool = False  # containers have user namespaces of their own
    forwards: bool = True


def check(
    config: Mapping[str, Any], host: dict[str, Any], machine: Machine | None = None
) -> list[str]:
    """Judge a complete request; returns warnings for the client.

    Limits that the machine does not know are discarded from ``host``.

    Raises:
        BadParameter: the request contradicts itself or asks for the impossible.
    """
    machine = machine or Machine()
    _check_network(config, host)
    _check_realtime(host, machine.features)
    _check_config(config)
    check_restart(host["RestartPolicy"], auto_remove=host["AutoRemove"])
    _check_ports(config, host)
    security_warnings = security.check(host)
    devices.check(host)
    _check_present(host)
    logs.check_options(host["LogConfig"]["Type"], host["LogConfig"]["Config"])
    warnings = limits.check(host, machine.features)
    namespaces.check(host)
    _check_numbers(host)
    if not machine.forwards and host["NetworkMode"] not in ("host", "none"):
        warnings.append("IPv4 forwarding is disabled. Networking will not work.")
    if host["NetworkMode"] == "host" and host["PortBindings"]:
        warnings.append("Published ports are discarded when using host network mode")
    if machine.remapped:
        namespaces.check_remapped(host)
    if host["CgroupnsMode"] == "private" and not machine.features.cgroup_namespaces:
        warnings.append(
            "Your kernel does not support cgroup namespaces.  Cgroup namespace setting discarded."
        )
        host["CgroupnsMode"] = "host"
    return warnings + security_warnings


def _check_present(host: Mapping[str, Any]) -> None:
    """Refuse what this engine does not have, rather than leave it out in silence."""
    if host.get("StorageOpt"):
        raise BadParameter(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        )
    if host["Isolation"].lower() not in ("", "default"):
        raise BadParameter(
            f"invalid isolation ({host['Isolation']}): linux only supports 'default'"
        )
    if host["Runtime"] not in RUNTIMES:
        raise BadParameter(f"unknown or invalid runtime name: {host['Runtime']}")


def _check_numbers(host: Mapping[str, Any]) -> None:
    if host["ShmSize"] < 0:
        raise BadParameter("SHM size can not be less than 0")
    if not -1000 <= host["OomScoreAdj"] <= 1000:
        raise BadParameter(
            f"Invalid value {host['OomScoreAdj']}, range for oom score adj is [-1000, 1000]"
        )
    for entry in host["Ulimits"]:
        name, soft, hard = entry.get("Name"), entry.get("Soft") or 0, entry.get("Hard") or 0
        if str(name) not in ULIMITS:
            raise BadParameter(f"invalid ulimit type: {name}")
        if not (isinstance(soft, int) and isinstance(hard, int)):
            raise BadParameter(f"invalid ulimit value: {name}={soft}:{hard}")
        if hard != -1 and (soft == -1 or soft > hard):
            raise BadParameter(
                f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )


def _check_realtime(host: Mapping[str, Any], features: Features) -> None:
    period, runtime = host["CpuRealtimePeriod"], host["CpuRealtimeRuntime"]
    if period > 0 and not features.cpu_realtime:
        raise BadParameter("Your kernel does not support CPU real-time scheduler")
    if runtime > 0 and not features.cpu_realtime:
        raise BadParameter("Your kernel does not support CPU real-time scheduler")
    if period and runtime and runtime > period:
        raise BadParameter("cpu real-time runtime cannot be higher than cpu real-time period")


def _check_config(config: Mapping[str, Any]) -> None:
    directory = config["WorkingDir"]
    if directory and not directory.startswith("/"):
        raise BadParameter(
            f"the working directory '{directory}' is invalid, it needs to be an absolute path"
        )
    for variable in config["Env"] or []:
        if variable.startswith("=") or not variable:
            raise BadParameter(f"invalid environment variable: {variable}")
    if config.get("StopSignal"):
        signals.parse(config["StopSignal"])
    healthcheck.validate(config.get("Healthcheck"))


def restart_policy(given: Mapping[str, Any]) -> dict[str, Any]:
    """A ``RestartPolicy`` with both its fields; the name is empty where none is given.

    Raises:
        BadParameter: they are of other types.
    """
    name, count = given.get("Name") or "", given.get("MaximumRetryCount") or 0
    if not isinstance(name, str) or not isinstance(count, int):
        raise BadParameter("invalid JSON: json: cannot unmarshal RestartPolicy")
    return {"Name": name, "MaximumRetryCount": count}


def check_restart(policy: Mapping[str, Any], *, auto_remove: bool) -> None:
    name = policy.get("Name") or "no"
    count = policy.get("MaximumRetryCount") or 0
    if not isinstance(count, int) or not isinstance(name, str):
        raise BadParameter("invalid JSON: RestartPolicy")
    if name not in ("no", "always", "on-failure", "unless-stopped"):
        raise BadParameter(
            f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if name != "on-failure" and count != 0:
        text = "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        raise BadParameter(text + (" and cannot be negative" if count < 0 else ""))
    if count < 0:
        raise BadParameter("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and name != "no":
        raise BadParameter("can't create 'AutoRemove' container with restart policy")


def _check_network(config: Mapping[str, Any], host: Mapping[str, Any]) -> None:
    mode = host["NetworkMode"]
    joins = mode == "container" or mode.startswith("container:")
    if mode in ("container", "container:"):
        raise BadParameter("Invalid network mode: invalid container format container:<name|id>")
    published = host["PortBindings"] or host["PublishAllPorts"]
    for holds, conflict in (
        (joins and config["Hostname"], "hostname and the network mode"),
        (joins and host["Links"], f"container type network {links.CONFLICT}"),
        (joins and host["Dns"], "dns and the network mode"),
        (joins and host["ExtraHosts"], "custom host-to-IP mapping and the network mode"),
        (
            (joins or mode == "host") and config.get("MacAddress"),
            "mac-address and the network mode",
        ),
        (joins and published, "port publishing and the container type network mode"),
        (
            joins and config.get("ExposedPorts"),
            "port exposing and the container type network mode",
        ),
        (host["UTSMode"] == "host" and config["Hostname"], "hostname and the UTS mode"),
        (mode == "host" and host["Links"], f"host type networking {links.CONFLICT}"),
    ):
        if holds:
            raise BadParameter(f"conflicting options: {conflict}")
    for server in host["Dns"] or ():
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise BadParameter(
                f"ParseAddr({server!r}): unable to parse IP".replace("'", '"')
            ) from None
    for entry in host["ExtraHosts"] or []:
        name, separator, address = entry.partition("=" if "=" in entry else ":")
        if not separator or not name:
            raise BadParameter(f'bad format for add-host: "{entry}"')
        if address != "host-gateway":
            try:
                ipaddress.ip_address(address.strip("[]"))
            except ValueError:
                raise BadParameter(f'invalid IP address in add-host: "{address}"') from None


def _check_ports(config: Mapping[str, Any], host: Mapping[str, Any]) -> None:
    from wherry.engine.network.ports import requests

    requests(config.get("ExposedPorts") or {}, host["PortBindings"], publish_all=False)
