"""What pods have on the node's disks, part by part: for ``/stats/summary`` and ``/metrics``.

Counting walks directories. So what was counted is told for a minute (``volumeStatsAggPeriod``),
however often it is asked for.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry.engine.cri.types import ContainerRuntime, CRIError
from wherry.kube.api import meta
from wherry.kube.kubelet import containers, pods
from wherry.kube.kubelet.eviction.storage import directory_use
from wherry.kube.kubelet.view import PodRuntime
from wherry.kube.kubelet.volumes.place import Place

Object = dict[str, Any]

_TOLD_NOTHING_OF = ("hostPath", "nfs", "image")  # the node's own, or behind who may not answer


@dataclass(frozen=True, slots=True)
class Space:
    """A file system as a part of a pod sees it: bytes and inodes, there and used."""

    capacity: int = 0
    available: int = 0
    used: int = 0
    inodes: int = 0
    inodes_free: int = 0
    inodes_used: int = 0


def space_of(path: Path) -> Space:
    """The file system at ``path``, whoever uses it. Blocks.

    Raises:
        OSError: there is none.
    """
    found = os.statvfs(path)
    return Space(
        capacity=found.f_blocks * found.f_frsize,
        available=found.f_bavail * found.f_frsize,
        used=(found.f_blocks - found.f_bfree) * found.f_frsize,
        inodes=found.f_files,
        inodes_free=found.f_ffree,
        inodes_used=found.f_files - found.f_ffree,
    )


def share(whole: Space, used: int, inodes: int) -> Space:
    """What of ``whole`` somebody uses who is not alone on it."""
    return Space(whole.capacity, whole.available, used, whole.inodes, whole.inodes_free, inodes)


@dataclass(frozen=True, slots=True)
class PodDisk:
    """What a pod has written, by container and by volume."""

    layers: Mapping[str, Space] = field(default_factory=dict)
    logs: Mapping[str, Space] = field(default_factory=dict)
    volumes: Mapping[str, Space] = field(default_factory=dict)
    ephemeral: Space = Space()  # all that goes with the pod


class Disks:
    """Counts, and remembers for ``period`` seconds; below zero nothing is counted."""

    def __init__(self, runtime: ContainerRuntime, root: Path, logs: Path, period: float) -> None:
        self._runtime = runtime
        self._root = root
        self._logs = logs
        self._period = period
        self._known: dict[str, tuple[float, PodDisk]] = {}

    def whole(self) -> Space:
        """The file system on which all lies that is the node's."""
        return space_of(self._root)

    def forget(self, present: set[str]) -> None:
        """Only these pods are left."""
        for uid in set(self._known) - present:
            del self._known[uid]

    async def of(self, pod: Object, runtime: PodRuntime, places: Mapping[str, Place]) -> PodDisk:
        """What the pod has on the disk, some seconds ago at most."""
        uid = meta.uid(pod)
        known = self._known.get(uid)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        if self._period < 0:
            return PodDisk()
        layers = {}
        for container in pods.all_containers(pod):
            latest = runtime.latest(container["name"])
            if latest is None:
                continue
            try:
                layer = await self._runtime.container_filesystem(latest.id)
            except CRIError:
                continue  # it has just been removed
            layers[container["name"]] = (layer.used_bytes, layer.inodes_used)
        found = await asyncio.to_thread(self._count, pod, layers, places)
        self._known[uid] = (time.monotonic() + self._period, found)
        return found

    def _count(
        self, pod: Object, layers: Mapping[str, tuple[int, int]], places: Mapping[str, Place]
    ) -> PodDisk:
        whole = self.whole()
        directory = containers.log_directory(self._logs, pod)
        logs = {name: directory_use(directory / name) for name in layers}
        volumes: dict[str, Space] = {}
        written = [*layers.values(), *logs.values()]
        bytes_, files = sum(w[0] for w in written), sum(w[1] for w in written)
        for volume in pod["spec"].get("volumes") or ():
            place = places.get(volume["name"])
            if place is None or place.device or any(volume.get(k) for k in _TOLD_NOTHING_OF):
                continue
            try:
                alone = place.path.is_mount()
                space = space_of(place.path)
                if not alone:
                    space = share(space, *directory_use(place.path))
            except OSError:
                continue
            volumes[volume["name"]] = space
            lasting = "persistentVolumeClaim" in volume or "ephemeral" in volume
            if not alone and not lasting:
                bytes_, files = bytes_ + space.used, files + space.inodes_used
        return PodDisk(
            {name: share(whole, *use) for name, use in layers.items()},
            {name: share(whole, *use) for name, use in logs.items()},
            volumes,
            share(whole, bytes_, files),
        )
