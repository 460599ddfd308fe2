"""Play histories of Services against the kernel's nftables, in the network namespace we are in.

After each history the tables are compared with those of a fresh start. Prints what differs.
"""

from __future__ import annotations

import asyncio
import random
import sys

from wherry.net import service_route
from wherry.net.nft import Nftables
from wherry.net.routes import block, unblock
from wherry.net.service_map import _CONTAINERS, ServiceMap
from wherry.net.service_ports import ServicePort

SERVICES, PODS = ["10.96.0.0/16", "fd00:96::/108"], ["10.244.0.0/16", "fd00:244::/64"]


def services(nft: Nftables, table: str) -> ServiceMap:
    return ServiceMap(nft, table, services=SERVICES, pods=PODS)


def chosen(random_: random.Random) -> dict[tuple[str, str, str], ServicePort]:
    result = {}
    for number in random_.sample(range(1, 7), random_.randint(0, 6)):
        six = random_.random() < 0.4
        net, pods, outer = ("fd00:96::", "fd00:244::", "2001:db8::") if six else (
            "10.96.0.", "10.244.0.", "198.51.100."
        )  # fmt: skip

        def some(pods: str = pods) -> tuple[tuple[str, int], ...]:
            numbers = random_.sample(range(2, 9), random_.randint(0, 4))
            return tuple((f"{pods}{n}", 8080) for n in sorted(numbers))

        port = ServicePort(
            f"a/{number}",
            random_.choice(["tcp", "udp", "sctp"]),
            80,
            f"{net}{number}",
            inside=some(),
            outside=some(),
            everywhere=some(),
            outside_elsewhere=random_.random() < 0.5,
            balancer_ips=(f"{outer}{number}",),
            sources=random_.choice([(), ("fd00::/8", "fd00:1::/32") if six else ("10.0.0.0/8",)]),
            node_port=random_.choice([0, 30000 + number]),
            affinity=random_.choice([0, 0, 60]),
            masquerade=random_.random() < 0.5,
        )
        result[port.key] = port
    return result


def meaning(map_: ServiceMap) -> set[object]:
    found: set[object] = set()
    for family in ("ip", "ip6"):
        numbers = {e.key: e.value for e in map_._elements.read(family, "numbers")}
        classes = {e.key: e.value for e in map_._elements.read(family, "classes")}
        for container in _CONTAINERS:
            for element in map_._elements.read(family, container):
                value: object = element.value
                if container.endswith("choices"):
                    value = numbers[element.value]  # type: ignore[index]
                elif container.endswith("services"):
                    value = classes[element.value]  # type: ignore[index]
                key = b"" if container == "numbers" else element.key
                found.add((family, container, key, element.end, value))
    return found


async def play(seed: int) -> int:
    random_ = random.Random(seed)
    nft = Nftables()
    for cidr in SERVICES:
        block(cidr)
        service_route.add(cidr)
    live = services(nft, "live")
    last = chosen(random_)
    await live.start(last)
    for _ in range(12):
        now = chosen(random_)
        if random_.random() < 0.3:  # the proxy was killed
            live = services(nft, "live")
            await live.start(now)
        else:
            gone = {key: None for key in last if key not in now}
            await live.change({**gone, **now})
        last = now
        fresh = services(nft, "fresh")
        await fresh.remove()
        await fresh.start(now)
        if meaning(live) != meaning(fresh):
            print("differs", seed, meaning(live) ^ meaning(fresh))
            return 1
    # Whoever looks at them sees them: nft ends with an assertion at what it would not have made.
    argv = ["nft", "list", "ruleset"]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait():
        print("nft cannot list the rules", seed)
        return 1
    for each in (live, services(nft, "fresh")):
        await each.remove()
    for cidr in SERVICES:
        service_route.remove(cidr)
        unblock(cidr)
    print("the same")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(play(int(sys.argv[1]))))
