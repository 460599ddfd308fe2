"""Pulling and pushing, against a registry in this process."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from wherry.engine.errors import EngineError, NotFound, Unauthorized
from wherry.engine.image.distribution import registry as client
from wherry.engine.image.distribution.credentials import Credentials, from_document, read
from wherry.engine.image.distribution.endpoints import Endpoint, Settings, endpoints, is_insecure
from wherry.engine.image.distribution.http import Unreachable, explained
from wherry.engine.image.image import Image
from wherry.engine.image.manifest import Platform
from wherry.engine.image.reference import normalise, parse
from wherry.engine.image.store import ImageStore
from wherry.registry import service as registries

NOBODY = Credentials()
ANN = Credentials("ann", "secret")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Registry:
    """A registry that serves, and what it was asked."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.server = registries.server(registries.Settings(root, **settings))
        self.asked: list[str] = []
        self.disturb: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None

    async def __aenter__(self) -> Registry:
        app = self.server.application()
        app.middlewares.append(self._watch)
        self._test_server = TestServer(app)
        await self._test_server.start_server()
        self.host = f"127.0.0.1:{self._test_server.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._test_server.close()

    @property
    def _watch(self) -> Any:
        @web.middleware
        async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.asked.append(f"{request.method} {request.path}")
            if self.disturb is not None:
                answer = await self.disturb(request)
                if answer is not None:
                    return answer
            return await handler(request)

        return watch

    def times(self, method: str, part: str) -> int:
        return sum(line.startswith(method) and part in line for line in self.asked)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.001)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with Registry(tmp_path / "registry") as registry:
        yield registry


Stores = Callable[..., Awaitable[ImageStore]]


@pytest.fixture
def new_store(tmp_path: Path) -> Stores:
    async def make(name: str = "store", settings: Settings | None = None) -> ImageStore:
        store = ImageStore(tmp_path / name, notify=lambda *told: None, registries=settings)
        await store.open()
        return store

    return make


def layer(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid = len(data), os.geteuid(), os.getegid()
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


async def stream(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def make_image(store: ImageStore, name: str, *layers: bytes) -> Image:
    config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"n": name}}}
    return await store.add_layered(config, tars=[stream(one) for one in layers], reference=name)


async def push(store: ImageStore, name: str, credentials: Credentials = NOBODY) -> list[Any]:
    return [one async for one in store.distribution.push(parse(name), credentials)]


async def pull(
    store: ImageStore, name: str, credentials: Credentials = NOBODY, **more: Any
) -> list[Any]:
    reference = parse(name) if more.get("all_tags") else normalise(name)
    return [one async for one in store.distribution.pull(reference, credentials, **more)]


def statuses(messages: list[Any]) -> list[str]:
    return [str(one["status"]) for one in messages if "status" in one]


async def test_what_was_pushed_is_pulled_as_the_same_image(
    registry: Registry, new_store: Stores
) -> None:
    name = f"{registry.host}/team/app:v1"
    here, there = await new_store("here"), await new_store("there")
    image = await make_image(here, name, layer(a=b"1"), layer(b=b"2" * 3_000_000))
    sent = await push(here, name)
    assert statuses(sent)[0] == f"The push refers to repository [{registry.host}/team/app]"
    assert sent[-1]["aux"]["Tag"] == "v1"
    digest = sent[-1]["aux"]["Digest"]
    got = await pull(there, name)
    pulled = there.resolve(name)
    assert pulled.id == image.id
    assert pulled.manifest == image.manifest == digest
    assert pulled.repo_digests == (f"{registry.host}/team/app@{digest}",)
    assert here.resolve(name).repo_digests == pulled.repo_digests
    assert statuses(got)[0] == "Pulling from team/app"
    assert statuses(got)[-2:] == [
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}",
    ]
    assert (there.layers(pulled)[0] / "b").read_bytes() == b"2" * 3_000_000


async def test_what_is_there_is_neither_sent_nor_fetched_again(
    registry: Registry, new_store: Stores
) -> None:
    name = f"{registry.host}/app:v1"
    store = await new_store()
    await make_image(store, name, layer(a=b"1"))
    await push(store, name)
    registry.asked.clear()
    assert "Layer already exists" in statuses(await push(store, name))
    assert registry.times("POST", "/uploads") == 0
    again = statuses(await pull(store, name))
    assert again[-1] == f"Status: Image is up to date for {name}"
    assert registry.times("GET", "/blobs/") == 0


async def test_a_shared_layer_is_fetched_once_by_pulls_at_once(
    registry: Registry, new_store: Stores
) -> None:
    base, here, there = layer(base=b"x" * 100_000), await new_store("a"), await new_store("b")
    names = [f"{registry.host}/app:{tag}" for tag in ("one", "two", "three")]
    for name in names:
        await make_image(here, name, base, layer(**{name[-3:]: name.encode()}))
        await push(here, name)
    registry.asked.clear()
    await asyncio.gather(*(pull(there, name) for name in names))
    digest = "sha256:" + hashlib.sha256(base).hexdigest()
    assert registry.times("GET", f"/blobs/{digest}") == 1
    assert all(there.resolve(name).id == here.resolve(name).id for name in names)


async def test_blobs_are_mounted_from_a_repository_that_has_them(
    registry: Registry, new_store: Stores
) -> None:
    store = await new_store()
    await make_image(store, f"{registry.host}/one:v1", layer(a=b"1"))
    await push(store, f"{registry.host}/one:v1")
    await store.tag(f"{registry.host}/one:v1", f"{registry.host}/two:v1")
    assert "Mounted from one" in statuses(await push(store, f"{registry.host}/two:v1"))


async def test_a_download_that_breaks_off_goes_on_where_it_was(
    registry: Registry, new_store: Stores
) -> None:
    name = f"{registry.host}/app:v1"
    here, there = await new_store("here"), await new_store("there")
    await make_image(here, name, layer(a=os.urandom(3_000_000)))
    await push(here, name)
    ranges: list[str] = []

    async def break_off(request: web.Request) -> web.StreamResponse | None:
        if request.method != "GET" or "/blobs/" not in request.path:
            return None
        ranges.append(request.headers.get("Range", ""))
        path = registry.server.storage.blob_path(request.path.rsplit("/", 1)[1])
        if len(ranges) > 3 or path.stat().st_size < 1_000_000:
            return None
        start = int(ranges[-1][6:-1] or 0) if ranges[-1] else 0
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = path.stat().st_size - start
        await response.prepare(request)
        await response.write(path.read_bytes()[start : start + 1_100_000])
        assert request.transport is not None
        request.transport.close()
        return response

    registry.disturb = break_off
    messages = statuses(await pull(there, name))
    assert there.resolve(name).id == here.resolve(name).id
    assert any(text.startswith("Retrying in") for text in messages)
    assert any(one.startswith("bytes=") for one in ranges)


async def test_a_difficulty_that_passes_is_waited_for(
    registry: Registry, new_store: Stores
) -> None:
    name = f"{registry.host}/app:v1"
    store = await new_store()
    await make_image(store, name, layer(a=b"1"))
    failures = iter([503, 429, 500])

    async def fail(request: web.Request) -> web.StreamResponse | None:
        status = next(failures, None) if request.method in ("HEAD", "PUT") else None
        return web.Response(status=status) if status else None

    registry.disturb = fail
    await push(store, name)
    assert registry.times("PUT", "/manifests/v1")


async def test_wrong_bytes_are_refused_and_nothing_stays(
    registry: Registry, new_store: Stores
) -> None:
    name = f"{registry.host}/app:v1"
    here, there = await new_store("here"), await new_store("there")
    image = await make_image(here, name, layer(a=b"1" * 5000))
    await push(here, name)
    blob = json.loads(here._library.content.read_blob(image.manifest))["layers"][0]["digest"]
    path = registry.server.storage.blob_path(blob)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(EngineError, match=f"layer verification failed for digest {blob}"):
        await pull(there, name)
    path.write_bytes(b"x" * (path.stat().st_size + 1))
    with pytest.raises(EngineError, match=f"layer verification failed for digest {blob}"):
        await pull(there, name)
    with pytest.raises(NotFound):
        there.resolve(name)
    assert not there.list()


async def test_a_pull_by_digest_checks_it(registry: Registry, new_store: Stores) -> None:
    name = f"{registry.host}/app:v1"
    here, there = await new_store("here"), await new_store("there")
    image = await make_image(here, name, layer(a=b"1"))
    await push(here, name)
    by_digest = f"{registry.host}/app@{image.manifest}"
    await pull(there, by_digest)
    assert there.resolve(by_digest).id == image.id
    assert there.resolve(by_digest).repo_tags == ()
    registry.server.storage.blob_path(image.manifest).write_bytes(b'{"schemaVersion":2}')
    with pytest.raises(EngineError, match="manifest verification failed for digest"):
        await pull(await new_store("third"), by_digest)


async def test_all_tags_are_moved(registry: Registry, new_store: Stores) -> None:
    here, there = await new_store("here"), await new_store("there")
    for tag in ("a", "b"):
        await make_image(here, f"{registry.host}/app:{tag}", layer(**{tag: b"1"}))
    await push(here, f"{registry.host}/app")
    await pull(there, f"{registry.host}/app", all_tags=True)
    for tag in ("a", "b"):
        name = f"{registry.host}/app:{tag}"
        assert there.resolve(name).id == here.resolve(name).id


async def test_an_index_gives_the_image_for_the_platform(
    registry: Registry, new_store: Stores
) -> None:
    here, there = await new_store("here"), await new_store("there")
    entries = []
    for architecture in ("arm64", "amd64"):
        name = f"{registry.host}/app:{architecture}"
        config = {"architecture": architecture, "os": "linux", "config": {}}
        image = await here.add_layered(
            config, tars=[stream(layer(a=architecture.encode()))], reference=name
        )
        await push(here, name)
        data = here._library.content.read_blob(image.manifest)
        entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": len(data)}
        platform = {"os": "linux", "architecture": architecture}
        entries.append({**entry, "digest": image.manifest, "platform": platform})
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        }
    ).encode()
    import aiohttp

    async with aiohttp.ClientSession() as session:
        url = f"http://{registry.host}/v2/app/manifests/all"
        kind = {"Content-Type": "application/vnd.oci.image.index.v1+json"}
        assert (await session.put(url, data=index, headers=kind)).status == 201
    name = f"{registry.host}/app:all"
    await pull(there, name, platform=Platform("linux", "arm64"))
    assert there.resolve(name).platform.architecture == "arm64"
    digest = "sha256:" + hashlib.sha256(index).hexdigest()
    assert there.resolve(name).repo_digests == (f"{registry.host}/app@{digest}",)
    described = await there.distribution.describe(normalise(name), NOBODY)
    assert described["Descriptor"]["digest"] == digest
    assert [one["architecture"] for one in described["Platforms"]] == ["arm64", "amd64"]
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        await pull(there, name, platform=Platform("linux", "s390x"))


async def test_what_is_not_there_is_said_in_dockers_words(
    registry: Registry, new_store: Stores
) -> None:
    store = await new_store()
    await make_image(store, f"{registry.host}/app:v1", layer(a=b"1"))
    await push(store, f"{registry.host}/app:v1")
    with pytest.raises(NotFound) as refused:
        await pull(store, f"{registry.host}/app:v2")
    assert refused.value.message == (
        f"manifest for {registry.host}/app:v2 not found: manifest unknown: manifest unknown"
    )
    with pytest.raises(NotFound, match="An image does not exist locally with the tag: "):
        await push(store, f"{registry.host}/none:v1")


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    return path


@pytest.mark.parametrize("by_token", [False, True])
async def test_users_show_who_they_are(
    tmp_path: Path, new_store: Stores, htpasswd: Path, by_token: bool
) -> None:
    async with Registry(tmp_path / "r", htpasswd=htpasswd, by_token=by_token) as registry:
        store = await new_store()
        name = f"{registry.host}/app:v1"
        await make_image(store, name, layer(a=b"1"))
        with pytest.raises(EngineError):
            await push(store, name)
        await push(store, name, ANN)
        await pull(await new_store("other"), name, ANN)
        with pytest.raises(EngineError) as refused:
            await pull(await new_store("third"), name)
        if by_token:
            assert refused.value.message.startswith(
                f"pull access denied for {registry.host}/app, repository does not exist or may"
                " require 'docker login': "
            )
        else:
            assert refused.value.message.endswith(": no basic auth credentials")
        addresses = endpoints(registry.host, Settings())
        await client.log_in(addresses, ANN)
        with pytest.raises(Unauthorized):
            await client.log_in(addresses, Credentials("ann", "wrong"))


async def test_a_mirror_is_asked_first_and_passed_over(
    tmp_path: Path, registry: Registry, new_store: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "wherry.engine.image.distribution.endpoints.REGISTRY_OF_DOCKER", "127.0.0.1:1"
    )
    here = await new_store("here")
    name = f"{registry.host}/library/busybox:1"
    image = await make_image(here, name, layer(a=b"1"))
    await push(here, name)
    settings = Settings(mirrors=(f"http://{registry.host}",))
    there = await new_store("there", settings)
    await pull(there, "busybox:1")
    assert there.resolve("busybox:1").id == image.id
    with pytest.raises(EngineError, match=r"dial tcp 127\.0\.0\.1:1: connect: connection refused"):
        await pull(there, "busybox:2")


async def test_a_client_that_leaves_ends_the_pull(registry: Registry, new_store: Stores) -> None:
    name = f"{registry.host}/app:v1"
    here, there = await new_store("here"), await new_store("there")
    await make_image(here, name, layer(a=b"1"))
    await push(here, name)
    held = asyncio.Event()

    async def hold(request: web.Request) -> web.StreamResponse | None:
        if "/blobs/" in request.path:
            held.set()
            await asyncio.sleep(60)
        return None

    registry.disturb = hold
    task = asyncio.create_task(pull(there, name))
    await held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    registry.disturb = None
    await pull(there, name)


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EPIPE])
async def test_a_connection_that_breaks_is_told_in_words(number: int) -> None:
    with pytest.raises(Unreachable) as caught:
        async with explained("http://registry/v2/", "Put"):
            raise aiohttp.ClientOSError(number, "as python says it")
    assert str(caught.value) == f'Put "http://registry/v2/": {os.strerror(number).lower()}'


@pytest.mark.parametrize(
    ("domain", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("registry.example:5000", False),
        ("plain.example", True),
        ("10.1.2.3:5000", True),
        ("11.1.2.3", False),
    ],
)
def test_registries_that_may_be_plain(domain: str, insecure: bool) -> None:
    settings = Settings(insecure=("plain.example", "10.0.0.0/8"))
    assert is_insecure(domain, settings) is insecure


def test_addresses_of_a_registry() -> None:
    assert [one.url for one in endpoints("r.example", Settings())] == ["https://r.example"]
    assert [one.url for one in endpoints("localhost:5000", Settings())] == [
        "https://localhost:5000",
        "http://localhost:5000",
    ]
    hub = endpoints("docker.io", Settings(mirrors=("https://m.example/",)))
    assert [one.url for one in hub] == ["https://m.example", "https://registry-1.docker.io"]


def test_a_client_certificate_needs_its_key(tmp_path: Path) -> None:
    place = tmp_path / "r.example:5000"
    place.mkdir()
    (place / "client.cert").write_text("")
    with pytest.raises(EngineError, match=r"missing key client\.key for client certificate"):
        Endpoint("https://r.example:5000", certificates=tmp_path).trust()


def test_credentials_are_read_and_never_shown() -> None:
    assert from_document({"auth": "YW5uOnNlY3JldA=="}) == ANN
    assert from_document({"identitytoken": "t"}).identity_token == "t"
    assert read("garbage") == read("") == NOBODY
    assert "secret" not in repr(ANN)
