"""Volumes that begin empty and go with their pod: on the disk, in memory, in huge pages.

https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from wherry.kube.api import quantity
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.environment import ConfigError
from wherry.kube.kubelet.volumes import mounts

Object = dict[str, Any]

_HUGE = "HugePages"
NO_PAGES = "medium {}: hugePages storage requested, but there is no resource request for huge pages"


def prepare(pod: Object, source: Object, place: Path) -> None:
    """Make the volume at ``place``, unless it is there with all that was written to it.

    Raises:
        ConfigError: there is no such medium, or no such pages.
        OSError: the kernel refuses, for one because it has no huge pages.
    """
    medium = source.get("medium") or ""
    fresh = not place.exists()
    place.mkdir(parents=True, exist_ok=True, mode=0o750)
    if medium:
        if mounts.is_mounted(place):
            return
        if medium == "Memory":
            mounts.mount_tmpfs(place, size=memory_size(pod, source))
        else:
            mounts.mount_huge_pages(place, page_size(pod, medium))
    elif not fresh and place.stat().st_mode & 0o777 == 0o777:  # else it was not finished
        return
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    if group is not None:
        os.chown(place, -1, group)
    place.chmod(0o777 if group is None else 0o2777)


def memory_size(pod: Object, source: Object) -> int:
    """How large a volume in memory may become, in bytes; 0 where nothing says it.

    Its own limit, and what the pod's containers may use together.
    """
    sizes = []
    if source.get("sizeLimit"):
        sizes.append(quantity.parse(str(source["sizeLimit"])).to_int())
    limits = []
    for container in pods.containers(pod):
        limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
        limits.append(quantity.parse(str(limit)).to_int() if limit else 0)
    if limits and all(limits):
        sizes.append(sum(limits))
    return min((size for size in sizes if size), default=0)


def page_size(pod: Object, medium: str) -> int:
    """The size in bytes of the pages that ``HugePages`` or ``HugePages-<size>`` means.

    Raises:
        ConfigError: there is no such medium, or the pod asks for none or for several sizes.
    """
    name, _, size = medium.partition("-")
    if name != _HUGE:
        raise ConfigError(f'unknown storage medium "{medium}"')
    asked = set()
    for container in [*pods.init_containers(pod), *pods.containers(pod)]:
        resources = container.get("resources") or {}
        for kind in ("requests", "limits"):
            asked |= {
                n.removeprefix("hugepages-")
                for n in resources.get(kind) or ()
                if n.startswith("hugepages-")
            }
    if size:
        if size not in asked:
            raise ConfigError(NO_PAGES.format(medium))
        return quantity.parse(size).to_int()
    if len(asked) != 1:
        if not asked:
            raise ConfigError(NO_PAGES.format(medium))
        raise ConfigError(
            f"medium: {medium} can't be used if container requests multiple huge page sizes"
        )
    return quantity.parse(asked.pop()).to_int()


def excess(pod: Object, used: dict[str, int]) -> str:
    """Why the pod must go for what its volumes hold, in upstream's words; empty if it may stay.

    ``used`` are the bytes in its volumes, by their names.
    """
    for volume in pod["spec"].get("volumes") or ():
        source = volume.get("emptyDir")
        if source is None or not source.get("sizeLimit"):
            continue
        limit = str(source["sizeLimit"])
        if used.get(volume["name"], 0) > quantity.parse(limit).to_int():
            name = volume["name"]
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
    return ""
