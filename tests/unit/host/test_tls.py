"""TLS against Python's own client, over real sockets."""

import asyncio
import socket
import ssl

import pytest

from wherry.host.hijack import take_over
from wherry.host.tls import TLSServerProtocol, mutual
from wherry.launcher.pki import Authority


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    authority = Authority(directory, "test")
    authority.issue_server("server", "server", names=["localhost"], addresses=["127.0.0.1"])
    authority.issue_client("client", "client", "")
    return directory


def client_context(keys, *, certificate=True):
    context = ssl.create_default_context(cafile=keys / "ca.crt")
    if certificate:
        context.load_cert_chain(keys / "client.crt", keys / "client.key")
    return context


async def served(keys, handle, visit):
    """What ``visit(port)``, run in a thread, returns, while ``handle`` serves streams."""
    context = mutual(keys / "ca.crt", keys / "server.crt", keys / "server.key")
    loop = asyncio.get_running_loop()

    def protocol():
        reader = asyncio.StreamReader()
        return asyncio.StreamReaderProtocol(reader, handle)

    server = await loop.create_server(lambda: TLSServerProtocol(context, protocol), "127.0.0.1", 0)
    try:
        return await asyncio.to_thread(visit, server.sockets[0].getsockname()[1])
    finally:
        server.close()


def connected(keys, port):
    plain = socket.create_connection(("127.0.0.1", port), timeout=60)
    return client_context(keys).wrap_socket(plain, server_hostname="localhost")


async def test_the_server_goes_on_after_the_clients_last_word(keys):
    async def handle(reader, writer):
        everything = await reader.read()
        await asyncio.sleep(0)  # the end of the client's sending is not the end of ours
        writer.write(everything.upper())
        writer.close()

    def visit(port):
        """A client that ends its sending alone, which Python's sockets cannot."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context(keys).wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:

            def through(call):
                while True:
                    try:
                        return call()
                    except ssl.SSLWantReadError:
                        plain.sendall(outgoing.read())
                        data = plain.recv(65536)
                        if not data:
                            raise EOFError from None
                        incoming.write(data)

            through(tls.do_handshake)
            tls.write(b"hello")
            with pytest.raises(ssl.SSLWantReadError):
                tls.unwrap()  # close_notify is said, the answer not awaited
            plain.sendall(outgoing.read())
            answer = b""
            while piece := plain.recv(65536):
                incoming.write(piece)
                while True:
                    try:
                        answer += tls.read(65536) or b""
                        if not incoming.pending:
                            break
                    except ssl.SSLError:
                        break
            return answer

    assert await served(keys, handle, visit) == b"HELLO"


async def test_much_goes_through_both_ways(keys):
    size = 8 << 20

    async def handle(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    block = bytes(range(256)) * 256

    async def both_ways(port):
        # One thread: OpenSSL does not allow that one reads while another writes.
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context(keys), server_hostname="localhost"
        )

        async def send():
            for _ in range(size // len(block)):
                writer.write(block)
                await writer.drain()

        received, _ = await asyncio.gather(reader.readexactly(size), send())
        writer.close()
        return received

    def visit(port):
        return asyncio.run(asyncio.wait_for(both_ways(port), 60))

    assert await served(keys, handle, visit) == block * (size // len(block))


async def test_nobody_enters_without_a_certificate(keys):
    entered = []

    async def handle(reader, writer):
        entered.append(1)

    def visit(port):
        plain = socket.create_connection(("127.0.0.1", port), timeout=60)
        context = client_context(keys, certificate=False)
        with (
            pytest.raises(ssl.SSLError),
            context.wrap_socket(plain, server_hostname="localhost") as client,
        ):
            client.sendall(b"x")
            client.recv(1)

    await served(keys, handle, visit)
    assert not entered


async def test_who_speaks_http_is_told(keys):
    async def handle(reader, writer):
        raise AssertionError

    def visit(port):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
            plain.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            return plain.makefile("rb").read()

    answer = await served(keys, handle, visit)
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert b"Client sent an HTTP request to an HTTPS server." in answer


async def test_a_connection_taken_over_from_the_event_loops_tls_ends_without_a_word_in_the_log(
    keys, caplog
):
    async def handle(reader, writer):
        writer.write(await reader.readexactly(5))
        writer.close()

    async def visit(port):
        reader, writer = await asyncio.open_connection(
            "localhost", port, ssl=client_context(keys), family=socket.AF_INET
        )
        stream = take_over(reader, writer)
        await stream.write(b"hello")
        answer = b""
        while piece := await stream.read():
            answer += piece
        await stream.close()
        return answer

    context = mutual(keys / "ca.crt", keys / "server.crt", keys / "server.key")
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with server:
        assert await visit(server.sockets[0].getsockname()[1]) == b"hello"
    assert "eof_received" not in caplog.text
