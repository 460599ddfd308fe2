"""Which endpoint a client is given by a proxy in mode userspace."""

import asyncio
import contextlib
import socket

from wherry.net import relay
from wherry.net.service.ports import ServicePort
from wherry.net.service.userspace import Balancer, Balancers, Clients

A, B, C = ("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def balancer(seconds=0):
    clock = Clock()
    clients = Clients(clock)
    clients.seconds = seconds
    made = Balancer(clients)
    made.set((A, B, C))
    return made, clock


def test_each_endpoint_has_its_turn_and_the_others_are_tried_after_it():
    made, _ = balancer()
    assert [made.choose("x") for _ in range(4)] == [[A, B, C], [B, C, A], [C, A, B], [A, B, C]]


def test_a_client_keeps_its_endpoint_until_its_time_is_over():
    made, clock = balancer(seconds=10)
    assert made.choose("x")[0] == A
    assert made.choose("y")[0] == B
    clock.now = 9
    assert made.choose("x")[0] == A
    clock.now = 18  # counted from the last time
    assert made.choose("x")[0] == A
    assert made.choose("y")[0] == C
    clock.now = 29
    assert made.choose("x")[0] == A  # the next one's turn


def test_a_client_whose_endpoint_has_left_gets_another():
    made, _ = balancer(seconds=10)
    assert made.choose("x")[0] == A
    made.set((B, C))
    kept = made.choose("x")[0]
    assert kept in (B, C)
    assert {made.choose("x")[0] for _ in range(4)} == {kept}


def test_nobody_is_chosen_where_there_is_nobody():
    made, _ = balancer()
    made.set(())
    assert made.choose("x") == []


def test_an_endpoint_that_refuses_is_passed_over(monkeypatch):
    monkeypatch.setattr(relay, "_PATIENCE", 60)

    async def play():
        async def hello(_reader, writer):
            writer.write(b"hello")
            writer.close()

        server = await asyncio.start_server(hello, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        dead = socket.socket()
        dead.bind(("127.0.0.1", 0))  # and so nobody else's, but it does not listen
        nobody = dead.getsockname()[1]
        balancers = Balancers(("127.0.0.1",))
        web = ServicePort(
            "a/b", "tcp", 80, "10.96.0.1", inside=(("127.0.0.1", nobody), ("127.0.0.1", port))
        )
        ours = await balancers.serve(web)
        assert ours is not None and ours.outside == () and len(ours.inside) == 1
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*ours.inside[0])
            assert await reader.read() == b"hello"
            writer.close()
        again = await balancers.serve(web)
        assert again is not None and again.inside == ours.inside
        await balancers.stop()
        with contextlib.suppress(ConnectionRefusedError):
            await asyncio.open_connection(*ours.inside[0])
            raise AssertionError("it still listens")
        server.close()
        dead.close()

    asyncio.run(asyncio.wait_for(play(), 60))


def test_what_cannot_be_balanced_is_not_served():
    async def play():
        balancers = Balancers(("127.0.0.1",))
        assert (
            await balancers.serve(ServicePort("a/b", "sctp", 80, "10.96.0.1", inside=(A,))) is None
        )
        assert await balancers.serve(ServicePort("a/b", "tcp", 80, "fd00::1", inside=(A,))) is None

    asyncio.run(play())


def test_however_many_clients_send_datagrams_there_is_room_for_the_next(monkeypatch):
    monkeypatch.setattr(relay, "MOST_CLIENTS", 8)

    async def play():
        loop = asyncio.get_running_loop()

        class Echo(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, address):
                self.transport.sendto(data, address)

        transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        target = transport.get_extra_info("sockname")
        balancers = Balancers(("127.0.0.1",))
        served = ServicePort("a/b", "udp", 53, "10.96.0.1", inside=(target,))
        ours = await balancers.serve(served)
        assert ours is not None
        for number in range(40):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.connect(ours.inside[0])
                await loop.sock_sendall(client, b"%d" % number)
                assert await loop.sock_recv(client, 9) == b"%d" % number
        (port,) = balancers._ports.values()
        assert len(port._relay._front._backs) <= 8
        await balancers.stop()
        transport.close()

    asyncio.run(asyncio.wait_for(play(), 60))
