"""What pods may ask for beside their containers: gates, last words, ports of the node, hooks."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually
from test_kubelet_pods import events, make, ready, run_in, state

from ports import free_port


def condition(cluster: Instance, namespace: str, name: str, kind: str) -> dict[str, Any]:
    conditions = cluster.get("pod", name, "-n", namespace)["status"].get("conditions") or ()
    return next((c for c in conditions if c["type"] == kind), {})


def node_address(cluster: Instance) -> str:
    (node,) = cluster.get("nodes")["items"]
    return str(node["status"]["addresses"][0]["address"])


@contextlib.contextmanager
def udp_echo(cluster: Instance, namespace: str, name: str) -> Iterator[None]:
    """A server on port 53 of the pod's network; busybox has none."""
    status = cluster.get("pod", name, "-n", namespace)["status"]["containerStatuses"][0]
    id_ = status["containerID"].removeprefix("docker://")
    pid = cluster.docker("inspect", "-f", "{{.State.Pid}}", id_).out.strip()
    script = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        "s.bind(('', 53)); print(flush=True); s.sendto(*s.recvfrom(16))"
    )
    within = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", script]
    with subprocess.Popen(within, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        try:
            yield
        finally:
            server.kill()


def test_a_pod_is_ready_when_its_gates_are_open(cluster: Instance, namespace: str) -> None:
    make(cluster, namespace, "gated", readinessGates=[{"conditionType": "example.com/in"}])
    eventually(
        lambda: condition(cluster, namespace, "gated", "ContainersReady").get("status") == "True"
    )
    told = condition(cluster, namespace, "gated", "Ready")
    assert (told["status"], told["reason"]) == ("False", "ReadinessGatesNotReady")
    assert told["message"] == (
        'corresponding condition of pod readiness gate "example.com/in" does not exist.'
    )

    def open_gate(value: str) -> None:
        patch = {"status": {"conditions": [{"type": "example.com/in", "status": value}]}}
        cluster.kubectl(
            *("-n", namespace, "patch", "pod", "gated", "--subresource", "status"),
            *("-p", json.dumps(patch)),
        )

    open_gate("True")
    ready(cluster, namespace, "gated")
    assert condition(cluster, namespace, "gated", "example.com/in")["status"] == "True"
    open_gate("False")
    eventually(lambda: condition(cluster, namespace, "gated", "Ready")["status"] == "False")
    told = condition(cluster, namespace, "gated", "Ready")
    assert told["message"] == (
        'the status of pod readiness gate "example.com/in" is not "True", but False'
    )


def test_the_end_of_the_log_stands_for_last_words_where_there_are_none(
    cluster: Instance, namespace: str
) -> None:
    failing = "echo first; echo last; exit 3"
    policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    make(cluster, namespace, "log", restartPolicy="Never", command=failing, container=policy)
    make(cluster, namespace, "file", restartPolicy="Never", command=failing)
    spoken = f"echo words > /dev/termination-log; {failing}"
    make(cluster, namespace, "both", restartPolicy="Never", command=spoken, container=policy)
    well = failing.replace("3", "0")
    make(cluster, namespace, "well", restartPolicy="Never", command=well, container=policy)
    own = {**policy, "terminationMessagePath": "/tmp/words"}
    make(
        *(cluster, namespace, "path"),
        restartPolicy="Never",
        command="echo here > /tmp/words; exit 1",
        container=own,
    )
    for name, message in (
        ("log", "first\nlast\n"),
        ("file", None),
        ("both", "words\n"),
        ("well", None),
        ("path", "here\n"),
    ):
        ended = eventually(lambda n=name: state(cluster, namespace, n).get("terminated"))
        assert ended.get("message") == message, name


def test_ports_of_the_node_lead_into_pods_by_protocol_and_address(
    cluster: Instance, namespace: str
) -> None:
    address = node_address(cluster)
    tcp, udp, one = free_port(), free_port(socket.SOCK_DGRAM), free_port()
    serve = "mkdir /w && echo page > /w/index.html && exec httpd -f -p 80 -h /w"
    ports = [
        {"containerPort": 80, "hostPort": tcp},
        {"containerPort": 53, "hostPort": udp, "protocol": "UDP"},
        {"name": "one", "containerPort": 80, "hostPort": one, "hostIP": "127.0.0.1"},
    ]
    make(
        cluster,
        namespace,
        "published",
        command=serve,
        container={
            "ports": ports,
            "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
        },
    )
    ready(cluster, namespace, "published")

    def page(host: str, port: int) -> str:
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=60) as answer:
            return str(answer.read().decode())

    assert page(address, tcp) == "page\n"
    assert page("127.0.0.1", one) == "page\n"
    with pytest.raises(OSError):
        page(address, one)
    with (
        udp_echo(cluster, namespace, "published"),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
    ):
        asking.settimeout(60)
        asking.sendto(b"echo", (address, udp))
        assert asking.recv(16) == b"echo"

    # A second pod does not get the port while the first one has it.
    make(
        *(cluster, namespace, "second"),
        container={"ports": [{"containerPort": 80, "hostPort": tcp}]},
        nodeName=cluster.get("nodes")["items"][0]["metadata"]["name"],
    )
    eventually(
        lambda: cluster.get("pod", "second", "-n", namespace)["status"].get("reason") == "NodePorts"
    )
    cluster.kubectl("-n", namespace, "delete", "pod", "published")
    with pytest.raises(OSError):
        page(address, tcp)


def test_hooks_before_the_end_ask_a_server_or_wait(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    mounts = {"volumeMounts": [{"name": "h", "mountPath": "/h"}]}
    volumes = [{"name": "h", "hostPath": {"path": str(tmp_path)}}]
    serve = (
        "mkdir -p /w/cgi-bin; printf '#!/bin/sh\\necho asked >> /h/asked\\necho; echo\\n' "
        "> /w/cgi-bin/bye; chmod +x /w/cgi-bin/bye; "
        "trap 'echo term >> /h/asked; exit 0' TERM; httpd -p 8080 -h /w; "
        "while :; do sleep 0.1; done"
    )
    asking = {"preStop": {"httpGet": {"path": "/cgi-bin/bye", "port": "web"}}}
    make(
        *(cluster, namespace, "asked"),
        command=serve,
        container={
            **mounts,
            "lifecycle": asking,
            "ports": [{"name": "web", "containerPort": 8080}],
        },
        volumes=volumes,
        terminationGracePeriodSeconds=20,
    )
    waiting = (
        "trap 'date +%s > /h/end; exit 0' TERM; while :; do date +%s > /h/now; sleep 0.1; done"
    )
    make(
        *(cluster, namespace, "waits"),
        command=waiting,
        container={**mounts, "lifecycle": {"preStop": {"sleep": {"seconds": 2}}}},
        volumes=volumes,
        terminationGracePeriodSeconds=20,
    )
    ready(cluster, namespace, "asked")
    ready(cluster, namespace, "waits")
    eventually(lambda: run_in(cluster, namespace, "asked", "netstat -ltn | grep 8080; true"))
    now = tmp_path / "now"
    begun = int(eventually(lambda: now.exists() and now.read_text().strip()))
    cluster.kubectl("-n", namespace, "delete", "pod", "asked", "waits")
    assert (tmp_path / "asked").read_text().split() == ["asked", "term"]
    assert int((tmp_path / "end").read_text()) - begun >= 1  # whole seconds are told


def test_a_hook_that_fails_is_told_and_the_container_ends_all_the_same(
    cluster: Instance, namespace: str
) -> None:
    make(
        *(cluster, namespace, "failing"),
        container={"lifecycle": {"preStop": {"exec": {"command": ["false"]}}}},
        terminationGracePeriodSeconds=60,
    )
    ready(cluster, namespace, "failing")
    cluster.kubectl("-n", namespace, "delete", "pod", "failing")
    eventually(lambda: "FailedPreStopHook" in events(cluster, namespace, "failing"))


def test_services_are_told_unless_the_pod_does_not_want_them(
    cluster: Instance, namespace: str
) -> None:
    cluster.kubectl("-n", namespace, "create", "service", "clusterip", "my-kubia", "--tcp=80:8080")
    address = cluster.get("service", "my-kubia", "-n", namespace)["spec"]["clusterIP"]
    make(cluster, namespace, "linked")
    make(cluster, namespace, "alone", enableServiceLinks=False)
    for name in ("linked", "alone"):
        ready(cluster, namespace, name)

    def variables(name: str) -> dict[str, str]:
        lines = run_in(cluster, namespace, name, "env").splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    linked, alone = variables("linked"), variables("alone")
    assert linked["MY_KUBIA_SERVICE_HOST"] == address
    assert linked["MY_KUBIA_PORT_80_TCP_PORT"] == "80"
    assert linked["MY_KUBIA_PORT"] == f"tcp://{address}:80"
    assert not [name for name in alone if name.startswith("MY_KUBIA")]
    assert alone["KUBERNETES_SERVICE_HOST"] == linked["KUBERNETES_SERVICE_HOST"]
