"""The firewall's rules as text for nft: what they are, and how they change. Nothing is done here.

Two tables of one name, of the families ip and ip6, have the same rules, and these never change
while networks and containers come and go: what is published, and what each network may, are
elements of maps and sets.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FAMILIES = ("ip", "ip6")
PUBLISHED, PUBLISHED_AT = "published", "published-at"
# Family, name of a map or set, and a key in it, as nft writes them.
Element = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Segment:
    """A network on a bridge, as the rules see it.

    ``ranges`` are behind the bridge. Its containers reach each other with ``icc``; the outside
    unless it is ``internal``, from the ``masked`` ranges with an address of this machine. The
    outside reaches them by published ports alone unless it is ``exposed``.
    """

    bridge: str
    ranges: tuple[str, ...]
    masked: tuple[str, ...] = ()
    icc: bool = True
    internal: bool = False
    exposed: bool = False

    def elements(self) -> Iterator[Element]:
        """What the sets hold of it."""
        for family in FAMILIES:
            name = f'"{self.bridge}"'
            yield family, "bridges", name
            if self.icc:
                yield family, "together", f"{name} . {name}"
            if self.internal:
                yield family, "internal", name
            if not self.exposed:
                yield family, "guarded", name
        for cidr in self.ranges:
            yield _family(cidr), "inside", cidr
        for cidr in self.masked if not self.internal else ():
            yield _family(cidr), "masked", cidr


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A port of the host that leads to a port of a container.

    ``host_ip`` is the address of the host that has it, ``0.0.0.0``, ``::`` or empty for all of
    the kind that the container's address is of. A binding that is ``routed`` only lets the
    outside through to the container's own address.
    """

    protocol: str  # tcp, udp, sctp
    host_ip: str
    host_port: int
    container_ip: str
    container_port: int
    routed: bool = False

    @property
    def family(self) -> str:
        """That of the host's address, and of the table that has it."""
        return _family(self.host_ip or self.container_ip)

    @property
    def translated(self) -> bool:
        """Whether the kernel can lead there; otherwise it must be relayed."""
        return self.family == _family(self.container_ip)

    @property
    def relayed(self) -> bool:
        """Whether something of what arrives must be relayed: see ``relay``."""
        local = self.family == "ip6" and self.host_ip in ("", "::", "::1")
        return not self.routed and (local or not self.translated)

    @property
    def any_address(self) -> str:
        """What stands for all addresses of the host."""
        return "::" if self.family == "ip6" else "0.0.0.0"

    @property
    def on_all_addresses(self) -> bool:
        """Whether it is on every address of the host."""
        return self.host_ip in ("", self.any_address)

    @property
    def element(self) -> Element:
        """Where the rules look it up."""
        if self.routed:
            key = f"{self.container_ip} . {self.protocol} . {self.container_port}"
            return self.family, "opened", key
        key = f"{self.protocol} . {self.host_port}"
        if self.on_all_addresses:
            return self.family, PUBLISHED, key
        return self.family, PUBLISHED_AT, f"{self.host_ip} . {key}"

    @property
    def target(self) -> str:
        """What they find there; nothing in a set."""
        return "" if self.routed else f"{self.container_ip} . {self.container_port}"

    def __str__(self) -> str:
        host, container = (
            f"[{address}]" if ":" in address else address
            for address in (self.host_ip or self.any_address, self.container_ip)
        )
        return f"{host}:{self.host_port}:{container}:{self.container_port}/{self.protocol}"


def _family(address: str) -> str:
    return "ip6" if ":" in address else "ip"


# ---- changes


def adding(table: str, elements: Iterable[Element]) -> str:
    """The script that adds ``elements`` to sets; those that are there already stay."""
    return _changing("add", table, elements)


def removing(table: str, elements: Iterable[Element]) -> str:
    """The script that takes ``elements`` out of sets, whether they are there or not."""
    # An element that is not there cannot be deleted, but can be added before.
    listed = list(elements)
    return f"{_changing('add', table, listed)}\n{_changing('delete', table, listed)}"


def _changing(verb: str, table: str, elements: Iterable[Element]) -> str:
    together: dict[tuple[str, str], list[str]] = {}
    for family, name, key in elements:
        together.setdefault((family, name), []).append(key)
    return "\n".join(
        f"{verb} element {family} {table} {name} {{ {', '.join(keys)} }}"
        for (family, name), keys in together.items()
    )


def opening(table: str, elements: Mapping[Element, str], binding: PortBinding) -> str:
    """The script that publishes ``binding`` where the maps say ``elements``; empty if they do."""
    target = binding.target
    if not binding.translated or elements.get(binding.element) == target:
        return ""
    family, name, key = binding.element
    if binding.routed:
        return adding(table, [binding.element])
    script = [f"add element {family} {table} {name} {{ {key} : {target} }}"]
    if binding.element in elements:
        script.insert(0, f"delete element {family} {table} {name} {{ {key} }}")
    script.append(adding(table, [(family, "hairpin", _to_itself(target))]))
    return "\n".join(script)


def closing(table: str, elements: Mapping[Element, str], binding: PortBinding) -> str:
    """The script that takes ``binding`` back; empty where the maps lead elsewhere already."""
    target = binding.target
    if not binding.translated or elements.get(binding.element) != target:
        return ""
    family, name, key = binding.element
    script = [f"delete element {family} {table} {name} {{ {key} }}"]
    if binding.routed:
        return script[0]
    others = (value for element, value in elements.items() if element != binding.element)
    if all(_to_itself(other) != _to_itself(target) for other in others if other):
        script.append(f"delete element {family} {table} hairpin {{ {_to_itself(target)} }}")
    return "\n".join(script)


def _to_itself(target: str) -> str:
    """The pair of source and destination of a container that has come back to itself."""
    address = target.split(" . ", 1)[0]
    return f"{address} . {address}"


def read_elements(listed: Mapping[str, Any]) -> dict[Element, str]:
    """What is published, from libnftables' listing of the tables."""
    found: dict[Element, str] = {}
    for entry in listed["nftables"]:
        described = entry.get("map") or entry.get("set")
        if not described or described["name"] not in (PUBLISHED, PUBLISHED_AT, "opened"):
            continue
        for element in described.get("elem", ()):
            key, target = element if described["name"] != "opened" else (element, None)
            place = described["family"], described["name"], _joined(key)
            found[place] = _joined(target) if target else ""
    return found


def _joined(side: Mapping[str, Any]) -> str:
    return " . ".join(map(str, side["concat"]))


# ---- the whole


def tables_script(
    table: str,
    segments: Sequence[Segment],
    elements: Mapping[Element, str],
    *,
    unmasqueraded: Sequence[str],
    bridge_netfilter: bool,
) -> str:
    """Both tables, replacing the present ones in the same transaction."""
    held: dict[Element, None] = {}
    for segment in segments:
        held |= dict.fromkeys(segment.elements())
    held |= {
        (_family(cidr), "elsewhere", str(ipaddress.ip_network(cidr))): None
        for cidr in unmasqueraded
    }
    return "".join(
        _table_script(family, table, [*held], elements, bridge_netfilter=bridge_netfilter)
        for family in FAMILIES
    )


def _table_script(
    family: str,
    table: str,
    held: Sequence[Element],
    published: Mapping[Element, str],
    *,
    bridge_netfilter: bool,
) -> str:
    def filled(name: str) -> str:
        words = [key for where, set_, key in held if (where, set_) == (family, name)]
        for (where, map_, key), target in published.items():
            if (where, map_) == (family, name):
                words.append(f"{key} : {target}" if target else key)
            elif name == "hairpin" and where == family and target:
                words.append(_to_itself(target))
        text = ", ".join(dict.fromkeys(words))
        return f"elements = {{ {text} }};" if text else ""

    address = "ipv6_addr" if family == "ip6" else "ipv4_addr"
    loopback = "::1" if family == "ip6" else "127.0.0.0/8"
    # What goes to ::1 would not find its way back: it is relayed.
    local = "fib daddr type local" + (" ip6 daddr != ::1" if family == "ip6" else "")
    port = "inet_proto . inet_service"
    # Where bridged answers do not pass these rules, they would come from the wrong address: have
    # them go by way of this machine.
    masked = "" if bridge_netfilter else f"{family} saddr @inside ct status dnat masquerade"
    transport = "meta l4proto { tcp, udp, sctp }"
    return f"""\
add table {family} {table}
delete table {family} {table}
table {family} {table} {{
  map {PUBLISHED} {{
    type {port} : {address} . inet_service; {filled(PUBLISHED)}
  }}
  map {PUBLISHED_AT} {{
    type {address} . {port} : {address} . inet_service; {filled(PUBLISHED_AT)}
  }}
  set opened {{
    type {address} . {port}; {filled("opened")}
  }}
  set hairpin {{
    type {address} . {address}; {filled("hairpin")}
  }}
  set bridges {{
    type ifname; {filled("bridges")}
  }}
  set together {{
    type ifname . ifname; {filled("together")}
  }}
  set internal {{
    type ifname; {filled("internal")}
  }}
  set guarded {{
    type ifname; {filled("guarded")}
  }}
  set inside {{
    type {address}; flags interval; {filled("inside")}
  }}
  set masked {{
    type {address}; flags interval; {filled("masked")}
  }}
  set elsewhere {{
    type {address}; flags interval; auto-merge; {filled("elsewhere")}
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges {family} daddr {loopback} drop
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump publish
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    {local} jump publish
  }}
  chain publish {{
    {transport} dnat {family} to {family} daddr . meta l4proto . th dport map @{PUBLISHED_AT}
    {transport} dnat {family} to meta l4proto . th dport map @{PUBLISHED}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {family} saddr . {family} daddr @hairpin masquerade
    oifname @bridges {family} saddr {loopback} masquerade
    {masked}
    {family} saddr @masked {family} daddr != @inside {family} daddr != @elsewhere masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname . oifname @together accept
    iifname @internal drop
    oifname @internal drop
    ct state established,related accept
    ct status dnat accept
    {transport} {family} daddr . meta l4proto . th dport @opened accept
    iifname @bridges oifname @bridges drop
    oifname @guarded drop
  }}
}}
"""
