"""What a pod is told of itself and its surroundings, and the group of its files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from conftest import Instance, eventually
from test_kubelet_pods import make, ready, run_in


def test_variables_come_from_fields_resources_objects_and_each_other(
    cluster: Instance, namespace: str
) -> None:
    cluster.kubectl(
        "-n", namespace, "create", "configmap", "cm", "--from-literal=one=1",
        "--from-literal=two=2", "--from-literal=not-a.name=3",
    )  # fmt: skip
    cluster.kubectl("-n", namespace, "create", "secret", "generic", "sec", "--from-literal=k=v")

    def field(path: str) -> dict[str, Any]:
        return {"valueFrom": {"fieldRef": {"fieldPath": path}}}

    def resource(name: str, **more: Any) -> dict[str, Any]:
        return {"valueFrom": {"resourceFieldRef": {"resource": name, **more}}}

    variables: dict[str, dict[str, Any]] = {
        "NAME": field("metadata.name"),
        "SPACE": field("metadata.namespace"),
        "UID_": field("metadata.uid"),
        "LABEL": field("metadata.labels['pod']"),
        "NODE": field("spec.nodeName"),
        "ACCOUNT": field("spec.serviceAccountName"),
        "POD_IP": field("status.podIP"),
        "HOST_IP": field("status.hostIP"),
        "CPU": resource("limits.cpu", divisor="1m"),
        "MEMORY": resource("requests.memory", divisor="1Mi"),
        "OTHERS": resource("limits.memory", containerName="other"),
        "CONFIG": {"valueFrom": {"configMapKeyRef": {"name": "cm", "key": "one"}}},
        "SECRET": {"valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}},
        "ABSENT": {"valueFrom": {"secretKeyRef": {"name": "sec", "key": "no", "optional": True}}},
        "FIRST": {"value": "a"},
        "SECOND": {"value": "$(FIRST)b $$(FIRST) $(NONE) $(CM_two)"},
    }
    main = {
        "name": "main",
        "image": "hello:1",
        "command": ["sh", "-c", 'echo "$0 $1"; exec sleep 1000', "$(SECOND)", "$$(SECOND)"],
        "env": [{"name": name, **value} for name, value in variables.items()],
        "envFrom": [
            {"prefix": "CM_", "configMapRef": {"name": "cm"}},
            {"secretRef": {"name": "nowhere", "optional": True}},
        ],
        "resources": {"limits": {"cpu": "250m"}, "requests": {"memory": "32Mi"}},
    }
    other = {
        "name": "other",
        "image": "hello:1",
        "command": ["sleep", "1000"],
        "resources": {"limits": {"memory": "48Mi"}},
    }
    make(cluster, namespace, "told", containers=[main, other])
    pod = ready(cluster, namespace, "told")
    words = ("-n", namespace, "exec", "told", "-c", "main", "--", "env")
    found = dict(line.split("=", 1) for line in cluster.kubectl(*words).out.splitlines())
    expected = {
        "NAME": "told", "SPACE": namespace, "UID_": pod["metadata"]["uid"], "LABEL": "told",
        "NODE": pod["spec"]["nodeName"], "ACCOUNT": "default",
        "POD_IP": pod["status"]["podIP"], "HOST_IP": pod["status"]["hostIP"],
        "CPU": "250", "MEMORY": "32", "OTHERS": str(48 << 20),
        "CONFIG": "1", "SECRET": "v", "FIRST": "a", "SECOND": "ab $(FIRST) $(NONE) 2",
        "CM_one": "1", "CM_two": "2", "CM_not-a.name": "3",
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected
    assert "ABSENT" not in found
    said = lambda: cluster.kubectl("-n", namespace, "logs", "told", "-c", "main").out  # noqa: E731
    assert eventually(said) == "ab $(FIRST) $(NONE) 2 $(SECOND)\n"


def test_each_policy_has_the_name_servers_that_it_means(cluster: Instance, namespace: str) -> None:
    more = {
        "dnsConfig": {"searches": ["more.example"], "options": [{"name": "ndots", "value": "3"}]}
    }
    make(cluster, namespace, "first")
    make(cluster, namespace, "hosts", dnsPolicy="Default")
    make(cluster, namespace, "both", dnsPolicy="ClusterFirstWithHostNet", hostNetwork=True)
    make(cluster, namespace, "falls", hostNetwork=True)  # ClusterFirst, which is then Default
    make(cluster, namespace, "added", **more)
    for name in ("first", "hosts", "both", "falls", "added"):
        ready(cluster, namespace, name)
    said = {
        name: run_in(cluster, namespace, name, "cat /etc/resolv.conf")
        for name in ("first", "hosts", "both", "falls", "added")
    }
    service = cluster.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
    assert f"nameserver {service}\n" in said["first"]
    assert f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local" in said["first"]
    assert "options ndots:5" in said["first"]
    assert said["both"] == said["first"]
    assert service not in said["hosts"] and said["falls"] == said["hosts"]
    (search,) = [line for line in said["added"].splitlines() if line.startswith("search ")]
    assert search.endswith(" more.example") and "options ndots:3" in said["added"]


def test_files_are_given_to_the_group_always_or_where_the_root_is_not_right(
    cluster: Instance, namespace: str, tmp_path: Path
) -> None:
    """With ``OnRootMismatch`` a volume whose root is right is not walked again."""
    (node,) = cluster.get("nodes")["items"]
    terms = [
        {
            "matchFields": [
                {"key": "metadata.name", "operator": "In", "values": [node["metadata"]["name"]]}
            ]
        }
    ]
    tmp_path.chmod(0o755)
    (tmp_path / "old").write_text("")
    name = f"{namespace}-group"
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": name}
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            **common, "capacity": {"storage": "1Gi"}, "local": {"path": str(tmp_path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        },
    }  # fmt: skip
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": namespace},
        "spec": {**common, "resources": {"requests": {"storage": "1Gi"}}},
    }  # fmt: skip
    for made in (volume, claim):
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))

    def run(pod: str, policy: str) -> None:
        make(
            cluster, namespace, pod,
            container={"volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
            securityContext={"fsGroup": 4321, "fsGroupChangePolicy": policy, "runAsUser": 1000},
        )  # fmt: skip
        ready(cluster, namespace, pod)
        run_in(cluster, namespace, pod, f"echo x > /v/{pod}")
        cluster.kubectl("-n", namespace, "delete", "pod", pod)

    def groups() -> dict[str, int]:
        return {path.name: path.stat().st_gid for path in tmp_path.iterdir()}

    run("mismatch", "OnRootMismatch")  # the root is not right: all is walked
    assert groups() == {"old": 4321, "mismatch": 4321}
    assert tmp_path.stat().st_mode & 0o2070 == 0o2070
    (tmp_path / "foreign").write_text("")
    os.chown(tmp_path / "foreign", 0, 0)
    run("right", "OnRootMismatch")
    assert groups()["foreign"] == 0 and groups()["right"] == 4321
    run("always", "Always")
    assert groups()["foreign"] == 4321
    cluster.kubectl("-n", namespace, "delete", "pvc", "c")
    cluster.kubectl("delete", "pv", name)
