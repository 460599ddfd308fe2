"""Learn at once that a group of processes has run out of memory.

That need not end the container: the kernel may kill another process of it than the first, or none
where it was told not to (``--oom-kill-disable``), and let them wait for memory.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from wherry.runtime.cgroups import Layout
from wherry.runtime.usage import oom_kills

_IN_MODIFY = 0x2


class OOMWatch:
    """Calls ``tell`` each time; ``close`` before the group is removed, which would look the same.

    v1 tells through an eventfd (memory.txt of the kernel, "OOM Control"), v2 through a change of
    ``memory.events`` (cgroup-v2.rst), which counts other things as well.
    """

    def __init__(self, layout: Layout, path: str, tell: Callable[[], None]) -> None:
        """Begin to watch group ``path``; nothing where memory is not counted.

        Raises:
            OSError: the kernel refuses.
        """
        self._layout, self._path, self._tell = layout, path, tell
        self._descriptor = -1
        group = layout.group("memory", path)
        if group is None:
            return
        self._kills = oom_kills(layout, path)
        self._descriptor = _inotify(group / "memory.events") if layout.is_v2 else _eventfd(group)
        asyncio.get_running_loop().add_reader(self._descriptor, self._ready)

    def _ready(self) -> None:
        os.read(self._descriptor, 4096)
        before, self._kills = self._kills, oom_kills(self._layout, self._path)
        if not self._layout.is_v2 or self._kills > before:
            self._tell()

    def close(self) -> None:
        """Stop watching; may be repeated."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def _eventfd(group: Path) -> int:
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(group / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            (group / "cgroup.event_control").write_text(f"{event} {control}")
        finally:
            os.close(control)
    except OSError:
        os.close(event)
        raise
    return event


def _inotify(file: Path) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    descriptor: int = library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    if library.inotify_add_watch(descriptor, os.fsencode(file), _IN_MODIFY) < 0:
        number = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(number, os.strerror(number), str(file))
    return descriptor
