"""What annotations wish, as a client of a real nginx sees it. No cluster: servers on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import queue
import shutil
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
import websocket
from conftest import CLIENTS, eventually

from ports import free_port
from wherry.kube.ingress import certificates
from wherry.kube.ingress.annotations import PREFIX
from wherry.kube.ingress.build import World, build
from wherry.kube.ingress.nginx import OLD_WORKERS, Nginx, listeners
from wherry.kube.ingress.render import Settings, render

HOST = "shop.example.com"
PIECE, PIECES = b"x" * 1000, 6
MORE: queue.Queue[None] = queue.Queue()


class _Echo(http.server.BaseHTTPRequestHandler):
    """Says who it is and what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/slow"):
            time.sleep(1.5)
        if self.path.startswith("/long"):
            self._send_long()
            return
        if self.headers.get("Upgrade") == "websocket":
            self._upgrade()
            return
        said = {
            "who": self.server.server_port,
            "path": self.path,
            "size": len(body),
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.do_GET()

    def do_OPTIONS(self) -> None:
        self.do_GET()

    def _send_long(self) -> None:
        """Pieces, each when the one who asked has seen the last: ``MORE`` says so."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(PIECE) * PIECES))
        self.end_headers()
        for _ in range(PIECES):
            self.wfile.write(PIECE)
            MORE.get(timeout=60)

    def _upgrade(self) -> None:
        """A WebSocket (RFC 6455) that sends short frames back, without their masks."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        for name, value in (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept),
        ):
            self.send_header(name, value)
        self.end_headers()
        while (head := self.rfile.read(2)) and head[0] & 0xF != 8:
            mask = self.rfile.read(4)
            data = self.rfile.read(head[1] & 0x7F)
            plain = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
            self.wfile.write(bytes([0x81, len(plain)]) + plain)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """It says nothing."""


class Edge:
    """An nginx, and the Services behind it: ``stable``, ``other``, each one server."""

    def __init__(self, place: Path, services: dict[str, int]) -> None:
        self.http, self.https = free_port(), free_port()
        self.services = services
        self.secrets: dict[str, dict[str, bytes]] = {}
        self.nginx = Nginx(shutil.which("nginx") or str(CLIENTS / "nginx"), place)
        self.nginx.prepare()
        self.certificate = certificates.default()
        self.nginx.keep_files({"default.pem": self.certificate})
        self._settings = Settings(
            str(place), listeners(self.http), listeners(self.https), self.https, connections=512
        )

    def serve(self, *ingresses: dict[str, Any], certificate: str = "") -> list[str]:
        """Put these in force; what is wrong with them."""
        configuration = build(
            World(
                ingresses,
                self._service,
                self._slices,
                lambda _, name: self._secret(name),
                certificate,
            )
        )
        self.nginx.keep_files(configuration.files)
        text = render(configuration, self._settings)

        async def apply() -> str:
            said = await self.nginx.test(text)
            if not said:
                await self.nginx.apply(text)
            return said

        mark = f"v{time.monotonic_ns()}"
        text = text.replace(
            "location = /healthz {",
            f"location = /{mark} {{ return 200; }}\n        location = /healthz {{",
        )
        before = self._workers()
        assert asyncio.run(apply()) == ""
        eventually(lambda: self.ask(f"/{mark}", host="x")[0] == 200)
        # Those of before take no more connections.
        eventually(lambda: not before & self._workers())
        return [problem for found in configuration.problems.values() for problem in found]

    def _workers(self) -> set[int]:
        """The processes of nginx that take connections."""
        pid = self.nginx.pid
        if pid is None:
            return set()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found = set()
        for child in children:
            with contextlib.suppress(OSError):  # it has just ended
                if b"shutting down" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.add(int(child))
        return found

    def _service(self, _: str, name: str) -> dict[str, Any] | None:
        if name == "outside":
            spec = {"type": "ExternalName", "externalName": "localhost"}
            return {"metadata": {"name": name}, "spec": spec}
        spec = {"ports": [{"name": "web", "port": 80}]}
        return {"metadata": {"name": name}, "spec": spec} if name in self.services else None

    def _slices(self, _: str, name: str) -> list[dict[str, Any]]:
        numbers = [self.services[name]] if name != "both" else list(self.services.values())[:2]
        ready = [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}]
        return [
            {
                "addressType": "IPv4",
                "ports": [{"name": "web", "port": number}],
                "endpoints": ready,
            }
            for number in numbers
        ]

    def _secret(self, name: str) -> dict[str, Any] | None:
        found = self.secrets.get(name)
        if found is None:
            return None
        return {"data": {key: base64.b64encode(value).decode() for key, value in found.items()}}

    def ask(
        self, path: str = "/", method: str = "GET", body: bytes = b"", host: str = HOST, **more: str
    ) -> tuple[int, dict[str, str], Any]:
        """Code, headers (in small letters) and what the server said of the request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=10)
        try:
            headers = {name.replace("_", "-"): value for name, value in more.items()}
            connection.request(method, path, body or None, {"Host": host, **headers})
            answer = connection.getresponse()
            data = answer.read()
            told = json.loads(data) if data[:1] == b"{" else {}
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, told
        finally:
            connection.close()


def ingress(
    service: str = "stable", path: str = "/", match: str = "Prefix", **wishes: str
) -> dict[str, Any]:
    """One with a path, and annotations by their names after the prefix."""
    name = wishes.pop("name", "shop")
    annotations = {PREFIX + key.replace("_", "-"): value for key, value in wishes.items()}
    backend = {"service": {"name": service, "port": {"number": 80}}}
    rule = {
        "host": HOST,
        "http": {"paths": [{"path": path, "pathType": match, "backend": backend}]},
    }
    metadata = {"name": name, "namespace": "default", "annotations": annotations}
    return {"metadata": metadata, "spec": {"rules": [rule]}}


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    remote = grpc.server(futures.ThreadPoolExecutor(2))
    remote.add_generic_rpc_handlers((_Reverse(),))
    services = {"stable": servers[0].server_port, "other": servers[1].server_port, "both": 0}
    services["remote"] = remote.add_insecure_port("127.0.0.1:0")
    pem = certificates.default()
    cut = pem.index(b"-----BEGIN PRIVATE")
    credentials = grpc.ssl_server_credentials([(pem[cut:], pem[:cut])])
    services["remote-tls"] = remote.add_secure_port("127.0.0.1:0", credentials)
    secured = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = tmp_path_factory.mktemp("tls") / "pem"
    file.write_bytes(pem)
    context.load_cert_chain(file)
    secured.socket = context.wrap_socket(secured.socket, server_side=True)
    threading.Thread(target=secured.serve_forever, daemon=True).start()
    servers.append(secured)
    services["secure"] = secured.server_port
    remote.start()
    # (Not below pytest's own, which it closes to others when another pytest begins.)
    place = Path(tempfile.mkdtemp(prefix="wherry-nginx-"))
    place.chmod(0o755)  # workers are nobody
    edge = Edge(place, services)
    yield edge
    asyncio.run(edge.nginx.stop())
    shutil.rmtree(place)
    remote.stop(None)
    for server in servers:
        server.shutdown()
        server.server_close()


class _Reverse(grpc.GenericRpcHandler):
    """One method, which sends bytes back the other way round."""

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method == "/test.Text/Reverse":
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request[::-1])
        return None


def test_paths_are_rewritten(edge: Edge) -> None:
    edge.serve(ingress(path="/app(/|$)(.*)", match="ImplementationSpecific", rewrite_target="/$2"))
    assert edge.ask("/app/deep/er?x=1")[2]["path"] == "/deep/er?x=1"
    assert edge.ask("/app")[2]["path"] == "/"
    assert edge.ask("/apple")[0] == 404


def test_expressions(edge: Edge) -> None:
    edge.serve(ingress(path="/v[0-9]+/", match="ImplementationSpecific", use_regex="true"))
    assert edge.ask("/v12/x")[0] == 200 and edge.ask("/vx/x")[0] == 404


def test_what_servers_are_told(edge: Edge) -> None:
    edge.serve(ingress())
    told = edge.ask(X_Forwarded_For="192.0.2.9")[2]["headers"]
    assert told["host"] == HOST and told["x-real-ip"] == "127.0.0.1"
    assert told["x-forwarded-for"] == "127.0.0.1" and told["x-forwarded-proto"] == "http"
    assert told["x-original-forwarded-for"] == "192.0.2.9" and len(told["x-request-id"]) == 32


def test_bodies_have_a_limit(edge: Edge) -> None:
    edge.serve(ingress(proxy_body_size="2k"))
    assert edge.ask(method="POST", body=b"x" * 2000)[2]["size"] == 2000
    assert edge.ask(method="POST", body=b"x" * 4000)[0] == 413
    edge.serve(ingress(proxy_body_size="0"))
    assert edge.ask(method="POST", body=b"x" * 3_000_000)[2]["size"] == 3_000_000


def test_times_have_a_limit(edge: Edge) -> None:
    edge.serve(ingress(proxy_read_timeout="1", proxy_next_upstream="off"))
    assert edge.ask("/slow")[0] == 504 and edge.ask("/")[0] == 200


def test_a_cookie_keeps_a_client_with_its_server(edge: Edge) -> None:
    edge.serve(ingress("both", affinity="cookie", session_cookie_name="at-home"))
    _, headers, told = edge.ask()
    cookie = headers["set-cookie"].partition(";")[0]
    assert cookie.startswith("at-home=") and "HttpOnly" in headers["set-cookie"]
    where = {edge.ask(Cookie=cookie)[2]["who"] for _ in range(8)}
    assert where == {told["who"]}
    assert "set-cookie" not in edge.ask(Cookie=cookie)[1]
    assert len({edge.ask()[2]["who"] for _ in range(30)}) == 2


def test_only_some_may_come(edge: Edge) -> None:
    edge.serve(ingress(whitelist_source_range="192.0.2.0/24,198.51.100.1"))
    assert edge.ask()[0] == 403
    edge.serve(ingress(whitelist_source_range="127.0.0.0/8"))
    assert edge.ask()[0] == 200
    edge.serve(ingress(denylist_source_range="127.0.0.1"))
    assert edge.ask()[0] == 403


def test_only_who_has_a_password_may_come(edge: Edge) -> None:
    edge.secrets["users"] = {"auth": b"jo:{PLAIN}secret\n"}
    wish = {"auth_type": "basic", "auth_secret": "users", "auth_realm": "Shop $1"}
    edge.serve(ingress(**wish))
    code, headers, _ = edge.ask()
    assert code == 401 and headers["www-authenticate"] == 'Basic realm="Shop $1"'
    for password, wanted in (("secret", 200), ("wrong", 401)):
        token = base64.b64encode(f"jo:{password}".encode()).decode()
        assert edge.ask(Authorization=f"Basic {token}")[0] == wanted
    del edge.secrets["users"]
    problems = edge.serve(ingress(**wish))
    assert edge.ask()[0] == 503 and 'secret "default/users" not found' in problems


def test_a_canary_gets_its_part(edge: Edge) -> None:
    def canary(**wishes: str) -> list[str]:
        return edge.serve(ingress(), ingress("other", name="canary", canary="true", **wishes))

    stable, other = edge.services["stable"], edge.services["other"]
    canary(canary_by_header="X-Try", canary_by_cookie="try")
    assert edge.ask()[2]["who"] == stable
    assert edge.ask(X_Try="always")[2]["who"] == other
    assert edge.ask(X_Try="never", Cookie="try=always")[2]["who"] == stable
    assert edge.ask(Cookie="try=always")[2]["who"] == other
    canary(canary_by_header="X-Try", canary_by_header_value="v2")
    assert edge.ask(X_Try="v2")[2]["who"] == other and edge.ask(X_Try="v1")[2]["who"] == stable
    canary(canary_by_header="X-Try", canary_by_header_pattern="^v[2-9]$")
    assert edge.ask(X_Try="v7")[2]["who"] == other and edge.ask(X_Try="v1")[2]["who"] == stable
    canary(canary_weight="50")
    assert {edge.ask()[2]["who"] for _ in range(60)} == {stable, other}
    canary(canary_weight="100")
    assert {edge.ask()[2]["who"] for _ in range(10)} == {other}


def test_pages_of_other_origins(edge: Edge) -> None:
    edge.serve(ingress(enable_cors="true", cors_allow_origin="https://*.example.org"))
    code, headers, _ = edge.ask(method="OPTIONS", Origin="https://a.example.org")
    assert code == 204 and headers["access-control-allow-origin"] == "https://a.example.org"
    assert "PUT" in headers["access-control-allow-methods"]
    assert headers["access-control-max-age"] == "1728000"
    headers = edge.ask(Origin="https://a.example.org")[1]
    assert headers["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in edge.ask(Origin="https://evil.example")[1]


def test_too_many_requests_are_refused(edge: Edge) -> None:
    edge.serve(ingress(limit_rpm="2", limit_burst_multiplier="1"))
    codes = [edge.ask()[0] for _ in range(6)]
    assert codes[:3] == [200] * 3 and codes[3:] == [503] * 3
    wishes = {"limit_rpm": "2", "limit_whitelist": "127.0.0.0/8", "limit_burst_multiplier": "1"}
    edge.serve(ingress(name="free", **wishes))
    assert [edge.ask()[0] for _ in range(6)] == [200] * 6


def test_redirects(edge: Edge) -> None:
    edge.serve(ingress(force_ssl_redirect="true"))
    code, headers, _ = edge.ask("/a?b=c")
    assert (code, headers["location"]) == (308, f"https://{HOST}:{edge.https}/a?b=c")
    edge.serve(ingress(permanent_redirect="https://example.org/", permanent_redirect_code="308"))
    code, headers, _ = edge.ask()
    assert (code, headers["location"]) == (308, "https://example.org/")
    edge.serve(ingress(app_root="/start"))
    code, headers, _ = edge.ask()
    assert code == 302 and headers["location"].endswith("/start")


def test_a_web_socket_goes_through(edge: Edge) -> None:
    edge.serve(ingress())
    client = websocket.create_connection(f"ws://127.0.0.1:{edge.http}/chat", host=HOST, timeout=10)
    client.send("hello")
    assert client.recv() == "hello"
    client.close()


def test_grpc_goes_through(edge: Edge) -> None:
    edge.serve(ingress("remote", backend_protocol="GRPC"))
    trusted = grpc.ssl_channel_credentials(edge.certificate.partition(b"-----BEGIN PRIV")[0])
    options = [
        ("grpc.ssl_target_name_override", "ingress.local"),
        ("grpc.default_authority", HOST),
    ]
    with grpc.secure_channel(f"127.0.0.1:{edge.https}", trusted, options) as channel:
        reverse: Callable[..., bytes] = channel.unary_unary("/test.Text/Reverse")
        assert reverse(b"hello", timeout=10) == b"olleh"
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/test.Text/Nothing")(b"", timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_access_log_has_a_line_a_request(edge: Edge) -> None:
    edge.serve(ingress())
    edge.ask("/logged?yes")
    log = Path(edge.nginx._directory) / "access.log"
    line = eventually(
        lambda: next((li for li in log.read_text().splitlines() if "/logged?yes" in li), "")
    )
    assert line.startswith("127.0.0.1 - - [") and "[default-stable-80]" in line
    assert f"127.0.0.1:{edge.services['stable']}" in line
    edge.serve(ingress(path="/here"))
    assert edge.ask("/nowhere")[0] == 404
    eventually(lambda: "/nowhere" in log.read_text())
    edge.serve(ingress(enable_access_log="false"))
    edge.ask("/secret")
    edge.serve(ingress())
    edge.ask("/after")
    eventually(lambda: "/after" in log.read_text())
    assert "/secret" not in log.read_text()


def test_servers_may_speak_tls(edge: Edge) -> None:
    edge.serve(ingress("secure", backend_protocol="HTTPS"))
    assert edge.ask()[2]["who"] == edge.services["secure"]
    edge.serve(ingress("secure"))
    assert edge.ask()[0] >= 400


@pytest.mark.parametrize("service", ["remote", "remote-tls"])
def test_grpc_to_servers_with_and_without_tls(edge: Edge, service: str) -> None:
    protocol = {"remote": "GRPC", "remote-tls": "GRPCS"}[service]
    edge.serve(ingress(service, backend_protocol=protocol))
    trusted = grpc.ssl_channel_credentials(edge.certificate.partition(b"-----BEGIN PRIV")[0])
    options = [
        ("grpc.ssl_target_name_override", "ingress.local"),
        ("grpc.default_authority", HOST),
    ]
    with grpc.secure_channel(f"127.0.0.1:{edge.https}", trusted, options) as channel:
        assert channel.unary_unary("/test.Text/Reverse")(b"hello", timeout=30) == b"olleh"


def shown(edge: Edge, name: str = HOST) -> str:
    """The certificate that is shown to who asks for ``name``."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", edge.https), timeout=30) as raw,
        context.wrap_socket(raw, server_hostname=name) as secured,
    ):
        found = secured.getpeercert(binary_form=True)
        assert found is not None
        return ssl.DER_cert_to_PEM_cert(found).strip()


def test_redirects_to_tls_can_be_declined(edge: Edge) -> None:
    pem = certificates.default()
    cut = pem.index(b"-----BEGIN PRIVATE")
    edge.secrets["cert"] = {"tls.crt": pem[:cut], "tls.key": pem[cut:]}

    def secured(**wishes: str) -> dict[str, Any]:
        made = ingress(**wishes)
        made["spec"]["tls"] = [{"hosts": [HOST], "secretName": "cert"}]
        return made

    edge.serve(secured())
    assert edge.ask()[0] == 308 and shown(edge) == pem[:cut].decode().strip()
    edge.serve(secured(ssl_redirect="false"))
    assert edge.ask()[0] == 200
    # Without its key the host has the certificate of all others, and somebody is told.
    del edge.secrets["cert"]["tls.key"]
    [said] = edge.serve(secured(ssl_redirect="false"))
    assert said == 'secret "default/cert" has no usable certificate: no tls.key in it'
    assert edge.ask()[0] == 200
    assert shown(edge) == edge.certificate.partition(b"-----BEGIN PRIV")[0].decode().strip()


def test_hosts_without_a_certificate_have_the_default_one(edge: Edge) -> None:
    pem = certificates.default()
    cut = pem.index(b"-----BEGIN PRIVATE")
    edge.secrets["common"] = {"tls.crt": pem[:cut], "tls.key": pem[cut:]}
    edge.serve(ingress(), certificate="default/common")
    assert shown(edge) == shown(edge, "other.example.com") == pem[:cut].decode().strip()


def test_both_families_are_served(edge: Edge) -> None:
    if len(listeners(edge.http)) == 1:
        pytest.skip("this machine has no IPv6")
    edge.serve(ingress())
    connection = http.client.HTTPConnection("::1", edge.http, timeout=30)
    connection.request("GET", "/six", headers={"Host": HOST})
    told = json.loads(connection.getresponse().read())
    assert told["path"] == "/six" and told["headers"]["x-real-ip"] == "::1"
    connection.close()


def test_of_two_that_overlap_the_older_has_the_path(edge: Edge) -> None:
    first, second = ingress(name="first"), ingress("other", name="second")
    first["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    second["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    rule = {**second["spec"]["rules"][0]["http"]["paths"][0], "path": "/more"}
    second["spec"]["rules"][0]["http"]["paths"].append(rule)
    said = edge.serve(second, first)
    assert said == [f'host "{HOST}" and path "/" is already defined in ingress default/first']
    assert edge.ask("/")[2]["who"] == edge.services["stable"]
    assert edge.ask("/more/x")[2]["who"] == edge.services["other"]


def test_paths_of_all_types_go_together(edge: Edge) -> None:
    """The same path as another type, in Ingresses of two owners, and a default backend."""
    made = [
        ingress("other", path="/a", match="Exact", name="n1"),
        ingress("stable", path="/a", name="n2"),
        ingress("other", path="/a/", match="ImplementationSpecific", name="n3"),
        ingress("other", path="/", match="ImplementationSpecific", name="n4"),
        ingress("stable", path="/", name="n5"),
    ]
    backend = {"service": {"name": "stable", "port": {"number": 80}}}
    made[3]["spec"]["defaultBackend"] = backend
    said = edge.serve(*made)
    assert said == [f'host "{HOST}" and path "/" is already defined in ingress default/n4']
    stable, other = edge.services["stable"], edge.services["other"]
    wanted = {"/a": other, "/a/": other, "/a/b": other, "/ab": other, "/": other}
    assert {path: edge.ask(path)[2]["who"] for path in wanted} == wanted
    edge.serve(*made[:2])
    assert edge.ask("/a")[2]["who"] == other and edge.ask("/a/b")[2]["who"] == stable


def test_what_is_under_way_outlives_changes(edge: Edge) -> None:
    """A download and a WebSocket, while paths, wishes and endpoints become others."""
    edge.serve(ingress())
    download = http.client.HTTPConnection("127.0.0.1", edge.http, timeout=60)
    download.request("GET", "/long", headers={"Host": HOST})
    answer = download.getresponse()
    chat = websocket.create_connection(f"ws://127.0.0.1:{edge.http}/chat", host=HOST, timeout=60)
    changes = [
        ingress("other"),
        ingress("both", proxy_read_timeout="77"),
        ingress("other", path="/elsewhere"),
    ]
    for number, change in enumerate(changes):
        assert answer.read(len(PIECE)) == PIECE
        chat.send(f"hello {number}")
        assert chat.recv() == f"hello {number}"
        edge.serve(change)
        MORE.put(None)
    for _ in range(PIECES - len(changes)):
        assert answer.read(len(PIECE)) == PIECE
        MORE.put(None)
    assert answer.read() == b""
    chat.send("bye")
    assert chat.recv() == "bye"
    chat.close()
    download.close()


def test_processes_of_former_configurations_are_not_kept_without_end(edge: Edge) -> None:
    edge.serve(ingress())
    talking = []
    workers = len(edge._workers())
    for number in range(OLD_WORKERS // workers + 3):
        # One for each worker, as far as chance has it: they stay with their connections.
        for _ in range(4):
            chat = websocket.create_connection(
                f"ws://127.0.0.1:{edge.http}/chat", host=HOST, timeout=60
            )
            talking.append(chat)
        edge.serve(ingress(proxy_read_timeout=str(100 + number)))
        edge.nginx.retire()
    eventually(lambda: len(edge.nginx._old_workers()) <= OLD_WORKERS)
    talking[-1].send("still here")
    assert talking[-1].recv() == "still here"
    for chat in talking:
        chat.close()
    eventually(lambda: edge.nginx._old_workers() == [])


class Load:
    """Clients that keep their connections, asking until it is left; what they did not get.

    As RFC 9112, section 9.3.1, has it, a request on a connection that was used before, and that is
    closed before a byte of the answer came, is asked again on a new one.
    """

    def __init__(self, port: int, clients: int = 4) -> None:
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]
        self.answered = 0
        self.lost: list[str] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        used = False
        while not self._stop.is_set():
            try:
                connection.request("GET", "/", headers={"Host": HOST})
                answer = connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionError) as error:
                connection.close()
                if not used:
                    self.lost.append(repr(error))
                used = False
                continue
            answer.read()
            used = not answer.will_close
            if answer.status == 200:
                self.answered += 1
            else:
                self.lost.append(str(answer.status))
        connection.close()


def test_no_request_is_lost_while_much_changes(edge: Edge) -> None:
    edge.serve(ingress())
    with Load(edge.http) as load:
        for number in range(8):
            service = ("stable", "both", "other")[number % 3]
            before = load.answered
            edge.serve(ingress(service, proxy_read_timeout=str(60 + number)))
            eventually(lambda before=before: load.answered > before + 20)
    assert load.lost == []
