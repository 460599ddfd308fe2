"""What is taken of a family's addresses and of the node ports, and what is given next.

Those chosen for a client come from the upper part of a range, so that the lower one stays free for
what people write down; when the upper one is full, the lower one is given, too.
Upstream: pkg/registry/core/service/{ipallocator,portallocator}.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import random
from collections.abc import Iterable

NODE_PORTS = range(30000, 32768)
LARGEST = 1 << 64
"""So many addresses of a range are given out at most."""
_SIDE_BY_SIDE = 42
"""So many clusters of one machine, which have their node ports in common, begin apart."""
_TAKEN_IP = "provided IP is already allocated"
_TAKEN_PORT = "provided port is already allocated"
_FULL = "range is full"


class Full(Exception):
    """Nothing is free."""


class Refused(Exception):
    """Not this one; ``str()`` says why."""


def _share(size: int, part: int, least: int, most: int) -> int:
    """How many of ``size`` stay free for people at first: a ``part``, within limits; none of a
    small range."""
    return min(max(least, size // part), most) if size > least else 0


@functools.lru_cache(8192)
def _number(address: str) -> tuple[int, int]:
    """Its version, and itself as a number."""
    ip = ipaddress.ip_address(address)
    return ip.version, int(ip)


class AddressRange:
    """One range: its addresses by their number. The range's own is none of them, in IPv4 nor is the
    last one, that of all of it."""

    def __init__(self, cidr: str) -> None:
        self.network = ipaddress.ip_network(cidr)
        self._of = type(self.network.network_address)
        self._first = int(self.network.network_address) + 1
        whole = self.network.num_addresses
        self.size = max(min(whole - (2 if self.network.version == 4 else 1), LARGEST), 0)
        self.static = min(_share(whole, 16, 16, 256), self.size)
        """Those below this number are chosen last."""
        self.full = False
        """Nothing was free when somebody last looked, and nothing became so since."""

    def __contains__(self, address: str) -> bool:
        version, number = _number(address)
        return version == self.network.version and 0 <= number - self._first < self.size

    def at(self, number: int) -> str:
        return str(self._of(self._first + number))


class AddressPool:
    """The addresses of one family, in ranges that may overlap and change."""

    def __init__(self, cidrs: Iterable[str] = ()) -> None:
        self.ranges: tuple[AddressRange, ...] = ()
        self._taken: set[str] = set()  # by Services,
        self._named: set[str] = set()  # by IPAddresses,
        self._asked: set[str] = set()  # and by writes under way
        self.use(cidrs)

    def use(self, cidrs: Iterable[str]) -> None:
        """Give addresses of these ranges from now on."""
        before = {str(range.network): range for range in self.ranges}
        names = dict.fromkeys(str(ipaddress.ip_network(cidr)) for cidr in cidrs)
        self.ranges = tuple(before.get(name) or AddressRange(name) for name in names)

    def claim(self, address: str) -> None:
        """Take this one. Raises Refused."""
        if not any(address in range for range in self.ranges):
            raise Refused(
                f"the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {', '.join(str(r.network) for r in self.ranges)}"
            )
        if self._is_taken(address):
            raise Refused(_TAKEN_IP)
        self._asked.add(address)

    def choose(self) -> str:
        """Take any, of the first range that has one. Raises Full."""
        for range in self.ranges:
            if not range.full and (address := self._free(range)):
                self._asked.add(address)
                return address
            range.full = True
        raise Full(_FULL)

    def _free(self, of: AddressRange) -> str:
        upper = of.size - of.static
        if upper > 0:
            start = random.randrange(upper)  # noqa: S311 - not a secret
            for step in range(upper):
                address = of.at(of.static + (start + step) % upper)
                if not self._is_taken(address):
                    return address
        for number in range(of.static):
            if not self._is_taken(address := of.at(number)):
                return address
        return ""

    def _is_taken(self, address: str) -> bool:
        return address in self._taken or address in self._named or address in self._asked

    def free(self, addresses: Iterable[str]) -> None:
        """No Service has these any more."""
        self._taken.difference_update(addresses)
        self._reopen()

    def settle(self, addresses: Iterable[str]) -> None:
        """The write that asked for these is over."""
        self._asked.difference_update(addresses)
        self._reopen()

    def is_lost(self, addresses: Iterable[str]) -> bool:
        """Whether somebody else stored one of those that a write under way asked for."""
        return any(address in self._taken or address in self._named for address in addresses)

    def hold(self, addresses: Iterable[str]) -> None:
        """These are in use by Services, whether that is right or not."""
        self._taken.update(addresses)

    def name(self, address: str) -> None:
        """There is an IPAddress of it."""
        self._named.add(address)

    def unname(self, address: str) -> None:
        """There is none any more."""
        self._named.discard(address)
        self._reopen()

    def _reopen(self) -> None:
        for range in self.ranges:
            range.full = False


class PortPool:
    """The node ports; TCP and UDP share the numbers.

    ``service_cidr`` tells this cluster from others on its machine: as long as each has few of them,
    no two give the same.
    """

    def __init__(self, service_cidr: str, ports: range = NODE_PORTS) -> None:
        network = ipaddress.ip_network(service_cidr)
        number = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
        self._part = number % _SIDE_BY_SIDE
        self._ports = ports
        self._static = _share(len(ports), 32, 16, 128)
        self._taken: set[int] = set()  # by Services,
        self._asked: set[int] = set()  # and by writes under way

    def claim(self, port: int) -> None:
        """Take this one. Raises Refused."""
        if port not in self._ports:
            raise Refused(
                "provided port is not in the valid range. The range of valid ports is "
                f"{self._ports.start}-{self._ports.stop - 1}"
            )
        if port in self._taken or port in self._asked:
            raise Refused(_TAKEN_PORT)
        self._asked.add(port)

    def choose(self) -> int:
        """Take any. Raises Full."""
        lower, upper = self._ports[: self._static], self._ports[self._static :]
        size = len(upper) // _SIDE_BY_SIDE
        own = upper[self._part * size :][:size]
        start, turn = random.randrange(len(own)), random.randrange(len(upper))  # noqa: S311
        chosen = (own[start:], own[:start], upper[turn:], upper[:turn], lower)
        for port in itertools.chain.from_iterable(chosen):
            if port not in self._taken and port not in self._asked:
                self._asked.add(port)
                return port
        raise Full(_FULL)

    def free(self, ports: Iterable[int]) -> None:
        self._taken.difference_update(ports)

    def settle(self, ports: Iterable[int]) -> None:
        """The write that asked for these is over."""
        self._asked.difference_update(ports)

    def is_lost(self, ports: Iterable[int]) -> bool:
        """As of addresses."""
        return not self._taken.isdisjoint(ports)

    def hold(self, ports: Iterable[int]) -> None:
        self._taken.update(ports)


def first_address(cidr: str) -> str:
    """The address of the ``kubernetes`` Service in the range."""
    return AddressRange(cidr).at(0)
