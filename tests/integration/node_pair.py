"""A server on one machine, a node that has joined it on another; pods that are bound to either."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conftest import CLIENTS, Finished, _run
from machines import Machines, NodeInstance, join, machines

from wherry.launcher.instance import Instance, find


class Pair:
    """A server on machine ``a`` and a joined node on machine ``b``."""

    def __init__(self, bench: Machines, server: NodeInstance, node: NodeInstance) -> None:
        self.bench, self.server, self.node = bench, server, node

    def command(self) -> str:
        """A new command to join with."""
        return self.server.wherry("token create", "--print-join-command").out.strip()

    def kubectl(self, *arguments: str, ok: bool = True, stdin: str | None = None) -> Finished:
        return self.server.kubectl(*arguments, ok=ok, stdin=stdin)

    def apply(self, *objects: dict[str, Any]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def ready(self, node: str = "b") -> bool:
        conditions = self.server.get("node", node)["status"].get("conditions") or ()
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def run(self, name: str, node: str = "b", **fields: Any) -> None:
        """A pod on that node, Ready."""
        self.apply(pod(name, node, **fields))
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=110s")

    def restarts(self, name: str) -> int:
        statuses = self.server.get("pod", name)["status"]["containerStatuses"]
        return sum(status["restartCount"] for status in statuses)

    def remove(self, *names: str) -> None:
        self.kubectl("delete", "--ignore-not-found", *names, "--grace-period=0", "--force")


def pod(name: str, node: str = "b", **fields: Any) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": "busybox:latest",
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo said; exec httpd -f -p 8080 -h /etc"],
        **fields,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }


def daemon_set(name: str) -> dict[str, Any]:
    template = pod(name)
    del template["spec"]["nodeName"]
    del template["spec"]["tolerations"]
    labels = template["metadata"]["labels"]
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template["spec"]},
        },
    }


def kept(node: NodeInstance) -> Instance:
    found = find(node.data_dir)
    assert found is not None
    return found


def docker(node: NodeInstance, *arguments: str, ok: bool = True) -> Finished:
    socket = f"unix://{kept(node).docker_socket}"
    environment = dict(os.environ, PATH=f"{CLIENTS}:{os.environ['PATH']}", DOCKER_HOST=socket)
    return _run(["docker", *arguments], environment, ok=ok)


@contextlib.contextmanager
def node_pair() -> Iterator[Pair]:
    """The two, with an image on each."""
    with machines() as bench:
        server, node = bench.instance("a"), bench.instance("b")
        server.wherry("up", "--node-name", "a")
        made = Pair(bench, server, node)
        join(node, made.command(), "--node-name", "b")
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda each: each.wherry("images bootstrap", "busybox"), (server, node)))
        yield made
