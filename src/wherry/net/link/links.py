"""Bridges and other links of this machine that containers' interfaces hang on."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from wherry.net import namespaces, netlink
from wherry.net.netlink import Connection, attribute, nested

log = logging.getLogger(__name__)

NEW = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
_BRIDGE_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")


def mac_address(address: str) -> str:
    """The hardware address for the holder of ``address``.

    The same for the same address, as Docker long had it, so that what neighbours remember of it is
    right also when another container has got the address.
    """
    packed = ipaddress.ip_address(address).packed[-4:]
    return "02:42:" + ":".join(f"{byte:02x}" for byte in packed)


def packed_mac(mac: str) -> bytes:
    """The six bytes of a hardware address.

    Raises:
        ValueError: it is none.
    """
    packed = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if len(packed) != 6:
        raise ValueError(f"{mac!r} is not a hardware address")
    return packed


def exists(name: str) -> bool:
    """Whether there is a link called ``name`` in the namespace of this thread."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def ensure_bridge(name: str, *addresses: str, mtu: int = 0, only: bool = True) -> None:
    """See to it that bridge ``name`` is there, up, with ``addresses`` (CIDR), and ``only`` those.

    Also lets this machine forward, lets it reach containers from its loopback addresses (published
    ports on 127.0.0.1; ``net.firewall`` keeps containers from going the other way), and passes what
    is bridged through the rules where the kernel can: an answer that goes straight from
    container to container must be translated back as well. ``mtu`` 0 is the kernel's own.

    Raises:
        OSError: the kernel refuses; EEXIST where ``name`` is a link that is no bridge.
    """
    wanted = [ipaddress.ip_interface(address) for address in addresses]
    with_ipv6 = any(interface.version == 6 for interface in wanted)
    info = nested(netlink.IFLA_LINKINFO, attribute(netlink.IFLA_INFO_KIND, b"bridge"))
    with Connection() as connection:
        try:
            parts = [attribute(netlink.IFLA_IFNAME, name), info]
            if wanted:
                mac = packed_mac(mac_address(str(wanted[0].ip)))
                parts.append(attribute(netlink.IFLA_ADDRESS, mac))
            connection.change(netlink.RTM_NEWLINK, netlink.link(*parts), NEW)
        except FileExistsError:
            if kind_of(name) != "bridge":
                raise
        index = socket.if_nametoindex(name)
        namespaces.write_sysctl(f"net/ipv6/conf/{name}/accept_ra", "0")
        namespaces.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0" if with_ipv6 else "1")
        _set_addresses(connection, index, wanted, only=only)
        parts = [attribute(netlink.IFLA_MTU, mtu)] if mtu else []
        if _bridge_netfilter():
            parts.append(_through_rules(ipv6=with_ipv6))
        up = netlink.link(*parts, index=index, flags=netlink.IFF_UP, change=netlink.IFF_UP)
        connection.change(netlink.RTM_NEWLINK, up)
    if any(interface.version == 4 for interface in wanted):
        namespaces.write_sysctl("net/ipv4/ip_forward", "1")
        namespaces.write_sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
    if with_ipv6:
        _forward_ipv6()


def see_through(names: Iterable[str]) -> None:
    """Pass what is bridged by any bridge of ``names`` through the rules, where the kernel can: an
    answer that goes straight from container to container must be translated back as well.

    Raises:
        OSError: the kernel refuses.
    """
    for name in names:
        if kind_of(name) == "bridge" and _bridge_netfilter():
            with Connection() as connection:
                body = netlink.link(_through_rules(ipv6=True), index=socket.if_nametoindex(name))
                connection.change(netlink.RTM_NEWLINK, body)


def _through_rules(*, ipv6: bool) -> bytes:
    """The attribute of a bridge that passes what it bridges through the rules."""
    through = [attribute(netlink.IFLA_BR_NF_CALL_IPTABLES, b"\1")]
    if ipv6:
        through.append(attribute(netlink.IFLA_BR_NF_CALL_IP6TABLES, b"\1"))
    kind = attribute(netlink.IFLA_INFO_KIND, b"bridge")
    data = nested(netlink.IFLA_INFO_DATA, *through)
    return nested(netlink.IFLA_LINKINFO, kind, data)


def _forward_ipv6() -> None:
    """Let this machine forward IPv6, and go on learning its own way out as it did before.

    A machine that forwards is taken for a router, which no longer listens to other routers: one
    that got its default route from them would lose it.
    """
    conf = Path("/proc/sys/net/ipv6/conf")
    if not conf.exists() or (conf / "all/forwarding").read_text().strip() == "1":
        return
    for directory in conf.iterdir():
        listening = directory / "accept_ra"
        with contextlib.suppress(OSError):  # the link has just gone
            if directory.name != "all" and listening.read_text().strip() == "1":
                listening.write_text("2")
    (conf / "all/forwarding").write_text("1")


def local_addresses(version: int) -> frozenset[str]:
    """This machine's addresses of IP ``version``."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    found = set()
    with Connection() as connection:
        everything = netlink.address(index=0, prefix_length=0, family=family)
        for body in connection.ask(netlink.RTM_GETADDR, everything, netlink.NLM_F_DUMP):
            _, _, values = netlink.read_address(body)
            # (Of a link from point to point, the other attribute is that of the other end.)
            address = values.get(netlink.IFA_LOCAL) or values.get(netlink.IFA_ADDRESS)
            if address is not None:
                found.add(socket.inet_ntop(family, address))
    return frozenset(found)


def has_ipv6() -> bool:
    """Whether this machine speaks IPv6, if only with itself."""
    return Path("/proc/net/if_inet6").exists() and bool(Path("/proc/net/if_inet6").read_text())


def bridge_netfilter() -> bool:
    """Whether what is bridged can pass through the rules on this machine now."""
    return _BRIDGE_NETFILTER.exists()


def _bridge_netfilter() -> bool:
    """As ``bridge_netfilter``, after an attempt to load the module for it."""
    if not bridge_netfilter() and (modprobe := shutil.which("modprobe")):
        subprocess.run([modprobe, "-q", "br_netfilter"], check=False, capture_output=True)
        if not bridge_netfilter():
            log.info("no br_netfilter: bridged answers are not translated, sources are masked")
    return bridge_netfilter()


Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def _set_addresses(
    connection: Connection, index: int, wanted: list[Interface], *, only: bool
) -> None:
    missing: dict[tuple[bytes, int], Interface | None]
    missing = {(i.ip.packed, i.network.prefixlen): i for i in wanted}
    for family in (socket.AF_INET, socket.AF_INET6):
        everything = netlink.address(index=0, prefix_length=0, family=family)
        for body in connection.ask(netlink.RTM_GETADDR, everything, netlink.NLM_F_DUMP):
            owner, prefix_length, found = netlink.read_address(body)
            local = found.get(netlink.IFA_LOCAL) or found.get(netlink.IFA_ADDRESS, b"")
            if owner != index or missing.pop((local, prefix_length), None) is not None:
                continue
            if not only:
                continue
            if family == socket.AF_INET6 and ipaddress.ip_address(local) in _LINK_LOCAL:
                continue  # the kernel's own
            stale = netlink.address(
                attribute(netlink.IFA_LOCAL, local),
                index=index,
                prefix_length=prefix_length,
                family=family,
            )
            connection.change(netlink.RTM_DELADDR, stale)
    for interface in missing.values():
        if interface is not None:
            connection.change(netlink.RTM_NEWADDR, address_body(index, interface), NEW)


def address_body(index: int, interface: Interface) -> bytes:
    """The message that gives ``interface`` to the link of that index."""
    parts = [
        attribute(netlink.IFA_LOCAL, interface.ip.packed),
        attribute(netlink.IFA_ADDRESS, interface.ip.packed),
    ]
    family, flags = socket.AF_INET6, netlink.IFA_F_NODAD
    if interface.version == 4:
        broadcast = interface.network.broadcast_address.packed
        parts.append(attribute(netlink.IFA_BROADCAST, broadcast))
        family, flags = socket.AF_INET, 0
    return netlink.address(
        *parts,
        index=index,
        prefix_length=interface.network.prefixlen,
        family=family,
        flags=flags,
    )


def ensure_vlan(name: str, parent: str, number: int) -> None:
    """See to it that ``name`` is there, up: the part of ``parent`` that is tagged ``number``.

    Raises:
        OSError: the kernel refuses; EOPNOTSUPP without 802.1Q, ENODEV without ``parent``.
    """
    info = nested(
        netlink.IFLA_LINKINFO,
        attribute(netlink.IFLA_INFO_KIND, b"vlan"),
        nested(netlink.IFLA_INFO_DATA, attribute(netlink.IFLA_VLAN_ID, struct.pack("=H", number))),
    )
    with Connection() as connection:
        body = netlink.link(
            attribute(netlink.IFLA_IFNAME, name),
            attribute(netlink.IFLA_LINK, socket.if_nametoindex(parent)),
            info,
            flags=netlink.IFF_UP,
            change=netlink.IFF_UP,
        )
        try:
            connection.change(netlink.RTM_NEWLINK, body, NEW)
        except FileExistsError:
            return


def knows_kind(kind: str) -> bool:
    """Whether the kernel, with its modules, knows links of ``kind`` that hang on another.

    It is asked for one that hangs on nothing: what it knows, it finds wrong; what it does not
    know, it does not support.
    """
    info = nested(netlink.IFLA_LINKINFO, attribute(netlink.IFLA_INFO_KIND, kind.encode()))
    with Connection() as connection:
        try:
            connection.change(netlink.RTM_NEWLINK, netlink.link(info), NEW)
        except OSError as error:
            return error.errno != errno.EOPNOTSUPP
    return True


def kind_of(name: str) -> str:
    """What sort of link ``name`` is (``bridge``, ``veth``); empty for a real one, or for none.

    Asked of the kernel, as sysfs shows the links of the namespace in which it was mounted.
    """
    with Connection() as connection:
        named = netlink.link(attribute(netlink.IFLA_IFNAME, name))
        try:
            answer = connection.ask(netlink.RTM_GETLINK, named)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return ""
    _, _, values = netlink.read_link(answer[0])
    info = netlink.attributes(values.get(netlink.IFLA_LINKINFO, b""))
    return info.get(netlink.IFLA_INFO_KIND, b"").rstrip(b"\0").decode()


def mtu_behind(address: str) -> int:
    """How large packets may be on the link that has ``address``; 0 where none has, or none with an
    end elsewhere."""
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    with Connection() as connection:
        everything = netlink.address(index=0, prefix_length=0, family=family)
        for body in connection.ask(netlink.RTM_GETADDR, everything, netlink.NLM_F_DUMP):
            index, _, found = netlink.read_address(body)
            if packed in (found.get(netlink.IFA_LOCAL), found.get(netlink.IFA_ADDRESS)):
                (link,) = connection.ask(netlink.RTM_GETLINK, netlink.link(index=index))
                _, flags, values = netlink.read_link(link)
                loops = flags & netlink.IFF_LOOPBACK
                return 0 if loops else int.from_bytes(values[netlink.IFLA_MTU], sys.byteorder)
    return 0


def set_mtu(name: str, mtu: int, namespace: Path | None = None) -> None:
    """Set how large packets may be on the interface ``name``, by default of this namespace.

    Raises:
        FileNotFoundError: there is no such namespace.
        OSError: the kernel refuses; there is no such interface.
    """
    place = contextlib.nullcontext() if namespace is None else namespaces.enter(namespace)
    with place, Connection() as connection:
        body = netlink.link(attribute(netlink.IFLA_MTU, mtu), index=socket.if_nametoindex(name))
        connection.change(netlink.RTM_NEWLINK, body)


def mtus() -> dict[int, int]:
    """How large packets may be on each link, by its index."""
    with Connection() as connection:
        found = connection.ask(netlink.RTM_GETLINK, netlink.link(), netlink.NLM_F_DUMP)
    return dict(filter(None, map(read_mtu, found)))


def read_mtu(body: bytes) -> tuple[int, int] | None:
    """A link's index and how large packets on it may be; None where the message does not say."""
    index, _, values = netlink.read_link(body)
    if netlink.IFLA_MTU not in values:
        return None
    return index, int.from_bytes(values[netlink.IFLA_MTU], sys.byteorder)


def hairpin(name: str) -> None:
    """Let what came from the bridge's port ``name`` leave by it again.

    Raises:
        OSError: the kernel refuses; it is on no bridge.
    """
    port = nested(
        netlink.NLA_F_NESTED | netlink.IFLA_PROTINFO, attribute(netlink.IFLA_BRPORT_MODE, b"\1")
    )
    with Connection() as connection:
        body = netlink.link(port, index=socket.if_nametoindex(name), family=socket.AF_BRIDGE)
        connection.change(netlink.RTM_SETLINK, body)


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
