"""Send the first packet of an SCTP association to a Service, in our network namespace.

By hand: a kernel may translate SCTP without having sockets for it. Prints where it arrived.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys

from wherry.net.link.routes import block
from wherry.net.nftables.nft import Nftables
from wherry.net.service import local_routing
from wherry.net.service.iptables.chains import Names
from wherry.net.service.iptables.tables import IptablesServices
from wherry.net.service.nftables.tables import NftablesServices
from wherry.net.service.ports import ServicePort

SCTP = 132
ENDPOINT = ("10.244.0.2", 3868)
POLYNOMIAL = 0x82F63B78  # CRC32c, reflected


def checksum(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def first_packet(source: int, destination: int) -> bytes:
    """INIT, as RFC 9260, section 3.3.2, has it."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 0x1234, 65536, 1, 1, 1)
    head = struct.pack(">HHI", source, destination, 0)
    value = checksum(head + bytes(4) + chunk)
    return head + struct.pack("<I", value) + chunk


def addresses() -> None:
    for address in ("10.244.0.1", ENDPOINT[0]):
        subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)


async def main(mode: str) -> None:
    addresses()
    block("10.96.0.0/16")
    local_routing.add("10.96.0.0/16", "10.244.0.1")
    services, pods = ["10.96.0.0/16"], ["10.244.0.0/16"]
    rules = (
        IptablesServices(Names("TEST"), services=services, pods=pods)
        if mode == "iptables"
        else NftablesServices(Nftables(), "led", services=services, pods=pods)
    )
    served = ServicePort("a/b", "sctp", 80, "10.96.0.1", inside=(ENDPOINT,))
    await rules.start({served.key: served})
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, SCTP) as raw:
        raw.settimeout(20)
        raw.sendto(first_packet(5000, 80), ("10.96.0.1", 0))
        while True:
            packet = raw.recv(200)
            to = socket.inet_ntoa(packet[16:20])
            source, destination = struct.unpack_from(">HH", packet, (packet[0] & 15) * 4)
            if source == 5000:
                print(f"{to}:{destination}")
                return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
