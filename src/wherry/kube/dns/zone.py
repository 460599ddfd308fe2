"""All names of the cluster, kept Service by Service."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from wherry.kube.dns.names import (
    NOTHING,
    Described,
    Entry,
    address_in_label,
)
from wherry.wire.dns import reversed_address

VERSION = "1.1.0"
"""Of the specification; ``dns-version.DOMAIN`` says it."""


class Zone:
    """The names below ``domain``.

    Args:
        domain: of the cluster, in small letters and without a final dot.
        servers: the addresses at which the name server is reached.
        ranges: addresses whose names nobody else knows: of services and of pods.
    """

    def __init__(self, domain: str, servers: Sequence[str], ranges: Iterable[str] = ()) -> None:
        self.domain = domain
        self.servers = tuple(servers)
        self._suffix = f".{domain}"
        self._ranges = [ipaddress.ip_network(range) for range in ranges]
        self._described: dict[str, Described] = {}
        self._entries: dict[str, Entry] = {}
        self._pointers: dict[str, dict[str, str]] = {}
        self._namespaces: set[str] = set()
        self._fixed = {
            domain: NOTHING,
            f"svc.{domain}": NOTHING,
            f"pod.{domain}": NOTHING,
            f"dns-version.{domain}": NOTHING,
            f"dns.{domain}": NOTHING,
            f"ns.dns.{domain}": Entry(self.servers),
        }

    def put(self, key: str, described: Described) -> bool:
        """Let the Service ``key`` have these names and no others; whether anything changed."""
        old = self._described.get(key)
        if old == described:
            return False
        self.drop(key)
        self._described[key] = described
        self._entries.update(described.entries)
        for address, name in described.pointers.items():
            self._pointers.setdefault(address, {})[key] = name
        return True

    def drop(self, key: str) -> bool:
        """Forget the Service; whether there was one."""
        old = self._described.pop(key, None)
        if old is None:
            return False
        for name in old.entries:
            self._entries.pop(name, None)
        for address in old.pointers:
            names = self._pointers[address]
            del names[key]
            if not names:
                del self._pointers[address]
        return True

    def put_namespace(self, name: str) -> None:
        self._namespaces.add(name)

    def drop_namespace(self, name: str) -> None:
        self._namespaces.discard(name)

    def covers(self, name: str) -> bool:
        """Whether it is for us to say what ``name``, in small letters, means."""
        if name == self.domain or name.endswith(self._suffix):
            return True
        address = reversed_address(name)
        if address is None:
            return False
        if address in self._pointers:
            return True
        parsed = ipaddress.ip_address(address)
        return any(parsed in range for range in self._ranges)

    def find(self, name: str) -> Entry | None:
        """What is known of ``name``; None where there is no such name."""
        found = self._entries.get(name) or self._fixed.get(name)
        if found is not None:
            return found
        labels = name.removesuffix(self._suffix).split(".")
        if (
            len(labels) < 2
            or labels[-1] not in ("svc", "pod")
            or labels[-2] not in self._namespaces
        ):
            return None
        if len(labels) == 2:
            return NOTHING
        match labels:
            case [label, _, "pod"]:
                address = address_in_label(label)
                return Entry((address,)) if address else None
            case [label, service, namespace, "svc"]:
                described = self._described.get(f"{namespace}/{service}")
                addresses = described.endpoints.get(label) if described is not None else None
                return Entry(addresses) if addresses else None
        return None

    def names_of(self, name: str) -> tuple[str, ...] | None:
        """The names of the address that ``name``, below ``arpa``, means; None for nobody's."""
        address = reversed_address(name)
        found = self._pointers.get(address) if address else None
        return tuple(dict.fromkeys(found.values())) if found else None
