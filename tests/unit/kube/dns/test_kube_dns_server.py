"""The name server on loopback, over a fake API, with a fake server beyond."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from dnslib import QTYPE, RR, SOA, A, DNSRecord
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
    """A name server that knows example.com, counts what it is asked, and may be silent."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.address = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        question = DNSRecord.parse(data)
        name = str(question.q.qname).lower()
        self.asked.append(name)
        if self.silent:
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

    async def send(self, data: bytes, seconds: float = 5) -> bytes:
        loop = asyncio.get_running_loop()
        got: asyncio.Future[bytes] = loop.create_future()

        class Asking(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                if not got.done():
                    got.set_result(data)

        to = ("127.0.0.1", self.port)
        transport, _ = await loop.create_datagram_endpoint(Asking, remote_addr=to)
        try:
            transport.sendto(data)
            return await asyncio.wait_for(got, seconds)
        finally:
            transport.close()

    async def addresses(self, name: str) -> list[str]:
        return sorted(str(r.rdata) for r in (await self.ask(name)).rr if r.rtype == QTYPE.A)


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
        upstreams=[beyond.address],
    )
    informers.start()
    running = asyncio.ensure_future(follower.run())
    server = NameServer()
    sockets = bind(await follower.addresses, 0)
    listener = Listener(sockets, server.at_once, server.answer)
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
    for _ in range(200):
        if await world.addresses(name) == addresses:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{name}: {await world.addresses(name)}")


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
    config = {"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "data": data}
    await world.client.create(CONFIG_MAPS, config)
    for _ in range(200):
        await world.ask("db.acme.local")
        if other.asked:
            break
        await asyncio.sleep(0.005)
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
    question = bytes(DNSRecord.question("example.com").pack())
    reply = DNSRecord.parse(question).reply()
    reply.add_answer(RR("example.com", QTYPE.A, ttl=60, rdata=A("192.0.2.1")))
    memory = Memory(size=2)
    memory.put(question[2:], bytes(reply.pack()))
    kept = memory.get(question[2:], b"\7\7")
    assert kept is not None and kept[:2] == b"\7\7"
    assert DNSRecord.parse(kept).rr[0].ttl in (59, 60)
    for n in range(3):
        memory.put(bytes([n]), bytes(reply.pack()))
    assert memory.get(question[2:], b"\7\7") is None


def test_settings_are_read_and_what_is_wrong_is_left_out():
    host = servers("search x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver bad\n")
    assert host == [("192.0.2.1", 53), ("fe80::1%eth0", 53)]
    data = {
        "upstreamNameservers": '["192.0.2.9", "nonsense"]',
        "stubDomains": '{"a.b.": ["192.0.2.3:5353"], "c": []}',
    }
    found = read({"data": data}, host)
    assert found.servers_for("x.a.b") == [("192.0.2.3", 5353)]
    assert found.servers_for("example.com") == (("192.0.2.9", 53),)
    assert read({"data": {"stubDomains": "["}}, host).upstreams == tuple(host)


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
    for _ in range(50):
        reply = await world.ask("me.default.svc.cluster.local")
        if reply.rr:
            break
        await asyncio.sleep(0.005)
    assert reply.header.rcode == 0 and len(reply.rr) < 12
    world.beyond.silent = True
    # What is remembered needs nobody.
    assert await world.addresses("second.default.svc.cluster.local") == ["192.0.2.80"]


async def test_an_alias_to_nothing_says_so(world: World):
    spec = {"type": "ExternalName", "externalName": "nobody.example"}
    out = {"metadata": {"name": "gone", "namespace": "default"}, "spec": spec}
    await world.client.create(SERVICES, out)
    for _ in range(200):
        reply = await world.ask("gone.default.svc.cluster.local")
        if reply.rr:
            break
        await asyncio.sleep(0.005)
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
    config = {"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "data": data}
    await world.client.create(CONFIG_MAPS, config)
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
        if n % 200 == 0:
            assert await world.addresses("web.default.svc.cluster.local") == ["10.96.0.7"]
    transport.close()
    assert len(world.server._forwarder._asked) <= 512
    assert await world.addresses("web.default.svc.cluster.local") == ["10.96.0.7"]


async def test_without_a_server_that_answers_the_client_is_told(world: World):
    data = {"upstreamNameservers": '["127.0.0.1:1"]'}
    config = {"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "data": data}
    await world.client.create(CONFIG_MAPS, config)
    for n in range(200):
        if (await world.ask(f"n{n}.example")).header.rcode == 2:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("no SERVFAIL")
