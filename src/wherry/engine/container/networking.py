"""``docker network connect`` and ``disconnect``: a container changes its networks."""

from __future__ import annotations

import functools

from wherry.engine.container.container import Container, Endpoint
from wherry.engine.container.store import ContainerStore
from wherry.engine.errors import BadParameter, EngineError, NotFound
from wherry.engine.network import endpoints
from wherry.engine.network.network import Network
from wherry.engine.network.networks import Networks

_SHARED = (
    "container sharing network namespace with another container or host cannot be connected to "
    "any other network"
)


class Networking:
    """Connects the containers of one engine, whether they run or not."""

    def __init__(self, store: ContainerStore, networks: Networks) -> None:
        self._store = store
        self._networks = networks

    async def connect(self, reference: str, container: Container, endpoint: Endpoint) -> None:
        """Put ``container`` on the network that ``reference`` means, as ``endpoint`` asks.

        One that does not run is on it from its next start.

        Raises:
            NotFound: it runs, and there is no such network.
            BadParameter, Forbidden, EngineError: it cannot be there.
        """
        async with container.lock:
            self._check_stays(container)
            network = self._networks.find(reference)
            if container.network_mode.startswith("container:"):
                raise BadParameter(_SHARED)
            running = container.state.running and not container.state.restarting
            if network is None and running:
                raise NotFound(f"network {reference} not found")
            name = endpoint.network = network.name if network else reference
            if name == container.network_mode and not endpoint.wanted_mac:
                # Asked for in the old way, it is for this network, also when it comes anew.
                endpoint.wanted_mac = container.config.get("MacAddress") or ""
            endpoints.judge(endpoint, network)
            self._check_mates(container, network, name)
            if running and network is not None:
                save = functools.partial(self._store.save, container)
                await self._networks.attach(container, network, endpoint, save)
            elif name not in container.endpoints:
                container.endpoints[name] = endpoint
                self._store.save(container)

    def _check_mates(self, container: Container, network: Network | None, name: str) -> None:
        if network is None:
            return
        if network.driver == "host" and container.network_mode != "host":
            raise BadParameter(
                "cannot connect container to host network - container must be created in host "
                "network mode"
            )
        others = [self._networks.find(other) for other in container.endpoints if other != name]
        endpoints.check_together([network, *others])

    async def disconnect(self, reference: str, container: Container, *, force: bool) -> None:
        """Take ``container`` off the network that ``reference`` means.

        Raises:
            NotFound: it runs, and there is no such network.
            BadParameter, EngineError: it is not on it, or cannot leave it.
        """
        async with container.lock:
            network = self._networks.find(reference)
            running = container.state.running and not container.state.restarting
            if not running or (network is None and force):
                self._check_stays(container)
                name = network.name if network else reference
                if container.endpoints.pop(name, None) is None:
                    raise EngineError(
                        f"container {container.id} is not connected to the network {name}"
                    )
                self._store.save(container)
                return
            if network is None:
                raise NotFound(f"network {reference} not found")
            if container.network_mode == "host" and network.driver == "host":
                raise BadParameter(
                    "cannot disconnect container from host network - container was created in "
                    "host network mode"
                )
            save = functools.partial(self._store.save, container)
            await self._networks.detach(container, network, save)

    @staticmethod
    def _check_stays(container: Container) -> None:
        if container.state.removing or container.state.dead:
            raise EngineError(
                f"Container {container.id} is marked for removal and cannot be connected or "
                "disconnected to the network"
            )
