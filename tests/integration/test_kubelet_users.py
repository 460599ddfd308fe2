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
    assert "when `pod.Spec.HostUsers` is false" in done.err
    eventually(lambda: run_in(cluster, namespace, "next", "echo in") == "in\n")
