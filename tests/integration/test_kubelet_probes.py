"""Probes of every kind against real containers, and what users see of them."""

from __future__ import annotations

from typing import Any

from conftest import Instance, eventually
from pods_on_node import FOREVER, container, events, first_status, make, ready, said

SERVE = "mkdir /w; cd /w; echo hi > index.html; exec httpd -f -p 8000"
QUICK = {"periodSeconds": 1, "failureThreshold": 2}
PATIENT = {"timeoutSeconds": 20}


def test_http_tcp_and_exec_probes_hold_traffic_back_and_name_what_is_wrong(
    cluster: Instance, namespace: str
) -> None:
    def probed(name: str, probe: dict[str, Any]) -> None:
        fields = {"readinessProbe": {**probe, **QUICK}}
        ports = [{"name": "web", "containerPort": 8000}]
        make(cluster, namespace, name, container(command=SERVE, ports=ports, **fields))

    probed("good", {"httpGet": {"path": "/index.html", "port": "web"}})
    probed("missing", {"httpGet": {"path": "/no", "port": 8000}})
    probed("tcp", {"tcpSocket": {"port": "web"}})
    probed("closed", {"tcpSocket": {"port": 9}})
    probed("slow", {"exec": {"command": ["sleep", "30"]}})
    probed("grpc", {"grpc": {"port": 8000}})
    # Accepts, and never answers.
    never = {"httpGet": {"port": 8000}, **QUICK}
    silent = container(command="exec nc -ll -p 8000 -e sleep 1000", readinessProbe=never)
    make(cluster, namespace, "hung", silent)
    ready(cluster, namespace, "good", "tcp")
    expected = {
        "missing": "Readiness probe failed: HTTP probe failed with statuscode: 404",
        "closed": ":9: connect: connection refused",
        "slow": 'Readiness probe failed: command timed out: "sleep 30" timed out after 1s',
        "hung": "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
        "grpc": "Readiness probe failed: error: health rpc probe failed",
    }
    for name, text in expected.items():
        eventually(lambda n=name, t=text: t in events(cluster, namespace, n))
        assert first_status(cluster, namespace, name)["ready"] is False
    running = cluster.kubectl("-n", namespace, "exec", "slow", "--", "ps").out
    assert running.count("sleep 30") <= 1  # a command that hangs does not pile up


def test_liveness_and_startup_restart_with_the_grace_of_the_probe(
    cluster: Instance, namespace: str
) -> None:
    stubborn = "trap '' TERM; while :; do sleep 0.1; done"
    fails = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    make(
        cluster, namespace, "dying",
        container(
            command=stubborn, livenessProbe={**fails, "terminationGracePeriodSeconds": 1}
        ),
        terminationGracePeriodSeconds=600,
    )  # fmt: skip
    make(cluster, namespace, "never", container(command=FOREVER, startupProbe=fails))
    for name, kind in (("dying", "liveness"), ("never", "startup")):
        eventually(lambda n=name: first_status(cluster, namespace, n).get("restartCount", 0) >= 1)
        text = f"Container main failed {kind} probe, will be restarted"
        assert said(cluster, namespace, name, text)
    assert first_status(cluster, namespace, "never").get("started") is False
    cluster.kubectl("-n", namespace, "delete", "pod", "dying", "never", "--now")


def test_a_startup_probe_holds_the_others_off(cluster: Instance, namespace: str) -> None:
    make(
        cluster, namespace, "late",
        container(
            command=f"sleep 3; touch /tmp/up; {FOREVER}",
            startupProbe={
                "exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 60
            },
            livenessProbe={"exec": {"command": ["cat", "/tmp/up"]}, **QUICK, **PATIENT},
            readinessProbe={"exec": {"command": ["true"]}, **QUICK, **PATIENT},
        ),
    )  # fmt: skip
    ready(cluster, namespace, "late")
    assert first_status(cluster, namespace, "late")["restartCount"] == 0
    assert said(cluster, namespace, "late", "Startup probe failed")
