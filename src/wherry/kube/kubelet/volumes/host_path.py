"""Volumes that are paths of the node (https://kubernetes.io/docs/concepts/storage/volumes/#hostpath)."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wherry.kube.kubelet.environment import ConfigError

Object = dict[str, Any]

_KINDS: dict[str, tuple[Callable[[int], bool], str]] = {
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "Directory": (stat.S_ISDIR, "a directory"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def check_host_path(source: Object) -> Path:
    """The place of a ``hostPath`` volume, made where its type says so.

    Raises:
        ConfigError: it is not of the type.
        OSError: it cannot be made.
    """
    path = Path(source["path"])
    wanted = source.get("type") or ""
    if wanted == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    elif wanted in ("", "DirectoryOrCreate") and not path.exists():
        # Without a type as dockerd does for a bind mount whose source is not there.
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    if not wanted:
        return path
    check, name = _KINDS[wanted]
    if not path.exists() or not check(path.stat().st_mode):
        raise ConfigError(f"hostPath type check failed: {path} is not {name}")
    return path
