"""Processes of an nginx whose master was killed: they serve on, but nobody can tell them more.

Their listening sockets go over to the next nginx, as they would when its program is exchanged
(https://nginx.org/en/docs/control.html#upgrade): no client finds the ports closed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

from wherry.host.syscalls import descriptor_of

_PROC = Path("/proc")


def find(directory: Path) -> list[int]:
    """The processes that had their configuration in ``directory``."""
    found = []
    for place in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if _is_nginx(place) and _is_orphan(place, directory):
                found.append(int(place.name))
    return found


def _is_nginx(process: Path) -> bool:
    # (A process calls itself as it likes, or is cut off in the middle of a letter.)
    return (process / "comm").read_bytes() == b"nginx\n"


def _is_orphan(process: Path, directory: Path) -> bool:
    parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
    if _is_nginx(_PROC / parent):
        return False
    if int(parent) == os.getpid():  # in a pod: we are the first process there
        return True
    # On a machine with others', one of ours has our network, and a log of ours open.
    network = Path("ns/net")
    if (process / network).readlink() != (_PROC / "self" / network).readlink():
        return False
    return any(directory in file.readlink().parents for file in (process / "fd").iterdir())


def end(processes: Iterable[int]) -> None:
    """Have them answer what is under way, and take nothing more."""
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)


def listening(processes: Iterable[int]) -> list[socket.socket]:
    """Their listening sockets, which are the same for all; empty where we may not have them."""
    for pid in processes:
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                found = _sockets(handle, _PROC / str(pid) / "fd")
            finally:
                os.close(handle)
            if found:
                return found
    return []


def _sockets(handle: int, held: Path) -> list[socket.socket]:
    result = []
    for file in held.iterdir():
        if not str(file.readlink()).startswith("socket:"):
            continue
        found = socket.socket(fileno=descriptor_of(handle, int(file.name)))
        internet = found.family in (socket.AF_INET, socket.AF_INET6)
        if internet and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            result.append(found)
        else:
            found.close()
    return result
