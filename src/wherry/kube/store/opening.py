"""From the word of ``--store`` to a store."""

from __future__ import annotations

from pathlib import Path

from wherry.kube.store.address import parse
from wherry.kube.store.sqlite import SQLiteStore
from wherry.kube.store.types import Store

FILE = "state.db"


async def open_store(word: str, data_dir: Path) -> Store:
    """The store ``word`` names; the embedded one lies in ``data_dir``.

    Raises:
        ValueError: no such store.
        StoreInUse, StoreUnavailable: it cannot be opened.
    """
    address = parse(word)
    if address is None:
        return await SQLiteStore.open(data_dir / FILE)
    from wherry.kube.store.etcd import EtcdStore

    return await EtcdStore.open(address)
