"""Where nodes, pods and services are reached.

Upstream: ResourceLocation in pkg/registry/core/{node,pod,service}.
"""

from __future__ import annotations

import ipaddress
import random
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wherry.kube.api.endpoint_slices import SERVICE_NAME, is_ready
from wherry.kube.api.errors import StatusError, bad_request, not_found
from wherry.kube.api.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object


@dataclass(frozen=True, slots=True)
class KubeletClient:
    """How the API server shows itself to kubelets, and whom it takes for one."""

    certificate: Path | None
    key: Path | None
    authority: Path | None

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority) if self.authority else None)
        if self.authority is None:  # as upstream without --kubelet-certificate-authority
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate and self.key:
            context.load_cert_chain(self.certificate, self.key)
        return context


class Kubelets:
    """The kubelets of the nodes that the cache knows, and the TLS to speak to them."""

    def __init__(self, cache: Cache, client: KubeletClient) -> None:
        self._cache = cache
        self._client = client

    @cached_property
    def context(self) -> ssl.SSLContext:
        return self._client.context()

    def of(self, node: str) -> tuple[str, int]:
        """Address and port of a node's kubelet.

        Raises:
            StatusError: 404, no such node; 500, it has not said where it is.
        """
        found = self._cache.of(NODES).get("", node)
        if found is None:
            raise not_found("nodes", node)
        status = found.object.get("status", {})
        addresses = status.get("addresses") or []
        for kind in ("InternalIP", "ExternalIP", "Hostname"):
            for address in addresses:
                if address["type"] == kind:
                    port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {})
                    return address["address"], port.get("Port") or 10250
        raise StatusError(
            500,
            "InternalError",
            "Internal error occurred: no preferred addresses found; known addresses: []",
        )


def split(identity: str, kind: str) -> tuple[str, str, str]:
    """Scheme, name and port of ``name``, ``name:port`` or ``scheme:name:port``.

    Raises:
        StatusError: 400, it is none of them; ``kind`` is named in the text.
    """
    match identity.split(":"):
        case [name]:
            scheme, port = "", ""
        case [name, port]:
            scheme = ""
        case [scheme, name, port]:
            pass
        case _:
            name, scheme, port = "", "", ""
    if not name or scheme not in ("", "http", "https"):
        raise bad_request(f'invalid {kind} request "{identity}"')
    return scheme, name, port


def check_address(address: str) -> None:
    """Refuse what would lead back to the API server's own machine. Raises StatusError 400."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise bad_request("address not allowed") from None
    if parsed.is_loopback or parsed.is_link_local or _interface_local(parsed):
        raise bad_request("address not allowed")


def _interface_local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.version == 6 and address.packed[:2] == b"\xff\x01"


def of_pod(cache: Cache, namespace: str, identity: str) -> tuple[str, str, int]:
    """Scheme, address and port of a pod; its first declared port where none is asked for.

    Raises:
        StatusError: 404, no such pod; 400, it cannot be reached so.
    """
    scheme, name, port = split(identity, "pod")
    found = cache.of(PODS).get(namespace, name)
    if found is None:
        raise not_found("pods", name)
    pod = found.object
    if not port:
        for container in pod["spec"].get("containers") or ():
            if container.get("ports"):
                port = str(container["ports"][0]["containerPort"])
                break
    status = pod.get("status") or {}
    addresses = status.get("podIPs") or [{"ip": status.get("podIP", "")}]
    address = addresses[0].get("ip", "")
    check_address(address)
    scheme = scheme or "http"
    return scheme, address, _number(port or ("443" if scheme == "https" else "80"), identity)


def _number(port: str, identity: str) -> int:
    if port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return int(port)
    raise bad_request(f'invalid pod request "{identity}"')


def of_service(cache: Cache, namespace: str, identity: str) -> tuple[str, str, int]:
    """Scheme, address and port of one of the ready backends of a service.

    Raises:
        StatusError: 404, no such service; 503, it has no such port, or nobody behind it.
    """
    scheme, name, port = split(identity, "service")
    found = cache.of(SERVICES).get(namespace, name)
    if port.isascii() and port.isdigit():
        if found is None:
            raise not_found("services", name)
        for each in found.object["spec"].get("ports") or ():
            if each["port"] == int(port):
                port = each.get("name", "")
                break
        else:
            raise unavailable(f'no service port {port} found for service "{name}"')
    backends = list(backends_of(cache, namespace, name, port))
    if not backends:
        if found is None and cache.of(ENDPOINTS).get(namespace, name) is None:
            raise not_found("endpoints", name)
        raise unavailable(f'no endpoints available for service "{identity}"')
    address, number = random.choice(backends)  # noqa: S311 - not a secret
    check_address(address)
    return scheme or "http", address, number


def backends_of(
    cache: Cache, namespace: str, name: str, port_name: str
) -> Iterator[tuple[str, int]]:
    """The ready addresses behind a service's port: of its slices, or else of its Endpoints."""
    slices = slices_of(cache, namespace, name)
    for each in slices:
        numbers = [
            p["port"]
            for p in each.get("ports") or ()
            if (p.get("name") or "") == port_name and p.get("port")
        ]
        for endpoint in each.get("endpoints") or ():
            if is_ready(endpoint):
                for number in numbers:
                    yield from ((address, number) for address in endpoint["addresses"][:1])
    endpoints = None if slices else cache.of(ENDPOINTS).get(namespace, name)
    if endpoints is None:
        return
    for subset in endpoints.object.get("subsets") or ():
        for port in subset.get("ports") or ():
            if (port.get("name") or "") == port_name:
                for address in subset.get("addresses") or ():
                    yield address["ip"], port["port"]


def slices_of(cache: Cache, namespace: str, name: str) -> list[Object]:
    """The EndpointSlices of a service."""
    return [
        stored.object
        for stored in cache.of(ENDPOINT_SLICES).list(namespace)
        if (stored.object["metadata"].get("labels") or {}).get(SERVICE_NAME) == name
    ]


def unavailable(message: str) -> StatusError:
    """503, to be tried again."""
    return StatusError(503, "ServiceUnavailable", message)
