"""One nginx for a module of tests, and the servers behind it."""

from __future__ import annotations

import asyncio
import http.server
import shutil
import ssl
import tempfile
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from ingress_edge import Echo, Edge

from wherry.kube.ingress import certificates


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) for _ in range(2)]
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
    secured = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
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
    edge = Edge(place, services, pem[:cut])
    yield edge
    asyncio.run(edge.nginx.stop())
    shutil.rmtree(place, ignore_errors=True)  # a process of it may write its last line
    remote.stop(None)
    for server in servers:
        server.shutdown()
        server.server_close()


class _Reverse(grpc.GenericRpcHandler):
    """One method, which sends bytes back the other way round."""

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method == "/test.Text/Reverse":
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request[::-1])
        if handler_call_details.method == "/test.Text/Each":
            return grpc.stream_stream_rpc_method_handler(lambda asked, _: (r[::-1] for r in asked))
        return None
