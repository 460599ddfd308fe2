"""Connections to an address that are under way, and when they have ended.

Whoever is to end a server that obeys at once wants to know whether somebody still waits for its
answer. The kernel's memory of connections says so, also of those that the server has not accepted
yet, and of those that it has not even heard of because its queue is full; and it tells when one
begins to close. linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from dataclasses import dataclass, field

from wherry.net import netlink
from wherry.net.conntrack import flows
from wherry.net.netlink import NETLINK_NETFILTER, NLM_F_DUMP, Connection

_GET, _NEW, _DELETE = 1 << 8 | 1, 1 << 8 | 0, 1 << 8 | 2
_UPDATES = 1 << 1 | 1 << 2  # the groups of those that change, and of those that end
_ORIGINAL, _REPLY, _PROTOCOL_STATE = 1, 2, 4
_TCP, _TCP_STATE = 1, 1
_UNDER_WAY = range(1, 4)  # SYN_SENT, SYN_RECV, ESTABLISHED; afterwards one side has said all


@dataclass(slots=True)
class _Waiting:
    address: str
    ended: asyncio.Future[None]
    known: bool = False  # what was under way at first is in ``open``
    open: set[bytes] = field(default_factory=set)
    closed: set[bytes] = field(default_factory=set)
    relist: asyncio.Task[None] | None = None

    def look(self) -> None:
        if self.known and not self.open and not self.ended.done():
            self.ended.set_result(None)


class OpenConnections:
    """Tells of ends, for as long as anybody waits for some."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._socket: socket.socket | None = None

    async def ended(self, address: str) -> None:
        """Return when no connection of TCP to ``address`` that is there now is under way.

        Raises:
            OSError: the kernel does not tell.
        """
        loop = asyncio.get_running_loop()
        if self._socket is None:
            self._listen()
        one = _Waiting(address, loop.create_future())
        self._waiting.append(one)
        try:
            await self._list(one)
            await one.ended
        finally:
            self._waiting.remove(one)
            if not self._waiting and self._socket is not None:
                loop.remove_reader(self._socket)
                self._socket.close()
                self._socket = None

    async def _list(self, one: _Waiting) -> None:
        # Those that end meanwhile are told of beside it.
        one.open = await asyncio.to_thread(under_way, one.address) - one.closed
        one.known = True
        one.look()

    def _listen(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with contextlib.ExitStack() as stack:
            made = stack.enter_context(socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            made.bind((0, _UPDATES))
            asyncio.get_running_loop().add_reader(made, self._hear)
            stack.pop_all()
        self._socket = made

    def _hear(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            # More than we could hear.
            for one in self._waiting:
                one.known = False
                one.relist = asyncio.create_task(self._list(one))
            return
        for kind, _, body in netlink.messages(data):
            if kind == _DELETE or (kind == _NEW and not _is_under_way(body)):
                key = netlink.read_netfilter(body).get(_ORIGINAL, b"")
                for one in self._waiting:
                    one.closed.add(key)
                    one.open.discard(key)
                    one.look()


def under_way(address: str) -> set[bytes]:
    """The connections to ``address`` that are under way, in the kernel's words (blocking).

    Raises:
        OSError: the kernel refuses.
    """
    version = 6 if ":" in address else 4
    asked = flows.head(version) + flows.only(_REPLY, "tcp", source=address)
    found = set()
    with Connection(NETLINK_NETFILTER) as connection:
        for body in connection.ask(_GET, asked, NLM_F_DUMP):
            flow = flows.read(body)
            if flow is None or flow.protocol != "tcp" or flow.answered_from[0] != address:
                continue
            if _is_under_way(body):
                found.add(netlink.read_netfilter(body)[_ORIGINAL])
    return found


def _is_under_way(body: bytes) -> bool:
    """Of a message without a state: it may be."""
    values = netlink.read_netfilter(body)
    if _PROTOCOL_STATE not in values:
        return True
    state = netlink.attributes(netlink.attributes(values[_PROTOCOL_STATE]).get(_TCP, b""))
    return not state.get(_TCP_STATE) or state[_TCP_STATE][0] in _UNDER_WAY
