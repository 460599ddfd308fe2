"""How much a pod has written on the node's disk: its containers' layers, their logs, emptyDirs.

Counting walks directories, so only pods with limits are counted, and the longer a count takes the
rarer it is made.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from wherry.engine.cri.types import ContainerRuntime, CRIError
from wherry.kube.api import meta
from wherry.kube.kubelet import containers
from wherry.kube.kubelet.eviction.ranking import Use
from wherry.kube.kubelet.view import PodRuntime

Object = dict[str, Any]
REST = 50  # a count that took a second rests for as many


def directory_use(directory: Path) -> tuple[int, int]:
    """Bytes on the disk and inodes below ``directory``, on its own file system only. Blocks."""
    size = inodes = 0
    try:
        device = directory.stat().st_dev
    except OSError:
        return 0, 0
    waiting = [str(directory)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if found.st_dev != device:
                continue
            size += found.st_blocks * 512
            inodes += 1
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
    return size, inodes


class Storage:
    """Counts, and remembers when each pod is due again."""

    def __init__(self, runtime: ContainerRuntime, root: Path, logs: Path) -> None:
        self._runtime = runtime
        self._root = root
        self._logs = logs
        self._due: dict[str, float] = {}

    def is_due(self, uid: str) -> bool:
        """Whether the pod may be counted again."""
        return time.monotonic() >= self._due.get(uid, 0.0)

    def forget(self, known: set[str]) -> None:
        """Only these pods are left."""
        for uid in set(self._due) - known:
            del self._due[uid]

    async def count(self, pod: Object, runtime: PodRuntime) -> tuple[Use, dict[str, int]]:
        """What the pod has written, by container, and what lies in its emptyDirs, by volume."""
        begun = time.monotonic()
        uid = meta.uid(pod)
        parts: dict[str, Use] = {}
        logs = containers.log_directory(self._logs, pod)
        for container in pod["spec"].get("containers") or ():
            name = container["name"]
            size, inodes = await asyncio.to_thread(directory_use, logs / name)
            latest = runtime.latest(name)
            if latest is not None:
                try:
                    layer = await self._runtime.container_filesystem(latest.id)
                    size, inodes = size + layer.used_bytes, inodes + layer.inodes_used
                except CRIError:
                    pass  # it has just been removed
            parts[name] = Use(disk=size, inodes=inodes)
        volumes: dict[str, int] = {}
        disk = sum(part.disk for part in parts.values())
        files = sum(part.inodes for part in parts.values())
        base = self._root / "pods" / uid / "volumes" / "kubernetes.io~empty-dir"
        for volume in pod["spec"].get("volumes") or ():
            source = volume.get("emptyDir")
            if source is None or source.get("medium") == "Memory":
                continue
            size, inodes = await asyncio.to_thread(directory_use, base / volume["name"])
            volumes[volume["name"]] = size
            disk, files = disk + size, files + inodes
        self._due[uid] = time.monotonic() + (time.monotonic() - begun) * REST
        return Use(disk=disk, inodes=files, containers=parts), volumes
