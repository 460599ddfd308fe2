"""The store on an etcd (v3): several API servers may share it.

* **One change, one transaction.** A write compares the key's ``mod_revision`` and puts or deletes
  in one transaction of etcd. Where an attempt fails without an answer (a leader died), the same
  transaction is sent to another member; because it compares, it cannot be made twice. If it then
  finds the key changed, the key's history says whether the change was our own first attempt.
* **A watch has no gap and no repeat.** It resumes behind the last revision it told, at whichever
  member answers. etcd makes up a watcher's past from its history, whatever happened to the stream.
* **Acknowledged by one is seen by all.** `latest` asks for etcd's revision by a linearizable read;
  who asks while one is under way shares the next one.
* **History** is compacted as upstream's API servers do it, with the same key, by which several
  agree who does.

Upstream: https://etcd.io/docs/v3.4/learning/api/ and k8s.io/apiserver/pkg/storage/etcd3.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, Self

from wherry.kube.store.address import EtcdAddress
from wherry.kube.store.etcd_members import (
    ATTEMPT,
    Member,
    Members,
    Pauses,
    refusal,
    said,
    transient,
)
from wherry.kube.store.types import (
    Beside,
    Change,
    Compacted,
    Guard,
    GuardMoved,
    KeyExists,
    KeyNotFound,
    KeyValue,
    RevisionMismatch,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

_PAGE = 1000  # keys read at once
_RANGE_ATTEMPTS = 5  # a range is begun anew when its revision was compacted under way
REGISTRY = "/registry/"
"""What the keys of a cluster begin with; an etcd may hold other things beside."""

_OPERATIONS = 100  # in a transaction; etcd's limit is 128
_TRANSACTION_BYTES = 1 << 20  # and what it takes at once is 1.5 MB, unless it was told otherwise
_COMPACT_KEY = b"compact_rev_key"  # upstream's name
_EVERYTHING = b"\0"  # as a key and as the end of a range


class EtcdStore:
    """`wherry.kube.store.types.Store` on the etcd at ``address``; made by `open`.

    Args:
        keep_seconds: the history is compacted to what is younger than about this; 0: never.
    """

    shared = True

    def __init__(self, address: EtcdAddress, *, keep_seconds: float = 300.0) -> None:
        from aetcd import rpc

        self._members = Members(address)
        self._rpc: Any = rpc
        self._revision = 0
        self._closed = False
        self._streams: set[asyncio.Task[Any]] = set()
        self._latest: asyncio.Task[int] | None = None
        self._later: asyncio.Task[int] | None = None
        self._keep_seconds = keep_seconds
        self._compacting: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, address: EtcdAddress, *, keep_seconds: float = 300.0) -> Self:
        """Connect. Raises StoreUnavailable."""
        store = cls(address, keep_seconds=keep_seconds)
        try:
            await store.latest()
        except BaseException:
            await store.close()
            raise
        if keep_seconds:
            store._compacting = asyncio.get_running_loop().create_task(store._compact_regularly())
        return store

    @property
    def revision(self) -> int:
        return self._revision

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        tasks = {*self._streams, self._compacting, self._latest, self._later} - {None}
        for task in tasks:
            assert task is not None
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)  # type: ignore[type-var]
        await self._members.close()

    async def _call(self, name: str, request: Any) -> tuple[Any, bool]:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        answer, again = await self._members.call(name, request)
        self._revision = max(self._revision, answer.header.revision)
        return answer, again

    # --- writing ----------------------------------------------------------------------------

    async def create(
        self, key: str, value: bytes, guard: Guard | None = None, beside: Sequence[Beside] = ()
    ) -> int:
        return await self._write(key, value, 0, guard, beside)

    async def update(
        self,
        key: str,
        value: bytes,
        revision: int,
        guard: Guard | None = None,
        beside: Sequence[Beside] = (),
    ) -> int:
        return await self._write(key, value, revision, guard, beside)

    async def delete(
        self, key: str, revision: int | None = None, beside: Sequence[Beside] = ()
    ) -> int:
        return await self._write(key, None, revision, None, beside)

    async def _write(
        self,
        key: str,
        value: bytes | None,
        expected: int | None,
        guard: Guard | None,
        beside: Sequence[Beside],
    ) -> int:
        """Put ``value`` (None: delete), if the key is at revision ``expected`` (0: is not there,
        None: whichever)."""
        rpc, name, before = self._rpc, key.encode(), self._revision
        compare = rpc.Compare(
            key=name,
            target=rpc.Compare.MOD,
            result=rpc.Compare.GREATER if expected is None else rpc.Compare.EQUAL,
            mod_revision=expected or 0,
        )
        change = (
            rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=name))
            if value is None
            else rpc.RequestOp(request_put=rpc.PutRequest(key=name, value=value))
        )
        look = rpc.RequestOp(request_range=rpc.RangeRequest(key=name, keys_only=True))
        request = rpc.TxnRequest(compare=[compare], success=[change], failure=[look])
        if guard is not None:
            self._add_guard(request, guard)
        self._add_beside(request, beside)
        answer, again = await self._call("txn", request)
        if answer.succeeded:
            return int(answer.header.revision)
        found = answer.responses[0].response_range.kvs
        if again:
            last = found[0].mod_revision if found else 0
            made = await self._made(key, value, expected, expected or before, last)
            if made is not None:
                return made
        if expected is None or expected == (found[0].mod_revision if found else 0):
            for each in answer.responses[1:]:
                for there in each.response_range.kvs:
                    raise KeyExists(there.key.decode())
        if guard is not None and expected == (found[0].mod_revision if found else 0):
            raise GuardMoved(guard.key)
        if expected == 0:
            raise KeyExists(key)
        if not found:
            raise KeyNotFound(key)
        raise RevisionMismatch(found[0].mod_revision)

    def _add_guard(self, request: Any, guard: Guard) -> None:
        rpc, name = self._rpc, guard.key.encode()
        request.compare.append(
            rpc.Compare(
                key=name,
                target=rpc.Compare.MOD,
                result=rpc.Compare.EQUAL,
                mod_revision=guard.revision,
            )
        )
        request.success.append(rpc.RequestOp(request_put=rpc.PutRequest(key=name)))

    def _add_beside(self, request: Any, beside: Sequence[Beside]) -> None:
        rpc = self._rpc
        for each in beside:
            name = each.key.encode()
            if each.value is None:
                removal = rpc.DeleteRangeRequest(key=name)
                request.success.append(rpc.RequestOp(request_delete_range=removal))
                continue
            request.compare.append(
                rpc.Compare(
                    key=name,
                    target=rpc.Compare.MOD,
                    result=rpc.Compare.EQUAL,
                    mod_revision=0,
                )
            )
            put = rpc.PutRequest(key=name, value=each.value)
            request.success.append(rpc.RequestOp(request_put=put))
            look = rpc.RangeRequest(key=name, keys_only=True)
            request.failure.append(rpc.RequestOp(request_range=look))

    async def _made(
        self, key: str, value: bytes | None, expected: int | None, after: int, last: int
    ) -> int | None:
        """The revision of our own write to ``key`` behind revision ``after``, if it was made.

        Asked after an attempt without an answer. ``last`` is the revision of the key's last change,
        where it is there. Ours changed what we compared with into what we wrote.

        Raises:
            StoreUnavailable: that is not known any more.
        """
        try:
            async with (
                asyncio.timeout(ATTEMPT),
                contextlib.aclosing(self.watch(key, after)) as batches,  # type: ignore[type-var]
            ):
                async for batch in batches:
                    for change in batch:
                        if change.key != key:
                            continue
                        was = change.previous.mod_revision if change.previous else 0
                        now = change.current.value if change.current else None
                        if now == value and expected in (None, was):
                            return change.revision
                        if expected or change.revision >= last > 0:
                            return None
        except (Compacted, TimeoutError) as error:
            raise StoreUnavailable(
                f"etcd did not say whether {key} was written, and its history is gone"
            ) from error
        raise StoreUnavailable("the store is closed")

    # --- reading ----------------------------------------------------------------------------

    async def get(self, key: str) -> KeyValue | None:
        answer, _ = await self._call("range", self._rpc.RangeRequest(key=key.encode()))
        return _key_value(answer.kvs[0]) if answer.kvs else None

    async def range(self, prefix: str) -> tuple[Sequence[KeyValue], int]:
        for attempt in range(_RANGE_ATTEMPTS):
            with contextlib.suppress(Compacted):
                return await self._range(prefix, _PAGE * 4**attempt)
        raise StoreUnavailable(f"etcd forgets its history faster than {prefix} can be read")

    async def _range(self, prefix: str, page: int) -> tuple[Sequence[KeyValue], int]:
        start, end = _bounds(prefix)
        found: list[KeyValue] = []
        revision = 0
        while True:
            answer, _ = await self._call(
                "range",
                self._rpc.RangeRequest(key=start, range_end=end, limit=page, revision=revision),
            )
            revision = revision or int(answer.header.revision)
            found.extend(_key_value(kv) for kv in answer.kvs)
            if not answer.more:
                return found, revision
            start = answer.kvs[-1].key + b"\0"

    async def latest(self) -> int:
        if self._later is None:
            self._later = asyncio.get_running_loop().create_task(self._ask(self._latest))
            self._later.add_done_callback(_retrieve)
        return await asyncio.shield(self._later)

    async def _ask(self, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait([before])
        # From here on a caller may have seen what this read does not: it gets the next one.
        self._latest, self._later = self._later, None
        answer, _ = await self._call(
            "range", self._rpc.RangeRequest(key=_COMPACT_KEY, count_only=True)
        )
        return int(answer.header.revision)

    # --- watching ---------------------------------------------------------------------------

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Sequence[Change]]:
        pauses = self._members.pauses()
        while not self._closed:
            stream = self._stream(prefix, after, pauses)
            try:
                async with contextlib.aclosing(stream) as batches:  # type: ignore[type-var]
                    async for batch in batches:
                        after = batch[-1].revision
                        yield batch
            except _Broken as error:
                log.info(
                    "the watch at %s broke off behind %d: %s", error.member.endpoint, after, error
                )
                self._members.failed(error.member)
                await self._abandonable(asyncio.sleep(pauses.next()))

    async def _stream(
        self, prefix: str, after: int, pauses: Pauses
    ) -> AsyncIterator[Sequence[Change]]:
        """What one member tells. Ends when the store is closed; raises Compacted, _Broken."""
        member = self._members.current()
        call = member.watch(metadata=self._members.metadata)
        try:
            started = False
            await self._abandonable(self._begin(call, prefix, after))
            while (
                answer := await self._abandonable(
                    self._read(call) if started else asyncio.wait_for(self._read(call), ATTEMPT)
                )
            ) is not None:
                if answer.canceled:
                    if answer.compact_revision:
                        raise Compacted(answer.compact_revision)
                    raise _Broken(member, answer.cancel_reason or "canceled")
                if not started:
                    started = True
                    pauses.reset()
                self._revision = max(self._revision, answer.header.revision)
                changes = [_change(e) for e in answer.events if e.kv.mod_revision > after]
                if changes:
                    yield changes
            if not self._closed:
                raise _Broken(member, "the stream ended")
        except self._members.errors as error:
            if not transient(error):
                raise refusal(error) from error
            raise _Broken(member, said(error)) from error
        except TimeoutError as error:
            raise _Broken(member, "no answer") from error
        finally:
            call.cancel()

    async def _begin(self, call: Any, prefix: str, after: int) -> None:
        start, end = _bounds(prefix)
        # From ``after`` itself, which is dropped: a start that is compacted is then told in every
        # case (of a deletion at the compacted revision itself etcd keeps nothing).
        request = self._rpc.WatchCreateRequest(
            key=start, range_end=end, start_revision=after, prev_kv=True
        )
        await call.write(self._rpc.WatchRequest(create_request=request))

    async def _read(self, call: Any) -> Any:
        answer = await call.read()
        return answer if hasattr(answer, "header") else None  # the mark of the stream's end

    async def _abandonable(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The outcome of ``work``; None when the store is closed meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        self._streams.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            current = asyncio.current_task()
            if self._closed and not (current and current.cancelling()):
                return None
            raise
        finally:
            self._streams.discard(task)

    # --- forgetting -------------------------------------------------------------------------

    async def restore(self, keys: Sequence[KeyValue]) -> None:
        """Make the cluster's keys these, at new revisions. Nobody else may write meanwhile; after
        a failure the same call begins anew.

        Raises:
            StoreUnavailable: not all of it was done.
        """
        rpc = self._rpc
        wanted = {kv.key for kv in keys}
        held, _ = await self.range(REGISTRY)
        steps = [
            rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=kv.key.encode()))
            for kv in held
            if kv.key not in wanted
        ]
        steps += [
            rpc.RequestOp(request_put=rpc.PutRequest(key=kv.key.encode(), value=kv.value))
            for kv in sorted(keys, key=lambda kv: kv.mod_revision)
        ]
        while steps:
            size = count = 0
            for step in steps[:_OPERATIONS]:
                size += step.ByteSize()
                if count and size > _TRANSACTION_BYTES:
                    break
                count += 1
            await self._call("txn", rpc.TxnRequest(success=steps[:count]))
            del steps[:count]
        await self.compact(self._revision)

    def stale(self, key: str) -> bool:
        return False

    async def compact(self, revision: int) -> None:
        target = min(revision, self._revision)
        with contextlib.suppress(Compacted):  # to there already
            await self._call("compact", self._rpc.CompactionRequest(revision=target))

    async def _compact_regularly(self) -> None:
        """Every ``keep_seconds`` one of the servers on this etcd compacts to where it was at its
        turn before. Upstream: k8s.io/apiserver/pkg/storage/etcd3/compact.go."""
        version = revision = 0
        while True:
            await asyncio.sleep(self._keep_seconds)
            try:
                version, revision, due = await self._compaction_turn(version, revision)
                if due:
                    await self.compact(due)
            except StoreUnavailable as error:
                log.warning("the history was not compacted: %s", error)

    async def _compaction_turn(self, version: int, revision: int) -> tuple[int, int, int]:
        """The version of the key by which servers agree, etcd's revision, and what to compact to
        (0: another server does)."""
        rpc = self._rpc
        compare = rpc.Compare(
            key=_COMPACT_KEY, target=rpc.Compare.VERSION, result=rpc.Compare.EQUAL, version=version
        )
        put = rpc.PutRequest(key=_COMPACT_KEY, value=str(revision).encode())
        request = rpc.TxnRequest(
            compare=[compare],
            success=[rpc.RequestOp(request_put=put)],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=_COMPACT_KEY))],
        )
        answer, _ = await self._call("txn", request)
        if answer.succeeded:
            return version + 1, int(answer.header.revision), revision
        found = answer.responses[0].response_range.kvs
        return (found[0].version if found else 0), int(answer.header.revision), 0


class _Broken(Exception):
    """A watch lost its member; the next one goes on."""

    def __init__(self, member: Member, why: str) -> None:
        super().__init__(why)
        self.member = member


def _bounds(prefix: str) -> tuple[bytes, bytes]:
    """Key and range_end of all keys with the prefix."""
    if not prefix:
        return _EVERYTHING, _EVERYTHING
    start = prefix.encode()
    return start, start[:-1] + bytes([start[-1] + 1])


def _key_value(kv: Any) -> KeyValue:
    return KeyValue(kv.key.decode(), kv.value, kv.create_revision, kv.mod_revision)


def _change(event: Any) -> Change:
    """Raises Compacted: what was there before is not kept any more."""
    kv = event.kv
    deleted = event.type == 1
    previous = _key_value(event.prev_kv) if event.prev_kv.mod_revision else None
    if previous is None and (deleted or kv.create_revision != kv.mod_revision):
        raise Compacted(kv.mod_revision)
    current = None if deleted else _key_value(kv)
    return Change(kv.key.decode(), kv.mod_revision, current, previous)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Whoever asked has gone: the failure is nobody's any more."""
    if not task.cancelled():
        task.exception()
