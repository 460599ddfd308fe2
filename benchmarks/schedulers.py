"""Two schedulers to compare as processes of their own, both on our API server: ours, and upstream's
kube-scheduler.

Upstream's is run where the variable ``WHERRY_KUBE_SCHEDULER`` names its binary, or where
``kube-scheduler`` is on PATH (version 1.20 is what the targets were derived from); it is let ask as
often as it likes, since its limit of 50 requests a second would be all there is to see.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.apiservers import TOKEN, Server, ours

PEER = "WHERRY_KUBE_SCHEDULER"
PODS = "/api/v1/namespaces/default/pods"
_CONNECTIONS = 8
_LONGEST = 600


def peer_binary() -> Path | None:
    """Upstream's kube-scheduler, where it is to be had; else that is said."""
    found = os.environ.get(PEER) or shutil.which("kube-scheduler")
    if found and Path(found).is_file():
        return Path(found)
    print(f"no peer: {PEER} names no kube-scheduler, and none is on PATH", file=sys.stderr)
    return None


def wherry_scheduler(kubeconfig: Path) -> list[str]:
    """The command of ours."""
    argv = [sys.executable, "-m", "wherry.kube.scheduler", "--kubeconfig", str(kubeconfig)]
    return [*argv, "--leader-elect=false"]


def peer_scheduler(binary: Path, kubeconfig: Path) -> list[str]:
    """The command of upstream's."""
    argv = [str(binary), "--kubeconfig", str(kubeconfig), "--leader-elect=false"]
    return [*argv, "--kube-api-qps=10000", "--kube-api-burst=10000", "--port=0", "--secure-port=0"]


def until_bound(
    binary: Path | None, nodes: list[dict[str, Any]], pods: list[dict[str, Any]]
) -> float:
    """Seconds from the scheduler's start until it has bound all pods; ``binary`` is the peer's,
    None stands for ours."""
    with ours() as server:
        kubeconfig = kubeconfig_of(server)
        make(server, "POST", (("/api/v1/nodes", node) for node in nodes))
        listed = json.loads(server.request("/api/v1/nodes"))["items"]
        # Admission has tainted them until a controller finds that they are ready.
        free = ((f"/api/v1/nodes/{n['metadata']['name']}", {**n, "spec": {}}) for n in listed)
        make(server, "PUT", free)
        make(server, "POST", ((PODS, pod) for pod in pods))
        watch = Watch(server)
        begun = time.perf_counter()
        argv = peer_scheduler(binary, kubeconfig) if binary else wherry_scheduler(kubeconfig)
        server.launch(argv, "scheduler.log")
        watch.until(len(pods))
        return time.perf_counter() - begun


def kubeconfig_of(server: Server) -> Path:
    """A file with which components reach the server, as an administrator."""
    authority = str(server.place / "pki" / "ca.crt")
    cluster = {"server": server.url, "certificate-authority": authority}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": {"token": TOKEN}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }
    path = server.place / "kubeconfig"
    path.write_text(json.dumps(document))
    return path


def _connection(server: Server) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(
        "127.0.0.1", server.port, context=server.context, timeout=_LONGEST
    )


_HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


def make(server: Server, method: str, requests: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Send them, paths and bodies, over a few connections."""
    left = iter(list(requests))

    def work(_: int) -> None:
        connection = _connection(server)
        for path, body in left:
            connection.request(method, path, json.dumps(body), _HEADERS)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status >= 300:
                raise SystemExit(f"{method} {path}: {said.decode()}")
        connection.close()

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(work, range(_CONNECTIONS)))


class Watch:
    """What is bound, as the API server tells it."""

    def __init__(self, server: Server) -> None:
        self._connection = _connection(server)
        path = f"{PODS}?watch=1&fieldSelector=spec.nodeName!="
        self._connection.request("GET", path, headers=_HEADERS)
        self._answer = self._connection.getresponse()

    def until(self, count: int) -> None:
        """Return when so many pods are bound."""
        bound: set[str] = set()
        while len(bound) < count:
            line = self._answer.readline()
            if not line:
                raise SystemExit("the watch ended")
            bound.add(json.loads(line)["object"]["metadata"]["name"])
        self._connection.close()
