"""Nodes that run short of memory or of processes: who goes, who stays, what is told, what after.

The thresholds are set a little below what this machine has left, so that pods of a reasonable size
reach them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Instance, eventually
from pods_on_node import container, make, ready, said
from pressed import PATIENCE, condition, evicted, important, node_events, status, taints

from wherry.kube.kubelet.eviction.signals import observe

MI = 1 << 20
# So much may go until it is short; others on this machine may take or leave half of it meanwhile.
MEMORY, PIDS = 1500 * MI, 1200
CONFIG = """
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionHard: {{memory.available: "{memory}", pid.available: "{pids}"}}
evictionPressureTransitionPeriod: 1s
"""


@pytest.fixture(scope="module")
def pressed(
    new_instance: Callable[[], Instance], tmp_path_factory: pytest.TempPathFactory
) -> Instance:
    """An instance that is short when its pods have taken that much."""
    left = {signal: seen.available for signal, seen in observe(Path("/")).items()}
    memory, pids = left["memory.available"] - MEMORY, left["pid.available"] - PIDS
    if memory < 1024 * MI or pids < 1000:
        pytest.skip("this machine has too little left itself")
    file = tmp_path_factory.mktemp("config") / "kubelet.yaml"
    file.write_text(CONFIG.format(memory=memory, pids=pids))
    instance = new_instance()
    instance.wherry("up", "--sample", "--kubelet-config", str(file))
    instance.kubectl("delete", "deployment,daemonset,statefulset", "--all")
    important(instance)
    return instance


def taking(mebibytes: int) -> str:
    return f"dd if=/dev/zero of=/m/x bs=1M count={mebibytes} 2>/dev/null; exec sleep 1000"


IN_MEMORY = {"volumes": [{"name": "m", "emptyDir": {"medium": "Memory"}}]}
MOUNT = [{"name": "m", "mountPath": "/m"}]


def test_of_memory_who_took_more_than_it_asked_for_goes_first(pressed: Instance) -> None:
    modest = {"resources": {"requests": {"memory": "400Mi"}}}
    make(pressed, "default", "modest", container(command=taking(250), **modest, volumeMounts=MOUNT),
         **IN_MEMORY)  # fmt: skip
    make(
        *(pressed, "default", "vip", container(command=taking(100), volumeMounts=MOUNT)),
        priorityClassName="important",
        **IN_MEMORY,
    )
    ready(pressed, "default", "modest", "vip")
    assert condition(pressed, "MemoryPressure")[:2] == ("False", "KubeletHasSufficientMemory")
    make(
        *(pressed, "default", "greedy", container(command=taking(2000), volumeMounts=MOUNT)),
        **IN_MEMORY,
    )
    told = evicted(pressed, "greedy")
    assert told["message"].startswith("The node was low on resource: memory. Threshold quantity: ")
    assert "Container main was using " in told["message"]
    assert told["message"].endswith("request is 0, has larger consumption of memory. ")
    assert said(pressed, "default", "greedy", "The node was low on resource: memory.")
    reclaims = "EvictionThresholdMet: Attempting to reclaim"
    eventually(lambda: f"{reclaims} memory" in node_events(pressed), seconds=PATIENCE)
    assert told["containerStatuses"][0]["state"]["terminated"]["exitCode"] != 0
    # The node has enough again, says so, and takes pods.
    eventually(lambda: condition(pressed, "MemoryPressure")[0] == "False", seconds=PATIENCE)
    eventually(lambda: not taints(pressed), seconds=PATIENCE)
    for name in ("modest", "vip"):
        assert status(pressed, name)["phase"] == "Running", name
    make(pressed, "default", "later")
    ready(pressed, "default", "later")
    pressed.kubectl("delete", "pod", "--all", "--now")


def test_of_processes_who_has_most_goes_and_meanwhile_the_node_takes_nobody(
    pressed: Instance,
) -> None:
    fork = "i=0; while [ $i -lt {} ]; do sleep 1000 & i=$((i+1)); done; "
    many, few = fork.format(2000), fork.format(50)
    deaf = "trap '' TERM; "
    make(pressed, "default", "few", container(command=few + "wait"))
    make(
        *(pressed, "default", "vip", container(command=few + "wait")),
        priorityClassName="important",
    )
    ready(pressed, "default", "few", "vip")
    make(pressed, "default", "many", container(command=deaf + many + "wait"))

    def short() -> bool:
        return condition(pressed, "PIDPressure") == (
            "True",
            "KubeletHasInsufficientPID",
            "kubelet has insufficient PID available",
        )

    eventually(short, seconds=PATIENCE)
    told = evicted(pressed, "many")
    assert told["message"].startswith("The node was low on resource: pids. Threshold quantity: ")
    assert "Container main was using " in told["message"]
    reclaims = "EvictionThresholdMet: Attempting to reclaim"
    eventually(lambda: f"{reclaims} pids" in node_events(pressed), seconds=PATIENCE)
    eventually(
        lambda: condition(pressed, "PIDPressure")[:2] == ("False", "KubeletHasSufficientPID"),
        seconds=PATIENCE,
    )
    eventually(lambda: not taints(pressed), seconds=PATIENCE)
    for name in ("few", "vip"):
        assert status(pressed, name)["phase"] == "Running", name
    pressed.kubectl("delete", "pod", "--all", "--now")
