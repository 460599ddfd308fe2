"""What this machine has and uses already, before an instance takes something of it."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from pathlib import Path

from wherry.kube.api.families import IPV4, IPV6

_ELSEWHERE = {IPV4: "192.0.2.1", IPV6: "2001:db8::1"}
_EVERYWHERE6 = ipaddress.IPv6Network("fe00::/7")  # link-local and multicast


def has_ipv6() -> bool:
    """Whether this machine speaks IPv6, if only with itself."""
    try:
        return bool(Path("/proc/net/if_inet6").read_text())
    except FileNotFoundError:
        return False


def networks_in_use() -> list[str]:
    """Destinations of this machine's routes, but the default ones."""
    networks = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            networks.append(str(ipaddress.IPv4Network((address, mask.bit_count()))))
    with contextlib.suppress(FileNotFoundError):  # no IPv6 here
        for line in Path("/proc/net/ipv6_route").read_text().splitlines():
            destination, length, *_ = line.split()
            range = ipaddress.IPv6Network((int(destination, 16), int(length, 16)))
            # What every link has is in nobody's way.
            if range.prefixlen and not _EVERYWHERE6.supernet_of(range):
                networks.append(str(range))
    return networks


def address(family: str = IPV4) -> str:
    """The address by which this machine reaches others, empty where it does not; no packet is sent
    to find it."""
    kind = socket.AF_INET if family == IPV4 else socket.AF_INET6
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.connect((_ELSEWHERE[family], 9))
            address: str = probe.getsockname()[0]
    except OSError:
        return ""
    return "" if ipaddress.ip_address(address).is_link_local else address


def is_free(port: int) -> bool:
    """Whether nobody listens there, on any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True
