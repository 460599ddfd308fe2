from __future__ import annotations

from pathlib import Path

import pytest

from wherry.kube.store import backup, sqlite_file
from wherry.kube.store.backup import BadBackup
from wherry.kube.store.sqlite import SQLiteStore
from wherry.kube.store.types import Compacted, KeyValue, StoreInUse

KEYS = [KeyValue("/registry/ä", b"1\n\x00", 3, 7), KeyValue("/registry/b", b"", 4, 4)]


def test_what_goes_in_comes_out() -> None:
    found = backup.decode(backup.encode(KEYS, 9))
    assert (found.keys, found.revision) == (KEYS, 9)


def test_a_flipped_bit_and_a_missing_end_are_told() -> None:
    data = backup.encode(KEYS, 9)
    for damaged in (data[:-1], data[:120], data[:-40] + b"x" + data[-39:]):
        with pytest.raises(BadBackup, match="damaged"):
            backup.decode(damaged)


def test_other_files_and_versions_are_told() -> None:
    for other in (b"", b"{}", b"[]\n", b'{"format": "other"}\n', b"\x00" * 100):
        with pytest.raises(BadBackup, match="no backup"):
            backup.decode(other)
    with pytest.raises(BadBackup, match="version 2; version 1 can be read"):
        backup.decode(backup.encode(KEYS, 9).replace(b'"version": 1', b'"version": 2'))


async def test_a_snapshot_is_taken_beside_a_writer(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    await store.create("/a", b"1")
    made = await store.create("/b", b"2")
    keys, revision = sqlite_file.snapshot(tmp_path / "s.db")
    assert (list(keys), revision) == (list((await store.range(""))[0]), made)
    with pytest.raises(StoreInUse):
        sqlite_file.restore(tmp_path / "s.db", keys, revision)
    await store.close()


async def test_a_restore_replaces_all_and_goes_on_behind_what_clients_have_seen(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.db"
    store = SQLiteStore(path)
    await store.create("/a", b"1")
    keys, revision = sqlite_file.snapshot(path)
    await store.delete("/a")
    seen = await store.create("/later", b"1")
    await store.close()
    sqlite_file.restore(path, keys, revision)
    store = SQLiteStore(path)
    assert (await store.range(""))[0] == keys
    assert store.revision > seen
    with pytest.raises(Compacted):
        async for _ in store.watch("", seen):
            pass
    assert await store.create("/b", b"2") == store.revision
    assert path.stat().st_mode & 0o777 == 0o600
    await store.close()


async def test_a_restore_takes_keys_that_share_a_revision(tmp_path: Path) -> None:
    keys = [KeyValue(f"/{n}", b"%d" % n, 5, 5) for n in range(4)]
    sqlite_file.restore(tmp_path / "s.db", keys, 5)
    store = SQLiteStore(tmp_path / "s.db")
    found, _ = await store.range("")
    assert [(kv.key, kv.value) for kv in found] == [(kv.key, kv.value) for kv in keys]
    assert len({kv.mod_revision for kv in found}) == 4
    await store.close()
