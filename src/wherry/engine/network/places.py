"""Places of containers on networks: namespaces, interfaces, addresses, ways out, ports.

What a container holds here is in its own document before it is taken, so that it can be given
back by a daemon that did not give it. Whatever is in a namespace goes with it; its file is called
like the container. While a container runs, an endpoint that is being made or taken away is marked
``changing``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from wherry.engine.container.container import Container, Endpoint, PublishedPort
from wherry.engine.errors import EngineError, Forbidden, NotFound
from wherry.engine.network import cni, endpoints
from wherry.engine.network.allocation import Pools
from wherry.engine.network.cni import pods
from wherry.engine.network.cni.plugins import PluginFailed, Plugins
from wherry.engine.network.drivers import driver
from wherry.engine.network.drivers.bridge import HOST_BINDING, gateway_mode
from wherry.engine.network.network import Network, is_user_defined
from wherry.engine.network.ports import PortRequest, PortSearch, requests
from wherry.net import namespaces
from wherry.net.firewall.firewall import Firewall, PortTaken
from wherry.net.firewall.rules import PortBinding
from wherry.net.link import cables, links, shaping
from wherry.net.nftables.nft import NftError

log = logging.getLogger(__name__)

SETUP = "failed to set up container networking: "
HOST_SANDBOX = "/var/run/docker/netns/default"  # as Docker calls the machine's own
Save = Callable[[], None]


class Names(Protocol):
    """Who sees to it that containers find each other by name."""

    async def attach(self, container: Container) -> None:
        """Its places are new, or others than before; may be repeated."""
        ...

    async def detach(self, container: Container) -> None:
        """Its namespace is about to go; may be repeated."""
        ...


class Places:
    """Gives containers their places and takes them back.

    ``namespaces_root`` holds a file for every network namespace; ``find`` knows networks by name,
    id or the beginning of an id; ``tell`` publishes an event of a network.
    """

    def __init__(
        self,
        namespaces_root: Path,
        firewall: Firewall,
        find: Callable[[str], Network | None],
        tell: Callable[[Network, str, Container], None],
        plugins: Plugins,
    ) -> None:
        self.root = namespaces_root
        self.pools = Pools()
        self.names: Names | None = None
        self._firewall = firewall
        self._find = find
        self._tell = tell
        self._plugins = plugins
        self._members: dict[str, dict[str, Container]] = {}  # by network id and container id
        self._search = PortSearch()

    def namespace(self, container_id: str) -> Path:
        """Where the network namespace made for a container is found."""
        return self.root / container_id

    def members(self, network: Network) -> Iterable[Container]:
        """The containers that are on a network now."""
        return self._members.get(network.id, {}).values()

    def network_of(self, endpoint: Endpoint) -> Network:
        """The network that an endpoint means: once it was on one, that and no namesake.

        Raises:
            NotFound: it is gone.
        """
        known = endpoint.network_id if is_user_defined(endpoint.network) else ""
        network = self._find(known or endpoint.network)
        if network is None or network.config_only:
            raise NotFound(f"network {known or endpoint.network} not found")
        return network

    # ---- the start and the end of a container

    async def connect(self, container: Container, save: Save) -> None:
        """Give ``container`` its namespace, its interfaces and its ports, as its options say.

        Raises:
            NotFound: a network of it is gone.
            EngineError: no address is left, or a port is taken. What was given is given back by
                ``disconnect``.
        """
        if container.network_mode.startswith("container:"):
            return
        async with container.network_lock:
            try:
                networks = {e.network: self.network_of(e) for e in container.endpoints.values()}
                for name, endpoint in tuple(container.endpoints.items()):
                    self._give(networks[name], endpoint, container)
                container.sandbox = HOST_SANDBOX
                if all(network.driver != "host" for network in networks.values()):
                    container.sandbox = str(self.namespace(container.id))
                    await asyncio.to_thread(self._make_namespace, container, networks)
                    await self._by_plugins(container, networks)
                    await self._publish(container, save)
                if self.names is not None:
                    await self.names.attach(container)
            except (EngineError, OSError, NftError) as error:
                raise _failed(error) from error
            for network in networks.values():
                self._tell(network, "connect", container)

    def _give(self, network: Network, endpoint: Endpoint, container: Container) -> None:
        """Decide on all that an endpoint gets; nothing of it exists yet."""
        endpoints.judge(endpoint, network)
        kind = driver(network.driver)
        endpoint.network_id = network.id
        endpoint.endpoint_id = secrets.token_hex(32)
        if kind.addressed:
            self.pools.give(network, endpoint, container.id)
            endpoint.interface = _interface(kind.interface, endpoint, container)
            first = endpoint.addresses[0]
            endpoint.mac_address = endpoint.wanted_mac or links.mac_address(first)
            if network.internal:
                endpoint.gateway = endpoint.gateway6 = ""
        self._members.setdefault(network.id, {})[container.id] = container

    def _make_namespace(self, container: Container, networks: Mapping[str, Network]) -> None:
        path = self.namespace(container.id)
        namespaces.delete(path)  # a failed clean-up may have left it
        namespaces.create(path, container.user_namespace)
        ways = self._ways(container)
        for name, network in networks.items():
            endpoint = container.endpoints[name]
            gateways = [
                gateway
                for version, gateway in ((4, endpoint.gateway), (6, endpoint.gateway6))
                if ways[version] is endpoint
            ]
            driver(network.driver).plug(network, endpoint, path, gateways)

    async def _by_plugins(self, container: Container, networks: Mapping[str, Network]) -> None:
        """Where places are made by others' plugins, have them make it."""
        for name, network in networks.items():
            if network.driver == cni.DRIVER:
                asked = pods.attachment(container, container.endpoints[name], network.ranges)
                given = await self._plugins.add(asked, self.namespace(container.id))
                pods.note(container.endpoints[name], given)
                await asyncio.to_thread(links.see_through, given.links)

    async def disconnect(self, container: Container) -> None:
        """Give back what ``connect`` and ``attach`` gave; may be repeated."""
        async with container.network_lock:
            await self._firewall.unpublish(map(_binding, container.ports))
            container.ports.clear()
            if self.names is not None:
                await self.names.detach(container)
            container.sandbox = ""
            path = self.namespace(container.id)
            if any(e.options.get(endpoints.EGRESS_RATE) for e in container.endpoints.values()):
                await asyncio.to_thread(shaping.unlimit, container.id)
            if await self._undone(container.id, path) and path.exists():
                # The links go with it, in the background of the kernel.
                await asyncio.to_thread(namespaces.delete, path)
            for name, endpoint in tuple(container.endpoints.items()):
                self._forget(container, endpoint)
                if endpoint.changing:
                    # It was never whole, or was to go.
                    del container.endpoints[name]
                else:
                    container.endpoints[name] = endpoint.disconnected()

    def _forget(self, container: Container, endpoint: Endpoint) -> None:
        """It has this place no more; tells of it where it ever had."""
        self.pools.release(endpoint.network_id, container.id)
        self._members.get(endpoint.network_id, {}).pop(container.id, None)
        network = self._find(endpoint.network_id) if endpoint.connected else None
        if network is not None:
            self._tell(network, "disconnect", container)

    async def _undone(self, container_id: str, path: Path) -> bool:
        """Have plugins take back what they gave; False where they have to be asked again, for which
        the namespace stays."""
        try:
            await self._plugins.delete(container_id, path)
        except EngineError as error:
            log.error("network of %s: %s", container_id[:12], error.message)
            self._plugins.delete_later(container_id, path)
            return False
        return True

    async def reclaim(self, container: Container, save: Save) -> None:
        """Take up again what a container that still runs was given by an earlier daemon."""
        async with container.network_lock:
            for name, endpoint in tuple(container.endpoints.items()):
                network = self._find(endpoint.network_id)
                if endpoint.changing:
                    if network is not None:
                        await asyncio.to_thread(self._unplug, network, endpoint, container)
                    del container.endpoints[name]
                    save()
                elif network is not None and endpoint.connected:
                    await self._look_after(container, network)
                    self._members.setdefault(network.id, {})[container.id] = container
                    try:
                        self.pools.claim(network, endpoint, container.id)
                    except ValueError as error:
                        log.error("address of %s: %s", container.id[:12], error)
            for port in container.ports:
                port.address = port.address or self._old_address(container)
                try:
                    await self._firewall.publish([_binding(port)])
                except PortTaken as error:
                    log.error("port of %s: %s", container.id[:12], error)
            if self.names is not None:
                await self.names.attach(container)

    async def _look_after(self, container: Container, network: Network) -> None:
        if network.driver != cni.DRIVER:
            return
        try:
            await self._plugins.check(container.id, self.namespace(container.id))
        except EngineError as error:
            log.error("network of %s: %s", container.id[:12], error.message)

    @staticmethod
    def _old_address(container: Container) -> str:
        """Where ports led in documents that did not say so."""
        return next((e.address for e in container.endpoints.values() if e.address), "")

    # ---- changes while it runs

    async def attach(
        self, container: Container, network: Network, endpoint: Endpoint, save: Save
    ) -> None:
        """Put a container that runs on one more network.

        Raises:
            BadParameter: what the endpoint asks for cannot be had.
            Forbidden: it is on it already, or an address is taken.
            EngineError: the kernel refuses.
        """
        async with container.network_lock:
            present = container.endpoints.get(network.name)
            if present and present.connected:
                raise Forbidden(
                    f"endpoint with name {container.name} already exists in network {network.name}"
                )
            if not self.namespace(container.id).exists():
                raise EngineError(f"container {container.id} is not running")
            before = self._ways(container)
            endpoint.changing = True
            try:
                self._give(network, endpoint, container)
                container.endpoints[network.name] = endpoint
                save()
                await asyncio.to_thread(self._plug, network, endpoint, container, before)
                await self._republish(container, save, before)
                endpoint.changing = False
                save()
            except (EngineError, OSError, NftError) as error:
                await asyncio.to_thread(self._unplug, network, endpoint, container)
                self.pools.release(network.id, container.id)
                self._members.get(network.id, {}).pop(container.id, None)
                container.endpoints.pop(network.name, None)
                save()
                raise error if isinstance(error, EngineError) else _failed(error) from error
            if self.names is not None:
                await self.names.attach(container)
            self._tell(network, "connect", container)

    def _plug(
        self,
        network: Network,
        endpoint: Endpoint,
        container: Container,
        before: Mapping[int, Endpoint | None],
    ) -> None:
        path = self.namespace(container.id)
        driver(network.driver).plug(network, endpoint, path, ())
        self._turn(container, before)

    def _turn(self, container: Container, before: Mapping[int, Endpoint | None]) -> None:
        """Have the default routes lead where they should by now."""
        ways: dict[int, tuple[str, str] | None] = {}
        for version, way in self._ways(container).items():
            if way is not before[version]:
                gateway = way and (way.gateway if version == 4 else way.gateway6)
                ways[version] = (way.interface, gateway or "") if way else None
        if ways:
            cables.set_default_routes(self.namespace(container.id), ways)

    def _unplug(self, network: Network, endpoint: Endpoint, container: Container) -> None:
        driver(network.driver).unplug(network, endpoint, self.namespace(container.id))

    async def detach(self, container: Container, network: Network, save: Save) -> None:
        """Take a container that runs off a network.

        Raises:
            EngineError: it is not on it, or the kernel refuses.
        """
        async with container.network_lock:
            endpoint = container.endpoints.get(network.name)
            if endpoint is None or not endpoint.connected:
                raise EngineError(
                    f"container {container.id} is not connected to network {network.name}"
                )
            before = self._ways(container)
            endpoint.changing = True
            save()
            try:
                await asyncio.to_thread(self._unplug, network, endpoint, container)
            except OSError as error:
                raise EngineError(
                    f"container {container.id} failed to leave network {network.name}: {error}"
                ) from error
            del container.endpoints[network.name]
            await asyncio.to_thread(self._turn, container, before)
            await self._republish(container, save, before)
            save()
            if self.names is not None:
                await self.names.attach(container)
            self._forget(container, endpoint)

    async def set_mtu(self, container: Container, network: Network, mtu: int) -> None:
        """Packets of a container that runs may have ``mtu`` bytes on that network: both ends of its
        cable, as one drops what the other finds small enough."""
        async with container.network_lock:  # what is being made is whole then
            endpoint = container.endpoints.get(network.name)
            if endpoint is None or not endpoint.connected:
                return
            path = self.namespace(container.id)
            for name, namespace in ((endpoint.host_interface, None), (endpoint.interface, path)):
                try:
                    await asyncio.to_thread(links.set_mtu, name, mtu, namespace)
                except OSError as error:  # it ends
                    log.info("MTU of %s in %s: %s", name, container.id[:12], error)

    # ---- ways out and published ports

    def _ways(self, container: Container) -> dict[int, Endpoint | None]:
        """By which endpoint a container leaves, in each version of IP."""
        order = endpoints.in_gateway_order(container.endpoints.values(), self._find)
        return {
            4: next((e for e in order if e.gateway), None),
            6: next((e for e in order if e.gateway6), None),
        }

    async def _republish(
        self, container: Container, save: Save, before: Mapping[int, Endpoint | None]
    ) -> None:
        """After the way out has changed, ports lead to the new address. Those of the host that
        nobody chose are others from then on, as with Docker."""
        if all(way is before[version] for version, way in self._ways(container).items()):
            return
        await self._firewall.unpublish(map(_binding, container.ports))
        container.ports.clear()
        await self._publish(container, save)

    async def _publish(self, container: Container, save: Save) -> None:
        wanted = requests(
            container.config.get("ExposedPorts") or {},
            container.host_config["PortBindings"],
            publish_all=container.host_config["PublishAllPorts"],
        )
        if not wanted:
            return
        ways = {
            version: way
            for version, way in self._ways(container).items()
            if way is not None and self._publishes(way)
        }
        reserved: list[PortBinding] = []
        try:
            found: dict[PortRequest, list[PublishedPort]] = {}
            # Those that want one port go first: the others do not care which one is left.
            for request in sorted(wanted, key=lambda r: r.last - r.first if r.first else 1 << 16):
                found[request] = self._reserve(container, request, ways)
                reserved += map(_binding, found[request])
            container.ports += [port for request in wanted for port in found.get(request, ())]
            # They are on disk before they are open.
            save()
            await self._firewall.open(reserved)
        except BaseException:
            self._firewall.release(reserved)
            raise

    def _publishes(self, endpoint: Endpoint) -> bool:
        network = self.network_of(endpoint)
        return driver(network.driver).publishes(network)

    def _reserve(
        self,
        container: Container,
        request: PortRequest,
        ways: Mapping[int, Endpoint],
    ) -> list[PublishedPort]:
        problem = ""
        for host_port in self._search.candidates(request):
            ports = list(self._ports(request, host_port, ways))
            try:
                self._firewall.reserve(map(_binding, ports))
            except PortTaken as error:
                problem = str(error)
                continue
            return ports
        ids = [way.endpoint_id for way in ways.values()]
        raise EngineError(
            f"driver failed programming external connectivity on endpoint {container.name} "
            f"({ids[0]}): {problem}"
        )

    def _ports(
        self, request: PortRequest, host_port: int, ways: Mapping[int, Endpoint]
    ) -> Iterable[PublishedPort]:
        """What ``request`` means for a container with these ways out."""
        for host_ip in self._host_addresses(request, ways):
            # An address of IPv6 can stand for a container that has IPv4 alone, but not conversely.
            version = 6 if ":" in host_ip and 6 in ways else 4
            if version not in ways:
                continue
            way = ways[version]
            yield PublishedPort(
                request.protocol,
                request.container_port,
                host_ip,
                host_port,
                address=way.address if version == 4 else way.address6,
                routed=gateway_mode(self.network_of(way), version) == "routed",
            )

    def _host_addresses(self, request: PortRequest, ways: Mapping[int, Endpoint]) -> list[str]:
        """On which addresses of the host ``request`` wants its port."""
        if request.host_ip:
            return [request.host_ip]
        way = ways.get(4)
        default = self.network_of(way).options.get(HOST_BINDING) if way else None
        if default not in (None, "", "0.0.0.0"):
            return [default] if default else []
        return ["0.0.0.0", "::"] if links.has_ipv6() else ["0.0.0.0"]


def _interface(prefix: str, endpoint: Endpoint, container: Container) -> str:
    """The name of an endpoint's interface in the container: the first that is free."""
    if asked := endpoint.options.get(endpoints.INTERFACE_NAME):
        return asked
    used = {e.interface for e in container.endpoints.values() if e is not endpoint}
    used |= {
        e.options[endpoints.INTERFACE_NAME]
        for e in container.endpoints.values()
        if endpoints.INTERFACE_NAME in e.options
    }
    number = 0
    while f"{prefix}{number}" in used:
        number += 1
    return f"{prefix}{number}"


def _binding(port: PublishedPort) -> PortBinding:
    return PortBinding(
        protocol=port.protocol,
        host_ip=port.host_ip,
        host_port=port.host_port,
        container_ip=port.address,
        container_port=port.container_port,
        routed=port.routed,
    )


def _failed(error: EngineError | OSError | NftError) -> EngineError:
    """The error of a start, in Docker's words and of its own class."""
    if isinstance(error, PluginFailed):
        return error  # Docker has no words for it
    if isinstance(error, EngineError):
        return type(error)(f"{SETUP}{error.message}")
    return EngineError(f"{SETUP}{error}")
