"""Other servers are asked for other names, and what they say is kept for as long as they allow.

A question goes on by the transport it came by; every question has a socket of its own, so that its
port and id cannot be guessed. How many may wait is bounded, and shared fairly: see ``sharing``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from wherry.kube.dns.settings import Server
from wherry.kube.dns.sharing import Shares
from wherry.net.name_query import ask
from wherry.wire.dns import Question, alike, lifetimes, onward, returned

log = logging.getLogger(__name__)

TIMEOUT = 2.0  # seconds for each server
ATTEMPTS = 3
WAITING, OF_ONE_CLIENT = 1024, 256  # questions
AVOIDED = 10.0  # seconds, after a server did not answer, if there are others
KEPT = 10_000
LONGEST_KEPT, LONGEST_KEPT_WITHOUT = 3600, 30  # seconds: an answer, and that there is none


class Overloaded(Exception):
    """Too many questions wait already."""


class Memory:
    """Answers of others, with the time until which each may be given again."""

    def __init__(self, size: int = KEPT) -> None:
        self._size = size
        self._kept: OrderedDict[bytes, tuple[bytes, list[int], float, float]] = OrderedDict()

    def get(self, key: bytes) -> bytes | None:
        """The answer to questions that have ``key`` in common, with its TTLs as they are now."""
        found = self._kept.get(key)
        if found is None:
            return None
        data, places, since, until = found
        now = time.monotonic()
        if now >= until:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        age = int(now - since)
        reply = bytearray(data)
        for place in places:
            left = int.from_bytes(reply[place : place + 4], "big") - age
            reply[place : place + 4] = max(0, left).to_bytes(4, "big")
        return bytes(reply)

    def put(self, key: bytes, data: bytes) -> None:
        """Keep an answer for as long as its records say."""
        try:
            places, ttl = lifetimes(data)
        except ValueError:
            return
        answered = data[6:8] != b"\0\0"
        ttl = min(ttl, LONGEST_KEPT if answered else LONGEST_KEPT_WITHOUT)
        if ttl <= 0:
            return
        now = time.monotonic()
        self._kept[key] = data, places, now, now + ttl
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)


_Key = tuple[bytes, bool]
"""What questions that are asked once have in common, and whether they go on as datagrams."""
_Waiting = asyncio.Future[bytes | None]


@dataclass(slots=True)
class _Asked:
    """A question that others are asked, and who waits for the answer."""

    task: asyncio.Task[bytes | None]
    waiting: set[_Waiting] = field(default_factory=set)

    def ended(self, task: asyncio.Task[bytes | None]) -> None:
        """Tell the answer."""
        for each in self.waiting:
            if each.done():
                continue
            if task.cancelled():
                each.cancel()
            elif (error := task.exception()) is not None:
                each.set_exception(error)
            else:
                each.set_result(task.result())


class Forwarder:
    """Asks other servers; questions alike that come together are asked once."""

    def __init__(self) -> None:
        self.memory = Memory()
        self._asked: dict[_Key, _Asked] = {}
        self._waiting: Shares[_Waiting] = Shares(WAITING, OF_ONE_CLIENT)
        self._avoided: dict[Server, float] = {}

    def remembered(self, question: Question) -> bytes | None:
        """The answer, where it needs nobody else."""
        kept = self.memory.get(alike(question))
        return None if kept is None else returned(kept, question)

    def forget(self) -> None:
        """Later questions have nothing to do with those who were asked until now."""
        self.memory, self._asked = Memory(), {}

    def has_room(self, client: str) -> bool:
        """Whether one more question of ``client`` may wait."""
        return self._waiting.who_gives(client) != client

    async def ask(
        self, question: Question, servers: Sequence[Server], client: str, *, datagram: bool
    ) -> bytes | None:
        """The answer, or None where nobody gives one.

        Raises:
            Overloaded: too many questions wait, and ``client`` has its share of them; or it has
                more than that, and another client came.
        """
        if (kept := self.remembered(question)) is not None:
            return kept
        self._make_room(client)
        key = alike(question), datagram
        asked = self._asked.get(key) or self._begin(key, question, servers)
        waiting: _Waiting = asyncio.get_running_loop().create_future()
        asked.waiting.add(waiting)
        self._waiting.take(client, waiting)
        try:
            reply = await waiting
        finally:
            self._waiting.give(client, waiting)
            asked.waiting.discard(waiting)
            if not asked.waiting:
                self._end(key, asked)
        return None if reply is None else returned(reply, question)

    def _begin(self, key: _Key, question: Question, servers: Sequence[Server]) -> _Asked:
        asking = self._ask_servers(question, servers, datagram=key[1])
        asked = self._asked[key] = _Asked(asyncio.create_task(asking))
        asked.task.add_done_callback(asked.ended)
        return asked

    def _end(self, key: _Key, asked: _Asked) -> None:
        asked.task.cancel()
        if self._asked.get(key) is asked:
            del self._asked[key]

    def _make_room(self, client: str) -> None:
        giver = self._waiting.who_gives(client)
        if giver == client:
            raise Overloaded
        if giver is not None and (waiting := self._waiting.oldest(giver)) is not None:
            self._waiting.give(giver, waiting)
            if not waiting.done():
                waiting.set_exception(Overloaded())

    async def _ask_servers(
        self, question: Question, servers: Sequence[Server], *, datagram: bool
    ) -> bytes | None:
        memory = self.memory
        # An id of our own: the client's may be known to who wants to answer in another's place.
        own = random.SystemRandom().randbytes(2) + onward(question)[2:]
        now = time.monotonic()
        servers = sorted(servers, key=lambda server: self._avoided.get(server, 0.0) > now)
        tried = 0
        refused: bytes | None = None
        while servers and tried < max(ATTEMPTS, len(servers)):
            server = servers[tried % len(servers)]
            tried += 1
            try:
                async with asyncio.timeout(TIMEOUT):
                    reply = await ask(own, server, datagram=datagram)
            except (OSError, EOFError, TimeoutError) as error:
                log.debug("name server %s: %s", server[0], error or type(error).__name__)
                self._avoided[server] = time.monotonic() + AVOIDED
                continue
            self._avoided.pop(server, None)
            if reply[3] & 0xF in (0, 3):
                if datagram:
                    memory.put(alike(question), reply)
                return reply
            refused = reply
            if tried >= len(servers):
                break
        return refused

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [asked.task for asked in self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
