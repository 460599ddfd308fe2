"""Which create requests make sense, judged before anything is made. Texts are dockerd's."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Any

from wherry.engine.container import signals
from wherry.engine.errors import BadParameter, NotImplementedByEngine

MINIMUM_MEMORY = 6 << 20
LOG_DRIVERS = ("json-file", "local", "none")


def check(config: Mapping[str, Any], host: Mapping[str, Any]) -> list[str]:
    """Judge a complete request; returns warnings for the client.

    Raises:
        BadParameter: the request contradicts itself or asks for the impossible.
    """
    _check_config(config)
    check_restart(host["RestartPolicy"], auto_remove=host["AutoRemove"])
    _check_network(config, host)
    _check_namespaces(host)
    _check_security(host)
    _check_ports(config, host)
    _check_present(host)
    driver = host["LogConfig"].get("Type") or "json-file"
    if driver not in LOG_DRIVERS:
        raise BadParameter(f"logger: no log driver named '{driver}' is registered")
    warnings = check_resources(host)
    if (config.get("Healthcheck") or {}).get("Test") not in (None, [], ["NONE"]):
        warnings.append("this version of Wherry does not run health checks")
    return warnings


def _check_present(host: Mapping[str, Any]) -> None:
    """Refuse what this engine does not have, rather than leave it out in silence."""
    for field, what in (("VolumesFrom", "--volumes-from"), ("Links", "--link")):
        if host[field]:
            raise NotImplementedByEngine(f"{what} is not available in this version of Wherry")
    for request in host["DeviceRequests"] or []:
        raise BadParameter(
            f'could not select device driver "{request.get("Driver") or ""}" '
            f"with capabilities: {_go_lists(request.get('Capabilities') or [])}"
        )
    if host.get("StorageOpt"):
        raise BadParameter(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
        )
    if host["Isolation"] not in ("", "default"):
        raise BadParameter(f"invalid isolation mode: {host['Isolation']}")
    if host["Runtime"] not in ("", "runc", "crun"):
        raise BadParameter(f"unknown or invalid runtime name: {host['Runtime']}")


def _go_lists(value: Any) -> str:
    """Lists as Go prints them: blanks between the elements, no quotes."""
    if isinstance(value, list):
        return "[" + " ".join(map(_go_lists, value)) + "]"
    return str(value)


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
    hostname = config["Hostname"]
    if hostname and (
        len(hostname) > 63
        or not re.fullmatch(r"[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?", hostname)
    ):
        raise BadParameter(f"invalid hostname format: {hostname}")


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
    if host["UTSMode"] == "host" and config["Hostname"]:
        raise BadParameter("conflicting options: hostname and the UTS mode")
    if mode.startswith("container:"):
        if not mode.removeprefix("container:"):
            raise BadParameter("Invalid network mode: invalid container format container:<name|id>")
        if config["Hostname"]:
            raise BadParameter("conflicting options: hostname and the network mode")
        if host["Dns"]:
            raise BadParameter("conflicting options: dns and the network mode")
        if host["ExtraHosts"]:
            raise BadParameter(
                "conflicting options: custom host-to-IP mapping and the network mode"
            )
        if host["PortBindings"] or host["PublishAllPorts"]:
            raise BadParameter(
                "conflicting options: port publishing and the container type network mode"
            )
        if config.get("ExposedPorts"):
            raise BadParameter(
                "conflicting options: port exposing and the container type network mode"
            )
    for server in host["Dns"]:
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


def _check_namespaces(host: Mapping[str, Any]) -> None:
    for field, label, allowed in (
        ("PidMode", "PID", ("", "host")),
        ("IpcMode", "IPC", ("", "none", "private", "shareable", "host")),
        ("UTSMode", "UTS", ("", "host")),
        ("UsernsMode", "user namespace", ("", "host")),
    ):
        value = host[field]
        joins = value.startswith("container:") and field in ("PidMode", "IpcMode")
        if not (value in allowed or (joins and value != "container:")):
            raise BadParameter(f"invalid {label} mode: {value}")
    if host["CgroupnsMode"] not in ("", "private", "host"):
        raise BadParameter(f"invalid cgroup namespace mode: {host['CgroupnsMode']}")


_CAPABILITY = re.compile(r"(?:CAP_)?[A-Z_]+")


def _check_security(host: Mapping[str, Any]) -> None:
    from wherry.runtime.capabilities import ALL

    known = {capability.removeprefix("CAP_") for capability in ALL}
    for name in [*(host["CapAdd"] or []), *(host["CapDrop"] or [])]:
        upper = name.upper()
        if upper != "ALL" and upper.removeprefix("CAP_") not in known:
            raise BadParameter(
                f'invalid capability: unknown capability: "CAP_{upper.removeprefix("CAP_")}"'
            )
    for option in host["SecurityOpt"] or []:
        key, separator, value = option.partition("=" if "=" in option else ":")
        if option == "no-new-privileges":
            continue
        if not separator:
            raise BadParameter(f"invalid --security-opt 1: {option!r}".replace("'", '"'))
        if key == "no-new-privileges":
            if value not in ("true", "false"):
                raise BadParameter(f"invalid --security-opt 2: {option!r}".replace("'", '"'))
        elif key not in ("seccomp", "apparmor", "label", "systempaths", "writable-cgroups"):
            raise BadParameter(f"invalid --security-opt 2: {option!r}".replace("'", '"'))


def _check_ports(config: Mapping[str, Any], host: Mapping[str, Any]) -> None:
    from wherry.engine.network.ports import requests

    requests(config.get("ExposedPorts") or {}, host["PortBindings"], publish_all=False)


def check_resources(host: Mapping[str, Any]) -> list[str]:
    """The limits of a request for creation or update; returns warnings."""
    memory, swap = host["Memory"], host["MemorySwap"]
    reservation, swappiness = host["MemoryReservation"], host["MemorySwappiness"]
    if 0 < memory < MINIMUM_MEMORY or memory < 0:
        raise BadParameter("Minimum memory limit allowed is 6MB")
    if memory and 0 < swap < memory:
        raise BadParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not memory and swap > 0:
        raise BadParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise BadParameter(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if 0 < reservation < MINIMUM_MEMORY:
        raise BadParameter("Minimum memory reservation allowed is 6MB")
    if memory and reservation > memory:
        raise BadParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    _check_cpu(host)
    weight = host["BlkioWeight"]
    if weight and not 10 <= weight <= 1000:
        raise BadParameter("Range of blkio weight is from 10 to 1000")
    if host["OomScoreAdj"] < -1000 or host["OomScoreAdj"] > 1000:
        raise BadParameter(
            f"Invalid value {host['OomScoreAdj']}, range for oom score adj is [-1000, 1000]"
        )
    if host["ShmSize"] < 0:
        raise BadParameter("SHM size can not be less than 0")
    warnings = []
    if host["OomKillDisable"] and not memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    return warnings


def _check_cpu(host: Mapping[str, Any]) -> None:
    nano, period, quota = host["NanoCpus"], host["CpuPeriod"], host["CpuQuota"]
    if nano and period:
        raise BadParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if nano and quota:
        raise BadParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    cpus = len(os.sched_getaffinity(0))
    if nano < 0 or nano > cpus * 1_000_000_000:
        raise BadParameter(
            f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )
    if period and not 1000 <= period <= 1_000_000:
        raise BadParameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota < 1000:
        raise BadParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host["CpuShares"] < 0:
        raise BadParameter(
            f"invalid CPU shares ({host['CpuShares']}): value must be a positive integer"
        )
    for field, what in (("CpusetCpus", "cpus"), ("CpusetMems", "mems")):
        if host[field] and not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", host[field]):
            raise BadParameter(f"Invalid value {host[field]} for cpuset {what}")
