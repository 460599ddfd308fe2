"""Objects of one resource in the store, with the cache's view of them and the API's errors."""

from __future__ import annotations

import time
from collections.abc import Sequence

from wherry.kube.api import errors
from wherry.kube.api.errors import StatusError
from wherry.kube.api.kinds import Kind
from wherry.kube.api.meta import clone
from wherry.kube.apiserver.cache import Cache, unavailable
from wherry.kube.apiserver.metrics import STORE_DURATION
from wherry.kube.apiserver.objects import Object, Stored, encode, splice
from wherry.kube.store.types import (
    Beside,
    Guard,
    GuardMoved,
    KeyExists,
    KeyNotFound,
    RevisionMismatch,
    Store,
    StoreUnavailable,
)

_COMPLETED = 10_000  # objects of a kind that are kept with defaults they were stored without


class Changed(Exception):
    """The object is no longer at the revision the change was made from: look again."""


class Records:
    """The objects of ``kind``. What a write was given becomes shared and must be left alone."""

    def __init__(self, kind: Kind, store: Store, cache: Cache) -> None:
        self.kind = kind
        self.resource = kind.resource
        self._store = store
        self._all = cache
        self.cache = cache.of(kind.resource)
        self._completed: dict[str, Stored] = {}

    def get(self, namespace: str, name: str) -> Stored:
        """Raises StatusError 404."""
        found = self.cache.get(namespace, name)
        if found is None:
            raise self.not_found(name)
        return self.complete(found)

    def complete(self, stored: Stored) -> Stored:
        """As readers get it: with the defaults its kind has now, also if it was stored before."""
        if stored.revision >= self.kind.defaults_since:
            return stored
        made = self._completed.get(stored.key)
        if made is None or made.revision != stored.revision:
            if len(self._completed) >= _COMPLETED:
                self._completed.clear()
            o = clone(stored.object)
            self.kind.default(o)
            made = Stored(stored.key, stored.revision, object=o)
            self._completed[stored.key] = made
        return made

    def complete_all(self, found: Sequence[Stored]) -> Sequence[Stored]:
        """The same for many."""
        return [self.complete(each) for each in found] if self.kind.defaults_since else found

    def is_stale(self, old: Stored) -> bool:
        """Whether the object lies in the store in another form than it would be written in."""
        return self._store.stale(self.cache.prefix + old.key)

    async def listed(self, found: Sequence[Stored]) -> Sequence[Stored]:
        """Objects of the cache (``present``) as readers are shown them."""
        return found

    def not_found(self, name: str) -> StatusError:
        return errors.not_found(self.resource.plural, name, self.resource.group)

    def already_exists(self, name: str) -> StatusError:
        return errors.already_exists(self.resource.plural, name, self.resource.group)

    def conflict(self, name: str, why: str = errors.MODIFIED) -> StatusError:
        return errors.conflict(self.resource.plural, name, why, self.resource.group)

    async def create(
        self, o: Object, guard: Guard | None = None, beside: Sequence[Beside] = ()
    ) -> Stored:
        """Store a new object. Raises StatusError 409 AlreadyExists; GuardMoved, also where one of
        ``beside`` is there already."""
        key = self._key(o)
        value = encode(o)
        try:
            with self.cache.writing(value, o) as write:
                started = time.perf_counter()
                revision = await self._store.create(key, value, guard, beside)
                STORE_DURATION.observe(
                    ("create", self.resource.plural), time.perf_counter() - started
                )
                await self._all.reached(revision)
        except GuardMoved:
            await self._settle()
            raise
        except KeyExists as error:
            await self._settle()
            if error.args[0] != key:
                raise GuardMoved(*error.args) from None
            raise self.already_exists(o["metadata"]["name"]) from None
        except StoreUnavailable as error:
            raise unavailable(error) from error
        return write.stored or self._at(o, value, revision)

    async def update(
        self,
        o: Object,
        old: Stored,
        guard: Guard | None = None,
        beside: Sequence[Beside] = (),
    ) -> Stored:
        """Replace ``old``, which must still be the present. Raises Changed, StatusError."""
        key = self._key(o)
        value = encode(o)
        try:
            with self.cache.writing(value, o) as write:
                started = time.perf_counter()
                revision = await self._store.update(key, value, old.revision, guard, beside)
                STORE_DURATION.observe(
                    ("update", self.resource.plural), time.perf_counter() - started
                )
                await self._all.reached(revision)
        except (RevisionMismatch, KeyNotFound, GuardMoved, KeyExists) as error:
            await self._settle()
            raise Changed from error
        except StoreUnavailable as error:
            raise unavailable(error) from error
        return write.stored or self._at(o, value, revision)

    async def delete(self, old: Stored, beside: Sequence[Beside] = ()) -> int:
        """Remove ``old``, which must still be the present; the revision of the removal.

        Raises Changed, StatusError.
        """
        try:
            started = time.perf_counter()
            revision = await self._store.delete(self._key(old.object), old.revision, beside)
            STORE_DURATION.observe(("delete", self.resource.plural), time.perf_counter() - started)
            await self._all.reached(revision)
        except (RevisionMismatch, KeyNotFound) as error:
            await self._settle()
            raise Changed from error
        except StoreUnavailable as error:
            raise unavailable(error) from error
        return revision

    async def _settle(self) -> None:
        """See at least what the store saw when it refused."""
        await self._all.reached(self._store.revision)

    def _key(self, o: Object) -> str:
        metadata = o["metadata"]
        return self.resource.key(metadata.get("namespace", ""), metadata["name"])

    def _at(self, o: Object, value: bytes, revision: int) -> Stored:
        key = self._key(o)[len(self.cache.prefix) :]
        return Stored(key, revision, data=splice(value, revision))
