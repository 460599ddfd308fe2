"""A custom resource as one of its versions sees it.

Every version that is served has records of its own: what is read through them has been converted to
the version, what is written is converted to the one that is stored. So a request is decoded, judged
and answered in the version it names, whichever lies in the store; and what lies there may be of
several versions, until each object has been written once since the storage version changed.

Conversion by name is done on the way. What a webhook must convert cannot be waited for in the
middle of a read: `Unconverted` says what is missing, `answer` has it converted and begins anew.
Either outcome is remembered for some time.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, cast

from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds import Kind
from wherry.kube.apiserver.answers import Answer
from wherry.kube.apiserver.cache import Event, ResourceCache
from wherry.kube.apiserver.extensions import conversion
from wherry.kube.apiserver.objects import Object, Stored, encode, splice
from wherry.kube.apiserver.registry.backend import Backend
from wherry.kube.apiserver.registry.records import Records
from wherry.kube.apiserver.request import APIRequest
from wherry.kube.store.types import Beside, Guard

Handler = Callable[[Backend, APIRequest], Coroutine[Any, Any, Answer]]

_KEPT = 2000  # converted objects of a version that are remembered, at least
_AT_ONCE = 500  # objects in one question to a webhook
_ROUNDS = 100


class Unconverted(Exception):
    """Objects that a webhook must convert before they can be read."""

    def __init__(self, view: View, items: Sequence[Stored]) -> None:
        super().__init__()
        self.view = view
        self.items = items


async def answer(backend: Backend, request: APIRequest, handler: Handler) -> Answer:
    """What ``handler`` answers, when all it needs has been converted. Raises StatusError."""
    warned = len(request.warnings)
    for _ in range(_ROUNDS):
        try:
            return await handler(backend, request)
        except Unconverted as missing:
            del request.warnings[warned:]
            await missing.view.shown(missing.items)
    raise StatusError(
        500, "InternalError", "Internal error occurred: objects change faster than they convert"
    )


class View(Records):
    """The records of one version; ``base`` has those that are stored."""

    def __init__(self, kind: Kind, base: Records, backend: Backend) -> None:
        self.kind = kind
        self.resource = kind.resource
        self._completed: dict[str, Stored] = {}
        self._base = base
        self._backend = backend
        self._by_name = conversion.webhook_of(kind) is None
        self._head = _head(kind)
        self._stored_head = _head(base.kind)
        self._known: OrderedDict[tuple[str, int], Stored] = OrderedDict()
        self.cache = cast(ResourceCache, _Viewed(self, base.cache))

    def ready(self, stored: Stored) -> Stored | None:
        """An object in this version, if it can be had at once."""
        if stored.data.startswith(self._head):
            return stored
        found = self._known.get((stored.key, stored.revision))
        if found is None and self._by_name:
            found = self._fitted(stored, conversion.in_version(stored.object, self.resource))
            self._forget(self._base.cache.count)
        return found

    def all_ready(self, items: Sequence[Stored]) -> Sequence[Stored]:
        """The same of several. Raises Unconverted."""
        found = [self.ready(stored) for stored in items]
        missing = [stored for stored, each in zip(items, found, strict=True) if each is None]
        if missing:
            raise Unconverted(self, missing)
        return cast(Sequence[Stored], found)

    async def shown(self, items: Sequence[Stored]) -> list[Stored]:
        """Objects in this version, converted where need be. Raises StatusError 500."""
        found = [self.ready(stored) for stored in items]
        missing = [stored for stored, each in zip(items, found, strict=True) if each is None]
        made: list[Stored] = []
        for start in range(0, len(missing), _AT_ONCE):
            made += await self._convert(missing[start : start + _AT_ONCE])
        rest = iter(made)
        self._forget(len(items))
        return [next(rest) if each is None else each for each in found]

    async def _convert(self, items: Sequence[Stored]) -> list[Stored]:
        objects = [stored.object for stored in items]
        made = await conversion.convert(self._backend, objects, self.resource)
        return [self._fitted(*each) for each in zip(items, made, strict=True)]

    def _fitted(self, stored: Stored, converted: Object) -> Stored:
        """``stored``, which was converted, by the schema of this version; remembered."""
        o = self.kind.decode(converted).value
        self.kind.default(o)
        data = splice(encode(o), stored.revision)
        made = self._known[stored.key, stored.revision] = Stored(
            stored.key, stored.revision, data=data
        )
        return made

    def _forget(self, keep: int) -> None:
        while len(self._known) > max(_KEPT, keep):
            self._known.popitem(last=False)

    async def events(self, events: Sequence[Event]) -> Sequence[Event]:
        """Events with their objects in this version."""
        states = [s for e in events for s in (e.current, e.previous) if s is not None]
        if all(stored.data.startswith(self._head) for stored in states):
            return events
        made = iter(await self.shown(states))
        return [
            Event(
                event.key,
                event.revision,
                None if event.current is None else next(made),
                None if event.previous is None else next(made),
            )
            for event in events
        ]

    def is_stale(self, old: Stored) -> bool:
        found = self._base.cache.find(old.key)
        return found is not None and (
            not found.data.startswith(self._stored_head) or self._base.is_stale(found)
        )

    async def listed(self, found: Sequence[Stored]) -> Sequence[Stored]:
        return await self.shown(found)

    async def create(
        self, o: Object, guard: Guard | None = None, beside: Sequence[Beside] = ()
    ) -> Stored:
        (made,) = await conversion.convert(self._backend, [o], self._base.resource)
        return (await self.shown([await self._base.create(made, guard, beside)]))[0]

    async def update(
        self,
        o: Object,
        old: Stored,
        guard: Guard | None = None,
        beside: Sequence[Beside] = (),
    ) -> Stored:
        (made,) = await conversion.convert(self._backend, [o], self._base.resource)
        return (await self.shown([await self._base.update(made, old, guard, beside)]))[0]

    async def delete(self, old: Stored, beside: Sequence[Beside] = ()) -> int:
        return await self._base.delete(old, beside)


def _head(kind: Kind) -> bytes:
    """What the JSON of objects of that version begins with."""
    resource = kind.resource
    return f'{{"kind":"{resource.kind}","apiVersion":"{resource.api_version}",'.encode()


class _Viewed:
    """The cache of the stored objects, in the version of a view."""

    def __init__(self, view: View, stored: ResourceCache) -> None:
        self._view = view
        self._stored = stored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stored, name)

    def get(self, namespace: str, name: str) -> Stored | None:
        found = self._stored.get(namespace, name)
        return None if found is None else self._view.all_ready([found])[0]

    def list(self, namespace: str = "", start: str = "") -> Sequence[Stored]:
        return self._view.all_ready(self._stored.list(namespace, start))

    def present(self, namespace: str = "") -> Sequence[Stored]:
        return self._stored.list(namespace)

    async def list_at(
        self, revision: int, namespace: str = "", start: str = ""
    ) -> Sequence[Stored]:
        found = await self._stored.list_at(revision, namespace, start)
        return await self._view.shown(found)

    async def events(
        self,
        after: int,
        seconds: float,
        report_every: float | None = None,
        take: Callable[[Sequence[Event]], bool] | None = None,
    ) -> AsyncGenerator[tuple[Sequence[Event], int], None]:
        # Nothing is handed to ``take``: a conversion may have to ask a webhook.
        stream = self._stored.events(after, seconds, report_every)
        async with contextlib.aclosing(stream) as batches:
            async for events, revision in batches:
                yield await self._view.events(events), revision
