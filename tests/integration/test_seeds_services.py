"""A well-known introduction's walk through Services and Ingresses, on an instance that serves both.

The image ``luksa/kubia`` is made by our builder, and says what the book's says.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest
from conftest import CLIENTS, Instance, eventually

from ports import free_port

_KUBIA = r"""FROM hello:1
RUN mkdir -p /www && printf '#!/bin/sh\nexec wget -qO- "$2"\n' > /bin/curl && chmod +x /bin/curl
ENTRYPOINT ["sh", "-c", "for f in index.html kubia foo; do echo This is v1 running in pod \
$(hostname) > /www/$f; done; trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait"]
"""

_DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: dev}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {name: NAME, labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {image: "luksa/kubia:v1", name: nodejs}
"""

_SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: kubia, namespace: dev}
spec:
  selector: {app: kubia}
  type: NodePort
  ports:
    - {port: 80, targetPort: 8080, nodePort: 30124}
---
apiVersion: v1
kind: Service
metadata: {name: bar, namespace: dev}
spec:
  selector: {app: kubia-bar}
  type: NodePort
  ports:
    - {port: 80, targetPort: 8080, nodePort: 30125}
---
apiVersion: v1
kind: Service
metadata: {name: kubia-nodeport, namespace: dev}
spec:
  selector: {app: kubia}
  type: NodePort
  ports:
    - {port: 80, targetPort: 8080, nodePort: 30123}
"""

_BY_PATH = """
apiVersion: networking.k8s.io/v1beta1
kind: Ingress
metadata: {name: kubia, namespace: dev}
spec:
  rules:
  - host: kubia.example.com
    http:
      paths:
      - path: /kubia
        backend: {serviceName: kubia, servicePort: 80}
      - path: /foo
        backend: {serviceName: bar, servicePort: 80}
"""

_BY_HOST = """
apiVersion: networking.k8s.io/v1beta1
kind: Ingress
metadata: {name: kubia, namespace: dev}
spec:
  rules:
  - host: kubia.example.com
    http:
      paths:
      - path: /
        backend: {serviceName: kubia, servicePort: 80}
  - host: bar.example.com
    http:
      paths:
      - path: /
        backend: {serviceName: bar, servicePort: 80}
"""


class Town:
    """The instance, and where its Ingresses are served."""

    def __init__(self, instance: Instance, http: int, https: int) -> None:
        self.instance, self.http, self.https = instance, http, https
        nodes = instance.get("nodes")["items"]
        self.node = nodes[0]["status"]["addresses"][0]["address"]

    def kubectl(self, *words: str, stdin: str | None = None, ok: bool = True) -> str:
        return self.instance.kubectl("-n", "dev", *words, stdin=stdin, ok=ok).out

    def curl(self, *words: str) -> str:
        argv = ["curl", "-s", "--max-time", "30", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def inside(self, url: str) -> str:
        return self.kubectl("exec", "deploy/kubia", "--", "curl", "-s", url, ok=False)


@pytest.fixture(scope="module")
def town(new_instance: Callable[[], Instance]) -> Iterator[Town]:
    instance = new_instance()
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{CLIENTS}:{path}"
    try:
        http, https = free_port(), free_port()
        instance.wherry("up", "--sample", "--ingress", f"{http}:{https}")
    finally:
        os.environ["PATH"] = path
    instance.docker("build", "-q", "-t", "luksa/kubia:v1", "-", stdin=_KUBIA)
    town = Town(instance, http, https)
    instance.kubectl("create", "namespace", "dev")
    town.kubectl("create", "-f", "-", stdin=_SERVICES)  # first, for the environment
    for name in ("kubia", "kubia-bar"):
        text = _DEPLOYMENT.replace("NAME", name).replace("REPLICAS", "2")
        town.kubectl("create", "-f", "-", stdin=text)
    town.kubectl("rollout", "status", "deploy/kubia", "--timeout=110s")
    town.kubectl("rollout", "status", "deploy/kubia-bar", "--timeout=110s")
    yield town
    instance.wherry("down", "--purge", "--grace", "1")


def test_a_service_is_found_from_inside(town: Town) -> None:
    address = town.kubectl("get", "svc", "kubia", "-o", "jsonpath={.spec.clusterIP}")
    for url in (
        f"http://{address}",
        "http://kubia",
        "http://kubia.dev",
        "http://kubia.dev.svc.cluster.local",
    ):
        page = eventually(lambda url=url: town.inside(url))
        assert page.startswith("This is v1 running in pod kubia-")
    environment = town.kubectl("exec", "deploy/kubia", "--", "env").splitlines()
    assert f"KUBIA_SERVICE_HOST={address}" in environment
    assert "KUBIA_PORT_80_TCP_PORT=80" in environment
    resolver = town.kubectl("exec", "deploy/kubia", "--", "cat", "/etc/resolv.conf")
    assert "search dev.svc.cluster.local svc.cluster.local cluster.local" in resolver
    assert "options ndots:5" in resolver


def test_its_endpoints_are_listed(town: Town) -> None:
    pods = json.loads(town.kubectl("get", "pods", "-l", "app=kubia", "-o", "json"))["items"]
    wanted = sorted(f"{pod['status']['podIP']}:8080" for pod in pods)

    def listed() -> list[str]:
        return sorted(
            town.kubectl("get", "endpoints", "kubia", "--no-headers").split()[1].split(",")
        )

    eventually(lambda: listed() == wanted)

    def described() -> bool:
        said = town.kubectl("describe", "svc", "kubia")
        return "Endpoints:" in said and all(entry in said for entry in wanted)

    eventually(described)


def test_a_node_port_is_reached_from_outside(town: Town) -> None:
    assert "80:30123/TCP" in town.kubectl("get", "svc", "kubia-nodeport")
    page = eventually(lambda: town.curl(f"http://{town.node}:30123"))
    assert page.startswith("This is v1 running in pod kubia-")
    town.kubectl(
        *("expose", "deployment", "kubia-bar", "--name=exposed"),
        *("--port=80", "--target-port=8080", "--type=NodePort"),
    )
    port = town.kubectl("get", "svc", "exposed", "-o", "jsonpath={.spec.ports[0].nodePort}")
    page = eventually(lambda: town.curl(f"{town.node}:{port}"))
    assert page.startswith("This is v1 running in pod kubia-bar-")


def test_two_services_on_one_host_and_two_hosts(town: Town) -> None:
    edge = f"http://{town.node}:{town.http}"

    def page(host: str, path: str = "/") -> str:
        found = town.curl("-f", "-H", f"Host: {host}", edge + path)
        return found.removeprefix("This is v1 running in pod ").rpartition("-")[0]

    town.kubectl("create", "-f", "-", stdin=_BY_PATH)
    # (A process of nginx that is about to end may answer once more as before.)
    eventually(lambda: page("kubia.example.com", "/kubia").startswith("kubia-"))
    assert not page("kubia.example.com", "/kubia").startswith("kubia-bar")
    eventually(lambda: page("kubia.example.com", "/foo").startswith("kubia-bar-"))
    town.kubectl("apply", "-f", "-", stdin=_BY_HOST)
    eventually(lambda: page("bar.example.com").startswith("kubia-bar-"))
    eventually(lambda: page("kubia.example.com").startswith("kubia-"))
    listed = eventually(lambda: town.node in (rows := town.kubectl("get", "ing")) and rows)
    assert "kubia.example.com,bar.example.com" in listed


def test_a_host_with_a_certificate(town: Town, tmp_path_factory: pytest.TempPathFactory) -> None:
    from wherry.kube.ingress import certificates

    place = tmp_path_factory.mktemp("tls")
    pem = certificates.default()
    cut = pem.index(b"-----BEGIN PRIVATE")
    (place / "tls.cert").write_bytes(pem[:cut])
    (place / "tls.key").write_bytes(pem[cut:])
    files = (f"--cert={place / 'tls.cert'}", f"--key={place / 'tls.key'}")
    town.kubectl("create", "secret", "tls", "tls-secret", *files)
    rule = "--rule=ingress.local/*=kubia:80,tls=tls-secret"
    town.kubectl("create", "ingress", "secured", "--class=nginx", rule)
    where = f"ingress.local:{town.https}:127.0.0.1"
    argv = ("--cacert", str(place / "tls.cert"), "--resolve", where)
    page = eventually(lambda: town.curl("-f", *argv, f"https://ingress.local:{town.https}/"))
    assert page.startswith("This is v1 running in pod kubia-")
