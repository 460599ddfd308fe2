import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from wherry.engine.api import server
from wherry.engine.api.parameters import (
    filter_parameter,
    flag,
    integer,
    json_body,
    json_response,
    meant,
    parse_version,
    uninterrupted,
    version,
)
from wherry.engine.api.routing import Route
from wherry.engine.errors import BadParameter, Conflict, NotModified
from wherry.runtime.types import RuntimeFailure


@pytest.mark.parametrize(
    ("text", "parsed"), [(None, (1, 50)), ("1.24", (1, 24)), ("1.50", (1, 50)), ("1.41", (1, 41))]
)
def test_versions_that_are_spoken(text, parsed):
    assert parse_version(text) == parsed


@pytest.mark.parametrize("text", ["1.23", "1.51", "2.0", "0.9", "1", "1..4", "1.50.0.1"])
def test_versions_that_are_not(text):
    with pytest.raises(BadParameter):
        parse_version(text)


@pytest.mark.parametrize(
    ("agent", "latest"),
    [
        ("docker-compose/1.29.2 docker-py/5.0.3 Linux/6.1", (1, 44)),
        ("Docker-Client/28.2.2 (linux)", (1, 50)),
        ("", (1, 50)),
    ],
)
def test_clients_that_ask_for_more_than_they_know(agent, latest):
    assert meant(agent) == latest


class FakeEngine:
    def __init__(self):
        self.begun, self.left, self.finished = (asyncio.Event() for _ in range(3))

    def in_flight(self, call):
        return asyncio.ensure_future(call)


async def echo(engine, request):
    return json_response(
        {
            "id": request.match_info["id"],
            "version": list(version(request)),
            "flag": flag(request, "flag"),
            "number": integer(request, "number"),
            "filters": bool(filter_parameter(request)),
        }
    )


async def body(engine, request):
    return json_response(await json_body(request))


async def fail(engine, request):
    kind = request.query["kind"]
    raise {
        "conflict": Conflict("taken"),
        "same": NotModified("already"),
        "runtime": RuntimeFailure("crun says no"),
        "bug": ZeroDivisionError("oops"),
    }[kind]


@uninterrupted
async def slow(engine, request):
    engine.begun.set()
    await engine.left.wait()
    engine.finished.set()
    return web.Response()


class Module:
    ROUTES = (
        Route("GET", "/things/{id}/json", echo),
        Route("POST", "/things/create", body),
        Route("GET", "/fail", fail),
        Route("POST", "/slow", slow),
    )


@pytest.fixture
async def client(monkeypatch):
    monkeypatch.setattr(server, "MODULES", (Module,))
    engine = FakeEngine()
    app = server.application(engine)
    async with TestClient(TestServer(app, handler_cancellation=True)) as client:
        client.engine = engine
        yield client


async def test_a_route_is_reached_with_and_without_a_version(client):
    plain = await (await client.get("/things/a/json?flag=1&number=-3")).json()
    assert plain == {"id": "a", "version": [1, 50], "flag": True, "number": -3, "filters": False}
    named = await (await client.get('/v1.30/things/a/json?flag=false&filters={"a":["b"]}')).json()
    assert (named["version"], named["flag"], named["filters"]) == ([1, 30], False, True)


async def test_every_answer_tells_who_speaks(client):
    for path in ("/things/a/json", "/nope", "/v1.1/things/a/json"):
        answer = await client.get(path)
        assert answer.headers["Api-Version"] == "1.50"
        assert answer.headers["Server"].startswith("Wherry/")


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/nope", 404, "page not found"),
        ("/things/a/json?number=x", 400, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("/fail?kind=conflict", 409, "taken"),
        ("/fail?kind=runtime", 500, "crun says no"),
        ("/fail?kind=bug", 500, "ZeroDivisionError: oops"),
    ],
)
async def test_errors_are_documents(client, path, status, message):
    answer = await client.get(path)
    assert (answer.status, await answer.json()) == (status, {"message": message})


async def test_no_change_has_no_body(client):
    answer = await client.get("/fail?kind=same")
    assert (answer.status, await answer.read()) == (304, b"")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff"])
async def test_bodies_that_are_no_documents(client, data):
    answer = await client.post(
        "/things/create", data=data, headers={"Content-Type": "application/json"}
    )
    assert answer.status == 400
    assert (await answer.json())["message"].startswith("invalid JSON: ")


async def test_a_body_of_another_kind(client):
    answer = await client.post(
        "/things/create", data=b"a: b", headers={"Content-Type": "text/yaml"}
    )
    assert answer.status == 400


async def test_what_must_not_stop_half_way_goes_on_without_its_client(client):
    asking = asyncio.create_task(client.post("/slow"))
    async with asyncio.timeout(60):
        await client.engine.begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0.05)  # the server learns that its client has left
        client.engine.left.set()
        await client.engine.finished.wait()


def test_every_route_has_one_handler():
    routes = [(r.method, r.path) for module in server.MODULES for r in module.ROUTES]
    assert len(routes) == len(set(routes))
