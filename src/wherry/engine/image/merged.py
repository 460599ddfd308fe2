"""Looking at layers as overlay would merge them, without mounting them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from wherry.host.beneath import open_beneath, open_directory

OPAQUE = "trusted.overlay.opaque"
_WHITEOUT_DEVICE = os.makedev(0, 0)


def find(layers: Sequence[Path], parts: Sequence[str]) -> int | None:
    """An O_PATH descriptor of what ``layers``, topmost first, have there; None for nothing.

    The last component is not followed.
    """
    path = "/".join(parts)
    for layer in layers:
        root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
        except FileNotFoundError:
            if any(is_opaque(root, parts[:depth]) for depth in range(1, len(parts))):
                return None
            continue
        except OSError:
            return None  # a whiteout or a file where the path needs a directory
        finally:
            os.close(root)
        if is_whiteout(os.fstat(found)):
            os.close(found)
            return None
        return found
    return None


def find_status(layers: Sequence[Path], path: str) -> os.stat_result | None:
    """stat(2) of what ``layers`` have at ``path``; None for nothing."""
    found = find(layers, path.split("/"))
    if found is None:
        return None
    try:
        return os.fstat(found)
    finally:
        os.close(found)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether it is overlay's mark for a deleted name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == _WHITEOUT_DEVICE


def is_opaque(root: int, parts: Sequence[str]) -> bool:
    """Whether the directory hides what lower layers have in it."""
    try:
        directory = open_directory(root, "/".join(parts))
    except OSError:
        return False
    try:
        return is_opaque_open(directory)
    finally:
        os.close(directory)


def is_opaque_open(directory: int) -> bool:
    """As ``is_opaque``, of a descriptor."""
    try:
        return os.getxattr(f"/proc/self/fd/{directory}", OPAQUE) == b"y"
    except OSError:
        return False
