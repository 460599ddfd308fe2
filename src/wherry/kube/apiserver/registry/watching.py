"""watch: the past a client missed, then the present, as its selector sees it.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncGenerator, Sequence
from functools import lru_cache, partial

from wherry.kube.api.kinds import Kind
from wherry.kube.apiserver.answers import Seen, Take, Watching
from wherry.kube.apiserver.cache import Cache, Event
from wherry.kube.apiserver.objects import Object, Stored
from wherry.kube.apiserver.options import ListOptions, Selection, parse_list_options
from wherry.kube.apiserver.registry.records import Records
from wherry.kube.apiserver.request import APIRequest, RequestInfo

_TIMEOUT = 1800  # seconds; upstream ends a watch after that to twice that
_BOOKMARK_EVERY = 60.0  # seconds


def watch(records: Records, cache: Cache, request: APIRequest) -> Watching:
    """The stream a watch asks for.

    Raises:
        StatusError: the options are wrong. That the revision is too old comes in the stream.
    """
    kind = request.version or records.kind  # whose words a selector is in
    options = parse_list_options(request.query, kind, watch=True)
    return Watching(records.kind, partial(_batches, records, kind, cache, options, request.info))


async def _batches(
    records: Records,
    kind: Kind,
    cache: Cache,
    options: ListOptions,
    info: RequestInfo,
    take: Take | None = None,
) -> AsyncGenerator[Sequence[Seen], None]:
    selection = options.selection
    view = _View(records, kind, selection, info)
    if options.initial_events or not options.revision:
        if options.revision:
            await cache.not_older_than(options.revision)
        after = cache.revision
        present = [
            Seen("ADDED", stored)
            for stored in records.complete_all(
                await records.listed(records.cache.present(info.namespace))
            )
            if view.wants(stored)
        ]
        if options.initial_events is None or options.initial_events:
            for start in range(0, len(present), 500):
                yield present[start : start + 500]
        if options.initial_events and options.bookmarks:
            yield [_bookmark(kind, after, {"k8s.io/initial-events-end": "true"})]
    else:
        after = options.revision
    yield ()  # what is there has been told

    def tell(events: Sequence[Event]) -> bool:
        nonlocal after
        assert take is not None
        batch = view.see_all(events)
        if batch and not take(batch):
            return False
        after = events[-1].revision
        return True

    report = _BOOKMARK_EVERY if options.bookmarks else None
    seconds = options.timeout or _TIMEOUT * (1 + random.random())  # noqa: S311
    told = records.cache.events(after, seconds, report, tell if take else None)
    async with contextlib.aclosing(told) as stream:
        async for events, revision in stream:
            after = revision
            if not events:
                yield [_bookmark(kind, revision, {})]
            elif batch := view.see_all(events):
                yield batch
    if options.bookmarks:  # who watches on from here misses nothing, and reads nothing twice
        yield [_bookmark(kind, records.cache.told(after), {})]


class _View:
    """What one watcher sees of an event: nothing, or the event its selector makes of it."""

    def __init__(
        self, records: Records, kind: Kind, selection: Selection, info: RequestInfo
    ) -> None:
        self._records = records
        self._kind = kind
        self._name = info.name
        self._selection = selection
        self._everything = selection.everything and not info.name
        inside = info.namespace and kind.resource.namespaced
        self._prefix = f"{info.namespace}/" if inside else ""

    def see_all(self, events: Sequence[Event]) -> Sequence[Seen]:
        return [seen for event in events if (seen := self.see(event)) is not None]

    def see(self, event: Event) -> Seen | None:
        if self._prefix and not event.key.startswith(self._prefix):
            return None
        if self._everything:
            before, now = event.previous is not None, event.current is not None
        else:
            before, now = self.wants(event.previous), self.wants(event.current)
            if not before and not now:
                return None
        type = "MODIFIED" if before and now else "ADDED" if now else "DELETED"
        return _seen(self._records, event, type)

    def wants(self, stored: Stored | None) -> bool:
        """Whether the object is selected as it is."""
        if stored is None:
            return False
        if self._everything:
            return True
        if self._name and stored.key.rpartition("/")[2] != self._name:
            return False
        if self._selection.everything:
            return True
        return self._selection.matches(self._kind, self._records.complete(stored).object)


@lru_cache(1)
def _seen(records: Records, event: Event, type: str) -> Seen:
    """Most often what the watcher before saw as well."""
    return Seen(type, records.complete(event.shown(type)))


def _bookmark(kind: Kind, revision: int, annotations: dict[str, str]) -> Seen:
    metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    o = {
        "kind": kind.resource.kind,
        "apiVersion": kind.resource.api_version,
        "metadata": metadata,
    }
    return Seen("BOOKMARK", Stored("", revision, object=o))
