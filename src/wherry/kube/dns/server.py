"""The way of a question: what was answered before, the cluster's names, other servers.

An answer about the cluster's names is kept as it was sent until any of them changes, so that what
is asked often costs one look into a table.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from wherry.kube.dns import answers
from wherry.kube.dns.forwarding import Forwarder, Overloaded
from wherry.kube.dns.names import Described
from wherry.kube.dns.settings import Server
from wherry.kube.dns.telling import (
    Begin,
    NamespaceTold,
    ServiceTold,
    SettingsTold,
    Told,
    Whole,
)
from wherry.kube.dns.upstreams import Upstreams
from wherry.kube.dns.zone import Zone
from wherry.wire import dns
from wherry.wire.dns import Code, Malformed, Question, Reply, Type

_KEPT = 16_384
_VARIANTS = 8
"""So many orders of the addresses of one name are kept; one of them is given."""


class NameServer:
    """Answers from what it is told of a cluster.

    Args:
        own: where it is asked.
    """

    def __init__(self, own: Iterable[Server] = ()) -> None:
        self.zone = Zone("", ())
        self._next: Zone | None = None
        self._upstreams = Upstreams(own)
        self._forwarder = Forwarder()
        self._kept: dict[bytes, list[bytes]] = {}
        self.whole = asyncio.Event()
        """Set once all names are known."""

    def take(self, told: Told) -> None:
        """Hear of the cluster."""
        zone = self.zone if self._next is None else self._next
        match told:
            case Begin(domain, servers, ranges):
                self._next = Zone(domain, servers, ranges)
            case ServiceTold(key, None):
                zone.drop(key)
            case ServiceTold(key, Described() as described):
                zone.put(key, described)
            case NamespaceTold(name, True):
                zone.put_namespace(name)
            case NamespaceTold(name, False):
                zone.drop_namespace(name)
            case SettingsTold(settings):
                self._upstreams.configure(settings, zone.servers)
            case Whole() if self._next is not None:
                self.zone, self._next = self._next, None
                self.whole.set()
        zone.serial = int(time.time())
        if self._next is None:
            self._kept.clear()

    async def close(self) -> None:
        """Give up what is under way."""
        await self._upstreams.close()
        await self._forwarder.close()

    # -- answering

    def answer(self, data: bytes, client: str, datagram: bool) -> bytes | Awaitable[bytes]:
        """The answer to any question of ``client``, or what has it once others have been asked.

        Empty where there is nobody to tell.
        """
        if datagram and (kept := self._kept.get(data[2:])) is not None:
            return data[:2] + _any(kept)
        try:
            question = dns.parse(data)
        except Malformed as malformed:
            return malformed.reply or b""
        if not self.zone.covers(question.name):
            return self._from_others(question, client, datagram)
        key = dns.bare(question)[2:]
        if datagram and (kept := self._kept.get(key)) is not None:
            return data[:2] + _any(kept)
        turn = 0 if datagram else random.getrandbits(16)
        reply = answers.answer(question, self.zone, turn, datagram=datagram)
        if (beyond := self._beyond(question, reply)) is not None:
            join = partial(_join, reply, question, datagram=datagram)
            found = self._from_others(beyond, client, datagram=True)
            if isinstance(found, bytes) and not dns.is_cut(found):
                return join(found)
            return self._joined(found, beyond, client, join)
        if not datagram:
            return dns.packed(reply, question, datagram=False)
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[key] = kept = self._orders(question, reply)
        return data[:2] + _any(kept)

    def _orders(self, question: Question, first: Reply) -> list[bytes]:
        """An answer in all its orders, without an id."""
        replies = [first]
        for turn in range(1, min(_VARIANTS, answers.orders(question, self.zone))):
            replies.append(answers.answer(question, self.zone, turn, datagram=True))
        return [dns.packed(reply, question, datagram=True)[2:] for reply in replies]

    def _from_others(
        self, question: Question, client: str, datagram: bool
    ) -> bytes | Awaitable[bytes]:
        if self._upstreams.heard(question):
            return dns.failure(question)
        self._renew()
        if (known := self._forwarder.remembered(question)) is not None:
            return known
        if not self._forwarder.has_room(client):
            return dns.failure(question, Code.REFUSED)  # as CoreDNS says it
        return self._asked(question, client, datagram)

    def _renew(self) -> None:
        """Forget what was said by those who are asked no more."""
        if self._upstreams.renew():
            self._forwarder.forget()

    async def _asked(self, question: Question, client: str, datagram: bool) -> bytes:
        servers = self._upstreams.servers_for(question.name)
        try:
            reply = await self._forwarder.ask(question, servers, client, datagram=datagram)
        except Overloaded:
            return dns.failure(question, Code.REFUSED)
        return dns.failure(question) if reply is None else reply

    async def _joined(
        self,
        found: bytes | Awaitable[bytes],
        beyond: Question,
        client: str,
        join: Callable[[bytes], bytes],
    ) -> bytes:
        """What ``join`` makes of the whole answer of others."""
        if not isinstance(found, bytes):
            found = await found
        if dns.is_cut(found):
            found = await self._asked(beyond, client, datagram=False)
        return join(found)

    def _beyond(self, question: Question, reply: Reply) -> Question | None:
        """What others must be asked before ``reply`` has an end, if anything."""
        alias = answers.alias_of(reply)
        if alias is None or self.zone.covers(alias) or question.type not in (Type.A, Type.AAAA):
            return None
        return dns.asking(alias, question.type)


def _any(kept: list[bytes]) -> bytes:
    if len(kept) == 1:
        return kept[0]
    return random.choice(kept)  # noqa: S311 - shares the load, no secret


def _join(reply: Reply, question: Question, found: bytes, *, datagram: bool) -> bytes:
    """An answer that ends with what others say of the alias in it."""
    try:
        reply.code, records = dns.answered(found)
    except ValueError:
        return dns.failure(question)
    reply.answers += records
    return dns.packed(reply, question, datagram=datagram)
