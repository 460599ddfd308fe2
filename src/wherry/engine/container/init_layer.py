"""The layer between an image and a container's own: where the runtime will mount things.

Without it, /proc, /etc/hosts and their like would be made in the container's own layer by its first
start, and `docker diff` and `docker commit` would take them for changes of the container. Docker
has the same layer, with the same content. It follows from the image, so all containers of an image
share one.
"""

from __future__ import annotations

import math
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from wherry.engine.image.members import set_xattr
from wherry.engine.image.merged import find, find_status

_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
_FILES = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "dev/console")
_LINKS = (("etc/mtab", "/proc/mounts"),)
_MARK = ".dockerenv"
_UNFINISHED = ".new-"


def prepare(layer: Path, lower: Sequence[Path]) -> Path:
    """Have ``layer`` with what ``lower``, the image's layers, do not have of it; returns it.

    It gets its name when it is complete, and is never changed afterwards.
    """
    if layer.exists():
        return layer
    layer.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=layer.parent))
    _fill(new, lower)
    new.chmod(0o755)
    try:
        new.rename(layer)
    except OSError:
        shutil.rmtree(new)
        if not layer.exists():
            raise
    return layer


def sweep(root: Path, images: Collection[str], opened: float) -> None:
    """Remove the layers below ``root`` of all but ``images``, and what a kill has left half.

    What is not finished and younger than ``opened`` is being made just now.
    """
    names = {name_of(image) for image in images}
    for layer in root.iterdir() if root.exists() else ():
        fresh = layer.name.startswith(_UNFINISHED) and _made(layer) >= opened
        if layer.name not in names and not fresh:
            shutil.rmtree(layer)


def name_of(image: str) -> str:
    """The name of the layer for an image, given by its id."""
    return image.removeprefix("sha256:")


def _fill(layer: Path, lower: Sequence[Path]) -> None:
    for path in _DIRECTORIES:
        if find_status(lower, path) is None:
            _make_parent(layer, lower, path)
            (layer / path).mkdir(mode=0o755, exist_ok=True)
    for path in _FILES:
        if find_status(lower, path) is None and _make_parent(layer, lower, path):
            (layer / path).touch(mode=0o755)
    for path, target in _LINKS:
        if find_status(lower, path) is None and _make_parent(layer, lower, path):
            (layer / path).symlink_to(target)
    (layer / _MARK).touch(mode=0o755)


def _make_parent(layer: Path, lower: Sequence[Path], path: str) -> bool:
    """Have the parent of ``path`` in the layer, looking as in the image.

    False where the image has no directory there, but a link or a file: it keeps what it has.
    """
    head = path.rpartition("/")[0]
    if not head or (layer / head).exists():
        return True
    found = find(lower, head.split("/"))
    if found is None:
        (layer / head).mkdir(mode=0o755)
        return True
    try:
        status = os.fstat(found)
        if not stat.S_ISDIR(status.st_mode):
            return False
        target = layer / head
        target.mkdir()
        os.chown(target, status.st_uid, status.st_gid)
        below = f"/proc/self/fd/{found}"
        for name in os.listxattr(below):
            set_xattr(str(target), name, os.getxattr(below, name))
        target.chmod(stat.S_IMODE(status.st_mode))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(found)
    return True


def _made(layer: Path) -> float:
    try:
        return layer.stat().st_mtime
    except FileNotFoundError:
        return math.inf  # it has just got its name
