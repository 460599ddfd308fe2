"""The kubelet: how soon pods are Ready, gone and back again, what probes and streams cost."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.harness import CLIENTS, Figure, Wherry, command, timed, wherry

KUBECTL = "kubectl-1.37"
TICK = os.sysconf("SC_CLK_TCK")
SERVE = "mkdir /w; cd /w; echo hi > index.html; exec httpd -f -p 8000"
OBEYS = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
BIG = 500_000_000  # bytes


def _api(instance: Wherry) -> Any:
    from kubernetes import client, config

    configuration = client.Configuration()
    config.load_kube_config(instance.env["KUBECONFIG"], client_configuration=configuration)
    return client.CoreV1Api(client.ApiClient(configuration))


def _pod(name: str, script: str, node: str = "", **fields: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "hello:1", "command": ["sh", "-c", script], **fields}
    spec: dict[str, Any] = {"terminationGracePeriodSeconds": 5, "containers": [container]}
    if node:
        spec["nodeName"] = node
    return {"metadata": {"name": name, "labels": {"bench": "yes"}}, "spec": spec}


def _watch_until(api: Any, begin: Callable[[], object], done: Callable[[str, Any], bool]) -> float:
    """Seconds from ``begin`` until an event of a watch is the last that ``done`` waits for."""
    from kubernetes import watch

    version = api.list_namespaced_pod("default").metadata.resource_version
    watching = watch.Watch()
    begun = time.perf_counter()
    begin()
    for event in watching.stream(
        api.list_namespaced_pod, "default", resource_version=version, timeout_seconds=120
    ):
        if done(event["type"], event["raw_object"]):
            return time.perf_counter() - begun
    raise SystemExit("what was waited for did not come in two minutes")


def _is_ready(pod: Any) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _until_ready(api: Any, pods: list[dict[str, Any]]) -> float:
    waiting = {pod["metadata"]["name"] for pod in pods}

    def begin() -> None:
        for pod in pods:
            api.create_namespaced_pod("default", pod)

    def done(_type: str, pod: Any) -> bool:
        if _is_ready(pod):
            waiting.discard(pod["metadata"]["name"])
        return not waiting

    return _watch_until(api, begin, done)


def _until_gone(api: Any, name: str) -> float:
    return _watch_until(
        api,
        lambda: api.delete_namespaced_pod(name, "default"),
        lambda type_, pod: type_ == "DELETED" and pod["metadata"]["name"] == name,
    )


def _clear(instance: Wherry) -> None:
    command(KUBECTL, "delete", "pods", "--all", "--grace-period=1", env=instance.env)


def pods() -> list[Figure]:
    """Pods that are bound already until they are Ready: one, twenty, a hundred; and their end."""
    single: list[float] = []
    gone: list[float] = []
    twenty: list[float] = []
    hundred: list[float] = []
    with wherry() as instance:
        api = _api(instance)
        node = api.list_node().items[0].metadata.name
        for number in range(11):
            name = f"single{number}"
            single.append(_until_ready(api, [_pod(name, OBEYS, node)]))
            gone.append(_until_gone(api, name))
        for values, count in ((twenty, 20), (hundred, 100)):
            made = [_pod(f"p{count}x{n}", "sleep 1000", node) for n in range(count)]
            values.append(_until_ready(api, made))
            _clear(instance)
    return [
        Figure("pod bound to Ready, alone", single[1:], target=0.15),
        Figure("20 pods at once, all Ready", twenty, target=3.0),
        Figure("100 pods at once, all Ready", hundred, target=15.0),
        Figure("deletion of a pod that obeys SIGTERM", gone[1:], target=0.3),
    ]


def restart() -> list[Figure]:
    """From the end of a container's process until the API shows the next one running."""
    values = []
    with wherry() as instance:
        api = _api(instance)
        node = api.list_node().items[0].metadata.name
        from wherry.launcher.instance import find

        found = find(instance.directory)
        assert found is not None
        for number in range(6):
            name = f"again{number}"
            _until_ready(api, [_pod(name, "exec sleep 1000", node)])
            status = api.read_namespaced_pod(name, "default").status.container_statuses[0]
            id_ = status.container_id.split("//")[1]
            inspected = json.loads(command("docker", "inspect", id_, env=instance.env))
            pid = int(inspected[0]["State"]["Pid"])

            def running_again(_type: str, pod: Any, name: str = name) -> bool:
                told = pod["status"].get("containerStatuses") or ()
                return pod["metadata"]["name"] == name and any(
                    c["restartCount"] == 1 and "running" in c["state"] for c in told
                )

            values.append(_watch_until(api, partial(os.kill, pid, 9), running_again))
    return [Figure("container exit to restart seen in the API", values[1:], target=0.1)]


def probes() -> list[Figure]:
    """What 100 idle pods cost their node, each probed by HTTP every ten seconds."""
    probe = {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 10}
    with wherry() as instance:
        api = _api(instance)
        node = api.list_node().items[0].metadata.name
        made = [_pod(f"probed{n}", SERVE, node, readinessProbe=probe) for n in range(100)]
        _until_ready(api, made)
        time.sleep(5)
        (pid,) = instance.daemons("node")
        before = _cpu(pid)
        seconds = 30
        time.sleep(seconds)
        busy = (_cpu(pid) - before) / seconds * 100
    return [Figure("node CPU, 100 idle pods probed every 10 s", [busy], "%", 5)]


def _cpu(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def streams() -> list[Figure]:
    """``kubectl exec`` of ``true``, and how much goes through one forwarded connection."""
    with wherry() as instance:
        api = _api(instance)
        node = api.list_node().items[0].metadata.name
        script = SERVE.replace("exec httpd", f"head -c {BIG} /dev/zero > big; exec httpd")
        probe = {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}
        _until_ready(api, [_pod("web", script, node, readinessProbe=probe)])
        execs = timed(lambda: command(KUBECTL, "exec", "web", "--", "true", env=instance.env), 10)
        rates = []
        with _forwarded(instance, "web", 8000) as port:
            for _ in range(4):
                begun = time.perf_counter()
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/big") as answer:
                    while answer.read(1 << 20):
                        continue
                rates.append(BIG / 1e6 / (time.perf_counter() - begun))
    return [
        Figure("kubectl exec of true", execs, target=0.15),
        Figure("port-forward, one connection", rates[1:], "MB/s", 200),
    ]


@contextmanager
def _forwarded(instance: Wherry, pod: str, port: int) -> Iterator[int]:
    argv = [str(CLIENTS / KUBECTL), "port-forward", pod, f":{port}"]
    client = subprocess.Popen(argv, env=instance.env, stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout is not None
        yield int(client.stdout.readline().split("->")[0].rsplit(":", 1)[1])
    finally:
        client.kill()
        client.communicate()
