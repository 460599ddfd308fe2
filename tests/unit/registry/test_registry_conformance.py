"""The four workflows of the distribution specification: pull, push, discovery, management."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from wherry.registry import manifests
from wherry.registry.server import Server
from wherry.registry.storage import Storage, Upload

NAME = "team/app"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def image(config: bytes, *layers: bytes, **more: Any) -> bytes:
    """A manifest of these blobs."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": manifests.IMAGE,
            "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(one, "application/vnd.oci.image.layer.v1.tar") for one in layers],
            **more,
        }
    ).encode()


def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


class Registry:
    """A client of a registry in this process."""

    def __init__(self, client: TestClient[Any, Any], server: Server) -> None:
        self.client = client
        self.server = server
        self.storage = server.storage

    async def push_blob(self, data: bytes, name: str = NAME) -> str:
        digest = digest_of(data)
        url = f"/v2/{name}/blobs/uploads/?digest={digest}"
        async with self.client.post(url, data=data) as answer:
            assert answer.status == 201, await answer.text()
        return digest

    async def push_manifest(
        self, data: bytes, reference: str, name: str = NAME, media_type: str = manifests.IMAGE
    ) -> Any:
        url = f"/v2/{name}/manifests/{reference}"
        return await self.client.put(url, data=data, headers={"Content-Type": media_type})

    async def push_image(self, tag: str, name: str = NAME, **more: Any) -> bytes:
        config, layer = b'{"os":"linux"}', f"layer of {tag}".encode()
        for blob in (config, layer):
            await self.push_blob(blob, name)
        data = image(config, layer, **more)
        answer = await self.push_manifest(data, tag, name)
        assert answer.status == 201, await answer.text()
        return data


async def error_of(answer: Any) -> str:
    document = await answer.json()
    return str(document["errors"][0]["code"])


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    storage = Storage(tmp_path)
    storage.open()
    server = Server(storage)
    async with TestClient(TestServer(server.application())) as client:
        yield Registry(client, server)


# ---- pull


async def test_the_base_says_that_it_speaks_the_protocol(registry: Registry) -> None:
    answer = await registry.client.get("/v2/")
    assert answer.status == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


async def test_a_manifest_is_had_by_tag_and_by_digest(registry: Registry) -> None:
    data = await registry.push_image("v1")
    for reference in ("v1", digest_of(data)):
        answer = await registry.client.get(f"/v2/{NAME}/manifests/{reference}")
        assert answer.status == 200
        assert await answer.read() == data
        assert answer.headers["Content-Type"] == manifests.IMAGE
        assert answer.headers["Docker-Content-Digest"] == digest_of(data)
        head = await registry.client.head(f"/v2/{NAME}/manifests/{reference}")
        assert head.status == 200
        assert head.headers["Content-Length"] == str(len(data))


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"/v2/{NAME}/manifests/none", "MANIFEST_UNKNOWN"),
        (f"/v2/{NAME}/manifests/sha256:{'0' * 64}", "MANIFEST_UNKNOWN"),
        ("/v2/nobody/manifests/v1", "NAME_UNKNOWN"),
        ("/v2/nobody/tags/list", "NAME_UNKNOWN"),
        (f"/v2/{NAME}/blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN"),
        (f"/v2/{NAME}/blobs/uploads/none", "BLOB_UPLOAD_UNKNOWN"),
    ],
)
async def test_what_is_not_there_is_not_found(registry: Registry, path: str, code: str) -> None:
    await registry.push_image("v1")
    answer = await registry.client.get(path)
    assert (answer.status, await error_of(answer)) == (404, code)


async def test_a_blob_is_had_whole_and_in_ranges(registry: Registry) -> None:
    digest = await registry.push_blob(b"0123456789")
    url = f"/v2/{NAME}/blobs/{digest}"
    whole = await registry.client.get(url)
    assert await whole.read() == b"0123456789"
    assert whole.headers["Docker-Content-Digest"] == digest
    part = await registry.client.get(url, headers={"Range": "bytes=2-4"})
    assert (part.status, await part.read()) == (206, b"234")
    head = await registry.client.head(url)
    assert head.headers["Content-Length"] == "10"


@pytest.mark.parametrize("name", ["UPPER", "a//b", "-a", "a/../b", "x" * 256])
async def test_a_wrong_name_is_refused(registry: Registry, name: str) -> None:
    answer = await registry.client.get(f"/v2/{name}/tags/list")
    if answer.status != 404:  # (the client itself resolves some paths)
        assert (answer.status, await error_of(answer)) == (400, "NAME_INVALID")


# ---- push


async def test_a_blob_comes_by_post_and_put(registry: Registry) -> None:
    begun = await registry.client.post(f"/v2/{NAME}/blobs/uploads/")
    assert begun.status == 202
    location = begun.headers["Location"]
    data = b"some bytes"
    done = await registry.client.put(f"{location}?digest={digest_of(data)}", data=data)
    assert done.status == 201
    assert done.headers["Location"] == f"/v2/{NAME}/blobs/{digest_of(data)}"


async def test_a_blob_comes_in_chunks_that_must_follow_each_other(registry: Registry) -> None:
    begun = await registry.client.post(f"/v2/{NAME}/blobs/uploads/")
    location = begun.headers["Location"]
    first = await registry.client.patch(
        location, data=b"01234", headers={"Content-Range": "0-4", "Content-Length": "5"}
    )
    assert (first.status, first.headers["Range"]) == (202, "0-4")
    wrong = await registry.client.patch(location, data=b"789", headers={"Content-Range": "7-9"})
    assert (wrong.status, wrong.headers["Range"]) == (416, "0-4")
    status = await registry.client.get(location)
    assert (status.status, status.headers["Range"]) == (204, "0-4")
    digest = digest_of(b"0123456789")
    last = await registry.client.put(
        f"{location}?digest={digest}", data=b"56789", headers={"Content-Range": "5-9"}
    )
    assert last.status == 201
    gone = await registry.client.get(location)
    assert await error_of(gone) == "BLOB_UPLOAD_UNKNOWN"


async def test_an_upload_goes_on_after_the_registry_was_started_again(
    registry: Registry, tmp_path: Path
) -> None:
    begun = await registry.client.post(f"/v2/{NAME}/blobs/uploads/")
    location = begun.headers["Location"]
    await registry.client.patch(location, data=b"first ")
    again = Storage(tmp_path)
    again.open()
    async with TestClient(TestServer(Server(again).application())) as client:
        digest = digest_of(b"first second")
        done = await client.put(f"{location}?digest={digest}", data=b"second")
        assert done.status == 201


async def test_an_upload_is_changed_by_one_at_a_time(registry: Registry) -> None:
    held = registry.server.lock("one")
    await held.acquire()
    waiting = asyncio.create_task(registry.server.lock("one").acquire())
    await asyncio.sleep(0)
    held.release()
    registry.server.lock("other")  # just when it is promised to who waits
    assert registry.server.lock("one") is held
    await waiting


async def test_uploads_that_are_only_begun_hold_no_files_open(registry: Registry) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        begun = await registry.client.post(f"/v2/{NAME}/blobs/uploads/")
        await registry.client.patch(begun.headers["Location"], data=b"part")
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # (the client's connection)


async def test_what_a_full_disk_refuses_can_be_sent_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = await registry.client.post(f"/v2/{NAME}/blobs/uploads/")
    location = begun.headers["Location"]
    usual = Upload.append
    refusals = [1]

    def full(upload: Upload, data: bytes) -> None:
        if refusals and refusals.pop():
            raise OSError(28, "No space left on device")
        usual(upload, data)

    monkeypatch.setattr(Upload, "append", full)
    data = bytes(3 << 20)
    refused = await registry.client.patch(location, data=data)
    assert refused.status == 500
    monkeypatch.setattr(Upload, "append", usual)
    there = (await registry.client.get(location)).headers["Range"]
    assert there == "0-0"
    done = await registry.client.put(f"{location}?digest={digest_of(data)}", data=data)
    assert done.status == 201


def test_a_write_that_is_cut_short_leaves_the_upload_as_it_was(tmp_path: Path) -> None:
    upload = Upload("x", tmp_path)
    upload.append(b"one ")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(OSError, match="File too large"):
            upload.append(bytes(200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    upload.append(b"two")
    assert upload.finish(digest_of(b"one two")).read_bytes() == b"one two"


async def test_a_page_of_a_size_that_is_none_is_refused(registry: Registry) -> None:
    for wrong in ("x", "-1", "²", "9" * 5000):
        answer = await registry.client.get("/v2/_catalog", params={"n": wrong})
        assert (answer.status, await error_of(answer)) == (400, "PAGINATION_NUMBER_INVALID")


async def test_a_wrong_digest_is_refused_and_nothing_is_kept(registry: Registry) -> None:
    url = f"/v2/{NAME}/blobs/uploads/?digest={digest_of(b'other')}"
    answer = await registry.client.post(url, data=b"bytes")
    assert (answer.status, await error_of(answer)) == (400, "DIGEST_INVALID")
    assert list(registry.storage.all_blobs()) == []
    for wrong in ("", "sha256:12", "md5:" + "0" * 32):
        begun = await registry.client.post(f"/v2/{NAME}/blobs/uploads/")
        answer = await registry.client.put(
            f"{begun.headers['Location']}?digest={wrong}", data=b"bytes"
        )
        assert (answer.status, await error_of(answer)) == (400, "DIGEST_INVALID")


async def test_a_blob_may_be_named_by_sha512(registry: Registry) -> None:
    digest = digest_of(b"bytes", "sha512")
    url = f"/v2/{NAME}/blobs/uploads/?digest={digest}"
    assert (await registry.client.post(url, data=b"bytes")).status == 201
    assert await (await registry.client.get(f"/v2/{NAME}/blobs/{digest}")).read() == b"bytes"


async def test_an_upload_can_be_given_up(registry: Registry) -> None:
    begun = await registry.client.post(f"/v2/{NAME}/blobs/uploads/")
    location = begun.headers["Location"]
    assert (await registry.client.delete(location)).status == 204
    assert (await registry.client.patch(location, data=b"x")).status == 404


async def test_a_blob_is_mounted_from_another_repository(registry: Registry) -> None:
    digest = await registry.push_blob(b"shared", "one")
    url = f"/v2/two/blobs/uploads/?mount={digest}&from=one"
    answer = await registry.client.post(url)
    assert answer.status == 201
    assert (await registry.client.head(f"/v2/two/blobs/{digest}")).status == 200
    unknown = await registry.client.post(f"/v2/two/blobs/uploads/?mount=sha256:{'1' * 64}&from=one")
    assert (unknown.status, "Location" in unknown.headers) == (202, True)


async def test_a_manifest_must_refer_to_what_is_there(registry: Registry) -> None:
    await registry.push_blob(b"{}")
    answer = await registry.push_manifest(image(b"{}", b"missing"), "v1")
    document = await answer.json()
    assert answer.status == 404
    assert document["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"
    assert document["errors"][0]["detail"] == [{"digest": digest_of(b"missing")}]


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"no json", manifests.IMAGE),
        (b"[]", manifests.IMAGE),
        (b'{"schemaVersion":1}', "application/vnd.docker.distribution.manifest.v1+json"),
        (b'{"schemaVersion":2,"layers":[]}', manifests.IMAGE),
        (b'{"schemaVersion":2,"manifests":{}}', manifests.INDEX),
        (b'{"schemaVersion":2,"mediaType":"x/y"}', manifests.IMAGE),
    ],
)
async def test_a_malformed_manifest_is_refused(
    registry: Registry, body: bytes, media_type: str
) -> None:
    answer = await registry.push_manifest(body, "v1", media_type=media_type)
    assert (answer.status, await error_of(answer)) == (400, "MANIFEST_INVALID")


async def test_a_manifest_is_at_most_four_megabytes_long(registry: Registry) -> None:
    answer = await registry.push_manifest(b" " * (manifests.SIZE_LIMIT + 10), "v1")
    assert (answer.status, await error_of(answer)) == (413, "SIZE_INVALID")


async def test_a_manifest_pushed_by_digest_must_have_it(registry: Registry) -> None:
    data = await registry.push_image("v1")
    assert (await registry.push_manifest(data, digest_of(data))).status == 201
    answer = await registry.push_manifest(data, digest_of(b"other"))
    assert await error_of(answer) == "DIGEST_INVALID"


async def test_an_index_lists_manifests(registry: Registry) -> None:
    data = await registry.push_image("amd64")
    index = {
        "schemaVersion": 2,
        "mediaType": manifests.INDEX,
        "manifests": [descriptor(data, manifests.IMAGE)],
    }
    body = json.dumps(index).encode()
    assert (await registry.push_manifest(body, "all", media_type=manifests.INDEX)).status == 201
    index["manifests"] = [descriptor(b"not there", manifests.IMAGE)]
    body = json.dumps(index).encode()
    answer = await registry.push_manifest(body, "all", media_type=manifests.INDEX)
    assert await error_of(answer) == "MANIFEST_BLOB_UNKNOWN"


# ---- discovery


async def test_tags_come_in_pages(registry: Registry) -> None:
    for tag in ("b", "a", "c"):
        await registry.push_image(tag)
    answer = await registry.client.get(f"/v2/{NAME}/tags/list")
    assert await answer.json() == {"name": NAME, "tags": ["a", "b", "c"]}
    first = await registry.client.get(f"/v2/{NAME}/tags/list?n=2")
    assert (await first.json())["tags"] == ["a", "b"]
    assert first.headers["Link"] == f'</v2/{NAME}/tags/list?n=2&last=b>; rel="next"'
    rest = await registry.client.get(f"/v2/{NAME}/tags/list?n=2&last=b")
    assert (await rest.json())["tags"] == ["c"]
    assert "Link" not in rest.headers
    none = await registry.client.get(f"/v2/{NAME}/tags/list?n=0")
    assert (await none.json())["tags"] == []
    wrong = await registry.client.get(f"/v2/{NAME}/tags/list?n=x")
    assert await error_of(wrong) == "PAGINATION_NUMBER_INVALID"


async def test_referrers_are_found_by_their_subject(registry: Registry) -> None:
    subject = await registry.push_image("v1")
    about = descriptor(subject, manifests.IMAGE)
    referrer = await registry.push_image(
        "sbom", subject=about, artifactType="application/sbom", annotations={"k": "v"}
    )
    plain = await registry.push_image("other", subject=about)
    url = f"/v2/{NAME}/referrers/{digest_of(subject)}"
    answer = await registry.client.get(url)
    assert answer.headers["Content-Type"] == manifests.INDEX
    found = {one["digest"]: one for one in (await answer.json(content_type=None))["manifests"]}
    assert set(found) == {digest_of(referrer), digest_of(plain)}
    assert found[digest_of(referrer)]["artifactType"] == "application/sbom"
    assert found[digest_of(referrer)]["annotations"] == {"k": "v"}
    assert found[digest_of(plain)]["artifactType"] == "application/vnd.oci.image.config.v1+json"
    filtered = await registry.client.get(f"{url}?artifactType=application/sbom")
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert len((await filtered.json(content_type=None))["manifests"]) == 1
    nobody = await registry.client.get(f"/v2/{NAME}/referrers/sha256:{'0' * 64}")
    assert (nobody.status, (await nobody.json(content_type=None))["manifests"]) == (200, [])
    await registry.client.delete(f"/v2/{NAME}/manifests/{digest_of(referrer)}")
    fewer = await registry.client.get(url)
    assert len((await fewer.json(content_type=None))["manifests"]) == 1


async def test_a_manifest_with_a_subject_is_acknowledged_as_such(registry: Registry) -> None:
    await registry.push_blob(b"{}")
    about = descriptor(b"unknown yet", manifests.IMAGE)
    answer = await registry.push_manifest(image(b"{}", subject=about), "v1")
    assert (answer.status, answer.headers["OCI-Subject"]) == (201, about["digest"])


async def test_the_catalog_and_the_search_know_repositories(registry: Registry) -> None:
    described = {"org.opencontainers.image.description": "serves pages"}
    await registry.push_image("latest", "web/nginx", annotations=described)
    await registry.push_image("v1", "db")
    catalog = await registry.client.get("/v2/_catalog?n=1")
    assert await catalog.json() == {"repositories": ["db"]}
    assert catalog.headers["Link"] == '</v2/_catalog?n=1&last=db>; rel="next"'
    found = await (await registry.client.get("/v1/search?q=pages")).json()
    assert [one["name"] for one in found["results"]] == ["web/nginx"]
    assert found["results"][0]["description"] == "serves pages"


# ---- management


async def test_deleting_a_tag_leaves_the_manifest(registry: Registry) -> None:
    data = await registry.push_image("v1")
    assert (await registry.client.delete(f"/v2/{NAME}/manifests/v1")).status == 202
    assert (await registry.client.get(f"/v2/{NAME}/manifests/v1")).status == 404
    assert (await registry.client.get(f"/v2/{NAME}/manifests/{digest_of(data)}")).status == 200


async def test_deleting_a_manifest_takes_its_tags(registry: Registry) -> None:
    data = await registry.push_image("v1")
    await registry.push_manifest(data, "v2")
    url = f"/v2/{NAME}/manifests/{digest_of(data)}"
    assert (await registry.client.delete(url)).status == 202
    assert (await registry.client.delete(url)).status == 404
    tags = await (await registry.client.get(f"/v2/{NAME}/tags/list")).json()
    assert tags["tags"] == []


async def test_deleting_a_blob(registry: Registry) -> None:
    digest = await registry.push_blob(b"bytes")
    url = f"/v2/{NAME}/blobs/{digest}"
    assert (await registry.client.delete(url)).status == 202
    assert (await registry.client.get(url)).status == 404
    assert (await registry.client.delete(url)).status == 404


async def test_an_upload_that_breaks_off_can_be_resumed(registry: Registry) -> None:
    begun = await registry.client.post(f"/v2/{NAME}/blobs/uploads/")
    location = begun.headers["Location"]

    url = registry.client.make_url(location)
    head = f"PATCH {url.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(head.encode() + b"half")
    await writer.drain()
    writer.close()
    upload = registry.storage.upload(NAME, location.rsplit("/", 1)[1])
    async with asyncio.timeout(60):
        while not upload.size:  # noqa: ASYNC110  the other side is in another task
            await asyncio.sleep(0.01)
    digest = digest_of(b"half and the rest")
    done = await registry.client.put(f"{location}?digest={digest}", data=b" and the rest")
    assert done.status == 201
