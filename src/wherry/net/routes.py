"""Routes that keep our ranges at home, and what routes the machine has.

An address of ours that nobody has must be refused at once, not sent to the uplink in the hope that
somebody out there knows it. An unreachable route with the highest metric stands behind every other
route to its range and does that.
"""

from __future__ import annotations

import errno
import ipaddress

from wherry.net import netlink
from wherry.net.netlink import Connection, attribute

_LAST_METRIC = 0xFFFFFFFF


def _unreachable(cidr: str) -> bytes:
    network = ipaddress.IPv4Network(cidr)
    return netlink.route(
        attribute(netlink.RTA_DST, network.network_address.packed),
        attribute(netlink.RTA_PRIORITY, _LAST_METRIC),
        prefix_length=network.prefixlen,
        kind=netlink.RTN_UNREACHABLE,
    )


def block(cidr: str) -> None:
    """Refuse what no other route takes of range ``cidr``; may be repeated.

    Raises:
        ValueError: it is no range of IPv4.
        OSError: the kernel refuses.
    """
    with Connection() as connection:
        flags = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
        connection.change(netlink.RTM_NEWROUTE, _unreachable(cidr), flags)


def unblock(cidr: str) -> None:
    """Undo ``block``; nothing where it was not done.

    Raises:
        ValueError: it is no range of IPv4.
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

    Neither the default route, nor those of ``block``, nor the machine's own addresses.
    """
    found: dict[str, None] = {}
    with Connection() as connection:
        for body in connection.ask(netlink.RTM_GETROUTE, netlink.route(), netlink.NLM_F_DUMP):
            prefix_length, table, kind, values = netlink.read_route(body)
            destination = values.get(netlink.RTA_DST)
            if destination is None or table != netlink.RT_TABLE_MAIN:
                continue
            if kind == netlink.RTN_UNREACHABLE:
                continue
            found[f"{ipaddress.IPv4Address(destination)}/{prefix_length}"] = None
    return list(found)
