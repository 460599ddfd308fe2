"""Requests for group versions that are served elsewhere, handed on as they are.

Upstream: kube-aggregator/pkg/apiserver/handler_proxy.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.web_request import BaseRequest

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.aggregation.documents import Fetched
from wherry.kube.apiserver.aggregation.remote import NoBackend, Remotes, identity
from wherry.kube.apiserver.aggregation.services import Remote, Services
from wherry.kube.apiserver.proxying.carrier import Errand
from wherry.kube.apiserver.proxying.raw import Unreachable
from wherry.kube.apiserver.request import RequestInfo, User
from wherry.kube.client.transport import Object, Query

_DISCOVERY = 5.0  # seconds that a discovery document may take


class Aggregated:
    """Answers with what aggregated servers answer."""

    def __init__(self, services: Services, remotes: Remotes, fetched: Fetched) -> None:
        self._routes = services.routes
        self._remotes = remotes
        self._fetched = fetched

    def remote(self, info: RequestInfo) -> Remote | None:
        """Who serves what is asked for, if not we."""
        if not self._routes:
            return None
        if info.is_resource:
            return self._routes.get((info.group, info.version))
        match info.path.split("/"):
            case ["", "apis", group, version, *_]:
                return self._routes.get((group, version))
            case ["", "openapi", "v3", "apis", group, version]:
                return self._routes.get((group, version))
        return None

    async def request(
        self,
        remote: Remote,
        user: User,
        method: str,
        path: str,
        query: Query,
        body: object,
        content_type: str,
    ) -> Object:
        """For a component of this process: see `Transport.request`."""
        _check_available(remote)
        async with self._remotes.transport(remote, user) as transport:
            return await transport.request(
                method, path, query=query, body=body, content_type=content_type
            )

    async def watch(
        self, remote: Remote, user: User, path: str, query: Query
    ) -> AsyncIterator[tuple[str, Object]]:
        """For a component of this process: see `Transport.watch`."""
        _check_available(remote)
        async with self._remotes.transport(remote, user) as transport:
            async for event in transport.watch(path, query):
                yield event

    async def handle(self, request: BaseRequest, remote: Remote, user: User) -> web.StreamResponse:
        """Hand ``request`` on in the name of ``user``."""
        if request.path.startswith("/openapi/") and (made := self._fetched.v3_made(remote)):
            return web.Response(body=made, content_type="application/json")
        if not remote.available:
            return _refusal("service unavailable", 503)
        path = request.raw_path
        try:
            target = self._remotes.target(remote, path)
            context = self._remotes.context(remote)
        except NoBackend:
            return _refusal("service unavailable", 503)
        except ValueError as error:
            return _refusal(str(error), 500)
        forwarded = ("X-Forwarded-Uri", path.partition("?")[0])
        errand = Errand(target, context, (*identity(user), forwarded))
        discovery = path.partition("?")[0].strip("/").count("/") == 2
        try:
            async with asyncio.timeout(_DISCOVERY if discovery else None):
                return await self._remotes.carrier.carry(request, errand)
        except Unreachable as error:
            return _refusal(f"error trying to reach service: {error}", 503)
        except TimeoutError:
            return _refusal("error trying to reach service: context deadline exceeded", 503)


def _check_available(remote: Remote) -> None:
    if not remote.available:
        raise StatusError(503, "ServiceUnavailable", "service unavailable")


def _refusal(text: str, code: int) -> web.Response:
    response = web.Response(text=f"{text}\n", status=code)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
