"""Facts about this machine, read from the kernel: what a Node tells of itself."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wherry.engine.cri.types import DNSConfig
from wherry.host.resolv_conf import PATH, ResolvConf, host_file, parse

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
    processes: int = 0  # and threads, at most, at once


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group of processes uses: nanoseconds of processor time, bytes of memory."""

    cpu: int
    working_set: int
    usage: int = 0
    rss: int = 0
    faults: int = 0
    major_faults: int = 0
    available: int | None = None
    swap: int = 0


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
        processes=process_room()[0],
    )


def host_dns(path: str = PATH) -> DNSConfig:
    """The host's resolver as it is now, from the file at ``path``; an empty one: there is none."""
    found = parse(host_file(path=path, direct=True)) if path else ResolvConf()
    searches = [name for domain in found.search if (name := domain.rstrip("."))]
    return DNSConfig(found.servers, searches, found.options)


def node_use() -> tuple[Usage, int]:
    """What the whole machine uses, and bytes of swap that are free."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = (int(w) for w in words[:7])
    cpu = (user + nice + system + irq + softirq) * 10**9 // os.sysconf("SC_CLK_TCK")
    memory = _meminfo()
    used = memory["MemTotal"] - memory["MemFree"]
    faults = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    use = Usage(
        cpu=cpu,
        working_set=memory["MemTotal"] - memory["MemAvailable"],
        usage=used,
        rss=memory.get("AnonPages", 0),
        faults=int(faults.get("pgfault", 0)),
        major_faults=int(faults.get("pgmajfault", 0)),
        available=memory["MemAvailable"],
        swap=memory.get("SwapTotal", 0) - memory.get("SwapFree", 0),
    )
    return use, memory.get("SwapFree", 0)


def own_use() -> Usage:
    """What this process uses."""
    spent = os.times()
    _size, resident, *_ = (int(w) for w in Path("/proc/self/statm").read_text().split())
    faults = resource.getrusage(resource.RUSAGE_SELF)
    bytes_ = resident * resource.getpagesize()
    return Usage(
        cpu=int((spent.user + spent.system) * 10**9),
        working_set=bytes_,
        usage=bytes_,
        rss=bytes_,
        faults=faults.ru_minflt,
        major_faults=faults.ru_majflt,
    )


def interfaces() -> dict[str, dict[str, int]]:
    """The counters of the machine's own interfaces, that of the default route first."""
    found = {}
    first = _default_interface()
    for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.strip().partition(":")
        counters = [int(w) for w in rest.split()]
        if name != first and not Path(f"/sys/class/net/{name}/device").exists():
            continue  # bridges and pairs carry what is counted elsewhere
        found[name] = {
            "rx_bytes": counters[0],
            "rx_errors": counters[2],
            "tx_bytes": counters[8],
            "tx_errors": counters[10],
        }
    return dict(sorted(found.items(), key=lambda item: item[0] != first))


def _default_interface() -> str:
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == words[7] == "00000000":
            return words[0]
    return ""


def boot_time() -> datetime:
    """When the machine started."""
    up = float(Path("/proc/uptime").read_text().split()[0])
    return datetime.now(UTC) - timedelta(seconds=up)


def process_room() -> tuple[int, int]:
    """How many processes and threads there may be, and how many there are."""
    running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])
    limits = (Path(f"/proc/sys/kernel/{name}") for name in ("pid_max", "threads-max"))
    return min(int(file.read_text()) for file in limits), running


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
