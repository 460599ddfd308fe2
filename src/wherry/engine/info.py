"""``docker info``: the engine and the machine it runs on."""

from __future__ import annotations

import os
import platform
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry import __version__
from wherry.engine.container.rules import LOG_DRIVERS
from wherry.engine.container.units import timestamp

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def machine() -> str:
    """The processor architecture as Go calls it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def kernel_version() -> str:
    """The running kernel's release."""
    return os.uname().release


@cache
def operating_system(source: Path = Path("/etc/os-release")) -> tuple[str, str]:
    """The distribution's pretty name and its version."""
    try:
        lines = source.read_text().splitlines()
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
    """SystemInfo of the API."""
    containers = engine.containers.store.all()
    paused = sum(c.state.paused for c in containers)
    running = sum(c.state.running for c in containers) - paused
    name, number = operating_system()
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    versions = await engine.component_versions()
    oci = next((key for key in versions if key in ("crun", "runc")), "runc")
    return {
        "ID": engine.id,
        "Containers": len(containers),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(containers) - running - paused,
        "Images": len(engine.images.list()),
        "Driver": "overlay2",
        "DriverStatus": [
            ["Backing Filesystem", engine.filesystem()],
            ["Native Overlay Diff", "true"],
        ],
        "Plugins": {
            "Volume": [],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": [driver for driver in LOG_DRIVERS if driver != "none"],
        },
        "MemoryLimit": True,
        "SwapLimit": unified or Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "IPv4Forwarding": _switch("/proc/sys/net/ipv4/ip_forward"),
        "Debug": False,
        "NFd": len(list(Path("/proc/self/fd").iterdir())),
        "OomKillDisable": not unified,
        "NGoroutines": 0,
        "SystemTime": timestamp(time.time_ns()),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if unified else "1",
        "NEventsListener": engine.events.listeners,
        "KernelVersion": kernel_version(),
        "OperatingSystem": name,
        "OSVersion": number,
        "OSType": "linux",
        "Architecture": platform.machine(),
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": total_memory(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "IndexConfigs": {
                "docker.io": {"Mirrors": [], "Name": "docker.io", "Official": True, "Secure": True}
            },
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
            "Mirrors": None,
        },
        "GenericResources": None,
        "DockerRootDir": str(engine.config.data_dir),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": engine.config.name,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": __version__,
        "Runtimes": {oci: {"path": oci}},
        "DefaultRuntime": oci,
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
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "CDISpecDirs": [],
        "Warnings": None,
    }


def _switch(path: str) -> bool:
    try:
        return Path(path).read_text().strip() == "1"
    except OSError:
        return False
