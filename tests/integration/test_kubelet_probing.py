"""How the kubelet asks: the requests of its probes, as a server of the test's own sees them."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from conftest import Instance, eventually
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pods_on_node import container, events, first_status, make, ready

PATIENCE = 60.0
EVERY = {"periodSeconds": 1, "timeoutSeconds": 20}


class Asked:
    """Requests of probes and when they came; ``answers`` are the next ones' status codes."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str, str, dict[str, str]]] = []
        self.answers: list[int] = []
        self.last = 200
        self.location = ""

    @contextlib.contextmanager
    def serve(self, tls: ssl.SSLContext | None = None) -> Iterator[int]:
        """Answer on a free port of 127.0.0.1."""
        asked = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): text for name, text in self.headers.items()}
                code = asked.answers.pop(0) if asked.answers else asked.last
                asked.seen.append((time.time(), self.command, self.path, headers))
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", asked.location)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"said")

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def probed(port: int, **fields: Any) -> dict[str, Any]:
    get = {"host": "127.0.0.1", "port": port, **fields}
    return {"httpGet": get}


def is_ready(cluster: Instance, namespace: str, name: str) -> bool:
    return bool(first_status(cluster, namespace, name).get("ready"))


def test_a_request_is_made_as_the_probe_says(cluster: Instance, namespace: str) -> None:
    asked = Asked()
    headers = [{"name": "X-Who", "value": "me"}, {"name": "Host", "value": "example.com"}]
    with asked.serve() as port:
        probe = probed(port, path="/ready?x=1", httpHeaders=headers)
        make(cluster, namespace, "told", container(readinessProbe={**probe, **EVERY}))
        ready(cluster, namespace, "told")
        _, method, path, seen = asked.seen[0]
        assert (method, path) == ("GET", "/ready?x=1")
        assert (seen["x-who"], seen["host"]) == ("me", "example.com")
        assert seen["user-agent"].startswith("kube-probe/") and seen["accept"] == "*/*"
        # A status of 300 and more but less than 400 is good; another host is not asked.
        asked.last, asked.location = 302, "http://elsewhere.invalid/"
        eventually(lambda: "ProbeWarning" in events(cluster, namespace, "told"))
        assert is_ready(cluster, namespace, "told")
        asked.last = 500
        text = "Readiness probe failed: HTTP probe failed with statuscode: 500"
        eventually(lambda: text in events(cluster, namespace, "told"))
        eventually(lambda: not is_ready(cluster, namespace, "told"))
        cluster.kubectl("-n", namespace, "delete", "pod", "told", "--now")


def test_a_certificate_nobody_vouches_for_is_good_enough(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now - datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "both.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    asked = Asked()
    with asked.serve(tls) as port:
        make(
            *(cluster, namespace, "tls"),
            container(readinessProbe={**probed(port, scheme="HTTPS"), **EVERY}),
        )
        ready(cluster, namespace, "tls")
        assert asked.seen
        # Without TLS there is no answer that could be read.
        make(cluster, namespace, "plain", container(readinessProbe={**probed(port), **EVERY}))
        eventually(lambda: "Readiness probe failed: Get " in events(cluster, namespace, "plain"))
        assert not is_ready(cluster, namespace, "plain")
        cluster.kubectl("-n", namespace, "delete", "pod", "tls", "plain", "--now")


def test_a_probe_begins_after_its_delay_and_counts_in_a_row(
    cluster: Instance, namespace: str
) -> None:
    asked = Asked()
    asked.answers = [500, 200, 500]  # a success between failures begins the count anew
    with asked.serve() as port:
        probe = {**probed(port), **EVERY, "initialDelaySeconds": 3, "successThreshold": 3}
        make(
            *(cluster, namespace, "slow"),
            container(readinessProbe={**probe, "failureThreshold": 3}),
        )
        ready(cluster, namespace, "slow")
        assert len(asked.seen) >= 6
        started = first_status(cluster, namespace, "slow")["state"]["running"]["startedAt"]
        begun = datetime.datetime.fromisoformat(started).timestamp()  # whole seconds
        assert asked.seen[0][0] >= begun + 3
        # Two failures are not yet three.
        before = len(asked.seen)
        asked.answers = [500, 500]
        eventually(lambda: len(asked.seen) >= before + 4)
        assert is_ready(cluster, namespace, "slow")
        before = len(asked.seen)
        asked.last = 500
        eventually(lambda: not is_ready(cluster, namespace, "slow"))
        assert len(asked.seen) >= before + 3
        cluster.kubectl("-n", namespace, "delete", "pod", "slow", "--now")


class Health(grpc.GenericRpcHandler):
    """The health service, without its generated code: one field in, one out."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answer = 1  # SERVING

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if call.method != "/grpc.health.v1.Health/Check":
            return None

        def check(request: bytes, _context: grpc.ServicerContext) -> bytes:
            self.asked.append(request)
            return bytes((8, self.answer))

        return grpc.unary_unary_rpc_method_handler(check)


@pytest.fixture
def health() -> Iterator[tuple[Health, int]]:
    """A gRPC server on the node, and its port."""
    handler = Health()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("0.0.0.0:0")
    server.start()
    yield handler, port
    server.stop(None).wait()


def test_a_grpc_server_is_asked_for_a_service_by_name(
    cluster: Instance, namespace: str, health: tuple[Health, int]
) -> None:
    handler, port = health
    probe = {"grpc": {"port": port, "service": "shop"}, **EVERY, "timeoutSeconds": 5}
    make(cluster, namespace, "rpc", container(readinessProbe=probe), hostNetwork=True)
    ready(cluster, namespace, "rpc")
    assert handler.asked[0] == b"\x0a\x04shop"
    handler.answer = 2  # NOT_SERVING
    eventually(lambda: not is_ready(cluster, namespace, "rpc"), seconds=PATIENCE)
    text = 'service unhealthy (responded with "NOT_SERVING")'
    eventually(lambda: text in events(cluster, namespace, "rpc"))
    handler.answer = 1
    ready(cluster, namespace, "rpc")
    cluster.kubectl("-n", namespace, "delete", "pod", "rpc", "--now")
