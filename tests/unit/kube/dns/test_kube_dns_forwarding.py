"""Questions that wait for other servers, with room for few."""

from __future__ import annotations

import asyncio

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from wherry.kube.dns import forwarding
from wherry.kube.dns.forwarding import Forwarder, Overloaded
from wherry.wire.dns import Type, asking

SERVERS = [("192.0.2.1", 53)]


class Beyond:
    """Another server, which answers when it is let."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.given_up = 0
        self.let = asyncio.Event()

    async def __call__(self, query: bytes, server: tuple[str, int], *, datagram: bool) -> bytes:
        self.asked.append(query)
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        question = DNSRecord.parse(query)
        reply = question.reply()
        reply.add_answer(RR(question.q.qname, QTYPE.A, ttl=60, rdata=A("192.0.2.80")))
        return bytes(reply.pack())


@pytest.fixture
def beyond(monkeypatch: pytest.MonkeyPatch) -> Beyond:
    made = Beyond()
    monkeypatch.setattr(forwarding, "ask", made)
    monkeypatch.setattr(forwarding, "WAITING", 4)
    monkeypatch.setattr(forwarding, "OF_ONE_CLIENT", 3)
    return made


async def asks(forwarder: Forwarder, client: str, name: str) -> asyncio.Task[bytes | None]:
    """A question that is on its way."""
    question = asking(name, Type.A)
    task = asyncio.create_task(forwarder.ask(question, SERVERS, client, datagram=True))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_who_has_its_share_is_refused_and_others_find_room(beyond: Beyond):
    forwarder = Forwarder()
    first = [await asks(forwarder, "10.0.0.1", f"a{n}") for n in range(4)]
    with pytest.raises(Overloaded):
        await first[3]
    second = [await asks(forwarder, "10.0.0.2", f"b{n}") for n in range(2)]
    # The second took the last free place, and one of the first's: the one that waited longest.
    with pytest.raises(Overloaded):
        await first[0]
    assert beyond.given_up == 1
    third = await asks(forwarder, "10.0.0.3", "c")
    beyond.let.set()
    assert await first[2] and await second[1] and await third
    both = await asyncio.gather(first[1], second[0], return_exceptions=True)
    assert [type(each) for each in both].count(Overloaded) == 1
    # Whatever became of them, there is room again.
    more = [await asks(forwarder, "10.0.0.1", f"d{n}") for n in range(3)]
    assert all([await task for task in more])


async def test_a_question_that_several_ask_is_asked_once_and_until_nobody_waits(beyond: Beyond):
    forwarder = Forwarder()
    tasks = [await asks(forwarder, f"10.0.0.{n}", "same") for n in range(3)]
    assert len(beyond.asked) == 1
    for task in tasks[:2]:
        task.cancel()
    await asyncio.wait(tasks[:2])
    assert not beyond.given_up
    tasks[2].cancel()
    await asyncio.wait(tasks)
    # (The task that asked ends a moment later.)
    again = await asks(forwarder, "10.0.0.1", "same")
    assert (len(beyond.asked), beyond.given_up) == (2, 1)
    beyond.let.set()
    assert await again is not None
    assert forwarder.remembered(asking("same", Type.A)) is not None


async def test_what_was_asked_of_others_before_is_no_answer_to_later_questions(beyond: Beyond):
    forwarder = Forwarder()
    before = await asks(forwarder, "10.0.0.1", "same")
    forwarder.forget()
    after = await asks(forwarder, "10.0.0.1", "same")
    assert len(beyond.asked) == 2
    forwarder.forget()
    beyond.let.set()
    assert await before is not None and await after is not None
    assert forwarder.remembered(asking("same", Type.A)) is None


async def test_a_fault_in_asking_reaches_whoever_waits(
    beyond: Beyond, monkeypatch: pytest.MonkeyPatch
):
    async def broken(*_: object, **__: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(forwarding, "ask", broken)
    forwarder = Forwarder()
    tasks = [await asks(forwarder, "10.0.0.1", "same") for _ in range(2)]
    for task in tasks:
        with pytest.raises(ZeroDivisionError):
            await task
