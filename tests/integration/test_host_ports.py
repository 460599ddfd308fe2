"""Pods that share a ``hostPort`` at different addresses, and those that want it everywhere."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually

from ports import free_port
from wherry.net import namespaces

SERVER = "mkdir /www; hostname > /www/name; exec httpd -f -p 80 -h /www"
LOCAL = "127.0.0.1"


class World:
    """Pods in a namespace of their own, and who answers at an address of the node."""

    def __init__(self, cluster: Instance, namespace: str) -> None:
        self.cluster, self.namespace, self.port = cluster, namespace, free_port()
        addresses = cluster.get("nodes")["items"][0]["status"]["addresses"]
        self.node = next(a["address"] for a in addresses if a["type"] == "InternalIP")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin).out

    def create(self, name: str, host_ip: str = "", protocol: str = "TCP") -> None:
        own = {"hostPort": self.port, "protocol": protocol}
        if host_ip:
            own["hostIP"] = host_ip
        container: dict[str, Any] = {
            "name": "web",
            "image": "busybox:latest",
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", SERVER],
            "ports": [{"containerPort": 80, **own}],
            "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(pod))

    def ready(self, *names: str) -> None:
        pods = [f"pod/{name}" for name in names]
        self.kubectl("wait", "--for=condition=Ready", *pods, "--timeout=110s")

    @contextlib.contextmanager
    def datagrams(self, name: str) -> Iterator[None]:
        """A server in that pod that says its name to whoever sends anything."""
        labels = [f"io.kubernetes.pod.{key}" for key in ("name", "namespace")]
        wanted = zip(labels, (name, self.namespace), strict=True)
        chosen = [f"--filter=label={key}={value}" for key, value in wanted]
        ids = self.cluster.docker("ps", "-q", "--filter=name=k8s_POD_", *chosen).out.split()
        place = self.cluster.docker("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", *ids).out
        with namespaces.enter(Path(place.strip())):
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", 80))

        def serve() -> None:
            while (asked := server.recvfrom(64))[0] != b"end":
                server.sendto(name.encode(), asked[1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with namespaces.enter(Path(place.strip())):
                teller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            teller.sendto(b"end", (LOCAL, 80))
            teller.close()
            thread.join()
            server.close()

    def answer(self, address: str) -> str:
        """Who answers in TCP; empty where nobody does."""
        with contextlib.suppress(OSError):
            with socket.create_connection((address, self.port), timeout=10) as connection:
                connection.sendall(b"GET /name HTTP/1.0\r\n\r\n")
                said = b""
                while data := connection.recv(4096):
                    said += data
            return said.decode().split("\r\n\r\n")[-1].strip()
        return ""


@pytest.fixture(scope="module")
def world(cluster: Instance) -> Iterator[World]:
    cluster.wherry("images", "bootstrap", "busybox")
    namespace = f"host-ports-{os.getpid()}"
    cluster.kubectl("create", "namespace", namespace)
    yield World(cluster, namespace)
    cluster.kubectl("delete", "namespace", namespace)


def test_pods_share_a_port_at_different_addresses_and_no_other(world: World) -> None:
    world.create("loop", LOCAL)
    world.create("out", world.node)
    world.ready("loop", "out")
    for address, name in ((LOCAL, "loop"), (world.node, "out")):
        assert eventually(lambda a=address: world.answer(a)) == name
    # A pod reaches another by the port of the node, and itself.
    for name in ("loop", "out"):
        url = f"http://{world.node}:{world.port}/name"
        assert world.kubectl("exec", name, "--", "wget", "-qO-", url).strip() == "out"

    # Who wants the port everywhere waits until nobody has it.
    world.create("all")
    why = "node(s) didn't have free ports for the requested pod ports"
    chosen = ("--field-selector", "involvedObject.name=all,reason=FailedScheduling")
    eventually(lambda: why in world.kubectl("get", "events", *chosen))
    world.kubectl("delete", "pod", "loop")
    world.kubectl("delete", "pod", "out")
    world.ready("all")
    for address in (LOCAL, world.node):
        assert eventually(lambda a=address: world.answer(a)) == "all"


def ask(flow: socket.socket) -> str:
    """Who answers a datagram; empty where nobody does soon."""
    with contextlib.suppress(OSError):
        flow.send(b"who")
        return flow.recv(64).decode()
    return ""


def test_datagrams_reach_the_pod_that_has_the_port_now(world: World) -> None:
    flows = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    try:
        for flow, address in zip(flows, (LOCAL, world.node), strict=True):
            flow.settimeout(0.5)
            flow.connect((address, world.port))
        # (The port in TCP is another pod's meanwhile.) One and the same flow follows the port.
        for name in ("first", "second"):
            world.create(name, protocol="UDP")
            world.ready(name)
            with world.datagrams(name):
                for flow in flows:
                    eventually(lambda f=flow, n=name: ask(f) == n)  # type: ignore[misc]
            world.kubectl("delete", "pod", name)
        assert not any(map(ask, flows))
    finally:
        for flow in flows:
            flow.close()


def test_nobody_answers_when_the_pod_is_gone(world: World) -> None:
    world.kubectl("delete", "pods", "--all")
    eventually(lambda: not world.answer(LOCAL) and not world.answer(world.node))
