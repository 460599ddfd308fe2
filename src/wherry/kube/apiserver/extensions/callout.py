"""Asking a webhook: JSON by POST over TLS, on connections that are kept.

A webhook is named by a clientConfig (a URL, or a Service) and known by its caBundle. What goes
wrong is told in the words that Go's HTTP client has for it, for that is what clients print.
Upstream: k8s.io/apiserver/pkg/util/webhook/client.go, k8s.io/client-go/rest.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import socket
import ssl
from collections import OrderedDict
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult

from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.extensions.places import Unresolved, resolve

Object = dict[str, Any]

_SERVICE = ".svc"
_CONNECTIONS = 256  # to all webhooks together
_PER_HOST = 64
_KEPT = 90.0  # seconds an idle connection is kept
_MOST = 16 << 20  # bytes of an answer
_CONTEXTS = 128  # authorities remembered


class CalloutFailed(Exception):
    """A webhook that was not reached, or gave no answer that is one."""


class Callouts:
    """Connections to webhooks. Make one in a server, `close` it at the end."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()
        self._open = False

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        self._open = True
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_CONNECTIONS,
                limit_per_host=_PER_HOST,
                keepalive_timeout=_KEPT,
                resolver=_Resolver(self._cache),
                use_dns_cache=False,  # endpoints come and go
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        if self._open:
            await self._session.close()

    async def ask(self, client: Object, body: object, seconds: int) -> Any:
        """The JSON value that a webhook answers ``body`` with, within so many seconds.

        Raises:
            CalloutFailed: there is none.
        """
        url = url_of(client)
        shown = f'Post "{url}?timeout={seconds}s"'
        try:
            context = self._context(client.get("caBundle") or "")
        except (ssl.SSLError, ValueError, binascii.Error):
            raise CalloutFailed("unable to load root certificates: unable to parse bytes as PEM "
                                "block") from None  # fmt: skip
        data = orjson.dumps(body)
        try:
            async with asyncio.timeout(seconds):
                code, answer = await self._post(f"{url}?timeout={seconds}s", context, data)
        except TimeoutError:
            raise CalloutFailed(f"{shown}: context deadline exceeded") from None
        except (aiohttp.ClientError, OSError, ValueError, Unresolved) as error:
            raise CalloutFailed(f"{shown}: {reason(error)}") from None
        if code // 100 != 2:
            raise CalloutFailed(refusal(code, answer))
        try:
            return orjson.loads(answer)
        except orjson.JSONDecodeError as error:
            raise CalloutFailed(f"couldn't get version/kind; json parse error: {error}") from None

    async def _post(self, url: str, context: ssl.SSLContext, data: bytes) -> tuple[int, bytes]:
        try:
            return await self._posted(url, context, data)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError):
            # A kept connection that the other side has given up meanwhile.
            return await self._posted(url, context, data)

    async def _posted(self, url: str, context: ssl.SSLContext, data: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, */*"}
        async with self._session.post(
            url, data=data, headers=headers, ssl=context, allow_redirects=False
        ) as response:
            answer = bytearray()
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > _MOST:
                    raise ValueError("http: response body too large")
            return response.status, bytes(answer)

    def _context(self, bundle: str) -> ssl.SSLContext:
        """What the webhook's certificate is judged by: its bundle, or what the machine trusts."""
        found = self._contexts.get(bundle)
        if found is None:
            pem = base64.b64decode(bundle).decode("ascii") if bundle else None
            found = ssl.create_default_context(cadata=pem)
            # As Go: a certificate may be its own authority, and need not be of the strict form.
            found.verify_flags &= ~ssl.VERIFY_X509_STRICT
            found.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            found.hostname_checks_common_name = False
            found.set_alpn_protocols(["http/1.1"])
            self._contexts[bundle] = found
            if len(self._contexts) > _CONTEXTS:
                self._contexts.popitem(last=False)
        else:
            self._contexts.move_to_end(bundle)
        return found


def url_of(client: Object) -> str:
    """Where a webhook is asked, without parameters. Raises CalloutFailed."""
    service = client.get("service")
    if service is None:
        if not client.get("url"):
            raise CalloutFailed("webhook configuration must have either service or URL")
        url: str = client["url"]
        return url if urlsplit(url).path else f"{url}/"
    host = f"{service['name']}.{service['namespace']}{_SERVICE}:{service.get('port') or 443}"
    return f"https://{host}/{(service.get('path') or '').lstrip('/')}"


class _Resolver(AbstractResolver):
    """Services by their endpoints, other names as the machine knows them."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._others = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        parts = host.split(".")
        if len(parts) == 3 and host.endswith(_SERVICE):
            place = resolve(self._cache, parts[1], parts[0], port)
            if _is_address(place.host):
                return [
                    ResolveResult(
                        hostname=host,
                        host=place.host,
                        port=place.port,
                        family=socket.AF_INET6 if ":" in place.host else socket.AF_INET,
                        proto=0,
                        flags=socket.AI_NUMERICHOST,
                    )
                ]
            return await self._others.resolve(place.host, place.port, family)
        return await self._others.resolve(host, port, family)

    async def close(self) -> None:
        await self._others.close()


def _is_address(host: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_VERIFY = {
    10: "x509: certificate has expired or is not yet valid",
    9: "x509: certificate has expired or is not yet valid",
    18: "x509: certificate signed by unknown authority",
    19: "x509: certificate signed by unknown authority",
    20: "x509: certificate signed by unknown authority",
    21: "x509: certificate signed by unknown authority",
    62: "x509: certificate is not valid for any names, but wanted to match",
    64: "x509: cannot validate certificate because it doesn't contain any IP SANs",
}


def reason(error: BaseException) -> str:
    """Why a request failed, as Go's client says it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    if isinstance(error, Unresolved):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, f"x509: {error.verify_message}")
    place = ""
    if isinstance(error, aiohttp.ClientConnectorError):
        place = f" {error.host}:{error.port}"
        inner: BaseException = error.os_error
    else:
        inner = error
    if isinstance(inner, socket.gaierror):
        host = error.host if isinstance(error, aiohttp.ClientConnectorError) else ""
        return f"dial tcp: lookup {host}: no such host"
    if isinstance(inner, ConnectionRefusedError):
        return f"dial tcp{place}: connect: connection refused"
    if isinstance(inner, ssl.SSLError):
        if inner.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return "http: server gave HTTP response to HTTPS client"
        return f"remote error: tls: {(inner.reason or 'handshake failure').lower()}"
    if isinstance(inner, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "EOF"
    if isinstance(inner, OSError) and inner.strerror:
        return f"dial tcp{place}: connect: {inner.strerror.lower()}"
    return str(inner) or type(inner).__name__


_REFUSALS = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    403: "unknown",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    410: "the server could not find the requested resource",
    415: "the body of the request was in an unknown format - accepted media types include: ",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be "
    "processing the request",
}


def refusal(code: int, answer: bytes) -> str:
    """What an answer other than success means."""
    try:
        status = orjson.loads(answer)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status" and status.get("message"):
        return str(status["message"])
    if (known := _REFUSALS.get(code)) is not None:
        return known
    text = answer[:2048].decode(errors="replace").strip()
    if code >= 500:
        shown = orjson.dumps(text or "unknown").decode()
        return f"an error on the server ({shown}) has prevented the request from succeeding"
    return f"the server responded with the status code {code} but did not return more information"
