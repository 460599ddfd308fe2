"""Namespaces, owners, roles, endpoints, protected volumes and nodes, as kubectl shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Instance, eventually
from kubectl_space import Space, new_space, template, workload

UNREACHABLE = "node.kubernetes.io/unreachable"


@pytest.fixture
def kubectl(cluster: Instance) -> Iterator[Space]:
    with new_space(cluster) as space:
        yield space


def owned(name: str, uid: str) -> Any:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    metadata = {"name": name, "ownerReferences": [{**owner, "blockOwnerDeletion": True}]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def test_a_namespace_has_its_account_and_authority(kubectl: Space) -> None:
    eventually(lambda: kubectl("get", "serviceaccount", "default", ok=False).code == 0)
    eventually(lambda: kubectl("get", "configmap", "kube-root-ca.crt", ok=False).code == 0)
    kubectl("delete", "serviceaccount", "default")
    kubectl("delete", "configmap", "kube-root-ca.crt")
    eventually(lambda: kubectl("get", "serviceaccount", "default", ok=False).code == 0)
    eventually(lambda: kubectl("get", "configmap", "kube-root-ca.crt", ok=False).code == 0)


def test_a_namespace_says_what_keeps_it(cluster: Instance) -> None:
    with new_space(cluster) as kubectl:
        held = {"name": "held", "finalizers": ["example.com/held"]}
        kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": held})
        what = f"namespace/{kubectl.namespace}"
        kubectl("delete", what, "--wait=false")
        eventually(
            lambda: kubectl.condition(what, "NamespaceFinalizersRemaining").get("status") == "True"
        )
        assert kubectl.get(what)["status"]["phase"] == "Terminating"
        assert (
            kubectl.condition(what, "NamespaceContentRemaining")["reason"] == "SomeResourcesRemain"
        )
        kubectl.patch("configmap/held", {"metadata": {"finalizers": None}})
        kubectl("wait", "--for=delete", what, "--timeout=110s")


def test_dependents_go_with_their_owner_or_without_it(kubectl: Space) -> None:
    kubectl("create", "configmap", "owner")
    uid = kubectl.get("configmap/owner")["metadata"]["uid"]
    kubectl.apply(owned("mine", uid), owned("nobodys", "0b5c6f9e-0000-4000-8000-000000000000"))
    kubectl("wait", "--for=delete", "configmap/nobodys", "--timeout=110s")
    assert kubectl.get("configmap/mine")
    kubectl("delete", "configmap", "owner", "--cascade=foreground")
    assert kubectl("get", "configmap", "mine", ok=False).code != 0, "it went before its owner"


def test_a_role_is_made_of_others(kubectl: Space) -> None:
    name = kubectl.namespace
    label = {f"to-{name}": "yes"}
    rules = {"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["its"]}
    api = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    whole = {"clusterRoleSelectors": [{"matchLabels": label}]}
    kubectl.apply(
        {**api, "metadata": {"name": f"{name}-all"}, "aggregationRule": whole, "rules": []},
        {**api, "metadata": {"name": f"{name}-part", "labels": label}, "rules": [rules]},
    )
    eventually(lambda: kubectl.get(f"clusterrole/{name}-all")["rules"] == [rules])
    kubectl("delete", "clusterrole", f"{name}-part")
    eventually(lambda: not kubectl.get(f"clusterrole/{name}-all").get("rules"))
    kubectl("delete", "clusterrole", f"{name}-all")


def test_addresses_are_published_when_ready_or_when_wished(kubectl: Space) -> None:
    pods = template("slow")
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    pods["spec"]["containers"][0]["readinessProbe"] = never
    service = {"selector": {"app": "slow"}, "ports": [{"port": 80}]}
    api = {"apiVersion": "v1", "kind": "Service"}
    kubectl.apply(
        workload("Deployment", "slow", replicas=1, template=pods),
        {**api, "metadata": {"name": "patient"}, "spec": service},
        {
            **api,
            "metadata": {"name": "eager"},
            "spec": {**service, "publishNotReadyAddresses": True},
        },
    )

    def subsets(name: str) -> Any:
        listed = kubectl.get("endpoints", f"--field-selector=metadata.name={name}")["items"]
        subsets = [subset for each in listed for subset in each.get("subsets") or ()]
        return tuple(
            sum(len(subset.get(which) or ()) for subset in subsets)
            for which in ("addresses", "notReadyAddresses")
        )

    eventually(lambda: subsets("eager") == (1, 0))
    eventually(lambda: subsets("patient") == (0, 1))


def test_a_volume_is_chosen_by_name_and_labels_kept_while_used_and_then_released(
    kubectl: Space,
) -> None:
    name = kubectl.namespace

    def volume(suffix: str, size: str) -> Any:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{name}-{suffix}", "labels": {"disk": f"{name}-{suffix}"}},
            "spec": {
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": name,
                "hostPath": {"path": "/nonexistent"},
            },
        }

    def claim(claimed: str, mode: str = "ReadWriteOnce", **spec: Any) -> Any:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claimed},
            "spec": {
                "accessModes": [mode],
                "resources": {"requests": {"storage": "1Gi"}},
                "storageClassName": name,
                **spec,
            },
        }

    def bound(claimed: str) -> str:
        found = kubectl.get(f"pvc/{claimed}")
        return str(found["spec"].get("volumeName") if found["status"]["phase"] == "Bound" else "")

    kubectl.apply(volume("small", "1Gi"), volume("big", "5Gi"), volume("named", "9Gi"))
    kubectl.apply(claim("shared", "ReadWriteMany"))
    kubectl.apply(claim("named", volumeName=f"{name}-named"))
    kubectl.apply(claim("labelled", selector={"matchLabels": {"disk": f"{name}-big"}}))
    eventually(lambda: bound("named") == f"{name}-named")
    eventually(lambda: bound("labelled") == f"{name}-big")
    kubectl.apply(claim("any"))
    eventually(lambda: bound("any") == f"{name}-small")
    assert kubectl.get("pvc/shared")["status"]["phase"] == "Pending", "no volume has its mode"

    used = f"pv/{name}-small"
    kubectl("delete", used, "--wait=false")
    assert "Terminating" in kubectl("get", used).out
    kubectl("delete", "pvc", "any")
    kubectl("wait", "--for=delete", used, "--timeout=110s")
    kubectl("delete", "pvc", "named")
    eventually(lambda: kubectl.get(f"pv/{name}-named")["status"]["phase"] == "Released")
    kubectl("delete", "pvc", "--all")
    kubectl("delete", "pv", f"{name}-big", f"{name}-named")


def test_a_silent_node_loses_its_pods_and_recovers(new_instance: Callable[[], Instance]) -> None:
    instance = new_instance()
    options = ("node-monitor-grace-period=15s", "terminated-pod-gc-threshold=1")
    instance.wherry("up", *(word for o in options for word in ("--controller-arg", o)))
    try:
        with new_space(instance) as kubectl:
            eventually(lambda: kubectl("get", "serviceaccount", "default", ok=False).code == 0)
            kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ghost"}})
            status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
            kubectl.patch("node/ghost", status, "--subresource=status")
            eventually(lambda: not kubectl.get("node/ghost")["spec"].get("taints"))
            containers = [{"name": "c", "image": "x"}]
            tolerations = [
                {
                    "key": UNREACHABLE,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 1,
                },
            ]
            spec = {"nodeName": "ghost", "containers": containers, "tolerations": tolerations}
            pod = {"apiVersion": "v1", "kind": "Pod", "spec": spec}
            names = ("p", "done-1", "done-2")
            kubectl.apply(*({**pod, "metadata": {"name": name}} for name in names))
            for name in ("done-1", "done-2"):
                done = {"status": {"phase": "Succeeded"}}
                kubectl.patch(f"pod/{name}", done, "--subresource=status")
            eventually(
                lambda: kubectl.condition("node/ghost", "Ready")["status"] == "Unknown", seconds=60
            )
            assert "NotReady" in kubectl("get", "node", "ghost").out

            def keys() -> set[tuple[str, str]]:
                taints = kubectl.get("node/ghost")["spec"].get("taints") or ()
                return {(taint["key"], taint["effect"]) for taint in taints}

            wanted = {(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")}
            eventually(lambda: wanted <= keys())
            eventually(lambda: "deletionTimestamp" in kubectl.get("pod/p")["metadata"])
            eventually(lambda: "TaintManagerEviction" in kubectl.reasons("p"))
            kubectl.patch("node/ghost", status, "--subresource=status")
            eventually(lambda: not kubectl.get("node/ghost")["spec"].get("taints"))
            kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
    finally:
        instance.wherry("down", "--purge", ok=False)
