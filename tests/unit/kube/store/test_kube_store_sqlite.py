from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import wherry.kube.store.sqlite as sqlite
from wherry.kube.store.sqlite import SQLiteStore
from wherry.kube.store.sqlite_file import FIRST_REVISION
from wherry.kube.store.types import Compacted, StoreInUse, StoreUnavailable

SOURCE = Path(sqlite.__file__).parents[3]

WRITER = """
import asyncio, os, pathlib, sys
from wherry.kube.store.sqlite import SQLiteStore

async def main():
    store = SQLiteStore(pathlib.Path(sys.argv[1]))
    async def write(writer):
        revision, n = await store.create(f"/{sys.argv[2]}/{writer}", b"0"), 0
        while True:
            os.write(1, f"{writer} {n} {revision}\\n".encode())
            n += 1
            revision = await store.update(f"/{sys.argv[2]}/{writer}", b"%d" % n, revision)
    await asyncio.gather(*(write(w) for w in range(32)))

asyncio.run(main())
"""


async def test_everything_survives_reopening(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    made = await store.create("/a", b"1")
    await store.create("/b", b"1")
    removed = await store.delete("/b")
    await store.close()
    store = SQLiteStore(tmp_path / "s.db")
    found, revision = await store.range("/")
    assert [(kv.key, kv.value, kv.mod_revision) for kv in found] == [("/a", b"1", made)]
    assert revision == removed == store.revision
    await store.close()


async def test_watches_resume_across_a_restart(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    start = store.revision
    for n in range(1200):  # more than one page
        await store.create(f"/{n}", b"x")
    await store.close()
    store = SQLiteStore(tmp_path / "s.db")
    told = []
    async for batch in store.watch("/", start):
        told += batch
        if len(told) == 1200:
            break
    assert [change.revision for change in told] == list(range(start + 1, start + 1201))
    await store.close()


async def test_a_second_process_is_refused_by_name(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    with pytest.raises(StoreInUse, match=r"in use by process \d+; one data directory"):
        SQLiteStore(tmp_path / "s.db")
    await store.close()
    await SQLiteStore(tmp_path / "s.db").close()


def test_a_file_that_is_no_database_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"something else entirely, and long enough" * 100)
    with pytest.raises(StoreUnavailable, match="cannot open the store"):
        SQLiteStore(tmp_path / "s.db")


async def test_writes_after_close_are_refused(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.create("/a", b"1")
    with pytest.raises(StoreUnavailable):
        await store.get("/a")


async def test_a_full_disk_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    made = await store.create("/a", b"1")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        await store.create("/big", b"x" * 1_000_000)
    assert store.revision == made
    assert (await store.range("/"))[1] == made
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert await store.create("/big", b"x" * 1_000_000) == made + 1
    await store.close()


async def test_old_history_is_forgotten_by_itself(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db", keep_seconds=0.05)
    start = store.revision
    made = await store.create("/a", b"1")
    changed = await store.update("/a", b"2", made)
    async with asyncio.timeout(60):
        while (  # noqa: ASYNC110 - nobody is told of it; idle, a store has no timer
            store._compacted < changed or store._aging is not None
        ):
            await asyncio.sleep(0.01)
    with pytest.raises(Compacted):
        async for _ in store.watch("/", start):
            pass
    await store.close()


async def test_long_history_is_forgotten_by_itself(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db", keep_changes=100)
    revision = await store.create("/a", b"0")
    for n in range(300):
        revision = await store.update("/a", b"%d" % n, revision)
    rows = store._db.execute("SELECT count(*) FROM history").fetchone()[0]
    assert rows <= 101
    await store.close()


async def test_memory_holds_a_bounded_number_of_changes(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.db")
    await asyncio.gather(*(store.create(f"/{n}", b"x" * 100_000) for n in range(400)))
    assert store._recent_bytes <= 2 * sqlite._RECENT_BYTES
    told = []
    async for batch in store.watch("/", FIRST_REVISION):
        told += batch
        if len(told) == 400:
            break
    assert [c.revision for c in told] == list(range(2, 402))
    await store.close()


def test_every_acknowledged_write_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    for attempt in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(attempt)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(SOURCE)},
        )
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(200 + 137 * attempt)]
        child.send_signal(signal.SIGKILL)
        told += child.stdout.readlines()
        child.wait()
        child.stdout.close()
        acknowledged: dict[str, tuple[int, int]] = {}
        for line in told:
            if line.endswith(b"\n"):
                writer, n, revision = map(int, line.split())
                acknowledged[f"/{attempt}/{writer}"] = (n, revision)
        found = {kv.key: kv for kv in asyncio.run(contents(path))}
        assert len(acknowledged) == 32
        for key, (n, revision) in acknowledged.items():
            # The write behind the last acknowledged one may have been committed too, no further.
            assert int(found[key].value) in (n, n + 1)
            assert found[key].mod_revision >= revision


async def contents(path: Path):  # type: ignore[no-untyped-def]
    store = SQLiteStore(path)
    found, revision = await store.range("/")
    assert all(kv.mod_revision <= revision for kv in found)
    await store.close()
    return found
