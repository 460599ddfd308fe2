"""The cluster: how soon it is there, how soon pods are, what it costs to keep."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.harness import Figure, Wherry, command, timed, wherry

# Not whatever `kubectl` is on this machine: some are wrappers that cost more than the cluster.
KUBECTL = "kubectl-1.37"
TICK = os.sysconf("SC_CLK_TCK")

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: c, image: "hello:1", command: [sleep, "600"]}}]
"""


def up() -> list[Figure]:
    """``wherry up`` on an empty data directory, and again after ``wherry down``."""
    first, again = [], []
    for _ in range(5):
        with wherry(up=False) as instance:
            first += timed(lambda: instance.call("up"), 1, warm_up=0)
            instance.call("down")
            again += timed(lambda: instance.call("up"), 1, warm_up=0)
    return [
        Figure("wherry up to node Ready, empty data dir", first, target=2.0),
        Figure("wherry up to node Ready, restart", again, target=1.5),
    ]


def pod() -> list[Figure]:
    """``kubectl apply`` of a pod until ``kubectl wait`` has seen it Ready."""
    with wherry() as instance:
        values = []
        for number in range(11):
            name = f"bench{number}"
            begun = time.perf_counter()
            command(
                *(KUBECTL, "apply", "-f", "-"),
                env=instance.env,
                stdin=POD.format(name=name).encode(),
            )
            command(*(KUBECTL, "wait", "--for=condition=Ready", f"pod/{name}"), env=instance.env)
            values.append(time.perf_counter() - begun)
            command(KUBECTL, "delete", "pod", name, "--wait=false", env=instance.env)
    return [Figure("kubectl apply of a pod to Ready, by kubectl", values[1:], target=0.4)]


def _deploy(instance: Wherry, replicas: int) -> float:
    begun = time.perf_counter()
    command(
        *(KUBECTL, "create", "deployment", "many", "--image=hello:1"),
        f"--replicas={replicas}",
        env=instance.env,
    )
    command(KUBECTL, "rollout", "status", "deploy/many", "--timeout=60s", env=instance.env)
    return time.perf_counter() - begun


def deployment() -> list[Figure]:
    """A Deployment of 20 pods until all are Ready."""
    values = []
    for _ in range(3):
        with wherry() as instance:
            values.append(_deploy(instance, 20))
    return [Figure("Deployment of 20 pods, all Ready", values, target=4.0)]


def memory_and_idle() -> list[Figure]:
    """Resident memory with 20 pods running, and the CPU that nothing to do costs."""
    with wherry() as instance:
        _deploy(instance, 20)
        time.sleep(5)
        daemons = instance.daemons()
        resident = sum(_resident(pid) for pid in daemons)
        monitor = sum(map(_resident, _monitors(instance.directory)))
        names = sum(map(_resident, instance.name_servers()))
        before = sum(_cpu(pid) for pid in daemons)
        seconds = 20
        time.sleep(seconds)
        idle = (sum(_cpu(pid) for pid in daemons) - before) / seconds * 100
    return [
        Figure("resident memory of both daemons, 20 pods", [resident / 1e6], "MB", 200),
        Figure("resident memory of the monitor of all containers", [monitor / 1e6], "MB", 12),
        Figure("resident memory of the name server", [names / 1e6], "MB", 32),
        Figure("CPU when idle, 20 pods", [idle], "%", 1),
    ]


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _monitors(directory: Path) -> list[int]:
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if _mentions(pid, b"monitor/__main__.py", str(directory).encode())]


def _mentions(pid: int, *words: bytes) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return all(word in command for word in words)
