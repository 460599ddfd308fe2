"""Routes that keep our ranges at home, and what routes the machine has.

An address of ours that nobody has must be refused at once, not sent to the uplink in the hope that
somebody out there knows it. An unreachable route with the highest metric stands behind every other
route to its range and does that. It is also how an engine says which ranges are its own: there is
one such route to a range at most, so two engines that choose at the same moment choose differently.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import ipaddress
import socket
import sys
from dataclasses import dataclass

from wherry.net import netlink
from wherry.net.netlink import Connection, attribute

_LAST_METRIC = 0xFFFFFFFF
_LOOPBACK = 1  # the interface that the kernel numbers first in every network namespace


def _unreachable(cidr: str) -> bytes:
    network = ipaddress.ip_network(cidr)
    return netlink.route(
        attribute(netlink.RTA_DST, network.network_address.packed),
        attribute(netlink.RTA_PRIORITY, _LAST_METRIC),
        prefix_length=network.prefixlen,
        kind=netlink.RTN_UNREACHABLE,
        family=_family(network.version),
    )


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def claim(cidr: str) -> bool:
    """As ``block``, unless the range is blocked already; whether it was free.

    Raises:
        ValueError: it is no range.
        OSError: the kernel refuses.
    """
    with Connection() as connection:
        try:
            flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
            connection.change(netlink.RTM_NEWROUTE, _unreachable(cidr), flags)
        except FileExistsError:
            return False
    return True


def block(cidr: str) -> None:
    """Refuse what no other route takes of range ``cidr``; may be repeated.

    Raises:
        ValueError: it is no range.
        OSError: the kernel refuses.
    """
    claim(cidr)


def unblock(cidr: str) -> None:
    """Undo ``block``; nothing where it was not done.

    Raises:
        ValueError: it is no range.
        OSError: the kernel refuses.
    """
    with Connection() as connection:
        try:
            connection.change(netlink.RTM_DELROUTE, _unreachable(cidr))
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise


def existing() -> list[str]:
    """The networks that this machine has routes to, such as ``192.0.2.0/24``.

    Neither the default routes, nor those of ``block``, nor the machine's own addresses, nor
    link-local and multicast ones.
    """
    return list(dict.fromkeys(c for c, kind, _ in _read() if kind != netlink.RTN_UNREACHABLE))


def blocked() -> list[str]:
    """The ranges of ``block``, whosoever made them: those of every engine on this machine."""
    return [cidr for cidr, kind, _ in _read() if kind == netlink.RTN_UNREACHABLE]


def occupied() -> list[str]:
    """What is reached by this machine's links, and its own addresses as ranges of one address: all
    of ``existing`` but what leads to the loopback interface, as those to Services do.

    Raises:
        OSError: the kernel refuses to tell.
    """
    behind = (c for c, kind, link in _read() if kind == netlink.RTN_UNICAST and link != _LOOPBACK)
    own = (c for c, kind, _ in _read(netlink.RT_TABLE_LOCAL) if kind == netlink.RTN_LOCAL)
    return list(dict.fromkeys((*behind, *own)))


def link_to(address: str) -> str:
    """The link by which packets for ``address`` leave, ``lo`` for this machine's own; empty where
    there is no way.

    Raises:
        ValueError: it is no address.
    """
    wanted = ipaddress.ip_address(address)
    body = netlink.route(
        attribute(netlink.RTA_DST, wanted.packed),
        prefix_length=wanted.max_prefixlen,
        family=_family(wanted.version),
    )
    with Connection() as connection:
        try:
            (answer, *_) = connection.ask(netlink.RTM_GETROUTE, body)
        except OSError:
            return ""
    *_, values = netlink.read_route(answer)
    if netlink.RTA_OIF not in values:
        return ""
    with contextlib.suppress(OSError):
        return socket.if_indextoname(int.from_bytes(values[netlink.RTA_OIF], sys.byteorder))
    return ""


# ---- routes to the ranges of others

OURS = 0x57  # who made them, as the kernel notes it (rtm_protocol)


class Reach(enum.Enum):
    """How this machine comes to an address."""

    HERE = "here"  # it is one of its own
    LINK = "link"  # without anybody in between
    ROUTER = "router"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Route:
    """Range ``cidr`` is behind ``gateway``; on ``interface``, where the gateway is no neighbour by
    its address."""

    cidr: str
    gateway: str
    interface: str = ""


def reach(address: str) -> Reach:
    """How this machine would send to ``address`` now.

    Raises:
        ValueError: it is none.
        OSError: the kernel refuses to tell.
    """
    ip = ipaddress.ip_address(address)
    asked = netlink.route(
        attribute(netlink.RTA_DST, ip.packed),
        prefix_length=ip.max_prefixlen,
        family=_family(ip.version),
        table=netlink.RT_TABLE_UNSPEC,
        protocol=0,
        kind=0,
    )
    with Connection() as connection:
        try:
            (body,) = connection.ask(netlink.RTM_GETROUTE, asked)
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return Reach.NOWHERE
            raise
    _, _, kind, values = netlink.read_route(body)
    if kind == netlink.RTN_LOCAL:
        return Reach.HERE
    if kind != netlink.RTN_UNICAST:
        return Reach.NOWHERE
    return Reach.ROUTER if netlink.RTA_GATEWAY in values else Reach.LINK


def lead(route: Route) -> None:
    """Send range ``route.cidr`` that way, whichever way it went before.

    Raises:
        OSError: the kernel refuses (ENETUNREACH: the gateway is on no link).
    """
    with Connection() as connection:
        flags = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
        connection.change(netlink.RTM_NEWROUTE, _leading(route), flags)


def forget(cidr: str) -> None:
    """Undo ``lead``; nothing where it was not done.

    Raises:
        OSError: the kernel refuses.
    """
    network = ipaddress.ip_network(cidr)
    body = netlink.route(
        attribute(netlink.RTA_DST, network.network_address.packed),
        prefix_length=network.prefixlen,
        family=_family(network.version),
        protocol=OURS,
        scope=255,
    )
    with Connection() as connection:
        try:
            connection.change(netlink.RTM_DELROUTE, body)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise


def led(within: str) -> set[Route]:
    """The routes of ``lead`` to ranges in ``within``, whoever made them.

    Raises:
        OSError: the kernel refuses to tell.
    """
    whole = ipaddress.ip_network(within)
    found = set()
    with Connection() as connection:
        everything = netlink.route(family=_family(whole.version))
        for body in connection.ask(netlink.RTM_GETROUTE, everything, netlink.NLM_F_DUMP):
            prefix_length, table, _, values = netlink.read_route(body)
            if table != netlink.RT_TABLE_MAIN or netlink.route_protocol(body) != OURS:
                continue
            if netlink.RTA_DST not in values or netlink.RTA_GATEWAY not in values:
                continue
            network = ipaddress.ip_network((values[netlink.RTA_DST], prefix_length))
            if network.version != whole.version or not network.subnet_of(whole):  # type: ignore[arg-type]
                continue
            gateway = str(ipaddress.ip_address(values[netlink.RTA_GATEWAY]))
            name = socket.if_indextoname(int.from_bytes(values[netlink.RTA_OIF], sys.byteorder))
            found.add(Route(str(network), gateway, name))
    return found


def _leading(route: Route) -> bytes:
    network = ipaddress.ip_network(route.cidr)
    parts = [
        attribute(netlink.RTA_DST, network.network_address.packed),
        attribute(netlink.RTA_GATEWAY, ipaddress.ip_address(route.gateway).packed),
    ]
    if route.interface:
        parts.append(attribute(netlink.RTA_OIF, socket.if_nametoindex(route.interface)))
    return netlink.route(
        *parts,
        prefix_length=network.prefixlen,
        family=_family(network.version),
        protocol=OURS,
        flags=netlink.RTNH_F_ONLINK if route.interface else 0,
    )


_SPARED = tuple(map(ipaddress.ip_network, ("fe80::/10", "ff00::/8")))


def _read(wanted: int = netlink.RT_TABLE_MAIN) -> list[tuple[str, int, int]]:
    """Every route of a table but the default ones: its range, its kind and the link it leads to."""
    found = []
    with Connection() as connection:
        for version in (4, 6):
            everything = netlink.route(family=_family(version))
            for body in connection.ask(netlink.RTM_GETROUTE, everything, netlink.NLM_F_DUMP):
                prefix_length, table, kind, values = netlink.read_route(body)
                destination = values.get(netlink.RTA_DST)
                if destination is None or table != wanted or not prefix_length:
                    continue
                if not any(ipaddress.ip_address(destination) in spared for spared in _SPARED):
                    network = ipaddress.ip_network((destination, prefix_length))
                    link = int.from_bytes(values.get(netlink.RTA_OIF, b""), sys.byteorder)
                    found.append((str(network), kind, link))
    return found
