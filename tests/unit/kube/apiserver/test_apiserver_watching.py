from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop
from apiserver_harness import API, Object, config, config_map, full, pod, settled

from wherry.kube.api.errors import StatusError
from wherry.kube.api.resources import CONFIG_MAPS
from wherry.kube.apiserver import resource_cache
from wherry.kube.apiserver.registry import watching
from wherry.kube.apiserver.server import SELF, APIServer
from wherry.kube.store.sqlite import SQLiteStore

Told = tuple[str, Object]


class Watcher:
    """A watch, and what it told so far."""

    def __init__(self, api: API, path: str, query: dict[str, str]) -> None:
        self._stream = api.transport.watch(full(path), tuple(query.items()))

    async def next(self) -> Told:
        async with asyncio.timeout(60):
            return await anext(aiter(self._stream))

    async def take(self, count: int) -> list[tuple[str, str]]:
        """So many events, as (type, name)."""
        told = [await self.next() for _ in range(count)]
        return [(type, o["metadata"].get("name", "")) for type, o in told]

    async def quiet(self) -> bool:
        try:
            async with asyncio.timeout(0.02):
                await anext(aiter(self._stream))
        except TimeoutError:
            return True
        return False


@contextlib.asynccontextmanager
async def watch(api: API, path: str, **query: str) -> AsyncIterator[Watcher]:
    watcher = Watcher(api, path, query)
    try:
        yield watcher
    finally:
        await watcher._stream.aclose()  # type: ignore[attr-defined]


async def test_without_a_revision_the_present_comes_first(api: API) -> None:
    await api("POST", "configmaps", config_map("a"))
    await api("POST", "configmaps", config_map("b"))
    async with watch(api, "configmaps") as watcher:
        assert await watcher.take(2) == [("ADDED", "a"), ("ADDED", "b")]
        await api("POST", "configmaps", config_map("c"))
        await api.merge("configmaps/a", {"data": {"x": "1"}})
        await api("DELETE", "configmaps/b")
        assert await watcher.take(3) == [("ADDED", "c"), ("MODIFIED", "a"), ("DELETED", "b")]


async def test_from_a_revision_what_came_behind_it_is_told(api: API) -> None:
    made = await api("POST", "configmaps", config_map("a"))
    await api("POST", "configmaps", config_map("b"))
    await api("DELETE", "configmaps/b")
    revision = made["metadata"]["resourceVersion"]
    async with watch(api, "configmaps", resourceVersion=revision) as watcher:
        assert await watcher.take(2) == [("ADDED", "b"), ("DELETED", "b")]


async def test_what_was_deleted_is_shown_at_the_revision_of_its_end(api: API) -> None:
    made = await api("POST", "configmaps", config_map("a", x="1"))
    async with watch(api, "configmaps") as watcher:
        await watcher.next()
        await api("DELETE", "configmaps/a")
        type, last = await watcher.next()
    assert type == "DELETED" and last["data"] == {"x": "1"}
    assert int(last["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    assert last["metadata"]["uid"] == made["metadata"]["uid"]


async def test_other_namespaces_and_kinds_are_not_told_of(api: API) -> None:
    async with watch(api, "configmaps") as watcher:
        await api("POST", "/api/v1/namespaces/kube-system/configmaps", config_map("there"))
        await api("POST", "pods", pod())
        await api("POST", "configmaps", config_map("here"))
        assert await watcher.take(1) == [("ADDED", "here")]


async def test_entering_and_leaving_a_selection_are_additions_and_deletions(api: API) -> None:
    made = await api("POST", "pods", pod())
    start = {"resourceVersion": made["metadata"]["resourceVersion"], "labelSelector": "x=y"}
    async with watch(api, "pods", **start) as watcher:
        await api.merge("pods/web", {"metadata": {"labels": {"x": "y"}}})
        await api.merge("pods/web", {"metadata": {"labels": {"z": "z"}}})
        changed = await api.merge("pods/web", {"metadata": {"labels": {"x": "n"}}})
        told = [await watcher.next() for _ in range(3)]
        assert [type for type, _ in told] == ["ADDED", "MODIFIED", "DELETED"]
        last = told[2][1]["metadata"]
        assert last["labels"]["x"] == "y"  # as the watcher knew it
        assert last["resourceVersion"] == changed["metadata"]["resourceVersion"]
        await api.merge("pods/web", {"metadata": {"labels": {"q": "q"}}})
        assert await watcher.quiet()


async def test_a_kubelet_sees_its_pods_come(api: API) -> None:
    await api("POST", "pods", pod())
    async with watch(api, "pods", fieldSelector="spec.nodeName=n") as watcher:
        await api("POST", "pods/web/binding", {"target": {"name": "n"}})
        assert await watcher.take(1) == [("ADDED", "web")]


async def test_initial_events_end_with_their_bookmark(api: API, server: APIServer) -> None:
    await settled(server)
    made = await api("POST", "configmaps", config_map("a"))
    query = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    async with watch(api, "configmaps", **query) as watcher:
        assert await watcher.take(1) == [("ADDED", "a")]
        type, mark = await watcher.next()
        assert type == "BOOKMARK" and mark["kind"] == "ConfigMap"
        assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert mark["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_bookmarks_tell_how_far_a_quiet_watch_is(
    api: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_BOOKMARK_EVERY", 0.02)
    async with watch(api, "configmaps", allowWatchBookmarks="true") as watcher:
        reading = asyncio.ensure_future(watcher.next())
        await asyncio.sleep(0)
        elsewhere = await api("POST", "pods", pod())
        type, mark = await reading
        while int(mark["metadata"]["resourceVersion"]) < int(
            elsewhere["metadata"]["resourceVersion"]
        ):
            type, mark = await watcher.next()
        assert type == "BOOKMARK"


async def test_a_watch_ends_when_it_should(api: API) -> None:
    async with asyncio.timeout(60):
        told = [
            type
            async for type, _ in api.transport.watch(
                full("configmaps"), (("timeoutSeconds", "1"), ("resourceVersion", "1"))
            )
        ]
    assert told == []


async def test_a_forgotten_past_is_expired(
    api: API, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource_cache, "_EVENTS", 2)
    await api("POST", "configmaps", config_map())
    for n in range(10):
        await api.merge("configmaps/c", {"data": {"n": str(n)}})
    await store.compact(store.revision)
    with pytest.raises(StatusError, match=r"^too old resource version: 2 \(\d+\)$") as failure:
        async with watch(api, "configmaps", resourceVersion="2") as watcher:
            await watcher.next()
    assert (failure.value.code, failure.value.reason) == (410, "Expired")


async def test_what_memory_forgot_the_history_still_knows(
    api: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource_cache, "_EVENTS", 2)
    made = await api("POST", "configmaps", config_map())
    for n in range(30):
        await api.merge("configmaps/c", {"data": {"n": str(n)}})
    revision = made["metadata"]["resourceVersion"]
    async with watch(api, "configmaps", resourceVersion=revision) as watcher:
        told = [(await watcher.next())[1]["data"]["n"] for _ in range(30)]
    assert told == [str(n) for n in range(30)]


async def test_a_slow_watcher_misses_nothing(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource_cache, "_EVENTS", 2)
    await api("POST", "configmaps", config_map(n="-1"))
    async with watch(api, "configmaps") as watcher:
        assert (await watcher.next())[0] == "ADDED"
        for n in range(100):
            await api.merge("configmaps/c", {"data": {"n": str(n)}})
        told = [(await watcher.next())[1]["data"]["n"] for _ in range(100)]
    assert told == [str(n) for n in range(100)]


async def test_watches_resume_across_a_restart_without_gap_or_repeat(
    store: SQLiteStore, tmp_path: Any
) -> None:
    server = APIServer(config(tmp_path), store)
    await server.open()
    api = API(server.transport(SELF))
    made = await api("POST", "configmaps", config_map("a"))
    await api("POST", "configmaps", config_map("b"))
    await server.close()
    server = APIServer(config(tmp_path), store)
    await server.open()
    api = API(server.transport(SELF))
    revision = made["metadata"]["resourceVersion"]
    async with watch(api, "configmaps", resourceVersion=revision) as watcher:
        assert await watcher.take(1) == [("ADDED", "b")]
        await api("POST", "configmaps", config_map("c"))
        assert await watcher.take(1) == [("ADDED", "c")]
    await server.close()


async def test_all_watchers_are_told_the_same_object(api: API) -> None:
    async with watch(api, "configmaps") as one, watch(api, "configmaps") as two:
        await api("POST", "configmaps", config_map())
        assert (await one.next())[1] is (await two.next())[1]


async def test_a_watch_that_is_left_leaves_nothing(api: API, server: APIServer) -> None:
    from wherry.kube.api.resources import CONFIG_MAPS

    async with watch(api, "configmaps") as watcher:
        await api("POST", "configmaps", config_map())
        await watcher.next()
        await api.merge("configmaps/c", {"data": {"a": "1"}})
        await watcher.next()
        assert len(server._cache.of(CONFIG_MAPS)._watchers) == 1
    assert not server._cache.of(CONFIG_MAPS)._watchers


async def test_one_name_is_watched_alone(api: API) -> None:
    for name in ("a", "b"):
        await api("POST", "configmaps", config_map(name))
    watcher = Watcher(api, "/api/v1/watch/namespaces/default/configmaps/b", {})
    assert await watcher.take(1) == [("ADDED", "b")]
    await api.merge("configmaps/a", {"data": {"k": "v"}})
    await api.merge("configmaps/b", {"data": {"k": "v"}})
    assert await watcher.take(1) == [("MODIFIED", "b")]


async def test_the_failure_of_one_listener_is_not_that_of_all(api: API, server: APIServer) -> None:
    def fail(event: object) -> None:
        raise KeyError("nobody expected this")

    server._cache.of(CONFIG_MAPS).listen(fail)
    await api("POST", "configmaps", config_map("a"))
    assert (await api("GET", "configmaps/a"))["metadata"]["name"] == "a"


async def test_who_refuses_what_is_handed_reads_it_and_nobody_is_told_twice(
    api: API, server: APIServer
) -> None:
    """More watchers than have a turn at once, some of them slow, or broken, now and then."""
    cache = server._cache.of(CONFIG_MAPS)
    luck = random.Random(5)
    made = await api("POST", "configmaps", config_map())
    start = int(made["metadata"]["resourceVersion"])
    told: list[list[int]] = [[] for _ in range(2 * resource_cache._HANDED + 10)]
    handed = 0

    async def follow(mine: list[int]) -> None:
        def take(events: Sequence[resource_cache.Event]) -> bool:
            nonlocal handed
            if luck.random() < 0.2:
                raise ValueError
            if luck.random() < 0.3:
                return False
            mine.extend(event.revision for event in events)
            handed += 1
            return True

        async with contextlib.aclosing(cache.events(start, 60, take=take)) as stream:
            async for events, _ in stream:
                mine.extend(event.revision for event in events)
                if luck.random() < 0.3:
                    await asyncio.sleep(0)

    tasks = [asyncio.create_task(follow(mine)) for mine in told]
    wanted = []
    for n in range(40):
        changed = await api.merge("configmaps/c", {"data": {"n": str(n)}})
        wanted.append(int(changed["metadata"]["resourceVersion"]))
    for _ in range(10):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(mine == wanted for mine in told)
    assert handed > 1000
    assert not cache._watchers


def test_quiet_watches_are_told_so_and_end_where_timers_ring_a_moment_too_early(
    tmp_path: Path,
) -> None:
    """As those of the daemons' loop do, whose clock has whole milliseconds."""

    async def ends(cache: resource_cache.ResourceCache) -> None:
        assert [batch async for batch in cache.events(0, random.uniform(0.02, 0.2))] == []

    async def reports(cache: resource_cache.ResourceCache) -> None:
        stream = cache.events(0, 60, report_every=random.uniform(0.01, 0.05))
        async with contextlib.aclosing(stream):
            for _ in range(3):
                assert await anext(stream) == ([], 0)

    async def many() -> None:
        store = await SQLiteStore.open(tmp_path / "state.db")
        try:
            cache = resource_cache.ResourceCache(CONFIG_MAPS, store)
            async with asyncio.timeout(60):
                await asyncio.gather(*(ends(cache) for _ in range(100)))
                await asyncio.gather(*(reports(cache) for _ in range(100)))
        finally:
            await store.close()

    uvloop.run(many())
