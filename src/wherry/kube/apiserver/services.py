"""Addresses and node ports of Services: who has which, and which are free.

What is taken is known from the Services themselves: the state is rebuilt from them at the start and
follows their events. A write takes what it needs before it is stored, so two cannot get the same.
What writes under way have asked for is known apart: of the same address another server's Service
may be told meanwhile, which must outlast them.

Upstream: pkg/registry/core/service/{storage,ipallocator,portallocator}.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterable

from wherry.kube.api.errors import FieldError, StatusError, invalid
from wherry.kube.api.families import family_of, normal
from wherry.kube.api.kinds import service_families
from wherry.kube.api.kinds.fields import invalid as invalid_field
from wherry.kube.apiserver.cache import Event, ResourceCache
from wherry.kube.apiserver.objects import Object

NODE_PORTS = range(30000, 32768)
LARGEST = 1 << 16
"""So many addresses of a range are given out at most."""
_TAKEN_IP = "provided IP is already allocated"
_TAKEN_PORT = "provided port is already allocated"


class _Full(Exception):
    """Nothing is free."""


class _Refused(Exception):
    """Not this one; ``str()`` says why."""


class AddressRange:
    """The addresses of a service range. Those chosen for a client come from its upper part, so
    that the lower one stays free for addresses people write down."""

    def __init__(self, cidr: str) -> None:
        self.network = ipaddress.ip_network(cidr)
        # The first address is the network's own; the last one in IPv4 that of all of it.
        self.size = min(
            self.network.num_addresses - (2 if self.network.version == 4 else 1), LARGEST
        )
        self._reserved = min(max(16, self.size // 16), 256) if self.size >= 32 else 0
        self._taken: set[str] = set()  # by Services,
        self._asked: set[str] = set()  # and by writes under way

    @property
    def first(self) -> str:
        """The address of the ``kubernetes`` Service."""
        return self._at(0)

    def claim(self, address: str) -> None:
        """Take this one. Raises _Refused."""
        inside = ipaddress.ip_address(address)
        offset = int(inside) - int(self.network.network_address) - 1
        if inside.version != self.network.version or not 0 <= offset < self.size:
            raise _Refused(
                f"the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {self.network}"
            )
        if address in self._taken or address in self._asked:
            raise _Refused(_TAKEN_IP)
        self._asked.add(address)

    def choose(self) -> str:
        """Take any. Raises _Full."""
        upper = self.size - self._reserved
        start = random.randrange(upper)  # noqa: S311 - not a secret
        for step in range(upper):
            address = self._at(self._reserved + (start + step) % upper)
            if address not in self._taken and address not in self._asked:
                self._asked.add(address)
                return address
        for offset in range(1, self._reserved):
            address = self._at(offset)
            if address not in self._taken and address not in self._asked:
                self._asked.add(address)
                return address
        raise _Full("range is full")

    def free(self, addresses: Iterable[str]) -> None:
        self._taken.difference_update(addresses)

    def settle(self, addresses: Iterable[str]) -> None:
        """The write that asked for these is over."""
        self._asked.difference_update(addresses)

    def hold(self, addresses: Iterable[str]) -> None:
        """These are in use, whether that is right or not."""
        self._taken.update(addresses)

    def _at(self, offset: int) -> str:
        return str(self.network.network_address + 1 + offset)


class PortRange:
    """The node ports; TCP and UDP share the numbers."""

    def __init__(self, ports: range = NODE_PORTS) -> None:
        self._ports = ports
        self._taken: set[int] = set()  # by Services,
        self._asked: set[int] = set()  # and by writes under way

    def claim(self, port: int) -> None:
        """Take this one. Raises _Refused."""
        if port not in self._ports:
            raise _Refused(
                "provided port is not in the valid range. The range of valid ports is "
                f"{self._ports.start}-{self._ports.stop - 1}"
            )
        if port in self._taken or port in self._asked:
            raise _Refused(_TAKEN_PORT)
        self._asked.add(port)

    def choose(self) -> int:
        """Take any. Raises _Full."""
        start = random.randrange(len(self._ports))  # noqa: S311 - not a secret
        for step in range(len(self._ports)):
            port = self._ports[(start + step) % len(self._ports)]
            if port not in self._taken and port not in self._asked:
                self._asked.add(port)
                return port
        raise _Full("range is full")

    def free(self, ports: Iterable[int]) -> None:
        self._taken.difference_update(ports)

    def settle(self, ports: Iterable[int]) -> None:
        """The write that asked for these is over."""
        self._asked.difference_update(ports)

    def hold(self, ports: Iterable[int]) -> None:
        self._taken.update(ports)


class Allocations:
    """What Services have taken. ``service_cidr`` is the service range, or one of each family with a
    comma in between: the first is that of Services which do not say."""

    def __init__(self, service_cidr: str) -> None:
        self.ranges = {family_of(cidr): AddressRange(cidr) for cidr in service_cidr.split(",")}
        self.families = tuple(self.ranges)
        self.ports = PortRange()

    @property
    def addresses(self) -> AddressRange:
        """Those of the first family."""
        return self.ranges[self.families[0]]

    def follow(self, services: ResourceCache) -> None:
        """Hold what the present Services have, and keep to their events from now on."""
        for stored in services.list():
            self._hold(_addresses(stored.object))
            self.ports.hold(_ports(stored.object))
        services.listen(self._happened)

    def _hold(self, addresses: Iterable[str]) -> None:
        for family, listed in _by_family(addresses):
            if family in self.ranges:
                self.ranges[family].hold(listed)

    def _happened(self, event: Event) -> None:
        addresses, ports = set[str](), set[int]()
        if event.current is not None:
            addresses, ports = _addresses(event.current.object), _ports(event.current.object)
            self._hold(addresses)
            self.ports.hold(ports)
        if event.previous is not None:
            for family, gone in _by_family(_addresses(event.previous.object) - addresses):
                if family in self.ranges:
                    self.ranges[family].free(gone)
            self.ports.free(_ports(event.previous.object) - ports)

    def take(self, new: Object, old: Object | None) -> Callable[[], None]:
        """Fill in and take the addresses and ports that ``new`` needs and ``old`` has not.

        Returns:
            What is to be called when the write is over: by then what it stored is known from its
            event, and what it did not store is free again.

        Raises:
            StatusError: 422, one asked for is not to be had; 500, none is left. Nothing is taken.
        """
        addresses: list[str] = []
        ports: list[int] = []

        def settle() -> None:
            for family, listed in _by_family(addresses):
                self.ranges[family].settle(listed)
            self.ports.settle(ports)

        if old is not None and new.get("spec") == old.get("spec"):
            return settle
        try:
            self._take_addresses(new, old, addresses)
            self._take_ports(new, old, ports)
        except BaseException:
            settle()
            raise
        return settle

    def _take_addresses(self, new: Object, old: Object | None, taken: list[str]) -> None:
        spec = new["spec"] = {**new["spec"]}
        if spec.get("type") == "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
            return
        former = (old or {}).get("spec") or {}
        if faults := service_families.complete(spec, former, self.families):
            raise invalid("Service", new["metadata"].get("name", ""), faults)
        asked = list(spec.get("clusterIPs") or ()) or [spec.get("clusterIP") or ""]
        if asked != ["None"]:
            before = _addresses(old) if old else set()
            asked += [""] * (len(spec["ipFamilies"]) - len(asked))
            for index, family in enumerate(spec["ipFamilies"]):
                if not asked[index]:
                    asked[index] = self._choose(family)
                    taken.append(asked[index])
                elif normal(asked[index]) not in before:
                    self._claim(new, family, asked[index])
                    taken.append(asked[index])
        spec["clusterIP"] = asked[0]
        spec["clusterIPs"] = asked

    def _choose(self, family: str) -> str:
        try:
            return self.ranges[family].choose()
        except _Full as error:
            raise _internal(f"failed to allocate a serviceIP: {error}") from None

    def _claim(self, new: Object, family: str, address: str) -> None:
        try:
            self.ranges[family].claim(normal(address))
        except _Refused as error:
            spec = new["spec"]
            fault = invalid_field(
                "spec.clusterIPs",
                spec.get("clusterIPs") or [address],
                f"failed to allocate IP {address}: {error}",
            )
            raise _invalid(new, fault) from None

    def _take_ports(self, new: Object, old: Object | None, taken: list[int]) -> None:
        spec = new["spec"]
        before = _ports(old) if old else set()
        kind = spec.get("type")
        if kind not in ("NodePort", "LoadBalancer"):
            return
        always = kind == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)
        by_port: dict[int, int] = {}
        ports = spec["ports"] = [{**port} for port in spec.get("ports") or ()]
        for i, port in enumerate(ports):
            number = port["port"]
            asked = port.get("nodePort", 0)
            if not asked and not always:
                continue
            if not asked:  # a number asked for by a sibling (UDP beside TCP) is shared
                siblings = (p.get("nodePort", 0) for p in ports if p["port"] == number)
                asked = by_port.get(number) or next((n for n in siblings if n), 0)
            path = f"spec.ports[{i}].nodePort"
            port["nodePort"] = self._take_port(new, asked, path, before, taken)
            by_port[number] = port["nodePort"]
        if kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
            spec["healthCheckNodePort"] = self._take_port(
                new, spec.get("healthCheckNodePort", 0), "spec.healthCheckNodePort", before, taken
            )

    def _take_port(
        self, new: Object, asked: int, path: str, before: set[int], taken: list[int]
    ) -> int:
        """This port, or any if it is 0."""
        if not asked:
            try:
                asked = self.ports.choose()
            except _Full as error:
                raise _internal(f"failed to allocate a nodePort: {error}") from None
            taken.append(asked)
        elif asked not in before and asked not in taken:
            try:
                self.ports.claim(asked)
            except _Refused as error:
                raise _invalid(new, invalid_field(path, asked, str(error))) from None
            taken.append(asked)
        return asked


def _addresses(service: Object) -> set[str]:
    spec = service.get("spec", {})
    found = {spec.get("clusterIP"), *(spec.get("clusterIPs") or ())}
    return {normal(address) for address in found if address and address != "None"}


def _by_family(addresses: Iterable[str]) -> list[tuple[str, set[str]]]:
    found: dict[str, set[str]] = {}
    for address in addresses:
        found.setdefault(family_of(address), set()).add(normal(address))
    return list(found.items())


def _ports(service: Object) -> set[int]:
    spec = service.get("spec", {})
    found = {port.get("nodePort", 0) for port in spec.get("ports") or ()}
    found.add(spec.get("healthCheckNodePort", 0))
    found.discard(0)
    return found


def _invalid(service: Object, fault: FieldError) -> StatusError:
    return invalid("Service", service["metadata"].get("name", ""), [fault])


def _internal(message: str) -> StatusError:
    return StatusError(500, "InternalError", f"Internal error occurred: {message}")
