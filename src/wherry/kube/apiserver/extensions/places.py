"""Where a Service is reached from here: the address of one of its endpoints.

Webhooks and aggregated API servers are named by their Services. The server asks the endpoints
themselves and so needs no proxy on its machine.
Upstream: k8s.io/apiserver/pkg/util/proxy, ResolveEndpoint.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from wherry.kube.api.endpoint_slices import SERVICE_NAME, is_ready
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object


class Place(NamedTuple):
    """A host (a name or an address) and a TCP port."""

    host: str
    port: int


class Unresolved(Exception):
    """A Service that cannot be reached; ``str()`` is upstream's reason."""


def resolve(cache: Cache, namespace: str, name: str, port: int) -> Place:
    """One of the places behind a port of a Service.

    Raises:
        Unresolved: there is no such Service or port, or nothing ready behind it.
    """
    found = cache.of(SERVICES).get(namespace, name)
    if found is None:
        raise Unresolved(f'service "{name}" not found')
    spec = found.object["spec"]
    if spec.get("type") == "ExternalName":
        return Place(spec.get("externalName", ""), port)
    chosen = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
    if chosen is None:
        raise Unresolved(f'no service port {port} found for service "{name}"')
    places = _of_slices(cache, namespace, name, chosen) or _of_endpoints(
        cache, namespace, name, chosen
    )
    if not places:
        raise Unresolved(f'no endpoints available for service "{name}"')
    return random.choice(places)  # noqa: S311 - any will do


def _is(port: Object, chosen: Object) -> bool:
    return (port.get("name") or "") == (chosen.get("name") or "") and port.get(
        "protocol", "TCP"
    ) == chosen.get("protocol", "TCP")


def _of_slices(cache: Cache, namespace: str, name: str, chosen: Object) -> list[Place]:
    places = []
    for stored in cache.of(ENDPOINT_SLICES).list(namespace):
        o = stored.object
        if (o["metadata"].get("labels") or {}).get(SERVICE_NAME) != name or o.get(
            "addressType"
        ) == "FQDN":
            continue
        numbers = [p["port"] for p in o.get("ports") or () if _is(p, chosen) and p.get("port")]
        for endpoint in o.get("endpoints") or ():
            if is_ready(endpoint):
                places += [Place(a, n) for a in endpoint.get("addresses") or () for n in numbers]
    return places


def _of_endpoints(cache: Cache, namespace: str, name: str, chosen: Object) -> list[Place]:
    found = cache.of(ENDPOINTS).get(namespace, name)
    if found is None:
        return []
    return [
        Place(address["ip"], port["port"])
        for subset in found.object.get("subsets") or ()
        for port in subset.get("ports") or ()
        if _is(port, chosen)
        for address in subset.get("addresses") or ()
    ]
