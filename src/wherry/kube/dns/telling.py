"""How the process that answers is told of the cluster: messages, and their bytes on a socket.

A ``Begin`` opens a new state of everything, which is in force from ``Whole`` on; what comes after
that changes it piece by piece. On the socket a message is JSON with its length before it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.kube.dns.names import Described, Endpoints, Entry, Target
from wherry.kube.dns.settings import Settings

SOCKET, PID_FILE = "dns.sock", "dns.pid"
"""Where the process is found, in its directory."""

_LENGTH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Begin:
    """All that was told is void once ``Whole`` comes; the fields are those of ``Zone``."""

    domain: str
    servers: Sequence[str]
    ranges: Sequence[str]


@dataclass(frozen=True, slots=True)
class ServiceTold:
    """The names of the Service ``key``; None where it is gone."""

    key: str
    described: Described | None


@dataclass(frozen=True, slots=True)
class NamespaceTold:
    """A namespace is there, or is gone."""

    name: str
    there: bool


@dataclass(frozen=True, slots=True)
class SettingsTold:
    """Whom to ask for other names."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class Whole:
    """Nothing is missing any more: questions may be answered."""


Told = Begin | ServiceTold | NamespaceTold | SettingsTold | Whole


def pack(told: Told) -> bytes:
    """A message as bytes."""
    text = json.dumps(_plain(told), separators=(",", ":")).encode()
    return _LENGTH.pack(len(text)) + text


def _plain(told: Told) -> list[Any]:
    match told:
        case Begin():
            return ["begin", told.domain, [*told.servers], [*told.ranges]]
        case ServiceTold(key, None):
            return ["gone", key]
        case ServiceTold(key, Described() as described):
            entries = {
                name: [e.addresses, [(t.name, t.port) for t in e.targets], e.alias, e.weight]
                for name, e in described.entries.items()
            }
            endpoints = [(group.ports, group.addresses) for group in described.endpoints]
            return ["service", key, entries, described.pointers, endpoints, described.hosts]
        case NamespaceTold():
            return ["namespace", told.name, told.there]
        case SettingsTold():
            settings = told.settings
            return ["settings", settings.upstreams, dict(settings.stubs), settings.resolv_conf]
        case _:
            return ["whole"]


def _read(plain: list[Any]) -> Told:
    match plain:
        case ["begin", domain, servers, ranges]:
            return Begin(domain, tuple(servers), tuple(ranges))
        case ["gone", key]:
            return ServiceTold(key, None)
        case ["service", key, entries, pointers, endpoints, hosts]:
            found = {
                name: Entry(tuple(addresses), tuple(Target(*t) for t in targets), alias, weight)
                for name, (addresses, targets, alias, weight) in entries.items()
            }
            groups = tuple(Endpoints(tuple(ports), _tuples(labels)) for ports, labels in endpoints)
            return ServiceTold(key, Described(found, pointers, groups, _tuples(hosts)))
        case ["namespace", name, there]:
            return NamespaceTold(name, there)
        case ["settings", upstreams, stubs, resolv_conf]:
            return SettingsTold(
                Settings(
                    tuple((address, port) for address, port in upstreams),
                    {d: tuple((a, p) for a, p in servers) for d, servers in stubs.items()},
                    resolv_conf,
                )
            )
        case ["whole"]:
            return Whole()
    raise ValueError(f"no such message: {plain!r:.80}")


def _tuples(lists: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(values) for key, values in lists.items()}


class Unpacker:
    """Messages from bytes that come in pieces."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[Told]:
        """The messages that are whole by now."""
        self._received += data
        at = 0
        while len(self._received) >= at + _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received, at)
            end = at + _LENGTH.size + length
            if len(self._received) < end:
                break
            yield _read(json.loads(bytes(self._received[at + _LENGTH.size : end])))
            at = end
        del self._received[:at]
