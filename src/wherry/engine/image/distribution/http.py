"""HTTP to registries and other servers, and what is said when it fails.

A server that cannot be reached is reported in the words of Docker, which are those of Go's network
library, because that is what users search for. No connecting takes longer than ``CONNECT_TIMEOUT``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from wherry import __version__
from wherry.engine.errors import EngineError

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

CONNECT_TIMEOUT = 15.0  # seconds, as Docker waits for a registry's first answer
READ_TIMEOUT = 60.0  # seconds without a byte


class Unreachable(EngineError):
    """No answer at all: another address of the same registry may have one."""


async def open_url(url: str, consume: Callable[[aiohttp.ClientResponse], Awaitable[T]]) -> T:
    """What ``consume`` makes of the answer to a GET of ``url`` (``docker import http://…``).

    Raises:
        EngineError: it cannot be fetched.
    """
    async with session() as client, explained(url), client.get(url) as answer:
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise EngineError(f"failed to GET {url} with status {answer.status} {answer.reason}")
        return await consume(answer)


def session(tls: ssl.SSLContext | bool = True) -> aiohttp.ClientSession:
    """A session; ``tls`` is what to trust, False for anybody."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT
    )
    connector = aiohttp.TCPConnector(ssl=tls)
    # Digests are those of the bytes as they are; nobody is to pack them on the way.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"wherry/{__version__}"}
    return aiohttp.ClientSession(
        timeout=timeout, trust_env=True, connector=connector, headers=headers
    )


async def dial(url: str, method: str = "Get") -> None:
    """Connect once, only to say precisely what is wrong when that fails.

    Raises:
        Unreachable: that is what is wrong.
    """
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme, "")
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            try:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (socket.gaierror, UnicodeError) as error:
                code = error.errno if isinstance(error, OSError) else None
                text = _LOOKUP.get(code or socket.EAI_NONAME, str(error))
                raise Unreachable(f'{method} "{url}": dial tcp: lookup {host}: {text}') from None
            failure: OSError | None = None
            for *_, address in found:
                try:
                    _, writer = await asyncio.open_connection(str(address[0]), port)
                    writer.close()
                    return
                except OSError as error:
                    failure = failure or error
    except TimeoutError:
        raise Unreachable(
            f'{method} "{url}": net/http: request canceled while waiting for connection'
            " (Client.Timeout exceeded while awaiting headers)"
        ) from None
    shown = str(found[0][4][0])
    shown = f"[{shown}]" if ":" in shown else shown
    reason = os.strerror((failure and failure.errno) or errno.ECONNREFUSED).lower()
    raise Unreachable(f'{method} "{url}": dial tcp {shown}:{port}: connect: {reason}')


@contextlib.asynccontextmanager
async def explained(url: str, method: str = "Get") -> AsyncIterator[None]:
    """Turns what an HTTP exchange may fail with into the sentence Docker has for it."""
    import aiohttp

    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        text = f"tls: failed to verify certificate: {error.certificate_error}"
        raise Unreachable(f'{method} "{url}": {text}') from None
    except aiohttp.ClientSSLError:
        text = "http: server gave HTTP response to HTTPS client"
        raise Unreachable(f'{method} "{url}": {text}') from None
    except TimeoutError:
        text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        raise Unreachable(f'{method} "{url}": {text}') from None
    except aiohttp.ServerDisconnectedError:
        raise Unreachable(f'{method} "{url}": EOF') from None
    except aiohttp.ClientConnectorError as error:
        await dial(url, method)
        raise Unreachable(f'{method} "{url}": {error}') from None
    except aiohttp.ClientOSError as error:
        reason = os.strerror(error.errno or errno.ECONNRESET).lower()
        raise Unreachable(f'{method} "{url}": {reason}') from None
    except (aiohttp.ClientError, ValueError) as error:
        raise Unreachable(f'{method} "{url}": {error}') from None


_LOOKUP = {
    socket.EAI_NONAME: "no such host",
    socket.EAI_NODATA: "no such host",
    socket.EAI_AGAIN: "Temporary failure in name resolution",
}
