"""What a Service is on this node: from it and its EndpointSlices to ``ServicePort``s. Pure.

Rules of https://kubernetes.io/docs/reference/networking/virtual-ips/. Who answers:

- ready endpoints; those meant for this node or its zone, where all have such hints and some are for
  us; where none is ready, those that terminate but still serve.
- A traffic policy ``Local`` leaves only this node's own. That for external traffic does not concern
  clients of inside, for whom the addresses outside are just other names of the service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.kube.api import meta
from wherry.kube.api.endpoint_slices import is_ready, still_serves
from wherry.net.service.ports import PROTOCOLS, Endpoint, ServicePort

Object = dict[str, Any]

DEFAULT_AFFINITY = 10800  # seconds
# Labels of Services, and slices, that are none of a proxy's business.
NOT_OURS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")
_FAMILIES = {"IPv4": False, "IPv6": True}


@dataclass(frozen=True, slots=True)
class Place:
    """Where this proxy is."""

    node_name: str
    zone: str = ""


@dataclass(slots=True)
class _Found:
    """The endpoints of one port in one family."""

    ready: dict[Endpoint, Object] = field(default_factory=dict)
    going: dict[Endpoint, Object] = field(default_factory=dict)  # terminating, but serving

    @property
    def any(self) -> bool:
        return bool(self.ready or self.going)


def is_ours(service: Object) -> bool:
    """Whether a proxy has anything to do with ``service``."""
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName" or _is_for_others(service):
        return False
    return bool(_cluster_ips(spec))


def _is_for_others(o: Object) -> bool:
    labels = meta.labels(o)
    return any(label in labels for label in NOT_OURS)


def ports(service: Object, slices: Iterable[Object], place: Place) -> list[ServicePort]:
    """All that ``service`` makes reachable at ``place``, and who answers there."""
    if not is_ours(service):
        return []
    slices = sorted((s for s in slices if not _is_for_others(s)), key=meta.name)
    spec = service["spec"]
    made = []
    for cluster_ip in _cluster_ips(spec):
        is_ipv6 = ":" in cluster_ip
        for port in spec.get("ports") or ():
            protocol = port.get("protocol") or "TCP"
            if protocol.lower() in PROTOCOLS:
                found = _find(slices, is_ipv6, port.get("name") or "", protocol, place)
                made.append(_port(service, cluster_ip, port, found, place))
    return made


def _port(
    service: Object, cluster_ip: str, port: Object, found: _Found, place: Place
) -> ServicePort:
    spec = service["spec"]
    is_ipv6 = ":" in cluster_ip
    inside_local = spec.get("internalTrafficPolicy") == "Local"
    outside_local = spec.get("externalTrafficPolicy") == "Local"
    everywhere = _near(found, place)
    here = _local(found, place.node_name)
    name = f"{service['metadata'].get('namespace', '')}/{service['metadata']['name']}"
    external = tuple(at for at in spec.get("externalIPs") or () if (":" in at) == is_ipv6)
    balancer = tuple(at for at in _load_balancer_ips(service) if (":" in at) == is_ipv6)
    reached = bool(external or balancer or port.get("nodePort"))
    return ServicePort(
        name=f"{name}:{port['name']}" if port.get("name") else name,
        protocol=(port.get("protocol") or "TCP").lower(),
        port=port["port"],
        cluster_ip=cluster_ip,
        inside=here if inside_local else everywhere,
        outside=(here if outside_local else everywhere) if reached else (),
        everywhere=everywhere if reached and outside_local else (),
        inside_elsewhere=inside_local and not here and found.any,
        outside_elsewhere=reached and outside_local and not here and found.any,
        external_ips=external,
        balancer_ips=balancer,
        sources=_sources(spec, is_ipv6) if balancer else (),
        node_port=port.get("nodePort") or 0,
        affinity=_affinity(spec),
        masquerade=not outside_local,
    )


def health_check(service: Object, slices: Iterable[Object], node_name: str) -> tuple[int, int]:
    """The port where balancers ask for ``service``, 0 for none, and how many endpoints are here."""
    spec = service.get("spec") or {}
    number = spec.get("healthCheckNodePort") or 0
    if not number or spec.get("externalTrafficPolicy") != "Local" or not is_ours(service):
        return 0, 0
    here = {
        at
        for slice_ in slices
        for endpoint in slice_.get("endpoints") or ()
        if endpoint.get("nodeName") == node_name and is_ready(endpoint)
        for at in endpoint.get("addresses", ())[:1]
    }
    return number, len(here)


def _find(
    slices: Sequence[Object], is_ipv6: bool, name: str, protocol: str, place: Place
) -> _Found:
    """Of an endpoint that is in several slices counts what the first says, or one that has it here:
    so it is for upstream, and so the order in which slices were heard of does not matter."""
    found = _Found()
    for slice_ in slices:
        if _FAMILIES.get(slice_.get("addressType", "")) is not is_ipv6:
            continue
        for number in _port_numbers(slice_, name, protocol):
            for endpoint in slice_.get("endpoints") or ():
                if is_ready(endpoint):
                    known = found.ready
                elif still_serves(endpoint):
                    known = found.going
                else:
                    continue
                for address in endpoint.get("addresses", ())[:1]:
                    is_here = endpoint.get("nodeName") == place.node_name
                    if is_here or (address, number) not in known:
                        known[address, number] = endpoint
    return found


def _port_numbers(slice_: Object, name: str, protocol: str) -> Iterator[int]:
    for port in slice_.get("ports") or ():
        if (port.get("name") or "") == name and (port.get("protocol") or "TCP") == protocol:
            number = port.get("port")
            if number:
                yield number


def _near(found: _Found, place: Place) -> tuple[Endpoint, ...]:
    meant = _hinted(list(found.ready.values()), place)
    ready = [at for at, endpoint in found.ready.items() if meant(endpoint)]
    return tuple(sorted(ready or found.going))


def _local(found: _Found, node_name: str) -> tuple[Endpoint, ...]:
    def here(endpoints: dict[Endpoint, Object]) -> tuple[Endpoint, ...]:
        return tuple(sorted(at for at, e in endpoints.items() if e.get("nodeName") == node_name))

    return here(found.ready) or here(found.going)


def _hinted(endpoints: Sequence[Object], place: Place) -> Callable[[Object], bool]:
    """Which of the ready ``endpoints`` their hints mean for this place."""
    for kind, own in (("forNodes", place.node_name), ("forZones", place.zone)):
        hints = [_hints(endpoint, kind) for endpoint in endpoints]
        if own and all(hints) and any(own in names for names in hints):
            return lambda endpoint, kind=kind, own=own: own in _hints(endpoint, kind)  # type: ignore[misc]
    return lambda endpoint: True


def _hints(endpoint: Object, kind: str) -> list[str]:
    return [hint["name"] for hint in (endpoint.get("hints") or {}).get(kind) or ()]


def _cluster_ips(spec: Object) -> list[str]:
    addresses = list(spec.get("clusterIPs") or ()) or [spec.get("clusterIP") or ""]
    return [address for address in addresses if address and address != "None"]


def _load_balancer_ips(service: Object) -> Iterator[str]:
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    for ingress in balancer.get("ingress") or ():
        if ingress.get("ip") and (ingress.get("ipMode") or "VIP") == "VIP":
            yield ingress["ip"]


def _sources(spec: Object, is_ipv6: bool) -> tuple[str, ...]:
    listed = [cidr.strip() for cidr in spec.get("loadBalancerSourceRanges") or ()]
    own = tuple(cidr for cidr in listed if (":" in cidr) == is_ipv6)
    # Ranges of the other family alone allow nobody of this one.
    nobody = ("::1/128",) if is_ipv6 else ("0.0.0.0/32",)
    return own or (nobody if listed else ())


def _affinity(spec: Object) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(config.get("timeoutSeconds") or DEFAULT_AFFINITY)
