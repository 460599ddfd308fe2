"""HTTP/1.1 by hand, to one server: for connections that may be taken over after the first answer.

An answer is relayed as it comes; after a ``101`` only bytes are carried.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.web_request import BaseRequest

from wherry.host.hijack import HijackedStream, client_gone, join, take_over

DIAL = 10.0  # seconds
_HEAD_LIMIT = 64 * 1024
_CHUNK = 64 * 1024


class Unreachable(Exception):
    """The other side cannot be spoken to; ``str()`` says why, as Go's net package words it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes. ``path`` is encoded, with its query; ``name`` is what the certificate
    of the other side must be for, if not its host."""

    host: str
    port: int
    path: str
    scheme: str = "https"
    name: str = ""

    @property
    def authority(self) -> str:
        """``host:port``, as it stands in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


async def dial(
    target: Target, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to ``target``, by TLS if its scheme says so. Raises Unreachable."""
    secured = target.scheme == "https"
    try:
        async with asyncio.timeout(DIAL):
            return await asyncio.open_connection(
                target.host,
                target.port,
                ssl=context if secured else None,
                server_hostname=target.name or None if secured else None,
                limit=_HEAD_LIMIT,
            )
    except (OSError, ssl.SSLError) as error:
        raise Unreachable(why_not(target, error)) from error


def why_not(target: Target, error: BaseException | None) -> str:
    """Why a connection failed, in the words of Go's net and crypto/tls."""
    dialling = f"dial tcp {target.authority}: "
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return dialling + "i/o timeout"
    if isinstance(error, ConnectionRefusedError):
        return dialling + "connect: connection refused"
    if isinstance(error, OSError) and error.strerror:
        return f"{dialling}connect: {error.strerror.lower()}"
    return dialling + str(error)


def head(request: BaseRequest, target: Target, headers: Iterable[tuple[str, str]]) -> bytes:
    """The request line for ``target``, with ``headers``."""
    lines = [f"{request.method} {target.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


Head = tuple[int, list[tuple[str, str]]]


async def answer_head(reader: asyncio.StreamReader) -> tuple[bytes, int, list[tuple[str, str]]]:
    """The head of an answer: its bytes, its code, its headers (names in lower case).

    Raises:
        Unreachable: there is none.
    """
    try:
        while True:
            data = await reader.readuntil(b"\r\n\r\n")
            code, headers = _parse_head(data)
            if code == 101 or code >= 200:
                return data, code, headers
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Unreachable("unexpected EOF") from error
    except (ValueError, IndexError) as error:
        raise Unreachable("malformed HTTP response") from error
    except OSError as error:
        raise Unreachable("EOF") from error


def _parse_head(data: bytes) -> Head:
    first, *lines = data.decode("latin-1").split("\r\n")
    code = int(first.split(" ", 2)[1])
    headers = []
    for line in lines:
        name, sign, value = line.partition(":")
        if sign:
            headers.append((name.strip().lower(), value.strip()))
    return code, headers


async def relay(
    request: BaseRequest,
    code: int,
    headers: list[tuple[str, str]],
    reader: asyncio.StreamReader,
) -> web.StreamResponse:
    """A plain answer, as it comes."""
    given = dict(headers)
    response = web.StreamResponse(status=code)
    response.headers["Content-Type"] = given.get("content-type", "text/plain")
    if "content-length" in given:
        response.content_length = int(given["content-length"])
    else:
        response.enable_chunked_encoding()
    await response.prepare(request)
    leaving = asyncio.ensure_future(client_gone(request))
    # With nobody to read it, the answer ends here; the other side is told by the caller's close.
    leaving.add_done_callback(lambda left: None if left.cancelled() else reader.feed_eof())
    try:
        async for chunk in body(reader, given):
            await response.write(chunk)
    except asyncio.IncompleteReadError:
        if request.transport is not None:
            request.transport.abort()  # what was promised did not come
        raise ConnectionResetError("the other side broke off") from None
    finally:
        leaving.cancel()
    await response.write_eof()
    return response


async def body(
    reader: asyncio.StreamReader, headers: Mapping[str, str]
) -> AsyncGenerator[bytes, None]:
    """The body of an answer, decoded from its transfer coding (RFC 9112, section 7)."""
    chunked = "chunked" in headers.get("transfer-encoding", "")
    length = int(headers["content-length"]) if "content-length" in headers else None
    if chunked:
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if not size:
                return
            while size:
                data = await reader.read(min(size, _CHUNK))
                if not data:
                    raise asyncio.IncompleteReadError(b"", size)
                size -= len(data)
                yield data
            await reader.readexactly(2)
    while length is None or length > 0:
        data = await reader.read(_CHUNK if length is None else min(length, _CHUNK))
        if not data:
            if length is None:
                return
            raise asyncio.IncompleteReadError(b"", length)
        if length is not None:
            length -= len(data)
        yield data


async def tunnel(
    client: HijackedStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> web.StreamResponse:
    """Carry bytes both ways until either side has closed."""
    try:
        # The other server's end ends the stream; a client that stops sending may still be
        # listening, but over TLS it cannot close one half alone: it has gone.
        await join(client, take_over(reader, writer))
    except asyncio.CancelledError:
        client.abort()
        raise
    await client.close()
    return client.response
