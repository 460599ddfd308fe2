"""Flows of datagrams that lead to endpoints which have left, or nowhere.

Whoever goes on sending keeps the translation that his first datagram met. So when a service's
endpoints change, what is led elsewhere than to one of them must be forgotten; the next datagram is
then translated anew. Connections of TCP end by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from wherry.net.conntrack import flows
from wherry.net.conntrack.flows import Flow
from wherry.net.link.links import local_addresses
from wherry.net.service.ports import Endpoint, ServicePort

Change = tuple[ServicePort | None, ServicePort | None]
PROTOCOLS = ("udp", "sctp")
_FEW = 8


def end_stale(changes: Iterable[Change]) -> int:
    """Forget the flows that ``changes`` (from, to) have made stale; returns how many (blocking).

    Raises:
        OSError: the kernel refuses.
    """
    count = 0
    relevant = [change for change in changes if concerns(*change)]
    for protocol in PROTOCOLS:
        for family, version in (("ip", 4), ("ip6", 6)):
            some = [c for c in relevant if _is(c, protocol, family)]
            if some:
                stale = Stale(some, local_addresses(version))
                for port in _asked(stale.ports):
                    count += flows.forget(protocol, stale.has, version=version, port=port)
    return count


def _asked(ports: frozenset[int]) -> Iterable[int]:
    """Of which ports to ask for flows, one after the other; 0 is all."""
    return sorted(ports) if len(ports) <= _FEW else (0,)


def concerns(old: ServicePort | None, new: ServicePort | None) -> bool:
    """Whether datagrams may go astray by the change: an endpoint has left, or the first has come,
    or the service is reached where it was not, and datagrams were led nowhere."""
    some = old or new
    if some is None or some.protocol not in PROTOCOLS or old == new:
        return False
    if old is None or new is None:
        return True
    if old.endpoints - new.endpoints or (new.endpoints and not old.endpoints):
        return True
    return _places(old) != _places(new)


def _is(change: Change, protocol: str, family: str) -> bool:
    some = change[0] or change[1]
    return some is not None and (some.protocol, some.family) == (protocol, family)


def _places(port: ServicePort) -> set[tuple[str, int]]:
    places = {(at, port.port) for at in (port.cluster_ip, *port.outer_addresses)}
    return places | ({("", port.node_port)} if port.node_port else set())


class Stale:
    """Which flows of one protocol are stale after ``changes``."""

    def __init__(self, changes: Sequence[Change], local: frozenset[str]) -> None:
        self._local = local
        self._led: dict[tuple[str, int], frozenset[Endpoint]] = {}
        for old, _ in changes:
            if old is not None:
                self._led.update((place, frozenset()) for place in _places(old))
        for _, new in changes:
            if new is not None:
                self._led.update((place, new.endpoints) for place in _places(new))

    @property
    def ports(self) -> frozenset[int]:
        """Where clients of the changed services send to."""
        return frozenset(port for _, port in self._led)

    def has(self, flow: Flow) -> bool:
        """Whether ``flow`` leads elsewhere than it should now."""
        led = self._led.get((flow.destination, flow.destination_port))
        if led is None and flow.destination in self._local:
            led = self._led.get(("", flow.destination_port))
        return led is not None and flow.answered_from not in led
