"""The process that answers: small, with nothing else to do, and not ended by the node's end.

``keeping`` starts ``python -m wherry.kube.dns DIRECTORY CONTROL DATAGRAMS CONNECTIONS…`` with
descriptors of bound sockets: one to which nodes connect, and two for each address. Whoever connects
is greeted with the sockets, and tells of the cluster from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import uvloop

import wherry
from wherry.host.pidfile import AlreadyRunning, PidFile
from wherry.kube.dns.listening import Listener, Pair
from wherry.kube.dns.server import NameServer
from wherry.kube.dns.telling import PID_FILE, Unpacker

_BACKLOG = 8
_NICE = -10


def main(arguments: Sequence[str]) -> int:
    """Answer until SIGTERM; returns the exit code."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    directory, control, *rest = arguments
    os.setsid()  # what ends the node's terminal or group ends not us
    _prefer()
    sockets = [socket.socket(fileno=int(number)) for number in rest]
    for each in sockets:
        each.setblocking(False)
    pairs = list(zip(sockets[::2], sockets[1::2], strict=True))
    try:
        held = PidFile(Path(directory) / PID_FILE)
    except AlreadyRunning:
        return 1
    # What was imported lives for ever; the collector need not walk it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    uvloop.run(_serve(socket.socket(fileno=int(control)), pairs))
    held.release()
    return 0


def _prefer() -> None:
    """Have the kernel run us soon: whoever waits for a name can do nothing else."""
    # Where sessions are scheduled as groups (sched(7)), a process's own nice value says nothing.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        Path("/proc/self/autogroup").write_text(str(_NICE))


async def _serve(control: socket.socket, pairs: Sequence[Pair]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = NameServer(datagrams.getsockname()[:2] for datagrams, _ in pairs)
    listener = Listener(pairs, server.answer)
    told = asyncio.create_task(_be_told(control, server, pairs))
    ended = asyncio.create_task(stop.wait())
    try:
        whole = asyncio.create_task(server.whole.wait())
        await asyncio.wait((whole, ended), return_when=asyncio.FIRST_COMPLETED)
        if whole.done():
            await listener.open()
        whole.cancel()
        await ended
    finally:
        told.cancel()
        await listener.close()
        await server.close()


async def _be_told(control: socket.socket, server: NameServer, pairs: Sequence[Pair]) -> None:
    """Listen to who connected last."""
    loop = asyncio.get_running_loop()
    control.setblocking(False)
    control.listen(_BACKLOG)
    descriptors = [each.fileno() for each in chain.from_iterable(pairs)]
    hello = json.dumps({"version": wherry.__version__}).encode()
    last: asyncio.Transport | None = None
    while True:
        connection, _ = await loop.sock_accept(control)
        try:
            socket.send_fds(connection, [hello], descriptors)
        except OSError:
            connection.close()
            continue
        if last is not None:
            last.abort()
        last, _ = await loop.connect_accepted_socket(lambda: _Told(server), connection)


class _Told(asyncio.Protocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._unpacker = Unpacker()

    def data_received(self, data: bytes) -> None:
        for told in self._unpacker.feed(data):
            self._server.take(told)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
