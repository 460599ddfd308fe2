"""What a kubelet may read and write: the Node authorizer and NodeRestriction."""

from __future__ import annotations

from typing import Any

import pytest
from apiserver_harness import API, Object, config_map, pod

from wherry.kube.api.errors import StatusError
from wherry.kube.apiserver.authn import known
from wherry.kube.apiserver.server import APIServer

NODE = known("system:node:n1", ("system:nodes",))
STORAGE = "/apis/storage.k8s.io/v1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@pytest.fixture
def kubelet(server: APIServer) -> API:
    return API(server.transport(NODE))


async def refused(call: Any) -> str:
    with pytest.raises(StatusError) as failure:
        await call
    assert failure.value.code == 403, failure.value
    return failure.value.message.partition(": ")[2]


def node(name: str = "n1", **metadata: Any) -> Object:
    return {"kind": "Node", "metadata": {"name": name, **metadata}}


VOLUMES = [
    {"name": "s", "secret": {"secretName": "volume"}},
    {"name": "c", "configMap": {"name": "c"}},
    {"name": "p", "persistentVolumeClaim": {"claimName": "claim"}},
    {"name": "j", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
]
CONTAINERS = [
    {
        "name": "c",
        "image": "i",
        "envFrom": [{"secretRef": {"name": "from"}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
    }
]


async def place(api: API, name: str = "web", on: str = "n1", **spec: Any) -> Object:
    return await api("POST", "pods", pod(name, nodeName=on, **spec))


async def test_secrets_and_config_maps_of_its_pods(api: API, kubelet: API) -> None:
    for name in ("volume", "projected", "from", "key", "pull", "other"):
        await api("POST", "secrets", {"metadata": {"name": name}})
    await api("POST", "configmaps", config_map())
    assert await refused(kubelet("GET", "secrets/volume")) == (
        'User "system:node:n1" cannot get resource "secrets" in API group "" in the namespace '
        "\"default\": no relationship found between node 'n1' and this object"
    )
    pull = [{"name": "pull"}]
    await place(api, volumes=VOLUMES, containers=CONTAINERS, imagePullSecrets=pull)
    for name in ("volume", "projected", "from", "key", "pull"):
        await kubelet("GET", f"secrets/{name}")
    await kubelet("GET", "secrets", fieldSelector="metadata.name=volume")
    await kubelet("GET", "configmaps/c")
    await refused(kubelet("GET", "secrets/other"))
    assert (await refused(kubelet("GET", "secrets"))).endswith("No Object name found")
    whole = await refused(kubelet("GET", "/api/v1/secrets"))
    assert whole.endswith("can only read namespaced object of this type")
    await api("DELETE", "pods/web", gracePeriodSeconds="0")
    await refused(kubelet("GET", "secrets/volume"))


async def test_pods_of_others_are_none_of_its_business(api: API, kubelet: API) -> None:
    await api("POST", "secrets", {"metadata": {"name": "volume"}})
    await place(api, "other", on="n2", volumes=VOLUMES[:1])
    await refused(kubelet("GET", "secrets/volume"))
    await refused(kubelet("GET", "pods/other"))
    text = "can only list/watch pods with spec.nodeName field selector"
    assert (await refused(kubelet("GET", "/api/v1/pods"))).endswith(text)
    await refused(kubelet("GET", "/api/v1/pods", fieldSelector="spec.nodeName=n2"))
    await place(api)
    own = await kubelet("GET", "/api/v1/pods", fieldSelector="spec.nodeName=n1")
    assert [item["metadata"]["name"] for item in own["items"]] == ["web"]
    await kubelet("GET", "pods/web")
    assert (await refused(kubelet("DELETE", "pods/other"))).endswith(
        'node "n1" can only delete pods with spec.nodeName set to itself'
    )


async def test_claims_volumes_and_their_secrets(api: API, kubelet: API) -> None:
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    await api("POST", "/api/v1/namespaces/kube-system/secrets", {"metadata": {"name": "csi"}})
    await api(
        "POST",
        "/api/v1/persistentvolumes",
        {
            "metadata": {"name": "v"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "claimRef": {"namespace": "default", "name": "claim"},
                "csi": {
                    "driver": "d",
                    "volumeHandle": "h",
                    "nodeStageSecretRef": {"name": "csi", "namespace": "kube-system"},
                },
            },
        },
    )
    await api(
        "POST",
        claims,
        {
            "metadata": {"name": "claim"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "volumeName": "v",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    )
    await refused(kubelet("GET", f"{claims}/claim"))
    await refused(kubelet("GET", "/api/v1/persistentvolumes/v"))
    await place(api, volumes=VOLUMES[2:3])
    await kubelet("GET", f"{claims}/claim")
    await kubelet("GET", "/api/v1/persistentvolumes/v")
    await kubelet("GET", "/api/v1/namespaces/kube-system/secrets/csi")
    text = "can only get individual resources of this type"
    assert (await refused(kubelet("GET", claims))).endswith(text)


async def test_its_own_node_and_leases(api: API, kubelet: API) -> None:
    await kubelet("POST", "nodes", node())
    await kubelet("GET", "nodes/n1")
    await api("POST", "nodes", node("n2"))
    own = "only its own Node object"
    assert (await refused(kubelet("GET", "nodes"))).endswith(f"cannot read all nodes, {own}")
    assert (await refused(kubelet("GET", "nodes/n2"))).endswith(f"cannot read 'n2', {own}")
    text = 'node "n1" is not allowed to modify node "n2"'
    assert await refused(kubelet.merge("nodes/n2", {"metadata": {"labels": {"a": "b"}}})) == text
    await refused(kubelet("DELETE", "nodes/n1"))
    await kubelet("POST", LEASES, {"metadata": {"name": "n1"}, "spec": {}})
    await kubelet("GET", f"{LEASES}/n1")
    await refused(kubelet("POST", LEASES, {"metadata": {"name": "n2"}, "spec": {}}))
    await refused(kubelet("GET", f"{LEASES}/n2"))
    await kubelet(
        "POST", f"{STORAGE}/csinodes", {"metadata": {"name": "n1"}, "spec": {"drivers": []}}
    )
    await refused(
        kubelet("POST", f"{STORAGE}/csinodes", {"metadata": {"name": "x"}, "spec": {"drivers": []}})
    )


@pytest.mark.parametrize(
    ("label", "forbidden"),
    [
        ("mine", False),
        ("example.com/x", False),
        ("kubernetes.io/hostname", False),
        ("node.kubernetes.io/anything", False),
        ("x.kubelet.kubernetes.io/anything", False),
        ("node-restriction.kubernetes.io/x", True),
        ("kubernetes.io/other", True),
        ("x.k8s.io/other", True),
        ("node-role.kubernetes.io/control-plane", True),
    ],
)
async def test_labels_that_draw_pods_are_not_its_to_set(
    api: API, kubelet: API, label: str, forbidden: bool
) -> None:
    patch = {"metadata": {"labels": {label: "x"}}}
    await api("POST", "nodes", node())
    if forbidden:
        text = f"is not allowed to modify labels: {label}"
        assert await refused(kubelet.merge("nodes/n1", patch)) == text
    else:
        await kubelet.merge("nodes/n1", patch)


async def test_taints_and_owners_are_not_its_to_change(api: API, kubelet: API) -> None:
    await api("POST", "nodes", node())
    taints = {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}
    text = 'node "n1" is not allowed to modify taints'
    assert await refused(kubelet.merge("nodes/n1", taints)) == text
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "u"}
    patch = {"metadata": {"ownerReferences": [owner]}}
    text = 'node "n1" is not allowed to modify ownerReferences'
    assert await refused(kubelet.merge("nodes/n1", patch)) == text


async def test_it_creates_mirrors_of_its_own_pods_that_refer_to_nothing(
    api: API, kubelet: API
) -> None:
    made = await api("POST", "nodes", node())
    owner = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": "n1",
        "uid": made["metadata"]["uid"],
        "controller": True,
    }

    def mirror(name: str, owners: list[Object], **spec: Any) -> Object:
        made = pod(name, nodeName="n1", **spec)
        made["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
        made["metadata"]["ownerReferences"] = owners
        return made

    await kubelet("POST", "pods", mirror("fine", [owner]))
    assert (await refused(kubelet("POST", "pods", pod("plain", nodeName="n1")))).startswith(
        'pod does not have "kubernetes.io/config.mirror" annotation'
    )
    text = 'node "n1" can only create pods with an owner reference set to itself'
    assert await refused(kubelet("POST", "pods", mirror("x", []))) == text
    wanting = mirror("x", [owner], volumes=VOLUMES[:1])
    assert (await refused(kubelet("POST", "pods", wanting))).endswith("reference secrets")
    claims = [{"name": "c", "resourceClaimName": "c"}]
    text = 'node "n1" can not create pods that reference resourceclaims'
    assert (
        await refused(kubelet("POST", "pods", mirror("x", [owner], resourceClaims=claims))) == text
    )
    await api("POST", "secrets", {"metadata": {"name": "volume"}})
    await refused(kubelet("GET", "secrets/volume"))


async def test_tokens_only_for_its_pods(api: API, kubelet: API) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    body: Object = {"spec": {}}
    await refused(kubelet("POST", f"{accounts}/default/token", body))
    made = await place(api)
    text = "node requested token not bound to a pod"
    assert await refused(kubelet("POST", f"{accounts}/default/token", body)) == text
    uid = made["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid}
    await kubelet("POST", f"{accounts}/default/token", {"spec": {"boundObjectRef": reference}})
    wrong = {"spec": {"boundObjectRef": {**reference, "uid": "other"}}}
    assert "does not match the UID" in await refused(
        kubelet("POST", f"{accounts}/default/token", wrong)
    )
    vault = {"spec": {"boundObjectRef": reference, "audiences": ["vault"]}}
    assert await refused(kubelet("POST", f"{accounts}/default/token", vault)) == (
        'audience "vault" not found in pod spec volume, system:node:n1 is not authorized to '
        "request tokens for this audience"
    )
