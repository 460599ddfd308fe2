"""Routes that keep our ranges at home, and what routes the machine has.

An address of ours that nobody has must be refused at once, not sent to the uplink in the hope that
somebody out there knows it. An unreachable route with the highest metric stands behind every other
route to its range and does that. It is also how an engine says which ranges are its own: there is
one such route to a range at most, so two engines that choose at the same moment choose differently.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import sys

from wherry.net import netlink
from wherry.net.netlink import Connection, attribute

_LAST_METRIC = 0xFFFFFFFF


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
    return list(dict.fromkeys(c for c, kind in _read() if kind != netlink.RTN_UNREACHABLE))


def blocked() -> list[str]:
    """The ranges of ``block``, whosoever made them: those of every engine on this machine."""
    return [cidr for cidr, kind in _read() if kind == netlink.RTN_UNREACHABLE]


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


_SPARED = tuple(map(ipaddress.ip_network, ("fe80::/10", "ff00::/8")))


def _read() -> list[tuple[str, int]]:
    """Every route of the main table but the default ones: its range and its kind."""
    found = []
    with Connection() as connection:
        for version in (4, 6):
            everything = netlink.route(family=_family(version))
            for body in connection.ask(netlink.RTM_GETROUTE, everything, netlink.NLM_F_DUMP):
                prefix_length, table, kind, values = netlink.read_route(body)
                destination = values.get(netlink.RTA_DST)
                if destination is None or table != netlink.RT_TABLE_MAIN or not prefix_length:
                    continue
                if not any(ipaddress.ip_address(destination) in spared for spared in _SPARED):
                    network = ipaddress.ip_network((destination, prefix_length))
                    found.append((str(network), kind))
    return found
