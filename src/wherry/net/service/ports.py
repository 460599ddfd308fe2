"""What a node is to do for one port of a Service: what those who decide tell those who act.

All policies have been judged by whoever makes a ``ServicePort``; how it becomes rules is a matter
of the proxy's mode (``nftables``, ``iptables``, ``userspace``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
FAMILIES = ("ip", "ip6")
Endpoint = tuple[str, int]
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service in one address family.

    Where there is no endpoint clients are told so at once; unless there are some on other nodes,
    which the Service's policy forbids to use: then nothing is said, as a load balancer in front may
    try another node.
    """

    name: str  # namespace/name, and :port where the port has a name
    protocol: str  # tcp, udp, sctp
    port: int
    cluster_ip: str
    inside: tuple[Endpoint, ...] = ()  # who answers at the cluster IP
    outside: tuple[Endpoint, ...] = ()  # at every other address, to clients from elsewhere
    everywhere: tuple[Endpoint, ...] = ()  # and there to pods and to this machine
    inside_elsewhere: bool = False  # other nodes have endpoints that ``inside`` may not have
    outside_elsewhere: bool = False
    external_ips: tuple[str, ...] = ()
    balancer_ips: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()  # ranges that may use the balancer's addresses; empty: all
    node_port: int = 0  # on every address of this machine; 0: none
    affinity: int = 0  # seconds for which a client keeps its endpoint; 0: each connection anew
    masquerade: bool = True  # endpoints see this machine in place of clients from outside

    @property
    def family(self) -> str:
        """``ip`` or ``ip6``."""
        return family_of(self.cluster_ip)

    @property
    def key(self) -> Key:
        """What tells it from others."""
        return self.name, self.protocol, self.family

    @property
    def endpoints(self) -> frozenset[Endpoint]:
        """All of them."""
        return frozenset((*self.inside, *self.outside, *self.everywhere))

    @property
    def outer_addresses(self) -> tuple[str, ...]:
        """Those besides the cluster IP, each once."""
        return tuple(dict.fromkeys((*self.external_ips, *self.balancer_ips)))


def family_of(address: str) -> str:
    """That of an address or a range."""
    return "ip6" if ":" in address else "ip"


def of_family(family: str, ranges: Iterable[str]) -> list[str]:
    """Those of ``ranges`` that are of ``family``."""
    return [cidr for cidr in ranges if family_of(cidr) == family]
