"""The way of this machine's own connections to service addresses.

They need a route to the range before they meet the rules at all: it leads to the loopback
interface, with a source address that pods can answer. Nothing ever travels it, for the packet is
either translated and routed anew, or refused. Before it comes, and behind it, stands an unreachable
route (``net.link.routes``), so that no packet for a service leaves by the uplink.

A connection from 127.0.0.1 to a node port, on the other hand, leaves with that address until it is
masqueraded: the link it leaves by must let it.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from pathlib import Path

from wherry.net import netlink
from wherry.net.netlink import Connection, attribute

_METRIC = 1024
_RTA_PREFSRC = 7
_LOOPBACK = 1  # the interface that the kernel numbers first in every network namespace
_SETTINGS = Path("/proc/sys/net/ipv4/conf")


def add(service_cidr: str, source: str = "") -> None:
    """Let this machine's own connections to the range come as far as the rules (blocking).

    ``source`` is one of the machine's addresses, the one that endpoints will see and answer; the
    kernel chooses where it is empty.

    Raises:
        OSError: the kernel refuses (EINVAL: ``source`` is no address of this machine).
    """
    with Connection() as connection:
        body = _route(service_cidr, source)
        connection.change(netlink.RTM_NEWROUTE, body, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE)


def remove(service_cidr: str) -> None:
    """Take that route away (blocking); no error where there is none.

    Raises:
        OSError: the kernel refuses.
    """
    with Connection() as connection:
        try:
            connection.change(netlink.RTM_DELROUTE, _route(service_cidr))
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise


def _route(service_cidr: str, source: str = "") -> bytes:
    network = ipaddress.ip_network(service_cidr)
    parts = [
        attribute(netlink.RTA_DST, network.network_address.packed),
        attribute(netlink.RTA_OIF, _LOOPBACK),
        attribute(netlink.RTA_PRIORITY, _METRIC),
    ]
    if source:
        parts.append(attribute(_RTA_PREFSRC, ipaddress.ip_address(source).packed))
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return netlink.route(*parts, prefix_length=network.prefixlen, family=family)


def accept_loopback(link: str) -> None:
    """Let connections from 127.0.0.1 leave by ``link`` (blocking); nothing where it has gone."""
    _set(link, "1")


def refuse_loopback(link: str) -> None:
    """Undo ``accept_loopback`` (blocking); nothing where the link has gone."""
    _set(link, "0")


def _set(link: str, value: str) -> None:
    setting = _SETTINGS / link / "route_localnet"
    with contextlib.suppress(FileNotFoundError):
        if setting.read_text().strip() != value:
            setting.write_text(value)
