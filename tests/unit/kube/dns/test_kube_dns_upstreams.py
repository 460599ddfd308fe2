"""Who is asked for names that are not the cluster's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wherry.kube.dns import upstreams as module
from wherry.kube.dns.settings import Settings
from wherry.kube.dns.upstreams import Upstreams
from wherry.wire.dns import Question, parse

NAMED = Settings([("192.0.2.9", 53)], {"a.b": [("192.0.2.3", 5353)]}, "")


class Beyond:
    """Stands for all servers: what is asked of whom; some bring questions back to us."""

    def __init__(self) -> None:
        self.asked: list[tuple[Question, tuple[str, int]]] = []
        self.back: set[tuple[str, int]] = set()
        self.upstreams = Upstreams()

    async def __call__(self, query: bytes, server: tuple[str, int], *, datagram: bool) -> bytes:
        question = parse(query)
        self.asked.append((question, server))
        if server in self.back:
            assert self.upstreams.heard(question)
            # It waits for us as we wait for it.
            raise TimeoutError
        return query

    async def settled(self) -> None:
        """Return when every server was tried."""
        await asyncio.gather(*self.upstreams._tests)


@pytest.fixture
def beyond(monkeypatch: pytest.MonkeyPatch) -> Beyond:
    made = Beyond()
    monkeypatch.setattr(module, "ask", made)
    return made


async def test_the_longest_domain_decides(beyond: Beyond):
    beyond.upstreams.configure(NAMED, [])
    assert beyond.upstreams.renew() and not beyond.upstreams.renew()
    assert beyond.upstreams.servers_for("x.a.b") == (("192.0.2.3", 5353),)
    assert beyond.upstreams.servers_for("a.b") == (("192.0.2.3", 5353),)
    for name in ("xa.b", "b", "example.com", ""):
        assert beyond.upstreams.servers_for(name) == (("192.0.2.9", 53),)
    await beyond.settled()
    names = [question.name.split(".") for question, _ in beyond.asked]
    assert [name[2:] for name in names] == [["a", "b"], []]
    assert all(label.isdigit() for name in names for label in name[:2])


async def test_without_settings_the_machine_s_file_is_followed(beyond: Beyond, tmp_path: Path):
    file = tmp_path / "resolv.conf"
    upstreams = beyond.upstreams
    upstreams.configure(Settings(resolv_conf=str(file)), [])
    upstreams.renew()
    assert not upstreams.renew() and upstreams.servers_for("x") == ()
    file.write_text("nameserver 192.0.2.1\nnameserver nonsense\n")
    assert upstreams.renew() and not upstreams.renew()
    assert upstreams.servers_for("x") == (("192.0.2.1", 53),)
    file.write_text("nameserver 192.0.2.1\noptions edns0\n")
    assert not upstreams.renew()
    file.write_text("nameserver 192.0.2.2\n")
    assert upstreams.renew() and upstreams.servers_for("x") == (("192.0.2.2", 53),)
    upstreams.configure(NAMED, [])
    assert upstreams.renew() and upstreams.servers_for("x") == (("192.0.2.9", 53),)
    await beyond.settled()


async def test_we_do_not_ask_ourselves(beyond: Beyond, tmp_path: Path):
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 10.96.0.10\nnameserver 10.244.0.1\nnameserver 192.0.2.1\n")
    beyond.upstreams = upstreams = Upstreams([("10.244.0.1", 53)])
    upstreams.configure(Settings(resolv_conf=str(file)), ["10.96.0.10"])
    upstreams.renew()
    assert upstreams.servers_for("x") == (("192.0.2.1", 53),)
    await beyond.settled()


async def test_a_server_whose_questions_come_back_is_asked_no_more(
    beyond: Beyond, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    one, other = ("192.0.2.1", 53), ("192.0.2.2", 53)
    upstreams = beyond.upstreams
    beyond.back = {one}
    upstreams.configure(Settings([one, other], {"a.b": [one]}, ""), [])
    assert upstreams.renew()
    assert upstreams.servers_for("x") == (one, other)
    await beyond.settled()
    assert upstreams.servers_for("x") == (other,)
    assert upstreams.servers_for("x.a.b") == ()
    assert 'Loop detected for zone "."' in caplog.text and "192.0.2.1:53" in caplog.text
    # Nobody is asked again and again; after a while, once, whether it is better.
    count = len(beyond.asked)
    upstreams.renew()
    assert not upstreams._tests
    monkeypatch.setattr(module, "PATIENCE", -1)
    upstreams.renew()
    await beyond.settled()
    assert upstreams.servers_for("x") == (other,) and len(beyond.asked) == count + 2
    beyond.back = set()
    upstreams.renew()
    await beyond.settled()
    assert upstreams.servers_for("x") == (one, other)
    assert upstreams.servers_for("x.a.b") == (one,)


async def test_what_others_ask_is_not_taken_for_ours(beyond: Beyond):
    beyond.upstreams.configure(NAMED, [])
    beyond.upstreams.renew()
    await beyond.settled()
    [first, _] = [question for question, _ in beyond.asked]
    assert not beyond.upstreams.heard(first)  # it was answered: nobody waits for it any more
