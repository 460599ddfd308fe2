"""Clients of an API server process, down to the socket, for tests of load and bad luck."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
from apiserver_process import Server

PODS = "/api/v1/namespaces/default/pods"


def context(server: Server, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """For a client that shows this certificate, or the administrator's."""
    made = ssl.create_default_context(cafile=str(server.authority.certificate))
    made.load_cert_chain(*map(str, pair or server.admin))
    return made


def session(server: Server, pair: tuple[Path, Path] | None = None) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=context(server, pair), limit=0)
    return aiohttp.ClientSession(f"https://127.0.0.1:{server.port}", connector=connector)


async def make_pods(server: Server, count: int, *, weight: int = 0) -> None:
    """Make pods, each with an annotation of ``weight`` bytes."""
    numbers = iter(range(count))

    async def work(client: aiohttp.ClientSession) -> None:
        for n in numbers:
            pod = {
                "metadata": {"name": f"p-{n:05}", "annotations": {"weight": "x" * weight}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "containers": [{"name": "c", "image": "i"}],
                },
            }
            async with client.post(PODS, json=pod) as answer:
                assert answer.status == 201, await answer.text()

    async with session(server) as client:
        account = {"metadata": {"name": "default"}}
        async with client.post(PODS.replace("pods", "serviceaccounts"), json=account) as answer:
            assert answer.status in (201, 409)
        await asyncio.gather(*(work(client) for _ in range(16)))


class Connection:
    """One connection, on which a request is sent and its answer is read when one likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, server: Server, pair: tuple[Path, Path] | None = None) -> Connection:
        return cls(
            *await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=context(server, pair), limit=1 << 20
            )
        )

    def ask(self, path: str, method: str = "GET", headers: str = "") -> None:
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(": ") for line in lines if line)
        return int(first.split()[1]), {name.lower(): value for name, _, value in pairs}

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """The whole answer; it says how long it is."""
        code, headers = await self.head()
        body = await self.reader.readexactly(int(headers["content-length"]))
        return code, headers, json.loads(body) if body else None

    async def close(self) -> None:
        self.writer.transport.abort()
