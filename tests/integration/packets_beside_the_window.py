"""A pod sends its client a packet far beside the window of their connection by way of a Service.

In our network namespace, with one namespace for the client and one for the pod. The first argument
is the proxy's mode, the second how the kernel tracks TCP (strictly, liberally). Prints what became
of the packet, and of the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
import tempfile
from pathlib import Path

from wherry.net import namespaces
from wherry.net.conntrack import tcp_window
from wherry.net.link import cables, links
from wherry.net.link.cables import Inner
from wherry.net.nftables.nft import Nftables
from wherry.net.service.iptables.chains import Names
from wherry.net.service.iptables.tables import IptablesServices
from wherry.net.service.nftables.tables import NftablesServices
from wherry.net.service.ports import ServicePort

CLIENT, POD, SERVICE = "10.244.1.2", "10.244.0.2", "10.96.0.1"
SERVICES, PODS = ["10.96.0.0/16"], ["10.244.0.0/16"]
PORT = 8080
ACK = 0x10
UNUSED = 253  # a protocol for experiments (RFC 3692)
# Nobody has offered to take so much at once.
BESIDE = 500_000_000
HEAD = struct.Struct("!HHIIBBHHH")


def machines(directory: Path) -> tuple[Path, Path]:
    """The client and the pod, each behind a bridge."""
    made = []
    for name, address in (("client", CLIENT), ("pod", POD)):
        gateway = address.rpartition(".")[0] + ".1"
        links.ensure_bridge(name, f"{gateway}/24")
        path = directory / name
        namespaces.create(path)
        inner = Inner("eth0", (f"{address}/24",), (gateway,))
        cables.connect(path, inner, bridge=name, host_interface=f"to-{name}")
        made.append(path)
    return made[0], made[1]


def opened(place: Path, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
    with namespaces.enter(place):
        made = socket.socket(socket.AF_INET, kind, protocol)
    made.settimeout(60)
    return made


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(port: int, sequence: int, acknowledged: int) -> bytes:
    """From the pod to the client: nothing but an acknowledgement."""
    fields = (PORT, port, sequence & 0xFFFFFFFF, acknowledged, 5 << 4, ACK, 1000)
    ends = socket.inet_aton(POD) + socket.inet_aton(CLIENT)
    pseudo = ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, HEAD.size)
    return HEAD.pack(*fields, checksum(pseudo + HEAD.pack(*fields, 0, 0)), 0)


def question(raw: socket.socket) -> tuple[int, int]:
    """What the segment with the client's question says: its number, and which it waits for."""
    while True:
        packet = raw.recv(65536)
        _, _, sequence, acknowledged, length, *_ = HEAD.unpack_from(packet, 20)
        if packet[20 + (length >> 4) * 4 :] == b"?":
            return sequence, acknowledged


class Mark:
    """Goes the way of packets, behind them: where it has arrived they have, too."""

    def __init__(self, source: Path, target: Path, address: str) -> None:
        self._source = opened(source, socket.SOCK_RAW, UNUSED)
        self._target = opened(target, socket.SOCK_RAW, UNUSED)
        self._address = address

    def follow(self) -> None:
        self._source.sendto(b"mark", (self._address, 0))
        self._target.recv(100)


def heard_from(ear: socket.socket, number: int) -> str:
    """Whom there is a segment of that number from, of those that have arrived."""
    ear.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            packet = ear.recv(65536)
            if HEAD.unpack_from(packet, 20)[2] == number:
                return socket.inet_ntoa(packet[12:16])
    return "nobody"


async def serve(mode: str) -> None:
    rules = (
        IptablesServices(Names("TEST"), services=SERVICES, pods=PODS)
        if mode == "iptables"
        else NftablesServices(Nftables(), "led", services=SERVICES, pods=PODS)
    )
    served = ServicePort("a/b", "tcp", 80, SERVICE, inside=((POD, PORT),))
    await rules.start({served.key: served})


def main(mode: str, tracking: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        client, pod = machines(Path(directory))
        try:
            asyncio.run(serve(mode))
            if tracking == "liberally":
                tcp_window.be_liberal()  # (the kernel can, once there are rules)
                asyncio.run(serve(mode))
            print(*play(client, pod), sep="; ")
        finally:
            namespaces.delete(client)
            namespaces.delete(pod)


def play(client: Path, pod: Path) -> tuple[str, str]:
    listening = opened(pod, socket.SOCK_STREAM)
    listening.bind((POD, PORT))
    listening.listen()
    raw = opened(pod, socket.SOCK_RAW, socket.IPPROTO_TCP)
    ear = opened(client, socket.SOCK_RAW, socket.IPPROTO_TCP)
    there, back = Mark(pod, client, CLIENT), Mark(client, pod, POD)
    asking = opened(client, socket.SOCK_STREAM)
    asking.connect((SERVICE, 80))
    answering, _ = listening.accept()
    asking.sendall(b"?")
    sequence, acknowledged = question(raw)
    beside = (acknowledged + BESIDE) & 0xFFFFFFFF
    sent = segment(asking.getsockname()[1], beside, sequence + 1)
    raw.sendto(sent, (CLIENT, 0))
    there.follow()
    found = heard_from(ear, beside)
    back.follow()  # behind the reset, if there is one
    try:
        answering.sendall(b"!")
        goes_on = asking.recv(1) == b"!"
    except ConnectionError:
        goes_on = False
    return f"from {found}", "goes on" if goes_on else "is reset"


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # what is sent first arrives first
    main(*sys.argv[1:])
