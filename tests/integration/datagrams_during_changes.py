"""Send datagrams to a Service whose endpoints change all the while, in our network namespace.

There is always one; so none may be refused. Says which error a sender saw, if any.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

from wherry.net.link.routes import block
from wherry.net.nftables.nft import Nftables
from wherry.net.service import local_routing
from wherry.net.service.nftables.tables import NftablesServices
from wherry.net.service.ports import ServicePort

CHANGES = 6000
CLIENT = """
import os, socket
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            try:
                client.sendto(b"x", ("10.96.0.1", 80))
            except OSError as error:
                print(repr(error), flush=True)
"""


def served(count: int, affinity: int) -> ServicePort:
    inside = tuple((f"10.244.0.{number}", 8080) for number in range(2, 2 + count))
    return ServicePort("a/b", "udp", 80, "10.96.0.1", inside=inside, affinity=affinity)


def addresses() -> None:
    for number in range(1, 6):
        argv = ["ip", "addr", "add", f"10.244.0.{number}/32", "dev", "lo"]
        subprocess.run(argv, check=True)


def begin() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CLIENT], stdout=subprocess.PIPE, text=True)


async def main(affinity: int) -> int:
    addresses()
    servers = []
    for number in range(2, 6):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((f"10.244.0.{number}", 8080))
        servers.append(server)
    block("10.96.0.0/16")
    local_routing.add("10.96.0.0/16", "10.244.0.1")
    ranges = {"services": ["10.96.0.0/16"], "pods": ["10.244.0.0/16"]}
    table = NftablesServices(Nftables(), "fire", **ranges)  # type: ignore[arg-type]
    now = served(3, affinity)
    await table.start({now.key: now})
    client = begin()
    for turn in range(CHANGES):
        now = served(1 + turn * 7 % 4, affinity)
        await table.change({now.key: now})
    client.kill()
    said, _ = client.communicate()
    print(said or "none was refused")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]))))
