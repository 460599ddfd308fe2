"""get and list: from memory, by the rules of resourceVersion.

https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
"""

from __future__ import annotations

from collections.abc import Sequence

from wherry.kube.api.errors import expired
from wherry.kube.api.kinds import Kind
from wherry.kube.apiserver.answers import Collection, Single
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.objects import Stored
from wherry.kube.apiserver.options import (
    Continue,
    ListOptions,
    continue_expired,
    parse_list_options,
    parse_revision,
)
from wherry.kube.apiserver.registry.records import Records
from wherry.kube.apiserver.request import APIRequest
from wherry.kube.store.types import Compacted


async def get(records: Records, cache: Cache, request: APIRequest) -> Single:
    """One object. What memory holds is always the most recent state."""
    text = request.query.get("resourceVersion")
    if text and (revision := parse_revision(text)) > cache.revision:
        await cache.not_older_than(revision)
    info = request.info
    return Single(records.get(info.namespace, info.name), records.kind)


async def list_(records: Records, cache: Cache, request: APIRequest) -> Collection:
    """The objects that a list asks for, or one page of them."""
    kind = request.version or records.kind  # whose words a selector is in
    options = parse_list_options(request.query, kind, watch=False)
    namespace = request.info.namespace
    if options.after:
        return await _page(records, kind, cache, options, namespace, Continue.decode(options.after))
    if options.revision:
        await cache.not_older_than(options.revision)
        exact = options.match == "Exact" or (options.limit and not options.match)
        if exact:
            try:
                return await _page(
                    records, kind, cache, options, namespace, Continue(options.revision, "")
                )
            except Compacted:
                raise expired("The resourceVersion for the provided list is too old.") from None
    return await _page(records, kind, cache, options, namespace, Continue(-1, ""))


async def _page(
    records: Records,
    kind: Kind,
    cache: Cache,
    options: ListOptions,
    namespace: str,
    place: Continue,
) -> Collection:
    selection, limit = options.selection, options.limit
    present = place.revision < 0 or place.revision == cache.revision
    if present and limit and selection.everything:
        taken, total = records.cache.page(namespace, place.start, limit)
        return _first(records, records.complete_all(taken), cache.revision, total)
    if present:
        revision = cache.revision
        found = records.complete_all(records.cache.list(namespace, place.start))
    else:
        revision = place.revision
        await cache.not_older_than(revision)
        try:
            found = records.complete_all(
                await records.cache.list_at(revision, namespace, place.start)
            )
        except Compacted:
            if not options.after:
                raise
            raise continue_expired(place) from None
    if selection.everything:
        return _first(records, found[: limit or None], revision, len(found))
    chosen: list[Stored] = []
    for stored in found:
        if selection.matches(kind, stored.object):
            if limit and len(chosen) == limit:
                # How many more will match is not known without looking at all: not told.
                return Collection(records.kind, chosen, revision, _rest(chosen, revision))
            chosen.append(stored)
    return Collection(records.kind, chosen, revision)


def _first(records: Records, taken: Sequence[Stored], revision: int, total: int) -> Collection:
    """Some of ``total`` objects, the others to be continued with."""
    if total <= len(taken):
        return Collection(records.kind, taken, revision)
    rest = _rest(taken, revision)
    return Collection(records.kind, taken, revision, rest, total - len(taken))


def _rest(taken: Sequence[Stored], revision: int) -> str:
    """The token for what comes behind ``taken``."""
    return Continue(revision, taken[-1].key + "\0").encode()
