"""The name server on loopback, over a fake API, with a fake server beyond."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from dnslib import CNAME, EDNS0, QTYPE, RR, SOA, A, DNSRecord, EDNSOption
from fake_api import FakeAPI

from wherry.kube.api.resources import (
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    NAMESPACES,
    NODES,
    SERVICES,
)
from wherry.kube.client.client import Client
from wherry.kube.client.informer import SharedInformers
from wherry.kube.dns.following import Follower
from wherry.kube.dns.forwarding import Memory
from wherry.kube.dns.listening import Listener, bind
from wherry.kube.dns.server import NameServer
from wherry.kube.dns.settings import read, servers
from wherry.kube.dns.telling import Told, Unpacker, pack


class Beyond(asyncio.DatagramProtocol):
    """A name server that knows example.com, counts what it is asked, and may be silent (or is,
    where names begin with "slow")."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.options: list[list[RR]] = []
        self.silent = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.address = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        question = DNSRecord.parse(data)
        name = str(question.q.qname).lower()
        if question.q.qtype == QTYPE.HINFO:
            return  # whether questions come back
        self.asked.append(name)
        self.options.append([record for record in question.ar if record.rdata])
        if self.silent or name.startswith("slow"):
            return
        reply = question.reply()
        if name == "example.com.":
            reply.add_answer(RR(name, QTYPE.A, ttl=60, rdata=A("192.0.2.80")))
        else:
            reply.header.rcode = 3
            soa = SOA("ns.", "host.", (1, 1, 1, 1, 20))
            reply.add_auth(RR(".", QTYPE.SOA, ttl=60, rdata=soa))
        self.transport.sendto(reply.pack(), addr)


class World:
    def __init__(self, api: FakeAPI, server: NameServer, beyond: Beyond, port: int) -> None:
        self.api, self.client, self.server, self.beyond = api, Client(api), server, beyond
        self.port = port

    async def ask(self, name: str, type: str = "A") -> DNSRecord:
        return DNSRecord.parse(await self.send(bytes(DNSRecord.question(name, type).pack())))

    async def send(self, data: bytes, seconds: float = 60, *, client: str = "127.0.0.1") -> bytes:
        loop = asyncio.get_running_loop()
        got: asyncio.Future[bytes] = loop.create_future()

        class Asking(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                if not got.done():
                    got.set_result(data)

        to = ("127.0.0.1", self.port)
        transport, _ = await loop.create_datagram_endpoint(
            Asking, local_addr=(client, 0), remote_addr=to
        )
        try:
            transport.sendto(data)
            return await asyncio.wait_for(got, seconds)
        finally:
            transport.close()

    async def configure(self, data: dict[str, str]) -> None:
        """The ConfigMap says something else now."""
        found = await self.client.get(CONFIG_MAPS, "kube-dns", "kube-system")
        before = self.server._upstreams._settings
        await self.client.update(CONFIG_MAPS, {**found, "data": data})
        async with asyncio.timeout(60):
            while self.server._upstreams._settings is before:  # noqa: ASYNC110 - as tests see it
                await asyncio.sleep(0.001)

    async def addresses(self, name: str) -> list[str]:
        return sorted(str(r.rdata) for r in (await self.ask(name)).rr if r.rtype == QTYPE.A)


def settings_of(data: dict[str, str]) -> dict:
    return {"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "data": data}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    api = FakeAPI()
    client = Client(api)
    await client.create(NAMESPACES, {"metadata": {"name": "default"}})
    # Its range's first address is on loopback.
    node = {"metadata": {"name": "n"}, "spec": {"podCIDR": "127.0.0.0/24"}}
    await client.create(NODES, node)
    loop = asyncio.get_running_loop()
    _, beyond = await loop.create_datagram_endpoint(Beyond, local_addr=("127.0.0.1", 0))
    informers = SharedInformers(client)
    follower = Follower(
        client,
        informers,
        domain="cluster.local",
        node_name="n",
        service_addresses=["10.96.0.10"],
        resolv_conf="",
    )
    ask_beyond = {"upstreamNameservers": f'["{beyond.address[0]}:{beyond.address[1]}"]'}
    await client.create(CONFIG_MAPS, settings_of(ask_beyond))
    informers.start()
    running = asyncio.ensure_future(follower.run())
    server = NameServer()
    sockets = bind(await follower.addresses, 0)
    listener = Listener(sockets, server.answer)
    await follower.synced()
    unpacker = Unpacker()

    def tell(told: Told) -> None:
        for heard in unpacker.feed(pack(told)):
            server.take(heard)

    follower.attach(tell)
    await server.whole.wait()
    await listener.open()
    yield World(api, server, beyond, sockets[0][0].getsockname()[1])
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await listener.close()
    await server.close()
    await informers.stop()
    beyond.transport.close()


def service(name: str, address: str) -> dict:
    spec = {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def eventually(world: World, name: str, addresses: list[str]) -> None:
    end = asyncio.get_running_loop().time() + 60
    while (found := await world.addresses(name)) != addresses:
        assert asyncio.get_running_loop().time() < end, f"{name}: {found}"
        await asyncio.sleep(0.005)


async def described(world: World, name: str) -> DNSRecord:
    """The reply about a name, once something is said of it."""
    async with asyncio.timeout(60):
        while not (reply := await world.ask(name)).rr:  # noqa: ASYNC110 - as tests see it
            await asyncio.sleep(0.005)
    return reply


async def test_changes_are_seen_though_answers_are_kept(world: World):
    name = "web.default.svc.cluster.local"
    await world.client.create(SERVICES, service("web", "10.96.0.7"))
    await eventually(world, name, ["10.96.0.7"])
    for _ in range(8):
        assert await world.addresses(name) == ["10.96.0.7"]
    await world.client.delete(SERVICES, "web", "default")
    await eventually(world, name, [])
    headless = service("db", "None")
    await world.client.create(SERVICES, headless)
    slice_ = {
        "metadata": {
            "name": "db-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "db"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.0.4"]}, {"addresses": ["10.244.0.5"]}],
        "ports": [],
    }
    await world.client.create(ENDPOINT_SLICES, slice_)
    await eventually(world, "db.default.svc.cluster.local", ["10.244.0.4", "10.244.0.5"])
    orders = set()
    for _ in range(60):
        reply = await world.ask("db.default.svc.cluster.local")
        orders.add(tuple(str(r.rdata) for r in reply.rr))
    assert len(orders) == 2


async def test_others_are_asked_once_and_remembered(world: World):
    replies = await asyncio.gather(*(world.ask("example.com") for _ in range(20)))
    assert {str(reply.rr[0].rdata) for reply in replies} == {"192.0.2.80"}
    await world.ask("example.com")
    assert len(world.beyond.asked) == 1
    for _ in range(3):
        assert (await world.ask("nobody.example")).header.rcode == 3
    assert world.beyond.asked.count("nobody.example.") == 1


async def test_an_alias_is_followed_beyond(world: World):
    spec = {"type": "ExternalName", "externalName": "example.com"}
    out = {"metadata": {"name": "out", "namespace": "default"}, "spec": spec}
    await world.client.create(SERVICES, out)
    await eventually(world, "out.default.svc.cluster.local", ["192.0.2.80"])


async def test_stub_domains_have_servers_of_their_own(world: World):
    _, other = await asyncio.get_running_loop().create_datagram_endpoint(
        Beyond, local_addr=("127.0.0.1", 0)
    )
    address = f"{other.address[0]}:{other.address[1]}"
    data = {"stubDomains": f'{{"acme.local": ["{address}"]}}'}
    await world.configure(data)
    await world.ask("db.acme.local")
    assert other.asked == ["db.acme.local."]
    other.transport.close()


async def test_garbage_and_silence_do_not_stop_answers(world: World):
    world.beyond.silent = True
    slow = [asyncio.ensure_future(world.ask(f"slow{n}.example")) for n in range(50)]
    await asyncio.sleep(0.01)
    await world.client.create(SERVICES, service("web", "10.96.0.7"))
    for garbage in (b"", b"x" * 12, b"\0\1\x28\0" + b"\0\1" + b"\0" * 6, b"\0\1" + b"\xff" * 40):
        with contextlib.suppress(TimeoutError):
            await world.send(garbage, 0.02)
    await eventually(world, "web.default.svc.cluster.local", ["10.96.0.7"])
    for task in slow:
        task.cancel()


async def test_connections_take_many_questions(world: World):
    await world.client.create(SERVICES, service("web", "10.96.0.7"))
    await eventually(world, "web.default.svc.cluster.local", ["10.96.0.7"])
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    question = bytes(DNSRecord.question("web.default.svc.cluster.local").pack())
    for _ in range(3):
        writer.write(struct.pack("!H", len(question)) + question)
    for _ in range(3):
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        reply = DNSRecord.parse(await reader.readexactly(length))
        assert str(reply.rr[0].rdata) == "10.96.0.7"
    writer.close()


def test_what_is_remembered_grows_old():
    reply = DNSRecord.question("example.com").reply()
    reply.add_answer(RR("example.com", QTYPE.A, ttl=60, rdata=A("192.0.2.1")))
    memory = Memory(size=2)
    memory.put(b"key", bytes(reply.pack()))
    kept = memory.get(b"key")
    assert kept is not None
    assert DNSRecord.parse(kept).rr[0].ttl in (59, 60)
    for n in range(3):
        memory.put(bytes([n]), bytes(reply.pack()))
    assert memory.get(b"key") is None


def test_settings_are_read_and_what_is_wrong_is_left_out():
    found = servers(["192.0.2.1", "fe80::1%eth0", "bad"])
    assert found == [("192.0.2.1", 53), ("fe80::1%eth0", 53)]
    data = {
        "upstreamNameservers": '["192.0.2.9", "nonsense"]',
        "stubDomains": '{"a.b.": ["192.0.2.3:5353"], "c": []}',
    }
    settings = read({"data": data})
    assert settings.upstreams == (("192.0.2.9", 53),)
    assert settings.stubs == {"a.b": [("192.0.2.3", 5353)]}
    assert read({"data": {"stubDomains": "["}}) == read(None)


async def test_aliases_in_the_cluster_lead_on_and_beyond(world: World):
    def alias(name: str, to: str) -> dict:
        spec = {"type": "ExternalName", "externalName": to}
        return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}

    await world.client.create(SERVICES, alias("first", "second.default.svc.cluster.local"))
    await world.client.create(SERVICES, alias("second", "example.com"))
    await eventually(world, "first.default.svc.cluster.local", ["192.0.2.80"])
    reply = await world.ask("first.default.svc.cluster.local")
    assert [QTYPE[r.rtype] for r in reply.rr] == ["CNAME", "CNAME", "A"]
    await world.client.create(SERVICES, alias("me", "me.default.svc.cluster.local"))
    reply = await described(world, "me.default.svc.cluster.local")
    assert reply.header.rcode == 0 and len(reply.rr) < 12
    world.beyond.silent = True
    # What is remembered needs nobody.
    assert await world.addresses("second.default.svc.cluster.local") == ["192.0.2.80"]


async def test_an_alias_to_nothing_says_so(world: World):
    spec = {"type": "ExternalName", "externalName": "nobody.example"}
    out = {"metadata": {"name": "gone", "namespace": "default"}, "spec": spec}
    await world.client.create(SERVICES, out)
    reply = await described(world, "gone.default.svc.cluster.local")
    assert [QTYPE[r.rtype] for r in reply.rr] == ["CNAME"] and reply.header.rcode == 3


async def test_letters_are_given_back_as_they_were_sent(world: World):
    await world.client.create(SERVICES, service("web", "10.96.0.7"))
    await eventually(world, "web.default.svc.cluster.local", ["10.96.0.7"])
    name = "wEb.DEFAULT.svc.cluster.LOCAL"
    reply = await world.ask(name)
    assert str(reply.q.qname) == f"{name}." and str(reply.rr[0].rname) == f"{name}."


async def test_a_server_that_is_silent_is_asked_last(world: World):
    _, other = await asyncio.get_running_loop().create_datagram_endpoint(
        Beyond, local_addr=("127.0.0.1", 0)
    )
    both = [f"{a[0]}:{a[1]}" for a in (world.beyond.address, other.address)]
    data = {"upstreamNameservers": f'["{both[0]}", "{both[1]}"]'}
    await world.configure(data)
    world.beyond.silent = True
    assert await world.addresses("example.com") == ["192.0.2.80"]
    asked = len(world.beyond.asked)
    for n in range(5):
        assert (await world.ask(f"n{n}.example")).header.rcode == 3
    assert len(world.beyond.asked) == asked
    other.transport.close()


async def test_a_flood_of_names_nobody_has_does_not_stop_answers(world: World):
    await world.client.create(SERVICES, service("web", "10.96.0.7"))
    await eventually(world, "web.default.svc.cluster.local", ["10.96.0.7"])
    world.beyond.silent = True
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", world.port)
    )
    for n in range(4000):
        for name in (f"x{n}.default.svc.cluster.local", f"x{n}.example"):
            transport.sendto(bytes(DNSRecord.question(name).pack()))
        if n % 100 == 0:  # (There is room for more of them before the server.)
            assert await world.addresses("web.default.svc.cluster.local") == ["10.96.0.7"]
    transport.close()
    assert len(world.server._forwarder._asked) <= 256
    assert await world.addresses("web.default.svc.cluster.local") == ["10.96.0.7"]


async def test_without_a_server_that_answers_the_client_is_told(world: World):
    data = {"upstreamNameservers": '["127.0.0.1:1"]'}
    await world.configure(data)
    assert (await world.ask("n.example")).header.rcode == 2


async def test_options_and_letters_are_between_neighbours(world: World):
    """Who asks with a cookie, or in letters of its own, is answered from memory as well."""
    for cookie, name in ((b"1" * 8, "example.com"), (b"2" * 8, "eXample.COM")):
        asked = DNSRecord.question(name)
        asked.add_ar(EDNS0(udp_len=4096, opts=[EDNSOption(10, cookie)]))
        reply = DNSRecord.parse(await world.send(bytes(asked.pack())))
        assert str(reply.q.qname) == f"{name}." and str(reply.rr[0].rdata) == "192.0.2.80"
    assert world.beyond.asked == ["example.com."] and world.beyond.options == [[]]


async def test_a_connection_is_answered_past_a_question_that_waits(world: World):
    await world.client.create(SERVICES, service("web", "10.96.0.7"))
    await eventually(world, "web.default.svc.cluster.local", ["10.96.0.7"])
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    for name in ("slow.example", "web.default.svc.cluster.local"):
        question = bytes(DNSRecord.question(name).pack())
        writer.write(struct.pack("!H", len(question)) + question)
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    assert str(DNSRecord.parse(await reader.readexactly(length)).rr[0].rdata) == "10.96.0.7"
    writer.close()


async def test_who_floods_leaves_room_for_others(world: World):
    loop = asyncio.get_running_loop()
    await world.ask("example.com")
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0), remote_addr=("127.0.0.1", world.port)
    )
    for n in range(1000):
        transport.sendto(bytes(DNSRecord.question(f"slow{n}.example").pack()))
        if n % 100 == 0:
            await world.ask("dns-version.cluster.local", "TXT")
    transport.close()
    # What is remembered is answered even so.
    assert await world.addresses("example.com") == ["192.0.2.80"]
    question = bytes(DNSRecord.question("nobody.example").pack())
    reply = DNSRecord.parse(await world.send(question, client="127.0.0.2"))
    assert reply.header.rcode == 3


async def test_where_an_alias_leads_is_heard_to_its_end(world: World):
    """Its addresses fit no datagram: they are asked for by a connection."""

    async def say(data: bytes, client: str, datagram: bool) -> bytes:
        asked = DNSRecord.parse(data)
        reply = asked.reply()
        reply.header.tc = int(datagram)
        if not datagram:
            reply.add_answer(RR(asked.q.qname, QTYPE.CNAME, ttl=60, rdata=CNAME("a.example")))
            reply.add_answer(RR("a.example", QTYPE.A, ttl=60, rdata=A("192.0.2.81")))
        return bytes(reply.pack())

    sockets = bind(["127.0.0.1"], 0)
    other = Listener(sockets, say)
    port = sockets[0][0].getsockname()[1]
    await other.open()
    data = {"upstreamNameservers": f'["127.0.0.1:{port}"]'}
    await world.configure(data)
    spec = {"type": "ExternalName", "externalName": "long.example"}
    out = {"metadata": {"name": "out", "namespace": "default"}, "spec": spec}
    await world.client.create(SERVICES, out)
    await eventually(world, "out.default.svc.cluster.local", ["192.0.2.81"])
    await other.close()


async def test_a_server_that_asks_us_in_turn_is_left_out(
    world: World, caplog: pytest.LogCaptureFixture
):
    async def say(data: bytes, client: str, datagram: bool) -> bytes:
        return await world.send(data)

    sockets = bind(["127.0.0.1"], 0)
    relay = Listener(sockets, say)
    await relay.open()
    both = [sockets[0][0].getsockname(), world.beyond.address]
    listed = ", ".join(f'"{address}:{port}"' for address, port in both)
    await world.configure({"upstreamNameservers": f"[{listed}]"})
    async with asyncio.timeout(60):
        n = 0
        while "Loop detected" not in caplog.text:
            await world.ask(f"n{n}.example")
            n += 1
    assert await world.addresses("example.com") == ["192.0.2.80"]
    await relay.close()
