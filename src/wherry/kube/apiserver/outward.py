"""What this server does not answer itself: a table of those who do, asked in order.

Everything here has been authorised before. Each member says which requests concern it, and carries
them: bytes in, bytes out, no object in between.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.web_request import BaseRequest

from wherry.kube.apiserver.aggregation.proxy import Aggregated
from wherry.kube.apiserver.proxying.subresource import Proxies
from wherry.kube.apiserver.request import Query, RequestInfo, User
from wherry.kube.apiserver.streams import Streams


class Outward:
    """Requests to kubelets, pods and services, and to aggregated API servers."""

    def __init__(self, streams: Streams, proxies: Proxies, aggregated: Aggregated) -> None:
        self._streams = streams
        self._proxies = proxies
        self._aggregated = aggregated

    def concerns(self, info: RequestInfo) -> bool:
        """Whether somebody else answers."""
        if self._aggregated.remote(info) is not None:
            return True
        if not info.subresource:
            return False
        return self._streams.concerns(info) or self._proxies.concerns(info)

    def connects(self, info: RequestInfo) -> bool:
        """Whether admission is to be asked first: everything but the reading of a log."""
        return (
            info.resource is not None
            and info.subresource not in ("", "log")
            and self._aggregated.remote(info) is None
        )

    async def handle(
        self, request: BaseRequest, info: RequestInfo, query: Query, user: User
    ) -> web.StreamResponse:
        """Answer with what they answer. Raises StatusError."""
        if (remote := self._aggregated.remote(info)) is not None:
            return await self._aggregated.handle(request, remote, user)
        if self._proxies.concerns(info):
            return await self._proxies.handle(request, info)
        return await self._streams.handle(request, info, query)
