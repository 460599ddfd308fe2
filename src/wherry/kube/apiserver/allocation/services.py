"""What a Service that is written needs: families, addresses, node ports.

What is taken is known from the Services and IPAddresses themselves: the state is rebuilt from them
at the start and follows their events. A write takes what it needs before it is stored, so two
cannot get the same. What writes under way have asked for is known apart: of the same address
another server's Service may be told meanwhile, which must outlast them.

Upstream: pkg/registry/core/service/storage/alloc.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wherry.kube.api.errors import FieldError, StatusError, invalid
from wherry.kube.api.families import family_of, normal
from wherry.kube.api.kinds import service_families, service_ranges
from wherry.kube.api.kinds.fields import invalid as invalid_field
from wherry.kube.apiserver.allocation.addresses import beside, cluster_addresses
from wherry.kube.apiserver.allocation.pools import AddressPool, Full, PortPool, Refused
from wherry.kube.apiserver.cache import Event, ResourceCache
from wherry.kube.apiserver.objects import Object
from wherry.kube.store.types import Beside


class Taken:
    """What a write under way has taken. It is to be settled when that is over: by then what it
    stored is known from its event, and what it did not store is free again."""

    def __init__(self, allocations: Allocations, new: Object, old: Object | None) -> None:
        self._allocations = allocations
        self._spec = new.get("spec")  # as it was asked for
        self._old = old
        self.addresses: list[str] = []
        self.ports: list[int] = []

    def settle(self) -> None:
        """May be repeated."""
        for family, listed in _by_family(self.addresses):
            self._allocations.pools[family].settle(listed)
        self._allocations.ports.settle(self.ports)
        self.addresses, self.ports = [], []

    def is_lost(self) -> bool:
        """Whether another server, or somebody by hand, has got some of it meanwhile."""
        pools = self._allocations.pools
        return self._allocations.ports.is_lost(self.ports) or any(
            pools[family].is_lost(listed) for family, listed in _by_family(self.addresses)
        )

    def renew(self, new: Object) -> None:
        """Take anew for ``new``, of what is free now. Raises StatusError as `Allocations.take`."""
        self.settle()
        new["spec"] = self._spec
        self._allocations.fill(new, self._old, self)


class Allocations:
    """What Services have taken. ``service_cidr`` is the service range, or one of each family with a
    comma in between: the first is that of Services which do not say. Further ones are in
    ServiceCIDRs."""

    def __init__(self, service_cidr: str) -> None:
        self._configured = service_cidr.split(",")
        self.pools = {family_of(cidr): AddressPool((cidr,)) for cidr in self._configured}
        self.families = tuple(self.pools)
        self.ports = PortPool(self._configured[0])
        self._addresses: ResourceCache | None = None

    def follow(
        self, services: ResourceCache, addresses: ResourceCache, ranges: ResourceCache
    ) -> None:
        """Hold what the present objects have, and keep to their events from now on."""
        self._addresses = addresses
        for stored in services.list():
            self._hold(cluster_addresses(stored.object))
            self.ports.hold(_ports(stored.object))
        for stored in addresses.list():
            self._named(stored.key, there=True)
        services.listen(self._happened)
        addresses.listen(lambda event: self._named(event.key, there=event.current is not None))
        self._use(ranges)
        ranges.listen(lambda event: self._use(ranges))

    def _use(self, ranges: ResourceCache) -> None:
        found = [stored.object for stored in ranges.list()]
        cidrs = service_ranges.ready(found, self._configured)
        for family, pool in self.pools.items():
            pool.use(cidr for cidr in cidrs if family_of(cidr) == family)

    def _named(self, address: str, *, there: bool) -> None:
        if (pool := self.pools.get(family_of(address))) is not None:
            (pool.name if there else pool.unname)(address)

    def _hold(self, addresses: Iterable[str]) -> None:
        for family, listed in _by_family(addresses):
            if family in self.pools:
                self.pools[family].hold(listed)

    def _happened(self, event: Event) -> None:
        addresses, ports = set[str](), set[int]()
        if event.current is not None:
            addresses, ports = cluster_addresses(event.current.object), _ports(event.current.object)
            self._hold(addresses)
            self.ports.hold(ports)
        if event.previous is not None:
            gone = cluster_addresses(event.previous.object) - addresses
            for family, listed in _by_family(gone):
                if family in self.pools:
                    self.pools[family].free(listed)
            self.ports.free(_ports(event.previous.object) - ports)

    def beside(self, new: Object | None, old: Object | None) -> Sequence[Beside]:
        """The IPAddresses that are made and removed with a Service; ``new`` has passed `take`."""
        return beside(new, old, self._addresses)

    def take(self, new: Object, old: Object | None) -> Taken:
        """Fill in and take the addresses and ports that ``new`` needs and ``old`` has not.

        Raises:
            StatusError: 422, one asked for is not to be had; 500, none is left. Nothing is taken.
        """
        taken = Taken(self, new, old)
        if old is None or new.get("spec") != old.get("spec"):
            self.fill(new, old, taken)
        return taken

    def fill(self, new: Object, old: Object | None, taken: Taken) -> None:
        """`take`, into what has nothing yet."""
        try:
            self._take_addresses(new, old, taken.addresses)
            self._take_ports(new, old, taken.ports)
        except BaseException:
            taken.settle()
            raise

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
            before = cluster_addresses(old) if old else set()
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
            return self.pools[family].choose()
        except Full as error:
            raise _internal(f"failed to allocate a serviceIP: {error}") from None

    def _claim(self, new: Object, family: str, address: str) -> None:
        try:
            self.pools[family].claim(normal(address))
        except Refused as error:
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
            except Full as error:
                raise _internal(f"failed to allocate a nodePort: {error}") from None
            taken.append(asked)
        elif asked not in before and asked not in taken:
            try:
                self.ports.claim(asked)
            except Refused as error:
                raise _invalid(new, invalid_field(path, asked, str(error))) from None
            taken.append(asked)
        return asked


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
