"""A node that runs short of something, as kubectl shows it."""

from __future__ import annotations

from typing import Any

from conftest import Instance, eventually

PATIENCE = 90.0


def status(cluster: Instance, name: str) -> dict[str, Any]:
    return dict(cluster.get("pod", name)["status"])


def condition(cluster: Instance, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition of the node."""
    (node,) = cluster.get("nodes")["items"]
    (found,) = [c for c in node["status"]["conditions"] if c["type"] == kind]
    return found["status"], found["reason"], found["message"]


def taints(cluster: Instance) -> set[str]:
    (node,) = cluster.get("nodes")["items"]
    return {f"{t['key']}:{t['effect']}" for t in node["spec"].get("taints") or ()}


def node_events(cluster: Instance) -> str:
    return cluster.kubectl(
        *("get", "events", "--field-selector", "involvedObject.kind=Node"),
        *("-o", "jsonpath={range .items[*]}{.reason}: {.message}{'\\n'}{end}"),
    ).out


def evicted(cluster: Instance, name: str) -> dict[str, Any]:
    """The status of a pod once it has been evicted."""
    eventually(lambda: status(cluster, name).get("reason") == "Evicted", seconds=PATIENCE)
    told = status(cluster, name)
    assert told["phase"] == "Failed"
    (target,) = [c for c in told["conditions"] if c["type"] == "DisruptionTarget"]
    assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
    assert target["message"] == told["message"]
    return told


def important(cluster: Instance) -> None:
    """A priority that pods may have."""
    name = ("priorityclass", "important", "--value=1000")
    if cluster.kubectl("get", "priorityclass", "important", ok=False).code:
        cluster.kubectl("create", *name)
