"""What the API server asks of its store: etcd's model, in five calls and a watch.

One counter, the revision, numbers every change of the whole store. A key's ``mod_revision`` is that
of its last change; it is the ``resourceVersion`` clients see.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


class KeyExists(Exception):
    """A key to be put is there already; it is the argument."""


class KeyNotFound(Exception):
    """Update or delete found no such key."""


class RevisionMismatch(Exception):
    """The key was changed since; ``current`` is its revision now."""

    def __init__(self, current: int) -> None:
        super().__init__(f"revision is {current}")
        self.current = current


class GuardMoved(Exception):
    """A write's guard was changed since; nothing was written."""


class Compacted(Exception):
    """The revision asked for is no longer kept; ``oldest`` is."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"compacted up to {oldest}")
        self.oldest = oldest


class StoreUnavailable(Exception):
    """The store cannot do it now: a full disk, a lost quorum, closed. Nothing was changed."""


class StoreInUse(Exception):
    """Another process holds the store that only one may write."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key with its value and the revisions of its creation and last change."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Guard:
    """A key that a write changes besides its own, if it is still at ``revision`` (0: not there):
    of several writes with the same guard, made from the same state, one succeeds."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Beside:
    """A key that a write changes besides its own, in the same transaction: put where it is not
    there yet, or removed where it is (``value`` None)."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Change:
    """One change: a put (``previous`` is None: a create) or a delete (``current`` is None)."""

    key: str
    revision: int
    current: KeyValue | None
    previous: KeyValue | None


class Store(Protocol):
    """A change is on the disk when the call returns, and watchers are told in revision order."""

    async def create(
        self, key: str, value: bytes, guard: Guard | None = None, beside: Sequence[Beside] = ()
    ) -> int:
        """Put a new key; returns its revision. Raises KeyExists (of whichever key is there
        already: this one, or one of ``beside``), GuardMoved.

        Of guards takes notice who is shared: in one process writers can take turns. Of what is
        written together all comes to be or nothing, and no watcher is told of ``beside`` later.
        """

    async def update(
        self,
        key: str,
        value: bytes,
        revision: int,
        guard: Guard | None = None,
        beside: Sequence[Beside] = (),
    ) -> int:
        """Replace the value if the key is still at ``revision``; returns the new one.

        Raises KeyNotFound, RevisionMismatch, GuardMoved, and KeyExists of one of ``beside``.
        """

    async def delete(
        self, key: str, revision: int | None = None, beside: Sequence[Beside] = ()
    ) -> int:
        """Remove the key (if still at ``revision``); returns the revision of the removal.

        Raises KeyNotFound, RevisionMismatch, and KeyExists of one of ``beside``.
        """

    async def get(self, key: str) -> KeyValue | None:
        """The key as it is."""

    async def range(self, prefix: str) -> tuple[Sequence[KeyValue], int]:
        """All keys with the prefix in order, and the revision at which that was so."""

    def watch(self, prefix: str, after: int) -> AsyncIterator[Sequence[Change]]:
        """Every change behind revision ``after``, in order, in batches. Raises Compacted."""

    def stale(self, key: str) -> bool:
        """Whether the value should be written again though nothing of it has changed, as one that
        is still encrypted by an older key."""

    async def compact(self, revision: int) -> None:
        """Forget the history before ``revision``."""

    @property
    def shared(self) -> bool:
        """Whether other processes write to it too."""

    @property
    def revision(self) -> int:
        """The revision of the last change (of a shared store: the last one this process saw)."""

    async def latest(self) -> int:
        """A revision that covers every change acknowledged before the call, whoever made it."""

    async def close(self) -> None:
        """Finish what is under way, then let go of the files."""
