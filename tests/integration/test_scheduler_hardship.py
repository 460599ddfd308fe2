"""Schedulers as processes of their own that are killed, doubled and refused, on an API server with
nodes of which nothing but the objects exists."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiserver_process import SOURCE, Server
from conftest import eventually

NODES = 5
ON_EACH = 4
ELECTED = (
    "--leader-elect-lease-duration=6s",
    "--leader-elect-renew-deadline=5s",
    "--leader-elect-retry-period=200ms",
)


class Scheduler:
    """``python -m wherry.kube.scheduler``; what it says lies in a file of its own."""

    def __init__(self, server: Server, name: str, *arguments: str) -> None:
        self.server, self.name = server, name
        self.arguments = arguments
        self.log = server.directory / f"scheduler-{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Scheduler:
        kubeconfig = self.server.kubeconfig("system:kube-scheduler")
        argv = [sys.executable, "-m", "wherry.kube.scheduler", "--kubeconfig", str(kubeconfig)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*argv, *self.arguments],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(SOURCE)},
            )
        return self

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def leads(self) -> bool:
        return self.lives and " leads" in self.log.read_text()

    def kill(self) -> None:
        """As a machine that loses its power."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def node(name: str) -> dict[str, Any]:
    room = {"cpu": str(ON_EACH), "memory": "8Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": room, "allocatable": room, "conditions": [ready]},
    }


def pod(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    resources = {"requests": {"cpu": "1"}}
    container = {"name": "c", "image": "app:1", "resources": resources}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [container], **spec},
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("schedulers")).start()
    names = [f"n{number}" for number in range(NODES)]
    create(made, *map(node, names))
    made.kubectl("taint", "nodes", "--all", "node.kubernetes.io/not-ready-")
    yield made
    made.stop()


@pytest.fixture
def namespace(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"t{abs(hash(request.node.name)) % 10**8}"
    server.kubectl("create", "namespace", name)
    server.kubectl("-n", name, "create", "serviceaccount", "default")
    yield name
    server.kubectl("-n", name, "delete", "pods", "--all", "--force", "--grace-period=0")


@pytest.fixture
def scheduler(server: Server) -> Iterator[Any]:
    """Starts schedulers, which end with the test."""
    made: list[Scheduler] = []

    def start(name: str, *arguments: str) -> Scheduler:
        made.append(Scheduler(server, name, *arguments).start())
        return made[-1]

    yield start
    for each in made:
        each.kill()


def create(server: Server, *objects: dict[str, Any]) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    server.kubectl("create", "-f", "-", stdin=json.dumps(listed))


def places(server: Server, namespace: str) -> dict[str, str]:
    """The node of each pod that has one."""
    pods = server.get("-n", namespace, "pods")["items"]
    return {p["metadata"]["name"]: p["spec"]["nodeName"] for p in pods if p["spec"].get("nodeName")}


def failures(server: Server, namespace: str) -> int:
    """How many times pods are said to have been tried in vain."""
    events = server.get("-n", namespace, "events")["items"]
    return sum(e.get("count") or 1 for e in events if e["reason"] == "FailedScheduling")


def leading(candidates: list[Scheduler]) -> Scheduler | None:
    """The one that acts; who lost the lease on a busy machine has ended, and is started again."""
    for each in candidates:
        if not each.lives:
            each.start()
    return next((each for each in candidates if each.leads), None)


def test_of_two_one_acts_and_when_it_is_killed_the_other_takes_over_and_none_is_placed_twice(
    server: Server, namespace: str, scheduler: Any
) -> None:
    both = [scheduler(name, *ELECTED) for name in ("a", "b")]
    number = 0
    for _ in range(2):
        leader = eventually(lambda: leading(both))
        for _ in range(3):
            create(server, pod(f"p{number}", namespace), pod(f"p{number + 1}", namespace))
            number += 2
        time.sleep(random.uniform(0, 0.3))  # any moment must do
        leader.kill()
        leader.start()
    expected = {f"p{each}" for each in range(number)}
    eventually(lambda: leading(both) and places(server, namespace).keys() == expected)
    assert max(Counter(places(server, namespace).values()).values()) <= ON_EACH
    events = server.get("-n", namespace, "events")["items"]
    told = Counter(e["involvedObject"]["name"] for e in events if e["reason"] == "Scheduled")
    assert max(told.values()) == 1


def test_two_that_do_not_know_of_each_other_bind_each_pod_once(
    server: Server, namespace: str, scheduler: Any
) -> None:
    for name in ("c", "d"):
        scheduler(name, "--leader-elect=false")
    names = [f"p{number}" for number in range(NODES * ON_EACH)]
    create(server, *(pod(name, namespace) for name in names))
    eventually(lambda: len(places(server, namespace)) == len(names))
    server.kubectl("-n", namespace, "delete", "pod", names[0], "--force", "--grace-period=0")
    create(server, pod("later", namespace))
    eventually(lambda: "later" in places(server, namespace))


def test_a_binding_that_a_webhook_holds_up_is_told_tried_ever_seldomer_and_takes_no_room(
    server: Server, namespace: str, scheduler: Any
) -> None:
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "resources": ["pods/binding"],
        "operations": ["CREATE"],
    }
    named = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    hook = {
        "name": "dead.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [rule],
        "namespaceSelector": named,
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    create(
        server,
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": namespace},
            "webhooks": [hook],
        },
    )
    begun = time.monotonic()
    scheduler("e", "--leader-elect=false")
    only = {"nodeSelector": {"kubernetes.io/hostname": "n0"}}
    held = [f"held{number}" for number in range(ON_EACH)]
    create(server, *(pod(name, namespace, **only) for name in held))
    eventually(lambda: failures(server, namespace) >= 2 * ON_EACH)
    tries, waited = failures(server, namespace), time.monotonic() - begun
    assert tries <= ON_EACH * (1 + waited), "never two tries of a pod within a second"
    described = server.kubectl("-n", namespace, "describe", "pod", held[0]).out
    assert 'failed calling webhook "dead.example.com"' in described
    assert "FailedScheduling" in described
    other = f"{namespace}-free"
    server.kubectl("create", "namespace", other)
    server.kubectl("-n", other, "create", "serviceaccount", "default")
    free = [f"free{number}" for number in range(ON_EACH)]
    create(server, *(pod(name, other, **only) for name in free))
    eventually(lambda: len(places(server, other)) == ON_EACH)
    server.kubectl("delete", "validatingwebhookconfiguration", namespace)
    server.kubectl("-n", other, "delete", "pods", "--all", "--force", "--grace-period=0")
    eventually(lambda: places(server, namespace).keys() == set(held))


def test_what_is_bound_while_the_api_server_is_away_is_bound_when_it_is_back(
    tmp_path: Path,
) -> None:
    server = Server(tmp_path).start()
    create(server, node("n0"))
    server.kubectl("taint", "nodes", "--all", "node.kubernetes.io/not-ready-")
    server.kubectl("create", "serviceaccount", "default")
    running = Scheduler(server, "f", "--leader-elect=false").start()
    try:
        create(server, pod("first", "default"))
        eventually(lambda: "first" in places(server, "default"))
        for number in range(3):
            create(server, pod(f"p{number}", "default"))
            server.kill()
            server.start()
        # (It asks again ever seldomer, while the server was away three times.)
        eventually(lambda: len(places(server, "default")) == ON_EACH, seconds=180)
        create(server, pod("more", "default"))
        told = "0/1 nodes are available: 1 Insufficient cpu."
        eventually(lambda: told in server.kubectl("describe", "pod", "more").out)
    finally:
        running.kill()
        server.stop()
