"""Claims, volumes and what becomes of them, seen through kubectl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import Instance, eventually
from test_kubelet_volumes import FOREVER, IMAGE, make, ready, run_in, told


def apply(cluster: Instance, *objects: Any) -> None:
    body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))


def volume(name: str, **spec: Any) -> Any:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": name,
            **spec,
        },
    }


def claim(namespace: str, name: str, storage_class: str | None, **spec: Any) -> Any:
    wanted = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        **spec,
    }
    if storage_class is not None:
        wanted["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": wanted,
    }


def local(cluster: Instance, path: Path) -> dict[str, Any]:
    """The source and the affinity of a volume that is a directory of the one node."""
    (node,) = cluster.get("nodes")["items"]
    here = {
        "key": "kubernetes.io/hostname",
        "operator": "In",
        "values": [node["metadata"]["name"]],
    }
    terms = [{"matchExpressions": [here]}]
    return {
        "local": {"path": str(path)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
    }


def phase(cluster: Instance, *what: str) -> str:
    return str((cluster.get(*what).get("status") or {}).get("phase"))


def claimed(name: str, **more: Any) -> Any:
    return [{"name": "data", "persistentVolumeClaim": {"claimName": name, **more}}]


MOUNT = [{"name": "data", "mountPath": "/data"}]


def test_data_outlives_its_pods_and_belongs_to_their_group(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    name = f"{namespace}-local"
    (tmp_path / "old").write_text("was here")
    apply(cluster, volume(name, **local(cluster, tmp_path)), claim(namespace, "c", name))
    security = {"runAsUser": 1000, "fsGroup": 4321}
    for round_ in ("first", "second"):
        make(
            cluster,
            namespace,
            round_,
            mounts=MOUNT,
            volumes=claimed("c"),
            securityContext=security,
        )
        ready(cluster, namespace, round_)
        run_in(cluster, namespace, round_, f"cat /data/old && echo {round_} >> /data/f")
        cluster.kubectl("-n", namespace, "delete", "pod", round_)
    assert (tmp_path / "f").read_text() == "first\nsecond\n"
    assert (tmp_path / "old").stat().st_gid == (tmp_path / "f").stat().st_gid == 4321
    cluster.kubectl("-n", namespace, "delete", "pvc", "c")
    eventually(lambda: phase(cluster, "pv", name) == "Released")
    assert (tmp_path / "f").exists()
    cluster.kubectl("delete", "pv", name)


def test_a_pod_waits_for_its_claim_and_a_claim_for_its_pods(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    name = f"{namespace}-late"
    (node,) = cluster.get("nodes")["items"]
    apply(cluster, claim(namespace, "c", name))
    make(
        cluster,
        namespace,
        "p",
        mounts=MOUNT,
        volumes=claimed("c"),
        nodeName=node["metadata"]["name"],
    )
    text = f"failed to process volumes=[data]: error processing PVC {namespace}/c: PVC is not bound"
    told(cluster, namespace, "p", text)
    apply(cluster, volume(name, hostPath={"path": str(tmp_path)}))
    ready(cluster, namespace, "p")
    cluster.kubectl("-n", namespace, "delete", "pvc", "c", "--wait=false")
    cluster.kubectl("delete", "pv", name, "--wait=false")
    assert cluster.get("pvc", "c", "-n", namespace)["metadata"]["deletionTimestamp"]
    assert cluster.get("pv", name)["metadata"]["deletionTimestamp"]
    cluster.kubectl("-n", namespace, "delete", "pod", "p")
    eventually(lambda: not cluster.get("pvc", "-n", namespace)["items"])
    eventually(lambda: cluster.kubectl("get", "pv", name, ok=False).code != 0)


def test_a_volume_for_one_pod_is_for_one_pod(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    name = f"{namespace}-alone"
    (node,) = cluster.get("nodes")["items"]
    modes = {"accessModes": ["ReadWriteOncePod"]}
    apply(
        cluster,
        volume(name, hostPath={"path": str(tmp_path)}, **modes),
        claim(namespace, "c", name, **modes),
    )
    more: dict[str, Any] = {"volumes": claimed("c"), "nodeName": node["metadata"]["name"]}
    make(cluster, namespace, "first", mounts=MOUNT, **more)
    ready(cluster, namespace, "first")
    make(cluster, namespace, "second", mounts=MOUNT, **more)
    told(cluster, namespace, "second", "ReadWriteOncePod access mode and is already in use")
    cluster.kubectl("-n", namespace, "delete", "pod", "first")
    ready(cluster, namespace, "second")
    cluster.kubectl("-n", namespace, "delete", "pod", "second")
    cluster.kubectl("-n", namespace, "delete", "pvc", "c")
    cluster.kubectl("delete", "pv", name)


def test_a_recycled_volume_is_empty_and_free(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    name = f"{namespace}-again"
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".hidden").write_text("x")
    policy = {"persistentVolumeReclaimPolicy": "Recycle"}
    apply(cluster, volume(name, hostPath={"path": str(tmp_path)}, **policy))
    apply(cluster, claim(namespace, "c", name))
    eventually(lambda: phase(cluster, "pvc", "c", "-n", namespace) == "Bound")
    cluster.kubectl("-n", namespace, "delete", "pvc", "c")
    eventually(lambda: phase(cluster, "pv", name) == "Available")
    assert list(tmp_path.iterdir()) == []
    cluster.kubectl("delete", "pv", name)


def provisioned(cluster: Instance, namespace: str, name: str) -> Path:
    """The directory of the volume that was made for a claim."""
    made = cluster.get("pvc", name, "-n", namespace)["spec"]["volumeName"]
    return Path(cluster.get("pv", made)["spec"]["hostPath"]["path"])


def immediate(name: str) -> Any:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "wherry.io/local-path",
        "allowVolumeExpansion": True,
    }


def test_a_provisioned_volume_is_made_grown_and_removed(cluster: Instance, namespace: str) -> None:
    name = f"{namespace}-fast"
    apply(cluster, immediate(name), claim(namespace, "c", name))
    eventually(lambda: phase(cluster, "pvc", "c", "-n", namespace) == "Bound")
    make(
        cluster,
        namespace,
        "p",
        mounts=MOUNT,
        volumes=claimed("c"),
        securityContext={"runAsUser": 1000},
    )
    ready(cluster, namespace, "p")
    run_in(cluster, namespace, "p", "echo x > /data/f")
    directory = provisioned(cluster, namespace, "c")
    assert directory.is_relative_to(cluster.data_dir)
    assert (directory / "f").read_text() == "x\n"
    wanted = '{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}'
    cluster.kubectl("-n", namespace, "patch", "pvc", "c", "-p", wanted)

    def capacity() -> bool:
        status = cluster.get("pvc", "c", "-n", namespace)["status"]
        return bool(status["capacity"]["storage"] == "3Gi")

    eventually(capacity)
    cluster.kubectl("-n", namespace, "delete", "pod", "p")
    cluster.kubectl("-n", namespace, "delete", "pvc", "c")
    eventually(lambda: not directory.exists())
    cluster.kubectl("delete", "storageclass", name)


def test_the_claims_of_a_stateful_set_outlive_its_pods(cluster: Instance, namespace: str) -> None:
    name = f"{namespace}-set"
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["sh", "-c", f"hostname >> /data/f; {FOREVER}"],
        "volumeMounts": MOUNT,
    }
    template = claim(namespace, "data", name)
    del template["metadata"]["namespace"]
    wanted = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": namespace},
        "spec": {
            "serviceName": "db",
            "replicas": 2,
            "selector": {"matchLabels": {"app": "db"}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 2},
            },
            "volumeClaimTemplates": [template],
        },
    }
    apply(cluster, immediate(name), wanted)
    kubectl = cluster.kubectl
    kubectl("-n", namespace, "rollout", "status", "statefulset/db", "--timeout=110s")
    found = lambda pod: run_in(cluster, namespace, pod, "cat /data/f")  # noqa: E731
    eventually(lambda: found("db-1") == "db-1\n")
    kubectl("-n", namespace, "delete", "pod", "db-1")
    eventually(lambda: kubectl("-n", namespace, "get", "pod", "db-1", "--ignore-not-found").out)
    ready(cluster, namespace, "db-1")
    eventually(lambda: found("db-1") == "db-1\ndb-1\n")
    assert found("db-0") == "db-0\n"
    directory = provisioned(cluster, namespace, "data-db-0")
    kubectl("-n", namespace, "delete", "statefulset", "db")
    eventually(lambda: not cluster.get("pvc", "-n", namespace)["items"])
    eventually(lambda: not directory.exists())
    kubectl("delete", "storageclass", name)


def test_a_pod_has_a_claim_of_its_own(cluster: Instance, namespace: str) -> None:
    name = f"{namespace}-own"
    template = {"spec": claim(namespace, "x", name)["spec"]}
    apply(cluster, immediate(name))
    make(
        cluster,
        namespace,
        "p",
        mounts=MOUNT,
        volumes=[{"name": "data", "ephemeral": {"volumeClaimTemplate": template}}],
    )
    ready(cluster, namespace, "p")
    run_in(cluster, namespace, "p", "echo x > /data/f")
    assert (provisioned(cluster, namespace, "p-data") / "f").exists()
    cluster.kubectl("-n", namespace, "delete", "pod", "p")
    eventually(lambda: not cluster.get("pvc", "-n", namespace)["items"])
    cluster.kubectl("delete", "storageclass", name)


def test_a_claim_of_the_default_class_waits_for_its_first_pod(
    cluster: Instance, namespace: str
) -> None:
    apply(cluster, claim(namespace, "c", None))
    waiting = "waiting for first consumer to be created before binding"

    def events() -> str:
        return cluster.kubectl("-n", namespace, "events", "--for", "pvc/c").out

    eventually(lambda: waiting in events())
    assert phase(cluster, "pvc", "c", "-n", namespace) == "Pending"
    make(cluster, namespace, "p", mounts=MOUNT, volumes=claimed("c"))
    ready(cluster, namespace, "p")
    run_in(cluster, namespace, "p", "echo x > /data/f")
    directory = provisioned(cluster, namespace, "c")
    assert directory.is_relative_to(cluster.data_dir)
    cluster.kubectl("-n", namespace, "delete", "pod", "p")
    cluster.kubectl("-n", namespace, "delete", "pvc", "c")
    eventually(lambda: not directory.exists())
