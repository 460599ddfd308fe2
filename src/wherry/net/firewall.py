"""What passes between containers, this machine and the outside: one nftables table of our own.

The rules never change while containers come and go; published ports are elements of two maps.
Whatever others have in their tables is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.net import conntrack, links
from wherry.net.nft import Nftables, NftError

log = logging.getLogger(__name__)

_ANY = "0.0.0.0"
_PUBLISHED, _PUBLISHED_AT = "published", "published-at"
# A map and a key in it, as nft writes them.
Element = tuple[str, str]


class PortTaken(Exception):
    """The host's port is in use; the text is Docker's."""


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A port of the host that leads to a port of a container.

    ``host_ip`` is the address of the host that has it, ``0.0.0.0`` or empty for all of them.
    """

    protocol: str  # tcp, udp, sctp
    host_ip: str
    host_port: int
    container_ip: str
    container_port: int

    @property
    def on_all_addresses(self) -> bool:
        """Whether it is on every address of the host."""
        return self.host_ip in ("", _ANY)

    @property
    def element(self) -> Element:
        """Where the rules look it up."""
        key = f"{self.protocol} . {self.host_port}"
        if self.on_all_addresses:
            return _PUBLISHED, key
        return _PUBLISHED_AT, f"{self.host_ip} . {key}"

    @property
    def target(self) -> str:
        """What they find there."""
        return f"{self.container_ip} . {self.container_port}"

    def __str__(self) -> str:
        return (
            f"{self.host_ip or _ANY}:{self.host_port}:"
            f"{self.container_ip}:{self.container_port}/{self.protocol}"
        )


class Firewall:
    """The rules of one engine, in table ``table`` of family ip.

    A published port is reachable from outside, from this machine by any of its addresses, 127.0.0.1
    among them, and from containers by the addresses of this machine. Each is also bound by a socket
    of this process, so that other programs find it taken, and theirs is found.
    """

    def __init__(self, nft: Nftables, table: str) -> None:
        self._nft = nft
        self._table = table
        self._reserved: dict[PortBinding, socket.socket | None] = {}
        # What the maps in the kernel say; None until they have been read.
        self._elements: dict[Element, str] | None = None

    async def setup(
        self, networks: Mapping[str, str], *, unmasqueraded: Sequence[str] = ()
    ) -> None:
        """Put up the rules for ``networks``: bridges and the ranges behind them.

        What leaves a range for elsewhere gets an address of this machine, except on its way to
        another of the ranges or to ``unmasqueraded`` ones. Different bridges do not see each other.
        Published ports stay, also those of an earlier daemon: ``unpublish`` closes them.

        Raises:
            NftError: the kernel refuses.
        """
        listed = await self._nft.run_json([{"list": {"chains": {"family": "ip"}}}])
        for chain in dropping(listed):
            log.warning(
                "the rules of others drop what is forwarded unless they allow it (%s): containers "
                "may not reach the outside, nor be reached from there, before that allows %s",
                chain,
                ", ".join(networks),
            )
        await self._nft.run(
            table_script(
                self._table,
                networks,
                await self._known(),
                unmasqueraded=unmasqueraded,
                bridge_netfilter=links.bridge_netfilter(),
            )
        )

    async def _known(self) -> dict[Element, str]:
        """What is published, read from the kernel the first time."""
        if self._elements is None:
            try:
                listed = await self._nft.run_json(
                    [{"list": {"table": {"family": "ip", "name": self._table}}}]
                )
            except NftError as error:
                if "No such file or directory" not in str(error):
                    raise
                listed = {"nftables": []}
            self._elements = read_elements(listed)
        return self._elements

    async def publish(self, binding: PortBinding) -> None:
        """Open a port; one that is open already stays so. ``setup`` must have been called.

        Raises:
            PortTaken: another container, or another program, has it.
            NftError: the kernel refuses.
        """
        if binding in self._reserved:
            return
        self._refuse_conflicts(binding)
        elements = await self._known()
        self._reserved[binding] = reserve(binding)
        try:
            if script := opening(self._table, elements, binding):
                await self._nft.run(script)
        except BaseException:
            self._release(binding)
            raise
        elements[binding.element] = binding.target

    def _refuse_conflicts(self, binding: PortBinding) -> None:
        for other in self._reserved:
            same = (other.protocol, other.host_port) == (binding.protocol, binding.host_port)
            everywhere = other.on_all_addresses or binding.on_all_addresses
            if same and (everywhere or other.host_ip == binding.host_ip):
                where = f"{binding.host_ip or _ANY}:{binding.host_port}"
                raise PortTaken(f"Bind for {where} failed: port is already allocated")

    async def unpublish(self, binding: PortBinding) -> None:
        """Close a port; nothing where it is not open.

        Raises:
            NftError: the kernel refuses.
        """
        elements = await self._known()
        if script := closing(self._table, elements, binding):
            await self._nft.run(script)
            del elements[binding.element]
            if binding.protocol == "udp":
                await asyncio.to_thread(_forget, binding)
        self._release(binding)

    def _release(self, binding: PortBinding) -> None:
        if held := self._reserved.pop(binding, None):
            held.close()

    async def teardown(self) -> None:
        """Take the whole table away and give all ports back.

        Raises:
            NftError: the kernel refuses.
        """
        await self._nft.run(f"add table ip {self._table}\ndelete table ip {self._table}")
        self._elements = {}
        self.close()

    def close(self) -> None:
        """Give the ports back to other programs; the rules stay for the containers that stay."""
        for binding in tuple(self._reserved):
            self._release(binding)


def _forget(binding: PortBinding) -> None:
    """Datagrams of a client follow the translation its first one got; end that."""
    conntrack.forget(
        "udp",
        lambda flow: (
            flow.destination_port == binding.host_port
            and flow.answered_from == (binding.container_ip, binding.container_port)
        ),
    )


def dropping(listed: Mapping[str, Any]) -> list[str]:
    """The chains in libnftables' listing that drop what is forwarded by default."""
    chains = (entry["chain"] for entry in listed["nftables"] if "chain" in entry)
    return [
        f"table {chain['table']}, chain {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop"
    ]


def opening(table: str, elements: Mapping[Element, str], binding: PortBinding) -> str:
    """The script that publishes ``binding`` where the maps say ``elements``; empty if they do."""
    (name, key), target = binding.element, binding.target
    if elements.get(binding.element) == target:
        return ""
    script = [f"add element ip {table} {name} {{ {key} : {target} }}"]
    if binding.element in elements:
        script.insert(0, f"delete element ip {table} {name} {{ {key} }}")
    script.append(f"add element ip {table} hairpin {{ {_to_itself(target)} }}")
    return "\n".join(script)


def closing(table: str, elements: Mapping[Element, str], binding: PortBinding) -> str:
    """The script that takes ``binding`` back; empty where the maps lead elsewhere already."""
    (name, key), target = binding.element, binding.target
    if elements.get(binding.element) != target:
        return ""
    script = [f"delete element ip {table} {name} {{ {key} }}"]
    others = (value for element, value in elements.items() if element != binding.element)
    if all(_to_itself(other) != _to_itself(target) for other in others):
        script.append(f"delete element ip {table} hairpin {{ {_to_itself(target)} }}")
    return "\n".join(script)


def _to_itself(target: str) -> str:
    """The pair of source and destination of a container that has come back to itself."""
    address = target.split(" . ", 1)[0]
    return f"{address} . {address}"


def read_elements(listed: Mapping[str, Any]) -> dict[Element, str]:
    """What is published, from libnftables' listing of the table."""
    found: dict[Element, str] = {}
    for entry in listed["nftables"]:
        described = entry.get("map")
        if not described or described["name"] not in (_PUBLISHED, _PUBLISHED_AT):
            continue
        for key, target in described.get("elem", ()):
            element, value = (" . ".join(map(str, side["concat"])) for side in (key, target))
            found[described["name"], element] = value
    return found


def table_script(
    table: str,
    networks: Mapping[str, str],
    elements: Mapping[Element, str],
    *,
    unmasqueraded: Sequence[str],
    bridge_netfilter: bool,
) -> str:
    """The whole table, replacing the present one in the same transaction."""

    def filled(words: Iterable[str]) -> str:
        text = ", ".join(dict.fromkeys(words))
        return f"elements = {{ {text} }};" if text else ""

    published = (f"{k} : {v}" for (name, k), v in elements.items() if name == _PUBLISHED)
    published_at = (f"{k} : {v}" for (name, k), v in elements.items() if name == _PUBLISHED_AT)
    bridges = [f'"{name}"' for name in networks]
    ranges = [str(ipaddress.IPv4Network(cidr)) for cidr in networks.values()]
    elsewhere = [str(ipaddress.IPv4Network(cidr)) for cidr in unmasqueraded]
    # Where bridged answers do not pass these rules, they would come from the wrong address: have
    # them go by way of this machine.
    masked = [
        f'oifname "{name}" ip saddr {cidr} ct status dnat masquerade'
        for name, cidr in networks.items()
        if not bridge_netfilter
    ]
    apart = [f"iifname {name} oifname @bridges oifname != {name} drop" for name in bridges]
    transport = "meta l4proto { tcp, udp, sctp }"
    newline = "\n    "
    return f"""\
add table ip {table}
delete table ip {table}
table ip {table} {{
  map {_PUBLISHED} {{
    type inet_proto . inet_service : ipv4_addr . inet_service; {filled(published)}
  }}
  map {_PUBLISHED_AT} {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; {filled(published_at)}
  }}
  set hairpin {{
    type ipv4_addr . ipv4_addr; {filled(map(_to_itself, elements.values()))}
  }}
  set bridges {{
    type ifname; {filled(bridges)}
  }}
  set inside {{
    type ipv4_addr; flags interval; auto-merge; {filled(ranges)}
  }}
  set unmasked {{
    type ipv4_addr; flags interval; auto-merge; {filled([*ranges, *elsewhere])}
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain publish {{
    {transport} dnat ip to ip daddr . meta l4proto . th dport map @{_PUBLISHED_AT}
    {transport} dnat ip to meta l4proto . th dport map @{_PUBLISHED}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr . ip daddr @hairpin masquerade
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    {newline.join(masked)}
    ip saddr @inside ip daddr != @unmasked masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    ct status dnat accept
    {newline.join(apart)}
  }}
}}
"""


def reserve(binding: PortBinding) -> socket.socket | None:
    """Bind the host's port as a server would; None for a protocol that cannot be bound so.

    Raises:
        PortTaken: another program has it.
    """
    kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
    kind = kinds.get(binding.protocol)
    if kind is None:
        return None
    with contextlib.ExitStack() as stack:
        bound = stack.enter_context(socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC))
        if kind == socket.SOCK_STREAM:
            # Connections of a former owner that linger do not count; those that listen do.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((binding.host_ip or _ANY, binding.host_port))
            if kind == socket.SOCK_STREAM:
                bound.listen(1)
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
