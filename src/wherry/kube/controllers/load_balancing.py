"""What a load balancer is here: which addresses a Service of that type answers at. Pure functions.

A cluster on machines of one's own has no cloud to ask, but its nodes have addresses, and the proxy
on each takes in what comes for a Service. So a Service gets the addresses of the nodes, as many
Services as there are ports; or, where a pool is given, an address of its own from that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from wherry.kube.api import meta, pods
from wherry.kube.client.transport import Object

CLASS = "wherry.io/node-addresses"
"""The ``loadBalancerClass`` of this kind; a Service that names no class gets it, too."""
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"

Port = tuple[str, int]
"""Protocol and number."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Unavailable(Exception):
    """No address can be given; the text says why."""


class NoNodes(Unavailable):
    """There is no node whose address could be given."""


def is_balanced(service: Object) -> bool:
    """Whether the Service wants a load balancer."""
    return bool(service["spec"].get("type") == "LoadBalancer") and not meta.is_deleting(service)


def is_ours(service: Object) -> bool:
    """Whether it is for us to give it one."""
    return (service["spec"].get("loadBalancerClass") or CLASS) == CLASS


def addresses(service: Object) -> list[str]:
    """Those it has."""
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    return [entry["ip"] for entry in balancer.get("ingress") or () if entry.get("ip")]


def changes(old: Object, new: Object) -> Iterator[tuple[str, str]]:
    """What is told of a change to the spec of a Service that stays balanced: reasons, messages."""
    for name, reason in (
        ("loadBalancerSourceRanges", "LoadBalancerSourceRanges"),
        ("loadBalancerIP", "LoadbalancerIP"),
        ("externalTrafficPolicy", "ExternalTrafficPolicy"),
        ("healthCheckNodePort", "HealthCheckNodePort"),
    ):
        before, after = _told(old.get(name)), _told(new.get(name))
        if before != after:
            yield reason, f"{before} -> {after}"
    had, has = old.get("externalIPs") or [], new.get("externalIPs") or []
    if len(had) != len(has):
        yield "ExternalIP", f"Count: {len(had)} -> {len(has)}"
    else:
        added = [after for before, after in zip(had, has, strict=True) if before != after]
        for address in added[:1]:
            yield "ExternalIP", f"Added: {address}"


def _told(value: Any) -> str:
    """As Go prints it."""
    return f"[{' '.join(value)}]" if isinstance(value, list) else str(value or "")


def ports(service: Object) -> list[Port]:
    """Protocol and number of each of its ports."""
    return [(p.get("protocol") or "TCP", int(p["port"])) for p in service["spec"].get("ports", ())]


def _families(service: Object) -> list[str]:
    return [str(family) for family in service["spec"].get("ipFamilies") or ()] or ["IPv4"]


def _family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def node_addresses(node: Object, families: Iterable[str]) -> list[str]:
    """Where the node is reached: its external address of each family, or else its internal one."""
    known = (node.get("status") or {}).get("addresses") or ()
    result = []
    for family in families:
        for type in ("ExternalIP", "InternalIP"):
            found = [a["address"] for a in known if a.get("type") == type]
            found = [address for address in found if _family(address) == family]
            if found:
                result.append(found[0])
                break
    return result


def candidates(nodes: Iterable[Object], serving: Iterable[str], *, local: bool) -> list[Object]:
    """The nodes that take traffic in: those that are ready, and where ``local`` those that have an
    endpoint, which ``serving`` names. Where that leaves none, the wider choice holds: an address
    that does not answer yet says more than none."""
    usable = [n for n in nodes if EXCLUDED not in meta.labels(n) and not meta.is_deleting(n)]
    usable.sort(key=meta.name)
    usable = [n for n in usable if pods.is_ready(n)] or usable
    if local:
        named = set(serving)
        usable = [n for n in usable if meta.name(n) in named] or usable
    return usable


def claims(services: Iterable[Object]) -> dict[tuple[str, Port], str]:
    """Which Service has which port of which address."""
    result: dict[tuple[str, Port], str] = {}
    for service in services:
        if service["spec"].get("type") == "LoadBalancer":
            for address in addresses(service):
                for port in ports(service):
                    result[address, port] = f"service {meta.key(service)}"
    return result


def from_nodes(
    service: Object, chosen: Sequence[Object], taken: dict[tuple[str, Port], str]
) -> list[str]:
    """The addresses of the ``chosen`` nodes, for a Service whose ports are free there.

    ``taken`` says whose each port is that is not.

    Raises:
        Unavailable: there is no node, or a port is another's.
    """
    families = _families(service)
    found = [address for node in chosen for address in node_addresses(node, families)]
    found = list(dict.fromkeys(found))
    if not found:
        raise NoNodes("there are no available nodes for LoadBalancer")
    for address in found:
        for protocol, number in ports(service):
            owner = taken.get((address, (protocol, number)))
            if owner is not None:
                raise Unavailable(f"port {number}/{protocol} of {address} is taken by {owner}")
    return found


def from_pool(service: Object, pool: Sequence[Network], used: Iterable[str]) -> list[str]:
    """An address of each of the Service's families, the one it has where that is in the pool.

    Raises:
        Unavailable: none is free, or the one that the Service asks for is not.
    """
    busy = set(used)
    result = []
    asked = service["spec"].get("loadBalancerIP") or ""
    for family in _families(service):
        fitting = [net for net in pool if (net.version == 6) == (family == "IPv6")]
        has = [a for a in addresses(service) if _family(a) == family and _is_in(a, fitting)]
        if asked and _family(asked) == family:
            if not _is_in(asked, fitting):
                raise Unavailable(f"{asked} is not in the pool of addresses")
            if asked in busy:
                raise Unavailable(f"{asked} is taken by another service")
            result.append(asked)
        elif has and has[0] not in busy:
            result.append(has[0])
        elif fitting:
            free = next((a for a in _all(fitting) if a not in busy), None)
            if free is None:
                raise Unavailable("the pool of addresses is used up")
            result.append(free)
    if not result:
        raise Unavailable("the pool has no address of the service's families")
    return result


def _is_in(address: str, networks: Iterable[Network]) -> bool:
    return any(ipaddress.ip_address(address) in network for network in networks)


def _all(networks: Iterable[Network]) -> Iterator[str]:
    for network in networks:
        whole = network.num_addresses <= 2
        yield from map(str, network if whole else network.hosts())
