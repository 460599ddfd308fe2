"""Upstream's controllers and scheduler on our API server, to compare with ours in its process; the
nodes exist in name only.

They are run where the variables ``WHERRY_KUBE_CONTROLLER_MANAGER`` and ``WHERRY_KUBE_SCHEDULER``
name their binaries, or where they are on PATH. They may ask as often as they like: their limits of
20 and 50 requests a second would be all there is to see.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import apiservers, schedulers
from benchmarks.apiservers import Server
from benchmarks.schedulers import Watch, kubeconfig_of, make

MANAGER = "WHERRY_KUBE_CONTROLLER_MANAGER"
_DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
_LONGEST = 300.0


def manager_binary() -> Path | None:
    """Upstream's kube-controller-manager, where it is to be had; else that is said."""
    found = os.environ.get(MANAGER) or shutil.which("kube-controller-manager")
    if found and Path(found).is_file():
        return Path(found)
    print(f"no peer: {MANAGER} names no kube-controller-manager, none is on PATH", file=sys.stderr)
    return None


@contextmanager
def theirs(nodes: int) -> Iterator[Server | None]:
    """Upstream's, with so many nodes that take pods; None where they are not to be had."""
    manager, scheduler = manager_binary(), schedulers.peer_binary()
    if manager is None or scheduler is None:
        yield None
        return
    with apiservers.ours() as server:
        config = kubeconfig_of(server)
        server.launch(_manager(manager, config, server.place / "pki"), "manager.log")
        server.launch(schedulers.peer_scheduler(scheduler, config), "scheduler.log")
        make(server, "POST", (("/api/v1/nodes", _node(number)) for number in range(nodes)))
        _until(lambda: b"taints" not in server.request("/api/v1/nodes"))
        yield server


def _manager(binary: Path, config: Path, pki: Path) -> list[str]:
    return [
        *(str(binary), "--kubeconfig", str(config), "--leader-elect=false"),
        *("--kube-api-qps=10000", "--kube-api-burst=10000", "--port=0", "--secure-port=0"),
        "--node-monitor-grace-period=1h",
        *("--root-ca-file", str(pki / "ca.crt")),
        *("--service-account-private-key-file", str(pki / "server.key")),
    ]


def _node(number: int) -> dict[str, Any]:
    amounts = {"cpu": "64", "memory": "256Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    status = {"allocatable": amounts, "capacity": amounts, "conditions": [ready]}
    return {"metadata": {"name": f"n{number}"}, "status": status}


def _until(check: Any) -> None:
    """As a client that asks."""
    deadline = time.monotonic() + _LONGEST
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit("the peer's control plane does not get on")
        time.sleep(0.02)


def deploy(server: Server, deployment: dict[str, Any]) -> float:
    """Seconds until all pods of a Deployment have a node."""
    watch = Watch(server)
    begun = time.perf_counter()
    server.request(_DEPLOYMENTS, json.dumps(deployment).encode())
    watch.until(deployment["spec"]["replicas"])
    return time.perf_counter() - begun


def fill(server: Server, namespace: str, count: int) -> None:
    """A namespace with so many objects."""
    server.request("/api/v1/namespaces", json.dumps({"metadata": {"name": namespace}}).encode())
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    make(server, "POST", ((path, {"metadata": {"name": f"c{n}"}}) for n in range(count)))


def empty(server: Server, namespace: str) -> float:
    """Seconds until a namespace that is deleted is gone."""
    path = f"/api/v1/namespaces/{namespace}"
    begun = time.perf_counter()
    server.request(path, method="DELETE")

    def gone() -> bool:
        try:
            server.request(path)
        except urllib.error.HTTPError as error:
            return error.code == 404
        return False

    _until(gone)
    return time.perf_counter() - begun


def rest(server: Server, seconds: float) -> float:
    """Percent of a core that all its processes take."""
    begun = server.processor()
    time.sleep(seconds)
    return (server.processor() - begun) / seconds * 100
