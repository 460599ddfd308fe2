"""A node's disk: images that nobody uses, pods that write too much, pressure and what follows."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pytest
from conftest import Instance, eventually
from pods_on_node import FOREVER, container, events, make, ready, said
from pressed import PATIENCE, condition, evicted, important, node_events, status, taints

CONFIG = """
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionHard: {nodefs.available: 100Mi, nodefs.inodesFree: 5%}
evictionPressureTransitionPeriod: 1s
imageGCHighThresholdPercent: 25
imageGCLowThresholdPercent: 15
imageMinimumGCAge: 0s
"""
DISK = 600  # MiB; the engine keeps 256 of them free of images
MI = 1 << 20


@pytest.fixture(scope="module")
def small(
    new_instance: Callable[[], Instance], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """An instance on a small disk of its own."""
    instance = new_instance()
    disk = instance.data_dir
    disk.mkdir()
    instance.data_dir = disk / "instance"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", disk], check=True)
    file = tmp_path_factory.mktemp("config") / "kubelet.yaml"
    file.write_text(CONFIG)
    try:
        instance.wherry("up", "--sample", "--kubelet-config", str(file))
        instance.kubectl("delete", "deployment,daemonset,statefulset", "--all")
        important(instance)
        # (What a container is made of stays, whether it runs or not.)
        instance.docker("create", "--name", "keeps", "hello:1")
        yield instance
        instance.wherry("down", "--purge", "--grace", "1")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def free(cluster: Instance) -> int:
    """Bytes that are left on the disk."""
    found = subprocess.check_output(
        ["df", "-B1", "--output=avail", cluster.data_dir.parent], text=True
    )
    return int(found.split()[-1])


def fill(cluster: Instance, file: BinaryIO, mebibytes: int) -> None:
    """Write until so much is left."""
    for _ in range((free(cluster) - mebibytes * MI) // MI):
        file.write(bytes(MI))
    file.flush()


def images(cluster: Instance) -> set[str]:
    names = cluster.docker("images", "--format", "{{.Repository}}:{{.Tag}}").out
    return set(names.split())


def build(cluster: Instance, name: str, mebibytes: int) -> None:
    """An image whose own layer is that large."""
    lines = f"FROM hello:1\nRUN dd if=/dev/urandom of=/large bs=1M count={mebibytes} 2>/dev/null\n"
    cluster.docker("build", "-q", "--no-cache", "-t", name, "-", stdin=lines)


def writing(mebibytes: int, path: str = "/x", **fields: Any) -> dict[str, Any]:
    """A container that is ready when it has written so much."""
    script = f"dd if=/dev/zero of={path} bs=1M count={mebibytes} 2>/dev/null; >/tmp-done; {FOREVER}"
    probe = {"exec": {"command": ["test", "-e", "/tmp-done"]}, "periodSeconds": 1}
    return container(command=script, readinessProbe=probe, **fields)


LIMIT = {"resources": {"limits": {"ephemeral-storage": "4Mi"}}}
MORE = {"resources": {"limits": {"ephemeral-storage": "40Mi"}}}
MOUNT = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
VOLUME = [{"name": "v", "emptyDir": {"sizeLimit": "4Mi"}}]
CHATTER = "i=0; while [ $i -lt 600 ]; do echo {}; i=$((i+1)); done; {}".format("x" * 16000, FOREVER)


def test_who_writes_more_than_its_own_limit_goes_whatever_is_left(small: Instance) -> None:
    """Layers, volumes and logs count, each container's and the pod's as a whole."""
    make(small, "default", "layer", writing(6, **LIMIT))
    make(small, "default", "log", container(command=CHATTER, **LIMIT))
    make(
        *(small, "default", "one", writing(6, **LIMIT)),
        container("second", **MORE),
    )
    make(
        *(small, "default", "whole", writing(6, "/v/x", **LIMIT, **MOUNT)),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    make(small, "default", "volume", writing(6, "/v/x", **MOUNT), volumes=VOLUME)
    make(small, "default", "within", writing(2, "/v/x", **MORE, **MOUNT), volumes=VOLUME)
    of_pod = "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. "
    expected = {
        "layer": of_pod,
        "log": of_pod,
        "whole": of_pod,
        "one": 'Container main exceeded its local ephemeral storage limit "4Mi". ',
        "volume": 'Usage of EmptyDir volume "v" exceeds the limit "4Mi". ',
    }
    for name, text in expected.items():
        assert evicted(small, name)["message"] == text, name
        assert said(small, "default", name, text.strip())
    assert status(small, "within")["phase"] == "Running"
    assert condition(small, "DiskPressure")[0] == "False"
    small.kubectl("delete", "pod", "--all", "--now")


def test_images_that_nobody_uses_go_when_the_disk_fills(small: Instance) -> None:
    """The kubelet looks when it starts, and every five minutes."""
    for name in ("used:1", "stopped:1", "old:1", "new:1"):
        build(small, name, 40)
    make(small, "default", "user", container(image="used:1"))
    ready(small, "default", "user")
    small.docker("create", "--name", "stopped", "stopped:1")
    small.docker("run", "--rm", "new:1", "true")
    share = 1 - free(small) / (DISK * MI)
    assert share > 0.25, "there is enough on the disk for images to go"
    small.wherry("down")
    small.wherry("up")
    eventually(lambda: not {"old:1", "new:1"} & images(small), seconds=PATIENCE)
    assert {"used:1", "stopped:1"} <= images(small)
    # It could not free as much as it wanted to.
    eventually(
        lambda: (
            (
                "FreeDiskSpaceFailed: Failed to garbage collect required amount of images. "
                "Attempted to free "
            )
            in node_events(small)
        ),
        seconds=PATIENCE,
    )
    assert status(small, "user")["phase"] == "Running"
    small.kubectl("delete", "pod", "--all", "--now")
    small.docker("rm", "stopped")
    small.docker("rmi", "used:1", "stopped:1")


def test_a_disk_under_pressure_gives_up_images_first_then_who_wrote_most(small: Instance) -> None:
    build(small, "unused:1", 30)
    asking = {"resources": {"requests": {"ephemeral-storage": "60Mi"}}}
    make(small, "default", "modest", writing(40, **asking))
    make(small, "default", "vip", writing(50), priorityClassName="important")
    make(small, "default", "little", writing(10))
    ready(small, "default", "modest", "vip", "little")
    assert condition(small, "DiskPressure") == (
        *("False", "KubeletHasNoDiskPressure"),
        "kubelet has no disk pressure",
    )
    make(small, "default", "most", writing(70))
    ready(small, "default", "most")
    # Now something else fills the disk so far that images are not enough: the one of 30 MiB
    # takes twice as much where its layer lies packed, too.
    rest = small.data_dir.parent / "rest"
    try:
        with rest.open("wb") as file:
            fill(small, file, 30)
        told = evicted(small, "most")
        assert (
            "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi"
            in (told["message"])
        )
        assert "Container main was using " in told["message"]
        assert "unused:1" not in images(small)
        text = "EvictionThresholdMet: Attempting to reclaim ephemeral-storage"
        eventually(lambda: text in node_events(small), seconds=PATIENCE)
        eventually(lambda: condition(small, "DiskPressure")[0] == "False", seconds=PATIENCE)
        for name in ("modest", "vip", "little"):
            assert status(small, name)["phase"] == "Running", name
    finally:
        rest.unlink()


def test_under_pressure_the_node_takes_nobody_and_afterwards_it_does(small: Instance) -> None:
    """What no pod has written does not go away with pods."""
    small.kubectl("delete", "pod", "--all", "--now")
    rest = small.data_dir.parent / "rest"
    node = small.get("nodes")["items"][0]["metadata"]["name"]
    try:
        with rest.open("wb") as file:
            # What the pods wrote may still be on its way out.
            eventually(
                lambda: (
                    fill(small, file, 60)
                    or condition(small, "DiskPressure")
                    == ("True", "KubeletHasDiskPressure", "kubelet has disk pressure")
                ),
                seconds=PATIENCE,
            )
        eventually(
            lambda: "node.kubernetes.io/disk-pressure:NoSchedule" in taints(small),
            seconds=PATIENCE,
        )
        make(small, "default", "bound", nodeName=node)
        make(small, "default", "waits")
        eventually(lambda: status(small, "bound")["phase"] == "Failed", seconds=PATIENCE)
        told = status(small, "bound")
        assert told["reason"] == "Evicted"
        assert told["message"] == ("Pod was rejected: The node had condition: [DiskPressure]. ")
        eventually(lambda: "untolerated taint" in events(small, "default", "waits"))
    finally:
        rest.unlink()
    eventually(lambda: condition(small, "DiskPressure")[0] == "False", seconds=PATIENCE)
    eventually(lambda: not taints(small), seconds=PATIENCE)
    ready(small, "default", "waits")
    small.kubectl("delete", "pod", "--all", "--now")
