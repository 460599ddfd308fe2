"""`wherry up`, `status`, `env`, `down`, `down --purge`, two instances, and death at any moment."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
from collections.abc import Callable

import kernel
from conftest import Instance, eventually

from wherry.launcher import instance as instances
from wherry.launcher import slots
from wherry.runtime import cgroups

NewInstance = Callable[[], Instance]


def _found(instance: Instance) -> instances.Instance:
    found = instances.find(instance.data_dir)
    assert found is not None
    return found


def _nothing_left(before: dict[str, set[str]], instance: instances.Instance) -> None:
    """The kernel removes links in the background; another instance's may be half made just now."""
    left: dict[str, set[str]] = {}

    def nothing() -> bool:
        nonlocal left
        left = kernel.left_behind(before, instance)
        return not left

    eventually(nothing, told=lambda: str(left))


def test_up_status_env_down_and_purge_leave_nothing(new_instance: NewInstance) -> None:
    before = kernel.state()
    instance = new_instance()

    up = instance.wherry("up")
    assert "is Ready" in up.out
    status = instance.wherry("status").out
    assert "server" in status and "node" in status and "not running" not in status
    assert {"DOCKER_HOST", "KUBECONFIG"} <= set(instance.environment)
    conditions = instance.get("nodes")["items"][0]["status"]["conditions"]
    assert {c["type"]: c["status"] for c in conditions}["Ready"] == "True"

    again = instance.wherry("up")
    assert "already running" in again.out
    gone = _found(instance)

    instance.wherry("down")
    assert "not running" in instance.wherry("status", ok=False).out
    instance.wherry("down", "--purge")
    assert not instance.data_dir.exists()
    _nothing_left(before, gone)


def test_purge_also_removes_running_pods_and_containers(new_instance: NewInstance) -> None:
    before = kernel.state()
    instance = new_instance()
    instance.wherry("up", "--sample")
    instance.docker("run", "-d", "--name", "sleeper", "-p", "127.0.0.1:0:80", "hello:1")
    gone = _found(instance)
    instance.wherry("down", "--purge", "--grace", "1")
    assert not instance.data_dir.exists()
    _nothing_left(before, gone)


def test_two_instances_do_not_see_each_other(cluster: Instance, new_instance: NewInstance) -> None:
    other = new_instance()
    other.wherry("up")
    cluster.docker("run", "-d", "--name", "only-here", "hello:1", "sleep", "60")
    try:
        assert "only-here" in cluster.docker("ps").out
        assert "only-here" not in other.docker("ps", "-a").out
        assert "hello" not in other.kubectl("get", "pods", "-A").out
    finally:
        cluster.docker("rm", "-f", "only-here")
        other.wherry("down", "--purge")
    assert "hello" in cluster.kubectl("get", "pods").out


def test_the_purge_of_one_whose_slot_is_anothers_by_now_leaves_that_alone(
    new_instance: NewInstance,
) -> None:
    """As after a restart of the machine: who is started first has the slot."""
    holder, former = new_instance(), new_instance()
    one, two = (instances.open_or_create(each.data_dir) for each in (holder, former))
    slots.release(instances.RUN_ROOT, two.slot, two.data_dir)
    instances.save(dataclasses.replace(two, slot=one.slot))
    group = f"{one.cgroup_root}/monitors"
    with cgroups.settled():
        layout = cgroups.discover()
        cgroups.make(layout, group)
    monitor = subprocess.Popen(["sleep", "1000"])
    try:
        cgroups.add(layout, group, monitor.pid)
        former.wherry("down", "--purge")
        assert not former.data_dir.exists()
        assert monitor.poll() is None
        assert slots.holder(instances.RUN_ROOT, one.slot) == one.data_dir
    finally:
        monitor.kill()
        monitor.wait()
        cgroups.remove(layout, one.cgroup_root)


def test_objects_and_containers_survive_kill_of_every_process(new_instance: NewInstance) -> None:
    instance = new_instance()
    instance.wherry("up", "--sample")
    instance.docker("run", "-d", "--name", "counter", "hello:1", "sh", "-c", "sleep 2; exit 3")
    pods = {p["metadata"]["uid"]: p["status"] for p in instance.get("pods")["items"]}
    running = set(instance.docker("ps", "-q", "--no-trunc").out.split())

    for daemon in ("server", "node"):
        os.kill(instance.pid(daemon), signal.SIGKILL)
    instance.wherry("up")

    after = {p["metadata"]["uid"]: p["status"] for p in instance.get("pods")["items"]}
    assert after.keys() == pods.keys()
    assert [s["containerStatuses"][0]["restartCount"] for s in after.values()] == [0, 0]
    eventually(
        lambda: instance.docker("inspect", "-f", "{{.State.ExitCode}}", "counter").out == "3\n"
    )
    still = set(instance.docker("ps", "-q", "--no-trunc").out.split())
    assert len(running - still) <= 1  # the counter may have ended; the pods run on
    instance.wherry("down", "--purge", "--grace", "1")


def test_a_port_in_use_is_named_and_nothing_is_started(new_instance: NewInstance) -> None:
    instance = new_instance()
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = instance.wherry("up", "--api-port", str(port), ok=False)
    assert refused.code == 1
    assert f"0.0.0.0:{port}: bind: address already in use" in refused.err
    assert not instance.data_dir.exists()
