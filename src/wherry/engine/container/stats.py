"""``docker stats``: what a container uses, in the shape that the client computes rates from."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry.engine.container.container import Container
from wherry.engine.container.units import ZERO_TIME, timestamp
from wherry.net import links
from wherry.runtime.types import RuntimeFailure, Usage

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


async def sample(
    engine: Engine, container: Container, former: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What is used now; ``former`` is the sample before, which the client compares with.

    All zero where the container does not run.
    """
    usage: Usage | None = None
    interfaces: Mapping[str, Mapping[str, int]] = {}
    if container.state.running:
        try:
            usage = await engine.containers.runtime.usage(container.id)
        except RuntimeFailure:
            usage = None  # it has just ended
        namespace = engine.networks.namespace(container.id)
        if namespace.exists():
            interfaces = await asyncio.to_thread(links.interface_statistics, namespace)
    return shape(
        container,
        usage,
        interfaces,
        system_cpu_usage(Path("/proc/stat").read_text()),
        time.time_ns(),
        former,
    )


def shape(
    container: Container,
    usage: Usage | None,
    interfaces: Mapping[str, Mapping[str, int]],
    system: int,
    now: int,
    former: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """ContainerStatsResponse of the API; ``now`` is nanoseconds since the epoch."""
    document: dict[str, Any] = {
        "name": container.display_name,
        "id": container.id,
        "read": timestamp(now),
        "preread": former["read"] if former else ZERO_TIME,
        "num_procs": 0,
        "pids_stats": {},
        "blkio_stats": {},
        "storage_stats": {},
        "cpu_stats": _cpu(None, 0),
        "precpu_stats": former["cpu_stats"] if former else _cpu(None, 0),
        "memory_stats": {},
    }
    if usage is None:
        return document
    raw = usage.raw
    document["pids_stats"] = {"current": usage.pids}
    if limit := raw.get("pids_limit"):
        document["pids_stats"]["limit"] = limit
    document["blkio_stats"] = {
        "io_service_bytes_recursive": [
            {"major": 0, "minor": 0, "op": "read", "value": raw.get("io_read", 0)},
            {"major": 0, "minor": 0, "op": "write", "value": raw.get("io_write", 0)},
        ]
    }
    document["cpu_stats"] = _cpu(usage, system)
    document["memory_stats"] = {
        "usage": usage.memory,
        "stats": raw.get("memory_stat") or {},
        "limit": usage.memory_limit,
    }
    if interfaces:
        document["networks"] = {name: dict(values) for name, values in interfaces.items()}
    return document


def _cpu(usage: Usage | None, system: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }
    if usage is None:
        return shown
    shown["cpu_usage"] = {
        "total_usage": usage.cpu_total,
        "usage_in_kernelmode": usage.raw.get("cpu_system", 0),
        "usage_in_usermode": usage.raw.get("cpu_user", 0),
    }
    shown["system_cpu_usage"] = system
    shown["online_cpus"] = len(os.sched_getaffinity(0))
    throttled = usage.raw.get("cpu_stat")
    if isinstance(throttled, Mapping):
        shown["throttling_data"] = {
            "periods": throttled.get("nr_periods", 0),
            "throttled_periods": throttled.get("nr_throttled", 0),
            "throttled_time": throttled.get(
                "throttled_time", throttled.get("throttled_usec", 0) * 1000
            ),
        }
    return shown


def system_cpu_usage(stat: str) -> int:
    """Nanoseconds that all processors have spent on anything, from the text of /proc/stat."""
    ticks = os.sysconf("SC_CLK_TCK")
    for line in stat.splitlines():
        if line.startswith("cpu "):
            return sum(int(value) for value in line.split()[1:8]) * 1_000_000_000 // ticks
    return 0
