"""The service for networks: which there are, and giving containers their places on them.

What a container holds of the network is in its own document (endpoints, published ports) before it
is made, so that it can be given back by a daemon that did not make it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

import orjson

from wherry.engine.container.container import Container, Endpoint, PublishedPort
from wherry.engine.errors import BadParameter, EngineError, NotFound
from wherry.engine.events import EventBus
from wherry.engine.network.network import (
    POD_NETWORK,
    Network,
    bridge_network,
    default_networks,
    mac_address,
)
from wherry.engine.network.ports import PortRequest, ephemeral_range, requests
from wherry.host.files import make_private, write_atomic
from wherry.net import links, namespaces, routes
from wherry.net.addresses import AddressPool, PoolExhausted
from wherry.net.firewall import Firewall, PortBinding, PortTaken
from wherry.net.nft import Nftables

log = logging.getLogger(__name__)

FORMAT = 1
# The interface inside a container.
INTERFACE = "eth0"


class Networks:
    """The networks of one engine and the containers' places on them.

    ``namespaces_root`` holds a file for every network namespace; ``pod_range`` is the range of all
    pods of the cluster, of which this node gets a part when a kubelet says so.
    """

    def __init__(
        self,
        *,
        root: Path,
        namespaces_root: Path,
        bridge: str,
        subnet: str,
        pod_bridge: str,
        pod_range: str,
        nft_table: str,
        events: EventBus,
    ) -> None:
        self._document = root / "networks.json"
        self._namespaces_root = namespaces_root
        self._bridge, self._subnet = bridge, subnet
        self._pod_bridge, self._pod_range = pod_bridge, pod_range
        self._nft = Nftables()
        self._firewall = Firewall(self._nft, nft_table)
        self._events = events
        self._networks: dict[str, Network] = {}  # by name
        self._pools: dict[str, AddressPool] = {}
        self._next_port = 0

    # ---- which there are

    async def open(self) -> None:
        """Read the networks from disk, and make sure of their bridges and rules."""
        make_private(self._document.parent)
        self._namespaces_root.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._load()
        await asyncio.to_thread(self._raise_bridges)
        await self._raise_walls()
        self._save()

    async def _raise_walls(self) -> None:
        bridged = {n.bridge: n.subnet for n in self._networks.values() if n.bridge}
        elsewhere = [self._pod_range] if self._pod_range else []
        await self._firewall.setup(bridged, unmasqueraded=elsewhere)

    def _load(self) -> None:
        try:
            document = orjson.loads(self._document.read_bytes())
        except FileNotFoundError:
            document = {"format": FORMAT, "networks": []}
        if document.get("format") != FORMAT:
            raise EngineError(f"{self._document} is of a format that this version does not know")
        known = {entry["name"]: Network(**entry) for entry in document["networks"]}
        for network in default_networks(self._bridge, self._subnet):
            if saved := known.get(network.name):
                network.id, network.created_at = saved.id, saved.created_at
            known[network.name] = network
        self._networks = known
        for network in known.values():
            self._add_pool(network)

    def _save(self) -> None:
        entries = [network.to_document() for network in self._networks.values()]
        write_atomic(
            self._document,
            orjson.dumps({"format": FORMAT, "networks": entries}, option=orjson.OPT_INDENT_2),
        )

    def _add_pool(self, network: Network) -> None:
        if network.subnet:
            self._pools[network.name] = AddressPool(network.subnet, reserved=(network.gateway,))

    def _raise_bridges(self) -> None:
        # From the first moment, an address of ours that nobody has is refused, not sent uplink.
        for cidr in (self._subnet, self._pod_range):
            if cidr:
                routes.block(cidr)
        for network in self._networks.values():
            if network.bridge:
                links.ensure_bridge(network.bridge, network.gateway_cidr)

    async def set_pod_range(self, cidr: str) -> None:
        """Pods of this node get their addresses from ``cidr``.

        Raises:
            EngineError: pods still have addresses of another range.
        """
        present = self._networks.get(POD_NETWORK)
        if present and present.subnet == cidr:
            return
        if present and self._pools[POD_NETWORK].owners():
            raise EngineError(
                f"pods have addresses of {present.subnet}, which must go before {cidr} comes"
            )
        network = bridge_network(POD_NETWORK, self._pod_bridge, cidr)
        if present:
            await asyncio.to_thread(links.remove_link, present.bridge)
        await asyncio.to_thread(links.ensure_bridge, network.bridge, network.gateway_cidr)
        self._networks[POD_NETWORK] = network
        self._add_pool(network)
        await self._raise_walls()
        self._save()

    async def close(self) -> None:
        """Let go; bridges and rules stay, as containers go on using them."""
        self._firewall.close()
        self._nft.close()

    def all(self) -> list[Network]:
        """Every network, newest first."""
        return sorted(self._networks.values(), key=lambda n: n.created_at, reverse=True)

    def find(self, reference: str) -> Network | None:
        """By name, id or unambiguous beginning of an id.

        Raises:
            BadParameter: several ids begin so.
        """
        if found := self._networks.get(reference):
            return found
        matches = [n for n in self._networks.values() if n.id.startswith(reference)]
        if len(matches) > 1 and reference:
            raise BadParameter(
                f"network {reference} is ambiguous ({len(matches)} matches found "
                "based on ID prefix)"
            )
        return matches[0] if matches and reference else None

    def get(self, reference: str) -> Network:
        """As ``find``.

        Raises:
            NotFound: there is no such network.
        """
        network = self.find(reference)
        if network is None:
            raise NotFound(f"network {reference} not found")
        return network

    # ---- places of containers

    def namespace(self, container_id: str) -> Path:
        """Where the network namespace made for a container is found."""
        return self._namespaces_root / container_id

    def all_namespaces(self) -> list[Path]:
        """Every namespace that was made for a container and not given back."""
        return list(self._namespaces_root.iterdir())

    def remove_namespace(self, path: Path) -> None:
        """Remove one that belongs to no container; its links go with it. Blocks."""
        namespaces.delete(path)

    def gateway(self, container: Container) -> str:
        """The address at which ``container`` reaches the host."""
        for endpoint in container.endpoints.values():
            if endpoint.gateway:
                return endpoint.gateway
        return self._networks["bridge"].gateway

    async def connect(self, container: Container, save: Callable[[], None]) -> None:
        """Give ``container`` its namespace, its addresses and its ports, as its options say.

        ``save`` writes the container's document: a port is in it before it is open.

        Raises:
            NotFound: its network is gone.
            EngineError: no address is left, or a port is taken. What was given is given back by
                ``disconnect``.
        """
        mode = container.network_mode
        if mode.startswith("container:"):
            return
        try:
            network = self.get(mode)
        except NotFound as error:
            raise NotFound(f"failed to set up container networking: {error.message}") from None
        endpoint = container.endpoints.setdefault(network.name, Endpoint(network.name))
        endpoint.network_id = network.id
        endpoint.endpoint_id = secrets.token_hex(32)
        self._tell(network, "connect", container)
        if network.driver == "host":
            return
        if network.bridge:
            self._give_address(network, endpoint, container)
        await asyncio.to_thread(self._make_namespace, container, network, endpoint)
        if network.bridge:
            await self._publish_ports(container, endpoint, save)

    def _give_address(self, network: Network, endpoint: Endpoint, container: Container) -> None:
        pool = self._pools[network.name]
        try:
            if endpoint.wanted_address:
                pool.claim(container.id, endpoint.wanted_address)
                endpoint.address = endpoint.wanted_address
            else:
                endpoint.address = pool.allocate(container.id)
        except PoolExhausted:
            raise EngineError(
                "failed to set up container networking: no available IPv4 addresses on this "
                f"network's address pools: {network.name} ({network.id})"
            ) from None
        except ValueError as error:
            raise BadParameter(f"failed to set up container networking: {error}") from None
        endpoint.prefix_length = network.prefix_length
        endpoint.gateway = network.gateway
        endpoint.mac_address = endpoint.wanted_mac or mac_address(endpoint.address)

    def _make_namespace(self, container: Container, network: Network, endpoint: Endpoint) -> None:
        path = self.namespace(container.id)
        namespaces.delete(path)  # a failed clean-up may have left it
        namespaces.create(path)
        if network.bridge:
            links.connect(
                namespace=path,
                bridge=network.bridge,
                host_interface=endpoint.host_interface,
                interface=INTERFACE,
                address=f"{endpoint.address}/{endpoint.prefix_length}",
                gateway=endpoint.gateway,
                mac=endpoint.mac_address,
            )

    async def disconnect(self, container: Container) -> None:
        """Give back what ``connect`` gave; may be repeated."""
        while container.ports:
            await self._firewall.unpublish(_binding(container.ports[-1], self._address(container)))
            container.ports.pop()
        path = self.namespace(container.id)
        if path.exists():
            # The links go with it, in the background of the kernel.
            await asyncio.to_thread(namespaces.delete, path)
        for name, endpoint in container.endpoints.items():
            if pool := self._pools.get(name):
                pool.release(container.id)
            if endpoint.endpoint_id and (network := self._networks.get(name)):
                self._tell(network, "disconnect", container)
            container.endpoints[name] = Endpoint(
                name,
                aliases=endpoint.aliases,
                wanted_address=endpoint.wanted_address,
                wanted_mac=endpoint.wanted_mac,
            )

    async def reclaim(self, container: Container) -> None:
        """Take up again what a container that still runs was given by an earlier daemon."""
        for name, endpoint in container.endpoints.items():
            pool = self._pools.get(name)
            if pool and endpoint.connected:
                try:
                    pool.claim(container.id, endpoint.address)
                except ValueError as error:
                    log.error("address of %s: %s", container.id[:12], error)
        address = self._address(container)
        for port in container.ports:
            try:
                await self._firewall.publish(_binding(port, address))
            except PortTaken as error:
                log.error("port of %s: %s", container.id[:12], error)

    def _tell(self, network: Network, action: str, container: Container) -> None:
        attributes = {"container": container.id, "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, attributes)

    # ---- published ports

    @staticmethod
    def _address(container: Container) -> str:
        return next((e.address for e in container.endpoints.values() if e.address), "")

    async def _publish_ports(
        self, container: Container, endpoint: Endpoint, save: Callable[[], None]
    ) -> None:
        wanted = requests(
            container.config.get("ExposedPorts") or {},
            container.host_config["PortBindings"],
            publish_all=container.host_config["PublishAllPorts"],
        )
        for request in wanted:
            await self._publish(request, endpoint, container, save)

    async def _publish(
        self,
        request: PortRequest,
        endpoint: Endpoint,
        container: Container,
        save: Callable[[], None],
    ) -> None:
        problem = ""
        for host_port in self._candidates(request):
            port = PublishedPort(
                request.protocol, request.container_port, request.host_ip or "0.0.0.0", host_port
            )
            container.ports.append(port)
            save()
            try:
                await self._firewall.publish(_binding(port, endpoint.address))
            except PortTaken as error:
                container.ports.remove(port)
                problem = str(error)
                continue
            return
        raise EngineError(
            "failed to set up container networking: driver failed programming external "
            f"connectivity on endpoint {container.name} ({endpoint.endpoint_id}): {problem}"
        )

    def _candidates(self, request: PortRequest) -> range | list[int]:
        """The host ports to try, in this order."""
        if request.first:
            return range(request.first, request.last + 1)
        first, last = ephemeral_range()
        if not first <= self._next_port < last:
            # Far from where the kernel hands out its own: they come from the range's middle.
            self._next_port = first
        start = self._next_port
        self._next_port += 1
        return [*range(start, last + 1), *range(first, start)]


def _binding(port: PublishedPort, address: str) -> PortBinding:
    return PortBinding(
        protocol=port.protocol,
        host_ip=port.host_ip,
        host_port=port.host_port,
        container_ip=address,
        container_port=port.container_port,
    )
