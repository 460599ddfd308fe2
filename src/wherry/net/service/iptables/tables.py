"""Services in iptables as they are in the kernel, and the way to another state of them.

Of what a former process left the chains are written anew that are not what they should be, as one
transaction a table. From then on the chains and the rules are changed that a Service's change
concerns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from wherry.net.conntrack import tcp_window
from wherry.net.service import local_routing
from wherry.net.service.iptables import chains, programs
from wherry.net.service.iptables.chains import Chain, Names, Part, Rules
from wherry.net.service.iptables.programs import Change
from wherry.net.service.ports import FAMILIES, Key, ServicePort, of_family


class IptablesServices:
    """The chains of our beginning in the tables of iptables.

    Args:
        names: what our chains are called.
        services: ranges of cluster IPs, of either family.
        pods: the range of all pods of the cluster, of either family.
    """

    def __init__(self, names: Names, *, services: Sequence[str], pods: Sequence[str]) -> None:
        self._names = names
        self._services = services
        self._pods = pods
        self._current: dict[Key, ServicePort] | None = None
        self._families: set[str] = set()
        self._links: list[str] = []
        self._liberal = False  # how the kernel tracks TCP

    async def start(self, wanted: Mapping[Key, ServicePort]) -> None:
        """Make the tables say ``wanted``, whatever a former process left in them.

        Raises:
            NftError, OSError: the kernel refused, or the chains are another proxy's.
        """
        self._current = None
        self._families = set()
        for family in FAMILIES:
            if self._concerns(family, wanted.values()):
                await asyncio.to_thread(self._begin, family, wanted)
            else:
                await asyncio.to_thread(programs.clear, family, self._names)
        self._current = dict(wanted)

    async def change(self, changes: Mapping[Key, ServicePort | None]) -> None:
        """Change what is served; None ends it.

        Raises:
            NftError, OSError: the kernel refused; ``start`` must follow.
        """
        if self._current is None:
            raise RuntimeError("start comes first")
        current, self._current = self._current, None
        for family in FAMILIES:
            own = {key: new for key, new in changes.items() if key[2] == family}
            if own and family not in self._families:
                await asyncio.to_thread(self._begin, family, {})
            if script := self._difference(current, own).script():
                await asyncio.to_thread(programs.apply, family, script)
        for key, new in changes.items():
            if new is None:
                current.pop(key, None)
            else:
                current[key] = new
        self._current = current

    async def use(self, services: Sequence[str]) -> None:
        """Let cluster IPs be of these ranges from now on; what is served stays as it is.

        Raises:
            NftError, OSError: the kernel refused; ``start`` must follow.
        """
        self._services = services
        if self._current is not None:
            await self.start(self._current)

    async def remove(self) -> None:
        """Take all of ours away; no error where there is nothing.

        Raises:
            NftError, OSError: the kernel refused.
        """
        self._current = None
        for family in FAMILIES:
            await asyncio.to_thread(programs.clear, family, self._names)

    async def accept_loopback(self, links: Sequence[str]) -> None:
        """Let connections from 127.0.0.1 leave by ``links``, and none come in for it by them.

        Raises:
            NftError, OSError: the kernel refused.
        """
        chain = chains.firewall(self._names)
        new = [link for link in links if link not in self._links]
        change = Change(added=[(chain, chains.closed(link)) for link in new])
        if new:
            await asyncio.to_thread(programs.apply, "ip", change.script())
            self._links += new
        for link in links:
            await asyncio.to_thread(local_routing.accept_loopback, link)

    async def refuse_loopback(self, keep: Iterable[str] = ()) -> None:
        """Undo ``accept_loopback``, except at links to ``keep``; before ``remove``.

        Raises:
            NftError, OSError: the tables cannot be read.
        """
        if not await asyncio.to_thread(programs.present, "ip", self._names):
            return
        listed = await asyncio.to_thread(programs.read, "ip", self._names)
        for link in set(self._opened(listed)) - set(keep):
            await asyncio.to_thread(local_routing.refuse_loopback, link)

    def _opened(self, listed: programs.Listed) -> list[str]:
        rules = listed.rules.get(chains.firewall(self._names), ())
        return [link for rule in rules if (link := programs.link_of(rule))]

    def _concerns(self, family: str, ports: Iterable[ServicePort]) -> bool:
        return bool(of_family(family, self._services)) or any(p.family == family for p in ports)

    def _begin(self, family: str, wanted: Mapping[Key, ServicePort]) -> None:
        programs.check_owner(family, self._names)
        self._liberal = tcp_window.is_liberal()
        listed = programs.read(family, self._names)
        if family == "ip":
            self._links = self._opened(listed)
        if script := self._whole(family, wanted, listed).script():
            programs.apply(family, script)
        self._families.add(family)

    # pure: from what is to what shall be

    def _part(self, served: ServicePort) -> Part:
        return chains.part(self._names, served, of_family(served.family, self._pods))

    def _whole(
        self, family: str, wanted: Mapping[Key, ServicePort], listed: programs.Listed
    ) -> Change:
        names = self._names
        services = of_family(family, self._services)
        wished = chains.frame(names, family, services, liberal=self._liberal)
        if family == "ip":
            wished[chains.firewall(names)] = tuple(map(chains.closed, self._links))
        for served in wanted.values():
            if served.family != family:
                continue
            part = self._part(served)
            wished.update(part.chains)
            for chain, rules in part.shared.items():
                always = wished[chain]
                first = chains.first(names, chain)
                wished[chain] = (*rules, *always) if first else (*always, *rules)
        changed = {
            chain: rules
            for chain, rules in wished.items()
            if chain not in listed.chains or tuple(listed.rules.get(chain, ())) != rules
        }
        jumps = [(chain, rule) for chain, rules in chains.jumps(names).items() for rule in rules]
        there = set(programs.leading(listed, names))
        return Change(
            whole=changed,
            cut=sorted(there - set(jumps)),
            # The last one inserted is the first one met.
            inserted=[place for place in reversed(jumps) if place not in there],
            gone=listed.chains - wished.keys(),
        )

    def _difference(
        self, current: Mapping[Key, ServicePort], changes: Mapping[Key, ServicePort | None]
    ) -> Change:
        change = Change()
        before: dict[Chain, Rules] = {}
        after: dict[Chain, Rules] = {}
        had: dict[tuple[Chain, str], None] = {}
        has: dict[tuple[Chain, str], None] = {}
        for key, new in changes.items():
            for served, own, shared in ((current.get(key), before, had), (new, after, has)):
                if served is None:
                    continue
                part = self._part(served)
                own.update(part.chains)
                shared.update(
                    ((chain, rule), None) for chain, rules in part.shared.items() for rule in rules
                )
        change.whole = {
            chain: rules for chain, rules in after.items() if before.get(chain) != rules
        }
        change.gone = before.keys() - after.keys()
        change.cut = [place for place in had if place not in has]
        for place in has:
            if place not in had:
                first = chains.first(self._names, place[0])
                (change.inserted if first else change.added).append(place)
        return change
