"""A small server of custom.metrics.k8s.io and external.metrics.k8s.io, in a thread."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
Object = dict[str, Any]


def certificate(directory: Path, name: str, address: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(address))]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "tls.crt", directory / "tls.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


class Adapter:
    """``with Adapter(address, pair)``; what it answers stands in its dicts, by metric."""

    def __init__(self, address: str, pair: tuple[Path, Path]) -> None:
        self.external: dict[str, list[str]] = {}
        self.pods: dict[str, str] = {}
        """A value that all pods have."""
        self.objects_: dict[str, str] = {}
        self.asked: list[str] = []
        adapter = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                code, answer = adapter.answer(self.path)
                body = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.address = address
        self._server = ThreadingHTTPServer((address, 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*map(str, pair))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Adapter:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, Object]:
        url = urlsplit(path)
        self.asked.append(path)
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        match url.path.strip("/").split("/"):
            case ["apis", group, version]:
                return 200, _resources(group, version)
            case ["apis", group, _, "namespaces", _, metric] if group == EXTERNAL:
                if metric not in self.external:
                    return 404, _status(404, "NotFound", f"no metric {metric}")
                values = self.external[metric]
                items = [{"metricName": metric, "value": v, "timestamp": now} for v in values]
                return 200, {"kind": "ExternalMetricValueList", "items": items}
            case ["apis", group, _, "namespaces", _, "pods", "*", metric] if group == CUSTOM:
                assert parse_qs(url.query)["labelSelector"] == ["app=web"]
                return 200, self._of_pods(metric, now)
            case ["apis", group, _, "namespaces", _, what, name, metric] if group == CUSTOM:
                assert what == "deployments.apps"
                described = {"kind": "Deployment", "name": name}
                value = {"value": self.objects_[metric], "timestamp": now}
                return 200, {
                    "kind": "MetricValueList",
                    "items": [{"describedObject": described, "metric": {"name": metric}, **value}],
                }
        return 404, _status(404, "NotFound", "the server could not find the requested resource")

    def _of_pods(self, metric: str, now: str) -> Object:
        return {
            "kind": "MetricValueList",
            "items": [
                {
                    "describedObject": {"kind": "Pod", "name": "some-pod"},
                    "metric": {"name": metric},
                    "value": self.pods[metric],
                    "timestamp": now,
                }
            ],
        }

    def objects(self) -> list[Object]:
        """What a cluster must hold to find it."""
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "adapter", "namespace": "default"},
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": self.port}]},
        }
        piece = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "adapter",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "adapter"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [self.address], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
        }
        return [service, piece, *(_registered(*each) for each in _SERVED)]


_SERVED = ((CUSTOM, "v1beta2"), (EXTERNAL, "v1beta1"))


def _registered(group: str, version: str) -> Object:
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{version}.{group}"},
        "spec": {
            "group": group,
            "version": version,
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"name": "adapter", "namespace": "default"},
        },
    }


def _resources(group: str, version: str) -> Object:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}",
        "resources": [],
    }


def _status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
