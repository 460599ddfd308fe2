"""All names of the cluster, kept Service by Service."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from itertools import chain

from wherry.kube.dns.names import (
    NOTHING,
    Described,
    Entry,
    address_in_label,
)
from wherry.wire.dns import reversed_address

VERSION = "1.1.0"
"""Of the specification; ``dns-version.DOMAIN`` says it."""
_BEFORE_PODS = 2
"""So many labels before a pod's name mean nothing, as to CoreDNS."""


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
        self._behind: dict[str, tuple[str, ...]] = {}
        self.serial = 0
        """When it changed last, in seconds since 1970."""
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
        if old is not None:
            self._forget(key, old)
        self._described[key] = described
        self._entries.update(described.entries)
        for address, name in described.pointers.items():
            self._pointers.setdefault(address, {})[key] = name
        self._put_behind(key, old, described)
        return True

    def drop(self, key: str) -> bool:
        """Forget the Service; whether there was one."""
        old = self._described.pop(key, None)
        if old is None:
            return False
        self._forget(key, old)
        self._put_behind(key, old, None)
        return True

    def _forget(self, key: str, old: Described) -> None:
        for name in old.entries:
            self._entries.pop(name, None)
        for address in old.pointers:
            names = self._pointers[address]
            del names[key]
            if not names:
                del self._pointers[address]

    def _put_behind(self, key: str, old: Described | None, new: Described | None) -> None:
        """Note which addresses are behind the Service, and which no longer are."""
        was = old.addresses() if old is not None else set()
        now = new.addresses() if new is not None else set()
        for address in was - now:
            if left := tuple(other for other in self._behind[address] if other != key):
                self._behind[address] = left
            else:
                del self._behind[address]
        alone = (key,)  # one object for all: most addresses are behind one Service
        for address in now - was:
            others = self._behind.get(address)
            self._behind[address] = tuple(sorted((*others, key))) if others else alone

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
        if address in self._pointers or address in self._behind:
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
            case [*more, label, _, "pod"] if len(more) <= _BEFORE_PODS:
                address = address_in_label(label)
                return Entry((address,)) if address else None
            case [label, service, namespace, "svc"]:
                if (described := self._described.get(f"{namespace}/{service}")) is None:
                    return None
                return described.endpoint(label, f"{service}.{namespace}.svc{self._suffix}")
            case [port, protocol, service, namespace, "svc"]:
                return self._find_port(port, protocol, f"{service}.{namespace}.svc{self._suffix}")
        return None

    def _find_port(self, port: str, protocol: str, service: str) -> Entry | None:
        """A port whose name is asked for without underscores; of an alias any may be asked for."""
        above = self._entries.get(service)
        if above is not None and above.alias:
            return NOTHING
        port, protocol = port.removeprefix("_"), protocol.removeprefix("_")
        return self._entries.get(f"_{port}._{protocol}.{service}")

    def names_of(self, name: str) -> tuple[str, ...] | None:
        """The names of the address that ``name``, below ``arpa``, means; None for nobody's.

        Those of a Service's own address; else of each endpoint that has it, and host names come
        first: many clients read no more than one.
        """
        address = reversed_address(name)
        if address is None:
            return None
        if own := self._pointers.get(address):
            return tuple(dict.fromkeys(own.values()))
        hosts: list[str] = []
        others: list[str] = []
        for key in self._behind.get(address, ()):
            namespace, _, service = key.partition("/")
            described = self._described[key]
            for label in described.labels(address):
                found = hosts if label in described.hosts.get(address, ()) else others
                found.append(f"{label}.{service}.{namespace}.svc{self._suffix}")
        return (*hosts, *others) or None

    def name_servers(self) -> tuple[str, ...]:
        """Names of the name server: those of the Service at whose addresses it is asked."""
        own = (self._pointers.get(address, {}).values() for address in self.servers)
        return tuple(dict.fromkeys(chain.from_iterable(own))) or (f"ns.dns.{self.domain}",)
