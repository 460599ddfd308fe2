"""watch: the past a client missed, then the present, as its selector sees it.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncGenerator, Sequence

from wherry.kube.api.kinds import Kind
from wherry.kube.apiserver.answers import Seen, Watching
from wherry.kube.apiserver.cache import Cache, Event
from wherry.kube.apiserver.objects import Object, Stored
from wherry.kube.apiserver.options import ListOptions, Selection, parse_list_options
from wherry.kube.apiserver.registry.records import Records
from wherry.kube.apiserver.request import APIRequest

_TIMEOUT = 1800  # seconds; upstream ends a watch after that to twice that
_BOOKMARK_EVERY = 60.0  # seconds


def watch(records: Records, cache: Cache, request: APIRequest) -> Watching:
    """The stream a watch asks for.

    Raises:
        StatusError: the options are wrong. That the revision is too old comes in the stream.
    """
    kind = request.version or records.kind  # whose words a selector is in
    options = parse_list_options(request.query, kind, watch=True)
    return Watching(records.kind, _batches(records, kind, cache, options, request.info.namespace))


async def _batches(
    records: Records, kind: Kind, cache: Cache, options: ListOptions, namespace: str
) -> AsyncGenerator[Sequence[Seen], None]:
    selection = options.selection
    view = _View(kind, selection, namespace)
    if options.initial_events or not options.revision:
        if options.revision:
            await cache.not_older_than(options.revision)
        after = cache.revision
        present = [
            Seen("ADDED", stored)
            for stored in await records.listed(records.cache.present(namespace))
            if selection.everything or selection.matches(kind, stored.object)
        ]
        if options.initial_events is None or options.initial_events:
            for start in range(0, len(present), 500):
                yield present[start : start + 500]
        if options.initial_events and options.bookmarks:
            yield [_bookmark(kind, after, {"k8s.io/initial-events-end": "true"})]
    else:
        after = options.revision
    yield ()  # what is there has been told
    report = _BOOKMARK_EVERY if options.bookmarks else None
    seconds = options.timeout or _TIMEOUT * (1 + random.random())  # noqa: S311
    async with contextlib.aclosing(records.cache.events(after, seconds, report)) as stream:
        async for events, revision in stream:
            after = revision
            if not events:
                yield [_bookmark(kind, revision, {})]
            elif batch := [seen for event in events if (seen := view.see(event)) is not None]:
                yield batch
    if options.bookmarks:  # who watches on from here misses nothing, and reads nothing twice
        yield [_bookmark(kind, records.cache.told(after), {})]


class _View:
    """What one watcher sees of an event: nothing, or the event its selector makes of it."""

    def __init__(self, kind: Kind, selection: Selection, namespace: str) -> None:
        self._kind = kind
        self._selection = selection
        self._everything = selection.everything
        self._prefix = f"{namespace}/" if namespace and kind.resource.namespaced else ""

    def see(self, event: Event) -> Seen | None:
        if self._prefix and not event.key.startswith(self._prefix):
            return None
        before, now = self._wants(event.previous), self._wants(event.current)
        if not before and not now:
            return None
        type = "MODIFIED" if before and now else "ADDED" if now else "DELETED"
        return Seen(type, event.shown(type))

    def _wants(self, stored: Stored | None) -> bool:
        if stored is None:
            return False
        return self._everything or self._selection.matches(self._kind, stored.object)


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
