"""Two API servers at once on one etcd: each sees at once what the other acknowledged."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from apiserver_process import Server

from etcd_process import BINARY, Etcd

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason="no etcd: make clients")

MAPS = "/api/v1/namespaces/default/configmaps"
SERVICES = "/api/v1/namespaces/default/services"


class API:
    """The administrator's connection to one server."""

    def __init__(self, server: Server) -> None:
        context = ssl.create_default_context(cafile=str(server.authority.certificate))
        context.load_cert_chain(*server.admin)
        self._base = f"https://127.0.0.1:{server.port}"
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))

    async def __call__(
        self, method: str, path: str, body: Any = None, *, code: int | None = None
    ) -> Any:
        async with self._session.request(method, self._base + path, json=body) as answer:
            found = await answer.json()
            if code is not None:
                assert answer.status == code, found
            return found

    async def close(self) -> None:
        await self._session.close()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    cluster = Etcd(tmp_path_factory.mktemp("etcd"), members=3)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def servers(etcd: Etcd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    started = [Server(tmp_path_factory.mktemp(f"server{n}"), etcd.word).start() for n in range(2)]
    yield started
    for server in started:
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log


@pytest.fixture
async def apis(servers: list[Server]) -> AsyncIterator[list[API]]:
    made = [API(server) for server in servers]
    yield made
    for api in made:
        await api.close()


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


async def test_what_one_acknowledged_the_other_shows_at_once(apis: list[API]) -> None:
    one, other = apis
    for n in range(50):
        made = await one("POST", MAPS, config_map(f"seen-{n}"), code=201)
        found = await other("GET", f"{MAPS}/seen-{n}", code=200)
        assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        await other("DELETE", f"{MAPS}/seen-{n}", code=200)
        listed = await one("GET", MAPS, code=200)
        assert f"seen-{n}" not in [o["metadata"]["name"] for o in listed["items"]]


async def test_a_namespace_made_at_one_takes_objects_at_the_other(apis: list[API]) -> None:
    one, other = apis
    for n in range(20):
        name = f"fresh-{n}"
        await one("POST", "/api/v1/namespaces", {"metadata": {"name": name}}, code=201)
        await other("POST", f"/api/v1/namespaces/{name}/configmaps", config_map("a"), code=201)


async def test_no_update_is_lost_between_two_servers(apis: list[API]) -> None:
    await apis[0]("POST", MAPS, config_map("count", n="0"), code=201)

    async def add(api: API) -> None:
        added = 0
        while added < 25:
            found = await api("GET", f"{MAPS}/count", code=200)
            found["data"]["n"] = str(int(found["data"]["n"]) + 1)
            answer = await api("PUT", f"{MAPS}/count", found)
            if answer["kind"] == "ConfigMap":
                added += 1
            else:
                assert answer["reason"] == "Conflict", answer

    await asyncio.gather(*(add(api) for api in apis for _ in range(2)))
    found = await apis[1]("GET", f"{MAPS}/count", code=200)
    assert found["data"]["n"] == "100"


async def test_services_made_at_both_share_no_address_and_no_port(apis: list[API]) -> None:
    async def make(api: API, name: str) -> Any:
        spec = {"type": "NodePort", "ports": [{"port": 80}]}
        return await api("POST", SERVICES, {"metadata": {"name": name}, "spec": spec}, code=201)

    async def claim(api: API, name: str) -> Any:
        spec = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30000 + int(name[-2:])}]}
        return await api("POST", SERVICES, {"metadata": {"name": name}, "spec": spec})

    made = await asyncio.gather(
        *(make(api, f"s{which}-{n}") for which, api in enumerate(apis) for n in range(40))
    )
    addresses = [o["spec"]["clusterIP"] for o in made]
    ports = [o["spec"]["ports"][0]["nodePort"] for o in made]
    assert len(set(addresses)) == len(set(ports)) == 80
    free = [n for n in range(10, 40) if 30000 + n not in ports]
    claimed = await asyncio.gather(
        *(claim(api, f"c{which}-{n}") for which, api in enumerate(apis) for n in free)
    )
    won = [o for o in claimed if o["kind"] == "Service"]
    assert len(won) == len(free)
    lost = [o for o in claimed if o["kind"] != "Service"]
    assert {o["message"].rsplit(": ", 1)[1] for o in lost} == {"provided port is already allocated"}

    async def ask(api: API, which: int) -> Any:
        spec = {"clusterIP": asked, "ports": [{"port": 80}]}
        return await api("POST", SERVICES, {"metadata": {"name": f"asked{which}"}, "spec": spec})

    taken = {*addresses, *(o["spec"]["clusterIP"] for o in won)}
    some = (f"{addresses[0].rpartition('.')[0]}.{n}" for n in range(2, 255))
    asked = next(address for address in some if address not in taken)
    both = await asyncio.gather(*(ask(api, which) for which, api in enumerate(apis)))
    assert sorted(o["kind"] for o in both) == ["Service", "Status"]
    for api in apis:
        services = (await api("GET", "/api/v1/services", code=200))["items"]
        named = (await api("GET", "/apis/networking.k8s.io/v1/ipaddresses", code=200))["items"]
        assert sorted(o["spec"]["clusterIP"] for o in services) == sorted(
            o["metadata"]["name"] for o in named
        )


async def test_a_quota_holds_for_both_servers_together(apis: list[API]) -> None:
    space = "/api/v1/namespaces/bounded"
    await apis[0]("POST", "/api/v1/namespaces", {"metadata": {"name": "bounded"}}, code=201)
    hard = {"count/configmaps": "25"}
    quota = {"metadata": {"name": "q"}, "spec": {"hard": hard}}
    made = await apis[0]("POST", f"{space}/resourcequotas", quota, code=201)
    made["status"] = {"hard": hard, "used": {"count/configmaps": "0"}}
    await apis[0]("PUT", f"{space}/resourcequotas/q/status", made, code=200)
    answers = await asyncio.gather(
        *(
            api("POST", f"{space}/configmaps", config_map(f"m{which}-{n}"))
            for which, api in enumerate(apis)
            for n in range(25)
        )
    )
    refused = [o["message"] for o in answers if o["kind"] == "Status"]
    assert len(refused) == 25
    assert all("exceeded quota: q, requested: count/configmaps=1" in text for text in refused)
    found = await apis[1]("GET", f"{space}/resourcequotas/q", code=200)
    assert found["status"]["used"] == {"count/configmaps": "25"}
    listed = await apis[1]("GET", f"{space}/configmaps", code=200)
    assert len(listed["items"]) == 25
