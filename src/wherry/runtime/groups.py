"""Groups of containers: limits on what all below a cgroup use together, such as those of a pod.

A container's own limits are the OCI runtime's business; a group above it is nobody's container, so
its files are written here. What the kernel does not have is passed over, as for containers.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wherry.runtime import cgroups
from wherry.runtime.cgroups import Layout
from wherry.runtime.types import RuntimeFailure
from wherry.runtime.workspace import Workspace


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """0 leaves a limit as it is, -1 takes it away. CPU times in µs, memory in bytes; sizes of huge
    pages that are not named stay as they are."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    memory: int = 0
    pids: int = 0
    huge_pages: Mapping[str, int] = field(default_factory=dict)  # bytes by size: "2MB"; 0 is none


def weight(shares: int) -> int:
    """v2's ``cpu.weight`` (1 to 10000) for v1's shares (2 to 262144), as runtimes convert it."""
    return 1 + (max(2, min(262_144, shares)) - 2) * 9999 // 262_142


def files(limits: GroupLimits, *, v2: bool) -> list[tuple[str, str, str]]:
    """What to write: controller, file, text."""
    found: list[tuple[str, str, str]] = []
    if limits.cpu_shares > 0:
        text = str(weight(limits.cpu_shares)) if v2 else str(limits.cpu_shares)
        found.append(("cpu", "cpu.weight" if v2 else "cpu.shares", text))
    period = limits.cpu_period or 100_000
    if limits.cpu_quota and v2:
        quota = str(limits.cpu_quota) if limits.cpu_quota > 0 else "max"
        found.append(("cpu", "cpu.max", f"{quota} {period}"))
    elif limits.cpu_quota:
        if limits.cpu_quota > 0:
            found.append(("cpu", "cpu.cfs_period_us", str(period)))
        found.append(("cpu", "cpu.cfs_quota_us", str(max(-1, limits.cpu_quota))))
    if limits.memory and v2:
        text = str(limits.memory) if limits.memory > 0 else "max"
        found.append(("memory", "memory.max", text))
    elif limits.memory:
        found.append(("memory", "memory.limit_in_bytes", str(max(-1, limits.memory))))
    if limits.pids:
        text = str(limits.pids) if limits.pids > 0 else "max"
        found.append(("pids", "pids.max", text))
    leaf = "max" if v2 else "limit_in_bytes"
    for size, bytes_ in limits.huge_pages.items():
        # What is reserved counts as well: a mapping beyond the limit is refused when it is made,
        # in place of a signal when it is used.
        for kind in (size, f"{size}.rsvd"):
            found.append(("hugetlb", f"hugetlb.{kind}.{leaf}", str(bytes_)))
    return found


def limit(layout: Layout, path: str, limits: GroupLimits) -> None:
    """Make group ``path`` where it is not there, and set its limits.

    Raises:
        OSError: the kernel refuses a value, as EBUSY for less memory than is in use.
    """
    cgroups.make(layout, path)
    if layout.is_v2 and layout.unified is not None:
        _delegate(layout.unified, path)
    for controller, name, text in files(limits, v2=layout.is_v2):
        group = layout.group(controller, path)
        if group is None or not (group / name).exists():
            continue
        (group / name).write_text(text)


def _delegate(root: Path, path: str) -> None:
    """Let the groups along ``path`` have the controllers of those above them (v2)."""
    directory = root
    for part in ("", *path.strip("/").split("/")):
        directory = directory / part
        with contextlib.suppress(OSError):
            wanted = {"cpu", "memory", "pids", "io", "cpuset", "hugetlb"}
            there = set((directory / "cgroup.controllers").read_text().split()) & wanted
            on = set((directory / "cgroup.subtree_control").read_text().split())
            if there - on:
                text = " ".join(f"+{name}" for name in sorted(there - on))
                (directory / "cgroup.subtree_control").write_text(text)


def remove_empty(layout: Layout, path: str) -> None:
    """Remove group ``path`` and the empty ones in it; one in which something lives stays."""
    for tree in layout.trees:
        for current, _, _ in os.walk(tree / path.lstrip("/"), topdown=False):
            try:
                Path(current).rmdir()
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.ENOENT):
                    raise


def below(layout: Layout, path: str) -> list[str]:
    """The names of the groups right below ``path``, in whichever tree they are."""
    found: set[str] = set()
    for tree in layout.trees:
        with contextlib.suppress(FileNotFoundError), os.scandir(tree / path.lstrip("/")) as entries:
            found.update(entry.name for entry in entries if entry.is_dir())
    return sorted(found)


class Groups:
    """The groups of one instance, each by its path below the instance's own."""

    def __init__(self, space: Workspace) -> None:
        self._space = space

    def limit(self, group: str, limits: GroupLimits) -> None:
        """Limit all containers whose ``cgroup_parent`` is ``group`` or below it together.

        Raises:
            RuntimeFailure: the kernel refuses a value.
        """
        path = self._space.cgroup("", group)
        try:
            limit(self._space.layout, path, limits)
        except OSError as error:
            raise RuntimeFailure(
                f"cgroup {path}: {(error.strerror or str(error)).lower()}"
            ) from None

    def remove(self, group: str) -> None:
        """Remove a group in which nothing lives any more; nothing where something does."""
        remove_empty(self._space.layout, self._space.cgroup("", group))

    def below(self, group: str) -> list[str]:
        """The names of the groups right below ``group``."""
        return below(self._space.layout, self._space.cgroup("", group))
