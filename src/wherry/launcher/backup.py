"""``wherry backup`` and ``wherry restore``: what the cluster's store holds, into a file and back.

A backup is read at one revision while the instance goes on. A restore needs it stopped: a server
keeps in memory what it knows. The instance's keys (``pki/``) and its containers are not part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from wherry.host.files import write_atomic
from wherry.kube.store import backup as format
from wherry.kube.store import sqlite_file
from wherry.kube.store.address import EtcdAddress, parse
from wherry.kube.store.backup import Backup
from wherry.kube.store.opening import FILE
from wherry.kube.store.types import KeyValue, StoreInUse, StoreUnavailable
from wherry.launcher import supervise
from wherry.launcher.instance import Instance, InstanceError


def backup(instance: Instance, path: Path) -> Backup:
    """Write the store's content to ``path``, readable by its owner alone: it holds secrets.

    Raises:
        InstanceError: the store cannot be read, or the file not be written.
    """
    address = parse(instance.store)
    try:
        if address is None:
            keys, revision = sqlite_file.snapshot(instance.data_dir / FILE)
        else:
            keys, revision = asyncio.run(_read_etcd(address))
        content = format.encode(keys, revision)
        write_atomic(path, content, mode=0o600)
    except (StoreUnavailable, OSError) as error:
        raise InstanceError(f"no backup was made: {error}") from error
    return format.decode(content)


def restore(instance: Instance, path: Path) -> Backup:
    """Put what ``path`` holds in the place of what the store of a stopped instance holds.

    Raises:
        InstanceError: it is no whole backup, the instance runs, or the store cannot be written.
    """
    try:
        found = format.decode(path.read_bytes())
    except (OSError, format.BadBackup) as error:
        raise InstanceError(f"{path}: {error}; nothing was changed") from error
    if any(state.pid is not None for state in supervise.states(instance)):
        raise InstanceError("the instance runs; `wherry down` stops it for a restore")
    address = parse(instance.store)
    try:
        if address is None:
            sqlite_file.restore(instance.data_dir / FILE, found.keys, found.revision)
        else:
            asyncio.run(_write_etcd(address, found))
    except (StoreInUse, StoreUnavailable, OSError) as error:
        raise InstanceError(f"the restore failed: {error}") from error
    return found


async def _read_etcd(address: EtcdAddress) -> tuple[Sequence[KeyValue], int]:
    from wherry.kube.store.etcd import REGISTRY, EtcdStore

    store = await EtcdStore.open(address, keep_seconds=0)
    try:
        return await store.range(REGISTRY)
    finally:
        await store.close()


async def _write_etcd(address: EtcdAddress, found: Backup) -> None:
    from wherry.kube.store.etcd import EtcdStore

    store = await EtcdStore.open(address, keep_seconds=0)
    try:
        await store.restore(found.keys)
    finally:
        await store.close()
