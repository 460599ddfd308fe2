"""Into a pod: log, exec, attach, portforward; and a node's proxy. The kubelet does the work.

The API server finds the node, translates the options, and then only carries bytes: a log as an
HTTP answer, the others as a raw tunnel once the kubelet has switched protocols (SPDY/3.1 or
WebSocket are between client and kubelet).

Upstream: pkg/registry/core/pod/strategy.go, pkg/kubelet/client.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from aiohttp import web
from aiohttp.web_request import BaseRequest

from wherry.host.hijack import HijackedStream, hijack
from wherry.kube.api.errors import FieldError, StatusError, bad_request, invalid, not_found
from wherry.kube.api.resources import NODES, PODS
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.request import Query, RequestInfo

POD_STREAMS = ("log", "exec", "attach", "portforward")
_DIAL = 10.0  # seconds
_FAREWELL = 5.0  # seconds a client has to take the rest and close its side
_REFUSAL_LIMIT = 10_000  # bytes of a kubelet's refusal that are passed on
_HEAD_LIMIT = 64 * 1024
_NOT_FORWARDED = frozenset(
    ("host", "authorization", "content-length", "transfer-encoding", "x-forwarded-for")
)


@dataclass(frozen=True, slots=True)
class KubeletClient:
    """How the API server shows itself to kubelets, and whom it takes for one."""

    certificate: Path | None
    key: Path | None
    authority: Path | None

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority) if self.authority else None)
        if self.authority is None:  # as upstream without --kubelet-certificate-authority
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate and self.key:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True)
class Target:
    """Where a stream goes."""

    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}{self.path}"


class Streams:
    """Carries requests to the kubelets of the nodes that the cache knows."""

    def __init__(self, cache: Cache, kubelets: KubeletClient) -> None:
        self._cache = cache
        self._kubelets = kubelets
        self._context: ssl.SSLContext | None = None

    def concerns(self, info: RequestInfo) -> bool:
        return (info.resource is PODS and info.subresource in POD_STREAMS) or (
            info.resource is NODES and info.subresource == "proxy"
        )

    async def handle(
        self, request: BaseRequest, info: RequestInfo, query: Query
    ) -> web.StreamResponse:
        """Answer with what the kubelet answers.

        Raises:
            StatusError: the pod, its container or its node cannot take the request.
        """
        target = self.target(info, query)
        if target is None:  # the log of a pod that is nowhere yet
            return web.Response(content_type="text/plain")
        reader, writer = await self._dial(target)
        try:
            writer.write(_request_head(request, target))
            upgrade = "upgrade" in request.headers.get("Connection", "").lower()
            if not upgrade and request.body_exists:
                async for chunk in request.content.iter_any():
                    writer.write(chunk)
                    await writer.drain()
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                raise _unreachable(target, "unexpected EOF") from error
            code, headers = _parse_head(head)
            if code == 101:
                return await _tunnel(hijack(request, head), reader, writer)
            if code >= 300 and info.subresource == "log":
                raise await _refusal(code, dict(headers), reader)
            return await _relay(request, code, headers, reader)
        finally:
            writer.close()  # what is buffered still goes; nothing we would wait for comes back

    def target(self, info: RequestInfo, query: Query) -> Target | None:
        """Which kubelet, and which of its paths."""
        if info.resource is NODES:
            host, port = self._kubelet(info.name)
            rest = f"/{quote(info.rest)}"
            pairs = urlencode(list(query))
            return Target(host, port, f"{rest}?{pairs}" if pairs else rest)
        found = self._cache.of(PODS).get(info.namespace, info.name)
        if found is None:
            raise not_found("pods", info.name)
        pod = found.object
        path, pairs_ = _path(pod, info, query)
        node = pod["spec"].get("nodeName", "")
        if not node:
            if info.subresource == "log":
                return None
            raise bad_request(f"pod {info.name} does not have a host assigned")
        host, port = self._kubelet(node)
        return Target(host, port, f"{path}?{urlencode(pairs_)}" if pairs_ else path)

    def _kubelet(self, node_name: str) -> tuple[str, int]:
        found = self._cache.of(NODES).get("", node_name)
        if found is None:
            raise not_found("nodes", node_name)
        status = found.object.get("status", {})
        addresses = status.get("addresses") or []
        for kind in ("InternalIP", "ExternalIP", "Hostname"):
            for address in addresses:
                if address["type"] == kind:
                    port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {})
                    return address["address"], port.get("Port") or 10250
        raise StatusError(
            500,
            "InternalError",
            "Internal error occurred: no preferred addresses found; known addresses: []",
        )

    async def _dial(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._context is None:
            self._context = self._kubelets.context()
        try:
            async with asyncio.timeout(_DIAL):
                return await asyncio.open_connection(
                    target.host, target.port, ssl=self._context, limit=_HEAD_LIMIT
                )
        except TimeoutError as error:
            raise _unreachable(
                target, f"dial tcp {target.host}:{target.port}: i/o timeout"
            ) from error
        except (OSError, ssl.SSLError) as error:
            why = (
                "connect: connection refused"
                if isinstance(error, ConnectionRefusedError)
                else str(error)
            )
            raise _unreachable(target, f"dial tcp {target.host}:{target.port}: {why}") from error


def _unreachable(target: Target, why: str) -> StatusError:
    return StatusError(500, "InternalError", f'Get "{target.url}": {why}')


def _request_head(request: BaseRequest, target: Target) -> bytes:
    upgrade = "upgrade" in request.headers.get("Connection", "").lower()
    lines = [f"{request.method} {target.path} HTTP/1.1", f"Host: {target.host}:{target.port}"]
    for name, value in request.headers.items():
        low = name.lower()
        if low in _NOT_FORWARDED or low.startswith("impersonate-"):
            continue
        if low == "connection" and not upgrade:
            continue
        lines.append(f"{name}: {value}")
    if not upgrade:
        lines.append("Connection: close")
    if request.content_length is not None:
        lines.append(f"Content-Length: {request.content_length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _parse_head(head: bytes) -> tuple[int, list[tuple[str, str]]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    code = int(first.split(" ", 2)[1])
    headers = []
    for line in lines:
        name, sign, value = line.partition(":")
        if sign:
            headers.append((name.strip().lower(), value.strip()))
    return code, headers


async def _refusal(code: int, headers: dict[str, str], reader: asyncio.StreamReader) -> StatusError:
    """What a kubelet says in plain text, as clients of the API expect to be told."""
    text = b""
    with contextlib.suppress(asyncio.IncompleteReadError):
        async for chunk in _body(reader, headers):
            text += chunk
            if len(text) > _REFUSAL_LIMIT:
                break
    message = text[:_REFUSAL_LIMIT].decode(errors="replace").strip()
    if code == 400:
        return bad_request(message)
    if code == 500:
        return StatusError(500, "InternalError", f"Internal error occurred: {message}")
    reason = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound"}.get(code, "")
    return StatusError(code, reason, message)


async def _relay(
    request: BaseRequest,
    code: int,
    headers: list[tuple[str, str]],
    reader: asyncio.StreamReader,
) -> web.StreamResponse:
    """The kubelet's plain answer, as it comes."""
    given = dict(headers)
    response = web.StreamResponse(status=code)
    response.headers["Content-Type"] = given.get("content-type", "text/plain")
    if "content-length" in given:
        response.content_length = int(given["content-length"])
    else:
        response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        async for chunk in _body(reader, given):
            await response.write(chunk)
    except asyncio.IncompleteReadError:
        if request.transport is not None:
            request.transport.abort()  # what was promised did not come
        raise ConnectionResetError("the kubelet broke off") from None
    await response.write_eof()
    return response


async def _body(
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
                data = await reader.read(min(size, 65536))
                if not data:
                    raise asyncio.IncompleteReadError(b"", size)
                size -= len(data)
                yield data
            await reader.readexactly(2)
    while length is None or length > 0:
        data = await reader.read(65536 if length is None else min(length, 65536))
        if not data:
            if length is None:
                return
            raise asyncio.IncompleteReadError(b"", length)
        if length is not None:
            length -= len(data)
        yield data


async def _tunnel(
    client: HijackedStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> web.StreamResponse:
    """Carry bytes both ways until either side has closed."""

    async def upward() -> None:
        while data := await client.read():
            writer.write(data)
            await writer.drain()

    async def downward() -> None:
        while data := await reader.read(65536):
            await client.write(data)

    tasks = [asyncio.ensure_future(upward()), asyncio.ensure_future(downward())]
    try:
        # The kubelet's end ends the stream; a client that stops sending may still be listening,
        # but over TLS it cannot close one half alone: it has gone.
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        client.abort()
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # a connection that broke ends the stream, nothing more
    try:
        async with asyncio.timeout(_FAREWELL):
            await client.close()
    except TimeoutError:
        client.abort()
    return client.response


# --- options ------------------------------------------------------------------------------------


def _path(pod: Object, info: RequestInfo, query: Query) -> tuple[str, list[tuple[str, str]]]:
    """The kubelet's path and parameters for a pod's stream."""
    place = f"{quote(info.namespace)}/{quote(info.name)}"
    if info.subresource == "portforward":
        return f"/portForward/{place}", [("port", port) for port in query.all("ports")]
    container = quote(_container(pod, info.name, query.get("container")))
    if info.subresource == "log":
        return f"/containerLogs/{place}/{container}", _log_options(info.name, query)
    phase = pod.get("status", {}).get("phase", "")
    if info.subresource == "exec" and phase in ("Succeeded", "Failed"):
        raise bad_request(
            f"cannot exec into a container in a completed pod; current phase is {phase}"
        )
    defaults = {"stdin": False, "stdout": True, "stderr": True, "tty": False}
    pairs = []
    for name, parameter in (
        ("stdin", "input"),
        ("stdout", "output"),
        ("stderr", "error"),
        ("tty", "tty"),
    ):
        if query.flag(name) if query.has(name) else defaults[name] and not _any_stream(query):
            pairs.append((parameter, "1"))
    pairs += [("command", word) for word in query.all("command")]
    if info.subresource == "exec" and not query.all("command"):
        raise bad_request("you must specify at least one command for the container")
    return f"/{info.subresource}/{place}/{container}", pairs


def _any_stream(query: Query) -> bool:
    return any(query.has(name) for name in ("stdin", "stdout", "stderr"))


def _container(pod: Object, name: str, asked: str) -> str:
    """The container that is meant. Raises StatusError 400 where that is not clear."""
    spec = pod["spec"]
    names = {
        field: [c["name"] for c in spec.get(field) or ()]
        for field in ("containers", "initContainers", "ephemeralContainers")
    }
    if asked:
        if any(asked in each for each in names.values()):
            return asked
        raise bad_request(f"container {asked} is not valid for pod {name}")
    if len(names["containers"]) == 1:
        return str(names["containers"][0])
    message = (
        f"a container name must be specified for pod {name}, "
        f"choose one of: [{' '.join(names['containers'])}]"
    )
    if names["initContainers"]:
        message += f" or one of the init containers: [{' '.join(names['initContainers'])}]"
    if names["ephemeralContainers"]:
        message += (
            f" or one of the ephemeral containers: [{' '.join(names['ephemeralContainers'])}]"
        )
    raise bad_request(message)


def _log_options(name: str, query: Query) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    faults: list[FieldError] = []
    pairs += [(flag, "true") for flag in ("follow", "previous", "timestamps") if query.flag(flag)]
    for option, least in (("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)):
        if text := query.get(option):
            try:
                number = int(text)
            except ValueError:
                raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
            if number < least:
                rule = "must be greater than 0" if least else "must be greater than or equal to 0"
                faults.append(
                    FieldError(option, "FieldValueInvalid", f"Invalid value: {number}: {rule}")
                )
            pairs.append((option, str(number)))
    if since := query.get("sinceTime"):
        if query.get("sinceSeconds"):
            faults.append(
                FieldError(
                    "",
                    "FieldValueForbidden",
                    "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
                )
            )
        pairs.append(("sinceTime", since))
    if faults:
        raise invalid("PodLogOptions", name, faults)
    return pairs
