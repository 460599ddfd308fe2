"""The machine goes down: pods end by ``shutdownGracePeriod…``, and the API is told of it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually
from pods_on_node import FOREVER, container, first_status, make, ready

CONFIG = """
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
shutdownGracePeriod: 8s
shutdownGracePeriodCriticalPods: 4s
"""
MESSAGE = "Pod was terminated in response to imminent node shutdown."


@pytest.fixture(scope="module")
def machine(
    new_instance: Callable[[], Instance], tmp_path_factory: pytest.TempPathFactory
) -> Instance:
    instance = new_instance()
    file = tmp_path_factory.mktemp("config") / "kubelet.yaml"
    file.write_text(CONFIG)
    instance.wherry("up", "--sample", "--kubelet-config", str(file))
    return instance


def end(cluster: Instance, number: signal.Signals) -> None:
    """Send a signal to the node's daemon, and wait until it has ended."""
    pid = cluster.pid("node")
    descriptor = os.pidfd_open(pid)
    os.kill(pid, number)
    assert select.select([descriptor], [], [], 60)[0]
    os.close(descriptor)


def told(cluster: Instance, namespace: str, name: str) -> dict[str, Any]:
    return dict(cluster.get("pod", name, "-n", namespace)["status"])


def test_a_daemon_that_is_merely_ended_leaves_its_pods_alone(machine: Instance) -> None:
    make(machine, "default", "stays")
    ready(machine, "default", "stays")
    before = first_status(machine, "default", "stays")
    end(machine, signal.SIGTERM)
    machine.wherry("up")
    ready(machine, "default", "stays")
    after = first_status(machine, "default", "stays")
    assert after["containerID"] == before["containerID"]
    assert (after["restartCount"], after["state"]) == (0, before["state"])


def test_pods_end_class_by_class_and_the_api_is_told(machine: Instance, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    mounts = {"volumeMounts": [{"name": "h", "mountPath": "/h"}]}

    def ending(name: str, namespace: str = "default", **spec: Any) -> None:
        script = f"trap 'sleep 0.3; echo {name} >> /h/ends; exit 0' TERM; touch /h/{name};"
        script += " while :; do sleep 0.1; done"
        volumes = [{"name": "h", "hostPath": {"path": str(tmp_path)}}]
        # (Who requests nothing gets little of a busy machine, and the time is short.)
        main = container(command=script, resources={"requests": {"cpu": "400m"}}, **mounts)
        make(machine, namespace, name, main, volumes=volumes, **spec)

    ending("plain", terminationGracePeriodSeconds=30)
    ending("vital", "kube-system", priorityClassName="system-node-critical",
           terminationGracePeriodSeconds=30)  # fmt: skip
    deaf = f"trap '' TERM; touch /h/deaf; {FOREVER.partition('; ')[2]}"
    make(
        machine, "default", "deaf", container(command=deaf, **mounts),
        terminationGracePeriodSeconds=600,
        volumes=[{"name": "h", "hostPath": {"path": str(tmp_path)}}],
    )  # fmt: skip
    ready(machine, "default", "plain", "deaf")
    ready(machine, "kube-system", "vital")
    # (They are ready when they run, which may be before they listen to signals.)
    eventually(lambda: all((tmp_path / name).exists() for name in ("plain", "vital", "deaf")))
    ready_condition = '{.status.conditions[?(@.type=="Ready")].message}{"\\n"}'
    watch = machine.start(
        "kubectl", "get", "node", "-w", "--output-watch-events", "-o",
        f"jsonpath={ready_condition.replace('.status', '.object.status')}",
    )  # fmt: skip
    machine.wherry("down", "--grace", "1")
    assert "node is shutting down" in watch.communicate(timeout=60)[0]
    assert (tmp_path / "ends").read_text().split() == ["plain", "vital"]

    machine.wherry("up")
    for namespace, name in (("default", "plain"), ("default", "deaf"), ("kube-system", "vital")):
        status = told(machine, namespace, name)
        assert (status["phase"], status["reason"], status["message"]) == (
            "Failed", "Terminated", MESSAGE,
        )  # fmt: skip
        conditions = {c["type"]: c for c in status["conditions"]}
        assert conditions["Ready"]["status"] == "False"
        target = conditions["DisruptionTarget"]
        assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
        assert "terminated" in status["containerStatuses"][0]["state"]
    assert told(machine, "default", "deaf")["containerStatuses"][0]["state"]["terminated"][
        "exitCode"
    ] == 137  # fmt: skip
    # What has a controller is made anew, and the node takes pods again.
    machine.kubectl("rollout", "status", "deployment/hello", "--timeout=100s")
    make(machine, "default", "later")
    ready(machine, "default", "later")


def test_a_power_failure_ends_pods_alike(machine: Instance) -> None:
    make(machine, "default", "mains")
    ready(machine, "default", "mains")
    end(machine, signal.SIGPWR)
    assert told(machine, "default", "mains")["reason"] == "Terminated"
