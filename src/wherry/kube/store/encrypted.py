"""A store whose values are encrypted on their way in and decrypted on their way out.

Around either store. What lies beneath (also in a backup) is the ciphertext; what is above knows
nothing of it, but for `stale`: whether a value should be written anew though nothing of it changed,
because it still lies there by an older key or in plain text.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from wherry.kube.store.ciphers import MARK, Cipher, Identity, Unreadable
from wherry.kube.store.types import Beside, Change, Guard, KeyValue, Store, StoreUnavailable

Ciphers = Callable[[str], Sequence[Cipher]]
"""The ciphers for a key of the store: the first writes, all read; none where it is plain text."""

_PLAIN: tuple[Cipher, ...] = (Identity(),)


class EncryptedStore:
    """`wherry.kube.store.types.Store` on another one."""

    def __init__(self, store: Store, ciphers: Ciphers) -> None:
        self._store = store
        self._ciphers = ciphers
        self._stale: set[str] = set()

    # --- writing ------------------------------------------------------------------------------

    async def create(
        self, key: str, value: bytes, guard: Guard | None = None, beside: Sequence[Beside] = ()
    ) -> int:
        sealed = self._seal(key, value)
        return await self._store.create(key, sealed, guard, self._all_sealed(beside))

    async def update(
        self,
        key: str,
        value: bytes,
        revision: int,
        guard: Guard | None = None,
        beside: Sequence[Beside] = (),
    ) -> int:
        sealed = self._seal(key, value)
        written = await self._store.update(key, sealed, revision, guard, self._all_sealed(beside))
        self._stale.discard(key)
        return written

    async def delete(
        self, key: str, revision: int | None = None, beside: Sequence[Beside] = ()
    ) -> int:
        removed = await self._store.delete(key, revision, self._all_sealed(beside))
        self._stale.discard(key)
        return removed

    # --- reading ------------------------------------------------------------------------------

    async def get(self, key: str) -> KeyValue | None:
        found = await self._store.get(key)
        return None if found is None else self._open(found)

    async def range(self, prefix: str) -> tuple[Sequence[KeyValue], int]:
        found, revision = await self._store.range(prefix)
        return [self._open(kv) for kv in found], revision

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Sequence[Change]]:
        changes: AsyncGenerator[Sequence[Change], None]
        changes = self._store.watch(prefix, after)  # type: ignore[assignment]
        async with contextlib.aclosing(changes) as batches:
            async for batch in batches:
                yield [self._changed(change) for change in batch]

    def stale(self, key: str) -> bool:
        return key in self._stale

    # --- as it is beneath -----------------------------------------------------------------------

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    @property
    def shared(self) -> bool:
        return self._store.shared

    @property
    def revision(self) -> int:
        return self._store.revision

    async def latest(self) -> int:
        return await self._store.latest()

    async def close(self) -> None:
        await self._store.close()

    # --------------------------------------------------------------------------------------------

    def _seal(self, key: str, value: bytes) -> bytes:
        ciphers = self._ciphers(key)
        return ciphers[0].prefix + ciphers[0].seal(value, key) if ciphers else value

    def _all_sealed(self, beside: Sequence[Beside]) -> Sequence[Beside]:
        return [
            each if each.value is None else Beside(each.key, self._seal(each.key, each.value))
            for each in beside
        ]

    def _changed(self, change: Change) -> Change:
        current = change.current and self._open(change.current)
        previous = change.previous and self._open(change.previous, past=True)
        if current is change.current and previous is change.previous:
            return change
        return Change(change.key, change.revision, current, previous)

    def _open(self, kv: KeyValue, *, past: bool = False) -> KeyValue:
        """Raises StoreUnavailable where no key opens it."""
        ciphers = self._ciphers(kv.key)
        if not ciphers and not kv.value.startswith(MARK):
            return kv
        for number, cipher in enumerate(ciphers or _PLAIN):
            # Plain text has no prefix: it is never what is marked as encrypted.
            if not kv.value.startswith(cipher.prefix) or (
                not cipher.prefix and kv.value.startswith(MARK)
            ):
                continue
            try:
                value = cipher.open(kv.value[len(cipher.prefix) :], kv.key)
            except Unreadable as error:
                raise StoreUnavailable(f"{error}") from None
            if not past:
                (self._stale.add if number else self._stale.discard)(kv.key)
            if not cipher.prefix:
                return kv
            return KeyValue(kv.key, value, kv.create_revision, kv.mod_revision)
        raise StoreUnavailable(
            f"{kv.key} cannot be read: none of the configured encryption providers is the one "
            "that wrote it"
        )
