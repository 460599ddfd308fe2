"""Where Ingresses say that they are reached, and when they say so no longer."""

from __future__ import annotations

from typing import Any

import pytest
from fake_api import FakeAPI

from wherry.kube.api.resources import INGRESSES
from wherry.kube.client.client import Client
from wherry.kube.ingress import statuses

HERE, THERE = {"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}


async def made(client: Client) -> dict[str, Any]:
    metadata = {"name": "a", "namespace": "shop"}
    return await client.create(INGRESSES, {"metadata": metadata, "spec": {}})


async def test_an_address_is_told_once_as_long_as_it_is_the_same():
    api = FakeAPI()
    client = Client(api)
    await made(client)
    for wanted in ([HERE], [THERE, HERE], []):
        held = api.get(INGRESSES, "a", "shop")
        assert held is not None
        await statuses.report(client, held, wanted)
        held = api.get(INGRESSES, "a", "shop")
        assert held is not None and statuses.told(held) == wanted
        asked = len(api.requests)
        await statuses.report(client, held, wanted)
        assert len(api.requests) == asked


async def test_what_is_taken_back_is_gone_and_who_is_gone_harms_nobody():
    api = FakeAPI()
    client = Client(api)
    held = await made(client)
    await statuses.report(client, held, [HERE])
    held = api.get(INGRESSES, "a", "shop")
    assert held is not None
    gone = {**held, "metadata": {"name": "b", "namespace": "shop"}}
    await statuses.take_back(client, [gone, held])
    held = api.get(INGRESSES, "a", "shop")
    assert held is not None and statuses.told(held) == []


async def test_what_others_write_meanwhile_keeps_nothing_from_being_taken_back():
    api = FakeAPI()
    client = Client(api)
    known = await made(client)  # and says nothing yet
    await statuses.report(client, known, [HERE])
    times = 0

    def another(method: str, path: str, _: Any) -> None:
        nonlocal times
        if method == "PUT" and times < 3:
            times += 1
            held = api.get(INGRESSES, "a", "shop")
            assert held is not None
            status = {"loadBalancer": {"ingress": [{"ip": f"192.0.2.{10 + times}"}]}}
            api._update(INGRESSES, held, {**held, "status": status}, "status")

    api.before = another
    await statuses.take_back(client, [known])
    held = api.get(INGRESSES, "a", "shop")
    assert held is not None and statuses.told(held) == [] and times == 3


async def test_what_others_say_by_now_is_theirs():
    api = FakeAPI()
    client = Client(api)
    await statuses.report(client, await made(client), [HERE])
    known = api.get(INGRESSES, "a", "shop")
    assert known is not None
    await statuses.report(client, known, [THERE])
    await statuses.take_back(client, [known], only=[HERE])
    held = api.get(INGRESSES, "a", "shop")
    assert held is not None and statuses.told(held) == [THERE]
    await statuses.take_back(client, [held], only=[THERE])
    held = api.get(INGRESSES, "a", "shop")
    assert held is not None and statuses.told(held) == []


def pod(uid: str, *, ends: bool = False) -> dict[str, Any]:
    return {"metadata": {"uid": uid, **({"deletionTimestamp": "now"} if ends else {})}}


def owner(kind: str, wanted: int, *, ends: bool = False) -> dict[str, Any]:
    part, number = {
        "ReplicaSet": ("spec", "replicas"),
        "DaemonSet": ("status", "desiredNumberScheduled"),
    }[kind]
    return {"kind": kind, **pod("owner", ends=ends), part: {number: wanted}}


@pytest.mark.parametrize(
    ("others", "owner", "namespace", "followed"),
    [
        ([], None, pod("ns"), False),
        ([pod("2")], None, pod("ns"), True),
        ([pod("2", ends=True)], None, pod("ns"), False),
        ([], owner("ReplicaSet", 1), pod("ns"), True),
        ([], owner("ReplicaSet", 0), pod("ns"), False),
        ([pod("2")], owner("ReplicaSet", 0), pod("ns"), True),
        ([], owner("ReplicaSet", 1, ends=True), pod("ns"), False),
        ([], owner("DaemonSet", 1), pod("ns"), True),
        ([], owner("DaemonSet", 0), pod("ns"), False),
        ([pod("2")], owner("DaemonSet", 1), pod("ns", ends=True), False),
        ([pod("2")], owner("DaemonSet", 1), None, False),
    ],
)
def test_a_restart_is_no_farewell(
    others: list[dict[str, Any]],
    owner: dict[str, Any] | None,
    namespace: dict[str, Any] | None,
    followed: bool,
):
    own = pod("1", ends=True)
    assert statuses.serves_on(own, [own, *others], owner, namespace) is followed
