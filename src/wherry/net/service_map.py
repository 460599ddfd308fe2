"""Service addresses in nftables: data, not rules.

A cluster's services are elements of a few maps in one table of our own; the rules around them never
change. What a packet for a service address meets:

1. ``services`` (a verdict map) sends it by (address, protocol, port) to the chain for services with
   that many endpoints; ``node-services`` does so by (protocol, port) for the machine's addresses.
2. That chain draws an index, each in turn, and takes the endpoint from ``endpoints`` by
   (address, protocol, port, index).
3. A service with client affinity goes through ``affinity`` first, which remembers for a time the
   number of the endpoint a client was given. The number, not the address: an endpoint that leaves
   takes its number out of ``numbers``, and its clients are given another.
4. What is still addressed to the service range behind that has no endpoint, and is refused.

So a change costs a few elements in one transaction, however many services there are. A chain exists
per number of endpoints, times a few: the counter that gives the turns belongs to the chain, and two
services that shared it could fall into step, each always getting the same endpoint.

Connections of this machine need a route to the range before they meet the rules at all: it leads to
the loopback interface, with a source address that pods can answer. Nothing ever travels it, for the
packet is either translated and routed anew, or refused. Before it comes, and behind it, stands an
unreachable route (``net.routes``), so that no packet for a service leaves by the uplink.
"""

from __future__ import annotations

import errno
import ipaddress
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from wherry.net import netlink
from wherry.net.netlink import Connection, attribute

PROTOCOLS = ("tcp", "udp", "sctp")
COUNTERS = 16  # chains (each with a counter of its own) per number of endpoints, at most
# Indices and affinity numbers pass from rule to rule on the packet's mark, in a range that others
# are unlikely to use; ``unmark`` takes it off again before the packet leaves.
MARKS, MARKS_MASK = 0x57000000, 0xFF000000
FIRST_NUMBER = MARKS + 0x800000

_SERVICE_KEY = "ip daddr . meta l4proto . th dport"
_NODE_KEY = "meta l4proto . th dport"
_ROUTE_METRIC = 1024
_RTA_PREFSRC = 7
_LOOPBACK = 1  # the interface that the kernel numbers first in every network namespace
_TRANSPORT = "meta l4proto { tcp, udp, sctp }"


class Runner(Protocol):
    """What applies scripts: ``net.nft.Nftables``."""

    async def run(self, script: str) -> object:
        """Apply ``script`` as one transaction."""


@dataclass(frozen=True, slots=True)
class Frontend:
    """Where clients knock. Without an address: at any address of this machine (a node port)."""

    protocol: str  # tcp, udp, sctp
    port: int
    address: str = ""

    @property
    def key(self) -> str:
        """The frontend as the beginning of an element's key."""
        own = f"{self.protocol} . {self.port}"
        return f"{self.address} . {own}" if self.address else own


@dataclass(frozen=True, slots=True)
class Backend:
    """What answers there; without endpoints, nothing does, and clients are told so at once."""

    endpoints: tuple[tuple[str, int], ...] = ()
    affinity: int = 0  # seconds for which a client keeps its endpoint; 0: each connection anew
    masquerade: bool = False  # endpoints see this machine, not the client (whose way back it is)


@dataclass(frozen=True, slots=True)
class _Element:
    container: str
    key: str
    value: str = ""
    chain: str = ""  # to which the value leads

    def __str__(self) -> str:
        return f"{self.key} : {self.value}" if self.value else self.key


class ServiceMap:
    """The table as it is in the kernel, and the way to another state of it."""

    def __init__(self, runner: Runner, table: str, *, service_cidr: str, pod_cidr: str) -> None:
        self._runner = runner
        self._table = table
        self._service_cidr = service_cidr
        self._pod_cidr = pod_cidr
        self._current: dict[Frontend, Backend] | None = None
        self._elements: Counter[_Element] = Counter()
        self._chains: set[str] = set()
        self._numbers: dict[tuple[Frontend, tuple[str, int]], int] = {}
        self._next_number = FIRST_NUMBER

    async def apply(self, wanted: Mapping[Frontend, Backend]) -> None:
        """Make the kernel's table say ``wanted``, in one transaction.

        The first call replaces whatever a former process left in the table.

        Raises:
            NftError: the kernel refused; the next call begins from an empty table again.
        """
        script = self.replace(wanted) if self._current is None else self.change(wanted)
        if not script:
            return
        try:
            await self._runner.run(script)
        except BaseException:
            self._current = None
            raise

    async def remove(self) -> None:
        """Take the whole table away."""
        self._current = None
        await remove_table(self._runner, self._table)

    # pure: from what is to what shall be, as a script

    def replace(self, wanted: Mapping[Frontend, Backend]) -> str:
        """The script that makes the table anew, with ``wanted`` in it."""
        self._current, self._chains, self._numbers = {}, set(), {}
        self._elements.clear()
        head = f"table ip {self._table}\ndelete table ip {self._table}\n"
        return head + self._frame() + self.change(wanted)

    def change(self, wanted: Mapping[Frontend, Backend]) -> str:
        """The script that leads from the last state to ``wanted``; empty if that is the same."""
        current = self._current if self._current is not None else {}
        before: Counter[_Element] = Counter()
        after: Counter[_Element] = Counter()
        gone: list[tuple[Frontend, tuple[str, int]]] = []
        for frontend, backend in current.items():
            new = wanted.get(frontend)
            if new == backend:
                continue
            before.update(self._elements_of(frontend, backend))
            kept = new.endpoints if new is not None else ()
            gone += [(frontend, end) for end in backend.endpoints if end not in kept]
        for frontend, backend in wanted.items():
            if current.get(frontend) != backend:
                after.update(self._elements_of(frontend, backend))
        deleted, added = [], []
        for element in before.keys() | after.keys():
            was = self._elements[element]
            count = was - before[element] + after[element]
            if was and not count:
                deleted.append(element)
            elif count and not was:
                added.append(element)
            if count:
                self._elements[element] = count
            else:
                del self._elements[element]
        for owner in gone:
            self._numbers.pop(owner, None)
        self._current = dict(wanted)
        return "".join(
            (
                *self._statements("delete", deleted),
                *self._new_chains(added),
                *self._statements("add", added),
            )
        )

    def _elements_of(self, frontend: Frontend, backend: Backend) -> Iterator[_Element]:
        node = "" if frontend.address else "node-"
        key = frontend.key
        count = len(backend.endpoints)
        if backend.masquerade:
            port = f"{frontend.address} . {frontend.port}" if frontend.address else frontend.port
            yield _Element(f"{node}masqueraded-{frontend.protocol}", str(port))
        if not count:
            if frontend.address:
                yield _Element("refused", key)
            return
        slot = zlib.crc32(key.encode()) % COUNTERS
        sticky = f"-sticky-{backend.affinity}" if backend.affinity else ""
        chain = f"{node}choose-{count}{sticky}-{slot}"
        yield _Element(f"{node}services", key, f"goto {chain}", chain)
        for index, (address, port) in enumerate(backend.endpoints):
            endpoint = f"{address} . {port}"
            if backend.affinity:
                number = self._number(frontend, (address, port))
                yield _Element("numbers", str(number), endpoint)
                yield _Element(f"{node}choices", f"{key} . {MARKS + index}", str(number))
            else:
                yield _Element(f"{node}endpoints", f"{key} . {MARKS + index}", endpoint)
            yield _Element("hairpin", f"{address} . {address}")

    def _number(self, frontend: Frontend, endpoint: tuple[str, int]) -> int:
        number = self._numbers.get((frontend, endpoint))
        if number is None:
            number = self._numbers[frontend, endpoint] = self._next_number
            self._next_number += 1
        return number

    def _statements(self, verb: str, elements: Iterable[_Element]) -> Iterator[str]:
        by_container: dict[str, list[str]] = {}
        for element in elements:
            # A deletion names the key alone.
            text = str(element) if verb == "add" else element.key
            by_container.setdefault(element.container, []).append(text)
        for container, texts in sorted(by_container.items()):
            body = ",\n ".join(sorted(texts))
            yield f"{verb} element ip {self._table} {container} {{ {body} }}\n"

    def _new_chains(self, added: Iterable[_Element]) -> Iterator[str]:
        for chain in sorted({element.chain for element in added} - self._chains - {""}):
            self._chains.add(chain)
            rules = "\n".join(f"  {rule}" for rule in _choosing_rules(chain))
            yield f"table ip {self._table} {{\n chain {chain} {{\n{rules}\n }}\n}}\n"

    def _frame(self) -> str:
        services, pods = self._service_cidr, self._pod_cidr
        # A set a protocol: nft knows what ``proto-dst`` is only within one.
        masqueraded = "\n".join(
            f" set masqueraded-{protocol} {{ type ipv4_addr . inet_service; }}\n"
            f" set node-masqueraded-{protocol} {{ type inet_service; }}"
            for protocol in PROTOCOLS
        )
        port = "ct original proto-dst"
        masquerading = "\n".join(
            f"  meta l4proto {protocol} ct original ip daddr . {port} @masqueraded-{protocol}"
            " masquerade\n"
            f"  meta l4proto {protocol} {port} @node-masqueraded-{protocol} masquerade"
            for protocol in PROTOCOLS
        )
        return f"""table ip {self._table} {{
 map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
 map node-services {{ type inet_proto . inet_service : verdict; }}
 map endpoints {{
  type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service
 }}
 map node-endpoints {{ type inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
 map choices {{ type ipv4_addr . inet_proto . inet_service . mark : mark; }}
 map node-choices {{ type inet_proto . inet_service . mark : mark; }}
 map numbers {{ type mark : ipv4_addr . inet_service; }}
 map affinity {{
  type ipv4_addr . ipv4_addr . inet_proto . inet_service : mark
  flags dynamic,timeout; size 262144;
 }}
 map node-affinity {{
  type ipv4_addr . inet_proto . inet_service : mark
  flags dynamic,timeout; size 262144;
 }}
 set hairpin {{ type ipv4_addr . ipv4_addr; }}
{masqueraded}
 set refused {{ type ipv4_addr . inet_proto . inet_service; }}

 chain translate {{
  {_SERVICE_KEY} vmap @services
  fib daddr type local {_NODE_KEY} vmap @node-services
 }}
 chain refuse {{
  meta l4proto tcp reject with tcp reset
  reject
 }}
 chain without-endpoints {{
  ip daddr {services} goto refuse
  {_SERVICE_KEY} @refused goto refuse
 }}
 chain prerouting {{
  type nat hook prerouting priority -100
  jump translate
 }}
 chain output {{
  type nat hook output priority -100
  jump translate
 }}
 chain prerouting-refuse {{
  type filter hook prerouting priority -90
  ct state new,untracked jump without-endpoints
 }}
 chain output-refuse {{
  type filter hook output priority -90
  ct state new,untracked jump without-endpoints
 }}
 chain postrouting {{
  type nat hook postrouting priority 100
  ct status dnat jump return-through-here
 }}
 chain unmark {{
  type filter hook postrouting priority 110
  meta mark & {MARKS_MASK} == {MARKS} meta mark set 0
 }}
 chain return-through-here {{
  ip saddr . ip daddr @hairpin masquerade
{masquerading}
  ct original ip daddr {services} ip saddr 127.0.0.0/8 masquerade
  ct original ip daddr {services} ip saddr != {pods} fib saddr type != local masquerade
 }}
}}
"""


def _choosing_rules(chain: str) -> list[str]:
    """The rules of a chain, which its name describes: ``[node-]choose-<n>[-sticky-<s>]-<slot>``."""
    node = chain.startswith("node-")
    words = chain.removeprefix("node-").split("-")
    prefix, key = ("node-", _NODE_KEY) if node else ("", _SERVICE_KEY)
    turn = f"meta mark set numgen inc mod {words[1]} offset {MARKS}"
    if words[2] != "sticky":
        chosen = f"{key} . meta mark map @{prefix}endpoints"
        return [turn, f"{_TRANSPORT} dnat ip to {chosen}"]
    client = f"ip saddr . {key}"
    given = f"{_TRANSPORT} dnat ip to meta mark map @numbers"
    return [
        f"meta mark set {client} map @{prefix}affinity",
        given,
        turn,
        f"meta mark set {key} . meta mark map @{prefix}choices",
        # What a client was given before has gone, or it would not have come this far.
        f"delete @{prefix}affinity {{ {client} : meta mark }}",
        f"update @{prefix}affinity {{ {client} timeout {words[3]}s : meta mark }}",
        given,
    ]


async def remove_table(runner: Runner, table: str) -> None:
    """Take ``table`` away; no error where there is none."""
    await runner.run(f"table ip {table}\ndelete table ip {table}\n")


def add_service_route(service_cidr: str, source: str) -> None:
    """Let this machine's own connections to the range come as far as the rules (blocking).

    ``source`` is one of the machine's addresses, the one that endpoints will see and answer.

    Raises:
        OSError: the kernel refuses (EINVAL: ``source`` is no address of this machine).
    """
    with Connection() as connection:
        body = _service_route(service_cidr, source)
        connection.change(netlink.RTM_NEWROUTE, body, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE)


def remove_service_route(service_cidr: str) -> None:
    """Take that route away (blocking); no error where there is none.

    Raises:
        OSError: the kernel refuses.
    """
    with Connection() as connection:
        try:
            connection.change(netlink.RTM_DELROUTE, _service_route(service_cidr))
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise


def _service_route(service_cidr: str, source: str = "") -> bytes:
    network = ipaddress.IPv4Network(service_cidr)
    parts = [
        attribute(netlink.RTA_DST, network.network_address.packed),
        attribute(netlink.RTA_PRIORITY, _ROUTE_METRIC),
        attribute(netlink.RTA_OIF, _LOOPBACK),
    ]
    if source:
        parts.append(attribute(_RTA_PREFSRC, ipaddress.IPv4Address(source).packed))
    return netlink.route(*parts, prefix_length=network.prefixlen)
