"""Interfaces of containers: what hangs on a link of this machine and ends in a namespace."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wherry.net import namespaces, netlink
from wherry.net.link import links
from wherry.net.link.links import NEW, address_body, mac_address, packed_mac, remove_link
from wherry.net.netlink import Connection, attribute, nested

# linux/if_link.h
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}


@dataclass(frozen=True, slots=True)
class Inner:
    """The end in the container: its ``name``, ``addresses`` with prefix length, and the ways out.

    ``gateways`` are where all else goes, at most one of each version; ``mac`` by default follows
    from the first address; ``routed`` lets all else go out without a gateway (default routes to
    the link itself). ``sysctls`` are set at last, below ``net/``.
    """

    name: str
    addresses: Sequence[str]
    gateways: Sequence[str] = ()
    mac: str = ""
    mtu: int = 0
    routed: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)

    @property
    def hardware(self) -> bytes:
        """Its hardware address."""
        return packed_mac(self.mac or mac_address(self.addresses[0].partition("/")[0]))


def connect(namespace: Path, inner: Inner, *, bridge: str, host_interface: str) -> None:
    """Lay a cable from ``bridge`` to the new interface ``inner`` in ``namespace``.

    Raises:
        OSError: ENODEV without the bridge, EEXIST where ``host_interface`` is taken.
        FileNotFoundError: there is no such namespace.
    """
    target = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    mtu = [attribute(netlink.IFLA_MTU, inner.mtu)] if inner.mtu else []
    try:
        peer = netlink.link(
            attribute(netlink.IFLA_IFNAME, inner.name),
            attribute(netlink.IFLA_ADDRESS, inner.hardware),
            attribute(netlink.IFLA_NET_NS_FD, target),
            *mtu,
        )
        info = nested(
            netlink.IFLA_LINKINFO,
            attribute(netlink.IFLA_INFO_KIND, b"veth"),
            nested(netlink.IFLA_INFO_DATA, attribute(netlink.VETH_INFO_PEER, peer)),
        )
        with Connection() as connection:
            pair = netlink.link(
                attribute(netlink.IFLA_IFNAME, host_interface),
                attribute(netlink.IFLA_MASTER, socket.if_nametoindex(bridge)),
                info,
                *mtu,
                flags=netlink.IFF_UP,
                change=netlink.IFF_UP,
            )
            connection.change(netlink.RTM_NEWLINK, pair, NEW)
    finally:
        os.close(target)
    try:
        namespaces.write_sysctl(f"net/ipv6/conf/{host_interface}/disable_ipv6", "1")
        # A container that calls itself by a published port or a service comes back where it left.
        links.hairpin(host_interface)
        with namespaces.enter(namespace), Connection() as connection:
            _raise_inner(connection, inner)
    except BaseException:
        remove_link(host_interface)
        raise


def split_off(namespace: Path, inner: Inner, *, parent: str, kind: str, mode: int) -> None:
    """Give ``namespace`` the new interface ``inner``, which shares the wire of ``parent``.

    ``kind`` is ``macvlan``, with a hardware address of its own, or ``ipvlan``, with that of the
    parent; ``mode`` is one of the numbers above.

    Raises:
        OSError: EOPNOTSUPP where the kernel does not have the kind, ENODEV without the parent,
            EBUSY where the parent is used otherwise.
        FileNotFoundError: there is no such namespace.
    """
    target = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    if kind == "macvlan":
        data = attribute(netlink.IFLA_MACVLAN_MODE, mode)
    else:
        data = attribute(netlink.IFLA_IPVLAN_MODE, struct.pack("=H", mode))
    parts = [
        attribute(netlink.IFLA_IFNAME, inner.name),
        attribute(netlink.IFLA_LINK, socket.if_nametoindex(parent)),
        attribute(netlink.IFLA_NET_NS_FD, target),
        nested(
            netlink.IFLA_LINKINFO,
            attribute(netlink.IFLA_INFO_KIND, kind.encode()),
            nested(netlink.IFLA_INFO_DATA, data),
        ),
    ]
    if kind == "macvlan":
        parts.append(attribute(netlink.IFLA_ADDRESS, inner.hardware))
    if inner.mtu:
        parts.append(attribute(netlink.IFLA_MTU, inner.mtu))
    try:
        with Connection() as connection:
            connection.change(netlink.RTM_NEWLINK, netlink.link(*parts), NEW)
    finally:
        os.close(target)
    try:
        with namespaces.enter(namespace), Connection() as connection:
            _raise_inner(connection, inner)
    except BaseException:
        remove_inner(namespace, inner.name)
        raise


def _raise_inner(connection: Connection, inner: Inner) -> None:
    addresses = [ipaddress.ip_interface(address) for address in inner.addresses]
    index = socket.if_nametoindex(inner.name)
    with_ipv6 = any(address.version == 6 for address in addresses)
    conf = f"net/ipv6/conf/{inner.name}"
    namespaces.write_sysctl(f"{conf}/disable_ipv6", "0" if with_ipv6 else "1")
    if with_ipv6:
        namespaces.write_sysctl(f"{conf}/accept_ra", "0")
    up = netlink.link(index=index, flags=netlink.IFF_UP, change=netlink.IFF_UP)
    changes = [(netlink.RTM_NEWADDR, address_body(index, a), NEW) for a in addresses]
    changes.append((netlink.RTM_NEWLINK, up, 0))
    changes += [default_route(index, gateway) for gateway in inner.gateways]
    if inner.routed:
        changes += [default_route(index, version=v) for v in {a.version for a in addresses}]
    connection.change_all(changes)
    for name, value in inner.sysctls.items():
        namespaces.write_sysctl(f"net/{name}", value)


def default_route(index: int, gateway: str = "", *, version: int = 4) -> tuple[int, bytes, int]:
    """The change that sends all else through ``gateway``, or straight to the link."""
    parts = [attribute(netlink.RTA_OIF, index)]
    scope = netlink.RT_SCOPE_LINK
    if gateway:
        address = ipaddress.ip_address(gateway)
        version, scope = address.version, netlink.RT_SCOPE_UNIVERSE
        parts.append(attribute(netlink.RTA_GATEWAY, address.packed))
    body = netlink.route(
        *parts,
        protocol=netlink.RTPROT_BOOT,
        family=socket.AF_INET if version == 4 else socket.AF_INET6,
        scope=scope,
    )
    return netlink.RTM_NEWROUTE, body, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE


def set_default_routes(namespace: Path, ways: Mapping[int, tuple[str, str] | None]) -> None:
    """Send all else of each version (4, 6) out of an interface by a gateway; nowhere for None.

    An empty gateway is the link itself.

    Raises:
        FileNotFoundError: there is no such namespace.
        OSError: the kernel refuses.
    """
    with namespaces.enter(namespace), Connection() as connection:
        for version, way in ways.items():
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            if way is not None:
                index = socket.if_nametoindex(way[0])
                _forget_default(connection, family)
                connection.change_all([default_route(index, way[1], version=version)])
            else:
                _forget_default(connection, family)


def _forget_default(connection: Connection, family: int) -> None:
    """Remove every default route that we, or the container, have set."""
    everything = netlink.route(family=family)
    for body in connection.ask(netlink.RTM_GETROUTE, everything, netlink.NLM_F_DUMP):
        prefix_length, table, kind, values = netlink.read_route(body)
        if prefix_length or table != netlink.RT_TABLE_MAIN or kind != netlink.RTN_UNICAST:
            continue
        named = (netlink.RTA_OIF, netlink.RTA_GATEWAY, netlink.RTA_PRIORITY)
        parts = [attribute(k, values[k]) for k in named if k in values]
        stale = netlink.route(*parts, protocol=0, family=family, scope=255)
        try:
            connection.change(netlink.RTM_DELROUTE, stale)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise


def remove_inner(namespace: Path, name: str) -> None:
    """Take an interface out of a namespace, its other end with it; nothing where there is none.

    Raises:
        OSError: the kernel refuses.
    """
    try:
        with namespaces.enter(namespace):
            remove_link(name)
    except FileNotFoundError:
        return
