"""The order in which every request is judged, whichever way it came.

    http (TLS, media types) ─┐
                             ├─► authn ─► authz ─► admission ─► registry ─► store
    local (in memory) ───────┘

Both doors end in `Chain.answer`; they differ only in how a user is known and in how an answer is
written.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from wherry.kube.apiserver.admission.connecting import connection
from wherry.kube.apiserver.aggregation.proxy import Aggregated
from wherry.kube.apiserver.answers import Answer
from wherry.kube.apiserver.audit.record import Auditor, Record
from wherry.kube.apiserver.authz import Authorizer
from wherry.kube.apiserver.authz.authorizer import refusal
from wherry.kube.apiserver.documents import Documents
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.registry.dispatch import handler
from wherry.kube.apiserver.request import READS, APIRequest, Query, RequestInfo, User

_IN_PODS = ("exec", "attach", "portforward")


def _seen(task: asyncio.Future[Answer]) -> None:
    """A failure nobody waits for any more is no error of ours."""
    if not task.cancelled():
        task.exception()


class Chain:
    """Authorisation, then the registry or the document that answers. What ``aggregated`` servers
    answer does not come here."""

    def __init__(
        self,
        authorizer: Authorizer,
        backend: Backend,
        documents: Documents,
        aggregated: Aggregated | None = None,
    ) -> None:
        self.authorizer = authorizer
        self.aggregated = aggregated
        self.catalogue = backend.catalogue
        self._backend = backend
        self._documents = documents
        self.auditor: Auditor | None = None

    async def authorize(self, user: User, info: RequestInfo, record: Record | None = None) -> None:
        """Raises StatusError 403."""
        if record is None:
            await self.authorizer.check(user, info)
            return
        decision = await self.authorizer.authorize(user, info)
        record.decided(decision.allowed, decision.reason)
        if not decision.allowed:
            raise refusal(user, info, decision.reason)

    async def answer(self, request: APIRequest, record: Record | None = None) -> Answer:
        """What an authorised request for a resource is answered with; a record hears of it.

        Raises StatusError.
        """
        if record is None:
            return await self._answer(request)
        try:
            answer = await self._answer(request)
        finally:
            record.asked(request)
        record.answered(answer)
        return answer

    async def _answer(self, request: APIRequest) -> Answer:
        """What an authorised request for a resource is answered with. Raises StatusError.

        A write goes on to its end even if the caller is cancelled: the client has sent it. Where
        other servers write to the store too, everything but a read of an older state begins with
        what they have written.
        """
        if self._backend.shared and not (
            request.info.verb in READS and request.query.get("resourceVersion")
        ):
            await self._backend.cache.catch_up()
        answering = handler(request)(self._backend, request)
        if request.info.verb in READS:
            return await answering
        task = asyncio.ensure_future(answering)
        task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def connect(self, user: User, info: RequestInfo, query: Query) -> list[str]:
        """Admission of an authorised connection (exec, attach, portforward, proxy), before it is
        made; what the client is to be warned of. A WebSocket is asked for with GET, but what is
        done in a pod is no reading: it takes the right to create as well. Raises StatusError."""
        if info.verb == "get" and info.subresource in _IN_PODS:
            await self.authorizer.check(user, replace(info, verb="create"))
        attributes = connection(user, info, query)
        await self._backend.admission.admit(attributes)
        return attributes.warnings

    def document(self, info: RequestInfo, query: Query, headers: dict[str, str]) -> Answer:
        """What an authorised request for any other path is answered with. Raises StatusError."""
        return self._documents.answer(info, query, headers)
