"""Bridges and the virtual cables between them and containers."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from wherry.net import namespaces, netlink
from wherry.net.netlink import Connection, attribute, nested

log = logging.getLogger(__name__)

_NEW = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
_BRIDGE_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def mac_address(address: str) -> str:
    """The hardware address for the holder of IPv4 ``address``.

    The same for the same address, as Docker long had it, so that what neighbours remember of it is
    right also when another container has got the address.
    """
    return "02:42:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def _packed_mac(mac: str) -> bytes:
    packed = bytes.fromhex(mac.replace(":", ""))
    if len(packed) != 6:
        raise ValueError(f"{mac!r} is not a hardware address")
    return packed


def ensure_bridge(name: str, address_cidr: str) -> None:
    """See to it that bridge ``name`` is there, up, with ``address_cidr`` as its only address.

    Also lets this machine forward, lets it reach containers from its loopback addresses (published
    ports on 127.0.0.1; ``net.firewall`` keeps containers from going the other way), and passes what
    is bridged through the rules for IPv4 where the kernel can: an answer that goes straight from
    container to container must be translated back as well.

    Raises:
        OSError: the kernel refuses; EEXIST where ``name`` is a link that is no bridge.
    """
    interface = ipaddress.IPv4Interface(address_cidr)
    mac = attribute(netlink.IFLA_ADDRESS, _packed_mac(mac_address(str(interface.ip))))
    info = nested(netlink.IFLA_LINKINFO, attribute(netlink.IFLA_INFO_KIND, b"bridge"))
    with Connection() as connection:
        try:
            named = attribute(netlink.IFLA_IFNAME, name)
            connection.change(netlink.RTM_NEWLINK, netlink.link(named, mac, info), _NEW)
        except FileExistsError:
            if not Path(f"/sys/class/net/{name}/bridge").is_dir():
                raise
        index = socket.if_nametoindex(name)
        _set_only_address(connection, index, interface)
        up = netlink.link(index=index, flags=netlink.IFF_UP, change=netlink.IFF_UP)
        connection.change(netlink.RTM_NEWLINK, up)
        if _bridge_netfilter():
            call = nested(
                netlink.IFLA_INFO_DATA, attribute(netlink.IFLA_BR_NF_CALL_IPTABLES, b"\1")
            )
            kind = attribute(netlink.IFLA_INFO_KIND, b"bridge")
            through = nested(netlink.IFLA_LINKINFO, kind, call)
            connection.change(netlink.RTM_NEWLINK, netlink.link(through, index=index))
    namespaces.write_sysctl("net/ipv4/ip_forward", "1")
    namespaces.write_sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
    namespaces.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")


def bridge_netfilter() -> bool:
    """Whether what is bridged can pass through the rules for IPv4 on this machine now."""
    return _BRIDGE_NETFILTER.exists()


def _bridge_netfilter() -> bool:
    """As ``bridge_netfilter``, after an attempt to load the module for it."""
    if not bridge_netfilter() and (modprobe := shutil.which("modprobe")):
        subprocess.run([modprobe, "-q", "br_netfilter"], check=False, capture_output=True)
        if not bridge_netfilter():
            log.info("no br_netfilter: bridged answers are not translated, sources are masked")
    return bridge_netfilter()


def _set_only_address(
    connection: Connection, index: int, interface: ipaddress.IPv4Interface
) -> None:
    wanted = (interface.ip.packed, interface.network.prefixlen)
    everything = netlink.address(index=0, prefix_length=0)
    present = False
    for body in connection.ask(netlink.RTM_GETADDR, everything, netlink.NLM_F_DUMP):
        owner, prefix_length, found = netlink.read_address(body)
        if owner != index:
            continue
        local = found.get(netlink.IFA_LOCAL, b"")
        if (local, prefix_length) == wanted:
            present = True
            continue
        stale = netlink.address(
            attribute(netlink.IFA_LOCAL, local), index=index, prefix_length=prefix_length
        )
        connection.change(netlink.RTM_DELADDR, stale)
    if not present:
        connection.change(netlink.RTM_NEWADDR, _address(index, interface), _NEW)


def _address(index: int, interface: ipaddress.IPv4Interface) -> bytes:
    return netlink.address(
        attribute(netlink.IFA_LOCAL, interface.ip.packed),
        attribute(netlink.IFA_ADDRESS, interface.ip.packed),
        attribute(netlink.IFA_BROADCAST, interface.network.broadcast_address.packed),
        index=index,
        prefix_length=interface.network.prefixlen,
    )


def remove_link(name: str) -> None:
    """Remove a link; nothing where there is none.

    Raises:
        OSError: the kernel refuses.
    """
    with Connection() as connection:
        try:
            named = netlink.link(attribute(netlink.IFLA_IFNAME, name))
            connection.change(netlink.RTM_DELLINK, named)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise


def connect(
    *,
    namespace: Path,
    bridge: str,
    host_interface: str,
    interface: str,
    address: str,
    gateway: str,
    mac: str | None = None,
) -> None:
    """Lay a cable from ``bridge`` to the new ``interface`` in ``namespace``.

    ``address`` is that of the inner end with its prefix length (``172.17.0.2/16``), ``gateway`` is
    where all else goes (none where it is empty), ``mac`` by default follows from the address.

    Raises:
        OSError: ENODEV without the bridge, EEXIST where ``host_interface`` is taken.
        FileNotFoundError: there is no such namespace.
    """
    inner = ipaddress.IPv4Interface(address)
    hardware = _packed_mac(mac or mac_address(str(inner.ip)))
    target = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        peer = netlink.link(
            attribute(netlink.IFLA_IFNAME, interface),
            attribute(netlink.IFLA_ADDRESS, hardware),
            attribute(netlink.IFLA_NET_NS_FD, target),
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
                flags=netlink.IFF_UP,
                change=netlink.IFF_UP,
            )
            connection.change(netlink.RTM_NEWLINK, pair, _NEW)
    finally:
        os.close(target)
    try:
        namespaces.write_sysctl(f"net/ipv6/conf/{host_interface}/disable_ipv6", "1")
        # A container that calls itself by a published port or a service comes back where it left.
        Path(f"/sys/class/net/{host_interface}/brport/hairpin_mode").write_text("1")
        with namespaces.enter(namespace), Connection() as connection:
            namespaces.write_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1")
            _raise_inner(connection, interface, inner, gateway)
    except BaseException:
        remove_link(host_interface)
        raise


def _raise_inner(
    connection: Connection, interface: str, address: ipaddress.IPv4Interface, gateway: str
) -> None:
    index = socket.if_nametoindex(interface)
    connection.change(netlink.RTM_NEWADDR, _address(index, address), _NEW)
    up = netlink.link(index=index, flags=netlink.IFF_UP, change=netlink.IFF_UP)
    connection.change(netlink.RTM_NEWLINK, up)
    if gateway:
        packed = ipaddress.IPv4Address(gateway).packed
        default = netlink.route(
            attribute(netlink.RTA_GATEWAY, packed),
            attribute(netlink.RTA_OIF, index),
            protocol=netlink.RTPROT_BOOT,
        )
        connection.change(netlink.RTM_NEWROUTE, default, _NEW)


def disconnect(host_interface: str) -> None:
    """Take the cable away, both its ends; nothing where there is none.

    Not needed where the namespace is deleted: the inner end takes the outer one with it, and the
    kernel does that in the background, while this call waits some 15 ms for it.
    """
    remove_link(host_interface)


# The beginning of ``struct rtnl_link_stats64``.
_STATISTICS = struct.Struct("=8Q")
_COUNTERS = (
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
)


def interface_statistics(namespace: Path) -> Mapping[str, Mapping[str, int]]:
    """The counters of the interfaces in ``namespace`` but the loopback, by name.

    Each has packets, bytes, errors and drops, as ``rx_packets``, ``tx_bytes`` and so on.

    Raises:
        FileNotFoundError: there is no such namespace.
    """
    found: dict[str, dict[str, int]] = {}
    with namespaces.enter(namespace), Connection() as connection:
        for body in connection.ask(netlink.RTM_GETLINK, netlink.link(), netlink.NLM_F_DUMP):
            index, _, values = netlink.read_link(body)
            if index == 1 or netlink.IFLA_STATS64 not in values:
                continue
            name = values[netlink.IFLA_IFNAME].rstrip(b"\0").decode()
            counters = _STATISTICS.unpack_from(values[netlink.IFLA_STATS64])
            found[name] = dict(zip(_COUNTERS, counters, strict=True))
    return found
