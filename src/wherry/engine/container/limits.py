"""What a container may use: which limits make sense, and which this kernel can set.

Texts are dockerd's. A limit that the kernel cannot set is discarded with a warning, in the request
itself, so that ``docker inspect`` shows what holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wherry.engine.errors import BadParameter, Conflict, EngineError
from wherry.runtime.features import Features
from wherry.runtime.types import BlockLimit, Limits

MINIMUM_MEMORY = 6 << 20
DEFAULT_CPU_PERIOD = 100_000
_LARGEST_CPU = 8192  # what Linux can be built for
# The annotation of a container that may use huge pages, bytes by size: "1GB=0,2MB=4194304".
HUGE_PAGES = "io.wherry.huge-pages"


def check(host: dict[str, Any], features: Features, *, update: bool = False) -> list[str]:
    """Judge the limits in ``host``, and discard in place those that the kernel cannot set.

    Returns warnings.

    Raises:
        BadParameter: a limit is out of range, or contradicts another.
    """
    warnings: list[str] = []
    _check_memory(host, features, warnings, update=update)
    _check_killer(host, features, warnings)
    _check_cpu(host, features, warnings)
    _check_cpuset(host, features, warnings)
    _check_block(host, features, warnings)
    return warnings


def _discard(
    host: dict[str, Any], name: str, empty: Any, possible: bool, warnings: list[str], text: str
) -> None:
    """Without a way to do it: warn of a limit that is set, and forget it."""
    if host[name] and not possible:
        warnings.append(text)
        host[name] = empty


def _check_memory(
    host: dict[str, Any], features: Features, warnings: list[str], *, update: bool
) -> None:
    if host["MemorySwappiness"] == -1:  # how old clients say that it is not set
        host["MemorySwappiness"] = None
    if host["Memory"] and host["Memory"] < MINIMUM_MEMORY:
        raise BadParameter("Minimum memory limit allowed is 6MB")
    if host["Memory"] and not features.memory:
        warnings.append(
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. "
            "Limitation discarded."
        )
        host["Memory"], host["MemorySwap"] = 0, -1
    if host["Memory"] and host["MemorySwap"] != -1 and not features.swap:
        warnings.append(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
            "Memory limited without swap."
        )
        host["MemorySwap"] = -1
    memory, swap = host["Memory"], host["MemorySwap"]
    if memory and 0 < swap < memory:
        raise BadParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not memory and swap > 0 and not update:
        raise BadParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if host["MemorySwappiness"] is not None and not features.swappiness:
        warnings.append(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not "
            "mounted. Memory swappiness discarded."
        )
        host["MemorySwappiness"] = None
    swappiness = host["MemorySwappiness"]
    if swappiness is not None and not 0 <= swappiness <= 100:
        raise BadParameter(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    _discard(
        *(host, "MemoryReservation", 0, features.reservation, warnings),
        "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. "
        "Limitation discarded.",
    )
    reservation = host["MemoryReservation"]
    if 0 < reservation < MINIMUM_MEMORY:
        raise BadParameter("Minimum memory reservation allowed is 6MB")
    if 0 < memory < reservation:
        raise BadParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    _check_kernel_memory(host, warnings)


def _check_kernel_memory(host: dict[str, Any], warnings: list[str]) -> None:
    """Linux has had no such limit since 5.16; dockerd accepts and warns."""
    given = host.get("KernelMemory") or 0
    if given <= 0:
        return
    warnings.append(
        "Specifying a kernel memory limit is deprecated and will be removed in a future release."
    )
    if given < MINIMUM_MEMORY:
        raise BadParameter("Minimum kernel memory limit allowed is 6MB")
    warnings.append(
        "Your kernel does not support kernel memory limit capabilities or the cgroup is not "
        "mounted. Limitation discarded."
    )
    host["KernelMemory"] = 0


def _check_killer(host: dict[str, Any], features: Features, warnings: list[str]) -> None:
    if host["OomKillDisable"] is not None and not features.oom_kill_disable:
        if host["OomKillDisable"]:
            warnings.append(
                "Your kernel does not support OomKillDisable. OomKillDisable discarded."
            )
        host["OomKillDisable"] = None
    if host["OomKillDisable"] and not host["Memory"]:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    if host["PidsLimit"] is not None and not features.pids:
        if host["PidsLimit"] > 0:
            warnings.append(
                "Your kernel does not support PIDs limit capabilities or the cgroup is not "
                "mounted. PIDs limit discarded."
            )
        host["PidsLimit"] = None


def _check_cpu(host: dict[str, Any], features: Features, warnings: list[str]) -> None:
    nano = host["NanoCpus"]
    if nano > 0 and host["CpuPeriod"] > 0:
        raise BadParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if nano > 0 and host["CpuQuota"] > 0:
        raise BadParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if nano > 0 and not features.cpu_quota:
        raise BadParameter(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the "
            "cgroup is not mounted"
        )
    cpus = len(os.sched_getaffinity(0))
    if nano < 0 or nano > cpus * 1_000_000_000:
        raise BadParameter(
            f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )
    _discard(
        *(host, "CpuShares", 0, features.cpu_shares, warnings),
        "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
    )
    if (host["CpuPeriod"] or host["CpuQuota"]) and not features.cpu_quota:
        warnings.append(
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded."
        )
        host["CpuPeriod"] = host["CpuQuota"] = 0
    if host["CpuPeriod"] and not 1000 <= host["CpuPeriod"] <= 1_000_000:
        raise BadParameter(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host["CpuQuota"] < 1000:
        raise BadParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host["CpuPercent"] > 0:
        warnings.append("linux does not support CPU percent. Percent discarded.")
        host["CpuPercent"] = 0


def _check_cpuset(host: dict[str, Any], features: Features, warnings: list[str]) -> None:
    if (host["CpusetCpus"] or host["CpusetMems"]) and not features.cpuset:
        warnings.append(
            "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded."
        )
        host["CpusetCpus"] = host["CpusetMems"] = ""
    for field, label, what, available in (
        ("CpusetCpus", "cpus", "CPUs", features.cpus),
        ("CpusetMems", "mems", "memory nodes", features.mems),
    ):
        wanted = host[field]
        try:
            missing = parse_list(wanted, _LARGEST_CPU) - parse_list(available, None)
        except ValueError as error:
            raise BadParameter(f"Invalid value {wanted} for cpuset {label}: {error}") from None
        if missing:
            raise BadParameter(
                f"Requested {what} are not available - requested {wanted}, available: {available}"
            )


def parse_list(text: str, largest: int | None) -> set[int]:
    """The numbers of a list such as ``0-3,8``; none of them above ``largest``.

    Raises:
        ValueError: it is not such a list.
    """
    numbers: set[int] = set()
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII)
        if not match:
            raise ValueError(f"invalid format: {text}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"invalid format: {text}")
        if largest is not None and last > largest:
            raise ValueError(f"value of out range, maximum is {largest}")
        numbers.update(range(first, last + 1))
    return numbers


_THROTTLES = (
    ("BlkioDeviceReadBps", "BPS Block I/O read", "Block I/O BPS read"),
    ("BlkioDeviceWriteBps", "BPS Block I/O write", "Block I/O BPS write"),
    ("BlkioDeviceReadIOps", "IOPS Block read", "Block I/O IOPS read"),
    ("BlkioDeviceWriteIOps", "IOPS Block write", "Block I/O IOPS write"),
)


def _check_block(host: dict[str, Any], features: Features, warnings: list[str]) -> None:
    _discard(
        *(host, "BlkioWeight", 0, features.block_weight, warnings),
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. "
        "Weight discarded.",
    )
    if host["BlkioWeight"] and not 10 <= host["BlkioWeight"] <= 1000:
        raise BadParameter("Range of blkio weight is from 10 to 1000")
    if host["IOMaximumBandwidth"] or host["IOMaximumIOps"]:
        raise BadParameter(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps"
        )
    _discard(
        *(host, "BlkioWeightDevice", [], features.block_weight_device, warnings),
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
        "Weight-device discarded.",
    )
    for field, what, discarded in _THROTTLES:
        _discard(
            *(host, field, [], features.block_throttle, warnings),
            f"Your kernel does not support {what} limit or the cgroup is not mounted. "
            f"{discarded} limit discarded.",
        )


# ---- update

# What `docker update` changes of a container that is there.
_UPDATED = (
    *("BlkioWeight", "CpuShares", "NanoCpus", "CpuPeriod", "CpuQuota", "CpusetCpus", "CpusetMems"),
    *("Memory", "MemorySwap", "MemoryReservation", "KernelMemory"),
    *("CpuRealtimePeriod", "CpuRealtimeRuntime"),
)


def updated(host: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``host`` with the limits of ``given``, a complete set, where zero leaves them as they are.

    Raises:
        Conflict: the new limits do not go with the old.
    """
    for new, old, text in (
        ("NanoCpus", "CpuPeriod", "Nano CPUs cannot be updated as CPU Period"),
        ("NanoCpus", "CpuQuota", "Nano CPUs cannot be updated as CPU Quota"),
        ("CpuPeriod", "NanoCpus", "CPU Period cannot be updated as NanoCPUs"),
        ("CpuQuota", "NanoCpus", "CPU Quota cannot be updated as NanoCPUs"),
    ):
        if given[new] > 0 and host[old] > 0:
            raise Conflict(f"Conflicting options: {text} has already been set")
    if given["Memory"] and not given["MemorySwap"] and given["Memory"] > host["MemorySwap"]:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
    changes = {name: given[name] for name in _UPDATED if given.get(name)}
    if given["PidsLimit"] is not None:
        changes["PidsLimit"] = max(0, given["PidsLimit"])  # 0: there is none
    return {**host, **changes}


# ---- for the runtime


def limits(host: Mapping[str, Any]) -> Limits:
    """The resources of a container, in the kernel's units.

    Raises:
        EngineError: a block device is not there, or the annotation of huge pages says nothing.
    """
    quota, period = host["CpuQuota"] or None, host["CpuPeriod"] or None
    if host["NanoCpus"]:
        period = DEFAULT_CPU_PERIOD
        quota = host["NanoCpus"] * period // 1_000_000_000
    pids = host["PidsLimit"]
    return Limits(
        memory=host["Memory"] or None,
        memory_swap=host["MemorySwap"] or None,
        memory_reservation=host["MemoryReservation"] or None,
        memory_swappiness=host["MemorySwappiness"],
        oom_kill_disable=bool(host["OomKillDisable"]),
        cpu_shares=host["CpuShares"] or None,
        cpu_quota=quota,
        cpu_period=period,
        cpu_realtime_period=host["CpuRealtimePeriod"] or None,
        cpu_realtime_runtime=host["CpuRealtimeRuntime"] or None,
        cpuset_cpus=host["CpusetCpus"],
        cpuset_mems=host["CpusetMems"],
        pids=pids if pids and pids > 0 else None,
        blkio_weight=host["BlkioWeight"] or None,
        blkio_weight_devices=_block_limits(host["BlkioWeightDevice"], "Weight"),
        read_bytes=_block_limits(host["BlkioDeviceReadBps"], "Rate"),
        write_bytes=_block_limits(host["BlkioDeviceWriteBps"], "Rate"),
        read_operations=_block_limits(host["BlkioDeviceReadIOps"], "Rate"),
        write_operations=_block_limits(host["BlkioDeviceWriteIOps"], "Rate"),
        huge_pages=_huge_pages((host.get("Annotations") or {}).get(HUGE_PAGES, "")),
    )


def _huge_pages(text: str) -> dict[str, int]:
    if not text:
        return {}
    if not re.fullmatch(r"\d+[KMG]B=\d+(,\d+[KMG]B=\d+)*", text):
        raise BadParameter(f"invalid annotation {HUGE_PAGES}={text}: it is like 2MB=4194304,1GB=0")
    pairs = (part.split("=") for part in text.split(","))
    return {size: int(bytes_) for size, bytes_ in pairs}


def _block_limits(entries: Sequence[Mapping[str, Any]], key: str) -> tuple[BlockLimit, ...]:
    found = []
    for entry in entries:
        path = str(entry.get("Path") or "")
        try:
            device = Path(path).stat().st_rdev
        except OSError as error:
            raise EngineError(f"stat {path}: {(error.strerror or '').lower()}") from None
        found.append(BlockLimit(os.major(device), os.minor(device), int(entry.get(key) or 0)))
    return tuple(found)
