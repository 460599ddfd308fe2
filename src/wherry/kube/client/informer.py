"""A current copy of one resource, and calls when it changes.

An informer lists once, then watches from the list's revision; a watch that ends is resumed from the
last revision seen, and only where the server no longer keeps that (410) is everything listed anew.
Objects are shared with every reader, in one process even with the API server: never change them.

``reached`` is what makes controllers simple. One that has written an object waits until its
informer has seen that revision before it looks again, so it never decides on a view older than its
own last act: no pod is created twice because the first had not come back yet. (Upstream keeps
counts of expected creations instead, which must time out when an event was missed.) It rests on
revisions being comparable numbers, as Kubernetes says they are since 1.35 (KEP-5504) and etcd's
have always been.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import Resource
from wherry.kube.client.backoff import Backoff
from wherry.kube.client.client import Client
from wherry.kube.client.transport import Object

log = logging.getLogger(__name__)

Objects = list[Object]

Indexer = Callable[[Object], Iterable[str]]
"""The values under which an object is to be found in an index."""

# A server that is just starting is tried again so soon that nobody waits for it noticeably.
_UNREACHABLE = (0.02, 1.0)
_REFUSED = (0.1, 30.0)
_WATCH_SECONDS = 300  # upstream's minimum; up to twice as long, so that watches end apart


class _Handlers(NamedTuple):
    add: Callable[[Object], None] | None
    update: Callable[[Object, Object], None] | None
    delete: Callable[[Object], None] | None


class Informer:
    """The objects of one resource, kept current.

    Handlers are plain functions called in the order of the changes, after the copy has changed;
    they must be quick, as they hold up everything else: put a key in a queue and return. They hear
    ``on_add(object)``, ``on_update(old, new)`` and ``on_delete(last state)``. An object that
    vanished during a disconnection is reported with the last state that was seen.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        indexers: Mapping[str, Indexer] | None = None,
    ) -> None:
        self.resource = resource
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._objects: dict[str, dict[str, Object]] = {}
        self._indexers: dict[str, Indexer] = {}
        self._indices: dict[str, dict[str, dict[tuple[str, str], Object]]] = {}
        self._handlers: list[_Handlers] = []
        self._version = ""
        self._seen = 0
        self._synced = asyncio.Event()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._task: asyncio.Task[None] | None = None
        for name, indexer in (indexers or {}).items():
            self.add_indexer(name, indexer)

    # -- life

    def start(self) -> None:
        """Begin; calling it again changes nothing."""
        if self._task is None:
            name = f"informer {self.resource.plural}"
            self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    def cancel(self) -> None:
        """End the watch soon, without waiting for it."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """End the watch. The copy stays as it was."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @property
    def synced(self) -> bool:
        """Whether the first list has arrived."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Return once the first list has arrived and its handlers were called."""
        await self._synced.wait()

    async def reached(self, object: Object) -> None:
        """Return once the copy is at least as new as ``object``, which this process wrote.

        Only for an object that this informer selects: any other may never arrive.
        """
        version = int(object["metadata"]["resourceVersion"])
        if version <= self._seen:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (version, next(self._order), future))
        await future

    # -- reading

    def get(self, namespace: str | None, name: str) -> Object | None:
        """The object, or None; ``namespace`` is None or empty for cluster-scoped kinds."""
        return self._objects.get(namespace or "", {}).get(name)

    def list(self, namespace: str | None = None) -> Objects:
        """All objects, or those of one namespace, in no particular order."""
        if namespace is not None:
            return list(self._objects.get(namespace, {}).values())
        return list(self._all())

    def by_index(self, index: str, value: str) -> Objects:
        """The objects that ``index`` files under ``value``."""
        return list(self._indices[index].get(value, {}).values())

    def __len__(self) -> int:
        return sum(len(objects) for objects in self._objects.values())

    # -- what to do on changes

    def add_indexer(self, name: str, indexer: Indexer) -> None:
        """Find objects by ``indexer``'s values from now on; the same name twice keeps the first."""
        if name in self._indexers:
            return
        self._indexers[name] = indexer
        self._indices[name] = {}
        for object in self._all():
            self._file(name, object, None)

    def add_handlers(
        self,
        *,
        on_add: Callable[[Object], None] | None = None,
        on_update: Callable[[Object, Object], None] | None = None,
        on_delete: Callable[[Object], None] | None = None,
    ) -> None:
        """Hear of changes; objects that are here already are reported as added, now."""
        handlers = _Handlers(on_add, on_update, on_delete)
        self._handlers.append(handlers)
        if on_add is not None:
            for object in self.list():
                self._tell(on_add, object)

    # -- following the server

    async def _run(self) -> None:
        unreachable = Backoff(*_UNREACHABLE)
        refused = Backoff(*_REFUSED)
        while True:
            try:
                if not self._version:
                    await self._list()
                if await self._watch():
                    unreachable.reset()
                    refused.reset()
                    continue
                delay = unreachable.next()  # it ended at once: not a loop to run hot
            except StatusError as error:
                if error.code == 410:
                    self._version = ""
                else:
                    log.warning("%s: watch refused: %s", self.resource.plural, error)
                delay = refused.next()
            except (ConnectionError, TimeoutError) as error:
                log.debug("%s: %s", self.resource.plural, error)
                delay = unreachable.next()
            except Exception:
                # An answer nobody expected. Whoever relies on this copy must not go blind by it.
                log.exception("%s: following failed; listing anew", self.resource.plural)
                self._version = ""
                delay = refused.next()
            await asyncio.sleep(delay)

    async def _list(self) -> None:
        answer = await self._client.list(
            self.resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        gone = {_key(object): object for object in self._all()}
        for object in answer["items"]:
            gone.pop(_key(object), None)
            self._put(object)
        for object in gone.values():
            self._drop(object)
        self._advance(answer["metadata"]["resourceVersion"])
        self._synced.set()

    async def _watch(self) -> bool:
        """Follow until the server ends it; whether anything came of it."""
        began = asyncio.get_running_loop().time()
        productive = False
        stream = self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            bookmarks=True,
            timeout_seconds=random.randint(_WATCH_SECONDS, 2 * _WATCH_SECONDS),  # noqa: S311
        )
        try:
            async for kind, object in stream:
                if kind in ("ADDED", "MODIFIED"):
                    self._put(object)
                elif kind == "DELETED":
                    self._drop(object)
                self._advance(object["metadata"]["resourceVersion"])
                productive = True
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
        return productive or asyncio.get_running_loop().time() - began > 1

    def _advance(self, version: str) -> None:
        self._version = version
        self._seen = max(self._seen, int(version))
        while self._waiters and self._waiters[0][0] <= self._seen:
            _, _, future = heapq.heappop(self._waiters)
            if not future.done():
                future.set_result(None)

    # -- the copy

    def _all(self) -> Iterator[Object]:
        for objects in self._objects.values():
            yield from objects.values()

    def _put(self, object: Object) -> None:
        namespace, name = _key(object)
        objects = self._objects.setdefault(namespace, {})
        old = objects.get(name)
        if old is not None:
            before, now = old["metadata"], object["metadata"]
            if before.get("resourceVersion") == now.get("resourceVersion"):
                return
            if before.get("uid") != now.get("uid"):
                self._drop(old)  # deleted and made anew while we did not look
                objects = self._objects.setdefault(namespace, {})
                old = None
        objects[name] = object
        for index in self._indexers:
            self._file(index, object, old)
        for handlers in self._handlers:
            if old is None:
                if handlers.add is not None:
                    self._tell(handlers.add, object)
            elif handlers.update is not None:
                self._tell(handlers.update, old, object)

    def _drop(self, object: Object) -> None:
        key = namespace, name = _key(object)
        objects = self._objects.get(namespace, {})
        old = objects.pop(name, None)
        if old is None:
            return
        if not objects:
            del self._objects[namespace]
        for index, indexer in self._indexers.items():
            for value in indexer(old):
                self._unfile(index, value, key)
        for handlers in self._handlers:
            if handlers.delete is not None:
                self._tell(handlers.delete, object)

    def _file(self, index: str, object: Object, old: Object | None) -> None:
        indexer, key = self._indexers[index], _key(object)
        values = list(indexer(object))
        if old is not None:
            for value in indexer(old):
                if value not in values:
                    self._unfile(index, value, key)
        for value in values:
            self._indices[index].setdefault(value, {})[key] = object

    def _unfile(self, index: str, value: str, key: tuple[str, str]) -> None:
        filed = self._indices[index].get(value)
        if filed is not None:
            filed.pop(key, None)
            if not filed:
                del self._indices[index][value]

    def _tell(self, handler: Callable[..., None], *objects: Object) -> None:
        try:
            handler(*objects)
        except Exception:
            # One handler's fault must not blind the others; it is theirs to be fixed.
            log.exception("%s: a handler failed on %s", self.resource.plural, _key(objects[-1]))


def _key(object: Object) -> tuple[str, str]:
    metadata = object["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


class SharedInformers:
    """One informer a resource for all components of a process: one watch, one copy."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._informers: dict[Resource, Informer] = {}
        self._started = False

    def informer(self, resource: Resource) -> Informer:
        """The informer of all objects of ``resource``, made when first asked for."""
        informer = self._informers.get(resource)
        if informer is None:
            informer = self._informers[resource] = Informer(self.client, resource)
            if self._started:
                informer.start()
        return informer

    def drop(self, resource: Resource) -> None:
        """End the informer of a resource that is served no more; its copy is forgotten."""
        informer = self._informers.pop(resource, None)
        if informer is not None:
            informer.cancel()

    def start(self) -> None:
        """Start every informer, and from now on each new one as it is made."""
        self._started = True
        for informer in self._informers.values():
            informer.start()

    async def wait_synced(self) -> None:
        """Return once every informer that was asked for so far has its first list."""
        await asyncio.gather(*(i.wait_synced() for i in list(self._informers.values())))

    async def stop(self) -> None:
        """End all watches."""
        self._started = False
        await asyncio.gather(*(informer.stop() for informer in self._informers.values()))
