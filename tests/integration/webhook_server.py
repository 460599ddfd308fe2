"""A webhook of a test's own: an HTTPS server on loopback that answers as it is told."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from apiserver_process import Authority

Answerer = Callable[[dict[str, Any]], dict[str, Any] | None]
"""From the request of a review to its response (without the uid)."""


class WebhookServer:
    """Serves ``paths``; what it was asked is in ``asked``, by path, in order."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.paths: dict[str, Answerer] = {}
        self.asked: dict[str, list[dict[str, Any]]] = {}
        self.queries: list[str] = []
        self.connections = 0
        certificate, key = self.authority.issue("webhook", "webhook", hosts=("hook.default.svc",))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.names: list[str | None] = []
        context.sni_callback = lambda _, name, __: self.names.append(name)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def bundle(self) -> str:
        return base64.b64encode(self.authority.certificate.read_bytes()).decode()

    def client(self, path: str, answer: Answerer) -> dict[str, Any]:
        """A clientConfig for a new path."""
        self.paths[path] = answer
        self.asked[path] = []
        return {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": self.bundle}


def _handler(owner: WebhookServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            owner.connections += 1

        def do_POST(self) -> None:
            path, _, query = self.path.partition("?")
            owner.queries.append(query)
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = owner.paths.get(path)
            if answer is None:
                self.send_error(404)
                return
            owner.asked[path].append(review)
            response = answer(review["request"])
            if response is None:
                self.send_response(500)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"oops")
                return
            whole = response.pop("__whole__", None) or {
                "kind": review["kind"],
                "apiVersion": review["apiVersion"],
                "response": {"uid": review["request"]["uid"], **response},
            }
            data = json.dumps(whole).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked may have given up
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler


def allow(request: dict[str, Any]) -> dict[str, Any]:
    return {"allowed": True}


def patch(*operations: dict[str, Any]) -> Answerer:
    """Allows, and changes the object so."""
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    return lambda request: {"allowed": True, "patch": data, "patchType": "JSONPatch"}


def slow(seconds: float) -> Answerer:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        time.sleep(seconds)
        return {"allowed": True}

    return answer
