"""What every store must hold; a store joins by a line in ``STORES``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from etcd_process import BINARY, Etcd
from wherry.kube.store.ciphers import AESGCM
from wherry.kube.store.encrypted import EncryptedStore
from wherry.kube.store.opening import open_store
from wherry.kube.store.types import (
    Beside,
    Change,
    Compacted,
    KeyExists,
    KeyNotFound,
    RevisionMismatch,
    Store,
)

Opening = Callable[[pytest.FixtureRequest, Path], Awaitable[Store]]


async def on_etcd(request: pytest.FixtureRequest, directory: Path) -> Store:
    """All tests share one etcd: what earlier ones left is removed."""
    store = await open_store(request.getfixturevalue("etcd").word, directory)
    for kv in (await store.range(""))[0]:
        await store.delete(kv.key)
    return store


async def encrypted(opening: Awaitable[Store]) -> Store:
    cipher = AESGCM("key1", bytes(32))
    return EncryptedStore(await opening, lambda key: (cipher,))


STORES: dict[str, Opening] = {
    "sqlite": lambda request, directory: open_store("sqlite", directory),
    "etcd": on_etcd,
    "sqlite encrypted": lambda request, directory: encrypted(open_store("sqlite", directory)),
    "etcd encrypted": lambda request, directory: encrypted(on_etcd(request, directory)),
}


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    if not BINARY.exists():
        pytest.skip("no etcd: make clients")
    process = Etcd(tmp_path_factory.mktemp("etcd"))
    yield process
    process.stop()


@pytest.fixture(params=list(STORES))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await STORES[request.param](request, tmp_path)
    yield opened
    await opened.close()


async def changes(store: Store, after: int, count: int, prefix: str = "") -> Sequence[Change]:
    """The next ``count`` changes behind ``after``."""
    got: list[Change] = []
    async with asyncio.timeout(60):
        async with contextlib.aclosing(store.watch(prefix, after)) as stream:  # type: ignore[type-var]
            async for batch in stream:
                got += batch
                if len(got) >= count:
                    return got
    return got


async def test_an_empty_store_is_at_a_revision_above_zero(store: Store) -> None:
    assert store.revision > 0
    assert await store.range("/") == ([], store.revision)


async def test_latest_covers_what_was_written(store: Store) -> None:
    made = await store.create("/a", b"1")
    assert await store.latest() == made


async def test_every_change_takes_the_next_revision(store: Store) -> None:
    start = store.revision
    assert await store.create("/a", b"1") == start + 1
    assert await store.update("/a", b"2", start + 1) == start + 2
    assert await store.delete("/a", start + 2) == start + 3
    assert store.revision == start + 3


async def test_a_key_knows_when_it_was_made_and_last_changed(store: Store) -> None:
    made = await store.create("/a", b"1")
    changed = await store.update("/a", b"2", made)
    found = await store.get("/a")
    assert found is not None
    assert (found.value, found.create_revision, found.mod_revision) == (b"2", made, changed)


async def test_create_refuses_a_taken_key_and_uses_no_revision(store: Store) -> None:
    made = await store.create("/a", b"1")
    with pytest.raises(KeyExists):
        await store.create("/a", b"2")
    assert store.revision == made
    again = await store.get("/a")
    assert again is not None and again.value == b"1"


async def test_update_refuses_a_stale_revision_and_tells_the_current_one(store: Store) -> None:
    made = await store.create("/a", b"1")
    changed = await store.update("/a", b"2", made)
    with pytest.raises(RevisionMismatch) as failure:
        await store.update("/a", b"3", made)
    assert failure.value.current == changed


async def test_update_and_delete_refuse_a_missing_key(store: Store) -> None:
    with pytest.raises(KeyNotFound):
        await store.update("/a", b"1", 1)
    with pytest.raises(KeyNotFound):
        await store.delete("/a")


async def test_delete_is_conditional_only_when_asked(store: Store) -> None:
    made = await store.create("/a", b"1")
    await store.create("/b", b"1")
    with pytest.raises(RevisionMismatch):
        await store.delete("/a", made + 100)
    await store.delete("/a")
    assert await store.get("/a") is None


async def test_a_key_made_again_is_a_new_key(store: Store) -> None:
    await store.create("/a", b"1")
    await store.delete("/a")
    made = await store.create("/a", b"2")
    found = await store.get("/a")
    assert found is not None and found.create_revision == made


async def test_range_is_ordered_and_keeps_to_its_prefix(store: Store) -> None:
    for key in ("/pods/b", "/pods/a", "/podsandmore/x", "/pod", "/pods/ä", "/q"):
        await store.create(key, key.encode())
    found, revision = await store.range("/pods/")
    assert [kv.key for kv in found] == ["/pods/a", "/pods/b", "/pods/ä"]
    assert revision == store.revision


async def test_of_many_writers_at_one_key_exactly_one_wins_each_round(store: Store) -> None:
    revision = await store.create("/a", b"0")

    async def attempt(n: int) -> bool:
        try:
            await store.update("/a", b"%d" % n, revision)
        except RevisionMismatch:
            return False
        return True

    for _ in range(5):
        won = await asyncio.gather(*(attempt(n) for n in range(20)))
        assert sum(won) == 1
        found = await store.get("/a")
        assert found is not None
        revision = found.mod_revision


async def test_a_watch_tells_creates_updates_and_deletes_with_previous_values(
    store: Store,
) -> None:
    start = store.revision
    made = await store.create("/a", b"1")
    changed = await store.update("/a", b"2", made)
    removed = await store.delete("/a")
    first, second, third = await changes(store, start, 3)
    assert (first.revision, second.revision, third.revision) == (made, changed, removed)
    assert first.previous is None and first.current and first.current.value == b"1"
    assert second.previous and second.previous.value == b"1"
    assert second.current and second.current.value == b"2"
    assert third.current is None and third.previous and third.previous.value == b"2"


async def test_a_watch_tells_what_comes_later_in_order_without_gap_or_repeat(
    store: Store,
) -> None:
    start = store.revision
    telling = asyncio.ensure_future(changes(store, start, 300, "/k/"))
    await asyncio.gather(*(store.create(f"/k/{n}", b"x") for n in range(150)))
    await asyncio.gather(*(store.create(f"/other/{n}", b"x") for n in range(50)))
    await asyncio.gather(*(store.delete(f"/k/{n}") for n in range(150)))
    told = await telling
    revisions = [change.revision for change in told]
    assert revisions == sorted(set(revisions))
    assert len(told) == 300
    assert all(change.key.startswith("/k/") for change in told)


async def test_a_write_is_told_to_watchers_that_started_anywhere_before_it(store: Store) -> None:
    start = store.revision
    made = [await store.create(f"/{n}", b"x") for n in range(20)]
    for position in range(20):
        told = await changes(store, start + position, 20 - position)
        assert [change.revision for change in told] == made[position:]


async def test_compaction_keeps_the_present_and_what_came_after(store: Store) -> None:
    await store.create("/keep", b"1")
    made = await store.create("/a", b"1")
    changed = await store.update("/a", b"2", made)
    again = await store.update("/a", b"3", changed)
    await store.compact(changed)
    found, _ = await store.range("/")
    assert [(kv.key, kv.value) for kv in found] == [("/a", b"3"), ("/keep", b"1")]
    (told,) = await changes(store, changed, 1)
    assert told.revision == again and told.previous and told.previous.value == b"2"


async def test_a_watch_from_before_the_compaction_is_refused(store: Store) -> None:
    start = store.revision
    made = await store.create("/a", b"1")
    await store.update("/a", b"2", made)
    await store.compact(made + 1)
    with pytest.raises(Compacted) as failure:
        await changes(store, start, 1)
    assert failure.value.oldest == made + 1


async def test_compacting_what_was_deleted_last_does_not_turn_the_revision_back(
    store: Store,
) -> None:
    await store.create("/a", b"1")
    removed = await store.delete("/a")
    await store.compact(removed)
    assert (await store.range("/"))[1] == removed
    assert await store.create("/a", b"1") == removed + 1


async def test_a_watch_ends_when_the_store_is_closed(store: Store) -> None:
    async def follow() -> None:
        async for _ in store.watch("/", store.revision):
            pass

    following = asyncio.ensure_future(follow())
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(60):
        await following


async def test_what_is_written_together_comes_to_be_together(store: Store) -> None:
    start = store.revision
    await store.create("/service", b"s", None, [Beside("/a", b"1"), Beside("/b", b"2")])
    told = await changes(store, start, 3)
    assert [change.key for change in told][-1] == "/service" or len(
        {change.revision for change in told}
    ) == 1
    assert {kv.key: kv.value for kv in (await store.range("/"))[0]} == {
        "/service": b"s",
        "/a": b"1",
        "/b": b"2",
    }
    found = await store.get("/service")
    assert found is not None
    beside = [Beside("/a", None), Beside("/c", b"3")]
    revision = await store.update("/service", b"t", found.mod_revision, None, beside)
    assert [kv.key for kv in (await store.range("/"))[0]] == ["/b", "/c", "/service"]
    await store.delete("/service", revision, [Beside("/b", None), Beside("/c", None)])
    assert (await store.range("/"))[0] == []


async def test_nothing_is_written_where_one_of_the_keys_is_there(store: Store) -> None:
    await store.create("/a", b"1")
    with pytest.raises(KeyExists, match="/a"):
        await store.create("/service", b"s", None, [Beside("/b", b"2"), Beside("/a", b"2")])
    assert [kv.key for kv in (await store.range("/"))[0]] == ["/a"]
    revision = await store.create("/service", b"s")
    with pytest.raises(KeyExists, match="/service"):
        await store.create("/service", b"s", None, [Beside("/b", b"2")])
    with pytest.raises(KeyExists, match="/a"):
        await store.update("/service", b"t", revision, None, [Beside("/a", b"2")])
    with pytest.raises(RevisionMismatch):
        await store.update("/service", b"t", revision - 1, None, [Beside("/b", b"2")])
    with pytest.raises(RevisionMismatch):
        await store.delete("/service", revision - 1, [Beside("/a", None)])
    assert [kv.value for kv in (await store.range("/"))[0]] == [b"1", b"s"]


async def test_what_is_to_be_removed_beside_may_be_gone(store: Store) -> None:
    revision = await store.create("/service", b"s", None, [Beside("/never", None)])
    await store.delete("/service", revision, [Beside("/never", None)])
    assert (await store.range("/"))[0] == []
