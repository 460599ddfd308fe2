"""The kubelet's HTTPS server: logs, exec, attach, port-forward, and what is known of the pods.

The API server may come in by its certificate; whoever else brings a certificate of the cluster's
authority or a bearer token may do what the API server says (``access``). Paths as in
pkg/kubelet/server/server.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from wherry.engine.cri.types import (
    ContainerRuntime,
    ContainerState,
    ContainerStatus,
    CRIError,
    ProcessStream,
)
from wherry.host.hijack import HijackedStream, client_gone, hijack
from wherry.kube.api import meta
from wherry.kube.api.errors import StatusError
from wherry.kube.kubelet import pods
from wherry.kube.kubelet.access import Access, User, subresources, verb
from wherry.kube.kubelet.logs import log_options, read_log
from wherry.kube.kubelet.metrics import Metrics
from wherry.kube.kubelet.parts import KubeletConfig
from wherry.kube.kubelet.streaming.channels import PATIENCE, ClientGone
from wherry.kube.kubelet.streaming.command import couple
from wherry.kube.kubelet.streaming.port_forward import serve_spdy, serve_websocket
from wherry.kube.kubelet.streaming.spdy import Connection, SpdyChannels
from wherry.kube.kubelet.streaming.websocket import (
    MAX_MESSAGE,
    WebSocketChannels,
    WebSocketTunnel,
)
from wherry.kube.kubelet.view import RuntimeView
from wherry.wire.remotecommand import (
    PORT_FORWARD_CHANNELS,
    PORT_FORWARD_PROTOCOL,
    PORT_FORWARD_TUNNEL,
    SPDY_PROTOCOLS,
    WEBSOCKET_PROTOCOLS,
    ProtocolError,
    StreamOptions,
    Unsupported,
    failure,
    negotiate,
)

Object = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_DEBUGGING = (
    *("/run/", "/exec/", "/attach/", "/portForward/", "/containerLogs/", "/runningpods"),
    *("/logs", "/debug/"),
)
_LONG = ("exec", "attach", "portForward")
VERSION_HEADER = "X-Stream-Protocol-Version"
ACCEPTED_HEADER = "X-Accepted-Stream-Protocol-Versions"


class PodSource(Protocol):
    """The pods of this node."""

    def find_pod(self, namespace: str, name: str) -> Object | None:
        """One of them."""


class Server:
    """Listens on the kubelet's port."""

    def __init__(
        self,
        config: KubeletConfig,
        runtime: ContainerRuntime,
        view: RuntimeView,
        source: PodSource,
        *,
        pages: Iterable[tuple[str, Handler]] = (),
        access: Access | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._view = view
        self._source = source
        self._access = access
        self._metrics = metrics
        self._runner: web.AppRunner | None = None
        place = "/{namespace}/{pod}"
        self._routes: tuple[tuple[str, str, Handler], ...] = (
            *(("GET", path, handler) for path, handler in pages),
            ("GET", f"/containerLogs{place}/{{container}}", self._logs),
            ("*", f"/exec{place}/{{container}}", self._exec),
            ("*", f"/exec{place}/{{uid}}/{{container}}", self._exec),
            ("*", f"/attach{place}/{{container}}", self._attach),
            ("*", f"/attach{place}/{{uid}}/{{container}}", self._attach),
            ("*", f"/portForward{place}", self._port_forward),
            ("*", f"/portForward{place}/{{uid}}", self._port_forward),
        )

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the port is taken.
        """
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 20)
        for method, path, handler in self._routes:
            app.router.add_route(method, path, handler)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await self._runner.setup()
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(self._config.client_ca)
        )
        context.load_cert_chain(self._config.tls_cert, self._config.tls_key)
        # A client without a certificate is told so in HTTP's words.
        context.verify_mode = ssl.CERT_OPTIONAL
        site = web.TCPSite(self._runner, port=self._config.port, ssl_context=context)
        await site.start()

    async def stop(self) -> None:
        """Close the port and the connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        certificate = (
            request.transport.get_extra_info("peercert") if request.transport is not None else None
        )
        try:
            user = await self._user(request, certificate)
            if user is None:
                return web.Response(status=401, text="Unauthorized")
            if not await self._may(user, request):
                text = (
                    f"Forbidden (user={user.name}, verb={verb(request.method)}, resource=nodes, "
                    f"subresource(s)={list(subresources(request.path))})\n"
                ).replace("'", "")
                return web.Response(status=403, text=text)
        except (StatusError, ConnectionError, TimeoutError) as error:
            return web.Response(status=500, text=f"Authorization error: {error}\n")
        if not self._config.settings.debugging_handlers and request.path.startswith(_DEBUGGING):
            return web.Response(status=405, text="Debug endpoints are disabled.\n")
        begun = time.perf_counter()
        try:
            return await handler(request)
        except CRIError as error:
            return web.Response(status=500, text=error.message)
        except (ProtocolError, ValueError) as error:
            return web.Response(status=400, text=str(error))
        finally:
            self._count(request, time.perf_counter() - begun)

    def _count(self, request: web.Request, seconds: float) -> None:
        resource = request.match_info.route.resource
        if self._metrics is None or resource is None:
            return
        path = resource.canonical.partition("{")[0].strip("/")
        long = str(path in _LONG or request.query.get("follow") == "true").lower()
        labels = (long, request.method, path, "readwrite")
        self._metrics.requests.add(labels)
        self._metrics.request_durations.observe(labels, seconds)

    async def _user(self, request: web.Request, certificate: Any) -> User | None:
        """Who asks: by certificate, by token, or nobody in particular where that is allowed."""
        if certificate:
            return User(_common_name(certificate), _organisations(certificate))
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token and self._access is not None:
            return await self._access.user_of(token.strip())
        if self._config.settings.anonymous and self._access is not None:
            return User("system:anonymous", ("system:unauthenticated",))
        return None

    async def _may(self, user: User, request: web.Request) -> bool:
        if user.name == self._config.allowed_client or self._config.settings.authorize_all:
            return True
        if self._access is None:
            return False
        groups = (*user.groups, "system:authenticated")
        if user.name == "system:anonymous" or "system:authenticated" in user.groups:
            groups = user.groups
        asking = User(user.name, groups)
        return await self._access.allows(asking, request.method, request.path)

    # logs

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        name = request.match_info["container"]
        options = log_options(request.query)
        status = self._log_owner(pod, name, options.previous)
        path = status.log_path
        if path is None or not path.exists():
            why = f'failed to try resolving symlinks in path "{path}": no such file or directory'
            return web.Response(status=500, text=why)
        stop = asyncio.Event()
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)

        def is_running() -> bool:
            now = self._view.container(status.id)
            running = now is not None and now.state is ContainerState.RUNNING
            return running and not leaving.done()

        leaving = asyncio.create_task(client_gone(request))
        ending = asyncio.create_task(self._view.end_of(status.id).wait())
        for task in (leaving, ending):
            task.add_done_callback(lambda _: stop.set())
        try:
            with contextlib.suppress(ConnectionError):
                async for piece in read_log(Path(path), options, is_running, stop):
                    await response.write(piece)
                await response.write_eof()
        finally:
            leaving.cancel()
            ending.cancel()
        return response

    def _log_owner(self, pod: Object, name: str, previous: bool) -> ContainerStatus:
        """The incarnation whose log is meant.

        Raises:
            HTTPBadRequest: there is none (yet).
        """
        if pods.find_container(pod, name) is None:
            text = f'container "{name}" in pod "{meta.name(pod)}" is not available'
            raise web.HTTPBadRequest(text=text)
        incarnations = self._view.pod(meta.uid(pod)).named(name)
        if previous:
            ended = [c for c in incarnations if c.state is ContainerState.EXITED]
            if incarnations and incarnations[0].state is ContainerState.EXITED:
                # While it waits to be restarted, the last one that ended is the previous one.
                return incarnations[0]
            if not ended:
                raise web.HTTPBadRequest(
                    text=f'previous terminated container "{name}" in pod '
                    f'"{meta.name(pod)}" not found'
                )
            return ended[0]
        started = [c for c in incarnations if c.started_at]
        if started:
            return started[0]
        waiting = _waiting_reason(pod, name)
        raise web.HTTPBadRequest(
            text=f'container "{name}" in pod "{meta.name(pod)}" is waiting to start: {waiting}'
        )

    # streams

    def _pod(self, request: web.Request) -> Object:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        pod = self._source.find_pod(namespace, name)
        uid = request.match_info.get("uid")
        if pod is None or (uid and uid != meta.uid(pod)):
            raise web.HTTPNotFound(text=f'pod "{name}" not found')
        return pod

    def _running(self, pod: Object, name: str) -> ContainerStatus:
        status = self._view.pod(meta.uid(pod)).latest(name)
        if status is None or status.state is not ContainerState.RUNNING:
            raise web.HTTPNotFound(
                text=f'container not found ("{name}")'
                if status is None
                else f"container {name} is not running"
            )
        return status

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        command = request.query.getall("command", [])
        if not command:
            raise ProtocolError("you must specify at least one command for the container")
        status = self._running(self._pod(request), request.match_info["container"])
        options = StreamOptions.from_query(request.query)
        return await self._serve_command(
            request,
            options,
            lambda: self._runtime.exec(status.id, command, tty=options.tty, stdin=options.stdin),
            command,
        )

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        status = self._running(pod, request.match_info["container"])
        asked = StreamOptions.from_query(request.query)
        container = pods.find_container(pod, request.match_info["container"]) or {}
        tty = bool(container.get("tty"))
        options = StreamOptions(asked.stdin, asked.stdout, asked.stderr and not tty, asked.tty)
        return await self._serve_command(
            request, options, lambda: self._runtime.attach(status.id, stdin=options.stdin), None
        )

    async def _serve_command(
        self,
        request: web.Request,
        options: StreamOptions,
        start: Callable[[], Awaitable[ProcessStream]],
        command: list[str] | None,
    ) -> web.StreamResponse:
        if _is_websocket(request):
            return await self._command_by_websocket(request, options, start, command)
        try:
            protocol = negotiate(request.headers.getall(VERSION_HEADER, []), SPDY_PROTOCOLS)
        except Unsupported as error:
            return _unsupported(error)
        taken = hijack(request, _switch(request, protocol))
        connection = Connection(taken)
        try:
            channels = await SpdyChannels.open(connection, protocol, options)
            await _run(start, channels, options, command)
        except (ClientGone, TimeoutError):
            pass
        finally:
            await connection.close()
        return taken.response

    async def _command_by_websocket(
        self,
        request: web.Request,
        options: StreamOptions,
        start: Callable[[], Awaitable[ProcessStream]],
        command: list[str] | None,
    ) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            protocols=WEBSOCKET_PROTOCOLS,
            max_msg_size=MAX_MESSAGE,
            compress=False,
            timeout=PATIENCE,
        )
        await socket.prepare(request)
        channels = WebSocketChannels(socket, socket.ws_protocol or "", options)
        try:
            await channels.open()
            await _run(start, channels, options, command)
        except ClientGone:
            pass
        finally:
            await channels.close()
            await socket.close()
        return socket

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        sandbox = self._view.pod(meta.uid(pod)).ready_sandbox
        if sandbox is None:
            raise web.HTTPNotFound(text=f'pod "{meta.name(pod)}" is not running')
        described = f"{sandbox.id}, uid {meta.uid(pod)}"

        async def dial(port: int) -> int:
            return await self._runtime.port_forward(sandbox.id, port)

        if not _is_websocket(request):
            offered = request.headers.getall(VERSION_HEADER, [])
            try:
                protocol = negotiate(offered, (PORT_FORWARD_PROTOCOL,))
            except Unsupported as error:
                return _unsupported(error)
            taken: HijackedStream = hijack(request, _switch(request, protocol))
            await serve_spdy(Connection(taken), dial, described)
            return taken.response
        socket = web.WebSocketResponse(
            protocols=(PORT_FORWARD_TUNNEL, *PORT_FORWARD_CHANNELS),
            max_msg_size=MAX_MESSAGE,
            compress=False,
            timeout=PATIENCE,
        )
        await socket.prepare(request)
        if socket.ws_protocol == PORT_FORWARD_TUNNEL:
            await serve_spdy(Connection(WebSocketTunnel(socket, request)), dial, described)
        else:
            ports = [int(p) for v in request.query.getall("port", []) for p in v.split(",")]
            await serve_websocket(socket, socket.ws_protocol or "", ports, dial, described)
        return socket


async def _run(
    start: Callable[[], Awaitable[ProcessStream]],
    channels: SpdyChannels | WebSocketChannels,
    options: StreamOptions,
    command: list[str] | None,
) -> None:
    try:
        process = await start()
    except CRIError as error:
        what = "attaching to container" if command is None else "executing command in container"
        await channels.finish(failure(f"error {what}: {error.message}"))
        return
    await couple(process, channels, options, command=command)


def _waiting_reason(pod: Object, name: str) -> str:
    status = pod.get("status") or {}
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for told in status.get(kind) or ():
            if told["name"] == name:
                waiting = (told.get("state") or {}).get("waiting") or {}
                return str(waiting.get("reason") or "ContainerCreating")
    return "ContainerCreating"


def _is_websocket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _switch(request: web.Request, protocol: str) -> bytes:
    """The answer that turns the connection into SPDY.

    Raises:
        ProtocolError: the client did not ask for that.
    """
    if (
        "upgrade" not in request.headers.get("Connection", "").lower()
        or request.headers.get("Upgrade", "").lower() != "spdy/3.1"
    ):
        raise ProtocolError(
            "unable to upgrade: missing upgrade headers in request: "
            f"{dict(request.headers.items())!r}"
        )
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: SPDY/3.1", "Connection: Upgrade"]
    if protocol:
        lines.append(f"{VERSION_HEADER}: {protocol}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _unsupported(error: Unsupported) -> web.Response:
    known = (*SPDY_PROTOCOLS, PORT_FORWARD_PROTOCOL)
    response = web.Response(status=403, text=str(error))
    for protocol in known:
        response.headers.add(ACCEPTED_HEADER, protocol)
    return response


def _common_name(certificate: Any) -> str:
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return ""


def _organisations(certificate: Any) -> tuple[str, ...]:
    return tuple(
        str(value)
        for part in certificate.get("subject", ())
        for key, value in part
        if key == "organizationName"
    )
