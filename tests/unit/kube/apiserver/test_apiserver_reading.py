from __future__ import annotations

import asyncio
import base64
import json

import pytest
from apiserver_harness import API, config_map, pod, settled

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver import cache, resource_cache
from wherry.kube.apiserver.server import APIServer
from wherry.kube.store.types import Store


def names(collection) -> list[str]:  # type: ignore[no-untyped-def]
    return [o["metadata"]["name"] for o in collection["items"]]


async def test_a_list_is_ordered_and_says_its_revision(api: API, server: APIServer) -> None:
    await settled(server)
    for name in ("b", "a", "c"):
        made = await api("POST", "configmaps", config_map(name))
    found = await api("GET", "configmaps")
    assert (found["kind"], found["apiVersion"]) == ("ConfigMapList", "v1")
    assert names(found) == ["a", "b", "c"]
    assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_namespace_is_a_border(api: API) -> None:
    await api("POST", "configmaps", config_map("here"))
    await api("POST", "/api/v1/namespaces/kube-system/configmaps", config_map("there"))
    await api("POST", "/api/v1/namespaces/kube-public/configmaps", config_map("here"))
    assert names(await api("GET", "/api/v1/namespaces/kube-system/configmaps")) == ["there"]
    assert names(await api("GET", "/api/v1/configmaps")) == ["here", "here", "there"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"labelSelector": "app=a"}, ["a"]),
        ({"labelSelector": "app in (a,b),!x"}, ["a"]),
        ({"labelSelector": "app!=a"}, ["b"]),
        ({"fieldSelector": "metadata.name=b"}, ["b"]),
        ({"fieldSelector": "spec.nodeName=n"}, ["b"]),
        ({"fieldSelector": "spec.nodeName!=n"}, ["a"]),
        ({"fieldSelector": "status.phase=Pending,metadata.namespace=default"}, ["a", "b"]),
        ({"labelSelector": "app=c"}, []),
    ],
)
async def test_selectors_select(api: API, query: dict[str, str], expected: list[str]) -> None:
    await api("POST", "pods", pod("a"))
    o = pod("b", nodeName="n")
    o["metadata"]["labels"]["x"] = "y"
    await api("POST", "pods", o)
    assert names(await api("GET", "pods", **query)) == expected


async def test_pages_are_of_one_moment(api: API) -> None:
    for n in range(10):
        await api("POST", "configmaps", config_map(f"c{n}", v="old"))
    page = await api("GET", "configmaps", limit="4")
    assert names(page) == ["c0", "c1", "c2", "c3"]
    assert page["metadata"]["remainingItemCount"] == 6
    revision = page["metadata"]["resourceVersion"]
    await api("DELETE", "configmaps/c5")
    await api("POST", "configmaps", config_map("c55"))
    await api.merge("configmaps/c6", {"data": {"v": "new"}})
    rest = []
    while token := page["metadata"].get("continue"):
        page = await api("GET", "configmaps", **{"limit": "4", "continue": token})
        assert page["metadata"]["resourceVersion"] == revision
        rest += page["items"]
    assert names({"items": rest}) == ["c4", "c5", "c6", "c7", "c8", "c9"]
    assert {o["data"]["v"] for o in rest} == {"old"}


async def test_a_page_older_than_the_recent_events_comes_from_the_history(
    api: API, server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource_cache, "_EVENTS", 5)
    for n in range(5):
        await api("POST", "configmaps", config_map(f"c{n}", v="old"))
    page = await api("GET", "configmaps", limit="2")
    await api("DELETE", "configmaps/c3")
    for n in range(20):
        await api.merge("configmaps/c4", {"data": {"v": str(n)}})
        await api("POST", "configmaps", config_map(f"d{n}"))
    token = page["metadata"]["continue"]
    rest = await api("GET", "configmaps", **{"continue": token})
    assert names(rest) == ["c2", "c3", "c4"]
    assert {o["data"]["v"] for o in rest["items"]} == {"old"}
    assert rest["metadata"]["resourceVersion"] == page["metadata"]["resourceVersion"]


async def test_a_page_that_is_too_old_says_how_to_go_on(
    api: API, server: APIServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource_cache, "_EVENTS", 5)
    for n in range(5):
        await api("POST", "configmaps", config_map(f"c{n}"))
    page = await api("GET", "configmaps", limit="2")
    for n in range(20):
        await api.merge("configmaps/c0", {"data": {"n": str(n)}})
    await store.compact(store.revision)
    token = page["metadata"]["continue"]
    with pytest.raises(StatusError, match="too old to display a consistent list") as failure:
        await api("GET", "configmaps", **{"limit": "2", "continue": token})
    assert (failure.value.code, failure.value.reason) == (410, "Expired")
    token = failure.value.metadata["continue"]
    rest = await api("GET", "configmaps", **{"continue": token})
    assert names(rest) == ["c2", "c3", "c4"]
    gone = {"resourceVersion": "3", "resourceVersionMatch": "Exact"}
    with pytest.raises(StatusError, match="list is too old") as failure:
        await api("GET", "configmaps", **gone)
    assert (failure.value.code, failure.value.reason) == (410, "Expired")


def continuing(**token: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(token).encode()).decode()


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"continue": "x"}, "invalid continue token: continue key is not valid: x"),
        (
            {"continue": continuing(v="meta.k8s.io/v2", rv=5, start="a")},
            'server does not recognize this encoded version "meta.k8s.io/v2"',
        ),
        (
            {"continue": continuing(v="meta.k8s.io/v1", rv=0, start="a")},
            "incorrect encoded start resourceVersion",
        ),
        (
            {"continue": continuing(v="meta.k8s.io/v1", rv=5, start="")},
            "encoded start key empty",
        ),
        (
            {"continue": continuing(v="meta.k8s.io/v1", rv=5, start="../pods/a")},
            "continue key is not valid: ../pods/a",
        ),
        (
            {"continue": continuing(v="meta.k8s.io/v1", rv=5, start="a"), "resourceVersion": "5"},
            "specifying resource version is not allowed when using continue",
        ),
    ],
)
async def test_a_token_is_taken_as_it_was_given(api: API, query: dict[str, str], why: str) -> None:
    with pytest.raises(StatusError) as failure:
        await api("GET", "configmaps", **query)
    assert failure.value.code == 400 and why in failure.value.message


async def test_limits_count_what_is_selected(api: API) -> None:
    for n in range(6):
        o = config_map(f"c{n}")
        o["metadata"]["labels"] = {"even": str(n % 2 == 0).lower()}
        await api("POST", "configmaps", o)
    page = await api("GET", "configmaps", limit="2", labelSelector="even=true")
    assert names(page) == ["c0", "c2"]
    token = page["metadata"]["continue"]
    query = {"limit": "2", "labelSelector": "even=true", "continue": token}
    page = await api("GET", "configmaps", **query)
    assert names(page) == ["c4"] and "continue" not in page["metadata"]


async def test_the_past_can_be_read_exactly(api: API) -> None:
    made = await api("POST", "configmaps", config_map(v="old"))
    revision = made["metadata"]["resourceVersion"]
    await api.merge("configmaps/c", {"data": {"v": "new"}})
    await api("POST", "configmaps", config_map("later"))
    exact = {"resourceVersion": revision, "resourceVersionMatch": "Exact"}
    found = await api("GET", "configmaps", **exact)
    assert [o["data"] for o in found["items"]] == [{"v": "old"}]
    at_least = {"resourceVersion": revision, "resourceVersionMatch": "NotOlderThan"}
    assert names(await api("GET", "configmaps", **at_least)) == ["c", "later"]
    assert names(await api("GET", "configmaps", resourceVersion="0")) == ["c", "later"]


async def test_a_revision_of_the_future_is_waited_for(api: API, server: APIServer) -> None:
    await settled(server)
    made = await api("POST", "configmaps", config_map())
    future = str(int(made["metadata"]["resourceVersion"]) + 1)
    reading = asyncio.ensure_future(api("GET", "configmaps/c", resourceVersion=future))
    await asyncio.sleep(0.01)
    assert not reading.done()
    await api.merge("configmaps/c", {"data": {"a": "1"}})
    assert (await reading)["data"] == {"a": "1"}


async def test_a_revision_that_never_comes_is_too_large(
    api: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_WAIT_FOR_REVISION", 0.01)
    with pytest.raises(
        StatusError, match="Too large resource version: 99999, current: "
    ) as failure:
        await api("GET", "configmaps", resourceVersion="99999")
    assert failure.value.code == 504
