"""The ingress controller in pods: behind a LoadBalancer, a NodePort, and in the nodes' network."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import yaml
from conftest import CLIENTS, Instance, eventually

from ports import free_port

BACKEND = """
apiVersion: v1
kind: Pod
metadata: {name: kubia, labels: {app: kubia}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: hello, image: "hello:1", ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: kubia}
spec: {selector: {app: kubia}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: kubia}
spec:
  rules:
  - host: kubia.example.com
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: kubia, port: {number: 80}}}}
"""


@pytest.fixture(scope="module")
def edge(new_instance: Callable[[], Instance]) -> Iterator[Instance]:
    instance = new_instance()
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{CLIENTS}:{path}"  # the node makes the image from the nginx it finds
    try:
        instance.wherry("up", "--sample")
    finally:
        os.environ["PATH"] = path
    instance.kubectl("apply", "-f", "-", stdin=BACKEND)
    yield instance
    instance.wherry("down", "--purge", "--grace", "1")


def manifest(*words: str) -> str:
    argv = [sys.executable, "-m", "wherry", "ingress", "manifest", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def fetch(address: str, host: str = "kubia.example.com") -> str:
    argv = ["curl", "-s", "--max-time", "30", "-H", f"Host: {host}", f"http://{address}/"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def ready(edge: Instance, what: str) -> None:
    edge.kubectl("-n", "ingress-nginx", "rollout", "status", what, "--timeout=110s")


def pods(edge: Instance) -> list[str]:
    """The names of the controller's pods, also of those that end."""
    return [pod["metadata"]["name"] for pod in edge.get("pods", "-n", "ingress-nginx")["items"]]


def reported(edge: Instance) -> list[str]:
    status = edge.get("ingress", "kubia").get("status") or {}
    found = (status.get("loadBalancer") or {}).get("ingress") or ()
    return [entry["ip"] for entry in found]


def test_a_deployment_behind_a_load_balancer_or_a_node_port(edge: Instance) -> None:
    edge.kubectl("apply", "-f", "-", stdin=manifest())
    ready(edge, "deploy/ingress-nginx-controller")
    of = ("svc", "ingress-nginx-controller", "-n", "ingress-nginx")
    listed = eventually(lambda: edge.get(*of)["status"]["loadBalancer"].get("ingress"))
    address = listed[0]["ip"]
    page = eventually(lambda: "Hello" in (p := fetch(address)) and p)
    assert "Hello from kubia" in page
    eventually(lambda: reported(edge) == [address])
    # Behind a node port, on every address of the node.
    edge.kubectl("apply", "-f", "-", stdin=manifest("--kind", "nodeport"))
    port = edge.get(*of)["spec"]["ports"][0]["nodePort"]
    node = edge.get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    eventually(lambda: "Hello from kubia" in fetch(f"{node}:{port}"))
    logged = ("-n", "ingress-nginx", "logs", "deploy/ingress-nginx-controller")
    eventually(lambda: '"GET / HTTP/1.1" 200' in edge.kubectl(*logged).out)
    # One that ends is followed by another.
    edge.kubectl("-n", "ingress-nginx", "rollout", "restart", "deploy/ingress-nginx-controller")
    ready(edge, "deploy/ingress-nginx-controller")
    # (kubectl would rather go into the one that has been ready for longer, and ends just now.)
    (pod,) = eventually(lambda: len(found := pods(edge)) == 1 and found)
    eventually(lambda: "Hello from kubia" in fetch(f"{node}:{port}"))
    # nginx killed alone comes back: the daemon that watches sees it.
    killing = "kill -9 $(cat /run/ingress/nginx.pid)"
    edge.kubectl("-n", "ingress-nginx", "exec", pod, "--", "sh", "-c", killing)
    edge.kubectl("create", "ingress", "more", "--rule=more.example.com/*=kubia:80")
    eventually(lambda: "Hello from kubia" in fetch(f"{node}:{port}", "more.example.com"))
    eventually(lambda: "Hello from kubia" in fetch(f"{node}:{port}"))
    edge.kubectl("delete", "ingress", "more")
    # When the last is gone, nobody is reached.
    scale = ("scale", "deploy/ingress-nginx-controller", "--replicas=0")
    edge.kubectl("-n", "ingress-nginx", *scale)
    eventually(lambda: reported(edge) == [])
    edge.kubectl("delete", "namespace", "ingress-nginx")


def test_a_daemon_set_in_the_nodes_network(edge: Instance) -> None:
    ports = [str(free_port()) for _ in range(2)]
    words = ("--kind", "daemonset", "--http-port", ports[0], "--https-port", ports[1])
    selecting = ("--node-selector", "edge=true")
    edge.kubectl("apply", "-f", "-", stdin=manifest(*words, *selecting))
    of = ("daemonset", "ingress-nginx-controller", "-n", "ingress-nginx")
    eventually(lambda: edge.get(*of)["status"].get("observedGeneration"))
    assert edge.get(*of)["status"]["desiredNumberScheduled"] == 0
    edge.kubectl("label", "nodes", "--all", "edge=true")
    eventually(lambda: edge.get(*of)["status"].get("numberReady") == 1)
    node = edge.get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    for address in (node, "127.0.0.1"):
        eventually(lambda address=address: "Hello from kubia" in fetch(f"{address}:{ports[0]}"))
    eventually(lambda: reported(edge) == [node])
    # A restart is no end: nobody writes into the status.
    before = edge.get("ingress", "kubia")["metadata"]["resourceVersion"]
    edge.kubectl("-n", "ingress-nginx", "rollout", "restart", "ds/ingress-nginx-controller")
    ready(edge, "ds/ingress-nginx-controller")
    assert edge.get("ingress", "kubia")["metadata"]["resourceVersion"] == before
    edge.kubectl("label", "nodes", "--all", "edge-")
    eventually(lambda: reported(edge) == [])
    edge.kubectl("delete", "namespace", "ingress-nginx")


def alike(count: int) -> str:
    """Controllers that each believe to be reached at an address of their own: the pod's."""
    objects = list(yaml.safe_load_all(manifest("--kind", "nodeport")))
    (deployment,) = (o for o in objects if o["kind"] == "Deployment")
    deployment["spec"]["replicas"] = count
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["args"] = [
        word for word in container["args"] if not word.startswith("--publish-service")
    ]
    container["args"].append("--publish-status-address=$(POD_IP)")
    address = {"fieldRef": {"fieldPath": "status.podIP"}}
    container["env"].append({"name": "POD_IP", "valueFrom": address})
    return yaml.safe_dump_all(objects)


def holder(edge: Instance) -> str:
    lease = edge.get("lease", "ingress-nginx-leader", "-n", "ingress-nginx")
    return lease["spec"].get("holderIdentity") or ""


def reported_by_holder(edge: Instance) -> str:
    """The pod that leads, where the status says its address."""
    leads = holder(edge)
    listed = edge.get("pods", "-n", "ingress-nginx")["items"]
    addresses = {pod["metadata"]["name"]: pod["status"].get("podIP") for pod in listed}
    return leads if leads in addresses and reported(edge) == [addresses[leads]] else ""


def version(edge: Instance) -> str:
    return edge.get("ingress", "kubia")["metadata"]["resourceVersion"]


def test_of_several_controllers_one_writes_statuses(edge: Instance) -> None:
    edge.kubectl("apply", "-f", "-", stdin=alike(2))
    ready(edge, "deploy/ingress-nginx-controller")
    first = eventually(lambda: reported_by_holder(edge))
    before = version(edge)
    time.sleep(3)  # long enough for a war of many battles
    assert version(edge) == before
    # Another follows the leader, and is heard.
    edge.kubectl("-n", "ingress-nginx", "delete", "pod", first, "--wait=false")
    second = eventually(lambda: (found := reported_by_holder(edge)) != first and found)
    eventually(lambda: first not in pods(edge))
    ready(edge, "deploy/ingress-nginx-controller")
    before = version(edge)
    time.sleep(3)
    assert version(edge) == before and reported_by_holder(edge) == second
    # All end at once, and none writes what another has taken back.
    edge.kubectl("delete", "namespace", "ingress-nginx")
    eventually(lambda: reported(edge) == [])


def test_without_nginx_it_is_said_what_is_missing(cluster: Instance, namespace: str) -> None:
    """The image cannot be made: an event of the pod says why."""
    image = "wherry.io/ingress-nginx:1"
    cluster.kubectl("-n", namespace, "run", "edge", f"--image={image}")
    said = "nginx is not installed; an ingress controller's image needs it"
    events = ("-n", namespace, "get", "events", "-o", "jsonpath={.items[*].message}")
    eventually(lambda: said in cluster.kubectl(*events).out)
