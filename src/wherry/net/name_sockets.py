"""The sockets of a name server inside a network namespace that is not ours to listen in.

It is asked at 127.0.0.11:53, but a program in there may have port 53 of all addresses for itself.
So it listens at ports that the kernel chose, and a rule in the namespace leads there. Sockets and
rule belong to the namespace: where it goes, the rule goes; who holds a socket keeps it alive.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from wherry.net import namespaces
from wherry.net.name_query import here
from wherry.net.nftables import nft

ADDRESS = "127.0.0.11"
PORT = 53
TABLE = "wherry-dns"
# More than that many connections that nobody has taken yet are refused by the kernel.
_BACKLOG = 64


def listen(namespace: Path) -> tuple[socket.socket, socket.socket]:
    """The sockets that answer in ``namespace``: datagrams, and connections. Blocks.

    The rule of an earlier call is replaced in one step.

    Raises:
        OSError: there is no such namespace, or the kernel refuses.
        NftError: the kernel refuses the rule.
    """
    with contextlib.ExitStack() as stack:
        with nft.local() as run, namespaces.enter(namespace):
            datagrams, connections = (
                stack.enter_context(_bound(kind))
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
            )
            connections.listen(_BACKLOG)
            _redirect(run, datagrams.getsockname()[1], connections.getsockname()[1])
        stack.pop_all()
    return datagrams, connections


def _bound(kind: socket.SocketKind) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        bound.bind((ADDRESS, 0))
    except BaseException:
        bound.close()
        raise
    return bound


def _redirect(run: Callable[[str], str], datagram_port: int, connection_port: int) -> None:
    rules = redirection(datagram_port, connection_port)
    if f" {TABLE}\n" in run("list tables ip"):  # of a former daemon
        rules = f"delete table ip {TABLE}\n{rules}"
    run(rules)


def redirection(datagram_port: int, connection_port: int) -> str:
    """The new table that leads port 53 of the address to the ports that answer."""
    return f"""\
add table ip {TABLE}
add chain ip {TABLE} output {{ type nat hook output priority -100; policy accept; }}
add rule ip {TABLE} output ip daddr {ADDRESS} udp dport {PORT} dnat to {ADDRESS}:{datagram_port}
add rule ip {TABLE} output ip daddr {ADDRESS} tcp dport {PORT} dnat to {ADDRESS}:{connection_port}
"""


def client(kind: socket.SocketKind, family: int, namespace: Path | None) -> socket.socket:
    """A socket that asks others, from inside ``namespace``, or from the machine without one.

    Raises:
        OSError: there is no such namespace, or the kernel refuses.
    """
    if namespace is None:
        return here(kind, family)
    with namespaces.enter(namespace):
        return here(kind, family)
