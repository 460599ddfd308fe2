"""Watches as clients see them, over the wire: where they begin, what they say and how they end."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from apiserver_process import Server

MAPS = "/api/v1/namespaces/default/configmaps"
SMALL = {"timeoutSeconds": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture
async def session(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    context.load_cert_chain(*map(str, server.admin))
    async with aiohttp.ClientSession(
        f"https://127.0.0.1:{server.port}", connector=aiohttp.TCPConnector(ssl=context)
    ) as opened:
        yield opened
        async with opened.delete(MAPS) as response:
            assert response.status == 200


async def make(session: aiohttp.ClientSession, name: str, **labels: str) -> dict[str, Any]:
    body = {"metadata": {"name": name, "labels": labels}}
    async with session.post(MAPS, json=body) as response:
        made: dict[str, Any] = await response.json()
        assert response.status == 201, made
        return made


async def label(session: aiohttp.ClientSession, name: str, **labels: str | None) -> dict[str, Any]:
    async with session.patch(
        f"{MAPS}/{name}",
        data=json.dumps({"metadata": {"labels": labels}}),
        headers={"Content-Type": "application/merge-patch+json"},
    ) as response:
        assert response.status == 200
        changed: dict[str, Any] = await response.json()
        return changed


async def events(
    session: aiohttp.ClientSession, path: str = MAPS, accept: str = "", **query: str
) -> list[dict[str, Any]]:
    """All that a watch says until it ends by itself."""
    params = {"watch": "1", **SMALL, **query} if "/watch/" not in path else {**SMALL, **query}
    headers = {"Accept": accept} if accept else {}
    async with session.get(path, params=params, headers=headers) as response:
        assert response.status == 200, await response.text()
        return [json.loads(line) async for line in response.content]


def told(seen: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (each["type"], each["object"]["metadata"]["name"])
        for each in seen
        if each["type"] != "BOOKMARK"
    ]


async def test_a_watch_begins_with_what_there_is(session: aiohttp.ClientSession) -> None:
    await make(session, "a")
    assert told(await events(session)) == [("ADDED", "a")]
    assert told(await events(session, resourceVersion="0")) == [("ADDED", "a")]


async def test_from_a_revision_on_all_changes_are_told_once(session: aiohttp.ClientSession) -> None:
    first = await make(session, "a")
    await make(session, "b")
    await label(session, "a", x="y")
    async with session.delete(f"{MAPS}/b"):
        pass
    since = first["metadata"]["resourceVersion"]
    assert told(await events(session, resourceVersion=since)) == [
        ("ADDED", "b"),
        ("MODIFIED", "a"),
        ("DELETED", "b"),
    ]


async def test_a_selector_makes_its_own_events_of_changes(session: aiohttp.ClientSession) -> None:
    since = (await make(session, "a", app="no"))["metadata"]["resourceVersion"]
    await label(session, "a", app="yes")
    await label(session, "a", more="1")
    left = await label(session, "a", app="no")
    seen = await events(session, resourceVersion=since, labelSelector="app=yes")
    assert told(seen) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    gone = seen[-1]["object"]["metadata"]
    assert gone["labels"]["app"] == "yes", "the last state that was selected"
    assert gone["resourceVersion"] == left["metadata"]["resourceVersion"]


async def test_one_object_is_watched_by_its_name_in_all_forms(
    session: aiohttp.ClientSession,
) -> None:
    await make(session, "a")
    await make(session, "b")
    for path, query in (
        (MAPS, {"fieldSelector": "metadata.name=b"}),
        ("/api/v1/configmaps", {"fieldSelector": "metadata.name=b,metadata.namespace=default"}),
        ("/api/v1/watch/namespaces/default/configmaps/b", {}),
    ):
        assert told(await events(session, path, **query)) == [("ADDED", "b")], path
    async with session.get(f"{MAPS}/b", params={"watch": "1"}) as response:
        assert (await response.json())["kind"] == "ConfigMap", "by its name it is read"
    async with session.post("/api/v1/watch/namespaces/default/configmaps", json={}) as response:
        assert response.status == 405
    assert told(await events(session, "/api/v1/watch/namespaces/default/configmaps")) == [
        ("ADDED", "a"),
        ("ADDED", "b"),
    ]


async def test_initial_events_end_with_a_marked_bookmark(session: aiohttp.ClientSession) -> None:
    made = await make(session, "a")
    seen = await events(
        session,
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
        resourceVersion="",
    )
    assert [each["type"] for each in seen[:2]] == ["ADDED", "BOOKMARK"]
    mark = seen[1]["object"]
    assert mark["kind"] == "ConfigMap" and mark["apiVersion"] == "v1"
    assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    # (That of the whole store, where the server itself writes, too.)
    reached = int(mark["metadata"]["resourceVersion"])
    assert reached >= int(made["metadata"]["resourceVersion"])


async def test_a_watch_ends_with_a_bookmark_to_go_on_from(session: aiohttp.ClientSession) -> None:
    await make(session, "a")
    async with session.post("/api/v1/namespaces", json={"metadata": {"name": "other"}}) as response:
        latest = (await response.json())["metadata"]["resourceVersion"]
    seen = await events(session, resourceVersion="1", allowWatchBookmarks="true")
    assert seen[-1]["type"] == "BOOKMARK"
    reached = seen[-1]["object"]["metadata"]["resourceVersion"]
    assert int(reached) >= int(latest)
    assert told(await events(session, resourceVersion=reached)) == []


async def test_a_revision_to_come_is_waited_for_and_then_named(
    session: aiohttp.ClientSession,
) -> None:
    made = await make(session, "a")
    far = str(int(made["metadata"]["resourceVersion"]) + 1000)
    (error,) = await events(
        session, sendInitialEvents="true", resourceVersionMatch="NotOlderThan", resourceVersion=far
    )
    assert error["type"] == "ERROR"
    status = error["object"]
    assert (status["code"], status["reason"]) == (504, "Timeout")
    assert status["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert status["details"]["retryAfterSeconds"] == 1
    assert told(await events(session, resourceVersion=far)) == [], "a watch alone just waits"


@pytest.mark.parametrize(
    ("kind", "group"),
    [("PartialObjectMetadata", "meta.k8s.io"), ("Table", "meta.k8s.io")],
)
async def test_events_come_in_the_form_that_is_asked_for(
    session: aiohttp.ClientSession, kind: str, group: str
) -> None:
    await make(session, "a")
    accept = f"application/json;as={kind};v=v1;g={group}"
    seen = await events(session, accept=accept)
    assert seen[0]["object"]["kind"] == kind
    assert seen[0]["object"]["apiVersion"] == "meta.k8s.io/v1"
    if kind == "Table":
        assert seen[0]["object"]["rows"][0]["object"]["metadata"]["name"] == "a"
    else:
        assert "data" not in seen[0]["object"]


@pytest.mark.parametrize(
    ("accept", "says"),
    [
        ("application/yaml", "only the following media types are accepted"),
        (
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "you requested PartialObjectMetadataList",
        ),
    ],
)
async def test_a_form_that_events_do_not_have_is_refused(
    session: aiohttp.ClientSession, accept: str, says: str
) -> None:
    async with session.get(MAPS, params={"watch": "1"}, headers={"Accept": accept}) as response:
        assert response.status == 406
        assert says in await response.text()


async def test_a_watch_over_a_websocket_says_an_event_a_message(
    session: aiohttp.ClientSession,
) -> None:
    await make(session, "a")
    async with session.ws_connect(f"{MAPS}?watch=1") as socket:
        first = json.loads(await socket.receive_str())
        assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "a")
        await socket.send_str("nobody listens")
        await make(session, "b")
        second = json.loads(await socket.receive_str())
        assert (second["type"], second["object"]["metadata"]["name"]) == ("ADDED", "b")
    async with session.ws_connect(f"{MAPS}?watch=1&timeoutSeconds=1") as socket:
        messages = [json.loads(message.data) async for message in socket]
        assert [each["object"]["metadata"]["name"] for each in messages] == ["a", "b"]
        assert socket.close_code == aiohttp.WSCloseCode.OK


async def test_many_watchers_see_the_same_events_in_the_same_order(
    session: aiohttp.ClientSession,
) -> None:
    since = (await make(session, "a"))["metadata"]["resourceVersion"]

    async def churn() -> None:
        for n in range(20):
            await make(session, f"c{n}")
            await label(session, f"c{n}", n=str(n))

    async def watch() -> list[tuple[str, str]]:
        params = {"watch": "1", "resourceVersion": since}
        async with asyncio.timeout(60), session.get(MAPS, params=params) as response:
            seen = [json.loads(await response.content.readline()) for _ in range(40)]
        return [(e["type"], e["object"]["metadata"]["resourceVersion"]) for e in seen]

    watching = [asyncio.create_task(watch()) for _ in range(5)]
    await churn()
    first, *others = [await task for task in watching]
    assert len(set(first)) == 40 and all(other == first for other in others)
