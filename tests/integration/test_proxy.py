"""Service addresses on the real kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually


def fetch(url: str, *options: str) -> tuple[int, str]:
    """curl's exit code and the page; 7 is a refused connection, 28 a timeout."""
    done = subprocess.run(
        ["curl", "-s", "--max-time", "10", *options, url],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def pod_of(page: str) -> str:
    """Who has answered; nobody, if that is no page."""
    words = page.split()
    return words[2].rstrip(",") if len(words) > 2 else ""


def service(cluster: Instance, namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    made = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))
    return cluster.get("svc", name, "-n", namespace)


@pytest.fixture
def web(cluster: Instance, namespace: str) -> Iterator[str]:
    """Three replicas of the sample, ready."""
    cluster.kubectl("-n", namespace, "create", "deployment", "web", "--image=hello:1")
    cluster.kubectl("-n", namespace, "scale", "deployment", "web", "--replicas=3")
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/web", "--timeout=110s")
    yield namespace
    cluster.kubectl("-n", namespace, "delete", "deployment", "web", ok=False)
    cluster.kubectl("-n", namespace, "delete", "pods", "--all", "--grace-period=1", ok=False)


def ready_slice(cluster: Instance, namespace: str, name: str, count: int) -> None:
    def ready() -> bool:
        slices = cluster.get(
            "endpointslices", "-n", namespace, "-l", f"kubernetes.io/service-name={name}"
        )["items"]
        found = [e for s in slices for e in s.get("endpoints") or () if e["conditions"]["ready"]]
        return len(found) == count

    eventually(ready)


def all_answer(cluster: Instance, namespace: str) -> str:
    """The address of the Service "web", once each of its three endpoints is asked."""
    address: str = service(cluster, namespace, "web")["spec"]["clusterIP"]
    ready_slice(cluster, namespace, "web", 3)

    def asked() -> set[str]:
        return {pod_of(fetch(f"http://{address}")[1]) for _ in range(6)} - {""}

    eventually(lambda: len(asked()) == 3)
    return address


def test_every_replica_answers_in_turn(cluster: Instance, web: str) -> None:
    address = all_answer(cluster, web)
    answers = Counter(pod_of(fetch(f"http://{address}")[1]) for _ in range(12))
    assert sorted(answers.values()) == [4, 4, 4]


def test_pods_reach_services_themselves_among_them(cluster: Instance, web: str) -> None:
    address = all_answer(cluster, web)
    pods = cluster.get("pods", "-n", web, "-l", "app=web")["items"]
    name = pods[0]["metadata"]["name"]
    script = f"for i in 1 2 3 4 5 6; do wget -qO- http://{address}; done"
    out = cluster.kubectl("-n", web, "exec", name, "--", "sh", "-c", script).out
    answers = Counter(pod_of(line) for line in out.splitlines())
    assert set(answers) == {p["metadata"]["name"] for p in pods}
    assert answers[name] == 2


def test_an_endpoint_that_leaves_is_asked_no_more(cluster: Instance, web: str) -> None:
    address = service(cluster, web, "web")["spec"]["clusterIP"]
    ready_slice(cluster, web, "web", 3)
    cluster.kubectl("-n", web, "scale", "deployment", "web", "--replicas=1")
    ready_slice(cluster, web, "web", 1)
    left = {p["metadata"]["name"] for p in cluster.get("pods", "-n", web)["items"]
            if "deletionTimestamp" not in p["metadata"]}  # fmt: skip

    def settled() -> bool:
        return {pod_of(fetch(f"http://{address}")[1]) for _ in range(4)} == left

    eventually(settled)


def test_without_endpoints_connections_are_refused_at_once(
    cluster: Instance, namespace: str
) -> None:
    address = service(cluster, namespace, "empty")["spec"]["clusterIP"]
    assert fetch(f"http://{address}")[0] == 7
    nobody = address.rsplit(".", 1)[0] + ".254"
    assert fetch(f"http://{nobody}")[0] == 7


def test_node_ports_answer_on_every_address_of_the_machine(cluster: Instance, web: str) -> None:
    made = service(cluster, web, "web", type="NodePort")
    ready_slice(cluster, web, "web", 3)
    port = made["spec"]["ports"][0]["nodePort"]
    node = cluster.get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    for address in ("127.0.0.1", node):
        eventually(lambda a=address: fetch(f"http://{a}:{port}")[0] == 0)
    cluster.kubectl("-n", web, "delete", "svc", "web")
    eventually(lambda: fetch(f"http://{node}:{port}")[0] == 7)


def test_a_client_with_affinity_keeps_its_endpoint_until_that_leaves(
    cluster: Instance, web: str
) -> None:
    made = service(cluster, web, "web", sessionAffinity="ClientIP")
    address = made["spec"]["clusterIP"]
    ready_slice(cluster, web, "web", 3)
    eventually(lambda: fetch(f"http://{address}")[0] == 0)
    chosen = {pod_of(fetch(f"http://{address}")[1]) for _ in range(6)}
    assert len(chosen) == 1
    (first,) = chosen
    cluster.kubectl("-n", web, "delete", "pod", first, "--grace-period=1")
    eventually(lambda: pod_of(fetch(f"http://{address}")[1]) not in (first, ""))
    assert len({pod_of(fetch(f"http://{address}")[1]) for _ in range(6)}) == 1


def test_the_api_server_is_a_service(cluster: Instance) -> None:
    address = cluster.get("svc", "kubernetes")["spec"]["clusterIP"]
    code, text = fetch(f"https://{address}/version", "-k")
    assert code == 0 and "gitVersion" in text


def test_a_killed_daemon_leaves_the_rules_and_its_successor_corrects_them(
    cluster: Instance, web: str
) -> None:
    address = service(cluster, web, "web")["spec"]["clusterIP"]
    gone = service(cluster, web, "gone")["spec"]["clusterIP"]
    ready_slice(cluster, web, "web", 3)
    for each in (address, gone):
        eventually(lambda a=each: fetch(f"http://{a}")[0] == 0)
    os.kill(cluster.pid("node"), signal.SIGKILL)
    assert fetch(f"http://{address}")[0] == 0
    cluster.kubectl("-n", web, "delete", "svc", "gone")
    cluster.wherry("up")
    eventually(lambda: fetch(f"http://{gone}")[0] == 7)
    assert fetch(f"http://{address}")[0] == 0


def test_no_packet_for_a_service_leaves_the_machine(cluster: Instance) -> None:
    address = cluster.get("svc", "kubernetes")["spec"]["clusterIP"]
    prefix = ".".join(address.split(".")[:2])
    routes = subprocess.run(
        ["ip", "route", "show", "root", f"{prefix}.0.0/16"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "dev lo" in routes and "unreachable" in routes
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
