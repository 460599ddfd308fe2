"""Pods' sandboxes, as plugins know them."""

from __future__ import annotations

from collections.abc import Sequence

from wherry.engine.container.container import Container, Endpoint
from wherry.engine.network import endpoints
from wherry.engine.network.cni import protocol
from wherry.engine.network.cni.protocol import Attachment, Place

# As runtimes of pods label their sandboxes.
_LABEL = "io.kubernetes.pod."


def attachment(container: Container, endpoint: Endpoint, ranges: Sequence[str]) -> Attachment:
    """What is asked for the sandbox ``container``; ``ranges`` are the node's for its pods."""
    labels = container.config.get("Labels") or {}
    host = container.host_config
    ingress, egress = endpoints.rates(endpoint)
    return Attachment(
        container.id,
        namespace=labels.get(f"{_LABEL}namespace", ""),
        name=labels.get(f"{_LABEL}name", ""),
        uid=labels.get(f"{_LABEL}uid", ""),
        capabilities=protocol.capabilities(
            ports=host.get("PortBindings") or {},
            ranges=ranges,
            ingress=ingress,
            egress=egress,
            dns={
                "servers": host.get("Dns") or (),
                "searches": host.get("DnsSearch") or (),
                "options": host.get("DnsOptions") or (),
            },
        ),
    )


def note(endpoint: Endpoint, place: Place) -> None:
    """Fill in what the plugins have given."""
    endpoint.interface, endpoint.mac_address = protocol.INTERFACE, place.mac
    for text in place.addresses:
        address, _, length = text.partition("/")
        if ":" in address and not endpoint.address6:
            endpoint.address6, endpoint.prefix_length6 = address, int(length)
        elif ":" not in address and not endpoint.address:
            endpoint.address, endpoint.prefix_length = address, int(length)
    for gateway in place.gateways:
        if ":" in gateway:
            endpoint.gateway6 = gateway
        else:
            endpoint.gateway = gateway
