"""The API server's front on a socket: TLS, forms, limits, and what is wrong with a request."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from apiserver_process import SOURCE, Server
from yarl import URL

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


def context(server: Server, *, certificate: bool = True) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(server.authority.certificate))
    if certificate:
        made.load_cert_chain(*map(str, server.admin))
    return made


@pytest.fixture
async def session(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=context(server))
    async with aiohttp.ClientSession(
        f"https://127.0.0.1:{server.port}",
        connector=connector,
        auto_decompress=False,
        skip_auto_headers=("Content-Type",),
    ) as opened:
        yield opened


async def status(response: aiohttp.ClientResponse) -> tuple[int, str, str]:
    """An answer that is a Status: code, reason, message."""
    body: dict[str, Any] = json.loads(await response.read())
    assert (body["kind"], body["apiVersion"], body["status"]) == ("Status", "v1", "Failure")
    assert body["code"] == response.status
    return response.status, body.get("reason", ""), body["message"]


async def create(session: aiohttp.ClientSession, name: str, **data: str) -> dict[str, Any]:
    body = {"metadata": {"name": name}, "data": data}
    async with session.post(MAPS, json=body) as response:
        assert response.status == 201, await response.text()
        made: dict[str, Any] = json.loads(await response.read())
        return made


@pytest.mark.parametrize(
    ("body", "content_type", "code", "part"),
    [
        (b"{", "application/json", 400, "the object provided is unrecognized"),
        (b"", "application/json", 400, "unexpected end of JSON input"),
        (b"[]", "application/json", 400, "cannot unmarshal array"),
        (b'"x"', "application/json", 400, "cannot unmarshal string"),
        (b"\xff\xfe\x00", "application/json", 400, "the object provided is unrecognized"),
        (b"a: [b", "application/yaml", 400, "error converting YAML to JSON"),
        (b"k8s\x00\xff", "application/vnd.kubernetes.protobuf", 400, "unable to decode"),
        (b"{}", "text/plain", 415, "accepted media types include: application/json"),
        (b"{}", "application/cbor", 415, "the body of the request was in an unknown format"),
        (b"{" + b'"a":[' * 50_000, "application/json", 400, "unrecognized"),
        (b"[" * 200_000, "application/json", 400, "unrecognized"),
        (b'{"apiVersion":"v2","kind":"ConfigMap"}', "", 400, "the API version in the data (v2)"),
        (b'{"kind":5}', "application/json", 400, "unrecognized"),
        (b'{"metadata":{"name":5}}', "application/json", 400, "cannot unmarshal number"),
        (b'{"metadata":{}}', "application/json", 422, "name or generateName is required"),
    ],
)
async def test_a_bad_body_is_told_in_a_status(
    session: aiohttp.ClientSession, body: bytes, content_type: str, code: int, part: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    async with session.post(MAPS, data=body, headers=headers) as response:
        got, _, message = await status(response)
    assert got == code and part in message


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/unknown", 404),
        ("GET", "/api/v1/unicorns", 404),
        ("GET", "/apis/none/v1/pods", 404),
        ("GET", "/api/v1/namespaces/default/pods/x/none", 404),
        ("PUT", PODS, 405),
        ("POST", "/api/v1/pods", 405),
        ("DELETE", "/version", 404),
        ("TRACE", PODS, 405),
        ("GET", f"{PODS}?limit=x", 400),
        ("GET", f"{PODS}?labelSelector=a%20b%20c", 400),
        ("GET", f"{PODS}?labelSelector={'a,' * 20_000}", 400),
        ("GET", f"{PODS}?fieldSelector=spec.foo%3D1", 400),
        ("GET", f"{PODS}?continue=x", 400),
        ("GET", f"{PODS}?resourceVersion=x", 400),
        ("GET", f"{PODS}?watch=1&resourceVersionMatch=Exact", 422),
        ("GET", f"{PODS}/%2e%2e", 404),
        ("GET", f"{PODS}/nix/log", 404),
    ],
)
async def test_a_bad_request_is_told_in_a_status(
    session: aiohttp.ClientSession, method: str, path: str, code: int
) -> None:
    async with session.request(method, URL(path, encoded=True)) as response:
        got, _, _ = await status(response)
    assert got == code


async def test_a_body_has_its_limit(session: aiohttp.ClientSession) -> None:
    large = b'{"data":{"a":"' + b"x" * 3_200_000 + b'"}}'
    async with session.post(MAPS, data=large) as response:
        assert await status(response) == (
            413,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3145728",
        )

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 100_000

    async with session.post(MAPS, data=chunks()) as response:
        assert (await status(response))[0] == 413
    await create(session, "after-large")


async def test_nothing_acceptable_is_said(session: aiohttp.ClientSession) -> None:
    async with session.get(PODS, headers={"Accept": "image/png"}) as response:
        code, reason, message = await status(response)
    assert (code, reason) == (406, "NotAcceptable")
    assert message.startswith("only the following media types are accepted: application/json")


async def test_warnings_come_in_headers(session: aiohttp.ClientSession) -> None:
    body = b'{"metadata":{"name":"warned"},"foo":1,"data":{"a":"1","a":"2"}}'
    async with session.post(MAPS, data=body) as response:
        assert response.status == 201
        warnings = response.headers.getall("Warning")
    assert warnings == ['299 - "duplicate field \\"data.a\\""', '299 - "unknown field \\"foo\\""']


async def test_yaml_goes_in_and_comes_out(session: aiohttp.ClientSession) -> None:
    body = b"metadata: {name: yaml}\ndata: {a: 'yes'}\n"
    headers = {"Content-Type": "application/yaml", "Accept": "application/yaml"}
    async with session.post(MAPS, data=body, headers=headers) as response:
        assert response.content_type == "application/yaml"
        assert b"kind: ConfigMap" in await response.read()


async def test_large_lists_are_compressed_for_who_takes_it(
    session: aiohttp.ClientSession,
) -> None:
    for n in range(4):
        await create(session, f"large{n}", a="x" * 100_000)
    async with session.get(MAPS, headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        small = await response.read()
    assert len(small) < 20_000
    async with session.get(MAPS, headers={"Accept-Encoding": "identity"}) as response:
        assert "Content-Encoding" not in response.headers
        plain = json.loads(await response.read())
    # (The revision is the whole store's: the server itself may have written in between.)
    assert plain["items"] == json.loads(gzip.decompress(small))["items"]


async def test_documents_are_tagged(session: aiohttp.ClientSession) -> None:
    async with session.get("/openapi/v3/apis/apps/v1") as response:
        tag = response.headers["ETag"]
        assert response.status == 200
    headers = {"If-None-Match": tag}
    async with session.get("/openapi/v3/apis/apps/v1", headers=headers) as response:
        assert response.status == 304


async def test_a_head_request_has_no_body(session: aiohttp.ClientSession) -> None:
    async with session.head(PODS) as response:
        assert response.status == 200 and await response.read() == b""


async def test_watches_stream(session: aiohttp.ClientSession) -> None:
    made = await create(session, "watched")
    query = f"?watch=1&resourceVersion={made['metadata']['resourceVersion']}"
    async with session.get(MAPS + query) as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        async with session.delete(f"{MAPS}/watched"):
            pass
        line = await asyncio.wait_for(response.content.readline(), 60)
    event = json.loads(line)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("DELETED", "watched")


async def test_an_expired_watch_says_so_in_its_stream(
    session: aiohttp.ClientSession,
) -> None:
    await create(session, "expire")
    # Nothing is compacted yet: the first revision of all is as old as it gets, and still there.
    async with session.get(f"{MAPS}?watch=1&resourceVersion=1&timeoutSeconds=1") as response:
        lines = (await response.read()).splitlines()
    assert json.loads(lines[0])["type"] == "ADDED"


async def test_who_hangs_up_is_forgotten(server: Server) -> None:
    raw = context(server)

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=raw)
        writer.write(f"GET {PODS}?watch=1 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(50)))
    assert server.process is not None
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    async with asyncio.timeout(60):
        while len(list(descriptors.iterdir())) >= 40:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)


async def test_certificates_tokens_and_nobody(server: Server) -> None:
    connector = aiohttp.TCPConnector(ssl=context(server, certificate=False))
    async with aiohttp.ClientSession(
        f"https://127.0.0.1:{server.port}", connector=connector
    ) as anonymous:
        async with anonymous.get("/version") as response:
            assert response.status == 200
        async with anonymous.get("/livez") as response:
            assert await response.text() == "ok"
        async with anonymous.get(PODS) as response:
            assert await status(response) == (
                403,
                "Forbidden",
                'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API '
                'group "" in the namespace "default"',
            )
        async with anonymous.get(PODS, headers={"Authorization": "Bearer forged"}) as response:
            assert await status(response) == (401, "Unauthorized", "Unauthorized")


async def test_broken_tls_and_broken_http_harm_nobody(
    server: Server, session: aiohttp.ClientSession
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.settimeout(5)
        with pytest.raises(OSError):
            if not plain.recv(100):
                raise OSError
    for data in (b"\x00\x01\x02\r\n\r\n", b"GET /x HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\n"):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=context(server)
        )
        writer.write(data)
        writer.write_eof() if writer.can_write_eof() else writer.close()
        with contextlib.suppress(OSError):  # our own end was closed first
            assert b"Traceback" not in await reader.read(1000)
        writer.close()
    async with session.get("/livez") as response:
        assert response.status == 200


def second_server(server: Server, *arguments: str) -> str:
    """What another server says that cannot start."""
    pki = server.authority.directory
    done = subprocess.run(
        [
            *(sys.executable, "-m", "wherry.kube.apiserver"),
            *arguments,
            f"--tls-cert={pki / 'server.crt'}",
            f"--tls-key={pki / 'server.key'}",
        ],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_in_use_is_said_in_a_sentence(server: Server) -> None:
    other = server.directory / "other"
    said = second_server(server, f"--data-dir={other}", f"--port={server.port}")
    assert "address already in use" in said


def test_a_second_server_on_the_same_data_is_refused(server: Server) -> None:
    said = second_server(server, f"--data-dir={server.directory}", "--port=0")
    assert "is in use by process" in said
