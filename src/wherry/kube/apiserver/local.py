"""The API without a network: components in the server's process ask through the same chain.

Objects are passed as they are, never encoded or decoded: what comes back is shared and read-only.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlencode

import orjson

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.answers import Answer, Document, Watching
from wherry.kube.apiserver.audit.record import Record
from wherry.kube.apiserver.chain import Chain
from wherry.kube.apiserver.request import APIRequest, Body, RequestInfo, User, parse_request
from wherry.kube.apiserver.request import Query as Parameters
from wherry.kube.client.transport import Object, Query


class LocalTransport:
    """`wherry.kube.client.transport.Transport` for one user, on the server's own chain."""

    def __init__(self, chain: Chain, user: User) -> None:
        self._chain = chain
        self._user = user
        self._closed = False

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: object = None,
        content_type: str = "application/json",
    ) -> Object:
        parameters = Parameters(tuple(query))
        with self._recorded(path, parameters, 201 if method == "POST" else 200) as record:
            info = await self._judge(method, path, parameters, record)
            aggregated = self._chain.aggregated
            if aggregated is not None and (remote := aggregated.remote(info)) is not None:
                return await aggregated.request(
                    remote, self._user, method, path, query, body, content_type
                )
            told = Body(content_type, value=body, decoded=True)
            answer = await self._answer(info, parameters, told, record)
        if isinstance(answer, Watching):
            raise ValueError("a watch is not a request: use watch()")
        if isinstance(answer, Document):
            data = zlib.decompress(answer.data, 31) if answer.compressed else answer.data
            value: Object = orjson.loads(data)
            return value
        return answer.object

    async def watch(self, path: str, query: Query = ()) -> AsyncIterator[tuple[str, Object]]:
        parameters = Parameters((*query, ("watch", "true")))
        with self._recorded(path, parameters, 200) as record:
            info = await self._judge("GET", path, parameters, record)
            aggregated = self._chain.aggregated
            if aggregated is not None and (remote := aggregated.remote(info)) is not None:
                async for event in aggregated.watch(remote, self._user, path, query):
                    yield event
                return
            answer = await self._answer(info, parameters, Body(decoded=True), record)
            assert isinstance(answer, Watching)
            if record is not None:
                record.started(200)
            async with contextlib.aclosing(answer.batches()) as batches:
                async for batch in batches:
                    for seen in batch:
                        yield seen.type, seen.stored.object

    async def close(self) -> None:
        self._closed = True

    @contextlib.contextmanager
    def _recorded(self, path: str, query: Parameters, code: int) -> Iterator[Record | None]:
        """What the audit log hears of a request; None where there is no log."""
        auditor = self._chain.auditor
        if auditor is None:
            yield None
            return
        uri = f"{path}?{urlencode(list(query))}" if list(query) else path
        record = auditor.begin(uri, {}, self._user.name.rpartition(":")[2], "127.0.0.1")
        try:
            yield record
        except StatusError as error:
            record.failed(error)
            raise
        finally:
            record.ended(code)

    async def _judge(
        self, method: str, path: str, query: Parameters, record: Record | None
    ) -> RequestInfo:
        """What is asked for, if it may be."""
        if self._closed:
            raise ConnectionError("the transport is closed")
        info = parse_request(method, path, query, self._chain.catalogue.served)
        if record is not None:
            record.identified(self._user, info)
        await self._chain.authorize(self._user, info, record)
        return info

    async def _answer(
        self, info: RequestInfo, query: Parameters, body: Body, record: Record | None
    ) -> Answer:
        if not info.is_resource:
            return self._chain.document(info, query, {})
        request = APIRequest(info, self._user, query, body, self._user.name.rpartition(":")[2])
        return await self._chain.answer(request, record)
