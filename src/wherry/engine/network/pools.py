"""Which ranges networks get that ask for none."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

Range = ipaddress.IPv4Network | ipaddress.IPv6Network


SLOTS = 40


def default_bridge(slot: int) -> str:
    """The range of the default network of the instance that has ``slot`` (0 to SLOTS - 1).

    Docker's own for the first, its neighbours for the next, as far as RFC 1918 goes there.
    """
    return f"172.{17 + slot}.0.0/16" if slot < 14 else f"10.{150 + slot}.0.0/16"


def default_pools(site: str) -> Iterator[Range]:
    """Docker's pools for IPv4, and the /64s of ``site``, our /48 of unique local addresses.

    172.17/16 to 172.30/16 are the default bridges of this machine's first instances, also of those
    that do not run now: they come last, the highest first, as instances take the lowest. RFC 4193.
    """
    yield ipaddress.ip_network("172.31.0.0/16")
    yield from ipaddress.ip_network("192.168.0.0/16").subnets(new_prefix=20)
    for second in range(30, 17, -1):
        yield ipaddress.ip_network(f"172.{second}.0.0/16")
    yield from ipaddress.ip_network(site).subnets(new_prefix=64)


def candidates(site: str, version: int, taken: Iterable[str]) -> Iterator[str]:
    """The default pools of IP ``version`` that overlap nothing of ``taken``."""
    occupied = list(map(ipaddress.ip_network, taken))
    for pool in default_pools(site):
        if pool.version == version and not any(overlap(pool, other) for other in occupied):
            yield str(pool)


def overlapping(cidr: str, taken: Sequence[str]) -> bool:
    """Whether ``cidr`` has an address in common with one of ``taken``."""
    wanted = ipaddress.ip_network(cidr)
    return any(overlap(wanted, ipaddress.ip_network(other)) for other in taken)


def overlap(one: Range, other: Range) -> bool:
    """Whether two ranges have an address in common."""
    return one.version == other.version and one.overlaps(other)
