"""What a group of processes used, read from the files of its cgroup."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from wherry.runtime.cgroups import Layout
from wherry.runtime.types import Usage


def _text(directory: Path | None, name: str) -> str:
    if directory is None:
        return ""
    try:
        return (directory / name).read_text()
    except (FileNotFoundError, OSError):
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
    ``raw`` has the parsed files under ``memory.stat``, ``cpu.stat`` (cpu times in microseconds of
    user and system), and ``blkio`` (bytes read and written).
    """
    return _read_v2(layout, path) if layout.is_v2 else _read_v1(layout, path)


def _usage(cpu: int, memory: int, inactive: int, limit: int, pids: int, **raw: object) -> Usage:
    total = total_memory()
    return Usage(
        cpu_total=cpu,
        memory=memory,
        memory_working_set=max(0, memory - inactive),
        memory_limit=limit if 0 < limit < total else total,
        pids=pids,
        raw=raw,
    )


def _read_v2(layout: Layout, path: str) -> Usage:
    group = layout.group("", path)
    cpu = table(_text(group, "cpu.stat"))
    memory = table(_text(group, "memory.stat"))
    read_bytes = written = 0
    for line in _text(group, "io.stat").splitlines():
        fields = dict(part.split("=", 1) for part in line.split()[1:] if "=" in part)
        read_bytes += int(fields.get("rbytes", 0))
        written += int(fields.get("wbytes", 0))
    return _usage(
        cpu.get("usage_usec", 0) * 1000,
        _number(_text(group, "memory.current")),
        memory.get("inactive_file", 0),
        _number(_text(group, "memory.max")),
        _number(_text(group, "pids.current")),
        memory_stat=memory,
        memory_max=_number(_text(group, "memory.peak")),
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_system=cpu.get("system_usec", 0) * 1000,
        cpu_stat=cpu,
        io_read=read_bytes,
        io_write=written,
        pids_limit=_number(_text(group, "pids.max")),
    )


def _read_v1(layout: Layout, path: str) -> Usage:
    account, memory_group = layout.group("cpuacct", path), layout.group("memory", path)
    memory = table(_text(memory_group, "memory.stat"))
    ticks = table(_text(account, "cpuacct.stat"))
    nanoseconds = 10**9 // 100  # a tick as the kernel tells user space of it (USER_HZ)
    moved = {"Read": 0, "Write": 0}
    blkio = layout.group("blkio", path)
    for line in _text(blkio, "blkio.throttle.io_service_bytes_recursive").splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] in moved:
            moved[fields[1]] += int(fields[2])
    return _usage(
        _number(_text(account, "cpuacct.usage")),
        _number(_text(memory_group, "memory.usage_in_bytes")),
        memory.get("total_inactive_file", 0),
        _number(_text(memory_group, "memory.limit_in_bytes")),
        _number(_text(layout.group("pids", path), "pids.current")),
        memory_stat=memory,
        memory_max=_number(_text(memory_group, "memory.max_usage_in_bytes")),
        cpu_user=ticks.get("user", 0) * nanoseconds,
        cpu_system=ticks.get("system", 0) * nanoseconds,
        cpu_stat=table(_text(layout.group("cpu", path), "cpu.stat")),
        io_read=moved["Read"],
        io_write=moved["Write"],
        pids_limit=_number(_text(layout.group("pids", path), "pids.max")),
    )


def oom_kills(layout: Layout, path: str) -> int:
    """How many processes of group ``path`` the kernel killed for want of memory."""
    if layout.is_v2:
        return table(_text(layout.group("", path), "memory.events")).get("oom_kill", 0)
    return table(_text(layout.group("memory", path), "memory.oom_control")).get("oom_kill", 0)
