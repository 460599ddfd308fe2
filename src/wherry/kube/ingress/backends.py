"""From a backend of an Ingress to the endpoints of its Service."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from wherry.kube.api.endpoint_slices import is_ready, still_serves
from wherry.kube.ingress.model import Upstream
from wherry.kube.ingress.world import Object, World


class NoBackend(Exception):
    """Nothing can be reached; ``str()`` says why."""


def find(world: World, namespace: str, name: str, port: Object, *, whole: bool = False) -> Upstream:
    """The endpoints of a Service's port.

    Args:
        world: where it is looked for.
        namespace: of the Service.
        name: of the Service.
        port: its ``name`` or ``number``; empty: the first one.
        whole: the Service's own address stands for all endpoints.

    Raises:
        NoBackend: there is no such Service or port.
    """
    service = world.service(namespace, name)
    if service is None:
        raise NoBackend(f'service "{namespace}/{name}" not found')
    spec = service.get("spec") or {}
    if not port:
        first = next(filter(_is_tcp, spec.get("ports") or ()), None)
        if first is None:
            raise NoBackend(f'service "{namespace}/{name}" has no port')
        port = {"number": first.get("port")}
    asked = port.get("name") or port.get("number")
    parts = namespace, name, str(asked)
    upstream = Upstream("/".join(parts), "-".join(parts))
    if spec.get("type") == "ExternalName":
        return _external(upstream, spec, port)
    found = _service_port(spec, port)
    if found is None:
        raise NoBackend(f'service "{namespace}/{name}" has no port {asked}')
    address = spec.get("clusterIP")
    if whole and address and address != "None":
        return replace(upstream, endpoints=((address, int(found["port"])),))
    slices = world.slices(namespace, name)
    return replace(upstream, endpoints=tuple(sorted(_endpoints(slices, found.get("name") or ""))))


def _external(upstream: Upstream, spec: Object, port: Object) -> Upstream:
    number = port.get("number")
    if number is None:
        found = _service_port(spec, port)
        number = found.get("port") if found else None
    host = (spec.get("externalName") or "").rstrip(".")
    if not number or not re.fullmatch(r"[A-Za-z0-9.-]+", host):
        raise NoBackend(f"external name {host!r} cannot be reached: no such port or no host name")
    return replace(upstream, external=host, port=int(number))


def _is_tcp(port: Object) -> bool:
    return bool(port.get("protocol", "TCP") == "TCP")


def _service_port(spec: Object, wanted: Object) -> Object | None:
    for port in filter(_is_tcp, spec.get("ports") or ()):
        same = port.get("name") == wanted["name"] if wanted.get("name") else None
        if same or (same is None and port.get("port") == wanted.get("number")):
            found: Object = port
            return found
    return None


def _endpoints(slices: Iterable[Object], port_name: str) -> set[tuple[str, int]]:
    """Ready endpoints; where there are none, those that end but still serve."""
    ready: set[tuple[str, int]] = set()
    last: set[tuple[str, int]] = set()
    for slice_ in slices:
        if slice_.get("addressType") == "FQDN":
            continue
        numbers = [
            port["port"]
            for port in slice_.get("ports") or ()
            if (port.get("name") or "") == port_name and port.get("port")
        ]
        for endpoint in slice_.get("endpoints") or ():
            if not is_ready(endpoint) and not still_serves(endpoint):
                continue
            into = ready if is_ready(endpoint) else last
            for address in (endpoint.get("addresses") or ())[:1]:
                into.update((address, number) for number in numbers)
    return ready or last
