"""Annotations kubernetes.io/ingress-bandwidth and egress-bandwidth, by what they let through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Instance, eventually

BYTES = 3_000_000
LIMIT = "8M"  # bits a second: the bytes take three of them
SHORTEST = 2.0  # with what goes at once, and a clock of hundredths
INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"


def pod(name: str, **annotations: str) -> dict[str, Any]:
    command = f"mkdir /www; head -c {BYTES} /dev/zero > /www/much; httpd -f -p 80 -h /www"
    container = {
        "name": "web",
        "image": "busybox:latest",
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


class World:
    """Pods called ``free``, ``in`` and ``out``: one has no limit, the others in one direction."""

    def __init__(self, cluster: Instance, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin).out

    def create(self, *pods: dict[str, Any]) -> None:
        body = {"apiVersion": "v1", "kind": "List", "items": pods}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def fetch(self, here: str, there: str) -> float:
        """The seconds that it takes ``here`` to get the bytes of ``there``, as it sees them."""
        address = self.cluster.get("pod", there, "-n", self.namespace)["status"]["podIP"]
        clock = "cut -d' ' -f1 /proc/uptime"
        command = f"{clock}; wget -qO- http://{address}/much | wc -c; {clock}"
        said = self.kubectl("exec", here, "--", "sh", "-c", command).split()
        assert int(said[1]) == BYTES
        return float(said[2]) - float(said[0])

    def links(self, name: str) -> set[str]:
        """The links that there are for the limit of a pod's sandbox."""
        found = self.cluster.docker(
            "ps", "-aq", "--no-trunc", "--filter", f"label=io.kubernetes.pod.name={name}",
            "--filter", f"label=io.kubernetes.pod.namespace={self.namespace}",
        ).out.split()  # fmt: skip
        listed = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
        present = {line.split("@")[0].split()[0] for line in listed.stdout.splitlines()}
        return {f"ifb{id[:12]}" for id in found} & present


@pytest.fixture(scope="module")
def world(cluster: Instance) -> Iterator[World]:
    cluster.wherry("images", "bootstrap", "busybox")
    namespace = f"bandwidth-{os.getpid()}"
    cluster.kubectl("create", "namespace", namespace)
    made = World(cluster, namespace)
    made.create(
        pod("free"),
        pod("in", **{INGRESS: LIMIT}),
        pod("out", **{EGRESS: LIMIT}),
    )
    made.kubectl("wait", "--for=condition=Ready", "pod", "--all")
    yield made
    cluster.kubectl("delete", "namespace", namespace)


def test_what_goes_to_a_pod_is_limited_and_what_it_sends_is_not(world: World) -> None:
    slow = world.fetch("in", "free")
    assert slow >= SHORTEST
    eventually(lambda: world.fetch("free", "in") < slow / 2)


def test_what_a_pod_sends_is_limited_and_what_goes_to_it_is_not(world: World) -> None:
    slow = world.fetch("free", "out")
    assert slow >= SHORTEST
    eventually(lambda: world.fetch("out", "free") < slow / 2)


def test_values_that_make_no_sense_are_told_in_events(world: World) -> None:
    for name, value, why in (
        ("small", "1", "resource is unreasonably small (< 1kbit)"),
        ("large", "2P", "resource is unreasonably large (> 1Pbit)"),
        ("none", "fast", "quantities must match the regular expression"),
    ):
        world.create(pod(name, **{EGRESS: value}))
        wanted = f"failed to get pod bandwidth from annotations: {why}"
        chosen = ("--field-selector", f"involvedObject.name={name},reason=FailedCreatePodSandBox")
        eventually(lambda c=chosen, w=wanted: w in world.kubectl("get", "events", *c))
        world.kubectl("delete", "pod", name)


def test_a_limit_outlives_a_killed_node_and_nothing_is_left_of_it(world: World) -> None:
    links = world.links("out")
    assert len(links) == 1 and not world.links("in") | world.links("free")
    os.kill(world.cluster.pid("node"), signal.SIGKILL)
    world.cluster.wherry("up")
    assert world.links("out") == links
    assert world.fetch("free", "out") >= SHORTEST
    world.kubectl("delete", "pod", "in", "out")
    (link,) = links

    def gone() -> bool:
        return subprocess.run(["ip", "link", "show", link], capture_output=True).returncode != 0

    eventually(gone)
