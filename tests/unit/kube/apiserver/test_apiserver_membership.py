"""Which servers the Service kubernetes leads to; what else a server says of its own accord."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from apiserver_harness import API, Object

from wherry.kube.apiserver.flow_schemas import with_condition
from wherry.kube.apiserver.membership import Membership, endpoint_slice, endpoints
from wherry.kube.apiserver.server import SELF, APIServer
from wherry.kube.store.sqlite import SQLiteStore


class Shared:
    """A store that says others write to it, too."""

    shared = True

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


async def listed(api: API) -> list[str]:
    found = await api("GET", "endpoints/kubernetes")
    return [a["ip"] for subset in found["subsets"] for a in subset["addresses"]]


async def test_a_server_that_gives_no_sign_of_life_leaves_the_list(
    server: APIServer, store: SQLiteStore, api: API
) -> None:
    shared: Any = Shared(store)
    transport = server.transport(SELF)

    def member(address: str) -> Membership:
        return Membership(shared, transport, (address, 6443), period=0.05, lifetime=0.4)

    one, two = member("10.0.0.1"), member("10.0.0.2")
    await one.join()
    await two.join()

    async def both() -> bool:
        found = await api(
            "GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
        )
        sliced = [address for e in found["endpoints"] for address in e["addresses"]]
        return await listed(api) == sliced == ["10.0.0.1", "10.0.0.2"]

    await until(both)
    assert two._task is not None
    two._task.cancel()  # killed

    async def left() -> bool:
        return await listed(api) == ["10.0.0.1"]

    await until(left)
    await one.leave()


async def test_a_server_that_stops_leaves_at_once(
    server: APIServer, store: SQLiteStore, api: API
) -> None:
    shared: Any = Shared(store)
    transport = server.transport(SELF)
    one = Membership(shared, transport, ("10.0.0.1", 6443))
    two = Membership(shared, transport, ("10.0.0.2", 6443))
    await one.join()
    await two.join()
    await one.leave()
    assert await listed(api) == ["10.0.0.2"]
    await two.leave()
    assert await listed(api) == ["10.0.0.2"]  # the last one is left: better than nobody


def test_ports_are_kept_apart() -> None:
    members = [("10.0.0.2", 1), ("10.0.0.1", 1), ("10.0.0.1", 2)]
    subsets = endpoints(members)["subsets"]
    assert [(len(s["addresses"]), s["ports"][0]["port"]) for s in subsets] == [(2, 1), (1, 2)]
    assert len(endpoint_slice(members)["endpoints"]) == 2


def test_a_flow_schema_says_whether_its_level_exists() -> None:
    schema: Object = {"spec": {"priorityLevelConfiguration": {"name": "x"}}}
    dangling = with_condition(schema, exists=False, moment="t1")
    assert dangling is not None
    (condition,) = dangling["status"]["conditions"]
    assert (condition["status"], condition["reason"], condition["message"]) == (
        *("True", "NotFound"),
        'This FlowSchema references the PriorityLevelConfiguration object named "x" but there is '
        "no such object",
    )
    assert with_condition(dangling, exists=False, moment="t2") is None
    found = with_condition(dangling, exists=True, moment="t2")
    assert found is not None
    (condition,) = found["status"]["conditions"]
    assert (condition["status"], condition["reason"], condition["lastTransitionTime"]) == (
        *("False", "Found"),
        "t2",
    )


async def test_flow_schemas_are_followed(server: APIServer, api: API) -> None:
    path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all"

    async def said() -> bool:
        return bool((await api("GET", path)).get("status", {}).get("conditions"))

    await until(said)


async def test_components_are_told_of(server: APIServer, api: API) -> None:
    found = await api("GET", "/api/v1/componentstatuses")
    told = {o["metadata"]["name"]: o["conditions"][0] for o in found["items"]}
    assert told["etcd-0"] == {"type": "Healthy", "status": "True", "message": "ok"}
    assert told["scheduler"]["status"] == "False"
    with server.components.running("scheduler"):
        one = await api("GET", "/api/v1/componentstatuses/scheduler")
    assert one["conditions"][0]["status"] == "True"
