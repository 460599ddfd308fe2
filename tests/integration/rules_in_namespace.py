"""Play histories of Services against the kernel's rules, in the network namespace we are in.

Of nftables or of iptables: the first argument; the second is the seed.

After each history the tables are compared with those of a fresh start. Prints what differs.
"""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import sys

from wherry.net.link.routes import block, unblock
from wherry.net.nftables.nft import Nftables, NftError
from wherry.net.service import local_routing
from wherry.net.service.iptables import programs
from wherry.net.service.iptables.chains import Names
from wherry.net.service.iptables.tables import IptablesServices
from wherry.net.service.nftables.maps import CONTAINERS
from wherry.net.service.nftables.tables import NftablesServices
from wherry.net.service.ports import ServicePort

SERVICES, PODS = ["10.96.0.0/16", "fd00:96::/108"], ["10.244.0.0/16", "fd00:244::/64"]


def services(nft: Nftables, table: str) -> NftablesServices:
    return NftablesServices(nft, table, services=SERVICES, pods=PODS)


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


def meaning(map_: NftablesServices) -> set[object]:
    found: set[object] = set()
    for family in ("ip", "ip6"):
        numbers = {e.key: e.value for e in map_._elements.read(family, "numbers")}
        classes = {e.key: e.value for e in map_._elements.read(family, "classes")}
        for container in CONTAINERS:
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
        local_routing.add(cidr)
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
        local_routing.remove(cidr)
        unblock(cidr)
    print("the same")
    return 0


# ---- the same with chains of iptables


def tables(prefix: str) -> IptablesServices:
    return IptablesServices(Names(prefix), services=SERVICES, pods=PODS)


def chains(prefix: str) -> dict[tuple[str, str, str], list[str]]:
    """What there is, under names that do not tell whose it is."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for family in ("ip", "ip6"):
        listed = programs.read(family, Names(prefix))
        for table, name in listed.chains | listed.rules.keys():
            rules = [r.replace(prefix, "X") for r in listed.rules.get((table, name), ())]
            if re.match(rf"{prefix}-(SERVICES|NODEPORTS|EXTERNAL|PROXY)", name):
                rules.sort()  # each is about another packet
            found[family, table, name.replace(prefix, "X")] = rules
    return found


def ruleset() -> str:
    argv = ["nft", "list", "ruleset"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def foreign_rule() -> None:
    rule = ["PREROUTING", "-d", "198.51.100.9", "-j", "ACCEPT"]
    subprocess.run(["iptables-nft", "-t", "nat", "-A", *rule], check=True)


def foreign_chain() -> None:
    subprocess.run(["iptables-nft", "-t", "nat", "-N", "LIVE-SERVICES"], check=True)


async def play_iptables(seed: int) -> int:
    random_ = random.Random(seed)
    foreign_rule()
    before = ruleset()
    live = tables("LIVE")
    last = chosen(random_)
    await live.start(last)
    for _ in range(6):
        now = chosen(random_)
        if random_.random() < 0.3:  # the proxy was killed
            live = tables("LIVE")
            await live.start(now)
        else:
            gone = {key: None for key in last if key not in now}
            await live.change({**gone, **now})
        last = now
        fresh = tables("FRESH")
        await fresh.remove()
        await fresh.start(now)
        for family in ("ip", "ip6"):  # what is right already is not written again
            listed = programs.read(family, Names("FRESH"))
            if again := fresh._whole(family, now, listed).script():
                print("again", seed, again)
                return 1
        one, other = chains("LIVE"), chains("FRESH")
        if one != other:
            print("differs", seed, {k: (one.get(k), other.get(k)) for k in one.keys() | other.keys()
                                    if one.get(k) != other.get(k)})  # fmt: skip
            return 1
    for prefix in ("LIVE", "FRESH"):
        await tables(prefix).remove()
    # Not a chain, nor an empty table, is left; nor is a rule of others gone.
    if ruleset() != before:
        print("left", ruleset())
        return 1
    # Chains that are called as ours would be, but are another's, stay as they are.
    foreign_chain()
    before = ruleset()
    try:
        await tables("LIVE").start(last)
        print("took another's chains")
    except NftError as error:
        if "another kube-proxy has chains of iptables" not in str(error):
            print(error)
    await tables("LIVE").remove()
    print("the same" if ruleset() == before else ruleset())
    return 0


if __name__ == "__main__":
    played = play_iptables if sys.argv[1] == "iptables" else play
    sys.exit(asyncio.run(played(int(sys.argv[2]))))
