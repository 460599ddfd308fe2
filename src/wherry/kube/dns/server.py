"""The way of a question: what was answered before, the cluster's names, other servers.

An answer about the cluster's names is kept as it was sent until any of them changes, so that what
is asked often costs one look into a table.
"""

from __future__ import annotations

import asyncio
import random

from wherry.kube.dns import answers, messages
from wherry.kube.dns.forwarding import Forwarder, Overloaded
from wherry.kube.dns.messages import Code, Malformed, Question, Type
from wherry.kube.dns.names import Described
from wherry.kube.dns.settings import Settings
from wherry.kube.dns.telling import (
    Begin,
    NamespaceTold,
    ServiceTold,
    SettingsTold,
    Told,
    Whole,
)
from wherry.kube.dns.zone import Zone

_KEPT = 16_384
_VARIANTS = 8
"""So many orders of the addresses of one name are kept; one of them is given."""


class NameServer:
    """Answers from what it is told of a cluster."""

    def __init__(self) -> None:
        self.zone = Zone("", ())
        self._next: Zone | None = None
        self._settings = Settings()
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
            case SettingsTold(settings) if settings != self._settings:
                self._settings = settings
                self._forwarder.memory.clear()
            case Whole() if self._next is not None:
                self.zone, self._next = self._next, None
                self.whole.set()
        if self._next is None:
            self._kept.clear()

    async def close(self) -> None:
        """Give up what is under way."""
        await self._forwarder.close()

    # -- answering

    def at_once(self, data: bytes) -> bytes | None:
        """The answer to a datagram where it needs no other server."""
        kept = self._kept.get(data[2:])
        if kept is None:
            try:
                question = messages.parse(data)
            except Malformed as malformed:
                return malformed.reply or b""
            if not self.zone.covers(question.name):
                return None
            first = answers.answer(question, self.zone, datagram=True)
            if answers.alias_of(first) is not None:
                return None
            orders = min(_VARIANTS, answers.orders(question, self.zone))
            replies = [first]
            for turn in range(1, orders):
                replies.append(answers.answer(question, self.zone, turn, datagram=True))
            kept = [messages.packed(reply, question, datagram=True)[2:] for reply in replies]
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[data[2:]] = kept
        if len(kept) == 1:
            return data[:2] + kept[0]
        return data[:2] + random.choice(kept)  # noqa: S311 - shares the load, no secret

    async def answer(self, data: bytes, datagram: bool) -> bytes | None:
        """The answer to any question; None where there is nobody to tell."""
        try:
            question = messages.parse(data)
        except Malformed as malformed:
            return malformed.reply
        try:
            if self.zone.covers(question.name):
                return await self._from_zone(question, datagram)
            servers = self._settings.servers_for(question.name)
            reply = await self._forwarder.ask(data, servers, datagram=datagram)
        except Overloaded:
            return messages.failure(question)
        return messages.failure(question) if reply is None else reply

    async def _from_zone(self, question: Question, datagram: bool) -> bytes:
        """What the zone says, with what an alias out of it leads to."""
        turn = random.getrandbits(16)
        reply = answers.answer(question, self.zone, turn, datagram=datagram)
        alias = answers.alias_of(reply)
        if (
            alias is not None
            and question.type in (Type.A, Type.AAAA)
            and not self.zone.covers(alias)
        ):
            asked = messages.asking(alias, question.type)
            servers = self._settings.servers_for(alias)
            found = await self._forwarder.ask(asked, servers, datagram=True)
            try:
                if found is None:
                    raise ValueError("nobody knows")
                reply.code, records = messages.answered(found)
            except ValueError:
                return messages.failure(question, Code.SERVFAIL)
            reply.answers += records
        return messages.packed(reply, question, datagram=datagram)
