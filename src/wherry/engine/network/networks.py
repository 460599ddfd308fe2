"""The service for networks: which there are, making and removing them.

What a network takes from the kernel (a link, routes, rules) is in the document of networks before
it is taken. One whose making or removing was cut short by the daemon's end is taken away at the
next start: only an acknowledged network counts.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wherry.engine.container.container import Container, Endpoint
from wherry.engine.errors import BadParameter, Conflict, EngineError, Forbidden, NotFound
from wherry.engine.events import EventBus
from wherry.engine.network import cni, creation, documents, pools
from wherry.engine.network.cni.plugins import Plugins
from wherry.engine.network.drivers import driver
from wherry.engine.network.network import (
    DEFAULT,
    MTU,
    POD_NETWORK,
    Network,
    Subnet,
    bridge_network,
    default_networks,
    first_address,
)
from wherry.engine.network.places import Places
from wherry.host.files import make_private
from wherry.host.tasks import run_until
from wherry.net import namespaces
from wherry.net.firewall.firewall import Firewall
from wherry.net.link import routes
from wherry.net.nftables.nft import Nftables, NftError

log = logging.getLogger(__name__)

CREATING, REMOVING = "creating", "removing"


class Networks:
    """The networks of one engine and the containers' places on them.

    ``namespaces_root`` holds a file for every network namespace; ``pod_ranges`` are those of all
    pods of the cluster, at most one in each version of IP, of which this node gets parts when a
    kubelet says so.
    """

    def __init__(
        self,
        *,
        root: Path,
        namespaces_root: Path,
        bridge: str,
        subnet: str,
        pod_bridge: str,
        pod_ranges: Sequence[str],
        nft_table: str,
        events: EventBus,
        plugins: Plugins,
    ) -> None:
        self._document = root / "networks.json"
        self._bridge, self._subnet = bridge, subnet
        self._pod_bridge, self._pod_ranges = pod_bridge, tuple(pod_ranges)
        self._nft = Nftables()
        self._firewall = Firewall(self._nft, nft_table)
        self._events = events
        self._networks: dict[str, Network] = {}  # by name
        self._site = ""  # this engine's /48 of unique local addresses
        self._pod_mtu = 0
        self._neighbours: tuple[str, ...] = ()
        self._to_leave: Network | None = None  # by pods, before another range comes
        self._changing = asyncio.Lock()  # one network is made, changed or removed at a time
        self.plugins = plugins
        self.places = Places(namespaces_root, self._firewall, self.find, self._tell_of, plugins)

    # ---- opening and closing

    async def open(self) -> None:
        """Read the networks from disk, and make sure of their links and rules."""
        make_private(self._document.parent)
        self.places.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._load()
        await asyncio.to_thread(self._raise_links)
        await self._raise_walls()
        self._save()

    def _load(self) -> None:
        document = documents.read(self._document)
        self._site = document["site"]
        known = {entry["name"]: Network.from_document(entry) for entry in document["networks"]}
        for network in default_networks(self._bridge, self._subnet):
            if saved := known.get(network.name):
                network.id, network.created_at = saved.id, saved.created_at
            known[network.name] = network
        self._networks = known
        for network in known.values():
            self.places.pools.add(network, rotating=network.name == POD_NETWORK)

    def _save(self, *, durable: bool = True) -> None:
        documents.write(self._document, self._site, self._networks.values(), durable=durable)

    def _raise_links(self) -> None:
        # From the first moment, an address of ours that nobody has is refused, not sent uplink.
        for cidr in (self._subnet, *self._pod_ranges):
            routes.block(cidr)
        for network in tuple(self._networks.values()):
            try:
                if network.phase:
                    take_away(network)
                    del self._networks[network.name]
                    self.places.pools.discard(network)
                elif not network.config_only:
                    _block(network)
                    driver(network.driver).up(network)
            except (OSError, EngineError) as error:
                if not network.user_defined:
                    raise
                # Its containers will say so when they start.
                log.error("network %s: %s", network.name, error)

    async def _raise_walls(self) -> None:
        segments = [driver(n.driver).segment(n) for n in self._networks.values()]
        elsewhere = (*self._pod_ranges, *self._neighbours)
        await self._firewall.setup([s for s in segments if s], unmasqueraded=elsewhere)

    @property
    def pods_lead_with(self) -> int:
        """In which version of IP the primary address of pods is: that of the first range."""
        return 6 if any(":" in cidr for cidr in self._pod_ranges[:1]) else 4

    async def set_pod_ranges(self, cidrs: Sequence[str]) -> None:
        """Pods of this node get an address from each of ``cidrs``, by us or by plugins.

        Raises:
            Conflict: pods still have addresses of another range.
            EngineError: the plugins are not ready.
        """
        self._to_leave = None
        await self.plugins.judge()
        async with self._changing:
            kind = cni.DRIVER if self.plugins.wanted else "bridge"
            present = self._networks.get(POD_NETWORK)
            if present and present.ranges == list(cidrs) and present.driver == kind:
                return
            if present and self.places.pools.used(present):
                self._to_leave = present
                raise Conflict(
                    f"pods have addresses of {','.join(present.ranges)}, which must go before "
                    f"{','.join(cidrs)} comes"
                )
            network = bridge_network(POD_NETWORK, self._pod_bridge, *cidrs)
            if self._pod_mtu:
                network.options[MTU] = str(self._pod_mtu)
            if present:
                await asyncio.to_thread(driver(present.driver).down, present)
                self.places.pools.discard(present)
            if self.plugins.wanted:
                network.driver, network.link = kind, ""
            await asyncio.to_thread(driver(kind).up, network)
            self._networks[POD_NETWORK] = network
            self.places.pools.add(network, rotating=True)
            await self._raise_walls()
            self._save()

    async def pods_may_change(self) -> None:
        """Return when ``set_pod_ranges`` may find otherwise than before: who is in its way has
        left, or plugins have news."""
        ways = [self.plugins.changed()]
        if self._to_leave is not None:
            ways.append(self.places.pools.unused(self._to_leave))
        await run_until(asyncio.Event(), *ways)

    async def set_pod_mtu(self, mtu: int) -> None:
        """Packets of pods may have ``mtu`` bytes, also those of pods that run; 0 is the kernel's
        own choice.

        Raises:
            OSError: the kernel refuses it to the bridge.
        """
        async with self._changing:
            self._pod_mtu = mtu
            network = self._networks.get(POD_NETWORK)
            if network is None or network.driver == cni.DRIVER:
                return
            before = dict(network.options)
            network.options.pop(MTU, None)
            if mtu:
                network.options[MTU] = str(mtu)
            if network.options == before:
                return
            try:
                await asyncio.to_thread(driver(network.driver).up, network)
            except OSError:
                network.options = before  # as the bridge still is: whoever asks again is heard
                raise
            for container in tuple(self.places.members(network)) if mtu else ():
                await self.places.set_mtu(container, network, mtu)
            self._save()

    async def set_pod_neighbours(self, addresses: Sequence[str]) -> None:
        """Machines to which pods show their own addresses, as they know the way back.

        Raises:
            NftError: the kernel refuses.
        """
        self._neighbours = tuple(addresses)
        await self._raise_walls()

    async def close(self) -> None:
        """Let go; links and rules stay, as containers go on using them."""
        self.plugins.close()
        self._firewall.close()
        self._nft.close()

    # ---- which there are

    def all(self) -> list[Network]:
        """Every network, newest first."""
        whole = (network for network in self._networks.values() if not network.phase)
        return sorted(whole, key=lambda n: n.created_at, reverse=True)

    def find(self, reference: str) -> Network | None:
        """By id, name or unambiguous beginning of an id.

        Raises:
            BadParameter: several ids begin so.
        """
        matches = [n for n in self.all() if n.id.startswith(reference)]
        for network in matches:
            if network.id == reference:
                return network
        if (found := self._networks.get(reference)) and not found.phase:
            return found
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

    def members(self, network: Network) -> list[Container]:
        """The containers that are on it now."""
        return list(self.places.members(network))

    # ---- making and removing

    async def create(self, request: Mapping[str, Any]) -> Network:
        """Make the network that a decoded request (``creation.decode_request``) asks for.

        Raises:
            BadParameter, Forbidden, Conflict, NotFound: it cannot be made.
            EngineError: the kernel refuses.
        """
        async with self._changing:
            network = creation.draft(request, self._networks.get)
            if network.name in self._networks:
                raise Conflict(f"network with name {network.name} already exists")
            if network.config_only:
                self._networks[network.name] = network
                self._save()
            else:
                await self._make(network)
        self._tell(network, "create")
        return network

    async def _make(self, network: Network) -> None:
        kind = driver(network.driver)
        kind.judge(network, list(self._networks.values()))
        taken = await asyncio.to_thread(self._taken)
        given = network.ranges
        if any(pools.overlapping(c, [*taken, *given[:n]]) for n, c in enumerate(given)):
            raise _overlap()
        network.phase = CREATING
        self._networks[network.name] = network
        try:
            await asyncio.to_thread(self._settle, network, taken)
            await asyncio.to_thread(kind.up, network)
            if segment := kind.segment(network):
                await self._firewall.add(segment)
            network.phase = ""
            self._save()
        except BaseException as error:
            network.phase = REMOVING
            await self._take_away(network)
            if isinstance(error, OSError | NftError):
                raise EngineError(f"cannot create network {network.name}: {error}") from error
            raise
        self.places.pools.add(network)

    def _taken(self) -> list[str]:
        """The ranges that networks have, of this engine and of others."""
        own = [c for n in self._networks.values() if not n.config_only for c in n.ranges]
        return [*own, self._subnet, *self._pod_ranges, *routes.blocked()]

    def _settle(self, network: Network, taken: Sequence[str]) -> None:
        """Give it the ranges that it does not ask for, and take all of them; blocks.

        Raises:
            Forbidden: another engine has just taken a range.
            BadParameter: no range is left.
        """
        for subnet in network.subnets:
            subnet.gateway = subnet.gateway or _gateway(subnet)
        self._save(durable=False)
        for subnet in tuple(network.subnets):
            if not _claim(network, subnet.cidr):
                network.subnets.remove(subnet)  # it is not ours to give back
                raise _overlap()
        for version, wanted in ((4, network.ipv4), (6, network.ipv6)):
            if wanted and all(subnet.version != version for subnet in network.subnets):
                self._choose(network, version, taken)

    def _choose(self, network: Network, version: int, taken: Sequence[str]) -> None:
        occupied = [*taken, *routes.existing(), *network.ranges]
        for cidr in pools.candidates(self._site, version, occupied):
            subnet = Subnet(cidr, first_address(cidr), chosen=True)
            network.subnets.append(subnet)
            self._save(durable=False)
            if _claim(network, cidr):
                return
            network.subnets.remove(subnet)  # another engine was faster
        raise BadParameter("all predefined address pools have been fully subnetted")

    async def _take_away(self, network: Network) -> None:
        """Give back all that a network has, or may have, of the kernel; then forget it."""
        if segment := driver(network.driver).segment(network):
            await self._firewall.remove(segment)
        await asyncio.to_thread(take_away, network)
        self._networks.pop(network.name, None)
        self.places.pools.discard(network)
        self._save()

    async def remove(self, reference: str) -> None:
        """Remove a network on which no container is.

        Raises:
            NotFound: there is none.
            Forbidden: it is one of those that are always there, or is used.
        """
        async with self._changing:
            network = self.get(reference)
            if not network.user_defined:
                raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
            self._check_unused(network)
            network.phase = REMOVING
            self._save(durable=False)
            try:
                await self._take_away(network)
            except (OSError, NftError) as error:
                raise EngineError(f"error while removing network: {error}") from error
        self._tell(network, "destroy")

    def _check_unused(self, network: Network) -> None:
        prefix = "error while removing network: "
        users = [n for n in self._networks.values() if n.config_from == network.name]
        if network.config_only and users:
            raise Forbidden(f'{prefix}configuration network "{network.name}" is in use')
        active = [
            f'name:"{container.name}" id:"{container.endpoints[network.name].endpoint_id[:12]}"'
            for container in self.places.members(network)
        ]
        if active:
            raise Forbidden(
                f"{prefix}network {network.name} has active endpoints ({', '.join(active)})"
            )

    async def prune(self, unwanted: Callable[[Network], bool]) -> list[str]:
        """Remove the networks of users that are not used and are ``unwanted``; their names."""
        removed = []
        for network in self.all():
            if not network.user_defined or not unwanted(network) or self.members(network):
                continue
            try:
                await self.remove(network.id)
            except (NotFound, Forbidden):
                continue  # someone has just removed it, or begun to use it
            except EngineError as error:
                log.warning("not pruned: network %s: %s", network.name, error.message)
                continue
            removed.append(network.name)
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return removed

    def _tell(
        self, network: Network, action: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        named = {**(attributes or {}), "name": network.name, "type": network.driver}
        self._events.publish("network", action, network.id, named)

    def _tell_of(self, network: Network, action: str, container: Container) -> None:
        self._tell(network, action, {"container": container.id})

    # ---- places of containers

    def namespace(self, container_id: str) -> Path:
        """Where the network namespace made for a container is found."""
        return self.places.namespace(container_id)

    def all_namespaces(self) -> list[Path]:
        """Every namespace that was made for a container and not given back."""
        return list(self.places.root.iterdir())

    def remove_namespace(self, path: Path) -> None:
        """Remove one that belongs to no container; its links go with it. Blocks."""
        namespaces.delete(path)

    def host_gateways(self) -> list[str]:
        """The addresses at which every container reaches the host: those of the default bridge."""
        return [subnet.gateway for subnet in self._networks[DEFAULT].subnets if subnet.gateway]

    async def connect(self, container: Container, save: Callable[[], None]) -> None:
        """See ``Places.connect``."""
        await self.places.connect(container, save)

    async def disconnect(self, container: Container) -> None:
        """See ``Places.disconnect``."""
        await self.places.disconnect(container)

    async def reclaim(self, container: Container, save: Callable[[], None]) -> None:
        """See ``Places.reclaim``."""
        await self.places.reclaim(container, save)

    async def attach(
        self, container: Container, network: Network, endpoint: Endpoint, save: Callable[[], None]
    ) -> None:
        """See ``Places.attach``."""
        await self.places.attach(container, network, endpoint, save)

    async def detach(
        self, container: Container, network: Network, save: Callable[[], None]
    ) -> None:
        """See ``Places.detach``."""
        await self.places.detach(container, network, save)


def _overlap() -> Forbidden:
    return Forbidden("invalid pool request: Pool overlaps with other one on this address space")


def _gateway(subnet: Subnet) -> str:
    """The first address of a range, or of the part that is given out, that nobody has."""
    part = ipaddress.ip_network(subnet.ip_range or subnet.cidr)
    for address in part:
        if subnet.ip_range or address != part.network_address:
            text = str(address)
            if text not in subnet.auxiliary.values():
                return text
    return first_address(subnet.cidr)


def _block(network: Network) -> None:
    if network.driver == "bridge" and network.user_defined:
        for cidr in network.ranges:
            routes.block(cidr)


def _claim(network: Network, cidr: str) -> bool:
    """Take a range; False where another engine has it, or a part of it. That of a shared wire is
    not ours.

    Of two engines that take ranges of different sizes at the same moment, none may have seen the
    other when it chose; but one of them at least sees the other after it has taken its own.
    """
    if network.driver != "bridge":
        return True
    if not routes.claim(cidr):
        return False
    if pools.overlapping(cidr, [other for other in routes.blocked() if other != cidr]):
        routes.unblock(cidr)
        return False
    return True


def take_away(network: Network) -> None:
    """Remove a network's link and routes from the kernel; may be repeated. Blocks."""
    if network.config_only:
        return
    driver(network.driver).down(network)
    if network.driver == "bridge":
        for cidr in network.ranges:
            routes.unblock(cidr)
