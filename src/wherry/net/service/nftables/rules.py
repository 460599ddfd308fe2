"""The rules around the maps, as text for nft. They are the same whatever Services there are.

Only the chains that draw an endpoint come and go with how many there are (``choosing``): these are
made of the kernel's own expressions, as they must come with the elements that lead there.
"""

from __future__ import annotations

import functools
import ipaddress
import zlib
from collections.abc import Sequence

from wherry.net.nftables.expressions import (
    NETWORK,
    TRANSPORT,
    Chain,
    Expression,
    forget,
    lead_to,
    load_mark,
    load_payload,
    load_protocol,
    look_up,
    only_mark,
    remember,
    set_mark,
    take_turn,
)

# Which endpoint was drawn passes from rule to rule on the packet's mark, in a range that others are
# unlikely to use; ``unmark`` takes it off again before the packet leaves. The bits below: whether
# it is a number of affinity or an index, whether endpoints must see this machine in place of the
# client, and whether the client was one of inside where others are treated otherwise.
MARKS, MARKS_MASK = 0x57000000, 0xFF000000
NUMBERED, MASKED, INSIDE = 0x800000, 0x400000, 0x200000
LAST_NUMBER = INSIDE - 1

# How endpoints are drawn for a frontend, and what that puts on the mark.
KINDS = {"open": 0, "masked": MASKED, "inside": INSIDE}

_NODE_KEY = "meta l4proto . th dport"
_LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1"}


def service_key(family: str) -> str:
    """The expression that finds a packet's frontend."""
    return f"{family} daddr . meta l4proto . th dport"


def version(family: str, pods: Sequence[str]) -> str:
    """The chain that says which rules a table has; rules of another version are not built upon."""
    text = frame("", family, (), pods, "")
    text += "".join(repr(choosing(family, chain)) for chain in _EXAMPLES)
    return f"version-{zlib.crc32(text.encode()):08x}"


_EXAMPLES = ("choose-2-open-0", "choose-2-open-0-sticky-9", "node-choose-2-open-0-sticky-9")


def whole(table: str, family: str, services: Sequence[str], pods: Sequence[str]) -> str:
    """The script that puts an empty table in the place of what is there."""
    name = f"table {family} {table}"
    marker = version(family, pods)
    return f"{name}\ndelete {name}\n" + frame(table, family, services, pods, marker)


def ranges(table: str, family: str, services: Sequence[str]) -> str:
    """The script that lets ``services`` be the ranges of cluster IPs."""
    script = f"flush set {family} {table} ranges\n"
    if services:
        script += f"add element {family} {table} ranges {{ {_joined(services)} }}\n"
    return script


def _joined(cidrs: Sequence[str]) -> str:
    """Ranges that do not overlap, as those of a set must be."""
    networks = [ipaddress.ip_network(cidr) for cidr in cidrs]
    return ", ".join(map(str, ipaddress.collapse_addresses(networks)))  # type: ignore[type-var]


def frame(
    table: str, family: str, services: Sequence[str], pods: Sequence[str], marker: str
) -> str:
    """The table without a service in it."""
    address = "ipv6_addr" if family == "ip6" else "ipv4_addr"
    key = f"{address} . inet_proto . inet_service"
    node_key = "inet_proto . inet_service"
    target = f"{address} . inet_service"
    loopback = _LOOPBACK[family]
    # Nothing that was sent to ::1 can leave by another link and find back: it is relayed.
    local = "fib daddr type local" + (" ip6 daddr != ::1" if family == "ip6" else "")
    elements = f" elements = {{ {_joined(services)} }};" if services else ""
    from_pods = "\n".join(f"  {family} saddr {cidr} jump translate-inside" for cidr in pods)
    # Who comes from neither a pod nor this machine knows no way back from a pod but through here.
    strangers = "".join(f" {family} saddr != {cidr}" for cidr in pods)
    version_chain = f" chain {marker} {{ }}\n" if marker else ""
    return f"""table {family} {table} {{
 set transports {{ type inet_proto; elements = {{ tcp, udp, sctp }}; }}
 map services {{ type {key} : mark; }}
 map inside-services {{ type {key} : mark; }}
 map node-services {{ type {node_key} : mark; }}
 map inside-node-services {{ type {node_key} : mark; }}
 map endpoints {{ type {key} . mark : {target}; }}
 map node-endpoints {{ type {node_key} . mark : {target}; }}
 map choices {{ type {key} . mark : mark; }}
 map node-choices {{ type {node_key} . mark : mark; }}
 map numbers {{ type mark : {target}; }}
 map affinity {{
  type {address} . {key} : mark
  flags dynamic,timeout; size 262144;
 }}
 map node-affinity {{
  type {address} . {node_key} : mark
  flags dynamic,timeout; size 262144;
 }}
 map classes {{ type mark : verdict; }}
 set refused {{ type {key}; }}
 set dropped {{ type {key}; }}
 set node-refused {{ type {node_key}; }}
 set node-dropped {{ type {node_key}; }}
 set hairpin {{ type {address} . {address}; }}
 set guarded {{ type {key}; }}
 set sources {{ type {key} . {address}; flags interval; }}
 set loopback-links {{ type ifname; }}
 set ranges {{ type {address}; flags interval;{elements} }}
{version_chain}
 chain translate {{
{from_pods}
  fib saddr type local jump translate-inside
  meta mark set {service_key(family)} map @services meta mark vmap @classes
  {local} meta mark set {_NODE_KEY} map @node-services meta mark vmap @classes
 }}
 chain translate-inside {{
  meta mark set {service_key(family)} map @inside-services meta mark vmap @classes
  {local} meta mark set {_NODE_KEY} map @inside-node-services meta mark vmap @classes
 }}
 chain refuse {{
  meta l4proto tcp reject with tcp reset
  reject
 }}
 chain without-endpoints {{
  ct status dnat return
  {service_key(family)} @refused goto refuse
  {service_key(family)} @dropped drop
  fib daddr type local {_NODE_KEY} @node-refused goto refuse
  fib daddr type local {_NODE_KEY} @node-dropped drop
  {family} daddr @ranges goto refuse
 }}
 chain guard {{
  {service_key(family)} . {family} saddr @sources return
  {service_key(family)} @guarded drop
 }}
 chain prerouting-loopback {{
  type filter hook prerouting priority -300
  iifname @loopback-links {family} daddr {loopback} drop
 }}
 chain prerouting-guard {{
  type filter hook prerouting priority -110
  ct state new,untracked jump guard
 }}
 chain output-guard {{
  type filter hook output priority -110
  ct state new,untracked jump guard
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
  meta mark & {MARKS_MASK} == {MARKS} jump return-through-here
 }}
 chain unmark {{
  type filter hook postrouting priority 110
  meta mark & {MARKS_MASK} == {MARKS} meta mark set 0
 }}
 chain return-through-here {{
  meta mark & {MASKED} == {MASKED} masquerade
  meta mark & {INSIDE} == {INSIDE} fib saddr type local masquerade
  {family} saddr . {family} daddr @hairpin masquerade
  {family} saddr {loopback} oifname != "lo" masquerade
  ct original {family} daddr @ranges{strangers} fib saddr type != local masquerade
 }}
}}
"""


def chain_name(kind: str, count: int, slot: int, affinity: int, *, node: bool) -> str:
    """The chain that draws one of ``count`` endpoints; all it does follows from its name."""
    sticky = f"-sticky-{affinity}" if affinity else ""
    return f"{'node-' if node else ''}choose-{count}-{kind}-{slot}{sticky}"


@functools.lru_cache(4096)
def choosing(family: str, chain: str) -> Chain:
    """The chain of that name."""
    words = chain.removeprefix("node-").split("-")
    node, count, bits = chain.startswith("node-"), int(words[1]), KINDS[words[2]]
    turn = [take_turn(1, count, MARKS + bits), set_mark(1)]
    # A packet that comes this far while there is a change may draw an endpoint that is not there
    # any more. It gets the first one then: no one shall be refused who could be served.
    first = [take_turn(1, 1, MARKS + bits), set_mark(1)]
    if "sticky" in words:
        return Chain(family, chain, _with_affinity(family, node, turn, first, int(words[-1])))
    container = "node-endpoints" if node else "endpoints"
    if node:
        loads = [load_protocol(1), load_payload(TRANSPORT, 2, 2, 9), load_mark(10)]
    elif family == "ip":
        loads = [
            load_payload(NETWORK, 16, 4, 1),
            load_protocol(9),
            load_payload(TRANSPORT, 2, 2, 10),
            load_mark(11),
        ]
    else:
        loads = [
            load_payload(NETWORK, 24, 16, 1),
            load_protocol(2),
            load_payload(TRANSPORT, 2, 2, 13),
            load_mark(14),
        ]
    to = lead_to(family, 1, 9 if family == "ip" else 2)
    transport = [load_protocol(1), look_up("transports", 1)]
    led = [*transport, *loads, look_up(container, 1, 1), to]
    return Chain(family, chain, (turn, led, first, led))


def _with_affinity(
    family: str, node: bool, turn: list[Expression], first: list[Expression], seconds: int
) -> list[list[Expression]]:
    """The rules for clients who keep what they were given.

    They are what nft makes of such rules, so that it can list them: it ends with an assertion where
    it cannot. But nft 1.0.6 cannot make those of IPv6, as it runs out of registers; of those of
    four bytes there are enough.
    """
    prefix = "node-" if node else ""
    affinity = f"{prefix}affinity"
    words = 1 if family == "ip" else 4  # of an address
    source, destination = (12, 16) if family == "ip" else (8, 24)

    def key(*, with_client: bool) -> tuple[list[Expression], int]:
        """What loads it, and the first register that is free."""
        offsets = ([source] if with_client else []) + ([] if node else [destination])
        loads = [
            load_payload(NETWORK, offset, 4 * words, _register(n * words))
            for n, offset in enumerate(offsets)
        ]
        used = len(offsets) * words
        loads += [
            load_protocol(_register(used)),
            load_payload(TRANSPORT, 2, 2, _register(used + 1)),
        ]
        return loads, _register(used + 2)

    client, free = key(with_client=True)
    frontend, mark = key(with_client=False)
    keep = [*client, load_mark(free), remember(affinity, 1, free, seconds)]
    given = [
        load_protocol(1),
        look_up("transports", 1),
        load_mark(1),
        look_up("numbers", 1, 1),
        lead_to(family, 1, _register(words)),
    ]
    choice = [*frontend, load_mark(mark), look_up(f"{prefix}choices", 1, 1), set_mark(1)]
    numbered = only_mark(1, MARKS_MASK | NUMBERED, MARKS | NUMBERED)
    unnumbered = only_mark(1, MARKS_MASK | NUMBERED, MARKS)
    return [
        [*client, look_up(affinity, 1, 1), set_mark(1)],
        # Keeping an endpoint is counted from the client's last connection.
        [*numbered, *keep],
        given,
        turn,
        choice,
        [*unnumbered, *first],
        [*unnumbered, *choice],
        # What a client was given before has gone, or it would not have come this far.
        [*client, load_mark(free), forget(affinity, 1, free)],
        keep,
        given,
        first,
        choice,
        given,
    ]


def _register(word: int) -> int:
    """The one that begins at that word: nft names those of 16 bytes where it can."""
    return word // 4 + 1 if word % 4 == 0 else word + 8
