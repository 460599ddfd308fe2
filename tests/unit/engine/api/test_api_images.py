"""Images over HTTP: routes, statuses, streams; without the docker client."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from wherry.engine.api import images, server
from wherry.engine.errors import EngineError
from wherry.engine.image.distribution import service
from wherry.engine.image.distribution.credentials import Credentials
from wherry.engine.image.store import ImageStore


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("hello")
        info.size, info.uid, info.gid = 5, os.geteuid(), os.getegid()
        tar.addfile(info, io.BytesIO(b"hello"))
    return buffer.getvalue()


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    store = ImageStore(tmp_path / "image", notify=lambda *told: None)
    await store.open()
    engine: Any = SimpleNamespace(images=store, in_flight=lambda call: call)
    monkeypatch.setattr(server, "MODULES", (images,))
    app: web.Application = server.application(engine)
    async with TestClient(TestServer(app)) as client:
        yield client


async def create(client: Any, **query: str) -> str:
    answer = await client.post("/images/create", params={"fromSrc": "-", **query}, data=archive())
    assert answer.status == 200, await answer.text()
    return str(json.loads(await answer.text())["status"])


async def error(answer: Any) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/json"
    return answer.status, (await answer.json())["message"]


async def test_an_import_answers_with_the_id(client: Any) -> None:
    identity = await create(client, repo="me/box", tag="1")
    answer = await client.get("/images/me/box:1/json")
    assert (await answer.json())["Id"] == identity
    for name in (identity, identity[7:19], "docker.io/me/box:1"):
        assert (await client.get(f"/v1.30/images/{name}/json")).status == 200


async def test_each_line_of_a_stream_is_one_message(client: Any) -> None:
    await create(client, repo="box")
    saved = await (await client.get("/images/box/get")).read()
    answer = await client.post("/images/load", params={"quiet": "0"}, data=saved)
    lines = (await answer.read()).split(b"\r\n")
    assert lines[-1] == b""
    assert json.loads(lines[-2]) == {"stream": "Loaded image: box:latest\n"}


async def test_a_load_that_fails_says_so_in_the_stream(client: Any) -> None:
    answer = await client.post("/images/load", data=b"rubbish" * 1000)
    assert answer.status == 200
    message = json.loads(await answer.read())
    assert message["error"] == message["errorDetail"]["message"]
    assert "invalid tar header" in message["error"]


async def test_an_import_that_fails_is_an_error_of_its_own(client: Any) -> None:
    answer = await client.post("/images/create?fromSrc=-", data=b"rubbish" * 1000)
    assert answer.status == 400


async def test_what_is_missing_is_404_before_any_stream_begins(client: Any) -> None:
    for path in ("/images/nope/json", "/images/nope/history"):
        assert await error(await client.get(path)) == (404, "No such image: nope:latest")
    assert await error(await client.get("/images/get?names=nope")) == (404, "No such image: nope")
    answer = await client.get("/images/get?names=nope:1")
    assert await error(answer) == (404, "reference does not exist")
    answer = await client.delete("/images/nope")
    assert await error(answer) == (404, "No such image: nope:latest")


async def test_a_tag_is_created_or_refused(client: Any) -> None:
    await create(client, repo="box")
    answer = await client.post("/images/box/tag?repo=reg.example:5000/a/b&tag=c")
    assert (answer.status, await answer.text()) == (201, "")
    assert (await client.get("/images/reg.example:5000/a/b:c/json")).status == 200
    answer = await client.post("/images/box/tag?repo=sha256&tag=x")
    assert await error(answer) == (
        400,
        "refusing to create an ambiguous tag using digest algorithm as name",
    )
    answer = await client.post("/images/box/tag?repo=a%20b")
    assert await error(answer) == (400, "invalid reference format")
    answer = await client.post("/images/box/tag?repo=x&tag=a%20b")
    assert await error(answer) == (400, "invalid tag format")


async def test_the_list_follows_the_version(client: Any) -> None:
    await create(client)
    for version, tags in (("1.24", ["<none>:<none>"]), ("1.50", [])):
        answer = await client.get(f"/v{version}/images/json")
        (entry,) = await answer.json()
        assert entry["RepoTags"] == tags
        assert ("VirtualSize" in entry) == (version == "1.24")
    (entry,) = await (await client.get("/images/json?shared-size=1&manifests=1")).json()
    assert entry["SharedSize"] == 0
    assert entry["Manifests"][0]["Available"] is True
    (entry,) = await (await client.get("/v1.46/images/json?manifests=1")).json()
    assert "Manifests" not in entry


async def test_the_old_filter_parameter_means_a_reference(client: Any) -> None:
    await create(client, repo="box")
    assert len(await (await client.get("/v1.40/images/json?filter=box")).json()) == 1
    assert await (await client.get("/v1.40/images/json?filter=nope")).json() == []


async def test_another_platform_is_not_provided(client: Any) -> None:
    await create(client, repo="box", platform="linux/arm64")
    wanted = json.dumps({"os": "linux", "architecture": "s390x"})
    for path in ("/images/box/json", "/images/box/history", "/images/box/get"):
        status, message = await error(await client.get(path, params={"platform": wanted}))
        assert status == 404
        assert "does not provide the specified platform (linux/s390x)" in message
    assert await error(await client.post("/images/create?fromSrc=-&platform=a/b/c/d")) == (
        400,
        '"a/b/c/d": platform specifier component must match'
        ' "^[A-Za-z0-9_.-]+(?:\\([A-Za-z0-9_.-]*\\))?$": invalid argument',
    )


async def test_removal_lists_what_went(client: Any) -> None:
    identity = await create(client, repo="box")
    records = await (await client.delete("/images/box")).json()
    assert records[:2] == [{"Untagged": "box:latest"}, {"Deleted": identity}]
    assert await (await client.post("/images/prune")).json() == {
        "ImagesDeleted": None,
        "SpaceReclaimed": 0,
    }


async def test_credentials_reach_the_registry_client(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    async def at_first(reference: Any, credentials: Credentials, *_: Any, **__: Any) -> None:
        seen.append((str(reference), credentials))
        raise EngineError("unreachable")

    monkeypatch.setattr(service, "at_first_that_answers", at_first)
    auth = base64.urlsafe_b64encode(b'{"username":"me","password":"secret"}').decode()
    for header in (auth, "garbage", ""):
        answer = await client.post(
            "/images/create?fromImage=me/app&tag=1", headers={"X-Registry-Auth": header}
        )
        assert await error(answer) == (500, "unreachable")
    assert seen[0] == ("docker.io/me/app:1", Credentials("me", "secret"))
    assert seen[1][1] == seen[2][1] == Credentials()


async def test_a_registry_that_refuses_connections_is_named_in_dockers_words(client: Any) -> None:
    answer = await client.post("/images/create?fromImage=127.0.0.1:1/app&tag=1")
    assert await error(answer) == (
        500,
        'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused',
    )
