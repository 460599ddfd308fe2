"""Volumes from the API's objects and from paths of the node, as files in a container."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from conftest import Instance, eventually
from pods_on_node import FOREVER, container, events, make, ready, said

PATIENCE = 60.0


def sh(cluster: Instance, namespace: str, name: str, script: str) -> str:
    return cluster.kubectl("-n", namespace, "exec", name, "--", "sh", "-c", script).out


def apply(cluster: Instance, namespace: str, kind: str, name: str, **fields: Any) -> None:
    made = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        **fields,
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))


def test_items_have_paths_and_modes_of_their_own_and_may_be_missing(
    cluster: Instance, namespace: str
) -> None:
    apply(cluster, namespace, "ConfigMap", "cm", data={"a": "1", "b": "2"})
    apply(cluster, namespace, "Secret", "sec", stringData={"k": "geheim", "other": "x"})
    apply(cluster, namespace, "ConfigMap", "raw", binaryData={"bin": "/wAB"})
    volumes = [
        {
            "name": "cm",
            "configMap": {
                "name": "cm",
                "defaultMode": 0o440,
                "items": [
                    {"key": "a", "path": "deep/er/one"},
                    {"key": "b", "path": "two", "mode": 0o600},
                ],
            },
        },
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
        {"name": "raw", "configMap": {"name": "raw"}},
        {"name": "no", "configMap": {"name": "missing", "optional": True}},
        {
            "name": "all",
            "projected": {
                "defaultMode": 0o444,
                "sources": [
                    {"configMap": {"name": "cm", "items": [{"key": "a", "path": "from-cm"}]}},
                    {"secret": {"name": "sec", "items": [{"key": "k", "path": "d/from-secret"}]}},
                    {"secret": {"name": "absent", "optional": True}},
                    {
                        "downwardAPI": {
                            "items": [
                                {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
                                {
                                    "path": "limit",
                                    "mode": 0o400,
                                    "resourceFieldRef": {
                                        "containerName": "main",
                                        "resource": "limits.memory",
                                        "divisor": "1Mi",
                                    },
                                },
                            ]
                        }
                    },
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                ],
            },
        },
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    make(
        *(cluster, namespace, "files", container(volumeMounts=mounts, **limits)),
        volumes=volumes,
    )
    ready(cluster, namespace, "files")

    def modes(path: str) -> str:
        return sh(cluster, namespace, "files", f"stat -L -c %a {path}").strip()

    read = "cat /cm/deep/er/one /cm/two /sec/k /all/from-cm /all/d/from-secret /all/name /all/limit"
    assert sh(cluster, namespace, "files", read) == "12geheim1geheimfiles64"
    assert sh(cluster, namespace, "files", "ls /cm /sec /no").split() == [
        *("/cm:", "deep", "two", "/no:", "/sec:", "k", "other")
    ]
    assert modes("/cm/deep/er/one") == "440" and modes("/cm/two") == "600"
    assert modes("/sec/k") == "400" and modes("/raw/bin") == "644"
    assert modes("/all/name") == "444" and modes("/all/limit") == "400"
    assert sh(cluster, namespace, "files", "od -An -tx1 /raw/bin").split() == ["ff", "00", "01"]
    token = sh(cluster, namespace, "files", "cat /all/token")
    assert token.count(".") == 2
    written = cluster.kubectl(
        *("-n", namespace, "exec", "files", "--", "sh", "-c", "echo x > /cm/two"), ok=False
    )
    assert "Read-only file system" in written.err
    # What was missing comes, and what is there changes, all of a volume's files at once.
    apply(cluster, namespace, "ConfigMap", "missing", data={"late": "here"})
    eventually(
        lambda: sh(cluster, namespace, "files", "cat /no/late 2>/dev/null || true") == "here",
        seconds=PATIENCE,
    )


def test_a_change_is_seen_as_a_whole_or_not_at_all(cluster: Instance, namespace: str) -> None:
    """A reader who takes the directory once sees files of one version."""
    apply(cluster, namespace, "ConfigMap", "pair", data={"a": "0", "b": "0"})
    watch = (
        "while :; do cd -P /v/..data 2>/dev/null && a=$(cat a) && b=$(cat b) && "
        '[ "$a" != "$b" ] && echo "$a $b" >> /tmp/torn; cd /; done'
    )
    make(
        *(cluster, namespace, "reader"),
        container(command=watch, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        volumes=[{"name": "v", "configMap": {"name": "pair"}}],
    )
    ready(cluster, namespace, "reader")
    for number in range(1, 8):
        data = json.dumps({"data": {"a": str(number), "b": str(number)}})
        cluster.kubectl("-n", namespace, "patch", "cm", "pair", "-p", data)
    eventually(lambda: sh(cluster, namespace, "reader", "cat /v/a /v/b") == "77", seconds=PATIENCE)
    assert sh(cluster, namespace, "reader", "cat /tmp/torn 2>/dev/null || true") == ""
    cluster.kubectl("-n", namespace, "delete", "pod", "reader", "--now")


def made_on(node: Path) -> None:
    """One of each kind that a hostPath may have to be."""
    (node / "dir").mkdir()
    (node / "file").write_text("f")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(node / "sock"))
    os.mknod(node / "char", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(node / "block", 0o600 | stat.S_IFBLK, os.makedev(7, 200))


KINDS = {
    "dir": "Directory",
    "file": "File",
    "sock": "Socket",
    "char": "CharDevice",
    "block": "BlockDevice",
}


def test_a_path_of_the_node_must_be_what_it_is_said_to_be(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    made_on(tmp_path)
    wanted = list(KINDS.items())
    wanted += [("new-dir", "DirectoryOrCreate"), ("new-file", "FileOrCreate"), ("dir", "")]
    volumes = [
        {"name": f"v{n}", "hostPath": {"path": str(tmp_path / path), "type": kind}}
        for n, (path, kind) in enumerate(wanted)
    ]
    mounts = [{"name": f"v{n}", "mountPath": f"/m/{n}"} for n in range(len(wanted))]
    make(cluster, namespace, "kinds", container(volumeMounts=mounts), volumes=volumes)
    ready(cluster, namespace, "kinds")
    listed = sh(cluster, namespace, "kinds", "cd /m; stat -c %F *").splitlines()
    assert listed[:5] == [
        *("directory", "regular file", "socket", "character special file", "block special file")
    ]
    assert listed[5:] == ["directory", "regular empty file", "directory"]
    assert (tmp_path / "new-dir").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "new-file").stat().st_mode & 0o777 == 0o644
    for name, (path, kind) in {
        "a": ("file", "Directory"),
        "b": ("dir", "File"),
        "c": ("file", "Socket"),
        "d": ("file", "CharDevice"),
        "e": ("char", "BlockDevice"),
        "f": ("none", "Directory"),
    }.items():
        make(
            *(cluster, namespace, name),
            container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            volumes=[{"name": "v", "hostPath": {"path": str(tmp_path / path), "type": kind}}],
        )
    for name in "abcdef":
        eventually(
            lambda n=name: "hostPath type check failed" in events(cluster, namespace, n),
            seconds=PATIENCE,
        )
        assert said(cluster, namespace, name, "FailedMount")
    # It becomes one, and the pod starts.
    (tmp_path / "none").mkdir()
    ready(cluster, namespace, "f")


@pytest.mark.parametrize("medium", ["", "Memory"])
def test_an_empty_directory_is_the_pods_and_outlives_its_containers(
    cluster: Instance, namespace: str, medium: str
) -> None:
    name = f"empty{medium.lower()}"
    fail = f"[ -e /v/once ] || {{ touch /v/once; exit 1; }}; {FOREVER}"
    mounts = [{"name": "v", "mountPath": "/v"}]
    make(
        *(cluster, namespace, name),
        container(command=fail, volumeMounts=mounts),
        container("second", volumeMounts=mounts),
        volumes=[{"name": "v", "emptyDir": {"medium": medium, "sizeLimit": "8Mi"}}],
        securityContext={"runAsUser": 1234},
    )
    ready(cluster, namespace, name)
    script = "cat /proc/mounts | grep ' /v ' | cut -d' ' -f1; touch /v/mine && stat -c %u /v/mine"
    kind, owner = sh(cluster, namespace, name, script).split()
    assert (kind == "tmpfs") is (medium == "Memory") and owner == "1234"
    if medium == "Memory":
        # Memory is bounded where it is written, nobody has to go for it.
        full = "dd if=/dev/zero of=/v/x bs=1M count=9 2>&1 || true"
        assert "No space left on device" in sh(cluster, namespace, name, full)
    pod = cluster.get("pod", name, "-n", namespace)
    by_name = {s["name"]: s for s in pod["status"]["containerStatuses"]}
    assert by_name["main"]["restartCount"] == 1 and by_name["second"]["restartCount"] == 0
    cluster.kubectl("-n", namespace, "delete", "pod", name, "--now")
    assert not (cluster.data_dir / "kubelet" / "pods" / pod["metadata"]["uid"]).exists()
