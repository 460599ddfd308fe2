"""Controllers as processes of their own, beside a server that runs none: two replicas, one acts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from conftest import Instance, eventually

KEPT = "serviceaccount-controller,node-ipam-controller,node-lifecycle-controller"
LEASE = ("lease", "kube-controller-manager", "-n", "kube-system")


@pytest.fixture(scope="module")
def bare(new_instance: Callable[[], Instance]) -> Instance:
    """An instance whose server has but the controllers without which no node becomes ready."""
    instance = new_instance()
    instance.wherry("up", "--controller-arg", f"controllers={KEPT}")
    return instance


@pytest.fixture
def replicas(bare: Instance) -> Iterator[list[subprocess.Popen[bytes]]]:
    argv = [sys.executable, "-m", "wherry.kube.controllers", "--leader-elect=true"]
    argv += ["--kubeconfig", bare.environment["KUBECONFIG"]]
    argv += ["--leader-elect-lease-duration=10s", "--leader-elect-renew-deadline=8s"]
    argv += ["--leader-elect-retry-period=500ms", "--controllers=*,-node-ipam-controller"]
    processes = [subprocess.Popen(argv, env=bare.environment) for _ in range(2)]
    yield processes
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def holder(instance: Instance) -> str:
    found = instance.kubectl("get", *LEASE, "-o", "jsonpath={.spec.holderIdentity}", ok=False)
    return found.out if found.code == 0 else ""


def owned(instance: Instance) -> list[str]:
    return [p["metadata"]["name"] for p in instance.get("replicasets")["items"]]


def test_one_acts_and_the_other_takes_over_when_it_is_killed(
    bare: Instance, replicas: list[subprocess.Popen[bytes]]
):
    first = eventually(lambda: holder(bare))
    bare.kubectl("create", "deployment", "one", "--image=none.example/none:1")
    eventually(lambda: len(owned(bare)) == 1)
    # Which process that is only its silence tells.
    os.kill(replicas[0].pid, signal.SIGKILL)
    replicas[0].wait()
    bare.kubectl("create", "deployment", "two", "--image=none.example/none:1")
    eventually(lambda: len(owned(bare)) == 2)
    if holder(bare) == first:  # the other one held it: it is its turn to go
        os.kill(replicas[1].pid, signal.SIGTERM)
        assert replicas[1].wait(60) == 0
        assert holder(bare) == "", "who ends in peace gives the lease back"
    else:
        transitions = bare.get(*LEASE)["spec"]["leaseTransitions"]
        assert transitions >= 1


def test_a_controller_that_is_switched_off_does_nothing(bare: Instance):
    bare.kubectl("create", "deployment", "idle", "--image=none.example/none:1")
    bare.kubectl("create", "namespace", "other")
    eventually(lambda: bare.kubectl("get", "sa", "default", "-n", "other", ok=False).code == 0)
    assert not [name for name in owned(bare) if name.startswith("idle")]
