"""Pods come and go while the kubelet is killed; the API server is away for a while.

``WHERRY_TEST_ENDURANCE`` is the length in seconds; the issue's is 300, with 200 pods.
``WHERRY_TEST_API_AWAY`` is how long the API server stays away; the issue's is 600.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from conftest import Instance, eventually
from pods_on_node import FOREVER, container, first_status, make, ready

from wherry.launcher.instance import find

SECONDS = float(os.environ.get("WHERRY_TEST_ENDURANCE", "15"))
AWAY = float(os.environ.get("WHERRY_TEST_API_AWAY", "8"))
KILLS = 10 if SECONDS >= 100 else 3
PODS = 200 if SECONDS >= 100 else 24


def kill(cluster: Instance, daemon: str) -> None:
    """End a daemon at once, and wait until the kernel has taken back what it held."""
    pid = cluster.pid(daemon)
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([descriptor], [], [], 60)[0]
    os.close(descriptor)


def start_daemons(cluster: Instance) -> None:
    cluster.wherry("up")


def left_over(cluster: Instance) -> dict[str, list[str]]:
    """What the kernel and the disk have of this instance's pods."""
    instance = find(cluster.data_dir)
    assert instance is not None
    links = json.loads(subprocess.check_output(["ip", "-j", "link"]))
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    # (os.walk passes over what goes away meanwhile.)
    groups = [
        f"{directory}/{name}"
        for directory, children, _ in os.walk("/sys/fs/cgroup")
        if f"{directory}/".find(f"{instance.cgroup_root}/") > 0
        for name in children
        if "pod" in name or len(name) >= 64
    ]
    return {
        "containers": cluster.docker("ps", "-aq").out.split(),
        "mounts": [m for m in mounts if str(cluster.data_dir) in m],
        "links": [x["ifname"] for x in links if x.get("master") == instance.pod_bridge],
        "cgroups": groups,
        "volumes": [p.name for p in (cluster.data_dir / "kubelet" / "pods").glob("*")],
        "logs": [p.name for p in (cluster.data_dir / "log" / "pods").glob("*")],
        "log links": [p.name for p in (cluster.data_dir / "log" / "containers").glob("*")],
    }


def test_nothing_is_left_of_pods_that_came_and_went_under_kills(
    new_instance: Callable[[], Instance],
) -> None:
    cluster = new_instance()
    cluster.wherry("up", "--sample")
    cluster.kubectl("delete", "deployment,daemonset,statefulset", "--all", "-A", "--wait=true")
    eventually(lambda: not left_over(cluster)["containers"])
    before = left_over(cluster)

    def more() -> dict[str, list[str]]:
        """What was not there before; some of that may still have been on its way out."""
        now = left_over(cluster).items()
        new = {what: [each for each in found if each not in before[what]] for what, found in now}
        return {what: found for what, found in new.items() if found}

    dice = random.Random(7)
    alive: set[str] = set()
    begun = time.monotonic()
    kills = 0
    made = 0
    while time.monotonic() - begun < SECONDS or kills < KILLS or made < PODS:
        if made < PODS or dice.random() < 0.5:
            made += 1
            name = f"p{made}"
            command = dice.choice([FOREVER, "exit 0", "exit 1", "sleep 3"])
            volumes = [{"name": "v", "emptyDir": {"medium": dice.choice(["", "Memory"])}}]
            mounts = [{"name": "v", "mountPath": "/v"}]
            make(
                cluster, "default", name,
                container(command=command, volumeMounts=mounts), volumes=volumes,
            )  # fmt: skip
            alive.add(name)
        while len(alive) > 12 or (alive and dice.random() < 0.3):
            name = dice.choice(sorted(alive))
            alive.discard(name)
            cluster.kubectl("delete", "pod", name, "--wait=false")
        if kills < KILLS and time.monotonic() - begun > kills * SECONDS / KILLS:
            kills += 1
            kill(cluster, "node")
            start_daemons(cluster)
    cluster.kubectl("delete", "pods", "--all", "--wait=true", "--timeout=250s")
    eventually(lambda: not more(), seconds=110, told=lambda: str(more()))


def test_without_an_api_server_pods_run_on_are_restarted_and_tell_of_it_afterwards(
    new_instance: Callable[[], Instance],
) -> None:
    cluster = new_instance()
    cluster.wherry("up", "--sample")
    make(cluster, "default", "steady", container(command="exec sleep 100000"))
    make(cluster, "default", "apart")
    make(cluster, "default", "ends", container(command="sleep 5; exit 3"), restartPolicy="Never")
    ready(cluster, "default", "steady", "apart")
    id_ = first_status(cluster, "default", "steady")["containerID"].split("//")[1]
    pid = int(json.loads(cluster.docker("inspect", id_).out)[0]["State"]["Pid"])
    kill(cluster, "server")
    gone = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    name = "name=k8s_main_steady_"

    def replaced() -> bool:
        ids = cluster.docker("ps", "-q", "--no-trunc", "--filter", name).out.split()
        return bool(ids) and id_ not in ids

    eventually(replaced)
    time.sleep(max(0.0, gone + AWAY - time.monotonic()))
    start_daemons(cluster)
    eventually(lambda: first_status(cluster, "default", "steady")["restartCount"] == 1)

    def phase(name: str) -> str:
        return str(cluster.get("pod", name)["status"]["phase"])

    eventually(lambda: phase("ends") == "Failed")
    assert first_status(cluster, "default", "ends")["state"]["terminated"]["exitCode"] == 3
    assert first_status(cluster, "default", "apart")["restartCount"] == 0
