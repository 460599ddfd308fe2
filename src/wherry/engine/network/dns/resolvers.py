"""The name servers of all containers, kept in step with the networks they are on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from wherry.engine.container.container import Container, Endpoint
from wherry.engine.container.resolv_conf import behind, ndots, with_choices
from wherry.engine.network.dns.forward import Upstream
from wherry.engine.network.dns.server import Forwarding, NameServer
from wherry.engine.network.dns.zone import Member, Place, Zone
from wherry.engine.network.endpoints import dns_names
from wherry.engine.network.network import POD_NETWORK, is_user_defined
from wherry.host.resolv_conf import host_file, parse
from wherry.net.nftables.nft import NftError

log = logging.getLogger(__name__)


def links_of(endpoint: Endpoint) -> dict[str, str]:
    """The container's own names for others on that network: alias to name, in small letters."""
    pairs = (link.partition(":") for link in endpoint.links)
    return {(alias or name).lower(): name for name, _, alias in pairs}


class Resolvers:
    """Zones by network, and a name server for each container that is on one of them.

    ``namespace`` tells where a container's network namespace is.
    """

    def __init__(self, namespace: Callable[[str], Path]) -> None:
        self._namespace = namespace
        self._zones: dict[str, Zone] = {}  # by network id
        self._servers: dict[str, NameServer] = {}  # by container id

    def serves(self, container: Container) -> bool:
        """Whether ``container`` has a name server."""
        return container.id in self._servers

    async def attach(self, container: Container) -> None:
        """Follow the places and the name of ``container``, which may be others than before.

        With its first user-defined network it gets its name server, and keeps it. One that cannot
        be opened is told to the log: the container has its addresses.
        """
        present = {
            endpoint.network_id: endpoint
            for endpoint in container.endpoints.values()
            if endpoint.connected
            and is_user_defined(endpoint.network)
            and endpoint.network != POD_NETWORK
        }
        for id, zone in list(self._zones.items()):
            if id not in present:
                self._leave(id, zone, container)
        for id, endpoint in present.items():
            zone = self._zones.setdefault(id, Zone(endpoint.network))
            names = tuple(dns_names(container, endpoint))
            zone.enter(Member(container.id, names, tuple(endpoint.addresses)))
        if present or container.id in self._servers:
            await self._serve(
                container, [Place(self._zones[id], links_of(e)) for id, e in present.items()]
            )

    async def _serve(self, container: Container, places: list[Place]) -> None:
        forwarding = _forwarding(container)
        if server := self._servers.get(container.id):
            server.places, server.forwarding = places, forwarding
            return
        server = NameServer(self._namespace(container.id), places, forwarding)
        try:
            await server.open()
        except (OSError, NftError) as error:
            log.error("the name server of %s: %s", container.id[:12], error)
            return
        self._servers[container.id] = server

    def detach(self, container: Container) -> None:
        """Let go of its namespace, and forget its names; may be repeated."""
        if server := self._servers.pop(container.id, None):
            server.close()
        for id, zone in list(self._zones.items()):
            self._leave(id, zone, container)

    def _leave(self, id: str, zone: Zone, container: Container) -> None:
        zone.leave(container.id)
        if not len(zone):
            del self._zones[id]

    def close(self) -> None:
        """Stop answering; the next daemon goes on."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        self._zones.clear()


def _forwarding(container: Container) -> Forwarding:
    endpoints = container.endpoints.values()
    wanted = with_choices(parse(host_file(direct=False)), container.host_config)
    asked = behind(wanted, ipv6=any(e.address6 for e in endpoints))
    return Forwarding(
        [Upstream(server, from_host) for server, from_host in asked],
        allowed=any(endpoint.gateway or endpoint.gateway6 for endpoint in endpoints),
        single_labels=not ndots(wanted),
    )
