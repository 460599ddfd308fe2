from __future__ import annotations

from pathlib import Path

import pytest

from wherry.kube.store.sqlite import SQLiteStore
from wherry.launcher import backup
from wherry.launcher.instance import Instance, InstanceError


def instance(directory: Path) -> Instance:
    return Instance(directory, 13, "node", "127.0.0.1", 6456, 10263)


async def test_a_backup_is_private_and_comes_back_whole(tmp_path: Path) -> None:
    file = tmp_path / "backup"
    store = await SQLiteStore.open(tmp_path / "state.db")
    await store.create("/registry/secrets/a", b"secret")
    made = backup.backup(instance(tmp_path), file)
    assert [kv.value for kv in made.keys] == [b"secret"]
    assert file.stat().st_mode & 0o777 == 0o600
    await store.delete("/registry/secrets/a")
    await store.close()
    backup.restore(instance(tmp_path), file)
    store = await SQLiteStore.open(tmp_path / "state.db")
    assert await store.get("/registry/secrets/a") is not None
    await store.close()


def test_what_cannot_be_restored_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "backup"
    with pytest.raises(InstanceError, match="No such file"):
        backup.restore(instance(tmp_path), file)
    file.write_bytes(b"something else")
    with pytest.raises(InstanceError, match="no backup of wherry's; nothing was changed"):
        backup.restore(instance(tmp_path), file)
    with pytest.raises(InstanceError, match=r"no backup was made: the store .* cannot be read"):
        backup.backup(instance(tmp_path), file)
    assert file.read_bytes() == b"something else"
    assert not (tmp_path / "state.db").exists()
