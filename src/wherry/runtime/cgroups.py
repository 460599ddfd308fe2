"""Where the kernel keeps the groups of processes it counts and limits (cgroups(7)).

A machine has one tree with all controllers (v2), a tree for each controller (v1), or v1 with a v2
tree beside it (hybrid); which one is seen from the mounts. A group is named by its path below the
roots of all trees, such as ``/wherry0/<container>``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wherry.host import mount_table, syscalls
from wherry.runtime.rootfs import unescape

ROOT = Path("/sys/fs/cgroup")
HUGETLB = ROOT / "hugetlb"
# The source of a mount is free text; ours says who made it, and so who may take it away.
_MARK = "wherry"


@dataclass(frozen=True, slots=True)
class Layout:
    """The trees of this machine: the mount points of v1 by controller, and that of v2."""

    v1: Mapping[str, Path]
    unified: Path | None
    hugetlb_is_ours: bool = False

    @property
    def is_v2(self) -> bool:
        """Whether v2 has all controllers."""
        return not self.v1

    @property
    def trees(self) -> tuple[Path, ...]:
        """All mount points, each once (two controllers may share one)."""
        unified = (self.unified,) if self.unified else ()
        return tuple(dict.fromkeys((*self.v1.values(), *unified)))

    def tree(self, controller: str) -> Path | None:
        """Where ``controller`` is found."""
        return self.unified if self.is_v2 else self.v1.get(controller)

    def group(self, controller: str, path: str) -> Path | None:
        """The directory of group ``path`` that has the files of ``controller``."""
        tree = self.tree(controller)
        return tree / path.lstrip("/") if tree else None


def layout_of(mountinfo: str) -> Layout:
    """Read the trees from the text of ``/proc/self/mountinfo``."""
    v1: dict[str, Path] = {}
    unified: Path | None = None
    ours = False
    for line in mount_table.lines(mountinfo):
        fields, _, tail = line.partition(" - ")
        kind, source, options = tail.split(" ", 2)
        point = Path(unescape(fields.split(" ")[4]))
        if not point.is_relative_to(ROOT):
            continue
        if kind == "cgroup2":
            unified = point
        elif kind == "cgroup":
            ours = ours or (source == _MARK and point == HUGETLB)
            for option in options.split(","):
                if option in _CONTROLLERS or option.startswith("name="):
                    v1[option] = point
    return Layout(v1, unified, ours)


_CONTROLLERS = frozenset(
    (
        *("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb"),
        *("memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma"),
    )
)


def discover() -> Layout:
    """The trees as they are mounted now."""
    return layout_of(mount_table.read())


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Nobody else mounts or unmounts a tree meanwhile.

    An instance holds it from its look at the trees until it has a group in each: before that,
    nothing tells another one, which ends just now, that the tree of hugetlb is still in use.
    """
    descriptor = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def claim_hugetlb(layout: Layout) -> Layout:
    """Mount hugetlb as a v1 tree where v2 holds nothing else beside v1's controllers.

    crun refuses a machine whose v2 tree has controllers while v1 has others; this is what Debian's
    cgroupfs-mount does about it. ``favordynmods`` (Linux 6.0) makes moving a process into a group,
    which every start and exec does ten times here, wait for no RCU grace period: 0.3 ms in place of
    7 to 17 ms, measured. ``release_hugetlb`` undoes it. The caller has the trees ``settled``.

    Raises:
        OSError: the kernel refuses, as where a group uses hugetlb in v2.
    """
    if layout.is_v2 or layout.unified is None or "hugetlb" in layout.v1:
        return layout
    # A tree of v1 may still be there although nobody has it mounted, and its controller come back
    # to v2 when its last group goes: so it is mounted also where v2 has nothing at the moment.
    controllers = (layout.unified / "cgroup.controllers").read_text().split()
    if set(controllers) - {"hugetlb"} or not _kernel_has("hugetlb"):
        return layout
    HUGETLB.mkdir(exist_ok=True)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC | syscalls.MS_RELATIME
    for options in ("hugetlb,favordynmods", "hugetlb"):
        try:
            syscalls.mount(_MARK, str(HUGETLB), "cgroup", flags, options)
        except OSError as error:
            if error.errno == errno.EINVAL and options != "hugetlb":
                continue
            with contextlib.suppress(OSError):
                HUGETLB.rmdir()
            raise
        break
    return discover()


def _kernel_has(controller: str) -> bool:
    lines = Path("/proc/cgroups").read_text().splitlines()
    return any(line.split()[0] == controller and line.endswith("1") for line in lines)


def release_hugetlb() -> None:
    """Unmount what ``claim_hugetlb`` mounted, unless another instance has groups in it.

    Raises:
        OSError: the kernel refuses for another reason than that somebody looks into the tree.
    """
    with settled():
        if not discover().hugetlb_is_ours or any(entry.is_dir() for entry in HUGETLB.iterdir()):
            return
        try:
            syscalls.umount(str(HUGETLB))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return  # the next instance to end takes it away
        with contextlib.suppress(OSError):  # what lies beneath is not ours
            HUGETLB.rmdir()


def make(layout: Layout, path: str) -> None:
    """Make group ``path``, and those above it, in every tree."""
    for tree in layout.trees:
        directory = tree
        for name in path.strip("/").split("/"):
            directory = directory / name
            with contextlib.suppress(FileExistsError):
                directory.mkdir()
            if not layout.is_v2 and tree == layout.v1.get("cpuset"):
                _inherit_cpuset(directory)


def _inherit_cpuset(directory: Path) -> None:
    """A new v1 cpuset is empty and takes no process; give it what its parent has.

    So is one whose maker was killed before it came to this.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = directory / name
        if not (file.exists() and file.read_text().strip()):
            file.write_text((directory.parent / name).read_text())


def add(layout: Layout, path: str, pid: int) -> None:
    """Move process ``pid`` into group ``path``.

    Raises:
        ProcessLookupError: it has ended.
    """
    for tree in layout.trees:
        (tree / path.lstrip("/") / "cgroup.procs").write_text(str(pid))


def unlimit_processes(layout: Layout, path: str) -> None:
    """Take the limit on the number of processes from group ``path``."""
    if (group := layout.group("pids", path)) is not None:
        with contextlib.suppress(FileNotFoundError):
            (group / "pids.max").write_text("max")


def unlimit_cpu(layout: Layout, path: str) -> None:
    """Take the quota of processor time from group ``path``."""
    name, text = ("cpu.max", "max") if layout.is_v2 else ("cpu.cfs_quota_us", "-1")
    if (group := layout.group("cpu", path)) is not None:
        with contextlib.suppress(FileNotFoundError):
            (group / name).write_text(text)


def _groups(directory: Path) -> Iterator[Path]:
    """``directory`` and the groups in it, innermost first."""
    for current, _, _ in os.walk(directory, topdown=False):
        yield Path(current)


def processes(layout: Layout, path: str) -> list[int]:
    """The pids in group ``path`` and those in it, ascending; empty where there is none."""
    directory = layout.group("pids", path) or layout.trees[0] / path.lstrip("/")
    found: set[int] = set()
    for group in _groups(directory):
        with contextlib.suppress(FileNotFoundError, OSError):
            found.update(map(int, (group / "cgroup.procs").read_text().split()))
    return sorted(found)


def _freezer(layout: Layout, path: str) -> tuple[Path | None, str, str]:
    """The file of the freezer, the text it shows when frozen, and the one that thaws."""
    if layout.is_v2:
        group = layout.group("", path)
        return group and group / "cgroup.freeze", "1", "0"
    group = layout.group("freezer", path)
    return group and group / "freezer.state", "FROZEN", "THAWED"


def frozen(layout: Layout, path: str) -> bool:
    """Whether the processes of group ``path`` are frozen."""
    file, shown, _ = _freezer(layout, path)
    with contextlib.suppress(FileNotFoundError):
        return file is not None and file.read_text().strip() == shown
    return False


def thaw(layout: Layout, path: str) -> None:
    """Let frozen processes go on: a frozen one cannot die (freezer of v1)."""
    file, _, text = _freezer(layout, path)
    if file is not None:
        with contextlib.suppress(FileNotFoundError):
            file.write_text(text)


def kill(layout: Layout, path: str) -> bool:
    """Send SIGKILL to every process in group ``path``; whether there was one.

    With v2 at once (``cgroup.kill``, Linux 5.14); else one by one, until a look finds only
    processes that have been sent it: one that forks in between is found by the next look.
    """
    thaw(layout, path)
    directory = layout.group("", path) if layout.is_v2 else None
    if directory is not None and (directory / "cgroup.kill").exists():
        some = bool(processes(layout, path))
        (directory / "cgroup.kill").write_text("1")
        return some
    sent: set[int] = set()
    while fresh := set(processes(layout, path)) - sent:
        for pid in fresh:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        sent |= fresh
    return bool(sent)


def remove(layout: Layout, path: str) -> bool:
    """Remove group ``path`` and those in it from every tree; False where one is still in use."""
    clean = True
    for tree in layout.trees:
        for group in _groups(tree / path.lstrip("/")):
            try:
                group.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                clean = False
    return clean


def prune(layout: Layout, path: str, root: str) -> None:
    """Remove the groups between ``path`` and ``root`` that have become empty."""
    parent = Path(path).parent
    while parent.is_relative_to(root) and str(parent) != root:
        for tree in layout.trees:
            try:
                (tree / str(parent).lstrip("/")).rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                return
        parent = parent.parent
