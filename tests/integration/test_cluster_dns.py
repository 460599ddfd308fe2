"""Pods find Services by name, as users see it from inside."""

from __future__ import annotations

import pytest
from conftest import Instance, eventually

WORLD = """
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec:
  containers: [{name: c, image: "hello:1", command: [sh, -c, "sleep 1000"]}]
  terminationGracePeriodSeconds: 0
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: crew}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: web.NAMESPACE.svc.cluster.local}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  hostname: first
  subdomain: crew
  containers: [{name: hello, image: "hello:1", ports: [{containerPort: 8080}]}]
  terminationGracePeriodSeconds: 0
"""


@pytest.fixture
def asker(cluster: Instance, namespace: str) -> Instance:
    world = WORLD.replace("NAMESPACE", namespace)
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=world)
    pods = ("wait", "--for=condition=Ready", "pod/asker", "pod/web", "--timeout=60s")
    cluster.kubectl("-n", namespace, *pods)
    return cluster


def test_services_are_found_by_name(asker: Instance, namespace: str) -> None:
    def inside(*command: str, ok: bool = True) -> str:
        return asker.kubectl("-n", namespace, "exec", "asker", "--", *command, ok=ok).out

    service = asker.get("svc", "web", "-n", namespace)["spec"]["clusterIP"]
    pod = asker.get("pod", "web", "-n", namespace)["status"]["podIP"]
    dns = asker.get("svc", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]

    resolver = inside("cat", "/etc/resolv.conf")
    assert f"nameserver {dns}\n" in resolver
    wanted = f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local"
    assert wanted in resolver and "options ndots:5" in resolver

    name = f"web.{namespace}.svc.cluster.local"
    assert f"Address: {service}" in inside("nslookup", name)
    assert f"Address: {pod}" in inside("nslookup", f"first.crew.{namespace}.svc.cluster.local")
    assert f"Address: {service}" in inside("nslookup", f"elsewhere.{namespace}.svc.cluster.local")
    assert "NXDOMAIN" in inside("nslookup", f"nobody.{namespace}.svc.cluster.local", ok=False)
    assert name in inside("nslookup", service)
    for short in ("web", f"web.{namespace}", f"web.{namespace}.svc", name):
        page = eventually(lambda short=short: inside("wget", "-qO-", f"http://{short}/", ok=False))
        assert "Hello from first" in page


def test_a_service_that_comes_is_found_at_once(asker: Instance, namespace: str) -> None:
    def found() -> str:
        command = ("nslookup", f"late.{namespace}.svc.cluster.local")
        return asker.kubectl("-n", namespace, "exec", "asker", "--", *command, ok=False).out

    assert "NXDOMAIN" in found()
    asker.kubectl("-n", namespace, "create", "service", "clusterip", "late", "--tcp=80")
    address = asker.get("svc", "late", "-n", namespace)["spec"]["clusterIP"]
    eventually(lambda: f"Address: {address}" in found())
    asker.kubectl("-n", namespace, "delete", "service", "late")
    eventually(lambda: "NXDOMAIN" in found())
