"""Asking a registry, as far as this engine does: is it there, and what does it say?

A registry that cannot be reached is reported in the words of Docker, which are those of Go's
network library, because that is what users search for. No attempt takes longer than
``CONNECT_TIMEOUT``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from wherry.engine.errors import BadParameter, EngineError, NotFound
from wherry.engine.image.reference import DEFAULT_DOMAIN, Reference

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

REGISTRY_OF_DOCKER = "registry-1.docker.io"
INDEX_OF_DOCKER = "index.docker.io"
CONNECT_TIMEOUT = 15.0  # seconds, as Docker waits for a registry's first answer
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


_LOOPBACK = ("localhost", "127.", "[::1]")

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What ``X-Registry-Auth`` carries."""

    username: str = ""
    password: str = ""

    def headers(self) -> Headers:
        """Basic authentication, where there is a user."""
        if not self.username:
            return {}
        pair = f"{self.username}:{self.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


async def check_manifest(reference: Reference, credentials: Credentials) -> None:
    """Return when the registry has the manifest that ``reference`` names.

    Raises:
        NotFound: it does not, or does not tell us.
        EngineError: the registry cannot be reached, or answers with something else.
    """
    host = REGISTRY_OF_DOCKER if reference.domain == DEFAULT_DOMAIN else reference.domain
    base = await _ping(host)
    version = reference.digest or reference.tag
    url = f"{base}{reference.path}/manifests/{version}"
    status, challenge = await _head(url, {"Accept": _ACCEPT, **credentials.headers()})
    if status == HTTPStatus.UNAUTHORIZED and challenge.lower().startswith("bearer "):
        token = await _token(challenge, reference.path, credentials)
        if token:
            accept = {"Accept": _ACCEPT, "Authorization": f"Bearer {token}"}
            status, _ = await _head(url, accept)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may"
            " require 'docker login': denied: requested access to the resource is denied"
        )
    if status == HTTPStatus.NOT_FOUND:
        raise NotFound(
            f"manifest for {reference.familiar()} not found: manifest unknown: manifest unknown"
        )
    if status != HTTPStatus.OK:
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        raise EngineError(f"received unexpected HTTP status: {status} {phrase}".rstrip())


async def search(term: str, limit: int, credentials: Credentials) -> list[dict[str, Any]]:
    """The repositories of Docker Hub that match, as ``GET /images/search`` answers.

    Raises:
        EngineError: it cannot be reached, or answers with something else.
    """
    if "://" in term:
        raise BadParameter(f"invalid repository name ({term}), it should not contain a scheme")
    url = f"https://{INDEX_OF_DOCKER}/v1/search?q={quote(term, safe='')}&n={limit or 25}"
    await _dial(url)
    headers = credentials.headers()
    async with _session() as session, _explained(url), session.get(url, headers=headers) as answer:
        if answer.status != HTTPStatus.OK:
            raise EngineError(f"Unexpected status code {answer.status}")
        document = await answer.json(content_type=None)
    results = document.get("results") or []
    return [
        {
            "star_count": int(one.get("star_count") or 0),
            "is_official": bool(one.get("is_official")),
            "name": str(one.get("name") or ""),
            "is_automated": False,
            "description": str(one.get("description") or ""),
        }
        for one in results
    ]


async def open_url(url: str, consume: Callable[[aiohttp.ClientResponse], Awaitable[T]]) -> T:
    """What ``consume`` makes of the answer to a GET of ``url`` (``docker import http://…``).

    Raises:
        EngineError: it cannot be fetched.
    """
    await _dial(url)
    async with _session() as session, _explained(url), session.get(url) as answer:
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise EngineError(f"failed to GET {url} with status {answer.status} {answer.reason}")
        return await consume(answer)


async def _ping(host: str) -> str:
    """The base address of the registry; HTTP only for a loopback one that has no HTTPS."""
    url = f"https://{host}/v2/"
    try:
        await _dial(url)
        async with _session() as session, _explained(url), session.get(url):
            return url
    except EngineError:
        if not host.startswith(_LOOPBACK):
            raise
    url = f"http://{host}/v2/"
    await _dial(url)
    async with _session() as session, _explained(url), session.get(url):
        return url


async def _head(url: str, headers: Headers) -> tuple[int, str]:
    async with _session() as session, _explained(url), session.head(url, headers=headers) as answer:
        return answer.status, answer.headers.get("WWW-Authenticate", "")


async def _token(challenge: str, repository: str, credentials: Credentials) -> str:
    """A token for pulling, from the service that the registry's challenge names."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.get("realm", "")
    if not realm.startswith(("https://", *(f"http://{host}" for host in _LOOPBACK))):
        return ""  # a password must not go over an open line
    query = {"service": fields.get("service", ""), "scope": f"repository:{repository}:pull"}
    await _dial(realm)
    async with (
        _session() as session,
        _explained(realm),
        session.get(realm, params=query, headers=credentials.headers()) as answer,
    ):
        if answer.status != HTTPStatus.OK:
            return ""
        document = await answer.json(content_type=None)
    return str(document.get("token") or document.get("access_token") or "")


def _session() -> aiohttp.ClientSession:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=60)
    return aiohttp.ClientSession(timeout=timeout, trust_env=True)


async def _dial(url: str) -> None:
    """Connect once, only to say precisely what is wrong when that fails."""
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
                raise EngineError(f'Get "{url}": dial tcp: lookup {host}: {text}') from None
            failure: OSError | None = None
            for *_, address in found:
                try:
                    _, writer = await asyncio.open_connection(str(address[0]), port)
                    writer.close()
                    return
                except OSError as error:
                    failure = failure or error
    except TimeoutError:
        raise EngineError(
            f'Get "{url}": net/http: request canceled while waiting for connection'
            " (Client.Timeout exceeded while awaiting headers)"
        ) from None
    shown = str(found[0][4][0])
    shown = f"[{shown}]" if ":" in shown else shown
    reason = os.strerror((failure and failure.errno) or errno.ECONNREFUSED).lower()
    raise EngineError(f'Get "{url}": dial tcp {shown}:{port}: connect: {reason}')


@contextlib.asynccontextmanager
async def _explained(url: str) -> AsyncIterator[None]:
    """Turns what an HTTP exchange may fail with into the sentence Docker has for it."""
    import aiohttp

    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        text = f"tls: failed to verify certificate: {error.certificate_error}"
        raise EngineError(f'Get "{url}": {text}') from None
    except aiohttp.ClientSSLError:
        text = "http: server gave HTTP response to HTTPS client"
        raise EngineError(f'Get "{url}": {text}') from None
    except TimeoutError:
        text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        raise EngineError(f'Get "{url}": {text}') from None
    except aiohttp.ServerDisconnectedError:
        raise EngineError(f'Get "{url}": EOF') from None
    except (aiohttp.ClientError, ValueError) as error:
        raise EngineError(f'Get "{url}": {error}') from None


_LOOKUP = {
    socket.EAI_NONAME: "no such host",
    socket.EAI_NODATA: "no such host",
    socket.EAI_AGAIN: "Temporary failure in name resolution",
}
