"""Whether this proxy is well, and which Services have endpoints here: told over HTTP.

Load balancers ask the first at ``/healthz`` (whether to send this node anything at all), and the
second at a Service's ``healthCheckNodePort``. ``/livez`` is the former without regard to the node
itself. The answers are upstream's (kubernetes.io/docs/reference/networking/virtual-ips/).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from wherry.kube.api.resources import SERVICES
from wherry.kube.client.recorder import EventRecorder

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger(__name__)

Object = dict[str, Any]
# How long a change may wait for its rules until we are not well.
TIMEOUT = 60.0
_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"
_JSON = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: str


Respond = Callable[[str], Answer]


class Health:
    """What there is to tell, and the servers that do.

    Args:
        healthz: host and port of ``/healthz``; None: not served.
        metrics: those of ``/metrics`` and ``/proxyMode``.
        mode: the proxy's mode.
        node_name: this node's.
        hosts: where Services' health is told.
    """

    def __init__(
        self,
        healthz: tuple[str, int] | None = None,
        metrics: tuple[str, int] | None = None,
        mode: str = "",
        node_name: str = "",
        hosts: tuple[str, ...] = ("0.0.0.0",),
    ) -> None:
        self._addresses = {"healthz": healthz, "metrics": metrics}
        self._mode = mode
        self._hosts = hosts
        self._node_name = node_name
        self._recorder: EventRecorder | None = None
        self._servers: dict[str, _Server] = {}
        self._local: dict[str, int] = {}
        self._wanted: dict[str, tuple[int, Object]] = {}
        self._changes = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._queued: float | None = None
        self._updated = 0.0
        self._eligible = True
        self._count = 0

    # -- what is so

    def queued(self) -> None:
        """Something is to be changed."""
        if self._queued is None:
            self._queued = time.monotonic()

    def applied(self) -> None:
        """Everything is as it should be."""
        self._queued = None
        self._updated = time.time()
        self._count += 1

    def node(self, node: Object) -> None:
        """The node is ``node``: balancers need not use one that goes."""
        taints = (node.get("spec") or {}).get("taints") or ()
        going = any(taint.get("key") == _TO_BE_DELETED for taint in taints)
        self._eligible = not going and not node["metadata"].get("deletionTimestamp")

    def serve(self, key: str, service: Object, port: int, here: int) -> None:
        """``service`` has ``here`` endpoints on this node, which is asked for on ``port``."""
        if not port:
            self.forget(key)
            return
        self._local[key] = here
        if self._wanted.get(key, (0,))[0] != port:
            self._wanted[key] = (port, service)
            self._changes.set()

    def forget(self, key: str) -> None:
        """Nobody asks for that Service any more."""
        self._local.pop(key, None)
        if self._wanted.pop(key, None):
            self._changes.set()

    @property
    def well(self) -> bool:
        """Whether what is to be changed does not wait too long."""
        if not self._updated:
            return False
        return self._queued is None or time.monotonic() - self._queued < TIMEOUT

    # -- what is answered

    def healthz(self, path: str) -> Answer:
        """The answer of the proxy's own port."""
        if path not in ("/healthz", "/livez"):
            return _not_found()
        well = self.well and (self._eligible or path == "/livez")
        now = datetime.now(UTC)
        updated = datetime.fromtimestamp(self._updated, UTC) if self._updated else None
        told = {
            "lastUpdated": _time(updated if not self.well else now),
            "currentTime": _time(now),
            "nodeEligible": self._eligible,
        }
        if path == "/livez":
            del told["nodeEligible"]
        return Answer(200 if well else 503, _JSON, json.dumps(told, separators=(",", ":")))

    def health_check(self, key: str) -> Answer:
        """The answer of the port of a Service."""
        namespace, name = key.split("/", 1)
        here = self._local.get(key, 0)
        told = {
            "service": {"namespace": namespace, "name": name},
            "localEndpoints": here,
            "serviceProxyHealthy": self.well,
        }
        headers = {**_JSON, "X-Load-Balancing-Endpoint-Weight": str(here)}
        status = 200 if here and self.well else 503
        return Answer(status, headers, json.dumps(told, indent="\t"))

    def metrics(self, path: str) -> Answer:
        """The answer of the port for those who look after the proxy."""
        text = {"Content-Type": "text/plain; charset=utf-8"}
        if path == "/proxyMode":
            return Answer(200, text, self._mode)
        if path == "/healthz":
            return Answer(200, text, "ok")
        if path != "/metrics":
            return _not_found()
        lines = [
            "# HELP kubeproxy_sync_proxy_rules_last_timestamp_seconds [ALPHA] The last time proxy "
            "rules were successfully synced",
            "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge",
            f"kubeproxy_sync_proxy_rules_last_timestamp_seconds {self._updated:.3f}",
            "# HELP kubeproxy_sync_proxy_rules_total How often rules were brought up to date",
            "# TYPE kubeproxy_sync_proxy_rules_total counter",
            f"kubeproxy_sync_proxy_rules_total {self._count}",
        ]
        return Answer(200, text, "\n".join(lines) + "\n")

    # -- serving

    async def start(self, recorder: EventRecorder) -> None:
        """Begin to answer."""
        self._recorder = recorder
        for name, respond in (("healthz", self.healthz), ("metrics", self.metrics)):
            address = self._addresses[name]
            if address is not None:
                host, port = address
                # Everywhere is at addresses of every family of the cluster.
                more = self._hosts if host == "0.0.0.0" else ()
                await self._open(name, tuple(dict.fromkeys((host, *more))), port, respond)
        self._keeper = asyncio.create_task(self._keep(), name="health checks")

    async def stop(self) -> None:
        """Answer no more."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for server in self._servers.values():
            await server.close()
        self._servers.clear()

    async def _keep(self) -> None:
        """Have a server for each Service that wants one."""
        while True:
            for key, server in list(self._servers.items()):
                if "/" in key and self._wanted.get(key, (0,))[0] != server.port:
                    del self._servers[key]
                    await server.close()
            for key, (port, service) in list(self._wanted.items()):
                if key not in self._servers:
                    await self._serve(key, port, service)
            await self._changes.wait()
            self._changes.clear()

    async def _serve(self, key: str, port: int, service: Object) -> None:
        fault = await self._open(key, self._hosts, port, lambda _path: self.health_check(key))
        if fault and self._recorder is not None:
            name = self._node_name
            text = f"node {name} failed to start healthcheck {key!r} on port {port}: {fault}"
            reason = "FailedToStartServiceHealthcheck"
            self._recorder.event(SERVICES, service, "Warning", reason, text.replace("'", '"'))

    async def _open(self, key: str, hosts: tuple[str, ...], port: int, respond: Respond) -> str:
        server = _Server(port, respond)
        try:
            await server.open(hosts)
        except OSError as error:
            await server.close()
            fault = f"listen tcp :{port}: {error.strerror or error}"
            log.error("health of %s is not told: %s", key, fault)
            return fault
        self._servers[key] = server
        return ""


class _Server:
    """One port."""

    def __init__(self, port: int, respond: Respond) -> None:
        self.port = port
        self._respond = respond
        self._runner: web.ServerRunner | None = None

    async def open(self, hosts: tuple[str, ...]) -> None:
        from aiohttp import web

        server = web.Server(self._answer, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        for host in hosts:
            await web.TCPSite(self._runner, host, self.port).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        from aiohttp import web

        answer = self._respond(request.path)
        return web.Response(status=answer.status, headers=answer.headers, text=answer.body)


def _not_found() -> Answer:
    return Answer(404, {"Content-Type": "text/plain; charset=utf-8"}, "404 page not found\n")


def _time(moment: datetime | None) -> str:
    if moment is None:
        return "0001-01-01 00:00:00 +0000 UTC"
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f000 +0000 UTC")
