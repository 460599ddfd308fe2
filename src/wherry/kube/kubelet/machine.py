"""Facts about this machine, read from the kernel: what a Node tells of itself."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from wherry.engine.cri.types import DNSConfig

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while it runs. Sizes are bytes."""

    cpus: int
    memory: int
    disk: int
    huge_pages: dict[str, int]  # by size: "2Mi": bytes
    swap: int
    architecture: str
    kernel: str
    os_image: str
    machine_id: str
    boot_id: str
    hostname: str
    system_uuid: str = ""


def read_machine(disk: Path) -> Machine:
    """The facts; ``disk`` lies on the file system that pods use."""
    memory = _meminfo()
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        memory=memory.get("MemTotal", 0),
        disk=shutil.disk_usage(disk).total,
        huge_pages=_huge_pages(),
        swap=memory.get("SwapTotal", 0),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        kernel=platform.release(),
        os_image=_os_image(),
        machine_id=_first_line("/etc/machine-id"),
        boot_id=_first_line("/proc/sys/kernel/random/boot_id"),
        hostname=socket.gethostname().lower(),
        system_uuid=_first_line("/sys/class/dmi/id/product_uuid").lower(),
    )


def host_dns() -> DNSConfig:
    """The host's resolver."""
    found: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if words[:1] == ["search"]:
            found["search"] = [w for w in words[1:] if w != "."]
        elif words and words[0] in found:
            found[words[0]] += words[1:]
    return DNSConfig(found["nameserver"], found["search"], found["options"])


def _meminfo() -> dict[str, int]:
    result = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[-1] == "kB":
            result[name] = int(words[0]) * 1024
    return result


def _huge_pages() -> dict[str, int]:
    result = {}
    root = Path("/sys/kernel/mm/hugepages")
    for entry in sorted(root.iterdir()) if root.is_dir() else ():
        size = int(entry.name.removeprefix("hugepages-").removesuffix("kB"))
        name = f"{size >> 20}Gi" if size >= 1 << 20 else f"{size >> 10}Mi"
        if size < 1024:
            name = f"{size}Ki"
        result[name] = int((entry / "nr_hugepages").read_text()) * size * 1024
    return result


def _os_image() -> str:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return "Linux"
    values = dict(line.partition("=")[::2] for line in lines if "=" in line)
    return values.get("PRETTY_NAME", "Linux").strip('"')


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
