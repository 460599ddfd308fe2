"""…/proxy below nodes, pods and services: real clients, the API server, a server of the test's."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from apiserver_process import Server
from backend import address, serving

PAGE = (
    '<html><head><link href="/style.css"></head><body><a class="x" href="/next?a=1&amp;b=2">n</a>'
)
PAGE += '<img src="rel.png"><a href="http://elsewhere/x">e</a><!-- <a href="/c"> --></body></html>'


class Backend:
    """Says what it was asked."""

    def __init__(self) -> None:
        self.more = asyncio.Event()
        self.app = web.Application(client_max_size=1 << 30)
        self.app.router.add_get("/ws", self.socket)
        self.app.router.add_get("/page", self.page)
        self.app.router.add_get("/zipped", self.zipped)
        self.app.router.add_get("/away", self.away)
        self.app.router.add_get("/drip", self.drip)
        self.app.router.add_post("/sum", self.sum)
        self.app.router.add_get("/broken", self.broken)
        self.app.router.add_route("*", "/{rest:.*}", self.echo)

    async def echo(self, request: web.Request) -> web.Response:
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        said = {"method": request.method, "path": request.raw_path, "headers": headers}
        return web.json_response(
            {**said, "body": body, "scheme": request.scheme},
            status=int(request.query.get("code", "200")),
            headers={"X-Own": "yes", "Access-Control-Allow-Origin": "*"},
        )

    async def page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def zipped(self, request: web.Request) -> web.Response:
        headers = {"Content-Encoding": "gzip"}
        body = gzip.compress(PAGE.encode())
        return web.Response(body=body, content_type="text/html", headers=headers)

    async def away(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query["to"]})

    async def drip(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first\n")
        await self.more.wait()
        await response.write(b"second\n")
        return response

    async def sum(self, request: web.Request) -> web.Response:
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
        return web.Response(body=b"x" * size)

    async def broken(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("talk",))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"heard {message.data}")
        return socket


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with address() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("apiserver")).start()
    running.kubectl("create", "serviceaccount", "default")
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log


@pytest.fixture
async def client(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    context = ssl.create_default_context(cafile=str(server.authority.certificate))
    context.load_cert_chain(*map(str, server.admin))
    async with aiohttp.ClientSession(
        f"https://127.0.0.1:{server.port}", connector=aiohttp.TCPConnector(ssl=context)
    ) as session:
        yield session


async def put(client: aiohttp.ClientSession, path: str, o: dict[str, Any]) -> None:
    collection, _, name = path.rpartition("/")
    await client.delete(f"{path}?gracePeriodSeconds=0")
    o["metadata"] = {**o.get("metadata", {}), "name": name}
    async with client.post(collection, json=o) as response:
        assert response.status == 201, await response.text()
    if "status" in o:
        async with client.patch(
            f"{path}/status",
            json={"status": o["status"]},
            headers={"Content-Type": "application/merge-patch+json"},
        ) as response:
            assert response.status == 200, await response.text()


@pytest.fixture
async def backend(client: aiohttp.ClientSession, host: str, server: Server) -> Any:
    """One pod ``web`` and a Service ``web`` with an http and an https port, both by address."""
    behind = Backend()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*map(str, server.authority.issue("backend", "whoever")))
    secure = Backend()
    async with serving(behind.app, host) as plain, serving(secure.app, host, context) as secured:
        core = "/api/v1/namespaces/default"
        ports = [{"containerPort": plain}]
        pod = {
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i", "ports": ports}]},
            "status": {"phase": "Running", "podIP": host, "podIPs": [{"ip": host}]},
        }
        await put(client, f"{core}/pods/web", pod)
        service_ports = [
            {"name": "http", "port": 80, "targetPort": plain},
            {"name": "tls", "port": 443, "targetPort": secured},
            {"name": "nobody", "port": 81},
        ]
        await put(client, f"{core}/services/web", {"spec": {"ports": service_ports}})
        slice_ports = [{"name": "http", "port": plain}, {"name": "tls", "port": secured}]
        labels = {"kubernetes.io/service-name": "web"}
        await put(
            client,
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web",
            {
                "metadata": {"labels": labels},
                "addressType": "IPv4",
                "ports": slice_ports,
                "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
            },
        )
        behind.ports = plain, secured  # type: ignore[attr-defined]
        yield behind


POD = "/api/v1/namespaces/default/pods/web/proxy"
SERVICE = "/api/v1/namespaces/default/services/web:http/proxy"


async def test_every_method_goes_to_the_pod_with_its_body_and_comes_back_with_its_headers(
    client: aiohttp.ClientSession, backend: Backend
) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        async with client.request(
            method, f"{POD}/some/path?x=1&y=a%20b", data=b"hi", headers={"X-Mine": "1"}
        ) as response:
            said = await response.json()
        assert response.headers["X-Own"] == "yes"
        assert "Access-Control-Allow-Origin" not in response.headers
        assert (said["method"], said["path"]) == (method, "/some/path?x=1&y=a%20b")
        assert said["body"] == "hi"
        headers = said["headers"]
        assert headers["x-mine"] == "1"
        assert headers["x-forwarded-for"] == "127.0.0.1"
        assert headers["x-forwarded-uri"] == f"{POD}/some/path"
        assert "authorization" not in headers
    async with client.head(f"{POD}/x") as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_codes_and_encoded_paths_are_handed_on_as_they_are(
    client: aiohttp.ClientSession, backend: Backend
) -> None:
    from yarl import URL

    async with client.get(f"{POD}/x?code=418") as response:
        assert response.status == 418
    async with client.get(URL(f"{POD}/group%2Fproject//x", encoded=True)) as response:
        assert (await response.json())["path"] == "/group%2Fproject//x"
    async with client.get(URL(f"{POD}/a/%2e%2e/%2e%2e/b", encoded=True)) as response:
        assert (await response.json())["path"] == "/b"


async def test_credentials_of_the_client_do_not_reach_the_pod(
    client: aiohttp.ClientSession, backend: Backend
) -> None:
    shown = {"X-Remote-User": "root", "Proxy-Authorization": "x", "Impersonate-User": "jane"}
    del shown["Impersonate-User"]
    async with client.get(f"{POD}/x", headers=shown) as response:
        headers = (await response.json())["headers"]
    assert not {"x-remote-user", "proxy-authorization"} & headers.keys()


async def test_a_service_is_reached_by_the_name_or_number_of_its_port_and_by_tls(
    client: aiohttp.ClientSession, backend: Backend
) -> None:
    base = "/api/v1/namespaces/default/services"
    for name, scheme in (("web:http", "http"), ("web:80", "http"), ("https:web:tls", "https")):
        async with client.get(f"{base}/{name}/proxy/x") as response:
            assert (await response.json())["scheme"] == scheme, name
    for name, code, message in (
        ("web:99", 503, 'no service port 99 found for service "web"'),
        ("web:nobody", 503, 'no endpoints available for service "web:nobody"'),
        ("web", 503, 'no endpoints available for service "web"'),
        ("none", 404, 'endpoints "none" not found'),
        ("none:80", 404, 'services "none" not found'),
        ("ftp:web:80", 400, 'invalid service request "ftp:web:80"'),
    ):
        async with client.get(f"{base}/{name}/proxy/x") as response:
            status = await response.json()
            assert (response.status, status["message"]) == (code, message)
            assert status["kind"] == "Status"


async def test_what_is_not_there_is_told_as_a_status(
    client: aiohttp.ClientSession, backend: Backend, host: str
) -> None:
    base = "/api/v1/namespaces/default/pods"
    async with client.get(f"{base}/web:1/proxy/") as response:
        status = await response.json()
    why = f"error trying to reach service: dial tcp {host}:1: connect: connection refused"
    assert (response.status, status["reason"], status["message"]) == (
        *(503, "ServiceUnavailable"),
        why,
    )
    async with client.get(f"{base}/web/proxy/broken") as response:
        assert (await response.json())["message"] == "error trying to reach service: EOF"
    async with client.get(f"{base}/absent/proxy/") as response:
        assert (await response.json())["message"] == 'pods "absent" not found'
    await put(client, f"{base}/nowhere", {"spec": {"containers": [{"name": "c", "image": "i"}]}})
    async with client.get(f"{base}/nowhere/proxy/") as response:
        assert (response.status, (await response.json())["message"]) == (400, "address not allowed")


async def test_a_path_without_an_end_is_sent_to_the_one_with_a_slash(
    client: aiohttp.ClientSession, backend: Backend
) -> None:
    async with client.get(f"{POD}?a=b", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (301, f"{POD}/?a=b")
    # Clients ask others again as GET.
    for method in ("DELETE", "OPTIONS", "PATCH", "POST", "PUT"):
        async with client.request(method, f"{POD}?a=b", allow_redirects=False) as response:
            said = await response.json()
            assert (response.status, said["method"], said["path"]) == (200, method, "/?a=b")
    async with client.get(POD) as response:
        assert (await response.json())["path"] == "/"


async def test_links_to_itself_lead_through_the_proxy(
    client: aiohttp.ClientSession, backend: Backend
) -> None:
    for path in ("page", "zipped"):
        async with client.get(f"{POD}/{path}") as response:
            text = await response.text()
        assert f'<link href="{POD}/style.css">' in text
        assert f'<a class="x" href="{POD}/next?a=1&amp;b=2">n</a>' in text
        assert '<img src="rel.png"><a href="http://elsewhere/x">e</a><!-- <a href="/c"> -->' in text
    for to, seen in (
        ("/login", f"{POD}/login"),
        (f"{POD}/login", f"{POD}/login"),
        ("other", "other"),
        ("http://elsewhere/", "http://elsewhere/"),
    ):
        asking = client.get(f"{POD}/away", params={"to": to}, allow_redirects=False)
        async with asking as response:
            assert response.headers["Location"] == seen


async def test_an_answer_is_handed_on_as_it_grows(
    client: aiohttp.ClientSession, backend: Backend
) -> None:
    async with client.get(f"{SERVICE}/drip") as response:
        assert await response.content.readline() == b"first\n"
        backend.more.set()
        assert await response.content.read() == b"second\n"


async def test_large_bodies_stream_both_ways(
    client: aiohttp.ClientSession, backend: Backend
) -> None:
    async def upload() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b"y" * 100_000

    async with client.post(f"{POD}/sum", data=upload()) as response:
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
    assert size == 20_000_000


async def test_a_websocket_reaches_the_pod(client: aiohttp.ClientSession, backend: Backend) -> None:
    for base in (POD, SERVICE, "/api/v1/namespaces/default/services/https:web:tls/proxy"):
        async with client.ws_connect(f"{base}/ws", protocols=("talk",)) as socket:
            assert socket.protocol == "talk"
            await socket.send_str("hello")
            assert (await socket.receive()).data == "heard hello"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.ws_connect(f"{POD}/none?code=403")
    assert refused.value.status == 403


async def test_a_nodes_proxy_is_its_kubelet_shown_our_certificate(
    client: aiohttp.ClientSession, server: Server, backend: Backend, host: str
) -> None:
    users: list[str] = []

    async def kubelet(request: web.Request) -> web.Response:
        assert request.transport is not None
        subject = dict(p for (p,) in request.transport.get_extra_info("peercert")["subject"])
        users.append(subject["commonName"])
        return web.Response(text=f"{request.method} {request.raw_path}")

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", kubelet)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*map(str, server.authority.issue("kubelet", "system:node:n1")))
    context.load_verify_locations(str(server.authority.certificate))
    context.verify_mode = ssl.CERT_REQUIRED
    async with serving(app, "127.0.0.1", context) as port:
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        await put(client, "/api/v1/nodes/n1", {"status": status})
        for name in ("n1", f"n1:{port}"):
            async with client.get(f"/api/v1/nodes/{name}/proxy/stats/summary?a=1") as response:
                assert await response.text() == "GET /stats/summary?a=1"
        asked = ("get", "--raw", "/api/v1/nodes/n1/proxy/healthz")
        done = await asyncio.to_thread(server.kubectl, *asked)
        assert done.out == "GET /healthz"
        async with client.get("/api/v1/nodes/n1:1/proxy/") as response:
            assert (await response.json())["message"] == "address not allowed"
    assert set(users) == {"kubernetes-admin"}


async def test_the_verb_on_the_subresource_is_what_must_be_allowed(
    server: Server, backend: Backend
) -> None:
    reader = server.kubeconfig("system:nobody", "nobodies")
    asked = ("get", "--raw", f"{POD}/x")
    done = await asyncio.to_thread(server.kubectl, *asked, kubeconfig=reader, ok=False)
    assert done.code != 0
    assert 'cannot get resource "pods/proxy" in API group ""' in done.err


async def test_kubectl_proxy_and_raw_requests_reach_a_service(
    server: Server, backend: Backend
) -> None:
    done = await asyncio.to_thread(server.kubectl, "get", "--raw", f"{SERVICE}/hello")
    assert json.loads(done.out)["path"] == "/hello"
    proxy = await asyncio.create_subprocess_exec(
        *("kubectl", f"--kubeconfig={server.kubeconfig()}", "proxy", "--port=0"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert proxy.stdout is not None
        line = await proxy.stdout.readline()
        local = line.split()[-1].decode()
        async with (
            aiohttp.ClientSession(f"http://{local}") as near,
            near.get(f"{SERVICE}/page") as response,
        ):
            assert f'href="{SERVICE}/style.css"' in await response.text()
    finally:
        proxy.terminate()
        await proxy.wait()
