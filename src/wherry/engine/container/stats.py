"""``docker stats``: what a container uses, in the shape that the client computes rates from.

Containers that somebody watches are sampled once a second, however many watch: the cost goes with
the containers, not with the clients.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry.engine.container.container import Container
from wherry.engine.container.namespaces import network_owner
from wherry.engine.container.units import ZERO_TIME, timestamp
from wherry.engine.errors import NotFound
from wherry.net.link import links
from wherry.runtime.types import RuntimeFailure, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.engine.engine import Engine

INTERVAL = 1.0

_BLOCK_LISTS = (
    *("io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive"),
    *("io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive"),
    *("io_time_recursive", "sectors_recursive"),
)
# Of v2's memory.stat, what the API has.
_MEMORY_V2 = (
    *("anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty"),
    *("file_writeback", "anon_thp", "inactive_anon", "active_anon", "inactive_file"),
    *("active_file", "unevictable", "slab_reclaimable", "slab_unreclaimable", "pgfault"),
    *("pgmajfault", "workingset_refault", "workingset_activate", "workingset_nodereclaim"),
    *("pgrefill", "pgscan", "pgsteal", "pgactivate", "pgdeactivate", "pglazyfree"),
    *("pglazyfreed", "thp_fault_alloc", "thp_collapse_alloc"),
)


class StatsCollector:
    """Samples those containers of an engine that somebody watches."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watched: dict[Container, int] = {}
        self._samples: dict[Container, dict[str, Any]] = {}
        self._round = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def watch(self, container: Container) -> AsyncGenerator[dict[str, Any]]:
        """A sample now, and one a second, for as long as the container is there."""
        frames = Frames()
        yield frames.next(await sample(self._engine, container))
        with self._watching(container):
            while True:
                async with self._round:
                    await self._round.wait()
                document = self._samples.get(container)
                if document is None:
                    return
                yield frames.next(document)

    async def once(self, container: Container, *, quickly: bool) -> dict[str, Any]:
        """One document; unless ``quickly``, with a sample of a second before to compare with."""
        frames = Frames()
        first = frames.next(await sample(self._engine, container))
        if quickly or not container.state.running or container.state.restarting:
            return first
        await asyncio.sleep(INTERVAL)
        return frames.next(await sample(self._engine, container))

    @contextmanager
    def _watching(self, container: Container) -> Iterator[None]:
        self._watched[container] = self._watched.get(container, 0) + 1
        if self._task is None:
            self._task = self._engine.containers.lifecycle.attend(self._sample_always())
        try:
            yield
        finally:
            self._watched[container] -= 1
            if not self._watched[container]:
                del self._watched[container]
                self._samples.pop(container, None)
            if not self._watched and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _sample_always(self) -> None:
        loop = asyncio.get_running_loop()
        following = loop.time()
        while True:
            following = max(following + INTERVAL, loop.time())
            await asyncio.sleep(following - loop.time())
            for container in tuple(self._watched):
                if self._engine.containers.store.find(container.id) is container:
                    self._samples[container] = await sample(self._engine, container)
                else:
                    self._samples.pop(container, None)
            async with self._round:
                self._round.notify_all()


class Frames:
    """What one client sees: each document compares with the one before it."""

    def __init__(self) -> None:
        self._former: Mapping[str, Any] | None = None

    def next(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """``document`` with the client's former one beside it."""
        former, self._former = self._former, document
        if former is None:
            return dict(document)
        return {**document, "preread": former["read"], "precpu_stats": former["cpu_stats"]}


async def sample(engine: Engine, container: Container) -> dict[str, Any]:
    """What is used now; all zero where the container does not run."""
    usage: Usage | None = None
    counters: Mapping[str, Mapping[str, int]] = {}
    if container.state.running and not container.state.restarting:
        try:
            usage = await engine.containers.runtime.usage(container.id)
            counters = await interfaces(engine, container)
        except RuntimeFailure:
            usage = None  # it has just ended
    if usage is None:
        return empty(container)
    system = system_cpu_usage(Path("/proc/stat").read_text())
    return shape(container, usage, counters, system, time.time_ns())


async def interfaces(engine: Engine, container: Container) -> Mapping[str, Mapping[str, int]]:
    """The counters of its network's interfaces by name; none with the host's network."""
    try:
        owner = network_owner(container, engine.containers.store)
        namespace = engine.networks.namespace(owner.id)
        if owner.network_mode == "host" or not namespace.exists():
            return {}
        return await asyncio.to_thread(links.interface_statistics, namespace)
    except (NotFound, FileNotFoundError):
        return {}  # it has just ended


def empty(container: Container) -> dict[str, Any]:
    """The document of a container that does not run."""
    return {
        "name": container.display_name,
        "id": container.id,
        "read": ZERO_TIME,
        "preread": ZERO_TIME,
        "pids_stats": {},
        "blkio_stats": dict.fromkeys(_BLOCK_LISTS),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(None, 0),
        "precpu_stats": _cpu(None, 0),
        "memory_stats": {},
    }


def shape(
    container: Container,
    usage: Usage,
    interfaces: Mapping[str, Mapping[str, int]],
    system: int,
    now: int,
) -> dict[str, Any]:
    """ContainerStatsResponse of the API; ``now`` is nanoseconds since the epoch.

    ``system`` is the time that all processors have spent, in nanoseconds.
    """
    document = empty(container)
    document["read"] = timestamp(now)
    document["pids_stats"] = {"current": usage.pids}
    if usage.pids_limit:
        document["pids_stats"]["limit"] = usage.pids_limit
    v2 = "io_serviced_recursive" not in usage.block
    document["blkio_stats"] = {name: _block(usage, name, v2=v2) for name in _BLOCK_LISTS}
    document["cpu_stats"] = _cpu(usage, system)
    document["memory_stats"] = _memory(usage)
    if interfaces:
        document["networks"] = {name: dict(values) for name, values in interfaces.items()}
    return document


def _block(usage: Usage, name: str, *, v2: bool) -> list[dict[str, Any]] | None:
    counts = usage.block.get(name)
    if counts is None or (v2 and not counts):
        return None
    return [
        {"major": c.major, "minor": c.minor, "op": c.operation, "value": c.value} for c in counts
    ]


def _memory(usage: Usage) -> dict[str, Any]:
    stat = usage.memory_stat
    if "total_rss" in stat:
        shown = {
            name: value
            for name, value in stat.items()
            if "swap" not in name.removeprefix("hierarchical_mem")
        }
    else:
        shown = {name: stat.get(name, 0) for name in _MEMORY_V2}
    document: dict[str, Any] = {"usage": usage.memory, "stats": shown, "limit": usage.memory_limit}
    if usage.memory_maximum:
        document["max_usage"] = usage.memory_maximum
    if usage.memory_failures:
        document["failcnt"] = usage.memory_failures
    return document


def _cpu(usage: Usage | None, system: int) -> dict[str, Any]:
    if usage is None:
        return {
            "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        }
    used: dict[str, Any] = {"total_usage": usage.cpu_total}
    if usage.per_cpu:
        used["percpu_usage"] = list(usage.per_cpu)
    used |= {"usage_in_kernelmode": usage.cpu_system, "usage_in_usermode": usage.cpu_user}
    return {
        "cpu_usage": used,
        "system_cpu_usage": system,
        "online_cpus": os.cpu_count() or 1,
        "throttling_data": {
            "periods": usage.periods,
            "throttled_periods": usage.throttled_periods,
            "throttled_time": usage.throttled_time,
        },
    }


def system_cpu_usage(stat: str) -> int:
    """Nanoseconds that all processors have spent on anything, from the text of /proc/stat."""
    ticks = os.sysconf("SC_CLK_TCK")
    for line in stat.splitlines():
        if line.startswith("cpu "):
            return sum(int(value) for value in line.split()[1:8]) * 1_000_000_000 // ticks
    return 0
