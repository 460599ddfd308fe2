"""What ``-p`` and ``-P`` ask for, in the words of the Engine API."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.engine.container.container import PublishedPort
from wherry.engine.errors import BadParameter

PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True)
class PortRequest:
    """One publication: any host port of ``first`` to ``last``; both 0 mean "choose one"."""

    protocol: str
    container_port: int
    host_ip: str
    first: int = 0
    last: int = 0


def parse_port(text: str) -> tuple[int, str]:
    """``80/tcp`` or ``80`` as number and protocol.

    Raises:
        BadParameter: it is neither.
    """
    number, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in PROTOCOLS:
        raise BadParameter(f"invalid proto: {protocol}")
    if not number.isdigit() or not 0 < int(number) <= 65535:
        raise BadParameter(f"invalid port: {text}")
    return int(number), protocol


def requests(
    exposed: Mapping[str, Any], bindings: Mapping[str, Any], *, publish_all: bool
) -> list[PortRequest]:
    """Every publication asked for, in the order of container ports.

    Raises:
        BadParameter: a port, a range or an address is malformed.
    """
    found: list[PortRequest] = []
    for port, hosts in bindings.items():
        number, protocol = parse_port(port)
        if hosts is not None and not isinstance(hosts, list):
            raise BadParameter(f"invalid port specification: {port}")
        for binding in hosts or [{}]:
            host_ip = str(binding.get("HostIp") or "")
            if host_ip:
                try:
                    ipaddress.ip_address(host_ip)
                except ValueError:
                    raise BadParameter(f"invalid IP address: {host_ip}") from None
            first, last = _range(str(binding.get("HostPort") or ""))
            found.append(PortRequest(protocol, number, host_ip, first, last))
    if publish_all:
        for port in exposed:
            number, protocol = parse_port(port)
            if not any((r.container_port, r.protocol) == (number, protocol) for r in found):
                found.append(PortRequest(protocol, number, ""))
    return sorted(found, key=lambda r: (r.container_port, r.protocol, r.first))


def _range(text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match:
        raise BadParameter(f'invalid port specification: "{text}"')
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last or last > 65535:
        raise BadParameter(f'invalid port specification: "{text}"')
    return first, last


def by_container_port(
    exposed: Iterable[str], published: Iterable[PublishedPort]
) -> dict[str, list[dict[str, str]] | None]:
    """``NetworkSettings.Ports``: every exposed or published port, with its bindings."""
    ports: dict[str, list[dict[str, str]] | None] = {}
    for port in exposed:
        number, protocol = parse_port(port)
        ports[f"{number}/{protocol}"] = None
    for binding in published:
        key = f"{binding.container_port}/{binding.protocol}"
        ports[key] = [
            *(ports.get(key) or []),
            {"HostIp": binding.host_ip, "HostPort": str(binding.host_port)},
        ]
    return ports


def ephemeral_range(
    source: Path = Path("/proc/sys/net/ipv4/ip_local_port_range"),
) -> tuple[int, int]:
    """From which the host ports that nobody chose are taken."""
    try:
        first, last = source.read_text().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return 49153, 65535


class PortSearch:
    """Which host ports to try for a request."""

    def __init__(self) -> None:
        self._next = 0

    def candidates(self, request: PortRequest) -> Sequence[int]:
        """The host ports to try, in this order."""
        if request.first:
            return range(request.first, request.last + 1)
        first, last = ephemeral_range()
        if not first <= self._next < last:
            self._next = first
        start = self._next
        self._next += 1
        return [*range(start, last + 1), *range(first, start)]
