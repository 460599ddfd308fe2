"""Pods for the tests of streams, logs and probes."""

from __future__ import annotations

import json
from typing import Any

from conftest import Instance, eventually

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def container(name: str = "main", command: str = FOREVER, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "hello:1", "command": ["sh", "-c", command], **fields}


def make(
    cluster: Instance, namespace: str, name: str, *containers: dict[str, Any], **spec: Any
) -> None:
    """Create a pod; without ``containers`` it has one that does nothing."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": list(containers) or [container()],
            **spec,
        },
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))


def ready(cluster: Instance, namespace: str, *names: str) -> None:
    pods = [f"pod/{name}" for name in names]
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", *pods, "--timeout=110s")


def first_status(cluster: Instance, namespace: str, name: str) -> dict[str, Any]:
    status = cluster.get("pod", name, "-n", namespace)["status"]
    return (status.get("containerStatuses") or [{}])[0]


def events(cluster: Instance, namespace: str, name: str) -> str:
    return cluster.kubectl("-n", namespace, "events", "--for", f"pod/{name}").out


def said(cluster: Instance, namespace: str, name: str, text: str) -> bool:
    """Wait for an event of the pod that says ``text``; they come behind what they tell of."""
    return bool(eventually(lambda: text in events(cluster, namespace, name)))
