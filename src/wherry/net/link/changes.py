"""What the kernel tells of this machine's network without being asked (rtnetlink's groups)."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator

from wherry.net import netlink
from wherry.net.link import links


class Changes:
    """Calls ``on_change`` in the running loop, from ``open`` to ``close``, when one of the
    ``groups`` has news that ``concerns`` whoever listens."""

    groups = 0

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._socket: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def open(self) -> None:
        """Begin; nothing where it was begun.

        Raises:
            OSError: the kernel refuses.
        """
        if self._socket is not None:
            return
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, self.groups))
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stop; nothing where it was not begun."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def concerns(self, kind: int, body: bytes) -> bool:
        """Whether a message is news; each is seen once, in order."""
        return True

    def _read(self) -> None:
        news = False
        for data in self._received():
            for kind, _, body in netlink.messages(data):
                news = self.concerns(kind, body) or news
            news = news or not data
        if news:
            self._on_change()

    def _received(self) -> Iterator[bytes]:
        """What has come; nothing in place of what was too much to be held."""
        assert self._socket is not None
        while True:
            try:
                yield self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield b""


class RouteChanges(Changes):
    """Of this machine's routes and addresses."""

    groups = (
        netlink.RTMGRP_IPV4_IFADDR
        | netlink.RTMGRP_IPV4_ROUTE
        | netlink.RTMGRP_IPV6_IFADDR
        | netlink.RTMGRP_IPV6_ROUTE
    )


class MTUChanges(Changes):
    """Of how large packets may be on a link that was there before: the cables of containers that
    come and go are no news."""

    groups = netlink.RTMGRP_LINK

    def open(self) -> None:
        if not self.is_open:
            super().open()
            self._known = links.mtus()

    def concerns(self, kind: int, body: bytes) -> bool:
        told = links.read_mtu(body)
        if told is None or body[0] != socket.AF_UNSPEC:  # (it is of a bridge's port)
            return False
        index, mtu = told
        if kind == netlink.RTM_DELLINK:
            self._known.pop(index, None)
            return False
        before, self._known[index] = self._known.get(index, mtu), mtu
        return before != mtu
