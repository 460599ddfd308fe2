"""Servers that say by which address they were asked, on nodes of either family or of both."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable
from typing import Any

from conftest import eventually
from machines import NodeInstance

SERVER = """
mkdir -p /www/cgi-bin
printf '#!/bin/sh\\necho\\necho $REMOTE_ADDR %s\\n' "$NODE" > /www/cgi-bin/who
chmod +x /www/cgi-bin/who
head -c 3000000 /dev/zero > /www/large
exec httpd -f -p 8080 -h /www
"""


def apply(cluster: NodeInstance, *objects: dict[str, Any]) -> None:
    document = {"apiVersion": "v1", "kind": "List", "items": objects}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(document))


def container(name: str, script: str, **fields: Any) -> dict[str, Any]:
    told = {"NODE": "spec.nodeName", "IPS": "status.podIPs", "HOSTS": "status.hostIPs"}
    return {
        "name": name,
        "image": "busybox:latest",
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        "env": [{"name": n, "valueFrom": {"fieldRef": {"fieldPath": p}}} for n, p in told.items()],
        **fields,
    }


def daemon_set(name: str, *, host_port: int = 8099) -> dict[str, Any]:
    main = container(
        "web",
        SERVER,
        ports=[{"containerPort": 8080, "hostPort": host_port}],
        readinessProbe={"httpGet": {"path": "/cgi-bin/who", "port": 8080}, "periodSeconds": 1},
    )
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [main], "terminationGracePeriodSeconds": 0},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    }


def client(name: str, node: str, **spec: Any) -> dict[str, Any]:
    idle = container("main", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "containers": [idle],
            "terminationGracePeriodSeconds": 0,
            **spec,
        },
    }


def service(name: str, **spec: Any) -> dict[str, Any]:
    wanted = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": wanted}


def family(address: str) -> str:
    return f"IPv{ipaddress.ip_address(address).version}"


def url(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/cgi-bin/who"


def heard(answer: str) -> tuple[str, str]:
    """Whom the server saw, and on which node it is."""
    seen, node = answer.split()
    address = ipaddress.ip_address(seen.strip("[]"))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address), node


def from_pod(
    cluster: NodeInstance, pod: str, address: str, port: int = 80, *, seconds: int = 20
) -> str:
    """What a pod is answered; empty where nothing comes."""
    asked = ("exec", pod, "--", "timeout", str(seconds), "wget", "-q", "-O-", url(address, port))
    return cluster.kubectl(*asked, ok=False).out.strip()


def from_node(cluster: NodeInstance, address: str, port: int = 80) -> str:
    script = f"import urllib.request as r; print(r.urlopen({url(address, port)!r}, timeout=20)"
    python = ("python3", "-c", f"{script}.read().decode())")
    return cluster.machine.run(*python, ok=False).out.strip()


def answer(ask: Callable[..., str], *words: Any) -> tuple[str, str]:
    """The same of the first answer that comes: rules, tunnels and endpoints follow what is told."""
    return heard(eventually(lambda: ask(*words)))


def assert_all_answer(nodes: Iterable[str], ask: Callable[[], str]) -> None:
    """Every node's server answers sooner or later."""
    seen: set[str] = set()
    for _ in range(30):
        seen.add(answer(ask)[1])
        if seen == set(nodes):
            return
    raise AssertionError(f"of {nodes} only {seen} answered")


def web_pods(cluster: NodeInstance) -> dict[str, dict[str, Any]]:
    """The server's pods by node."""
    found = cluster.get("pods", "-l", "app=web")["items"]
    return {pod["spec"]["nodeName"]: pod for pod in found}


def addresses(pod: dict[str, Any]) -> list[str]:
    return [entry["ip"] for entry in pod["status"]["podIPs"]]
