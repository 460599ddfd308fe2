"""How much there is of what may run out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from wherry.kube.kubelet.eviction import thresholds
from wherry.kube.kubelet.eviction.thresholds import Observation
from wherry.kube.kubelet.machine import process_room


def observe(disk: Path) -> Mapping[str, Observation]:
    """By signal. Volumes, logs, layers and images lie on one file system, that of ``disk``."""
    memory = _memory()
    space = os.statvfs(disk)
    size = Observation(space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize)
    inodes = Observation(space.f_favail, space.f_files)
    found = {
        thresholds.MEMORY: Observation(memory["MemAvailable"], memory["MemTotal"]),
        thresholds.NODEFS: size,
        thresholds.IMAGEFS: size,
        thresholds.CONTAINERFS: size,
        thresholds.PIDS: _pids(),
    }
    if space.f_files:  # some file systems make inodes as they are needed
        for signal in (
            thresholds.NODEFS_INODES,
            thresholds.IMAGEFS_INODES,
            thresholds.CONTAINERFS_INODES,
        ):
            found[signal] = inodes
    return found


def _memory() -> dict[str, int]:
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            found[name] = int(rest.split()[0]) * 1024
    return found


def _pids() -> Observation:
    most, running = process_room()
    return Observation(max(0, most - running), most)
