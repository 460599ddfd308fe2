"""Who serves what: all Services of a node, and which of two has an address that both want.

Cluster IPs and node ports are allocated, so nobody shares them; external addresses are not, and
may even be another Service's cluster IP, which it keeps. For the rest the
older Service keeps what both want, whenever the proxy heard of which, so that a proxy that starts
anew does what its predecessor did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from wherry.net.service.ports import Key, ServicePort

# Family, protocol, address (empty: a node port) and port.
Claim = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True)
class Lost:
    """A Service does not get what it asks for, as another has it."""

    service: str
    address: str  # empty: a node port
    port: int
    owner: str

    def __str__(self) -> str:
        what = f"{self.address}:{self.port}" if self.address else f"node port {self.port}"
        return f"{what} is not served for this Service: {self.owner}, which is older, has it"


class Claims:
    """All Services' ports by the Service's key (namespace/name)."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[str, list[ServicePort]]] = {}
        self._claimants: dict[Claim, dict[str, tuple[bool, str]]] = {}
        self._served: dict[str, dict[Key, ServicePort]] = {}

    def all(self) -> dict[Key, ServicePort]:
        """What is to be served."""
        return {key: port for ports in self._served.values() for key, port in ports.items()}

    def set(
        self, service: str, created: str, ports: Sequence[ServicePort]
    ) -> dict[Key, ServicePort | None]:
        """``service`` of that age asks for ``ports``, or for none; returns what changes."""
        _, before = self._asked.get(service, ("", []))
        concerned = {service}
        for claim in _all_claims(before):
            claimants = self._claimants[claim]
            del claimants[service]
            concerned |= claimants.keys()
            if not claimants:
                del self._claimants[claim]
        own = {_claims_of(port)[0] for port in ports}
        for claim in _all_claims(ports):
            claimants = self._claimants.setdefault(claim, {})
            concerned |= claimants.keys()
            claimants[service] = (claim not in own, created)
        if ports:
            self._asked[service] = (created, list(ports))
        else:
            self._asked.pop(service, None)
        changes: dict[Key, ServicePort | None] = {}
        for name in concerned:
            _, asked = self._asked.get(name, ("", []))
            granted = (self._granted(name, port) for port in asked)
            new = {port.key: port for port in granted if port is not None}
            old = self._served.pop(name, {})
            if new:
                self._served[name] = new
            changes |= {key: None for key in old if key not in new}
            changes |= {key: port for key, port in new.items() if old.get(key) != port}
        return changes

    def protocols(self, service: str) -> frozenset[str]:
        """The transports of the ports that ``service`` asks for."""
        return frozenset(port.protocol for port in self._asked.get(service, ("", []))[1])

    def lost(self, service: str) -> list[Lost]:
        """What ``service`` asks for in vain."""
        _, asked = self._asked.get(service, ("", []))
        owners = ((claim, self._owner(claim)) for claim in _all_claims(asked))
        return [
            Lost(service, claim[2], claim[3], owner) for claim, owner in owners if owner != service
        ]

    def _owner(self, claim: Claim) -> str:
        claimants = self._claimants[claim]
        return min(claimants, key=lambda name: (claimants[name], name))

    def _granted(self, service: str, port: ServicePort) -> ServicePort | None:
        """What is left of ``port``; nothing where even its cluster IP is another's."""
        claims = _claims_of(port)
        lost = {
            claim[2:]
            for claim in claims
            if len(self._claimants[claim]) > 1 and self._owner(claim) != service
        }
        if not lost:
            return port
        if claims[0][2:] in lost:
            return None
        return replace(
            port,
            external_ips=tuple(a for a in port.external_ips if (a, port.port) not in lost),
            balancer_ips=tuple(a for a in port.balancer_ips if (a, port.port) not in lost),
            node_port=0 if ("", port.node_port) in lost else port.node_port,
        )


def _claims_of(port: ServicePort) -> list[Claim]:
    """Where ``port`` is reached, at its cluster IP first."""
    found = [
        (port.family, port.protocol, address, port.port)
        for address in (port.cluster_ip, *port.outer_addresses)
    ]
    if port.node_port:
        found.append((port.family, port.protocol, "", port.node_port))
    return found


def _all_claims(ports: Sequence[ServicePort]) -> list[Claim]:
    """Those of several, each once, in a stable order."""
    return list(dict.fromkeys(claim for port in ports for claim in _claims_of(port)))
