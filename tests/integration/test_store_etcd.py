"""The store on a real etcd of three members, of which one and two are lost; and with TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from apiserver_process import Authority

from etcd_process import BINARY, Etcd
from wherry.kube.store.backup import decode, encode
from wherry.kube.store.etcd import EtcdStore
from wherry.kube.store.opening import open_store
from wherry.kube.store.types import Compacted, KeyExists, Store, StoreUnavailable

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason="no etcd: make clients")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    cluster = Etcd(tmp_path, members=3)
    yield cluster
    cluster.stop()


@pytest.fixture
async def store(etcd: Etcd, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(etcd.word, tmp_path)
    yield opened
    await opened.close()


class Watcher:
    """Everything a watch was told."""

    def __init__(self, store: Store, after: int) -> None:
        self.told: list[int] = []
        self._task = asyncio.ensure_future(self._follow(store, after))

    async def _follow(self, store: Store, after: int) -> None:
        async for batch in store.watch("", after):
            self.told += [change.revision for change in batch]

    async def until(self, revision: int) -> None:
        async with asyncio.timeout(60):
            while not self.told or self.told[-1] < revision:
                assert not self._task.done(), self._task
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


async def test_losing_the_leader_fails_no_write_and_no_watch(etcd: Etcd, store: Store) -> None:
    start = store.revision
    watcher = Watcher(store, start)
    stop = asyncio.Event()
    written: Counter[str] = Counter()
    last: dict[str, tuple[int, bytes]] = {}

    async def write(writer: int) -> None:
        key, n = f"/w/{writer}", 0
        revision = await store.create(key, b"0")
        while not stop.is_set():
            n += 1
            revision = await store.update(key, b"%d" % n, revision)
            last[key] = (revision, b"%d" % n)
            written[key] += 1

    async def everybody_writes() -> None:
        """Wait until each of the writers has written twice more."""
        before = Counter(written)
        async with asyncio.timeout(60):
            while any(written[f"/w/{n}"] < before[f"/w/{n}"] + 2 for n in range(32)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for writer in range(32):
            group.create_task(write(writer))
        for _ in range(2):
            await everybody_writes()
            lost = await asyncio.to_thread(etcd.leader)
            etcd.kill(lost)
            await everybody_writes()
            etcd.start(lost)
            await asyncio.to_thread(etcd.answers, lost)
        await everybody_writes()
        stop.set()
    found, revision = await store.range("/w/")
    assert {kv.key: (kv.mod_revision, kv.value) for kv in found} == last
    await watcher.until(revision)
    assert watcher.told == list(range(start + 1, revision + 1))
    await watcher.stop()


async def test_without_a_quorum_writes_and_reads_fail_clearly_and_recover(
    etcd: Etcd, store: Store
) -> None:
    made = await store.create("/a", b"1")
    watcher = Watcher(store, made)
    etcd.kill(0)
    etcd.kill(2)
    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(
            store.update("/a", b"2", made), store.latest(), return_exceptions=True
        )
    for outcome in outcomes:
        assert isinstance(outcome, StoreUnavailable)
        assert str(outcome).startswith("no member of the etcd answers: 127.0.0.1:")
    etcd.start(0)
    etcd.start(2)
    async with asyncio.timeout(60):
        while True:
            try:
                written = await store.create("/b", b"1")
                break
            except StoreUnavailable:
                continue
            except KeyExists:  # what was not answered in time was done
                there = await store.get("/b")
                assert there is not None
                written = there.mod_revision
                break
    await watcher.until(written)
    # Of the update nobody knows whether it was made: made or not, it was told once.
    assert watcher.told in ([written], [made + 1, written])
    await watcher.stop()


async def test_two_stores_on_one_etcd_see_each_others_writes(
    etcd: Etcd, store: Store, tmp_path: Path
) -> None:
    other = await open_store(etcd.word, tmp_path)
    made = await store.create("/a", b"1")
    assert await other.latest() >= made
    found = await other.get("/a")
    assert found is not None and found.mod_revision == made
    await other.close()


async def test_a_missing_etcd_is_told_in_bounded_time(tmp_path: Path) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(StoreUnavailable, match="no member of the etcd answers"):
            await open_store("etcd://127.0.0.1:1,127.0.0.1:2", tmp_path)


async def test_with_tls_both_sides_show_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    cert, key = authority.issue("etcd", "etcd")
    client_cert, client_key = authority.issue("client", "apiserver")
    cluster = Etcd(
        tmp_path,
        tls=(
            "--client-cert-auth",
            f"--trusted-ca-file={authority.certificate}",
            f"--cert-file={cert}",
            f"--key-file={key}",
        ),
    )
    try:
        trusted = f"etcds://{cluster.endpoints[0]}?ca={authority.certificate}"
        store = await open_store(f"{trusted}&cert={client_cert}&key={client_key}", tmp_path)
        made = await store.create("/a", b"1")
        assert await store.latest() == made
        await store.close()
        with pytest.raises(StoreUnavailable):
            await open_store(trusted, tmp_path)
        with pytest.raises(StoreUnavailable, match=r"cannot read .*: No such file"):
            await open_store(f"etcds://{cluster.endpoints[0]}?ca=/nowhere.crt", tmp_path)
    finally:
        cluster.stop()


async def test_a_restore_makes_the_keys_those_of_the_backup(store: Store) -> None:
    assert isinstance(store, EtcdStore)
    await asyncio.gather(*(store.create(f"/registry/{n:03}", b"x" * 20_000) for n in range(250)))
    kept, revision = await store.range("/registry/")
    await store.create("/beside", b"not ours")
    await store.delete("/registry/007")
    changed = await store.update("/registry/008", b"changed", kept[8].mod_revision)
    await store.create("/registry/late", b"x")
    await store.restore(decode(encode(kept, revision)).keys)
    found, now = await store.range("/registry/")
    assert [(kv.key, kv.value) for kv in found] == [(kv.key, kv.value) for kv in kept]
    assert await store.get("/beside") is not None
    with pytest.raises(Compacted):
        async for _ in store.watch("", changed):
            pass
    assert now > changed
