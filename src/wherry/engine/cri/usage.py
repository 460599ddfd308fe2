"""How much a container has written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from wherry.engine.cri.types import FilesystemUsage


def measured(directory: Path) -> FilesystemUsage:
    """What lies below ``directory``, each inode once. Blocks."""
    size = inodes = 0
    seen: set[tuple[int, int]] = set()
    waiting = [directory]
    while waiting:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            current = waiting.pop()
            with os.scandir(current) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        if found.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                            if (found.st_dev, found.st_ino) in seen:
                                continue
                            seen.add((found.st_dev, found.st_ino))
                        size += found.st_blocks * 512
                        inodes += 1
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(Path(entry.path))
    return FilesystemUsage(size, inodes)
