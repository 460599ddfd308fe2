"""What a group of processes used, read from the files of its cgroup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from wherry.runtime.cgroups import Layout
from wherry.runtime.types import BlockCount, Usage

_UNLIMITED = 2**64 - 1


def _text(directory: Path | None, name: str) -> str:
    if directory is None:
        return ""
    try:
        return (directory / name).read_text()
    except OSError:
        return ""


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


def table(text: str) -> dict[str, int]:
    """Lines of a name and a number, as in ``memory.stat``."""
    out: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            out[name] = int(value)
    return out


@cache
def total_memory() -> int:
    """The machine's memory in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def read(layout: Layout, path: str) -> Usage:
    """The usage of group ``path``; zeros where it is gone.

    ``memory_limit`` is the machine's memory where the group has no limit, as in ``docker stats``.
    """
    return _read_v2(layout, path) if layout.is_v2 else _read_v1(layout, path)


def _limit(value: int) -> int:
    total = total_memory()
    return value if 0 < value < total else total


def _read_v2(layout: Layout, path: str) -> Usage:
    group = layout.group("", path)
    cpu = table(_text(group, "cpu.stat"))
    stat = table(_text(group, "memory.stat"))
    memory = _number(_text(group, "memory.current"))
    return Usage(
        cpu_total=cpu.get("usage_usec", 0) * 1000,
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_system=cpu.get("system_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_time=cpu.get("throttled_usec", 0) * 1000,
        memory=memory,
        memory_working_set=max(0, memory - stat.get("inactive_file", 0)),
        memory_limit=_limit(_number(_text(group, "memory.max"))),
        memory_failures=table(_text(group, "memory.events")).get("oom", 0),
        memory_stat=stat,
        pids=_number(_text(group, "pids.current")),
        pids_limit=_number(_text(group, "pids.max")) or _UNLIMITED,
        block={"io_service_bytes_recursive": io_stat(_text(group, "io.stat"))},
    )


def io_stat(text: str) -> list[BlockCount]:
    """Bytes moved, from lines such as ``8:0 rbytes=1 wbytes=2 rios=1 …``."""
    found = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        major, _, minor = device.partition(":")
        fields = dict(part.split("=", 1) for part in rest.split() if "=" in part)
        for operation, key in (("read", "rbytes"), ("write", "wbytes")):
            if key in fields:
                found.append(BlockCount(int(major), int(minor), operation, int(fields[key])))
    return found


# The API's lists, and the files that hold them: those of BFQ, of CFQ of old, of throttling.
_BLOCK_FILES: Mapping[str, tuple[str, ...]] = {
    "io_service_bytes_recursive": (
        "blkio.bfq.io_service_bytes_recursive",
        "blkio.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes_recursive",
        "blkio.throttle.io_service_bytes",
    ),
    "io_serviced_recursive": (
        "blkio.bfq.io_serviced_recursive",
        "blkio.io_serviced_recursive",
        "blkio.throttle.io_serviced_recursive",
        "blkio.throttle.io_serviced",
    ),
    "io_queue_recursive": ("blkio.bfq.io_queued_recursive", "blkio.io_queued_recursive"),
    "io_service_time_recursive": (
        "blkio.bfq.io_service_time_recursive",
        "blkio.io_service_time_recursive",
    ),
    "io_wait_time_recursive": ("blkio.bfq.io_wait_time_recursive", "blkio.io_wait_time_recursive"),
    "io_merged_recursive": ("blkio.bfq.io_merged_recursive", "blkio.io_merged_recursive"),
    "io_time_recursive": ("blkio.bfq.time_recursive", "blkio.time_recursive"),
    "sectors_recursive": ("blkio.bfq.sectors_recursive", "blkio.sectors_recursive"),
}


def block_counts(text: str) -> list[BlockCount]:
    """Lines such as ``8:0 Read 4096``, or ``8:0 7`` without an operation."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        major, separator, minor = fields[0].partition(":") if fields else ("", "", "")
        if separator and fields[-1].isdigit():
            operation = fields[1] if len(fields) == 3 else ""
            found.append(BlockCount(int(major), int(minor), operation, int(fields[-1])))
    return found


def _first(directory: Path | None, names: Iterable[str]) -> list[BlockCount]:
    for name in names:
        if counts := block_counts(_text(directory, name)):
            return counts
    return []


def _read_v1(layout: Layout, path: str) -> Usage:
    account, group = layout.group("cpuacct", path), layout.group("memory", path)
    stat = table(_text(group, "memory.stat"))
    ticks = table(_text(account, "cpuacct.stat"))
    tick = 10**9 // 100  # as the kernel tells user space of it (USER_HZ)
    cpu = table(_text(layout.group("cpu", path), "cpu.stat"))
    pids, blkio = layout.group("pids", path), layout.group("blkio", path)
    memory = _number(_text(group, "memory.usage_in_bytes"))
    per_cpu = _text(account, "cpuacct.usage_percpu").split()
    return Usage(
        cpu_total=_number(_text(account, "cpuacct.usage")),
        cpu_user=ticks.get("user", 0) * tick,
        cpu_system=ticks.get("system", 0) * tick,
        per_cpu=tuple(map(int, per_cpu)),
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_time=cpu.get("throttled_time", 0),
        memory=memory,
        memory_working_set=max(0, memory - stat.get("total_inactive_file", 0)),
        memory_limit=_limit(_number(_text(group, "memory.limit_in_bytes"))),
        memory_maximum=_number(_text(group, "memory.max_usage_in_bytes")),
        memory_failures=_number(_text(group, "memory.failcnt")),
        memory_stat=stat,
        pids=_number(_text(pids, "pids.current")),
        pids_limit=_number(_text(pids, "pids.max")),
        block={name: _first(blkio, files) for name, files in _BLOCK_FILES.items()},
    )


def oom_kills(layout: Layout, path: str) -> int:
    """How many processes of group ``path`` the kernel killed for want of memory."""
    if layout.is_v2:
        return table(_text(layout.group("", path), "memory.events")).get("oom_kill", 0)
    return table(_text(layout.group("memory", path), "memory.oom_control")).get("oom_kill", 0)
