"""A real nginx, driven as by the controller, and servers on loopback behind it. No cluster."""

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
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from conftest import CLIENTS, eventually

from ports import free_port
from wherry.kube.ingress import certificates
from wherry.kube.ingress.annotations import PREFIX
from wherry.kube.ingress.build import build
from wherry.kube.ingress.nginx import Nginx, listeners
from wherry.kube.ingress.render import render
from wherry.kube.ingress.settings import Settings
from wherry.kube.ingress.world import World

HOST = "shop.example.com"
PIECE, PIECES = b"x" * 1000, 6
MORE: queue.Queue[None] = queue.Queue()
MIRRORED: queue.Queue[tuple[str, bytes]] = queue.Queue()
"""Path and body of what came to ``/mirror``."""


class Echo(http.server.BaseHTTPRequestHandler):
    """Says who it is and what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/never"):
            self.rfile.read(1)  # until who has asked goes
            self.close_connection = True
            return
        if self.path.startswith("/long"):
            self._send_long()
            return
        if self.headers.get("Upgrade") == "websocket":
            self._upgrade()
            return
        if self.path.startswith("/mirror"):
            MIRRORED.put((self.path, body))
        if self.path.startswith("/auth"):
            self._judge()
            return
        said = {
            "who": self.server.server_port,
            "path": self.path,
            "size": len(body),
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }
        data = json.dumps(said).encode()
        code = self.path.partition("/code/")[2]
        self.send_response(int(code[:3]) if code else 200)
        self.send_header("Content-Length", str(len(data)))
        if self.path.startswith("/moved"):
            self.send_header("Location", "http://inside.example.com/new")
            self.send_header("Set-Cookie", "a=b; Domain=inside.example.com; Path=/in")
        if self.path.startswith("/open"):
            self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.do_GET()

    def do_OPTIONS(self) -> None:
        self.do_GET()

    def _judge(self) -> None:
        """Who has the cookie may come in; what was asked is told."""
        self.send_response(200 if "key=right" in (self.headers.get("Cookie") or "") else 401)
        self.send_header("Content-Length", "0")
        self.send_header("Set-Cookie", "seen=yes")
        self.send_header("X-Auth-User", "jo")
        for name in ("X-Original-URL", "X-Original-Method", "X-Auth-Request-Redirect"):
            self.send_header(name.replace("X-", "X-Told-"), self.headers.get(name) or "-")
        self.send_header("X-Told-Method", self.command)
        self.end_headers()

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

    def __init__(
        self, place: Path, services: dict[str, int], backend_certificate: bytes = b""
    ) -> None:
        self.http, self.https = free_port(), free_port()
        self.services = services
        self.backend_certificate = backend_certificate
        """Of those that speak TLS."""
        self.secrets: dict[str, dict[str, bytes]] = {}
        self.nginx = Nginx(shutil.which("nginx") or str(CLIENTS / "nginx"), place)
        self.nginx.prepare()
        self.certificate = certificates.default()
        self.nginx.keep_files({"default.pem": self.certificate})
        self._settings = Settings(
            str(place), listeners(self.http), listeners(self.https), self.https, connections=512
        )

    def serve(
        self,
        *ingresses: dict[str, Any],
        certificate: str = "",
        backend: str = "",
        settings: dict[str, str] | None = None,
    ) -> list[str]:
        """Put these in force; what is wrong with them."""
        configuration = build(
            World(
                ingresses,
                self._service,
                self._slices,
                lambda _, name: self._secret(name),
                certificate,
                backend,
                settings or {},
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
        self.nginx.drop_files({**configuration.files, "default.pem": b""})
        eventually(lambda: self.ask(f"/{mark}", host="x")[0] == 200)
        # Those of before take no more connections.
        eventually(lambda: not before & self._workers())
        problems = [problem for found in configuration.problems.values() for problem in found]
        return problems + configuration.unusable

    def files(self) -> list[str]:
        """The names of the certificates and passwords that there are."""
        return [path.name for path in (Path(self.nginx._directory) / "secrets").iterdir()]

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
        spec = {"clusterIP": "127.0.0.1", "ports": [{"name": "web", "port": 80}]}
        if name == "alone":  # its address is what answers, not its endpoints
            spec["ports"] = [{"name": "web", "port": self.services["other"]}]
            return {"metadata": {"name": name}, "spec": spec}
        known = name in self.services or name == "empty"
        return {"metadata": {"name": name}, "spec": spec} if known else None

    def _slices(self, _: str, name: str) -> list[dict[str, Any]]:
        if name in ("empty", "alone"):
            return []
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

    def curl(self, *words: str) -> str:
        """What curl prints, headers and page, of an answer to a request for ``HOST``."""
        argv = ["curl", "-si", "--max-time", "30", "--insecure"]
        for port in (self.http, self.https):
            argv += ["--connect-to", f"::127.0.0.1:{port}"] if f":{port}" in words[-1] else []
        return subprocess.run([*argv, *words], capture_output=True, text=True, check=True).stdout

    def _secret(self, name: str) -> dict[str, Any] | None:
        found = self.secrets.get(name)
        if found is None:
            return None
        return {"data": {key: base64.b64encode(value).decode() for key, value in found.items()}}

    def ask(
        self, path: str = "/", method: str = "GET", body: bytes = b"", host: str = HOST, **more: str
    ) -> tuple[int, dict[str, str], Any]:
        """Code, headers (in small letters) and what the server said of the request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=60)
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
    name, host = wishes.pop("name", "shop"), wishes.pop("host", HOST)
    annotations = {PREFIX + key.replace("_", "-"): value for key, value in wishes.items()}
    backend = {"service": {"name": service, "port": {"number": 80}}}
    rule = {
        "host": host,
        "http": {"paths": [{"path": path, "pathType": match, "backend": backend}]},
    }
    metadata = {"name": name, "namespace": "default", "annotations": annotations}
    return {"metadata": metadata, "spec": {"rules": [rule]}}


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
