import asyncio
import socket
import threading

import pytest
from dnslib import DNSRecord

from wherry.net.name_query import ask

QUERY = DNSRecord.question("web.example.com").pack()
ANSWER = DNSRecord.parse(QUERY).reply().pack()


async def _asked(*pieces: bytes) -> bytes:
    """What is made of an answer that comes in pieces by a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                for piece in pieces:
                    connection.sendall(piece)

        server = threading.Thread(target=serve)
        server.start()
        try:
            async with asyncio.timeout(60):
                return await ask(QUERY, listener.getsockname(), datagram=False)
        finally:
            await asyncio.to_thread(server.join)


async def test_an_answer_may_come_in_pieces_and_the_rest_is_left() -> None:
    whole = len(ANSWER).to_bytes(2, "big") + ANSWER
    assert await _asked(whole[:1], whole[1:9], whole[9:] + b"more") == ANSWER


async def test_a_connection_that_breaks_off_is_no_answer() -> None:
    with pytest.raises((EOFError, OSError)):
        await _asked(len(ANSWER).to_bytes(2, "big") + ANSWER[:-1])


async def test_an_answer_to_another_question_is_an_error_on_a_connection() -> None:
    with pytest.raises(OSError, match="another question"):
        await _asked(len(QUERY).to_bytes(2, "big") + QUERY)
