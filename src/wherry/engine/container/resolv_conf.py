"""``/etc/resolv.conf`` of a container: the host's, with what the user chose in its place.

resolv.conf(5). On a user-defined network a container asks our own name server, which asks those
that would have stood in the file.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wherry.host.resolv_conf import ResolvConf

SEARCH_ROOT = "io.wherry.search-root"
"""The annotation of a container whose search path may hold a dot, for names as they stand: pods
mean that by it."""

# Docker falls back to these where the host has only name servers of its own.
FALLBACK = ("8.8.8.8", "8.8.4.4")
FALLBACK_IPV6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")


@dataclass(frozen=True, slots=True)
class Wanted(ResolvConf):
    """What a container's file is to say. ``chosen`` is whether the user has named the servers."""

    chosen: bool = False


def with_choices(found: ResolvConf, host_config: Mapping[str, Any]) -> Wanted:
    """``found`` with ``--dns``, ``--dns-search`` (a dot for none) and ``--dns-option`` in place."""
    servers, search = host_config["Dns"], host_config["DnsSearch"]
    root = SEARCH_ROOT in (host_config.get("Annotations") or {})
    return Wanted(
        servers=servers or found.servers,
        search=[domain for domain in search or found.search if root or domain != "."],
        options=host_config["DnsOptions"] or found.options,
        chosen=bool(servers),
    )


def has_choices(host_config: Mapping[str, Any]) -> bool:
    """Whether the user asked for anything else than the host has."""
    return any(host_config[name] for name in ("Dns", "DnsSearch", "DnsOptions"))


def reachable(wanted: Wanted, *, ipv6: bool) -> Wanted:
    """Without the host's servers that a container does not reach; others where none is left.

    Those are on the host's loopback, or have an IPv6 address where the container has none. Servers
    that the user chose stay: they may be in the container itself.
    """
    if wanted.chosen:
        return wanted
    servers = [
        server
        for server in wanted.servers
        if (ip := _address(server)) and not ip.is_loopback and (ipv6 or ip.version == 4)
    ]
    fallback = [*FALLBACK, *FALLBACK_IPV6] if ipv6 else FALLBACK
    return replace(wanted, servers=servers or fallback)


def served(wanted: Wanted, server: str) -> Wanted:
    """The file of a container that asks our name server at the address ``server``.

    Names without a dot are tried as they stand first: most containers have such.
    """
    options = list(wanted.options)
    if ndots(wanted) is None:
        options = [option for option in options if not option.startswith("ndots")]
        options.append("ndots:0")
    return replace(wanted, servers=[server], options=options)


def ndots(wanted: ResolvConf) -> int | None:
    """How many dots make a name complete, where that is said."""
    found = None
    for option in wanted.options:
        name, _, value = option.partition(":")
        if name == "ndots" and value.isascii() and value.isdigit():
            found = int(value)
    return found


def behind(wanted: Wanted, *, ipv6: bool) -> list[tuple[str, bool]]:
    """The servers that ours asks: each with whether it is asked from the host's network.

    That is for the host's own loopback, and for IPv6 where the container has none.
    """
    found = []
    for server in wanted.servers or FALLBACK:
        address = _address(server)
        if address is None:
            continue
        out_of_reach = address.version == 6 and (not ipv6 or "%" in server)
        found.append((server, out_of_reach or (address.is_loopback and not wanted.chosen)))
    return found


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
