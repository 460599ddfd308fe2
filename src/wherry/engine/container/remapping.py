"""Containers whose root is nobody on the host: the engine's option ``userns_remap``, or pods with
a range of ids of their own (``hostUsers: false``).

Each such container has a user namespace of its own, held at ``<home>/userns``. Its layers are
mounted with their ids mapped (mount_setattr(2), Linux 5.19 for overlay), so the same layers serve
remapped containers and others, and on disk files belong to whom the image says.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.engine.container.container import Container
from wherry.engine.container.spec import IDENTITY_FILES
from wherry.engine.errors import EngineError
from wherry.host import syscalls, user_namespaces
from wherry.host.user_namespaces import Range
from wherry.runtime.rootfs import mount_overlay, unmount
from wherry.runtime.types import User

DEFAULT_USER = "dockremap"
MAPPED_SINCE = (5, 19)  # the kernel that can map the ids of overlay's layers
USER_RANGE = "io.wherry.user-range"  # annotation of a pod's containers: "<first id>:<how many>"
SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")


@dataclass(frozen=True, slots=True)
class Remapping:
    """Which ids of the host the containers' ids are."""

    uids: Sequence[Range]
    gids: Sequence[Range]

    @property
    def root(self) -> tuple[int, int]:
        """What the containers' root and its group are on the host."""
        return self.uids[0].outside, self.gids[0].outside

    def ids(self, user: User) -> tuple[int, int]:
        """A user of a container and its group on the host; the root where they are nobody."""
        uid, gid = _outside(self.uids, user.uid), _outside(self.gids, user.gid)
        return self.root if uid is None or gid is None else (uid, gid)


def find(option: str, *, subuid: Path = SUBUID, subgid: Path = SUBGID) -> Remapping | None:
    """The mapping of ``userns_remap``: ``default``, or ``user[:group]`` by name or number.

    None where the option is empty.

    Raises:
        EngineError: there is no such user or group, or it has no subordinate ids.
    """
    if not option:
        return None
    user, _, group = option.partition(":")
    if user == "default":
        user = group = DEFAULT_USER
    names = _user(user), _group(group or user)
    uids = ranges(_text(subuid), *names[0])
    gids = ranges(_text(subgid), *names[1])
    for found, kind, name in ((uids, "subuid", names[0][0]), (gids, "subgid", names[1][0])):
        if not found:
            raise EngineError(
                f"Can't create ID mappings: No {kind} ranges found for "
                f'{"user" if kind == "subuid" else "group"} "{name}" in /etc/{kind}'
            )
    return Remapping(uids, gids)


def _outside(ranges: Sequence[Range], number: int) -> int | None:
    for one in ranges:
        if one.inside <= number < one.inside + one.size:
            return one.outside + number - one.inside
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _user(text: str) -> tuple[str, int]:
    try:
        entry = pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)
    except KeyError:
        raise EngineError(f'error during "{text}" user lookup: no such user') from None
    return entry.pw_name, entry.pw_uid


def _group(text: str) -> tuple[str, int]:
    try:
        entry = grp.getgrgid(int(text)) if text.isdigit() else grp.getgrnam(text)
    except KeyError:
        raise EngineError(f'error during "{text}" group lookup: no such group') from None
    return entry.gr_name, entry.gr_gid


def ranges(text: str, name: str, number: int) -> list[Range]:
    """Those of a user in ``/etc/subuid`` (subuid(5)), put one behind the other from 0 on."""
    found: list[Range] = []
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        first, _, size = rest.partition(":")
        if owner in (name, str(number)) and first.isdigit() and size.isdigit():
            inside = found[-1].inside + found[-1].size if found else 0
            found.append(Range(inside, int(first), int(size)))
    return found


def of_pod(container: Container) -> Remapping | None:
    """The ids that a container has by its pod."""
    text = (container.host_config.get("Annotations") or {}).get(USER_RANGE)
    if not text:
        return None
    first, _, size = text.partition(":")
    ids = (Range(0, int(first), int(size)),)
    return Remapping(ids, ids)


def open_way(root: Path, directory: Path) -> None:
    """Let the containers' root, who is nobody, pass through ``root`` to ``directory`` below it.

    What lay behind a closed door and is not on the way stays closed to others.

    Raises:
        EngineError: a directory above ``root``, which is not ours, is closed to others.
    """
    for parent in root.parents:
        if not parent.stat().st_mode & 0o001:
            raise EngineError(
                f"a directory above {root} ({parent}) restricts access for the remapped root; "
                "allow 'o+x' on it"
            )
    way = [directory, *(p for p in directory.parents if p.is_relative_to(root))]
    for ours in way:
        mode = ours.stat().st_mode
        if mode & 0o001:
            continue
        for entry in ours.iterdir():
            if entry not in way and not entry.is_symlink() and entry.stat().st_mode & 0o007:
                entry.chmod(stat.S_IMODE(entry.stat().st_mode) & ~0o007)
        ours.chmod(mode | 0o111)


# ---- one container


def namespace(container: Container) -> Path:
    """Where its user namespace is held."""
    return container.home / "userns"


def take(container: Container, remapping: Remapping) -> None:
    """Make its user namespace."""
    container.home.chmod(0o711)
    give_back(container)
    user_namespaces.create(namespace(container), remapping.uids, remapping.gids)


def own_files(container: Container, remapping: Remapping) -> None:
    """Give the files that tell it who and where it is to its root, who may change them."""
    for name in IDENTITY_FILES:
        if container.file(name).exists():
            os.chown(container.file(name), *remapping.root)


def give_back(container: Container) -> None:
    """Let go of what ``take`` and ``mount`` made; nothing happens without."""
    if (mapped := _mapped(container)).exists():
        for point in mapped.iterdir():
            unmount(point)
            point.rmdir()
        mapped.rmdir()
    if namespace(container).exists():
        user_namespaces.delete(namespace(container))


def _mapped(container: Container) -> Path:
    return container.home / "mapped"


def mount(container: Container, layers: Sequence[Path], remapping: Remapping) -> None:
    """Mount its root file system, every layer with its ids mapped.

    Overlay works on its layers as who mounts it; the host's root is nobody there.

    Raises:
        EngineError: the kernel, or the file system below, cannot do that.
    """
    mapped = _mapped(container)
    mapped.mkdir(exist_ok=True)
    points = []
    owner = os.open(namespace(container), os.O_RDONLY | os.O_CLOEXEC)
    try:
        for number, layer in enumerate((container.layers, *layers)):
            point = mapped / str(number)
            point.mkdir(exist_ok=True)
            points.append(point)
            _mount_mapped(layer, point, owner)
        own, *lower = points
        with syscalls.file_system_identity(*remapping.root):
            mount_overlay(lower, own / "upper", own / "work", container.rootfs)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise _cannot(error) from error
        raise
    finally:
        os.close(owner)
        # The overlay keeps mounts of its own of them.
        for point in points:
            unmount(point)
            point.rmdir()
        mapped.rmdir()


def _mount_mapped(source: Path, target: Path, owner: int) -> None:
    directory = os.open(source, os.O_PATH | os.O_CLOEXEC)
    tree = at = -1
    try:
        tree = syscalls.clone_mount(directory)
        syscalls.map_ids(tree, owner)
        at = os.open(target, os.O_PATH | os.O_CLOEXEC)
        syscalls.attach_mount(tree, at)
    finally:
        for descriptor in (directory, tree, at):
            if descriptor >= 0:
                os.close(descriptor)


def mount_volume(source: Path, target: Path, container: Container) -> None:
    """Mount a volume, or a part of it, at ``target`` with its ids mapped as the layers' are.

    So its files are the image's users' on disk as well, and other containers can share it.

    Raises:
        EngineError: the file system below cannot do that.
    """
    unmount(target)  # a failed clean-up may have left it
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir(mode=0o700, exist_ok=True)
    else:
        target.touch(mode=0o600)
    owner = os.open(namespace(container), os.O_RDONLY | os.O_CLOEXEC)
    try:
        _mount_mapped(source, target, owner)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise _cannot(error) from error
        raise
    finally:
        os.close(owner)


def _cannot(error: OSError) -> EngineError:
    return EngineError(
        "user namespace remapping needs mounts with mapped ids: "
        f"Linux 5.19 and a file system that has them ({error})"
    )
