"""Which limits this kernel can set, seen from the files that a cgroup of ours has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wherry.runtime.cgroups import Layout


@dataclass(frozen=True, slots=True)
class Features:
    """What can be limited here. ``cpus`` and ``mems`` are lists such as ``0-3,8``."""

    memory: bool = True
    swap: bool = True
    reservation: bool = True
    swappiness: bool = True
    oom_kill_disable: bool = True
    kernel_memory_tcp: bool = False
    cpu_shares: bool = True
    cpu_quota: bool = True
    cpu_realtime: bool = True
    cpuset: bool = True
    cpus: str = ""
    mems: str = ""
    pids: bool = True
    block_weight: bool = True
    block_weight_device: bool = True
    block_throttle: bool = True
    huge_pages: bool = True
    cgroup_namespaces: bool = True
    cgroup_v2: bool = False


def look(layout: Layout, group: str) -> Features:
    """Look at the files of ``group``: the roots of the trees lack those of limits."""
    return _look_v2(layout.unified) if layout.unified and layout.is_v2 else _look_v1(layout, group)


def _look_v1(layout: Layout, group: str) -> Features:
    """(BFQ's files of weights do not count: neither dockerd nor crun knows them in v1.)"""

    def has(controller: str, *names: str) -> bool:
        directory = layout.group(controller, group)
        return directory is not None and any((directory / name).exists() for name in names)

    cpuset = layout.tree("cpuset")
    return Features(
        memory=has("memory", "memory.limit_in_bytes"),
        swap=has("memory", "memory.memsw.limit_in_bytes"),
        reservation=has("memory", "memory.soft_limit_in_bytes"),
        swappiness=has("memory", "memory.swappiness"),
        oom_kill_disable=has("memory", "memory.oom_control"),
        kernel_memory_tcp=has("memory", "memory.kmem.tcp.limit_in_bytes"),
        cpu_shares=has("cpu", "cpu.shares"),
        cpu_quota=has("cpu", "cpu.cfs_quota_us"),
        cpu_realtime=has("cpu", "cpu.rt_runtime_us"),
        cpuset=has("cpuset", "cpuset.cpus"),
        cpus=_line(cpuset, "cpuset.cpus"),
        mems=_line(cpuset, "cpuset.mems"),
        pids=has("pids", "pids.max"),
        block_weight=has("blkio", "blkio.weight"),
        block_weight_device=has("blkio", "blkio.weight_device"),
        block_throttle=has("blkio", "blkio.throttle.read_bps_device"),
        huge_pages=layout.tree("hugetlb") is not None,
        cgroup_namespaces=_cgroup_namespaces(),
    )


def _look_v2(tree: Path) -> Features:
    """A group has the files of those controllers only that its parent hands down, so the root's
    list counts; what depends on the kernel's configuration is seen in any group that has some."""
    controllers = set(_line(tree, "cgroup.controllers").split())

    def seen(sign: str, *names: str) -> bool:
        groups = [path.parent for path in tree.glob(f"*/{sign}")]
        return not groups or any((group / name).exists() for group in groups for name in names)

    weight = "io" in controllers and seen("io.max", "io.weight", "io.bfq.weight")
    return Features(
        memory="memory" in controllers,
        swap="memory" in controllers and seen("memory.max", "memory.swap.max"),
        reservation="memory" in controllers,
        swappiness=False,
        oom_kill_disable=False,
        cpu_shares="cpu" in controllers,
        cpu_quota="cpu" in controllers and seen("cpu.weight", "cpu.max"),
        cpu_realtime=False,
        cpuset="cpuset" in controllers,
        cpus=_line(tree, "cpuset.cpus.effective"),
        mems=_line(tree, "cpuset.mems.effective"),
        pids="pids" in controllers,
        block_weight=weight,
        block_weight_device=weight,
        block_throttle="io" in controllers,
        huge_pages="hugetlb" in controllers,
        cgroup_namespaces=_cgroup_namespaces(),
        cgroup_v2=True,
    )


def _line(directory: Path | None, name: str) -> str:
    if directory is None:
        return ""
    try:
        return (directory / name).read_text().strip()
    except FileNotFoundError:
        return ""


def _cgroup_namespaces() -> bool:
    return Path("/proc/self/ns/cgroup").exists()
