"""What passes between containers, this machine and the outside: nftables tables of our own.

What is in them is text of ``rules``; here it is applied, and ports are kept from other programs.
Whatever others have in their tables is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from wherry.net.conntrack import flows
from wherry.net.firewall import rules
from wherry.net.firewall.rules import FAMILIES, Element, PortBinding, Segment
from wherry.net.link import links
from wherry.net.nftables.nft import Nftables, NftError
from wherry.net.relay import Relay

log = logging.getLogger(__name__)


# Connections to a relayed port that this process has not taken yet.
_BACKLOG = 128


class PortTaken(Exception):
    """The host's port is in use; the text is Docker's."""


class Firewall:
    """The rules of one engine, in the tables called ``table``.

    A published port is reachable from outside, from this machine by any of its addresses, 127.0.0.1
    among them, and from containers by the addresses of this machine. Each is also bound by a socket
    of this process, so that other programs find it taken, and theirs is found.
    """

    def __init__(self, nft: Nftables, table: str) -> None:
        self._nft = nft
        self._table = table
        self._reserved: dict[PortBinding, socket.socket | None] = {}
        self._relays: dict[PortBinding, Relay] = {}
        # What the maps in the kernel say; None until they have been read.
        self._elements: dict[Element, str] | None = None

    async def setup(
        self, segments: Sequence[Segment], *, unmasqueraded: Sequence[str] = ()
    ) -> None:
        """Put up the rules for ``segments``.

        What leaves a range for elsewhere gets an address of this machine, except on its way to
        another of the ranges or to ``unmasqueraded`` ones. Different bridges do not see each other.
        Published ports stay, also those of an earlier daemon: ``unpublish`` closes them.

        Raises:
            NftError: the kernel refuses.
        """
        for chain in await self._dropping():
            log.warning(
                "the rules of others drop what is forwarded unless they allow it (%s): containers "
                "may not reach the outside, nor be reached from there, before that allows %s",
                chain,
                ", ".join(segment.bridge for segment in segments),
            )
        await self._nft.run(
            rules.tables_script(
                self._table,
                segments,
                await self._known(),
                unmasqueraded=unmasqueraded,
                bridge_netfilter=links.bridge_netfilter(),
            )
        )

    async def _dropping(self) -> list[str]:
        found: list[str] = []
        for family in FAMILIES:
            found += dropping(await self._nft.run_json([{"list": {"chains": {"family": family}}}]))
        return list(dict.fromkeys(found))

    async def add(self, segment: Segment) -> None:
        """Put up the rules for one more; may be repeated. ``setup`` must have been called.

        Raises:
            NftError: the kernel refuses.
        """
        await self._nft.run(rules.adding(self._table, segment.elements()))

    async def remove(self, segment: Segment) -> None:
        """Undo ``add``; may be repeated.

        Raises:
            NftError: the kernel refuses.
        """
        await self._nft.run(rules.removing(self._table, segment.elements()))

    async def _known(self) -> dict[Element, str]:
        """What is published, read from the kernel the first time."""
        if self._elements is None:
            self._elements = {}
            for family in FAMILIES:
                try:
                    self._elements |= rules.read_elements(
                        await self._nft.run_json(
                            [{"list": {"table": {"family": family, "name": self._table}}}]
                        )
                    )
                except NftError as error:
                    if "No such file or directory" not in str(error):
                        raise
        return self._elements

    async def publish(self, bindings: Iterable[PortBinding]) -> None:
        """Open ports, all or none; those that are open stay so. ``setup`` must have been called.

        Raises:
            PortTaken: another container, or another program, has one of them.
            NftError: the kernel refuses.
        """
        listed = list(bindings)
        new = self.reserve(listed)
        try:
            await self.open(listed)
        except BaseException:
            self.release(new)
            raise

    def reserve(self, bindings: Iterable[PortBinding]) -> list[PortBinding]:
        """Keep ports from others, all or none, without opening them; returns the new ones.

        Raises:
            PortTaken: another container, or another program, has one of them.
        """
        held: list[PortBinding] = []
        try:
            for binding in bindings:
                if binding not in self._reserved:
                    self._refuse_conflicts(binding)
                    self._reserved[binding] = None if binding.routed else reserve(binding)
                    held.append(binding)
        except BaseException:
            self.release(held)
            raise
        return held

    def release(self, bindings: Iterable[PortBinding]) -> None:
        """Give ports that are not open to others again."""
        for binding in bindings:
            if relay := self._relays.pop(binding, None):
                relay.close()
            if held := self._reserved.pop(binding, None):
                held.close()

    async def open(self, bindings: Iterable[PortBinding]) -> None:
        """Open ports that are reserved.

        Raises:
            NftError: the kernel refuses; none is open.
        """
        elements = await self._known()
        listed, opened = list(bindings), dict(elements)
        script: list[str] = []
        for binding in listed:
            script.append(rules.opening(self._table, opened, binding))
            if binding.translated:
                opened[binding.element] = binding.target
        for binding in listed:
            held = self._reserved.get(binding)
            if binding.relayed and held is not None and binding not in self._relays:
                target = ((binding.container_ip, binding.container_port),)
                relay = Relay(held, lambda _client, target=target: target)  # type: ignore[misc]
                await relay.open()
                self._relays[binding] = relay
        if text := "\n".join(filter(None, script)):
            await self._nft.run(text)
        elements |= opened

    def _refuse_conflicts(self, binding: PortBinding) -> None:
        mine = (binding.family, binding.protocol, binding.host_port)
        for other in self._reserved:
            if binding.routed or other.routed:
                continue
            same = (other.family, other.protocol, other.host_port) == mine
            everywhere = other.on_all_addresses or binding.on_all_addresses
            if same and (everywhere or other.host_ip == binding.host_ip):
                where = f"{binding.host_ip or binding.any_address}:{binding.host_port}"
                raise PortTaken(f"Bind for {where} failed: port is already allocated")

    async def unpublish(self, bindings: Iterable[PortBinding]) -> None:
        """Close ports; nothing where they are not open.

        Raises:
            NftError: the kernel refuses.
        """
        elements = await self._known()
        listed, closed = list(bindings), dict(elements)
        script: list[str] = []
        for binding in listed:
            if text := rules.closing(self._table, closed, binding):
                script.append(text)
                del closed[binding.element]
        if script:
            await self._nft.run("\n".join(script))
        gone = {b for b in listed if b.element in elements and b.element not in closed}
        for binding in gone:
            elements.pop(binding.element, None)
        if any(binding.protocol == "udp" and not binding.routed for binding in gone):
            await asyncio.to_thread(_forget, gone)
        self.release(listed)

    async def teardown(self) -> None:
        """Take the tables away and give all ports back.

        Raises:
            NftError: the kernel refuses.
        """
        for family in FAMILIES:
            name = f"table {family} {self._table}"
            await self._nft.run(f"add {name}\ndelete {name}")
        self._elements = {}
        self.close()

    def close(self) -> None:
        """Give the ports back to other programs; the rules stay for the containers that stay."""
        self.release(tuple(self._reserved))


def _forget(bindings: Collection[PortBinding]) -> None:
    """Datagrams of a client follow the translation its first one got; end that."""
    for version, family in ((4, "ip"), (6, "ip6")):
        ended = {
            (b.host_port, (b.container_ip, b.container_port))
            for b in bindings
            if b.protocol == "udp" and b.family == family
        }
        if ended:
            flows.forget("udp", functools.partial(_led_there, ended), version=version)


def _led_there(ended: Collection[tuple[int, tuple[str, int]]], flow: flows.Flow) -> bool:
    return (flow.destination_port, flow.answered_from) in ended


def dropping(listed: Mapping[str, Any]) -> list[str]:
    """The chains in libnftables' listing that drop what is forwarded by default."""
    chains = (entry["chain"] for entry in listed["nftables"] if "chain" in entry)
    return [
        f"table {chain['table']}, chain {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop"
    ]


def reserve(binding: PortBinding) -> socket.socket | None:
    """Bind the host's port as a server would; None for a protocol that cannot be bound so.

    Raises:
        PortTaken: another program has it.
    """
    kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
    kind = kinds.get(binding.protocol)
    if kind is None:
        return None
    family = socket.AF_INET6 if binding.family == "ip6" else socket.AF_INET
    with contextlib.ExitStack() as stack:
        bound = stack.enter_context(socket.socket(family, kind | socket.SOCK_CLOEXEC))
        if kind == socket.SOCK_STREAM:
            # Connections of a former owner that linger do not count; those that listen do.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            bound.bind((binding.host_ip or binding.any_address, binding.host_port))
            if kind == socket.SOCK_STREAM:
                bound.listen(_BACKLOG if binding.relayed else 1)
        except OSError as error:
            reasons = {
                errno.EADDRINUSE: "address already in use",
                errno.EADDRNOTAVAIL: "cannot assign requested address",
                errno.EACCES: "permission denied",
            }
            reason = reasons.get(error.errno or 0, str(error))
            raise PortTaken(f"failed to bind host port for {binding}: {reason}") from error
        stack.pop_all()
    return bound
