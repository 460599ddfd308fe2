"""What every verb needs: the store, the cache, the admission chain, the allocated addresses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from wherry.kube.api import errors
from wherry.kube.api.catalogue import Catalogue, Served
from wherry.kube.api.errors import FieldError
from wherry.kube.api.kinds import Kind
from wherry.kube.api.resources import SERVICES, Resource
from wherry.kube.apiserver.admission import Admission, of
from wherry.kube.apiserver.allocation.services import Allocations, Taken
from wherry.kube.apiserver.authn.assembly import Identities
from wherry.kube.apiserver.authz import Authorizer
from wherry.kube.apiserver.cache import Cache
from wherry.kube.apiserver.extensions.callout import Callouts
from wherry.kube.apiserver.objects import Object
from wherry.kube.apiserver.options import WriteOptions
from wherry.kube.apiserver.registry.components import Components
from wherry.kube.apiserver.registry.records import Records
from wherry.kube.apiserver.request import APIRequest, no_such_path
from wherry.kube.store.types import Beside, Guard, Store

_ALLOCATIONS = "/registry/ranges/services"


class _Turns:
    """The lock on one object, and how many have it or wait for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0


class Backend:
    """The records of every resource, and what their writes take besides. ``authorizer``,
    ``admission`` and ``identities`` are set by the server as soon as there is what they need."""

    authorizer: Authorizer
    admission: Admission
    identities: Identities

    def __init__(
        self, store: Store, cache: Cache, allocations: Allocations, catalogue: Catalogue
    ) -> None:
        self.catalogue = catalogue
        self.cache = cache
        self._store = store
        self.shared = store.shared
        self.components: Components | None = None
        self._allocating = asyncio.Lock()
        self._allocations = allocations
        self.callouts = Callouts(cache)
        self.asked_outside: list[Callable[[Resource], bool]] = []
        self._turns: dict[tuple[Resource, str, str], _Turns] = {}
        self._records = self._all(catalogue.served, {})
        catalogue.listen(self._changed)

    def records(self, resource: Resource) -> Records:
        """Raises StatusError 404 where the resource is served no more."""
        try:
            return self._records[resource]
        except KeyError:
            raise no_such_path() from None

    def _changed(self, before: Served, now: Served) -> None:
        self._records = self._all(now, self._records)

    def _all(self, served: Served, before: dict[Resource, Records]) -> dict[Resource, Records]:
        """The records of all that is served; those of a kind that stayed, as they were."""
        return {
            kind.resource: found
            if (found := before.get(kind.resource)) is not None and found.kind is kind
            else self._make(served, kind)
            for kind in served.kinds
            if kind.resource.stored_as is None or kind.resource.custom
        }

    def _make(self, served: Served, kind: Kind) -> Records:
        resource = kind.resource
        if not resource.custom:
            return Records(kind, self._store, self.cache)
        from wherry.kube.apiserver.extensions.views import View

        stored = resource.stored_as or resource
        base = served.by_kind(stored.group, stored.version, stored.kind)
        assert base is not None
        return View(kind, Records(base, self._store, self.cache), self)

    @contextlib.asynccontextmanager
    async def turn(self, resource: Resource, namespace: str, name: str) -> AsyncIterator[None]:
        """Writers of one object take turns: those of this process need not undo each other's work,
        as they would by comparing and swapping alone. Not where a webhook may be asked meanwhile
        (one of ``asked_outside`` says so): it may write the object itself."""
        if any(asks(resource) for asks in self.asked_outside):
            yield
            return
        key = (resource, namespace, name)
        turns = self._turns.setdefault(key, _Turns())
        turns.wanted += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.wanted -= 1
            if not turns.wanted:
                del self._turns[key]

    async def admit(self, request: APIRequest, o: Object, options: WriteOptions) -> Object:
        """What admission makes of ``o``, which is created and not stored: a Binding, a review."""
        attributes = of(request, "CREATE", o, None, options)
        await self.admission.admit(attributes)
        return attributes.new

    def take(self, new: Object, old: Object | None, resource: Resource) -> Taken | None:
        """Allocate what ``new`` needs, before validating admission judges it; to be settled after
        the write. None where that kind takes nothing.

        Raises:
            StatusError: 422, an address or port is taken, or there is none left.
        """
        if resource is not SERVICES:
            return None
        return self._allocations.take(new, old)

    def beside(
        self, new: Object | None, old: Object | None, resource: Resource
    ) -> Sequence[Beside]:
        """What is to be written with ``new`` in the place of ``old``, in the same transaction."""
        return self._allocations.beside(new, old) if resource is SERVICES else ()

    def allocating(self, resource: Resource) -> contextlib.AbstractAsyncContextManager[None]:
        """Held while a write is stored that is to be guarded: writers of one process take turns, so
        that they need not fail by the guard."""
        return self._allocating if self._guarded(resource) else contextlib.nullcontext()

    def guard(self, resource: Resource) -> Guard | None:
        """What a write of what was just taken must be guarded by: another server may have taken
        the same."""
        return self.cache.guard(_ALLOCATIONS) if self._guarded(resource) else None

    def _guarded(self, resource: Resource) -> bool:
        return self.shared and resource is SERVICES


def check(kind: Kind, o: Object, faults: list[FieldError], version: Kind | None = None) -> None:
    """Raises StatusError 422 if there are faults; in the words of ``version``, where that is not
    the stored one."""
    if faults and version is not None:
        faults = version.as_asked(faults, o)
    if faults:
        metadata = o["metadata"]
        name = metadata.get("name") or metadata.get("generateName", "")
        raise errors.invalid(kind.resource.kind, name, faults, kind.resource.group)
