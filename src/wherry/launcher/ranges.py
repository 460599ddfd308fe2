"""Which addresses the pods and Services of a cluster have: what is asked for, what is chosen.

Families are called as Services call them. The first is the primary one: of what has one address
alone, and the first of what has two.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wherry.kube.api.families import IPV4, IPV6, families_of

_NODE_PREFIX = {IPV4: 24, IPV6: 64}
"""Of a node's part of the pods' range."""
_LEAST_SERVICES = 16
"""Addresses: the tenth is the name server's."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody asks for; ``pods`` and ``services`` where he chooses the ranges himself."""

    families: tuple[str, ...]
    pods: tuple[str, ...] = ()
    services: tuple[str, ...] = ()

    def is_met(self, pods: str, services: str) -> bool:
        """Whether those ranges (with commas in between) are what is asked for."""
        return (
            families_of(pods) == self.families
            and self.pods in ((), tuple(pods.split(",")))
            and self.services in ((), tuple(services.split(",")))
        )

    def choose(self, pods: str, services: str) -> tuple[str, str]:
        """All ranges of pods, and of Services: those asked for; those given in IPv4; of chance in
        IPv6, unique local addresses (RFC 4193)."""
        site = _site()
        chosen_pods, chosen_services = {IPV4: pods}, {IPV4: services}
        chosen_pods[IPV6] = str(next(site.subnets(new_prefix=56)))
        chosen_services[IPV6] = f"{site.network_address + (0xFFFF << 64)}/112"
        return (
            ",".join(self.pods or (chosen_pods[family] for family in self.families)),
            ",".join(self.services or (chosen_services[family] for family in self.families)),
        )


def _site() -> ipaddress.IPv6Network:
    """A /48 that nobody else has, as far as chance can tell."""
    number = 0xFD << 120 | secrets.randbits(40) << 80
    return ipaddress.IPv6Network((number, 48))


def wanted(families: str | None, pods: str | None, services: str | None) -> Wanted | None:
    """What those words, each a list with commas in between, ask for; None where there are none.

    Raises:
        ValueError: they are wrong, or do not go together.
    """
    own_pods, own_services = _ranges(pods, "pods"), _ranges(services, "Services")
    for cidr in own_pods:
        family = families_of(cidr)[0]
        if int(cidr.partition("/")[2]) > _NODE_PREFIX[family]:
            raise ValueError(
                f"{cidr} is too small for pods: every node gets a /{_NODE_PREFIX[family]}"
            )
    for cidr in own_services:
        if ipaddress.ip_network(cidr).num_addresses < _LEAST_SERVICES:
            raise ValueError(f"{cidr} is too small for Services: want {_LEAST_SERVICES} addresses")
    taken: list[str] = []
    for cidr in (*own_pods, *own_services):
        if other := overlapped(cidr, taken):
            raise ValueError(f"{cidr} overlaps {other}")
        taken.append(cidr)
    said = [
        (_families(families) if families else (), "--ip-families"),
        (families_of(pods or ""), "--pod-network-cidr"),
        (families_of(services or ""), "--service-cidr"),
    ]
    given = [(named, option) for named, option in said if named]
    if not given:
        return None
    first, told = given[0]
    for other_families, option in given[1:]:
        if other_families != first:
            raise ValueError(
                f"{option} has {' and '.join(other_families)}, {told} has {' and '.join(first)}: "
                "want the same, in the same order"
            )
    return Wanted(first, own_pods, own_services)


def _families(text: str) -> tuple[str, ...]:
    names = {name.lower(): name for name in (IPV4, IPV6)}
    words = [word.strip().lower() for word in text.split(",")]
    if any(word not in names for word in words) or len(set(words)) != len(words):
        raise ValueError(f'invalid families "{text}": want IPv4, IPv6, or both with a comma')
    return tuple(names[word] for word in words)


def _ranges(text: str | None, whose: str) -> tuple[str, ...]:
    if not text:
        return ()
    found = tuple(str(ipaddress.ip_network(word.strip())) for word in text.split(","))
    if len(families_of(",".join(found))) != len(found):
        raise ValueError(f"{text}: {whose} have at most one range of each family")
    return found


def overlapped(cidr: str, others: Iterable[str]) -> str:
    """The first of ``others`` that has an address in common with ``cidr``; empty for none."""
    range = ipaddress.ip_network(cidr)
    for other in others:
        network = ipaddress.ip_network(other)
        if network.version == range.version and network.overlaps(range):
            return other
    return ""


def split(text: str) -> tuple[str, ...]:
    """The ranges of a list with commas in between."""
    return tuple(cidr for cidr in text.split(",") if cidr)


def address(ranges: Sequence[str], index: int) -> tuple[str, ...]:
    """The address of that number of each range."""
    return tuple(str(ipaddress.ip_network(cidr)[index]) for cidr in ranges)
