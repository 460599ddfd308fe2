"""Volumes of pods on a real node, seen through kubectl."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually

IMAGE = "wherry.io/busybox:1"
FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def make(cluster: Instance, namespace: str, name: str, *, mounts: list[Any], **spec: Any) -> None:
    """Create a pod whose one container has ``mounts``; ``container`` adds to it."""
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["sh", "-c", FOREVER],
        "volumeMounts": mounts,
        **spec.pop("container", {}),
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"pod": name}},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": [container], **spec},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))


def ready(cluster: Instance, namespace: str, name: str) -> dict[str, Any]:
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", f"pod/{name}")
    return cluster.get("pod", name, "-n", namespace)


def run_in(cluster: Instance, namespace: str, name: str, script: str) -> str:
    return cluster.kubectl("-n", namespace, "exec", name, "--", "sh", "-c", script).out


def told(cluster: Instance, namespace: str, name: str, text: str) -> None:
    """Wait for an event of the pod that says ``text``."""

    def said() -> bool:
        return text in cluster.kubectl("-n", namespace, "events", "--for", f"pod/{name}").out

    eventually(said)


def test_a_user_that_is_not_root_writes_to_sub_paths(cluster: Instance, namespace: str) -> None:
    make(
        cluster,
        namespace,
        "sub",
        mounts=[
            {"name": "data", "mountPath": "/a", "subPath": "one/two"},
            {"name": "data", "mountPath": "/b", "subPathExpr": "$(NAME)/logs"},
            {"name": "data", "mountPath": "/all", "readOnly": True},
        ],
        container={
            "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        },
        securityContext={"runAsUser": 1000, "runAsNonRoot": True},
        volumes=[{"name": "data", "emptyDir": {}}],
    )
    ready(cluster, namespace, "sub")
    script = "echo 1 > /a/f; echo 2 > /b/f; cat /all/one/two/f /all/sub/logs/f"
    assert run_in(cluster, namespace, "sub", script) == "1\n2\n"
    script = "touch /all/x 2>&1 || true"
    assert "Read-only file system" in run_in(cluster, namespace, "sub", script)


def test_a_sub_path_of_an_unknown_variable_is_refused(cluster: Instance, namespace: str) -> None:
    make(
        cluster,
        namespace,
        "expr",
        mounts=[{"name": "data", "mountPath": "/a", "subPathExpr": "$(NOBODY)"}],
        volumes=[{"name": "data", "emptyDir": {}}],
    )
    told(cluster, namespace, "expr", 'missing value for "NOBODY"')


def test_a_variable_leads_no_sub_path_out_of_its_volume(cluster: Instance, namespace: str) -> None:
    for name, value, text in (
        ("absolute", "/tmp", "error SubPath `/tmp` must not be an absolute path"),
        ("back", "a/../../b", "must not contain '..'"),
    ):
        make(
            cluster,
            namespace,
            name,
            container={"env": [{"name": "WHERE", "value": value}]},
            mounts=[{"name": "data", "mountPath": "/a", "subPathExpr": "$(WHERE)"}],
            volumes=[{"name": "data", "emptyDir": {}}],
        )
        told(cluster, namespace, name, text)


def test_a_token_is_for_its_user_alone(cluster: Instance, namespace: str) -> None:
    source = {"serviceAccountToken": {"path": "token", "audience": "x", "expirationSeconds": 600}}
    make(
        cluster,
        namespace,
        "token",
        mounts=[{"name": "token", "mountPath": "/token"}],
        securityContext={"runAsUser": 1000},
        volumes=[{"name": "token", "projected": {"sources": [source]}}],
    )
    ready(cluster, namespace, "token")
    out = run_in(cluster, namespace, "token", "stat -L -c '%u %a' /token/token; wc -c /token/token")
    assert out.startswith("1000 600\n")
    assert int(out.split()[2]) > 100


def test_what_is_missing_is_told_and_the_pod_starts_when_it_comes(
    cluster: Instance, namespace: str
) -> None:
    make(
        cluster,
        namespace,
        "late",
        mounts=[{"name": "conf", "mountPath": "/conf"}],
        volumes=[{"name": "conf", "configMap": {"name": "late"}}],
    )
    told(
        cluster,
        namespace,
        "late",
        'MountVolume.SetUp failed for volume "conf" : configmap "late" not found',
    )
    cluster.kubectl("-n", namespace, "create", "configmap", "late", "--from-literal=k=v")
    ready(cluster, namespace, "late")
    assert run_in(cluster, namespace, "late", "cat /conf/k") == "v"


def test_what_is_immutable_is_not_followed(cluster: Instance, namespace: str) -> None:
    kubectl = cluster.kubectl
    for name in ("fixed", "free"):
        kubectl("-n", namespace, "create", "configmap", name, "--from-literal=k=old")
    kubectl("-n", namespace, "patch", "configmap", "fixed", "-p", '{"immutable":true}')
    make(
        cluster,
        namespace,
        "follows",
        mounts=[
            {"name": "fixed", "mountPath": "/fixed"},
            {"name": "free", "mountPath": "/free"},
        ],
        volumes=[
            {"name": "fixed", "configMap": {"name": "fixed"}},
            {"name": "free", "configMap": {"name": "free"}},
        ],
    )
    ready(cluster, namespace, "follows")
    kubectl("-n", namespace, "delete", "configmap", "fixed")
    kubectl("-n", namespace, "create", "configmap", "fixed", "--from-literal=k=new")
    kubectl("-n", namespace, "patch", "configmap", "free", "-p", '{"data":{"k":"new"}}')
    eventually(lambda: run_in(cluster, namespace, "follows", "cat /free/k") == "new")
    assert run_in(cluster, namespace, "follows", "cat /fixed/k") == "old"


def test_the_files_of_an_image_are_a_volume(cluster: Instance, namespace: str) -> None:
    make(
        cluster,
        namespace,
        "image",
        mounts=[
            {"name": "files", "mountPath": "/files"},
            {"name": "files", "mountPath": "/names", "subPath": "etc"},
        ],
        volumes=[{"name": "files", "image": {"reference": IMAGE, "pullPolicy": "IfNotPresent"}}],
    )
    ready(cluster, namespace, "image")
    script = "cmp /files/bin/busybox /bin/busybox && head -1 /names/passwd; touch /files/x 2>&1"
    out = run_in(cluster, namespace, "image", f"{script}; true")
    assert out.startswith("root:x:0:0")
    assert "Read-only file system" in out


def test_an_image_that_is_not_there_is_told(cluster: Instance, namespace: str) -> None:
    source = {"reference": "nowhere.example/none:1", "pullPolicy": "Never"}
    make(
        cluster,
        namespace,
        "noimage",
        mounts=[{"name": "files", "mountPath": "/files"}],
        volumes=[{"name": "files", "image": source}],
    )
    told(cluster, namespace, "noimage", "is not present with pull policy of Never")


def test_a_driver_that_is_not_here_is_told(cluster: Instance, namespace: str) -> None:
    make(
        cluster,
        namespace,
        "csi",
        mounts=[{"name": "v", "mountPath": "/v"}],
        volumes=[{"name": "v", "csi": {"driver": "some.example"}}],
    )
    told(
        cluster,
        namespace,
        "csi",
        "driver name some.example not found in the list of registered CSI drivers",
    )


def test_nfs_without_a_server_is_told_as_mount_says_it(cluster: Instance, namespace: str) -> None:
    make(
        cluster,
        namespace,
        "nfs",
        mounts=[{"name": "v", "mountPath": "/v"}],
        volumes=[{"name": "v", "nfs": {"server": "127.0.0.1", "path": "/none"}}],
    )
    told(cluster, namespace, "nfs", "mount failed: exit status")
    pod = cluster.get("pod", "nfs", "-n", namespace)
    cluster.kubectl("-n", namespace, "delete", "pod", "nfs")
    assert not (cluster.data_dir / "kubelet" / "pods" / pod["metadata"]["uid"]).exists()


@pytest.mark.parametrize("recursive", ["Disabled", "Enabled"])
def test_read_only_reaches_as_far_down_as_is_wanted(
    cluster: Instance, namespace: str, tmp_path: Path, recursive: str
) -> None:
    from wherry.host import syscalls

    (tmp_path / "below").mkdir()
    syscalls.mount("tmpfs", str(tmp_path / "below"), "tmpfs", 0, "mode=777")
    try:
        mount = {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": recursive}
        volumes = [{"name": "v", "hostPath": {"path": str(tmp_path)}}]
        make(cluster, namespace, "ro", mounts=[mount], volumes=volumes)
        ready(cluster, namespace, "ro")
        out = run_in(cluster, namespace, "ro", "touch /v/below/x && echo written; true")
        assert out == ("written\n" if recursive == "Disabled" else "")
        cluster.kubectl("-n", namespace, "delete", "pod", "ro")
    finally:
        syscalls.umount(str(tmp_path / "below"), syscalls.MNT_DETACH)


def test_mounts_of_the_node_reach_a_pod_that_asks_for_them(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    from wherry.host import syscalls

    shared = 1 << 20
    syscalls.mount("tmpfs", str(tmp_path), "tmpfs", 0, "")
    syscalls.mount("none", str(tmp_path), "", shared)
    (tmp_path / "later").mkdir()
    try:
        mount = {"name": "v", "mountPath": "/v", "mountPropagation": "HostToContainer"}
        volumes = [{"name": "v", "hostPath": {"path": str(tmp_path)}}]
        make(cluster, namespace, "slave", mounts=[mount], volumes=volumes)
        ready(cluster, namespace, "slave")
        syscalls.mount("tmpfs", str(tmp_path / "later"), "tmpfs", 0, "")
        (tmp_path / "later" / "f").write_text("here")
        assert run_in(cluster, namespace, "slave", "cat /v/later/f") == "here"
        cluster.kubectl("-n", namespace, "delete", "pod", "slave")
        syscalls.umount(str(tmp_path / "later"), syscalls.MNT_DETACH)
    finally:
        syscalls.umount(str(tmp_path), syscalls.MNT_DETACH)


def test_nothing_is_left_of_pods_that_went_while_the_node_was_killed(
    cluster: Instance, namespace: str
) -> None:
    kubectl = cluster.kubectl
    kubectl("-n", namespace, "create", "secret", "generic", "s", "--from-literal=k=v")
    mounts = [
        {"name": "s", "mountPath": "/s"},
        {"name": "m", "mountPath": "/m", "subPath": "deep/er"},
    ]
    volumes = [
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "m", "emptyDir": {"medium": "Memory"}},
    ]
    for name in ("stays", "goes"):
        make(cluster, namespace, name, mounts=mounts, volumes=volumes)
    uid = ready(cluster, namespace, "goes")["metadata"]["uid"]
    ready(cluster, namespace, "stays")
    run_in(cluster, namespace, "stays", "echo kept > /m/f")
    os.kill(cluster.pid("node"), signal.SIGKILL)
    kubectl("-n", namespace, "delete", "pod", "goes", "--force", "--wait=false")
    cluster.wherry("up")
    directory = cluster.data_dir / "kubelet" / "pods" / uid
    eventually(lambda: not directory.exists())
    assert uid not in Path("/proc/self/mountinfo").read_text()
    assert run_in(cluster, namespace, "stays", "cat /m/f /s/k") == "kept\nv"
    kubectl("-n", namespace, "patch", "secret", "s", "-p", '{"stringData":{"k":"new"}}')
    eventually(lambda: run_in(cluster, namespace, "stays", "cat /s/k") == "new")
