"""What containers call each other: their name servers and files follow their places.

Called by whoever gives and takes places on networks, and after a rename.
"""

from __future__ import annotations

from wherry.engine.container import identity, links
from wherry.engine.container.container import Container
from wherry.engine.container.store import ContainerStore
from wherry.engine.network.dns.resolvers import Resolvers
from wherry.net.name_sockets import ADDRESS


class Naming:
    """Keeps the names of one engine's containers right."""

    def __init__(self, store: ContainerStore, resolvers: Resolvers) -> None:
        self._store = store
        self._resolvers = resolvers

    def name_server(self, container: Container) -> str:
        """The address of its name server; empty without one."""
        return ADDRESS if self._resolvers.serves(container) else ""

    async def attach(self, container: Container) -> None:
        """Its places or its name are others than before; may be repeated."""
        await self._resolvers.attach(container)
        if container.state.running:
            identity.follow(container, self.name_server(container))
        default = container.endpoints.get(links.DEFAULT_NETWORK)
        if default is not None and default.connected:
            for other, link in links.linking_to(container, self._store):
                if other.state.running:
                    identity.linked_moved(other, link.alias, default.addresses)

    async def renamed(self, container: Container) -> None:
        """It has another name."""
        async with container.network_lock:
            if any(endpoint.connected for endpoint in container.endpoints.values()):
                await self._resolvers.attach(container)

    async def detach(self, container: Container) -> None:
        """Its namespace is about to go; may be repeated."""
        self._resolvers.detach(container)

    def close(self) -> None:
        """Stop answering; the next daemon goes on."""
        self._resolvers.close()
