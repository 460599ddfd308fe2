"""The name server and its forwarding, with sockets of the test's own network."""

import asyncio
import contextlib
import socket
import struct

import pytest
from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from ports import free_port
from wherry.engine.network.dns import forward as forwarding
from wherry.engine.network.dns import server as module
from wherry.engine.network.dns.forward import Upstream, forward
from wherry.engine.network.dns.server import Forwarding, NameServer
from wherry.engine.network.dns.zone import Member, Place, Zone


class Fake(asyncio.DatagramProtocol):
    """A name server elsewhere: ``reply`` makes its answers, None for silence."""

    def __init__(self, reply):
        self.reply = reply
        self.asked = []
        self.heard = asyncio.Semaphore(0)

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.asked.append(data)
        self.heard.release()
        for answer in self.reply(data):
            self.transport.sendto(answer, addr)

    async def serve(self, reader, writer):
        with contextlib.suppress(EOFError):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            data = await reader.readexactly(length)
            self.asked.append(data)
            self.heard.release()
            for answer in self.reply(data):
                message = struct.pack("!H", len(answer)) + answer
                for i in range(len(message)):  # as torn as it can be
                    writer.write(message[i : i + 1])
                    await writer.drain()
        writer.close()


def says(address="10.1.1.1", *, rcode="NOERROR", aa=False):
    def reply(data):
        answer = DNSRecord.parse(data).reply(aa=aa)
        answer.header.rcode = RCODE.reverse[rcode]
        if rcode == "NOERROR":
            answer.add_answer(RR(answer.q.qname, QTYPE.A, rdata=A(address), ttl=60))
        return [answer.pack()]

    return reply


def silent(data):
    return []


@pytest.fixture
async def elsewhere(monkeypatch):
    """Make fake name servers; each is an Upstream."""
    monkeypatch.setattr(
        forwarding.name_sockets,
        "client",
        lambda kind, family, namespace: socket.socket(family, kind | socket.SOCK_NONBLOCK),
    )
    fakes = []
    loop = asyncio.get_running_loop()

    async def make(reply):
        fake = Fake(reply)
        while True:  # until a port is free for both
            server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            try:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: fake, ("127.0.0.1", port)
                )
                break
            except OSError:
                server.close()
        fakes.append((transport, server))
        return fake, Upstream("127.0.0.1", port=port)

    yield make
    for transport, server in fakes:
        transport.close()
        server.close()


def rcode(reply):
    return RCODE.get(DNSRecord.parse(reply).header.rcode)


QUERY = DNSRecord.question("example.org").pack()


@pytest.mark.parametrize("datagram", [True, False])
async def test_the_query_goes_on_as_it_is_and_the_answer_comes_back_as_it_is(elsewhere, datagram):
    fake, upstream = await elsewhere(says())
    reply = await forward(QUERY, [upstream], None, datagram=datagram)
    assert fake.asked == [QUERY]
    assert reply == says()(QUERY)[0]


@pytest.mark.parametrize(
    "first",
    [silent, says(rcode="SERVFAIL"), says(rcode="REFUSED"), says(rcode="NXDOMAIN")],
)
async def test_the_next_is_asked_where_one_does_not_know(elsewhere, first):
    _, bad = await elsewhere(first)
    _, good = await elsewhere(says())
    patience = 1 if first is silent else 60
    reply = await forward(QUERY, [bad, good], None, datagram=True, timeout=patience)
    assert rcode(reply) == "NOERROR"


async def test_an_authority_s_no_is_believed(elsewhere):
    _, authority = await elsewhere(says(rcode="NXDOMAIN", aa=True))
    other, good = await elsewhere(says())
    assert rcode(await forward(QUERY, [authority, good], None, datagram=True)) == "NXDOMAIN"
    assert not other.asked


async def test_a_no_is_better_than_nothing(elsewhere):
    _, no = await elsewhere(says(rcode="NXDOMAIN"))
    _, mute = await elsewhere(silent)
    reply = await forward(QUERY, [no, mute], None, datagram=True, timeout=1)
    assert rcode(reply) == "NXDOMAIN"
    assert await forward(QUERY, [mute], None, datagram=True, timeout=0.05) is None


async def test_a_server_that_is_not_there_takes_no_time(elsewhere):
    nobody = Upstream("127.0.0.1", port=free_port(socket.SOCK_DGRAM))
    _, good = await elsewhere(says())
    for datagram in (True, False):
        reply = await forward(QUERY, [nobody, good], None, datagram=datagram, timeout=60)
        assert rcode(reply) == "NOERROR"


async def test_answers_to_other_questions_are_not_believed(elsewhere):
    def liar(data):
        other = DNSRecord.question("evil.example").reply()
        other.header.id = DNSRecord.parse(data).header.id
        guess = DNSRecord.parse(data).reply()
        guess.header.id ^= 1
        return [b"", b"x" * 5, other.pack(), guess.pack(), data, *says("10.2.2.2")(data)]

    _, upstream = await elsewhere(liar)
    reply = await forward(QUERY, [upstream], None, datagram=True)
    assert str(DNSRecord.parse(reply).rr[0].rdata) == "10.2.2.2"


# ---- the server


class Client:
    def __init__(self, address):
        self.address = address

    async def datagram(self, query):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as own:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(own, self.address["udp"])
            await loop.sock_sendall(own, query)
            async with asyncio.timeout(60):
                return await loop.sock_recv(own, 65535)

    async def connection(self, *queries):
        reader, writer = await asyncio.open_connection(*self.address["tcp"])
        replies = []
        for query in queries:
            writer.write(struct.pack("!H", len(query)) + query)
            async with asyncio.timeout(60):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                replies.append(await reader.readexactly(length))
        writer.close()
        return replies


@pytest.fixture
async def serve(monkeypatch, tmp_path):
    address = {}

    def listen(namespace):
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        datagrams.bind(("127.0.0.1", 0))
        connections = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connections.bind(("127.0.0.1", 0))
        connections.listen()
        address.update(udp=datagrams.getsockname(), tcp=connections.getsockname())
        return datagrams, connections

    monkeypatch.setattr(module.name_sockets, "listen", listen)
    zone = Zone("front")
    zone.enter(Member("1", ("web",), ("172.18.0.2",)))
    servers = []

    async def make(forwarding):
        server = NameServer(tmp_path, [Place(zone)], forwarding)
        await server.open()
        servers.append(server)
        return server, Client(address)

    yield make
    for server in servers:
        server.close()


def question(name):
    return DNSRecord.question(name).pack()


async def test_names_of_ours_are_answered_and_others_forwarded(serve, elsewhere):
    fake, upstream = await elsewhere(says("10.1.1.1"))
    _, client = await serve(Forwarding([upstream]))
    own = DNSRecord.parse(await client.datagram(question("web")))
    assert str(own.rr[0].rdata) == "172.18.0.2"
    other = DNSRecord.parse(await client.datagram(question("example.org")))
    assert str(other.rr[0].rdata) == "10.1.1.1"
    replies = await client.connection(question("web"), question("single"), question("web"))
    assert [str(DNSRecord.parse(r).rr[0].rdata) for r in replies] == [
        "172.18.0.2",
        "10.1.1.1",
        "172.18.0.2",
    ]
    assert len(fake.asked) == 2


async def test_without_a_way_out_nobody_is_asked(serve, elsewhere):
    fake, upstream = await elsewhere(says())
    _, client = await serve(Forwarding([upstream], allowed=False))
    assert rcode(await client.datagram(question("example.org"))) == "SERVFAIL"
    assert not fake.asked


async def test_single_labels_stay_inside_where_the_user_set_ndots(serve, elsewhere):
    fake, upstream = await elsewhere(says())
    _, client = await serve(Forwarding([upstream], single_labels=False))
    reply = DNSRecord.parse(await client.datagram(question("other")))
    assert reply.header.rcode == RCODE.NOERROR and not reply.rr
    assert not fake.asked
    assert rcode(await client.datagram(question("a.b"))) == "NOERROR"
    assert len(fake.asked) == 1


async def test_who_gets_no_answer_is_told(serve, elsewhere, monkeypatch):
    monkeypatch.setattr(forward, "__kwdefaults__", {"timeout": 0.1})
    _, upstream = await elsewhere(silent)
    _, client = await serve(Forwarding([upstream]))
    assert rcode(await client.datagram(question("example.org"))) == "SERVFAIL"
    assert rcode((await client.connection(question("example.org")))[0]) == "SERVFAIL"


async def test_queries_that_wait_are_bounded(serve, elsewhere, monkeypatch):
    monkeypatch.setattr(module, "MAX_QUERIES", 2)
    fake, upstream = await elsewhere(silent)
    _, client = await serve(Forwarding([upstream]))
    waiting = [asyncio.create_task(client.datagram(question(f"{n}.example"))) for n in range(2)]
    for _ in range(2):
        await fake.heard.acquire()
    assert rcode(await client.datagram(question("3.example"))) == "REFUSED"
    assert rcode(await client.datagram(question("web"))) == "NOERROR"
    for task in waiting:
        task.cancel()


async def test_connections_are_bounded(serve, monkeypatch):
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    _, client = await serve(Forwarding())
    reader, writer = await asyncio.open_connection(*client.address["tcp"])
    query = question("web")
    writer.write(struct.pack("!H", len(query)) + query)
    await reader.readexactly(2)
    with pytest.raises((EOFError, OSError)):
        await client.connection(query)
    writer.close()


async def test_garbage_is_survived(serve):
    _, client = await serve(Forwarding())
    assert rcode(await client.datagram(question("web")[:-2])) == "FORMERR"
    with pytest.raises((EOFError, OSError)):
        await client.connection(b"x")
    assert rcode(await client.datagram(question("web"))) == "NOERROR"


async def test_after_its_end_nothing_is_left(serve, elsewhere):
    fake, upstream = await elsewhere(silent)
    server, client = await serve(Forwarding([upstream]))
    datagram = asyncio.create_task(client.datagram(question("a.example")))
    connection = asyncio.create_task(client.connection(question("b.example")))
    for _ in range(2):
        await fake.heard.acquire()
    server.close()
    with pytest.raises((EOFError, OSError)):
        await connection
    datagram.cancel()
    with pytest.raises(OSError):
        await asyncio.open_connection(*client.address["tcp"])
