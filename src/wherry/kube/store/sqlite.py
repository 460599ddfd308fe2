"""The embedded store: one SQLite file, written by one process.

What is promised, and how it is kept:

* **Acknowledged means on the disk.** The file is in WAL mode with ``synchronous=FULL``; a write's
  future is completed only after the commit that holds it has been synced.
* **One sync for many.** Writes that arrive while a commit is under way share the next one. The
  statements of a batch take microseconds and run in the event loop; only the commit, which waits
  for the disk, runs in a thread. (Statements in a thread of their own would fight the loop for the
  interpreter at every step.)
* **One change, one revision.** ``history`` has a row a change, numbered without gaps, with the
  value; ``current`` says which row is a key's newest. Compaction forgets rows that were superseded
  at or before a revision; what remains answers every watch from there on, with previous values.
* **Watchers share memory.** Recent changes are held once, in a ring; a watcher is a position in
  it. One that falls behind the ring reads the table, so a slow watcher costs nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from wherry.kube.store.sqlite_file import (
    FIRST_REVISION,
    RANGE,
    SCHEMA,
    STATE,
    behind,
    connect,
    has_space,
    lock,
)
from wherry.kube.store.types import (
    Beside,
    Change,
    Compacted,
    Guard,
    KeyExists,
    KeyNotFound,
    KeyValue,
    RevisionMismatch,
    StoreUnavailable,
)

_BATCH = 512  # writes a commit at most: keeps the loop's share of a batch to a few milliseconds
_PAGE = 500  # changes a watcher behind the ring reads at once
_COMPACT_STEP = 2000  # revisions forgotten in one transaction, so that writes get between
_RECENT = 1024  # changes in memory, at least
_RECENT_BYTES = 2 << 20  # and at most about so many bytes of values

_FIND = """
SELECT h.key, h.value, h.create_revision, h.revision
FROM current AS c JOIN history AS h ON h.revision = c.revision
WHERE c.key = ?
"""

_CHANGES = """
SELECT h.revision, h.key, h.value, h.create_revision,
       p.revision, p.value, p.create_revision
FROM history AS h LEFT JOIN history AS p ON p.revision = h.previous
WHERE h.revision > ? ORDER BY h.revision LIMIT ?
"""


@dataclass(slots=True)
class _Write:
    """A change somebody waits for; ``expected`` None: whatever the revision is."""

    key: str
    value: bytes | None  # None: delete
    create: bool
    expected: int | None
    beside: Sequence[Beside]
    done: asyncio.Future[int]


class SQLiteStore:
    """`wherry.kube.store.types.Store` in one file.

    Args:
        path: the database file; made, with its directory, where it is not there.
        keep_seconds: history younger than this is kept for watchers and paged lists.
        keep_changes: more changes than this are not kept, however young.

    Raises:
        StoreInUse: another process has the file open.
        StoreUnavailable: the file cannot be opened, or is not ours.
    """

    def __init__(
        self, path: Path, *, keep_seconds: float = 300.0, keep_changes: int = 200_000
    ) -> None:
        self._path = path
        self._keep_seconds = keep_seconds
        self._keep_changes = keep_changes
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = lock(path)
        try:
            self._db = connect(path)
            self._reader = connect(path)
            self._db.executescript(SCHEMA)
            self._db.execute(
                "INSERT OR IGNORE INTO meta VALUES ('compacted', ?)", (FIRST_REVISION,)
            )
            last, compacted = self._db.execute(STATE).fetchone()
            self._revision: int = last
            self._compacted: int = compacted
        except sqlite3.Error as error:
            self._lock.close()
            why = error if has_space(path) else f"there is no space left on its disk ({error})"
            raise StoreUnavailable(f"cannot open the store {path}: {why}") from error
        self._commits = ThreadPoolExecutor(1, "store-commit")
        self._reads = ThreadPoolExecutor(1, "store-read")
        self._pending: list[_Write] = []
        self._writing: asyncio.Task[None] | None = None
        self._compact_to = self._compacted
        self._compactions: list[tuple[int, asyncio.Future[None]]] = []
        self._aging: asyncio.TimerHandle | None = None
        self._recent: list[Change] = []
        self._recent_bytes = 0
        self._watchers: set[asyncio.Event] = set()
        self._closed = False

    @classmethod
    async def open(
        cls, path: Path, *, keep_seconds: float = 300.0, keep_changes: int = 200_000
    ) -> Self:
        """The store at ``path``, opened in a thread: a log left by a kill may have to be read."""
        return await asyncio.to_thread(
            cls, path, keep_seconds=keep_seconds, keep_changes=keep_changes
        )

    shared = False

    @property
    def revision(self) -> int:
        return self._revision

    async def latest(self) -> int:
        return self._revision

    # --- writing ----------------------------------------------------------------------------

    async def create(
        self, key: str, value: bytes, guard: Guard | None = None, beside: Sequence[Beside] = ()
    ) -> int:
        return await self._write(key, value, create=True, expected=None, beside=beside)

    async def update(
        self,
        key: str,
        value: bytes,
        revision: int,
        guard: Guard | None = None,
        beside: Sequence[Beside] = (),
    ) -> int:
        return await self._write(key, value, create=False, expected=revision, beside=beside)

    async def delete(
        self, key: str, revision: int | None = None, beside: Sequence[Beside] = ()
    ) -> int:
        return await self._write(key, None, create=False, expected=revision, beside=beside)

    def stale(self, key: str) -> bool:
        return False

    async def compact(self, revision: int) -> None:
        target = min(revision, self._revision)
        if target <= self._compacted:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._compactions.append((target, done))
        self._forget(target)
        await done

    def _write(
        self,
        key: str,
        value: bytes | None,
        *,
        create: bool,
        expected: int | None,
        beside: Sequence[Beside],
    ) -> asyncio.Future[int]:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self._closed:
            done.set_exception(StoreUnavailable("the store is closed"))
            return done
        self._pending.append(_Write(key, value, create, expected, beside, done))
        self._work()
        return done

    def _work(self) -> None:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._work_off())

    async def _work_off(self) -> None:
        """Commit what is pending, batch after batch, and forget what may be forgotten between."""
        loop = asyncio.get_running_loop()
        try:
            while self._pending or self._compacted < self._compact_to:
                batch = self._pending[:_BATCH]
                del self._pending[:_BATCH]
                if batch:
                    await self._commit(loop, batch)
                if self._compacted < self._compact_to:
                    await self._compact_step(loop)
        finally:
            self._writing = None

    async def _commit(self, loop: asyncio.AbstractEventLoop, batch: Sequence[_Write]) -> None:
        outcomes: list[int | Exception] = []
        changes: list[Change] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for write in batch:
                outcomes.append(self._apply(write, changes))
            await loop.run_in_executor(self._commits, self._db.commit)
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.rollback()
            failure = StoreUnavailable(f"the store {self._path} cannot be written: {error}")
            outcomes = [failure] * len(batch)
            changes = []
        if changes:
            self._publish(loop, changes)
        for write, outcome in zip(batch, outcomes, strict=True):
            if write.done.cancelled():
                continue
            if isinstance(outcome, int):
                write.done.set_result(outcome)
            else:
                write.done.set_exception(outcome)

    def _apply(self, write: _Write, changes: list[Change]) -> int | Exception:
        """Make a change, and those beside it, inside the open transaction; its revision, or why it
        cannot be. The others come first: who has seen this one has seen them."""
        previous = self._find(write.key)
        if write.create:
            if previous is not None:
                return KeyExists(write.key)
        elif previous is None:
            return KeyNotFound(write.key)
        elif write.expected is not None and write.expected != previous.mod_revision:
            return RevisionMismatch(previous.mod_revision)
        if write.beside:
            present = [(each, self._find(each.key)) for each in write.beside]
            for each, found in present:
                if each.value is not None and found is not None:
                    return KeyExists(each.key)
            for each, found in present:
                if each.value is not None or found is not None:
                    self._put(each.key, each.value, found, changes)
        return self._put(write.key, write.value, previous, changes)

    def _find(self, key: str) -> KeyValue | None:
        row = self._db.execute(_FIND, (key,)).fetchone()
        return KeyValue(*row) if row else None

    def _put(
        self, key: str, value: bytes | None, previous: KeyValue | None, changes: list[Change]
    ) -> int:
        revision = self._revision + len(changes) + 1
        created = previous.create_revision if previous else revision
        self._db.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, ?)",
            (
                revision,
                key,
                value,
                created,
                previous.mod_revision if previous else None,
            ),
        )
        if value is None:
            self._db.execute("DELETE FROM current WHERE key = ?", (key,))
            current = None
        else:
            self._db.execute("REPLACE INTO current VALUES (?, ?)", (key, revision))
            current = KeyValue(key, value, created, revision)
        changes.append(Change(key, revision, current, previous))
        return revision

    # --- forgetting -------------------------------------------------------------------------

    def _forget(self, revision: int) -> None:
        self._compact_to = max(self._compact_to, revision)
        self._work()

    async def _compact_step(self, loop: asyncio.AbstractEventLoop) -> None:
        upto = min(self._compacted + _COMPACT_STEP, self._compact_to)
        try:
            await loop.run_in_executor(self._commits, self._compact, self._compacted, upto)
        except sqlite3.Error as error:
            self._compact_to = self._compacted  # the next write or timer asks again
            failure = StoreUnavailable(f"the store {self._path} cannot be compacted: {error}")
            for _, done in self._compactions:
                if not done.done():
                    done.set_exception(failure)
            self._compactions.clear()
            return
        self._compacted = upto
        for target, done in self._compactions:
            if target <= upto and not done.done():
                done.set_result(None)
        self._compactions = [c for c in self._compactions if c[0] > upto]

    def _compact(self, compacted: int, upto: int) -> None:
        """In the commit thread: drop values superseded, and deletes made, within the step."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "DELETE FROM history WHERE revision IN"
                " (SELECT previous FROM history WHERE revision > ? AND revision <= ?)",
                (compacted, upto),
            )
            self._db.execute(
                "DELETE FROM history WHERE value IS NULL AND revision > ? AND revision <= ?",
                (compacted, upto),
            )
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (upto,))

    def _grown(self, loop: asyncio.AbstractEventLoop) -> None:
        """After a commit: keep the history within its age and its length."""
        if self._aging is None:
            self._aging = loop.call_later(self._keep_seconds, self._aged, self._revision)
        if self._revision - self._compacted > self._keep_changes:
            self._compact_to = max(self._compact_to, self._revision - self._keep_changes // 2)

    def _aged(self, revision: int) -> None:
        self._aging = None
        if self._revision > revision:
            loop = asyncio.get_running_loop()
            self._aging = loop.call_later(self._keep_seconds, self._aged, self._revision)
        self._forget(revision)

    # --- reading ----------------------------------------------------------------------------

    async def get(self, key: str) -> KeyValue | None:
        rows, _, _ = await self._read(_FIND, (key,))
        return KeyValue(*rows[0]) if rows else None

    async def range(self, prefix: str) -> tuple[Sequence[KeyValue], int]:
        rows, revision, _ = await self._read(RANGE, (prefix, behind(prefix)))
        return [KeyValue(*row) for row in rows], revision

    async def _read(
        self, query: str, arguments: tuple[str | int, ...]
    ) -> tuple[list[tuple[Any, ...]], int, int]:
        """The rows, and the last and the compacted revision at which they were so."""

        def read() -> tuple[list[tuple[Any, ...]], int, int]:
            with self._reader:
                self._reader.execute("BEGIN")
                rows = self._reader.execute(query, arguments).fetchall()
                last, compacted = self._reader.execute(STATE).fetchone()
            return rows, last, compacted

        if self._closed:
            raise StoreUnavailable("the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reads, read)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the store {self._path} cannot be read: {error}") from error

    # --- watching ---------------------------------------------------------------------------

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Sequence[Change]]:
        news = asyncio.Event()
        self._watchers.add(news)
        try:
            while not self._closed:
                if after < self._compacted:
                    raise Compacted(self._compacted)
                news.clear()
                if after < self._revision:
                    changes = self._from_memory(after)
                    if changes is None:
                        changes = await self._from_table(after)
                    after = max(after, changes[-1].revision) if changes else self._revision
                    matching = [c for c in changes if c.key.startswith(prefix)]
                    if matching:
                        yield matching
                else:
                    await news.wait()
        finally:
            self._watchers.discard(news)

    def _publish(self, loop: asyncio.AbstractEventLoop, changes: Sequence[Change]) -> None:
        self._revision = changes[-1].revision
        self._recent.extend(changes)
        self._recent_bytes += sum(_weight(change) for change in changes)
        if len(self._recent) > 2 * _RECENT or self._recent_bytes > 2 * _RECENT_BYTES:
            self._trim()
        for news in self._watchers:
            news.set()
        self._grown(loop)

    def _trim(self) -> None:
        """Halve the ring. Done seldom, as a list cannot lose its head cheaply."""
        keep = kept = 0
        for change in reversed(self._recent):
            kept += _weight(change)
            if keep >= _RECENT or (kept > _RECENT_BYTES and keep):
                break
            keep += 1
        del self._recent[:-keep]
        self._recent_bytes = sum(_weight(change) for change in self._recent)

    def _from_memory(self, after: int) -> Sequence[Change] | None:
        if not self._recent or self._recent[0].revision > after + 1:
            return None
        return self._recent[after + 1 - self._recent[0].revision :]

    async def _from_table(self, after: int) -> Sequence[Change]:
        rows, _, compacted = await self._read(_CHANGES, (after, _PAGE))
        if after < compacted:  # the page may have holes
            raise Compacted(compacted)
        return [_change(*row) for row in rows]

    # --- the end ----------------------------------------------------------------------------

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._aging is not None:
            self._aging.cancel()
        self._compact_to = self._compacted
        for _, done in self._compactions:
            done.cancel()
        while self._writing is not None:
            await asyncio.wait([self._writing])
        for news in self._watchers:
            news.set()
        await asyncio.get_running_loop().run_in_executor(self._reads, self._release)
        self._commits.shutdown()
        self._reads.shutdown(wait=False)

    def _release(self) -> None:
        self._reader.close()
        self._db.close()
        self._lock.close()


def _weight(change: Change) -> int:
    return len(change.current.value) if change.current else 0


def _change(
    revision: int,
    key: str,
    value: bytes | None,
    created: int,
    previous: int | None,
    previous_value: bytes | None,
    previous_created: int | None,
) -> Change:
    return Change(
        key,
        revision,
        None if value is None else KeyValue(key, value, created, revision),
        KeyValue(key, previous_value, previous_created or 0, previous)
        if previous is not None and previous_value is not None
        else None,
    )
