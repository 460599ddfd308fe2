"""How much goes through a cable, in each direction: the kernel's token buckets.

What goes to the container waits at the host's end of its cable. What comes from it is led through a
link of its own first (``ifb``), where it waits: the host's end can delay only what leaves by it,
and the other end is in the container's own hands. What is at the cable goes with it, the link does
not: ``unlimit`` takes it away. tc-tbf(8), tc-u32(8), tc-mirred(8).
"""

from __future__ import annotations

import socket
import struct

from wherry.net import namespaces, netlink
from wherry.net.link import links
from wherry.net.netlink import Connection, attribute, nested

RTM_NEWQDISC, RTM_NEWTFILTER = 36, 44
# linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h
_ROOT, _INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
_FIRST, _INGRESS_HANDLE = 0x10000, 0xFFFF0000
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
_TCA_U32_SEL, _TCA_U32_ACT, _TCA_U32_TERMINAL = 5, 7, 1
_TCA_ACT_KIND, _TCA_ACT_OPTIONS, _TCA_MIRRED_PARMS = 1, 2, 2
_TC_ACT_STOLEN, _TCA_EGRESS_REDIR = 4, 1
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET
_ETH_P_ALL = 3

_MESSAGE = struct.Struct("=BxxxiIII")
_BUCKET = struct.Struct("=BBHhHI12xIII")
_MIRROR = struct.Struct("=IIiiiiI")

# A bucket holds what goes in that time, but never less than the kernel makes one segment of; what
# would have to wait longer than that for its turn is dropped.
_BURST, _PATIENCE = 0.02, 0.05  # seconds
_LEAST_BURST = 64 << 10


def limit(interface: str, name: str, *, to: int, back: int) -> None:
    """Let ``to`` bits a second leave by ``interface`` and ``back`` come by it; 0: as many as go.

    ``name`` is what the limit is called for ``unlimit``.

    Raises:
        OSError: the kernel refuses.
    """
    index = socket.if_nametoindex(interface)
    if back:
        _make_link(_link(name))
    with Connection() as connection:
        changes = []
        if to:
            changes.append((RTM_NEWQDISC, bucket(index, to), links.NEW))
        if back:
            beside = socket.if_nametoindex(_link(name))
            changes += [
                (RTM_NEWQDISC, bucket(beside, back), links.NEW),
                (RTM_NEWQDISC, _arrivals(index), links.NEW),
                (RTM_NEWTFILTER, _detour(index, beside), links.NEW),
            ]
        connection.change_all(changes)


def unlimit(name: str) -> None:
    """Take away what a limit has besides the cable; nothing where there is nothing.

    Raises:
        OSError: the kernel refuses.
    """
    if links.exists(_link(name)):
        links.remove_link(_link(name))


def _link(name: str) -> str:
    return f"ifb{name[:12]}"


def _make_link(name: str) -> None:
    kind = attribute(netlink.IFLA_INFO_KIND, b"ifb")
    made = netlink.link(attribute(netlink.IFLA_IFNAME, name), nested(netlink.IFLA_LINKINFO, kind))
    with Connection() as connection:
        connection.change(netlink.RTM_NEWLINK, made, links.NEW)
        namespaces.write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
        index = socket.if_nametoindex(name)
        up = netlink.link(index=index, flags=netlink.IFF_UP, change=netlink.IFF_UP)
        connection.change(netlink.RTM_NEWLINK, up)


def bucket(index: int, rate: int) -> bytes:
    """The message that has a link send ``rate`` bits a second."""
    speed = max(rate // 8, 1)
    burst = max(int(speed * _BURST), _LEAST_BURST)
    queue = min(burst + int(speed * _PATIENCE), 2**32 - 1)
    told = min(speed, 2**32 - 1)
    parameters = _BUCKET.pack(0, _ETHERNET, 0, 0, 0, told, queue, 0, 0)
    return _MESSAGE.pack(0, index, _FIRST, _ROOT, 0) + b"".join(
        (
            attribute(TCA_KIND, "tbf"),
            nested(
                TCA_OPTIONS,
                attribute(TCA_TBF_PARMS, parameters),
                attribute(TCA_TBF_BURST, min(burst, 2**32 - 1)),
                attribute(TCA_TBF_RATE64, struct.pack("=Q", speed)),
            ),
        )
    )


def _arrivals(index: int) -> bytes:
    return _MESSAGE.pack(0, index, _INGRESS_HANDLE, _INGRESS, 0) + attribute(TCA_KIND, "ingress")


def _detour(index: int, beside: int) -> bytes:
    """Everything that arrives takes the way through link ``beside``."""
    selector = struct.pack("=BBBxHHhhI", _TCA_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0)
    anything = bytes(16)  # a key that looks at no bit
    mirror = _MIRROR.pack(0, 0, _TC_ACT_STOLEN, 0, 0, _TCA_EGRESS_REDIR, beside)
    action = nested(
        1,
        attribute(_TCA_ACT_KIND, "mirred"),
        nested(_TCA_ACT_OPTIONS, attribute(_TCA_MIRRED_PARMS, mirror)),
    )
    info = 1 << 16 | socket.htons(_ETH_P_ALL)
    return _MESSAGE.pack(0, index, 0, _INGRESS_HANDLE, info) + b"".join(
        (
            attribute(TCA_KIND, "u32"),
            nested(
                TCA_OPTIONS,
                attribute(_TCA_U32_SEL, selector + anything),
                nested(_TCA_U32_ACT, action),
            ),
        )
    )
