"""``docker info``: the engine and the machine it runs on."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import time
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry import __version__
from wherry.engine.container.rules import RUNTIMES
from wherry.engine.container.units import timestamp
from wherry.engine.image.distribution.endpoints import Settings
from wherry.engine.logs import DRIVERS
from wherry.runtime.features import Features

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

NETWORK_DRIVERS = ("bridge", "host", "macvlan", "null")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def machine() -> str:
    """The processor architecture as Go calls it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def kernel_version() -> str:
    """The running kernel's release."""
    return os.uname().release


@cache
def operating_system() -> tuple[str, str]:
    """The distribution's pretty name and its version."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except FileNotFoundError:
        return "Linux", ""
    values = {
        name: value.strip("\"'") for name, _, value in (line.partition("=") for line in lines)
    }
    return values.get("PRETTY_NAME", "Linux"), values.get("VERSION_ID", "")


def total_memory() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def info(engine: Engine) -> dict[str, Any]:
    """SystemInfo of the API, in its current form."""
    containers = engine.containers.store.all()
    states = Counter(container.state.status for container in containers)
    name, number = operating_system()
    features = engine.runtime.features
    remapped = engine.containers.lifecycle.resources.remapping is not None
    versions = await engine.component_versions()
    oci = next((key for key in versions if key in ("crun", "runc")), "runc")
    forwarding = _switch("/proc/sys/net/ipv4/ip_forward")
    return {
        "ID": engine.id,
        "Containers": len(containers),
        "ContainersRunning": states["running"],
        "ContainersPaused": states["paused"],
        "ContainersStopped": len(containers) - states["running"] - states["paused"],
        "Images": len(engine.images.list()),
        "Driver": "overlay2",
        "DriverStatus": [
            ["Backing Filesystem", engine.filesystem()],
            ["Supports d_type", "true"],
            ["Using metacopy", "false"],
            ["Native Overlay Diff", "true"],
            ["userxattr", "false"],
        ],
        "Plugins": {
            "Volume": ["local"],
            "Network": list(NETWORK_DRIVERS),
            "Authorization": None,
            "Log": list(DRIVERS),
        },
        "MemoryLimit": features.memory,
        "SwapLimit": features.swap,
        "CpuCfsPeriod": features.cpu_quota,
        "CpuCfsQuota": features.cpu_quota,
        "CPUShares": features.cpu_shares,
        "CPUSet": features.cpuset,
        "PidsLimit": features.pids,
        "IPv4Forwarding": forwarding,
        "Debug": False,
        "NFd": len(os.listdir("/proc/self/fd")),  # noqa: PTH208  names are enough
        "OomKillDisable": features.oom_kill_disable,
        "NGoroutines": len(asyncio.all_tasks()),
        "SystemTime": timestamp(time.time_ns()),
        "LoggingDriver": engine.options.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if features.cgroup_v2 else "1",
        "NEventsListener": engine.events.listeners,
        "KernelVersion": kernel_version(),
        "OperatingSystem": name,
        "OSVersion": number,
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": total_memory(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registries(engine.options.registries),
        "GenericResources": None,
        "DockerRootDir": str(engine.config.data_dir),
        "HttpProxy": _proxy("HTTP_PROXY"),
        "HttpsProxy": _proxy("HTTPS_PROXY"),
        "NoProxy": _proxy("NO_PROXY"),
        "Name": engine.config.name,
        "Labels": list(engine.options.labels),
        "ExperimentalBuild": False,
        "ServerVersion": __version__,
        # Clients know the default by this name, whichever program it is.
        "Runtimes": {name: {"path": oci} for name in sorted(filter(None, RUNTIMES))},
        "DefaultRuntime": "runc",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "catatonit",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": versions.get(oci, "")},
        "InitCommit": {"ID": versions.get("catatonit", "")},
        "SecurityOptions": _security(features, remapped=remapped),
        "FirewallBackend": {"Driver": "nftables"},
        "CDISpecDirs": [],
        "Warnings": warnings(features, forwarding=forwarding) or None,
    }


def _security(features: Features, *, remapped: bool) -> list[str]:
    options = ["name=seccomp,profile=builtin"]
    if features.cgroup_namespaces and features.cgroup_v2:
        options.append("name=cgroupns")
    if remapped:
        options.append("name=userns")
    return options


def warnings(features: Features, *, forwarding: bool) -> list[str]:
    """What ``docker info`` warns of at its end: limits that this kernel cannot set."""
    old = not features.cgroup_v2
    throttles = (
        ("throttle.read_bps_device", "rbps"),
        ("throttle.write_bps_device", "wbps"),
        ("throttle.read_iops_device", "riops"),
        ("throttle.write_iops_device", "wiops"),
    )
    lacking = (
        (not features.memory, "No memory limit support"),
        (not features.swap, "No swap limit support"),
        (old and not features.kernel_memory_tcp, "No kernel memory TCP limit support"),
        (old and not features.oom_kill_disable, "No oom kill disable support"),
        (not features.cpu_quota, "No cpu cfs quota support"),
        (not features.cpu_quota, "No cpu cfs period support"),
        (not features.cpu_shares, "No cpu shares support"),
        (not features.cpuset, "No cpuset support"),
        (not old and not features.block_weight, "No io.weight support"),
        (not old and not features.block_weight_device, "No io.weight (per device) support"),
        *(
            (
                not features.block_throttle,
                f"No blkio {v1} support" if old else f"No io.max ({v2}) support",
            )
            for v1, v2 in throttles
        ),
        (not forwarding, "IPv4 forwarding is disabled"),
    )
    return [f"WARNING: {text}" for missing, text in lacking if missing]


def _proxy(name: str) -> str:
    """A proxy as the environment has it, its password hidden."""
    value = os.environ.get(name) or os.environ.get(name.lower()) or ""
    return re.sub(r"(?<=://)[^/@]*@", "xxxxx:xxxxx@", value)


def _switch(path: str) -> bool:
    try:
        return Path(path).read_text().strip() == "1"
    except OSError:
        return False


def _registries(settings: Settings) -> dict[str, Any]:
    """``RegistryConfig``: the registries that are treated specially."""
    hosts = [entry for entry in settings.insecure if "/" not in entry]
    ranges = [entry for entry in settings.insecure if "/" in entry]
    mirrors = [f"{mirror.rstrip('/')}/" for mirror in settings.mirrors]
    indexes = {
        host: {"Mirrors": [], "Name": host, "Official": False, "Secure": False} for host in hosts
    }
    indexes["docker.io"] = {
        "Mirrors": mirrors,
        "Name": "docker.io",
        "Official": True,
        "Secure": True,
    }
    return {
        "IndexConfigs": indexes,
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *ranges],
        "Mirrors": mirrors or None,
    }
