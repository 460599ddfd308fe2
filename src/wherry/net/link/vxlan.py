"""A network over a network: frames in datagrams to other machines (RFC 7348).

One device a machine. Nothing is learned and nobody is asked: which machine has which range is
known, and so are the hardware addresses, which follow from the ranges. All functions block.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from wherry.net import namespaces, netlink
from wherry.net.link.links import (
    NEW,
    address_body,
    kind_of,
    mac_address,
    packed_mac,
    remove_link,
)
from wherry.net.netlink import Connection, attribute, nested

PORT = 8472
_OVERHEAD = {4: 50, 6: 70}


def overhead(local: str) -> int:
    """Bytes that a packet grows by on its way from a machine at ``local``."""
    return _OVERHEAD[ipaddress.ip_address(local).version]


class NotSupported(Exception):
    """The kernel has no VXLAN."""


@dataclass(frozen=True, slots=True)
class Device:
    """Our end: called ``name``, in the network ``number``, at the machine's address ``local``,
    which is of the family in which all datagrams travel.

    ``inside`` is its address in the network, for which ``mac`` stands. With ``ipv6`` it carries
    that, too: ends are then known by link-local addresses (``link_local``), and by nothing else
    where ``inside`` is one.
    """

    name: str
    number: int
    local: str
    inside: str
    mtu: int = 0
    ipv6: bool = False

    @property
    def mac(self) -> bytes:
        return packed_mac(mac_address(self.inside))


def ensure(device: Device) -> None:
    """See to it that ``device`` is there, up, and as it should be.

    Raises:
        NotSupported: the kernel does not know such devices.
        OSError: it refuses.
    """
    if kind_of(device.name) and not _is(device):
        remove_link(device.name)
    if not kind_of(device.name):
        _make(device)
    index = socket.if_nametoindex(device.name)
    up = netlink.link(
        *([attribute(netlink.IFLA_MTU, device.mtu)] if device.mtu else []),
        index=index,
        flags=netlink.IFF_UP,
        change=netlink.IFF_UP,
    )
    if device.ipv6:
        namespaces.write_sysctl(f"net/ipv6/conf/{device.name}/accept_ra", "0")
        namespaces.write_sysctl(f"net/ipv6/conf/{device.name}/disable_ipv6", "0")
    interface = ipaddress.ip_interface(device.inside)
    with Connection() as connection:
        connection.change(netlink.RTM_NEWLINK, up)
        try:
            connection.change(netlink.RTM_NEWADDR, address_body(index, interface), NEW)
        except FileExistsError:
            return


def _make(device: Device) -> None:
    data = nested(
        netlink.IFLA_INFO_DATA,
        attribute(netlink.IFLA_VXLAN_ID, device.number),
        attribute(*_local(device)),
        attribute(netlink.IFLA_VXLAN_LEARNING, b"\0"),
        attribute(netlink.IFLA_VXLAN_PORT, struct.pack("!H", PORT)),
    )
    body = netlink.link(
        attribute(netlink.IFLA_IFNAME, device.name),
        attribute(netlink.IFLA_ADDRESS, device.mac),
        nested(netlink.IFLA_LINKINFO, attribute(netlink.IFLA_INFO_KIND, b"vxlan"), data),
    )
    with Connection() as connection:
        try:
            connection.change(netlink.RTM_NEWLINK, body, NEW)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise NotSupported("this machine's kernel has no VXLAN") from error
            raise


def _local(device: Device) -> tuple[int, bytes]:
    """The attribute that says where our end is."""
    address = ipaddress.ip_address(device.local)
    six = address.version == 6
    return netlink.IFLA_VXLAN_LOCAL6 if six else netlink.IFLA_VXLAN_LOCAL, address.packed


def _is(device: Device) -> bool:
    """Whether the link of that name is what ``device`` says, but for its address and MTU."""
    with Connection() as connection:
        named = netlink.link(attribute(netlink.IFLA_IFNAME, device.name))
        (body,) = connection.ask(netlink.RTM_GETLINK, named)
    _, _, values = netlink.read_link(body)
    info = netlink.attributes(values.get(netlink.IFLA_LINKINFO, b""))
    data = netlink.attributes(info.get(netlink.IFLA_INFO_DATA, b""))
    return (
        info.get(netlink.IFLA_INFO_KIND, b"").rstrip(b"\0") == b"vxlan"
        and data.get(netlink.IFLA_VXLAN_ID) == struct.pack("=I", device.number)
        and data.get(_local(device)[0]) == _local(device)[1]
        and values.get(netlink.IFLA_ADDRESS) == device.mac
    )


def link_local(inside: str) -> str:
    """By which address in IPv6 the end at ``inside`` is known."""
    if ":" in inside:
        return inside
    return str(ipaddress.IPv6Address(0xFE80 << 112 | int(ipaddress.IPv4Address(inside))))


def set_peers(device: Device, peers: Mapping[str, str]) -> None:
    """The other ends: their addresses in the network, and those of their machines; no others.

    Raises:
        OSError: the kernel refuses.
    """
    index = socket.if_nametoindex(device.name)
    replace = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    wanted = {packed_mac(mac_address(inside)): inside for inside in peers}
    families = [socket.AF_BRIDGE]
    if ":" not in device.inside:
        families.append(socket.AF_INET)
    if device.ipv6:
        families.append(socket.AF_INET6)
    changes: list[tuple[int, bytes, int]] = []
    with Connection() as connection:
        for family in families:
            everything = netlink.neighbour(index=0, family=family, state=0)
            for body in connection.ask(netlink.RTM_GETNEIGH, everything, netlink.NLM_F_DUMP):
                owner, state, values = netlink.read_neighbour(body)
                mac = values.get(netlink.NDA_LLADDR, b"")
                if owner == index and state & netlink.NUD_PERMANENT and mac not in wanted:
                    stale = _entry(family, index, mac, values.get(netlink.NDA_DST, b""))
                    changes.append((netlink.RTM_DELNEIGH, stale, 0))
        for mac, inside in wanted.items():
            places = {
                socket.AF_BRIDGE: peers[inside],
                socket.AF_INET: inside,
                socket.AF_INET6: link_local(inside),
            }
            for family in families:
                place = ipaddress.ip_address(places[family]).packed
                entry = _entry(family, index, mac, place)
                changes.append((netlink.RTM_NEWNEIGH, entry, replace))
        if changes:
            connection.change_all(changes)


def _entry(family: int, index: int, mac: bytes, place: bytes) -> bytes:
    """Who has ``mac``: an address in the network, or (AF_BRIDGE) the machine where that is."""
    parts = attribute(netlink.NDA_LLADDR, mac), attribute(netlink.NDA_DST, place)
    if family != socket.AF_BRIDGE:
        return netlink.neighbour(*parts, index=index, family=family)
    return netlink.neighbour(
        *parts,
        index=index,
        family=family,
        state=netlink.NUD_PERMANENT | netlink.NUD_NOARP,
        flags=netlink.NTF_SELF,
    )
