"""Network namespaces that outlive whoever made them: each is held by a file it is mounted on.

network_namespaces(7). A container joins one by that file's path, so its network is ready before its
first process exists and stays when that process is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from wherry.host import syscalls, user_namespaces
from wherry.net import netlink

# As Docker sets them: every port is open to everyone, and everyone may ping.
_SYSCTLS = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
}
_LOOPBACK = 1


def create(path: Path, owner: Path | None = None) -> None:
    """Make a namespace, its loopback interface up, and hold it at the new file ``path``.

    It belongs to the user namespace held at ``owner``, or to ours.

    Raises:
        FileExistsError: there is one already.
        OSError: the kernel refuses (EPERM without the privilege).
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        if owner is not None:
            user_namespaces.create_network(path, owner)
            with enter(path):
                _prepare()
            return
        with _returning():
            syscalls.unshare(syscalls.CLONE_NEWNET)
            source = "/proc/thread-self/ns/net"
            syscalls.mount(source, str(path), "none", syscalls.MS_BIND)
            _prepare()
    except BaseException:
        delete(path)
        raise


def _prepare() -> None:
    """Set up what every namespace has; runs inside it."""
    with netlink.Connection() as connection:
        up = netlink.link(index=_LOOPBACK, flags=netlink.IFF_UP, change=netlink.IFF_UP)
        connection.change(netlink.RTM_NEWLINK, up)
    for name, value in _SYSCTLS.items():
        write_sysctl(name, value)


def write_sysctl(name: str, value: str) -> None:
    """Set a network parameter of the namespace this thread is in; nothing where there is none."""
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys", name).write_text(value)


def delete(path: Path) -> None:
    """Let go of the namespace at ``path``; nothing where there is none.

    The kernel removes it, and the interfaces in it, when its last process has gone.
    """
    try:
        syscalls.umount(str(path), syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def enter(path: Path) -> Iterator[None]:
    """Work inside the namespace at ``path``: a context for the calling thread alone.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is no namespace.
    """
    target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _returning():
            syscalls.setns(target, syscalls.CLONE_NEWNET)
            yield
    finally:
        os.close(target)


@contextlib.contextmanager
def _returning() -> Iterator[None]:
    """Bring the calling thread back to the namespace in which it is now."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)
