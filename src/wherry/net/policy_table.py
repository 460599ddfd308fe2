"""Which connections pods may have, as an nftables table of its own.

What is judged is the connection, not the packet: who asked (the source of its first packet, before
anything was translated) and who answers (where it led in the end, behind the addresses of
services). So both directions meet the same verdict, replies need no rule of their own, and a
connection that is no longer allowed ends with the change that forbids it.

1. ``egress`` looks the asking address up in a map, ``ingress`` the answering one. Pods that no
   policy isolates are in neither and pass.
2. The map leads to a chain for the combination of policies that select the pod. It jumps to the
   chain of each policy in turn and drops what none of them let through.
3. A policy's chain lets through by sets: addresses of the pods that a selector means, ranges,
   pairs of address and port for ports with names. So a pod that comes or goes changes elements,
   and a policy its own chain.

Only what is forwarded is judged: this machine itself always reaches its pods, and they it. What is
bridged is forwarded, too, where the kernel passes it through the rules (``link.links``). Only the
cluster's name server, which this machine has as well, is a pod to those who ask it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from wherry.net.nftables.nft import Runner

BASES = (
    "ingress4",
    "ingress6",
    "egress4",
    "egress6",
    "itself4",
    "itself6",
    "isolated4",
    "isolated6",
    "names4",
    "names6",
)
"""Maps and sets that are always there: from an address to the chain that judges it; pairs of an
address with itself, for a pod may always reach itself; every address that is isolated; and where
the name server is."""

_TYPES = {"peers": "", "blocks": "", "named": " . inet_service"}


@dataclass(frozen=True, slots=True)
class Allow:
    """A rule that lets connections through.

    ``family`` is 4, 6, or 0 where no address matters. ``peers`` is the set in which the other
    side must be, ``named`` the one in which the answering address and port must be; ``ports`` are
    ranges of ``protocol``. What is empty does not matter.
    """

    ingress: bool
    family: int = 0
    peers: str = ""
    protocol: str = ""
    ports: tuple[tuple[int, int], ...] = ()
    named: str = ""

    def __str__(self) -> str:
        address = "ip6 saddr" if self.family == 6 else "ip saddr"
        words = []
        if self.peers:
            side = "original" if self.ingress else "reply"
            words.append(f"ct {side} {address} @{self.peers}")
        if self.protocol:
            words.append(f"meta l4proto {self.protocol}")
        if self.ports:
            ports = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in self.ports)
            words.append(f"ct reply proto-src {{ {ports} }}")
        if self.named:
            words.append(f"ct reply {address} . ct reply proto-src @{self.named}")
        return " ".join((*words, "accept"))


@dataclass(slots=True)
class Rules:
    """What the table says.

    ``sets`` holds elements by the names of sets and maps (with nothing in sets); ``policies`` the
    rules of each policy's chain; ``combinations`` the chains of policies that each combination
    jumps to. The first word of a set's name says what it holds.
    """

    sets: dict[str, dict[str, str]] = field(default_factory=lambda: {name: {} for name in BASES})
    policies: dict[str, tuple[Allow, ...]] = field(default_factory=dict)
    combinations: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Touched:
    """What may be others than before: elements by sets, and chains."""

    sets: dict[str, set[str]] = field(default_factory=dict)
    policies: set[str] = field(default_factory=set)
    combinations: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.sets or self.policies or self.combinations)


class PolicyTable:
    """The table as it is in the kernel, and the way to another state of it."""

    def __init__(self, runner: Runner, table: str) -> None:
        self._runner = runner
        self._table = table
        self._held: Rules | None = None

    async def apply(self, rules: Rules, touched: Touched) -> None:
        """Make the kernel's table say ``rules``, where it differs at most by what is ``touched``.

        The first call replaces whatever a former process left in the table, all in one transaction.

        Raises:
            NftError: the kernel refused; the next call replaces all.
        """
        script = self.replace(rules) if self._held is None else self.change(rules, touched)
        if not script:
            return
        try:
            await self._runner.run(script)
        except BaseException:
            self._held = None
            raise

    async def remove(self) -> None:
        """Take the whole table away; no error where there is none."""
        self._held = None
        await remove_table(self._runner, self._table)

    # pure: from what is to what shall be, as a script

    def replace(self, rules: Rules) -> str:
        """The script that makes the table anew, with ``rules`` in it."""
        self._held = Rules()
        everything = Touched(
            {name: set(elements) for name, elements in rules.sets.items()},
            set(rules.policies),
            set(rules.combinations),
        )
        table = f"table inet {self._table}"
        return f"{table}\ndelete {table}\n{_frame(self._table)}{self.change(rules, everything)}"

    def change(self, rules: Rules, touched: Touched) -> str:
        """The script that leads from the last state to ``rules``; empty if that is the same."""
        held = self._held if self._held is not None else Rules()
        new = [s for s in touched.sets if s in rules.sets and s not in held.sets]
        old = [s for s in touched.sets if s in held.sets and s not in rules.sets]
        deleted: dict[str, list[str]] = {}
        added: dict[str, list[str]] = {}
        for name, keys in touched.sets.items():
            if name in rules.sets:
                _compare(held.sets.get(name, {}), rules.sets[name], keys, name, deleted, added)
        came, went = _compared(held.policies, rules.policies, touched.policies)
        joined, left = _compared(held.combinations, rules.combinations, touched.combinations)
        script = [
            *(self._set(name) for name in sorted(new)),
            *self._elements("delete", deleted),
            *(self._elements("add", {n: k for n, k in added.items() if n not in _MAPS})),
            *self._chains(
                "add", [*came - held.policies.keys(), *joined - held.combinations.keys()]
            ),
            *self._chains("flush", [*left, *went, *came & held.policies.keys()]),
            *self._chains("flush", joined & held.combinations.keys()),
            *self._rules({name: list(map(str, rules.policies[name])) for name in came}),
            *self._rules({name: _combined(rules.combinations[name]) for name in joined}),
            *self._elements("add", {n: k for n, k in added.items() if n in _MAPS}),
            *self._chains("delete", left),
            *self._chains("delete", went),
            *(f"delete set inet {self._table} {name}" for name in sorted(old)),
        ]
        self._note(held, rules, touched)
        return "".join(f"{line}\n" for line in script)

    @staticmethod
    def _note(held: Rules, rules: Rules, touched: Touched) -> None:
        for name, keys in touched.sets.items():
            if name not in rules.sets:
                held.sets.pop(name, None)
                continue
            elements, wanted = held.sets.setdefault(name, {}), rules.sets[name]
            for key in keys:
                if key in wanted:
                    elements[key] = wanted[key]
                else:
                    elements.pop(key, None)
        for policy in touched.policies:
            held.policies.pop(policy, None)
            if policy in rules.policies:
                held.policies[policy] = rules.policies[policy]
        for combination in touched.combinations:
            held.combinations.pop(combination, None)
            if combination in rules.combinations:
                held.combinations[combination] = rules.combinations[combination]

    def _set(self, name: str) -> str:
        kind = name.partition("-")[0]
        address = "ipv6_addr" if kind.endswith("6") else "ipv4_addr"
        flags = " flags interval;" if kind.startswith("blocks") else ""
        return f"add set inet {self._table} {name} {{ type {address}{_TYPES[kind[:-1]]};{flags} }}"

    def _elements(self, verb: str, elements: Mapping[str, list[str]]) -> Iterator[str]:
        for name, texts in sorted(elements.items()):
            body = ", ".join(sorted(texts))
            yield f"{verb} element inet {self._table} {name} {{ {body} }}"

    def _chains(self, verb: str, names: Iterable[str]) -> Iterator[str]:
        for name in sorted(names):
            yield f"{verb} chain inet {self._table} {name}"

    def _rules(self, chains: Mapping[str, Collection[str]]) -> Iterator[str]:
        for name, rules in sorted(chains.items()):
            for rule in rules:
                yield f"add rule inet {self._table} {name} {rule}"


_MAPS = ("ingress4", "ingress6", "egress4", "egress6")


def _compare(
    held: Mapping[str, str],
    wanted: Mapping[str, str],
    keys: Collection[str],
    name: str,
    deleted: dict[str, list[str]],
    added: dict[str, list[str]],
) -> None:
    for key in keys:
        was, shall = held.get(key), wanted.get(key)
        if was == shall:
            continue
        if was is not None:
            deleted.setdefault(name, []).append(key)
        if shall is not None:
            added.setdefault(name, []).append(f"{key} : goto {shall}" if shall else key)


def _compared(
    held: Mapping[str, object], wanted: Mapping[str, object], names: Collection[str]
) -> tuple[set[str], set[str]]:
    """The chains that are to be filled, and those that are to go."""
    fill = {n for n in names if n in wanted and held.get(n) != wanted[n]}
    return fill, {n for n in names if n in held and n not in wanted}


def _combined(policies: Collection[str]) -> list[str]:
    return [*(f"jump {policy}" for policy in policies), "drop"]


def _frame(table: str) -> str:
    # Neighbours that ask for each other's hardware addresses are no connection.
    neighbours = (
        "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, "
        "nd-neighbor-advert } accept"
    )
    return f"""table inet {table} {{
 map ingress4 {{ type ipv4_addr : verdict; }}
 map ingress6 {{ type ipv6_addr : verdict; }}
 map egress4 {{ type ipv4_addr : verdict; }}
 map egress6 {{ type ipv6_addr : verdict; }}
 set itself4 {{ type ipv4_addr . ipv4_addr; }}
 set itself6 {{ type ipv6_addr . ipv6_addr; }}
 set isolated4 {{ type ipv4_addr; }}
 set isolated6 {{ type ipv6_addr; }}
 set names4 {{ type ipv4_addr; }}
 set names6 {{ type ipv6_addr; }}
 chain always {{
  {neighbours}
  ct state related meta l4proto {{ icmp, icmpv6 }} accept
  ct original ip saddr . ct reply ip saddr @itself4 accept
  ct original ip6 saddr . ct reply ip6 saddr @itself6 accept
 }}
 chain untracked {{
  ip saddr @isolated4 drop
  ip daddr @isolated4 drop
  ip6 saddr @isolated6 drop
  ip6 daddr @isolated6 drop
 }}
 chain egress {{
  type filter hook forward priority filter - 6; policy accept;
  jump always
  ct state invalid,untracked jump untracked
  ct original ip saddr vmap @egress4
  ct original ip6 saddr vmap @egress6
 }}
 chain ingress {{
  type filter hook forward priority filter - 5; policy accept;
  jump always
  ct reply ip saddr vmap @ingress4
  ct reply ip6 saddr vmap @ingress6
 }}
 chain names {{
  type filter hook input priority filter - 6; policy accept;
  meta l4proto != {{ tcp, udp }} accept
  th dport != 53 accept
  ip daddr @names4 ct original ip saddr vmap @egress4
  ip6 daddr @names6 ct original ip6 saddr vmap @egress6
 }}
}}
"""


async def remove_table(runner: Runner, table: str) -> None:
    """Take ``table`` away; no error where there is none."""
    await runner.run(f"table inet {table}\ndelete table inet {table}\n")
