"""Who has which address on which network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wherry.engine.container.container import Endpoint
from wherry.engine.errors import BadParameter, EngineError, Forbidden
from wherry.engine.network.address_pool import AddressPool, PoolExhausted
from wherry.engine.network.network import Network, Subnet


class Pools:
    """The addresses of all networks of an engine."""

    def __init__(self) -> None:
        self._pools: dict[str, list[tuple[Subnet, AddressPool]]] = {}
        self._released = asyncio.Event()

    def add(self, network: Network, *, rotating: bool = False) -> None:
        """Addresses of ``network`` may be given out."""
        self._pools[network.id] = [
            (
                subnet,
                AddressPool(
                    subnet.cidr,
                    reserved=(subnet.gateway, *subnet.auxiliary.values()),
                    part=subnet.ip_range,
                    rotating=rotating,
                ),
            )
            for subnet in network.subnets
        ]

    def discard(self, network: Network) -> None:
        """There is no such network any more."""
        self._pools.pop(network.id, None)

    def used(self, network: Network) -> bool:
        """Whether any address of it is given out."""
        return any(pool.owners() for _, pool in self._pools.get(network.id, ()))

    async def unused(self, network: Network) -> None:
        """Return when no address of it is given out."""
        while self.used(network):
            self._released.clear()
            await self._released.wait()

    def give(self, network: Network, endpoint: Endpoint, owner: str) -> None:
        """Fill in the addresses of ``endpoint``, those it wants if it does.

        Raises:
            Forbidden: what it wants is another's.
            EngineError: no address is left.
        """
        for version in (4, 6):
            pools = [(s, p) for s, p in self._pools[network.id] if s.version == version]
            if not pools:
                continue
            wanted = endpoint.wanted_address if version == 4 else endpoint.wanted_address6
            subnet, address = self._take(network, pools, wanted, owner)
            if version == 4:
                endpoint.address, endpoint.prefix_length = address, subnet.prefix_length
                endpoint.gateway = subnet.gateway
            else:
                endpoint.address6, endpoint.prefix_length6 = address, subnet.prefix_length
                endpoint.gateway6 = subnet.gateway

    @staticmethod
    def _take(
        network: Network, pools: Sequence[tuple[Subnet, AddressPool]], wanted: str, owner: str
    ) -> tuple[Subnet, str]:
        for subnet, pool in pools:
            if wanted and wanted not in pool:
                continue
            try:
                return subnet, pool.claim(owner, wanted) if wanted else pool.allocate(owner)
            except PoolExhausted:
                continue
            except ValueError as error:
                raise Forbidden(str(error)) from None
        version = pools[0][0].version
        if wanted:
            raise BadParameter(f"no configured subnet or ip-range contain the IP address {wanted}")
        raise EngineError(
            f"no available IPv{version} addresses on this network's address pools: "
            f"{network.name} ({network.id})"
        )

    def claim(self, network: Network, endpoint: Endpoint, owner: str) -> None:
        """Take up again what ``owner`` has had all the time.

        Raises:
            ValueError: it is another's.
        """
        for address in endpoint.addresses:
            for _, pool in self._pools.get(network.id, ()):
                if address in pool:
                    pool.claim(owner, address)

    def release(self, network_id: str, owner: str) -> None:
        """Take back what ``owner`` has on a network."""
        for _, pool in self._pools.get(network_id, ()):
            pool.release(owner)
        self._released.set()
