"""Into a pod: log, exec, attach, portforward. The kubelet does the work.

The API server finds the node, translates the options, and then only carries bytes: a log as an
HTTP answer, the others as a raw tunnel once the kubelet has switched protocols (SPDY/3.1 or
WebSocket are between client and kubelet).

Upstream: pkg/registry/core/pod/strategy.go, pkg/kubelet/client.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from urllib.parse import quote, urlencode

from aiohttp import web
from aiohttp.web_request import BaseRequest

from wherry.host.hijack import hijack
from wherry.kube.api import pods
from wherry.kube.api.errors import FieldError, StatusError, bad_request, invalid, not_found
from wherry.kube.api.resources import PODS
from wherry.kube.apiserver import log_socket, telling_socket
from wherry.kube.apiserver.authn.authenticator import without_bearer
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.proxying import raw
from wherry.kube.apiserver.proxying.places import Kubelets
from wherry.kube.apiserver.proxying.raw import Target, Unreachable
from wherry.kube.apiserver.request import Query, RequestInfo

POD_STREAMS = ("log", "exec", "attach", "portforward")
_LOG_STREAMS = ("All", "Stderr", "Stdout")
_REFUSAL_LIMIT = 10_000  # bytes of a kubelet's refusal that are passed on
_NOT_FORWARDED = frozenset(
    ("host", "authorization", "content-length", "transfer-encoding", "x-forwarded-for")
)


class Streams:
    """Carries requests to the kubelets of the nodes that the cache knows."""

    def __init__(self, cache: Cache, kubelets: Kubelets) -> None:
        self._cache = cache
        self._kubelets = kubelets

    def concerns(self, info: RequestInfo) -> bool:
        return info.resource is PODS and info.subresource in POD_STREAMS

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
        try:
            return await self._carry(request, info, target)
        except Unreachable as error:
            raise StatusError(500, "InternalError", f'Get "{target.url}": {error}') from error

    async def _carry(
        self, request: BaseRequest, info: RequestInfo, target: Target
    ) -> web.StreamResponse:
        reader, writer = await raw.dial(target, self._kubelets.context)
        by_socket = info.subresource == "log" and telling_socket.is_wanted(request)
        upgrade = not by_socket and "upgrade" in request.headers.get("Connection", "").lower()
        try:
            writer.write(raw.head(request, target, _headers(request, target, upgrade)))
            if not upgrade and request.body_exists:
                async for chunk in request.content.iter_any():
                    writer.write(chunk)
                    await writer.drain()
            head, code, headers = await raw.answer_head(reader)
            if code == 101:
                return await raw.tunnel(hijack(request, head), reader, writer)
            if code >= 300 and info.subresource == "log":
                raise await _refusal(code, dict(headers), reader)
            if by_socket:
                return await log_socket.stream(request, raw.body(reader, dict(headers)))
            return await raw.relay(request, code, headers, reader)
        finally:
            writer.close()  # what is buffered still goes; nothing we would wait for comes back

    def target(self, info: RequestInfo, query: Query) -> Target | None:
        """Which kubelet, and which of its paths."""
        found = self._cache.of(PODS).get(info.namespace, info.name)
        if found is None:
            raise not_found("pods", info.name)
        pod = found.object
        path, pairs = _path(pod, info, query)
        node = pod["spec"].get("nodeName", "")
        if not node:
            if info.subresource == "log":
                return None
            raise bad_request(f"pod {info.name} does not have a host assigned")
        host, port = self._kubelets.of(node)
        return Target(host, port, f"{path}?{urlencode(pairs)}" if pairs else path)


def _headers(request: BaseRequest, target: Target, upgrade: bool) -> Iterator[tuple[str, str]]:
    yield "Host", target.authority
    for name, value in request.headers.items():
        low = name.lower()
        if low in _NOT_FORWARDED or low.startswith("impersonate-"):
            continue
        if not upgrade and (low in ("connection", "upgrade") or low.startswith("sec-websocket-")):
            continue
        if low == "sec-websocket-protocol" and not (value := without_bearer(value)):
            continue
        yield name, value
    if not upgrade:
        yield "Connection", "close"
    if request.content_length is not None:
        yield "Content-Length", str(request.content_length)


async def _refusal(code: int, headers: dict[str, str], reader: asyncio.StreamReader) -> StatusError:
    """What a kubelet says in plain text, as clients of the API expect to be told."""
    text = b""
    with contextlib.suppress(asyncio.IncompleteReadError):
        async for chunk in raw.body(reader, headers):
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


# --- options ------------------------------------------------------------------------------------


def _path(pod: Object, info: RequestInfo, query: Query) -> tuple[str, list[tuple[str, str]]]:
    """The kubelet's path and parameters for a pod's stream."""
    place = f"{quote(info.namespace)}/{quote(info.name)}"
    if info.subresource == "portforward":
        return f"/portForward/{place}", [("port", port) for port in query.all("ports")]
    container = quote(_container(pod, info.name, query.get("container")))
    if info.subresource == "log":
        return f"/containerLogs/{place}/{container}", _log_options(info.name, query)
    phase = pods.phase(pod)
    if info.subresource == "exec" and pods.is_finished(pod):
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
    stream = query.get("stream") or "All"
    if stream not in _LOG_STREAMS:
        known = ", ".join(f'"{each}"' for each in _LOG_STREAMS)
        message = f'Unsupported value: "{stream}": supported values: {known}'
        faults.append(FieldError("stream", "FieldValueNotSupported", message))
    elif stream != "All":
        if query.get("tailLines"):
            message = "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"
            faults.append(FieldError("", "FieldValueForbidden", message))
        pairs.append(("stream", stream))
    if faults:
        raise invalid("PodLogOptions", name, faults)
    return pairs
