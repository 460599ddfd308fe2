"""What answers at which address: from a Service and its EndpointSlices to frontends and backends.

Rules of https://kubernetes.io/docs/reference/networking/virtual-ips/: ready endpoints answer; where
there is none, those that terminate but still serve; a traffic policy ``Local`` leaves only this
node's own. IPv4 only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from wherry.net.service_map import Backend, Frontend

Object = dict[str, Any]

DEFAULT_AFFINITY = 10800  # seconds
PROTOCOLS = ("TCP", "UDP", "SCTP")
OTHER_PROXY = "service.kubernetes.io/service-proxy-name"


def frontends(
    service: Object, slices: Iterable[Object], *, node_name: str
) -> dict[Frontend, Backend]:
    """All that ``service`` makes reachable on node ``node_name``, and the endpoints behind it."""
    spec = service.get("spec") or {}
    labels = service["metadata"].get("labels") or {}
    if spec.get("type") == "ExternalName" or OTHER_PROXY in labels:
        return {}
    cluster_ips = [ip for ip in _cluster_ips(spec) if _is_ipv4(ip)]
    if not cluster_ips:
        return {}
    affinity = _affinity(spec)
    outside_local = spec.get("externalTrafficPolicy") == "Local"
    inside_local = spec.get("internalTrafficPolicy") == "Local"
    external = [*(spec.get("externalIPs") or ()), *_load_balancer_ips(service)]
    slices = list(slices)
    result: dict[Frontend, Backend] = {}
    for port in spec.get("ports") or ():
        protocol = port.get("protocol") or "TCP"
        if protocol not in PROTOCOLS:
            continue
        name = port.get("name") or ""
        everywhere = _select(slices, name, protocol, None)
        here = _select(slices, name, protocol, node_name)
        inside = Backend(here if inside_local else everywhere, affinity)
        outside = Backend(here if outside_local else everywhere, affinity, not outside_local)
        for address in cluster_ips:
            result[Frontend(protocol.lower(), port["port"], address)] = inside
        for address in external:
            if _is_ipv4(address):
                result[Frontend(protocol.lower(), port["port"], address)] = outside
        if port.get("nodePort"):
            result[Frontend(protocol.lower(), port["nodePort"])] = outside
    return result


def _select(
    slices: list[Object], port_name: str, protocol: str, node_name: str | None
) -> tuple[tuple[str, int], ...]:
    """The endpoints of a port in a stable order; of one node where ``node_name`` is given."""
    ready: set[tuple[str, int]] = set()
    last_resort: set[tuple[str, int]] = set()
    for slice_ in slices:
        if slice_.get("addressType") != "IPv4":
            continue
        for number in _port_numbers(slice_, port_name, protocol):
            for endpoint in slice_.get("endpoints") or ():
                if node_name is not None and endpoint.get("nodeName") != node_name:
                    continue
                conditions = endpoint.get("conditions") or {}
                addresses = endpoint.get("addresses") or ()
                if not addresses:
                    continue
                if conditions.get("ready") is not False:
                    ready.add((addresses[0], number))
                elif conditions.get("serving") and conditions.get("terminating"):
                    last_resort.add((addresses[0], number))
    return tuple(sorted(ready or last_resort))


def _port_numbers(slice_: Object, name: str, protocol: str) -> Iterator[int]:
    for port in slice_.get("ports") or ():
        if (port.get("name") or "") == name and (port.get("protocol") or "TCP") == protocol:
            number = port.get("port")
            if number:
                yield number


def _cluster_ips(spec: Object) -> list[str]:
    addresses = list(spec.get("clusterIPs") or ()) or [spec.get("clusterIP") or ""]
    return [address for address in addresses if address and address != "None"]


def _load_balancer_ips(service: Object) -> Iterator[str]:
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    for ingress in balancer.get("ingress") or ():
        if ingress.get("ip") and ingress.get("ipMode", "VIP") == "VIP":
            yield ingress["ip"]


def _affinity(spec: Object) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(config.get("timeoutSeconds") or DEFAULT_AFFINITY)


def _is_ipv4(address: str) -> bool:
    return ":" not in address
