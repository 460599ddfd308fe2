"""ResourceQuota: all objects of a namespace together use no more than its quotas allow.

What a write would use is charged to the quotas' status before it is stored, in a write that fails
if the quota was changed meanwhile: so no two writes, on this server or another, are given the same
room. Writes of one namespace that arrive together are charged together. What was charged for a
write that failed is given back.

https://kubernetes.io/docs/concepts/policy/resource-quotas/
Upstream: k8s.io/apiserver/pkg/admission/plugin/resourcequota.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from wherry.kube.api.amounts import Amounts
from wherry.kube.api.errors import MODIFIED, StatusError, conflict
from wherry.kube.api.quota import reservations, usage
from wherry.kube.api.quota.reservations import Reservation
from wherry.kube.api.resources import PODS, RESOURCE_QUOTAS, Resource
from wherry.kube.apiserver.admission.attributes import Attributes
from wherry.kube.apiserver.admission.context import Context
from wherry.kube.apiserver.admission.quota_check import Account, Limited, charges, concerns
from wherry.kube.apiserver.registry.records import Changed

_ATTEMPTS = 20


def validate(attributes: Attributes, context: Context) -> Awaitable[None] | None:
    """Charge the write to the quotas of its namespace, if any is about it."""
    resource = attributes.resource
    if not attributes.namespace or not usage.countable(resource):
        return None
    if attributes.subresource:
        if resource is not PODS or attributes.subresource != "resize":
            return None
    elif attributes.operation == "UPDATE" and not usage.charged_on_update(resource):
        return None
    quotas = context.cache.of(RESOURCE_QUOTAS).list(attributes.namespace)
    ledger = context.part(Ledger)
    if not ledger.limited and not any(
        concerns(stored.object, resource, attributes.new) for stored in quotas
    ):
        return None
    return ledger.charge(attributes)


@dataclass(eq=False, slots=True)
class _Entry:
    """A write that waits to be charged, or (``returns``) a charge to be given back."""

    attributes: Attributes
    done: asyncio.Future[None]
    returns: bool = False
    to: set[str] | None = None
    """The names of the quotas that are still to be charged; None: all that are about it."""
    charged: set[str] = field(default_factory=set)

    @property
    def uid(self) -> str:
        uid: str = self.attributes.new["metadata"]["uid"]
        return uid


class _Reserved(NamedTuple):
    """What this server has reserved for: an object it is about to store; noted until ``until``."""

    resource: Resource
    namespace: str
    name: str
    until: float


class Ledger:
    """The charges of one server: for each namespace one task at a time writes them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.limited = Limited.read(context.configuration.get("ResourceQuota"))
        self._waiting: dict[str, list[_Entry]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reserved: dict[str, _Reserved] = {}  # by uid, the oldest first

    async def charge(self, attributes: Attributes) -> None:
        """Raises StatusError 403, there is no room for it."""
        await self._enter(_Entry(attributes, asyncio.get_running_loop().create_future()))

    async def _give_back(self, attributes: Attributes, names: set[str]) -> None:
        future = asyncio.get_running_loop().create_future()
        await self._enter(_Entry(attributes, future, returns=True, to=set(names)))

    async def _enter(self, entry: _Entry) -> None:
        namespace = entry.attributes.namespace
        waiting = self._waiting.get(namespace)
        if waiting is not None:
            waiting.append(entry)
        else:
            self._waiting[namespace] = [entry]
            task = asyncio.get_running_loop().create_task(self._work(namespace))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await entry.done

    async def _work(self, namespace: str) -> None:
        while batch := self._waiting[namespace]:
            self._waiting[namespace] = []
            try:
                await self._serve(namespace, batch)
            except Exception as error:
                for entry in batch:
                    if not entry.done.done():
                        entry.done.set_exception(error)
        del self._waiting[namespace]

    async def _serve(self, namespace: str, batch: list[_Entry]) -> None:
        left = batch
        for _ in range(_ATTEMPTS):
            accounts = self._accounts(namespace)
            left = [entry for entry in left if self._enter_into(entry, accounts)]
            failed = await self._write(accounts)
            left = [entry for entry in left if self._settle(entry, failed)]
            if not left:
                return
        for entry in left:
            quota = min(entry.to or {""})
            entry.done.set_exception(conflict(RESOURCE_QUOTAS.plural, quota, MODIFIED))

    def _accounts(self, namespace: str) -> list[Account]:
        found = self._context.cache.of(RESOURCE_QUOTAS).list(namespace)
        return [Account(stored) for stored in found]

    def _enter_into(self, entry: _Entry, accounts: list[Account]) -> bool:
        """Whether an entry changes an account; if not, it is done."""
        attributes = entry.attributes
        named = [a for a in accounts if entry.to is None or a.name in entry.to]
        if entry.returns:
            changed = [account.name for account in named if account.give_back(entry.uid)]
        else:
            try:
                limited = self.limited if entry.to is None else Limited()
                charged = charges(attributes, named, limited, self._context.clock())
            except StatusError as error:
                if not entry.done.done():
                    self._refuse(entry, error)
                return False
            if attributes.dry_run:
                charged = []
            for account, charge in charged:
                account.charge(entry.uid, self._reservation(attributes, charge))
            changed = [account.name for account, _ in charged]
        entry.to = set(changed)
        if not changed and not entry.done.done():
            entry.done.set_result(None)
        return bool(changed)

    def _refuse(self, entry: _Entry, error: StatusError) -> None:
        """One quota has no room; another may have been charged in an attempt before."""
        if entry.charged:
            entry.attributes.undo.append(
                partial(self._give_back, entry.attributes, set(entry.charged))
            )
        entry.done.set_exception(error)

    def _reservation(self, attributes: Attributes, charge: Amounts) -> Reservation:
        old = attributes.old
        replaces = "" if old is None else str(old["metadata"].get("resourceVersion", ""))
        return Reservation(charge, self._context.clock() + reservations.SECONDS, replaces)

    def _settle(self, entry: _Entry, failed: set[str]) -> bool:
        """Whether an entry has to be tried again; if not, it is done."""
        assert entry.to is not None
        entry.charged |= entry.to - failed
        entry.to &= failed
        if entry.to:
            return True
        if not entry.returns:
            self._remember(entry)
            entry.attributes.undo.append(
                partial(self._give_back, entry.attributes, set(entry.charged))
            )
        entry.done.set_result(None)
        return False

    async def _write(self, accounts: Iterable[Account]) -> set[str]:
        """Store the accounts that changed; the names of those that somebody else was quicker to
        change."""
        records = self._context.backend.records(RESOURCE_QUOTAS)
        failed: set[str] = set()

        async def one(account: Account) -> None:
            account.forget(self._fulfilled(account.noted))
            try:
                await records.update(account.object(), account.stored)
            except Changed:
                failed.add(account.name)

        await asyncio.gather(*(one(account) for account in accounts if account.changed))
        return failed

    def _remember(self, entry: _Entry) -> None:
        attributes = entry.attributes
        self._reserved[entry.uid] = _Reserved(
            attributes.resource,
            attributes.namespace,
            attributes.new["metadata"].get("name", ""),
            self._context.clock() + reservations.SECONDS,
        )

    def _fulfilled(self, noted: dict[str, Reservation]) -> list[str]:
        """The uids of reservations that are needed no more: what they are for is stored, and
        whoever reads a quota without them lists it."""
        now = self._context.clock()
        while self._reserved:
            oldest = next(iter(self._reserved))
            if self._reserved[oldest].until > now:
                break
            del self._reserved[oldest]
        over = [uid for uid, each in noted.items() if each.until <= now]
        for uid in noted.keys() & self._reserved.keys():
            resource, namespace, name, _ = self._reserved[uid]
            found = self._context.cache.of(resource).get(namespace, name)
            if found is None or found.object["metadata"]["uid"] != uid:
                continue
            if noted[uid].fulfilled(str(found.revision)):
                over.append(uid)
                del self._reserved[uid]
        return over
