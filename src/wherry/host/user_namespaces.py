"""User namespaces that are held by a file, and network namespaces that belong to one.

user_namespaces(7). A process with several threads can neither make nor enter a user namespace, so a
child does it and waits while its namespaces are taken from it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wherry.host import syscalls

# It says that it has got there, and waits until its input is closed.
_WAIT = ("sh", "-c", "echo; read -r _")


@dataclass(frozen=True, slots=True)
class Range:
    """``size`` ids from ``inside`` on are, outside of the namespace, those from ``outside`` on."""

    inside: int
    outside: int
    size: int


def create(path: Path, uids: Sequence[Range], gids: Sequence[Range]) -> None:
    """Make a namespace with these ids and hold it at the new file ``path``.

    Raises:
        FileExistsError: there is one already.
        OSError: the kernel refuses.
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        with _child("unshare", "--user") as pid:
            for name, ranges in (("uid_map", uids), ("gid_map", gids)):
                lines = "".join(f"{r.inside} {r.outside} {r.size}\n" for r in ranges)
                Path(f"/proc/{pid}/{name}").write_text(lines)
            syscalls.mount(f"/proc/{pid}/ns/user", str(path), "none", syscalls.MS_BIND)
    except BaseException:
        delete(path)
        raise


def create_network(path: Path, owner: Path) -> None:
    """Make a network namespace that belongs to the user namespace at ``owner``.

    It is mounted on ``path``, a file that is there.

    Raises:
        OSError: the kernel refuses.
    """
    with _child("nsenter", f"--user={owner}", "unshare", "--net") as pid:
        syscalls.mount(f"/proc/{pid}/ns/net", str(path), "none", syscalls.MS_BIND)


def delete(path: Path) -> None:
    """Let go of the namespace at ``path``; nothing where there is none."""
    try:
        syscalls.umount(str(path), syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    except OSError:
        if os.path.ismount(path):
            raise
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _child(*command: str) -> Iterator[int]:
    """A process in the namespaces that ``command`` makes; its pid."""
    with subprocess.Popen(
        [*command, *_WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdin and child.stdout and child.stderr
        try:
            if child.stdout.readline() != b"\n":
                reason = child.stderr.read().decode(errors="replace").strip()
                raise OSError(f"cannot make a user namespace: {reason}")
            yield child.pid
        finally:
            child.stdin.close()
            child.wait()
