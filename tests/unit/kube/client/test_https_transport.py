from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
import ssl

import orjson
import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wherry.kube.api.errors import StatusError, not_found
from wherry.kube.api.resources import PODS
from wherry.kube.client.client import Client
from wherry.kube.client.https import HTTPSTransport, KubeconfigError, from_kubeconfig


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """One self-signed certificate that is authority, server and client alike."""
    directory = tmp_path_factory.mktemp("pki")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    (directory / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return directory


class Server:
    """Answers one pod, its absence, nonsense, and a watch that the test writes."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.seen: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        self.bodies.append(await request.read())
        if request.query.get("watch") == "true":
            if request.query.get("resourceVersion") == "1":
                error = StatusError(410, "Expired", "too old resource version: 1 (5)")
                return web.json_response(error.status(), status=410)
            response = web.StreamResponse()
            await response.prepare(request)
            while (line := await self.lines.get()) is not None:
                await response.write(line)
            return response
        if request.path.endswith("/pods/absent"):
            return web.json_response(not_found("pods", "absent").status(), status=404)
        if request.path.endswith("/pods/busy"):
            return web.Response(status=429, headers={"Retry-After": "3"}, text="slow down")
        return web.json_response({"kind": "Pod", "metadata": {"name": "web"}})


@pytest.fixture
async def served(pki):
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki / "tls.crt")
    context.load_cert_chain(pki / "tls.crt", pki / "tls.key")
    context.verify_mode = ssl.CERT_REQUIRED
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"https://{host}:{port}"
    yield server
    server.lines.put_nowait(None)
    await runner.cleanup()


@pytest.fixture
async def transport(served, pki):
    transport = HTTPSTransport(
        served.url, ca=pki / "tls.crt", cert=pki / "tls.crt", key=pki / "tls.key"
    )
    yield transport
    await transport.close()


async def test_requests_carry_method_query_and_body(served, transport):
    client = Client(transport, manager="tester")
    assert (await client.get(PODS, "web", "demo"))["metadata"]["name"] == "web"
    await client.patch(PODS, "web", {"a": 1}, "demo")
    request = served.seen[-1]
    assert (request.method, request.path) == ("PATCH", "/api/v1/namespaces/demo/pods/web")
    assert request.query["fieldManager"] == "tester"
    assert request.content_type == "application/merge-patch+json"
    assert served.bodies[-1] == b'{"a":1}'


async def test_failures_are_raised_as_the_server_told_them(transport):
    client = Client(transport)
    with pytest.raises(StatusError, match='pods "absent" not found') as caught:
        await client.get(PODS, "absent", "demo")
    assert (caught.value.code, caught.value.reason) == (404, "NotFound")
    with pytest.raises(StatusError, match="slow down") as caught:
        await client.get(PODS, "busy", "demo")
    assert caught.value.code == 429
    assert caught.value.headers["Retry-After"] == "3"


async def test_a_watch_yields_events_however_they_are_cut(served, transport):
    long = "x" * 300_000
    events = [{"type": "ADDED", "object": {"metadata": {"name": n}}} for n in ("a", long, "b")]
    data = b"".join(orjson.dumps(event) + b"\n" for event in events)
    for start in range(0, len(data), 100_001):
        served.lines.put_nowait(data[start : start + 100_001])
    served.lines.put_nowait(None)
    names = [o["metadata"]["name"] async for _, o in Client(transport).watch(PODS)]
    assert names == ["a", long, "b"]


async def test_a_watch_that_is_too_old_or_fails_midway_raises(served, transport):
    client = Client(transport)
    with pytest.raises(StatusError) as caught:
        async for _ in client.watch(PODS, resource_version="1"):
            pass
    assert caught.value.code == 410
    status = StatusError(410, "Expired", "too old").status()
    served.lines.put_nowait(orjson.dumps({"type": "ERROR", "object": status}) + b"\n")
    with pytest.raises(StatusError) as caught:
        async for _ in client.watch(PODS, resource_version="9"):
            pass
    assert caught.value.code == 410


async def test_an_unreachable_server_is_a_connection_error(pki):
    transport = HTTPSTransport("https://127.0.0.1:1", ca=pki / "tls.crt")
    with pytest.raises(ConnectionError):
        await Client(transport).get(PODS, "web", "demo")
    with pytest.raises(ConnectionError):
        async for _ in Client(transport).watch(PODS):
            pass
    await transport.close()


async def test_a_server_whose_certificate_is_not_trusted_is_refused(served):
    transport = HTTPSTransport(served.url)
    with pytest.raises(ConnectionError, match="certificate verify failed"):
        await Client(transport).get(PODS, "web", "demo")
    await transport.close()


def kubeconfig(server: str, cluster: dict, user: dict) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user}],
    }


@pytest.mark.parametrize("inline", [True, False])
async def test_a_kubeconfig_says_where_and_as_whom(served, pki, tmp_path, inline):
    def given(key: str, file: str) -> dict:
        if inline:
            return {f"{key}-data": base64.b64encode((pki / file).read_bytes()).decode()}
        return {key: str(pki / file)}

    path = tmp_path / "config"
    user = {**given("client-certificate", "tls.crt"), **given("client-key", "tls.key")}
    config = kubeconfig(served.url, given("certificate-authority", "tls.crt"), user)
    path.write_text(yaml.safe_dump(config))
    transport = from_kubeconfig(path)
    assert (await Client(transport).get(PODS, "web", "demo"))["kind"] == "Pod"
    await transport.close()


async def test_a_kubeconfig_that_cannot_be_used_says_why(tmp_path):
    path = tmp_path / "config"
    with pytest.raises(KubeconfigError, match="No such file"):
        from_kubeconfig(path)
    path.write_text("- a list")
    with pytest.raises(KubeconfigError, match="not a kubeconfig"):
        from_kubeconfig(path)
    path.write_text(yaml.safe_dump(kubeconfig("https://x", {}, {})))
    with pytest.raises(KubeconfigError, match='context "other" does not exist'):
        from_kubeconfig(path, "other")
