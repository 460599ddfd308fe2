"""The small plugins: what the cluster adds to claims, Ingresses, nodes and pods."""

from __future__ import annotations

from typing import Any

import pytest
from apiserver_harness import API, pod

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.admission.tolerations import covers, merge, within

STORAGE = "/apis/storage.k8s.io/v1/storageclasses"
INGRESSES = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
RUNTIMES = "/apis/node.k8s.io/v1/runtimeclasses"
DEFAULT = {"storageclass.kubernetes.io/is-default-class": "true"}


def claim(size: str = "1Gi", **spec: Any) -> Any:
    resources = {"requests": {"storage": size}}
    return {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": resources, **spec},
    }


async def storage_class(api: API, name: str, expandable: bool = False, **annotations: str) -> None:
    metadata = {"name": name, "annotations": annotations}
    body = {"metadata": metadata, "provisioner": "p", "allowVolumeExpansion": expandable}
    await api("POST", STORAGE, body)


async def test_a_claim_gets_the_default_class_and_a_finalizer(api: API) -> None:
    await storage_class(api, "slow")
    await storage_class(api, "fast", **DEFAULT)
    made = await api("POST", "persistentvolumeclaims", claim())
    assert made["spec"]["storageClassName"] == "fast"
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]


async def test_a_claim_that_wants_no_class_gets_none(api: API) -> None:
    await storage_class(api, "fast", **DEFAULT)
    made = await api("POST", "persistentvolumeclaims", claim(storageClassName=""))
    assert made["spec"]["storageClassName"] == ""


async def test_a_claim_grows_only_where_its_class_can(api: API) -> None:
    await storage_class(api, "fixed")
    await storage_class(api, "elastic", expandable=True)
    await api("POST", "persistentvolumeclaims", claim(storageClassName="fixed", volumeName="v"))
    grown = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    path = "persistentvolumeclaims/data"
    with pytest.raises(StatusError, match=r"Forbidden|forbidden"):
        await api.merge(path, grown)
    await api.merge(f"{path}/status", {"status": {"phase": "Bound"}})
    with pytest.raises(
        StatusError, match="only dynamically provisioned pvc can be resized and the storageclass"
    ):
        await api.merge(path, grown)


async def test_an_ingress_gets_the_default_class(api: API) -> None:
    annotation = {"ingressclass.kubernetes.io/is-default-class": "true"}
    await api(
        "POST",
        "/apis/networking.k8s.io/v1/ingressclasses",
        {"metadata": {"name": "n", "annotations": annotation}, "spec": {"controller": "x.io/y"}},
    )
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    body = {"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}}
    assert (await api("POST", INGRESSES, body))["spec"]["ingressClassName"] == "n"
    own = {"name": "j", "annotations": {"kubernetes.io/ingress.class": "old"}}
    made = await api("POST", INGRESSES, {**body, "metadata": own})
    assert "ingressClassName" not in made["spec"]


async def test_a_new_node_is_not_ready(api: API) -> None:
    made = await api("POST", "nodes", {"metadata": {"name": "n1"}})
    assert made["spec"]["taints"] == [
        {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    ]


async def test_a_bound_pod_learns_its_zone(api: API) -> None:
    labels = {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "x": "y"}
    await api("POST", "nodes", {"metadata": {"name": "n1", "labels": labels}})
    await api("POST", "pods", pod())
    await api("POST", "pods/web/binding", {"target": {"kind": "Node", "name": "n1"}})
    bound = (await api("GET", "pods/web"))["metadata"]["labels"]
    assert bound["topology.kubernetes.io/zone"] == "z"
    assert bound["topology.kubernetes.io/region"] == "r"
    assert "x" not in bound
    placed = await api("POST", "pods", pod("placed", nodeName="n1"))
    assert placed["metadata"]["labels"]["topology.kubernetes.io/zone"] == "z"


async def test_a_runtime_class_adds_its_overhead_and_its_place(api: API) -> None:
    await api(
        "POST",
        RUNTIMES,
        {
            "metadata": {"name": "kata"},
            "handler": "kata",
            "overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {
                "nodeSelector": {"kata": "yes"},
                "tolerations": [{"key": "kata", "operator": "Exists"}],
            },
        },
    )
    made = await api("POST", "pods", pod(runtimeClassName="kata", nodeSelector={"a": "b"}))
    assert made["spec"]["overhead"] == {"cpu": "250m"}
    assert made["spec"]["nodeSelector"] == {"a": "b", "kata": "yes"}
    assert {"key": "kata", "operator": "Exists"} in made["spec"]["tolerations"]
    for spec, why in (
        ({"runtimeClassName": "none"}, 'pod rejected: RuntimeClass "none" not found'),
        (
            {"runtimeClassName": "kata", "overhead": {"cpu": "1"}},
            "Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        ({"overhead": {"cpu": "1"}}, "Pod Overhead set without corresponding RuntimeClass"),
        (
            {"runtimeClassName": "kata", "nodeSelector": {"kata": "no"}},
            r"conflict: runtimeClass.scheduling.nodeSelector\[kata\] = yes; "
            r"pod.spec.nodeSelector\[kata\] = no",
        ),
    ):
        with pytest.raises(StatusError, match=why):
            await api("POST", "pods", pod("other", **spec))


def test_the_wider_toleration_stays() -> None:
    narrow = {"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"}
    wide = {"key": "a", "operator": "Exists"}
    assert merge([narrow], [wide]) == [wide]
    assert merge([wide], [narrow]) == [wide]
    assert merge([narrow], [narrow]) == [narrow]
    assert covers({"operator": "Exists"}, narrow)
    short = {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
    assert not covers(short, {**short, "tolerationSeconds": 2})
    assert within([narrow], [])
    assert within([narrow], [wide])
    assert not within([wide], [narrow])
