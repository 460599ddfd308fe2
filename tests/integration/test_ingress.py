"""Ingresses served by a real nginx: hosts, paths, TLS, changes under load, what goes wrong."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import CLIENTS, Instance, eventually

from ports import free_port
from wherry.kube.ingress import certificates

WORLD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, labels: {app: NAME}}
spec:
  replicas: 2
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: hello
        image: "hello:1"
        command:
        - sh
        - -c
        - |
          trap 'exit 0' TERM
          for page in index.html bar barn; do echo Hello from $(hostname) > /www/$page; done
          httpd -f -p 8080 -h /www & wait
        ports: [{name: http, containerPort: 8080}]
        lifecycle: {preStop: {exec: {command: [sleep, "1"]}}}
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: {app: NAME}, ports: [{name: web, port: 80, targetPort: http}]}
"""

RULES = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: nginx
  tls: [{hosts: [secure.example.com], secretName: cert}]
  rules:
  - host: shop.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: kubia, port: {name: web}}}}
      - {path: /bar, pathType: Exact, backend: {service: {name: bar, port: {number: 80}}}}
  - host: "*.wild.example.com"
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: bar, port: {number: 80}}}}
  - host: secure.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: kubia, port: {number: 80}}}}
"""

OLD = """
apiVersion: extensions/v1beta1
kind: Ingress
metadata:
  name: old
  annotations: {nginx.ingress.kubernetes.io/rewrite-target: /}
spec:
  rules:
  - host: old.example.com
    http:
      paths:
      - {path: /kubia, backend: {serviceName: kubia, servicePort: 80}}
      - {path: /foo, backend: {serviceName: bar, servicePort: 80}}
"""


FORMER = """
apiVersion: networking.k8s.io/v1beta1
kind: Ingress
metadata:
  name: former
  annotations: {kubernetes.io/ingress.class: nginx}
spec:
  backend: {serviceName: kubia, servicePort: 80}
  rules:
  - host: former.example.com
    http: {paths: [{backend: {serviceName: bar, servicePort: web}}]}
"""


class Edge:
    """An instance that serves Ingresses, and clients of it."""

    def __init__(self, instance: Instance, http: int, https: int) -> None:
        self.instance, self.http, self.https = instance, http, https

    def kubectl(self, *words: str, stdin: str | None = None, ok: bool = True) -> str:
        return self.instance.kubectl(*words, stdin=stdin, ok=ok).out

    def get(self, host: str, path: str = "/", **headers: str) -> tuple[int, str]:
        """Code and body of an answer, 0 for none; redirects are not followed."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}")
        request.add_header("Host", host)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with _OPENER.open(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Location") or error.read().decode()
        except OSError as error:
            return 0, repr(error)

    def served(self, host: str, path: str = "/") -> str:
        """The page, once there is one."""
        return eventually(lambda: (a := self.get(host, path))[0] == 200 and a[1])

    def certificate(self, name: str) -> str:
        """The certificate that a client who asks for ``name`` is shown, as PEM."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.https), timeout=30) as raw,
            context.wrap_socket(raw, server_hostname=name) as secured,
        ):
            shown = secured.getpeercert(binary_form=True)
            assert shown is not None
            return ssl.DER_cert_to_PEM_cert(shown)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


@pytest.fixture(scope="module")
def edge(new_instance: Callable[[], Instance]) -> Iterator[Edge]:
    instance = new_instance()
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{CLIENTS}:{path}"
    try:
        http, https = free_port(), free_port()
        backend = "default-backend-service=default/errors"  # not there yet
        instance.wherry("up", "--sample", "--ingress", f"{http}:{https}", "--ingress-arg", backend)
    finally:
        os.environ["PATH"] = path
    edge = Edge(instance, http, https)
    for name in ("kubia", "bar"):
        edge.kubectl("apply", "-f", "-", stdin=WORLD.replace("NAME", name))
    pem = certificates.default()
    cut = pem.index(b"-----BEGIN PRIVATE")
    crt, key = (base64.b64encode(part).decode() for part in (pem[:cut], pem[cut:]))
    secret = (
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: cert}\n"
        f"data: {{tls.crt: {crt}, tls.key: {key}}}\n"
    )
    edge.kubectl("apply", "-f", "-", stdin=secret)
    edge.kubectl("apply", "-f", "-", stdin=RULES)
    edge.kubectl("rollout", "status", "deploy/kubia", "deploy/bar", "--timeout=110s")
    yield edge
    instance.wherry("down", "--purge", "--grace", "1")


def test_hosts_and_paths(edge: Edge) -> None:
    assert edge.served("shop.example.com").startswith("Hello from kubia-")
    assert edge.served("shop.example.com", "/bar").startswith("Hello from bar-")
    assert edge.served("shop.example.com", "/barn").startswith("Hello from kubia-")
    assert edge.served("one.wild.example.com").startswith("Hello from bar-")
    assert edge.get("one.two.wild.example.com")[0] == 404
    assert edge.get("nobody.example.com")[0] == 404
    assert edge.get("127.0.0.1", "/healthz")[0] == 200
    ip = edge.instance.get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    eventually(lambda: {ip, "nginx"} <= set(edge.kubectl("get", "ingress", "shop").split()))
    eventually(lambda: "Scheduled for sync" in edge.kubectl("describe", "ingress", "shop"))
    assert f"ports {edge.http} and {edge.https}\n" in edge.instance.wherry("status").out


def test_the_old_manifests_work_unchanged(edge: Edge) -> None:
    edge.kubectl("apply", "-f", "-", stdin=OLD)
    assert edge.served("old.example.com", "/kubia").startswith("Hello from kubia-")
    assert edge.served("old.example.com", "/foo").startswith("Hello from bar-")
    edge.kubectl("delete", "ingress", "old")
    eventually(lambda: edge.get("old.example.com", "/kubia")[0] == 404)


def test_the_former_group_works_unchanged(edge: Edge) -> None:
    """``networking.k8s.io/v1beta1``, with a class by annotation and a port by its name."""
    edge.kubectl("apply", "-f", "-", stdin=FORMER)
    assert edge.served("former.example.com", "/barn").startswith("Hello from bar-")
    assert edge.instance.get("ingress", "former")["apiVersion"] == "networking.k8s.io/v1"
    edge.kubectl("delete", "ingress", "former")


def test_a_name_outside_of_the_cluster_is_a_backend(edge: Edge) -> None:
    """An ExternalName, which is asked for anew as its owner says."""
    name = "bar.default.svc.cluster.local"
    edge.kubectl("create", "service", "externalname", "outside", f"--external-name={name}")
    rule = "--rule=outside.example.com/*=outside:80"
    edge.kubectl("create", "ingress", "outside", "--class=nginx", rule)
    assert edge.served("outside.example.com").startswith("Hello from bar-")
    edge.kubectl("delete", "ingress/outside", "service/outside")


def test_what_is_wrong_is_told_and_harms_nobody(edge: Edge) -> None:
    pem = certificates.default()
    crt = base64.b64encode(pem[: pem.index(b"-----BEGIN PRIVATE")]).decode()
    body = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: keyless}}\ndata: {{tls.crt: {crt}}}\n"
    edge.kubectl("apply", "-f", "-", stdin=body)
    make = ("create", "ingress")
    edge.kubectl(*make, "keyless", "--class=nginx", "--rule=less.example.com/*=bar:80,tls=keyless")
    edge.kubectl(*make, "taken", "--class=nginx", "--rule=shop.example.com/*=bar:80")
    edge.kubectl(*make, "nowhere", "--class=nginx", "--rule=nowhere.example.com/*=nobody:80")
    for name, said in {
        "keyless": 'secret "default/keyless" has no usable certificate: no tls.key in it',
        "taken": 'host "shop.example.com" and path "/" is already defined in ingress default/shop',
        "nowhere": 'service "default/nobody" not found',
    }.items():
        eventually(lambda name=name, said=said: said in edge.kubectl("describe", "ingress", name))
    assert edge.served("shop.example.com").startswith("Hello from kubia-")
    # An event is told when it is known, and nginx follows.
    eventually(lambda: edge.get("less.example.com")[0] == 308)
    eventually(lambda: edge.get("nowhere.example.com")[0] == 503)
    edge.kubectl("delete", "ingress", "keyless", "taken", "nowhere")
    edge.kubectl("delete", "secret", "keyless")


def test_tls_by_name_and_redirect(edge: Edge) -> None:
    data = edge.instance.get("secret", "cert")["data"]
    wanted = base64.b64decode(data["tls.crt"]).decode().strip()
    eventually(lambda: edge.certificate("secure.example.com").strip() == wanted)
    assert edge.certificate("shop.example.com").strip() != wanted
    code, location = edge.get("secure.example.com", "/x?y=1")
    assert (code, location) == (308, f"https://secure.example.com:{edge.https}/x?y=1")


def test_wishes(edge: Edge) -> None:
    passwords = base64.b64encode(b"jo:{PLAIN}secret\n").decode()
    users = "apiVersion: v1\nkind: Secret\nmetadata: {name: users}\n"
    edge.kubectl("apply", "-f", "-", stdin=f"{users}data: {{auth: {passwords}}}")
    edge.kubectl("create", "ingress", "login", "--class=nginx", "--rule=in.example.com/*=kubia:80")
    edge.served("in.example.com")
    prefix = "nginx.ingress.kubernetes.io/"
    edge.kubectl(
        "annotate",
        "ingress",
        "login",
        f"{prefix}auth-type=basic",
        f"{prefix}auth-secret=users",
        f"{prefix}enable-cors=true",
    )
    eventually(lambda: edge.get("in.example.com")[0] == 401)
    token = base64.b64encode(b"jo:secret").decode()
    assert edge.get("in.example.com", Authorization=f"Basic {token}")[0] == 200
    edge.kubectl("annotate", "ingress", "login", f"{prefix}whitelist-source-range=192.0.2.0/24")
    eventually(lambda: edge.get("in.example.com", Authorization=f"Basic {token}")[0] == 403)
    # A service says who may come, by its name in the cluster.
    annotate = ("annotate", "ingress", "login", "--overwrite")
    url = f"{prefix}auth-url=http://bar.default.svc.cluster.local/bar"
    edge.kubectl(
        *annotate, url, *(f"{prefix}{name}-" for name in ("whitelist-source-range", "auth-type"))
    )
    assert edge.served("in.example.com").startswith("Hello from kubia-")
    edge.kubectl(*annotate, f"{prefix}enable-cors=maybe")
    eventually(lambda: edge.get("in.example.com")[0] == 503)
    eventually(lambda: "must be true or false" in edge.kubectl("describe", "ingress", "login"))
    edge.kubectl("delete", "ingress", "login")


def test_one_that_nginx_refuses_takes_no_other_down(edge: Edge) -> None:
    edge.kubectl("create", "ingress", "bad", "--class=nginx", "--rule=bad.example.com/*=kubia:80")
    edge.served("bad.example.com")
    wish = "nginx.ingress.kubernetes.io/use-regex=true"
    edge.kubectl("annotate", "ingress", "bad", wish)
    broken = '[{"op": "replace", "path": "/spec/rules/0/http/paths/0/path", "value": "/(x"}]'
    edge.kubectl("patch", "ingress", "bad", "--type=json", "-p", broken)
    eventually(lambda: "nginx refuses it" in edge.kubectl("describe", "ingress", "bad"))
    assert edge.get("shop.example.com")[0] == 200
    edge.kubectl("create", "ingress", "late", "--class=nginx", "--rule=late.example.com/*=bar:80")
    assert edge.served("late.example.com").startswith("Hello from bar-")
    edge.kubectl("delete", "ingress", "bad", "late")


class Load:
    """Clients that keep their connections, asking until it is left; what was not answered well.

    As RFC 9112, section 9.3.1, has it, a request on a connection that was used before, and that is
    closed before a byte of the answer came, is asked again on a new one.
    """

    def __init__(self, edge: Edge, host: str, clients: int = 3) -> None:
        self._port, self._host = edge.http, host
        self._stop = threading.Event()
        self.answered, self.lost = 0, list[str]()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        used = False
        while not self._stop.is_set():
            try:
                connection.request("GET", "/", headers={"Host": self._host})
                answer = connection.getresponse()
                body = answer.read()
            except (http.client.RemoteDisconnected, ConnectionError) as error:
                connection.close()
                if not used:
                    self.lost.append(repr(error))
                used = False
                continue
            used = not answer.will_close
            if answer.status == 200:
                self.answered += 1
            else:
                self.lost.append(f"{answer.status} {body[:80]!r}")
        connection.close()


def test_no_request_is_lost_while_pods_and_ingresses_change(edge: Edge) -> None:
    edge.served("shop.example.com")
    with Load(edge, "shop.example.com") as load:
        edge.kubectl("set", "image", "deploy/kubia", "hello=hello:2")
        edge.kubectl("rollout", "status", "deploy/kubia", "--timeout=110s")
        for number in range(5):
            rule = f"--rule=n{number}.example.com/*=bar:80"
            edge.kubectl("create", "ingress", f"n{number}", "--class=nginx", rule)
        edge.served("n4.example.com")
        edge.kubectl("delete", "ingress", *(f"n{number}" for number in range(5)))
        eventually(lambda: edge.get("n4.example.com")[0] == 404)
    assert load.lost == [] and load.answered > 50


def test_traffic_flows_on_without_a_controller(edge: Edge) -> None:
    before = _nginx(edge)
    assert before
    os.kill(edge.instance.pid("server"), signal.SIGKILL)
    for _ in range(20):
        assert edge.get("shop.example.com")[0] == 200
    _up(edge)
    assert _nginx(edge) == before
    edge.kubectl("create", "ingress", "after", "--class=nginx", "--rule=after.example.com/*=bar:80")
    assert edge.served("after.example.com").startswith("Hello from bar-")
    edge.kubectl("delete", "ingress", "after")


def test_traffic_flows_on_without_a_controller_and_the_master_of_nginx(edge: Edge) -> None:
    before = _nginx(edge)
    with Load(edge, "shop.example.com") as load:
        os.kill(edge.instance.pid("server"), signal.SIGKILL)
        os.kill(before[0], signal.SIGKILL)
        _up(edge)
        eventually(lambda: _nginx(edge) not in ((), before))
        rule = "--rule=after.example.com/*=bar:80"
        edge.kubectl("create", "ingress", "after", "--class=nginx", rule)
        assert edge.served("after.example.com").startswith("Hello from bar-")
    assert load.lost == [] and load.answered > 50
    edge.kubectl("delete", "ingress", "after")


def test_settings_for_all_are_in_a_config_map(edge: Edge) -> None:
    edge.kubectl("create", "namespace", "ingress-nginx")
    make = ("-n", "ingress-nginx", "create", "configmap", "ingress-nginx-controller")
    edge.kubectl(
        *make, "--from-literal=server-tokens=true", "--from-literal=log-format-upstream=$x"
    )
    describe = ("-n", "ingress-nginx", "describe", "configmap")
    eventually(lambda: "nginx refuses it" in edge.kubectl(*describe))
    assert edge.get("shop.example.com")[0] == 200
    change = ("-n", "ingress-nginx", "patch", "configmap", "ingress-nginx-controller", "-p")
    edge.kubectl(*change, '{"data": {"log-format-upstream": null, "proxy-body-size": "lots"}}')
    eventually(lambda: "proxy-body-size: 'lots' must be a size" in edge.kubectl(*describe))
    eventually(lambda: "nginx/" in edge.get("nobody.example.com")[1])
    edge.kubectl("delete", "namespace", "ingress-nginx")


def test_a_default_backend_for_all(edge: Edge) -> None:
    edge.kubectl("expose", "deploy/bar", "--name=errors", "--port=80", "--target-port=http")
    assert edge.served("nobody.example.com").startswith("Hello from bar-")
    edge.kubectl("delete", "service", "errors")
    eventually(lambda: edge.get("nobody.example.com")[0] == 404)


def test_when_nobody_serves_any_longer_statuses_say_no_address(edge: Edge) -> None:
    asked = ("get", "ingress", "shop", "-o", "jsonpath={.status.loadBalancer} {.metadata.uid}")
    eventually(lambda: '"ip"' in edge.kubectl(*asked))
    assert _nginx(edge)
    os.kill(edge.instance.pid("server"), signal.SIGKILL)
    edge.instance.wherry("up", "--ingress", "off")
    eventually(lambda: edge.kubectl(*asked).startswith("{} "))
    eventually(lambda: _nginx(edge) == ())


def _up(edge: Edge) -> None:
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{CLIENTS}:{path}"
    try:
        edge.instance.wherry("up")
    finally:
        os.environ["PATH"] = path


def _nginx(edge: Edge) -> tuple[int, ...]:
    """The master's process, and when it began (in ticks); empty where none runs."""
    from wherry.launcher.instance import find

    instance = find(edge.instance.data_dir)
    assert instance is not None
    try:
        pid = int((instance.run_dir / "ingress" / "nginx.pid").read_text())
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):  # it writes its number just now
        return ()
    return () if words[0] == "Z" else (pid, int(words[19]))
