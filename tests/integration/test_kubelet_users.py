"""Pods with user namespaces of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import Instance, eventually
from test_kubelet_pods import FOREVER, make, ready, run_in


@pytest.fixture(autouse=True)
def supported(cluster: Instance) -> None:
    (node,) = cluster.get("nodes")["items"]
    (usual,) = [h for h in node["status"]["runtimeHandlers"] if h.get("name", "") == ""]
    if not usual["features"]["userNamespaces"]:
        pytest.skip("needs mounts with mapped ids (Linux 5.19)")


def pid(cluster: Instance, namespace: str, name: str) -> int:
    status = cluster.get("pod", name, "-n", namespace)["status"]["containerStatuses"][0]
    id_ = status["containerID"].removeprefix("docker://")
    return int(cluster.docker("inspect", "-f", "{{.State.Pid}}", id_).out)


def test_root_of_a_pod_is_somebody_else_on_the_host_in_each_pod(
    cluster: Instance, namespace: str
) -> None:
    cluster.kubectl("-n", namespace, "create", "configmap", "cm", "--from-literal=a=1")
    two = [
        {
            "name": name,
            "image": "hello:1",
            "command": ["sh", "-c", FOREVER],
            "volumeMounts": [
                {"name": "tmp", "mountPath": "/tmp/d"},
                {"name": "memory", "mountPath": "/memory"},
                {"name": "cm", "mountPath": "/cm"},
            ],
        }
        for name in ("a", "b")
    ]
    volumes = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "cm", "configMap": {"name": "cm"}},
    ]
    for name in ("one", "two"):
        make(
            *(cluster, namespace, name),
            hostUsers=False,
            containers=two,
            volumes=volumes,
            securityContext={"fsGroup": 2000},
        )
    for name in ("one", "two"):
        ready(cluster, namespace, name)
    owners = {
        Path(f"/proc/{pid(cluster, namespace, name)}").stat().st_uid for name in ("one", "two")
    }
    assert len(owners) == 2 and 0 not in owners
    assert all(owner % 65536 == 0 for owner in owners)
    script = (
        "id -u; cat /cm/a; echo; touch /tmp/d/x /memory/x /x; "
        "stat -c %u:%g /tmp/d/x /memory/x /bin/sh /x /etc/hosts; cat /proc/self/uid_map"
    )
    words = run_in(cluster, namespace, "one", script).split()
    assert words[:2] == ["0", "1"]
    assert words[2:7] == ["0:2000", "0:2000", "0:0", "0:0", "0:0"]
    assert words[7] == "0" and int(words[8]) in owners and words[9] == "65536"
    spaces = {
        cluster.kubectl(
            *("-n", namespace, "exec", "one", "-c", name, "--", "readlink", "/proc/self/ns/user")
        ).out
        for name in ("a", "b")
    }
    assert len(spaces) == 1 and spaces != {os.readlink("/proc/self/ns/user") + "\n"}
    # What they wrote is the image's users' on the disk, so that other pods can read it.
    uid = cluster.get("pod", "one", "-n", namespace)["metadata"]["uid"]
    written = cluster.data_dir / f"kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/tmp/x"
    assert (written.stat().st_uid, written.stat().st_gid) == (0, 2000)
    cluster.kubectl("-n", namespace, "delete", "pod", "one", "two")
    mounts = Path("/proc/self/mounts").read_text()
    assert uid not in mounts


def test_all_of_proc_is_seen_where_it_is_asked_for(cluster: Instance, namespace: str) -> None:
    for name, kind in (("masked", "Default"), ("unmasked", "Unmasked")):
        make(
            *(cluster, namespace, name),
            hostUsers=False,
            container={"securityContext": {"procMount": kind}},
        )
    for name in ("masked", "unmasked"):
        ready(cluster, namespace, name)
    count = "grep -c ' /proc/' /proc/self/mountinfo || true"
    assert int(run_in(cluster, namespace, "masked", count)) > 0
    assert int(run_in(cluster, namespace, "unmasked", count)) == 0


def test_a_privileged_container_is_mighty_in_its_own_namespace_alone(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    from wherry.host import syscalls

    shared = 1 << 20
    tmp_path.chmod(0o777)
    syscalls.mount("tmpfs", str(tmp_path), "tmpfs", 0, "mode=0777")
    syscalls.mount("none", str(tmp_path), "", shared)
    (tmp_path / "below").mkdir()
    (tmp_path / "later").mkdir()
    (tmp_path / "mine").write_text("the host's")
    (tmp_path / "mine").chmod(0o600)
    try:
        mount = {"name": "h", "mountPath": "/h"}
        containers = [
            {
                "name": name,
                "image": "hello:1",
                "command": ["sh", "-c", FOREVER],
                "securityContext": {"privileged": True},
                "volumeMounts": [{**mount, "mountPropagation": propagation}],
            }
            for name, propagation in (("up", "Bidirectional"), ("down", "HostToContainer"))
        ]
        volumes = [{"name": "h", "hostPath": {"path": str(tmp_path)}}]
        make(
            *(cluster, namespace, "mighty"), hostUsers=False, containers=containers, volumes=volumes
        )
        ready(cluster, namespace, "mighty")

        def within(container: str, script: str) -> str:
            words = ("exec", "mighty", "-c", container, "--", "sh", "-c", script)
            return cluster.kubectl("-n", namespace, *words).out

        # All that root may do, it may do to what is its own: mount, name its machine.
        mine = "mkdir -p /m && mount -t tmpfs t /m && touch /m/x && hostname other && hostname"
        assert within("up", mine) == "other\n"
        refused = "echo 1 > /proc/sys/kernel/panic || mknod /n b 8 0 || echo refused"
        assert within("up", f"({refused}) 2>/dev/null") == "refused\n"
        # Files of the host have their owners: ids are mapped, as for every volume.
        assert within("up", "cat /h/mine; stat -c %u /h/mine") == "the host's0\n"
        # Mounts are passed on as the volume says, each way.
        within("up", "mount -t tmpfs t /h/below && touch /h/below/f")
        assert (tmp_path / "below" / "f").exists()
        assert within("down", "ls /h/below") == "f\n"
        within("down", "mount -t tmpfs t /h/later && touch /h/later/f")
        assert not (tmp_path / "later" / "f").exists()
        within("down", "umount /h/later")
        syscalls.mount("tmpfs", str(tmp_path / "later"), "tmpfs", 0, "mode=0777")
        (tmp_path / "later" / "f").write_text("here")
        assert within("down", "cat /h/later/f") == "here"
        cluster.kubectl("-n", namespace, "delete", "pod", "mighty")
    finally:
        for name in ("below", "later"):
            if (tmp_path / name).is_mount():
                syscalls.umount(str(tmp_path / name), syscalls.MNT_DETACH)
        syscalls.umount(str(tmp_path), syscalls.MNT_DETACH)


def test_raw_devices_are_refused(cluster: Instance, namespace: str) -> None:
    container = {
        "name": "main",
        "image": "hello:1",
        "volumeDevices": [{"name": "d", "devicePath": "/dev/xvda"}],
    }
    spec = {
        "hostUsers": False,
        "containers": [container],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "raw"}, "spec": spec}
    words = ("-n", namespace, "apply", "-f", "-")
    done = cluster.kubectl(*words, stdin=json.dumps(pod), ok=False)
    text = "spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false"
    assert text in done.err


def test_it_outlives_the_node_and_shares_nothing_with_the_host(
    cluster: Instance, namespace: str
) -> None:
    make(cluster, namespace, "kept", hostUsers=False)
    ready(cluster, namespace, "kept")
    before = pid(cluster, namespace, "kept")
    os.kill(cluster.pid("node"), 9)
    cluster.wherry("up")
    make(cluster, namespace, "next", hostUsers=False)
    ready(cluster, namespace, "next")
    assert pid(cluster, namespace, "kept") == before
    assert run_in(cluster, namespace, "kept", "id -u").strip() == "0"
    owners = {
        Path(f"/proc/{pid(cluster, namespace, name)}").stat().st_uid for name in ("kept", "next")
    }
    assert len(owners) == 2

    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "both", "namespace": namespace},
        "spec": {
            "hostUsers": False,
            "hostNetwork": True,
            "containers": [{"name": "main", "image": "hello:1"}],
        },
    }
    done = cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod), ok=False)
    assert "when `hostUsers` is false" in done.err
    eventually(lambda: run_in(cluster, namespace, "next", "echo in") == "in\n")
